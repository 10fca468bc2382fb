//! The command itself: mounting in the background, fstab's words, status, and bad input.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::stage::{Maker, Mount, PATIENCE, Stage, is_mountpoint, process, servers, sys, wait_for};

/// A mount in the background, as users make it; unmounted at the end also when the test fails.
struct Background {
    beside: Mount,
}

impl Background {
    fn new() -> Self {
        Self { beside: Stage::on(Maker::Embedded).prepare() }
    }

    fn path(&self) -> &Path {
        self.beside.path()
    }

    /// `s3mount ARGS… BUCKET MOUNTPOINT`, with directories of its own.
    fn mount(&self, args: &[&str]) -> Output {
        let mut command = self.beside.command();
        command.args(args).arg(self.beside.outside().bucket()).arg(self.path());
        command.env("S3MOUNT_STATE_DIR", self.beside.beside("state"));
        command.env("S3MOUNT_CACHE_DIR", self.beside.beside("cache"));
        process::output(&mut command, PATIENCE)
    }

    fn umount(&self) -> Output {
        process::output(self.beside.command().arg("umount").arg(self.path()), PATIENCE)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if is_mountpoint(self.path()) {
            let _ = process::output(self.beside.command().args(["umount", "--lazy"]).arg(self.path()), PATIENCE);
        }
        while is_mountpoint(self.path()) && sys::umount_lazily(self.path()).is_ok() {}
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn it_returns_silently_once_the_mount_is_usable() {
    let background = Background::new();
    let output = background.mount(&[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output), "");
    fs::write(background.path().join("f"), "x").unwrap();
    assert_eq!(background.beside.outside().bytes("f"), b"x");
    let output = background.umount();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output), "");
    assert!(!is_mountpoint(background.path()));
}

#[test]
fn the_words_of_fstab_are_accepted() {
    let background = Background::new();
    let options = "rw,allow_other,uid=1200,gid=1300,umask=027,noauto,_netdev,nofail,x-systemd.automount,user,dev,suid";
    let output = background.mount(&["-o", options]);
    assert!(output.status.success() && text(&output).is_empty(), "{output:?}");
    let table = fs::read_to_string("/proc/mounts").unwrap();
    let line = table.lines().find(|line| line.contains(&*background.path().to_string_lossy())).unwrap();
    assert!(line.contains(" fuse.s3mount ") && line.contains(background.beside.outside().bucket()), "{line}");
    background.beside.outside().put("f", b"x");
    let meta = wait_for("the object", PATIENCE, || fs::metadata(background.path().join("f")).ok());
    assert_eq!(meta.permissions().mode() & 0o777, 0o640);
}

#[test]
fn mount8_calls_it_by_its_type() {
    let background = Background::new();
    let bin = background.beside.beside("bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_s3mount"), bin.join("s3mount")).unwrap();
    let endpoint = background.beside.endpoint();
    let dirs = ["state", "cache"].map(|name| background.beside.beside(name).display().to_string());
    let options = format!("rw,noauto,endpoint_url={},state_dir={},cache_dir={}", endpoint.url, dirs[0], dirs[1]);
    let mut command = background.beside.command();
    let envs: Vec<_> =
        command.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
    command = Command::new("mount.fuse3");
    command.arg(background.beside.outside().bucket()).arg(background.path()).args([
        "-t",
        "fuse.s3mount",
        "-o",
        &options,
    ]);
    for (name, value) in envs {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env_remove("S3MOUNT_ENDPOINT_URL");
    command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    let output = process::output(&mut command, PATIENCE);
    assert!(output.status.success(), "{output:?}");
    assert!(is_mountpoint(background.path()));
    fs::write(background.path().join("f"), "x").unwrap();
}

#[test]
fn an_s3_url_and_a_prefix_are_accepted() {
    let background = Background::new();
    background.beside.outside().put("photos/2024/a.jpg", b"x");
    let source = format!("s3://{}/photos/2024/", background.beside.outside().bucket());
    let mut command = background.beside.command();
    command.arg(source).arg(background.path()).env("S3MOUNT_STATE_DIR", background.beside.beside("state"));
    command.env("S3MOUNT_CACHE_DIR", background.beside.beside("cache"));
    assert!(process::output(&mut command, PATIENCE).status.success());
    assert_eq!(fs::read(background.path().join("a.jpg")).unwrap(), b"x");
}

