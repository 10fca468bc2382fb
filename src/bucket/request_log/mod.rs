//! What was said to S3: requests by operation, outcome and duration, bytes, the last errors. For
//! `s3mount status` and the metrics.
//!
//! [`Counted`] sits inside the retries, so it counts what is on the wire; [`RequestLog::retried`] is told
//! of each that follows another, and [`RequestLog::failed`] what is left after all of them.

mod tally;

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::upload::Arriving;
use super::{
    AppendRequest, Bucket, Condition, CopyRequest, Deletion, ETag, Error, Fetched, ListPage, ListRequest, ObjectInfo,
    Part, PendingUpload, PutOptions, RenameRequest, Result, Sink,
};
use crate::error::Kind;
pub use tally::OperationCounts;
use tally::{OPERATIONS, Tally, UnderWay};

/// How many of the last errors are kept.
pub const KEPT_ERRORS: usize = 20;

/// An operation that failed for good, and when.
#[derive(Clone, Debug)]
pub struct FailedOperation {
    pub time: SystemTime,
    pub error: Error,
}

/// Counters since the start of the mount; cheap to share.
#[derive(Debug, Default)]
pub struct RequestLog {
    tallies: [Tally; OPERATIONS.len()],
    /// Operations that failed for good, by the kind of error.
    failures: [AtomicU64; Kind::ALL.len()],
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
    in_flight: AtomicU64,
    last_errors: Mutex<VecDeque<FailedOperation>>,
}

impl RequestLog {
    /// Requests sent, by S3 operation; every try counts.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.where_any(Tally::sent)
    }

    /// Requests that were answered with an error or not at all, by S3 operation; "not found" is an
    /// answer and does not count.
    pub fn failures(&self) -> BTreeMap<&'static str, u64> {
        self.where_any(Tally::failed)
    }

    fn where_any(&self, count: impl Fn(&Tally) -> u64) -> BTreeMap<&'static str, u64> {
        let all = OPERATIONS.iter().zip(&self.tallies).map(|(operation, tally)| (*operation, count(tally)));
        all.filter(|(_, count)| *count > 0).collect()
    }

    /// All that is counted of each operation, those that were never sent among them.
    pub fn operations(&self) -> Vec<OperationCounts> {
        OPERATIONS.iter().zip(&self.tallies).map(|(operation, tally)| tally.counts(operation)).collect()
    }

    /// Operations that failed after all retries, by the kind of error; each kind is there.
    pub fn failures_for_good(&self) -> Vec<(Kind, u64)> {
        let counts = self.failures.iter().map(|count| count.load(Ordering::Relaxed));
        Kind::ALL.into_iter().zip(counts).collect()
    }

    fn tally(&self, operation: &str) -> &Tally {
        let index = OPERATIONS.iter().position(|known| *known == operation);
        &self.tallies[index.expect("every operation is in the list: a test reads the sources")]
    }

    /// Bytes of objects and parts uploaded, also in requests that failed.
    pub fn bytes_sent(&self) -> u64 {
        self.bytes_sent.load(Ordering::Relaxed)
    }

    /// Bytes of objects downloaded.
    pub fn bytes_received(&self) -> u64 {
        self.bytes_received.load(Ordering::Relaxed)
    }

    /// Requests on the wire at this moment.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The last operations that failed after all retries, oldest first; at most [`KEPT_ERRORS`].
    pub fn last_errors(&self) -> Vec<FailedOperation> {
        self.last_errors.lock().iter().cloned().collect()
    }

    /// Notes that a request is sent once more.
    pub fn retried(&self, operation: &'static str) {
        self.tally(operation).retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes an operation that failed for good, with one line in the log. That another client has changed the object
    /// is an answer: who asked begins anew, or tells what came of it.
    pub fn failed(&self, error: &Error) {
        if error.kind == Kind::Changed {
            tracing::debug!("the object is another version: {error}");
        } else {
            tracing::warn!(
                operation = error.operation,
                key = %error.key.escape_debug(),
                kind = ?error.kind,
                cause = %error.cause,
                http_status = error.http_status,
                request_id = error.request_id,
                hint = error.hint(),
                "S3 request failed"
            );
        }
        self.failures[error.kind as usize].fetch_add(1, Ordering::Relaxed);
        let mut last = self.last_errors.lock();
        if last.len() == KEPT_ERRORS {
            last.pop_front();
        }
        last.push_back(FailedOperation { time: SystemTime::now(), error: error.clone() });
    }
}

