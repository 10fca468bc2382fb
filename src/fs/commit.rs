//! Telling S3: one draft becomes one version.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use nix::errno::Errno;

use super::content::Content;
use super::doubt::{Sending, may_be_done};
use super::gatekeeper::Frozen;
use super::inodes::Ino;
use super::outgoing::Outgoing;
use super::persist::{Snapshot, created, lost_is_stale};
use super::stat::FileKind;
use super::{Error, Fs, Result};
use crate::bucket::attributes::Attributes;
use crate::bucket::upload::MULTIPART_FROM_BYTES;
use crate::bucket::{ETag, PutOptions};
use crate::cache::{Pinned, ReadAhead};
use crate::failpoint::{self, Failpoint};
use crate::journal::{EventName, Intent, IntentId, NewEvent};

/// How much of the old version is fetched at a time to complete a draft.
pub(super) const FILL_BYTES: u64 = 8 << 20;

/// A draft that S3 holds now.
pub(super) struct Written {
    pub generation: u64,
    pub etag: ETag,
    pub size: u64,
    /// All of them, where they are few.
    pub bytes: Option<Bytes>,
    /// What it should carry, where it carries something else.
    pub restated: Option<PutOptions>,
    /// What the journal has of the upload that is complete by it.
    pub uploads: Vec<IntentId>,
}

impl Written {
    /// A version of which no bytes are at hand.
    pub fn in_parts(generation: u64, etag: ETag, size: u64) -> Self {
        Self { generation, etag, size, bytes: None, restated: None, uploads: Vec::new() }
    }
}

/// A draft that is ready to be sent.
struct Still<'a> {
    /// It must not change until it was read: it goes in parts, or was allowed as it is.
    frozen: Option<Frozen<'a>>,
    in_parts: bool,
    /// The upload to finish, for what has no version below it.
    outgoing: Option<Arc<Outgoing>>,
    /// The generation that is to be sent, where a newer one is not.
    only: Option<u64>,
}

impl Still<'_> {
    /// `EAGAIN` for what is not to be sent.
    fn admit(&self, generation: u64) -> Result<()> {
        admit(self.only, generation)
    }
}

/// `EAGAIN` for bytes that have changed since the generation that is wanted, if only one is.
pub(super) fn admit(only: Option<u64>, generation: u64) -> Result<()> {
    if only.is_none_or(|only| only == generation) { Ok(()) } else { Err(Errno::EAGAIN.into()) }
}

impl Fs {
    /// Makes S3 hold what the file holds now; nothing to do if it does already.
    pub(super) async fn commit(&self, ino: Ino) -> Result<()> {
        let _stable = self.namespace.read().await;
        let Some(content) = self.content(ino) else { return self.tell_noted(ino).await };
        let _gate = content.gate.lock().await;
        self.commit_gated(ino, &content).await
    }

    /// As [`Fs::commit`], with the attributes that an append leaves to follow.
    pub(super) async fn commit_all(&self, ino: Ino) -> Result<()> {
        self.commit(ino).await?;
        let are_left = self.content(ino).is_some_and(|content| content.attributes_dirty.load(Ordering::Acquire));
        if are_left { self.commit(ino).await } else { Ok(()) }
    }

    /// What a close answers for: see [`Fs::close_gated`].
    pub(super) async fn close(&self, ino: Ino) -> Result<()> {
        let _stable = self.namespace.read().await;
        let Some(content) = self.content(ino) else { return Ok(()) };
        let _gate = content.gate.lock().await;
        self.close_gated(ino, &content, None).await
    }

    /// Where nobody has the file open for writing, no close will come that stores it.
    ///
    /// Asked once more when its turn has come: who opened the file meanwhile is not done with it, and
    /// half of what he writes must not become a version. Nor must it if he opens it only now: what is
    /// stored is the generation of which nobody was writing the next.
    pub(super) async fn close_unless_written(&self, ino: Ino) -> Result<()> {
        if self.handles.is_written(ino) {
            return Ok(());
        }
        let _stable = self.namespace.read().await;
        let Some(content) = self.content(ino) else { return Ok(()) };
        let _gate = content.gate.lock().await;
        // Before it is asked who writes: who comes after that makes a later one.
        let generation = content.generation();
        if self.handles.is_written(ino) {
            Ok(())
        } else if content.attributes_dirty.load(Ordering::Acquire) && self.attributes_may_wait(ino, &content) {
            self.wait_with_attributes(ino, &content)
        } else {
            match self.close_gated(ino, &content, Some(generation)).await {
                Err(Error::Posix(Errno::EAGAIN)) => Ok(()),
                closed => closed,
            }
        }
    }

