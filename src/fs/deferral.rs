//! Closes that are acknowledged from the local disk, because uploading then would be waste.
//!
//! Two closes are no last word on a file: one before anything was written (a shell opens its
//! redirection, forks and closes; `touch` sets times after it), and one by a child that shares the
//! descriptor (`{ a; b; } > f`). Their content is made durable here, draft and journal record, and
//! goes to S3 with the next close or the last release; after a crash the next start sends it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::draft::{Content, Deferral};
use super::handles::FileHandle;
use super::inodes::Ino;
use super::{Caller, Fs, Result};
use crate::failpoint::{self, Failpoint};
use crate::journal::{Intent, stored_etag};

impl Fs {
    /// Whether this flush may be answered from the local disk (the flush rule, `close(2)`).
    pub(super) fn may_defer(content: &Content, handle: &FileHandle, caller: Caller) -> bool {
        if content.untouched.load(Ordering::Acquire) {
            return true;
        }
        let flusher = thread_group(caller.pid);
        // A version below the draft would have to be fetched first: then S3 is as near.
        flusher != 0 && handle.opener_tgid != 0 && flusher != handle.opener_tgid && content.draft.lock().is_whole()
    }

    /// Makes the draft of a close durable here: when this returns, `kill -9` loses nothing of it.
    pub(super) async fn defer(&self, ino: Ino, content: &Arc<Content>) -> Result<()> {
        let _stable = self.namespace.read().await;
        let _gate = content.gate.lock().await;
        // Another close may have stored it while this one waited: a record made now would outlive what
        // it is about, and be sent by a later start.
        if content.bytes_dirty() { self.defer_gated(ino, content).await } else { Ok(()) }
    }

    /// As [`Fs::defer`], for callers that hold the namespace and see to the gate.
    pub(super) async fn defer_gated(&self, ino: Ino, content: &Content) -> Result<()> {
        let generation = content.generation();
        let snapshot = self.snapshot(ino)?;
        if !snapshot.linked {
            return Ok(());
        }
        let metadata = snapshot.stat.to_attributes(None).to_metadata()?;
        let answered_for = content.deferred.lock().as_ref().is_some_and(|deferral| {
            deferral.generation >= generation && deferral.key == snapshot.key && deferral.metadata == metadata
        });
        if answered_for {
            return Ok(());
        }
        let (draft, size) = {
            let mut draft = content.draft.lock();
            draft.sync()?;
            draft.set_kept(true);
            (draft.file_name(), draft.size())
        };
        failpoint::reach(Failpoint::DeferSynced);
        let intent = Intent::Deferred {
            key: snapshot.key.clone(),
            draft,
            size,
            metadata: metadata.clone(),
            base_etag: snapshot.etag.as_ref().map(stored_etag),
        };
        let id = self.journal.intend(intent).await?;
        failpoint::reach(Failpoint::DeferIntended);
        let deferral = Deferral { generation, key: snapshot.key, metadata, id };
        let older = content.deferred.lock().replace(deferral);
        if let Some(older) = older {
            self.journal.settle(&[older.id], Vec::new()).await?;
        }
        Ok(())
    }

    /// The file is gone or stored under another name: the journal need not send it any more.
    pub(super) async fn undefer(&self, content: &Content) -> Result<()> {
        let deferred = content.deferred.lock().take();
        if let Some(deferral) = deferred {
            self.journal.settle(&[deferral.id], Vec::new()).await?;
            content.draft.lock().set_kept(false);
        }
        Ok(())
    }
}

/// Thread group (process) of a thread, from `/proc/PID/status`; 0 if it cannot be told.
///
/// FUSE requests carry the id of the calling *thread*.
pub fn thread_group(pid: u32) -> u32 {
    if pid == 0 {
        return 0;
    }
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return 0 };
    let tgid = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    tgid.and_then(|tgid| tgid.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_belongs_to_its_process() {
        let thread = nix::unistd::gettid().as_raw().unsigned_abs();
        assert_eq!(thread_group(thread), std::process::id());
        assert_eq!(thread_group(0), 0);
    }
}
