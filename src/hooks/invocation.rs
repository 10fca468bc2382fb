//! One task: fetch its object, run its hook, publish what it left.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use super::event::{self, Place, Source};
use super::input;
use super::publish;
use super::report::{self, Report};
use super::sandbox::{Call, Ended, Program, Quota, Run, Sandbox};
use super::status::Counters;
use super::workspace::Workspace;
use super::{HookSpec, OnPublished};
use crate::bucket::{self, Bucket};
use crate::error::Kind;
use crate::failpoint::{self, Failpoint};
use crate::journal::{EventName, Journal, NewEvent, Task, stored_etag};
use crate::key;

/// Exit codes after `sysexits.h`: what a hook says about trying again.
const EXIT_FATAL: i32 = 65;

/// A hook with all that its runs need.
pub(super) struct Hook {
    pub(super) spec: HookSpec,
    pub(super) program: Program,
    pub(super) counters: Counters,
    pub(super) log: PathBuf,
}

/// What all runs share.
pub(super) struct Surroundings {
    pub(super) sandbox: Arc<Sandbox>,
    pub(super) bucket: Arc<dyn Bucket>,
    pub(super) journal: Arc<Journal>,
    pub(super) source: Source,
    /// Key prefix of the mount, empty or ending in `/`.
    pub(super) prefix: String,
    /// Where runs have their directories.
    pub(super) work: PathBuf,
    pub(super) on_published: OnPublished,
}

/// What became of a task.
#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    /// Its output is published, and these are the facts about it.
    Done(Vec<NewEvent>),
    /// The object has changed; the hook sees the newer event instead.
    Superseded,
    /// The hook failed; another try may help.
    Failed(String),
    /// Another try would fail the same way.
    Fatal(String),
    /// Not the hook's fault: S3 can't be reached, the disk is full and so on.
    Delayed(String),
    Cancelled,
}

impl Surroundings {
    /// Tries a task once, and writes the hook's log about it.
    pub(super) async fn attempt(&self, hook: &Hook, task: &Task, mut cancel: watch::Receiver<bool>) -> Outcome {
        let runs_cancel = cancel.clone();
        tokio::select! {
            biased;
            outcome = self.run(hook, task, runs_cancel) => outcome,
            // The sandbox ends by itself, and its report is wanted; this is for the transfers around it.
            () = cancelled_for_long(&mut cancel) => Outcome::Cancelled,
        }
    }

    async fn run(&self, hook: &Hook, task: &Task, cancel: watch::Receiver<bool>) -> Outcome {
        let event = &task.event.fact;
        let Some(path) = event.key.strip_prefix(&self.prefix) else {
            return Outcome::Fatal("its key is outside of the mount".into());
        };
        if let Some(oddity) = path.split('/').find_map(key::oddity) {
            return Outcome::Fatal(format!("its key has no path ({oddity:?})"));
        }
        let base = hook.spec.base(path);
        let workspace = match Workspace::new(&self.work) {
            Ok(workspace) => workspace,
            Err(error) => return Outcome::Delayed(format!("no directory to run in: {error}")),
        };
        let has_input = event.name != EventName::RemovedDelete;
        let task = match self.fetch(hook, task, &workspace.input().join(path)).await {
            Ok(task) => task,
            Err(outcome) => return outcome,
        };
        let input = has_input.then(|| format!("/in/{path}"));
        let place = Place { path, name: &path[base.len()..], input };
        let began = SystemTime::now();
        let call = self.call(&hook.spec, &task, &place, &workspace);
        let run = self.sandbox.run(&hook.program, call, cancel).await;
        hook.counters.ran(run.duration, hook.spec.memory_bytes, run.memory_peak_bytes);
        let outcome = match verdict(&hook.spec, &run) {
            Ok(()) => self.publish(hook, event, base, &workspace.output()).await,
            Err(outcome) => outcome,
        };
        write_report(hook, &task, &run, began, &outcome).await;
        outcome
    }

    /// Fetches the object of a task, and returns the task as the hook shall see it.
    ///
    /// Where another version is there by now and a newer event of it follows, that one is enough.
    /// Where none follows, the change was none that hooks are told of: `chmod` and `touch` of a
    /// large file give it another tag. Then the hook sees what is there.
    async fn fetch(&self, hook: &Hook, task: &Task, path: &Path) -> Result<Task, Outcome> {
        let fact = &task.event.fact;
        if fact.name == EventName::RemovedDelete {
            return Ok(task.clone());
        }
        let (bucket, limit) = (self.bucket.as_ref(), hook.spec.max_input_bytes);
        match input::fetch(bucket, fact, path, limit).await {
            Ok(()) => return Ok(task.clone()),
            Err(input::Error::Superseded) => {}
            Err(error) => return Err(by_input(&error)),
        }
        let overtaken = self.journal.is_overtaken(task).map_err(|error| Outcome::Delayed(error.to_string()))?;
        let now = match bucket.head(&fact.key).await {
            Err(error) if error.kind == Kind::NotFound => return Err(Outcome::Superseded),
            Err(error) => return Err(by_bucket(&error)),
            Ok(_) if overtaken => return Err(Outcome::Superseded),
            Ok(now) => now,
        };
        let mut task = task.clone();
        task.event.fact.etag = Some(stored_etag(&now.etag));
        task.event.fact.size = now.size;
        match input::fetch(bucket, &task.event.fact, path, limit).await {
            Ok(()) => Ok(task),
            Err(input::Error::Superseded) => Err(Outcome::Delayed("the object keeps changing".into())),
            Err(error) => Err(by_input(&error)),
        }
    }

