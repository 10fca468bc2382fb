//! Patience with a limit: every operation ends within its deadline, and what can be tried again is.
//!
//! A write whose reply was lost may have happened. Trying it again without a condition is harmless;
//! with one, the second try is refused because of the first. What really happened is looked up
//! ([`lost_reply`]), never assumed.

mod backoff;
mod deletions;
mod lost_reply;

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use super::identity::Identity;
use super::rate::{Rate, Rates};
use super::request_log::RequestLog;
use super::upload::Arriving;
use super::{
    AppendRequest, Bucket, Condition, CopyRequest, Deletion, ETag, Error, Fetched, ListPage, ListRequest, ObjectInfo,
    Part, PendingUpload, PutOptions, RenameRequest, Result, Sink, Tail, only_whole_parts,
};
use crate::error::Kind;
use crate::telemetry::spans;
use backoff::RetryBudget;
pub use backoff::{doubled, pause, random_fraction};
use deletions::Learnt;
use lost_reply::Memory;

/// An upload or download may go on beyond the deadline as long as it is at least this fast.
const SLOWEST_BYTES_PER_SECOND: u64 = 64 << 10;

/// Between the look at the credentials and the signature they may have been replaced by worse ones.
const MOST_RENEWALS: u32 = 2;

/// When to try again and when to give up.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// No operation takes longer, but for the time that its bytes need at 64 KiB/s.
    pub deadline: Duration,
    /// Longest time for one try of a small request; it must leave time for another.
    pub attempt: Duration,
    /// How often one request is sent at most.
    pub max_attempts: u32,
    /// First pause; it doubles up to `longest_pause`.
    pub base_pause: Duration,
    pub longest_pause: Duration,
    /// How long an endpoint may be out of reach before that is the answer: a program that waits a
    /// minute to learn that the network cable is out is not served.
    pub unreachable: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            deadline: Duration::from_mins(1),
            attempt: Duration::from_secs(20),
            max_attempts: 10,
            base_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(8),
            unreachable: Duration::from_secs(8),
        }
    }
}

impl RetryPolicy {
    /// The default tries within another deadline.
    #[must_use]
    pub fn within(deadline: Duration, max_attempts: u32) -> Self {
        let usual = Self::default();
        Self {
            deadline,
            max_attempts: max_attempts.max(1),
            attempt: usual.attempt.min(deadline / 2),
            unreachable: usual.unreachable.min(deadline / 2),
            ..usual
        }
    }
}

/// The decorator: tries requests of `inner` again, within a deadline.
#[derive(Debug)]
pub struct Retrying<B> {
    inner: B,
    policy: RetryPolicy,
    log: Arc<RequestLog>,
    budget: RetryBudget,
    memory: Memory,
    rates: Arc<Rates>,
    /// Who signs what `inner` sends.
    identity: Option<Arc<Identity>>,
    /// The server takes no part whose checksum follows it.
    wants_whole_parts: AtomicBool,
    deletions: Learnt,
}

/// One operation on its way through its tries.
struct Operation {
    begun: Instant,
    hard_stop: Instant,
    attempt_time: Duration,
    attempt: u32,
    unreachable_since: Option<Instant>,
    /// How often other credentials were found for it.
    renewals: u32,
    /// A try may have been applied although it failed.
    in_doubt: bool,
}

impl<B: Bucket> Retrying<B> {
    /// Tries requests again by `policy`; tells `log` of operations that failed for good.
    pub fn new(inner: B, policy: RetryPolicy, log: Arc<RequestLog>) -> Self {
        let (memory, rates) = (Memory::default(), Arc::default());
        let (wants_whole_parts, deletions) = (AtomicBool::new(false), Learnt::default());
        let (budget, identity) = (RetryBudget::new(), None);
        Self { inner, policy, log, budget, memory, rates, identity, wants_whole_parts, deletions }
    }

    /// Sends and fetches no more than this in a second.
    #[must_use]
    pub fn at_most(self, rates: Arc<Rates>) -> Self {
        Self { rates, ..self }
    }

    /// Requests are signed by this one, who is told when S3 refuses it.
    #[must_use]
    pub fn signing_as(self, identity: Option<Arc<Identity>>) -> Self {
        Self { identity, ..self }
    }

    /// An operation that moves this many bytes.
    fn operation(&self, bytes: u64) -> Operation {
        let begun = Instant::now();
        let transfer = Duration::from_secs(bytes / SLOWEST_BYTES_PER_SECOND);
        Operation {
            begun,
            hard_stop: begun + self.policy.deadline + transfer,
            attempt_time: self.policy.attempt + transfer,
            attempt: 0,
            unreachable_since: None,
            renewals: 0,
            in_doubt: false,
        }
    }

