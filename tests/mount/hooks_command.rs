//! `s3mount hooks …` on a live mount.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::assert_errno;
use crate::stage::{Maker, Mount, PATIENCE, Stage, process, sys, wait_for};

/// Writes `/out/result`, or says what a panic of Rust says and traps.
const GUEST: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "result")
  (data (i32.const 128) "WORDS")
  (func $write (param $fd i32) (param $from i32) (param $length i32)
    (i32.store (i32.const 0) (local.get $from))
    (i32.store (i32.const 4) (local.get $length))
    (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func (export "_start")
    (if (i32.const FAILS) (then (call $write (i32.const 2) (i32.const 128) (i32.const LENGTH)) unreachable))
    (drop (call $path_open (i32.const 5) (i32.const 0) (i32.const 64) (i32.const 6) (i32.const 1) (i64.const 0x400040)
      (i64.const 0) (i32.const 0) (i32.const 32)))
    (call $write (i32.load (i32.const 32)) (i32.const 64) (i32.const 6))))"#;

fn guest(fails: bool) -> String {
    let words = "\nthread 'main' panicked at src/main.rs:3:7:\nno luck\n";
    GUEST
        .replace("FAILS", if fails { "1" } else { "0" })
        .replace("LENGTH", &words.len().to_string())
        .replace("WORDS", &words.replace('\n', "\\n"))
}

/// A mount with the hook `h` for `in/*.txt`, output in `made/`, and what else is said of it.
fn mount_with(rest: &str, fails: bool) -> Mount {
    let mut mount = Stage::on(Maker::Embedded).hooks("").prepare();
    write_hook(&mount, rest, fails);
    mount.start();
    fs::create_dir(mount.at("in")).unwrap();
    mount
}

fn write_hook(mount: &Mount, rest: &str, fails: bool) {
    let wasm = mount.beside("guest.wat");
    fs::write(&wasm, guest(fails)).unwrap();
    let rule = "match = [\"in/*.txt\"]\noutput = \"made\"";
    fs::write(
        mount.beside("hooks.toml"),
        format!("[[hook]]\nname = \"h\"\nwasm = \"{}\"\n{rule}\n{rest}\n", wasm.display()),
    )
    .unwrap();
}

