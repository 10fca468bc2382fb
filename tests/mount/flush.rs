//! close(2): when it returns 0 the bytes are in the bucket, and not before it has to.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use crate::stage::{Maker, Mount, Stage, process, sys};

#[test]
fn a_close_that_answers_zero_has_stored_the_bytes() {
    let mount = Stage::on(Maker::Embedded).mount();
    for round in 0..20 {
        let mut file = File::create(mount.at("f")).unwrap();
        write!(file, "round {round}").unwrap();
        sys::close(file).unwrap();
        assert_eq!(mount.outside().bytes("f"), format!("round {round}").as_bytes());
    }
}

#[test]
fn an_open_file_is_not_in_the_bucket_half_written() {
    let mount = Stage::on(Maker::Embedded).mount();
    mount.outside().put("f", b"the old version, whole");
    let file = OpenOptions::new().write(true).truncate(true).open(mount.at("f")).unwrap();
    file.write_all_at(&vec![b'n'; 3_000_000], 0).unwrap();
    assert_eq!(mount.outside().bytes("f"), b"the old version, whole");
    sys::close(file).unwrap();
    assert_eq!(mount.outside().bytes("f").len(), 3_000_000);
}

#[test]
fn a_file_left_empty_is_stored_by_its_last_close() {
    let mount = Stage::on(Maker::Embedded).mount();
    drop(File::create(mount.at("empty")).unwrap());
    crate::stage::wait_for("the empty object", crate::stage::PATIENCE, || mount.outside().get("empty"));
    assert_eq!(mount.outside().bytes("empty"), b"");
}

/// As flock(1) opens the file that it locks.
#[test]
fn a_file_made_or_emptied_by_who_only_reads_it_is_stored_by_its_last_close() {
    for options in [&[][..], &["--write-back"]] {
        let mut mount = Stage::on(Maker::Embedded).args(options).mount();
        mount.outside().put("emptied", b"bytes");
        for (name, flag) in [("made", libc::O_CREAT), ("emptied", libc::O_TRUNC)] {
            let file = OpenOptions::new().read(true).custom_flags(flag).open(mount.at(name)).unwrap();
            sys::close(file).unwrap();
            crate::stage::wait_for(name, crate::stage::PATIENCE, || {
                mount.outside().get(name)?.bytes.is_empty().then_some(())
            });
        }
        process::bash(mount.path(), "flock lock true");
        mount.kill();
        mount.start();
        assert_eq!(fs::read(mount.at("lock")).unwrap(), b"", "{options:?}");
    }
}

#[test]
fn a_shell_redirection_stores_one_version() {
    let mount = Stage::on(Maker::Embedded).mount();
    let before = puts(&mount);
    process::bash(mount.path(), "echo hi > f");
    crate::stage::wait_for("the object", crate::stage::PATIENCE, || {
        (mount.outside().get("f")?.bytes == b"hi\n").then_some(())
    });
    assert_eq!(puts(&mount) - before, 1, "echo hi > f is one PUT");
    process::bash(mount.path(), "echo again > f");
    crate::stage::wait_for("the new version", crate::stage::PATIENCE, || {
        (mount.outside().get("f")?.bytes == b"again\n").then_some(())
    });
    assert_eq!(puts(&mount) - before, 2, "echo again > f is one more");
}

#[test]
fn closing_what_was_only_read_sends_nothing() {
    let mount = Stage::on(Maker::Embedded).mount();
    fs::write(mount.at("f"), "x").unwrap();
    let before = puts(&mount);
    for _ in 0..5 {
        fs::read(mount.at("f")).unwrap();
        drop(OpenOptions::new().read(true).write(true).open(mount.at("f")).unwrap());
    }
    assert_eq!(puts(&mount), before);
}

#[test]
fn cp_of_a_file_is_one_put() {
    let mount = Stage::on(Maker::Embedded).mount();
    let before = puts(&mount);
    fs::write(mount.beside("source"), vec![1; 4096]).unwrap();
    process::bash(mount.path(), "cp ../source copy");
    assert_eq!(puts(&mount) - before, 1);
    process::bash(mount.path(), "cp -p ../source copy2; sync copy2");
    assert_eq!(mount.outside().bytes("copy2"), vec![1; 4096]);
}