#[test]
fn a_config_file_says_the_same_and_unknown_keys_are_errors() {
    let background = Background::new();
    let file = background.beside.beside("config.toml");
    fs::write(&file, "read-only = true\nattr-ttl = \"2s\"\n").unwrap();
    let output = background.mount(&["--config", &file.to_string_lossy()]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::write(background.path().join("f"), "x").unwrap_err().raw_os_error(), Some(libc::EROFS));
    background.umount();
    fs::write(&file, "read-olny = true\n").unwrap();
    let output = background.mount(&["--config", &file.to_string_lossy()]);
    assert!(!output.status.success() && text(&output).contains("read-olny"), "{output:?}");
}

#[test]
fn sigterm_and_sigint_store_what_is_dirty_and_end_with_zero() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut mount = Stage::on(Maker::Embedded).mount();
        // A new file that is still empty is stored by its last close: this one is still open.
        let file = fs::File::create(mount.at("dirty")).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"not closed yet", 0).unwrap();
        mount.signal(signal);
        let status = mount.wait_end(PATIENCE * 2);
        assert!(status.success(), "{status:?}\n{}", mount.log());
        assert!(!is_mountpoint(mount.path()));
        assert_eq!(mount.outside().bytes("dirty"), b"not closed yet");
        drop(file);
    }
}

#[test]
fn umount_says_who_is_in_the_way_and_leaves_the_mount_usable() {
    let mut mount = Stage::on(Maker::Embedded).mount();
    fs::write(mount.at("f"), "x").unwrap();
    let held = fs::File::open(mount.at("f")).unwrap();
    let output = process::output(mount.command().arg("umount").arg(mount.path()), PATIENCE);
    assert!(!output.status.success(), "{output:?}");
    assert!(text(&output).to_lowercase().contains("use"), "{output:?}");
    assert_eq!(fs::read(mount.at("f")).unwrap(), b"x");
    drop(held);
    mount.stop();
}

#[test]
fn umount_of_what_is_no_mount_is_an_error() {
    let scratch = tempfile::tempdir().unwrap();
    let output =
        process::output(Command::new(env!("CARGO_BIN_EXE_s3mount")).arg("umount").arg(scratch.path()), PATIENCE);
    assert!(!output.status.success() && !text(&output).is_empty(), "{output:?}");
}

#[test]
fn status_tells_version_bucket_endpoint_requests_and_dirty_files() {
    let mount = Stage::on(Maker::Embedded).mount();
    fs::write(mount.at("f"), "x").unwrap();
    fs::read(mount.at("f")).unwrap();
    let status = mount.status();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["bucket"], mount.outside().bucket());
    assert!(status["endpoint"].as_str().unwrap().contains(&mount.endpoint().url), "{status}");
    assert_eq!(status["pid"], mount.pid());
    assert!(status["requests"]["PutObject"].as_u64() >= Some(1), "{status}");
    assert!(status["uptime_s"].is_u64() && status["bytes_sent"].as_u64() >= Some(1), "{status}");
    assert_eq!(status["files"]["dirty_files"], serde_json::json!([]));
    let open = fs::File::create(mount.at("dirty")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&open, b"x", 0).unwrap();
    assert_eq!(mount.status()["files"]["dirty_files"], serde_json::json!(["dirty"]));
    let words = process::run(mount.command().arg("status").arg(mount.path()));
    assert!(words.contains(mount.outside().bucket()) && words.contains("dirty"), "{words}");
}

#[test]
fn state_and_cache_are_private_and_no_secret_is_told() {
    let mount = Stage::on(Maker::Embedded).args(&["--log-level", "debug"]).mount();
    fs::write(mount.at("f"), "x").unwrap();
    process::run(Command::new("chmod").arg("755").arg(mount.path()));
    let open = "find state cache ! -type l -perm /077 -print";
    assert_eq!(process::bash(mount.beside("state").parent().unwrap(), open), "");
    let secret = mount.endpoint().secret;
    assert!(!mount.log().contains(secret));
    let told = process::run(mount.command().arg("status").arg("--json").arg(mount.path()));
    assert!(!told.contains(secret));
    let argv = fs::read(format!("/proc/{}/cmdline", mount.pid())).unwrap();
    assert!(!String::from_utf8_lossy(&argv).contains(secret));
    let kept =
        process::bash(mount.beside("state").parent().unwrap(), &format!("grep -rl -- '{secret}' state cache || true"));
    assert_eq!(kept, "");
}

#[test]
fn state_or_cache_on_the_mount_itself_is_refused() {
    let background = Background::new();
    let inside = background.path().join("state");
    let output = background.mount(&["--state-dir", &inside.to_string_lossy()]);
    assert!(!output.status.success(), "{output:?}");
    assert!(text(&output).contains("state"), "{output:?}");
    assert!(!is_mountpoint(background.path()));
}

