//! Faults by rule: which request is hit, how often, and how.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::super::Error;
use crate::error::Kind;

/// What a fault does to a request.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Not applied; answers an error of this kind.
    Fail(Kind),
    /// Applied after this time.
    Delay(Duration),
    /// Applied once this is notified.
    Hold(Arc<Notify>),
    /// Never answers.
    Hang,
    /// Applied, then answers an error of this kind: the reply is lost.
    LoseReply(Kind),
}

/// A rule: the next `times` requests that fit suffer `effect`.
#[derive(Clone, Debug)]
pub struct Fault {
    /// S3 operation, e.g. `PutObject`; `None` = any.
    pub operation: Option<&'static str>,
    /// Only this key; `None` = any.
    pub key: Option<String>,
    /// Requests that pass before the first is hit.
    pub after: u32,
    /// How many requests are hit.
    pub times: u32,
    pub effect: Effect,
}

impl Fault {
    /// Hits the next request of `operation`, once.
    #[must_use]
    pub fn once(operation: &'static str, effect: Effect) -> Self {
        Self { operation: Some(operation), key: None, after: 0, times: 1, effect }
    }

    /// Hits every request, of any operation, from now on.
    #[must_use]
    pub fn always(effect: Effect) -> Self {
        Self { operation: None, key: None, after: 0, times: u32::MAX, effect }
    }

    /// Hits this many requests.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    /// Lets this many requests pass first.
    #[must_use]
    pub fn after(self, after: u32) -> Self {
        Self { after, ..self }
    }

    /// Hits requests on this key only.
    #[must_use]
    pub fn on_key(self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self }
    }

    fn fits(&self, operation: &str, key: &str) -> bool {
        self.times > 0
            && self.operation.is_none_or(|wanted| wanted == operation)
            && self.key.as_deref().is_none_or(|wanted| wanted == key)
    }
}

/// The effect of the first rule that fits, which is thereby used once.
pub(super) fn take(faults: &mut [Fault], operation: &str, key: &str) -> Option<Effect> {
    let fault = faults.iter_mut().find(|fault| fault.fits(operation, key))?;
    if fault.after > 0 {
        fault.after -= 1;
        return None;
    }
    fault.times -= u32::from(fault.times != u32::MAX);
    Some(fault.effect.clone())
}

/// The error that a server in this state would answer.
pub(super) fn failure(kind: Kind, operation: &'static str, key: &str) -> Error {
    let (cause, http_status) = match kind {
        Kind::NotFound => ("NoSuchKey", Some(404)),
        Kind::NoSuchBucket => ("NoSuchBucket", Some(404)),
        Kind::NoSuchUpload => ("NoSuchUpload", Some(404)),
        Kind::AccessDenied => ("AccessDenied", Some(403)),
        Kind::Changed => ("PreconditionFailed", Some(412)),
        Kind::Busy => ("SlowDown", Some(503)),
        Kind::QuotaExceeded => ("QuotaExceeded", Some(403)),
        Kind::Archived => ("InvalidObjectState", Some(403)),
        Kind::Unsupported => ("NotImplemented", Some(501)),
        Kind::Refused => ("InvalidRequest", Some(400)),
        Kind::Unreachable => ("connection refused", None),
        Kind::Deadline => ("no answer in time", None),
        _ => ("injected fault", None),
    };
    Error { kind, operation, key: key.to_owned(), cause: cause.to_owned(), http_status, request_id: None }
}
