//! mmap: shared mappings read and write the file.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::process::Command;

use crate::stage::sys::Mapping;
use crate::stage::{Maker, PATIENCE, Stage, place, process, sys, wait_for};

fn open(path: &std::path::Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

#[test]
fn a_mapping_reads_the_file() {
    let mut place = place();
    let bytes: Vec<u8> = (0..300_000_u32).map(|at| (at % 233) as u8).collect();
    fs::write(place.at("f"), &bytes).unwrap();
    place.remount_elsewhere();
    let mapping = Mapping::new(&open(&place.at("f")), bytes.len()).unwrap();
    assert!(mapping.read(0, bytes.len()) == bytes);
}

#[test]
fn a_write_through_a_mapping_is_read_and_stored() {
    let mut place = place();
    fs::write(place.at("f"), vec![b'.'; 100_000]).unwrap();
    let file = open(&place.at("f"));
    let mut mapping = Mapping::new(&file, 100_000).unwrap();
    mapping.write(50_000, b"mapped");
    mapping.sync().unwrap();
    let mut seen = [0; 6];
    file.read_exact_at(&mut seen, 50_000).unwrap();
    assert_eq!(&seen, b"mapped");
    drop(mapping);
    sys::close(file).unwrap();
    place.remount_elsewhere();
    assert_eq!(&fs::read(place.at("f")).unwrap()[49_999..50_007], b".mapped.");
}

#[test]
fn a_mapping_outlives_its_descriptor() {
    let mount = Stage::on(Maker::Embedded).mount();
    fs::write(mount.at("f"), vec![b'.'; 10_000]).unwrap();
    let file = open(&mount.at("f"));
    let mut mapping = Mapping::new(&file, 10_000).unwrap();
    sys::close(file).unwrap();
    mapping.write(5_000, b"after close");
    drop(mapping);
    wait_for("the mapped bytes in the bucket", PATIENCE, || {
        (&mount.outside().bytes("f")[5_000..5_011] == b"after close").then_some(())
    });
}

#[test]
fn msync_and_fsync_store_the_mapped_bytes() {
    let mount = Stage::on(Maker::Embedded).mount();
    fs::write(mount.at("f"), vec![b'.'; 10_000]).unwrap();
    let file = open(&mount.at("f"));
    let mut mapping = Mapping::new(&file, 10_000).unwrap();
    mapping.write(0, b"mapped");
    file.sync_all().unwrap();
    assert_eq!(&mount.outside().bytes("f")[..7], b"mapped.");
}

#[test]
fn writes_show_in_an_existing_mapping() {
    let place = place();
    fs::write(place.at("f"), vec![b'a'; 8192]).unwrap();
    let file = open(&place.at("f"));
    let mapping = Mapping::new(&file, 8192).unwrap();
    assert_eq!(mapping.read(4096, 1), b"a");
    file.write_all_at(b"b", 4096).unwrap();
    assert_eq!(mapping.read(4096, 1), b"b");
}

#[test]
fn truncation_under_a_mapping_zeroes_what_comes_back() {
    let place = place();
    fs::write(place.at("f"), vec![b'a'; 10_000]).unwrap();
    let file = open(&place.at("f"));
    let mapping = Mapping::new(&file, 10_000).unwrap();
    assert_eq!(mapping.read(9_000, 3), b"aaa");
    file.set_len(5_000).unwrap();
    file.set_len(10_000).unwrap();
    assert_eq!(mapping.read(4_999, 3), b"a\0\0");
    assert_eq!(mapping.read(9_000, 3), b"\0\0\0");
}

#[test]
fn a_file_grown_by_truncate_can_be_filled_through_a_mapping() {
    let mut place = place();
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(place.at("f")).unwrap();
    file.set_len(1_000_000).unwrap();
    let mut mapping = Mapping::new(&file, 1_000_000).unwrap();
    for at in (0..1_000_000).step_by(10_000) {
        mapping.write(at, &[(at / 10_000) as u8]);
    }
    drop(mapping);
    sys::close(file).unwrap();
    place.remount_elsewhere();
    let bytes = fs::read(place.at("f")).unwrap();
    assert!((0..100_usize).all(|number| bytes[number * 10_000] == number as u8));
}

#[test]
fn python_mmap_edits_a_file() {
    let mut place = place();
    fs::write(place.at("f"), "hello world\n".repeat(1000)).unwrap();
    let script = "import mmap\n\
        with open('f', 'r+b') as f, mmap.mmap(f.fileno(), 0) as m:\n\
        \x20   m[0:5] = b'HELLO'; at = m.find(b'hello'); m[at:at + 5] = b'SECND'; m.flush()\n";
    process::run(Command::new("python3").current_dir(place.path()).args(["-c", script]));
    place.remount_elsewhere();
    assert!(fs::read_to_string(place.at("f")).unwrap().starts_with("HELLO world\nSECND world\nhello world\n"));
}
