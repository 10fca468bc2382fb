//! Changes of attributes that change nothing: Vim sets the mode of each file that it has saved to what it is,
//! `chmod -R` and `chown -R` those of most.
//!
//! S3 is told nothing then, since it keeps all of it. POSIX moves ctime by these too; that, like the ctime of a renamed
//! file, is known to this machine alone.

use super::Fs;
use super::inodes::{Ino, Tree};
use super::names::Seen;
use super::stat::Stat;
use crate::bucket::attributes::Attributes;

impl Fs {
    /// Moves ctime, if that is all that `change` does to a file of which S3 has everything. Else nothing is done.
    pub(super) async fn only_moves_ctime(&self, ino: Ino, change: impl Fn(&mut Stat)) -> bool {
        if self.unchanged(&self.tree.lock(), ino, &change).is_none() {
            return false;
        }
        // Another machine may have set something else. Where that cannot be asked, the change may still be noted.
        if self.revalidate(ino).await.is_err() {
            return false;
        }
        let _stable = self.namespace.read().await;
        let mut tree = self.tree.lock();
        let Some((key, stat)) = self.unchanged(&tree, ino, &change) else { return false };
        let Some(node) = tree.get_mut(ino) else { return false };
        node.stat.ctime = stat.ctime;
        let etag = node.etag.clone();
        self.remember_of(&tree, ino, &key, etag.as_ref());
        true
    }

    /// What a file is after a change by which S3 would learn nothing; with its key.
    ///
    /// What the index has of this version is what S3 keeps, and not what the mount's options say where S3 keeps
    /// nothing. Of a directory other times are known here than its marker has. What another program wrote becomes an
    /// object of ours, of which other mounts show what it carries.
    fn unchanged(&self, tree: &Tree, ino: Ino, change: impl Fn(&mut Stat)) -> Option<(String, Stat)> {
        let node = tree.get(ino).filter(|node| node.linked && !node.superseded && !node.is_directory())?;
        // What has a draft is not asked for: it is as it was stored here a moment ago, or nobody knows.
        if node.is_pending() || (node.is_drafted() && !self.is_fresh(node)) {
            return None;
        }
        let mut stat = node.stat.clone();
        change(&mut stat);
        // While S3 is being told something else, the index may still have what was before.
        if (Stat { ctime: node.stat.ctime, ..stat.clone() }) != node.stat {
            return None;
        }
        let child = tree.get(node.parent)?.directory.as_ref()?.child(&node.name)?;
        let is_theirs = |seen: &Seen| !seen.asks && node.etag.as_ref() == Some(&seen.etag);
        let key = tree.key(ino).filter(|_| !child.seen.as_ref().is_some_and(is_theirs))?;
        let kept = self.index.get(&key).filter(|kept| node.etag.is_some() && kept.etag == node.etag && !kept.untold)?;
        let Attributes { ctime, ino, op_id, .. } = kept.attributes.clone();
        let is_kept = Attributes { ctime, ino, op_id, ..stat.to_attributes(None) } == kept.attributes
            && stat.properties == kept.properties;
        is_kept.then_some((key, stat))
    }
}
