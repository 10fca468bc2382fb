//! truncate and ftruncate, both ways, on files open, closed, dirty and remote.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::assert_errno;
use crate::stage::servers::Server;
use crate::stage::{Maker, Stage, place, sys};

#[test]
fn a_closed_file_shrinks_and_grows() {
    let mut place = place();
    fs::write(place.at("f"), "0123456789").unwrap();
    sys::truncate(&place.at("f"), 4).unwrap();
    assert_eq!(fs::read(place.at("f")).unwrap(), b"0123");
    sys::truncate(&place.at("f"), 8).unwrap();
    assert_eq!(fs::read(place.at("f")).unwrap(), b"0123\0\0\0\0");
    place.remount_elsewhere();
    assert_eq!(fs::read(place.at("f")).unwrap(), b"0123\0\0\0\0");
}

#[test]
fn what_was_cut_off_does_not_come_back() {
    let mut place = place();
    fs::write(place.at("f"), vec![b'x'; 300_000]).unwrap();
    place.remount_elsewhere();
    let file = OpenOptions::new().write(true).open(place.at("f")).unwrap();
    file.set_len(100).unwrap();
    file.set_len(200_000).unwrap();
    file.write_all_at(b"y", 150_000).unwrap();
    sys::close(file).unwrap();
    let mut wanted = vec![0; 200_000];
    wanted[..100].fill(b'x');
    wanted[150_000] = b'y';
    assert!(fs::read(place.at("f")).unwrap() == wanted, "before the remount");
    place.remount_elsewhere();
    assert!(fs::read(place.at("f")).unwrap() == wanted, "after the remount");
}

#[test]
fn ftruncate_of_an_open_descriptor_holds_after_close() {
    let mut place = place();
    let mut file = File::create(place.at("f")).unwrap();
    file.write_all(b"0123456789").unwrap();
    file.set_len(3).unwrap();
    assert_eq!(fs::metadata(place.at("f")).unwrap().size(), 3);
    sys::close(file).unwrap();
    place.remount_elsewhere();
    assert_eq!(fs::read(place.at("f")).unwrap(), b"012");
}

#[test]
fn ftruncate_alone_is_stored_by_close() {
    let mut place = place();
    let file = File::create(place.at("f")).unwrap();
    file.set_len(70_000).unwrap();
    sys::close(file).unwrap();
    place.remount_elsewhere();
    assert_eq!(fs::read(place.at("f")).unwrap(), vec![0; 70_000]);
}

#[test]
fn truncate_of_an_object_from_outside_keeps_its_head() {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    mount.outside().put("f", b"0123456789");
    mount.outside().put("g", b"0123456789");
    mount.start();
    sys::truncate(&mount.at("f"), 4).unwrap();
    sys::truncate(&mount.at("g"), 12).unwrap();
    assert_eq!(mount.outside().bytes("f"), b"0123");
    assert_eq!(mount.outside().bytes("g"), b"0123456789\0\0");
}

#[test]
fn truncate_while_another_descriptor_writes_is_seen_by_it() {
    let mut place = place();
    let file = File::create(place.at("f")).unwrap();
    file.write_all_at(b"0123456789", 0).unwrap();
    sys::truncate(&place.at("f"), 2).unwrap();
    assert_eq!(file.metadata().unwrap().size(), 2);
    file.write_all_at(b"Z", 4).unwrap();
    sys::close(file).unwrap();
    place.remount_elsewhere();
    assert_eq!(fs::read(place.at("f")).unwrap(), b"01\0\0Z");
}

#[test]
fn truncate_to_the_same_size_keeps_the_bytes() {
    let place = place();
    fs::write(place.at("f"), "bytes").unwrap();
    sys::truncate(&place.at("f"), 5).unwrap();
    assert_eq!(fs::read(place.at("f")).unwrap(), b"bytes");
}

/// A close is answered before the kernel lets the file go: what comes between the two must not be
/// lost with the draft.
#[test]
fn a_truncation_right_after_a_close_is_not_lost() {
    let server = Server::embedded(&["--latency-ms", "5"]);
    let mut mount = Stage::at(server.endpoint()).mount();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let mount = &mount;
            scope.spawn(move || {
                for round in 0..60 {
                    let path = mount.at(&format!("f{thread}-{}", round % 10));
                    fs::write(&path, "0123456789").unwrap();
                    sys::truncate(&path, 4).unwrap();
                    assert_eq!(fs::read(&path).unwrap(), b"0123", "round {round}");
                    sys::truncate(&path, 8).unwrap();
                    assert_eq!(fs::read(&path).unwrap(), b"0123\0\0\0\0", "round {round}");
                }
            });
        }
    });
    mount.stop();
    for key in mount.outside().keys("") {
        assert_eq!(mount.outside().bytes(&key), b"0123\0\0\0\0", "{key}");
    }
}

#[test]
fn a_huge_truncate_is_sparse_locally() {
    let place = place();
    let file = File::create(place.at("f")).unwrap();
    file.set_len(50 << 30).unwrap();
    assert_eq!(fs::metadata(place.at("f")).unwrap().size(), 50 << 30);
    let mut buffer = [1; 10];
    file.set_len(20).unwrap();
    File::open(place.at("f")).unwrap().read_exact_at(&mut buffer, 10).unwrap();
    assert_eq!(buffer, [0; 10]);
}

#[test]
fn what_cannot_be_truncated_says_why() {
    let place = place();
    fs::create_dir(place.at("d")).unwrap();
    fs::write(place.at("f"), "x").unwrap();
    assert_errno!(sys::truncate(&place.at("d"), 0), EISDIR);
    assert_errno!(sys::truncate(&place.at("no"), 0), ENOENT);
    assert_errno!(sys::truncate(&place.at("f"), -1), EINVAL);
    assert_errno!(File::open(place.at("f")).unwrap().set_len(3), EINVAL);
}
