//! A large file in parts: what did not change is copied inside of S3, what did is sent, and only what
//! a part lacks is fetched.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures::stream::{self, StreamExt, TryStreamExt};
use parking_lot::Mutex;

use super::commit::{FILL_BYTES, Written};
use super::content::Content;
use super::draft::Draft;
use super::inodes::Ino;
use super::outgoing::noting_upload;
use super::persist::lost_is_stale;
use super::{Error, Fs, Result};
use crate::bucket::upload::plan::{PlannedPart, plan};
use crate::bucket::upload::{self, FileParts, UploadSettings};
use crate::bucket::{self, CopyRequest, ETag, PutOptions, check_length, check_version};
use crate::cache::Pinned;
use crate::error::Kind;
use crate::journal::IntentId;

impl Fs {
    /// Makes the draft a version in parts. Its writers are kept out meanwhile.
    pub(super) async fn write_parts(
        &self,
        ino: Ino,
        content: &Content,
        key: &str,
        options: &PutOptions,
    ) -> Result<Written> {
        // Written since it was prepared.
        self.bring_edges(ino, content).await?;
        let (base, parts, source, generation, size) = {
            let mut draft = content.draft.lock();
            let source = Arc::new(FileParts::from(draft.reader()?));
            (draft.base().cloned(), self.planned(&draft), source, content.generation(), draft.size())
        };
        let copies = parts.iter().any(|part| matches!(part, PlannedPart::Copy(_)));
        if let Some(base) = base.filter(|_| copies) {
            let made = self.upload_changes(ino, base, key, parts, source.clone(), options).await;
            match made {
                Err(Error::Bucket(error)) if is_no_copier(&error) => {
                    self.copies_parts.store(false, Ordering::Relaxed);
                    tracing::warn!(cause = %error, "the server does not copy parts: changed objects are sent whole");
                    self.complete(content).await?;
                }
                made => return Ok(Written::in_parts(generation, made?, size)),
            }
        }
        let sent = |settings| async move { upload::upload(&self.bucket, key, source, size, options, &settings).await };
        let etag = self.journaled(key, sent).await?;
        Ok(Written::in_parts(generation, etag, size))
    }

    async fn upload_changes(
        &self,
        ino: Ino,
        base: Pinned,
        key: &str,
        parts: Vec<PlannedPart>,
        source: Arc<FileParts>,
        options: &PutOptions,
    ) -> Result<ETag> {
        let Pinned { key: from, etag, .. } = self.current_name(ino, base);
        let from = CopyRequest {
            from: from.to_string(),
            to: key.to_owned(),
            from_etag: Some(etag),
            replace: None,
            storage_class: None,
            from_bucket: None,
        };
        let sent = |settings| async move {
            upload::upload_changes(&self.bucket, &from, parts, source, options, &settings).await
        };
        self.journaled(key, sent).await
    }

    /// The parts of the draft's next version.
    fn planned(&self, draft: &Draft) -> Vec<PlannedPart> {
        let untouched = if self.copies_parts.load(Ordering::Relaxed) { draft.untouched() } else { Vec::new() };
        plan(draft.size(), &untouched, self.settings.upload.part_bytes)
    }

    /// Brings in what the parts to be sent lack.
    pub(super) async fn bring_edges(&self, ino: Ino, content: &Content) -> Result<()> {
        let (base, missing) = {
            let draft = content.draft.lock();
            let Some(base) = draft.base().cloned() else { return Ok(()) };
            (base, missing(&draft, &self.planned(&draft)))
        };
        let base = &self.current_name(ino, base);
        let fetches = missing.into_iter().map(|range| async move {
            let _memory = self.settings.upload.lend(range.end - range.start).await;
            let bytes = self.fetch_edge(ino, base, range.clone()).await?;
            content.draft.lock().fill(range.start, &bytes)?;
            Ok::<_, Error>(())
        });
        stream::iter(fetches).buffer_unordered(self.settings.upload.concurrency).try_collect().await
    }

    /// One GET at most, of just this. Where nothing but a listing has described the file so far, it says
    /// what a HEAD would have to be asked for.
    async fn fetch_edge(&self, ino: Ino, base: &Pinned, range: std::ops::Range<u64>) -> Result<bytes::Bytes> {
        if let Some(bytes) = self.cache.try_read(base, range.clone()) {
            return Ok(bytes);
        }
        let asked = Instant::now();
        let fetched = self.bucket.get(&base.key, Some(range.clone()), Some(&base.etag)).await.map_err(lost_is_stale)?;
        check_version(&base.key, &fetched.info.etag, &base.etag)?;
        check_length(&base.key, &fetched.bytes, &range)?;
        self.tell_fetched(ino, &base.key, fetched.info, asked)?;
        Ok(fetched.bytes)
    }

    /// Sends something in parts. The journal knows the upload, so that the next start aborts it if a
    /// crash leaves it: parts are billed.
    pub(super) async fn journaled<F>(&self, key: &str, send: impl FnOnce(UploadSettings) -> F) -> Result<ETag>
    where
        F: Future<Output = bucket::Result<ETag>>,
    {
        let begun = Arc::<Mutex<Option<IntentId>>>::default();
        let on_begin = noting_upload(&self.journal, &begun, key);
        let settings = UploadSettings { on_begin: Some(on_begin), ..self.settings.upload.clone() };
        let outcome = send(settings).await;
        let intent = begun.lock().take();
        self.settle(intent.as_slice(), Vec::new()).await?;
        outcome.map_err(lost_is_stale)
    }
}

/// What only the base has of the parts that are to be sent, in pieces that one request brings.
fn missing(draft: &Draft, parts: &[PlannedPart]) -> Vec<std::ops::Range<u64>> {
    let sent = parts.iter().filter_map(|part| if let PlannedPart::Send(range) = part { Some(range) } else { None });
    let whole = sent.flat_map(|range| draft.missing_in(range.clone()));
    let pieces = whole.flat_map(|range| {
        let end = range.end;
        range.step_by(FILL_BYTES as usize).map(move |start| start..end.min(start + FILL_BYTES))
    });
    pieces.collect()
}

/// Whether a server has refused to make an object of parts of which some are copied.
fn is_no_copier(error: &bucket::Error) -> bool {
    matches!(error.kind, Kind::Unsupported | Kind::Refused)
}
