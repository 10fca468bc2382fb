//! Why a hook did or did not fire for a path, what the journal knows of it, and when all is done.

use std::path::Path;
use std::time::Duration;

use super::dead_letters::{DeadLetter, Which};
use super::event::timestamp;
use super::worker::task_names;
use super::{Hooks, Result};
use crate::journal::{NewEvent, Task};

/// How lines begin that tell what became of an event after its run.
const SETTLED: [&str; 6] = ["SENT ", "DEAD ", "SUPERSEDED ", "UNCHANGED ", "REFUSED ", "ALLOWED "];
/// Between two looks into the journal of whoever waits.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// All that is known of hooks and a path.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Trace {
    pub path: String,
    pub key: String,
    /// Its events that no hook was asked about yet.
    pub events_waiting: u64,
    pub hooks: Vec<HookTrace>,
}

/// One hook and the path.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HookTrace {
    pub name: String,
    /// Whether it fires for what happens to the path.
    pub fires: bool,
    /// For which events, or why for none.
    pub why: String,
    /// Events that it has to see.
    pub tasks: Vec<OpenTask>,
    pub dead_letters: Vec<DeadLetter>,
    /// What its log says of the last run; empty if the log knows of none.
    pub last_run: String,
}

/// An event that a hook has to see.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OpenTask {
    /// Of the event.
    pub id: String,
    pub event: String,
    pub event_time: String,
    pub running: bool,
    /// How often the hook was tried and failed.
    pub failures: u32,
    /// How often it could not be run for reasons outside of it.
    pub delays: u32,
    /// Not to be tried before.
    pub due: Option<String>,
}

impl Hooks {
    /// What is known of a path in the mount. Reads the journal and the logs: takes a moment.
    ///
    /// # Errors
    /// [`super::Error::Journal`].
    pub fn trace(&self, path: &str) -> Result<Trace> {
        let journal = &self.worker.journal;
        let key = format!("{}{path}", self.worker.surroundings.runner.prefix);
        let events = journal.events(usize::MAX)?.into_iter().filter(|event| event.fact.key == key);
        let mut dead_letters = self.dead_letters(&Which::default())?;
        dead_letters.retain(|dead| dead.key == key);
        let mut hooks = Vec::new();
        for hook in self.worker.hooks().iter() {
            let name = hook.spec.name.clone();
            let (fires, why) = hook.spec.explain(path);
            let tasks = journal.tasks_of(&name, usize::MAX, |event| event.key == key)?;
            let (own, others) = dead_letters.into_iter().partition(|dead| dead.hook == name);
            dead_letters = others;
            let tasks = tasks.into_iter().map(|(task, running)| open_task(task, running)).collect();
            let last_run = last_run(&hook.log, &key);
            hooks.push(HookTrace { name, fires, why, tasks, dead_letters: own, last_run });
        }
        // Of hooks that the settings named once.
        for dead in dead_letters {
            let why = "the settings do not name it any more".to_owned();
            let (name, last_run) = (dead.hook.clone(), String::new());
            hooks.push(HookTrace { name, fires: false, why, tasks: Vec::new(), dead_letters: vec![dead], last_run });
        }
        Ok(Trace { path: path.to_owned(), events_waiting: events.count() as u64, key, hooks })
    }

    /// Waits until every hook has seen what happened to a path in the mount, or below it, and returns
    /// the dead letters there are of it. It can take as long as S3 is away: give it a deadline.
    ///
    /// # Errors
    /// [`super::Error::Journal`], or that hooks are stopped before.
    pub async fn wait(&self, path: &str) -> Result<Vec<DeadLetter>> {
        self.unless_stopping(self.wait_until_done(path)).await
    }

