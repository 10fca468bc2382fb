//! The loop behind the hooks: events → tasks → runs → settled.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use futures::FutureExt;
use parking_lot::RwLock;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle, JoinSet};

use super::delivery::{MAX_DELAY, Next, pause_outside};
use super::destinations::{self, Condition, Delivered, Destination};
use super::invocation::{Hook, Outcome, Publication, Surroundings, Tried, append};
use super::rules::MAX_LINEAGE;
use crate::failpoint::{self, Failpoint};
use crate::journal::{self, DeadTask, Event, EventName, Journal, NewCall, Seen, Task};

/// Events that become tasks in one transaction.
const FAN_OUT_BATCH: usize = 256;
/// Runs of one place that have ended and whose journal record is on its way to the disk: many share one
/// fsync.
const MAX_UNSETTLED: usize = 32;
/// So long one place goes on with a hook's next task by itself; then the others have their say.
const TURN: Duration = Duration::from_millis(50);
/// Pause after the journal failed: its disk may be full.
const JOURNAL_PAUSE: Duration = Duration::from_secs(1);
/// To one destination at a time.
const DELIVERIES: usize = 4;

/// What the worker is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Work,
    /// Finish what runs and begin nothing.
    Drain,
    /// Stop what runs.
    Cancel,
}

/// Runs of each hook, whatever version of it.
type Running = HashMap<String, usize>;

/// What the loop and its runs share.
pub(super) struct Worker {
    /// Those that count now; runs that have begun hold theirs.
    pub(super) hooks: RwLock<Arc<Vec<Arc<Hook>>>>,
    pub(super) surroundings: Surroundings,
    pub(super) journal: Arc<Journal>,
    /// How many guests at a time, over all hooks.
    pub(super) concurrency: usize,
    pub(super) dropped: AtomicU64,
    /// What no destination took, and is given up.
    pub(super) undelivered: AtomicU64,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) cancel: watch::Sender<bool>,
    /// Changes after every round, for those who wait for quiet.
    pub(super) rounds: watch::Sender<u64>,
    /// Changes when other hooks count.
    pub(super) switches: watch::Sender<u64>,
}

impl Worker {
    /// The hooks that count at this moment.
    pub(super) fn hooks(&self) -> Arc<Vec<Arc<Hook>>> {
        Arc::clone(&self.hooks.read())
    }

    /// From now on these count; returns those before them.
    pub(super) fn switch(&self, hooks: Vec<Arc<Hook>>) -> Arc<Vec<Arc<Hook>>> {
        let before = std::mem::replace(&mut *self.hooks.write(), Arc::new(hooks));
        self.switches.send_modify(|count| *count += 1);
        before
    }

