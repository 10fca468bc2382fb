//! One message until it is settled.

use std::convert::Infallible;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use super::Consumer;
use super::known::{self, Mark};
use crate::bucket::retry::doubled;
use crate::error::Kind;
use crate::hooks::delivery::{Next, pause_after, pause_outside};
use crate::hooks::destinations::{Condition, Delivered, Destination};
use crate::hooks::invocation::{Hook, Outcome, Tried, by_bucket};
use crate::hooks::lineage;
use crate::hooks::notification::{self, Notified, Told};
use crate::hooks::worker::{Phase, complain, tell_dead, tell_superseded, tell_unchanged};
use crate::journal::{Event, EventName, NewEvent, Task, stored_etag};
use crate::relay::{self, Message};

/// Tries to delete a message; after them it comes back, and is known.
const DELETE_TRIES: u32 = 4;
const DELETE_PAUSE: Duration = Duration::from_millis(500);
/// A message that hooks failed for comes back after this, doubled with each time, at most after the other.
const FIRST_RETURN: Duration = Duration::from_secs(1);
const LONGEST_RETURN: Duration = Duration::from_mins(15);

/// What is to become of a message. Of several the last in this order counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// Nobody has anything left to do.
    Settled,
    /// Somebody failed: the queue decides how often it comes back.
    Failed,
    /// Hooks are being stopped, and others shall have it at once.
    Left,
}

/// How a task was tried.
enum Turn {
    Tried(Box<Tried>),
    /// It was done before.
    Known,
    /// Hooks are being stopped.
    Stopping,
}

/// The place of a message among those that are worked on, until it only waits for a next try.
struct Place(Mutex<Option<OwnedSemaphorePermit>>);

impl Consumer {
    /// Keeps a message hidden until hooks have settled what it says, and then deletes it or puts it back.
    pub(super) async fn handle(self: Arc<Self>, message: Message, place: OwnedSemaphorePermit) {
        let place = Place(Mutex::new(Some(place)));
        let fate = tokio::select! {
            fate = self.settle(&message, &place) => fate,
            never = self.keep_hidden(&message) => match never {},
        };
        match fate {
            Fate::Settled => self.delete(&message).await,
            Fate::Failed => self.put_back(&message, pause_of(&message)).await,
            Fate::Left => self.put_back(&message, Duration::ZERO).await,
        }
    }

    async fn keep_hidden(&self, message: &Message) -> Infallible {
        loop {
            tokio::time::sleep(self.hidden / 3).await;
            let hiding = self.worker.surroundings.relay.hide(&self.queue, message, self.hidden);
            // An answer that does not come must not keep the next one from being asked for.
            let problem = match tokio::time::timeout(self.hidden / 3, hiding).await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            tracing::warn!("message {}, which another worker may be given now: {problem}", message.message_id);
        }
    }