    fn call(&self, spec: &HookSpec, task: &Task, place: &Place, workspace: &Workspace) -> Call {
        let mut env: Vec<(String, String)> = [
            ("AWS_LAMBDA_FUNCTION_NAME", spec.name.as_str()),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", &(spec.memory_bytes >> 20).to_string()),
            ("AWS_LAMBDA_LOG_GROUP_NAME", &format!("/aws/lambda/{}", spec.name)),
            ("AWS_LAMBDA_REQUEST_ID", &task.event.id),
            ("AWS_REGION", &self.source.region),
            ("AWS_DEFAULT_REGION", &self.source.region),
            ("S3MOUNT_EVENT", task.event.fact.name.s3_name()),
            ("S3MOUNT_PATH", place.path),
            ("S3MOUNT_NAME", place.name),
            ("HOME", "/tmp"),
            ("TMPDIR", "/tmp"),
        ]
        .into_iter()
        .filter(|(name, _)| !spec.env.contains_key(*name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        env.extend(place.input.iter().map(|input| ("S3MOUNT_INPUT".to_owned(), input.clone())));
        env.extend(spec.env.clone());
        let (scratch, output) = (workspace.scratch(), workspace.output());
        Call {
            name: spec.name.clone(),
            env,
            stdin: event::message(&self.source, task, place),
            input: workspace.input(),
            quota: Quota::new(vec![scratch.clone(), output.clone()], spec.storage_bytes),
            scratch,
            output,
            memory_bytes: spec.memory_bytes,
            timeout: spec.timeout,
        }
    }

    async fn publish(&self, hook: &Hook, event: &NewEvent, base: &str, out: &Path) -> Outcome {
        failpoint::reach(Failpoint::HookBeforePublish);
        let directory = hook.spec.output.as_deref().unwrap_or(base);
        let lineage = [event.lineage.as_slice(), std::slice::from_ref(&hook.spec.name)].concat();
        let published = match publish::collect(out, &format!("{}{directory}", self.prefix)) {
            Ok(files) => publish::publish(&self.bucket, &files, &lineage, self.on_published.as_ref()).await,
            Err(error) => Err(error),
        };
        match published {
            Ok(events) => Outcome::Done(events),
            Err(publish::Error::Output(problem)) => Outcome::Fatal(format!("/out: {problem}")),
            Err(publish::Error::Bucket(error)) => by_bucket(&error),
            Err(error @ publish::Error::Local(_)) => Outcome::Delayed(error.to_string()),
        }
    }
}

fn by_input(error: &input::Error) -> Outcome {
    match error {
        input::Error::Superseded => Outcome::Superseded,
        input::Error::TooLarge { .. } => Outcome::Fatal(error.to_string()),
        input::Error::Bucket(error) => by_bucket(error),
        input::Error::Local(_) => Outcome::Delayed(error.to_string()),
    }
}

/// Whether S3 may answer otherwise the next time.
fn by_bucket(error: &bucket::Error) -> Outcome {
    match error.kind {
        Kind::Busy | Kind::Deadline | Kind::Unreachable | Kind::NoCredentials | Kind::NoSuchUpload => {
            Outcome::Delayed(error.to_string())
        }
        _ => Outcome::Failed(error.to_string()),
    }
}

/// What the end of a run means for its task.
fn verdict(spec: &HookSpec, run: &Run) -> Result<(), Outcome> {
    let mut problem = match &run.ended {
        Ended::Exit(0) => return Ok(()),
        Ended::Cancelled => return Err(Outcome::Cancelled),
        Ended::Exit(EXIT_FATAL) => return Err(Outcome::Fatal(format!("exit code {EXIT_FATAL} (fatal)"))),
        Ended::Exit(code) => format!("exit code {code}"),
        Ended::Trapped(cause) => format!("trapped: {cause}"),
        Ended::TimedOut => format!("Task timed out after {:.2} seconds", spec.timeout.as_secs_f64()),
        Ended::StorageExceeded(what) => format!("stopped: {what}; raise `storage` if it needs more"),
        Ended::NotStarted(cause) => format!("not started: {cause}"),
    };
    if run.memory_refused {
        problem.push_str("; it was refused memory beyond its limit, raise `memory` if it needs more");
    }
    Err(Outcome::Failed(problem))
}

async fn write_report(hook: &Hook, task: &Task, run: &Run, began: SystemTime, outcome: &Outcome) {
    let status = match outcome {
        Outcome::Done(_) => String::new(),
        Outcome::Superseded => "superseded".into(),
        Outcome::Cancelled => "cancelled: s3mount is being stopped; the event is kept".into(),
        Outcome::Failed(problem) | Outcome::Fatal(problem) | Outcome::Delayed(problem) => problem.clone(),
    };
    let report = Report {
        request_id: &task.event.id,
        key: &task.event.fact.key,
        began,
        duration: run.duration,
        memory_limit_bytes: hook.spec.memory_bytes,
        memory_peak_bytes: run.memory_peak_bytes,
        status,
        stdout: &run.stdout,
        stderr: &run.stderr,
    };
    append(hook, report.text()).await;
}

/// Adds text to a hook's log. A log that can't be written must not stop hooks.
pub(super) async fn append(hook: &Hook, text: String) {
    let log = hook.log.clone();
    let written = tokio::task::spawn_blocking(move || report::append(&log, &text)).await;
    if let Ok(Err(error)) = written {
        tracing::warn!("{}: {error}", hook.log.display());
    }
}

/// A second after the cancellation: by then the sandbox has stopped and reported.
async fn cancelled_for_long(cancel: &mut watch::Receiver<bool>) {
    if cancel.wait_for(|&cancelled| cancelled).await.is_err() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
}
