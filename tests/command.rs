//! What the command says and how it ends when something is wrong, and that it ends well when not.
//!
//! The mounts are of the embedded server, which runs in a process of its own.

#[path = "command/doctor.rs"]
mod doctor;
#[path = "command/hooks.rs"]
mod hooks;
#[path = "command/pages.rs"]
mod pages;
#[path = "command/tls.rs"]
mod tls;
#[path = "command/words.rs"]
mod words;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Everything that goes wrong is said within this.
const TOLD_WITHIN: Duration = Duration::from_secs(15);
/// Longest wait of a test for something that should happen at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// The program, with nothing of this process's settings.
fn s3mount() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_s3mount"));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("AWS_") || name.starts_with("S3MOUNT_")) {
            command.env_remove(name);
        }
    }
    command
        .env("AWS_ACCESS_KEY_ID", "s3mount")
        .env("AWS_SECRET_ACCESS_KEY", "s3mount-demo")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .stdin(Stdio::null());
    command
}

/// Runs to the end, which must come in time.
fn run(command: &mut Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start s3mount");
    let until = Instant::now() + PATIENCE;
    while child.try_wait().expect("look at a child").is_none() {
        if Instant::now() > until {
            let _ = child.kill();
            panic!("{command:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("output of a child")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// It must end with this code and say so in one or two lines that hold all of `words`.
fn assert_refused(command: &mut Command, code: i32, words: &[&str]) {
    let begun = Instant::now();
    let output = run(command);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{said}");
    assert_eq!(text(&output.stdout), "", "{command:?}");
    assert!(begun.elapsed() < TOLD_WITHIN, "{command:?} took {:?}", begun.elapsed());
    assert!((1..=2).contains(&said.lines().count()), "{command:?}\n{said}");
    assert!(said.starts_with("s3mount: "), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is missing:\n{said}");
    }
}

fn assert_quiet(output: &Output) {
    assert!(output.status.success(), "{output:?}");
    assert_eq!((text(&output.stdout), text(&output.stderr)), (String::new(), String::new()));
}

fn is_mounted(path: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    table.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

/// A server process; ended with the test.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(data: &Path) -> Self {
        let mut child = s3mount()
            .args(["demo", "--server-only", "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the server");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the first line of the server");
        let url = line.trim().rsplit(' ').next().unwrap_or_default().to_owned();
        assert!(url.starts_with("http://127.0.0.1:"), "{line}");
        Self { child, url }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A scratch directory with a mountpoint; unmounted at the end whatever happens.
struct Stage {
    server: Server,
    mountpoint: PathBuf,
    dir: TempDir,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mountpoint = dir.path().canonicalize().expect("its real path").join("mnt");
        fs::create_dir(&mountpoint).expect("mountpoint");
        Self { server: Server::start(&dir.path().join("data")), mountpoint, dir }
    }

    /// The program with everything set but the command's own words.
    fn s3mount(&self) -> Command {
        let mut command = s3mount();
        command
            .env("S3MOUNT_ENDPOINT_URL", &self.server.url)
            .env("S3MOUNT_STATE_DIR", self.dir.path().join("state"))
            .env("S3MOUNT_CACHE_DIR", self.dir.path().join("cache"));
        command
    }

    fn mount_command(&self, words: &[&str]) -> Command {
        let mut command = self.s3mount();
        command.args(words).arg(&self.mountpoint);
        command
    }

    fn mount(&self, words: &[&str]) {
        assert_quiet(&run(&mut self.mount_command(words)));
        assert!(is_mounted(&self.mountpoint));
    }

    fn umount(&self) -> Output {
        run(s3mount().arg("umount").arg(&self.mountpoint))
    }

    fn status(&self) -> serde_json::Value {
        let output = run(s3mount().args(["status", "--json"]).arg(&self.mountpoint));
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("status prints JSON")
    }

    /// The process behind the mount.
    fn pid(&self) -> Pid {
        let pid = self.status()["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        Pid::from_raw(pid.expect("a process id"))
    }

    fn await_end_of(pid: Pid) {
        let until = Instant::now() + PATIENCE;
        // A zombie of ours it is not: its parent is long gone.
        while kill(pid, None).is_ok() {
            assert!(Instant::now() < until, "process {pid} does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if is_mounted(&self.mountpoint) {
            let _ = run(s3mount().args(["umount", "--lazy"]).arg(&self.mountpoint));
            let _ = umount2(&self.mountpoint, MntFlags::MNT_DETACH);
        }
    }
}

fn can_mount() -> bool {
    let can = nix::unistd::geteuid().is_root() && fs::File::open("/dev/fuse").is_ok();
    if !can {
        eprintln!("skipped: needs root and /dev/fuse");
    }
    can
}

#[test]
fn wrong_words_are_told_with_a_hint() {
    assert_refused(&mut s3mount(), 64, &["s3mount --help"]);
    assert_refused(s3mount().arg("bucket"), 64, &["MOUNTPOINT"]);
    assert_refused(s3mount().args(["bucket", "/mnt", "--regoin", "x"]), 64, &["--regoin", "'--region'"]);
    assert_refused(s3mount().args(["bucket", "/mnt", "--memory", "much"]), 64, &["much", "512M"]);
    assert_refused(s3mount().args(["bucket", "/mnt", "--umask", "999"]), 64, &["999", "octal"]);
    assert_refused(s3mount().args(["bucket", "/mnt", "--attr-ttl", "soon"]), 64, &["soon", "500ms"]);
    assert_refused(s3mount().args(["bucket", "/mnt", "-o", "iam_role=x"]), 64, &["iam_role=x"]);
    assert_refused(s3mount().args(["bucket", "/mnt", "--endpoint-url", "localhost:9000"]), 64, &["http://"]);
    assert_refused(s3mount().args(["bu cket", "/mnt"]), 64, &["bu cket", "s3://BUCKET"]);
    assert_refused(s3mount().args(["bucket/a/../b", "/mnt"]), 64, &["'..'"]);
    assert_refused(s3mount().args(["bucket", "/mnt"]).env("S3MOUNT_UID", "me"), 64, &["me", "--uid"]);
    assert_refused(s3mount().args(["demo", "--listen", "here"]), 64, &["here"]);
    assert_refused(s3mount().args(["demo", "--mbps-per-connection", "0"]), 64, &["0"]);
    assert_refused(s3mount().args(["status", "--yaml"]), 64, &["--yaml"]);
    assert_refused(s3mount().arg("gc"), 64, &["BUCKET"]);
    assert_refused(s3mount().args(["gc", "bucket", "--older-than", "long"]), 64, &["long", "5s"]);
    assert_refused(s3mount().args(["bucket", "/mnt"]).env("S3MOUNT_CRASH_AT", "x"), 64, &["x", "rename-copied"]);
}

#[test]
fn help_and_version_go_to_stdout() {
    for words in [&["--help"][..], &["--version"], &["demo", "--help"], &["umount", "--help"], &["status", "-h"]] {
        let output = run(s3mount().args(words));
        assert!(output.status.success() && !output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn every_option_is_in_the_help() {
    let help = text(&run(s3mount().arg("--help")).stdout);
    for option in [
        "endpoint-url",
        "region",
        "profile",
        "no-sign-request",
        "force-path-style",
        "read-only",
        "allow-other",
        "uid",
        "gid",
        "umask",
        "cache-dir",
        "cache-size",
        "state-dir",
        "memory",
        "attr-ttl",
        "list-ttl",
        "negative-ttl",
        "hooks",
        "config",
        "log-level",
        "log-format",
        "foreground",
    ] {
        assert!(help.contains(&format!("--{option}")), "--{option} is missing:\n{help}");
    }
    assert!(!help.contains("secret"), "credentials are no options");
}

#[test]
fn a_wrong_config_file_is_told_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s3mount.toml");
    let mount = |text: &str| {
        fs::write(&file, text).unwrap();
        let mut command = s3mount();
        command.arg("bucket").arg(dir.path()).arg("--config").arg(&file);
        command
    };
    assert_refused(&mut mount("region = 'r'\naccess-key = 'x'\n"), 64, &["line 2", "access-key"]);
    assert_refused(&mut mount("memory = 'much'\n"), 64, &["line 1", "much"]);
    assert_refused(&mut mount("region\n"), 64, &["line 1"]);
    assert_refused(s3mount().args(["bucket", "/mnt", "--config", "/no/such/file"]), 64, &["/no/such/file"]);
}

#[test]
fn a_mountpoint_that_cannot_be_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::write(root.join("file"), "").unwrap();
    fs::create_dir(root.join("mnt")).unwrap();
    symlink(root.join("mnt"), root.join("link")).unwrap();
    let mount = |mountpoint: &str| {
        let mut command = s3mount();
        command.arg("bucket").arg(root.join(mountpoint)).arg("--state-dir").arg(root.join("s"));
        command
    };
    assert_refused(&mut mount("none"), 64, &["does not exist", "mkdir -p"]);
    assert_refused(&mut mount("file"), 64, &["not a directory"]);
    assert_refused(&mut mount("/proc"), 64, &["already mounted"]);
    for option in ["--cache-dir", "--state-dir", "--hooks"] {
        assert_refused(mount("mnt").arg(option).arg(root.join("link/below")), 64, &[option, "wait for itself"]);
    }
}

#[test]
fn what_is_no_mount_cannot_be_unmounted_or_asked() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["umount", "status"] {
        assert_refused(s3mount().arg(command).arg(dir.path()), 64, &["is not mounted"]);
        assert_refused(s3mount().arg(command).arg(dir.path().join("none")), 64, &["is not mounted"]);
        assert_refused(s3mount().args([command, "/proc"]), 64, &["not of s3mount"]);
    }
}

#[test]
fn a_server_that_is_not_there_is_told_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let mount = |endpoint: String| {
        let mut command = s3mount();
        command.arg("bucket").arg(dir.path()).args(["--endpoint-url", &endpoint]);
        command.arg("--state-dir").arg(dir.path().join("../s3mount-unused"));
        command
    };
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_refused(&mut mount(format!("http://{closed}")), 68, &["cannot reach", &closed.to_string()]);
    // Accepts (the kernel does), and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_refused(&mut mount(format!("http://{}", silent.local_addr().unwrap())), 75, &["answer"]);
}

#[test]
fn no_bucket_no_access_and_no_credentials_are_told_apart() {
    let stage = Stage::new();
    assert_refused(&mut stage.mount_command(&["nothing-of-this-name"]), 66, &["nothing-of-this-name"]);
    let wrong = |command: &mut Command| command.env("AWS_SECRET_ACCESS_KEY", "wrong").status().unwrap().code();
    assert_eq!(wrong(stage.mount_command(&["s3://demo"]).stderr(Stdio::null())), Some(77));
    let mut without = stage.mount_command(&["s3://demo"]);
    without.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY").env("HOME", "/nonexistent");
    assert_refused(&mut without, 77, &["credentials", "--no-sign-request"]);
    assert!(!is_mounted(&stage.mountpoint));
}

#[test]
fn gc_tells_what_there_is_and_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    let gc = |words: &[&str]| {
        let mut command = s3mount();
        command.arg("gc").args(words).env("S3MOUNT_ENDPOINT_URL", &server.url);
        command
    };
    let said = |words: &[&str]| {
        let output = run(&mut gc(words));
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        text(&output.stdout)
    };
    assert_eq!(said(&["demo/some/where"]), "no incomplete uploads in s3://demo/some/where\n");
    assert_eq!(said(&["demo", "--json"]), "[]\n");
    assert_refused(&mut gc(&["nothing-of-this-name"]), 66, &["nothing-of-this-name"]);
    assert_refused(&mut gc(&["demo", "--endpoint-url", "http://127.0.0.1:1"]), 68, &["cannot reach"]);
    let help = text(&run(s3mount().args(["gc", "--help"])).stdout);
    assert!(help.contains("--older-than") && help.contains("--endpoint-url"), "{help}");
    assert!(!help.contains("--attr-ttl"), "{help}");
}

#[test]
fn a_wrong_hooks_file_keeps_the_mount_from_starting() {
    let stage = Stage::new();
    let file = stage.dir.path().join("hooks.toml");
    fs::write(&file, "[[hook]]\nname = 'h'\nwasm = 'none.wasm'\n").unwrap();
    let mut command = stage.mount_command(&["s3://demo", "--hooks", file.to_str().unwrap()]);
    assert_refused(&mut command, 64, &["none.wasm"]);
    assert!(!is_mounted(&stage.mountpoint));
}

#[test]
fn a_mount_is_usable_when_the_command_returns_and_gone_after_umount() {
    if !can_mount() {
        return;
    }
    let stage = Stage::new();
    stage.mount(&["s3://demo"]);
    fs::write(stage.mountpoint.join("file"), "bytes").unwrap();
    let shown = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = format!("s3://demo {} fuse.s3mount rw,nosuid,nodev", stage.mountpoint.display());
    assert!(shown.contains(&line), "{shown}");
    let pid = stage.pid();
    assert_quiet(&stage.umount());
    assert!(!is_mounted(&stage.mountpoint));
    Stage::await_end_of(pid);
    stage.mount(&["s3://demo/"]);
    assert_eq!(fs::read(stage.mountpoint.join("file")).unwrap(), b"bytes");
    assert_refused(&mut stage.mount_command(&["s3://demo"]), 64, &["already mounted", "s3mount umount"]);
}

#[test]
fn options_of_fstab_reach_the_kernel() {
    if !can_mount() {
        return;
    }
    let stage = Stage::new();
    stage.mount(&["s3://demo", "-o", "ro,noexec,allow_other,_netdev,nofail,x-systemd.automount,uid=1234,umask=077"]);
    let shown = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = shown.lines().find(|line| line.contains(stage.mountpoint.to_str().unwrap())).unwrap();
    for option in ["ro,", "noexec", "allow_other", "default_permissions"] {
        assert!(line.contains(option), "{option} is missing: {line}");
    }
    let error = fs::write(stage.mountpoint.join("file"), "").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    let root = fs::metadata(&stage.mountpoint).unwrap();
    assert_eq!((std::os::unix::fs::MetadataExt::uid(&root), root.permissions().mode() & 0o777), (1234, 0o700));
}

#[test]
fn status_tells_requests_and_files_to_programs_and_people() {
    if !can_mount() {
        return;
    }
    let stage = Stage::new();
    stage.mount(&["s3://demo/below"]);
    let before = stage.status();
    fs::write(stage.mountpoint.join("file"), "bytes").unwrap();
    let status = stage.status();
    let grown = |name: &str| status[name].as_u64().unwrap() - before[name].as_u64().unwrap();
    let puts = |status: &serde_json::Value| status["requests"]["PutObject"].as_u64().unwrap_or(0);
    assert_eq!(puts(&status) - puts(&before), 1, "{status}");
    assert_eq!(grown("bytes_sent"), 5, "{status}");
    assert_eq!(status["bucket"], "demo");
    assert_eq!(status["prefix"], "below/");
    assert_eq!(status["endpoint"], stage.server.url.as_str());
    assert_eq!(status["files"]["dirty_files"], serde_json::json!([]));
    assert!(status["hooks"].is_null());
    let all = run(s3mount().args(["status", "--json"]));
    let all: serde_json::Value = serde_json::from_slice(&all.stdout).unwrap();
    assert!(all.as_array().unwrap().iter().any(|one| one["pid"] == status["pid"]), "{all}");
    let people = text(&run(s3mount().arg("status").arg(&stage.mountpoint)).stdout);
    assert!(people.starts_with(&format!("s3://demo/below on {}\n", stage.mountpoint.display())), "{people}");
    assert!(people.contains(&format!("PutObject {}", puts(&status))), "{people}");
}

#[test]
fn a_busy_mount_is_not_taken_away_unless_asked_for() {
    if !can_mount() {
        return;
    }
    let stage = Stage::new();
    stage.mount(&["s3://demo"]);
    fs::write(stage.mountpoint.join("file"), "bytes").unwrap();
    let open = fs::File::open(stage.mountpoint.join("file")).unwrap();
    assert_refused(s3mount().arg("umount").arg(&stage.mountpoint), 69, &["is busy", "--lazy"]);
    assert!(is_mounted(&stage.mountpoint));
    assert_quiet(&run(s3mount().args(["umount", "--lazy"]).arg(&stage.mountpoint)));
    assert!(!is_mounted(&stage.mountpoint));
    drop(open);
}

#[test]
fn signals_and_umount8_end_the_process_too() {
    if !can_mount() {
        return;
    }
    let stage = Stage::new();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        stage.mount(&["s3://demo"]);
        let pid = stage.pid();
        kill(pid, signal).unwrap();
        Stage::await_end_of(pid);
        assert!(!is_mounted(&stage.mountpoint), "{signal}");
    }
    stage.mount(&["s3://demo"]);
    let pid = stage.pid();
    nix::mount::umount(&stage.mountpoint).unwrap();
    Stage::await_end_of(pid);
}

#[test]
fn a_killed_mount_is_cleaned_up_by_the_next_or_by_umount() {
    if !can_mount() {
        return;
    }
    let stage = Stage::new();
    let kill_it = || {
        let pid = stage.pid();
        kill(pid, Signal::SIGKILL).unwrap();
        Stage::await_end_of(pid);
        assert!(is_mounted(&stage.mountpoint));
        assert_refused(s3mount().arg("status").arg(&stage.mountpoint), 74, &["is gone", "s3mount umount"]);
    };
    stage.mount(&["s3://demo"]);
    kill_it();
    stage.mount(&["s3://demo"]);
    assert!(fs::read_dir(&stage.mountpoint).is_ok());
    kill_it();
    assert_quiet(&stage.umount());
    assert!(!is_mounted(&stage.mountpoint));
}

#[test]
fn what_cannot_be_stored_is_listed_and_stored_by_the_next_mount() {
    if !can_mount() {
        return;
    }
    let mut stage = Stage::new();
    let address = stage.server.url.trim_start_matches("http://").to_owned();
    stage.mount(&["s3://demo"]);
    // A descriptor that is never closed: dirty until the end.
    let mut open = fs::File::create(stage.mountpoint.join("kept")).unwrap();
    std::io::Write::write_all(&mut open, b"not lost").unwrap();
    stage.server.child.kill().unwrap();
    stage.server.child.wait().unwrap();
    let mut umount = s3mount();
    let umount = umount.args(["umount", "--lazy"]).arg(&stage.mountpoint).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = umount.spawn().unwrap().wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(75), "{said}");
    assert!(said.contains("not stored: kept: "), "{said}");
    assert!(!is_mounted(&stage.mountpoint));
    drop(open);
    let data = stage.dir.path().join("data");
    let mut again = s3mount();
    again.args(["demo", "--server-only", "--listen", &address, "--data"]).arg(data).stdout(Stdio::piped());
    stage.server.child = again.spawn().unwrap();
    BufReader::new(stage.server.child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    stage.mount(&["s3://demo"]);
    assert_eq!(fs::read(stage.mountpoint.join("kept")).unwrap(), b"not lost");
}

#[test]
fn state_and_log_are_private_and_hold_no_secret() {
    if !can_mount() {
        return;
    }
    let stage = Stage::new();
    let mut command = stage.mount_command(&["s3://demo", "--log-level", "trace"]);
    assert_quiet(&run(&mut command));
    fs::write(stage.mountpoint.join("new\nline"), "x").unwrap();
    assert_quiet(&stage.umount());
    let of_mount = fs::read_dir(stage.dir.path().join("state")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs::metadata(&of_mount).unwrap().permissions().mode() & 0o777, 0o700);
    let log = of_mount.join("s3mount.log");
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    let log = fs::read_to_string(&log).unwrap();
    assert!(log.contains("mounted"), "{log}");
    assert!(!log.contains("s3mount-demo") && !log.contains("Signature="), "a secret is in the log");
    let year = |line: &str| line.starts_with("20");
    assert!(log.lines().all(year), "a name broke a line");
}

#[test]
fn the_demo_comes_up_mounted_and_leaves_nothing() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = s3mount();
    command.arg("demo").arg(dir.path().join("mnt")).env("TMPDIR", dir.path()).env("AWS_PROFILE", "of-the-user");
    let output = run(&mut command);
    assert!(output.status.success(), "{output:?}");
    let said = text(&output.stdout);
    assert!(said.contains("s3mount umount"), "{said}");
    let mountpoint = dir.path().canonicalize().unwrap().join("mnt");
    fs::write(mountpoint.join("uploads/file"), "x").unwrap();
    assert!(mountpoint.join("photos").is_dir());
    assert_quiet(&run(s3mount().arg("umount").arg(&mountpoint)));
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["mnt"]);
}
