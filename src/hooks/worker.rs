//! The loop behind the hooks: events → tasks → runs → settled.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::invocation::{Hook, Outcome, Surroundings, append};
use super::rules::MAX_LINEAGE;
use crate::failpoint::{self, Failpoint};
use crate::journal::{self, Event, Journal, Task};

/// Events that become tasks in one transaction.
const FAN_OUT_BATCH: usize = 256;
/// Pause after the journal failed: its disk may be full.
const JOURNAL_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause between two tries of what is delayed from outside.
const MAX_DELAY: Duration = Duration::from_mins(1);

/// What the worker is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Work,
    /// Finish what runs and begin nothing.
    Drain,
    /// Stop what runs.
    Cancel,
}

/// What the loop and its runs share.
pub(super) struct Worker {
    pub(super) hooks: Vec<Arc<Hook>>,
    pub(super) surroundings: Surroundings,
    pub(super) journal: Arc<Journal>,
    /// How many guests at a time, over all hooks.
    pub(super) concurrency: usize,
    /// Pauses before the second try, the third and so on; after the last the task is given up.
    pub(super) retry_delays: Vec<Duration>,
    pub(super) dropped: std::sync::atomic::AtomicU64,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) cancel: watch::Sender<bool>,
    /// Changes after every round, for those who wait for quiet.
    pub(super) rounds: watch::Sender<u64>,
}

impl Worker {
    /// Works until the phase says otherwise and nothing runs any more.
    pub(super) async fn work(self: Arc<Self>) {
        let mut news = self.journal.changes();
        let mut phase = self.phase.clone();
        let mut runs: JoinSet<usize> = JoinSet::new();
        let mut running = vec![0_usize; self.hooks.len()];
        loop {
            news.mark_unchanged();
            let now = *phase.borrow_and_update();
            let next_due = match now {
                Phase::Work => self.round(&mut runs, &mut running).await.unwrap_or_else(|error| {
                    tracing::error!("hooks: {error}");
                    Some(SystemTime::now() + JOURNAL_PAUSE)
                }),
                Phase::Drain => None,
                Phase::Cancel => {
                    self.cancel.send_replace(true);
                    None
                }
            };
            self.rounds.send_modify(|rounds| *rounds += 1);
            if now != Phase::Work && runs.is_empty() {
                return;
            }
            tokio::select! {
                // A closed channel: the journal or the owner is gone, and so is the work.
                told = news.changed() => if told.is_err() { return },
                told = phase.changed() => if told.is_err() { return },
                Some(ended) = runs.join_next() => match ended {
                    Ok(hook) => running[hook] -= 1,
                    // Only an abort gets here, and nobody aborts; panics are caught inside.
                    Err(error) => tracing::error!("hooks: a run was lost: {error}"),
                },
                () = sleep_until(next_due) => {}
            }
        }
    }

    /// Makes tasks of new events and starts what may start; says when the next task is due.
    async fn round(
        self: &Arc<Self>,
        runs: &mut JoinSet<usize>,
        running: &mut [usize],
    ) -> journal::Result<Option<SystemTime>> {
        self.fan_out().await?;
        let mut next_due: Option<SystemTime> = None;
        // Each time another hook is first, or one with a long queue would take every place.
        let first = usize::try_from(*self.rounds.borrow()).unwrap_or_default();
        for index in (0..self.hooks.len()).map(|index| (index + first) % self.hooks.len()) {
            let hook = &self.hooks[index];
            let places = (self.concurrency - runs.len()).min(hook.spec.concurrency - running[index]);
            if places == 0 {
                continue;
            }
            let taken = self.journal.take(&hook.spec.name, places, SystemTime::now())?;
            next_due = [next_due, taken.next_due].into_iter().flatten().min();
            for task in taken.tasks {
                running[index] += 1;
                let (worker, hook) = (Arc::clone(self), Arc::clone(hook));
                runs.spawn(async move {
                    worker.run(&hook, task).await;
                    index
                });
            }
        }
        Ok(next_due)
    }

