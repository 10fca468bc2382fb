//! What takes several requests: multipart upload, and the copy of a large object.
//!
//! Parts go in parallel and become one version at the end, under the condition of the options; until
//! then the key keeps what it had. An upload that fails or is dropped half way is aborted.

mod source;

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::{Bucket, CopyRequest, ETag, Error, Part, PutOptions, Result};
use crate::error::Kind;
use crate::failpoint::{self, Failpoint};
pub use source::{FileParts, PartSource};

/// From this size on, an object goes up in parts.
pub const MULTIPART_FROM_BYTES: u64 = 16 << 20;
/// From this size on, a copy goes in parts: one `CopyObject` ends at 5 GiB, and long before that it
/// takes longer than an operation may.
pub const COPY_PARTS_FROM_BYTES: u64 = 512 << 20;
/// Parts of a large copy; no byte of them passes through here.
const COPY_PART_BYTES: u64 = 128 << 20;
/// AWS: "Multipart upload limits".
const MAX_PARTS: u64 = 10_000;
const MAX_PART_BYTES: u64 = 5 << 30;
/// An upload is aborted within this, or left to the next recovery.
const ABORT_DEADLINE: Duration = Duration::from_secs(10);

/// Told the id of an upload before its first part is sent, so that it can be aborted after a crash.
pub type OnBegin = Arc<dyn Fn(String) -> BoxFuture<'static, ()> + Send + Sync>;

/// Memory that somebody lent; dropping it gives it back.
pub type Loan = Box<dyn Send + Sync>;

/// Lends the memory for parts while they are on their way.
#[async_trait]
pub trait PartMemory: Send + Sync {
    /// Waits until so many bytes may be used. What is larger than all there is counts as that.
    async fn lend(&self, bytes: u64) -> Loan;
}

/// How an upload goes. Its memory is `part_bytes · concurrency`, and no more than `memory` lends.
#[derive(Clone)]
pub struct UploadSettings {
    /// Wanted size of a part, at least 5 MiB; grows where 10,000 of them do not hold the object.
    pub part_bytes: u64,
    /// Parts on their way at a time.
    pub concurrency: usize,
    /// `None`: as much as it takes.
    pub memory: Option<Arc<dyn PartMemory>>,
    pub on_begin: Option<OnBegin>,
}

impl fmt::Debug for UploadSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (part_bytes, concurrency) = (self.part_bytes, self.concurrency);
        write!(f, "UploadSettings {{ part_bytes: {part_bytes}, concurrency: {concurrency} }}")
    }
}

impl UploadSettings {
    /// Memory for the body of a request; hold on to it until that is sent.
    pub async fn lend(&self, bytes: u64) -> Option<Loan> {
        match &self.memory {
            Some(memory) => Some(memory.lend(bytes).await),
            None => None,
        }
    }
}

impl Default for UploadSettings {
    fn default() -> Self {
        Self { part_bytes: 8 << 20, concurrency: 8, memory: None, on_begin: None }
    }
}

/// Uploads `size` bytes of `source` in parts and completes under the condition of `options`.
///
/// # Errors
/// Those of the requests; [`Kind::Local`] when the source cannot be read, [`Kind::QuotaExceeded`] for
/// an object that 10,000 parts of 5 GiB do not hold.
pub async fn upload(
    bucket: &Arc<dyn Bucket>,
    key: &str,
    source: Arc<dyn PartSource>,
    size: u64,
    options: &PutOptions,
    settings: &UploadSettings,
) -> Result<ETag> {
    let part_bytes = fitting_part_bytes(key, size, settings.part_bytes)?;
    let session = Session::begin(bucket, key, options, settings.on_begin.as_ref()).await?;
    let parts = session
        .send_parts(ranges(size, part_bytes), settings.concurrency, |number, range| {
            let (source, session) = (Arc::clone(&source), &session);
            async move {
                let _memory = settings.lend(range.end - range.start).await;
                let body = source::read(source.as_ref(), key, range).await?;
                session.bucket.upload_part(key, &session.upload_id, number, body).await
            }
        })
        .await;
    session.finish(parts, options).await
}

/// Copies an object of `size` bytes in parts. A copy in parts carries nothing over, so `options` is
/// all that the new object has; `request.replace` is not looked at. Name `request.from_etag`, or
/// parts of two versions may be mixed.
///
/// # Errors
/// Those of the requests.
pub async fn copy_large(
    bucket: &Arc<dyn Bucket>,
    request: &CopyRequest,
    size: u64,
    options: &PutOptions,
    settings: &UploadSettings,
) -> Result<ETag> {
    let key = &request.to;
    let part_bytes = fitting_part_bytes(key, size, COPY_PART_BYTES)?;
    let session = Session::begin(bucket, key, options, settings.on_begin.as_ref()).await?;
    let parts = session
        .send_parts(ranges(size, part_bytes), settings.concurrency, |number, range| {
            session.bucket.copy_part(key, &session.upload_id, number, request, range)
        })
        .await;
    session.finish(parts, options).await
}

