//! Accepting connections of small HTTP servers, in bounds.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// After a failed accept: out of descriptors, most likely, and others will close.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Serves connections for ever, `most` at a time; who comes then waits. Whoever drops this breaks off what is
/// under way. `name`: of the server, in the log.
pub async fn accept<S, F>(listener: TcpListener, most: usize, name: &'static str, serve: S)
where
    S: Fn(TcpStream, IpAddr) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(most));
    let mut connections = JoinSet::new();
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, peer)) => {
                let serving = serve(stream, peer.ip());
                connections.spawn(async move {
                    serving.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "{name} cannot accept");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}