    /// Works until the phase says otherwise and nothing runs any more.
    pub(super) async fn work(self: Arc<Self>) {
        let mut news = self.journal.changes();
        let mut phase = self.phase.clone();
        let mut switches = self.switches.subscribe();
        let mut runs: JoinSet<()> = JoinSet::new();
        let mut running = Running::new();
        // A guest's place is free when it has ended; its task is done when the journal has it.
        let (ended, mut endings) = mpsc::unbounded_channel::<String>();
        loop {
            news.mark_unchanged();
            let now = *phase.borrow_and_update();
            let next_due = match now {
                Phase::Work => self.round(&mut runs, &mut running, &ended).await.unwrap_or_else(|error| {
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
                _ = switches.changed() => {}
                Some(hook) = endings.recv() => {
                    *running.entry(hook).or_insert(1) -= 1;
                    while let Ok(hook) = endings.try_recv() {
                        *running.entry(hook).or_insert(1) -= 1;
                    }
                }
                Some(settled) = runs.join_next() => if let Err(error) = settled {
                    // Only an abort gets here, and nobody aborts; panics are caught inside.
                    tracing::error!("hooks: a run was lost: {error}");
                },
                () = sleep_until(next_due) => {}
            }
        }
    }

    /// Makes tasks of new events and starts what may start; says when the next task is due.
    async fn round(
        self: &Arc<Self>,
        runs: &mut JoinSet<()>,
        running: &mut Running,
        ended: &mpsc::UnboundedSender<String>,
    ) -> journal::Result<Option<SystemTime>> {
        self.fan_out().await?;
        let mut next_due: Option<SystemTime> = None;
        // Each time another hook is first, or one with a long queue would take every place.
        let first = usize::try_from(*self.rounds.borrow()).unwrap_or_default();
        let hooks = self.hooks();
        self.start_deliveries(&hooks, runs, running, ended, &mut next_due)?;
        for index in (0..hooks.len()).map(|index| (index + first) % hooks.len()) {
            let hook = &hooks[index];
            let guests: usize = running.iter().filter(|(name, _)| !is_destination(name)).map(|(_, count)| count).sum();
            let busy = running.entry(hook.spec.name.clone()).or_default();
            // More may run than it allows now, from before.
            let places = (self.concurrency - guests).min(hook.spec.concurrency.saturating_sub(*busy));
            if places == 0 {
                continue;
            }
            let taken = self.journal.take(&hook.spec.name, places, SystemTime::now())?;
            next_due = [next_due, taken.next_due].into_iter().flatten().min();
            for task in taken.tasks {
                *busy += 1;
                let (name, trying) = (hook.spec.name.clone(), self.start(hook, task, ended.clone()));
                runs.spawn(async move {
                    match trying.await {
                        Ok(settling) => drop(futures::future::join_all(settling).await),
                        Err(error) => tracing::error!("hook \"{name}\": a run was lost: {error}"),
                    }
                });
            }
        }
        Ok(next_due)
    }

    /// Tries a task, and others of its hook after it, on one thread; says when their place is free.
    fn start(
        self: &Arc<Self>,
        hook: &Arc<Hook>,
        first: Task,
        ended: mpsc::UnboundedSender<String>,
    ) -> JoinHandle<VecDeque<JoinHandle<()>>> {
        let (worker, hook) = (Arc::clone(self), Arc::clone(hook));
        self.surroundings.runner.sandbox.spawn(async move {
            let settling = worker.try_in_turn(&hook, first).await;
            // Nobody listens any more when hooks are stopped.
            let _ = ended.send(hook.spec.name.clone());
            settling
        })
    }

    /// Waking another thread for each task would cost more than a small guest. What was tried is settled
    /// beside the next.
    async fn try_in_turn(self: &Arc<Self>, hook: &Arc<Hook>, first: Task) -> VecDeque<JoinHandle<()>> {
        let (begun, mut settling) = (Instant::now(), VecDeque::new());
        let mut next = Some(first);
        while let Some(task) = next {
            let tried = self.run(hook, &task).await;
            if settling.len() == MAX_UNSETTLED
                && let Some(oldest) = settling.pop_front()
            {
                let _: Result<(), JoinError> = oldest.await;
            }
            let (worker, of) = (Arc::clone(self), Arc::clone(hook));
            settling.push_back(tokio::spawn(async move { worker.finish(&of, task, tried).await }));
            next = if begun.elapsed() < TURN { self.next_task(hook) } else { None };
        }
        settling
    }

    /// What a place may go on with: while its hook counts, and nothing ends.
    fn next_task(&self, hook: &Arc<Hook>) -> Option<Task> {
        let counts = self.hooks().iter().any(|other| Arc::ptr_eq(other, hook));
        if !counts || *self.phase.borrow() != Phase::Work {
            return None;
        }
        // An error is met again by the next round, and told there.
        self.journal.take(&hook.spec.name, 1, SystemTime::now()).ok()?.tasks.pop()
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

    pub(super) fn matching(&self, event: &Event) -> Vec<String> {
        let fact = &event.fact;
        if fact.lineage.len() >= MAX_LINEAGE {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("no hook sees {}: {MAX_LINEAGE} hooks had a hand in it already", fact.key.escape_debug());
        }
        let Some(path) = fact.key.strip_prefix(&self.surroundings.runner.prefix) else { return Vec::new() };
        let hooks = self.hooks();
        let told = hooks.iter().filter(|hook| hook.spec.mode.takes_events());
        let again = |hook: &Hook| fact.replayed_for.is_empty() || fact.replayed_for.contains(&hook.spec.name);
        let wanted = told.filter(|hook| again(hook) && hook.spec.wants(fact, path));
        wanted.map(|hook| hook.spec.name.clone()).collect()
    }

    /// None: there is nothing to do for these bytes.
    async fn run(&self, hook: &Hook, task: &Task) -> Option<Tried> {
        if self.is_done_with(hook, task) {
            return None;
        }
        Some(match hook.spec.delivery.too_old(task, SystemTime::now()) {
            Some(problem) => Tried::without_run(Outcome::TooOld(problem)),
            None => self.attempt(hook, task).await,
        })
    }

    async fn finish(&self, hook: &Hook, task: Task, tried: Option<Tried>) {
        let settled = match tried {
            Some(tried) => self.settle(hook, task, tried).await,
            None => self.pass_over(hook, &task).await,
        };
        if let Err(error) = settled {
            tracing::error!("hook \"{}\": {error}", hook.spec.name);
            tokio::time::sleep(JOURNAL_PAUSE).await;
        }
    }

    /// Whether the bytes of an event are written over the same ones, and the hook has done all it does
    /// with them.
    fn is_done_with(&self, hook: &Hook, task: &Task) -> bool {
        let Some(now) = seen_of(hook, task).filter(|_| task.event.fact.rewritten) else { return false };
        // What can't be read is not known.
        self.journal.seen(&hook.spec.name, &task.event.fact.key).is_ok_and(|seen| seen == Some(now))
    }

    async fn pass_over(&self, hook: &Hook, task: &Task) -> journal::Result<()> {
        tell_unchanged(hook, task).await;
        self.journal.finish(task, Vec::new()).await
    }

    pub(super) async fn attempt(&self, hook: &Hook, task: &Task) -> Tried {
        let attempt = self.surroundings.attempt(hook, task, Publication::Publish, self.cancel.subscribe());
        AssertUnwindSafe(attempt).catch_unwind().await.unwrap_or_else(|_| {
            Tried::without_run(Outcome::Failed("s3mount panicked over it; please report this".into()))
        })
    }

    async fn settle(&self, hook: &Hook, mut task: Task, mut tried: Tried) -> journal::Result<()> {
        // What it wrote itself is there, also when it failed after that.
        let wrote = std::mem::take(&mut tried.wrote);
        if !wrote.is_empty() && !matches!(tried.outcome, Outcome::Done(_)) {
            self.journal.settle(&[], wrote.clone()).await?;
        }
        let outcome = std::mem::replace(&mut tried.outcome, Outcome::Cancelled);
        match hook.spec.delivery.after(&mut task, outcome) {
            Next::Done(events) => {
                failpoint::reach(Failpoint::HookPublished);
                let calls = self.calls(hook, &task, Condition::Success, &tried, None);
                let seen = seen_of(hook, &task).filter(|_| tried.as_told);
                self.journal.finish_with(&task, [wrote, events].concat(), calls, seen).await
            }
            Next::Superseded => {
                tell_superseded(hook, &task).await;
                self.journal.finish(&task, Vec::new()).await
            }
            Next::Cancelled => {
                self.journal.release(&task);
                Ok(())
            }
            Next::Again { due, problem } => {
                complain(hook, &task.event.fact.key, &problem);
                self.journal.postpone(&task, due).await
            }
            Next::GiveUp { problem, condition } => self.give_up(hook, task, problem, tried, condition).await,
        }
    }

    async fn give_up(
        &self,
        hook: &Hook,
        task: Task,
        reason: String,
        tried: Tried,
        condition: Condition,
    ) -> journal::Result<()> {
        tell_dead(hook, &task, &reason).await;
        let calls = self.calls(hook, &task, condition, &tried, Some(&reason));
        let dead = DeadTask { task, reason, report: tried.digest, time: SystemTime::now() };
        self.journal.bury_and_call(dead, calls).await
    }

    /// Who is to be told that a task has ended so.
    pub(super) fn calls(
        &self,
        hook: &Hook,
        task: &Task,
        condition: Condition,
        tried: &Tried,
        problem: Option<&str>,
    ) -> Vec<NewCall> {
        if hook.spec.on_success.is_none() && hook.spec.on_failure.is_none() {
            return Vec::new();
        }
        // As it was when it was tried last.
        let failures = if problem.is_some() { task.failures.saturating_sub(1) } else { task.failures };
        let payload = self.surroundings.payload(hook, &Task { failures, ..task.clone() });
        destinations::calls(&hook.spec, &self.surroundings.runner.layout, task, &payload, condition, tried, problem)
    }

    /// Starts what may be told to destinations that are no hooks.
    fn start_deliveries(
        self: &Arc<Self>,
        hooks: &[Arc<Hook>],
        runs: &mut JoinSet<()>,
        running: &mut Running,
        ended: &mpsc::UnboundedSender<String>,
        next_due: &mut Option<SystemTime>,
    ) -> journal::Result<()> {
        for destination in destinations::queues(hooks.iter().map(|hook| &hook.spec)) {
            let name = destination.task_name();
            let busy = running.entry(name.clone()).or_default();
            let taken = self.journal.take(&name, DELIVERIES.saturating_sub(*busy), SystemTime::now())?;
            *next_due = [*next_due, taken.next_due].into_iter().flatten().min();
            for task in taken.tasks {
                *busy += 1;
                let (worker, destination) = (Arc::clone(self), Arc::clone(&destination));
                let (name, ended) = (name.clone(), ended.clone());
                runs.spawn(async move {
                    worker.deliver(&destination, task).await;
                    let _ = ended.send(name);
                });
            }
        }
        Ok(())
    }

    async fn deliver(&self, destination: &Destination, mut task: Task) {
        let mut cancel = self.cancel.subscribe();
        let delivered = tokio::select! {
            delivered = self.surroundings.deliver(destination, &task) => delivered,
            _ = cancel.wait_for(|&cancelled| cancelled) => return self.journal.release(&task),
        };
        let settled = match delivered {
            Delivered::Done(events) => self.journal.finish(&task, events).await,
            Delivered::Again(problem) => {
                tracing::warn!("a hook's destination: {}", problem.escape_debug());
                let due = SystemTime::now() + pause_outside(&mut task);
                self.journal.postpone(&task, due).await
            }
            Delivered::Never(reason) => {
                tracing::warn!("a hook's destination, given up: {}", reason.escape_debug());
                self.undelivered.fetch_add(1, Ordering::Relaxed);
                task.failures += 1;
                let report = String::new();
                self.journal.bury(DeadTask { task, reason, report, time: SystemTime::now() }).await
            }
        };
        if let Err(error) = settled {
            tracing::error!("a hook's destination: {error}");
            tokio::time::sleep(JOURNAL_PAUSE).await;
        }
    }
}

/// The names under which tasks are taken: of hooks, and of their destinations that are none.
pub(super) fn task_names(hooks: &[Arc<Hook>]) -> Vec<String> {
    let destinations = destinations::queues(hooks.iter().map(|hook| &hook.spec));
    let others = destinations.iter().map(|destination| destination.task_name());
    hooks.iter().map(|hook| hook.spec.name.clone()).chain(others).collect()
}

/// No hook has such a name.
fn is_destination(task_name: &str) -> bool {
    task_name.contains(':')
}

/// What is remembered of a hook that was done with this; nothing of a removal.
fn seen_of(hook: &Hook, task: &Task) -> Option<Seen> {
    let fact = &task.event.fact;
    let etag = fact.etag.clone().filter(|_| fact.name != EventName::RemovedDelete)?;
    Some(Seen { etag, size: fact.size, by: hook.identity.clone() })
}

/// In counters and log: it has done this already.
pub(super) async fn tell_unchanged(hook: &Hook, task: &Task) {
    hook.counters.unchanged();
    let (id, key) = (&task.event.id, task.event.fact.key.escape_debug());
    append(hook, format!("UNCHANGED RequestId: {id}\tKey: {key}\n")).await;
}

/// In counters and log: its object has changed, or is gone.
pub(super) async fn tell_superseded(hook: &Hook, task: &Task) {
    hook.counters.superseded();
    let (id, key) = (&task.event.id, task.event.fact.key.escape_debug());
    append(hook, format!("SUPERSEDED RequestId: {id}\tKey: {key}\n")).await;
}

/// In counters and logs: it is given up.
pub(super) async fn tell_dead(hook: &Hook, task: &Task, reason: &str) {
    let (id, key) = (&task.event.id, &task.event.fact.key);
    complain(hook, key, reason);
    let line = format!("DEAD RequestId: {id}\tKey: {}\tAttempts: {}\n", key.escape_debug(), task.failures);
    append(hook, line).await;
}

pub(super) fn complain(hook: &Hook, key: &str, problem: &str) {
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
