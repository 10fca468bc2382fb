//! fsync: when it returns 0 the bytes are in the bucket, though the file is still open.

use std::fs::{self, File, OpenOptions};
use std::io::Write;

use crate::stage::{Maker, Stage, place, process, sys};

#[test]
fn fsync_stores_an_open_file() {
    let mount = Stage::on(Maker::Embedded).mount();
    let mut file = File::create(mount.at("f")).unwrap();
    for round in 1..=3_usize {
        file.write_all(b"piece ").unwrap();
        file.sync_all().unwrap();
        assert_eq!(mount.outside().bytes("f"), b"piece ".repeat(round));
    }
}

#[test]
fn fdatasync_stores_an_open_file() {
    let mount = Stage::on(Maker::Embedded).mount();
    let mut file = File::create(mount.at("f")).unwrap();
    file.write_all(b"data").unwrap();
    sys::fdatasync(&file).unwrap();
    assert_eq!(mount.outside().bytes("f"), b"data");
}

#[test]
fn fsync_of_a_new_empty_file_stores_it() {
    let mount = Stage::on(Maker::Embedded).mount();
    let file = File::create(mount.at("f")).unwrap();
    file.sync_all().unwrap();
    assert_eq!(mount.outside().bytes("f"), b"");
}

#[test]
fn fsync_through_a_reading_descriptor_stores_too() {
    let mount = Stage::on(Maker::Embedded).mount();
    let mut file = File::create(mount.at("f")).unwrap();
    file.write_all(b"by the other descriptor").unwrap();
    File::open(mount.at("f")).unwrap().sync_all().unwrap();
    assert_eq!(mount.outside().bytes("f"), b"by the other descriptor");
}

#[test]
fn fsync_of_a_directory_succeeds() {
    let place = place();
    fs::create_dir(place.at("d")).unwrap();
    fs::write(place.at("d/f"), "x").unwrap();
    File::open(place.at("d")).unwrap().sync_all().unwrap();
    File::open(place.path()).unwrap().sync_all().unwrap();
}

#[test]
fn fsync_of_a_clean_file_succeeds() {
    let place = place();
    fs::write(place.at("f"), "x").unwrap();
    File::open(place.at("f")).unwrap().sync_all().unwrap();
    OpenOptions::new().write(true).open(place.at("f")).unwrap().sync_all().unwrap();
}

#[test]
fn fsync_of_a_removed_open_file_succeeds() {
    let place = place();
    let mut file = File::create(place.at("f")).unwrap();
    file.write_all(b"gone").unwrap();
    fs::remove_file(place.at("f")).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn dd_with_fsync_and_the_sync_command_succeed() {
    let place = place();
    process::bash(place.path(), "dd if=/dev/zero of=f bs=64k count=20 conv=fsync status=none && sync f && sync -d f");
    assert_eq!(fs::metadata(place.at("f")).unwrap().len(), 20 * 65_536);
}
