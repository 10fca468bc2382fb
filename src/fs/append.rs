//! A file of a directory bucket that has only grown: what was added is sent, and nothing else.
//!
//! An append says nothing of the object's metadata (see [`Tail`]), so the times that have changed with the bytes follow as
//! those of a utimes do: a note in the journal answers for them, and the uploader sends them. The note is there before the
//! append is sent: after a crash, and after an answer that was lost, the end of the object tells whether it was done.
//!
//! Where hooks listen each version is written with an id of its own instead, by which a start tells which of them to fire.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;

use super::commit::{FILL_BYTES, admit};
use super::content::Content;
use super::doubt::{Doubt, Sending};
use super::inodes::Ino;
use super::persist::{Snapshot, created, lost_is_stale};
use super::recovery::RecoveryReport;
use super::waiting::attributes_note;
use super::{Fs, Result};
use crate::bucket::attributes::Attributes;
use crate::bucket::upload::MULTIPART_FROM_BYTES;
use crate::bucket::{AppendRequest, ETag, PutOptions, Tail};
use crate::cache::Pinned;
use crate::error::Kind;
use crate::failpoint::{self, Failpoint};
use crate::journal::{EventName, Note};

/// Most that is appended: what is more goes faster in parts, side by side. (S3 takes 5 GiB.)
const MOST_BYTES: u64 = MULTIPART_FROM_BYTES;

/// What a file has grown by.
struct Growth {
    generation: u64,
    tail: Tail,
    bytes: Bytes,
}

impl Fs {
    /// Whether a version may be appended to under this key.
    pub(super) fn appends_at(&self, key: &str) -> bool {
        self.appends.load(Ordering::Relaxed) && !self.tells_hooks() && self.is_in_directory_bucket(key)
    }

    /// Sends what a file has grown by, if nothing else of it has changed; false where it is to be written anew.
    pub(super) async fn commit_growth(
        &self,
        ino: Ino,
        content: &Arc<Content>,
        before: &Snapshot,
        only: Option<u64>,
    ) -> Result<bool> {
        let Some(size) = self.growth_bytes(content, before) else { return Ok(false) };
        let _memory = self.settings.upload.lend(size).await;
        let appended = async {
            self.ensure_told(ino).await?;
            let Some(growth) = self.growth(content, before, only)? else { return Ok(false) };
            self.append(ino, content, before, growth).await
        };
        let appended = appended.await;
        if let Err(error) = &appended {
            if error.is_conflict() {
                if self.is_ours_in_the_way(ino, content, before).await? {
                    return Ok(false);
                }
                self.fill_from_cache(content)?;
            }
            self.note_failure(ino, content, &before.key, error).await?;
        }
        appended
    }

    /// How much an append would send.
    pub(super) fn growth_bytes(&self, content: &Content, before: &Snapshot) -> Option<u64> {
        if !self.appends_at(&before.key) || has_others(content) {
            return None;
        }
        let draft = content.draft.lock();
        let base = draft.base()?;
        let is_there = before.etag.as_ref() == Some(&base.etag) && *base.key == *before.key;
        let growth = draft.growth().filter(|_| is_there)?;
        Some(growth.end - growth.start).filter(|size| *size <= MOST_BYTES)
    }

    fn growth(&self, content: &Content, before: &Snapshot, only: Option<u64>) -> Result<Option<Growth>> {
        if self.growth_bytes(content, before).is_none() {
            return Ok(None);
        }
        let mut draft = content.draft.lock();
        let (generation, range) = (content.generation(), draft.growth());
        admit(only, generation)?;
        // Written to since this was asked.
        let Some(range) = range.filter(|range| range.end - range.start <= MOST_BYTES) else { return Ok(None) };
        draft.begin_sending();
        let bytes = draft.read_local(range.clone())?;
        Ok(Some(Growth { generation, tail: Tail::of(range.start, &bytes), bytes }))
    }

