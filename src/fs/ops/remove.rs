//! unlink, rmdir.

use std::ffi::OsStr;
use std::time::SystemTime;

use nix::errno::Errno;

use crate::bucket::ListRequest;
use crate::failpoint::{self, Failpoint};
use crate::fs::inodes::{Ino, Node};
use crate::fs::persist::removed;
use crate::fs::stat::FileKind;
use crate::fs::{Fs, Result};
use crate::journal::Intent;

impl Fs {
    /// `unlink(2)`: the object is gone when this returns; who has the file open reads on.
    ///
    /// # Errors
    /// `EISDIR`, `ENOENT`, `EROFS`, and whatever S3 answers.
    pub async fn unlink(&self, parent: Ino, name: &OsStr) -> Result<()> {
        self.writable()?;
        let name = self.name_in(parent, name)?;
        let ino = self.resolve(parent, &name).await?.ok_or(Errno::ENOENT)?;
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
        self.keep_for_openers(ino).await?;
        self.keep_directory(parent, &name).await?;
        let snapshot = self.snapshot(ino)?;
        if snapshot.etag.is_some() {
            let listens = snapshot.stat.kind == FileKind::File;
            let key = snapshot.key.clone();
            let intent = if listens { self.intend(|| Intent::Remove { key }).await? } else { None };
            failpoint::reach(Failpoint::RemoveIntended);
            let deleted = self.bucket.delete(&snapshot.key).await;
            failpoint::reach(Failpoint::RemoveDeleted);
            let events = if deleted.is_ok() && listens { vec![removed(&snapshot.key)] } else { Vec::new() };
            self.settle(intent.as_slice(), events).await?;
            deleted?;
        }
        self.detach(parent, &name, ino, &snapshot.key).await
    }

    /// The name is gone from S3: it goes here.
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

    /// `rmdir(2)`.
    ///
    /// # Errors
    /// `ENOTEMPTY` while S3 has any key below it, also one without a path.
    pub async fn rmdir(&self, parent: Ino, name: &OsStr) -> Result<()> {
        self.writable()?;
        let name = self.name_in(parent, name)?;
        let ino = self.resolve(parent, &name).await?.ok_or(Errno::ENOENT)?;
        let _stable = self.namespace.read().await;
        let key = self.empty_directory(ino).await?;
        self.keep_directory(parent, &name).await?;
        self.bucket.delete(&key).await?;
        failpoint::reach(Failpoint::RmdirDeleted);
        self.detach(parent, &name, ino, &key).await
    }

    /// The key of a directory that has nothing in it, here or in S3.
    pub(super) async fn empty_directory(&self, ino: Ino) -> Result<String> {
        let key = {
            let tree = self.tree.lock();
            if !tree.get(ino).ok_or(Errno::ENOENT)?.is_directory() {
                return Err(Errno::ENOTDIR.into());
            }
            // What S3 does not have yet is in no listing.
            if !tree.drafted_children(ino).is_empty() {
                return Err(Errno::ENOTEMPTY.into());
            }
            tree.key(ino).ok_or(Errno::ENOENT)?
        };
        let request = ListRequest { prefix: key.clone(), max_keys: Some(2), ..ListRequest::default() };
        let page = self.bucket.list(&request).await?;
        if page.objects.iter().any(|object| object.key != key) {
            return Err(Errno::ENOTEMPTY.into());
        }
        Ok(key)
    }
}