#[test]
fn a_user_without_rights_mounts_through_fusermount3() {
    const NOBODY: u32 = 65_534;
    let mount = Stage::on(Maker::Embedded).prepare();
    let program = mount.beside("s3mount");
    fs::copy(env!("CARGO_BIN_EXE_s3mount"), &program).unwrap();
    let home = mount.beside("home");
    fs::create_dir_all(home.join("mnt")).unwrap();
    process::run(Command::new("chown").args(["-R", "65534:65534"]).arg(&home));
    let as_nobody = |args: &[&str]| {
        let told = mount.command();
        let mut command = Command::new(&program);
        for (name, value) in told.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.args(args).uid(NOBODY).gid(NOBODY).current_dir("/").env("HOME", &home);
        // What it would else make in /tmp stays there.
        command.env("XDG_RUNTIME_DIR", &home).env_remove("XDG_STATE_HOME").env_remove("XDG_CACHE_HOME");
        process::output(&mut command, PATIENCE)
    };
    let mountpoint = home.join("mnt").to_string_lossy().into_owned();
    let output = as_nobody(&[mount.outside().bucket(), &mountpoint]);
    assert!(output.status.success() && text(&output).is_empty(), "{output:?}");
    let shell = format!("echo hello > {mountpoint}/f && cat {mountpoint}/f && stat -c %u {mountpoint}/f");
    let mut sh = Command::new("sh");
    let done = process::output(sh.args(["-c", &shell]).uid(NOBODY).gid(NOBODY).current_dir("/"), PATIENCE);
    let output = as_nobody(&["umount", &mountpoint]);
    assert_eq!(text(&done), "hello\n65534\n");
    assert!(output.status.success(), "{output:?}");
    assert!(!is_mountpoint(&home.join("mnt")));
    assert_eq!(mount.outside().bytes("f"), b"hello\n");
}

