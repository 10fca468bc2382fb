//! Invoke: the payload of a request is what a hook gets on stdin, its stdout is the answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderValue};
use serde_json::json;

use super::Settings;
use super::answers::{Answer, Refusal, ok};
use crate::hooks::Called;

/// As in Lambda.
pub(super) const PAYLOAD_BYTES: usize = 6 << 20;
const LATER_PAYLOAD_BYTES: usize = 1 << 20;
const LOG_TAIL_BYTES: usize = 4 << 10;

/// What `X-Amz-Invocation-Type` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Now,
    /// By the queue.
    Later,
    /// Only whether it could be.
    Dry,
}

impl How {
    fn asked(headers: &HeaderMap) -> Result<Self, Refusal> {
        match headers.get("x-amz-invocation-type").map(HeaderValue::as_bytes) {
            None | Some(b"RequestResponse") => Ok(Self::Now),
            Some(b"Event") => Ok(Self::Later),
            Some(b"DryRun") => Ok(Self::Dry),
            Some(_) => Err(Refusal::of_parameter("the invocation types are RequestResponse, Event and DryRun")),
        }
    }
}

impl Settings {
    pub(super) async fn invoke(
        &self,
        name: &str,
        id: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Answer, Refusal> {
        let how = How::asked(headers)?;
        let found = (self.hooks)().filter(|hooks| hooks.describe().iter().any(|hook| hook.name == name));
        let hooks = found.ok_or_else(|| Refusal::of_function(&self.arn(name)))?;
        let payload = payload(body)?;
        match how {
            How::Dry => Ok(ok(StatusCode::NO_CONTENT, id, Bytes::new())),
            How::Later if payload.len() > LATER_PAYLOAD_BYTES => Err(too_large(LATER_PAYLOAD_BYTES)),
            How::Later => {
                hooks.call_later(name, id, payload).await?;
                Ok(ok(StatusCode::ACCEPTED, id, Bytes::new()))
            }
            How::Now => {
                let called = hooks.call(name, id, payload).await?;
                let wants_tail = headers.get("x-amz-log-type").is_some_and(|kind| kind == "Tail");
                Ok(answer(id, &called, wants_tail))
            }
        }
    }
}

/// No payload is an empty object, as in Lambda.
fn payload(body: &[u8]) -> Result<String, Refusal> {
    if body.is_empty() {
        return Ok("{}".into());
    }
    let refused = |cause: String| {
        let message = format!("Could not parse request body into json: {cause}");
        Refusal::new(StatusCode::BAD_REQUEST, "InvalidRequestContentException", message)
    };
    let text = std::str::from_utf8(body).map_err(|cause| refused(cause.to_string()))?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|cause| refused(cause.to_string()))?;
    Ok(text.to_owned())
}

pub(super) fn too_large(limit: usize) -> Refusal {
    let message = format!("Request must be smaller than {limit} bytes for the InvokeFunction operation");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLargeException", message)
}

fn answer(id: &str, called: &Called, wants_tail: bool) -> Answer {
    let failed = |kind: &str, message: &str| json!({"errorType": kind, "errorMessage": message}).to_string();
    let (body, is_error) = match &called.problem {
        Some(problem) => (failed(problem.kind, &format!("RequestId: {id} Error: {}", problem.message)), true),
        None if called.answer_dropped > 0 => {
            let message = format!("the answer is larger than {} bytes", called.answer.len());
            (failed("Function.ResponseSizeTooLarge", &message), true)
        }
        None if called.answer.is_empty() => ("null".into(), false),
        None => (String::new(), false),
    };
    let body = if body.is_empty() { Bytes::from(called.answer.clone()) } else { body.into() };
    let mut answer = ok(StatusCode::OK, id, body);
    let headers = answer.headers_mut();
    headers.insert("x-amz-executed-version", HeaderValue::from_static("$LATEST"));
    if is_error {
        headers.insert("x-amz-function-error", HeaderValue::from_static("Unhandled"));
    }
    if wants_tail {
        let log = called.log.as_bytes();
        let tail = STANDARD.encode(&log[log.len().saturating_sub(LOG_TAIL_BYTES)..]);
        headers.insert("x-amz-log-result", HeaderValue::try_from(tail).expect("base64 is a header value"));
    }
    answer
}
