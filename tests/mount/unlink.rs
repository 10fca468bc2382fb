//! unlink: the name goes at once, the bytes when the last descriptor does.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};

use crate::assert_errno;
use crate::stage::{Maker, Stage, place, sys};

#[test]
fn a_removed_file_is_gone_also_after_a_remount() {
    let mut place = place();
    fs::write(place.at("f"), "x").unwrap();
    fs::remove_file(place.at("f")).unwrap();
    assert_errno!(fs::metadata(place.at("f")), ENOENT);
    assert_errno!(fs::remove_file(place.at("f")), ENOENT);
    place.remount_elsewhere();
    assert_errno!(fs::metadata(place.at("f")), ENOENT);
}

#[test]
fn a_removed_file_stays_readable_for_who_has_it_open() {
    let place = place();
    let bytes: Vec<u8> = (0..2_000_000_u32).map(|at| (at % 241) as u8).collect();
    fs::write(place.at("f"), &bytes).unwrap();
    let mut file = File::open(place.at("f")).unwrap();
    let mut head = [0; 100];
    file.read_exact(&mut head).unwrap();
    fs::remove_file(place.at("f")).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut all = Vec::new();
    file.read_to_end(&mut all).unwrap();
    assert!(all == bytes);
}

#[test]
fn a_cold_object_removed_while_open_stays_readable() {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 239) as u8).collect();
    mount.outside().put("f", &bytes);
    mount.start();
    let mut file = File::open(mount.at("f")).unwrap();
    fs::remove_file(mount.at("f")).unwrap();
    let mut all = Vec::new();
    file.read_to_end(&mut all).unwrap();
    assert!(all == bytes);
}

#[test]
fn a_file_removed_while_open_can_still_be_written_and_does_not_come_back() {
    let mut place = place();
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(place.at("f")).unwrap();
    file.write_all(b"before").unwrap();
    fs::remove_file(place.at("f")).unwrap();
    file.write_all(b" after").unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "before after");
    sys::close(file).unwrap();
    assert_errno!(fs::metadata(place.at("f")), ENOENT);
    place.remount_elsewhere();
    assert_errno!(fs::metadata(place.at("f")), ENOENT);
}

#[test]
fn a_new_file_of_a_removed_open_ones_name_is_another_file() {
    let mut place = place();
    let mut old = File::create(place.at("f")).unwrap();
    old.write_all(b"old").unwrap();
    fs::remove_file(place.at("f")).unwrap();
    fs::write(place.at("f"), "new").unwrap();
    old.write_all(b" and more").unwrap();
    sys::close(old).unwrap();
    assert_eq!(fs::read(place.at("f")).unwrap(), b"new");
    place.remount_elsewhere();
    assert_eq!(fs::read(place.at("f")).unwrap(), b"new");
}

#[test]
fn unlink_of_a_directory_is_eisdir() {
    let place = place();
    fs::create_dir(place.at("d")).unwrap();
    assert_errno!(fs::remove_file(place.at("d")), EISDIR);
}

#[test]
fn the_object_is_gone_from_the_bucket_when_unlink_answers() {
    let mount = Stage::on(Maker::Embedded).mount();
    fs::create_dir(mount.at("d")).unwrap();
    fs::write(mount.at("d/f"), "x").unwrap();
    assert!(mount.outside().get("d/f").is_some());
    fs::remove_file(mount.at("d/f")).unwrap();
    assert!(mount.outside().get("d/f").is_none());
    assert!(fs::metadata(mount.at("d")).unwrap().is_dir(), "the directory stays when its last file goes");
}

#[test]
fn a_directory_that_was_only_a_prefix_stays_when_its_last_file_goes() {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    mount.outside().put("d/f", b"x");
    mount.start();
    fs::remove_file(mount.at("d/f")).unwrap();
    assert!(fs::metadata(mount.at("d")).unwrap().is_dir());
    mount.remount();
    assert!(fs::metadata(mount.at("d")).unwrap().is_dir());
}

#[test]
fn a_dirty_file_removed_before_its_close_never_reaches_the_bucket() {
    let mount = Stage::on(Maker::Embedded).mount();
    let mut file = File::create(mount.at("temporary")).unwrap();
    file.write_all(b"secret").unwrap();
    fs::remove_file(mount.at("temporary")).unwrap();
    sys::close(file).unwrap();
    assert_eq!(mount.outside().keys("temporary"), Vec::<String>::new());
}
