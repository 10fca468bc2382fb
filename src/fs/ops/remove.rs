//! unlink, rmdir.

use std::ffi::OsStr;
use std::time::SystemTime;

use nix::errno::Errno;

use crate::bucket::ListRequest;
use crate::failpoint::{self, Failpoint};
use crate::fs::inodes::{Ino, Node};
use crate::fs::stat::FileKind;
use crate::fs::{Fs, Result};

impl Fs {
    /// `unlink(2)`: the name is gone when this returns, the object within a second (see
    /// [`crate::fs::removals`]) unless another client has written it meanwhile; who has the file open reads on.
    ///
    /// # Errors
    /// `EISDIR`, `ENOENT`, `EROFS`, and whatever S3 answers who asks for the name.
    pub async fn unlink(&self, parent: Ino, name: &OsStr) -> Result<()> {
        self.writable_at(parent)?;
        self.names_may_change_in(parent, name)?;
        let name = self.name_in(parent, name)?;
        let ino = self.resolve(parent, &name).await?.ok_or(Errno::ENOENT)?;
        self.writable_at(ino)?;
        let _stable = self.namespace.read().await;
        if self.tree.lock().get(ino).is_some_and(Node::is_directory) {
            return Err(Errno::EISDIR.into());
        }
        let content = self.content(ino);
        let _gate = match &content {
            Some(content) => Some(content.gate.lock().await),
            None => None,
        };
        if let Some(content) = &content {
            self.resolve_doubt(ino, content).await?;
        }
        self.permit_removal(&self.snapshot(ino)?).await?;
        self.keep_for_openers(ino).await?;
        let snapshot = self.snapshot(ino)?;
        self.keep_soon(parent, &name)?;
        if snapshot.etag.is_some() {
            let listens = snapshot.stat.kind == FileKind::File;
            let sent = content.as_ref().map(|content| content.doubts.lock().sent()).unwrap_or_default();
            self.remove_soon(&snapshot.key, snapshot.etag.as_ref(), sent, listens)?;
        }
        self.detach(parent, &name, ino, &snapshot.key).await
    }

    /// The object is gone, or noted to go: its name goes here.
    pub(super) async fn detach(&self, parent: Ino, name: &str, ino: Ino, key: &str) -> Result<()> {
        let content = self.content(ino);
        {
            let mut tree = self.tree.lock();
            if let Some(node) = tree.get_mut(ino) {
                node.stat.ctime = SystemTime::now();
                node.etag = None;
            }
            tree.unlink(parent, name);
        }
        self.index.remove(key);
        self.cache.forget(key);
        self.touch_directory(parent);
        self.drop_clean_content(ino);
        match content {
            Some(content) => self.undefer(ino, &content).await,
            None => Ok(()),
        }
    }

    /// `rmdir(2)`. Only the marker goes from the bucket: what another client has put into the directory
    /// since it was looked at stays, and with it the directory.
    ///
    /// # Errors
    /// `ENOTEMPTY` while S3 has any key below it, also one without a path.
    pub async fn rmdir(&self, parent: Ino, name: &OsStr) -> Result<()> {
        self.writable_at(parent)?;
        self.names_may_change_in(parent, name)?;
        let name = self.name_in(parent, name)?;
        let ino = self.resolve(parent, &name).await?.ok_or(Errno::ENOENT)?;
        self.writable_at(ino)?;
        let _stable = self.namespace.read().await;
        let noted = self.noted(ino);
        let _gate = match &noted {
            Some(noted) => Some(noted.gate.lock().await),
            None => None,
        };
        let key = self.empty_directory(ino).await?;
        let etag = self.marker_version(ino, noted.as_deref()).await?;
        self.keep_soon(parent, &name)?;
        // Also where S3 was told of it by nobody yet: another client may have made it as well.
        self.remove_soon(&key, etag.as_ref(), Vec::new(), false)?;
        failpoint::reach(Failpoint::RmdirNoted);
        if let Some(noted) = &noted {
            self.forget_noted(ino, noted);
        }
        self.detach(parent, &name, ino, &key).await
    }

    /// The key of a directory that has nothing in it, here or in S3.
    pub(super) async fn empty_directory(&self, ino: Ino) -> Result<String> {
        let (key, was_emptied) = {
            let tree = self.tree.lock();
            if !tree.get(ino).ok_or(Errno::ENOENT)?.is_directory() {
                return Err(Errno::ENOTDIR.into());
            }
            // What S3 does not have yet is in no listing.
            if tree.holds_held(ino) {
                return Err(Errno::ENOTEMPTY.into());
            }
            let directory = tree.get(ino).and_then(|node| node.directory.as_ref());
            let was_emptied = directory.is_some_and(|directory| directory.was_emptied(self.settings.list_ttl));
            (tree.key(ino).ok_or(Errno::ENOENT)?, was_emptied)
        };
        if was_emptied {
            return Ok(key);
        }
        let mut request =
            ListRequest { prefix: key.clone(), max_keys: Some(2), any_order: true, ..ListRequest::default() };
        loop {
            let page = self.bucket.list(&request).await?;
            if page.objects.iter().any(|object| object.key != key) {
                return Err(Errno::ENOTEMPTY.into());
            }
            if page.next.is_none() {
                return Ok(key);
            }
            // All but the marker is to go: there may be a great deal of that.
            (request.token, request.max_keys) = (page.next, None);
        }
    }
}
