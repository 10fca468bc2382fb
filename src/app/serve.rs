//! One mount from its start to its end.

use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use tokio::sync::mpsc;

use super::control;
use super::interrupts::Interrupts;
use super::metrics;
use super::otlp::Exporter;
use super::places::{self, Places};
use super::rooms::{self, FLUSH_DEADLINE, HOOK_GRACE, Rooms};
use super::running::{DRAIN_DEADLINE, Ended, Running};
use super::status::{Addresses, Facts};
use super::supervisor::Watch;
use super::{Failure, Ready};
use crate::bucket::client::Connection;
use crate::config::Config;
use crate::error::Kind;
use crate::hooks;
use crate::lambda;
use crate::mount::{self, MountSettings};
use crate::telemetry::{Log, printable};

/// Requests wait in the kernel's queue, not for our threads: these only take and hand over.
const FUSE_THREADS: usize = 4;
/// A start that has to store what the last mount left, or to compile hooks, takes longer.
const WORK_DEADLINE: Duration = Duration::from_mins(5);
/// In the state directory of the mount.
pub(super) const LOG_NAME: &str = "s3mount.log";

/// What there is to serve, and whom to tell.
pub(super) struct Job {
    pub config: Config,
    pub log: Log,
    pub ready: Ready,
    /// For stdout when the mount is usable.
    pub greeting: String,
    /// Stands for the endpoint in the name of the state, where that changes from start to start.
    pub state_key: Option<String>,
}

/// Runs `work` on a runtime, which is gone when this returns. Before any other thread is started.
pub(super) fn on_runtime<W>(work: W) -> Result<(), Failure>
where
    W: Future<Output = Result<(), Failure>>,
{
    umask(Mode::from_bits_truncate(0o077));
    raise_descriptor_limit();
    leave_no_core();
    let runtime = runtime()?;
    let outcome = runtime.block_on(work);
    // Whatever still runs has had its time.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|cause| Failure::new(Kind::Local, format!("cannot start threads: {cause}")))
}

/// Each open file can cost a descriptor, and so does each connection.
fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Credentials are in memory from now on, and a core file would keep them: also at services, which systemd
/// starts without any limit and ends by SIGABRT when their watchdog is not served. One byte, not none: where
/// cores are piped to a program the kernel passes over every limit but this one (`do_coredump` in fs/coredump.c).
///
/// Only the soft limit: who wants a core of a running mount says so with `prlimit --core=unlimited --pid PID`,
/// or takes one by gcore. `PR_SET_DUMPABLE` would forbid these as well, and give our files in /proc to root, which
/// keeps nobody out whom the user's own `~/.aws` does not let in.
fn leave_no_core() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_CORE) {
        let _ = setrlimit(Resource::RLIMIT_CORE, hard.min(1), hard);
    }
}

