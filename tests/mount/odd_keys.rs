//! Keys that have no path are never lost from sight: counted, listed, left untouched.

use std::fs;

use crate::assert_errno;
use crate::stage::{Maker, Mount, Stage, process};

/// What `s3mount status` calls each odd key.
fn odd_keys(mount: &Mount) -> serde_json::Map<String, serde_json::Value> {
    mount.status()["files"]["odd_keys"].as_object().expect("odd keys by name").clone()
}

/// A bucket with every odd key there is, and normal ones beside them.
fn hostile() -> (Mount, Vec<(String, &'static str)>) {
    let mount = Stage::on(Maker::Embedded).prepare();
    let long = format!("long/{}", "x".repeat(300));
    let odd: Vec<(String, &'static str)> = vec![
        ("double//slash".into(), "EmptyComponent"),
        ("/leading".into(), "EmptyComponent"),
        ("..".into(), "DotComponent"),
        ("up/../../etc/passwd".into(), "DotComponent"),
        ("here/./there".into(), "DotComponent"),
        ("marker/".into(), "MarkerWithBody"),
        ("shadowed".into(), "Shadowed"),
        (long, "LongComponent"),
    ];
    for (key, _) in &odd {
        mount.outside().put(key, b"a body");
    }
    for key in
        ["double/normal", "shadowed/normal", "marker/normal", "up/normal", "here/normal", "long/normal", "normal"]
    {
        mount.outside().put(key, b"normal");
    }
    (mount, odd)
}

fn walk(mount: &Mount) -> String {
    process::bash(mount.path(), "find . -type f | sort")
}

#[test]
fn normal_files_beside_odd_keys_are_all_there() {
    let (mut mount, _) = hostile();
    mount.start();
    let wanted = ["double", "here", "long", "marker", "shadowed", "up"].map(|dir| format!("./{dir}/normal"));
    let found = walk(&mount);
    for path in wanted.iter().map(String::as_str).chain(["./normal"]) {
        assert!(found.lines().any(|line| line == path), "{path} is missing in\n{found}");
        assert_eq!(fs::read(mount.at(path)).unwrap(), b"normal");
    }
    assert_eq!(found.lines().count(), 7, "{found}");
}

#[test]
fn status_lists_every_odd_key_with_its_reason() {
    let (mut mount, odd) = hostile();
    mount.start();
    walk(&mount);
    let listed = odd_keys(&mount);
    for (key, reason) in &odd {
        // A key below a strange component may be told by its first strange prefix.
        let told = listed.iter().find(|(listed, _)| key.starts_with(listed.as_str()) || *listed == key);
        assert_eq!(told.and_then(|(_, why)| why.as_str()), Some(*reason), "{key:?} in {listed:?}");
    }
    assert_eq!(mount.status()["files"]["odd_keys_unlisted"], 0);
}

#[test]
fn status_in_words_counts_them() {
    let (mut mount, _) = hostile();
    mount.start();
    walk(&mount);
    let text = process::run(mount.command().arg("status").arg(mount.path()));
    let told = text.lines().filter(|line| line.trim_start().starts_with("odd key")).count();
    assert!(told == 8 && text.contains("double//slash ") && text.contains("shadowed "), "{text}");
}

#[test]
fn odd_keys_are_left_untouched() {
    let (mut mount, odd) = hostile();
    mount.start();
    walk(&mount);
    fs::write(mount.at("double/new"), "x").unwrap();
    fs::remove_file(mount.at("shadowed/normal")).unwrap();
    mount.remount();
    for (key, _) in &odd {
        assert_eq!(mount.outside().bytes(key), b"a body", "{key:?}");
    }
}

#[test]
fn a_directory_that_holds_only_odd_keys_is_not_removed() {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    mount.outside().put("d//hidden", b"precious");
    mount.outside().put("d/seen", b"x");
    mount.start();
    fs::remove_file(mount.at("d/seen")).unwrap();
    assert_errno!(fs::remove_dir(mount.at("d")), ENOTEMPTY);
    mount.settle();
    assert_errno!(fs::remove_dir(mount.at("d")), ENOTEMPTY);
    assert_eq!(mount.outside().bytes("d//hidden"), b"precious");
}

#[test]
fn control_characters_and_the_longest_keys_are_ordinary_names() {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    let longest =
        format!("{}/{}/{}/{}/{}", "a".repeat(255), "b".repeat(255), "c".repeat(255), "d".repeat(250), "e".repeat(5));
    assert_eq!(longest.len(), 1024);
    let names = ["bell\u{7}", "escape\u{1b}[31m", "tab\tnew\nline", "\u{7f}", longest.as_str()];
    for name in names {
        mount.outside().put(name, name.as_bytes());
    }
    mount.start();
    for name in names {
        assert_eq!(fs::read(mount.at(name)).unwrap(), name.as_bytes(), "{name:?}");
    }
    assert!(odd_keys(&mount).is_empty());
}

#[test]
fn strange_metadata_makes_no_file_unreadable() {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    let strange = [
        ("file-permissions", "rwxr-xr-x"),
        ("file-owner", "-1"),
        ("file-group", "99999999999999999999"),
        ("file-mtime", "yesterday"),
        ("s3mount-xattrs", "%%%not base64"),
        ("s3mount-ino", "0"),
    ];
    mount.outside().put_with("f", b"readable", &strange, None);
    mount.start();
    assert_eq!(fs::read(mount.at("f")).unwrap(), b"readable");
    assert!(fs::metadata(mount.at("f")).unwrap().is_file());
}

#[test]
fn a_regular_object_that_claims_to_be_a_directory_stays_a_file() {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    mount.outside().put_with("liar", b"bytes", &[("file-permissions", "0040755")], None);
    mount.start();
    assert_eq!(fs::read(mount.at("liar")).unwrap(), b"bytes");
}
