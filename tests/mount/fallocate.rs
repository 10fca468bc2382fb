//! fallocate: space is promised, holes read as zeros.

use std::fs::{self, File, OpenOptions};
use std::io::Write;

use crate::assert_errno;
use crate::stage::{Maker, Stage, place, sys};

#[test]
fn it_extends_the_file_with_zeros() {
    let mut place = place();
    let mut file = File::create(place.at("f")).unwrap();
    file.write_all(b"head").unwrap();
    sys::fallocate(&file, 0, 0, 10_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 10_000);
    sys::close(file).unwrap();
    place.remount_elsewhere();
    let bytes = fs::read(place.at("f")).unwrap();
    assert_eq!((bytes.len(), &bytes[..5]), (10_000, &b"head\0"[..]));
}

#[test]
fn it_never_shrinks_or_overwrites() {
    let place = place();
    fs::write(place.at("f"), "0123456789").unwrap();
    let file = OpenOptions::new().write(true).open(place.at("f")).unwrap();
    sys::fallocate(&file, 0, 2, 3).unwrap();
    drop(file);
    assert_eq!(fs::read(place.at("f")).unwrap(), b"0123456789");
}

#[test]
fn keep_size_leaves_the_size() {
    let place = place();
    let mut file = File::create(place.at("f")).unwrap();
    file.write_all(b"head").unwrap();
    sys::fallocate(&file, libc::FALLOC_FL_KEEP_SIZE, 0, 1_000_000).unwrap();
    sys::close(file).unwrap();
    assert_eq!(fs::read(place.at("f")).unwrap(), b"head");
}

#[test]
fn a_punched_hole_reads_as_zeros() {
    let mut place = place();
    fs::write(place.at("f"), vec![b'x'; 100_000]).unwrap();
    let file = OpenOptions::new().write(true).open(place.at("f")).unwrap();
    sys::fallocate(&file, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 10_000, 50_000).unwrap();
    sys::close(file).unwrap();
    let mut wanted = vec![b'x'; 100_000];
    wanted[10_000..60_000].fill(0);
    assert!(fs::read(place.at("f")).unwrap() == wanted, "before the remount");
    place.remount_elsewhere();
    assert!(fs::read(place.at("f")).unwrap() == wanted, "after the remount");
}

#[test]
fn what_it_cannot_do_is_enotsup_and_nonsense_einval() {
    let mount = Stage::on(Maker::Embedded).mount();
    fs::write(mount.at("f"), vec![0; 100_000]).unwrap();
    let file = OpenOptions::new().write(true).open(mount.at("f")).unwrap();
    assert_errno!(sys::fallocate(&file, libc::FALLOC_FL_COLLAPSE_RANGE, 0, 4096), EOPNOTSUPP);
    assert_errno!(sys::fallocate(&file, 0, 0, 0), EINVAL);
    assert_errno!(sys::fallocate(&File::open(mount.at("f")).unwrap(), 0, 0, 10), EBADF);
}
