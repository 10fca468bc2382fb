//! The stage that every test plays on: S3 servers, fresh buckets, real mounts, and their clean-up.
//!
//! With `S3MOUNT_TEST_DIR=/some/dir` the purely POSIX tests run on a plain directory there instead
//! of a mount: what they expect must hold on the local file system too. With
//! `S3MOUNT_TEST_SERVER=ministack` (or `seaweedfs`) everything that asks for the shared embedded
//! server gets that one instead; with `S3MOUNT_TEST_BUCKETS=directory` every bucket is a directory
//! bucket, which only the embedded server has.

pub mod collector;
pub mod ledger;
pub mod outside;
pub mod process;
pub mod servers;
pub mod small_disk;
pub mod sys;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use s3mount::failpoint;
use tempfile::TempDir;

pub use outside::Outside;
pub use servers::{Endpoint, Maker};
pub use small_disk::SmallDisk;

/// Longest wait for anything here. Generous: the machine may be busy, and waits end when the
/// condition holds.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Longest life of one mount: a file system that hangs would hang its test, and the test the run.
const LONGEST_LIFE: Duration = Duration::from_mins(25);

/// Waits until `condition` answers something; panics with `what` when it does not in time.
pub fn wait_for<T>(what: &str, patience: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begun.elapsed() < patience, "waited {patience:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A small generator: the same numbers in every run.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// A bucket name that no other test of this or an earlier run has.
pub fn fresh_bucket_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let is_directory = std::env::var("S3MOUNT_TEST_BUCKETS").is_ok_and(|kind| kind == "directory");
    let ending = if is_directory { DIRECTORY_BUCKET } else { "" };
    format!("t-{}-{number}{ending}", std::process::id())
}

/// What names of directory buckets end in.
const DIRECTORY_BUCKET: &str = "--local--x-s3";

/// A directory to do POSIX things in: a mount of its own, or a plain directory for comparison.
pub enum Place {
    Mounted(Box<Mount>),
    Plain(TempDir),
}

/// The usual place: a fresh bucket of the embedded server, mounted.
pub fn place() -> Place {
    place_with(&[])
}

/// The usual place, mounted with further options.
pub fn place_with(args: &[&str]) -> Place {
    plain().unwrap_or_else(|| Place::Mounted(Box::new(Stage::on(Maker::Embedded).args(args).mount())))
}

/// A place on a server of one's choice.
pub fn place_on(maker: Maker) -> Place {
    plain().unwrap_or_else(|| Place::Mounted(Box::new(Stage::on(maker).mount())))
}

fn plain() -> Option<Place> {
    let dir = std::env::var_os("S3MOUNT_TEST_DIR")?;
    Some(Place::Plain(tempfile::Builder::new().prefix("plain-").tempdir_in(dir).expect("plain directory")))
}

impl Place {
    /// The directory itself.
    pub fn path(&self) -> &Path {
        match self {
            Self::Mounted(mount) => mount.path(),
            Self::Plain(dir) => dir.path(),
        }
    }

    /// A path inside.
    pub fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Unmounts and mounts again, in a new process that knows only the bucket and its own state
    /// directory; nothing on a plain directory.
    pub fn remount(&mut self) {
        if let Self::Mounted(mount) = self {
            mount.remount();
        }
    }

    /// Mounts again on another machine, so to speak: with empty state and cache directories.
    pub fn remount_elsewhere(&mut self) {
        if let Self::Mounted(mount) = self {
            mount.stop();
            mount.forget_state();
            mount.start();
        }
    }

    pub fn is_mounted(&self) -> bool {
        matches!(self, Self::Mounted(_))
    }
}

/// What a mount is to look like.
pub struct Stage {
    endpoint: Endpoint,
    prefix: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    hooks: Option<String>,
    is_directory_bucket: bool,
}

impl Stage {
    /// A mount of a fresh bucket on the shared server of that maker.
    pub fn on(maker: Maker) -> Self {
        assert!(std::env::var_os("S3MOUNT_TEST_DIR").is_none(), "this test needs a real mount");
        Self::at(servers::shared(maker))
    }

    /// A mount of a fresh bucket at an endpoint.
    pub fn at(endpoint: Endpoint) -> Self {
        let (prefix, args, env) = (String::new(), Vec::new(), Vec::new());
        Self { endpoint, prefix, args, env, hooks: None, is_directory_bucket: false }
    }

