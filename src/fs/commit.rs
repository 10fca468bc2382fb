//! Telling S3: one draft becomes one version.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use nix::errno::Errno;
use parking_lot::Mutex;

use super::doubt::{doubt_upload, is_doubtful};
use super::draft::Content;
use super::inodes::Ino;
use super::persist::{Snapshot, created, lost_is_stale};
use super::{Fs, Result};
use crate::bucket::upload::{self, FileParts, MULTIPART_FROM_BYTES, OnBegin, UploadSettings};
use crate::bucket::{ETag, PutOptions};
use crate::cache::{Pinned, ReadAhead};
use crate::journal::{EventName, Intent, IntentId};

/// How much of the old version is fetched at a time to complete a draft.
const FILL_BYTES: u64 = 8 << 20;

impl Fs {
    /// Makes S3 hold what the file holds now; nothing to do if it does already.
    pub(super) async fn commit(&self, ino: Ino) -> Result<()> {
        let _stable = self.namespace.read().await;
        let Some(content) = self.content(ino) else { return Ok(()) };
        let _gate = content.gate.lock().await;
        self.commit_gated(ino, &content).await
    }

    /// What a close answers for: see [`Fs::close_gated`].
    pub(super) async fn close(&self, ino: Ino) -> Result<()> {
        let _stable = self.namespace.read().await;
        let Some(content) = self.content(ino) else { return Ok(()) };
        let _gate = content.gate.lock().await;
        self.close_gated(ino, &content).await
    }

    /// Where nobody has the file open for writing, no close will come that stores it.
    ///
    /// Asked once more when its turn has come: who opened the file meanwhile is not done with it, and
    /// half of what he writes must not become a version.
    pub(super) async fn close_unless_written(&self, ino: Ino) -> Result<()> {
        if self.handles.is_written(ino) {
            return Ok(());
        }
        let _stable = self.namespace.read().await;
        let Some(content) = self.content(ino) else { return Ok(()) };
        let _gate = content.gate.lock().await;
        if self.handles.is_written(ino) { Ok(()) } else { self.close_gated(ino, &content).await }
    }

    /// As [`Fs::commit`], for callers that hold the namespace and the file's gate.
    pub(super) async fn commit_gated(&self, ino: Ino, content: &Arc<Content>) -> Result<()> {
        self.resolve_doubt(ino, content).await?;
        let snapshot = self.snapshot(ino)?;
        if !snapshot.linked {
            return self.refuse_superseded(ino, content, &snapshot).await;
        }
        if content.bytes_dirty() {
            self.commit_bytes(ino, content, &snapshot).await
        } else if content.attributes_dirty.swap(false, Ordering::AcqRel) {
            let stored = self.store_attributes_open(ino, content, &snapshot).await;
            match &stored {
                // The version that they were meant for is gone: theirs has attributes of its own.
                Err(error) if error.is_conflict() => self.tree.lock().doubt(ino),
                Err(_) => content.attributes_dirty.store(true, Ordering::Release),
                Ok(()) => {}
            }
            stored
        } else {
            Ok(())
        }
    }

    fn is_under(&self, ino: Ino, key: &str) -> bool {
        self.tree.lock().key(ino).is_some_and(|own| own == key)
    }

    /// What is written to a file without a name goes with it, unless the name was lost to somebody
    /// else's version: the writer does not know that yet.
    async fn refuse_superseded(&self, ino: Ino, content: &Arc<Content>, snapshot: &Snapshot) -> Result<()> {
        let superseded = self.tree.lock().get(ino).is_some_and(|node| node.superseded);
        if superseded && content.bytes_dirty() {
            self.set_conflict_aside(ino, content, &snapshot.key).await?;
            return Err(Errno::ESTALE.into());
        }
        Ok(())
    }

    pub(super) fn content(&self, ino: Ino) -> Option<Arc<Content>> {
        self.tree.lock().get(ino)?.content.clone()
    }

