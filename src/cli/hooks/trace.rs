//! `s3mount hooks trace KEY`, `s3mount hooks wait PATH`

use std::path::PathBuf;

use super::{At, first_line, joined, printable_lines};
use crate::app::control::{HooksRequest, Reply, Request};
use crate::app::{Failure, HookTrace, OpenTask};
use crate::cli::sockets::Socket;
use crate::cli::{pretty, say};
use crate::config::Span;
use crate::error::Kind;
use crate::telemetry::printable;

#[derive(Debug, clap::Args)]
pub(super) struct Trace {
    /// A path in the mount, or a path of this machine; need not exist
    key: String,
    /// For programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, clap::Args)]
pub(super) struct Wait {
    /// A file of a mount, or a directory with all below it
    path: PathBuf,
    /// Give up after this long [default: never]
    #[arg(long, value_name = "TIME")]
    timeout: Option<Span>,
}

impl Trace {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (socket, path) = self.at.place(&self.key)?;
        let request = Request::Hooks { ask: HooksRequest::Trace { path } };
        let trace = socket.ask_for(&request, |reply| match reply {
            Reply::Traced(trace) => Some(*trace),
            _ => None,
        })?;
        if self.json {
            say(&pretty(&trace));
            return Ok(());
        }
        let place = printable(&socket.mountpoint.to_string_lossy());
        let mut lines = vec![format!("{} on {place}", printable(&trace.path))];
        if trace.events_waiting > 0 {
            lines.push(format!("{} event(s) that no hook was asked about yet", trace.events_waiting));
        }
        lines.extend(trace.hooks.iter().flat_map(told));
        say(&joined(&lines));
        Ok(())
    }
}

fn told(hook: &HookTrace) -> Vec<String> {
    let does = if hook.fires { "" } else { "does not fire: " };
    let mut lines = vec![String::new(), format!("{}: {does}{}", printable(&hook.name), printable(&hook.why))];
    for task in &hook.tasks {
        lines.push(format!("  {} of {} ({}): {}", task.event, task.event_time, task.id, state(task)));
    }
    for dead in &hook.dead_letters {
        let (time, tries, reason) = (&dead.time, dead.attempts, first_line(&dead.reason));
        let event = format!("{} of {} ({})", dead.event, dead.event_time, dead.id);
        lines.push(format!("  {event}: given up {time} after {tries} tries: {reason}"));
        lines.push(format!("    s3mount hooks dead-letters redrive {}", dead.id));
    }
    if !hook.last_run.is_empty() {
        lines.push("  last run".into());
        lines.extend(printable_lines(&hook.last_run, "    "));
    } else if hook.fires && hook.tasks.is_empty() && hook.dead_letters.is_empty() {
        lines.push("  its log knows of no run".into());
    }
    lines
}

fn state(task: &OpenTask) -> String {
    let state = match &task.due {
        _ if task.running => "running".to_owned(),
        Some(due) => format!("to be tried again {due}"),
        None => "waiting for its turn".to_owned(),
    };
    match (task.failures, task.delays) {
        (0, 0) => state,
        (failures, delays) => format!("{state}; failed {failures} times, could not be run {delays} times"),
    }
}

impl Wait {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (socket, path) = Socket::holding(&self.path)?;
        let deadline_ms = self.timeout.map(|span| u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX));
        let request = Request::Hooks { ask: HooksRequest::Wait { path, deadline_ms } };
        let dead = socket.ask_for(&request, |reply| match reply {
            Reply::Waited { dead } => Some(dead),
            _ => None,
        })?;
        let Some(first) = dead.first() else { return Ok(()) };
        let (hook, key) = (printable(&first.hook), printable(&first.key));
        let what = format!("{} event(s) were given up, the first by hook \"{hook}\" for {key}", dead.len());
        Err(Failure::new(Kind::HookFailed, format!("{what}: {}", first_line(&first.reason)))
            .hint(format!("`s3mount hooks dead-letters show {}` tells all of it", first.id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_task_in_words() {
        let mut task = OpenTask {
            id: "id".into(),
            event: "ObjectCreated:Put".into(),
            event_time: "t".into(),
            running: false,
            failures: 0,
            delays: 0,
            due: None,
        };
        assert_eq!(state(&task), "waiting for its turn");
        (task.due, task.failures) = (Some("then".into()), 2);
        assert_eq!(state(&task), "to be tried again then; failed 2 times, could not be run 0 times");
        task.running = true;
        assert!(state(&task).starts_with("running; "));
    }
}
