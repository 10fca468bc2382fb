//! lseek, with SEEK_DATA and SEEK_HOLE.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use crate::assert_errno;
use crate::stage::{place, sys};

#[test]
fn positions_are_those_of_the_file() {
    let place = place();
    fs::write(place.at("f"), "0123456789").unwrap();
    let file = File::open(place.at("f")).unwrap();
    assert_eq!(sys::lseek(&file, 4, libc::SEEK_SET).unwrap(), 4);
    assert_eq!(sys::lseek(&file, 2, libc::SEEK_CUR).unwrap(), 6);
    assert_eq!(sys::lseek(&file, -1, libc::SEEK_END).unwrap(), 9);
    assert_eq!(sys::lseek(&file, 100, libc::SEEK_SET).unwrap(), 100);
    assert_errno!(sys::lseek(&file, -1, libc::SEEK_SET), EINVAL);
}

#[test]
fn the_end_follows_a_write_by_another_descriptor() {
    let place = place();
    let writer = File::create(place.at("f")).unwrap();
    let reader = File::open(place.at("f")).unwrap();
    writer.write_all_at(b"12345", 0).unwrap();
    assert_eq!(sys::lseek(&reader, 0, libc::SEEK_END).unwrap(), 5);
    writer.write_all_at(b"67", 5).unwrap();
    assert_eq!(sys::lseek(&reader, 0, libc::SEEK_END).unwrap(), 7);
}

#[test]
fn data_and_holes_cover_the_file() {
    let place = place();
    let file = File::create(place.at("f")).unwrap();
    file.write_all_at(b"data", 0).unwrap();
    file.write_all_at(b"data", 10_000_000).unwrap();
    // Where holes begin is the file system's choice; that no data lies in one is not.
    assert_eq!(sys::lseek(&file, 0, libc::SEEK_DATA).unwrap(), 0);
    let hole = sys::lseek(&file, 0, libc::SEEK_HOLE).unwrap();
    assert!((4..=10_000_004).contains(&hole), "{hole}");
    let data = sys::lseek(&file, 5_000_000, libc::SEEK_DATA).unwrap();
    assert!((5_000_000..=10_000_000).contains(&data), "{data}");
    assert_eq!(sys::lseek(&file, 10_000_001, libc::SEEK_HOLE).unwrap(), 10_000_004);
    assert_errno!(sys::lseek(&file, 10_000_004, libc::SEEK_DATA), ENXIO);
    assert_errno!(sys::lseek(&file, 10_000_004, libc::SEEK_HOLE), ENXIO);
}

#[test]
fn a_stored_file_is_all_data_or_says_its_holes() {
    let mut place = place();
    fs::write(place.at("f"), vec![1; 100_000]).unwrap();
    place.remount_elsewhere();
    let file = File::open(place.at("f")).unwrap();
    assert_eq!(sys::lseek(&file, 50_000, libc::SEEK_DATA).unwrap(), 50_000);
    assert_eq!(sys::lseek(&file, 0, libc::SEEK_HOLE).unwrap(), 100_000);
    assert_errno!(sys::lseek(&file, 200_000, libc::SEEK_DATA), ENXIO);
}
