//! A connection as a link: with a speed, and with a way to break it off.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// Most bytes that a paced link takes at once, so that its flow is even.
const PACED_WRITE_BYTES: usize = 128 << 10;
/// How far a link may lag behind its pace before what it missed is lost. Timers tick in
/// milliseconds; without this, each tick too late would make the link slower than it is said to be.
const CATCH_UP: Duration = Duration::from_millis(5);

/// The switch of a connection: who holds it can break the connection off.
#[derive(Debug, Default)]
pub(super) struct Switch {
    reset: AtomicBool,
}

impl Switch {
    /// Makes the connection end in a reset (RST) instead of an orderly close (FIN) when it is
    /// dropped.
    pub fn reset(&self) {
        self.reset.store(true, Ordering::Release);
    }
}

/// A TCP connection, paced in each direction.
#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    switch: Arc<Switch>,
    inward: Option<Pace>,
    outward: Option<Pace>,
}

impl Link {
    /// Wraps a connection. `bytes_per_s` of `None` or 0 = unpaced.
    pub fn new(stream: TcpStream, switch: Arc<Switch>, bytes_per_s: Option<u64>) -> Self {
        let pace = || bytes_per_s.filter(|rate| *rate > 0).map(Pace::new);
        Self { stream, switch, inward: pace(), outward: pace() }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if self.switch.reset.load(Ordering::Acquire) {
            // Fails only on a connection that the peer has closed already.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(pace) = &mut this.inward {
            ready!(pace.poll_free(context));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        if let Some(pace) = &mut this.inward {
            pace.charge(buffer.filled().len() - before);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Link {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(pace) = &mut this.outward else { return Pin::new(&mut this.stream).poll_write(context, bytes) };
        ready!(pace.poll_free(context));
        let piece = &bytes[..bytes.len().min(PACED_WRITE_BYTES)];
        let written = ready!(Pin::new(&mut this.stream).poll_write(context, piece))?;
        pace.charge(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.outward.is_none() {
            return Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        }
        let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| &**slice);
        Pin::new(this).poll_write(context, first)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The speed of one direction.
#[derive(Debug)]
struct Pace {
    bytes_per_s: u64,
    /// When all that was charged is through.
    free_at: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Pace {
    fn new(bytes_per_s: u64) -> Self {
        let now = Instant::now();
        Self { bytes_per_s, free_at: now, sleep: Box::pin(sleep_until(now)) }
    }

    fn poll_free(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.free_at <= Instant::now() {
            return Poll::Ready(());
        }
        self.sleep.as_mut().reset(self.free_at);
        self.sleep.as_mut().poll(context)
    }

    fn charge(&mut self, bytes: usize) {
        let cost = Duration::from_nanos(bytes as u64 * 1_000_000_000 / self.bytes_per_s);
        let earliest = Instant::now().checked_sub(CATCH_UP).unwrap_or(self.free_at);
        self.free_at = self.free_at.max(earliest) + cost;
    }
}
