//! What was asked for: the last requests one by one, all of them as counts.

use std::collections::{BTreeMap, VecDeque};
use std::time::SystemTime;

use parking_lot::Mutex;

/// How many requests are kept one by one; older ones are only counted.
const KEPT_REQUESTS: usize = 100_000;

/// One request that was answered, or broken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRecord {
    /// When it came in.
    pub at: SystemTime,
    /// Its S3 name, e.g. `PutObject`; `Rejected` for what was turned away before it had one (a
    /// wrong signature, an impossible path).
    pub operation: String,
    /// Empty when it is about none.
    pub bucket: String,
    /// Empty when it is about none.
    pub key: String,
    /// HTTP status; 0 when the connection was broken off instead of an answer.
    pub status: u16,
    /// Bytes of the two bodies together: taken from the request, announced with the answer.
    pub bytes: u64,
}

/// The log of a server.
#[derive(Debug, Default)]
pub(super) struct RequestLog {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: VecDeque<RequestRecord>,
    counts: BTreeMap<String, u64>,
}

impl RequestLog {
    /// Adds a request.
    pub fn add(&self, record: RequestRecord) {
        let mut state = self.state.lock();
        *state.counts.entry(record.operation.clone()).or_default() += 1;
        if state.last.len() >= KEPT_REQUESTS {
            state.last.pop_front();
        }
        state.last.push_back(record);
    }

    /// The last requests, oldest first.
    pub fn last(&self) -> Vec<RequestRecord> {
        self.state.lock().last.iter().cloned().collect()
    }

    /// How many requests there were of each operation.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.state.lock().counts.clone()
    }
}