    /// Of a bucket like those of S3 Express One Zone.
    pub fn directory_bucket(self) -> Self {
        Self { is_directory_bucket: true, ..self }
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(ToString::to_string));
        self
    }

    /// A variable in the environment of the daemon and of every command.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.prefix);
        self
    }

    /// The text of a hooks file.
    pub fn hooks(mut self, toml: &str) -> Self {
        self.hooks = Some(toml.to_owned());
        self
    }

    /// Makes the bucket and mounts it; panics with the daemon's log when that fails.
    pub fn mount(self) -> Mount {
        let mut mount = self.prepare();
        mount.start();
        mount
    }

    /// Everything but the mount itself.
    pub fn prepare(self) -> Mount {
        let scratch = scratch();
        let outside = Outside::new(&self.endpoint);
        let mut bucket = fresh_bucket_name();
        if self.is_directory_bucket && !bucket.ends_with(DIRECTORY_BUCKET) {
            bucket.push_str(DIRECTORY_BUCKET);
        }
        outside.create_bucket(&bucket);
        let mut args = self.args;
        if let Some(toml) = &self.hooks {
            let file = scratch.path().join("hooks.toml");
            fs::write(&file, toml).expect("hooks file");
            args.extend(["--hooks".to_owned(), file.to_string_lossy().into_owned()]);
        }
        let source = if self.prefix.is_empty() { bucket.clone() } else { format!("{bucket}/{}", self.prefix) };
        Mount {
            endpoint: self.endpoint,
            outside: outside.with_bucket(&bucket),
            source,
            args,
            env: self.env,
            mountpoint: scratch.path().join("mnt"),
            scratch: Some(scratch),
            daemon: None,
            watchdog: None,
        }
    }
}

fn scratch() -> TempDir {
    let scratch = tempfile::Builder::new().prefix("s3mount-test-").tempdir().expect("temporary directory");
    // Other users have to get through to the mount, which sits inside.
    sys::chmod(scratch.path(), 0o711).expect("chmod of the temporary directory");
    fs::create_dir(scratch.path().join("mnt")).expect("mountpoint");
    scratch
}

/// A real mount by the real binary, in the foreground of a process of its own.
pub struct Mount {
    endpoint: Endpoint,
    outside: Outside,
    source: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    mountpoint: PathBuf,
    scratch: Option<TempDir>,
    daemon: Option<Child>,
    /// Kills the daemon at the end of its longest life, unless dropped before.
    watchdog: Option<Sender<()>>,
}

impl Mount {
    /// A mount of the same bucket on another machine, so to speak; not started yet.
    pub fn elsewhere(&self) -> Self {
        let scratch = scratch();
        Self {
            endpoint: self.endpoint.clone(),
            outside: self.outside.clone(),
            source: self.source.clone(),
            args: self.args.clone(),
            env: self.env.clone(),
            mountpoint: scratch.path().join("mnt"),
            scratch: Some(scratch),
            daemon: None,
            watchdog: None,
        }
    }

    /// The mounted directory.
    pub fn path(&self) -> &Path {
        &self.mountpoint
    }

    /// A path inside the mount.
    pub fn at(&self, name: &str) -> PathBuf {
        self.mountpoint.join(name)
    }

    /// The server behind it.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The bucket as another client sees it.
    pub fn outside(&self) -> &Outside {
        &self.outside
    }

