//! One GET under way, and those who wait for it.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::BLOCK_BYTES;
use super::ahead::Stream;
use crate::bucket::{Error, Result};
use crate::error::Kind;

/// Longest wait of a reader for one GET, its queueing included (promise P13).
const WAIT_DEADLINE: Duration = Duration::from_mins(1);

type Outcome = Option<Result<Bytes>>;

/// A GET under way. Its task runs on when a reader goes away, so nobody depends on a leader.
///
/// Its bytes come in order, seat by seat, a block each: who waits for a seat has it as soon as its
/// last byte is there.
pub(super) struct Flight {
    /// Bytes of the object that will come.
    pub range: Range<u64>,
    /// Asked for by read-ahead, not by a reader.
    pub ahead: bool,
    /// The read-ahead that this belongs to, dangling if none.
    pub stream: Weak<Stream>,
    seats: Vec<Seat>,
    landed: AtomicUsize,
    task: OnceLock<AbortHandle>,
}

struct Seat {
    range: Range<u64>,
    /// Gone once it was told: a flight that goes on must not hold what was evicted meanwhile.
    outcome: Mutex<Option<watch::Sender<Outcome>>>,
}

impl Flight {
    /// A flight that has not started yet. What a reader waits for ends at `first_end`: that comes in
    /// a seat of its own, so that the rest of a block does not hold it up.
    pub fn new(range: Range<u64>, first_end: u64, ahead: bool, stream: Weak<Stream>) -> Self {
        let mut seats = Vec::new();
        let mut start = range.start;
        while start < range.end {
            let block_end = (start + 1).next_multiple_of(BLOCK_BYTES).min(range.end);
            let end = if start < first_end { block_end.min(first_end) } else { block_end };
            seats.push(Seat { range: start..end, outcome: Mutex::new(Some(watch::Sender::new(None))) });
            start = end;
        }
        Self { range, ahead, stream, seats, landed: AtomicUsize::new(0), task: OnceLock::new() }
    }

    /// How many seats there are; they are numbered from 0.
    pub fn seats(&self) -> usize {
        self.seats.len()
    }

    /// The bytes that come in a seat.
    pub fn seat(&self, seat: usize) -> &Range<u64> {
        &self.seats[seat].range
    }

    /// Seats whose bytes are there: that many from the first on.
    pub fn landed(&self) -> usize {
        self.landed.load(Ordering::Acquire)
    }

    /// A place among those who wait for a seat; the flight is not cancelled while one is held.
    pub fn join(&self, seat: usize) -> Waiting {
        let outcome = self.seats[seat].outcome.lock();
        Waiting(outcome.as_ref().expect("who is told of a seat is entered no longer").subscribe())
    }

    /// Whether any reader waits for a seat.
    pub fn is_awaited(&self, seat: usize) -> bool {
        self.seats[seat].outcome.lock().as_ref().is_some_and(|outcome| outcome.receiver_count() > 0)
    }

    /// Whether any reader waits for what is still to come.
    pub fn has_waiters(&self) -> bool {
        (self.landed()..self.seats.len()).any(|seat| self.is_awaited(seat))
    }

    /// Takes the handle of its task, by which it can be aborted.
    pub fn started(&self, task: AbortHandle) {
        let _ = self.task.set(task);
    }

    /// Ends the task; it then strikes the flight off the books by itself.
    pub fn abort(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    /// Tells everybody who waits for the next seat.
    pub fn publish(&self, seat: usize, result: Result<Bytes>) {
        self.landed.store(seat + 1, Ordering::Release);
        if let Some(outcome) = self.seats[seat].outcome.lock().take() {
            outcome.send_replace(Some(result));
        }
    }
}

/// One reader's wait for a seat of a [`Flight`].
pub(super) struct Waiting(watch::Receiver<Outcome>);

impl Waiting {
    /// The bytes of the whole seat.
    pub async fn bytes(mut self, key: &str) -> Result<Bytes> {
        let waited = tokio::time::timeout(WAIT_DEADLINE, self.0.wait_for(Option::is_some)).await;
        match waited {
            Ok(Ok(outcome)) => outcome.clone().expect("wait_for returned a value that is some"),
            Ok(Err(_)) => Err(failure(key, Kind::Local, "the fetch was cut off")),
            Err(_) => Err(failure(key, Kind::Deadline, "no bytes within 60 s")),
        }
    }
}

/// An error of ours about a GET.
pub(super) fn failure(key: &str, kind: Kind, cause: &str) -> Error {
    Error {
        kind,
        operation: "GetObject",
        key: key.to_owned(),
        cause: cause.to_owned(),
        http_status: None,
        request_id: None,
    }
}
