//! A small HTTP server for whoever scrapes: `GET /metrics`, one request for each connection.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::{Look, exposition};
use crate::app::Failure;
use crate::error::Kind;
use crate::lambda;

/// How long a client may take for all of it: Prometheus itself gives up after 10 s.
const DEADLINE: Duration = Duration::from_secs(10);
/// The same for the head of its request.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// The largest head of a request; bodies are not read.
const HEAD_BYTES: usize = 16 << 10;
/// More than scrape one mount; each costs a descriptor.
const CONNECTIONS: usize = 16;
const PLAIN: &str = "text/plain; charset=utf-8";

/// A port that is taken. Who connects waits until it is served.
#[derive(Debug)]
pub(in crate::app) struct Listener {
    listener: TcpListener,
    addr: SocketAddr,
}

/// The running server.
#[derive(Debug)]
pub(in crate::app) struct Server(JoinHandle<()>);

/// Takes the port, if one is wanted.
pub(in crate::app) async fn listen(at: Option<SocketAddr>) -> Result<Option<Listener>, Failure> {
    let Some(at) = at else { return Ok(None) };
    let bound = async {
        let listener = TcpListener::bind(at).await?;
        let addr = listener.local_addr()?;
        Ok::<_, io::Error>(Listener { listener, addr })
    };
    bound.await.map(Some).map_err(|cause| {
        let hint = match cause.kind() {
            io::ErrorKind::AddrInUse => {
                "every mount and worker needs a port of its own; with port 0 `s3mount status`, or a worker's log, tells which"
            }
            io::ErrorKind::AddrNotAvailable => "give an address of this machine, or 0.0.0.0 for all of them",
            _ => "give an address and a port above 1023, such as 127.0.0.1:9102",
        };
        Failure::new(Kind::Usage, format!("--metrics-listen: cannot listen at {at}: {cause}")).hint(hint)
    })
}

impl Listener {
    /// Where it listens; the port is the real one.
    pub(in crate::app) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers from now on.
    pub(in crate::app) fn serve(self, look: Look) -> Server {
        let answers = Arc::new(Answers { look, looking: Arc::new(Semaphore::new(1)) });
        let serve = move |stream, _| {
            let answers = Arc::clone(&answers);
            async move {
                if tokio::time::timeout(DEADLINE, serve(stream, answers)).await.is_err() {
                    tracing::debug!("metrics: a connection took too long");
                }
            }
        };
        Server(tokio::spawn(lambda::accept(self.listener, CONNECTIONS, "the server of the metrics", serve)))
    }
}

impl Server {
    /// Breaks off what is under way; the port is free when this returns.
    pub(in crate::app) async fn stop(self) {
        self.0.abort();
        // The connections live in the loop's join set, and go with it.
        let _ = self.0.await;
    }
}

async fn serve(stream: TcpStream, answers: Arc<Answers>) {
    let service = service_fn(move |request| {
        let answers = Arc::clone(&answers);
        async move { Ok::<_, Infallible>(answers.answer(&request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "metrics: a connection ended");
    }
}

/// What requests are answered with.
struct Answers {
    look: Look,
    /// Held by who looks.
    looking: Arc<Semaphore>,
}

impl Answers {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "GET is all there is\n".into());
            refusal.headers_mut().insert(ALLOW, "GET, HEAD".parse().expect("words and a comma are a header"));
            return refusal;
        }
        match request.uri().path() {
            "/metrics" => match self.text().await {
                Some(text) => response(StatusCode::OK, exposition::CONTENT_TYPE, text),
                None => response(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, "the log tells why\n".into()),
            },
            "/" => response(StatusCode::OK, PLAIN, "s3mount: the metrics are at /metrics\n".into()),
            _ => response(StatusCode::NOT_FOUND, PLAIN, "the metrics are at /metrics\n".into()),
        }
    }

    /// All metrics; nothing if looking at them panicked.
    async fn text(&self) -> Option<String> {
        let turn = Arc::clone(&self.looking).acquire_owned().await.expect("the semaphore is never closed");
        let look = Arc::clone(&self.look);
        let look = move || {
            let text = look().into_text();
            // Also when nobody waits for the text any more: two never look at a time.
            drop(turn);
            text
        };
        tokio::task::spawn_blocking(look).await.ok()
    }
}

fn response(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header(CONTENT_TYPE, content_type).body(Full::from(text));
    response.expect("a status and a constant header are a response")
}
