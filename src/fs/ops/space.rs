//! statfs, fallocate, lseek.

use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::libc;

use super::attr::MAX_FILE_BYTES;
use crate::fs::{Fs, Result};
use crate::key::MAX_NAME_BYTES;

/// What `statfs(2)` tells. S3 has no size; programs that check for room must find some.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    pub block_bytes: u32,
    pub blocks: u64,
    pub files: u64,
    pub max_name_bytes: u32,
}

impl Fs {
    /// `statfs(2)`: 1 PiB, all of it free.
    pub fn statfs(&self) -> Space {
        Space { block_bytes: 4096, blocks: 1 << 38, files: 1 << 32, max_name_bytes: MAX_NAME_BYTES as u32 }
    }

    /// `fallocate(2)`: growing, keeping the size, punching holes and zeroing.
    ///
    /// # Errors
    /// `ENOTSUP` for collapsing and inserting ranges.
    pub async fn fallocate(&self, number: u64, offset: u64, length: u64, mode: i32) -> Result<()> {
        let handle = self.handles.file(number).ok_or(Errno::EBADF)?;
        let end = offset.checked_add(length).filter(|end| *end <= MAX_FILE_BYTES).ok_or(Errno::EFBIG)?;
        let known = libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE;
        if mode & !known != 0 {
            return Err(Errno::ENOTSUP.into());
        }
        let content = self.ensure_content(handle.ino, false)?;
        let _thawed = content.freeze.read().await;
        let mut draft = content.draft.lock();
        let before = draft.size();
        if mode & libc::FALLOC_FL_KEEP_SIZE == 0 && end > before {
            draft.set_size(end)?;
        }
        if mode & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE) != 0 {
            draft.punch(offset..end)?;
        } else if draft.size() == before {
            // Room is not something that S3 can promise; there is nothing to change.
            return Ok(());
        }
        content.changed();
        content.untouched.store(false, Ordering::Release);
        if let Some(node) = self.tree.lock().get_mut(handle.ino) {
            node.stat.size = draft.size();
            node.stat.touch();
        }
        Ok(())
    }

    /// `lseek(2)` with `SEEK_DATA` and `SEEK_HOLE`: objects have no holes.
    ///
    /// # Errors
    /// `ENXIO` beyond the end, `EINVAL` for another `whence`.
    pub fn lseek(&self, number: u64, offset: i64, whence: i32) -> Result<i64> {
        let handle = self.handles.file(number).ok_or(Errno::EBADF)?;
        let size = self.tree.lock().get(handle.ino).ok_or(Errno::ESTALE)?.stat.size;
        let size = i64::try_from(size).map_err(|_| Errno::EOVERFLOW)?;
        if offset < 0 || offset >= size {
            return Err(Errno::ENXIO.into());
        }
        match whence {
            libc::SEEK_DATA => Ok(offset),
            libc::SEEK_HOLE => Ok(size),
            _ => Err(Errno::EINVAL.into()),
        }
    }
}
