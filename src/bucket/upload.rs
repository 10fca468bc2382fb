//! What takes several requests: multipart upload, and the copy of a large object.
//!
//! Parts go in parallel and become one version at the end, under the condition of the options; until
//! then the key keeps what it had. An upload that fails or is dropped half way is aborted.

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::{Bucket, CopyRequest, ETag, Error, Part, PutOptions, Result};
use crate::error::Kind;

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

/// Where the bytes of an upload come from; asked for each part once, several at a time.
#[async_trait]
pub trait PartSource: Send + Sync + 'static {
    /// Exactly these bytes.
    async fn read(&self, range: Range<u64>) -> io::Result<Bytes>;
}

#[async_trait]
impl PartSource for Bytes {
    async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        Ok(self.slice(range.start as usize..range.end as usize))
    }
}

/// The bytes of a local file.
#[derive(Clone, Debug)]
pub struct FileParts(Arc<File>);

impl From<File> for FileParts {
    fn from(file: File) -> Self {
        Self(Arc::new(file))
    }
}

#[async_trait]
impl PartSource for FileParts {
    async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let file = self.0.clone();
        let read = move || {
            let mut buffer = vec![0; (range.end - range.start) as usize];
            file.read_exact_at(&mut buffer, range.start)?;
            Ok(buffer.into())
        };
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }
}

/// Told the id of an upload before its first part is sent, so that it can be aborted after a crash.
pub type OnBegin = Arc<dyn Fn(String) -> BoxFuture<'static, ()> + Send + Sync>;

/// How an upload goes. Its memory is `part_bytes · concurrency`.
#[derive(Clone)]
pub struct UploadSettings {
    /// Wanted size of a part, at least 5 MiB; grows where 10,000 of them do not hold the object.
    pub part_bytes: u64,
    /// Parts on their way at a time.
    pub concurrency: usize,
    pub on_begin: Option<OnBegin>,
}

impl fmt::Debug for UploadSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadSettings")
            .field("part_bytes", &self.part_bytes)
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}

impl Default for UploadSettings {
    fn default() -> Self {
        Self { part_bytes: 8 << 20, concurrency: 8, on_begin: None }
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
                let body = read(source.as_ref(), key, range).await?;
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
        let upload_id = bucket.create_upload(key, options).await?;
        let session = Self { bucket: Arc::clone(bucket), key: key.to_owned(), upload_id, finished: false };
        if let Some(note) = on_begin {
            note(session.upload_id.clone()).await;
        }
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
        let sends = (1..).zip(ranges).map(|(number, range)| send(number, range));
        let mut parts: Vec<Part> = stream::iter(sends).buffer_unordered(concurrency.max(1)).try_collect().await?;
        parts.sort_by_key(|part| part.number);
        Ok(parts)
    }

