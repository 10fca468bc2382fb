//! Events → WASM: takes facts out of the journal, runs the hooks that want them, publishes what
//! they leave, and settles.
//!
//! ```text
//! journal.events ─ rules ─→ tasks ─ worker ─→ invocation ─┬─ input     GET, pinned to the ETag
//!                                     │                   ├─ run       what a guest gets, how it ended
//!                                     │                   │   └ sandbox   command or typed, bounded
//!                                     │                   ├─ grants    objects a typed hook asks for
//!                                     │                   ├─ publish   /out → PUT
//!                                     │                   └─ report    START … END, REPORT
//!                                     └─ delivery: again, when, or to the dead letters
//! ```
//!
//! In a worker `consumer` takes messages of a queue (`notification`) in place of the journal's events.
//!
//! A hook with a `target` runs nothing here: its events are handed over.
//!
//! `view` shows what `transform` makes of objects that are looked at.
//!
//! Hooks with `mode = "sync"` take no events: `veto` asks them before something happens.
//!
//! For people: `dead_letters`, `describe`, `invoke` (one run beside the queue), `replay`
//! (what is in the bucket, once more), `trace`, `standing` (how far a file is). Which hooks there
//! are: `settings` (`serverless`, `yaml`), changed while they work by `reload`, kept by `deployed`.

mod call;
mod consumer;
mod cycles;
mod dead_letters;
mod delivery;
mod deployed;
mod describe;
mod destinations;
mod error;
mod event;
mod grants;
mod identity;
mod input;
mod invocation;
mod invoke;
mod lineage;
mod mode;
mod modules;
mod notification;
mod publish;
mod reload;
mod replay;
mod report;
mod rules;
mod run;
mod sandbox;
mod serverless;
mod settings;
mod standing;
mod status;
mod target;
mod trace;
mod transform;
mod units;
mod veto;
mod view;
mod worker;
mod workspace;
mod yaml;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::bucket::{Bucket, Layout};
use crate::journal::Journal;
use crate::relay::Relay;
use invocation::{Hook, Surroundings};
use run::Runner;
use sandbox::Sandbox;
use worker::{Phase, Worker};

pub use call::{CallProblem, Called};
pub use consumer::MessageCounts;
pub use dead_letters::{DeadLetter, Redriven, Which};
pub use delivery::Delivery;
pub use deployed::{Copied, Deployed};
pub use describe::{Description, validate};
pub use destinations::Destination;
pub use error::{Error, Result};
pub use invoke::{Invocation, LocalRun, Output, invoke_file};
pub use mode::{Mode, OnError};
pub use reload::{Prepared, Switched};
pub use replay::{Replay, Replayed};
pub use rules::{EventPattern, Globs, MAX_LINEAGE};
pub use settings::{HookSpec, MAX_MODULE_BYTES, is_hook_name, load, load_for};
pub use status::{HookStatus, HooksStatus, LastError};
pub use trace::{HookTrace, OpenTask, Trace, is_at_or_below};
pub use veto::{Bytes, Decision, Question};
pub use view::Views;

/// The file system that shows the bucket in which hooks write and delete.
#[async_trait]
pub trait Front: Send + Sync {
    /// The object at this key is about to be deleted, when this returns.
    async fn before_deletion(&self, key: &str);
    /// The object at this key was written or deleted: what was known of it is old.
    fn changed(&self, key: &str);
}

/// Nobody shows the bucket.
#[derive(Debug)]
pub struct NoFront;

#[async_trait]
impl Front for NoFront {
    async fn before_deletion(&self, _: &str) {}
    fn changed(&self, _: &str) {}
}

/// How long `stop` waits for runs to notice their cancellation.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// What hooks need to know about the mount.
#[derive(Clone)]
pub struct HookSettings {
    pub specs: Vec<HookSpec>,
    /// Which bucket, or buckets: for the events.
    pub layout: Layout,
    /// Key prefix of the mount: empty, or ending in `/`.
    pub prefix: String,
    /// Where the bucket is mounted, for commands that the user is told.
    pub mountpoint: Option<PathBuf>,
    /// Logs, compiled modules and directories of runs go to `hooks` in here.
    pub state_dir: PathBuf,
    /// How many guests run at a time, over all hooks.
    pub concurrency: usize,
    pub front: Arc<dyn Front>,
    /// For destinations that are neither hooks nor objects.
    pub relay: Arc<Relay>,
}

impl HookSettings {
    /// Settings with the usual limits, for a mount without prefix that nobody has to tell anything.
    #[must_use]
    pub fn new(specs: Vec<HookSpec>, layout: Layout, state_dir: &Path) -> Self {
        Self {
            specs,
            layout,
            prefix: String::new(),
            state_dir: state_dir.to_owned(),
            concurrency: std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8),
            mountpoint: None,
            front: Arc::new(NoFront),
            relay: Arc::new(Relay::new(None, "us-east-1")),
        }
    }
}

/// Running hooks. Dropping it cancels them; their events stay in the journal.
pub struct Hooks {
    worker: Arc<Worker>,
    /// Where logs and modules are.
    directory: PathBuf,
    phase: watch::Sender<Phase>,
    /// Places for runs on demand: as many as for those of the queue.
    on_demand: Semaphore,
    task: Mutex<Option<JoinHandle<()>>>,
    /// What views show.
    made: transform::Kept,
    messages: Arc<consumer::Tally>,
}

/// As [`open`], and starts to work on `runtime`.
///
/// # Errors
/// As [`open`].
pub fn start(
    settings: HookSettings,
    bucket: Arc<dyn Bucket>,
    journal: Arc<Journal>,
    runtime: &Handle,
) -> Result<Hooks> {
    let hooks = open(settings, bucket, journal)?;
    hooks.begin(runtime);
    Ok(hooks)
}

