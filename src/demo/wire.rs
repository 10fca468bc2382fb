//! The two bodies of an exchange on their way: counted, and spoilt where a fault asks for it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use s3s::StdError;
use tokio::time::{Instant, Sleep, sleep_until};

use super::exchange::Exchange;
use super::faults::FaultKind;
use super::link::Switch;

/// The pause between the bytes of a dripping body.
const DRIP_PAUSE: Duration = Duration::from_millis(100);
/// How long the half of a body that is sent gets to leave before the connection is cut: the server
/// library throws away what it has not written when a body fails.
const CUT_PAUSE: Duration = Duration::from_millis(30);

/// The body was cut on purpose.
#[derive(Debug, thiserror::Error)]
#[error("the connection is broken off by an injected fault")]
pub(super) struct Cut;

/// The request's body. Whoever answers before it is read can read the rest through a clone.
#[derive(Clone, Debug)]
pub(super) struct UploadBody {
    state: Arc<Mutex<Upload>>,
    exchange: Arc<Exchange>,
}

#[derive(Debug)]
struct Upload {
    body: Incoming,
    /// Announced by the client; 0 when it announced none.
    size: u64,
    received: u64,
    pause: Option<Pin<Box<Sleep>>>,
    was_cut: bool,
}

impl UploadBody {
    /// Watches a request body on its way in.
    pub fn new(body: Incoming, exchange: Arc<Exchange>) -> Self {
        let size = body.size_hint().exact().unwrap_or(0);
        let upload = Upload { body, size, received: 0, pause: None, was_cut: false };
        Self { state: Arc::new(Mutex::new(upload)), exchange }
    }

    /// Bytes that came so far.
    pub fn received(&self) -> u64 {
        self.state.lock().received
    }

    /// Whether a fault broke it off.
    pub fn was_cut(&self) -> bool {
        self.state.lock().was_cut
    }
}

impl Upload {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
        fault: Option<FaultKind>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        if fault == Some(FaultKind::Drip) && self.size > self.received {
            let pause = self.pause.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + DRIP_PAUSE)));
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        if fault == Some(FaultKind::ResetDuring) && self.size > 0 && self.received >= self.size / 2 {
            self.was_cut = true;
            return Poll::Ready(Some(Err(Cut.into())));
        }
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)?) else { return Poll::Ready(None) };
        let at = self.received;
        self.received += frame.data_ref().map_or(0, Bytes::len) as u64;
        let middle = self.size / 2;
        let flips = fault == Some(FaultKind::FlippedBit) && (at..self.received).contains(&middle);
        let flip = |data: Bytes| if flips { flipped(&data, (middle - at) as usize) } else { data };
        Poll::Ready(Some(Ok(frame.map_data(flip))))
    }
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let fault = self.exchange.fault();
        self.state.lock().poll_frame(context, fault)
    }

    fn is_end_stream(&self) -> bool {
        self.state.lock().body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.state.lock().body.size_hint()
    }
}

/// The answer's body.
#[derive(Debug)]
pub(super) struct AnswerBody {
    body: s3s::Body,
    spoiler: Option<Spoiler>,
}

#[derive(Debug)]
struct Spoiler {
    fault: FaultKind,
    switch: Arc<Switch>,
    middle: u64,
    sent: u64,
    /// Bytes that came but may not go yet.
    held: Bytes,
    pause: Option<Pin<Box<Sleep>>>,
}

impl AnswerBody {
    /// Wraps a body of a known size (0 = empty or unknown), spoilt by a fault of those that spoil.
    pub fn new(body: s3s::Body, size: u64, fault: Option<FaultKind>, switch: Arc<Switch>) -> Self {
        let fault = fault.filter(|fault| {
            matches!(fault, FaultKind::ResetDuring | FaultKind::Truncated | FaultKind::FlippedBit | FaultKind::Drip)
        });
        let spoiler = fault.filter(|_| size > 0).map(|fault| Spoiler {
            fault,
            switch,
            middle: size / 2,
            sent: 0,
            held: Bytes::new(),
            pause: None,
        });
        Self { body, spoiler }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        let Some(spoiler) = &mut this.spoiler else { return Pin::new(&mut this.body).poll_frame(context) };
        if spoiler.held.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(context)?) {
                None => return Poll::Ready(None),
                Some(frame) => spoiler.held = frame.into_data().unwrap_or_default(),
            }
        }
        spoiler.poll_held(context).map(|piece| Some(piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.spoiler.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Spoiler {
    fn poll_held(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, StdError>> {
        let piece = match self.fault {
            FaultKind::Drip => {
                ready!(self.poll_pause(context, DRIP_PAUSE));
                self.held.split_to(1)
            }
            FaultKind::FlippedBit => {
                let held = std::mem::take(&mut self.held);
                let here = self.sent..self.sent + held.len() as u64;
                if here.contains(&self.middle) { flipped(&held, (self.middle - self.sent) as usize) } else { held }
            }
            _ if self.sent < self.middle => {
                let left = (self.middle - self.sent).min(self.held.len() as u64);
                self.held.split_to(left as usize)
            }
            fault => {
                ready!(self.poll_pause(context, CUT_PAUSE));
                if fault == FaultKind::ResetDuring {
                    self.switch.reset();
                }
                return Poll::Ready(Err(Cut.into()));
            }
        };
        self.sent += piece.len() as u64;
        Poll::Ready(Ok(piece))
    }

    fn poll_pause(&mut self, context: &mut Context<'_>, length: Duration) -> Poll<()> {
        let pause = self.pause.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + length)));
        ready!(pause.as_mut().poll(context));
        self.pause = None;
        Poll::Ready(())
    }
}

fn flipped(bytes: &[u8], at: usize) -> Bytes {
    let mut bytes = BytesMut::from(bytes);
    bytes[at] ^= 1;
    bytes.freeze()
}
