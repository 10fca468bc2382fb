//! chmod, chown, utimens: what they change stays changed, in every order with writes.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::assert_errno;
use crate::stage::{Maker, PATIENCE, Stage, place, sys, wait_for};

#[test]
fn chmod_keeps_every_bit_over_a_remount() {
    let mut place = place();
    let modes = [0o000, 0o644, 0o755, 0o600, 0o4755, 0o2755, 0o1777, 0o7777];
    for mode in modes {
        let path = place.at(&format!("f{mode:o}"));
        fs::write(&path, "x").unwrap();
        sys::chmod(&path, mode).unwrap();
        assert_eq!(sys::mode(&path), mode);
    }
    place.remount_elsewhere();
    for mode in modes {
        assert_eq!(sys::mode(&place.at(&format!("f{mode:o}"))), mode, "{mode:o}");
    }
}

#[test]
fn chmod_and_chown_of_a_directory_survive_a_remount() {
    let mut place = place();
    fs::create_dir(place.at("d")).unwrap();
    fs::write(place.at("d/f"), "x").unwrap();
    sys::chmod(&place.at("d"), 0o2750).unwrap();
    chown(place.at("d"), Some(1234), Some(2345)).unwrap();
    sys::chmod(&place.at("d"), 0o2750).unwrap();
    place.remount_elsewhere();
    let meta = fs::metadata(place.at("d")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o2750, 1234, 2345));
    assert_eq!(fs::read(place.at("d/f")).unwrap(), b"x");
}

#[test]
fn the_root_keeps_its_attributes_over_a_remount() {
    let mut place = place();
    let root = place.path().to_path_buf();
    sys::chmod(&root, 0o711).unwrap();
    chown(&root, Some(77), Some(88)).unwrap();
    sys::set_times(&root, (5_000, 0), (6_000, 7)).unwrap();
    // The root of a bucket has no key of its own: its attributes live in the state directory.
    place.remount();
    let meta = fs::metadata(&root).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o711, 77, 88));
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (6_000, 7));
}

#[test]
fn chown_keeps_owner_and_group_over_a_remount() {
    let mut place = place();
    fs::write(place.at("f"), "x").unwrap();
    chown(place.at("f"), Some(1000), Some(1001)).unwrap();
    chown(place.at("f"), None, Some(4_000_000_000)).unwrap();
    place.remount_elsewhere();
    let meta = fs::metadata(place.at("f")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (1000, 4_000_000_000));
}

#[test]
fn chown_of_a_symlink_leaves_its_target() {
    let place = place();
    fs::write(place.at("target"), "x").unwrap();
    std::os::unix::fs::symlink("target", place.at("link")).unwrap();
    lchown(place.at("link"), Some(4242), Some(4343)).unwrap();
    let link = fs::symlink_metadata(place.at("link")).unwrap();
    assert_eq!((link.uid(), link.gid()), (4242, 4343));
    assert_ne!(fs::metadata(place.at("target")).unwrap().uid(), 4242);
}

#[test]
fn times_keep_their_nanoseconds_over_a_remount() {
    let mut place = place();
    fs::write(place.at("f"), "x").unwrap();
    fs::create_dir(place.at("d")).unwrap();
    for name in ["f", "d"] {
        sys::set_times(&place.at(name), (1_234_567_890, 123_456_789), (987_654_321, 1)).unwrap();
    }
    place.remount_elsewhere();
    for name in ["f", "d"] {
        let meta = fs::metadata(place.at(name)).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (987_654_321, 1), "mtime of {name}");
        assert_eq!((meta.atime(), meta.atime_nsec()), (1_234_567_890, 123_456_789), "atime of {name}");
    }
}

#[test]
fn times_before_1970_and_after_2038_are_kept() {
    let mut place = place();
    for (name, seconds) in [("old", -86_400_i64), ("new", 4_102_444_800)] {
        fs::write(place.at(name), "x").unwrap();
        sys::set_times(&place.at(name), (seconds, 0), (seconds, 5)).unwrap();
    }
    place.remount_elsewhere();
    for (name, seconds) in [("old", -86_400_i64), ("new", 4_102_444_800)] {
        let meta = fs::metadata(place.at(name)).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (seconds, 5), "{name}");
    }
}

