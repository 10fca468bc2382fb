//! The cache on disk: kept over mounts, shared by them, and never trusted blindly.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::stage::{Maker, Mount, PATIENCE, SmallDisk, Stage, process, wait_for};

const MIB: usize = 1 << 20;

/// Bytes that differ from block to block.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at ^ (at >> 9) ^ (at >> 17)) as u8).collect()
}

fn number(mount: &Mount, part: &str, name: &str) -> u64 {
    mount.status()[part][name].as_u64().unwrap_or(0)
}

fn gets(mount: &Mount) -> u64 {
    number(mount, "requests", "GetObject")
}

/// Waits until so many bytes were written to the disk by this process.
fn await_written(mount: &Mount, bytes: usize) {
    wait_for("the disk cache", PATIENCE, || (number(mount, "disk", "written_bytes") >= bytes as u64).then_some(()));
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// The files with the objects' bytes.
fn data_files(mount: &Mount) -> Vec<PathBuf> {
    let mut found = files(&mount.beside("cache"));
    found.retain(|path| path.extension().is_some_and(|end| end == "data"));
    found
}

/// Lines of the log with a warning that holds all these words.
fn warnings(mount: &Mount, words: &[&str]) -> usize {
    let log = mount.log();
    log.lines().filter(|line| line.contains("WARN") && words.iter().all(|word| line.contains(word))).count()
}

/// A mount of a bucket with one object, read once through the mount and written to the disk.
fn with_object(bytes: &[u8], args: &[&str]) -> Mount {
    let mut mount = Stage::on(Maker::Embedded).args(args).prepare();
    mount.outside().put("object", bytes);
    mount.start();
    assert!(fs::read(mount.at("object")).unwrap() == bytes);
    await_written(&mount, bytes.len());
    mount
}

#[test]
fn what_was_read_is_read_again_after_a_remount_without_a_get() {
    let bytes = pattern(9 * MIB + 7);
    let mut mount = with_object(&bytes, &[]);
    assert!(gets(&mount) > 0);
    mount.remount();
    assert!(fs::read(mount.at("object")).unwrap() == bytes);
    assert_eq!(gets(&mount), 0);
}

#[test]
fn what_was_written_is_read_after_a_remount_without_a_get() {
    let mut mount = Stage::on(Maker::Embedded).mount();
    let small = pattern(70_000);
    fs::write(mount.at("small"), &small).unwrap();
    await_written(&mount, small.len());
    mount.remount();
    assert!(fs::read(mount.at("small")).unwrap() == small);
    assert_eq!(gets(&mount), 0);
}

#[test]
fn what_was_written_in_parts_is_read_after_a_remount_without_a_get() {
    let mut mount = Stage::on(Maker::Embedded).mount();
    let large = pattern(17 * MIB + 3);
    fs::write(mount.at("large"), &large).unwrap();
    assert!(number(&mount, "requests", "UploadPart") > 0);
    await_written(&mount, large.len());
    mount.remount();
    assert!(fs::read(mount.at("large")).unwrap() == large);
    assert_eq!(gets(&mount), 0);
}

#[test]
fn what_was_renamed_is_read_under_its_new_name_without_a_get() {
    let mut mount = Stage::on(Maker::Embedded).mount();
    fs::create_dir(mount.at("d")).unwrap();
    let files = [("small", pattern(5000)), ("d/large", pattern(5 * MIB + 7))];
    for (name, bytes) in &files {
        fs::write(mount.at(name), bytes).unwrap();
    }
    await_written(&mount, files.iter().map(|(_, bytes)| bytes.len()).sum());
    fs::rename(mount.at("small"), mount.at("renamed")).unwrap();
    fs::rename(mount.at("d"), mount.at("e")).unwrap();
    let all_there = |mount: &Mount| {
        let read = [mount.at("renamed"), mount.at("e/large")].map(|path| fs::read(path).unwrap());
        assert!(read.iter().zip(&files).all(|(read, (_, bytes))| read == bytes));
        assert_eq!(gets(mount), 0);
    };
    all_there(&mount);
    mount.remount();
    all_there(&mount);
}

#[test]
fn a_mount_killed_leaves_a_cache_that_the_next_one_uses() {
    let bytes = pattern(3 * MIB);
    let mut mount = with_object(&bytes, &[]);
    mount.kill();
    mount.start();
    assert!(fs::read(mount.at("object")).unwrap() == bytes);
    assert_eq!(gets(&mount), 0);
}

#[test]
fn without_a_size_there_is_none() {
    let mut mount = Stage::on(Maker::Embedded).args(&["--cache-size", "0"]).prepare();
    let bytes = pattern(MIB);
    mount.outside().put("object", &bytes);
    mount.start();
    assert!(fs::read(mount.at("object")).unwrap() == bytes);
    assert!(mount.status()["disk"].is_null());
    mount.remount();
    assert!(fs::read(mount.at("object")).unwrap() == bytes);
    assert!(gets(&mount) > 0);
    assert_eq!(data_files(&mount), Vec::<PathBuf>::new());
}

#[test]
fn damaged_bytes_are_fetched_again_and_told_once() {
    let bytes = pattern(4 * MIB);
    let mut mount = with_object(&bytes, &[]);
    mount.stop();
    let [data] = data_files(&mount).try_into().unwrap();
    let file = fs::OpenOptions::new().write(true).open(data).unwrap();
    file.write_all_at(&[!bytes[2_000_000]], 2_000_000).unwrap();
    mount.start();
    assert!(fs::read(mount.at("object")).unwrap() == bytes);
    assert!(gets(&mount) > 0);
    assert_eq!(number(&mount, "disk", "damaged"), 1);
    assert_eq!(warnings(&mount, &["damaged", "object"]), 1, "{}", mount.log());
}

#[test]
fn a_truncated_file_is_fetched_again_and_told_once() {
    let bytes = pattern(4 * MIB);
    let mut mount = with_object(&bytes, &[]);
    mount.stop();
    let [data] = data_files(&mount).try_into().unwrap();
    fs::OpenOptions::new().write(true).open(data).unwrap().set_len(1_000_000).unwrap();
    mount.start();
    assert!(fs::read(mount.at("object")).unwrap() == bytes);
    assert!(gets(&mount) > 0);
    assert_eq!(warnings(&mount, &["cached", "object"]), 1, "{}", mount.log());
}

#[test]
fn a_directory_removed_while_mounted_is_made_again_and_told_once() {
    let bytes = pattern(2 * MIB);
    let mount = with_object(&bytes, &[]);
    fs::remove_dir_all(mount.beside("cache/blocks-2")).unwrap();
    assert!(fs::read(mount.at("object")).unwrap() == bytes);
    for number in 0..3 {
        let name = format!("later{number}");
        mount.outside().put(&name, &bytes);
        wait_for("the listing", PATIENCE, || fs::metadata(mount.at(&name)).ok());
        assert!(fs::read(mount.at(&name)).unwrap() == bytes);
    }
    await_written(&mount, 4 * bytes.len());
    assert_eq!(data_files(&mount).len(), 3);
    assert_eq!(warnings(&mount, &["removed"]), 1, "{}", mount.log());
}

#[test]
fn the_limit_holds_at_every_moment() {
    let limit = 16 * MIB as u64;
    let mut mount = Stage::on(Maker::Embedded).args(&["--cache-size", "16M"]).prepare();
    let bytes = pattern(8 * MIB);
    for number in 0..6 {
        mount.outside().put(&format!("o{number}"), &bytes);
    }
    mount.start();
    let used = |mount: &Mount| -> u64 {
        let on_disk = |path: &PathBuf| fs::symlink_metadata(path).map_or(0, |found| found.blocks() * 512);
        files(&mount.beside("cache")).iter().map(on_disk).sum()
    };
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            for number in 0..6 {
                assert!(fs::read(mount.at(&format!("o{number}"))).unwrap() == bytes);
            }
        });
        while !reader.is_finished() {
            let used = used(&mount);
            assert!(used <= limit, "{used} bytes on disk");
        }
    });
    await_written(&mount, 20 * MIB);
    assert!(used(&mount) <= limit);
    assert!(number(&mount, "disk", "evictions") > 0);
}