pub fn hooks(mount: &Mount, words: &[&str]) -> Output {
    // The current directory is that of the mount: no other mount of this user is meant.
    process::output(mount.command().current_dir(mount.path()).arg("hooks").args(words), PATIENCE)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn succeed(mount: &Mount, words: &[&str]) -> String {
    let output = hooks(mount, words);
    assert!(output.status.success(), "{words:?}: {output:?}\n{}", mount.log());
    said(&output)
}

/// It must end with this code and say why, with all of these words.
fn refused(mount: &Mount, words: &[&str], code: i32, parts: &[&str]) {
    let output = hooks(mount, words);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
    for part in parts {
        assert!(error.contains(part), "{part} is missing in {error}");
    }
}

pub fn json(mount: &Mount, words: &[&str]) -> Value {
    serde_json::from_str(&succeed(mount, words)).expect("JSON")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The one dead letter there is.
fn dead_letter(mount: &Mount) -> Value {
    let mut all = json(mount, &["dead-letters", "list", "--json"]);
    assert_eq!(all.as_array().unwrap().len(), 1, "{all}");
    all[0].take()
}

#[test]
fn a_dead_letter_is_shown_taken_back_and_delivered() {
    let mut mount = mount_with("retries = 0", true);
    fs::write(mount.at("in/a.txt"), "bytes").unwrap();
    refused(&mount, &["wait", text(&mount.at("in/a.txt"))], 70, &["no luck", "dead-letters show"]);
    let dead = dead_letter(&mount);
    let id = dead["id"].as_str().unwrap();
    assert_eq!((&dead["key"], &dead["hook"], &dead["attempts"]), (&"in/a.txt".into(), &"h".into(), &1.into()));
    assert!(succeed(&mount, &["dead-letters", "list"]).contains("no luck"));
    let shown = succeed(&mount, &["dead-letters", "show", id]);
    let again = format!("s3mount hooks invoke h --key {}", text(&mount.at("in/a.txt")));
    for part in [id, "panicked at src/main.rs:3:7: no luck", "Max Memory Used: 1 MB", "ObjectCreated:Put", &again] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
    // The journal keeps it, with what was said, and delivers it when the module is repaired.
    mount.stop();
    write_hook(&mount, "retries = 0", false);
    mount.start();
    assert_eq!(dead_letter(&mount), dead);
    assert_eq!(succeed(&mount, &["dead-letters", "redrive", id]), "1 delivered again\n");
    succeed(&mount, &["wait", text(&mount.at("in"))]);
    assert_eq!(mount.outside().bytes("made/result"), b"result");
    assert_eq!(json(&mount, &["dead-letters", "list", "--json"]), Value::Array(Vec::new()));
}

#[test]
fn dead_letters_are_chosen_by_id_hook_or_all_and_dropped() {
    let mount = mount_with("retries = 0", true);
    for name in ["a", "b", "c"] {
        fs::write(mount.at(&format!("in/{name}.txt")), name).unwrap();
    }
    refused(&mount, &["wait", text(mount.path())], 70, &["3 event(s) were given up"]);
    let all = json(&mount, &["dead-letters", "list", "--hook", "h", "--json"]);
    let id = all[0]["id"].as_str().unwrap();
    assert_eq!(json(&mount, &["dead-letters", "drop", id, "--json"])["count"], 1);
    refused(&mount, &["dead-letters", "drop", id], 66, &["no dead letter has the id", "dead-letters list"]);
    refused(&mount, &["dead-letters", "show", "none"], 66, &["no dead letter has the id none"]);
    refused(&mount, &["dead-letters", "redrive"], 64, &["--all"]);
    refused(&mount, &["dead-letters", "drop", "--all", id], 64, &["--all"]);
    assert_eq!(json(&mount, &["dead-letters", "redrive", "--hook", "other", "--json"])["count"], 0);
    assert_eq!(json(&mount, &["dead-letters", "redrive", "--hook", "h", "--json"])["count"], 2);
    refused(&mount, &["wait", text(mount.path())], 70, &["2 event(s) were given up"]);
    assert_eq!(json(&mount, &["stats", text(mount.path()), "--json"])[0]["hooks"]["hooks"][0]["invocations"], 5);
    assert_eq!(succeed(&mount, &["dead-letters", "drop", "--all"]), "2 dropped\n");
    assert_eq!(succeed(&mount, &["dead-letters", "list"]), "no dead letters\n");
}

#[test]
fn a_hook_is_run_once_on_an_object_and_publishes_unless_dry() {
    let mount = mount_with("", false);
    // No rule matches it, so that nothing but the command runs the hook.
    fs::write(mount.at("elsewhere"), "bytes").unwrap();
    let dry = succeed(&mount, &["invoke", "h", "--key", "elsewhere", "--dry-run"]);
    assert!(dry.contains("START RequestId: ") && dry.contains("not published: made/result (6 B)"), "{dry}");
    assert!(mount.outside().get("made/result").is_none());
    let ran = json(&mount, &["invoke", "h", "--key", text(&mount.at("elsewhere")), "--json"]);
    assert_eq!((&ran["published"], &ran["output"][0]["key"]), (&true.into(), &"made/result".into()));
    assert_eq!(mount.outside().bytes("made/result"), b"result");
    assert_eq!(fs::read(mount.at("made/result")).unwrap(), b"result");
    refused(&mount, &["invoke", "h", "--key", "missing"], 66, &["there is no object missing"]);
    refused(&mount, &["invoke", "x", "--key", "elsewhere"], 64, &["no hook has this name; there are h"]);
    refused(&mount, &["invoke", "h", "--key", "elsewhere", "--event", "x"], 64, &["ObjectRemoved:Delete"]);
}

#[test]
fn a_failing_run_says_why_and_ends_with_its_own_code() {
    let mount = mount_with("", true);
    fs::write(mount.at("elsewhere"), "bytes").unwrap();
    let output = hooks(&mount, &["invoke", "h", "--key", "elsewhere"]);
    assert_eq!(output.status.code(), Some(70), "{output:?}");
    assert!(said(&output).contains("no luck\n"), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("panicked at src/main.rs:3:7: no luck"), "{output:?}");
    assert_eq!(dead_letters(&mount), 0, "a run on demand is no delivery");
}

fn dead_letters(mount: &Mount) -> usize {
    json(mount, &["dead-letters", "list", "--json"]).as_array().unwrap().len()
}

#[test]
fn a_key_is_traced_through_rules_queue_dead_letters_and_log() {
    let mount = mount_with("retries = 1\nretry-delay = \"1h\"\nexclude = [\"in/not*\"]", true);
    for (key, why) in [
        ("in/not.txt", "exclude = \"in/not*\" fits it"),
        ("out/a.txt", "no pattern of match fits it: \"in/*.txt\""),
        ("in/never.txt", "fires for ObjectCreated:*"),
    ] {
        let trace = json(&mount, &["trace", key, "--json"]);
        assert_eq!(trace["hooks"][0]["why"], why);
        assert_eq!(trace["hooks"][0]["fires"], why.starts_with("fires"));
    }
    assert!(succeed(&mount, &["trace", "in/never.txt"]).contains("its log knows of no run"));

    fs::write(mount.at("in/a.txt"), "bytes").unwrap();
    let told = wait_for("the second try to be due", PATIENCE, || {
        let told = succeed(&mount, &["trace", text(&mount.at("in/a.txt"))]);
        (told.contains("to be tried again") && told.contains("no luck")).then_some(told)
    });
    assert!(told.contains("failed 1 times") && told.contains("REPORT RequestId: "), "{told}");
    // As a shell completes it, from beside the mount and from a directory in it.
    let above = mount.path().parent().unwrap();
    let from_above = format!("{}/in/never.txt", mount.path().file_name().unwrap().to_str().unwrap());
    for (place, path, key) in [(above, from_above.as_str(), "in/never.txt"), (&mount.at("in"), "a.txt", "in/a.txt")] {
        let told = process::output(mount.command().current_dir(place).args(["hooks", "trace", path]), PATIENCE);
        assert!(said(&told).starts_with(&format!("{key} on ")), "{told:?}");
    }
    refused(&mount, &["wait", text(&mount.at("in")), "--timeout", "100ms"], 75, &["not done yet", "hooks trace"]);
    succeed(&mount, &["wait", text(&mount.at("elsewhere")), "--timeout", "1m"]);
}

#[test]
fn a_file_tells_how_far_its_hooks_are() {
    let mut mount = mount_with("retries = 0", true);
    let told = |mount: &Mount, name: &str| {
        let told = sys::getxattr(&mount.at(name), "user.s3.hooks")?;
        Ok::<_, std::io::Error>(String::from_utf8(told).unwrap())
    };
    fs::write(mount.at("in/a.txt"), "bytes").unwrap();
    fs::write(mount.at("elsewhere"), "bytes").unwrap();
    refused(&mount, &["wait", text(mount.path())], 70, &["no luck"]);
    assert_eq!(told(&mount, "in/a.txt").unwrap(), "h:failed");
    assert_errno!(told(&mount, "elsewhere"), ENODATA);
    assert_errno!(told(&mount, "in"), ENODATA);
    assert_errno!(sys::setxattr(&mount.at("in/a.txt"), "user.s3.hooks", b"x", 0), EPERM);
    assert_eq!(sys::listxattr(&mount.at("in/a.txt")).unwrap(), Vec::<String>::new());
    // What is being written has everything before it.
    let mut open = fs::File::create(mount.at("in/a.txt")).unwrap();
    open.write_all(b"other bytes").unwrap();
    assert_eq!(told(&mount, "in/a.txt").unwrap(), "h:pending");
    // Repaired, and the first try of the new version is waited for.
    mount.outside().put("in/old.txt", b"of before");
    drop(open);
    refused(&mount, &["wait", text(mount.path())], 70, &["no luck"]);
    mount.stop();
    write_hook(&mount, "retries = 0", false);
    mount.start();
    assert_eq!(told(&mount, "in/old.txt").unwrap(), "h:unknown");
    assert_eq!(told(&mount, "in/a.txt").unwrap(), "h:failed");
    succeed(&mount, &["dead-letters", "redrive", "--all"]);
    succeed(&mount, &["wait", text(mount.path())]);
    assert_eq!(told(&mount, "in/a.txt").unwrap(), "h:done");
    fs::rename(mount.at("in/a.txt"), mount.at("in/b.txt")).unwrap();
    succeed(&mount, &["wait", text(mount.path())]);
    assert_eq!(told(&mount, "in/b.txt").unwrap(), "h:done");
}

#[test]
fn waiting_ends_when_the_hooks_of_a_path_are_done() {
    let mount = mount_with("", false);
    for number in 0..20 {
        fs::write(mount.at(&format!("in/{number}.txt")), "x").unwrap();
        fs::write(mount.at(&format!("in/empty-{number}.txt")), "").unwrap();
    }
    succeed(&mount, &["wait", text(&mount.at("in"))]);
    let stats = json(&mount, &["stats", text(mount.path()), "--json"]);
    let hook = &stats[0]["hooks"]["hooks"][0];
    assert_eq!((&hook["invocations"], &hook["queued"]), (&40.into(), &0.into()), "{hook}");
}

#[test]
fn waiting_covers_removals_and_what_write_back_has_left_to_be_sent() {
    let mut mount = Stage::on(Maker::Embedded).args(&["--write-back"]).hooks("").prepare();
    write_hook(&mount, "events = [\"ObjectCreated:*\", \"ObjectRemoved:*\"]", false);
    mount.start();
    fs::create_dir(mount.at("in")).unwrap();
    let runs = |wanted: u64| {
        succeed(&mount, &["wait", text(&mount.at("in"))]);
        let stats = json(&mount, &["stats", text(mount.path()), "--json"]);
        assert_eq!(stats[0]["hooks"]["hooks"][0]["invocations"], wanted);
    };
    fs::write(mount.at("in/a.txt"), "bytes").unwrap();
    runs(1);
    fs::remove_file(mount.at("in/a.txt")).unwrap();
    runs(2);
}

#[test]
fn a_log_is_printed_and_followed() {
    let mount = mount_with("", false);
    fs::write(mount.at("in/first.txt"), "x").unwrap();
    succeed(&mount, &["wait", text(&mount.at("in"))]);
    assert!(succeed(&mount, &["logs", "h"]).contains("Key: in/first.txt\n"));
    assert!(succeed(&mount, &["logs", "h", "-n", "1"]).starts_with("REPORT RequestId: "));
    refused(&mount, &["logs", "x"], 64, &["has no hook x", "it has: h"]);

    let mut command = mount.command();
    command.current_dir(mount.path()).args(["hooks", "logs", "h", "-f"]).stdout(Stdio::piped());
    let mut follower = process::spawn(command, Signal::SIGKILL);
    let out = follower.stdout.take().unwrap();
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        BufReader::new(out).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    let wait_line = |end: &str| loop {
        let line = lines.recv_timeout(PATIENCE).expect("a line in time");
        if line.ends_with(end) {
            break;
        }
    };
    wait_line("Key: in/first.txt");
    fs::write(mount.at("in/second.txt"), "x").unwrap();
    wait_line("Key: in/second.txt");
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn hooks_are_listed_with_their_rules_and_what_they_can_call() {
    let mount = mount_with("retries = 7\nenv = { SECRET = \"hush\" }", false);
    let told = succeed(&mount, &["list", text(mount.path())]);
    for part in ["in/*.txt", "made/", "wasi_snapshot_preview1 (fd_write, path_open)", "7, the first"] {
        assert!(told.contains(part), "{part} is missing in\n{told}");
    }
    assert!(told.contains("SECRET") && !told.contains("hush"));
    let listed = json(&mount, &["list", text(mount.path()), "--json"]);
    assert_eq!(listed[0]["hooks"][0]["retries"], 7);
    assert!(succeed(&mount, &["stats", text(mount.path())]).contains("0 failed"));
}

#[test]
fn a_mount_without_hooks_says_so() {
    let mount = Stage::on(Maker::Embedded).mount();
    for words in [vec!["dead-letters", "list"], vec!["trace", "a"], vec!["invoke", "h", "--key", "a"]] {
        refused(&mount, &words, 64, &["has no hooks", "--hooks FILE"]);
    }
    let elsewhere: PathBuf = mount.beside("nowhere");
    refused(&mount, &["list", text(&elsewhere)], 64, &["is not mounted"]);
}

#[test]
fn the_command_of_a_failure_runs_it_again() {
    let mount = mount_with("retries = 0", true);
    fs::write(mount.at("in/it's odd.txt"), "bytes").unwrap();
    refused(&mount, &["wait", text(&mount.at("in"))], 70, &["no luck"]);
    let again = dead_letter(&mount)["again"].as_str().unwrap().to_owned();
    let program = mount.command().get_program().to_owned();
    let words = again.strip_prefix("s3mount ").expect("the program first");
    let script = format!("{} {words}", program.display());
    let output = process::output(Command::new("bash").args(["-c", &script]), PATIENCE);
    assert_eq!(output.status.code(), Some(70), "{output:?}");
    assert!(said(&output).contains("Key: in/it\\'s odd.txt"), "{output:?}");
}
