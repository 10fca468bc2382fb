//! What waits to be written: bounded by bytes, never waited for by a reader.

use std::collections::VecDeque;
use std::fs::File;
use std::pin::pin;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, oneshot};

use super::super::Pinned;

/// So many times the bytes that should wait may do so before new ones are not kept: what was under
/// way already when the disk fell behind.
const OVERDRAFT: u64 = 3;

/// Something of a version that is to be on disk.
pub(super) struct Job {
    pub object: Pinned,
    pub payload: Payload,
    /// Hears whether it is on disk now.
    pub told: Option<oneshot::Sender<bool>>,
}

/// What is to be written.
pub(super) enum Payload {
    Bytes {
        offset: u64,
        bytes: Bytes,
    },
    /// All of it, in a local file that may go on to change.
    File {
        file: File,
        /// Whether it has not changed yet. Asked when all of it was read.
        is_unchanged: IsUnchanged,
    },
}

/// Tells whether a file that was handed over still holds that version.
pub(super) type IsUnchanged = Box<dyn Fn() -> bool + Send>;

impl Job {
    /// Memory that it holds, in bytes; not nothing, or nobody could wait for it.
    fn bytes(&self) -> u64 {
        match &self.payload {
            Payload::Bytes { bytes, .. } => (bytes.len() as u64).max(1),
            Payload::File { .. } => 1,
        }
    }
}

/// Files that may wait: each keeps its draft and a descriptor until it is copied.
const MAX_FILES: usize = 4;

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
    /// Bytes that may wait; who fetches ahead waits while there are more.
    most_bytes: u64,
    state: Mutex<State>,
    changed: Condvar,
    room: Notify,
}

impl Queue {
    /// An empty queue for so many bytes.
    pub fn new(most_bytes: u64) -> Self {
        Self { most_bytes, state: Mutex::default(), changed: Condvar::new(), room: Notify::new() }
    }

    /// Bytes that wait when the disk is far behind.
    pub fn most_waiting_bytes(&self) -> u64 {
        OVERDRAFT * self.most_bytes
    }

    /// Puts a job in; gives it back when too much waits. Does not wait itself.
    pub fn offer(&self, job: Job) -> Result<(), Job> {
        let mut state = self.state.lock();
        let bytes = job.bytes();
        // One that is larger than all that may wait, waits alone.
        let is_file = |job: &Job| matches!(job.payload, Payload::File { .. });
        if is_file(&job) && state.jobs.iter().filter(|job| is_file(job)).count() >= MAX_FILES {
            return Err(job);
        }
        if state.stopped || (state.bytes > 0 && state.bytes + bytes > self.most_waiting_bytes()) {
            return Err(job);
        }
        state.bytes += bytes;
        state.jobs.push_back(job);
        self.changed.notify_all();
        Ok(())
    }

    /// Returns when no more waits than should.
    pub async fn settle(&self) {
        self.at_most(self.most_bytes).await;
    }

    /// Returns when nothing waits.
    pub async fn idle(&self) {
        self.at_most(0).await;
    }

    async fn at_most(&self, bytes: u64) {
        loop {
            let mut told = pin!(self.room.notified());
            told.as_mut().enable();
            let is_so = {
                let state = self.state.lock();
                state.stopped || state.bytes <= bytes
            };
            if is_so {
                return;
            }
            told.await;
        }
    }

    /// The next job, once there is one; the one before counts as done. `None` when the queue was
    /// stopped.
    pub fn take(&self) -> Option<Job> {
        let mut state = self.state.lock();
        state.bytes -= std::mem::take(&mut state.taken);
        self.changed.notify_all();
        if state.bytes <= self.most_bytes {
            self.room.notify_waiters();
        }
        self.changed.wait_while(&mut state, |state| state.jobs.is_empty() && !state.stopped);
        let job = state.jobs.pop_front()?;
        state.taken = job.bytes();
        Some(job)
    }

    /// Returns when everything offered so far is done.
    pub fn drain(&self) {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |state| state.bytes > 0 && !state.stopped);
    }

    /// No more jobs. Those that wait are given up: whoever wants them done drains first.
    pub fn stop(&self) {
        let given_up = {
            let mut state = self.state.lock();
            state.stopped = true;
            std::mem::take(&mut state.jobs)
        };
        drop(given_up);
        self.changed.notify_all();
        self.room.notify_waiters();
    }

    /// Whether what is being done should end soon.
    pub fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }
}