/// An upload under way; dropping it before [`finish`](Self::finish) aborts it.
struct Session {
    bucket: Arc<dyn Bucket>,
    key: String,
    upload_id: String,
    finished: bool,
}

impl Session {
    async fn begin(
        bucket: &Arc<dyn Bucket>,
        key: &str,
        options: &PutOptions,
        on_begin: Option<&OnBegin>,
    ) -> Result<Self> {
        failpoint::reach(Failpoint::UploadBefore);
        let upload_id = bucket.create_upload(key, options).await?;
        failpoint::reach(Failpoint::UploadCreated);
        let session = Self { bucket: Arc::clone(bucket), key: key.to_owned(), upload_id, finished: false };
        if let Some(note) = on_begin {
            note(session.upload_id.clone()).await;
        }
        failpoint::reach(Failpoint::UploadNoted);
        Ok(session)
    }

    /// Sends the parts, some at a time; the first failure stops the others.
    async fn send_parts<F>(
        &self,
        ranges: impl Iterator<Item = Range<u64>>,
        concurrency: usize,
        send: impl Fn(u16, Range<u64>) -> F,
    ) -> Result<Vec<Part>>
    where
        F: Future<Output = Result<Part>>,
    {
        let sends = (1..).zip(ranges).map(|(number, range)| {
            let part = send(number, range);
            async move { part.await.inspect(|_| failpoint::reach(Failpoint::UploadBetweenParts)) }
        });
        let mut parts: Vec<Part> = stream::iter(sends).buffer_unordered(concurrency.max(1)).try_collect().await?;
        parts.sort_by_key(|part| part.number);
        Ok(parts)
    }

    /// Completes the upload, or aborts it.
    async fn finish(mut self, parts: Result<Vec<Part>>, options: &PutOptions) -> Result<ETag> {
        let completed = match parts {
            Ok(parts) => {
                failpoint::reach(Failpoint::UploadBeforeComplete);
                self.bucket.complete_upload(&self.key, &self.upload_id, &parts, &options.condition).await
            }
            Err(error) => Err(error),
        };
        failpoint::reach(Failpoint::UploadCompleted);
        self.finished = true;
        if completed.is_err() {
            abort(self.bucket.as_ref(), &self.key, &self.upload_id).await;
        }
        completed
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !self.finished {
            let (bucket, key, upload_id) = (Arc::clone(&self.bucket), self.key.clone(), self.upload_id.clone());
            runtime.spawn(async move { abort(bucket.as_ref(), &key, &upload_id).await });
        }
    }
}

/// Best effort: what stays is found by its journal record, or by the bucket's lifecycle rule.
async fn abort(bucket: &dyn Bucket, key: &str, upload_id: &str) {
    let aborted = tokio::time::timeout(ABORT_DEADLINE, bucket.abort_upload(key, upload_id)).await;
    match aborted {
        Ok(Ok(())) => {}
        Ok(Err(error)) if error.kind == Kind::NoSuchUpload => {}
        Ok(Err(error)) => tracing::warn!(%error, upload_id, "the upload was not aborted"),
        Err(_) => tracing::warn!(key, upload_id, "the upload was not aborted in time"),
    }
}

fn local(key: &str, cause: String) -> Error {
    let key = key.to_owned();
    Error { kind: Kind::Local, operation: "UploadPart", key, cause, http_status: None, request_id: None }
}

/// The wanted part size, or the next MiB at which 10,000 parts hold the object.
fn fitting_part_bytes(key: &str, size: u64, wanted: u64) -> Result<u64> {
    let least = size.div_ceil(MAX_PARTS).next_multiple_of(1 << 20);
    let part_bytes = wanted.max(least);
    if part_bytes <= MAX_PART_BYTES {
        return Ok(part_bytes);
    }
    let cause = format!("{size} bytes are more than S3 takes in one object");
    Err(Error { kind: Kind::QuotaExceeded, ..local(key, cause) })
}

/// The ranges of the parts; an empty object is one empty part.
fn ranges(size: u64, part_bytes: u64) -> impl Iterator<Item = Range<u64>> {
    let parts = size.div_ceil(part_bytes).max(1);
    (0..parts).map(move |index| index * part_bytes..((index + 1) * part_bytes).min(size))
}

#[cfg(test)]
mod tests;
