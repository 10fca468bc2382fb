//! One thread writes. Whatever arrives while a commit is on its way to the disk goes into the next
//! one, so that a hundred closes at once cost two fsyncs and not a hundred.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot, watch};

use super::store::{Change, Store};
use super::{Error, Result};
use crate::error::Kind;
use crate::failpoint::{self, Failpoint};

/// Changes that may wait; callers beyond wait for a place.
const QUEUE_LENGTH: usize = 1024;
/// Changes in one commit: bounds its memory, and how long the first of them waits.
const BATCH_LENGTH: usize = 512;

type Order = (Change, oneshot::Sender<Result<()>>);

/// The writing thread. It ends when the last sender is gone.
#[derive(Debug)]
pub(super) struct Writer {
    sender: Sender,
    thread: Option<JoinHandle<()>>,
}

/// A way to the writing thread.
#[derive(Clone, Debug)]
pub(super) struct Sender(mpsc::Sender<Order>);

/// A way to it that does not keep it from ending.
#[derive(Debug)]
pub(super) struct WeakSender(mpsc::WeakSender<Order>);

impl WeakSender {
    pub(super) fn upgrade(&self) -> Option<Sender> {
        self.0.upgrade().map(Sender)
    }
}

impl Sender {
    pub(super) fn downgrade(self) -> WeakSender {
        WeakSender(self.0.downgrade())
    }

    /// Takes itself: a caller that waits for its answer must not keep the thread from ending.
    pub(super) async fn change(self, change: Change) -> Result<()> {
        let (done, outcome) = oneshot::channel();
        self.0.send((change, done)).await.map_err(|_| Error::Closed)?;
        drop(self);
        outcome.await.map_err(|_| Error::Closed)?
    }
}

impl Writer {
    pub(super) fn start(store: Arc<Store>, notify: watch::Sender<u64>) -> std::io::Result<Self> {
        let (sender, orders) = mpsc::channel(QUEUE_LENGTH);
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || write_until_closed(&store, orders, &notify))?;
        Ok(Self { sender: Sender(sender), thread: Some(thread) })
    }

    pub(super) fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// Lets the thread finish what it has, and waits for it.
    pub(super) async fn stop(self) {
        // Dropping joins, which blocks for one commit at most.
        if tokio::task::spawn_blocking(move || drop(self)).await.is_err() {
            tracing::warn!("the journal's thread panicked while it was stopped");
        }
    }
}

impl Drop for Writer {
    /// Waits for the thread: the file's lock must be gone when the journal is, for the next to open it.
    fn drop(&mut self) {
        let (closed, _) = mpsc::channel(1);
        self.sender = Sender(closed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the journal's thread panicked");
        }
    }
}

fn write_until_closed(store: &Store, mut orders: mpsc::Receiver<Order>, notify: &watch::Sender<u64>) {
    while let Some(first) = orders.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH_LENGTH
            && let Ok(order) = orders.try_recv()
        {
            batch.push(order);
        }
        let (changes, waiting): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let concerns_hooks = changes.iter().any(Change::concerns_hooks);
        failpoint::reach(Failpoint::JournalBeforeCommit);
        let outcome = commit(store, changes);
        failpoint::reach(Failpoint::JournalAfterCommit);
        if outcome.is_ok() && concerns_hooks {
            notify.send_modify(|commits| *commits += 1);
        }
        for caller in waiting {
            // A caller that does not wait any more does not need the answer.
            let _ = caller.send(outcome.clone());
        }
    }
}

/// redb checks its own invariants with panics; one of them must not end the thread that every close
/// waits for.
fn commit(store: &Store, changes: Vec<Change>) -> Result<()> {
    catch_unwind(AssertUnwindSafe(|| store.apply(changes))).unwrap_or_else(|_| {
        Err(Error::Storage { action: "commit", cause: "the database library panicked".into(), kind: Kind::Local })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{EventName, NewEvent};

    #[test]
    fn what_waits_together_is_committed_together() {
        let dir = tempfile::tempdir().expect("a directory");
        let database = redb::Database::create(dir.path().join("j")).expect("a database");
        let store = Store::new(database).expect("tables");
        let (sender, orders) = mpsc::channel(100);
        let mut outcomes = Vec::new();
        for number in 0..100 {
            let (done, outcome) = oneshot::channel();
            let events = vec![NewEvent {
                name: EventName::CreatedPut,
                key: format!("k{number}"),
                size: 1,
                etag: None,
                time: std::time::UNIX_EPOCH,
                lineage: Vec::new(),
                rewritten: false,
                replayed_for: Vec::new(),
            }];
            sender.try_send((Change::Settle { intents: Vec::new(), events }, done)).expect("a place in the queue");
            outcomes.push(outcome);
        }
        drop(sender);
        let (notify, commits) = watch::channel(0);
        write_until_closed(&store, orders, &notify);
        assert_eq!(*commits.borrow(), 1);
        assert_eq!(store.events(1000).expect("readable").len(), 100);
        assert!(outcomes.into_iter().all(|outcome| matches!(outcome.blocking_recv(), Ok(Ok(())))));
    }
}