    /// False when the server takes no append to this object: it has too many parts, say, or another program's checksum.
    async fn append(&self, ino: Ino, content: &Arc<Content>, before: &Snapshot, growth: Growth) -> Result<bool> {
        let (key, stat) = (before.key.clone(), self.snapshot(ino)?.stat);
        let Some(etag) = before.etag.clone() else { return Ok(false) };
        let Growth { generation, tail, bytes } = growth;
        let (metadata, properties) = (stat.to_attributes(None).to_metadata()?, stat.properties.clone());
        let note = Note::Append { key: key.clone(), tail: tail.clone(), metadata, properties };
        let note = self.journal.note(&note)?;
        failpoint::reach(Failpoint::AppendNoted);
        let content_type = stat.properties.content_type_at(&key);
        let request = AppendRequest { key, etag, offset: tail.offset, content_type };
        let sent = Some((tail.clone(), Some(note)));
        let doubt = Doubt { generation, attributes: stat.to_attributes(None), size: tail.size, appended: sent };
        let sending = Sending::begin(content, doubt);
        let appended = self.bucket.append(&request, bytes).await;
        let is_answer = |kind| matches!(kind, Kind::Refused | Kind::Unsupported | Kind::Changed | Kind::NotFound);
        // Perhaps an earlier try was done.
        sending.end(appended.as_ref().is_err_and(|error| !is_answer(error.kind)));
        let error = match appended {
            Ok(etag) => {
                failpoint::reach(Failpoint::AppendDone);
                self.note_appended(ino, content, generation, &tail, &etag, note).await?;
                return Ok(true);
            }
            Err(error) => error,
        };
        if matches!(error.kind, Kind::Refused | Kind::Unsupported) {
            self.close_notes(&[note]);
            if error.kind == Kind::Unsupported {
                self.appends.store(false, Ordering::Relaxed);
            }
            tracing::debug!(cause = %error, "not appended to: the object is written anew");
            return Ok(false);
        }
        if error.kind == Kind::Changed || error.kind == Kind::NotFound {
            self.close_notes(&[note]);
        }
        let error = lost_is_stale(error);
        Err(error)
    }

    /// Everybody here moves along to the version that an append has made; its attributes follow.
    pub(super) async fn note_appended(
        &self,
        ino: Ino,
        content: &Content,
        generation: u64,
        tail: &Tail,
        etag: &ETag,
        note: u64,
    ) -> Result<()> {
        let key = self.snapshot(ino)?.key;
        content.set_stored(generation);
        content.doubts.lock().clear();
        // Before the index learns of the version: S3 has other ones under its tag.
        content.times_follow.store(!has_others(content), Ordering::Release);
        content.attributes_dirty.store(true, Ordering::Release);
        self.stored(ino, &key, etag);
        let pinned = Pinned { key: key.as_str().into(), etag: etag.clone(), size: tail.size };
        content.draft.lock().stand_on(pinned);
        let deferred = content.deferred.lock().as_ref().filter(|deferral| deferral.key == key).map(|it| it.id);
        let event = created(EventName::CreatedPut, &key, tail.size, etag);
        self.settle_version(ino, deferred.into_iter().collect(), Vec::new(), Some(event)).await?;
        if deferred.is_some() {
            content.set_deferral(None);
        }
        self.backlog.remove(ino);
        let mut attributes = attributes_note(self.snapshot(ino)?)?;
        if let Note::Attributes { size, .. } = &mut attributes {
            // Who goes on writing may have made the file larger by now.
            *size = tail.size;
        }
        self.note_latest(&mut content.attributes_note.lock(), &attributes)?;
        self.close_notes(&[note]);
        self.backlog.add_appended(ino, Instant::now());
        Ok(())
    }

    /// Theirs has taken the place of what lies below a draft: what is kept of ours is to be whole, as far as that is here.
    fn fill_from_cache(&self, content: &Content) -> Result<()> {
        let mut draft = content.draft.lock();
        let Some(base) = draft.base().cloned() else { return Ok(()) };
        while let Some(missing) = draft.missing(FILL_BYTES) {
            let Some(bytes) = self.cache.try_read(&base, missing.clone()) else { break };
            draft.fill(missing.start, &bytes)?;
        }
        Ok(())
    }

    /// After a crash: where an append was done, the attributes that were to follow do so now.
    ///
    /// # Errors
    /// Only when the journal cannot be written. What S3 cannot answer now is left for the next start.
    pub(super) async fn recover_append(
        &self,
        note: u64,
        key: &str,
        tail: &Tail,
        options: PutOptions,
        report: &mut RecoveryReport,
    ) -> Result<()> {
        failpoint::reach(Failpoint::RecoverAppend);
        let restated = async {
            let Some(there) = tail.find(self.bucket.as_ref(), key).await? else { return Ok(false) };
            let said = |metadata| Attributes::from_metadata(metadata).without_op_id();
            if said(&there.metadata) == said(&options.metadata) {
                return Ok(true);
            }
            self.restate_object(key, Some(&there.etag), there.size, options).await.map(|_| true)
        };
        match restated.await {
            Ok(true) => report.finished += 1,
            Ok(false) => report.dropped += 1,
            // Another version is there by now.
            Err(error) if matches!(error.kind, Kind::Changed | Kind::NotFound) => report.dropped += 1,
            Err(error) => {
                tracing::warn!(key = %key.escape_debug(), cause = %error, "left for the next start");
                report.left += 1;
                return Ok(());
            }
        }
        failpoint::reach(Failpoint::RecoverAppendSettle);
        self.index.remove(key);
        self.journal.close_notes(&[note])?;
        Ok(())
    }
}

/// Whether attributes have changed that a program has asked for: these are in S3 when fsync answers, so that the version
/// is written anew with them.
fn has_others(content: &Content) -> bool {
    content.attributes_dirty.load(Ordering::Acquire) && !content.times_follow.load(Ordering::Acquire)
}
