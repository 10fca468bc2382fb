//! What a bucket that keeps versions, or an archive, has of a file.

use std::fs;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use crate::stage::{Maker, Mount, Stage, process};

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
