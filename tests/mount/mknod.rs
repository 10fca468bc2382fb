//! mknod: fifos, sockets and devices are kept as empty marker objects.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};

use crate::assert_errno;
use crate::stage::{Maker, Stage, place, sys};

#[test]
fn each_kind_is_kept_over_a_remount() {
    let mut place = place();
    let device = libc::makedev(7, 200);
    sys::mknod(&place.at("p"), libc::S_IFIFO, 0o640, 0).unwrap();
    sys::mknod(&place.at("s"), libc::S_IFSOCK, 0o600, 0).unwrap();
    sys::mknod(&place.at("c"), libc::S_IFCHR, 0o600, device).unwrap();
    sys::mknod(&place.at("b"), libc::S_IFBLK, 0o640, device).unwrap();
    sys::mknod(&place.at("-"), libc::S_IFREG, 0o644, 0).unwrap();
    for _ in 0..2 {
        for (name, mode) in [("p", 0o640), ("s", 0o600), ("c", 0o600), ("b", 0o640), ("-", 0o644)] {
            assert_eq!(sys::kind_letter(&place.at(name)).to_string(), name);
            assert_eq!(sys::mode(&place.at(name)), mode, "{name}");
        }
        assert_eq!(fs::metadata(place.at("c")).unwrap().rdev(), device);
        assert_eq!(fs::metadata(place.at("b")).unwrap().rdev(), device);
        place.remount_elsewhere();
    }
}

#[test]
fn a_fifo_carries_bytes_between_processes() {
    let place = place();
    let path = place.at("p");
    sys::mknod(&path, libc::S_IFIFO, 0o644, 0).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| OpenOptions::new().write(true).open(&path).unwrap().write_all(b"through").unwrap());
        let mut text = String::new();
        File::open(&path).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    });
}

#[test]
fn a_socket_can_be_bound_and_reached() {
    let place = place();
    let listener = UnixListener::bind(place.at("s")).unwrap();
    assert_eq!(sys::kind_letter(&place.at("s")), 's');
    let client = std::thread::scope(|scope| {
        let client = scope.spawn(|| UnixStream::connect(place.at("s")).unwrap());
        listener.accept().unwrap().0.write_all(b"hello").unwrap();
        client.join().unwrap()
    });
    let mut text = String::new();
    (&client).read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
}

#[test]
fn an_existing_name_is_eexist() {
    let place = place();
    fs::write(place.at("f"), "x").unwrap();
    assert_errno!(sys::mknod(&place.at("f"), libc::S_IFIFO, 0o644, 0), EEXIST);
}

#[test]
fn the_marker_is_empty_and_says_its_kind() {
    let mount = Stage::on(Maker::Embedded).mount();
    sys::mknod(&mount.at("p"), libc::S_IFIFO, 0o644, 0).unwrap();
    let object = mount.outside().object("p");
    assert_eq!(object.bytes, b"");
    assert_eq!(object.metadata.get("file-permissions").map(String::as_str), Some("0010644"));
}
