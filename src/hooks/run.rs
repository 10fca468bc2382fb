//! One run of a hook in directories that are ready: what it gets, how it ended, what is said of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use super::event::{self, Place};
use super::grants::Granted;
use super::invocation::{Hook, Outcome, Publication};
use super::report::{self, Report};
use super::sandbox::{Call, Captured, Directories, Ended, Quota, Run, Sandbox, Typed};
use super::veto::Veto;
use super::workspace::Workspace;
use super::{Front, HookSpec};
use crate::bucket::{Bucket, Layout};
use crate::journal::{EventName, NewEvent, Task};

/// Exit codes after `sysexits.h`: what a hook says about trying again.
const EXIT_FATAL: i32 = 65;
/// What happened must not be. Before it, of a synchronous hook, that refuses it; after it there is nothing to refuse.
const EXIT_VETO: i32 = 77;

/// What every run needs, wherever its object comes from.
pub(super) struct Runner {
    pub(super) sandbox: Arc<Sandbox>,
    /// Which buckets there are.
    pub(super) layout: Layout,
    /// Key prefix of the mount, empty or ending in `/`.
    pub(super) prefix: String,
    /// What typed hooks are granted objects of, and who is told of those that they write.
    pub(super) bucket: Arc<dyn Bucket>,
    pub(super) front: Arc<dyn Front>,
    /// Where runs have their directories.
    pub(super) work: PathBuf,
    /// Where the bucket is mounted, for what the user is told.
    pub(super) mountpoint: Option<PathBuf>,
}

/// A run that has ended.
pub(super) struct Ran {
    began: SystemTime,
    run: Run,
    /// What it did to objects itself, however it ended.
    pub(super) wrote: Vec<NewEvent>,
    /// Whether its output counts.
    pub(super) verdict: Result<(), Outcome>,
}

impl Ran {
    /// What a synchronous hook forbids, if it does.
    pub(super) fn veto(&self) -> Option<Veto> {
        (self.run.ended == Ended::Exit(EXIT_VETO)).then(|| Veto::said(&self.run.stdout, &self.run.stderr))
    }

    /// How the hook ended, and what it answered.
    pub(super) fn answer(&self) -> (Ended, Captured) {
        (self.run.ended.clone(), self.run.stdout.clone())
    }
}

impl Runner {
    /// Runs a hook for the object at `path`, which lies in the workspace's `/in` by now.
    /// What a typed hook writes itself may be dry.
    pub(super) async fn run(
        &self,
        publication: Publication,
        hook: &Hook,
        task: &Task,
        path: &str,
        workspace: &Workspace,
        cancel: watch::Receiver<bool>,
    ) -> Ran {
        let mut place = Self::place(&hook.spec, task, path);
        if !workspace.is_there() {
            place.input = None;
        }
        let began = SystemTime::now();
        let mut call = self.call(&hook.spec, task, &place, workspace);
        let granted = hook.program.is_typed().then(|| Arc::new(self.granted(publication, &hook.spec, task, path)));
        call.typed = granted.clone().map(|granted| self.typed(&hook.spec, task, &place, began, granted));
        let run = self.sandbox.run(&hook.program, call, cancel).await;
        hook.counters.ran(run.duration, hook.spec.memory_bytes, run.memory_peak_bytes);
        let verdict = verdict(&hook.spec, &run);
        let wrote = granted.map(|granted| granted.take_facts()).unwrap_or_default();
        Ran { began, run, wrote, verdict }
    }

    fn granted(&self, publication: Publication, spec: &HookSpec, task: &Task, path: &str) -> Granted {
        let (bucket, front) = (Arc::clone(&self.bucket), Arc::clone(&self.front));
        Granted::new(bucket, front, &self.prefix, spec, &task.event.fact, path, publication)
    }

    fn typed(&self, spec: &HookSpec, task: &Task, place: &Place, began: SystemTime, granted: Arc<Granted>) -> Typed {
        let json = self.payload(task, place);
        let event = event::record(&self.layout, task, place, began + spec.timeout, json);
        let mut config = spec.env.clone();
        config.extend(spec.config.clone());
        Typed { event, granted, config }
    }

    /// What is said of a run whose output came to this.
    pub(super) fn report<'a>(&self, hook: &Hook, task: &'a Task, ran: &'a Ran, outcome: &Outcome) -> Report<'a> {
        let (status, failed) = match outcome {
            Outcome::Done(_) => (String::new(), false),
            Outcome::Superseded => ("superseded".into(), false),
            Outcome::Cancelled => ("cancelled: s3mount is being stopped; the event is kept".into(), false),
            Outcome::Delayed(problem) => (problem.clone(), false),
            Outcome::Failed(problem) | Outcome::Fatal(problem) | Outcome::TooOld(problem) => (problem.clone(), true),
        };
        Report {
            request_id: &task.event.id,
            key: &task.event.fact.key,
            began: ran.began,
            duration: ran.run.duration,
            memory_limit_bytes: hook.spec.memory_bytes,
            memory_peak_bytes: ran.run.memory_peak_bytes,
            status,
            again: failed.then(|| self.command_again(task)).flatten(),
            stdout: &ran.run.stdout,
            stderr: &ran.run.stderr,
        }
    }

