//! mkdir, mknod, symlink: things that are whole as soon as they exist. In a write-back mount they are closed with
//! that, as files are, and S3 is told a moment later.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use nix::errno::Errno;
use nix::libc;

use super::Entry;
use super::read::MAX_LINK_BYTES;
use crate::bucket::{Condition, ETag, PutOptions};
use crate::error::Kind;
use crate::fs::content::Content;
use crate::fs::draft::Draft;
use crate::fs::inodes::{Ino, Node};
use crate::fs::noted::News;
use crate::fs::stat::{FileKind, Stat};
use crate::fs::{Caller, Fs, Result};
use crate::key::{MAX_KEY_BYTES, inode_number};

impl Fs {
    /// `mkdir(2)`: a zero-byte object `name/` that carries the directory's attributes. In a write-back mount
    /// S3 is told a moment later ([`crate::fs::noted`]).
    pub async fn mkdir(&self, parent: Ino, name: &OsStr, mode: u32, caller: Caller) -> Result<Entry> {
        let stat = self.new_stat(parent, FileKind::Directory, mode, caller)?;
        let entry = self.make(parent, name, stat, Bytes::new()).await?;
        if let Some(directory) = self.tree.lock().directory_mut(entry.ino) {
            directory.set_new();
        }
        Ok(entry)
    }

    /// `mknod(2)`: fifos, sockets and devices are zero-byte objects with their mode in the metadata.
    pub async fn mknod(&self, parent: Ino, name: &OsStr, mode: u32, rdev: u32, caller: Caller) -> Result<Entry> {
        let kind = FileKind::from_mode(mode);
        if mode & libc::S_IFMT != 0 && matches!(kind, FileKind::Directory | FileKind::Symlink) {
            return Err(Errno::EINVAL.into());
        }
        let device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
        let mut stat = self.new_stat(parent, kind, mode, caller)?;
        stat.rdev = if device { rdev } else { 0 };
        self.make(parent, name, stat, Bytes::new()).await
    }

    /// `symlink(2)`: an object whose body is the target.
    pub async fn symlink(&self, parent: Ino, name: &OsStr, target: &OsStr, caller: Caller) -> Result<Entry> {
        if target.len() as u64 >= MAX_LINK_BYTES {
            return Err(Errno::ENAMETOOLONG.into());
        }
        let mut stat = self.new_stat(parent, FileKind::Symlink, 0o777, caller)?;
        stat.size = target.len() as u64;
        self.make(parent, name, stat, Bytes::copy_from_slice(target.as_bytes())).await
    }

    async fn make(&self, parent: Ino, name: &OsStr, stat: Stat, body: Bytes) -> Result<Entry> {
        self.writable_at(parent)?;
        self.names_may_change_in(parent, name)?;
        let name = self.name_in(parent, name)?;
        if self.resolve(parent, &name).await?.is_some() {
            return Err(Errno::EEXIST.into());
        }
        let _stable = self.namespace.read().await;
        let directory = stat.kind == FileKind::Directory;
        let above = self.tree.lock().key(parent).ok_or(Errno::ENOENT)?;
        let key = format!("{above}{name}{}", if directory { "/" } else { "" });
        if key.len() > MAX_KEY_BYTES {
            return Err(Errno::ENAMETOOLONG.into());
        }
        let metadata = stat.to_attributes(None).to_metadata()?;
        let options = PutOptions { metadata, condition: Condition::IfAbsent, ..PutOptions::default() };
        let is_noted = directory && self.may_note_new(&key);
        let content = if directory { None } else { self.content_of_new(&key, &body)? };
        let waits = is_noted || content.is_some();
        let etag = if waits { None } else { Some(self.put_new(&key, body, &options).await?) };
        let _gate = match &content {
            Some(content) => Some(content.gate.lock().await),
            None => None,
        };
        let ino = {
            let mut tree = self.tree.lock();
            let ino = tree.pick_ino(&key, None);
            let mut node = Node::new(ino, parent, &name, stat, Instant::now());
            node.content.clone_from(&content);
            tree.link(node);
            ino
        };
        match (etag, &content) {
            (Some(etag), _) => self.stored(ino, &key, &etag),
            (None, Some(content)) => self.close_made(parent, &name, ino, content).await?,
            (None, None) => self.note_made(parent, &name, ino, &key)?,
        }
        self.touch_directory(parent);
        self.enter(ino)
    }

    async fn put_new(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<ETag> {
        match self.bucket.put(key, body, options).await {
            Err(error) if error.kind == Kind::Changed => Err(Errno::EEXIST.into()),
            other => Ok(other?),
        }
    }

    /// The draft of what the uploader is to send; `None` where S3 is told at once.
    fn content_of_new(&self, key: &str, body: &Bytes) -> Result<Option<Arc<Content>>> {
        let Some(limits) = &self.settings.write_back else { return Ok(None) };
        if self.backlog.is_full_for(inode_number(key), limits, &self.settings.draft_dir) {
            return Ok(None);
        }
        let mut draft = Draft::create(&self.drafts, None)?;
        draft.write(0, body)?;
        Ok(Some(Arc::new(Content::emptied(draft))))
    }

    /// What was linked is closed, or not there. The caller holds its gate.
    async fn close_made(&self, parent: Ino, name: &str, ino: Ino, content: &Arc<Content>) -> Result<()> {
        let closed = self.close_gated(ino, content, None).await;
        if closed.is_err() {
            self.tree.lock().unlink(parent, name);
            self.drop_clean_content(ino);
        }
        closed
    }

    /// A directory that was linked is noted, or not there.
    fn note_made(&self, parent: Ino, name: &str, ino: Ino, key: &str) -> Result<()> {
        let noted = self.note_directory(ino, News::Made);
        match noted {
            Ok(()) => self.remember(ino, key, None),
            Err(_) => drop(self.tree.lock().unlink(parent, name)),
        }
        noted
    }
}
