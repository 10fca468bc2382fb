//! flush, fsync: the two moments at which a program is promised something.

use std::sync::atomic::Ordering;

use nix::errno::Errno;

use crate::fs::content::Content;
use crate::fs::handles::FileHandle;
use crate::fs::{Caller, Fs, Result};

impl Fs {
    /// One `close(2)` of one descriptor; comes once for every dup'd or inherited one.
    ///
    /// 0 means stored in S3. In a write-back mount, and where that would be waste (see `deferral`), 0
    /// means durable here: the bytes follow by the uploader, with the next close or release, or after a
    /// crash by the next start.
    pub async fn flush(&self, number: u64, caller: Caller) -> Result<()> {
        let handle = self.handles.file(number).ok_or(Errno::EBADF)?;
        let Some(content) = self.content(handle.ino) else { return Ok(()) };
        if !handle.can_write() && !content.is_only_made() {
            return Ok(());
        }
        if content.bytes_dirty() && Self::may_defer(&content, &handle, caller) {
            self.defer(handle.ino, &content).await?;
        } else if content.is_dirty() {
            self.close(handle.ino).await?;
        }
        answer(&handle, &content)
    }

    /// `fsync(2)`: 0 means stored in S3, whatever the flush rule says.
    pub async fn fsync(&self, number: u64) -> Result<()> {
        let handle = self.handles.file(number).ok_or(Errno::EBADF)?;
        let Some(content) = self.content(handle.ino) else { return Ok(()) };
        self.commit(handle.ino).await?;
        answer(&handle, &content)
    }
}

/// Somebody else's close, or the end of an earlier open, may have met the conflict first: the bytes are
/// set aside by then and nothing is left to be stored, but who wrote them was told nothing. Nor was he by a
/// close that was answered from the local disk: it may have been that of a child, who never looks.
fn answer(handle: &FileHandle, content: &Content) -> Result<()> {
    if content.refused.load(Ordering::Acquire) && handle.unanswered.load(Ordering::Acquire) {
        return Err(Errno::ESTALE.into());
    }
    if !content.bytes_dirty() {
        handle.unanswered.store(false, Ordering::Release);
    }
    Ok(())
}