/// Counts every request that passes.
#[derive(Debug)]
pub struct Counted<B> {
    inner: B,
    log: Arc<RequestLog>,
}

impl<B> Counted<B> {
    /// Counts what goes to `inner`.
    pub fn new(inner: B, log: Arc<RequestLog>) -> Self {
        Self { inner, log }
    }

    async fn count<T>(&self, operation: &'static str, request: impl Future<Output = Result<T>>) -> Result<T> {
        let under_way = UnderWay::new(self.log.tally(operation), &self.log.in_flight);
        let answer = request.await;
        under_way.end(answer.as_ref().err().map(|error| error.kind));
        answer
    }

    fn sent(&self, body: &Bytes) {
        self.log.bytes_sent.fetch_add(body.len() as u64, Ordering::Relaxed);
    }
}

#[async_trait]
impl<B: Bucket> Bucket for Counted<B> {
    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        self.count("HeadObject", self.inner.head(key)).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>, if_match: Option<&ETag>) -> Result<Fetched> {
        let fetched = self.count("GetObject", self.inner.get(key, range, if_match)).await?;
        self.log.bytes_received.fetch_add(fetched.bytes.len() as u64, Ordering::Relaxed);
        Ok(fetched)
    }

    async fn get_into(&self, key: &str, range: Range<u64>, etag: &ETag, sink: &dyn Sink) -> Result<()> {
        let before = sink.taken_bytes();
        let answer = self.count("GetObject", self.inner.get_into(key, range, etag, sink)).await;
        self.log.bytes_received.fetch_add(sink.taken_bytes() - before, Ordering::Relaxed);
        answer
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        self.count("ListObjectsV2", self.inner.list(request)).await
    }

    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<ETag> {
        self.sent(&body);
        self.count("PutObject", self.inner.put(key, body, options)).await
    }

    async fn copy(&self, request: &CopyRequest) -> Result<ETag> {
        self.count("CopyObject", self.inner.copy(request)).await
    }

    async fn rename(&self, request: &RenameRequest) -> Result<()> {
        self.count("RenameObject", self.inner.rename(request)).await
    }

    async fn append(&self, request: &AppendRequest, body: Bytes) -> Result<ETag> {
        self.sent(&body);
        self.count("PutObject", self.inner.append(request, body)).await
    }

    async fn delete(&self, key: &str, if_match: Option<&ETag>) -> Result<()> {
        self.count("DeleteObject", self.inner.delete(key, if_match)).await
    }

    async fn delete_many(&self, deletions: &[Deletion]) -> Result<Vec<(String, Error)>> {
        self.count("DeleteObjects", self.inner.delete_many(deletions)).await
    }

    async fn create_upload(&self, key: &str, options: &PutOptions) -> Result<String> {
        self.count("CreateMultipartUpload", self.inner.create_upload(key, options)).await
    }

    async fn upload_part(&self, key: &str, upload_id: &str, number: u16, body: Bytes) -> Result<Part> {
        self.sent(&body);
        self.count("UploadPart", self.inner.upload_part(key, upload_id, number, body)).await
    }

    async fn upload_arriving_part(&self, key: &str, id: &str, number: u16, part: &Arc<Arriving>) -> Result<Part> {
        self.log.bytes_sent.fetch_add(part.size(), Ordering::Relaxed);
        self.count("UploadPart", self.inner.upload_arriving_part(key, id, number, part)).await
    }

    async fn copy_part(
        &self,
        key: &str,
        upload_id: &str,
        number: u16,
        from: &CopyRequest,
        range: Range<u64>,
    ) -> Result<Part> {
        self.count("UploadPartCopy", self.inner.copy_part(key, upload_id, number, from, range)).await
    }

    async fn complete_upload(&self, key: &str, upload_id: &str, parts: &[Part], condition: &Condition) -> Result<ETag> {
        let request = self.inner.complete_upload(key, upload_id, parts, condition);
        self.count("CompleteMultipartUpload", request).await
    }

    async fn abort_upload(&self, key: &str, upload_id: &str) -> Result<()> {
        self.count("AbortMultipartUpload", self.inner.abort_upload(key, upload_id)).await
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        self.count("ListMultipartUploads", self.inner.list_uploads(prefix)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::memory::{Effect, Fault, MemoryBucket};

    #[tokio::test]
    async fn requests_bytes_and_failures_are_counted() {
        let log = Arc::new(RequestLog::default());
        let memory = MemoryBucket::new();
        memory.inject(Fault::once("GetObject", Effect::Fail(Kind::Busy)));
        let bucket = Counted::new(memory, Arc::clone(&log));
        bucket.put("k", "12345".into(), &PutOptions::default()).await.unwrap();
        assert!(bucket.get("k", None, None).await.is_err());
        bucket.get("k", Some(1..3), None).await.unwrap();
        assert!(bucket.head("missing").await.is_err());
        assert_eq!(log.counts(), BTreeMap::from([("GetObject", 2), ("HeadObject", 1), ("PutObject", 1)]));
        assert_eq!(log.failures(), BTreeMap::from([("GetObject", 1)]), "a missing object is no failure");
        assert_eq!((log.bytes_sent(), log.bytes_received(), log.in_flight()), (5, 2, 0));
        let counted = log.operations();
        let of = |operation| counted.iter().find(|counts| counts.operation == operation).unwrap();
        assert_eq!(of("GetObject").outcomes, [("ok", 1), ("busy", 1)]);
        assert_eq!(of("HeadObject").outcomes, [("ok", 0), ("not_found", 1)]);
        assert_eq!((of("GetObject").durations.count, of("CopyObject").durations.count), (2, 0));
    }

    #[tokio::test]
    async fn a_request_that_is_dropped_is_no_longer_in_flight() {
        let log = Arc::new(RequestLog::default());
        let memory = MemoryBucket::new();
        memory.inject(Fault::always(Effect::Hang));
        let bucket = Counted::new(memory, Arc::clone(&log));
        {
            let mut request = Box::pin(bucket.head("k"));
            assert!(futures::poll!(&mut request).is_pending());
            assert_eq!(log.in_flight(), 1);
        }
        assert_eq!(log.in_flight(), 0);
        let head = log.operations().into_iter().find(|counts| counts.operation == "HeadObject").unwrap();
        assert_eq!((head.outcomes, head.durations.count), (vec![("ok", 0), ("abandoned", 1)], 1));
    }

    #[test]
    fn every_operation_that_is_named_is_in_the_list() {
        let named = |source: &'static str, call: &str| -> std::collections::BTreeSet<&str> {
            let production = source.split("mod tests").next().unwrap();
            production
                .split(call)
                .skip(1)
                .filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next())
                .collect()
        };
        let all = OPERATIONS.into();
        assert_eq!(named(include_str!("mod.rs"), "self.count("), all);
        let retried = include_str!("../retry/mod.rs");
        let tried = &named(retried, "self.repeat(") | &named(retried, "self.run(");
        assert_eq!(&tried | &named(include_str!("../retry/deletions.rs"), "self.run("), all);
    }

    #[test]
    fn another_clients_change_is_counted_and_no_trouble() {
        let log = RequestLog::default();
        let said = tempfile::NamedTempFile::new().unwrap();
        let file = Arc::new(said.reopen().unwrap());
        let warnings = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(file);
        tracing::subscriber::with_default(warnings.finish(), || {
            for kind in [Kind::Changed, Kind::Busy] {
                let (key, cause) = (format!("told-of-{kind:?}"), "cause".to_owned());
                log.failed(&Error { kind, operation: "GetObject", key, cause, http_status: None, request_id: None });
            }
        });
        let said = std::fs::read_to_string(said.path()).unwrap();
        assert!(said.contains("told-of-Busy") && !said.contains("told-of-Changed"), "{said}");
        assert_eq!(log.failures_for_good()[Kind::Changed as usize], (Kind::Changed, 1));
    }

    #[test]
    fn only_the_last_errors_are_kept() {
        let log = RequestLog::default();
        for number in 0..25 {
            let (key, cause) = (number.to_string(), "SlowDown".to_owned());
            let kind = Kind::Busy;
            log.failed(&Error { kind, operation: "GetObject", key, cause, http_status: Some(503), request_id: None });
        }
        let kept: Vec<_> = log.last_errors().into_iter().map(|failed| failed.error.key).collect();
        assert_eq!(kept.len(), KEPT_ERRORS);
        assert_eq!((kept[0].as_str(), kept[19].as_str()), ("5", "24"));
        assert_eq!(log.failures_for_good()[Kind::Busy as usize], (Kind::Busy, 25));
    }
}
