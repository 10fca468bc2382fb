//! Closes that are acknowledged from the local disk.
//!
//! Two closes are no last word on a file: one before anything was written (a shell opens its
//! redirection, forks and closes; `touch` sets times after it), and one by a child that shares the
//! descriptor (`{ a; b; } > f`). Their content is made durable here, draft and journal record, and
//! goes to S3 with the next close or the last release; after a crash the next start sends it.
//!
//! In a write-back mount every close of changed bytes is answered so, and the uploader sends them.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::commit::admit;
use super::content::{Content, Deferral};
use super::handles::FileHandle;
use super::inodes::Ino;
use super::persist::Snapshot;
use super::{Caller, Fs, Result};
use crate::bucket::Metadata;
use crate::bucket::upload::MULTIPART_FROM_BYTES;
use crate::failpoint::{self, Failpoint};
use crate::journal::{DraftBytes, Intent, IntentId, Sent, stored_etag};

/// Up to here syncing a draft takes no longer than handing it to another thread and back.
const SYNC_HERE_BYTES: u64 = 1 << 20;

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
        if content.bytes_dirty() { self.defer_gated(ino, content, None).await } else { Ok(()) }
    }

    /// What a close answers for: in a write-back mount durable here and sent by the uploader, else in
    /// S3. `EAGAIN` if `only` one generation is wanted, and the bytes have changed since. For callers that
    /// hold the namespace and the file's gate.
    pub(super) async fn close_gated(&self, ino: Ino, content: &Arc<Content>, only: Option<u64>) -> Result<()> {
        if !content.bytes_dirty() || !self.may_wait(ino, content) {
            return self.commit_only(ino, content, only).await;
        }
        if content.draft.lock().base().is_some() {
            // Without the old version's bytes the draft alone is not the file.
            if self.complete(content).await.is_err() {
                // What is to become of it then is the same as for a close that goes to S3.
                return self.commit_only(ino, content, only).await;
            }
        }
        let there = self.snapshot(ino)?;
        let permitted = if there.linked { self.permit_draft(ino, content, &there.key, only).await } else { Ok(None) };
        let _as_allowed = match permitted {
            Ok(frozen) => frozen,
            Err(error) => {
                self.note_failure(ino, content, &there.key, &error).await?;
                return Err(error);
            }
        };
        self.defer_gated(ino, content, only).await?;
        let size = content.draft.lock().size();
        self.backlog.add(ino, size, Instant::now());
        Ok(())
    }

    /// Whether the uploader may have this file: there is room for it, and nothing large would have to be
    /// fetched that S3 can put together by itself.
    fn may_wait(&self, ino: Ino, content: &Content) -> bool {
        let Some(limits) = &self.settings.write_back else { return false };
        let is_near = {
            let draft = content.draft.lock();
            draft.base().is_none_or(|base| base.size < MULTIPART_FROM_BYTES) || draft.missing(1).is_none()
        };
        let waits_already = content.is_deferred_whole() && self.backlog.holds(ino);
        waits_already || (is_near && !self.backlog.is_full_for(ino, limits, &self.settings.draft_dir))
    }

    /// As [`Fs::defer`], for callers that hold the namespace and see to the gate.
    pub(super) async fn defer_gated(&self, ino: Ino, content: &Content, only: Option<u64>) -> Result<()> {
        let snapshot = self.snapshot(ino)?;
        // Bytes that may be refused yet do not take the place of a version that was closed for good.
        let may_fail = || {
            self.is_guarded_file(&snapshot.key) && !content.verdicts.lock().allow(content.generation(), &snapshot.key)
        };
        if !snapshot.linked || (content.has_older_promise() && may_fail()) {
            return Ok(());
        }
        self.defer_at(content, &snapshot, only, &[]).await
    }

    /// The journal answers for a draft as it is now, under the key and over the version of `there`. In
    /// the same transaction it lets go of what it answered for before, and of `ended`.
    pub(super) async fn defer_at(
        &self,
        content: &Content,
        there: &Snapshot,
        only: Option<u64>,
        ended: &[IntentId],
    ) -> Result<()> {
        let metadata = there.stat.to_attributes(None).to_metadata()?;
        let allows = |generation| content.verdicts.lock().allow(generation, &there.key);
        let (kept, unsynced, generation, size, promised_before) = {
            let mut draft = content.draft.lock();
            let generation = content.generation();
            admit(only, generation)?;
            if content.answers_for(generation, &there.key, &metadata, allows(generation)) && ended.is_empty() {
                return Ok(());
            }
            let (kept, unsynced) = draft.keep()?;
            let before = kept.set_promised(Some(draft.size()));
            (kept, unsynced, generation, draft.size(), before)
        };
        let older = content.deferred.lock().clone();
        let is_synced =
            older.as_ref().is_some_and(|older| older.generation == generation && older.kept.shares_file(&kept));
        let noted = async {
            if let Some(file) = unsynced.filter(|_| !is_synced) {
                sync(file, size).await?;
            }
            failpoint::reach(Failpoint::DeferSynced);
            let ended: Vec<IntentId> = ended.iter().copied().chain(older.as_ref().map(|older| older.id)).collect();
            let earlier = content.earlier(generation, size, &metadata);
            let draft = kept.record();
            let intent = deferred_intent(there, draft, size, metadata.clone(), allows(generation), earlier);
            Ok(self.journal.replace(&ended, vec![intent]).await?[0])
        };
        let id = match noted.await {
            Ok(id) => id,
            Err(error) => {
                kept.set_promised(promised_before);
                return Err(error);
            }
        };
        failpoint::reach(Failpoint::DeferIntended);
        let allowed = allows(generation);
        let deferral = Deferral { generation, key: there.key.clone(), metadata, id, kept, allowed };
        content.set_deferral(Some(deferral));
        Ok(())
    }

    /// What the journal answers for becomes what is about to be sent, where that is newer: a start after a
    /// crash would take it for somebody else's version. (Close on exec is enough for that: a program that
    /// starts another one while it writes has closed what it had written by then.)
    pub(super) async fn renew_deferral(&self, content: &Content, there: &Snapshot, only: Option<u64>) {
        let is_older = |deferral: &Deferral| deferral.key == there.key && deferral.generation != content.generation();
        let is_older = content.deferred.lock().as_ref().is_some_and(is_older);
        // Without the old version's bytes the draft alone is not the file.
        if !is_older || !content.draft.lock().is_whole() {
            return;
        }
        if let Err(error) = self.defer_at(content, there, only, &[]).await {
            tracing::debug!(key = %there.key.escape_debug(), cause = %error, "an older close is answered for");
        }
    }

    /// The file is gone or stored under another name: the journal need not send it any more.
    pub(super) async fn undefer(&self, ino: Ino, content: &Content) -> Result<()> {
        let deferred = content.deferred.lock().clone();
        if let Some(deferral) = deferred {
            self.journal.settle(&[deferral.id], Vec::new()).await?;
            content.set_deferral(None);
        }
        if let Some(number) = content.attributes_note.lock().take() {
            self.journal.close_notes(&[number])?;
        }
        self.backlog.remove(ino);
        Ok(())
    }
}

/// What the journal keeps of a draft.
pub fn deferred_intent(
    there: &Snapshot,
    draft: DraftBytes,
    size: u64,
    metadata: Metadata,
    allowed: bool,
    earlier: Vec<Sent>,
) -> Intent {
    Intent::Deferred {
        key: there.key.clone(),
        draft,
        size,
        metadata,
        base_etag: there.etag.as_ref().map(stored_etag),
        properties: there.stat.properties.clone(),
        allowed,
        earlier,
    }
}

/// To the disk (`fdatasync(2)`): from here on a crash does not lose it.
async fn sync(file: File, size: u64) -> std::io::Result<()> {
    if size <= SYNC_HERE_BYTES {
        return file.sync_data();
    }
    tokio::task::spawn_blocking(move || file.sync_data()).await.map_err(std::io::Error::other)?
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