    /// As [`Fs::commit`], for callers that hold the namespace and the file's gate.
    pub(super) async fn commit_gated(&self, ino: Ino, content: &Arc<Content>) -> Result<()> {
        self.commit_only(ino, content, None).await
    }

    /// As [`Fs::commit_gated`], of this generation only: `EAGAIN` if the bytes have changed since.
    pub(super) async fn commit_only(&self, ino: Ino, content: &Arc<Content>, only: Option<u64>) -> Result<()> {
        if !self.is_content_of(ino, content) {
            // Stored and let go of while this waited for the gate.
            return Ok(());
        }
        self.resolve_doubt(ino, content).await?;
        let snapshot = self.snapshot(ino)?;
        if !snapshot.linked {
            return self.refuse_superseded(ino, content, &snapshot).await;
        }
        if content.bytes_dirty() {
            self.commit_bytes(ino, content, &snapshot, only).await
        } else if let Some(leaving) = content.send_attributes() {
            let mut stored = self.store_attributes_open(ino, content, &snapshot).await;
            if stored.as_ref().is_err_and(Error::is_conflict)
                && self.is_ours_in_the_way(ino, content, &snapshot).await?
            {
                let on_top = self.snapshot(ino)?;
                stored = self.store_attributes_open(ino, content, &on_top).await;
            }
            match &stored {
                // The version that they were meant for is gone: theirs has attributes of its own.
                Err(error) if error.is_conflict() => {
                    leaving.end();
                    self.tree.lock().doubt(ino);
                }
                Err(_) => drop(leaving),
                Ok(()) => leaving.end(),
            }
            self.end_waiting_attributes(content);
            stored
        } else {
            Ok(())
        }
    }

    pub(super) fn content(&self, ino: Ino) -> Option<Arc<Content>> {
        self.tree.lock().get(ino)?.content.clone()
    }

    /// Whether this still is what is known of the file. To be asked once more by who has waited for its gate and
    /// holds nothing else of it: its number may be another file's by now, under another key.
    pub(super) fn is_content_of(&self, ino: Ino, content: &Arc<Content>) -> bool {
        self.content(ino).is_some_and(|now| Arc::ptr_eq(&now, content))
    }

    /// Makes what the draft holds a version, by what is new at its end where that is enough.
    pub(super) async fn commit_bytes(
        &self,
        ino: Ino,
        content: &Arc<Content>,
        before: &Snapshot,
        only: Option<u64>,
    ) -> Result<()> {
        let mut on_top = None;
        if self.growth_bytes(content, before).is_some() {
            // In a box: what is rare need not make every commit's future larger.
            if Box::pin(self.commit_growth(ino, content, before, only)).await? {
                return Ok(());
            }
            // It may have found a version of ours in its way.
            on_top = Some(self.snapshot(ino)?);
        }
        while !self.commit_version(ino, content, on_top.as_ref().unwrap_or(before), only).await? {
            on_top = Some(self.snapshot(ino)?);
        }
        Ok(())
    }