    pub(super) async fn commit_bytes(&self, ino: Ino, content: &Arc<Content>, before: &Snapshot) -> Result<()> {
        if let Err(error) = self.complete(content).await {
            if error.is_conflict() && self.is_under(ino, &before.key) {
                self.set_conflict_aside(ino, content, &before.key).await?;
            }
            return Err(error);
        }
        let size = content.draft.lock().size();
        let multipart = size >= MULTIPART_FROM_BYTES;
        // Writers of a large file wait until its parts are read: they must be of one moment.
        let _frozen = if multipart { Some(content.freeze.write().await) } else { None };
        let op_id = self.settings.events.then(|| uuid::Uuid::now_v7().to_string());
        let intent = match &op_id {
            Some(op_id) => {
                let (key, op_id) = (before.key.clone(), op_id.clone());
                self.intend(|| Intent::Put { key, op_id, multipart }).await?
            }
            None => None,
        };
        content.attributes_dirty.store(false, Ordering::Release);
        let written = self.write_version(ino, content, before, op_id, multipart).await;
        let (generation, etag, size, whole) = match written {
            Ok(written) => written,
            Err(error) => {
                content.attributes_dirty.store(true, Ordering::Release);
                self.settle(intent.as_slice(), Vec::new()).await?;
                if error.is_conflict() {
                    // At the target of a rename somebody else is in the way, and the file keeps both its
                    // name and its draft.
                    if self.is_under(ino, &before.key) {
                        self.set_conflict_aside(ino, content, &before.key).await?;
                    }
                } else {
                    if is_doubtful(&error) {
                        doubt_upload(content, before);
                    }
                    if content.deferred.lock().is_none() {
                        let key = before.key.escape_debug();
                        tracing::warn!(%key, cause = %error, "not stored; the draft is kept");
                    }
                }
                return Err(error);
            }
        };
        content.set_stored(generation);
        if content.generation() == generation {
            content.draft.lock().detach_base();
        }
        self.stored(ino, &before.key, &etag);
        let pinned = Pinned { key: before.key.as_str().into(), etag: etag.clone(), size };
        match whole {
            Some(bytes) => self.cache.insert(&pinned, 0, bytes),
            None => self.cache_draft(&pinned, content, generation),
        }
        let name = if multipart { EventName::CreatedMultipart } else { EventName::CreatedPut };
        // What the journal answers for is never newer: this holds the gate, as every deferral does.
        let deferred = content.deferred.lock().as_ref().map(|deferral| deferral.id);
        let settled: Vec<_> = intent.into_iter().chain(deferred).collect();
        self.settle(&settled, vec![created(name, &before.key, size, &etag)]).await?;
        content.set_deferral(None);
        self.backlog.remove(ino);
        Ok(())
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

    /// Sends the bytes; returns which generation they are, and the bytes where they are few.
    async fn write_version(
        &self,
        ino: Ino,
        content: &Arc<Content>,
        before: &Snapshot,
        op_id: Option<String>,
        multipart: bool,
    ) -> Result<(u64, ETag, u64, Option<Bytes>)> {
        self.ensure_told(ino).await?;
        // Attributes as of now: a chmod since the snapshot rides along.
        let stat = self.snapshot(ino)?.stat;
        let options = PutOptions {
            metadata: stat.to_attributes(op_id).to_metadata()?,
            content_type: stat.content_type.clone(),
            condition: before.condition(),
        };
        if multipart {
            let (source, generation, size) = {
                let draft = content.draft.lock();
                (Arc::new(FileParts::from(draft.reader()?)), content.generation(), draft.size())
            };
            let etag = self.upload_parts(&before.key, source, size, &options).await?;
            return Ok((generation, etag, size, None));
        }
        let size = content.draft.lock().size();
        let _memory = self.settings.upload.lend(size).await;
        let (bytes, generation) = {
            let draft = content.draft.lock();
            (draft.read_local(0..draft.size())?, content.generation())
        };
        let etag = self.bucket.put(&before.key, bytes.clone(), &options).await.map_err(lost_is_stale)?;
        Ok((generation, etag, bytes.len() as u64, Some(bytes)))
    }

    /// Somebody else wrote this key meanwhile: theirs stays in the bucket, ours is kept in the state
    /// directory under a name that the log tells, and the file shows theirs from the next open on.
    /// Where only the replaced version had bytes, what is kept has holes.
    async fn set_conflict_aside(&self, ino: Ino, content: &Arc<Content>, key: &str) -> Result<()> {
        let (path, generation) = {
            let draft = content.draft.lock();
            (draft.path().to_owned(), content.generation())
        };
        let kept = super::recovery::conflict_path(&path);
        tokio::fs::copy(&path, &kept).await?;
        content.set_stored(generation);
        content.attributes_dirty.store(false, Ordering::Release);
        self.undefer(ino, content).await?;
        self.conflicts.fetch_add(1, Ordering::Relaxed);
        self.part_from_name(ino);
        tracing::error!(
            key = %key.escape_debug(),
            kept = %kept.display(),
            "somebody else wrote this key meanwhile: theirs stays, ours is kept in this file"
        );
        Ok(())
    }

    /// The name is theirs from now on, and gets an inode of its own: the writer, whose close came to
    /// nothing, may keep this one open for long.
    fn part_from_name(&self, ino: Ino) {
        let mut tree = self.tree.lock();
        tree.doubt(ino);
        let Some(node) = tree.get(ino).filter(|node| node.linked && node.opens > 0) else { return };
        let (parent, name) = (node.parent, node.name.clone());
        tree.supersede(ino);
        drop(tree);
        self.tell_kernel(|kernel| kernel.forget_name(parent, &name));
    }

    /// Sends a large draft in parts. The journal knows the upload, so that the next start aborts it
    /// if a crash leaves it: parts are billed.
    async fn upload_parts(&self, key: &str, source: Arc<FileParts>, size: u64, options: &PutOptions) -> Result<ETag> {
        let begun = Arc::new(Mutex::new(None));
        let (journal, noted, of_key) = (self.journal.clone(), begun.clone(), key.to_owned());
        let on_begin: OnBegin = Arc::new(move |upload_id| {
            let (journal, noted, key) = (journal.clone(), noted.clone(), of_key.clone());
            Box::pin(async move {
                match journal.intend(Intent::Upload { key, upload_id }).await {
                    Ok(id) => *noted.lock() = Some(id),
                    // The upload can do without; only its remains would be found by nobody.
                    Err(error) => tracing::warn!(cause = %error, "an upload is not in the journal"),
                }
            })
        });
        let settings = UploadSettings { on_begin: Some(on_begin), ..self.settings.upload.clone() };
        let sent = upload::upload(&self.bucket, key, source, size, options, &settings).await;
        let intent: Option<IntentId> = begun.lock().take();
        self.settle(intent.as_slice(), Vec::new()).await?;
        sent.map_err(lost_is_stale)
    }

    /// Brings in what only the old version has.
    pub(super) async fn complete(&self, content: &Arc<Content>) -> Result<()> {
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
            return self.commit_bytes(ino, content, before).await;
        }
        self.store_attributes_stable(ino).await?;
        let after = self.snapshot(ino)?;
        if let Some(etag) = after.etag {
            self.rebase(ino, &after.key, &etag);
        }
        Ok(())
    }
}
