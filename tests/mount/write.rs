//! Writing: at any offset, appending, sparse, large.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

use crate::stage::{Maker, Stage, place, place_with, process, sys};

#[test]
fn bytes_written_anywhere_are_read_back_after_a_remount() {
    let mut place = place();
    let mut wanted = vec![0; 500_000];
    let file = File::create(place.at("f")).unwrap();
    for round in 0..200_usize {
        let at = round * 104_729 % 490_000;
        let bytes = vec![(round + 1) as u8; 1 + round * 37 % 9_000];
        file.write_all_at(&bytes, at as u64).unwrap();
        wanted[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    file.write_all_at(&[255], 499_999).unwrap();
    wanted[499_999] = 255;
    sys::close(file).unwrap();
    place.remount_elsewhere();
    assert!(fs::read(place.at("f")).unwrap() == wanted);
}

#[test]
fn a_write_inside_an_existing_file_keeps_the_rest() {
    let mut place = place();
    let mut bytes: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 253) as u8).collect();
    fs::write(place.at("f"), &bytes).unwrap();
    place.remount_elsewhere();
    let file = OpenOptions::new().write(true).open(place.at("f")).unwrap();
    file.write_all_at(b"in the middle", 500_000).unwrap();
    sys::close(file).unwrap();
    bytes[500_000..500_013].copy_from_slice(b"in the middle");
    assert!(fs::read(place.at("f")).unwrap() == bytes, "before the remount");
    place.remount_elsewhere();
    assert!(fs::read(place.at("f")).unwrap() == bytes, "after the remount");
}

#[test]
fn a_write_inside_a_multipart_object_keeps_the_rest() {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    let mut bytes: Vec<u8> = (0..40_000_000_u32).map(|at| (at % 251) as u8).collect();
    mount.outside().put("big", &bytes);
    mount.start();
    let file = OpenOptions::new().write(true).open(mount.at("big")).unwrap();
    file.write_all_at(b"patched", 20_000_000).unwrap();
    sys::close(file).unwrap();
    bytes[20_000_000..20_000_007].copy_from_slice(b"patched");
    assert!(mount.outside().bytes("big") == bytes);
}

#[test]
fn a_gap_reads_as_zeros() {
    let mut place = place();
    let file = File::create(place.at("f")).unwrap();
    file.write_all_at(b"end", 100_000).unwrap();
    sys::close(file).unwrap();
    place.remount_elsewhere();
    let bytes = fs::read(place.at("f")).unwrap();
    assert_eq!(bytes.len(), 100_003);
    assert!(bytes[..100_000].iter().all(|byte| *byte == 0));
    assert_eq!(&bytes[100_000..], b"end");
}

#[test]
fn appending_adds_at_the_end_whatever_the_position() {
    let mut place = place();
    fs::write(place.at("f"), "one ").unwrap();
    place.remount_elsewhere();
    let mut file = OpenOptions::new().append(true).open(place.at("f")).unwrap();
    file.write_all(b"two ").unwrap();
    sys::lseek(&file, 0, libc::SEEK_SET).unwrap();
    file.write_all(b"three").unwrap();
    sys::close(file).unwrap();
    assert_eq!(fs::read_to_string(place.at("f")).unwrap(), "one two three");
}

#[test]
fn appending_processes_lose_no_line() {
    let place = place();
    process::bash(
        place.path(),
        "for p in 1 2 3 4; do (for i in $(seq 25); do echo \"process $p line $i\" >> log; done) & done; wait",
    );
    let text = fs::read_to_string(place.at("log")).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), 100, "{text}");
}

#[test]
fn appending_descriptors_interleave_without_loss() {
    let place = place();
    let open = || OpenOptions::new().append(true).create(true).open(place.at("log")).unwrap();
    let (mut first, mut second) = (open(), open());
    for round in 0..100 {
        writeln!(first, "first {round}").unwrap();
        writeln!(second, "second {round}").unwrap();
    }
    drop((first, second));
    assert_eq!(fs::read_to_string(place.at("log")).unwrap().lines().count(), 200);
}

#[test]
fn a_large_file_is_written_and_read_back() {
    let mut place = place();
    let chunk: Vec<u8> = (0..1_048_576_u32).map(|at| (at % 249) as u8).collect();
    let mut file = File::create(place.at("large")).unwrap();
    for round in 0..40_u8 {
        file.write_all(&[round]).unwrap();
        file.write_all(&chunk).unwrap();
    }
    sys::close(file).unwrap();
    place.remount_elsewhere();
    let bytes = fs::read(place.at("large")).unwrap();
    assert_eq!(bytes.len(), 40 * (chunk.len() + 1));
    for (round, piece) in bytes.chunks(chunk.len() + 1).enumerate() {
        assert!(piece[0] as usize == round && piece[1..] == chunk, "piece {round}");
    }
}

#[test]
fn a_descriptor_stays_writable_after_a_flush() {
    let mut place = place();
    let mut file = File::create(place.at("f")).unwrap();
    for text in ["a", "b", "c"] {
        file.write_all(text.as_bytes()).unwrap();
        // Closing a duplicate flushes; the original goes on.
        sys::close(file.try_clone().unwrap()).unwrap();
    }
    sys::close(file).unwrap();
    place.remount_elsewhere();
    assert_eq!(fs::read_to_string(place.at("f")).unwrap(), "abc");
}

#[test]
fn a_shell_and_its_children_share_one_descriptor() {
    let mut place = place();
    process::bash(place.path(), "{ /bin/echo a; /bin/echo b; echo c; } > f");
    assert_eq!(fs::read_to_string(place.at("f")).unwrap(), "a\nb\nc\n");
    place.remount_elsewhere();
    assert_eq!(fs::read_to_string(place.at("f")).unwrap(), "a\nb\nc\n");
}

#[test]
fn o_sync_and_o_dsync_writes_arrive() {
    let mut place = place();
    for (name, flags) in [("sync", libc::O_SYNC), ("dsync", libc::O_DSYNC)] {
        let file = OpenOptions::new().write(true).create_new(true).custom_flags(flags).open(place.at(name));
        file.unwrap().write_all(b"at once").unwrap();
    }
    place.remount_elsewhere();
    assert_eq!(fs::read(place.at("sync")).unwrap(), b"at once");
    assert_eq!(fs::read(place.at("dsync")).unwrap(), b"at once");
}

#[test]
fn writing_nothing_changes_nothing() {
    let place = place();
    fs::write(place.at("f"), "bytes").unwrap();
    sys::set_times(&place.at("f"), (5, 0), (5, 0)).unwrap();
    let file = OpenOptions::new().write(true).open(place.at("f")).unwrap();
    assert_eq!(file.write_at(b"", 0).unwrap(), 0);
    drop(file);
    let meta = fs::metadata(place.at("f")).unwrap();
    assert_eq!((meta.size(), meta.mtime()), (5, 5));
}

#[test]
fn a_write_by_another_user_drops_set_user_id() {
    let place = place_with(&["--allow-other"]);
    fs::write(place.at("f"), "x").unwrap();
    sys::chmod(&place.at("f"), 0o6777).unwrap();
    // The kernel drops the bits for anybody without CAP_FSETID.
    let writer = "exec 3>>f; setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all sh -c 'echo y >&3'";
    process::bash(place.path(), writer);
    assert_eq!(sys::mode(&place.at("f")) & 0o6000, 0);
}
