//! One request and its answer: between the connection and `s3s`, where latency, faults and the
//! request log live.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{AUTHORIZATION, EXPECT, HeaderName, HeaderValue};
use hyper::{HeaderMap, Request, Response};
use s3s::service::S3Service;

use super::access::Keys;
use super::faults::{FaultKind, Faults};
use super::link::Switch;
use super::request_log::{RequestLog, RequestRecord};
use super::sessions;
use super::wire::{AnswerBody, Cut, UploadBody};

/// Most that is read of an upload whose answer is there before its end.
const DRAIN_BYTES: u64 = 64 << 20;
/// How long that reading may take.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// What all exchanges of a server share.
#[derive(Debug)]
pub(super) struct Context {
    pub service: S3Service,
    pub keys: Keys,
    pub faults: Arc<Faults>,
    pub log: RequestLog,
    pub latency_us: AtomicU64,
    pub exchanges: AtomicU64,
}

/// What is known of a request while it is under way; travels with it as an extension.
#[derive(Debug)]
pub(super) struct Exchange {
    faults: Arc<Faults>,
    named: OnceLock<Named>,
}

#[derive(Debug)]
struct Named {
    operation: String,
    bucket: String,
    key: String,
    fault: Option<FaultKind>,
}

impl Exchange {
    /// Says which operation it is, and so which fault meets it. The first time counts.
    pub fn name(&self, operation: String, bucket: String, key: String) {
        self.named.get_or_init(|| {
            let fault = self.faults.take(&operation, &key);
            Named { operation, bucket, key, fault }
        });
    }

    /// The fault of this exchange, once it is named.
    pub fn fault(&self) -> Option<FaultKind> {
        self.named.get()?.fault
    }
}

impl Context {
    /// Answers one request.
    ///
    /// # Errors
    /// [`Cut`]: break the connection off instead.
    pub async fn answer(
        self: Arc<Self>,
        switch: Arc<Switch>,
        request: Request<Incoming>,
    ) -> Result<Response<AnswerBody>, Cut> {
        let at = SystemTime::now();
        let exchange = Arc::new(Exchange { faults: Arc::clone(&self.faults), named: OnceLock::new() });
        let waits_for_continue = request.headers().contains_key(EXPECT);
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(Arc::clone(&exchange));
        if let Some(signed) = sessions::signed_for_s3(&parts, &self.keys) {
            parts.headers.insert(AUTHORIZATION, signed);
        }
        let upload = UploadBody::new(body, Arc::clone(&exchange));
        let request = Request::from_parts(parts, s3s::Body::http_body(upload.clone()));
        let answer = self.service.call(request).await;
        let fault = exchange.fault();
        if fault == Some(FaultKind::Hang) {
            self.log.add(record(at, &exchange, upload.received(), None));
            std::future::pending::<()>().await;
        }
        let is_lost = match fault {
            Some(FaultKind::ResetBefore | FaultKind::AppliedThenLostReply) => true,
            Some(FaultKind::ResetDuring) => upload.was_cut() || answer.as_ref().is_ok_and(is_empty),
            _ => false,
        };
        if !waits_for_continue || upload.received() > 0 {
            drain(upload.clone()).await;
        }
        let latency = Duration::from_micros(self.latency_us.load(Ordering::Relaxed));
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let answer = answer.ok().filter(|_| !is_lost);
        self.log.add(record(at, &exchange, upload.received(), answer.as_ref()));
        let Some(mut answer) = answer else {
            switch.reset();
            return Err(Cut);
        };
        let number = self.exchanges.fetch_add(1, Ordering::Relaxed);
        answer.headers_mut().insert(HeaderName::from_static("x-amz-request-id"), number_header(number));
        if fault == Some(FaultKind::WrongChecksum) {
            spoil_checksums(answer.headers_mut());
        }
        let size = announced_bytes(&answer);
        Ok(answer.map(|body| AnswerBody::new(body, size, fault, switch)))
    }
}

fn record(at: SystemTime, exchange: &Exchange, received: u64, answer: Option<&Response<s3s::Body>>) -> RequestRecord {
    let (operation, bucket, key) = match exchange.named.get() {
        Some(named) => (named.operation.clone(), named.bucket.clone(), named.key.clone()),
        None => ("Rejected".to_owned(), String::new(), String::new()),
    };
    let status = answer.map_or(0, |answer| answer.status().as_u16());
    let bytes = received + answer.map_or(0, announced_bytes);
    RequestRecord { at, operation, bucket, key, status, bytes }
}

fn announced_bytes(answer: &Response<s3s::Body>) -> u64 {
    answer.body().size_hint().exact().unwrap_or(0)
}

fn is_empty(answer: &Response<s3s::Body>) -> bool {
    announced_bytes(answer) == 0
}

/// Reads what the client still sends. An answer in the middle of an upload, with the connection
/// closed behind it, would reach the client as a reset instead.
async fn drain(mut upload: UploadBody) {
    let limit = upload.received() + DRAIN_BYTES;
    let rest = async { while upload.received() < limit && matches!(upload.frame().await, Some(Ok(_))) {} };
    // A slow rest is the client's loss: it has its answer in the end, or a closed connection.
    let _ = tokio::time::timeout(DRAIN_DEADLINE, rest).await;
}

fn number_header(number: u64) -> HeaderValue {
    HeaderValue::try_from(format!("{number:016X}")).expect("hex digits are a header value")
}

fn spoil_checksums(headers: &mut HeaderMap) {
    for (name, value) in headers.iter_mut() {
        let is_value = name.as_str().starts_with("x-amz-checksum-") && name != "x-amz-checksum-type";
        let Some(mut digest) = Some(&*value).filter(|_| is_value).and_then(|value| BASE64.decode(value).ok()) else {
            continue;
        };
        if let Some(byte) = digest.first_mut() {
            *byte ^= 1;
            *value = HeaderValue::try_from(BASE64.encode(digest)).expect("base64 is a header value");
        }
    }
}
