//! rmdir: empty directories only, and not twice.

use std::fs::{self, File};

use crate::assert_errno;
use crate::stage::{Maker, PATIENCE, Stage, place, sys, wait_for};

#[test]
fn an_empty_directory_goes_for_good() {
    let mut place = place();
    fs::create_dir(place.at("d")).unwrap();
    fs::remove_dir(place.at("d")).unwrap();
    assert_errno!(fs::metadata(place.at("d")), ENOENT);
    assert_errno!(fs::remove_dir(place.at("d")), ENOENT);
    place.remount_elsewhere();
    assert_errno!(fs::metadata(place.at("d")), ENOENT);
}

#[test]
fn a_directory_with_anything_in_it_is_enotempty() {
    let place = place();
    fs::create_dir_all(place.at("a/sub")).unwrap();
    fs::create_dir(place.at("b")).unwrap();
    fs::write(place.at("b/f"), "x").unwrap();
    fs::create_dir(place.at("c")).unwrap();
    let open = File::create(place.at("c/never-written")).unwrap();
    for name in ["a", "b", "c"] {
        assert_errno!(fs::remove_dir(place.at(name)), ENOTEMPTY);
    }
    sys::close(open).unwrap();
}

#[test]
fn a_file_is_enotdir() {
    let place = place();
    fs::write(place.at("f"), "x").unwrap();
    assert_errno!(fs::remove_dir(place.at("f")), ENOTDIR);
}

#[test]
fn a_directory_emptied_can_be_removed_and_made_again() {
    let place = place();
    for _ in 0..5 {
        fs::create_dir(place.at("d")).unwrap();
        fs::write(place.at("d/f"), "x").unwrap();
        fs::remove_file(place.at("d/f")).unwrap();
        fs::remove_dir(place.at("d")).unwrap();
    }
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn the_marker_goes_from_the_bucket() {
    let mount = Stage::on(Maker::Embedded).mount();
    fs::create_dir_all(mount.at("d/e")).unwrap();
    fs::remove_dir(mount.at("d/e")).unwrap();
    fs::remove_dir(mount.at("d")).unwrap();
    mount.settle();
    assert_eq!(mount.outside().keys(""), Vec::<String>::new());
}

#[test]
fn an_object_that_appeared_from_outside_keeps_its_directory() {
    let mount = Stage::on(Maker::Embedded).mount();
    fs::create_dir(mount.at("d")).unwrap();
    assert_eq!(fs::read_dir(mount.at("d")).unwrap().count(), 0);
    mount.outside().put("d/unseen", b"precious");
    assert_errno!(fs::remove_dir(mount.at("d")), ENOTEMPTY);
    assert_eq!(mount.outside().bytes("d/unseen"), b"precious");
}

#[test]
fn what_another_client_puts_into_a_directory_while_it_is_emptied_stays() {
    let mount = Stage::on(Maker::Embedded).mount();
    fs::create_dir(mount.at("d")).unwrap();
    fs::write(mount.at("d/f"), "x").unwrap();
    fs::remove_file(mount.at("d/f")).unwrap();
    mount.outside().put("d/unseen", b"precious");
    // Emptied just now, it may go; with it nothing but its marker does.
    let _ = fs::remove_dir(mount.at("d"));
    mount.settle();
    assert_eq!(mount.outside().bytes("d/unseen"), b"precious");
    wait_for("the directory to be seen", PATIENCE, || fs::read(mount.at("d/unseen")).ok());
}

#[test]
fn rm_r_of_a_tree_leaves_no_key() {
    let mount = Stage::on(Maker::Embedded).mount();
    for dir in 0..5 {
        fs::create_dir_all(mount.at(&format!("t/d{dir}/sub"))).unwrap();
        for file in 0..20 {
            fs::write(mount.at(&format!("t/d{dir}/sub/f{file}")), "x").unwrap();
        }
    }
    crate::stage::process::bash(mount.path(), "rm -r t");
    assert_errno!(fs::metadata(mount.at("t")), ENOENT);
    mount.settle();
    assert_eq!(mount.outside().keys(""), Vec::<String>::new());
}
