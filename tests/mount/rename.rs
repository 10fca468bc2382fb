//! rename: files and directories, over each other, while open, while dirty.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, symlink};

use crate::assert_errno;
use crate::stage::{Maker, Mount, Stage, place, process, sys};

#[test]
fn a_file_moves_with_bytes_and_attributes() {
    let mut place = place();
    fs::create_dir(place.at("d")).unwrap();
    fs::write(place.at("a"), "bytes").unwrap();
    sys::chmod(&place.at("a"), 0o640).unwrap();
    sys::set_times(&place.at("a"), (1, 2), (3, 4)).unwrap();
    fs::rename(place.at("a"), place.at("d/b")).unwrap();
    for _ in 0..2 {
        assert_errno!(fs::metadata(place.at("a")), ENOENT);
        assert_eq!(fs::read(place.at("d/b")).unwrap(), b"bytes");
        let meta = fs::metadata(place.at("d/b")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec()), (0o640, 3, 4));
        place.remount_elsewhere();
    }
}

#[test]
fn an_existing_file_is_replaced() {
    let mut place = place();
    fs::write(place.at("new"), "new").unwrap();
    fs::write(place.at("old"), "old and longer").unwrap();
    fs::rename(place.at("new"), place.at("old")).unwrap();
    assert_eq!(fs::read(place.at("old")).unwrap(), b"new");
    place.remount_elsewhere();
    assert_eq!(fs::read(place.at("old")).unwrap(), b"new");
    assert_errno!(fs::metadata(place.at("new")), ENOENT);
}

#[test]
fn a_replaced_file_stays_readable_for_who_has_it_open() {
    let place = place();
    fs::write(place.at("old"), "old bytes").unwrap();
    fs::write(place.at("new"), "new bytes").unwrap();
    let mut reader = File::open(place.at("old")).unwrap();
    fs::rename(place.at("new"), place.at("old")).unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old bytes");
    assert_eq!(fs::read(place.at("old")).unwrap(), b"new bytes");
}

#[test]
fn an_open_file_is_written_on_under_its_new_name() {
    let mut place = place();
    let mut file = File::create(place.at("before")).unwrap();
    file.write_all(b"one ").unwrap();
    fs::rename(place.at("before"), place.at("after")).unwrap();
    file.write_all(b"two").unwrap();
    assert_eq!(fs::read(place.at("after")).unwrap(), b"one two");
    sys::close(file).unwrap();
    place.remount_elsewhere();
    assert_eq!(fs::read(place.at("after")).unwrap(), b"one two");
    assert_errno!(fs::metadata(place.at("before")), ENOENT);
}

#[test]
fn a_dirty_file_renamed_over_another_wins() {
    let mut place = place();
    fs::write(place.at("target"), "old").unwrap();
    let mut file = File::create(place.at("target.tmp")).unwrap();
    file.write_all(b"new").unwrap();
    fs::rename(place.at("target.tmp"), place.at("target")).unwrap();
    sys::close(file).unwrap();
    place.remount_elsewhere();
    assert_eq!(fs::read(place.at("target")).unwrap(), b"new");
    assert_errno!(fs::metadata(place.at("target.tmp")), ENOENT);
}

#[test]
fn a_writer_of_a_replaced_file_does_not_bring_it_back() {
    let mut place = place();
    let mut old = File::create(place.at("f")).unwrap();
    old.write_all(b"old").unwrap();
    fs::write(place.at("g"), "new").unwrap();
    fs::rename(place.at("g"), place.at("f")).unwrap();
    old.write_all(b" late").unwrap();
    sys::close(old).unwrap();
    assert_eq!(fs::read(place.at("f")).unwrap(), b"new");
    place.remount_elsewhere();
    assert_eq!(fs::read(place.at("f")).unwrap(), b"new");
}