/// Compiles the modules (once: seconds for a large one, and the caller waits). Synchronous hooks can be
/// asked from then on; events are taken after [`Hooks::begin`].
///
/// # Errors
/// [`Error`] naming the hook whose module can't be used, or the directory.
pub fn open(settings: HookSettings, bucket: Arc<dyn Bucket>, journal: Arc<Journal>) -> Result<Hooks> {
    let directory = settings.state_dir.join("hooks");
    let work = directory.join("work");
    for directory in [&settings.state_dir, &directory, &work] {
        make_directory(directory)?;
    }
    clear(&work);
    let sandbox =
        Arc::new(Sandbox::new().map_err(|cause| Error::Start { what: "WebAssembly does not run here".into(), cause })?);
    let hooks = reload::prepare(&sandbox, &directory, settings.specs, &[])?;
    tell_of_unknown_hooks(&journal, &hooks)?;
    let (phase, phase_changes) = watch::channel(Phase::Work);
    let worker = Arc::new(Worker {
        hooks: RwLock::new(Arc::new(hooks)),
        surroundings: Surroundings {
            runner: Runner {
                sandbox,
                layout: settings.layout,
                prefix: settings.prefix,
                bucket: Arc::clone(&bucket),
                front: Arc::clone(&settings.front),
                work,
                mountpoint: settings.mountpoint,
            },
            bucket,
            journal: Arc::clone(&journal),
            front: settings.front,
            relay: settings.relay,
        },
        journal,
        concurrency: settings.concurrency.max(1),
        dropped: AtomicU64::new(0),
        undelivered: AtomicU64::new(0),
        phase: phase_changes,
        cancel: watch::channel(false).0,
        rounds: watch::channel(0).0,
        switches: watch::channel(0).0,
    });
    let on_demand = Semaphore::new(worker.concurrency);
    let made = transform::Kept::in_directory(directory.join("views"));
    Ok(Hooks { worker, directory, phase, on_demand, task: Mutex::new(None), made, messages: Arc::default() })
}

impl Hooks {
    /// Takes events from now on.
    pub fn begin(&self, runtime: &Handle) {
        let mut task = self.task.lock();
        if task.is_none() {
            *task = Some(runtime.spawn(Arc::clone(&self.worker).work()));
        }
    }

    /// Counters since the start, and what waits.
    pub fn status(&self) -> HooksStatus {
        let journal = &self.worker.journal;
        let hooks = self.worker.hooks();
        // A journal that can't be read complains elsewhere; the status tells what it knows.
        let mut counts = journal.all_counts().unwrap_or_default();
        let hooks = hooks.iter().map(|hook| {
            let counts = counts.remove(&hook.spec.name).unwrap_or_default();
            HookStatus {
                name: hook.spec.name.clone(),
                log: hook.log.clone(),
                queued: counts.open.saturating_sub(counts.leased),
                running: counts.leased,
                dead: counts.dead,
                ..hook.counters.status()
            }
        });
        HooksStatus {
            events_waiting: journal.events_waiting().unwrap_or_default(),
            recursive_invocations_dropped: self.worker.dropped.load(Ordering::Relaxed),
            destination_delivery_failures: self.worker.undelivered.load(Ordering::Relaxed),
            hooks: hooks.collect(),
        }
    }

    /// Waits until no event and no task of these hooks is left; tasks that were given up do not
    /// count. It can take as long as S3 is away: give it a deadline.
    pub async fn idle(&self) {
        let mut rounds = self.worker.rounds.subscribe();
        loop {
            rounds.mark_unchanged();
            // What can't be read can't be waited for.
            if self.is_idle().unwrap_or(true) || rounds.changed().await.is_err() {
                return;
            }
        }
    }

    /// Does something for a person, until it is done or hooks are stopped.
    async fn unless_stopping<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut phase = self.phase.subscribe();
        tokio::select! {
            outcome = work => outcome,
            _ = phase.wait_for(|phase| *phase != Phase::Work) => Err(Error::Stopping),
        }
    }

    fn is_idle(&self) -> crate::journal::Result<bool> {
        self.worker.journal.is_at_rest(&worker::task_names(&self.worker.hooks()))
    }

    /// Begins nothing new, gives what runs `grace` to end, then cancels it. What is not done stays
    /// in the journal for the next start.
    pub async fn stop(&self, grace: Duration) {
        let Some(mut task) = self.task.lock().take() else { return };
        self.phase.send_replace(Phase::Drain);
        if tokio::time::timeout(grace, &mut task).await.is_ok() {
            return;
        }
        self.phase.send_replace(Phase::Cancel);
        if tokio::time::timeout(CANCEL_TIMEOUT, &mut task).await.is_err() {
            tracing::warn!("hooks did not stop in time and are left behind");
            task.abort();
        }
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Cancel);
    }
}

/// Their tasks wait for the day the settings name them again; nothing else tells of them.
fn tell_of_unknown_hooks(journal: &Journal, hooks: &[Arc<Hook>]) -> Result<()> {
    let known = worker::task_names(hooks);
    for name in journal.hooks_with_tasks()?.iter().filter(|name| !known.contains(name)) {
        tracing::warn!("events wait for the hook \"{name}\", which the settings do not name any more");
    }
    Ok(())
}

fn make_directory(directory: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| Error::Start { what: directory.display().to_string(), cause: error.to_string() })
}

/// What a crash left. The journal's lock says that no other process works here.
fn clear(work: &Path) {
    for entry in std::fs::read_dir(work).into_iter().flatten().flatten() {
        if let Err(error) = workspace::remove(&entry.path()) {
            tracing::warn!("{}: can't be removed: {error}", entry.path().display());
        }
    }
}
