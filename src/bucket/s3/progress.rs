//! Tells a slow request from a dead one: an attempt lives as long as bytes move.
//!
//! A fixed time per attempt would either let a dead connection hang for minutes or cut every 16 MiB
//! part on a slow uplink, for ever.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::bucket::upload::Arriving;

/// How much of an upload is handed to the connection at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// What the kernel's send buffer may still hold after the last chunk was handed over, and the
/// slowest uplink that we wait for: without it the tail of an upload would look like a stall.
const SEND_BUFFER_BYTES: u64 = 4 << 20;
const SLOWEST_BYTES_PER_SECOND: u64 = 128 << 10;

/// Fewer bytes than this within the stall time are no progress: a server that sends a byte now and
/// then would hold a reader for hours.
const LEAST_BYTES: u64 = 32 << 10;

/// When a request last moved.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    begun: Instant,
    state: Arc<Moved>,
    stall: Duration,
}

#[derive(Debug, Default)]
struct Moved {
    /// Since the begin of the request.
    last_ms: AtomicU64,
    /// Bytes since then.
    bytes: AtomicU64,
}

/// Nothing moved for this long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stalled(pub Duration);

impl Progress {
    pub(super) fn new(stall: Duration) -> Self {
        Self { begun: Instant::now(), state: Arc::default(), stall }
    }

    /// For a request with a body of this size: what sits in the send buffer may take its time.
    pub(super) fn with_body(stall: Duration, bytes: usize) -> Self {
        let tail = (bytes as u64).min(SEND_BUFFER_BYTES) / SLOWEST_BYTES_PER_SECOND;
        Self::new(stall + Duration::from_secs(tail))
    }

    /// Notes that bytes went through.
    pub(super) fn moved(&self, bytes: usize) {
        let bytes = bytes as u64;
        if self.state.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes >= LEAST_BYTES {
            self.advanced();
        }
    }

    /// Notes that the request came to its next stage.
    pub(super) fn advanced(&self) {
        self.state.bytes.store(0, Ordering::Relaxed);
        self.state.last_ms.store(self.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn stalls_at(&self) -> Instant {
        self.begun + Duration::from_millis(self.state.last_ms.load(Ordering::Relaxed)) + self.stall
    }

    /// Waits for `request` as long as it moves.
    pub(super) async fn watch<F: Future>(&self, request: F) -> Result<F::Output, Stalled> {
        let mut request = pin!(request);
        loop {
            let stalls_at = self.stalls_at();
            tokio::select! {
                output = &mut request => return Ok(output),
                () = tokio::time::sleep_until(stalls_at) => {
                    if self.stalls_at() <= stalls_at {
                        return Err(Stalled(self.stall));
                    }
                }
            }
        }
    }
}

/// A request body that notes each chunk the connection takes.
pub(super) struct WatchedBody {
    rest: Bytes,
    progress: Progress,
}

impl WatchedBody {
    pub(super) fn new(bytes: Bytes, progress: Progress) -> Self {
        Self { rest: bytes, progress }
    }
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(CHUNK_BYTES);
        self.progress.moved(length);
        if length == self.rest.len() {
            self.progress.advanced();
        }
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// A request body that is sent as it comes.
pub(super) struct ArrivingBody {
    part: Arc<Arriving>,
    next: usize,
    rest: u64,
    progress: Progress,
}

impl ArrivingBody {
    pub(super) fn new(part: Arc<Arriving>, progress: Progress) -> Self {
        let rest = part.size();
        Self { part, next: 0, rest, progress }
    }
}

impl Body for ArrivingBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(chunk) = ready!(self.part.poll_chunk(self.next, context)) else { return Poll::Ready(None) };
        self.next += 1;
        self.rest -= chunk.len() as u64;
        self.progress.moved(chunk.len());
        if self.rest == 0 {
            self.progress.advanced();
        }
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_that_moves_outlives_the_stall_time() {
        let progress = Progress::new(Duration::from_millis(200));
        let moving = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(50)).await;
                progress.moved(LEAST_BYTES as usize);
            }
        };
        assert!(progress.watch(moving).await.is_ok());
    }

    #[tokio::test]
    async fn a_request_that_only_drips_is_given_up() {
        let progress = Progress::new(Duration::from_millis(100));
        let dripping = async {
            for _ in 0..10_000 {
                tokio::time::sleep(Duration::from_millis(5)).await;
                progress.moved(1);
            }
        };
        let watched = tokio::time::timeout(Duration::from_secs(30), progress.watch(dripping)).await;
        assert!(watched.expect("it drips on").is_err());
    }

    #[tokio::test]
    async fn a_request_that_stands_still_is_given_up() {
        let progress = Progress::new(Duration::from_millis(20));
        assert!(progress.watch(std::future::pending::<()>()).await.is_err());
    }

    #[test]
    fn a_body_has_its_exact_size_and_all_its_bytes() {
        use std::task::Waker;
        let bytes = Bytes::from(vec![3; CHUNK_BYTES * 2 + 1]);
        let mut body = WatchedBody::new(bytes.clone(), Progress::new(STALL));
        assert_eq!(body.size_hint().exact(), Some(bytes.len() as u64));
        let mut sent = Vec::new();
        while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            sent.extend(frame.unwrap().into_data().unwrap());
        }
        assert_eq!(sent, bytes);
    }

    const STALL: Duration = Duration::from_secs(1);
}