    async fn delete(&self, message: &Message) {
        for tried in 0..DELETE_TRIES {
            match self.worker.surroundings.relay.delete(&self.queue, message).await {
                Ok(()) => {
                    self.tally.deleted.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Err(relay::Error::Away(_)) if tried + 1 < DELETE_TRIES => tokio::time::sleep(DELETE_PAUSE).await,
                Err(error) => {
                    return tracing::warn!("message {} is done, and will come back: {error}", message.message_id);
                }
            }
        }
    }

    async fn put_back(&self, message: &Message, hidden: Duration) {
        self.tally.returned.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.worker.surroundings.relay.hide(&self.queue, message, hidden).await {
            tracing::warn!("message {} comes back when its time is over: {error}", message.message_id);
        }
    }

    async fn settle(&self, message: &Message, place: &Place) -> Fate {
        match notification::read(&message.body) {
            Ok(Told::Test) => Fate::Settled,
            Ok(Told::Records(records)) => {
                let fates = join_all(records.iter().map(|told| self.settle_record(told, place))).await;
                fates.into_iter().max().unwrap_or(Fate::Settled)
            }
            Err(problem) => {
                tracing::warn!("message {} is left to the queue: {problem}", message.message_id);
                Fate::Failed
            }
        }
    }

    /// Until every hook that wants it has settled what happened to one object.
    async fn settle_record(&self, told: &Notified, place: &Place) -> Fate {
        let Some(key) = self.worker.surroundings.runner.layout.here(&told.bucket, &told.key) else {
            let (bucket, key) = (told.bucket.escape_debug(), told.key.escape_debug());
            tracing::warn!("{key} is left to the queue: it is of the bucket {bucket}");
            return Fate::Failed;
        };
        let Some(name) = told.name else { return Fate::Settled };
        let fact = NewEvent {
            size: told.size.unwrap_or_default(),
            etag: told.etag.clone().filter(|_| name != EventName::RemovedDelete),
            time: told.time,
            lineage: told.lineage.clone().unwrap_or_default(),
            ..NewEvent::now(name, &key)
        };
        let mut event = Event { id: told.id.clone(), sequence: 0, fact };
        if self.worker.matching(&event).is_empty() {
            return Fate::Settled;
        }
        if self.has_to_look(told, &key)
            && let Err(fate) = self.look(&mut event.fact, told, place).await
        {
            return fate;
        }
        let hooks = self.worker.hooks();
        let wanting = self.worker.matching(&event);
        let wanting = hooks.iter().filter(|hook| wanting.contains(&hook.spec.name));
        let tasks = wanting.map(|hook| {
            let mut task = Task::new(hook.spec.name.clone(), 0, None, event.clone());
            task.record = told.lineage.is_none().then(|| told.record.clone());
            let mark = known::mark(&[&hook.spec.name, &hook.identity, &key, &told.version]);
            self.settle_task(hook, task, Some(mark), place)
        });
        join_all(tasks).await.into_iter().max().unwrap_or(Fate::Settled)
    }

    /// Whether a message leaves out what hooks have to be told, or the object may be a hook's output.
    fn has_to_look(&self, told: &Notified, key: &str) -> bool {
        let path = key.strip_prefix(&self.worker.surroundings.runner.prefix).unwrap_or_default();
        let may_be_output = || {
            let hooks = self.worker.hooks();
            let mut directories = hooks.iter().flat_map(|hook| hook.spec.output_directories());
            directories.any(|directory| path.starts_with(directory))
        };
        let is_there = told.name != Some(EventName::RemovedDelete);
        is_there && (told.size.is_none() || told.etag.is_none() || told.lineage.is_none() && may_be_output())
    }

    async fn look(&self, fact: &mut NewEvent, told: &Notified, place: &Place) -> Result<(), Fate> {
        for delays in 0.. {
            let problem = match self.worker.surroundings.bucket.head(&fact.key).await {
                Ok(found) => {
                    if told.size.is_none() || told.etag.is_none() {
                        (fact.size, fact.etag) = (found.size, Some(stored_etag(&found.etag)));
                    }
                    if told.lineage.is_none() {
                        fact.lineage = lineage::of(&found.metadata);
                    }
                    return Ok(());
                }
                // Whoever runs for it finds that out.
                Err(error) if error.kind == Kind::NotFound => return Ok(()),
                Err(error) => by_bucket(&error),
            };
            let Outcome::Delayed(problem) = problem else {
                tracing::warn!("{} is left to the queue: {problem:?}", fact.key.escape_debug());
                return Err(Fate::Failed);
            };
            tracing::warn!("{}: {}", fact.key.escape_debug(), problem.escape_debug());
            self.pause(pause_after(delays), place).await?;
        }
        Ok(())
    }

    /// Until a hook is done with a task, or has given it up, and whoever is to be told of that has heard.
    async fn settle_task(&self, hook: &Arc<Hook>, mut task: Task, mark: Option<Mark>, place: &Place) -> Fate {
        loop {
            let mut tried = match self.turn(hook, &task, mark.as_ref()).await {
                Turn::Tried(tried) => tried,
                Turn::Stopping => return Fate::Left,
                Turn::Known => {
                    tell_unchanged(hook, &task).await;
                    return Fate::Settled;
                }
            };
            let outcome = std::mem::replace(&mut tried.outcome, Outcome::Cancelled);
            match hook.spec.delivery.after(&mut task, outcome) {
                // S3 tells of what it wrote, where it is to be told.
                Next::Done(_) => {
                    let fate = self.tell(hook, &task, Condition::Success, &tried, None, place).await;
                    if let (Fate::Settled, Some(mark)) = (fate, mark) {
                        self.known.add(mark);
                    }
                    return fate;
                }
                Next::Superseded => {
                    tell_superseded(hook, &task).await;
                    return Fate::Settled;
                }
                Next::Cancelled => return Fate::Left,
                Next::Again { due, problem } => {
                    complain(hook, &task.event.fact.key, &problem);
                    let pause = due.duration_since(SystemTime::now()).unwrap_or_default();
                    if let Err(fate) = self.pause(pause, place).await {
                        return fate;
                    }
                }
                Next::GiveUp { problem, condition } => {
                    tell_dead(hook, &task, &problem).await;
                    // Who is to be told of failures has it now; else the queue's own dead letters are the place.
                    if hook.spec.on_failure.is_none() {
                        return Fate::Failed;
                    }
                    return self.tell(hook, &task, condition, &tried, Some(&problem), place).await;
                }
            }
        }
    }

    /// Tries a task once, when it is its turn.
    async fn turn(&self, hook: &Arc<Hook>, task: &Task, mark: Option<&Mark>) -> Turn {
        let mut phase = self.worker.phase.clone();
        let key = (&hook.spec.name, &task.event.fact.key);
        let number = BuildHasherDefault::<DefaultHasher>::default().hash_one(key) as usize % self.turns.len();
        let turn = async {
            // Calls have no order among them.
            let turn = if mark.is_some() { Some(self.turns[number].lock().await) } else { None };
            if mark.is_some_and(|mark| self.known.contains(mark)) {
                return None;
            }
            Some((turn, hook.places.acquire().await, self.guests.acquire().await))
        };
        let taken = tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase != Phase::Work) => return Turn::Stopping,
            taken = turn => taken,
        };
        let Some(_taken) = taken else { return Turn::Known };
        let tried = match hook.spec.delivery.too_old(task, SystemTime::now()) {
            Some(problem) => Tried::without_run(Outcome::TooOld(problem)),
            None => self.worker.attempt(hook, task).await,
        };
        // Before a copy of the message has its turn; who has to tell somebody first is not done yet.
        if let (Some(mark), Outcome::Done(_), None) = (mark, &tried.outcome, &hook.spec.on_success) {
            self.known.add(*mark);
        }
        Turn::Tried(Box::new(tried))
    }

    /// Tells whoever is to be told how a task has ended.
    async fn tell(
        &self,
        hook: &Hook,
        task: &Task,
        condition: Condition,
        tried: &Tried,
        problem: Option<&str>,
        place: &Place,
    ) -> Fate {
        let Some(destination) = hook.spec.told_of(condition) else { return Fate::Settled };
        // None, where too many hooks had a hand in it.
        let Some(call) = self.worker.calls(hook, task, condition, tried, problem).pop() else { return Fate::Settled };
        let task = call.into_task(0);
        let Destination::Hook(name) = destination else { return self.deliver(destination, task, place).await };
        match self.worker.hooks().iter().find(|hook| hook.spec.name == *name) {
            Some(called) => Box::pin(self.settle_task(called, task, None, place)).await,
            None => Fate::Failed,
        }
    }

    async fn deliver(&self, destination: &Destination, mut task: Task, place: &Place) -> Fate {
        loop {
            match self.worker.surroundings.deliver(destination, &task).await {
                Delivered::Done(_) => return Fate::Settled,
                Delivered::Never(reason) => {
                    tracing::warn!("a hook's destination: {}", reason.escape_debug());
                    self.worker.undelivered.fetch_add(1, Ordering::Relaxed);
                    return Fate::Failed;
                }
                Delivered::Again(problem) => {
                    tracing::warn!("a hook's destination: {}", problem.escape_debug());
                    if let Err(fate) = self.pause(pause_outside(&mut task), place).await {
                        return fate;
                    }
                }
            }
        }
    }

    /// Waits for a next try, in nobody's way.
    async fn pause(&self, pause: Duration, place: &Place) -> Result<(), Fate> {
        drop(place.0.lock().take());
        let mut phase = self.worker.phase.clone();
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            _ = phase.wait_for(|phase| *phase != Phase::Work) => Err(Fate::Left),
        }
    }
}

/// How long a message that hooks failed for stays away.
fn pause_of(message: &Message) -> Duration {
    let received = message.attributes.get("ApproximateReceiveCount").and_then(|count| count.parse().ok());
    doubled(FIRST_RETURN, received.unwrap_or(1_u32).saturating_sub(1)).min(LONGEST_RETURN)
}
