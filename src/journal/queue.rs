//! The side of the hooks: events become tasks, tasks are taken, finished, postponed or given up.
//!
//! A lease lives in memory only: one process has the journal open, so after a crash no lease can be
//! anybody's, and every task that was not finished is ready again (at least once).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::store::Change;
use super::{DeadTask, Event, EventName, Journal, NewCall, NewEvent, Result, Seen, Task};

/// How far `take` looks into a hook's queue past tasks that can't run yet. It bounds the cost of one
/// call; behind that many blocked tasks, others wait.
const LOOK_AHEAD: usize = 1000;

/// Tasks being run, by hook and number, and the key that each keeps busy. Calls have no order among them.
#[derive(Debug, Default)]
pub(super) struct Leases(Mutex<HashMap<(String, u64), Option<String>>>);

impl Leases {
    /// Whether a hook is being run for a key.
    pub(super) fn is_running(&self, hook: &str, key: &str) -> bool {
        let leases = self.0.lock();
        leases.iter().any(|((name, _), busy)| name == hook && busy.as_deref() == Some(key))
    }
}

/// What a hook may run now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub tasks: Vec<Task>,
    /// When the next postponed task is due, if one waits for its time.
    pub next_due: Option<SystemTime>,
}

/// How much a hook has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Tasks not done yet, those being run among them.
    pub open: u64,
    /// Tasks being run.
    pub leased: u64,
    /// Tasks given up.
    pub dead: u64,
}

impl Journal {
    /// The oldest `limit` events that were not fanned out yet, in sequence order.
    ///
    /// # Errors
    /// [`super::Error`] when the file can't be read or a record can't be decoded.
    pub fn events(&self, limit: usize) -> Result<Vec<Event>> {
        self.store()?.events(limit)
    }

    /// Turns events into one task for each hook named with it and removes them, in one transaction.
    ///
    /// # Errors
    /// [`super::Error`] when nothing of it could be stored.
    pub async fn fan_out(&self, events: Vec<(Event, Vec<String>)>) -> Result<()> {
        self.change(Change::FanOut(events)).await
    }

    /// Leases up to `limit` tasks of a hook that may run at `now`: oldest first, and of one key only
    /// the oldest, so that a key's events arrive in order.
    ///
    /// # Errors
    /// [`super::Error`] when the file can't be read or a record can't be decoded.
    pub fn take(&self, hook: &str, limit: usize, now: SystemTime) -> Result<Taken> {
        let mut leases = self.leases.0.lock();
        let of_hook = leases.iter().filter(|((name, _), _)| name == hook);
        let (numbers, keys): (HashSet<u64>, Vec<_>) = of_hook.map(|((_, number), key)| (*number, key.clone())).unzip();
        let mut busy_keys: HashSet<String> = keys.into_iter().flatten().collect();
        let mut taken = Taken::default();
        // Decoding is what it costs: only what is not being run, and no further than it takes.
        self.store()?.visit_tasks(
            hook,
            LOOK_AHEAD,
            |number| !numbers.contains(&number),
            |task| {
                if busy_key(&task).is_some_and(|key| !busy_keys.insert(key)) {
                    return ControlFlow::Continue(());
                }
                match task.not_before {
                    Some(due) if due > now => taken.next_due = Some(taken.next_due.map_or(due, |next| next.min(due))),
                    _ => taken.tasks.push(task),
                }
                if taken.tasks.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            },
        )?;
        leases.extend(taken.tasks.iter().map(|task| (lease(task), busy_key(task))));
        Ok(taken)
    }

    /// Ends a task; what its output did to the bucket becomes events in the same transaction.
    ///
    /// # Errors
    /// [`super::Error`] when it could not be stored; the task is ready again.
    pub async fn finish(&self, task: &Task, events: Vec<NewEvent>) -> Result<()> {
        self.finish_with(task, events, Vec::new(), None).await
    }

    /// The same, with calls that follow from it, and remembers which version the hook was done with, all
    /// in one transaction.
    ///
    /// # Errors
    /// As there.
    pub async fn finish_with(
        &self,
        task: &Task,
        events: Vec<NewEvent>,
        calls: Vec<NewCall>,
        seen: Option<Seen>,
    ) -> Result<()> {
        let seen = seen.map(|seen| (task.event.fact.key.clone(), seen));
        let change = Change::Finish { hook: task.hook.clone(), number: task.number, events, calls, seen };
        self.change_and_release(change, task).await
    }

    /// The version of a key that a hook was done with last, if that is remembered.
    ///
    /// # Errors
    /// [`super::Error`] when the file can't be read or the record can't be decoded.
    pub fn seen(&self, hook: &str, key: &str) -> Result<Option<Seen>> {
        self.store()?.seen(hook, key)
    }

    /// Puts a task back as it is given, with its counts of failures, to be tried from `not_before` on.
    ///
    /// # Errors
    /// [`super::Error`] when it could not be stored; the task is ready at once.
    pub async fn postpone(&self, task: &Task, not_before: SystemTime) -> Result<()> {
        let again = Task { not_before: Some(not_before), ..task.clone() };
        self.change_and_release(Change::Postpone(again), task).await
    }

    /// Gives a task up and keeps it among the dead with the reason.
    ///
    /// # Errors
    /// [`super::Error`] when it could not be stored; the task is ready again.
    pub async fn bury(&self, dead: DeadTask) -> Result<()> {
        self.bury_and_call(dead, Vec::new()).await
    }

