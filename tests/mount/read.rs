//! Reading: the right bytes at every offset, also from objects that others have written.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use crate::stage::{Maker, Stage, place};

/// Bytes that tell their own position.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 256 * 13 + at / 65536 * 31) as u8).collect()
}

#[test]
fn reads_end_at_the_end_of_the_file() {
    let place = place();
    fs::write(place.at("f"), pattern(10_000)).unwrap();
    let file = File::open(place.at("f")).unwrap();
    let mut buffer = vec![0; 4096];
    assert_eq!(file.read_at(&mut buffer, 9_000).unwrap(), 1_000);
    assert_eq!(file.read_at(&mut buffer, 10_000).unwrap(), 0);
    assert_eq!(file.read_at(&mut buffer, 1 << 40).unwrap(), 0);
    assert_eq!(file.read_at(&mut [], 0).unwrap(), 0);
}

#[test]
fn any_offset_and_length_gives_its_bytes() {
    let mut place = place();
    let bytes = pattern(300_001);
    fs::write(place.at("f"), &bytes).unwrap();
    place.remount_elsewhere();
    let file = File::open(place.at("f")).unwrap();
    for (at, len) in [(0, 1), (1, 4096), (4095, 2), (4096, 4096), (131_071, 131_073), (299_999, 2), (65_535, 100_000)] {
        let mut buffer = vec![0; len];
        file.read_exact_at(&mut buffer, at as u64).unwrap();
        assert_eq!(buffer, bytes[at..at + len], "{len} bytes at {at}");
    }
}

#[test]
fn a_big_object_is_read_whole_and_backwards() {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    let bytes = pattern(20 * 1024 * 1024 + 17);
    mount.outside().put("big", &bytes);
    mount.start();
    assert!(fs::read(mount.at("big")).unwrap() == bytes, "forwards");
    mount.stop();
    mount.forget_state();
    mount.start();
    let file = File::open(mount.at("big")).unwrap();
    let step = 1_000_003;
    let mut end = bytes.len();
    while end > 0 {
        let start = end.saturating_sub(step);
        let mut buffer = vec![0; end - start];
        file.read_exact_at(&mut buffer, start as u64).unwrap();
        assert!(buffer == bytes[start..end], "bytes {start} to {end}");
        end = start;
    }
}

#[test]
fn random_reads_of_many_threads_are_right() {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    let bytes = pattern(8 * 1024 * 1024);
    mount.outside().put("big", &bytes);
    mount.start();
    let file = File::open(mount.at("big")).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8_usize {
            let (file, bytes) = (&file, &bytes);
            scope.spawn(move || {
                for round in 0..100_usize {
                    let at = (thread * 7_919 + round * 104_729) * 31 % (bytes.len() - 5_000);
                    let mut buffer = vec![0; 5_000];
                    file.read_exact_at(&mut buffer, at as u64).unwrap();
                    assert!(buffer == bytes[at..at + 5_000], "5,000 bytes at {at}");
                }
            });
        }
    });
}

#[test]
fn o_direct_reads_the_same_bytes() {
    let place = place();
    let bytes = pattern(64 * 1024);
    fs::write(place.at("f"), &bytes).unwrap();
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(place.at("f")).unwrap();
    // O_DIRECT wants aligned memory on a local disk.
    let mut buffer = vec![0_u8; 64 * 1024 + 4096];
    let skip = buffer.as_ptr().align_offset(4096);
    let aligned = &mut buffer[skip..skip + 64 * 1024];
    assert_eq!(file.read_at(aligned, 0).unwrap(), 64 * 1024);
    assert!(aligned == bytes);
}

#[test]
fn a_reader_gets_one_version_whole_though_the_object_is_replaced() {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    let (old, new) = (vec![b'o'; 12 * 1024 * 1024], vec![b'n'; 12 * 1024 * 1024]);
    mount.outside().put("f", &old);
    mount.start();
    let mut file = File::open(mount.at("f")).unwrap();
    let mut head = vec![0; 1000];
    file.read_exact(&mut head).unwrap();
    assert!(head.iter().all(|byte| *byte == b'o'));
    mount.outside().put("f", &new);
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut all = Vec::new();
    match file.read_to_end(&mut all) {
        Ok(_) => assert!(all == old, "a mix of two versions"),
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}"),
    }
    assert!(all.iter().all(|byte| *byte == b'o'), "bytes of the new version through the old handle");
}

#[test]
fn copy_file_range_copies() {
    let place = place();
    let bytes = pattern(200_000);
    fs::write(place.at("from"), &bytes).unwrap();
    let (from, to) = (File::open(place.at("from")).unwrap(), File::create(place.at("to")).unwrap());
    let mut left = bytes.len();
    while left > 0 {
        let copied = crate::stage::sys::copy_file_range(&from, &to, left).unwrap();
        assert!(copied > 0);
        left -= copied as usize;
    }
    drop(to);
    assert!(fs::read(place.at("to")).unwrap() == bytes);
}
