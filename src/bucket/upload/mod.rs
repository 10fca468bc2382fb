//! What takes several requests: multipart upload, and the copy of a large object.
//!
//! Parts go in parallel and become one version at the end, under the condition of the options; until
//! then the key keeps what it had. An upload that fails or is dropped half way is aborted.

mod ahead;
mod arriving;
mod changes;
pub mod plan;
pub mod schedule;
mod session;
mod source;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;

use super::{Bucket, CopyRequest, ETag, Error, PutOptions, Result};
use crate::error::Kind;
pub use ahead::UploadAhead;
pub use arriving::Arriving;
pub use changes::upload_changes;
use schedule::Schedule;
pub use session::Session;
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
const MIN_PART_BYTES: u64 = 5 << 20;
const MAX_PART_BYTES: u64 = 5 << 30;
const MAX_OBJECT_BYTES: u64 = 5 << 40;

/// Told the id of an upload as soon as it has begun, so that it can be aborted after a crash.
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
    /// Wanted size of a part, at least 5 MiB; the parts of very large objects are larger.
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
        Self { part_bytes: 8 << 20, concurrency: 12, memory: None, on_begin: None }
    }
}

/// Uploads `size` bytes of `source` in parts and completes under the condition of `options`.
///
/// # Errors
/// Those of the requests; [`Kind::Local`] when the source cannot be read, [`Kind::QuotaExceeded`] for
/// an object of more than 5 TiB.
pub async fn upload(
    bucket: &Arc<dyn Bucket>,
    key: &str,
    source: Arc<dyn PartSource>,
    size: u64,
    options: &PutOptions,
    settings: &UploadSettings,
) -> Result<ETag> {
    check_size(key, size)?;
    let session = Session::begin(bucket, key, options, settings.on_begin.as_ref()).await?;
    let parts = Schedule::new(settings.part_bytes).parts_of(size);
    let send = |(number, range)| session.send_part(source.as_ref(), number, range, settings);
    let parts = Session::make_all(parts, settings.concurrency, send).await;
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
    check_size(&request.to, size)?;
    let part_bytes = COPY_PART_BYTES.max(size.div_ceil(MAX_PARTS).next_multiple_of(1 << 20));
    let session = Session::begin(bucket, &request.to, options, settings.on_begin.as_ref()).await?;
    let copy = |(number, range)| session.copy_part(request, number, range);
    let copied = Session::make_all((1..).zip(ranges(size, part_bytes)), settings.concurrency, copy).await;
    session.finish(copied, options).await
}

fn local(key: &str, cause: String) -> Error {
    let key = key.to_owned();
    Error { kind: Kind::Local, operation: "UploadPart", key, cause, http_status: None, request_id: None }
}

fn check_size(key: &str, size: u64) -> Result<()> {
    if size <= MAX_OBJECT_BYTES {
        return Ok(());
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
