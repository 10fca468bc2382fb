//! What is said to others than S3: webhooks, SQS queues, Lambda functions, collectors of OpenTelemetry.
//!
//! One HTTP client for all, the credentials of the bucket for what AWS signs. Nothing is tried twice
//! here: who asks has a queue of its own, and is told whether another try may help.

mod collector;
mod function;
mod queue;
mod signing;

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorSettings};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use hyper::{Request, StatusCode, Uri};

pub use function::Function;
pub use queue::{Message, Queue};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// More than a queue is waited for.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of an answer is kept for people.
const WORDS_CHARS: usize = 300;

/// Why something was not said, or not heard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another try may go better.
    #[error("{0}")]
    Away(String),
    /// Another try would end the same way.
    #[error("{0}")]
    Refused(String),
}

pub type Result<T> = std::result::Result<T, Error>;

/// The way out.
#[derive(Debug)]
pub struct Relay {
    /// To this machine and to others, where a proxy may stand between; made when first used.
    local: OnceLock<Connector>,
    remote: OnceLock<Connector>,
    /// For requests to AWS; `None`: none are signed, and so none are made.
    credentials: Option<SharedCredentialsProvider>,
    /// Of queues and functions whose address does not name theirs.
    region: String,
    /// In place of Lambda's own.
    lambda_endpoint: Option<String>,
}

impl Relay {
    /// Connects to nothing yet. Lambda is asked where the AWS tools ask it: `AWS_ENDPOINT_URL_LAMBDA`,
    /// `AWS_ENDPOINT_URL`, or its own address.
    #[must_use]
    pub fn new(credentials: Option<SharedCredentialsProvider>, region: &str) -> Self {
        let said = function::ENDPOINT_VARIABLES.into_iter().find_map(|name| std::env::var(name).ok());
        let lambda_endpoint = said.filter(|url| check_url(url).is_ok());
        Self {
            local: OnceLock::new(),
            remote: OnceLock::new(),
            credentials,
            region: region.to_owned(),
            lambda_endpoint,
        }
    }

    /// Asks Lambda at this address.
    #[must_use]
    pub fn with_lambda_at(self, url: &str) -> Self {
        Self { lambda_endpoint: Some(url.to_owned()), ..self }
    }

    /// Sends JSON to a webhook. The id stays the same over all tries, so that a receiver can tell.
    ///
    /// # Errors
    /// [`Error`], also for an answer that is no success.
    pub async fn post(&self, url: &str, id: &str, json: String) -> Result<()> {
        let request = Request::post(url)
            .header("content-type", "application/json")
            .header("user-agent", concat!("s3mount/", env!("CARGO_PKG_VERSION")))
            .header("x-s3mount-event-id", id)
            .body(SdkBody::from(json))
            .map_err(|error| Error::Refused(format!("{url}: {error}")))?;
        let (status, body) = self.exchange(request).await?;
        if status.is_success() { Ok(()) } else { Err(by_status(url, status, &body)) }
    }

    async fn exchange(&self, request: Request<SdkBody>) -> Result<(StatusCode, Vec<u8>)> {
        let place = request.uri().clone();
        let away = |error: &dyn std::error::Error| Error::Away(format!("{place}: {}", root_cause(error)));
        let request = request.try_into().map_err(|error| Error::Refused(format!("{place}: {error}")))?;
        let answer = self.connector(&place).call(request).await.map_err(|error| away(&error))?;
        let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
        let body = ByteStream::new(answer.into_body()).collect().await.map_err(|error| away(&error))?;
        Ok((status, body.to_vec()))
    }

    fn connector(&self, to: &Uri) -> &Connector {
        let host = to.host().unwrap_or_default().trim_matches(['[', ']']);
        if host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback()) {
            self.local.get_or_init(|| connector(ProxyConfig::disabled()))
        } else {
            self.remote.get_or_init(|| connector(ProxyConfig::from_env()))
        }
    }
}

fn connector(proxy: ProxyConfig) -> Connector {
    let settings = HttpConnectorSettings::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(READ_TIMEOUT).build();
    let mut connector = Connector::builder().enable_tcp_nodelay(true).proxy_config(proxy);
    connector.set_connector_settings(Some(settings));
    connector.set_sleep_impl(aws_smithy_async::rt::sleep::default_async_sleep());
    connector.tls_provider(Provider::Rustls(CryptoMode::Ring)).build()
}

/// Whether an address can be sent to: `http` or `https`, and a host.
///
/// # Errors
/// A sentence about what is wrong with it.
pub fn check_url(url: &str) -> std::result::Result<(), String> {
    let uri: Uri = url.parse().map_err(|_| format!("\"{url}\" is no address"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(()),
        _ => Err(format!("\"{url}\" is no http:// or https:// address")),
    }
}

/// What a status that is no success means for another try.
fn by_status(place: &str, status: StatusCode, body: &[u8]) -> Error {
    let words: String = String::from_utf8_lossy(body).chars().take(WORDS_CHARS).collect();
    let problem = format!("{place} answered {status} {}", words.trim());
    let again = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    if status.is_server_error() || again.contains(&status) { Error::Away(problem) } else { Error::Refused(problem) }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_whether_to_try_again() {
        for (status, again) in
            [(500, true), (503, true), (429, true), (408, true), (400, false), (404, false), (302, false)]
        {
            let error = by_status("http://h/", StatusCode::from_u16(status).unwrap(), b" gone fishing\n");
            assert_eq!(matches!(error, Error::Away(_)), again, "{status}");
            assert!(error.to_string().ends_with("gone fishing"), "{error}");
        }
    }

    #[test]
    fn addresses_are_http() {
        assert!(check_url("http://127.0.0.1:1/x").is_ok() && check_url("https://h").is_ok());
        for wrong in ["", "h", "/x", "ftp://h/x", "http://", "file:///x"] {
            assert!(check_url(wrong).is_err(), "{wrong}");
        }
    }
}
