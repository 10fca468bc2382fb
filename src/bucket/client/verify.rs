//! The first LIST, and what its failure means to the user.

use std::time::{Duration, Instant};

use super::config::Sdk;
use super::{ConnectSettings, FirstPage, clock, failure};
use crate::bucket::s3::S3Bucket;
use crate::bucket::{Bucket, Error, ListRequest, Result};
use crate::error::Kind;
use crate::key::is_directory_bucket;

/// A quarter of it in silence, and the LIST is given up.
const DEADLINE: Duration = Duration::from_secs(24);
/// Tries, for a server that just starts or one lost connection.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(300);
/// A try that took longer has shown what the next one would.
const PATIENCE: Duration = Duration::from_secs(4);
/// Names that are asked for: as many as most roots have, and a page that no line is slow with.
const MAX_NAMES: u16 = 100;

/// What the bucket answers.
pub(super) enum Answer {
    Page(FirstPage),
    /// S3 names the region in which to try again.
    OtherRegion(String),
}

/// Lists the directory that the prefix stands for.
pub(super) async fn bucket(settings: &ConnectSettings, sdk: &Sdk) -> Result<Answer> {
    let bucket = S3Bucket::new(sdk.client(), &settings.bucket).within(DEADLINE);
    match list(&bucket, &settings.prefix).await {
        Ok(page) => Ok(Answer::Page(page)),
        Err(error) => match other_region(&bucket, &error).await {
            Some(region) if region != sdk.region => Ok(Answer::OtherRegion(region)),
            _ => Err(explain(settings, sdk, &error)),
        },
    }
}

async fn list(bucket: &S3Bucket, prefix: &str) -> Result<FirstPage> {
    let max_keys = Some(MAX_NAMES);
    let request = ListRequest { prefix: prefix.to_owned(), delimited: true, max_keys, ..ListRequest::default() };
    let begun = Instant::now();
    let mut attempt = 1;
    loop {
        let may_repeat = |error: &Error| matches!(error.kind, Kind::Unreachable | Kind::Busy);
        let asked = Instant::now();
        match bucket.list(&request).await {
            Ok(page) => return Ok(FirstPage { page, asked }),
            Err(error) if attempt < ATTEMPTS && begun.elapsed() < PATIENCE && may_repeat(&error) => {
                tokio::time::sleep(PAUSE * attempt).await;
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The region of the bucket, where the error may come from asking in the wrong one.
async fn other_region(bucket: &S3Bucket, error: &Error) -> Option<String> {
    let from_words = || error.cause.split_once("expecting '")?.1.split('\'').next().map(str::to_owned);
    match error.http_status {
        Some(301 | 307 | 400) => from_words().or(bucket.region().await),
        _ => None,
    }
}

/// The same failure in the user's words.
fn explain(settings: &ConnectSettings, sdk: &Sdk, error: &Error) -> Error {
    let (name, endpoint, cause) = (&settings.bucket, sdk.endpoint(), &error.cause);
    let words = match error.kind {
        Kind::NoSuchBucket => format!("there is no bucket {name:?} at {endpoint}"),
        Kind::NotFound | Kind::Corrupt => format!("{endpoint} does not answer like an S3 server: {cause}"),
        Kind::AccessDenied => denied(settings, sdk, error),
        // The zone is a part of the server's name, and so is the region: there is no such server in another.
        Kind::Unreachable if sdk.endpoint_url.is_none() && is_directory_bucket(name) => {
            format!("cannot reach {name} in {}: {cause} (is its zone in that region? else give --region)", sdk.region)
        }
        Kind::Unreachable => format!("cannot reach {endpoint}: {cause}{}", tls_advice(cause)),
        Kind::Deadline => format!("{endpoint} does not answer: {cause}"),
        Kind::Busy => format!("{endpoint} is not ready: {cause}"),
        _ if matches!(error.http_status, Some(301 | 307)) => {
            format!("bucket {name:?} is in another region than {}: give --region", sdk.region)
        }
        _ => format!("{endpoint} refused to list the bucket: {cause}"),
    };
    let told = failure(settings, error.kind, words);
    Error { http_status: error.http_status, request_id: error.request_id.clone(), ..told }
}

/// rustls names the fact, not what to do about it.
fn tls_advice(cause: &str) -> &'static str {
    if cause.contains("InvalidContentType") {
        " (it does not speak TLS: http:// instead of https://?)"
    } else if cause.contains("certificate") {
        " (name its authority in SSL_CERT_FILE, or install it in the system)"
    } else {
        ""
    }
}

fn denied(settings: &ConnectSettings, sdk: &Sdk, error: &Error) -> String {
    let place = format!("s3://{}/{}", settings.bucket, settings.prefix);
    match error.code() {
        Some(code @ "RequestTimeTooSkewed") => {
            let far = sdk.clock.ahead_s().map_or_else(|| "too far from".to_owned(), clock::in_words);
            format!("this machine's clock is {far} the server's ({code})")
        }
        Some(code @ ("ExpiredToken" | "TokenRefreshRequired")) => format!("the credentials have expired ({code})"),
        Some(code @ "InvalidAccessKeyId") => format!("{} does not know the access key ({code})", sdk.endpoint()),
        Some(code @ "SignatureDoesNotMatch") => format!("the secret key does not belong to the access key ({code})"),
        _ if sdk.is_signed() => {
            let right = if is_directory_bucket(&settings.bucket) { "s3express:CreateSession" } else { "s3:ListBucket" };
            format!("no permission to list {place} ({right}): {}", error.cause)
        }
        _ => format!("{place} is not public: sign requests (without --no-sign-request)"),
    }
}
