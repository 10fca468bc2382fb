//! Making files: O_CREAT, O_EXCL, modes and umask.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};

use crate::assert_errno;
use crate::stage::{place, process, sys};

#[test]
fn a_created_file_is_there_and_empty() {
    let place = place();
    let file = File::create(place.at("f")).unwrap();
    assert_eq!(fs::metadata(place.at("f")).unwrap().size(), 0);
    drop(file);
    assert_eq!(fs::read(place.at("f")).unwrap(), b"");
}

#[test]
fn an_empty_file_survives_a_remount() {
    let mut place = place();
    File::create(place.at("f")).unwrap();
    place.remount_elsewhere();
    assert_eq!(fs::metadata(place.at("f")).unwrap().size(), 0);
}

#[test]
fn exclusive_creation_of_an_existing_name_is_eexist() {
    let place = place();
    fs::write(place.at("f"), "x").unwrap();
    fs::create_dir(place.at("d")).unwrap();
    std::os::unix::fs::symlink("nowhere", place.at("l")).unwrap();
    for name in ["f", "d", "l"] {
        assert_errno!(OpenOptions::new().write(true).create_new(true).open(place.at(name)), EEXIST);
    }
    assert_eq!(fs::read(place.at("f")).unwrap(), b"x");
}

#[test]
fn of_two_exclusive_creators_one_wins() {
    let place = place();
    for round in 0..20 {
        let path = place.at(&format!("f{round}"));
        let won: usize = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| OpenOptions::new().write(true).create_new(true).open(&path).is_ok()))
                .collect();
            racers.into_iter().map(|racer| usize::from(racer.join().unwrap())).sum()
        });
        assert_eq!(won, 1);
    }
}

#[test]
fn the_mode_asked_for_is_cut_by_the_umask_and_kept() {
    let mut place = place();
    process::bash(place.path(), "umask 027; : > a; mkdir d; umask 077; : > b");
    OpenOptions::new().write(true).create_new(true).mode(0o400).open(place.at("c")).unwrap();
    for _ in 0..2 {
        assert_eq!(sys::mode(&place.at("a")), 0o640);
        assert_eq!(sys::mode(&place.at("d")), 0o750);
        assert_eq!(sys::mode(&place.at("b")), 0o600);
        assert_eq!(sys::mode(&place.at("c")), 0o400);
        place.remount_elsewhere();
    }
}

#[test]
fn a_file_created_read_only_can_be_written_through_its_descriptor() {
    let place = place();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o444).open(place.at("f")).unwrap();
    file.write_all(b"git does this").unwrap();
    sys::close(file).unwrap();
    assert_eq!(fs::read(place.at("f")).unwrap(), b"git does this");
    assert_eq!(fs::metadata(place.at("f")).unwrap().permissions().mode() & 0o777, 0o444);
}

#[test]
fn creation_in_a_missing_directory_is_enoent() {
    let place = place();
    assert_errno!(File::create(place.at("no/f")), ENOENT);
}

#[test]
fn a_descriptor_opened_for_both_reads_back_what_it_wrote() {
    let place = place();
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(place.at("f")).unwrap();
    file.write_all(b"round trip").unwrap();
    sys::lseek(&file, 0, libc::SEEK_SET).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "round trip");
}

#[test]
fn a_file_made_in_a_setgid_directory_takes_its_group() {
    let place = place();
    fs::create_dir(place.at("d")).unwrap();
    std::os::unix::fs::chown(place.at("d"), None, Some(4321)).unwrap();
    sys::chmod(&place.at("d"), 0o2775).unwrap();
    fs::write(place.at("d/f"), "x").unwrap();
    fs::create_dir(place.at("d/sub")).unwrap();
    assert_eq!(fs::metadata(place.at("d/f")).unwrap().gid(), 4321);
    let sub = fs::metadata(place.at("d/sub")).unwrap();
    assert_eq!((sub.gid(), sub.mode() & 0o2000), (4321, 0o2000));
}
