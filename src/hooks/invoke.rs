//! One run on demand, beside the queue: of a hook of a mount on an object, or of a hook of a settings
//! file on a local file.

use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::invocation::{Hook, Outcome, Publication, Tried};
use super::publish::{self, OutFile};
use super::run::Runner;
use super::workspace::Workspace;
use super::{Error, HookSpec, Hooks, NoFront, Result, describe, settings};
use crate::bucket::memory::MemoryBucket;
use crate::bucket::{Layout, Metadata};
use crate::error::Kind;
use crate::journal::{Event, EventName, NewEvent, Task, stored_etag};
use crate::key;

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Invocation {
    /// The request id of the run.
    pub id: String,
    /// Why it failed; `None` if it did not.
    pub problem: Option<String>,
    /// As in the hook's log; empty if the hook was not started.
    pub log: String,
    pub output: Vec<Output>,
    /// Whether the output is in the bucket.
    pub published: bool,
}

/// A file that a hook left.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Output {
    pub key: String,
    pub size: u64,
}

/// A run on a local file, outside of any mount.
#[derive(Clone, Debug)]
pub struct LocalRun<'a> {
    /// The settings file.
    pub settings: &'a Path,
    pub hook: &'a str,
    pub file: &'a Path,
    /// The path that the hook is told.
    pub path: &'a str,
    /// The name of the event, with or without `s3:`.
    pub event: &'a str,
    /// Where a copy of the output goes, if anywhere.
    pub keep: Option<&'a Path>,
}

impl Hooks {
    /// Runs a hook once on the object at `path`, whether or not its rule matches, and publishes what
    /// it leaves unless `dry`, or it takes no events. Nothing of it is retried. Stops when dropped.
    ///
    /// # Errors
    /// When there is no such hook, event or object, the bucket can't be asked, or hooks are stopped. What goes wrong with
    /// the run itself is in the answer.
    pub async fn invoke(&self, hook: &str, path: &str, event: &str, dry: bool) -> Result<Invocation> {
        self.unless_stopping(Box::pin(self.run_once(hook, path, event, dry))).await
    }

    async fn run_once(&self, hook: &str, path: &str, event: &str, dry: bool) -> Result<Invocation> {
        let _place = self.on_demand.acquire().await.map_err(|_| Error::Stopping)?;
        let surroundings = &self.worker.surroundings;
        let hook = &find(&self.worker.hooks(), hook)?;
        let name = event_name(event)?;
        let key = format!("{}{path}", surroundings.runner.prefix);
        let mut fact = NewEvent::now(name, &key);
        if name != EventName::RemovedDelete {
            let found = surroundings.bucket.head(&key).await.map_err(|error| match error.kind {
                Kind::NotFound => Error::NoObject { key },
                _ => Error::Bucket(error),
            })?;
            (fact.size, fact.etag) = (found.size, Some(stored_etag(&found.etag)));
        }
        let task = task(&hook.spec, fact);
        let dry = dry || !hook.spec.mode.takes_events();
        let publication = if dry { Publication::Dry } else { Publication::Publish };
        let cancel = Cancel::default();
        let tried = surroundings.attempt(hook, &task, publication, cancel.0.subscribe()).await;
        // Other hooks see what this one made, as ever.
        let mut made = if dry { Vec::new() } else { tried.wrote.clone() };
        if let Outcome::Done(events) = &tried.outcome {
            made.extend(events.iter().cloned());
        }
        if !made.is_empty() {
            self.worker.journal.settle(&[], made).await?;
        }
        let published = !dry && matches!(tried.outcome, Outcome::Done(_));
        Ok(invocation(task, tried, published))
    }
}

