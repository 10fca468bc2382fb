//! Synchronous hooks: asked before a close, a rename or an unlink reaches the bucket.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::assert_errno;
use crate::stage::{Maker, Mount, PATIENCE, Stage, process, sys, wait_for};

/// Allows files that begin with `{`; `L` never ends, `T` traps, all else is refused. Things with `keep`
/// in their name stay.
const GUEST: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 2)
  (data (i32.const 64) "\"input\":\"/in/")
  (data (i32.const 96) "keep")
  (data (i32.const 128) "veto: EINVAL no JSON\n")
  (data (i32.const 192) "veto: EACCES it stays\n")
  (func $read (param $fd i32) (param $to i32) (param $most i32) (result i32)
    (i32.store (i32.const 0) (local.get $to))
    (i32.store (i32.const 4) (local.get $most))
    (drop (call $fd_read (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.load (i32.const 8)))
  (func $veto (param $words i32) (param $length i32)
    (i32.store (i32.const 0) (local.get $words))
    (i32.store (i32.const 4) (local.get $length))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    (call $exit (i32.const 77)))
  ;; Where the event has these words; 0 if it does not.
  (func $find (param $words i32) (param $length i32) (result i32)
    (local $at i32) (local $same i32)
    (local.set $at (i32.const 4096))
    (loop $next
      (local.set $same (i32.const 0))
      (block $differs
        (loop $compare
          (br_if $differs (i32.ne
            (i32.load8_u (i32.add (local.get $at) (local.get $same)))
            (i32.load8_u (i32.add (local.get $words) (local.get $same)))))
          (local.set $same (i32.add (local.get $same) (i32.const 1)))
          (br_if $compare (i32.lt_u (local.get $same) (local.get $length))))
        (return (local.get $at)))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $at) (i32.const 65536))))
    (i32.const 0))
  (func (export "_start")
    (local $path i32) (local $end i32) (local $first i32)
    (local.set $end (i32.const 4096))
    (loop $more
      (local.set $first (call $read (i32.const 0) (local.get $end) (i32.const 16384)))
      (local.set $end (i32.add (local.get $end) (local.get $first)))
      (br_if $more (local.get $first)))
    (local.set $path (call $find (i32.const 64) (i32.const 13)))
    (if (i32.eqz (local.get $path)) (then
      (if (call $find (i32.const 96) (i32.const 4)) (then (call $veto (i32.const 192) (i32.const 22))))
      (return)))
    (local.set $path (i32.add (local.get $path) (i32.const 13)))
    (local.set $end (local.get $path))
    (loop $further
      (local.set $end (i32.add (local.get $end) (i32.const 1)))
      (br_if $further (i32.ne (i32.load8_u (local.get $end)) (i32.const 34))))
    (if (call $path_open (i32.const 3) (i32.const 0) (local.get $path) (i32.sub (local.get $end) (local.get $path))
      (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 32)) (then unreachable))
    (local.set $end (call $read (i32.load (i32.const 32)) (i32.const 70000) (i32.const 1)))
    (local.set $first (select (i32.load8_u (i32.const 70000)) (i32.const 0) (local.get $end)))
    (if (i32.eq (local.get $first) (i32.const 123)) (then (return)))
    (if (i32.eq (local.get $first) (i32.const 84)) (then unreachable))
    (if (i32.eq (local.get $first) (i32.const 76)) (then (loop $for_ever (br $for_ever))))
    (call $veto (i32.const 128) (i32.const 21))))"#;

