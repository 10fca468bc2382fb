//! Opening files that exist: modes, O_TRUNC, several openers.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;

use crate::assert_errno;
use crate::stage::{place, sys};

#[test]
fn a_missing_file_is_enoent() {
    let place = place();
    assert_errno!(File::open(place.at("f")), ENOENT);
    assert_errno!(OpenOptions::new().write(true).open(place.at("f")), ENOENT);
}

#[test]
fn a_directory_cannot_be_opened_for_writing() {
    let place = place();
    fs::create_dir(place.at("d")).unwrap();
    assert_errno!(OpenOptions::new().write(true).open(place.at("d")), EISDIR);
    assert_errno!(File::create(place.at("d")), EISDIR);
}

#[test]
fn o_directory_on_a_file_is_enotdir_and_o_nofollow_on_a_link_eloop() {
    let place = place();
    fs::write(place.at("f"), "x").unwrap();
    std::os::unix::fs::symlink("f", place.at("l")).unwrap();
    assert_errno!(OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(place.at("f")), ENOTDIR);
    assert_errno!(OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(place.at("l")), ELOOP);
}

#[test]
fn o_trunc_empties_the_file() {
    let mut place = place();
    fs::write(place.at("f"), "before").unwrap();
    let file = OpenOptions::new().write(true).truncate(true).open(place.at("f")).unwrap();
    assert_eq!(fs::metadata(place.at("f")).unwrap().len(), 0);
    drop(file);
    place.remount_elsewhere();
    assert_eq!(fs::read(place.at("f")).unwrap(), b"");
}

#[test]
fn a_running_program_is_etxtbsy_and_keeps_its_bytes() {
    let place = place();
    let program = std::process::Command::new("sh").args(["-c", "command -v sleep"]).output().unwrap().stdout;
    let program = fs::canonicalize(String::from_utf8(program).unwrap().trim()).unwrap();
    for round in 0..10 {
        let copy = place.at(&format!("sleep{round}"));
        fs::copy(&program, &copy).unwrap();
        // A process that another test starts just now has the copy open for writing until its exec.
        let mut running = crate::stage::wait_for("the program", crate::stage::PATIENCE, || {
            std::process::Command::new(&copy).arg("30").spawn().ok()
        });
        let opened = [
            OpenOptions::new().write(true).open(&copy),
            OpenOptions::new().write(true).truncate(true).open(&copy),
            OpenOptions::new().read(true).custom_flags(libc::O_TRUNC).open(&copy),
        ];
        let alive = running.try_wait().unwrap();
        running.kill().unwrap();
        running.wait().unwrap();
        for answer in opened {
            assert_errno!(answer, ETXTBSY);
        }
        assert_eq!(alive, None, "the program died of it");
        assert!(fs::read(&copy).unwrap() == fs::read(&program).unwrap());
    }
}

#[test]
fn a_reader_and_a_writer_have_one_file() {
    let place = place();
    fs::write(place.at("f"), "old bytes").unwrap();
    let mut reader = File::open(place.at("f")).unwrap();
    let mut writer = OpenOptions::new().write(true).open(place.at("f")).unwrap();
    writer.write_all(b"NEW").unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "NEW bytes");
}

#[test]
fn a_second_opener_sees_what_is_not_uploaded_yet() {
    let place = place();
    let mut first = File::create(place.at("f")).unwrap();
    first.write_all(b"not closed").unwrap();
    assert_eq!(fs::read(place.at("f")).unwrap(), b"not closed");
    let mut second = OpenOptions::new().write(true).open(place.at("f")).unwrap();
    second.seek(SeekFrom::Start(4)).unwrap();
    second.write_all(b"SHUT").unwrap();
    drop(second);
    assert_eq!(fs::read(place.at("f")).unwrap(), b"not SHUTed");
    drop(first);
}

#[test]
fn two_writers_merge_into_one_file() {
    let mut place = place();
    let path = place.at("f");
    let mut first = File::create(&path).unwrap();
    let mut second = OpenOptions::new().write(true).open(&path).unwrap();
    first.write_all(&[b'a'; 1000]).unwrap();
    second.seek(SeekFrom::Start(1000)).unwrap();
    second.write_all(&[b'b'; 1000]).unwrap();
    sys::close(first).unwrap();
    sys::close(second).unwrap();
    place.remount_elsewhere();
    assert_eq!(fs::read(&path).unwrap(), [[b'a'; 1000], [b'b'; 1000]].concat());
}

#[test]
fn reading_a_descriptor_opened_for_writing_is_ebadf() {
    let place = place();
    let mut file = File::create(place.at("f")).unwrap();
    assert_errno!(file.read_exact(&mut [0; 10]), EBADF);
    let mut file = File::open(place.at("f")).unwrap();
    assert_errno!(file.write_all(b"x"), EBADF);
}

#[test]
fn a_hundred_descriptors_of_one_file_read_the_same() {
    let place = place();
    fs::write(place.at("f"), "shared").unwrap();
    let mut files: Vec<File> = (0..100).map(|_| File::open(place.at("f")).unwrap()).collect();
    for file in &mut files {
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "shared");
    }
}

#[test]
fn a_file_reopened_at_once_after_close_has_its_bytes() {
    let place = place();
    for round in 0..50_u32 {
        let text = format!("round {round}");
        fs::write(place.at("f"), &text).unwrap();
        assert_eq!(fs::read_to_string(place.at("f")).unwrap(), text);
    }
}

#[test]
fn o_tmpfile_is_answered_with_an_errno_that_programs_fall_back_on() {
    let place = place();
    let opened = OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(place.path());
    if place.is_mounted() {
        assert_errno!(opened, EOPNOTSUPP);
    }
}
