//! What the SDK answers → [`Error`] with its [`Kind`].

use std::error::Error as StdError;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::create_session::CreateSessionError;

use super::progress::Stalled;
use crate::bucket::Error;
use crate::error::Kind;

/// Longest text of a server that we pass on.
const MAX_TEXT_CHARS: usize = 300;
const SESSION: &str = "CreateSession";

/// Translates a failed request.
pub(super) fn from_sdk<E>(operation: &'static str, key: &str, error: &SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    if let Some(refused) = without_session(error) {
        return from_sdk(SESSION, key, refused);
    }
    let http_status = error.raw_response().map(|response| response.status().as_u16());
    let (kind, cause) = match error {
        SdkError::ServiceError(service) => {
            let metadata = service.err().meta();
            let kind = kind_of(http_status.unwrap_or_default(), metadata.code());
            let words = server_words(metadata.code(), metadata.message());
            (kind, words.unwrap_or_else(|| reason_without_words(http_status, error)))
        }
        // The connection broke while the answer was read: what could not be parsed is a service error.
        SdkError::ResponseError(_) => (Kind::Unreachable, format!("the answer broke off: {}", root_cause(error))),
        SdkError::DispatchFailure(_) if lacks_credentials(error) => (Kind::NoCredentials, root_cause(error)),
        SdkError::DispatchFailure(_) | SdkError::TimeoutError(_) => (Kind::Unreachable, root_cause(error)),
        _ => (Kind::Refused, root_cause(error)),
    };
    let request_id = error.raw_response().and_then(|response| response.headers().get("x-amz-request-id"));
    Error { kind, operation, key: key.to_owned(), cause, http_status, request_id: request_id.map(str::to_owned) }
}

/// Why there is no session, without which a directory bucket is not asked for anything (AWS: `CreateSession`). The SDK
/// reports it like a broken connection.
fn without_session<E>(error: &SdkError<E, HttpResponse>) -> Option<&SdkError<CreateSessionError, HttpResponse>>
where
    E: StdError + 'static,
{
    let mut inner = error.source();
    while let Some(error) = inner {
        if let Some(refused) = error.downcast_ref() {
            return Some(refused);
        }
        inner = error.source();
    }
    None
}

/// A request on which nothing moved.
pub(super) fn stalled(operation: &'static str, key: &str, stalled: Stalled) -> Error {
    plain(Kind::Deadline, operation, key, format!("no answer for {} s", stalled.0.as_secs()))
}

/// An error found on our side of the wire.
pub(super) fn plain(kind: Kind, operation: &'static str, key: &str, cause: impl Into<String>) -> Error {
    Error { kind, operation, key: key.to_owned(), cause: cause.into(), http_status: None, request_id: None }
}

/// The region that an answer names for the bucket.
pub(super) fn region_header<E>(error: &SdkError<E, HttpResponse>) -> Option<String> {
    error.raw_response()?.headers().get("x-amz-bucket-region").map(str::to_owned)
}

/// The code of one failed key of `DeleteObjects`, or of a whole answer.
pub(super) fn kind_of(status: u16, code: Option<&str>) -> Kind {
    match code.unwrap_or_default() {
        "NoSuchBucket" => Kind::NoSuchBucket,
        "NoSuchUpload" => Kind::NoSuchUpload,
        "NoSuchKey" | "NotFound" => Kind::NotFound,
        "InvalidObjectState" => Kind::Archived,
        "PreconditionFailed" | "ConditionalRequestConflict" | "OperationAborted" | "InvalidWriteOffset" => {
            Kind::Changed
        }
        "BadDigest" | "InvalidDigest" | "XAmzContentChecksumMismatch" | "XAmzContentSHA256Mismatch" => Kind::Corrupt,
        "EntityTooLarge" | "QuotaExceeded" | "XMinioStorageFull" | "InsufficientStorage" | "StorageLimitExceeded" => {
            Kind::QuotaExceeded
        }
        "SlowDown"
        | "ServiceUnavailable"
        | "InternalError"
        | "InternalFailure"
        | "RequestTimeout"
        | "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequests"
        | "ServerBusy"
        | "BandwidthLimitExceeded" => Kind::Busy,
        "NotImplemented" | "MethodNotAllowed" => Kind::Unsupported,
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" | "InvalidAccessKeyId" | "SignatureDoesNotMatch" => {
            Kind::AccessDenied
        }
        _ => kind_of_status(status),
    }
}

