//! Faults on demand: what a network and a busy S3 do to clients, for tests to bring about.

use std::sync::atomic::{AtomicU32, Ordering};

use hyper::StatusCode;
use parking_lot::Mutex;
use s3s::{S3Error, S3ErrorCode};

/// What goes wrong.
///
/// Kinds that need a body to spoil take the answer's, or the request's when that has one; where
/// neither has any, the answer is lost ([`FaultKind::ResetDuring`]) or stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// This status with the error code that S3 has for it; the operation does not happen.
    Status(u16),
    /// The connection is reset before any answer; the operation does not happen.
    ResetBefore,
    /// The connection is reset in the middle of the upload (the operation does not happen) or of
    /// the answer (it did).
    ResetDuring,
    /// No answer ever; the operation does not happen.
    Hang,
    /// The answer's body comes a byte every 100 ms; an upload is read as slowly.
    Drip,
    /// Status 200 with an error in the XML, as S3 does to copies and completions; the operation
    /// does not happen.
    ErrorIn200,
    /// The operation happens, then the connection is reset instead of the answer.
    AppliedThenLostReply,
    /// The answer's body ends in its middle, the connection is closed in order.
    Truncated,
    /// One bit of the upload, or of the answer's body, arrives flipped.
    FlippedBit,
    /// The answer's `x-amz-checksum-` header does not belong to its body.
    WrongChecksum,
    /// 404 `NoSuchUpload`; the operation does not happen.
    NoSuchUpload,
    /// 400 `ExpiredToken`; the operation does not happen.
    ExpiredToken,
}

/// A fault and the requests that it meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Operations by their S3 name, e.g. `PutObject`; `None` = all.
    pub operation: Option<String>,
    /// Keys with this in them; `None` = all, also requests without a key.
    pub key_contains: Option<String>,
    /// How many requests it meets before it is used up.
    pub times: u32,
    /// What happens to them.
    pub kind: FaultKind,
}

/// The faults that wait for their requests.
#[derive(Debug, Default)]
pub struct Faults {
    waiting: Mutex<Vec<Fault>>,
    /// One of these meets each so manieth request.
    regular: Mutex<Option<(u32, Vec<FaultKind>)>>,
    requests: AtomicU32,
}

impl Fault {
    /// A fault for the next request of an operation.
    #[must_use]
    pub fn once(operation: &str, kind: FaultKind) -> Self {
        Self { operation: Some(operation.to_owned()), key_contains: None, times: 1, kind }
    }

    fn meets(&self, operation: &str, key: &str) -> bool {
        self.operation.as_ref().is_none_or(|wanted| wanted == operation)
            && self.key_contains.as_ref().is_none_or(|part| key.contains(part.as_str()))
    }
}

impl Faults {
    /// Adds a fault. Of several that fit a request, the one added first meets it.
    pub fn add(&self, fault: Fault) {
        if fault.times > 0 {
            self.waiting.lock().push(fault);
        }
    }

    /// From now on every so manieth request meets one of these, in turn.
    pub fn regularly(&self, every: u32, kinds: &[FaultKind]) {
        *self.regular.lock() = Some((every.max(1), kinds.to_vec()));
    }

    /// Drops the faults that are not used up.
    pub fn clear(&self) {
        self.waiting.lock().clear();
    }

    /// Drops the faults for keys with this in them, or those for all.
    pub fn forget(&self, key_contains: Option<&str>) {
        self.waiting.lock().retain(|fault| fault.key_contains.as_deref() != key_contains);
    }

    /// The faults that are not used up, with the times that are left.
    pub fn waiting(&self) -> Vec<Fault> {
        self.waiting.lock().clone()
    }

    /// The fault of this request, if any; counts it.
    pub(super) fn take(&self, operation: &str, key: &str) -> Option<FaultKind> {
        let mut waiting = self.waiting.lock();
        let Some(index) = waiting.iter().position(|fault| fault.meets(operation, key)) else {
            return self.regular_one();
        };
        let fault = &mut waiting[index];
        fault.times -= 1;
        let kind = fault.kind;
        if fault.times == 0 {
            waiting.remove(index);
        }
        Some(kind)
    }

    fn regular_one(&self) -> Option<FaultKind> {
        let (every, kinds) = self.regular.lock().clone()?;
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let turn = (number / every) as usize;
        if number.is_multiple_of(every) { kinds.get(turn % kinds.len().max(1)).copied() } else { None }
    }
}

impl FaultKind {
    /// The error that takes the place of the operation; `None` for faults that let it happen.
    pub(super) fn error(self) -> Option<S3Error> {
        let code = match self {
            Self::Status(status) => code_of_status(status),
            Self::NoSuchUpload => S3ErrorCode::NoSuchUpload,
            Self::ExpiredToken => S3ErrorCode::ExpiredToken,
            Self::ErrorIn200 | Self::ResetBefore | Self::Hang => S3ErrorCode::InternalError,
            Self::ResetDuring
            | Self::Drip
            | Self::AppliedThenLostReply
            | Self::Truncated
            | Self::FlippedBit
            | Self::WrongChecksum => return None,
        };
        let mut error = S3Error::with_message(code, "This fault was injected.");
        let status = match self {
            Self::Status(status) => StatusCode::from_u16(status).ok(),
            Self::ErrorIn200 => Some(StatusCode::OK),
            _ => None,
        };
        if let Some(status) = status {
            error.set_status_code(status);
        }
        Some(error)
    }
}

fn code_of_status(status: u16) -> S3ErrorCode {
    match status {
        400 => S3ErrorCode::InvalidRequest,
        403 => S3ErrorCode::AccessDenied,
        404 => S3ErrorCode::NoSuchKey,
        409 => S3ErrorCode::ConditionalRequestConflict,
        412 => S3ErrorCode::PreconditionFailed,
        416 => S3ErrorCode::InvalidRange,
        429 => S3ErrorCode::Custom("TooManyRequests".into()),
        501 => S3ErrorCode::NotImplemented,
        503 => S3ErrorCode::SlowDown,
        _ => S3ErrorCode::InternalError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_faults_meet_every_so_manieth_request_in_turn() {
        let faults = Faults::default();
        faults.regularly(2, &[FaultKind::Status(503), FaultKind::ResetBefore]);
        let met: Vec<_> = (0..6).map(|_| faults.take("GetObject", "k")).collect();
        let (busy, reset) = (Some(FaultKind::Status(503)), Some(FaultKind::ResetBefore));
        assert_eq!(met, [None, reset, None, busy, None, reset]);
    }

    #[test]
    fn a_fault_meets_what_it_names_and_as_often_as_it_says() {
        let faults = Faults::default();
        let kind = FaultKind::Status(503);
        faults.add(Fault { key_contains: Some("x/".into()), times: 2, ..Fault::once("PutObject", kind) });
        assert_eq!(faults.take("GetObject", "x/1"), None);
        assert_eq!(faults.take("PutObject", "y/1"), None);
        assert_eq!(faults.take("PutObject", "x/1"), Some(kind));
        assert_eq!(faults.take("PutObject", "x/1"), Some(kind));
        assert_eq!(faults.take("PutObject", "x/1"), None);
    }
}