#[test]
fn chmod_between_write_and_close_survives_the_flush() {
    let mut place = place();
    let path = place.at("f");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"bytes").unwrap();
    file.set_permissions(Permissions::from_mode(0o640)).unwrap();
    file.write_all(b" more").unwrap();
    sys::chmod(&path, 0o751).unwrap();
    sys::close(file).unwrap();
    assert_eq!(sys::mode(&path), 0o751);
    place.remount_elsewhere();
    assert_eq!(sys::mode(&path), 0o751);
    assert_eq!(fs::read(&path).unwrap(), b"bytes more");
}

#[test]
fn utimens_between_write_and_close_survives_the_flush() {
    let mut place = place();
    let path = place.at("f");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"bytes").unwrap();
    let then = UNIX_EPOCH + Duration::new(1_500_000_000, 42);
    file.set_modified(then).unwrap();
    sys::close(file).unwrap();
    assert_eq!(sys::mtime(&path), then);
    place.remount_elsewhere();
    assert_eq!(sys::mtime(&path), then);
}

#[test]
fn utimens_on_a_file_that_another_has_open_survives_its_close() {
    let mut place = place();
    let path = place.at("f");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"bytes").unwrap();
    sys::set_times(&path, (7, 0), (1_500_000_000, 0)).unwrap();
    drop(file);
    place.remount_elsewhere();
    assert_eq!(sys::mtime(&path), UNIX_EPOCH + Duration::from_secs(1_500_000_000));
}

#[test]
fn a_write_after_utimens_moves_mtime_again() {
    let place = place();
    let path = place.at("f");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"a").unwrap();
    sys::set_times(&path, (7, 0), (1_000, 0)).unwrap();
    file.write_all(b"b").unwrap();
    drop(file);
    assert!(sys::mtime(&path) > SystemTime::now() - Duration::from_secs(600));
}

#[test]
fn attributes_change_on_a_closed_file_without_touching_its_bytes() {
    let mut place = place();
    let path = place.at("f");
    let bytes: Vec<u8> = (0..200_000_u32).map(|number| (number % 251) as u8).collect();
    fs::write(&path, &bytes).unwrap();
    sys::chmod(&path, 0o600).unwrap();
    chown(&path, Some(9), Some(9)).unwrap();
    sys::set_times(&path, (1, 0), (2, 0)).unwrap();
    place.remount_elsewhere();
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(sys::mode(&path), 0o600);
    assert_eq!(sys::mtime(&path), UNIX_EPOCH + Duration::from_secs(2));
}

#[test]
fn attributes_of_missing_files_are_enoent() {
    let place = place();
    assert_errno!(sys::chmod(&place.at("no"), 0o600), ENOENT);
    assert_errno!(chown(place.at("no"), Some(1), None), ENOENT);
    assert_errno!(sys::set_times(&place.at("no"), (1, 0), (1, 0)), ENOENT);
}

#[test]
fn touch_of_an_existing_file_keeps_its_bytes() {
    let place = place();
    fs::write(place.at("f"), "bytes").unwrap();
    OpenOptions::new().append(true).create(true).open(place.at("f")).unwrap();
    File::open(place.at("f")).unwrap().set_modified(UNIX_EPOCH + Duration::from_secs(9)).unwrap();
    assert_eq!(fs::read(place.at("f")).unwrap(), b"bytes");
    assert_eq!(sys::mtime(&place.at("f")), UNIX_EPOCH + Duration::from_secs(9));
}

/// Nothing but the date of an object tells a change of its attributes, and two that fall into one second look the same.
#[test]
fn what_another_mount_changes_at_once_is_seen() {
    let stage = || Stage::on(Maker::Embedded).args(&["--attr-ttl", "0s", "--list-ttl", "0s", "--negative-ttl", "0s"]);
    let left = stage().mount();
    let mut right = left.elsewhere();
    right.start();
    for round in 0..3 {
        let (file, directory) = (format!("f{round}"), format!("d{round}"));
        fs::write(left.at(&file), "bytes").unwrap();
        fs::create_dir(left.at(&directory)).unwrap();
        for name in [&file, &directory] {
            chown(right.at(name), Some(5), Some(6)).unwrap();
            wait_for("what the other mount has set", PATIENCE, || {
                if left.at(name).is_dir() {
                    fs::read_dir(left.at(name)).unwrap();
                }
                let meta = fs::metadata(left.at(name)).unwrap();
                (meta.uid() == 5 && meta.gid() == 6).then_some(())
            });
        }
    }
}