/// A wrong call: what is wrong with it, its words and environment, and what has to be in the answer.
struct Wrong {
    why: &'static str,
    args: Vec<String>,
    env: Vec<(&'static str, String)>,
    told: &'static str,
}

fn wrong(why: &'static str, args: &[&str], told: &'static str) -> Wrong {
    Wrong { why, args: args.iter().map(ToString::to_string).collect(), env: Vec::new(), told }
}

fn wrong_calls(mount: &Mount, free: &Path) -> Vec<Wrong> {
    let bucket = mount.outside().bucket();
    let at = free.to_string_lossy().into_owned();
    let file = free.join("../a-file");
    fs::write(&file, "x").unwrap();
    let bad_toml = free.join("../bad.toml");
    fs::write(&bad_toml, "this is = = no toml").unwrap();
    let bad_hooks = free.join("../hooks.toml");
    fs::write(&bad_hooks, "[[hook]]\nname = \"h\"\nwasm = \"/nowhere/h.wasm\"\nevents = [\"s3:ObjectCreated:*\"]\n")
        .unwrap();
    let [file, bad_toml, bad_hooks] =
        [file, bad_toml, bad_hooks].map(|path: PathBuf| path.to_string_lossy().into_owned());
    let mut calls = vec![
        wrong("nothing said", &[], "mountpoint"),
        wrong("no mountpoint", &[bucket], "mountpoint"),
        wrong("no such bucket", &["no-such-bucket-here", &at], "no-such-bucket-here"),
        wrong("no bucket name", &["Not_A_Bucket!", &at], "Not_A_Bucket!"),
        wrong("an empty bucket name", &["", &at], "bucket"),
        wrong("a missing mountpoint", &[bucket, "/no/such/dir"], "/no/such/dir"),
        wrong("a mountpoint that is a file", &[bucket, &file], "a-file"),
        wrong("a mountpoint that is busy", &[bucket, &mount.path().to_string_lossy()], "mount"),
        wrong("an unknown flag", &["--regoin", "x", bucket, &at], "--region"),
        wrong("a size that is none", &["--memory", "lots", bucket, &at], "lots"),
        wrong("a time that is none", &["--attr-ttl", "soon", bucket, &at], "soon"),
        wrong("a mask that is none", &["--umask", "999", bucket, &at], "999"),
        wrong("an owner that is none", &["--uid", "root", bucket, &at], "root"),
        wrong("a missing config file", &["--config", "/no/such/file", bucket, &at], "/no/such/file"),
        wrong("a config file that is none", &["--config", &bad_toml, bucket, &at], "bad.toml"),
        wrong("a missing hooks file", &["--hooks", "/no/hooks.toml", bucket, &at], "/no/hooks.toml"),
        wrong("a hook without its module", &["--hooks", &bad_hooks, bucket, &at], "h.wasm"),
        wrong("an endpoint that is no URL", &["--endpoint-url", "not a url", bucket, &at], "not a url"),
        wrong("an endpoint where nobody is", &["--endpoint-url", "http://127.0.0.1:9", bucket, &at], "127.0.0.1:9"),
        wrong(
            "an endpoint that no DNS knows",
            &["--endpoint-url", "http://nowhere.invalid", bucket, &at],
            "nowhere.invalid",
        ),
        wrong("a prefix with dots", &[&format!("{bucket}/a/../b"), &at], ".."),
        wrong("an unknown command's flag", &["umount"], "mountpoint"),
        wrong("a status of no mount", &["status", &at], "mount"),
        wrong("a profile that is not there", &["--profile", "no-such-profile", bucket, &at], "no-such-profile"),
    ];
    let mut keyless = wrong("a wrong key", &[bucket, &at], "s3mount");
    keyless.env.push(("AWS_ACCESS_KEY_ID", "nobody".into()));
    calls.push(keyless);
    let mut secret = wrong("a wrong secret", &[bucket, &at], "s3mount");
    secret.env.push(("AWS_SECRET_ACCESS_KEY", "wrong".into()));
    calls.push(secret);
    calls
}

/// Bad input of every kind: one or two lines, an exit code, within 15 s, and nothing left behind.
#[test]
fn bad_input_is_told_in_two_lines_within_15_seconds() {
    let mount = Stage::on(Maker::Embedded).mount();
    let free = mount.beside("free");
    fs::create_dir(&free).unwrap();
    let mut complaints = Vec::new();
    for call in wrong_calls(&mount, &free) {
        let mut command = mount.command();
        command.args(&call.args).envs(call.env.iter().cloned()).env("HOME", mount.beside("home"));
        command.env("S3MOUNT_STATE_DIR", mount.beside("state2")).env("S3MOUNT_CACHE_DIR", mount.beside("cache2"));
        let begun = Instant::now();
        let output = process::output(&mut command, PATIENCE * 2);
        let (took, said) = (begun.elapsed(), text(&output));
        let lines = said.lines().count();
        let fine = output.status.code().is_some_and(|code| code != 0)
            && (1..=3).contains(&lines)
            && said.to_lowercase().contains(&call.told.to_lowercase())
            && !said.contains("panicked")
            && took < Duration::from_secs(15);
        if !fine || is_mountpoint(&free) {
            complaints.push(format!(
                "{} ({:?}): {:?} after {took:?}:\n{said}",
                call.why,
                call.args,
                output.status.code()
            ));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn no_credentials_at_all_is_told() {
    let mount = Stage::on(Maker::Embedded).prepare();
    let mut command = mount.command();
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY").env("HOME", mount.beside("nowhere"));
    command.env("AWS_CONFIG_FILE", "/dev/null").env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    command.arg(mount.outside().bucket()).arg(mount.path());
    command.env("S3MOUNT_STATE_DIR", mount.beside("state")).env("S3MOUNT_CACHE_DIR", mount.beside("cache"));
    let output = process::output(&mut command, PATIENCE);
    assert!(!output.status.success() && text(&output).to_lowercase().contains("credentials"), "{output:?}");
}

#[test]
fn a_server_that_never_answers_is_told_within_15_seconds() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mount = Stage::on(Maker::Embedded).prepare();
    let begun = Instant::now();
    let mut command = mount.command();
    command.args(["--endpoint-url", &url, "some-bucket"]).arg(mount.path());
    command.env("S3MOUNT_STATE_DIR", mount.beside("state")).env("S3MOUNT_CACHE_DIR", mount.beside("cache"));
    let output = process::output(&mut command, PATIENCE * 2);
    assert!(!output.status.success() && !text(&output).is_empty(), "{output:?}");
    assert!(begun.elapsed() < Duration::from_secs(16), "{:?}", begun.elapsed());
}

#[test]
fn demo_serves_a_bucket_to_any_client() {
    let server = servers::Server::embedded(&[]);
    let outside = crate::stage::Outside::new(&server.endpoint()).with_bucket("demo");
    outside.put("hello", b"world");
    assert_eq!(outside.bytes("hello"), b"world");
}

#[test]
fn help_and_version_are_printed() {
    for (flag, told) in [("--help", "MOUNTPOINT"), ("--version", env!("CARGO_PKG_VERSION"))] {
        let output = process::output(Command::new(env!("CARGO_BIN_EXE_s3mount")).arg(flag), PATIENCE);
        assert!(output.status.success() && text(&output).contains(told), "{output:?}");
    }
}
