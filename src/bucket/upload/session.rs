//! One multipart upload under way.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, Shared, ready};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::runtime::Handle;

use super::{Arriving, OnBegin, PartSource, UploadSettings, source};
use crate::bucket::{Bucket, Condition, CopyRequest, ETag, Part, PutOptions, Result};
use crate::error::Kind;
use crate::failpoint::{self, Failpoint};

/// An upload is aborted within this, or left to the next recovery.
const ABORT_DEADLINE: Duration = Duration::from_secs(10);

/// An upload that was begun. Dropped before it was completed, it is aborted.
#[derive(Debug)]
pub struct Session {
    bucket: Arc<dyn Bucket>,
    key: String,
    upload_id: String,
    completed: AtomicBool,
    runtime: Handle,
    /// Ready once `on_begin` has done with the upload's id.
    noted: Shared<BoxFuture<'static, ()>>,
}

impl Session {
    /// Begins an upload, and tells `on_begin` of it. Parts need not wait for that, which may be a disk's
    /// sync: they may leave, but none is done before the upload is noted.
    ///
    /// # Errors
    /// Those of `CreateMultipartUpload`.
    pub async fn begin(
        bucket: &Arc<dyn Bucket>,
        key: &str,
        options: &PutOptions,
        on_begin: Option<&OnBegin>,
    ) -> Result<Self> {
        failpoint::reach(Failpoint::UploadBefore);
        let upload_id = bucket.create_upload(key, options).await?;
        failpoint::reach(Failpoint::UploadCreated);
        let (bucket, key, runtime) = (Arc::clone(bucket), key.to_owned(), Handle::current());
        let noted = match on_begin {
            // A task of its own: it ends whatever becomes of the upload.
            Some(note) => runtime.spawn(note_begun(note(upload_id.clone()))).map(drop).boxed(),
            None => ready(()).boxed(),
        };
        Ok(Self { bucket, key, upload_id, completed: AtomicBool::new(false), runtime, noted: noted.shared() })
    }

    /// Sends a range of `source` as a part.
    ///
    /// # Errors
    /// Those of `UploadPart`; [`Kind::Local`] when the source cannot be read.
    pub async fn send_part(
        &self,
        source: &dyn PartSource,
        number: u16,
        range: Range<u64>,
        settings: &UploadSettings,
    ) -> Result<Part> {
        let _memory = settings.lend(range.end - range.start).await;
        let body = source::read(source, &self.key, range).await?;
        let part = self.bucket.upload_part(&self.key, &self.upload_id, number, body).await?;
        self.noted.clone().await;
        failpoint::reach(Failpoint::UploadBetweenParts);
        Ok(part)
    }

    /// Sends a part whose bytes are still coming, or where that cannot be done, once they are there.
    ///
    /// # Errors
    /// Those of `UploadPart`.
    pub(super) async fn send_arriving(&self, number: u16, part: &Arc<Arriving>) -> Result<Part> {
        let sent = match self.bucket.upload_arriving_part(&self.key, &self.upload_id, number, part).await {
            Err(error) if !is_about_the_upload(error.kind) => {
                tracing::debug!(cause = %error, "a part is sent once all of it is there");
                self.bucket.upload_part(&self.key, &self.upload_id, number, part.whole().await).await
            }
            sent => sent,
        };
        let sent = sent?;
        self.noted.clone().await;
        failpoint::reach(Failpoint::UploadBetweenParts);
        Ok(sent)
    }

    /// Copies a range of `from` as a part.
    ///
    /// # Errors
    /// Those of `UploadPartCopy`.
    pub async fn copy_part(&self, from: &CopyRequest, number: u16, range: Range<u64>) -> Result<Part> {
        self.bucket.copy_part(&self.key, &self.upload_id, number, from, range).await
    }

    /// Makes the parts, some at a time; the first failure stops the others.
    pub(super) async fn make_all<P, F>(
        parts: impl Iterator<Item = P>,
        concurrency: usize,
        make: impl Fn(P) -> F,
    ) -> Result<Vec<Part>>
    where
        F: Future<Output = Result<Part>>,
    {
        let mut parts: Vec<Part> =
            stream::iter(parts.map(make)).buffer_unordered(concurrency.max(1)).try_collect().await?;
        parts.sort_by_key(|part| part.number);
        Ok(parts)
    }

    /// Makes a version of the parts, given in order. After an error this may be tried again.
    ///
    /// # Errors
    /// Those of `CompleteMultipartUpload`.
    pub async fn complete(&self, parts: &[Part], condition: &Condition) -> Result<ETag> {
        // Its note is to be taken back afterwards.
        self.noted.clone().await;
        failpoint::reach(Failpoint::UploadBeforeComplete);
        let etag = self.bucket.complete_upload(&self.key, &self.upload_id, parts, condition).await?;
        failpoint::reach(Failpoint::UploadCompleted);
        self.completed.store(true, Ordering::Release);
        Ok(etag)
    }

    /// Completes the upload, or aborts it before it answers.
    pub(super) async fn finish(&self, parts: Result<Vec<Part>>, options: &PutOptions) -> Result<ETag> {
        let completed = match parts {
            Ok(parts) => self.complete(&parts, &options.condition).await,
            Err(error) => Err(error),
        };
        if completed.is_err() {
            self.abort().await;
        }
        completed
    }

    /// Gives the upload up, unless it is complete.
    pub async fn abort(&self) {
        if !self.completed.swap(true, Ordering::AcqRel) {
            abort(self.bucket.as_ref(), &self.key, &self.upload_id).await;
            self.noted.clone().await;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.completed.load(Ordering::Acquire) {
            let (bucket, key, upload_id) = (Arc::clone(&self.bucket), self.key.clone(), self.upload_id.clone());
            self.runtime.spawn(async move { abort(bucket.as_ref(), &key, &upload_id).await });
        }
    }
}

async fn note_begun(note: BoxFuture<'static, ()>) {
    note.await;
    failpoint::reach(Failpoint::UploadNoted);
}

/// Whether a part would be refused for this in whichever way it came.
fn is_about_the_upload(kind: Kind) -> bool {
    matches!(kind, Kind::NoSuchUpload | Kind::NoSuchBucket | Kind::NotFound | Kind::QuotaExceeded)
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
