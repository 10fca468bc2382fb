//! Listening, accepting, and stopping in order.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use s3s::service::S3ServiceBuilder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::access::{Gate, Keys};
use super::buckets;
use super::exchange::Context;
use super::faults::Faults;
use super::link::{Link, Switch};
use super::request_log::{RequestLog, RequestRecord};
use super::service::Demo;
use super::store::Store;
use super::{Error, ServerSettings};

/// How long requests under way get to end when the server stops.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// How long to wait for a server that was just dropped to let go of the data directory.
const OWN_DEADLINE: Duration = Duration::from_secs(2);
/// The pause before the next look at it, and after a failed accept.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// How long a client may take to send the head of a request.
const HEAD_DEADLINE: Duration = Duration::from_mins(1);

/// A running server. Dropping it breaks off what is under way; [`Server::stop`] lets it end.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    context: Arc<Context>,
    keys: Keys,
    stop: Option<oneshot::Sender<()>>,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Opens the data directory, makes the buckets that are missing, and serves. The server is
    /// bound and answers when this returns. Needs a tokio runtime, and lives on it.
    ///
    /// # Errors
    /// [`Error`], each case with what to do.
    pub async fn start(settings: ServerSettings) -> Result<Self, Error> {
        let store = Arc::new(open_store(&settings).await?);
        for bucket in settings.buckets {
            buckets::ensure(&store, bucket.clone(), true).map_err(|_| Error::BucketName(bucket))?;
        }
        let listen_error = |source| Error::Listen { addr: settings.listen, source };
        let listener = TcpListener::bind(settings.listen).await.map_err(listen_error)?;
        let addr = listener.local_addr().map_err(listen_error)?;
        let mut builder = S3ServiceBuilder::new(Demo::new(store));
        let keys = Keys::new(settings.access_key, settings.secret_key);
        builder.set_auth(keys.clone());
        builder.set_access(Gate);
        let context = Arc::new(Context {
            service: builder.build(),
            keys: keys.clone(),
            faults: Arc::new(Faults::default()),
            log: RequestLog::default(),
            latency_us: AtomicU64::new(micros(settings.latency)),
            exchanges: AtomicU64::new(1),
        });
        let bytes_per_s = settings.mbps_per_connection.map(|mbps| u64::from(mbps) * 1_000_000);
        let (stop, stopped) = oneshot::channel();
        let accepting = tokio::spawn(accept(listener, Arc::clone(&context), bytes_per_s, stopped));
        Ok(Self { addr, context, keys, stop: Some(stop), accepting })
    }

    /// The address that it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The endpoint URL for clients (path-style, plain HTTP).
    pub fn endpoint_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The last requests (at most 100,000), oldest first. A request is in it before its client
    /// hears the answer.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.context.log.last()
    }

    /// How many requests there were of each operation since the start.
    pub fn request_counts(&self) -> BTreeMap<String, u64> {
        self.context.log.counts()
    }

    /// The faults that tests can inject.
    pub fn faults(&self) -> &Faults {
        &self.context.faults
    }

    /// From the next request on these keys may sign, and what others sign is refused.
    pub fn replace_keys(&self, access_key: &str, secret_key: &str) {
        self.keys.replace(access_key.to_owned(), secret_key.to_owned());
    }

    /// Changes the delay before the first byte of each answer, from the next answer on.
    pub fn set_latency(&self, latency: Duration) {
        self.context.latency_us.store(micros(latency), Ordering::Relaxed);
    }

    /// Stops accepting, lets requests under way end (at most 5 s), and returns when all is closed.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            // An accept loop that is gone has nothing to be told.
            let _ = stop.send(());
        }
        let _ = (&mut self.accepting).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Takes the connections with it: they live in the accept loop's join set.
        self.accepting.abort();
    }
}

fn micros(latency: Duration) -> u64 {
    u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)
}

async fn open_store(settings: &ServerSettings) -> Result<Store, Error> {
    let deadline = Instant::now() + OWN_DEADLINE;
    loop {
        let dir = settings.data_dir.clone();
        let opened = tokio::task::spawn_blocking(move || Store::open(&dir)).await;
        let opened = opened.map_err(|stopped| Error::Data {
            path: settings.data_dir.clone(),
            source: std::io::Error::other(stopped),
        })?;
        match opened {
            Err(Error::InUse { .. }) if Instant::now() < deadline => tokio::time::sleep(RETRY_PAUSE).await,
            opened => return opened,
        }
    }
}

async fn accept(
    listener: TcpListener,
    context: Arc<Context>,
    bytes_per_s: Option<u64>,
    mut stopped: oneshot::Receiver<()>,
) {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, Arc::clone(&context), bytes_per_s, graceful.watcher()));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: others will close.
                    tracing::warn!(%error, "demo server: cannot accept");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = &mut stopped => break,
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(STOP_DEADLINE, graceful.shutdown()).await;
    connections.shutdown().await;
}

async fn serve(
    stream: TcpStream,
    context: Arc<Context>,
    bytes_per_s: Option<u64>,
    watcher: hyper_util::server::graceful::Watcher,
) {
    // Small answers must not wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let switch = Arc::new(Switch::default());
    let link = Link::new(stream, Arc::clone(&switch), bytes_per_s);
    let service = service_fn(move |request| Arc::clone(&context).answer(Arc::clone(&switch), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .serve_connection(TokioIo::new(link), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "demo server: connection ended");
    }
}
