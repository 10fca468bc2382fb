//! How often and for how long a hook is tried for an event before its task goes to the dead letters.

use std::time::{Duration, SystemTime};

use super::destinations::Condition;
use super::invocation::Outcome;
use crate::bucket::retry::{doubled, random_fraction};
use crate::journal::{NewEvent, Task};

/// Pause after the first try of what is delayed from outside, and the longest.
const FIRST_DELAY: Duration = Duration::from_secs(1);
pub(super) const MAX_DELAY: Duration = Duration::from_mins(1);

/// The delivery policy of one hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Tries after the first one, if that fails.
    pub retries: u32,
    /// Pause after the first failure; twice as long after each further one.
    pub first_delay: Duration,
    /// No pause is longer.
    pub longest_delay: Duration,
    /// An event that is older is not tried any more; `None`: none is too old.
    pub max_age: Option<Duration>,
}

/// What follows a try.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Next {
    /// Nothing: it is done, and these are the facts about its output.
    Done(Vec<NewEvent>),
    Superseded,
    /// As if it had not been tried.
    Cancelled,
    /// Another try, not before this moment.
    Again {
        due: SystemTime,
        problem: String,
    },
    GiveUp {
        problem: String,
        condition: Condition,
    },
}

impl Delivery {
    /// What follows a try of a task, in which it is counted.
    pub(super) fn after(&self, task: &mut Task, outcome: Outcome) -> Next {
        match outcome {
            Outcome::Done(facts) => Next::Done(facts),
            Outcome::Superseded => Next::Superseded,
            Outcome::Cancelled => Next::Cancelled,
            Outcome::TooOld(problem) => Next::GiveUp { problem, condition: Condition::EventAgeExceeded },
            Outcome::Fatal(problem) => {
                task.failures += 1;
                Next::GiveUp { problem, condition: Condition::RetriesExhausted }
            }
            Outcome::Failed(problem) => {
                task.failures += 1;
                self.after_failure(task, problem)
            }
            Outcome::Delayed(problem) => Next::Again { due: SystemTime::now() + pause_outside(task), problem },
        }
    }

    /// Another try, unless it was the last one, or the next one would come too late.
    fn after_failure(&self, task: &Task, problem: String) -> Next {
        if task.failures > self.retries {
            return Next::GiveUp { problem, condition: Condition::RetriesExhausted };
        }
        let due = SystemTime::now() + self.pause(task.failures);
        match self.too_old(task, due) {
            None => Next::Again { due, problem },
            Some(late) => {
                let problem = format!("{problem}; at its next try the event would be {late}");
                Next::GiveUp { problem, condition: Condition::EventAgeExceeded }
            }
        }
    }

    /// How long to wait after this many failures: a random part of it, at least half, because what
    /// failed together must not come back together.
    pub(super) fn pause(&self, failures: u32) -> Duration {
        jittered(doubled(self.first_delay, failures.saturating_sub(1)).min(self.longest_delay))
    }

    /// Whether a task is too old to be tried at this moment, in words.
    pub(super) fn too_old(&self, task: &Task, at: SystemTime) -> Option<String> {
        let max_age = self.max_age?;
        // Who redrives a dead letter wants it tried, however old it is.
        let since = task.redriven.unwrap_or(task.event.fact.time);
        let age = at.duration_since(since).unwrap_or_default();
        (age > max_age).then(|| format!("older than max-age allows ({} s)", max_age.as_secs()))
    }
}

/// How long to wait for what was away so often before, about.
pub(super) fn pause_after(delays: u32) -> Duration {
    jittered(doubled(FIRST_DELAY, delays).min(MAX_DELAY))
}

/// How long to wait for what is away, which is counted in the task.
pub(super) fn pause_outside(task: &mut Task) -> Duration {
    let pause = pause_after(task.delays);
    task.delays = task.delays.saturating_add(1);
    pause
}

/// Between half of a pause and all of it.
pub(super) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(f64::midpoint(1.0, random_fraction()))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::journal::{Event, EventName};

    fn delivery() -> Delivery {
        Delivery {
            retries: 2,
            first_delay: Duration::from_secs(1),
            longest_delay: Duration::from_mins(5),
            max_age: Some(Duration::from_hours(1)),
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_differ() {
        for (failures, full_s) in [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (1000, 300), (u32::MAX, 300)] {
            let full = Duration::from_secs(full_s);
            for _ in 0..20 {
                let pause = delivery().pause(failures);
                assert!((full / 2..=full).contains(&pause), "{failures}: {pause:?}");
            }
        }
        let drawn: Vec<_> = (0..20).map(|_| delivery().pause(5)).collect();
        assert!(drawn.iter().any(|pause| *pause != drawn[0]), "no jitter");
    }

    #[test]
    fn age_counts_from_the_event_or_from_its_redrive() {
        let fact = NewEvent {
            name: EventName::CreatedPut,
            key: "a".into(),
            size: 0,
            etag: None,
            time: UNIX_EPOCH,
            lineage: Vec::new(),
            rewritten: false,
            replayed_for: Vec::new(),
        };
        let event = Event { id: "id".into(), sequence: 1, fact };
        let mut task = Task::new("h".into(), 1, None, event);
        let hours = |hours: u64| UNIX_EPOCH + Duration::from_hours(hours);
        assert_eq!(delivery().too_old(&task, hours(1)), None);
        assert!(delivery().too_old(&task, hours(2)).is_some());
        task.redriven = Some(hours(2));
        assert_eq!(delivery().too_old(&task, hours(3)), None);
        let forever = Delivery { max_age: None, ..delivery() };
        assert_eq!(forever.too_old(&task, hours(1_000_000)), None);
    }
}