    /// An operation that the server works on before it answers: one try may take all the time.
    fn slow_operation(&self) -> Operation {
        Operation { attempt_time: self.policy.deadline, ..self.operation(0) }
    }

    /// Sends a request again until it succeeds, fails for good, or time is up; tells who collects spans.
    async fn run<T, F>(
        &self,
        name: &'static str,
        key: &str,
        operation: &mut Operation,
        send: impl Fn() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        spans::asking_s3(name, key, self.try_on(name, key, operation, send), fault).await
    }

    async fn try_on<T, F>(
        &self,
        name: &'static str,
        key: &str,
        operation: &mut Operation,
        send: impl Fn() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        loop {
            operation.attempt += 1;
            spans::tried();
            let stop = operation.hard_stop.min(Instant::now() + operation.attempt_time);
            let signed_as = self.identity.as_ref().map_or(0, |identity| identity.generation());
            let answer = tokio::time::timeout_at(stop, send()).await;
            let error = match answer {
                Ok(Ok(value)) => {
                    self.budget.earn();
                    return Ok(value);
                }
                Ok(Err(error)) => error,
                Err(_) => no_answer(name, key, operation.begun.elapsed()),
            };
            if self.has_other_credentials(operation, &error, signed_as).await {
                tracing::info!(%error, "S3 request is sent again with other credentials");
                self.log.retried(name);
                continue;
            }
            operation.note(&error);
            let Some(pause) = self.pause(operation, &error) else { return Err(error) };
            tracing::debug!(%error, attempt = operation.attempt, ?pause, "S3 request is tried again");
            tokio::time::sleep(pause).await;
            self.log.retried(name);
        }
    }

    /// Whether the request failed for the credentials of this generation, and there are others now.
    async fn has_other_credentials(&self, operation: &mut Operation, error: &Error, signed_as: u64) -> bool {
        let (Some(identity), Some(is_certain)) = (&self.identity, refuses_credentials(error)) else { return false };
        operation.renewals += 1;
        operation.renewals <= MOST_RENEWALS && identity.replace(signed_as, is_certain).await
    }

    /// How long to wait before the next try; `None` = give up.
    fn pause(&self, operation: &Operation, error: &Error) -> Option<Duration> {
        let policy = &self.policy;
        let most = if error.kind == Kind::Corrupt { policy.max_attempts.min(3) } else { policy.max_attempts };
        if !is_worth_retrying(error) || operation.attempt >= most {
            return None;
        }
        if operation.unreachable_since.is_some_and(|since| since.elapsed() >= policy.unreachable) {
            return None;
        }
        let mut pause = backoff::pause(policy.base_pause, policy.longest_pause, operation.attempt);
        if operation.unreachable_since.is_some() {
            // Short steps, or the answer would come much later than promised.
            pause = pause.min(policy.unreachable / 4);
        }
        if let Err(wait) = self.budget.take() {
            pause = pause.max(wait);
        }
        (operation.begun.elapsed() + pause < policy.deadline).then_some(pause)
    }

    /// The end of an operation: what is a failure is told to the log.
    fn settle<T>(&self, answer: Result<T>) -> Result<T> {
        if let Err(error) = &answer
            && error.kind != Kind::NotFound
        {
            self.log.failed(error);
        }
        answer
    }

    /// [`run`](Self::run) for requests that may safely be sent twice.
    async fn repeat<T, F>(
        &self,
        name: &'static str,
        key: &str,
        mut operation: Operation,
        send: impl Fn() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let answer = self.run(name, key, &mut operation, send).await;
        self.settle(answer)
    }
}

impl Operation {
    fn note(&mut self, error: &Error) {
        // Who gives credentials can be out of reach, too, and has given some before.
        let unreachable = matches!(error.kind, Kind::Unreachable | Kind::NoCredentials);
        self.unreachable_since = unreachable.then(|| self.unreachable_since.unwrap_or_else(Instant::now));
        self.in_doubt |= matches!(error.kind, Kind::Unreachable | Kind::Deadline | Kind::Busy | Kind::Corrupt);
    }
}

