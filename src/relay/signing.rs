//! Signature version 4, for what goes to AWS.

use std::time::SystemTime;

use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use aws_smithy_runtime_api::client::identity::Identity;
use hyper::Request;

use super::{Error, Result};

/// Signs a POST whose headers are all in place.
pub(super) async fn signed(
    mut request: Request<String>,
    credentials: &SharedCredentialsProvider,
    region: &str,
    service: &str,
) -> Result<Request<String>> {
    let credentials = credentials.provide_credentials().await;
    let credentials = credentials.map_err(|error| Error::Away(format!("no credentials: {error}")))?;
    let identity: Identity = credentials.into();
    let refused = |error: &dyn std::error::Error| Error::Refused(format!("cannot be signed: {error}"));
    let parameters = SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(service)
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| refused(&error))?
        .into();
    let uri = request.uri().to_string();
    let headers = request.headers().iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let body = SignableBody::Bytes(request.body().as_bytes());
    let signable = SignableRequest::new("POST", uri, headers, body).map_err(|error| refused(&error))?;
    let (instructions, _) = sign(signable, &parameters).map_err(|error| refused(&error))?.into_parts();
    instructions.apply_to_request_http1x(&mut request);
    Ok(request)
}