    /// Completes the upload, or aborts it.
    async fn finish(mut self, parts: Result<Vec<Part>>, options: &PutOptions) -> Result<ETag> {
        let completed = match parts {
            Ok(parts) => self.bucket.complete_upload(&self.key, &self.upload_id, &parts, &options.condition).await,
            Err(error) => Err(error),
        };
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

async fn read(source: &dyn PartSource, key: &str, range: Range<u64>) -> Result<Bytes> {
    let wanted = range.end - range.start;
    let bytes = source.read(range).await.map_err(|error| local(key, error.to_string()))?;
    if bytes.len() as u64 == wanted {
        return Ok(bytes);
    }
    Err(local(key, format!("the source gave {} of {wanted} bytes", bytes.len())))
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
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::bucket::memory::{Effect, Fault, MemoryBucket};
    use crate::bucket::{Condition, Metadata};

    const PART_BYTES: u64 = 5 << 20;

    fn bucket() -> (Arc<MemoryBucket>, Arc<dyn Bucket>) {
        let memory = Arc::new(MemoryBucket::new());
        (Arc::clone(&memory), memory)
    }

    fn body() -> Bytes {
        (0..PART_BYTES * 3 + 7).map(|index| (index % 251) as u8).collect()
    }

    fn settings() -> UploadSettings {
        UploadSettings { part_bytes: PART_BYTES, concurrency: 4, on_begin: None }
    }

    async fn send(bucket: &Arc<dyn Bucket>, body: &Bytes, settings: &UploadSettings) -> Result<ETag> {
        let metadata = Metadata::from([("a".to_owned(), "b".to_owned())]);
        let options = PutOptions { metadata, condition: Condition::IfAbsent, content_type: None };
        upload(bucket, "k", Arc::new(body.clone()), body.len() as u64, &options, settings).await
    }

    #[tokio::test]
    async fn all_bytes_arrive_in_order_with_their_metadata() {
        let (memory, bucket) = bucket();
        // The first part comes last: order is by number, not by arrival.
        memory.inject(Fault::once("UploadPart", Effect::Delay(Duration::from_millis(50))));
        let begun = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&begun);
        let on_begin: OnBegin = Arc::new(move |upload_id| {
            noted.lock().push(upload_id);
            Box::pin(std::future::ready(()))
        });
        let etag = send(&bucket, &body(), &UploadSettings { on_begin: Some(on_begin), ..settings() }).await.unwrap();
        assert_eq!(memory.bytes("k").unwrap(), body());
        let info = memory.info("k").unwrap();
        assert_eq!((info.etag, info.metadata["a"].as_str()), (etag, "b"));
        assert_eq!((memory.count("UploadPart"), begun.lock().len()), (4, 1));
    }

    #[tokio::test]
    async fn a_failed_upload_is_aborted_and_changes_nothing() {
        for operation in ["UploadPart", "CompleteMultipartUpload"] {
            let (memory, bucket) = bucket();
            memory.inject(Fault::once(operation, Effect::Fail(Kind::AccessDenied)));
            assert_eq!(send(&bucket, &body(), &settings()).await.unwrap_err().kind, Kind::AccessDenied);
            assert_eq!((memory.open_uploads(), memory.bytes("k")), (0, None), "{operation}");
        }
    }

    #[tokio::test]
    async fn a_conflict_keeps_the_others_version() {
        let (memory, bucket) = bucket();
        memory.insert("k", "theirs", Metadata::new());
        assert_eq!(send(&bucket, &body(), &settings()).await.unwrap_err().kind, Kind::Changed);
        assert_eq!((memory.open_uploads(), memory.bytes("k").unwrap()), (0, Bytes::from("theirs")));
    }

    #[tokio::test]
    async fn an_upload_that_is_dropped_is_aborted() {
        let (memory, bucket) = bucket();
        memory.inject(Fault::once("UploadPart", Effect::Hang).times(9));
        let sending = tokio::spawn({
            let bucket = Arc::clone(&bucket);
            async move { send(&bucket, &body(), &settings()).await }
        });
        while memory.count("UploadPart") == 0 {
            tokio::task::yield_now().await;
        }
        sending.abort();
        assert!(sending.await.unwrap_err().is_cancelled());
        while memory.open_uploads() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(memory.count("AbortMultipartUpload"), 1);
    }

    struct Broken;

    #[async_trait]
    impl PartSource for Broken {
        async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
            if range.start == 0 { Ok(Bytes::from_static(b"short")) } else { Err(io::Error::other("gone")) }
        }
    }

    #[tokio::test]
    async fn a_source_that_fails_or_is_short_makes_no_object() {
        let (memory, bucket) = bucket();
        let sent = upload(&bucket, "k", Arc::new(Broken), PART_BYTES * 2, &PutOptions::default(), &settings()).await;
        assert_eq!(sent.unwrap_err().kind, Kind::Local);
        assert_eq!((memory.open_uploads(), memory.bytes("k")), (0, None));
    }

    #[tokio::test]
    async fn a_copy_in_parts_is_the_same_object_of_one_version() {
        let (memory, bucket) = bucket();
        let from_etag = memory.insert("a", body(), Metadata::new());
        let request = CopyRequest { from: "a".into(), to: "b".into(), from_etag: Some(from_etag), replace: None };
        let size = body().len() as u64;
        copy_large(&bucket, &request, size, &PutOptions::default(), &settings()).await.unwrap();
        assert_eq!(memory.bytes("b").unwrap(), body());
        memory.insert("a", "new", Metadata::new());
        let changed = copy_large(&bucket, &request, size, &PutOptions::default(), &settings()).await;
        assert_eq!(changed.unwrap_err().kind, Kind::Changed);
        assert_eq!(memory.open_uploads(), 0);
    }

    #[test]
    fn parts_hold_every_object_that_s3_takes() {
        assert_eq!(fitting_part_bytes("k", 1, 8 << 20).unwrap(), 8 << 20);
        let large = fitting_part_bytes("k", 5 << 40, 8 << 20).unwrap();
        assert!((5_u64 << 40).div_ceil(large) <= MAX_PARTS && large <= MAX_PART_BYTES);
        assert_eq!(fitting_part_bytes("k", u64::MAX / 2, 8 << 20).unwrap_err().kind, Kind::QuotaExceeded);
        assert_eq!(ranges(0, 5).collect::<Vec<_>>(), [0..0]);
        assert_eq!(ranges(11, 5).collect::<Vec<_>>(), [0..5, 5..10, 10..11]);
        assert_eq!(ranges(10, 5).count(), 2);
    }
}