/// Runs a hook once on a local file. Blocks; not to be called inside of `runtime`.
///
/// # Errors
/// When the settings or the module are wrong, there is no such hook or event, or the file can't be
/// read. What goes wrong with the run itself is in the answer.
pub fn invoke_file(run: &LocalRun, runtime: &Handle) -> Result<Invocation> {
    let name = event_name(run.event)?;
    let specs = settings::load(run.settings)?;
    let spec = specs.iter().find(|spec| spec.name == run.hook).cloned();
    let spec = spec.ok_or_else(|| no_hook(specs.iter().map(|spec| spec.name.as_str())))?;
    if let Some(oddity) = run.path.split('/').find_map(key::oddity) {
        return Err(Error::Asked(format!("\"{}\" is no path ({oddity:?})", run.path.escape_debug())));
    }
    if spec.target.is_some() {
        return Err(Error::Asked(format!("hook \"{}\" hands its events over, and runs nothing here", spec.name)));
    }
    let scratch = describe::scratch()?;
    let (sandbox, mut programs) = describe::compile(scratch.path(), std::slice::from_ref(&spec))?;
    let program = programs.pop().ok_or_else(|| no_hook(std::iter::empty()))?;
    let hook = Hook::new(spec, program, Arc::default(), scratch.path().join("log"));
    let layout = Layout::of_bucket("local", "us-east-1", "");
    let work = scratch.path().join("work");
    let bucket = Arc::new(MemoryBucket::new());
    let runner = Runner {
        sandbox,
        layout,
        prefix: String::new(),
        bucket: bucket.clone(),
        front: Arc::new(NoFront),
        work,
        mountpoint: None,
    };
    let local = |cause| Error::File { path: run.file.to_owned(), cause };
    let workspace = Workspace::new(&runner.work).map_err(local)?;
    let mut fact = NewEvent::now(name, run.path);
    if name != EventName::RemovedDelete {
        fact.size = copy_in(run.file, &workspace.input().join(run.path)).map_err(local)?;
        if hook.program.is_typed() {
            // All the bucket that it can ask.
            bucket.insert(run.path, std::fs::read(run.file).map_err(local)?, Metadata::new());
        }
    }
    let task = task(&hook.spec, fact);
    let cancel = Cancel::default();
    let cancel = cancel.0.subscribe();
    let mut ran = runtime.block_on(runner.run(Publication::Publish, &hook, &task, run.path, &workspace, cancel));
    let (outcome, output) = match &ran.verdict {
        Err(outcome) => (outcome.clone(), Vec::new()),
        Ok(()) => match publish::collect(&workspace.output(), hook.spec.output_directory(run.path)) {
            Ok(files) => (Outcome::Done(Vec::new()), files),
            Err(error) => (Outcome::Fatal(error.to_string()), Vec::new()),
        },
    };
    if let Some(directory) = run.keep {
        copy_out(&output, directory)?;
        copy_written(&ran.wrote, &bucket, directory)?;
    }
    // The command that runs it again is the one that ran it now.
    let report = super::report::Report { again: None, ..runner.report(&hook, &task, &ran, &outcome) };
    let (log, digest, wrote) = (report.text(), String::new(), std::mem::take(&mut ran.wrote));
    let tried = Tried { log, digest, outcome, output, wrote, answer: None, as_told: true };
    Ok(invocation(task, tried, false))
}

fn copy_in(file: &Path, to: &Path) -> std::io::Result<u64> {
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::copy(file, to)
}

fn copy_out(output: &[OutFile], directory: &Path) -> Result<()> {
    for file in output {
        let to = directory.join(&file.key);
        copy_in(&file.file, &to).map_err(|cause| Error::File { path: to, cause })?;
    }
    Ok(())
}

/// What a typed hook wrote itself.
fn copy_written(facts: &[NewEvent], bucket: &MemoryBucket, directory: &Path) -> Result<()> {
    for fact in facts {
        // It may be gone again.
        let Some(bytes) = bucket.bytes(&fact.key) else { continue };
        let to = directory.join(&fact.key);
        let written = to.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&to, &bytes));
        written.map_err(|cause| Error::File { path: to, cause })?;
    }
    Ok(())
}

/// The hook of this name.
pub(super) fn find(hooks: &[Arc<Hook>], name: &str) -> Result<Arc<Hook>> {
    let found = hooks.iter().find(|known| known.spec.name == name).cloned();
    found.ok_or_else(|| no_hook(hooks.iter().map(|known| known.spec.name.as_str())))
}

/// Stops a run when whoever wanted it goes away.
pub(super) struct Cancel(pub(super) watch::Sender<bool>);

impl Default for Cancel {
    fn default() -> Self {
        Self(watch::channel(false).0)
    }
}

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

fn no_hook<'a>(known: impl Iterator<Item = &'a str>) -> Error {
    let known: Vec<_> = known.collect();
    match known.len() {
        0 => Error::Asked("no hook is set up".into()),
        _ => Error::Asked(format!("no hook has this name; there are {}", known.join(", "))),
    }
}

fn event_name(text: &str) -> Result<EventName> {
    let name = text.strip_prefix("s3:").unwrap_or(text);
    EventName::ALL.into_iter().find(|event| event.s3_name() == name).ok_or_else(|| {
        let all: Vec<_> = EventName::ALL.into_iter().map(EventName::s3_name).collect();
        Error::Asked(format!("\"{}\" is no event; there are {}", text.escape_debug(), all.join(", ")))
    })
}

/// A task that no journal knows.
pub(super) fn task(spec: &HookSpec, fact: NewEvent) -> Task {
    let sequence = fact.time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
    let event = Event { id: uuid::Uuid::now_v7().to_string(), sequence, fact };
    Task::new(spec.name.clone(), 0, None, event)
}

fn invocation(task: Task, tried: Tried, published: bool) -> Invocation {
    let problem = match tried.outcome {
        Outcome::Done(_) => None,
        Outcome::Superseded => Some("the object was changed or removed meanwhile".into()),
        Outcome::Cancelled => Some("s3mount is being stopped".into()),
        Outcome::Failed(problem) | Outcome::Fatal(problem) | Outcome::TooOld(problem) | Outcome::Delayed(problem) => {
            Some(problem)
        }
    };
    let written = tried.wrote.into_iter().filter(|fact| fact.name != EventName::RemovedDelete);
    let written = written.map(|fact| Output { key: fact.key, size: fact.size });
    let output = tried.output.into_iter().map(|file| Output { key: file.key, size: file.size });
    let output = written.chain(output).collect();
    Invocation { id: task.event.id, problem, log: tried.log, output, published }
}
