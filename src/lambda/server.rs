//! Listening, and which request is meant for what.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderMap, ORIGIN};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::Settings;
use super::accepting::accept;
use super::answers::{Answer, Refusal, ok};
use super::function_url;
use super::functions::name_in;
use super::invoke::{PAYLOAD_BYTES, too_large};

/// The versions of the API, in its paths.
const FUNCTIONS: &str = "/2015-03-31/functions";
const URL_CONFIGS: &str = "/2021-10-31/functions";
/// Whether a browser follows its user or a page; hyper has no name for it.
const SEC_FETCH_SITE: &str = "sec-fetch-site";
/// How long a client may take to send the head of a request, and its body.
const HEAD_DEADLINE: Duration = Duration::from_mins(1);
const BODY_DEADLINE: Duration = Duration::from_mins(1);
/// More than hooks run at a time; each costs a descriptor, and up to a payload of memory.
const CONNECTIONS: usize = 64;

/// The listening API. Dropping it breaks off what is under way.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Listens; answers when this returns. Needs a tokio runtime, and lives on it.
    ///
    /// # Errors
    /// When the address can't be listened at.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.listen).await?;
        let addr = listener.local_addr()?;
        let settings = Arc::new(settings);
        let serve = move |stream, peer| serve(stream, peer, Arc::clone(&settings));
        Ok(Self { addr, accepting: tokio::spawn(accept(listener, CONNECTIONS, "the Lambda API", serve)) })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Takes the connections with it: they live in the accept loop's join set.
        self.accepting.abort();
    }
}

async fn serve(stream: TcpStream, peer: IpAddr, settings: Arc<Settings>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let settings = Arc::clone(&settings);
        async move { Ok::<_, std::convert::Infallible>(settings.respond(request, peer).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "the Lambda API: a connection ended");
    }
}

impl Settings {
    async fn respond(&self, request: Request<Incoming>, peer: IpAddr) -> Answer {
        let id = uuid::Uuid::now_v7().to_string();
        self.answer(&id, request, peer).await.unwrap_or_else(|refusal| refusal.answer(&id))
    }

    async fn answer(&self, id: &str, request: Request<Incoming>, peer: IpAddr) -> Result<Answer, Refusal> {
        refuse_strangers(request.headers())?;
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let nothing = || Refusal::new(StatusCode::NOT_FOUND, "UnknownOperationException", "no such operation here");
        if path.starts_with(function_url::PREFIX) {
            let body = read(body).await?;
            return self.call_by_url(id, &peer.to_string(), &head, body).await;
        }
        let of_api = |api| Some((api, path.strip_prefix(api)?));
        let (api, rest) = [FUNCTIONS, URL_CONFIGS].into_iter().find_map(of_api).ok_or_else(nothing)?;
        let words: Vec<&str> = rest.split('/').filter(|word| !word.is_empty()).collect();
        let json = |value: &serde_json::Value| ok(StatusCode::OK, id, value.to_string().into());
        match (&head.method, api, &words[..]) {
            (&Method::GET, URL_CONFIGS, [name, "url"]) => Ok(json(&self.url_config(name_in(&decoded(name)?)?, &head)?)),
            (&Method::GET, FUNCTIONS, []) => Ok(json(&self.list())),
            (&Method::GET, FUNCTIONS, [name]) => Ok(json(&self.get(name_in(&decoded(name)?)?)?)),
            (&Method::GET, FUNCTIONS, [name, "configuration"]) => {
                Ok(json(&self.get(name_in(&decoded(name)?)?)?["Configuration"]))
            }
            (&Method::POST, FUNCTIONS, [name, "invocations"]) => {
                let name = decoded(name)?;
                let payload = read(body).await?;
                self.invoke(name_in(&name)?, id, &head.headers, &payload).await
            }
            _ => Err(nothing()),
        }
    }
}

/// A page in a browser can send a request to any address: the browser says so by `Origin`, for what a page only
/// shows by `Sec-Fetch-Site` (W3C, "Fetch Metadata"), or by the name that it was led to.
fn refuse_strangers(headers: &HeaderMap) -> Result<(), Refusal> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    let is_local =
        name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    let is_of_a_page = headers.get(SEC_FETCH_SITE).is_some_and(|site| site != "none" && site != "same-origin");
    if is_local && !is_of_a_page && !headers.contains_key(ORIGIN) {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::FORBIDDEN, "AccessDeniedException", "this is for programs of this machine"))
}

fn decoded(word: &str) -> Result<String, Refusal> {
    let decoded = percent_decode_str(word).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|_| Refusal::of_parameter("a name is UTF-8"))
}

async fn read(body: Incoming) -> Result<bytes::Bytes, Refusal> {
    let late =
        |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "RequestTimeoutException", "the payload did not come in time");
    let body = tokio::time::timeout(BODY_DEADLINE, Limited::new(body, PAYLOAD_BYTES).collect()).await.map_err(late)?;
    match body {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large(PAYLOAD_BYTES)),
        Err(_) => Err(Refusal::of_parameter("the payload broke off")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_of_this_machine_are_answered() {
        let fetched = |site| Some((SEC_FETCH_SITE, site));
        for (host, more, is_fine) in [
            ("127.0.0.1:9001", None, true),
            ("localhost", None, true),
            ("[::1]:9001", None, true),
            ("evil.example:9001", None, false),
            ("10.0.0.1", None, false),
            ("", None, false),
            ("127.0.0.1:9001", Some(("origin", "http://evil.example")), false),
            ("127.0.0.1:9001", Some(("origin", "null")), false),
            // An address that was typed, a picture on a page of somebody else's, one of another port of this machine.
            ("127.0.0.1:9001", fetched("none"), true),
            ("127.0.0.1:9001", fetched("same-origin"), true),
            ("127.0.0.1:9001", fetched("cross-site"), false),
            ("127.0.0.1:9001", fetched("same-site"), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            if let Some((name, value)) = more {
                headers.insert(name, value.parse().unwrap());
            }
            assert_eq!(refuse_strangers(&headers).is_ok(), is_fine, "{host} {more:?}");
        }
    }
}
