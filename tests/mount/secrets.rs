//! Secrets stay where they were given: mounts are given canaries, and every byte that they left is searched.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use memchr::memmem;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use s3mount::demo::{Fault, FaultKind};

use crate::assert_errno;
use crate::hooks_command::hooks;
use crate::stage::servers::Inside;
use crate::stage::{Maker, Mount, PATIENCE, Stage, process, sys, wait_for};

const SECRET_KEY: &str = "cAnArY-of-the-secret-key/0123456789+wXyZ";
const SESSION_TOKEN: &str = "cAnArY-of-the-session-token//9876543210==";
const HOOK_VALUE: &str = "cAnArY of a value in a hook's environment?";
const SSE_C_KEY: &[u8; 32] = b"cAnArY>of>the>customer>key?12345";

/// What must be nowhere.
const CANARIES: [(&str, &[u8]); 4] = [
    ("the secret key", SECRET_KEY.as_bytes()),
    ("the session token", SESSION_TOKEN.as_bytes()),
    ("a hook's env", HOOK_VALUE.as_bytes()),
    ("the customer's key", SSE_C_KEY),
];

/// Two hooks, one of which fails, each with a secret in its environment.
const MODULE: &str = "(module (memory (export \"memory\") 1) (func (export \"_start\") END))";

/// A canary as it may have been written: as it is, in hex, and in base64 wherever it begins in the text.
fn forms(canary: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![canary.to_vec(), hex::encode(canary).into_bytes(), hex::encode_upper(canary).into_bytes()];
    for before in 0..3 {
        let text = [&b"xxx"[..before], canary].concat();
        for encoded in [STANDARD.encode(&text), URL_SAFE.encode(&text)] {
            // What shares its bits with the bytes before and behind differs from place to place.
            let (from, to) = ((before * 8).div_ceil(6), text.len() * 8 / 6);
            forms.push(encoded.as_bytes()[from..to].to_vec());
        }
    }
    forms
}

/// Which canaries are in these bytes.
fn canaries_in(bytes: &[u8]) -> Vec<&'static str> {
    let holds = |form: &Vec<u8>| memmem::find(bytes, form).is_some();
    CANARIES.iter().filter(|(_, canary)| forms(canary).iter().any(holds)).map(|(name, _)| *name).collect()
}

#[test]
fn a_canary_is_found_however_it_is_written() {
    for (name, canary) in CANARIES {
        for length in 0..7 {
            let text = [&b"before!"[..length], canary, &b"behind!"[..length]].concat();
            let written =
                [STANDARD.encode(&text), URL_SAFE.encode(&text), hex::encode(&text), hex::encode_upper(&text)];
            let written = written.into_iter().map(String::into_bytes).chain([text]);
            for bytes in written {
                assert_eq!(canaries_in(&bytes), [name], "{}", String::from_utf8_lossy(&bytes));
            }
        }
    }
    assert_eq!(canaries_in(b"nothing of the kind"), [""; 0]);
}

/// `FILE: CANARY` for all that is found in files below a directory, and how many files there were.
fn search(dir: &Path) -> (BTreeSet<String>, usize) {
    let (mut found, mut searched) = (BTreeSet::new(), 0);
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if kind.is_dir() && !path.ends_with("mnt") {
                waiting.push(path);
            } else if kind.is_file() {
                searched += 1;
                let name = entry.file_name().to_string_lossy().into_owned();
                // A name is a place, too.
                let text = [name.as_bytes(), &fs::read(&path).unwrap()].concat();
                found.extend(canaries_in(&text).into_iter().map(|canary| format!("{name}: {canary}")));
            }
        }
    }
    (found, searched)
}

fn assert_none(what: &str, bytes: &[u8]) {
    assert!(!bytes.is_empty(), "{what} is empty");
    assert_eq!(canaries_in(bytes), [""; 0], "in {what}: {}", String::from_utf8_lossy(bytes));
}

