//! Runs hooks for what a queue says: S3's own notifications, or events that mounts have put there.
//!
//! ```text
//! SQS ─ receive ─→ message ─→ its records ─→ a task for each hook that wants it ─→ run, tell, remember
//!      ←─ hide ────┘ again and again until then; delete when all is settled, else put back
//! ```
//!
//! The queue is the journal here. A message is deleted when every hook has settled what it says and every
//! destination has heard of it; until then it is hidden from other workers, and it comes back when this one
//! dies. Nothing of it is kept on this machine but marks of what was done (`known`).

mod known;
mod message;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::delivery::pause_after;
use super::worker::{Phase, Worker};
use super::{Error, Hooks, Result};
use crate::relay::{self, Message, Queue};
use known::Known;

/// Messages that are hidden from others, those that wait for the next try of a hook among them.
const MAX_UNSETTLED: usize = 256;
/// As many as one request brings.
const MAX_BATCH: usize = 10;
/// As long as SQS waits for the first message.
const LONG_POLL: Duration = Duration::from_secs(20);
/// Runs of a hook for keys that share one of these follow each other.
const TURNS: usize = 256;

/// A message and its place among those that are worked on.
type Placed = (Message, OwnedSemaphorePermit);

/// What became of the messages of a queue, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageCounts {
    pub received: u64,
    pub deleted: u64,
    /// Left to the queue, for this worker or another.
    pub returned: u64,
    /// Questions for more that were not answered as they should be.
    pub failed_receives: u64,
}

/// Counts them.
#[derive(Debug, Default)]
pub(super) struct Tally {
    received: AtomicU64,
    deleted: AtomicU64,
    returned: AtomicU64,
    failed_receives: AtomicU64,
}

/// Takes from one queue.
struct Consumer {
    worker: Arc<Worker>,
    queue: Queue,
    /// How long a message is hidden after the last word about it.
    hidden: Duration,
    known: Known,
    /// For messages that run or are next: who takes more keeps them from other workers.
    places: Arc<Semaphore>,
    /// Guests at a time, over all hooks.
    guests: Semaphore,
    turns: Vec<tokio::sync::Mutex<()>>,
    /// Receives that failed in a row.
    failures: AtomicU32,
    tally: Arc<Tally>,
}

impl Hooks {
    /// Takes what a queue says from now on, and no events of the journal, until [`Hooks::stop`]. Messages
    /// are hidden from other workers for as long as `hidden`, and again before that is over.
    ///
    /// # Errors
    /// [`Error::Queue`] when the queue does not answer, or not this caller.
    pub async fn begin_with_queue(&self, queue: Queue, hidden: Duration, runtime: &Handle) -> Result<()> {
        let worker = Arc::clone(&self.worker);
        let file = self.directory.join("known");
        let known = Known::open(&file).map_err(|cause| Error::File { path: file, cause })?;
        for hook in worker.hooks().iter().filter(|hook| !hook.spec.mode.takes_events()) {
            tracing::warn!(
                "hook \"{}\" (mode {}) needs a mount: a worker does not run it",
                hook.spec.name,
                hook.spec.mode.name()
            );
        }
        let places = Arc::new(Semaphore::new(2 * worker.concurrency));
        let guests = Semaphore::new(worker.concurrency);
        let turns = std::iter::repeat_with(tokio::sync::Mutex::default).take(TURNS).collect();
        let failures = AtomicU32::new(0);
        let tally = Arc::clone(&self.messages);
        let consumer = Arc::new(Consumer { worker, queue, hidden, known, places, guests, turns, failures, tally });
        let first = consumer.receive(Duration::ZERO).await.map_err(Error::Queue)?;
        self.task.lock().get_or_insert_with(|| runtime.spawn(consumer.work(first)));
        Ok(())
    }

    /// What became of the messages that [`Hooks::begin_with_queue`] has taken.
    pub fn messages(&self) -> MessageCounts {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let Tally { received, deleted, returned, failed_receives } = &*self.messages;
        MessageCounts {
            received: count(received),
            deleted: count(deleted),
            returned: count(returned),
            failed_receives: count(failed_receives),
        }
    }
}

impl Consumer {
    /// Works until the phase says otherwise and nothing runs any more.
    async fn work(self: Arc<Self>, first: Vec<Placed>) {
        let mut phase = self.worker.phase.clone();
        let mut runs = JoinSet::new();
        let mut receiving = None;
        self.start(first, &mut runs);
        loop {
            match *phase.borrow_and_update() {
                Phase::Work if receiving.is_none() && runs.len() < MAX_UNSETTLED => {
                    receiving = Some(Box::pin(Arc::clone(&self).next()));
                }
                Phase::Work => {}
                // What is on its way comes back when its time is over.
                Phase::Drain => receiving = None,
                Phase::Cancel => {
                    receiving = None;
                    self.worker.cancel.send_replace(true);
                }
            }
            if receiving.is_none() && runs.is_empty() {
                return;
            }
            let received = async {
                match receiving.as_mut() {
                    Some(receiving) => receiving.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The owner is gone.
                told = phase.changed() => if told.is_err() { return },
                Some(ended) = runs.join_next() => if let Err(error) = ended {
                    // It comes back when its time is over.
                    tracing::error!("a message was lost sight of: {error}");
                },
                placed = received => {
                    receiving = None;
                    self.start(placed, &mut runs);
                }
            }
        }
    }

    fn start(self: &Arc<Self>, placed: Vec<Placed>, runs: &mut JoinSet<()>) {
        for (message, place) in placed {
            runs.spawn(Arc::clone(self).handle(message, place));
        }
    }

    /// The next messages, when there are any and places for them; none after a failure.
    async fn next(self: Arc<Self>) -> Vec<Placed> {
        match self.receive(LONG_POLL).await {
            Ok(placed) => {
                self.failures.store(0, Ordering::Relaxed);
                placed
            }
            Err(error) => {
                let failures = self.failures.fetch_add(1, Ordering::Relaxed);
                self.tally.failed_receives.fetch_add(1, Ordering::Relaxed);
                tracing::error!("the queue: {error}");
                tokio::time::sleep(pause_after(failures)).await;
                Vec::new()
            }
        }
    }

    async fn receive(&self, wait: Duration) -> relay::Result<Vec<Placed>> {
        let place = Arc::clone(&self.places).acquire_owned().await.expect("places are never closed");
        let mut places = vec![place];
        while places.len() < MAX_BATCH
            && let Ok(place) = Arc::clone(&self.places).try_acquire_owned()
        {
            places.push(place);
        }
        let relay = &self.worker.surroundings.relay;
        let messages = relay.receive(&self.queue, places.len(), wait, self.hidden).await?;
        self.tally.received.fetch_add(messages.len() as u64, Ordering::Relaxed);
        Ok(messages.into_iter().zip(places).collect())
    }
}
