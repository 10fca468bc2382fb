//! What waits to be written: bounded by bytes, never waited for by a reader.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::super::Pinned;

/// Some bytes of a version.
pub(super) struct Job {
    pub object: Pinned,
    pub offset: u64,
    pub bytes: Bytes,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Of the jobs, and of the one that was taken last.
    bytes: u64,
    taken: u64,
    stopped: bool,
}

/// The queue between readers and the one thread that writes.
pub(super) struct Queue {
    /// Bytes that may wait; what comes while they do is not kept on disk.
    most_bytes: u64,
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    /// An empty queue for so many bytes.
    pub fn new(most_bytes: u64) -> Self {
        Self { most_bytes, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Puts a job in, unless too much waits. Does not wait itself.
    pub fn offer(&self, job: Job) -> bool {
        let mut state = self.state.lock();
        let bytes = job.bytes.len() as u64;
        if state.stopped || state.bytes + bytes > self.most_bytes {
            return false;
        }
        state.bytes += bytes;
        state.jobs.push_back(job);
        self.changed.notify_all();
        true
    }

    /// The next job, once there is one; the one before counts as done. `None` when all is done and
    /// the queue was stopped.
    pub fn take(&self) -> Option<Job> {
        let mut state = self.state.lock();
        state.bytes -= std::mem::take(&mut state.taken);
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| state.jobs.is_empty() && !state.stopped);
        let job = state.jobs.pop_front()?;
        state.taken = job.bytes.len() as u64;
        Some(job)
    }

    /// Returns when everything offered so far is done.
    pub fn drain(&self) {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |state| state.bytes > 0 && !state.stopped);
    }

    /// No more jobs; those that wait are still done.
    pub fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }
}