    async fn fan_out(&self) -> journal::Result<()> {
        loop {
            let events = self.journal.events(FAN_OUT_BATCH)?;
            if events.is_empty() {
                return Ok(());
            }
            let matched = events.into_iter().map(|event| (self.matching(&event), event));
            self.journal.fan_out(matched.map(|(hooks, event)| (event, hooks)).collect()).await?;
        }
    }

    fn matching(&self, event: &Event) -> Vec<String> {
        let fact = &event.fact;
        if fact.lineage.len() >= MAX_LINEAGE {
            self.dropped.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tracing::warn!("no hook sees {}: {MAX_LINEAGE} hooks had a hand in it already", fact.key.escape_debug());
        }
        let Some(path) = fact.key.strip_prefix(&self.surroundings.prefix) else { return Vec::new() };
        let wanted = self.hooks.iter().filter(|hook| hook.spec.wants(fact, path));
        wanted.map(|hook| hook.spec.name.clone()).collect()
    }

    async fn run(&self, hook: &Hook, task: Task) {
        let attempt = self.surroundings.attempt(hook, &task, self.cancel.subscribe());
        let outcome = AssertUnwindSafe(attempt)
            .catch_unwind()
            .await
            .unwrap_or_else(|_| Outcome::Failed("s3mount panicked over it; please report this".into()));
        if let Err(error) = self.settle(hook, task, outcome).await {
            tracing::error!("hook \"{}\": {error}", hook.spec.name);
            tokio::time::sleep(JOURNAL_PAUSE).await;
        }
    }

    async fn settle(&self, hook: &Hook, mut task: Task, outcome: Outcome) -> journal::Result<()> {
        let key = task.event.fact.key.clone();
        match outcome {
            Outcome::Done(events) => {
                failpoint::reach(Failpoint::HookPublished);
                self.journal.finish(&task, events).await
            }
            Outcome::Superseded => {
                hook.counters.superseded();
                let id = &task.event.id;
                let line = format!("SUPERSEDED RequestId: {id}\tKey: {}\n", key.escape_debug());
                append(hook, line).await;
                self.journal.finish(&task, Vec::new()).await
            }
            Outcome::Cancelled => {
                self.journal.release(&task);
                Ok(())
            }
            Outcome::Fatal(problem) => self.give_up(hook, &task, &problem).await,
            Outcome::Failed(problem) => match self.retry_delays.get(task.failures as usize) {
                None => self.give_up(hook, &task, &problem).await,
                Some(&delay) => {
                    complain(hook, &key, &problem);
                    task.failures += 1;
                    self.journal.postpone(&task, SystemTime::now() + delay).await
                }
            },
            Outcome::Delayed(problem) => {
                complain(hook, &key, &problem);
                let delay = Duration::from_secs(1 << task.delays.min(6)).min(MAX_DELAY);
                task.delays = task.delays.saturating_add(1);
                self.journal.postpone(&task, SystemTime::now() + delay).await
            }
        }
    }

    async fn give_up(&self, hook: &Hook, task: &Task, problem: &str) -> journal::Result<()> {
        complain(hook, &task.event.fact.key, problem);
        let line = format!(
            "DEAD RequestId: {}\tKey: {}\tAttempts: {}\n",
            task.event.id,
            task.event.fact.key.escape_debug(),
            task.failures + 1
        );
        append(hook, line).await;
        self.journal.bury(task, problem, SystemTime::now()).await
    }
}

fn complain(hook: &Hook, key: &str, problem: &str) {
    hook.counters.failed(key, problem);
    tracing::warn!("hook \"{}\" for {}: {}", hook.spec.name, key.escape_debug(), problem.escape_debug());
}

async fn sleep_until(due: Option<SystemTime>) {
    match due {
        None => std::future::pending().await,
        Some(due) => {
            let wait = due.duration_since(SystemTime::now()).unwrap_or_default();
            // The clock may be set while we sleep: look again now and then.
            tokio::time::sleep(wait.min(MAX_DELAY)).await;
        }
    }
}
