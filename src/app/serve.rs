//! One mount from its start to its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::control::{self, Order, Replies, Reply};
use super::places::{self, Places};
use super::rooms::Rooms;
use super::{Failure, Left, Ready, Status};
use crate::config::Config;
use crate::error::Kind;
use crate::mount::{self, MountSettings, Mounted};
use crate::telemetry::{self, Log, printable};

/// How long dirty files are stored at the end; systemd kills 90 s after SIGTERM.
const DRAIN_DEADLINE: Duration = Duration::from_secs(60);
/// How long an unmount is tried again when something holds the mount: indexers let go soon.
const BUSY_DEADLINE: Duration = Duration::from_secs(2);
/// How long the kernel may take to end the session after the mount is gone.
const END_DEADLINE: Duration = Duration::from_secs(2);
/// Requests wait in the kernel's queue, not for our threads: these only take and hand over.
const FUSE_THREADS: usize = 4;

/// Serves a mount until it is unmounted. Says `ready`, with `greeting`, when it is usable.
pub(super) fn serve(config: &Config, log: &Log, ready: Ready, greeting: String) -> Result<(), Failure> {
    umask(Mode::from_bits_truncate(0o077));
    raise_descriptor_limit();
    let mountpoint = mount::prepare(&config.mountpoint)?;
    places::refuse_on_mount(config, &mountpoint)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|cause| Failure::new(Kind::Local, format!("cannot start threads: {cause}")))?;
    let outcome = runtime.block_on(Mount::run(config, log, mountpoint, ready, greeting));
    // Whatever still runs has had its time.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// Each open file can cost a descriptor, and so does each connection.
fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// A mount that is being served.
struct Mount {
    mountpoint: PathBuf,
    rooms: Arc<Rooms>,
    mounted: Mounted,
    orders: mpsc::Receiver<Order>,
    interrupts: Interrupts,
}

/// Why a mount ends.
enum End {
    /// SIGTERM or SIGINT.
    Interrupted,
    /// Somebody else unmounted it.
    Unmounted,
    /// `s3mount umount`, which waits for the outcome.
    Ordered(Replies),
}

impl Mount {
    async fn run(
        config: &Config,
        log: &Log,
        mountpoint: PathBuf,
        ready: Ready,
        greeting: String,
    ) -> Result<(), Failure> {
        // Before anything can be interrupted half done.
        let interrupts = Interrupts::new()?;
        let started = Instant::now();
        let endpoint = "";
        let places = Places::open(config, endpoint, &mountpoint)?;
        let log_path = places.state.join("s3mount.log");
        log.open(&log_path).map_err(|cause| {
            Failure::new(Kind::Local, format!("cannot open the log {}: {cause}", log_path.display()))
        })?;
        let rooms = Arc::new(Rooms::open(config, &places).await?);
        let (order, orders) = mpsc::channel(1);
        let control = {
            let path = places::socket_path(&places::run_dir()?, &mountpoint);
            let (rooms, config, mountpoint) = (Arc::clone(&rooms), config.clone(), mountpoint.clone());
            let status = move || status(&config, &mountpoint, &rooms, started);
            control::Server::start(&path, status, order)
                .map_err(|cause| Failure::new(Kind::Local, format!("cannot listen at {}: {cause}", path.display())))?
        };
        let settings = MountSettings {
            mountpoint: mountpoint.clone(),
            source: config.source.to_string(),
            read_only: config.read_only,
            allow_other: config.allow_other,
            no_exec: config.no_exec,
            threads: FUSE_THREADS,
        };
        let mounted = mount::mount(rooms.filesystem(), &settings)?;
        let mut mount = Self { mountpoint, rooms, mounted, orders, interrupts };
        tracing::info!(source = %config.source, mountpoint = %mount.mountpoint.display(), "mounted");
        let end = if ready.tell(greeting) { mount.until_end().await } else { End::Interrupted };
        let left = mount.finish(&end).await;
        drop(control);
        drop(mount);
        drop(places);
        conclude(end, left).await
    }

