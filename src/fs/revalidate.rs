//! Whether what is known of an inode still holds, for who has it and names nothing: `fstat(2)`, a working directory.

use nix::errno::Errno;

use super::inodes::Ino;
use super::names::Directory;
use super::{Fs, Result};
use crate::key::ROOT_INO;

impl Fs {
    /// Asks S3 about a node whose attributes are too old to be believed.
    pub(super) async fn revalidate(&self, ino: Ino) -> Result<()> {
        let (parent, name) = {
            let tree = self.tree.lock();
            let node = tree.get(ino).ok_or(Errno::ENOENT)?;
            if !node.linked || ino == ROOT_INO || self.is_fresh(node) {
                return Ok(());
            }
            (node.parent, node.name.clone())
        };
        if self.answers_itself(ino) {
            if let Some(outage) = self.listings.outage() {
                return Err(outage);
            }
            let listed = self.list_again(ino).await;
            self.listings.note_outcome(&listed);
            return listed;
        }
        match self.resolve(parent, &name).await? {
            Some(_) => Ok(()),
            None => Err(Errno::ESTALE.into()),
        }
    }

    /// Whether to list a directory itself, and not its parent: either tells that it is there, and who works in it
    /// asks for names in it next. One in each parent within the TTL does; where several are asked about,
    /// the parent's listing answers for all. A view's would have what it shows made, and that there is a bucket
    /// is known without asking.
    fn answers_itself(&self, ino: Ino) -> bool {
        let mut tree = self.tree.lock();
        let is_small = tree.directory_mut(ino).is_some_and(|directory| !directory.is_large);
        let (Some(key), Some(parent)) = (tree.key(ino), tree.get(ino).map(|node| node.parent)) else { return false };
        if !is_small || self.settings.layout.is_top(&key) || self.is_shown(&key) {
            return false;
        }
        let Some(above) = tree.directory_mut(parent) else { return false };
        !above.is_fresh(self.believed()) && above.may_answer_itself(self.settings.list_ttl)
    }

    async fn list_again(&self, ino: Ino) -> Result<()> {
        let _stable = self.namespace.read().await;
        let key = self.tree.lock().key(ino).ok_or(Errno::ESTALE)?;
        self.walks.work_in(&key);
        self.list_pages(ino, self.believed(), 1).await?;
        let (asked, parent, name) = {
            let tree = self.tree.lock();
            let node = tree.get(ino).ok_or(Errno::ESTALE)?;
            let nothing = node.directory.as_ref().filter(|_| node.etag.is_none() && !tree.is_held(ino));
            let Some(asked) = nothing.and_then(Directory::nothing_at) else { return Ok(()) };
            (asked, node.parent, node.name.clone())
        };
        self.lose(parent, &name, asked);
        Err(Errno::ESTALE.into())
    }
}