/// Nothing but what the test itself wrote holds any of them.
fn assert_only_in(mount: &Mount, own: &str) {
    let (found, searched) = search(&mount.beside(""));
    assert_eq!(found, BTreeSet::from([own.to_owned()]));
    assert!(searched > 5, "only {searched} files: where is the state?");
    let (in_run_dir, _) = search(&s3mount::app::run_dir().unwrap());
    assert_eq!(in_run_dir, BTreeSet::new());
}

fn printed(command: &mut Command) -> Vec<u8> {
    let output = process::output(command, PATIENCE);
    [output.stdout, output.stderr].concat()
}

fn metrics(mount: &Mount) -> Vec<u8> {
    let address = mount.status()["metrics"].as_str().unwrap().to_owned();
    let mut stream = TcpStream::connect(&address).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    answer
}

/// All that people and programs are told.
fn assert_nothing_is_told(mount: &Mount) {
    let mountpoint = mount.path().to_string_lossy().into_owned();
    for words in [
        &["list"][..],
        &["list", "--json"],
        &["stats", "--json"],
        &["dead-letters", "list", "--json"],
        &["logs", "fails"],
        &["trace", &mount.at("in/a").to_string_lossy()],
    ] {
        let output = hooks(mount, words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        assert_none(&format!("hooks {words:?}"), &output.stdout);
    }
    for words in [&["status", &mountpoint][..], &["status", &mountpoint, "--json"]] {
        assert_none(&format!("{words:?}"), &printed(mount.command().args(words)));
    }
    assert_none("/metrics", &metrics(mount));
    assert_none("its command line", &fs::read(format!("/proc/{}/cmdline", mount.pid())).unwrap());
}

fn work(mount: &Mount, server: &Inside) {
    fs::create_dir(mount.at("in")).unwrap();
    fs::write(mount.at("in/a"), "fires both hooks").unwrap();
    fs::write(mount.at("large"), vec![b'l'; 17 << 20]).unwrap();
    fs::rename(mount.at("large"), mount.at("in/larger")).unwrap();
    sys::chmod(&mount.at("in/a"), 0o600).unwrap();
    assert_eq!(fs::read(mount.at("theirs")).unwrap(), b"read here");
    fs::remove_file(mount.at("theirs")).unwrap();
    mount.settle();

    let faults = server.server().faults();
    faults.add(Fault::once("PutObject", FaultKind::Status(403)));
    assert_errno!(
        fs::File::create(mount.at("refused")).and_then(|mut file| {
            file.write_all(b"x")?;
            sys::close(file)
        }),
        EACCES
    );
    faults.add(Fault::once("GetObject", FaultKind::ExpiredToken));
    assert_errno!(fs::read(mount.at("expired")), EACCES);
    wait_for("the hooks", PATIENCE, || {
        let hooks = &mount.status()["hooks"]["hooks"];
        let of = |name: &str| hooks.as_array().unwrap().iter().find(|hook| hook["name"] == name).unwrap().clone();
        (of("works")["invocations"].as_u64()? >= 1 && of("fails")["dead"].as_u64()? >= 1).then_some(())
    });
}

#[test]
fn secrets_are_in_nothing_that_a_mount_writes_or_says() {
    let server = Inside::start(SECRET_KEY);
    let stage = Stage::at(server.endpoint()).env("AWS_SESSION_TOKEN", SESSION_TOKEN).hooks("");
    let listen = ["--metrics-listen", "127.0.0.1:0", "--lambda-listen", "127.0.0.1:0"];
    let mut mount = stage.args(&["--log-level", "trace"]).args(&listen).prepare();
    let hook = |name: &str, end: &str| {
        fs::write(mount.beside(&format!("{name}.wat")), MODULE.replace("END", end)).unwrap();
        let rest = format!("match = [\"in/*\"]\noutput = \"out\"\nretries = 0\nenv = {{ SECRET = \"{HOOK_VALUE}\" }}");
        format!("[[hook]]\nname = \"{name}\"\nwasm = \"{name}.wat\"\n{rest}\n")
    };
    fs::write(mount.beside("hooks.toml"), hook("works", "") + &hook("fails", "unreachable")).unwrap();
    mount.outside().put("theirs", b"read here");
    mount.outside().put("expired", b"x");
    mount.start();
    work(&mount, &server);
    assert_nothing_is_told(&mount);

    // In the middle of a write, with a file that waits.
    let mut open = fs::File::create(mount.at("open")).unwrap();
    open.write_all(&vec![b'o'; 100_000]).unwrap();
    mount.kill();
    drop(open);
    assert_only_in(&mount, "hooks.toml: a hook's env");
    mount.start();
    fs::write(mount.at("in/b"), "after the crash").unwrap();
    mount.stop();

    // A server's refusal may repeat what was signed.
    let mut wrong = mount.command();
    wrong.env("AWS_SECRET_ACCESS_KEY", HOOK_VALUE).args(["--foreground", "--log-level", "trace"]);
    wrong.arg("--state-dir").arg(mount.beside("state")).arg("--cache-dir").arg(mount.beside("cache"));
    assert_none("a refusal", &printed(wrong.arg(mount.outside().bucket()).arg(mount.path())));
    assert!(mount.log().contains("DEBUG") && mount.log().contains("mounted"), "{}", mount.log());
    assert_only_in(&mount, "hooks.toml: a hook's env");
}

#[test]
fn a_customers_key_is_in_nothing_that_a_mount_writes_or_says() {
    let mut mount = Stage::on(Maker::Ministack).args(&["--log-level", "trace"]).prepare();
    let file = mount.beside("key");
    fs::write(&file, SSE_C_KEY).unwrap();
    mount.set_args(&["--log-level", "trace", "--sse-c-key-file", &file.to_string_lossy()]);
    mount.start();
    fs::write(mount.at("f"), "encrypted").unwrap();
    fs::rename(mount.at("f"), mount.at("g")).unwrap();
    mount.kill();
    mount.start();
    assert_eq!(fs::read(mount.at("g")).unwrap(), b"encrypted");
    let mountpoint = mount.path().to_string_lossy().into_owned();
    assert_none("status", &printed(mount.command().args(["status", &mountpoint, "--json"])));
    assert_none("its command line", &fs::read(format!("/proc/{}/cmdline", mount.pid())).unwrap());
    mount.stop();
    assert_only_in(&mount, "key: the customer's key");
}

#[test]
fn a_mount_that_crashes_leaves_no_core() {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    let mut command = mount.command();
    command.args(["--foreground", "--state-dir"]).arg(mount.beside("state"));
    command.arg("--cache-dir").arg(mount.beside("cache")).arg(mount.outside().bucket()).arg(mount.path());
    command.current_dir(mount.beside("")).stderr(fs::File::create(mount.beside("daemon.log")).unwrap());
    let (_, most) = getrlimit(Resource::RLIMIT_CORE).unwrap();
    // SAFETY: setrlimit is async-signal-safe and only reads what is given to it.
    unsafe {
        command.pre_exec(move || Ok(setrlimit(Resource::RLIMIT_CORE, most, most)?));
    }
    let mut daemon = process::spawn(command, Signal::SIGTERM);
    wait_for("the mount", PATIENCE, || crate::stage::is_mountpoint(mount.path()).then_some(()));
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let core: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
    let shown = |limit: u64| if limit == RLIM_INFINITY { "unlimited".to_owned() } else { limit.to_string() };
    assert_eq!(core, [shown(most.min(1)), shown(most)], "only the soft limit: prlimit(1) allows one");
    process::signal(daemon.id(), Signal::SIGABRT);
    let ended = process::wait(&mut daemon, PATIENCE).expect("its end");
    assert_eq!((ended.signal(), ended.core_dumped()), (Some(libc::SIGABRT), false));
    mount.start();
    mount.stop();
}