/// Mounts, says so, serves until the mount ends, and leaves everything in order. Who asked for the
/// end is told by [`Ended::conclude`].
pub(super) async fn serve(job: Job) -> Result<Ended, Failure> {
    let Job { config, log, mut ready, greeting, state_key } = job;
    // Before anything that an interrupt could leave half done.
    let mut interrupts = Interrupts::new()?;
    let mountpoint = mount::prepare(&config.mountpoint)?;
    places::refuse_on_mount(&config, &mountpoint)?;
    let hides_files = mount::hides_files(&mountpoint);
    let socket = places::socket_path(&places::run_dir()?, &mountpoint);
    let specs = config.hooks.as_deref().map(|file| hooks::load_for(file, &config.sources.bucket_name())).transpose()?;
    // Before anything that takes time: a port in use is told at once.
    let metrics = metrics::listen(config.metrics_listen).await?;
    let starting = async {
        let connection = connect(&config, &socket, state_key.as_deref()).await?;
        let places = Places::open(&config, &connection.layout, &mountpoint)?;
        let log_path = places.state.join(LOG_NAME);
        log.open(&log_path).map_err(|cause| local("open the log", &log_path, &cause))?;
        // The server answers; what can take longer now is work, not a failure.
        ready.extend(WORK_DEADLINE);
        let rooms = Rooms::open(&config, &places, connection, specs).await?;
        Ok::<_, Failure>((Arc::new(rooms), places))
    };
    let (rooms, places) = tokio::select! {
        started = starting => started?,
        () = interrupts.next() => return Err(Failure::new(Kind::Deadline, "interrupted before the mount was usable")),
    };
    let (order, orders) = mpsc::channel(1);
    let lambda = listen(&config, &rooms).await?;
    let addresses = Addresses {
        lambda: lambda.as_ref().map(lambda::Server::addr),
        metrics: metrics.as_ref().map(metrics::Listener::addr),
    };
    let facts = Arc::new(Facts::new(&config, &mountpoint, &places, Arc::clone(&rooms), addresses));
    let look = metrics::look_at_mount(&facts);
    let exporter = Exporter::start(config.collector.as_ref(), &facts.about(), &look);
    let control = {
        let facts = Arc::clone(&facts);
        control::Server::start(&socket, facts, order).await.map_err(|cause| local("listen at", &socket, &cause))?
    };
    let mounted = mount::mount(rooms.adapter(), &mount_settings(&config, mountpoint.clone()))?;
    rooms.attach(&mounted)?;
    let metrics = metrics.map(|listener| listener.serve(look));
    tracing::info!(source = %config.sources, mountpoint = %mountpoint.display(), "mounted");
    let in_foreground = !ready.is_background();
    if hides_files {
        tell_hidden(&mountpoint, in_foreground);
    }
    let watch = in_foreground.then(|| Watch::over(&mountpoint, DRAIN_DEADLINE + FLUSH_DEADLINE + HOOK_GRACE));
    let running = Running { facts, rooms: Arc::clone(&rooms), mounted, orders, interrupts, watch };
    let ended = running.until_end(ready.tell(greeting)).await;
    tracing::debug!("the kernel's session is over");
    drop(lambda);
    if let Some(metrics) = metrics {
        metrics.stop().await;
    }
    let telling = match exporter {
        Some(exporter) => Some(exporter.ending().await),
        None => None,
    };
    rooms.close().await;
    tracing::debug!("rooms closed");
    if let Some(telling) = telling {
        telling.send().await;
    }
    // The next mount of the same place may take over now, and only then the command is told.
    drop((rooms, control, places));
    Ok(ended)
}

/// As mount(8) it mounts over files all the same. The log of a mount in the foreground is the terminal.
fn tell_hidden(mountpoint: &Path, in_foreground: bool) {
    let told = format!("{} is not empty: what lies in it is hidden while it is mounted", mountpoint.display());
    tracing::warn!("{}", printable(&told));
    if !in_foreground {
        let _ = writeln!(std::io::stderr(), "s3mount: {}", printable(&told));
    }
}

/// The buckets. Of the root nothing is taken as known while the process before this one still stores something.
async fn connect(config: &Config, socket: &Path, state_key: Option<&str>) -> Result<Connection, Failure> {
    let is_awaited = control::is_served(socket);
    let mut connection = rooms::connect(config).await?;
    if is_awaited {
        connection.first_page = None;
    }
    if let Some(key) = state_key {
        connection.layout = connection.layout.served_as(key);
    }
    Ok(connection)
}

/// Lambda's API for the hooks, if it is wanted.
async fn listen(config: &Config, rooms: &Arc<Rooms>) -> Result<Option<lambda::Server>, Failure> {
    let Some(listen) = config.lambda_listen else { return Ok(None) };
    let rooms = Arc::clone(rooms);
    let region = rooms.connection.region.clone();
    let settings = lambda::Settings { listen, region, hooks: Arc::new(move || rooms.hooks.running()) };
    let server = lambda::Server::start(settings).await;
    server.map(Some).map_err(|cause| Failure::new(Kind::Usage, format!("cannot listen at {listen}: {cause}")))
}

fn mount_settings(config: &Config, mountpoint: PathBuf) -> MountSettings {
    MountSettings {
        mountpoint,
        source: config.sources.to_string(),
        read_only: config.read_only,
        allow_other: config.allow_other,
        no_exec: config.no_exec,
        threads: FUSE_THREADS,
    }
}

fn local(what: &str, path: &std::path::Path, cause: &std::io::Error) -> Failure {
    Failure::new(Kind::Local, format!("cannot {what} {}: {cause}", path.display()))
}