/// A mount with `in/` guarded by `json`; where it fails in `in/may/`, that is let through.
fn mount(args: &[&str]) -> Mount {
    let mut mount = Stage::on(Maker::Embedded).args(args).hooks("").prepare();
    let wasm = mount.beside("guest.wat");
    fs::write(&wasm, GUEST).unwrap();
    let hook = |name: &str, rest: &str| {
        let events = "events = [\"ObjectCreated:*\", \"ObjectRemoved:*\"]\ntimeout = \"1s\"\nmode = \"sync\"";
        format!("[[hook]]\nname = \"{name}\"\nwasm = \"{}\"\n{events}\n{rest}\n", wasm.display())
    };
    let lenient = hook("lenient", "match = [\"in/may/*\"]\non-error = \"allow\"");
    let hooks = hook("json", "match = [\"in/**\"]\nexclude = [\"in/may/*\"]") + &lenient;
    fs::write(mount.beside("hooks.toml"), hooks).unwrap();
    mount.start();
    fs::create_dir_all(mount.at("in/may")).unwrap();
    fs::write(mount.beside("bad.json"), "no json at all").unwrap();
    fs::write(mount.beside("good.json"), "{}").unwrap();
    mount
}

fn hooks(mount: &Mount, words: &[&str]) -> String {
    let output = process::output(mount.command().current_dir(mount.path()).arg("hooks").args(words), PATIENCE);
    assert!(output.status.success(), "{words:?}: {output:?}\n{}", mount.log());
    String::from_utf8(output.stdout).unwrap()
}

fn json(mount: &Mount, words: &[&str]) -> Value {
    serde_json::from_str(&hooks(mount, words)).expect("JSON")
}

fn cp(mount: &Mount, from: &str, to: &str) -> Output {
    process::output(Command::new("cp").env("LC_ALL", "C").arg(mount.beside(from)).arg(mount.at(to)), PATIENCE)
}

fn write_and_close(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(bytes)?;
    sys::close(file)
}

fn hook(mount: &Mount, number: usize) -> Value {
    mount.status()["hooks"]["hooks"][number].clone()
}

/// The close is told, and after it the last of the file goes: that is not waited for by anybody.
fn until_gone(mount: &Mount, name: &str) {
    wait_for("the refused file to go", PATIENCE, || (!mount.at(name).exists()).then_some(()));
}

#[test]
fn a_refused_file_fails_its_cp_and_is_not_in_the_bucket() {
    let mount = mount(&[]);
    let refused = cp(&mount, "bad.json", "in/");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Invalid argument"), "{refused:?}");
    assert!(mount.outside().get("in/bad.json").is_none());
    until_gone(&mount, "in/bad.json");
    let trace = hooks(&mount, &["trace", "in/bad.json"]);
    for part in
        ["is asked before ObjectCreated:*", "REFUSED RequestId: ", "Errno: EINVAL  no JSON", "REPORT RequestId: "]
    {
        assert!(trace.contains(part), "{part} is missing in\n{trace}");
    }
    let kept = json(&mount, &["rejected", "list", "--json"]);
    assert_eq!((&kept[0]["key"], &kept[0]["by"]), (&"in/bad.json".into(), &"json".into()), "{kept}");
    assert_eq!(fs::read(kept[0]["path"].as_str().unwrap()).unwrap(), b"no json at all");
    assert!(hooks(&mount, &["rejected", "list"]).contains("EINVAL, by json: no JSON"));

    // The version that is there stays, and is what the mount shows.
    assert!(cp(&mount, "good.json", "in/bad.json").status.success());
    assert_eq!(mount.outside().bytes("in/bad.json"), b"{}");
    assert_eq!(cp(&mount, "bad.json", "in/bad.json").status.code(), Some(1));
    assert_eq!(mount.outside().bytes("in/bad.json"), b"{}");
    wait_for("the old version", PATIENCE, || (fs::read(mount.at("in/bad.json")).ok()? == b"{}").then_some(()));
    let counted = hook(&mount, 0);
    assert_eq!((&counted["invocations"], &counted["refused"], &counted["errors"]), (&3.into(), &2.into(), &0.into()));
    assert_eq!(mount.status()["files"]["rejected"], 2);
    let id = kept[0]["id"].as_str().unwrap();
    assert_eq!(json(&mount, &["rejected", "drop", id, "--json"])["count"], 1);
    assert_eq!(hooks(&mount, &["rejected", "drop", "--all"]), "1 dropped\n");
    assert_eq!(hooks(&mount, &["rejected", "list"]), "nothing was refused\n");
}

