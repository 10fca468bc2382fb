//! getattr, setattr: `stat(2)`, `chmod(2)`, `chown(2)`, `utimensat(2)`, `truncate(2)`.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use nix::errno::Errno;

use super::Entry;
use crate::fs::inodes::Ino;
use crate::fs::stat::{FileKind, Stat};
use crate::fs::{Fs, Result};

/// Largest file: the largest object of S3 (AWS: "Amazon S3 multipart upload limits").
pub const MAX_FILE_BYTES: u64 = 5 << 40;

/// A time to set (`utimensat(2)`).
#[derive(Clone, Copy, Debug)]
pub enum NewTime {
    Now,
    At(SystemTime),
}

impl NewTime {
    fn resolve(self, now: SystemTime) -> SystemTime {
        match self {
            Self::Now => now,
            Self::At(time) => time,
        }
    }
}

/// What setattr is to change; `None` leaves a thing as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<NewTime>,
    pub mtime: Option<NewTime>,
}

impl SetAttr {
    fn changes_attributes(&self) -> bool {
        self.mode.is_some() || self.uid.is_some() || self.gid.is_some() || self.atime.is_some() || self.mtime.is_some()
    }

    fn apply(&self, stat: &mut Stat) {
        let now = SystemTime::now();
        if let Some(mode) = self.mode {
            stat.perm = (mode & 0o7777) as u16;
        }
        stat.uid = self.uid.unwrap_or(stat.uid);
        stat.gid = self.gid.unwrap_or(stat.gid);
        stat.atime = self.atime.map_or(stat.atime, |time| time.resolve(now));
        stat.mtime = self.mtime.map_or(stat.mtime, |time| time.resolve(now));
        stat.ctime = now;
    }
}

impl Fs {
    /// `stat(2)`, asking S3 when what we know is too old.
    pub async fn getattr(&self, ino: Ino) -> Result<Entry> {
        self.revalidate(ino).await?;
        self.entry(ino)
    }

    /// Changes attributes. Those of a directory are in S3 when this returns; those of a file ride in its
    /// upload while it is open for writing, and are noted and sent soon when it is closed.
    ///
    /// # Errors
    /// `EROFS`, `EISDIR`, `EFBIG`, `ENOSPC` when they do not fit into 2 KiB of metadata.
    pub async fn setattr(&self, ino: Ino, set: SetAttr) -> Result<Entry> {
        self.writable_at(ino)?;
        if let Some(size) = set.size {
            self.truncate(ino, size, set).await?;
        } else if set.changes_attributes() {
            self.change_attributes(ino, |stat| set.apply(stat)).await?;
        }
        self.entry(ino)
    }

    async fn truncate(&self, ino: Ino, size: u64, set: SetAttr) -> Result<()> {
        let kind = self.tree.lock().get(ino).ok_or(Errno::ESTALE)?.stat.kind;
        match kind {
            FileKind::File if size > MAX_FILE_BYTES => return Err(Errno::EFBIG.into()),
            FileKind::File => {}
            FileKind::Directory => return Err(Errno::EISDIR.into()),
            _ => return Err(Errno::EINVAL.into()),
        }
        self.revalidate(ino).await?;
        self.part_from_readers(ino)?;
        self.ensure_told(ino).await?;
        // Held like an open file: a release on its way would take the draft from under this.
        self.hold(ino)?;
        let outcome = self.truncate_held(ino, size, set).await;
        self.let_go(ino);
        outcome
    }

    async fn truncate_held(&self, ino: Ino, size: u64, set: SetAttr) -> Result<()> {
        self.pages_settled(ino).await?;
        if size == 0 && self.handles.is_written(ino) {
            // What O_TRUNC comes as: the writes that it makes room for are still to come.
            self.empty(ino).await?;
            if let Some(node) = self.tree.lock().get_mut(ino)
                && set.changes_attributes()
            {
                set.apply(&mut node.stat);
            }
            return self.close_unless_written(ino).await;
        }
        let content = self.ensure_content(ino, size == 0)?;
        {
            let _gate = content.gate.lock().await;
            let _thawed = content.freeze.read().await;
            let mut draft = content.draft.lock();
            if draft.size() != size || content.untouched.load(Ordering::Acquire) {
                draft.set_size(size)?;
                content.changed();
            }
            content.untouched.store(false, Ordering::Release);
            if let Some(node) = self.tree.lock().get_mut(ino) {
                node.stat.size = size;
                node.stat.touch();
                if set.changes_attributes() {
                    set.apply(&mut node.stat);
                }
            }
        }
        content.times_follow.store(false, Ordering::Release);
        content.attributes_dirty.store(true, Ordering::Release);
        self.close_unless_written(ino).await
    }
}