/// What a status means where the server gives no code: HEAD has no body.
fn kind_of_status(status: u16) -> Kind {
    match status {
        401 | 403 => Kind::AccessDenied,
        404 => Kind::NotFound,
        409 | 412 => Kind::Changed,
        405 | 501 => Kind::Unsupported,
        413 | 507 => Kind::QuotaExceeded,
        408 | 429 | 500.. => Kind::Busy,
        // A success whose body makes no sense.
        200..=299 => Kind::Corrupt,
        _ => Kind::Refused,
    }
}

/// `SlowDown: Please reduce your request rate.`, bounded and on one line.
fn server_words(code: Option<&str>, message: Option<&str>) -> Option<String> {
    let words = match (code, message) {
        (Some(code), Some(message)) if code != message => format!("{code}: {message}"),
        (Some(word), _) | (None, Some(word)) => word.to_owned(),
        (None, None) => return None,
    };
    Some(one_line(&words))
}

/// HEAD is refused without a word; a success without sense says in the SDK's words why.
fn reason_without_words(status: Option<u16>, error: &dyn StdError) -> String {
    match status {
        Some(200..=299) => root_cause(error),
        _ => "no reason given".to_owned(),
    }
}

/// The innermost error says what happened (`Connection refused`), those around it only where.
pub(in crate::bucket) fn root_cause(error: &dyn StdError) -> String {
    let mut words = error.to_string();
    let mut inner = error.source();
    while let Some(error) = inner {
        let text = error.to_string();
        if !text.is_empty() {
            words = text;
        }
        inner = error.source();
    }
    one_line(&words)
}

fn one_line(words: &str) -> String {
    words.chars().map(|char| if char.is_control() { ' ' } else { char }).take(MAX_TEXT_CHARS).collect()
}

/// Whether the request was never sent because the credentials provider had none to give.
///
/// The SDK reports it like a broken connection, and the typed error is not part of its public face.
fn lacks_credentials<E: StdError + 'static>(error: &SdkError<E, HttpResponse>) -> bool {
    let mut inner: Option<&dyn StdError> = Some(error);
    while let Some(error) = inner {
        let text = error.to_string();
        if text.contains("credential") || text.contains("no identity") {
            return true;
        }
        inner = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_statuses_have_their_kind() {
        let table = [
            (404, Some("NoSuchKey"), Kind::NotFound),
            (404, Some("NoSuchBucket"), Kind::NoSuchBucket),
            (404, Some("NoSuchUpload"), Kind::NoSuchUpload),
            (404, None, Kind::NotFound),
            (403, Some("AccessDenied"), Kind::AccessDenied),
            (403, None, Kind::AccessDenied),
            (403, Some("RequestTimeTooSkewed"), Kind::AccessDenied),
            (403, Some("InvalidObjectState"), Kind::Archived),
            (412, Some("PreconditionFailed"), Kind::Changed),
            (412, None, Kind::Changed),
            (409, Some("ConditionalRequestConflict"), Kind::Changed),
            (503, Some("SlowDown"), Kind::Busy),
            (500, None, Kind::Busy),
            (429, None, Kind::Busy),
            (200, Some("InternalError"), Kind::Busy),
            (200, Some("SlowDown"), Kind::Busy),
            (400, Some("InvalidWriteOffset"), Kind::Changed),
            (400, Some("TooManyParts"), Kind::Refused),
            (400, Some("BadDigest"), Kind::Corrupt),
            (400, Some("RequestTimeout"), Kind::Busy),
            (400, Some("InvalidArgument"), Kind::Refused),
            (501, Some("NotImplemented"), Kind::Unsupported),
            (507, None, Kind::QuotaExceeded),
        ];
        for (status, code, kind) in table {
            assert_eq!(kind_of(status, code), kind, "{status} {code:?}");
        }
    }

    #[test]
    fn words_of_a_server_are_one_bounded_line() {
        let words = server_words(Some("Odd"), Some(&"a\nb\u{1b}[2J".repeat(200))).unwrap();
        assert!(words.starts_with("Odd: a b"));
        assert!(words.chars().count() <= MAX_TEXT_CHARS && !words.contains(char::is_control));
    }
}