#[test]
fn a_directory_moves_with_all_below() {
    let mut place = place();
    fs::create_dir_all(place.at("from/a/b")).unwrap();
    fs::create_dir(place.at("from/empty")).unwrap();
    for number in 0..30 {
        fs::write(place.at(&format!("from/a/b/f{number}")), number.to_string()).unwrap();
    }
    symlink("a/b/f1", place.at("from/link")).unwrap();
    sys::chmod(&place.at("from/a"), 0o700).unwrap();
    fs::rename(place.at("from"), place.at("to")).unwrap();
    for _ in 0..2 {
        assert_errno!(fs::metadata(place.at("from")), ENOENT);
        for number in 0..30 {
            assert_eq!(fs::read_to_string(place.at(&format!("to/a/b/f{number}"))).unwrap(), number.to_string());
        }
        assert!(fs::read_dir(place.at("to/empty")).unwrap().next().is_none());
        assert_eq!(fs::read(place.at("to/link")).unwrap(), b"1");
        assert_eq!(sys::mode(&place.at("to/a")), 0o700);
        place.remount_elsewhere();
    }
}

#[test]
fn a_directory_moves_with_open_and_dirty_files() {
    let mut place = place();
    fs::create_dir_all(place.at("from/sub")).unwrap();
    let mut file = File::create(place.at("from/sub/f")).unwrap();
    file.write_all(b"one ").unwrap();
    fs::rename(place.at("from"), place.at("to")).unwrap();
    file.write_all(b"two").unwrap();
    assert_eq!(fs::read(place.at("to/sub/f")).unwrap(), b"one two");
    sys::close(file).unwrap();
    place.remount_elsewhere();
    assert_eq!(fs::read(place.at("to/sub/f")).unwrap(), b"one two");
    assert_errno!(fs::metadata(place.at("from")), ENOENT);
}

#[test]
fn a_directory_replaces_an_empty_one_only() {
    let place = place();
    for name in ["full", "full2", "empty"] {
        fs::create_dir(place.at(name)).unwrap();
    }
    fs::write(place.at("full/f"), "x").unwrap();
    fs::write(place.at("full2/f"), "y").unwrap();
    assert_errno!(fs::rename(place.at("full"), place.at("full2")), ENOTEMPTY);
    assert_eq!(fs::read(place.at("full2/f")).unwrap(), b"y");
    fs::rename(place.at("full"), place.at("empty")).unwrap();
    assert_eq!(fs::read(place.at("empty/f")).unwrap(), b"x");
    assert_errno!(fs::metadata(place.at("full")), ENOENT);
}

#[test]
fn files_and_directories_do_not_replace_each_other() {
    let place = place();
    fs::create_dir(place.at("d")).unwrap();
    fs::write(place.at("f"), "x").unwrap();
    assert_errno!(fs::rename(place.at("f"), place.at("d")), EISDIR);
    assert_errno!(fs::rename(place.at("d"), place.at("f")), ENOTDIR);
}

#[test]
fn a_directory_cannot_move_into_itself() {
    let place = place();
    fs::create_dir_all(place.at("d/e")).unwrap();
    assert_errno!(fs::rename(place.at("d"), place.at("d/e/f")), EINVAL);
    assert_errno!(fs::rename(place.at("d"), place.at("d/e")), EINVAL);
}

#[test]
fn renaming_onto_itself_changes_nothing() {
    let place = place();
    fs::write(place.at("f"), "x").unwrap();
    fs::rename(place.at("f"), place.at("f")).unwrap();
    assert_eq!(fs::read(place.at("f")).unwrap(), b"x");
}

#[test]
fn a_missing_source_or_target_directory_is_enoent() {
    let place = place();
    fs::write(place.at("f"), "x").unwrap();
    assert_errno!(fs::rename(place.at("no"), place.at("f")), ENOENT);
    assert_errno!(fs::rename(place.at("f"), place.at("no/f")), ENOENT);
    assert_eq!(fs::read(place.at("f")).unwrap(), b"x");
}

#[test]
fn noreplace_on_an_existing_name_is_eexist() {
    let place = place();
    fs::write(place.at("a"), "a").unwrap();
    fs::write(place.at("b"), "b").unwrap();
    assert_errno!(sys::rename_with(&place.at("a"), &place.at("b"), libc::RENAME_NOREPLACE), EEXIST);
    assert_eq!(fs::read(place.at("b")).unwrap(), b"b");
    sys::rename_with(&place.at("a"), &place.at("c"), libc::RENAME_NOREPLACE).unwrap();
    assert_eq!(fs::read(place.at("c")).unwrap(), b"a");
}

#[test]
fn exchange_is_einval() {
    let mount = Stage::on(Maker::Embedded).mount();
    fs::write(mount.at("a"), "a").unwrap();
    fs::write(mount.at("b"), "b").unwrap();
    assert_errno!(sys::rename_with(&mount.at("a"), &mount.at("b"), libc::RENAME_EXCHANGE), EINVAL);
}