    /// False: a version in the way turned out to be ours, so that this is to be done once more on top of it.
    async fn commit_version(
        &self,
        ino: Ino,
        content: &Arc<Content>,
        before: &Snapshot,
        only: Option<u64>,
    ) -> Result<bool> {
        let still = match self.hold_still(ino, content, &before.key, only).await {
            Ok(still) => still,
            Err(error) => {
                self.note_failure(ino, content, &before.key, &error).await?;
                return Err(error);
            }
        };
        self.renew_deferral(content, before, only).await;
        let multipart = still.in_parts;
        let op_id = still.outgoing.as_ref().map_or_else(|| self.new_op_id(), |outgoing| outgoing.op_id().cloned());
        let intent = self.intend_put(before, op_id.clone(), multipart).await?;
        failpoint::reach(Failpoint::PutIntended);
        content.attributes_dirty.store(false, Ordering::Release);
        let written = match self.write_version(ino, content, before, op_id, &still).await {
            Ok(written) => written,
            Err(error) => {
                content.attributes_dirty.store(true, Ordering::Release);
                self.settle(intent.as_slice(), Vec::new()).await?;
                if error.is_conflict() && self.is_ours_in_the_way(ino, content, before).await? {
                    return Ok(false);
                }
                self.note_failure(ino, content, &before.key, &error).await?;
                return Err(error);
            }
        };
        content.set_stored(written.generation);
        content.doubts.lock().clear();
        self.end_waiting_attributes(content);
        let mut pinned = self.note_version(ino, content, &before.key, &written, multipart);
        let restated = match written.restated {
            Some(options) => self.restate(ino, content, &mut pinned, options).await,
            None => Ok(()),
        };
        match written.bytes {
            Some(bytes) => self.cache.insert(&pinned, 0, bytes),
            None if still.outgoing.is_some() => self.cache_draft(&pinned, content, written.generation),
            // A few bytes of it are new: a copy of all would cost more than storing them did.
            None => {}
        }
        let name = if multipart { EventName::CreatedMultipart } else { EventName::CreatedPut };
        // What the journal answers for is never newer: this holds the gate, as every deferral does. Under
        // another name it answers on, until that name goes (a rename).
        let deferred = content.deferred.lock().as_ref().filter(|deferral| deferral.key == before.key).map(|it| it.id);
        let settled = intent.into_iter().chain(deferred).collect();
        if content.is_resumed {
            failpoint::reach(Failpoint::RecoverDeferredSettle);
        }
        let rewritten = before.etag.as_ref() == Some(&pinned.etag);
        let event = NewEvent { rewritten, ..created(name, &before.key, written.size, &pinned.etag) };
        let event = Some(event).filter(|_| before.stat.kind == FileKind::File);
        self.settle_version(ino, settled, written.uploads, event).await?;
        failpoint::reach(Failpoint::PutSettled);
        if deferred.is_some() {
            content.set_deferral(None);
        }
        self.backlog.remove(ino);
        restated.map(|()| true)
    }

    /// Says in the journal what is about to be written, where hooks are to hear of it: of files alone.
    async fn intend_put(&self, before: &Snapshot, op_id: Option<String>, multipart: bool) -> Result<Option<IntentId>> {
        let Some(op_id) = op_id.filter(|_| before.stat.kind == FileKind::File) else { return Ok(None) };
        let key = before.key.clone();
        self.intend(|| Intent::Put { key, op_id, multipart }).await
    }