#[test]
fn a_rename_or_an_unlink_can_be_refused_and_changes_nothing() {
    let mount = mount(&[]);
    assert!(cp(&mount, "good.json", "in/keep.json").status.success());
    assert!(cp(&mount, "bad.json", "x").status.success());
    assert_errno!(fs::remove_file(mount.at("in/keep.json")), EACCES);
    assert_errno!(fs::rename(mount.at("in/keep.json"), mount.at("y")), EACCES);
    assert_errno!(fs::rename(mount.at("x"), mount.at("in/x")), EINVAL);
    assert_errno!(fs::rename(mount.at("in"), mount.at("out")), EACCES);
    mount.settle();
    assert_eq!(mount.outside().keys(""), ["in/", "in/keep.json", "in/may/", "x"]);
    assert_eq!(fs::read(mount.at("in/keep.json")).unwrap(), b"{}");
    assert!(hooks(&mount, &["trace", "in/keep.json"]).contains("Errno: EACCES  it stays"));
    assert_eq!(json(&mount, &["rejected", "list", "--json"]).as_array().unwrap().len(), 0, "nothing is to be kept");

    fs::rename(mount.at("in/keep.json"), mount.at("in/may/a")).expect_err("it would leave its place");
    assert!(cp(&mount, "good.json", "in/a").status.success());
    fs::rename(mount.at("in/a"), mount.at("in/b")).unwrap();
    fs::remove_file(mount.at("in/b")).unwrap();
}

#[test]
fn a_hook_that_fails_denies_or_allows_as_it_is_told() {
    let mount = mount(&[]);
    for (first, problem) in [("T", "unreachable"), ("L", "timed out after 1.00 seconds")] {
        assert_errno!(write_and_close(&mount.at("in/f"), first.as_bytes()), ECANCELED);
        assert!(mount.outside().get("in/f").is_none());
        until_gone(&mount, "in/f");
        assert!(hooks(&mount, &["trace", "in/f"]).contains(problem));
        write_and_close(&mount.at("in/may/f"), first.as_bytes()).unwrap();
        assert_eq!(mount.outside().bytes("in/may/f"), first.as_bytes());
    }
    assert!(hooks(&mount, &["trace", "in/may/f"]).contains("ALLOWED RequestId: "));
    assert_errno!(write_and_close(&mount.at("in/may/g"), b"no"), EINVAL);
    assert_eq!((&hook(&mount, 0)["errors"], &hook(&mount, 1)["errors"]), (&2.into(), &2.into()));
}

#[test]
fn a_write_back_close_is_refused_too() {
    let mount = mount(&["--write-back"]);
    assert_eq!(cp(&mount, "bad.json", "in/").status.code(), Some(1));
    assert!(cp(&mount, "good.json", "in/").status.success());
    process::run(mount.command().arg("sync").arg(mount.path()));
    assert_eq!(mount.outside().keys("in/"), ["in/", "in/good.json", "in/may/"]);
    assert_eq!(hook(&mount, 0)["invocations"], 2, "the upload asks no more");
}

#[test]
fn a_file_that_a_shell_has_begun_escapes_no_hook_though_it_is_killed() {
    let mut mount = mount(&[]);
    let script = "exec > in/f; cat ../bad.json; exec > in/g; cat ../good.json; touch ../ready; sleep 600";
    let mut command = Command::new("bash");
    command.current_dir(mount.path()).args(["-c", script]);
    let mut shell = process::spawn(command, nix::sys::signal::Signal::SIGKILL);
    wait_for("the shell", PATIENCE, || mount.beside("ready").exists().then_some(()));
    assert!(mount.outside().get("in/f").is_none());
    assert_eq!(json(&mount, &["rejected", "list", "--json"])[0]["key"], "in/f", "the shell's own close was refused");
    mount.kill();
    shell.kill().unwrap();
    shell.wait().unwrap();
    mount.start();
    assert_eq!(mount.outside().keys("in/"), ["in/", "in/g", "in/may/"]);
    assert_eq!(mount.outside().bytes("in/g"), b"{}");
    assert!(!mount.at("in/f").exists());
}
