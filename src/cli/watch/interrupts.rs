//! Ctrl-C as an answer instead of an end: signalfd(2).

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::app::Failure;
use crate::error::Kind;

/// SIGINT and SIGTERM, which end nothing by themselves from now on.
pub(super) struct Interrupts(SignalFd);

impl Interrupts {
    /// Before any thread is started: it would get the signals instead.
    pub(super) fn take() -> Result<Self, Failure> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGTERM);
        let taken = signals.thread_block().and_then(|()| SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC));
        taken.map(Self).map_err(failed)
    }

    /// Waits for one of them, so long; whether it came.
    pub(super) fn came_within(&self, time: Duration) -> Result<bool, Failure> {
        let until = Instant::now() + time;
        loop {
            // A little longer than what is left, or the last millisecond would be spent looking.
            let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], wait) {
                Ok(0) if Instant::now() >= until => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(errno) => return Err(failed(errno)),
            }
        }
    }
}

fn failed(errno: Errno) -> Failure {
    Failure::new(Kind::Local, format!("cannot take signals: {}", io::Error::from(errno)))
}