    /// A file or directory beside the mount, for the test's own use.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.scratch.as_ref().expect("the scratch directory lives as long as the mount").path().join(name)
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("the daemon runs").id()
    }

    /// True while the daemon has not exited.
    pub fn is_alive(&mut self) -> bool {
        self.daemon.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// `s3mount` with the credentials and endpoint of this mount in its environment.
    pub fn command(&self) -> Command {
        let mut command = s3mount(&self.endpoint);
        command.envs(self.env.iter().cloned());
        command
    }

    /// The words after `s3mount` that make this mount.
    fn mount_words(&self) -> Vec<String> {
        let path = |name: &str| self.beside(name).to_string_lossy().into_owned();
        let mut words = vec!["--foreground".to_owned()];
        words.extend(["--state-dir".into(), path("state"), "--cache-dir".into(), path("cache")]);
        words.extend(self.args.iter().cloned());
        if !self.source.is_empty() {
            words.extend([self.source.clone(), self.mountpoint.to_string_lossy().into_owned()]);
        }
        words
    }

    fn log_path(&self) -> PathBuf {
        self.beside("daemon.log")
    }

    /// All that the daemon has printed so far, over all its starts.
    pub fn log(&self) -> String {
        fs::read(self.log_path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Something else to mount at the next start; nothing: a file among the options says it.
    pub fn set_source(&mut self, source: &str) {
        source.clone_into(&mut self.source);
    }

    /// Other options for the next start.
    pub fn set_args(&mut self, args: &[&str]) {
        self.args = args.iter().map(ToString::to_string).collect();
    }

    /// Mounts; waits until the mount is usable.
    pub fn start(&mut self) {
        self.spawn();
        wait_for("the mount", PATIENCE, || {
            let status = self.daemon.as_mut().expect("just spawned").try_wait().expect("wait for the daemon");
            assert!(status.is_none(), "s3mount ended with {status:?}:\n{}", self.log());
            is_served(&self.mountpoint).then_some(())
        });
    }

    /// From the next start on the daemon dies at this point (`NAME` or `NAME:TIMES`), or at none.
    pub fn crash_at(&mut self, point: Option<&str>) {
        self.env.retain(|(name, _)| name != failpoint::VARIABLE);
        self.env.extend(point.map(|point| (failpoint::VARIABLE.to_owned(), point.to_owned())));
    }

    /// Mounts, or dies on the way: then answers how.
    pub fn start_unless_it_dies(&mut self) -> Option<ExitStatus> {
        self.spawn();
        wait_for("the mount or its death", PATIENCE, || {
            let ended = self.daemon.as_mut().expect("just spawned").try_wait().expect("wait for the daemon");
            if ended.is_some() {
                (self.daemon, self.watchdog) = (None, None);
                return Some(ended);
            }
            is_served(&self.mountpoint).then_some(None)
        })
    }

    /// Bytes that the mount kept because somebody else had written their key.
    pub fn conflicts(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut waiting = vec![self.beside("state")];
        while let Some(dir) = waiting.pop() {
            for path in fs::read_dir(dir).into_iter().flatten().map(|entry| entry.expect("state directory").path()) {
                match path.extension() {
                    _ if path.is_dir() => waiting.push(path),
                    Some(ending) if ending == "conflict" => found.push(path),
                    _ => {}
                }
            }
        }
        found
    }

    /// Starts the daemon without waiting for the mount.
    pub fn spawn(&mut self) {
        assert!(self.daemon.is_none(), "already mounted");
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_path()).expect("log file");
        let mut command = self.command();
        command.args(self.mount_words()).stdout(log.try_clone().expect("log file")).stderr(log);
        let daemon = process::spawn(command, Signal::SIGTERM);
        self.watchdog = Some(watch(daemon.id()));
        self.daemon = Some(daemon);
    }

    /// `s3mount umount MOUNTPOINT`; answers what the command said, after the daemon has ended.
    pub fn umount(&mut self) -> (Output, ExitStatus) {
        let output = process::output(self.command().arg("umount").arg(&self.mountpoint), PATIENCE * 2);
        let status = self.wait_end(PATIENCE * 2);
        (output, status)
    }

    /// Unmounts cleanly or panics.
    pub fn stop(&mut self) {
        let (output, status) = self.umount();
        assert!(output.status.success(), "umount failed: {output:?}\n{}", self.log());
        assert!(status.success(), "the daemon ended with {status:?}\n{}", self.log());
        assert!(!is_mountpoint(&self.mountpoint), "still mounted after umount");
    }

    /// Waits for the daemon's end and answers its exit status.
    pub fn wait_end(&mut self, patience: Duration) -> ExitStatus {
        let mut child = self.daemon.take().expect("the daemon runs");
        self.watchdog = None;
        process::wait(&mut child, patience).unwrap_or_else(|| {
            let log = self.log();
            self.daemon = Some(child);
            panic!("the daemon still runs after {patience:?}:\n{log}")
        })
    }

    /// `kill -9`; the dead mount stays for the next start to clean.
    pub fn kill(&mut self) {
        let mut child = self.daemon.take().expect("the daemon runs");
        self.watchdog = None;
        child.kill().expect("kill the daemon");
        child.wait().expect("reap the daemon");
    }

    /// Sends a signal to the daemon.
    pub fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    /// Unmounts, mounts again.
    pub fn remount(&mut self) {
        self.stop();
        self.start();
    }

    /// fsync of the mounted directory: what was removed is gone from the bucket when this returns.
    pub fn settle(&self) {
        fs::File::open(&self.mountpoint).and_then(|root| root.sync_all()).expect("fsync of a directory");
    }

    /// Deletes the daemon's state and cache, as if the next mount were on another machine.
    pub fn forget_state(&self) {
        for name in ["state", "cache"] {
            fs::remove_dir_all(self.beside(name)).expect("delete the state");
        }
    }

    /// `s3mount status MOUNTPOINT --json`.
    pub fn status(&self) -> serde_json::Value {
        let output = process::output(self.command().arg("status").arg(&self.mountpoint).arg("--json"), PATIENCE);
        assert!(output.status.success(), "status failed: {output:?}");
        serde_json::from_slice(&output.stdout).expect("status prints JSON")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        self.watchdog = None;
        let ended = self.daemon.take().map_or(Some(ExitStatus::default()), |mut child| {
            process::signal(child.id(), Signal::SIGTERM);
            process::wait(&mut child, PATIENCE).or_else(|| {
                let _ = child.kill();
                let _ = child.wait();
                None
            })
        });
        let left = is_mountpoint(&self.mountpoint);
        while is_mountpoint(&self.mountpoint) && sys::umount_lazily(&self.mountpoint).is_ok() {}
        if failed {
            let log = self.log();
            let tail = log.char_indices().rev().nth(6000).map_or(0, |(at, _)| at);
            eprintln!("--- log of s3mount {}:\n{}", self.source, &log[tail..]);
            return;
        }
        let log = self.log();
        assert!(ended.is_some_and(|status| status.success()), "SIGTERM did not end it well: {ended:?}\n{log}");
        assert!(!left, "still mounted after the daemon's end\n{log}");
    }
}

/// Kills a process that outlives [`LONGEST_LIFE`] (`S3MOUNT_TEST_LIFE_S` for other lengths): calls
/// that hang in its mount then fail, and say so.
fn watch(pid: u32) -> Sender<()> {
    let (alive, end) = channel::<()>();
    let life_s = std::env::var("S3MOUNT_TEST_LIFE_S").ok().and_then(|text| text.parse().ok());
    let life = life_s.map_or(LONGEST_LIFE, Duration::from_secs);
    std::thread::spawn(move || {
        if end.recv_timeout(life) == Err(RecvTimeoutError::Timeout) {
            eprintln!("killing s3mount {pid}: its test hangs, or takes longer than {life:?}");
            process::signal(pid, Signal::SIGKILL);
        }
    });
    alive
}

/// `s3mount` with the environment that reaches an endpoint, and nothing else of this process's AWS
/// or s3mount settings.
pub fn s3mount(endpoint: &Endpoint) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_s3mount"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("AWS_") || name.starts_with("S3MOUNT_") {
            command.env_remove(name.as_ref());
        }
    }
    command.env("AWS_ACCESS_KEY_ID", endpoint.access_key).env("AWS_SECRET_ACCESS_KEY", endpoint.secret);
    command.env("AWS_REGION", "us-east-1").env("AWS_EC2_METADATA_DISABLED", "true");
    command.env("S3MOUNT_ENDPOINT_URL", &endpoint.url).env("NO_COLOR", "1");
    command.process_group(0);
    command
}

/// Whether something is mounted at `path`, by the kernel's own list (a dead mount counts too).
pub fn is_mountpoint(path: &Path) -> bool {
    let wanted = path.to_string_lossy();
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    table.lines().filter_map(|line| line.split(' ').nth(4)).any(|field| field == wanted)
}

/// Whether a daemon answers at `path`, in one call: between two the mount that a killed daemon left
/// may have gone, and what is below it answers. statfs always goes to the daemon; a stat of a dead
/// mount may be answered from memory.
fn is_served(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|stat| stat.filesystem_type() == nix::sys::statfs::FUSE_SUPER_MAGIC)
}

/// Asserts that a call failed with this errno.
#[macro_export]
macro_rules! assert_errno {
    ($call:expr, $errno:ident) => {
        match $call {
            Ok(_) => panic!("{} succeeded, expected {}", stringify!($call), stringify!($errno)),
            Err(error) => {
                let error: std::io::Error = error.into();
                assert_eq!(
                    error.raw_os_error(),
                    Some(libc::$errno),
                    "{}: {error}, expected {}",
                    stringify!($call),
                    stringify!($errno)
                );
            }
        }
    };
}
