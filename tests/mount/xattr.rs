//! Extended attributes.

use std::fs;
use std::io::Write;

use crate::assert_errno;
use crate::stage::{Maker, Stage, place, sys};

#[test]
fn values_are_kept_over_a_remount() {
    let mut place = place();
    fs::write(place.at("f"), "x").unwrap();
    fs::create_dir(place.at("d")).unwrap();
    let binary: Vec<u8> = (0..=255).collect();
    for name in ["f", "d"] {
        sys::setxattr(&place.at(name), "user.text", b"some words", 0).unwrap();
        sys::setxattr(&place.at(name), "user.Binary.Value", &binary, 0).unwrap();
        sys::setxattr(&place.at(name), "user.empty", b"", 0).unwrap();
        sys::setxattr(&place.at(name), "user.ünï", b"1", 0).unwrap();
    }
    for _ in 0..2 {
        for name in ["f", "d"] {
            let path = place.at(name);
            assert_eq!(sys::listxattr(&path).unwrap(), ["user.Binary.Value", "user.empty", "user.text", "user.ünï"]);
            assert_eq!(sys::getxattr(&path, "user.text").unwrap(), b"some words");
            assert_eq!(sys::getxattr(&path, "user.Binary.Value").unwrap(), binary);
            assert_eq!(sys::getxattr(&path, "user.empty").unwrap(), b"");
        }
        place.remount_elsewhere();
    }
}

#[test]
fn a_missing_attribute_is_enodata() {
    let place = place();
    fs::write(place.at("f"), "x").unwrap();
    assert_errno!(sys::getxattr(&place.at("f"), "user.no"), ENODATA);
    assert_errno!(sys::removexattr(&place.at("f"), "user.no"), ENODATA);
    assert_errno!(sys::setxattr(&place.at("f"), "user.no", b"1", libc::XATTR_REPLACE), ENODATA);
    assert_eq!(sys::listxattr(&place.at("f")).unwrap(), Vec::<String>::new());
}

#[test]
fn create_on_an_existing_attribute_is_eexist_and_replace_replaces() {
    let place = place();
    fs::write(place.at("f"), "x").unwrap();
    sys::setxattr(&place.at("f"), "user.a", b"1", libc::XATTR_CREATE).unwrap();
    assert_errno!(sys::setxattr(&place.at("f"), "user.a", b"2", libc::XATTR_CREATE), EEXIST);
    sys::setxattr(&place.at("f"), "user.a", b"3", libc::XATTR_REPLACE).unwrap();
    assert_eq!(sys::getxattr(&place.at("f"), "user.a").unwrap(), b"3");
}

#[test]
fn a_removed_attribute_is_gone() {
    let mut place = place();
    fs::write(place.at("f"), "x").unwrap();
    sys::setxattr(&place.at("f"), "user.a", b"1", 0).unwrap();
    sys::setxattr(&place.at("f"), "user.b", b"2", 0).unwrap();
    sys::removexattr(&place.at("f"), "user.a").unwrap();
    place.remount_elsewhere();
    assert_eq!(sys::listxattr(&place.at("f")).unwrap(), ["user.b"]);
}

#[test]
fn a_small_buffer_is_erange_and_an_empty_one_asks_for_the_length() {
    let place = place();
    fs::write(place.at("f"), "x").unwrap();
    sys::setxattr(&place.at("f"), "user.a", b"ten bytes!", 0).unwrap();
    assert_eq!(sys::getxattr_sized(&place.at("f"), "user.a", 0).unwrap(), 10);
    assert_errno!(sys::getxattr_sized(&place.at("f"), "user.a", 9), ERANGE);
    assert_eq!(sys::getxattr_sized(&place.at("f"), "user.a", 10).unwrap(), 10);
}

#[test]
fn attributes_survive_a_rewrite_a_rename_and_a_chmod() {
    let mut place = place();
    fs::write(place.at("f"), "x").unwrap();
    sys::setxattr(&place.at("f"), "user.a", b"kept", 0).unwrap();
    fs::OpenOptions::new().append(true).open(place.at("f")).unwrap().write_all(b"more").unwrap();
    sys::chmod(&place.at("f"), 0o600).unwrap();
    fs::rename(place.at("f"), place.at("g")).unwrap();
    place.remount_elsewhere();
    assert_eq!(sys::getxattr(&place.at("g"), "user.a").unwrap(), b"kept");
}

#[test]
fn an_attribute_set_on_a_file_being_written_is_stored_with_it() {
    let mut place = place();
    let mut file = fs::File::create(place.at("f")).unwrap();
    file.write_all(b"bytes").unwrap();
    sys::setxattr(&place.at("f"), "user.a", b"kept", 0).unwrap();
    sys::close(file).unwrap();
    place.remount_elsewhere();
    assert_eq!(sys::getxattr(&place.at("f"), "user.a").unwrap(), b"kept");
}

#[test]
fn more_than_s3s_two_kilobytes_is_enospc() {
    let mount = Stage::on(Maker::Embedded).mount();
    fs::write(mount.at("f"), "x").unwrap();
    assert_errno!(sys::setxattr(&mount.at("f"), "user.big", &[b'v'; 3000], 0), ENOSPC);
    sys::setxattr(&mount.at("f"), "user.fits", &[b'v'; 800], 0).unwrap();
    assert_eq!(sys::listxattr(&mount.at("f")).unwrap(), ["user.fits"]);
}

#[test]
fn posix_acls_are_enotsup() {
    let mount = Stage::on(Maker::Embedded).mount();
    fs::write(mount.at("f"), "x").unwrap();
    // Version 2; owner rw-, group r--, others r-- (acl(5), as the kernel stores it).
    let entry = |tag: u8, bits: u8| [tag, 0, bits, 0, 255, 255, 255, 255];
    let acl = [&[2, 0, 0, 0][..], &entry(1, 6), &entry(4, 4), &entry(32, 4)].concat();
    assert_errno!(sys::setxattr(&mount.at("f"), "system.posix_acl_access", &acl, 0), ENOTSUP);
}

#[test]
fn names_without_a_namespace_are_enotsup() {
    let place = place();
    fs::write(place.at("f"), "x").unwrap();
    for name in ["foo", "bogus.x", "userx"] {
        assert_errno!(sys::setxattr(&place.at("f"), name, b"1", 0), ENOTSUP);
        assert_errno!(sys::getxattr(&place.at("f"), name), ENOTSUP);
    }
    assert_errno!(sys::setxattr(&place.at("f"), "user.", b"1", 0), EINVAL);
}

#[test]
fn attributes_of_a_missing_file_are_enoent() {
    let place = place();
    assert_errno!(sys::getxattr(&place.at("no"), "user.a"), ENOENT);
    assert_errno!(sys::setxattr(&place.at("no"), "user.a", b"1", 0), ENOENT);
}
