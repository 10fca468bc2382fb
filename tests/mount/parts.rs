//! Large files: what did not change is not moved, and parts leave while the file is being written.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;

use crate::stage::{Maker, Mount, PATIENCE, Stage, process, sys, wait_for};

const MIB: usize = 1 << 20;

/// Whole pages, each of them different.
fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = Vec::with_capacity(bytes);
    for page in 0..bytes / 4096 {
        noise.extend((page as u64).to_le_bytes());
        noise.resize((page + 1) * 4096, page as u8);
    }
    noise
}

/// Requests so far by operation.
fn requests(mount: &Mount, operation: &str) -> u64 {
    mount.status()["requests"].get(operation).and_then(serde_json::Value::as_u64).unwrap_or(0)
}

fn changes_inside(maker: Maker) {
    let mount = Stage::on(maker).mount();
    let mut bytes = noise(64 * MIB);
    mount.outside().put_with("big", &bytes, &[("theirs", "kept")], Some("text/x-theirs"));
    fs::write(mount.beside("change"), [7; 4096]).unwrap();
    process::bash(mount.path(), "dd if=../change of=big bs=4096 seek=8000 conv=notrunc,fsync status=none");
    bytes[8000 * 4096..8001 * 4096].fill(7);
    let object = mount.outside().object("big");
    assert!(object.bytes == bytes, "other bytes than were written");
    assert_eq!(object.metadata.get("theirs").map(String::as_str), Some("kept"));
    assert_eq!(object.content_type.as_deref(), Some("text/x-theirs"));
    assert_eq!(requests(&mount, "UploadPart"), 1);
    assert_eq!(requests(&mount, "UploadPartCopy"), 2);
    assert_eq!(requests(&mount, "GetObject"), 1, "one edge");
    process::bash(mount.path(), "cat ../change >> big");
    bytes.extend([7; 4096]);
    assert!(mount.outside().bytes("big") == bytes, "other bytes than were written");
    assert_eq!(requests(&mount, "GetObject"), 1, "what is appended needs no edge");
    assert!(fs::read(mount.at("big")).unwrap() == bytes, "other bytes are read than were written");
    assert_eq!(mount.outside().pending_uploads(), Vec::<String>::new());
}

#[test]
fn a_change_inside_a_large_object_moves_only_its_surroundings_embedded() {
    changes_inside(Maker::Embedded);
}

#[test]
fn a_change_inside_a_large_object_moves_only_its_surroundings_ministack() {
    changes_inside(Maker::Ministack);
}

#[test]
fn a_change_inside_a_large_object_keeps_the_rest_seaweedfs() {
    let mount = Stage::on(Maker::Seaweedfs).mount();
    let mut bytes = noise(40 * MIB);
    mount.outside().put("big", &bytes);
    for (at, change) in [(9 * MIB, &b"changed"[..]), (40 * MIB, b"appended")] {
        let file = OpenOptions::new().write(true).open(mount.at("big")).unwrap();
        file.write_all_at(change, at as u64).unwrap();
        sys::close(file).unwrap();
        bytes.resize(bytes.len().max(at + change.len()), 0);
        bytes[at..at + change.len()].copy_from_slice(change);
        assert!(mount.outside().bytes("big") == bytes, "other bytes than were written");
    }
}

#[test]
fn a_log_that_grows_sends_what_was_added() {
    let mount = Stage::on(Maker::Embedded).mount();
    let mut bytes = noise(20 * MIB);
    let mut file = File::create(mount.at("log")).unwrap();
    file.write_all(&bytes).unwrap();
    file.sync_all().unwrap();
    let before = requests(&mount, "UploadPart");
    for round in 1..=3 {
        let line = format!("line {round}\n");
        file.write_all(line.as_bytes()).unwrap();
        file.sync_all().unwrap();
        bytes.extend(line.as_bytes());
        assert!(mount.outside().bytes("log") == bytes, "other bytes than were written");
        assert_eq!(requests(&mount, "UploadPart") - before, round);
    }
    assert_eq!(requests(&mount, "GetObject"), 0);
}

#[test]
fn parts_leave_while_a_large_file_is_being_written() {
    let mount = Stage::on(Maker::Embedded).mount();
    let bytes = noise(40 * MIB);
    let mut file = File::create(mount.at("big")).unwrap();
    file.write_all(&bytes).unwrap();
    wait_for("parts before the close", PATIENCE, || (requests(&mount, "UploadPart") >= 4).then_some(()));
    assert_eq!(mount.outside().pending_uploads(), ["big"]);
    assert!(mount.outside().get("big").is_none(), "a file half written is seen in the bucket");
    file.write_all_at(b"changed", 3).unwrap();
    sys::close(file).unwrap();
    let mut expected = bytes;
    expected[3..10].copy_from_slice(b"changed");
    assert!(mount.outside().bytes("big") == expected, "other bytes than were written");
    assert_eq!(mount.outside().pending_uploads(), Vec::<String>::new());
    assert!(requests(&mount, "UploadPart") <= 7);
}

#[test]
fn mtime_does_not_jump_when_a_file_whose_parts_have_left_is_closed() {
    let mount = Stage::on(Maker::Embedded).mount();
    let mut file = File::create(mount.at("big")).unwrap();
    file.write_all(&noise(32 * MIB)).unwrap();
    let before = fs::metadata(mount.at("big")).unwrap().modified().unwrap();
    sys::close(file).unwrap();
    assert_eq!(fs::metadata(mount.at("big")).unwrap().modified().unwrap(), before);
    mount.outside().object("big").metadata.get("file-mtime").expect("it is stored");
    let mut mount = mount;
    mount.remount();
    assert_eq!(fs::metadata(mount.at("big")).unwrap().modified().unwrap(), before);
}

#[test]
fn attributes_set_while_parts_leave_are_stored_by_the_close() {
    let mount = Stage::on(Maker::Embedded).mount();
    let mut file = File::create(mount.at("big")).unwrap();
    file.write_all(&noise(40 * MIB)).unwrap();
    wait_for("parts before the close", PATIENCE, || (requests(&mount, "UploadPart") >= 2).then_some(()));
    sys::chmod(&mount.at("big"), 0o640).unwrap();
    sys::set_times(&mount.at("big"), (1, 0), (1_600_000_000, 7)).unwrap();
    sys::close(file).unwrap();
    let metadata = mount.outside().object("big").metadata;
    assert_eq!(metadata["file-permissions"], "0100640");
    assert_eq!(metadata["file-mtime"], "1600000000000000007ns");
}

#[test]
fn a_large_file_removed_or_emptied_while_it_is_written_leaves_no_upload() {
    for end in ["rm big", ": > big"] {
        let mount = Stage::on(Maker::Embedded).mount();
        let mut file = File::create(mount.at("big")).unwrap();
        file.write_all(&noise(40 * MIB)).unwrap();
        wait_for("parts before the close", PATIENCE, || (requests(&mount, "UploadPart") >= 2).then_some(()));
        process::bash(mount.path(), end);
        drop(file);
        wait_for("the upload to be given up", PATIENCE, || mount.outside().pending_uploads().is_empty().then_some(()));
        assert!(mount.outside().get("big").is_none_or(|object| object.bytes.is_empty()));
    }
}
