//! Collectors of OpenTelemetry: protobuf over HTTP (opentelemetry.io, "OTLP/HTTP").

use aws_smithy_types::body::SdkBody;
use hyper::Request;

use super::{Error, Relay, Result, by_status};

/// What OTLP calls its bodies.
const PROTOBUF: &str = "application/x-protobuf";

impl Relay {
    /// Posts a message with these headers, and hands back the collector's. What cannot be reached or is busy is
    /// [`Error::Away`].
    ///
    /// # Errors
    /// [`Error`], also for an answer that is no success.
    pub async fn post_protobuf(&self, url: &str, headers: &[(String, String)], message: Vec<u8>) -> Result<Vec<u8>> {
        let request = Request::post(url)
            .header("content-type", PROTOBUF)
            .header("user-agent", concat!("s3mount/", env!("CARGO_PKG_VERSION")));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        let request =
            request.body(SdkBody::from(message)).map_err(|error| Error::Refused(format!("{url}: {error}")))?;
        let (status, body) = self.exchange(request).await?;
        if status.is_success() { Ok(body) } else { Err(by_status(url, status, &body)) }
    }
}
