//! What several mounts take of the disk together.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

const LIMIT_BYTES: u64 = 64 * MIB;
/// Three of them and a little more fill the cache.
const LARGE_BYTES: u64 = 20 * MIB;

#[test]
fn two_mounts_that_write_at_once_stay_below_the_limit() {
    let directory = tempfile::tempdir().unwrap();
    let limit_bytes = 16 * MIB;
    let caches = [open(directory.path(), limit_bytes), open(directory.path(), limit_bytes)];
    for number in 0..60 {
        for (mount, cache) in caches.iter().enumerate() {
            cache.write(&pinned(&format!("{mount} {number}"), MIB / 4), 0, bytes(0..MIB / 4));
        }
        for cache in &caches {
            cache.flush();
        }
        let on_disk = on_disk(directory.path());
        assert!(on_disk <= limit_bytes, "{on_disk} bytes after {number}");
    }
}

/// Two mounts of a directory, filled with small objects by the first; the second knows of them.
fn full(directory: &Path) -> [Arc<DiskCache>; 2] {
    let first = open(directory, LIMIT_BYTES);
    for number in 0..70 {
        first.write(&pinned(&format!("old {number}"), MIB), 0, bytes(0..MIB));
        first.flush();
    }
    let second = open(directory, LIMIT_BYTES);
    // Its first look into the directory comes before its first job.
    second.write(&pinned("first", 10), 0, bytes(0..10));
    second.flush();
    [first, second]
}

/// A large file being taken, which waits when all of it is there until it is let go.
struct Held {
    is_there: Receiver<()>,
    let_go: Sender<()>,
}

fn take(cache: &DiskCache, directory: &Path, key: &str) -> Held {
    let ((tell, is_there), (let_go, hears)) = (channel(), channel());
    let is_unchanged = move || tell.send(()).is_ok() && hears.recv().is_ok();
    cache.write_file(&pinned(key, LARGE_BYTES), local_file(directory, LARGE_BYTES), is_unchanged);
    // The next one is to be another file.
    std::fs::remove_file(directory.join("draft")).unwrap();
    Held { is_there, let_go }
}

#[test]
fn what_one_mount_is_taking_over_is_room_that_the_other_leaves() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    let mounts = full(&cache);
    for (one, other) in [(0, 1), (1, 0)] {
        let held = take(&mounts[one], directory.path(), &format!("held by {one}"));
        held.is_there.recv_timeout(PATIENCE).unwrap();
        for number in 0..8 {
            let key = format!("{other} {number}");
            if number % 4 == 0 {
                let taken = take(&mounts[other], directory.path(), &key);
                taken.let_go.send(()).unwrap();
                mounts[other].flush();
                assert!(taken.is_there.try_recv().is_ok(), "there is room for both");
            } else {
                mounts[other].write(&pinned(&key, 4 * MIB), 0, bytes(0..4 * MIB));
                mounts[other].flush();
            }
            let on_disk = on_disk(&cache);
            assert!(on_disk <= LIMIT_BYTES, "{on_disk} bytes after {key}");
        }
        held.let_go.send(()).unwrap();
        mounts[one].flush();
        assert_eq!(mounts[one].read(&pinned(&format!("held by {one}"), LARGE_BYTES), &(0..10)), Some(bytes(0..10)));
    }
}

#[test]
fn two_mounts_that_take_large_files_at_once_stay_below_the_limit() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    let mounts = full(&cache);
    for round in 0..4 {
        let held: Vec<_> =
            (0..2).map(|mount| take(&mounts[mount], directory.path(), &format!("{mount} {round}"))).collect();
        for held in &held {
            held.is_there.recv_timeout(PATIENCE).expect("there is room for both");
        }
        assert!(on_disk(&cache) <= LIMIT_BYTES, "{} bytes in round {round}", on_disk(&cache));
        for (mount, held) in mounts.iter().zip(&held) {
            held.let_go.send(()).unwrap();
            mount.flush();
        }
        assert!(on_disk(&cache) <= LIMIT_BYTES, "{} bytes after round {round}", on_disk(&cache));
    }
}

#[test]
fn what_fits_only_alone_evicts_nothing_while_another_mount_takes_a_large_file() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    let limit_bytes = LARGE_BYTES + 4 * MIB;
    let mounts = [open(&cache, limit_bytes), open(&cache, limit_bytes)];
    let kept = pinned("kept", MIB);
    mounts[1].write(&kept, 0, bytes(0..MIB));
    mounts[1].flush();
    let held = take(&mounts[0], directory.path(), "held");
    held.is_there.recv_timeout(PATIENCE).unwrap();
    let refused = take(&mounts[1], directory.path(), "refused");
    let _ = refused.let_go.send(());
    mounts[1].flush();
    assert!(refused.is_there.try_recv().is_err() && files(&cache, "new").len() == 1);
    assert_eq!(mounts[1].read(&kept, &(0..MIB)), Some(bytes(0..MIB)));
    assert!(on_disk(&cache) <= limit_bytes);
    held.let_go.send(()).unwrap();
}

#[test]
fn what_a_dead_process_was_making_counts_until_it_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, object) = filled(directory.path());
    drop(cache);
    let map = files(directory.path(), "map").remove(0);
    let left = map.with_extension("new-of-another");
    let file = File::create(&left).unwrap();
    file.set_len(60 * MIB).unwrap();
    let cache = open(directory.path(), 60 * MIB);
    let write = || {
        cache.write(&object, 0, bytes(0..object.size));
        cache.flush();
        cache.read(&object, &(0..10)).is_some()
    };
    assert!(!write() && !write() && left.exists(), "{:?}", cache.stats());
    assert!(cache.stats().disk_bytes >= 60 * MIB, "{:?}", cache.stats());
    file.set_modified(std::time::SystemTime::now() - Duration::from_mins(2)).unwrap();
    let begun = Instant::now();
    while !write() {
        assert!(begun.elapsed() < PATIENCE, "{:?}", cache.stats());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!left.exists() && cache.stats().disk_bytes < 4 * MIB);
}

#[test]
fn who_has_the_files_of_a_version_open_goes_on_when_another_mount_renames_it() {
    let directory = tempfile::tempdir().unwrap();
    for size in [5000, 2 * MIB] {
        let (first, second) = (open(directory.path(), LIMIT_BYTES), open(directory.path(), LIMIT_BYTES));
        let (old, new) = (pinned(&format!("{size}"), size), pinned(&format!("new {size}"), size));
        let half = size.min(MIB);
        first.write(&old, 0, bytes(0..half));
        first.flush();
        assert_eq!(second.read(&old, &(0..half)), Some(bytes(0..half)));
        first.relabel(&old, &new);
        assert_eq!(second.read(&old, &(0..half)), Some(bytes(0..half)), "its files are open still");
        second.write(&old, half, bytes(half..size));
        second.flush();
        for mount in [&first, &second] {
            assert_eq!(mount.read(&new, &(0..size)), Some(bytes(0..size)));
            assert_eq!(mount.stats().damaged, 0);
        }
    }
}
