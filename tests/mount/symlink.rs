//! symlink and readlink.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use crate::assert_errno;
use crate::stage::{Maker, Stage, place, sys};

#[test]
fn a_link_leads_to_its_target_also_after_a_remount() {
    let mut place = place();
    fs::create_dir(place.at("d")).unwrap();
    fs::write(place.at("d/target"), "x").unwrap();
    symlink("d/target", place.at("l")).unwrap();
    symlink("../d", place.at("d/up")).unwrap();
    for _ in 0..2 {
        assert_eq!(fs::read_link(place.at("l")).unwrap().to_str(), Some("d/target"));
        assert_eq!(fs::read(place.at("l")).unwrap(), b"x");
        assert_eq!(fs::read(place.at("d/up/up/target")).unwrap(), b"x");
        place.remount_elsewhere();
    }
}

#[test]
fn size_and_mode_are_those_of_a_link() {
    let mut place = place();
    symlink("täglich", place.at("l")).unwrap();
    place.remount_elsewhere();
    let meta = fs::symlink_metadata(place.at("l")).unwrap();
    assert!(meta.file_type().is_symlink());
    assert_eq!((meta.size(), meta.mode() & 0o7777), ("täglich".len() as u64, 0o777));
}

#[test]
fn a_dangling_link_and_a_loop_answer_enoent_and_eloop() {
    let place = place();
    symlink("nowhere", place.at("dangling")).unwrap();
    symlink("loop", place.at("loop")).unwrap();
    assert_errno!(fs::read(place.at("dangling")), ENOENT);
    assert_errno!(fs::read(place.at("loop")), ELOOP);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
}

#[test]
fn writing_through_a_dangling_link_makes_its_target() {
    let place = place();
    symlink("made", place.at("l")).unwrap();
    fs::write(place.at("l"), "x").unwrap();
    assert_eq!(fs::read(place.at("made")).unwrap(), b"x");
    assert_eq!(sys::kind_letter(&place.at("l")), 'l');
}

#[test]
fn an_existing_name_is_eexist_and_readlink_of_a_file_einval() {
    let place = place();
    fs::write(place.at("f"), "x").unwrap();
    assert_errno!(symlink("t", place.at("f")), EEXIST);
    assert_errno!(fs::read_link(place.at("f")), EINVAL);
}

#[test]
fn a_target_of_4095_bytes_is_kept() {
    let mut place = place();
    let target = "t/".repeat(2047) + "e";
    symlink(&target, place.at("l")).unwrap();
    place.remount_elsewhere();
    assert_eq!(fs::read_link(place.at("l")).unwrap().to_str(), Some(target.as_str()));
}

#[test]
fn removing_a_link_leaves_its_target() {
    let place = place();
    fs::write(place.at("f"), "x").unwrap();
    symlink("f", place.at("l")).unwrap();
    fs::remove_file(place.at("l")).unwrap();
    assert_eq!(fs::read(place.at("f")).unwrap(), b"x");
}

#[test]
fn the_object_holds_the_target() {
    let mount = Stage::on(Maker::Embedded).mount();
    symlink("the/target", mount.at("l")).unwrap();
    let object = mount.outside().object("l");
    assert_eq!(object.bytes, b"the/target");
    assert_eq!(object.metadata.get("file-permissions").map(String::as_str), Some("0120777"));
}