#[test]
fn a_large_file_is_a_multipart_upload_that_leaves_nothing_behind() {
    let mount = Stage::on(Maker::Embedded).mount();
    let bytes: Vec<u8> = (0..33_000_000_u32).map(|at| (at % 247) as u8).collect();
    let mut file = File::create(mount.at("big")).unwrap();
    file.write_all(&bytes).unwrap();
    sys::close(file).unwrap();
    let object = mount.outside().object("big");
    assert!(object.bytes == bytes);
    assert!(object.etag.trim_matches('"').contains('-'), "no multipart ETag: {}", object.etag);
    assert_eq!(mount.outside().pending_uploads(), Vec::<String>::new());
}

#[test]
fn another_clients_version_is_not_overwritten_blindly() {
    let mount = Stage::on(Maker::Embedded).mount();
    fs::write(mount.at("f"), "first").unwrap();
    let _undisturbed = process::without_children();
    let file = OpenOptions::new().write(true).open(mount.at("f")).unwrap();
    file.write_all_at(b"ours!", 0).unwrap();
    mount.outside().put("f", b"theirs");
    assert_eq!(sys::close(file).unwrap_err().raw_os_error(), Some(libc::ESTALE));
    assert_eq!(mount.outside().bytes("f"), b"theirs");
    assert_ours_is_kept(&mount, b"ours!");
}

/// Both have written to one file, and neither has closed it.
fn two_writers(mount: &Mount) -> [File; 2] {
    fs::write(mount.at("f"), "first").unwrap();
    [0_u64, 2].map(|offset| {
        let file = OpenOptions::new().write(true).open(mount.at("f")).unwrap();
        file.write_all_at(b"ours", offset).unwrap();
        file
    })
}

/// Of another client's version, each by its own close.
fn assert_both_are_told(mount: &Mount, writers: [File; 2]) {
    mount.outside().put("f", b"theirs");
    for writer in writers {
        assert_eq!(sys::close(writer).unwrap_err().raw_os_error(), Some(libc::ESTALE));
    }
    assert_eq!(mount.outside().bytes("f"), b"theirs");
    assert_ours_is_kept(mount, b"ouours");
}

#[test]
fn every_writer_is_told_of_a_conflict_that_another_close_met_first() {
    let mount = Stage::on(Maker::Embedded).mount();
    let writers = two_writers(&mount);
    assert_both_are_told(&mount, writers);
}

/// What a child inherits is closed when it executes a program, and the close of the child is no answer to who
/// wrote: these bytes were kept here, and S3 was not asked.
#[test]
fn every_writer_is_told_of_a_conflict_though_a_child_closed_its_descriptors() {
    let mount = Stage::on(Maker::Embedded).mount();
    let writers = two_writers(&mount);
    process::bash(mount.path(), "true");
    assert_both_are_told(&mount, writers);
}

#[test]
fn another_clients_new_object_is_not_overwritten_blindly() {
    let mount = Stage::on(Maker::Embedded).mount();
    let mut file = File::create(mount.at("f")).unwrap();
    file.write_all(b"ours!").unwrap();
    mount.outside().put("f", b"theirs");
    assert_eq!(sys::close(file).unwrap_err().raw_os_error(), Some(libc::ESTALE));
    assert_eq!(mount.outside().bytes("f"), b"theirs");
    assert_ours_is_kept(&mount, b"ours!");
}

/// Both versions are kept: the file shows theirs, and the log tells where ours lies.
fn assert_ours_is_kept(mount: &Mount, bytes: &[u8]) {
    assert_eq!(fs::read(mount.at("f")).unwrap(), b"theirs");
    let log = mount.log();
    let told = log.lines().find_map(|line| line.split_once("kept=")).expect("the log tells").1;
    let kept = told.split(' ').next().unwrap();
    assert_eq!(fs::read(kept).unwrap(), bytes, "{log}");
}

/// Requests so far that wrote an object.
fn puts(mount: &Mount) -> u64 {
    let status = mount.status();
    let requests = status["requests"].as_object().expect("requests by operation");
    ["PutObject", "CompleteMultipartUpload", "CopyObject"]
        .iter()
        .filter_map(|name| requests.get(*name).and_then(serde_json::Value::as_u64))
        .sum()
}
