//! Listing directories: each entry once, with its kind, also while things change.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt, symlink};

use crate::assert_errno;
use crate::stage::{Maker, Stage, place, sys};

fn names(dir: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_empty_directory_has_no_entries() {
    let place = place();
    fs::create_dir(place.at("d")).unwrap();
    assert!(names(&place.at("d")).is_empty());
    assert!(names(place.path()) == ["d"]);
}

#[test]
fn every_entry_comes_once_with_its_kind_and_inode() {
    let place = place();
    fs::write(place.at("file"), "x").unwrap();
    fs::create_dir(place.at("dir")).unwrap();
    symlink("file", place.at("link")).unwrap();
    sys::mknod(&place.at("pipe"), libc::S_IFIFO, 0o644, 0).unwrap();
    let mut seen = Vec::new();
    for entry in fs::read_dir(place.path()).unwrap() {
        let entry = entry.unwrap();
        let meta = fs::symlink_metadata(entry.path()).unwrap();
        assert_eq!(entry.ino(), meta.ino(), "{entry:?}");
        assert_eq!(entry.file_type().unwrap(), meta.file_type(), "{entry:?}");
        seen.push(entry.file_name().into_string().unwrap());
    }
    seen.sort();
    assert_eq!(seen, ["dir", "file", "link", "pipe"]);
}

#[test]
fn thousands_of_entries_come_once_each() {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    let wanted: BTreeSet<String> = (0..3_000).map(|number| format!("entry-{number:05}")).collect();
    for name in &wanted {
        mount.outside().put(&format!("many/{name}"), b"");
    }
    mount.start();
    let seen = names(&mount.at("many"));
    let unique: BTreeSet<String> = seen.iter().cloned().collect();
    assert_eq!(seen.len(), unique.len(), "an entry came twice");
    assert_eq!(unique, wanted);
}

/// What the mount has asked its server since it began, without what the start itself costs.
fn requests_of(mount: &crate::stage::Mount, work: impl FnOnce()) -> serde_json::Value {
    let count = |status: &serde_json::Value| {
        let requests = status["requests"].as_object().expect("requests by operation").clone();
        requests.into_iter().map(|(name, count)| (name, count.as_u64().unwrap_or(0))).collect::<Vec<_>>()
    };
    let before: std::collections::BTreeMap<_, _> = count(&mount.status()).into_iter().collect();
    work();
    let after = count(&mount.status());
    after.into_iter().map(|(name, count)| (name.clone(), count - before.get(&name).unwrap_or(&0))).collect()
}

#[test]
fn ls_of_many_foreign_objects_costs_a_listing_a_page() {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    for number in 0..2_500 {
        mount.outside().put(&format!("lake/object-{number:05}"), b"x");
    }
    mount.start();
    let requests = requests_of(&mount, || {
        crate::stage::process::bash(mount.path(), "ls -l lake | tail -n +2 | wc -l | grep -qx 2500");
    });
    assert!(requests["ListObjectsV2"].as_u64() <= Some(4), "{requests}");
    assert_eq!(requests["HeadObject"].as_u64().unwrap_or(0), 0, "{requests}");
}

#[test]
fn find_in_many_directories_costs_a_listing_a_thousand_keys() {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    for number in 0..2_000 {
        mount.outside().put(&format!("tree/d{:03}/f{}", number / 10, number % 10), b"x");
    }
    mount.start();
    let requests = requests_of(&mount, || {
        crate::stage::process::bash(mount.path(), "find tree | wc -l | grep -qx 2201");
    });
    assert!(requests["ListObjectsV2"].as_u64() <= Some(6), "{requests}");
    assert_eq!(requests["HeadObject"].as_u64().unwrap_or(0), 0, "{requests}");
}

#[test]
fn entries_made_and_removed_show_at_once() {
    let place = place();
    for number in 0..50 {
        fs::write(place.at(&format!("f{number:02}")), "x").unwrap();
        assert_eq!(names(place.path()).len(), number + 1);
    }
    for number in 0..50 {
        fs::remove_file(place.at(&format!("f{number:02}"))).unwrap();
        assert_eq!(names(place.path()).len(), 49 - number);
    }
}

#[test]
fn a_file_still_being_written_is_listed() {
    let place = place();
    let file = fs::File::create(place.at("open")).unwrap();
    assert_eq!(names(place.path()), ["open"]);
    drop(file);
    assert_eq!(names(place.path()), ["open"]);
}

#[test]
fn removing_all_while_reading_leaves_nothing() {
    let place = place();
    for number in 0..500 {
        fs::write(place.at(&format!("f{number}")), "").unwrap();
    }
    let mut removed = 0;
    for entry in fs::read_dir(place.path()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
        removed += 1;
    }
    assert_eq!(removed, 500);
    assert!(names(place.path()).is_empty());
}

#[test]
fn reading_a_file_as_a_directory_is_enotdir_and_a_missing_one_enoent() {
    let place = place();
    fs::write(place.at("f"), "x").unwrap();
    assert_errno!(fs::read_dir(place.at("f")), ENOTDIR);
    assert_errno!(fs::read_dir(place.at("no")), ENOENT);
}

#[test]
fn directories_that_exist_only_as_prefixes_are_listed() {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    mount.outside().put("deep/er/file", b"x");
    mount.outside().put("deep/other", b"y");
    mount.start();
    assert_eq!(names(mount.path()), ["deep"]);
    assert_eq!(names(&mount.at("deep")), ["er", "other"]);
    assert!(fs::metadata(mount.at("deep/er")).unwrap().is_dir());
    assert_eq!(fs::read(mount.at("deep/er/file")).unwrap(), b"x");
}

#[test]
fn a_directory_listed_by_one_process_sees_what_another_made() {
    let place = place();
    fs::create_dir(place.at("d")).unwrap();
    assert!(names(&place.at("d")).is_empty());
    crate::stage::process::bash(place.path(), "echo x > d/from-shell; mkdir d/sub");
    assert_eq!(names(&place.at("d")), ["from-shell", "sub"]);
}
