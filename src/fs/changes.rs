//! A large file in parts: what did not change is copied inside of S3, what did is sent, and only what
//! a part lacks is fetched.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures::stream::{self, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::commit::{FILL_BYTES, Written};
use super::content::Content;
use super::doubt::{Sending, is_doubtful};
use super::draft::Draft;
use super::edges::Edges;
use super::inodes::Ino;
use super::outgoing::noting_upload;
use super::persist::{Snapshot, lost_is_stale};
use super::{Error, Fs, Result};
use crate::bucket::upload::plan::{PlannedPart, plan};
use crate::bucket::upload::{self, FileParts, PartSource, UploadSettings};
use crate::bucket::{self, CopyRequest, ETag, check_length, check_version};
use crate::cache::Pinned;
use crate::error::Kind;
use crate::journal::IntentId;

impl Fs {
    /// Makes the draft a version in parts. Its writers are kept out meanwhile.
    pub(super) async fn write_parts(
        &self,
        ino: Ino,
        content: &Content,
        before: &Snapshot,
        op_id: Option<String>,
    ) -> Result<Written> {
        let carries = self.snapshot(ino)?.stat.to_attributes(None);
        let size = content.draft.lock().size();
        // Its writers are kept out.
        let sending = Sending::version(content, content.generation(), size, carries);
        let written = self.send_parts(ino, content, before, op_id).await;
        sending.end(written.as_ref().is_err_and(is_doubtful));
        written
    }

    async fn send_parts(
        &self,
        ino: Ino,
        content: &Content,
        before: &Snapshot,
        op_id: Option<String>,
    ) -> Result<Written> {
        // Written since it was prepared.
        self.bring_edges(ino, content).await?;
        let key = &before.key;
        let (base, parts, source, generation, size) = {
            let mut draft = content.draft.lock();
            let source = FileParts::from(draft.reader()?);
            (draft.base().cloned(), self.planned(&draft), source, content.generation(), draft.size())
        };
        if let Some(base) = base.filter(|_| has_copies(&parts)) {
            // On the heap: whatever may come to a commit would be as large as this.
            let made = Box::pin(self.upload_changes(ino, content, base, parts, before, op_id.clone())).await;
            match made {
                Err(Error::Bucket(error)) if is_no_copier(&error) => {
                    self.copies_parts.store(false, Ordering::Relaxed);
                    tracing::warn!(cause = %error, "the server does not copy parts: changed objects are sent whole");
                    self.complete(content).await?;
                }
                made => {
                    let (etag, uploads) = made?;
                    return Ok(Written { uploads, ..Written::in_parts(generation, etag, size) });
                }
            }
        }
        let options = self.options_to_write(ino, before, op_id).await?;
        let source = Arc::new(source);
        let sent =
            |settings| async move { Ok(upload::upload(&self.bucket, key, source, size, &options, &settings).await?) };
        let (etag, uploads) = self.journaled(key, sent).await?;
        Ok(Written { uploads, ..Written::in_parts(generation, etag, size) })
    }

    async fn upload_changes(
        &self,
        ino: Ino,
        content: &Content,
        base: Pinned,
        parts: Vec<PlannedPart>,
        before: &Snapshot,
        op_id: Option<String>,
    ) -> Result<(ETag, Vec<IntentId>)> {
        let base = self.current_name(ino, base);
        let names = CopyRequest::new(base.key.to_string(), before.key.clone());
        let from = CopyRequest { from_etag: Some(base.etag.clone()), ..names };
        let local = FileParts::from(content.draft.lock().reader()?);
        let edges = Edges { fs: self, ino, content, base, local, told: Notify::new() };
        let some_are_fetched = parts.iter().any(|part| matches!(part, PlannedPart::Send(range) if edges.lacks(range)));
        let waits = some_are_fetched && !self.is_told(ino);
        // Where a HEAD is asked what the version has to carry, the upload begins beside it.
        let guess =
            if waits || self.is_told(ino) { None } else { self.options_by_now(ino, before, op_id.clone()).ok() };
        let is_likely = self.others_are_plain.load(Ordering::Relaxed) && self.listings.outage().is_none();
        let likely = guess.clone().filter(|_| is_likely);
        let options = async {
            if waits {
                edges.told.notified().await;
            }
            let options = self.options_to_write(ino, before, op_id).await?;
            if let Some(guess) = guess {
                self.others_are_plain.store(guess.makes_same(&options, &before.key), Ordering::Relaxed);
            }
            Ok(options)
        };
        let sent = |settings: UploadSettings| {
            let (from, edges) = (&from, &edges);
            async move { upload::upload_changes(&self.bucket, from, parts, edges, options, likely, &settings).await }
        };
        self.journaled(&before.key, sent).await
    }