    /// Asks whether it may be sent, brings in what will have to be and only the old version has, and for
    /// what goes in parts keeps writers out until they are read: parts must be of one moment.
    async fn hold_still<'a>(&self, ino: Ino, content: &'a Content, key: &str, only: Option<u64>) -> Result<Still<'a>> {
        let permitted = self.permit_draft(ino, content, key, only).await?;
        let is_large = || content.draft.lock().size() >= MULTIPART_FROM_BYTES;
        if is_large() {
            self.bring_edges(ino, content).await?;
        } else {
            self.complete(content).await?;
        }
        if !is_large() {
            content.outgoing.discard();
            return Ok(Still { frozen: permitted, in_parts: false, outgoing: None, only });
        }
        let frozen = match permitted {
            Some(frozen) => Some(frozen),
            None => Some(content.freeze.write().await),
        };
        let has_base = content.draft.lock().base().is_some();
        let outgoing = if has_base { None } else { Some(self.outgoing_to_finish(ino, content, key).await?) };
        Ok(Still { frozen, in_parts: true, outgoing, only })
    }

    /// Everybody here moves along to the version that was written.
    fn note_version(&self, ino: Ino, content: &Content, key: &str, written: &Written, multipart: bool) -> Pinned {
        self.stored(ino, key, &written.etag);
        let pinned = Pinned { key: key.into(), etag: written.etag.clone(), size: written.size };
        let mut draft = content.draft.lock();
        if multipart {
            draft.advance_base(pinned.clone());
        } else {
            // All of it is here: there was little of it.
            if self.appends_at(key) { draft.stand_on(pinned.clone()) } else { draft.detach_base() }
        }
        pinned
    }

    /// What was sent in parts is in the draft's file, until somebody writes to it.
    fn cache_draft(&self, pinned: &Pinned, content: &Arc<Content>, generation: u64) {
        // Out of descriptors: then the next reader fetches it.
        let Ok(file) = content.draft.lock().reader() else { return };
        // Held until it was asked: a draft that is gone could not tell what it held last.
        let content = content.clone();
        self.cache.insert_file(pinned, file, move || {
            let _still = content.draft.lock();
            content.generation() == generation
        });
    }

    /// Sends the bytes, with attributes as of now: a chmod since the snapshot rides along.
    async fn write_version(
        &self,
        ino: Ino,
        content: &Arc<Content>,
        before: &Snapshot,
        op_id: Option<String>,
        still: &Still<'_>,
    ) -> Result<Written> {
        if still.frozen.is_some() {
            still.admit(content.generation())?;
        }
        if let Some(outgoing) = &still.outgoing {
            return self.finish_outgoing(ino, content, outgoing, &before.condition()).await;
        }
        if still.in_parts {
            return self.write_parts(ino, content, before, op_id).await;
        }
        let options = self.options_to_write(ino, before, op_id).await?;
        let size = content.draft.lock().size();
        let _memory = self.settings.upload.lend(size).await;
        let (bytes, generation) = {
            let mut draft = content.draft.lock();
            draft.begin_sending();
            (draft.read_local(0..draft.size())?, content.generation())
        };
        still.admit(generation)?;
        let size = bytes.len() as u64;
        failpoint::reach(Failpoint::PutBefore);
        let sending = Sending::version(content, generation, size, Attributes::from_metadata(&options.metadata));
        let put = self.bucket.put(&before.key, bytes.clone(), &options).await;
        sending.end(put.as_ref().is_err_and(|error| may_be_done(error.kind)));
        let etag = put.map_err(lost_is_stale)?;
        failpoint::reach(Failpoint::PutAfter);
        Ok(Written { bytes: Some(bytes), ..Written::in_parts(generation, etag, size) })
    }

    /// What a version of the file is to carry, and what it is to replace.
    pub(super) async fn options_to_write(
        &self,
        ino: Ino,
        before: &Snapshot,
        op_id: Option<String>,
    ) -> Result<PutOptions> {
        self.ensure_told(ino).await?;
        self.options_by_now(ino, before, op_id)
    }

    /// The same by what is known, which is a guess for a file that only LIST has described: most others' objects
    /// carry nothing that it does not tell.
    pub(super) fn options_by_now(&self, ino: Ino, before: &Snapshot, op_id: Option<String>) -> Result<PutOptions> {
        let stat = self.snapshot(ino)?.stat;
        let metadata = stat.to_attributes(op_id).to_metadata()?;
        Ok(PutOptions { metadata, properties: stat.properties, condition: before.condition() })
    }

    /// Brings in everything that only the old version has.
    pub(super) async fn complete(&self, content: &Content) -> Result<()> {
        let ahead = ReadAhead::new();
        loop {
            let (base, missing) = {
                let draft = content.draft.lock();
                let Some(missing) = draft.missing(FILL_BYTES) else { return Ok(()) };
                (draft.base().cloned().ok_or(Errno::EIO)?, missing)
            };
            let bytes = self.cache.read(&base, missing.clone(), &ahead).await?;
            content.draft.lock().fill(missing.start, &bytes)?;
        }
    }

    /// Attributes changed while the file is open, bytes did not: a copy onto itself.
    async fn store_attributes_open(&self, ino: Ino, content: &Arc<Content>, before: &Snapshot) -> Result<()> {
        if before.etag.is_none() {
            return self.commit_bytes(ino, content, before, None).await;
        }
        self.store_attributes_of(ino, content).await?;
        let after = self.snapshot(ino)?;
        if let Some(etag) = after.etag {
            self.rebase(ino, &after.key, &etag);
        }
        Ok(())
    }
}