    async fn wait_until_done(&self, path: &str) -> Result<Vec<DeadLetter>> {
        let key = format!("{}{path}", self.worker.surroundings.runner.prefix);
        let mut rounds = self.worker.rounds.subscribe();
        loop {
            rounds.mark_unchanged();
            if !self.is_busy_with(&key)? {
                let mut dead = self.dead_letters(&Which::default())?;
                dead.retain(|dead| is_at_or_below(&dead.key, &key));
                return Ok(dead);
            }
            // The worker lives as long as we do.
            let _ = rounds.changed().await;
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn is_busy_with(&self, key: &str) -> Result<bool> {
        let journal = &self.worker.journal;
        let concerned = |event: &NewEvent| is_at_or_below(&event.key, key);
        if journal.events(usize::MAX)?.iter().any(|event| concerned(&event.fact)) {
            return Ok(true);
        }
        for name in task_names(&self.worker.hooks()) {
            if !journal.tasks_of(&name, 1, concerned)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether a key is a directory's, or below it. The directory is named with or without its `/`;
/// everything is below nothing.
#[must_use]
pub fn is_at_or_below(key: &str, directory: &str) -> bool {
    let Some(rest) = key.strip_prefix(directory) else { return false };
    rest.is_empty() || rest.starts_with('/') || directory.is_empty() || directory.ends_with('/')
}

fn open_task(task: Task, running: bool) -> OpenTask {
    OpenTask {
        id: task.event.id,
        event: task.event.fact.name.s3_name().to_owned(),
        event_time: timestamp(task.event.fact.time),
        running,
        failures: task.failures,
        delays: task.delays,
        due: task.not_before.map(timestamp),
    }
}

/// The lines of a log about the last run for a key, and what became of it.
fn last_run(log: &Path, key: &str) -> String {
    let before = log.with_extension("log.1");
    let found = [log, &before].into_iter().map(|log| std::fs::read(log).unwrap_or_default());
    found.map(|bytes| last_in(&String::from_utf8_lossy(&bytes), key)).find(|run| !run.is_empty()).unwrap_or_default()
}

fn last_in(log: &str, key: &str) -> String {
    let key = format!("\tKey: {}", key.escape_debug());
    let mut last: Vec<&str> = Vec::new();
    let mut inside = false;
    for line in log.lines() {
        if line.starts_with("START RequestId: ") {
            inside = line.ends_with(&key);
            if inside {
                last.clear();
            }
        }
        let settled = SETTLED.iter().find_map(|word| line.strip_prefix(word));
        if inside || settled.is_some_and(|rest| rest.split_once(&key).is_some_and(|(_, end)| is_end(end))) {
            last.push(line);
        }
        inside &= !line.starts_with("REPORT RequestId: ");
    }
    last.join("\n")
}

/// What may follow a key in its line.
fn is_end(text: &str) -> bool {
    text.is_empty() || text.starts_with('\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_run_for_a_key_is_found_in_the_log() {
        let run = |id: u32, key: &str, words: &str| {
            format!(
                "START RequestId: {id} Version: $LATEST\tTime: t\tKey: {key}\n{words}\nEND RequestId: {id}\nREPORT RequestId: {id}\tx\n"
            )
        };
        let log = [
            run(1, "a", "one"),
            run(2, "b", "two"),
            run(3, "a", "three"),
            run(4, "aa", "four"),
            "DEAD RequestId: 4\tKey: aa\tAttempts: 1\nDEAD RequestId: 3\tKey: a\tAttempts: 3\n".to_owned(),
        ]
        .concat();
        let of_a = format!("{}DEAD RequestId: 3\tKey: a\tAttempts: 3", run(3, "a", "three"));
        assert_eq!(last_in(&log, "a"), of_a);
        assert!(last_in(&log, "b").contains("two"));
        assert_eq!(last_in(&log, "c"), "");
        assert!(last_in(&run(1, "a\\nb", "odd"), "a\nb").contains("odd"));
    }

    #[test]
    fn what_lies_below_a_directory() {
        for (key, directory, is) in
            [("a/b", "a", true), ("a/b", "a/", true), ("a/b", "a/b", true), ("ab", "a", false), ("x", "", true)]
        {
            assert_eq!(is_at_or_below(key, directory), is, "{key} {directory}");
        }
    }
}
