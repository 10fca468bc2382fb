//! One task: fetch its object, run its hook, publish what it left.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use super::publish::{self, OutFile};
use super::report;
use super::run::Runner;
use super::sandbox::{self, Captured, Ended, Program};
use super::status::Counters;
use super::workspace::Workspace;
use super::{Front, HookSpec};
use super::{identity, input, lineage};
use crate::bucket::{self, Bucket};
use crate::error::Kind;
use crate::failpoint::{self, Failpoint};
use crate::journal::{EventName, Journal, NewEvent, Task, stored_etag};
use crate::key;
use crate::relay::Relay;
use crate::telemetry::spans;

/// A hook with all that its runs need.
pub(super) struct Hook {
    pub(super) spec: HookSpec,
    pub(super) program: Program,
    /// Looked up once: [`Program::wants_files`].
    pub(super) wants_files: bool,
    /// Shared with the versions of the hook before and after this one.
    pub(super) counters: Arc<Counters>,
    pub(super) log: PathBuf,
    /// As many as may run at a time, where no journal counts them: of a synchronous hook, and in a worker.
    pub(super) places: Semaphore,
    /// What it is: see [`identity`].
    pub(super) identity: String,
}

impl Hook {
    pub(super) fn new(spec: HookSpec, program: Program, counters: Arc<Counters>, log: PathBuf) -> Self {
        let (places, identity) = (Semaphore::new(spec.concurrency), identity::of(&spec));
        let wants_files = program.wants_files();
        Self { spec, program, wants_files, counters, log, places, identity }
    }
}

/// What all runs share.
pub(super) struct Surroundings {
    pub(super) runner: Runner,
    pub(super) bucket: Arc<dyn Bucket>,
    pub(super) journal: Arc<Journal>,
    pub(super) front: Arc<dyn Front>,
    pub(super) relay: Arc<Relay>,
}

/// What became of a task.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// Its output is published, and these are the facts about it.
    Done(Vec<NewEvent>),
    /// The object has changed; the hook sees the newer event instead.
    Superseded,
    /// The hook failed; another try may help.
    Failed(String),
    /// Another try would fail the same way.
    Fatal(String),
    /// There was no try: the event is older than the hook wants.
    TooOld(String),
    /// Not the hook's fault: S3 can't be reached, the disk is full and so on.
    Delayed(String),
    Cancelled,
}

impl Outcome {
    /// What is in vain about it, for who collects spans.
    fn fault(&self) -> Option<spans::Fault> {
        let (kind, words) = match self {
            Self::Done(_) => return None,
            Self::Superseded => ("superseded", ""),
            Self::Failed(words) => ("failed", words.as_str()),
            Self::Fatal(words) => ("fatal", words.as_str()),
            Self::TooOld(words) => ("too_old", words.as_str()),
            Self::Delayed(words) => ("delayed", words.as_str()),
            Self::Cancelled => ("cancelled", ""),
        };
        Some(spans::Fault { kind: kind.to_owned(), words: words.to_owned() })
    }
}

/// A run, for who collects spans.
fn told(hook: &Hook, task: &Task) -> spans::Work {
    let (name, key, event_id) = (hook.spec.name.clone(), task.event.fact.key.clone(), task.event.id.clone());
    spans::Work::Hook { name, key, event_id }
}

/// What is to become of a run's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Publication {
    Publish,
    /// Only told.
    Dry,
}

/// A task that was tried once.
#[derive(Debug)]
pub(super) struct Tried {
    pub(super) outcome: Outcome,
    /// What the hook's log says of it; empty where the hook was not started.
    pub(super) log: String,
    /// The same with only the last lines of the hook's own, for keeping.
    pub(super) digest: String,
    /// What it left for publication.
    pub(super) output: Vec<OutFile>,
    /// What it did to objects itself, whatever the outcome.
    pub(super) wrote: Vec<NewEvent>,
    /// How the hook itself ended and what it answered on stdout, if it was started.
    pub(super) answer: Option<(Ended, Captured)>,
    /// It saw the version that the event tells of.
    pub(super) as_told: bool,
}

impl Surroundings {
    /// Tries a task once, and writes the hook's log about it.
    pub(super) async fn attempt(
        &self,
        hook: &Hook,
        task: &Task,
        publication: Publication,
        mut cancel: watch::Receiver<bool>,
    ) -> Tried {
        let runs_cancel = cancel.clone();
        let trying = async {
            tokio::select! {
                biased;
                tried = self.run(hook, task, publication, runs_cancel) => tried,
                // The sandbox ends by itself, and its report is wanted; this is for the transfers around it.
                () = cancelled_for_long(&mut cancel) => Tried::without_run(Outcome::Cancelled),
            }
        };
        let Some(traced) = spans::Operation::begin_told() else { return trying.await };
        let tried = traced.scope(trying).await;
        traced.end(|| told(hook, task), tried.outcome.fault());
        tried
    }

