//! Dead letters: the tasks that were given up, for people to look at, to deliver again, to drop.

use std::time::SystemTime;

use super::event::timestamp;
use super::worker::task_names;
use super::{Hooks, Result};
use crate::journal::DeadTask;

/// A task that was given up. Hook and event id together name it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeadLetter {
    /// Of the event: the request id of the hook's log.
    pub id: String,
    pub hook: String,
    pub key: String,
    /// `ObjectCreated:Put` and so on; `Invoke` of a call.
    pub event: String,
    /// What the hook was called with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// When it happened; ISO 8601, UTC.
    pub event_time: String,
    pub size: u64,
    pub etag: Option<String>,
    pub sequencer: String,
    /// When it was given up.
    pub time: String,
    /// How often the hook was tried.
    pub attempts: u32,
    pub reason: String,
    /// The log of the last try, with the last lines of the hook's own.
    pub report: String,
    /// The command that runs the hook once more.
    pub again: String,
}

/// Which dead letters; all, unless something is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Which {
    /// Those of this event.
    pub id: Option<String>,
    /// Those of this hook.
    pub hook: Option<String>,
}

impl Which {
    fn means(&self, dead: &DeadTask) -> bool {
        self.id.as_ref().is_none_or(|id| *id == dead.task.event.id)
            && self.hook.as_ref().is_none_or(|hook| *hook == dead.task.hook)
    }
}

/// What became of dead letters that were to be delivered again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redriven {
    pub count: u64,
    /// Hooks that the settings do not name: their dead letters stay.
    pub unknown_hooks: Vec<String>,
}

impl Hooks {
    /// Those that are meant, oldest event first. Reads the journal.
    ///
    /// # Errors
    /// [`super::Error::Journal`].
    pub fn dead_letters(&self, which: &Which) -> Result<Vec<DeadLetter>> {
        Ok(self.meant(which)?.into_iter().map(|dead| self.letter(dead)).collect())
    }

    /// Puts those that are meant back at their places, as if never tried, in one transaction; the
    /// worker takes them at once.
    ///
    /// # Errors
    /// [`super::Error::Journal`]; nothing has changed then.
    pub async fn redrive(&self, which: &Which) -> Result<Redriven> {
        let names = task_names(&self.worker.hooks());
        let known = |dead: &DeadTask| names.contains(&dead.task.hook);
        let (tasks, others): (Vec<_>, Vec<_>) = self.meant(which)?.into_iter().partition(known);
        let numbers: Vec<u64> = tasks.iter().map(|dead| dead.task.number).collect();
        let count = numbers.len() as u64;
        self.worker.journal.redrive(numbers, SystemTime::now()).await?;
        let mut unknown_hooks: Vec<String> = others.into_iter().map(|dead| dead.task.hook).collect();
        unknown_hooks.sort();
        unknown_hooks.dedup();
        Ok(Redriven { count, unknown_hooks })
    }

    /// Forgets those that are meant, and says how many there were.
    ///
    /// # Errors
    /// [`super::Error::Journal`]; nothing has changed then.
    pub async fn drop_dead_letters(&self, which: &Which) -> Result<u64> {
        let numbers: Vec<u64> = self.meant(which)?.iter().map(|dead| dead.task.number).collect();
        let count = numbers.len() as u64;
        self.worker.journal.forget_dead(numbers).await?;
        Ok(count)
    }

    fn meant(&self, which: &Which) -> Result<Vec<DeadTask>> {
        let mut dead = self.worker.journal.dead()?;
        dead.retain(|dead| which.means(dead));
        Ok(dead)
    }

    pub(super) fn letter(&self, dead: DeadTask) -> DeadLetter {
        let redrive = || format!("s3mount hooks dead-letters redrive {}", dead.task.event.id);
        let again = self.worker.surroundings.runner.command_again(&dead.task).unwrap_or_else(redrive);
        let sequencer = dead.task.event.sequencer();
        let event = dead.task.event;
        DeadLetter {
            id: event.id,
            hook: dead.task.hook,
            key: event.fact.key,
            event: if dead.task.payload.is_some() { "Invoke".into() } else { event.fact.name.s3_name().to_owned() },
            payload: dead.task.payload,
            event_time: timestamp(event.fact.time),
            size: event.fact.size,
            etag: event.fact.etag,
            sequencer,
            time: timestamp(dead.time),
            attempts: dead.task.failures,
            reason: dead.reason,
            report: dead.report,
            again,
        }
    }
}