/// Whether the next try may end better.
fn is_worth_retrying(error: &Error) -> bool {
    match error.kind {
        Kind::Busy | Kind::Unreachable | Kind::NoCredentials | Kind::Deadline | Kind::Corrupt => true,
        // Two writes met; the loser is told so only by its next try (AWS: "Conditional writes").
        Kind::Changed => matches!(error.code(), Some("ConditionalRequestConflict" | "OperationAborted")),
        _ => false,
    }
}

/// An answer to a look that failed is none to what it was about.
fn still_unknown(error: Error) -> Error {
    if is_worth_retrying(&error) { error } else { Error { kind: Kind::Deadline, ..error } }
}

/// Whether S3 refuses the credentials: `Some(true)` when it says so, `Some(false)` when it may be.
fn refuses_credentials(error: &Error) -> Option<bool> {
    const CODES: [&str; 4] = ["ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId"];
    match error.code() {
        // A secret can be replaced under its key.
        Some(code) if CODES.contains(&code) || code == "SignatureDoesNotMatch" => Some(true),
        // The answer to HEAD has no words.
        None if error.operation == "HeadObject" => matches!(error.http_status, Some(400 | 401 | 403)).then_some(false),
        _ => None,
    }
}

fn no_answer(operation: &'static str, key: &str, after: Duration) -> Error {
    let (key, cause) = (key.to_owned(), format!("no answer within {after:.0?}"));
    Error { kind: Kind::Deadline, operation, key, cause, http_status: None, request_id: None }
}

fn fault(error: &Error) -> spans::Fault {
    spans::Fault { kind: error.kind.name().to_owned(), words: error.cause.clone() }
}

/// Whether a server has answered that it takes no part whose checksum follows it.
fn wants_whole_parts(error: &Error) -> bool {
    matches!(error.kind, Kind::Unsupported | Kind::Refused | Kind::Corrupt)
        || error.code() == Some("SignatureDoesNotMatch")
}

fn length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

/// Before the operation's time begins to count.
async fn take(rate: Option<&Rate>, bytes: u64) {
    if let Some(rate) = rate {
        rate.take(bytes).await;
    }
}

