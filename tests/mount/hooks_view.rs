//! Views: what a hook makes of each object, as files that can only be read.

use std::fs;

use serde_json::Value;

use crate::assert_errno;
use crate::stage::{Maker, Mount, PATIENCE, Stage, process, wait_for};

/// Leaves its input in `/out/o` with each digit written as `x`, and a `!` behind it; traps when it begins
/// with `T`.
const GUEST: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 64) "report.csv")
  (data (i32.const 80) "o")
  (func $open (param $dir i32) (param $path i32) (param $length i32) (param $flags i32) (param $rights i64)
    (if (call $path_open (local.get $dir) (i32.const 0) (local.get $path) (local.get $length) (local.get $flags)
      (local.get $rights) (i64.const 0) (i32.const 0) (i32.const 32)) (then unreachable)))
  (func (export "_start") (local $at i32) (local $end i32) (local $in i32)
    (call $open (i32.const 3) (i32.const 64) (i32.const 10) (i32.const 0) (i64.const 2))
    (local.set $in (i32.load (i32.const 32)))
    (i32.store (i32.const 0) (i32.const 4096))
    (i32.store (i32.const 4) (i32.const 4096))
    (drop (call $fd_read (local.get $in) (i32.const 0) (i32.const 1) (i32.const 8)))
    (local.set $at (i32.const 4096))
    (local.set $end (i32.add (i32.const 4096) (i32.load (i32.const 8))))
    (if (i32.eq (i32.load8_u (i32.const 4096)) (i32.const 84)) (then unreachable))
    (loop $next
      (if (i32.lt_u (i32.sub (i32.load8_u (local.get $at)) (i32.const 48)) (i32.const 10))
        (then (i32.store8 (local.get $at) (i32.const 120))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $end))))
    (i32.store8 (local.get $end) (i32.const 33))
    (call $open (i32.const 5) (i32.const 80) (i32.const 1) (i32.const 1) (i64.const 0x400040))
    (i32.store (i32.const 0) (i32.const 4096))
    (i32.store (i32.const 4) (i32.add (i32.sub (local.get $end) (i32.const 4096)) (i32.const 1)))
    (drop (call $fd_write (i32.load (i32.const 32)) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

fn mount() -> Mount {
    let mut mount = Stage::on(Maker::Embedded).hooks("").prepare();
    let wasm = mount.beside("guest.wat");
    fs::write(&wasm, GUEST).unwrap();
    let hook = "[[hook]]\nname = \"redact\"\nkind = \"transform\"\nview = \"redacted/\"\nmatch = [\"*.csv\"]";
    fs::write(mount.beside("hooks.toml"), format!("{hook}\nwasm = \"{}\"\n", wasm.display())).unwrap();
    mount.start();
    mount
}

fn runs(mount: &Mount) -> Value {
    mount.status()["hooks"]["hooks"][0]["invocations"].clone()
}

#[test]
fn a_view_shows_what_the_hook_makes_once_for_each_version() {
    let mut mount = mount();
    fs::write(mount.at("report.csv"), "a,1\nb,22\n").unwrap();
    fs::write(mount.at("notes.txt"), "1").unwrap();
    assert_eq!(process::bash(mount.path(), "cat redacted/report.csv"), "a,x\nb,xx\n!");
    assert_eq!(
        process::bash(mount.path(), "stat -c %s redacted/report.csv; ls redacted; ls"),
        "10\nreport.csv\nnotes.txt\nredacted\nreport.csv\n"
    );
    assert_eq!(process::bash(mount.path(), "cat redacted/report.csv redacted/report.csv"), "a,x\nb,xx\n!a,x\nb,xx\n!");
    assert_eq!(runs(&mount), 1);
    mount.remount();
    assert_eq!(fs::read(mount.at("redacted/report.csv")).unwrap(), b"a,x\nb,xx\n!");
    assert_eq!(runs(&mount), 0, "it was kept");

    fs::write(mount.at("report.csv"), "c,333\n").unwrap();
    wait_for("the new version", PATIENCE, || {
        (fs::read(mount.at("redacted/report.csv")).ok()? == b"c,xxx\n!").then_some(())
    });
    assert_eq!((runs(&mount), mount.outside().keys("")), (1.into(), vec!["notes.txt".into(), "report.csv".into()]));
}

#[test]
fn nothing_can_be_changed_in_a_view() {
    let mount = mount();
    fs::write(mount.at("report.csv"), "1").unwrap();
    assert_eq!(fs::read(mount.at("redacted/report.csv")).unwrap(), b"x!");
    assert_errno!(fs::write(mount.at("redacted/report.csv"), "2"), EROFS);
    assert_errno!(fs::write(mount.at("redacted/new.csv"), "2"), EROFS);
    assert_errno!(fs::create_dir(mount.at("redacted/d")), EROFS);
    assert_errno!(fs::remove_file(mount.at("redacted/report.csv")), EROFS);
    assert_errno!(fs::rename(mount.at("redacted/report.csv"), mount.at("x")), EROFS);
    assert_errno!(fs::rename(mount.at("report.csv"), mount.at("redacted/x")), EROFS);
    assert_errno!(fs::rename(mount.at("redacted"), mount.at("x")), EROFS);
    assert_errno!(fs::remove_dir(mount.at("redacted")), EROFS);
    assert_eq!(mount.outside().keys(""), ["report.csv"]);

    // A file of which the hook can make nothing is not there, and the log says why.
    fs::write(mount.at("report.csv"), "T").unwrap();
    wait_for("the file to go", PATIENCE, || (!mount.at("redacted/report.csv").exists()).then_some(()));
    assert!(mount.status()["hooks"]["hooks"][0]["last_error"]["message"].as_str().unwrap().contains("unreachable"));
}