    /// The parts of the draft's next version.
    fn planned(&self, draft: &Draft) -> Vec<PlannedPart> {
        let untouched = if self.copies_parts.load(Ordering::Relaxed) { draft.untouched() } else { Vec::new() };
        plan(draft.size(), &untouched, self.settings.upload.part_bytes)
    }

    /// Brings in what the parts to be sent lack, but for what one GET brings while its part is sent.
    pub(super) async fn bring_edges(&self, ino: Ino, content: &Content) -> Result<()> {
        let (base, missing) = {
            let draft = content.draft.lock();
            let Some(base) = draft.base().cloned() else { return Ok(()) };
            (base, missing(&draft, &self.planned(&draft)))
        };
        let base = &self.current_name(ino, base);
        let fetches = missing.into_iter().map(|(range, may_wait)| async move {
            let cached = self.cache.try_read(base, range.clone());
            if cached.is_none() && may_wait {
                return Ok(());
            }
            let _memory = self.settings.upload.lend(range.end - range.start).await;
            let bytes = match cached {
                Some(bytes) => bytes,
                None => self.fetch_edge(ino, base, range.clone()).await?,
            };
            content.draft.lock().fill(range.start, &bytes)?;
            Ok::<_, Error>(())
        });
        stream::iter(fetches).buffer_unordered(self.settings.upload.concurrency).try_collect().await
    }

    /// One GET of just this. Where nothing but a listing has described the file so far, it says
    /// what a HEAD would have to be asked for.
    async fn fetch_edge(&self, ino: Ino, base: &Pinned, range: Range<u64>) -> Result<bytes::Bytes> {
        let asked = Instant::now();
        let fetched = self.bucket.get(&base.key, Some(range.clone()), Some(&base.etag)).await.map_err(lost_is_stale)?;
        check_version(&base.key, &fetched.info.etag, &base.etag)?;
        check_length(&base.key, &fetched.bytes, &range)?;
        self.tell_fetched(ino, &base.key, fetched.info, asked)?;
        Ok(fetched.bytes)
    }

    /// Sends something in parts. The journal knows the upload, so that the next start aborts it if a
    /// crash leaves it: parts are billed. Once it is complete, its record is for the caller to settle.
    async fn journaled<F>(&self, key: &str, send: impl FnOnce(UploadSettings) -> F) -> Result<(ETag, Vec<IntentId>)>
    where
        F: Future<Output = Result<ETag>>,
    {
        let begun = Arc::<Mutex<Vec<IntentId>>>::default();
        let on_begin = noting_upload(&self.journal, &begun, key);
        let settings = UploadSettings { on_begin: Some(on_begin), ..self.settings.upload.clone() };
        let outcome = send(settings).await;
        let begun = std::mem::take(&mut *begun.lock());
        match outcome {
            Ok(etag) => Ok((etag, begun)),
            Err(error) => {
                self.settle(&begun, Vec::new()).await?;
                Err(if let Error::Bucket(error) = error { lost_is_stale(error) } else { error })
            }
        }
    }
}

/// What only the base has of the parts that are to be sent, in pieces that one request brings, and whether
/// it may come while its part is sent: it is all that the part lacks, and the part is not all that there is.
fn missing(draft: &Draft, parts: &[PlannedPart]) -> Vec<(Range<u64>, bool)> {
    let sent = parts.iter().filter_map(|part| if let PlannedPart::Send(range) = part { Some(range) } else { None });
    let mut pieces = Vec::new();
    for part in sent {
        let lacks = draft.missing_in(part.clone());
        if let ([only], true) = (lacks.as_slice(), has_copies(parts)) {
            pieces.push((only.clone(), true));
            continue;
        }
        for range in lacks {
            let end = range.end;
            let starts = range.step_by(FILL_BYTES as usize);
            pieces.extend(starts.map(|start| (start..end.min(start + FILL_BYTES), false)));
        }
    }
    pieces
}

fn has_copies(parts: &[PlannedPart]) -> bool {
    parts.iter().any(|part| matches!(part, PlannedPart::Copy(_)))
}

/// Whether a server has refused to make an object of parts of which some are copied.
fn is_no_copier(error: &bucket::Error) -> bool {
    matches!(error.kind, Kind::Unsupported | Kind::Refused)
}
