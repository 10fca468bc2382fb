//! Names: which exist, which can, and how they read.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use crate::assert_errno;
use crate::stage::{Maker, Stage, place};

#[test]
fn a_missing_name_is_enoent() {
    let place = place();
    assert_errno!(fs::metadata(place.at("nothing")), ENOENT);
    assert_errno!(fs::metadata(place.at("no/such/path")), ENOENT);
}

#[test]
fn a_file_in_the_middle_of_a_path_is_enotdir() {
    let place = place();
    fs::write(place.at("file"), "x").unwrap();
    assert_errno!(fs::metadata(place.at("file/below")), ENOTDIR);
    assert_errno!(fs::write(place.at("file/below"), "y"), ENOTDIR);
}

#[test]
fn names_of_255_bytes_work_and_256_are_enametoolong() {
    let place = place();
    let longest = "n".repeat(255);
    fs::write(place.at(&longest), "x").unwrap();
    assert_eq!(fs::read(place.at(&longest)).unwrap(), b"x");
    let longer = "n".repeat(256);
    assert_errno!(fs::metadata(place.at(&longer)), ENAMETOOLONG);
    assert_errno!(fs::write(place.at(&longer), "x"), ENAMETOOLONG);
    assert_errno!(fs::create_dir(place.at(&longer)), ENAMETOOLONG);
    assert_errno!(fs::rename(place.at(&longest), place.at(&longer)), ENAMETOOLONG);
}

#[test]
fn multibyte_names_count_in_bytes() {
    let place = place();
    let fits = "ü".repeat(127);
    fs::write(place.at(&fits), "x").unwrap();
    assert_errno!(fs::write(place.at(&"ü".repeat(128)), "x"), ENAMETOOLONG);
}

#[test]
fn a_path_whose_key_is_above_1024_bytes_is_enametoolong() {
    let mount = Stage::on(Maker::Embedded).mount();
    let mut dir = mount.path().to_path_buf();
    for _ in 0..5 {
        dir.push("d".repeat(199));
        fs::create_dir(&dir).unwrap();
    }
    // 5 × 200 bytes so far: 24 more fill the key.
    fs::write(dir.join("f".repeat(24)), "x").unwrap();
    assert_errno!(fs::write(dir.join("f".repeat(25)), "x"), ENAMETOOLONG);
    assert_errno!(fs::create_dir(dir.join("d".repeat(24))), ENAMETOOLONG);
}

#[test]
fn a_name_that_is_not_utf8_is_eilseq() {
    let mount = Stage::on(Maker::Embedded).mount();
    let name = mount.path().join(OsStr::from_bytes(b"caf\xe9"));
    assert_errno!(fs::write(&name, "x"), EILSEQ);
    assert_errno!(fs::create_dir(&name), EILSEQ);
}

#[test]
fn names_differ_by_case_and_by_normalisation() {
    let place = place();
    for (name, text) in [("name", "1"), ("Name", "2"), ("caf\u{e9}", "3"), ("cafe\u{301}", "4")] {
        fs::write(place.at(name), text).unwrap();
    }
    assert_eq!(fs::read_to_string(place.at("name")).unwrap(), "1");
    assert_eq!(fs::read_to_string(place.at("Name")).unwrap(), "2");
    assert_eq!(fs::read_to_string(place.at("caf\u{e9}")).unwrap(), "3");
    assert_eq!(fs::read_to_string(place.at("cafe\u{301}")).unwrap(), "4");
}

#[test]
fn any_utf8_name_survives_a_remount() {
    let mut place = place();
    let names = [
        " leading",
        "trailing ",
        "a b+c",
        "100%",
        "%2F",
        "back\\slash",
        "new\nline",
        "tab\t",
        "*?[]",
        "quote'\"",
        "&<>",
        "#frag?query=1",
        "~",
        "...",
        "日本語",
        "🦀",
        "\u{1}control",
        "-rf",
        "a=b;c",
        "x.fuse_hidden",
    ];
    for name in names {
        fs::write(place.at(name), name).unwrap();
    }
    place.remount_elsewhere();
    for name in names {
        assert_eq!(fs::read_to_string(place.at(name)).unwrap(), name, "{name:?}");
    }
    let mut seen: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let mut wanted: Vec<_> = names.iter().map(std::ffi::OsString::from).collect();
    seen.sort();
    wanted.sort();
    assert_eq!(seen, wanted);
}

#[test]
fn dot_and_dotdot_lead_where_they_should() {
    let place = place();
    fs::create_dir_all(place.at("a/b")).unwrap();
    let ino = |name: &str| fs::metadata(place.at(name)).unwrap().ino();
    assert_eq!(ino("a/."), ino("a"));
    assert_eq!(ino("a/b/.."), ino("a"));
    assert_eq!(ino("a/b/../.."), ino("."));
}

#[test]
fn a_removed_name_can_be_made_again_at_once() {
    let place = place();
    for round in 0..20 {
        fs::write(place.at("again"), round.to_string()).unwrap();
        assert_eq!(fs::read_to_string(place.at("again")).unwrap(), round.to_string());
        fs::remove_file(place.at("again")).unwrap();
        assert_errno!(fs::metadata(place.at("again")), ENOENT);
    }
}