    /// The words that run a hook for the object of an event once more; of a call only who called knows.
    pub(super) fn command_again(&self, task: &Task) -> Option<String> {
        if task.payload.is_some() {
            return None;
        }
        let (hook, event) = (&task.hook, &task.event.fact);
        let path = event.key.strip_prefix(&self.prefix).unwrap_or(&event.key);
        let place = match &self.mountpoint {
            Some(mountpoint) => mountpoint.join(path).to_string_lossy().into_owned(),
            None => path.to_owned(),
        };
        let removed = if event.name == EventName::RemovedDelete { " --event ObjectRemoved:Delete" } else { "" };
        Some(format!("s3mount hooks invoke {hook} --key {}{removed}", report::shell_word(&place)))
    }

    pub(super) fn place<'a>(spec: &HookSpec, task: &Task, path: &'a str) -> Place<'a> {
        let is_there = task.event.fact.name != EventName::RemovedDelete && !path.is_empty();
        Place { path, name: &path[spec.base(path).len()..], input: is_there.then(|| format!("/in/{path}")) }
    }

    /// What a hook gets on stdin.
    pub(super) fn payload(&self, task: &Task, place: &Place) -> String {
        task.payload.clone().unwrap_or_else(|| event::message(&self.layout, task, place))
    }

    fn call(&self, spec: &HookSpec, task: &Task, place: &Place, workspace: &Workspace) -> Call {
        let mut env: Vec<(String, String)> = [
            ("AWS_LAMBDA_FUNCTION_NAME", spec.name.as_str()),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", &(spec.memory_bytes >> 20).to_string()),
            ("AWS_LAMBDA_LOG_GROUP_NAME", &format!("/aws/lambda/{}", spec.name)),
            ("AWS_LAMBDA_REQUEST_ID", &task.event.id),
            ("AWS_REGION", event::region(&self.layout, task)),
            ("AWS_DEFAULT_REGION", event::region(&self.layout, task)),
            ("S3MOUNT_EVENT", if place.path.is_empty() { "Invoke" } else { task.event.fact.name.s3_name() }),
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
        let (input, scratch, output) = (workspace.input(), workspace.scratch(), workspace.output());
        let counted = if workspace.is_there() { vec![scratch.clone(), output.clone()] } else { Vec::new() };
        Call {
            name: spec.name.clone(),
            env,
            stdin: self.payload(task, place),
            quota: Quota::new(counted, spec.storage_bytes),
            directories: workspace.is_there().then_some(Directories { input, scratch, output }),
            memory_bytes: spec.memory_bytes,
            timeout: spec.timeout,
            typed: None,
        }
    }
}

/// What the end of a run means for its task.
fn verdict(spec: &HookSpec, run: &Run) -> Result<(), Outcome> {
    let mut problem = match &run.ended {
        Ended::Exit(0) => return Ok(()),
        Ended::Cancelled => return Err(Outcome::Cancelled),
        Ended::Exit(EXIT_VETO) if spec.mode.is_sync() => {
            return Err(Outcome::Fatal(Veto::said(&run.stdout, &run.stderr).to_string()));
        }
        Ended::Exit(EXIT_FATAL) => {
            return Err(Outcome::Fatal(with_last_words(format!("exit code {EXIT_FATAL} (fatal)"), run)));
        }
        Ended::Exit(EXIT_VETO) => {
            return Err(Outcome::Fatal(with_last_words(format!("exit code {EXIT_VETO} (veto)"), run)));
        }
        Ended::Exit(code) => with_last_words(format!("exit code {code}"), run),
        Ended::Trapped(cause) => format!("trapped: {cause}"),
        Ended::TimedOut => format!("Task timed out after {:.2} seconds", spec.timeout.as_secs_f64()),
        Ended::StorageExceeded(what) => format!("stopped: {what}; raise `storage` if it needs more"),
        Ended::NotStarted(cause) => format!("not started: {cause}"),
    };
    if run.memory_refused {
        problem.push_str("; it was refused memory beyond its limit, raise `memory` if it needs more");
    }
    if run.table_refused {
        problem.push_str("; it was refused a table beyond the limit of a million elements");
    }
    // A trap says where the program was; the panic before it says why.
    if let Some(panic) = report::panic_text(&run.stderr) {
        problem = format!("{panic}; {problem}");
    }
    Err(Outcome::Failed(problem))
}

/// A program that ends by itself says why at the end.
fn with_last_words(problem: String, run: &Run) -> String {
    match report::last_words(&run.stderr) {
        Some(words) => format!("{problem}: {words}"),
        None => problem,
    }
}
