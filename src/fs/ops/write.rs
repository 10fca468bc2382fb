//! write: into the draft, never to the network.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use super::attr::MAX_FILE_BYTES;
use crate::fs::content::Content;
use crate::fs::handles::FileHandle;
use crate::fs::{Fs, Result};

/// Where bytes go.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// As the kernel has it, in bytes.
    pub offset: u64,
    /// To the end, wherever that is (`O_APPEND`). The kernel takes the size that it remembers for it, and another
    /// client's lines may have been seen here since it was told one: at its offset they would be written over.
    pub appends: bool,
}

impl From<u64> for Place {
    fn from(offset: u64) -> Self {
        Self { offset, appends: false }
    }
}

impl Fs {
    /// `pwrite(2)` at once; `None` while an upload of this very file holds its bytes still.
    pub fn try_write(&self, number: u64, place: Place, data: &[u8]) -> Option<Result<u32>> {
        let handle = self.handles.file(number)?;
        let content = self.content(handle.ino)?;
        let _thawed = content.freeze.try_read().ok()?;
        Some(self.write_draft(&handle, &content, place, data))
    }

    /// `pwrite(2)`, waiting until the file may change.
    ///
    /// # Errors
    /// `EBADF`, `EFBIG`, and what the local disk says (`ENOSPC`).
    pub async fn write(&self, number: u64, place: impl Into<Place>, data: &[u8]) -> Result<u32> {
        let handle = self.handles.file(number).ok_or(Errno::EBADF)?;
        if !handle.can_write() {
            return Err(Errno::EBADF.into());
        }
        // The draft of a file open for writing goes only with its last handle.
        let content = self.ensure_content(handle.ino, false)?;
        let _thawed = content.freeze.read().await;
        self.write_draft(&handle, &content, place.into(), data)
    }

    fn write_draft(&self, handle: &FileHandle, content: &Arc<Content>, place: Place, data: &[u8]) -> Result<u32> {
        let ino = handle.ino;
        let mut draft = content.draft.lock();
        let offset = if place.appends { draft.size() } else { place.offset };
        let end = offset.checked_add(data.len() as u64).ok_or(Errno::EFBIG)?;
        if end > MAX_FILE_BYTES {
            return Err(Errno::EFBIG.into());
        }
        draft.write(offset, data)?;
        content.changed();
        handle.unanswered.store(true, Ordering::Release);
        content.untouched.store(false, Ordering::Release);
        let keeps_times = content.outgoing.keeps_times();
        if let Some(node) = self.tree.lock().get_mut(ino) {
            node.stat.size = draft.size();
            if !keeps_times {
                node.stat.touch();
            }
        }
        let due = draft.is_due(self.settings.upload.part_bytes);
        drop(draft);
        if due {
            self.send_ahead(ino, content);
        }
        Ok(data.len() as u32)
    }
}