    /// The same, with calls that follow from it.
    ///
    /// # Errors
    /// As there.
    pub async fn bury_and_call(&self, dead: DeadTask, calls: Vec<NewCall>) -> Result<()> {
        let task = dead.task.clone();
        self.change_and_release(Change::Bury(dead, calls), &task).await
    }

    /// Puts dead tasks back at their places as if they had never been tried, all in one transaction.
    /// Numbers that are not among the dead are passed over.
    ///
    /// # Errors
    /// [`super::Error`] when nothing of it could be stored.
    pub async fn redrive(&self, numbers: Vec<u64>, now: SystemTime) -> Result<()> {
        self.change(Change::Redrive { numbers, now }).await
    }

    /// Forgets dead tasks, in one transaction. Numbers that are not among the dead are passed over.
    ///
    /// # Errors
    /// [`super::Error`] when nothing of it could be stored.
    pub async fn forget_dead(&self, numbers: Vec<u64>) -> Result<()> {
        self.change(Change::ForgetDead { numbers }).await
    }

    /// Gives a lease back without having tried.
    pub fn release(&self, task: &Task) {
        self.leases.0.lock().remove(&lease(task));
    }

    /// How much a hook has to do.
    ///
    /// # Errors
    /// [`super::Error`] when the file can't be read or a record can't be decoded.
    pub fn counts(&self, hook: &str) -> Result<Counts> {
        Ok(self.all_counts()?.remove(hook).unwrap_or_default())
    }

    /// How much each hook has to do that has anything to do. Reads the keys of all tasks.
    ///
    /// # Errors
    /// [`super::Error`] when the file can't be read or a record can't be decoded.
    pub fn all_counts(&self) -> Result<BTreeMap<String, Counts>> {
        let store = self.store()?;
        let mut counts: BTreeMap<String, Counts> = BTreeMap::new();
        store.count_tasks(|hook| count_for(&mut counts, hook).open += 1)?;
        store.count_dead(|hook| count_for(&mut counts, hook).dead += 1)?;
        for (hook, _) in self.leases.0.lock().keys() {
            count_for(&mut counts, hook).leased += 1;
        }
        Ok(counts)
    }

    /// How many events were not fanned out yet.
    ///
    /// # Errors
    /// [`super::Error`] when the file can't be read.
    pub fn events_waiting(&self) -> Result<u64> {
        self.store()?.events_waiting()
    }

    /// Whether its hook will see a newer version of the same key after this task. Looks at the next
    /// thousand tasks of the hook.
    ///
    /// # Errors
    /// [`super::Error`] when the file can't be read or a record can't be decoded.
    pub fn is_overtaken(&self, task: &Task) -> Result<bool> {
        let newer = self.store()?.tasks_after(&task.hook, task.number, LOOK_AHEAD)?;
        Ok(newer
            .iter()
            .map(|other| &other.event.fact)
            .any(|fact| fact.key == task.event.fact.key && fact.name != EventName::RemovedDelete))
    }

    /// Whether no event waits to be fanned out, and none of these hooks has a task that is not done: at
    /// one moment, for the end of a task may be an event, and an event becomes a task.
    ///
    /// # Errors
    /// [`super::Error`] when the file can't be read.
    pub fn is_at_rest(&self, hooks: &[String]) -> Result<bool> {
        self.store()?.is_at_rest(hooks)
    }

    /// Whether a hook has a task that is not done.
    ///
    /// # Errors
    /// [`super::Error`] when the file can't be read or a record can't be decoded.
    pub fn has_tasks(&self, hook: &str) -> Result<bool> {
        self.store()?.has_tasks(hook)
    }

    /// Up to `limit` open tasks of a hook whose events are wanted, oldest first, and whether they are
    /// being run. Reads all of the hook's until it has as many.
    ///
    /// # Errors
    /// [`super::Error`] when the file can't be read or a record can't be decoded.
    pub fn tasks_of(&self, hook: &str, limit: usize, wanted: impl Fn(&NewEvent) -> bool) -> Result<Vec<(Task, bool)>> {
        let tasks = self.store()?.tasks_where(hook, limit, |task| wanted(&task.event.fact))?;
        let leases = self.leases.0.lock();
        let with_lease = |task: Task| {
            let is_running = leases.contains_key(&lease(&task));
            (task, is_running)
        };
        Ok(tasks.into_iter().map(with_lease).collect())
    }

    /// Every hook that has a task, in the order of names; also hooks that nobody knows any more.
    ///
    /// # Errors
    /// [`super::Error`] when the file can't be read.
    pub fn hooks_with_tasks(&self) -> Result<Vec<String>> {
        self.store()?.hooks()
    }

    /// The tasks that were given up, oldest first; of very many only the latest.
    ///
    /// # Errors
    /// [`super::Error`] when the file can't be read or a record can't be decoded.
    pub fn dead(&self) -> Result<Vec<DeadTask>> {
        self.store()?.dead()
    }

    async fn change_and_release(&self, change: Change, task: &Task) -> Result<()> {
        let outcome = self.change(change).await;
        self.release(task);
        outcome
    }
}

/// The key whose later tasks wait for this one, so that its events arrive in order.
fn busy_key(task: &Task) -> Option<String> {
    task.payload.is_none().then(|| task.event.fact.key.clone())
}

fn count_for<'a>(counts: &'a mut BTreeMap<String, Counts>, hook: &str) -> &'a mut Counts {
    if !counts.contains_key(hook) {
        counts.insert(hook.to_owned(), Counts::default());
    }
    counts.get_mut(hook).expect("it was just put there")
}

fn lease(task: &Task) -> (String, u64) {
    (task.hook.clone(), task.number)
}
