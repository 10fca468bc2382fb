//! stat: size, kind, links, times, and that they do not jump.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use crate::stage::{place, sys};

#[test]
fn size_and_blocks_of_a_file_are_those_of_its_bytes() {
    let place = place();
    fs::write(place.at("f"), vec![7; 100_000]).unwrap();
    let meta = fs::metadata(place.at("f")).unwrap();
    assert_eq!(meta.size(), 100_000);
    assert!(meta.blocks() * 512 >= 100_000, "{} blocks", meta.blocks());
    fs::write(place.at("empty"), "").unwrap();
    let meta = fs::metadata(place.at("empty")).unwrap();
    assert_eq!((meta.size(), meta.blocks()), (0, 0));
}

#[test]
fn size_follows_writes_before_the_close() {
    let place = place();
    let mut file = File::create(place.at("f")).unwrap();
    for wanted in [10_u64, 20, 30] {
        file.write_all(&[1; 10]).unwrap();
        assert_eq!(fs::metadata(place.at("f")).unwrap().size(), wanted);
        assert_eq!(file.metadata().unwrap().size(), wanted);
    }
}

#[test]
fn a_file_has_one_link() {
    let place = place();
    fs::write(place.at("f"), "x").unwrap();
    assert_eq!(fs::metadata(place.at("f")).unwrap().nlink(), 1);
}

#[test]
fn a_removed_open_file_has_no_link() {
    let place = place();
    fs::write(place.at("f"), "x").unwrap();
    let file = File::open(place.at("f")).unwrap();
    fs::remove_file(place.at("f")).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
}

#[test]
fn a_new_file_belongs_to_its_maker_and_is_dated_now() {
    let place = place();
    let before = SystemTime::now() - Duration::from_secs(2);
    fs::write(place.at("f"), "x").unwrap();
    let meta = fs::metadata(place.at("f")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()));
    for time in [meta.modified().unwrap(), meta.accessed().unwrap()] {
        assert!(time >= before && time <= SystemTime::now() + Duration::from_secs(2), "{time:?}");
    }
}

#[test]
fn mtime_does_not_jump_when_the_file_is_uploaded() {
    let place = place();
    let mut file = File::create(place.at("f")).unwrap();
    file.write_all(b"some bytes").unwrap();
    let before = sys::mtime(&place.at("f"));
    sys::close(file).unwrap();
    assert_eq!(sys::mtime(&place.at("f")), before);
    assert_eq!(fs::read(place.at("f")).unwrap(), b"some bytes");
    assert_eq!(sys::mtime(&place.at("f")), before);
}

#[test]
fn inode_numbers_differ_between_files_and_stay_with_a_file() {
    let place = place();
    fs::write(place.at("a"), "x").unwrap();
    fs::write(place.at("b"), "x").unwrap();
    let ino = |name: &str| fs::metadata(place.at(name)).unwrap().ino();
    let a = ino("a");
    assert_ne!(a, ino("b"));
    fs::write(place.at("a"), "longer than before").unwrap();
    assert_eq!(ino("a"), a);
}

#[test]
fn a_write_moves_mtime_and_ctime_and_a_chmod_only_ctime() {
    let place = place();
    let path = place.at("f");
    fs::write(&path, "x").unwrap();
    sys::set_times(&path, (1_000, 0), (1_000, 0)).unwrap();
    let ctime = sys::ctime(&path);
    // Kernel timestamps tick every few milliseconds: wait for the tick, not for an amount of time.
    crate::stage::wait_for("a tick of the clock", crate::stage::PATIENCE, || {
        sys::chmod(&path, 0o600).unwrap();
        (sys::ctime(&path) > ctime).then_some(())
    });
    assert_eq!(sys::mtime(&path), SystemTime::UNIX_EPOCH + Duration::from_secs(1_000));
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"y").unwrap();
    assert!(sys::mtime(&path) > SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
}

#[test]
fn a_directory_changes_its_mtime_with_its_entries() {
    let place = place();
    let dir = place.at("d");
    fs::create_dir(&dir).unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
    let steps: [(&str, &dyn Fn()); 4] = [
        ("create", &|| fs::write(dir.join("f"), "x").unwrap()),
        ("rename", &|| fs::rename(dir.join("f"), dir.join("g")).unwrap()),
        ("unlink", &|| fs::remove_file(dir.join("g")).unwrap()),
        ("mkdir", &|| fs::create_dir(dir.join("sub")).unwrap()),
    ];
    for (name, step) in steps {
        sys::set_times(&dir, (1_000, 0), (1_000, 0)).unwrap();
        assert_eq!(sys::mtime(&dir), old);
        step();
        assert!(sys::mtime(&dir) > old, "{name} left the directory's mtime");
    }
}