    async fn until_end(&mut self) -> End {
        loop {
            tokio::select! {
                () = self.interrupts.next() => return End::Interrupted,
                () = self.mounted.ended() => return End::Unmounted,
                Some(order) = self.orders.recv() => {
                    if let Some(end) = self.obey(order).await {
                        return end;
                    }
                }
            }
        }
    }

    /// Stores what is dirty while the mount still serves, then unmounts.
    async fn obey(&self, order: Order) -> Option<End> {
        let mut draining = std::pin::pin!(self.rooms.drain(DRAIN_DEADLINE));
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                _ = &mut draining => break,
                _ = tick.tick() => order.replies.mention(Reply::Storing { files: self.rooms.dirty_files() }),
            }
        }
        match self.unmount_when_free(order.lazy).await {
            Ok(()) => Some(End::Ordered(order.replies)),
            Err(error) => {
                order.replies.conclude(Reply::Refused(error.into())).await;
                None
            }
        }
    }

    async fn unmount_when_free(&self, lazy: bool) -> mount::Result<()> {
        let until = Instant::now() + BUSY_DEADLINE;
        loop {
            match tokio::task::block_in_place(|| self.mounted.unmount(lazy)) {
                Err(mount::Error::Busy(_)) if Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Takes the mount away, stores what is dirty, and returns what could not be stored.
    async fn finish(&mut self, end: &End) -> Vec<Left> {
        if matches!(end, End::Interrupted) {
            tracing::info!("asked to end: unmounting and storing what is dirty");
            if let Err(error) = tokio::task::block_in_place(|| self.mounted.unmount(true)) {
                tracing::error!("{error}");
            }
        }
        let rooms = Arc::clone(&self.rooms);
        let left = tokio::select! {
            left = rooms.drain(DRAIN_DEADLINE) => left,
            // The user does not want to wait: the next start resumes.
            () = self.interrupts.next() => rooms.drain(Duration::ZERO).await,
        };
        if !self.mounted.wait(END_DEADLINE).await {
            tracing::warn!("programs still have files open: they get ENOTCONN from now on");
        }
        left
    }
}

/// Tells whoever waits how it ended.
async fn conclude(end: End, left: Vec<Left>) -> Result<(), Failure> {
    for file in &left {
        tracing::error!("not stored: {} ({}); kept, the next mount tries again", printable(&file.path), file.cause);
    }
    let count = left.len();
    if let End::Ordered(replies) = end {
        replies.conclude(Reply::Unmounted { left }).await;
    }
    tracing::info!("ended");
    if count == 0 {
        return Ok(());
    }
    Err(Failure::new(Kind::Deadline, format!("{count} file(s) could not be stored"))
        .hint("they are kept: mount the bucket again at the same place, and they are stored"))
}

fn status(config: &Config, mountpoint: &Path, _rooms: &Rooms, started: Instant) -> Status {
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        bucket: config.source.bucket.clone(),
        prefix: config.source.prefix.clone(),
        endpoint: String::new(),
        region: String::new(),
        mountpoint: mountpoint.to_owned(),
        read_only: config.read_only,
        uptime_s: started.elapsed().as_secs(),
        requests: std::collections::BTreeMap::new(),
        bytes_received: 0,
        bytes_sent: 0,
        cache: serde_json::Value::Null,
        files: serde_json::Value::Null,
        hooks: serde_json::Value::Null,
        last_errors: telemetry::last_problems(),
        log: PathBuf::new(),
        state_dir: PathBuf::new(),
    }
}

/// SIGTERM and SIGINT. SIGHUP means that a terminal is gone, which is nothing to us.
struct Interrupts {
    terminate: Signal,
    interrupt: Signal,
    _hangup: Signal,
}

impl Interrupts {
    fn new() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|cause| Failure::new(Kind::Local, format!("cannot take signals: {cause}")));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            _hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
