//! Signals that ask for the end.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;
use crate::error::Kind;

/// SIGTERM and SIGINT. SIGHUP means that a terminal is gone, which is nothing to a mount.
pub(super) struct Interrupts {
    terminate: Signal,
    interrupt: Signal,
    _hangup: Signal,
}

impl Interrupts {
    pub(super) fn new() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|cause| Failure::new(Kind::Local, format!("cannot take signals: {cause}")));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            _hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Returns at the next of them; may be dropped and called again.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