#[test]
fn symlinks_and_special_files_move() {
    let mut place = place();
    symlink("somewhere", place.at("l")).unwrap();
    sys::mknod(&place.at("p"), libc::S_IFIFO, 0o644, 0).unwrap();
    fs::rename(place.at("l"), place.at("l2")).unwrap();
    fs::rename(place.at("p"), place.at("p2")).unwrap();
    place.remount_elsewhere();
    assert_eq!(fs::read_link(place.at("l2")).unwrap().to_str(), Some("somewhere"));
    assert_eq!(sys::kind_letter(&place.at("p2")), 'p');
}

#[test]
fn a_name_renamed_away_and_back_keeps_its_bytes() {
    let mut place = place();
    fs::write(place.at("a"), "bytes").unwrap();
    for _ in 0..10 {
        fs::rename(place.at("a"), place.at("b")).unwrap();
        fs::rename(place.at("b"), place.at("a")).unwrap();
    }
    place.remount_elsewhere();
    assert_eq!(fs::read(place.at("a")).unwrap(), b"bytes");
}

#[test]
fn a_rename_in_the_bucket_is_complete_when_it_answers() {
    let mount = Stage::on(Maker::Embedded).mount();
    mount.outside().put_with(
        "from/a",
        b"1",
        &[("file-mtime", "1700000000000000000ns"), ("own", "kept")],
        Some("text/x-own"),
    );
    mount.outside().put("from/b/c", b"2");
    fs::rename(mount.at("from"), mount.at("to")).unwrap();
    let keys = mount.outside().keys("");
    assert!(keys.iter().all(|key| key.starts_with("to/")), "{keys:?}");
    let moved = mount.outside().object("to/a");
    assert_eq!(moved.metadata.get("own").map(String::as_str), Some("kept"));
    assert_eq!(moved.content_type.as_deref(), Some("text/x-own"));
    assert_eq!(mount.outside().bytes("to/b/c"), b"2");
}

#[test]
fn a_directory_of_more_than_a_thousand_files_moves() {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    for number in 0..1_100 {
        mount.outside().put(&format!("from/f{number}"), b"x");
    }
    mount.start();
    fs::rename(mount.at("from"), mount.at("to")).unwrap();
    assert_eq!(fs::read_dir(mount.at("to")).unwrap().count(), 1_100);
    let keys = mount.outside().keys("");
    assert_eq!(keys.iter().filter(|key| key.starts_with("to/f")).count(), 1_100);
    assert!(!keys.iter().any(|key| key.starts_with("from/f")));
}

#[test]
fn mv_of_a_hundred_files_is_a_copy_each_and_a_few_requests() {
    // Believes what it knows for as long as a test can take on a busy machine.
    let believing = ["--attr-ttl", "10m", "--list-ttl", "10m", "--negative-ttl", "10m"];
    let mut mount = Stage::on(Maker::Embedded).args(&believing).prepare();
    for number in 0..100 {
        mount.outside().put(&format!("from/{number:04}"), b"x");
    }
    mount.start();
    let sum = |mount: &Mount| -> u64 {
        let requests = mount.status()["requests"].clone();
        requests.as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
    };
    process::bash(mount.path(), "ls");
    let before = sum(&mount);
    process::bash(mount.path(), "mv from to");
    let requests = sum(&mount) - before;
    assert!(requests <= 105, "{requests}: {}", mount.status()["requests"]);
    assert_eq!(mount.outside().keys("").len(), 100);
}

#[test]
fn opening_for_append_after_a_rename_finds_the_new_name() {
    let place = place();
    fs::write(place.at("log"), "1\n").unwrap();
    fs::rename(place.at("log"), place.at("log.1")).unwrap();
    OpenOptions::new().append(true).create(true).open(place.at("log")).unwrap().write_all(b"2\n").unwrap();
    OpenOptions::new().append(true).open(place.at("log.1")).unwrap().write_all(b"1b\n").unwrap();
    assert_eq!(fs::read(place.at("log")).unwrap(), b"2\n");
    assert_eq!(fs::read(place.at("log.1")).unwrap(), b"1\n1b\n");
}