#[test]
fn two_mounts_share_what_either_has_read() {
    let bytes = pattern(5 * MIB);
    let first = with_object(&bytes, &[]);
    let second = Second::of(&first);
    assert!(fs::read(second.mountpoint.join("object")).unwrap() == bytes);
    let status = process::run(first.command().arg("status").arg(&second.mountpoint).arg("--json"));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["requests"].get("GetObject"), None);
}

/// The bucket of a mount at another place, with the same cache.
struct Second<'a> {
    first: &'a Mount,
    mountpoint: PathBuf,
}

impl<'a> Second<'a> {
    fn of(first: &'a Mount) -> Self {
        let mountpoint = first.beside("second");
        fs::create_dir(&mountpoint).unwrap();
        let mut command = first.command();
        command.arg("--cache-dir").arg(first.beside("cache")).arg("--state-dir").arg(first.beside("second-state"));
        process::run(command.arg(first.outside().bucket()).arg(&mountpoint));
        Self { first, mountpoint }
    }
}

impl Drop for Second<'_> {
    fn drop(&mut self) {
        process::output(self.first.command().arg("umount").arg("--lazy").arg(&self.mountpoint), PATIENCE);
    }
}

#[test]
fn a_full_disk_is_told_once_and_read_past() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let disk = SmallDisk::new(place.path().join("disk"), 40 * MIB);
    let mut mount =
        Stage::on(Maker::Embedded).args(&["--cache-dir", disk.0.to_str().unwrap(), "--cache-size", "30M"]).prepare();
    let bytes = pattern(3 * MIB);
    for number in 0..4 {
        mount.outside().put(&format!("o{number}"), &bytes);
    }
    mount.start();
    assert!(fs::read(mount.at("o0")).unwrap() == bytes);
    fs::write(disk.0.join("of another program"), vec![1; 38 * MIB]).ok();
    for number in 1..4 {
        assert!(fs::read(mount.at(&format!("o{number}"))).unwrap() == bytes);
    }
    wait_for("the disk cache", PATIENCE, || (number(&mount, "disk", "skipped_bytes") > 6 << 20).then_some(()));
    assert_eq!(warnings(&mount, &["disk"]), 1, "{}", mount.log());
    assert!(fs::read(mount.at("o0")).unwrap() == bytes);
    drop(mount);
}