#[async_trait]
impl<B: Bucket> Bucket for Retrying<B> {
    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        self.repeat("HeadObject", key, self.operation(0), || self.inner.head(key)).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>, if_match: Option<&ETag>) -> Result<Fetched> {
        // The size of a whole object is not known before it comes: allow for a large one.
        let bytes = range.as_ref().map_or(64 << 20, length);
        take(self.rates.down.as_ref(), range.as_ref().map_or(0, length)).await;
        let send = || self.inner.get(key, range.clone(), if_match);
        let answer = self.repeat("GetObject", key, self.operation(bytes), send).await;
        if let (Some(rate), None, Ok(fetched)) = (&self.rates.down, &range, &answer) {
            rate.count(fetched.bytes.len() as u64);
        }
        answer
    }

    /// A try goes on where the one before broke off: bytes that a sink has cannot be taken back.
    async fn get_into(&self, key: &str, range: Range<u64>, etag: &ETag, sink: &dyn Sink) -> Result<()> {
        take(self.rates.down.as_ref(), length(&range)).await;
        let operation = self.operation(length(&range));
        let send = || self.inner.get_into(key, range.clone(), etag, sink);
        self.repeat("GetObject", key, operation, send).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        self.repeat("ListObjectsV2", &request.prefix, self.operation(0), || self.inner.list(request)).await
    }

    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<ETag> {
        take(self.rates.up.as_ref(), body.len() as u64).await;
        let mut operation = self.operation(body.len() as u64);
        let send = || self.inner.put(key, body.clone(), options);
        let answer = self.run("PutObject", key, &mut operation, send).await;
        let answer = self.settle_put(key, &body, options, &mut operation, answer).await;
        if answer.is_ok() {
            self.memory.is_certain(key);
        }
        self.settle(answer)
    }

    async fn copy(&self, request: &CopyRequest) -> Result<ETag> {
        let mut operation = self.slow_operation();
        let answer = self.run("CopyObject", &request.to, &mut operation, || self.inner.copy(request)).await;
        let answer = match answer {
            Err(error) if matches!(error.kind, Kind::Changed | Kind::NotFound) => {
                self.settle_copy(request, operation.in_doubt, error).await
            }
            answer => answer,
        };
        self.settle(answer)
    }

    /// By its token the server knows a request again that it has fulfilled.
    async fn rename(&self, request: &RenameRequest) -> Result<()> {
        let send = || self.inner.rename(request);
        self.repeat("RenameObject", &request.to, self.operation(0), send).await
    }

    async fn append(&self, request: &AppendRequest, body: Bytes) -> Result<ETag> {
        take(self.rates.up.as_ref(), body.len() as u64).await;
        let mut operation = self.operation(body.len() as u64);
        let tail = Tail::of(request.offset, &body);
        let was_sent = AtomicBool::new(false);
        // Sent again only after a look: its conditions would refuse it then, too, but a server's word for that is
        // not all that keeps the bytes from being there twice.
        let send = || async {
            if was_sent.swap(true, Ordering::Relaxed)
                && let Some(now) = tail.find(&self.inner, &request.key).await.map_err(still_unknown)?
            {
                return Ok(now.etag);
            }
            self.inner.append(request, body.clone()).await
        };
        let answer = self.run("PutObject", &request.key, &mut operation, send).await;
        let answer = match answer {
            Err(error) if operation.in_doubt && error.kind == Kind::Changed => {
                let now = tail.find(&self.inner, &request.key).await;
                now.and_then(|now| now.map(|now| now.etag).ok_or(error))
            }
            answer => answer,
        };
        self.settle(answer)
    }

    async fn delete(&self, key: &str, if_match: Option<&ETag>) -> Result<()> {
        self.delete_if(key, if_match).await
    }

    async fn delete_many(&self, deletions: &[Deletion]) -> Result<Vec<(String, Error)>> {
        self.delete_many_if(deletions).await
    }

    async fn create_upload(&self, key: &str, options: &PutOptions) -> Result<String> {
        let send = || self.inner.create_upload(key, options);
        let upload_id = self.repeat("CreateMultipartUpload", key, self.operation(0), send).await?;
        self.memory.upload_begun(&upload_id, options);
        Ok(upload_id)
    }

    async fn upload_part(&self, key: &str, upload_id: &str, number: u16, body: Bytes) -> Result<Part> {
        take(self.rates.up.as_ref(), body.len() as u64).await;
        let send = || self.inner.upload_part(key, upload_id, number, body.clone());
        self.repeat("UploadPart", key, self.operation(body.len() as u64), send).await
    }

    async fn upload_arriving_part(&self, key: &str, id: &str, number: u16, part: &Arc<Arriving>) -> Result<Part> {
        if self.wants_whole_parts.load(Ordering::Relaxed) {
            return Err(only_whole_parts(key));
        }
        take(self.rates.up.as_ref(), part.size()).await;
        let operation = self.operation(part.size());
        let once = async {
            let send = self.inner.upload_arriving_part(key, id, number, part);
            let answer = tokio::time::timeout(operation.attempt_time, send).await;
            answer.unwrap_or_else(|_| Err(no_answer("UploadPart", key, operation.begun.elapsed())))
        };
        let answer = spans::asking_s3("UploadPart", key, once, fault).await;
        if answer.as_ref().is_err_and(wants_whole_parts) {
            self.wants_whole_parts.store(true, Ordering::Relaxed);
        }
        answer
    }

    async fn copy_part(
        &self,
        key: &str,
        upload_id: &str,
        number: u16,
        from: &CopyRequest,
        range: Range<u64>,
    ) -> Result<Part> {
        let send = || self.inner.copy_part(key, upload_id, number, from, range.clone());
        self.repeat("UploadPartCopy", key, self.slow_operation(), send).await
    }

    async fn complete_upload(&self, key: &str, upload_id: &str, parts: &[Part], condition: &Condition) -> Result<ETag> {
        let mut operation = self.slow_operation();
        let send = || self.inner.complete_upload(key, upload_id, parts, condition);
        let answer = self.run("CompleteMultipartUpload", key, &mut operation, send).await;
        let answer = self.settle_completion(key, upload_id, parts, &mut operation, answer).await;
        if answer.is_ok() {
            self.memory.is_certain(key);
            self.memory.upload_ended(upload_id);
        }
        self.settle(answer)
    }

    async fn abort_upload(&self, key: &str, upload_id: &str) -> Result<()> {
        self.memory.upload_ended(upload_id);
        let mut operation = self.operation(0);
        let send = || self.inner.abort_upload(key, upload_id);
        let answer = self.run("AbortMultipartUpload", key, &mut operation, send).await;
        let answer = match answer {
            Err(error) if operation.in_doubt && error.kind == Kind::NoSuchUpload => Ok(()),
            answer => answer,
        };
        self.settle(answer)
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        self.repeat("ListMultipartUploads", prefix, self.operation(0), || self.inner.list_uploads(prefix)).await
    }
}

#[cfg(test)]
mod tests;
