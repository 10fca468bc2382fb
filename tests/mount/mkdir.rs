//! mkdir: directories exist by themselves, empty or not.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::assert_errno;
use crate::stage::{Maker, Stage, place};

#[test]
fn an_empty_directory_survives_a_remount() {
    let mut place = place();
    fs::create_dir_all(place.at("a/b/c")).unwrap();
    place.remount_elsewhere();
    assert!(fs::metadata(place.at("a/b/c")).unwrap().is_dir());
    assert_eq!(fs::read_dir(place.at("a/b/c")).unwrap().count(), 0);
}

#[test]
fn an_existing_name_is_eexist() {
    let place = place();
    fs::create_dir(place.at("d")).unwrap();
    fs::write(place.at("f"), "x").unwrap();
    assert_errno!(fs::create_dir(place.at("d")), EEXIST);
    assert_errno!(fs::create_dir(place.at("f")), EEXIST);
}

#[test]
fn a_missing_parent_is_enoent_and_a_file_as_parent_enotdir() {
    let place = place();
    fs::write(place.at("f"), "x").unwrap();
    assert_errno!(fs::create_dir(place.at("no/d")), ENOENT);
    assert_errno!(fs::create_dir(place.at("f/d")), ENOTDIR);
}

#[test]
fn a_directory_is_a_marker_object() {
    let mount = Stage::on(Maker::Embedded).mount();
    fs::create_dir(mount.at("d")).unwrap();
    assert_eq!(mount.outside().bytes("d/"), b"");
    assert!(mount.outside().get("d").is_none());
}

#[test]
fn a_deep_tree_can_be_made_and_walked() {
    let mut place = place();
    let deep = (0..60).map(|level| format!("d{level}")).collect::<Vec<_>>().join("/");
    fs::create_dir_all(place.at(&deep)).unwrap();
    fs::write(place.at(&format!("{deep}/f")), "bottom").unwrap();
    place.remount_elsewhere();
    assert_eq!(fs::read(place.at(&format!("{deep}/f"))).unwrap(), b"bottom");
}

#[test]
fn a_directory_that_was_a_prefix_can_be_made_and_gets_a_marker() {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    mount.outside().put("p/f", b"x");
    mount.start();
    assert_errno!(fs::create_dir(mount.at("p")), EEXIST);
    let meta = fs::metadata(mount.at("p")).unwrap();
    assert!(meta.is_dir() && meta.nlink() >= 1);
}
