//! One GET under way, and those who wait for it.

use std::ops::Range;
use std::sync::{OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::ahead::Stream;
use crate::bucket::{Error, Result};
use crate::error::Kind;

/// Longest wait of a reader for one GET, its queueing included (promise P13).
const WAIT_DEADLINE: Duration = Duration::from_mins(1);

type Outcome = Option<Result<Bytes>>;

/// A GET under way. Its task runs on when a reader goes away, so nobody depends on a leader.
pub(super) struct Flight {
    /// Bytes of the object that will come.
    pub range: Range<u64>,
    /// Asked for by read-ahead, not by a reader.
    pub ahead: bool,
    /// The read-ahead that this belongs to, dangling if none.
    pub stream: Weak<Stream>,
    outcome: watch::Sender<Outcome>,
    task: OnceLock<AbortHandle>,
}

impl Flight {
    /// A flight that has not started yet.
    pub fn new(range: Range<u64>, ahead: bool, stream: Weak<Stream>) -> Self {
        Self { range, ahead, stream, outcome: watch::Sender::new(None), task: OnceLock::new() }
    }

    /// A place among the waiting; the flight is not cancelled while one is held.
    pub fn join(&self) -> Waiting {
        Waiting(self.outcome.subscribe())
    }

    /// Whether any reader waits for these bytes.
    pub fn has_waiters(&self) -> bool {
        self.outcome.receiver_count() > 0
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

    /// Tells everybody who waits.
    pub fn publish(&self, result: Result<Bytes>) {
        self.outcome.send_replace(Some(result));
    }
}

/// One reader's wait for a [`Flight`].
pub(super) struct Waiting(watch::Receiver<Outcome>);

impl Waiting {
    /// The bytes of the whole flight.
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
