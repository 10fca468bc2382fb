//! What waits to be written: bounded by bytes, never waited for by a reader.

use std::collections::VecDeque;
use std::fs::File;
use std::pin::pin;
use std::time::{Duration, Instant};

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

/// How long nothing more must have come before what can wait is written: programs that write many files
/// need the processor and the disk themselves.
const QUIET: Duration = Duration::from_millis(250);
/// How long it waits at most for that.
const LONGEST: Duration = Duration::from_secs(5);

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Those that can wait, their bytes, and when the first and the last of them came.
    later: VecDeque<Job>,
    later_bytes: u64,
    came: Option<(Instant, Instant)>,
    /// Of the jobs, and of the one that was taken last.
    bytes: u64,
    taken: u64,
    /// How many wait for all of it.
    drains: usize,
    stopped: bool,
}

impl State {
    /// For how long yet what can wait does.
    fn pause(&self, most_bytes: u64) -> Duration {
        if self.drains > 0 || self.bytes > most_bytes / 2 {
            return Duration::ZERO;
        }
        let pause = |(first, last): (Instant, Instant)| {
            QUIET.saturating_sub(last.elapsed()).min(LONGEST.saturating_sub(first.elapsed()))
        };
        self.came.map_or(Duration::ZERO, pause)
    }
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

    /// Bytes that wait now.
    pub fn waiting_bytes(&self) -> u64 {
        let state = self.state.lock();
        state.bytes
    }

    /// Puts a job in; gives it back when too much waits. Does not wait itself.
    pub fn offer(&self, job: Job) -> Result<(), Job> {
        self.put(job, false)
    }

    /// As [`Queue::offer`], for what is in memory too: it is done when there is nothing else to do.
    pub fn offer_later(&self, job: Job) -> Result<(), Job> {
        self.put(job, true)
    }

    fn put(&self, job: Job, can_wait: bool) -> Result<(), Job> {
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
        if can_wait {
            let now = Instant::now();
            let first = state.came.filter(|_| !state.later.is_empty()).map_or(now, |(first, _)| first);
            state.came = Some((first, now));
            state.later_bytes += bytes;
            state.later.push_back(job);
        } else {
            state.jobs.push_back(job);
        }
        self.changed.notify_all();
        Ok(())
    }

    /// What waits of one version is another's from now on.
    pub fn relabel(&self, from: &Pinned, to: &Pinned) {
        let mut state = self.state.lock();
        let State { jobs, later, .. } = &mut *state;
        let is_meant = |job: &&mut Job| job.object.key == from.key && job.object.etag == from.etag;
        for job in jobs.iter_mut().chain(later).filter(is_meant) {
            job.object = to.clone();
        }
    }

    /// Returns when no more waits than should.
    pub async fn settle(&self) {
        self.at_most(self.most_bytes).await;
    }

    /// Returns when nothing waits but what can.
    pub async fn idle(&self) {
        self.at_most(0).await;
    }

    async fn at_most(&self, bytes: u64) {
        loop {
            let mut told = pin!(self.room.notified());
            told.as_mut().enable();
            let is_so = {
                let state = self.state.lock();
                state.stopped || state.bytes - state.later_bytes <= bytes
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
        let job = loop {
            if state.stopped {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                break job;
            }
            let pause = state.pause(self.most_bytes);
            if pause.is_zero()
                && let Some(job) = state.later.pop_front()
            {
                state.later_bytes -= job.bytes();
                break job;
            }
            if state.later.is_empty() {
                self.changed.wait(&mut state);
            } else {
                self.changed.wait_for(&mut state, pause);
            }
        };
        state.taken = job.bytes();
        Some(job)
    }

    /// Returns when everything offered so far is done.
    pub fn drain(&self) {
        let mut state = self.state.lock();
        state.drains += 1;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| state.bytes > 0 && !state.stopped);
        state.drains -= 1;
    }

    /// No more jobs. Those that wait are given up: whoever wants them done drains first.
    pub fn stop(&self) {
        let given_up = {
            let mut state = self.state.lock();
            state.stopped = true;
            (std::mem::take(&mut state.jobs), std::mem::take(&mut state.later))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::ETag;

    fn job(key: &str) -> Job {
        let object = Pinned { key: key.into(), etag: ETag::new("v"), size: 10 };
        Job { object, payload: Payload::Bytes { offset: 0, bytes: Bytes::from_static(b"0123456789") }, told: None }
    }

    fn taken(queue: &Queue) -> String {
        queue.take().expect("it was not stopped").object.key.to_string()
    }

    #[test]
    fn what_can_wait_is_done_after_what_came_later_and_before_a_drain_returns() {
        let queue = Queue::new(1000);
        assert!(queue.offer_later(job("one")).is_ok() && queue.offer_later(job("two")).is_ok());
        assert!(queue.offer(job("three")).is_ok());
        assert_eq!([taken(&queue), taken(&queue), taken(&queue)], ["three", "one", "two"]);
        assert!(queue.offer_later(job("four")).is_ok());
        std::thread::scope(|scope| {
            let done = scope.spawn(|| queue.drain());
            assert_eq!(taken(&queue), "four");
            assert!(!done.is_finished());
            assert!(queue.offer(job("five")).is_ok());
            // Only now is the fourth one done.
            assert_eq!(taken(&queue), "five");
            queue.stop();
        });
        assert!(queue.take().is_none());
    }
}