    async fn run(&self, hook: &Hook, task: &Task, publication: Publication, cancel: watch::Receiver<bool>) -> Tried {
        let called;
        let task = match &task.payload {
            None => task,
            Some(payload) => match self.called(task, payload).await {
                Ok(task) => {
                    called = task;
                    &called
                }
                Err(outcome) => return Tried::without_run(outcome),
            },
        };
        if let Some(target) = &hook.spec.target {
            return Box::pin(self.hand_over(target, hook, task, publication)).await;
        }
        let path = match self.path_of(&task.event.fact) {
            Ok(path) => path,
            // A call need not be about an object.
            Err(_) if task.payload.is_some() => "",
            Err(problem) => return Tried::without_run(Outcome::Fatal(problem)),
        };
        let (workspace, told) = (self.workspace(hook), task);
        let workspace = match workspace {
            Ok(workspace) => workspace,
            Err(outcome) => return Tried::without_run(outcome),
        };
        let fetched = if path.is_empty() {
            Ok(task.clone())
        } else if workspace.is_there() {
            self.fetch(hook, task, &workspace.input().join(path)).await
        } else {
            self.as_it_is(task).await
        };
        let task = match fetched {
            Ok(task) => task,
            Err(outcome) => return Tried::without_run(outcome),
        };
        let as_told = task.event.fact.etag == told.event.fact.etag;
        let mut ran = self.runner.run(publication, hook, &task, path, &workspace, cancel).await;
        let wrote = std::mem::take(&mut ran.wrote);
        let (outcome, output) = match &ran.verdict {
            Ok(()) if !workspace.is_there() => (Outcome::Done(Vec::new()), Vec::new()),
            Ok(()) => self.publish(hook, &task.event.fact, path, &workspace.output(), publication).await,
            Err(outcome) => (outcome.clone(), Vec::new()),
        };
        let report = self.runner.report(hook, &task, &ran, &outcome);
        let log = report.text();
        // Kept with a dead letter only.
        let failed = matches!(outcome, Outcome::Failed(_) | Outcome::Fatal(_));
        let digest = if failed { report.digest() } else { String::new() };
        append(hook, log.clone()).await;
        Tried { outcome, log, digest, output, wrote, answer: Some(ran.answer()), as_told }
    }

    /// The directories of a run, unless its guest opens no files.
    fn workspace(&self, hook: &Hook) -> Result<Workspace, Outcome> {
        if !hook.wants_files {
            return Ok(Workspace::without_files());
        }
        Workspace::new(&self.runner.work).map_err(|error| Outcome::Delayed(format!("no directory to run in: {error}")))
    }

    /// What a hook was given for a task.
    pub(super) fn payload(&self, hook: &Hook, task: &Task) -> String {
        let path = self.path_of(&task.event.fact).unwrap_or_default();
        self.runner.payload(task, &Runner::place(&hook.spec, task, path))
    }

    /// The path in the mount, or why there is none.
    pub(super) fn path_of<'a>(&self, event: &'a NewEvent) -> Result<&'a str, String> {
        let path = event.key.strip_prefix(&self.runner.prefix).ok_or("its key is outside of the mount")?;
        match path.split('/').find_map(key::oddity) {
            Some(oddity) => Err(format!("its key has no path ({oddity:?})")),
            None => Ok(path),
        }
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
        // Who calls a hook wants it run, whatever follows.
        let overtaken = task.payload.is_none()
            && self.journal.is_overtaken(task).map_err(|error| Outcome::Delayed(error.to_string()))?;
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

    /// What is told again, to a hook that fetches nothing, is told of the version that is there by then: a
    /// newer one may have come, and been told of, since it was looked at.
    async fn as_it_is(&self, task: &Task) -> Result<Task, Outcome> {
        let mut task = task.clone();
        let fact = &mut task.event.fact;
        if fact.replayed_for.is_empty() {
            return Ok(task);
        }
        match self.bucket.head(&fact.key).await {
            Ok(now) => (fact.etag, fact.size) = (Some(stored_etag(&now.etag)), now.size),
            Err(error) if error.kind == Kind::NotFound => return Err(Outcome::Superseded),
            Err(error) => return Err(by_bucket(&error)),
        }
        Ok(task)
    }

    /// Publishes what a run left, or only looks at it; also tells what there is.
    async fn publish(
        &self,
        hook: &Hook,
        event: &NewEvent,
        path: &str,
        out: &Path,
        publication: Publication,
    ) -> (Outcome, Vec<OutFile>) {
        let root = format!("{}{}", self.runner.prefix, hook.spec.output_directory(path));
        let files = match publish::collect(out, &root) {
            Ok(files) => files,
            Err(error) => return (by_publication(error), Vec::new()),
        };
        if publication == Publication::Dry {
            return (Outcome::Done(Vec::new()), files);
        }
        failpoint::reach(Failpoint::HookBeforePublish);
        let lineage = [event.lineage.as_slice(), std::slice::from_ref(&hook.spec.name)].concat();
        let metadata = lineage::metadata(&lineage);
        let published = publish::publish(&self.bucket, &files, &lineage, &metadata, self.front.as_ref()).await;
        (published.map_or_else(by_publication, Outcome::Done), files)
    }
}

impl Tried {
    /// Of what ended before the hook was started.
    pub(super) fn without_run(outcome: Outcome) -> Self {
        let (log, digest, output) = (String::new(), String::new(), Vec::new());
        Self { outcome, log, digest, output, wrote: Vec::new(), answer: None, as_told: false }
    }
}

fn by_publication(error: publish::Error) -> Outcome {
    match error {
        publish::Error::Output(problem) => Outcome::Fatal(format!("/out: {problem}")),
        publish::Error::Bucket(error) => by_bucket(&error),
        publish::Error::Local(_) => Outcome::Delayed(error.to_string()),
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
pub(super) fn by_bucket(error: &bucket::Error) -> Outcome {
    match error.kind {
        Kind::Busy | Kind::Deadline | Kind::Unreachable | Kind::NoCredentials | Kind::NoSuchUpload => {
            Outcome::Delayed(error.to_string())
        }
        _ => Outcome::Failed(error.to_string()),
    }
}

/// Adds text to a hook's log. A log that can't be written must not stop hooks.
pub(super) async fn append(hook: &Hook, text: String) {
    let log = hook.log.clone();
    let written = sandbox::blocking(move || report::append(&log, &text)).await;
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
