//! `s3mount cache stats | warm | invalidate | clear`.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Output;

use crate::stage::{Maker, Mount, PATIENCE, Stage, process, wait_for};

fn cache(mount: &Mount, words: &[&str]) -> Output {
    process::output(mount.command().arg("cache").args(words), PATIENCE)
}

fn succeed(mount: &Mount, words: &[&str]) -> String {
    let output = cache(mount, words);
    assert!(output.status.success(), "{words:?}: {output:?}\n{}", mount.log());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stats(mount: &Mount) -> serde_json::Value {
    let directory = mount.beside("cache");
    let printed = succeed(mount, &["stats", "--json", "--cache-dir", directory.to_str().unwrap()]);
    serde_json::from_str(&printed).expect("JSON")
}

fn requests(mount: &Mount, operation: &str) -> u64 {
    mount.status()["requests"][operation].as_u64().unwrap_or(0)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A mount of a small tree that nobody has read.
fn tree(args: &[&str]) -> Mount {
    let mut mount = Stage::on(Maker::Embedded).args(args).prepare();
    for number in 0..7 {
        mount.outside().put(&format!("dir/sub/f{number}"), format!("bytes {number}").as_bytes());
    }
    mount.outside().put("dir/large", &vec![7; 9 << 20]);
    mount.outside().put("alone", b"alone");
    mount.outside().put("dir2", b"beside");
    mount.start();
    mount
}

#[test]
fn what_was_warmed_is_read_without_a_get() {
    let mut mount = tree(&[]);
    succeed(&mount, &["warm", text(&mount.at("dir")), text(&mount.at("alone"))]);
    assert_eq!(stats(&mount)["entries"], 9, "the files of the directory and the one, not what is beside");
    mount.remount();
    for number in 0..7 {
        assert_eq!(fs::read(mount.at(&format!("dir/sub/f{number}"))).unwrap(), format!("bytes {number}").as_bytes());
    }
    assert!(fs::read(mount.at("dir/large")).unwrap() == vec![7; 9 << 20]);
    assert_eq!(requests(&mount, "GetObject"), 0);
    succeed(&mount, &["warm", text(mount.path())]);
    assert_eq!(requests(&mount, "GetObject"), 1, "only what was missing");
}

#[test]
fn what_cannot_be_warmed_is_named() {
    let mount = tree(&["--cache-size", "4M"]);
    let output = cache(&mount, &["warm", text(&mount.at("alone")), text(&mount.at("missing"))]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("missing") && !said.contains("alone"), "{said}");
    let output = cache(&mount, &["warm", text(&mount.at("dir/large"))]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("dir/large"), "{said}");
    let output = cache(&mount, &["warm", "/"]);
    assert!(!output.status.success(), "no mount of ours");
}

#[test]
fn an_invalidated_path_is_asked_for_again() {
    let mut mount = tree(&["--attr-ttl", "1h", "--list-ttl", "1h"]);
    assert_eq!(fs::read(mount.at("alone")).unwrap(), b"alone");
    assert_eq!(fs::read_dir(mount.at("dir/sub")).unwrap().count(), 7);
    assert!(fs::metadata(mount.at("dir/sub/new")).is_err());
    mount.outside().put("alone", b"another version");
    mount.outside().put("dir/sub/new", b"new");
    assert_eq!(fs::read(mount.at("alone")).unwrap(), b"alone", "believed for an hour");
    succeed(&mount, &["invalidate", text(&mount.at("alone")), text(&mount.at("dir"))]);
    wait_for("the new version", PATIENCE, || (fs::read(mount.at("alone")).ok()? == b"another version").then_some(()));
    wait_for("the new name", PATIENCE, || (fs::read(mount.at("dir/sub/new")).ok()? == b"new").then_some(()));
    assert!(mount.is_alive());
}

#[test]
fn a_command_in_a_directory_costs_one_listing_of_all_below_it() {
    let mount = tree(&["--attr-ttl", "1h", "--list-ttl", "1h", "--negative-ttl", "1h"]);
    // Held open as by who works there.
    let directory = fs::File::open(mount.at("dir")).unwrap();
    let below = |path: &str| format!("/proc/self/fd/{}/{path}", directory.as_raw_fd());
    succeed(&mount, &["invalidate", text(&mount.at("dir"))]);
    let before = requests(&mount, "ListObjectsV2");
    assert!(fs::metadata(below("missing")).is_err());
    assert_eq!(fs::read(below("sub/f3")).unwrap(), b"bytes 3");
    assert_eq!(fs::read_dir(below("sub")).unwrap().count(), 7);
    assert_eq!(requests(&mount, "ListObjectsV2"), before + 1);
}

#[test]
fn clearing_leaves_nothing_but_what_is_not_ours() {
    let mut mount = tree(&[]);
    let directory = mount.beside("cache");
    let clear = ["clear", "--cache-dir", text(&directory)];
    succeed(&mount, &["warm", text(mount.path())]);
    assert_eq!(stats(&mount)["entries"], 10);
    succeed(&mount, &clear);
    assert_eq!(stats(&mount)["entries"], 0);
    assert_eq!(fs::read(mount.at("alone")).unwrap(), b"alone");
    succeed(&mount, &["warm", text(mount.path())]);
    mount.stop();
    let (kept, elsewhere) = (directory.join("blocks-2/notes.txt"), mount.beside("elsewhere"));
    fs::write(&kept, b"mine").unwrap();
    fs::create_dir_all(elsewhere.join("aa")).unwrap();
    let victim = elsewhere.join("aa").join(format!("{}.data", "b".repeat(30)));
    fs::write(&victim, b"not cached").unwrap();
    symlink(elsewhere.join("aa"), directory.join("blocks-2/aa")).ok();
    succeed(&mount, &clear);
    assert_eq!(stats(&mount)["entries"], 0);
    assert!(kept.exists() && victim.exists());
}

#[test]
fn numbers_are_told_with_and_without_a_mount() {
    let mut mount = tree(&["--cache-size", "64M"]);
    succeed(&mount, &["warm", text(&mount.at("dir"))]);
    assert_eq!(fs::read(mount.at("dir/sub/f1")).unwrap(), b"bytes 1");
    let told = stats(&mount);
    let of_this = |mount: &Mount, told: &serde_json::Value| {
        let all = told["mounts"].as_array().unwrap();
        all.iter().find(|one| one["mountpoint"] == text(mount.path())).cloned()
    };
    let disk = of_this(&mount, &told).unwrap()["disk"].clone();
    assert_eq!((&disk["limit_bytes"], &disk["damaged"]), (&(64 << 20).into(), &0.into()));
    assert!(disk["hits"].as_u64().unwrap() >= 1 && told["disk_bytes"].as_u64().unwrap() > 9 << 20, "{told}");
    let directory = mount.beside("cache");
    assert!(succeed(&mount, &["stats", "--cache-dir", text(&directory)]).contains("8 file(s)"));
    mount.stop();
    let told = stats(&mount);
    assert_eq!(told["entries"], 8);
    assert!(of_this(&mount, &told).is_none());
}
