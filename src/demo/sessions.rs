//! Sessions of directory buckets: `CreateSession` gives other keys, and a token that goes with each request.
//!
//! What is asked of such a bucket is signed for the service `s3express`, which `s3s` does not know. So that signature is
//! checked here, and made anew for `s3`.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4::SigningParams;
use aws_smithy_runtime_api::client::identity::Identity;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::http::request::Parts;
use s3s::dto::{CreateSessionOutput, SessionCredentials, Timestamp};
use s3s::{S3Result, s3_error};
use time::PrimitiveDateTime;
use time::macros::format_description;

use super::access::Keys;

/// What requests are signed for.
const SERVICE: &str = "s3express";
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const TOKEN_HEADER: &str = "x-amz-s3session-token";
/// There is one, for all.
const TOKEN: &str = "demo-session";
/// The keys of a session are called so, behind the name of those that asked for it.
pub(super) const SESSION_KEYS: &str = "-session";
/// How long a session lasts (AWS: `CreateSession`).
const LIFE: Duration = Duration::from_mins(5);

/// `CreateSession`, for who has these keys.
pub(super) fn create(keys: Option<s3s::auth::Credentials>) -> S3Result<CreateSessionOutput> {
    let keys = keys.ok_or_else(|| s3_error!(AccessDenied))?;
    let credentials = SessionCredentials {
        access_key_id: format!("{}{SESSION_KEYS}", keys.access_key),
        secret_access_key: keys.secret_key.expose().to_owned(),
        session_token: TOKEN.to_owned(),
        expiration: Timestamp::from(SystemTime::now() + LIFE),
    };
    Ok(CreateSessionOutput { credentials, ..CreateSessionOutput::default() })
}

/// Whether a request belongs to a session.
pub(super) fn is_within(access_key: &str, headers: &HeaderMap) -> bool {
    access_key.ends_with(SESSION_KEYS) && headers.get(TOKEN_HEADER).is_some_and(|token| token == TOKEN)
}

/// The `Authorization` with which a request that is signed for `s3express` is as if for `s3`; `None` for any other.
/// What was signed wrongly stays so.
pub(super) fn signed_for_s3(parts: &Parts, keys: &Keys) -> Option<HeaderValue> {
    let said = parts.headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix(ALGORITHM)?;
    let field = |name: &str| said.split(',').find_map(|field| field.trim().strip_prefix(name));
    let (credential, names, given) = (field("Credential=")?, field("SignedHeaders=")?, field("Signature=")?);
    let scope: Vec<&str> = credential.split('/').collect();
    let [access_key, date, region, SERVICE, last] = scope[..] else { return None };
    let secret_key = keys.secret_of(access_key);
    let sign = |service| {
        signature(parts, names, Credentials::new(access_key, secret_key.as_ref()?, None, None, ""), region, service)
    };
    let signature = if sign(SERVICE).as_deref() == Some(given) { sign("s3")? } else { given.to_owned() };
    let credential = format!("{access_key}/{date}/{region}/s3/{last}");
    let header = format!("{ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}");
    HeaderValue::try_from(header).ok()
}

/// The signature of the headers with these names.
fn signature(parts: &Parts, names: &str, credentials: Credentials, region: &str, service: &str) -> Option<String> {
    let header = |name: &str| parts.headers.get(name)?.to_str().ok();
    let date = format_description!("[year][month][day]T[hour][minute][second]Z");
    let time = PrimitiveDateTime::parse(header("x-amz-date")?, date).ok()?.assume_utc();
    let mut settings = SigningSettings::default();
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    settings.excluded_headers = None;
    let identity: Identity = credentials.into();
    let parameters = SigningParams::builder().identity(&identity).region(region).name(service);
    let parameters = parameters.time(time.into()).settings(settings).build().ok()?.into();
    let body = match header("x-amz-content-sha256")? {
        "UNSIGNED-PAYLOAD" => SignableBody::UnsignedPayload,
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => SignableBody::StreamingUnsignedPayloadTrailer,
        sum => SignableBody::Precomputed(sum.to_owned()),
    };
    let headers = names.split(';').filter_map(|name| Some((name, header(name)?)));
    let uri = format!("http://{}{}", header("host")?, parts.uri.path_and_query()?);
    let request = SignableRequest::new(parts.method.as_str(), uri, headers, body).ok()?;
    Some(sign(request, &parameters).ok()?.signature().to_owned())
}
