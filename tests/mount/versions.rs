//! What a bucket that keeps versions, or an archive, has of a file.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

use crate::assert_errno;
use crate::stage::{Maker, Mount, Stage, process, sys};

const PATIENCE: Duration = Duration::from_secs(30);

fn said(mount: &Mount, args: &[&str], name: &str, rest: &[&str]) -> Output {
    process::output(mount.command().args(args).arg(mount.at(name)).args(rest), PATIENCE)
}

fn succeeds(mount: &Mount, args: &[&str], name: &str, rest: &[&str]) -> String {
    let output = said(mount, args, name, rest);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn fails(mount: &Mount, args: &[&str], name: &str, words: &str) {
    let output = said(mount, args, name, &[]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains(words), "{output:?}");
}

fn versions(mount: &Mount, name: &str) -> Vec<Value> {
    serde_json::from_str(&succeeds(mount, &["versions", "--json"], name, &[])).unwrap()
}

#[test]
fn a_deleted_file_comes_back_as_it_was() {
    let mount = Stage::on(Maker::Embedded).prefix("in/here").mount();
    mount.outside().keep_versions();
    fs::create_dir(mount.at("d")).unwrap();
    fs::write(mount.at("d/f"), "one").unwrap();
    fs::write(mount.at("d/f"), "two").unwrap();
    fs::write(mount.at("d/f2"), "another").unwrap();
    fails(&mount, &["undelete"], "d/f", "it is not deleted");
    fs::remove_file(mount.at("d/f")).unwrap();
    mount.settle();
    let known = versions(&mount, "d/f");
    let sizes: Vec<_> = known.iter().map(|version| version["size"].as_u64()).collect();
    assert_eq!(sizes, [None, Some(3), Some(3)], "{known:?}");
    assert_eq!(known.iter().filter(|version| version["is_latest"] == true).count(), 1);
    assert!(succeeds(&mount, &["versions"], "d/f", &[]).starts_with("* "), "the latest is marked");
    succeeds(&mount, &["undelete"], "d/f", &[]);
    assert_eq!(fs::read(mount.at("d/f")).unwrap(), b"two");
    let names: Vec<_> = fs::read_dir(mount.at("d")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "it is listed at once: {names:?}");
}

#[test]
fn an_older_version_comes_back_on_top_of_the_newer() {
    let mount = Stage::on(Maker::Embedded).mount();
    mount.outside().keep_versions();
    for text in ["one", "two two", "three"] {
        fs::write(mount.at("f"), text).unwrap();
    }
    let old = versions(&mount, "f").into_iter().find(|version| version["size"] == 3).unwrap();
    succeeds(&mount, &["undelete"], "f", &["--version", old["id"].as_str().unwrap()]);
    assert_eq!(fs::read(mount.at("f")).unwrap(), b"one");
    assert_eq!(versions(&mount, "f").len(), 4, "nothing is lost by it");
    fails(&mount, &["undelete", "--version", "none"], "f", "no version none");
    fails(&mount, &["versions"], "never", "no version of it");
}

/// Names in a directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What the versions in a directory hold, sorted.
fn texts(dir: &Path) -> Vec<String> {
    let mut texts: Vec<_> = names(dir).iter().map(|name| fs::read_to_string(dir.join(name)).unwrap()).collect();
    texts.sort();
    texts
}

/// With versions of `d/f` ("one", "two two", removed), `d/g` and, removed with its directory, `d/gone/h`.
fn with_history() -> Mount {
    let mount = Stage::on(Maker::Embedded).prefix("in/here").args(&["--show-versions"]).mount();
    mount.outside().keep_versions();
    fs::create_dir_all(mount.at("d/gone")).unwrap();
    for (name, text) in [("d/f", "one"), ("d/f", "two two"), ("d/g", "g"), ("d/gone/h", "h")] {
        fs::write(mount.at(name), text).unwrap();
    }
    fs::remove_file(mount.at("d/f")).unwrap();
    fs::remove_dir_all(mount.at("d/gone")).unwrap();
    mount.settle();
    mount
}

#[test]
fn older_versions_are_files_and_deleted_ones_too() {
    let mut mount = with_history();
    assert_eq!(names(&mount.at("d/.versions")), ["f", "g", "gone"]);
    assert_eq!(texts(&mount.at("d/.versions/f")), ["one", "two two"]);
    assert_eq!(texts(&mount.at("d/.versions/g")), ["g"]);
    // Its directory is not there any more: the way is through one that is.
    assert_eq!(texts(&mount.at(".versions/d/gone/h")), ["h"]);
    assert_eq!(names(&mount.at(".versions")), ["d"]);
    let known = versions(&mount, "d/f");
    for version in known.iter().filter(|version| !version["size"].is_null()) {
        let id = version["id"].as_str().unwrap();
        let name = names(&mount.at("d/.versions/f")).into_iter().find(|name| name.ends_with(id)).unwrap();
        let told = fs::metadata(mount.at("d/.versions/f").join(&name)).unwrap();
        assert_eq!(told.len(), version["size"].as_u64().unwrap());
        let modified = told.modified().unwrap().duration_since(UNIX_EPOCH).unwrap();
        assert_eq!(modified.as_secs(), version["modified_s"].as_u64().unwrap());
        assert!(name.starts_with("20") && name.as_bytes()[19] == b'Z', "{name}");
        assert_eq!(sys::mode(&mount.at("d/.versions/f").join(&name)) & 0o777, 0o444, "nobody can write it");
    }
    for directory in ["d/.versions", "d/.versions/f", ".versions/d/gone", ".versions/d/gone/h"] {
        assert_eq!(sys::mode(&mount.at(directory)) & 0o777, 0o555, "{directory}");
    }
    // With ordinary tools: the smaller one, back in its place.
    let script = format!("cp -p \"$(find '{0}/.versions/f' -type f -size -4c)\" '{0}/f'", mount.at("d").display());
    let copied = process::output(Command::new("bash").args(["-c", &script]), PATIENCE);
    assert!(copied.status.success(), "{copied:?}");
    assert_eq!(fs::read_to_string(mount.at("d/f")).unwrap(), "one");
    mount.remount();
    assert_eq!(texts(&mount.at("d/.versions/f")), ["one", "one", "two two"]);
}

#[test]
fn the_directory_of_versions_is_hidden_and_cannot_be_changed() {
    let mount = with_history();
    let history = mount.at("d/.versions");
    let version = history.join("f").join(&names(&history.join("f"))[0]);
    assert_eq!(names(&mount.at("d")), ["g"]);
    assert_eq!(names(mount.path()), ["d"]);
    assert_errno!(fs::write(&version, "x"), EROFS);
    assert_errno!(fs::write(history.join("new"), "x"), EROFS);
    assert_errno!(fs::create_dir(history.join("new")), EROFS);
    assert_errno!(fs::remove_file(&version), EROFS);
    assert_errno!(fs::remove_dir(&history), EROFS);
    assert_errno!(fs::rename(&version, mount.at("d/f")), EROFS);
    assert_errno!(fs::rename(mount.at("d/g"), history.join("new")), EROFS);
    assert_errno!(fs::rename(&history, mount.at("d/other")), EROFS);
    assert_errno!(sys::chmod(&version, 0o600), EROFS);
    assert_errno!(sys::setxattr(&version, "user.x", b"x", 0), EROFS);
    assert_errno!(fs::create_dir(&history), EEXIST);
    assert_errno!(fs::metadata(history.join("never")), ENOENT);
    assert_errno!(fs::metadata(history.join(".versions")), ENOENT);
    // It is in nobody's way.
    fs::remove_file(mount.at("d/g")).unwrap();
    fs::remove_dir(mount.at("d")).unwrap();
    mount.settle();
    assert_eq!(names(mount.path()), Vec::<String>::new());
    assert_eq!(texts(&mount.at(".versions/d/g")), ["g"]);
}

#[test]
fn without_the_option_the_name_is_one_as_any_other() {
    let mount = Stage::on(Maker::Embedded).mount();
    assert_errno!(fs::metadata(mount.at(".versions")), ENOENT);
    fs::create_dir(mount.at(".versions")).unwrap();
    fs::write(mount.at(".versions/f"), "x").unwrap();
    assert_eq!(names(mount.path()), [".versions"]);
}

#[test]
fn an_archived_file_is_restored_and_then_read() {
    let mut mount = Stage::on(Maker::Ministack).prepare();
    for key in ["cold/a", "cold/deep/b", "warm"] {
        let class = if key == "warm" { "STANDARD" } else { "GLACIER" };
        mount.outside().put_by(key, key.as_bytes(), |put| put.storage_class(class.into()));
    }
    mount.start();
    assert_eq!(fs::metadata(mount.at("cold/a")).unwrap().len(), 6, "what is archived is seen");
    assert!(fs::read(mount.at("cold/a")).is_err(), "and cannot be read");
    assert!(mount.log().contains("s3mount restore"), "the log says what to do");
    fails(&mount, &["restore"], "warm", "nothing of it is archived");
    succeeds(&mount, &["restore", "--wait", "--days", "1", "--tier", "bulk"], "cold", &[]);
    for key in ["cold/a", "cold/deep/b"] {
        assert_eq!(fs::read(mount.at(key)).unwrap(), key.as_bytes());
    }
}
