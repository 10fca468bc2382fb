mod model;
mod shared;

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::LazyLock;

use super::seal::BLOCK_BYTES;
use super::*;
use crate::bucket::ETag;

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

fn open(directory: &Path, limit_bytes: u64) -> Arc<DiskCache> {
    let directory = directory.to_owned();
    DiskCache::open(settings(directory, Some(limit_bytes), "http://s3/b")).unwrap()
}

fn settings(directory: PathBuf, limit_bytes: Option<u64>, bucket: &str) -> DiskSettings {
    DiskSettings { directory, limit_bytes, layout: Layout::of_bucket(bucket, "", "http://s3"), queue_bytes: 32 * MIB }
}

fn pinned(key: &str, size: u64) -> Pinned {
    Pinned { key: key.into(), etag: ETag::new("v1"), size }
}

fn byte(offset: u64) -> u8 {
    (offset ^ (offset >> 8) ^ (offset >> 17)) as u8
}

/// The first bytes of every object here; made once, byte by byte takes its time.
static CONTENT: LazyLock<Bytes> = LazyLock::new(|| (0..20 * MIB).map(byte).collect());

fn bytes(range: Range<u64>) -> Bytes {
    CONTENT.slice(range.start as usize..range.end as usize)
}

/// Paths of all files with this extension.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|found| found.to_str().unwrap().starts_with(extension)) {
                found.push(path);
            }
        }
    }
    found
}

fn the_file(directory: &Path, extension: &str) -> File {
    let files = files(directory, extension);
    assert_eq!(files.len(), 1);
    File::options().read(true).write(true).open(&files[0]).unwrap()
}

/// Servers choose their ETags: two may have the same for other bytes under the same key of a bucket of the same name.
#[test]
fn what_one_server_has_is_not_taken_for_what_another_has() {
    let directory = tempfile::tempdir().unwrap();
    let root = |name: &str, server: &str| {
        let (at, bucket, server) = (format!("{name}/"), "b".to_owned(), server.to_owned());
        crate::bucket::Root { at, bucket, server, ..Default::default() }
    };
    let layout = Layout::of_several(vec![root("x", "http://one"), root("y", "http://two")]);
    let settings = DiskSettings { layout, ..settings(directory.path().to_owned(), Some(64 * MIB), "") };
    let cache = DiskCache::open(settings).unwrap();
    let (one, two) = (pinned("x/k", MIB), pinned("y/k", MIB));
    cache.write(&one, 0, bytes(0..MIB));
    cache.flush();
    assert_eq!(cache.read(&two, &(0..MIB)), None);
    cache.write(&two, 0, bytes(5..MIB + 5));
    cache.flush();
    assert!(
        cache.read(&one, &(0..MIB)) == Some(bytes(0..MIB)) && cache.read(&two, &(0..MIB)) == Some(bytes(5..MIB + 5))
    );
}

/// An object of 1 MiB and a bit, written whole.
fn filled(directory: &Path) -> (Arc<DiskCache>, Pinned) {
    let (cache, object) = (open(directory, 64 * MIB), pinned("a/b", MIB + 5));
    cache.write(&object, 0, bytes(0..MIB + 5));
    cache.flush();
    (cache, object)
}

#[test]
fn what_was_written_is_read_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, object) = filled(directory.path());
    assert_eq!(cache.read(&object, &(10..300_000)), Some(bytes(10..300_000)));
    assert_eq!(cache.read(&object, &(MIB..MIB + 5)), Some(bytes(MIB..MIB + 5)));
    drop(cache);
    let again = open(directory.path(), 64 * MIB);
    assert_eq!(again.read(&object, &(0..MIB + 5)), Some(bytes(0..MIB + 5)));
}

#[test]
fn another_version_size_key_or_bucket_is_not_found() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, object) = filled(directory.path());
    let others = [
        Pinned { etag: ETag::new("v2"), ..object.clone() },
        Pinned { size: MIB + 6, ..object.clone() },
        Pinned { key: "a/c".into(), ..object.clone() },
    ];
    assert!(others.iter().all(|other| cache.read(other, &(0..10)).is_none()));
    assert_eq!(
        DiskCache::open(settings(directory.path().into(), None, "other")).unwrap().read(&object, &(0..10)),
        None
    );
}

#[test]
fn only_whole_blocks_are_kept_and_holes_are_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, object) = (open(directory.path(), 64 * MIB), pinned("o", 4 * MIB));
    cache.write(&object, BLOCK_BYTES - 1, bytes(BLOCK_BYTES - 1..3 * BLOCK_BYTES + 7));
    cache.flush();
    assert_eq!(cache.read(&object, &(BLOCK_BYTES..3 * BLOCK_BYTES)), Some(bytes(BLOCK_BYTES..3 * BLOCK_BYTES)));
    assert_eq!(cache.read(&object, &(BLOCK_BYTES - 1..BLOCK_BYTES)), None);
    assert_eq!(cache.read(&object, &(3 * BLOCK_BYTES..3 * BLOCK_BYTES + 1)), None);
    assert!(cache.verify(&object, PATIENCE).is_none());
    assert_eq!(cache.stats().written_bytes, 2 * BLOCK_BYTES);
}

#[test]
fn a_flipped_bit_is_a_miss_until_written_again() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, object) = filled(directory.path());
    let data = the_file(directory.path(), "data");
    data.write_all_at(&[bytes(500..501)[0] ^ 4], 500).unwrap();
    assert_eq!(cache.read(&object, &(0..10)), None);
    assert_eq!(cache.stats().damaged, 1);
    assert_eq!(cache.read(&object, &(BLOCK_BYTES..MIB)), Some(bytes(BLOCK_BYTES..MIB)));
    assert!(cache.verify(&object, PATIENCE).is_none());
    cache.write(&object, 0, bytes(0..BLOCK_BYTES));
    cache.flush();
    assert_eq!(cache.read(&object, &(0..1000)), Some(bytes(0..1000)));
    assert_eq!(cache.stats().damaged, 1);
}

#[test]
fn damage_to_the_map_is_a_miss() {
    let directory = tempfile::tempdir().unwrap();
    for offset in 0..(seal::HEADER_BYTES + 3 * seal::SEAL_BYTES) {
        let (cache, object) = filled(directory.path());
        drop(cache);
        let map = the_file(directory.path(), "map");
        let mut byte = [0];
        map.read_exact_at(&mut byte, offset).unwrap();
        map.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
        let again = open(directory.path(), 64 * MIB);
        let found = again.read(&object, &(0..MIB + 5));
        // The end of the header is padding that says nothing.
        assert!(found.is_none_or(|found| found == bytes(0..MIB + 5)), "byte {offset}");
        again.clear();
    }
}

#[test]
fn truncated_files_are_a_miss_and_then_written_again() {
    let directory = tempfile::tempdir().unwrap();
    for (extension, length) in [("data", 0), ("data", 700_000), ("map", 0), ("map", 70)] {
        let (cache, object) = filled(directory.path());
        the_file(directory.path(), extension).set_len(length).unwrap();
        assert_eq!(cache.read(&object, &(0..MIB + 5)), None, "{extension} {length}, while open");
        drop(cache);
        let again = open(directory.path(), 64 * MIB);
        assert_eq!(again.read(&object, &(0..MIB + 5)), None, "{extension} {length}");
        again.write(&object, 0, bytes(0..MIB + 5));
        again.flush();
        assert_eq!(again.read(&object, &(0..MIB + 5)), Some(bytes(0..MIB + 5)));
        again.clear();
    }
}

#[test]
fn a_small_object_is_one_file_and_damage_to_it_a_miss() {
    const SIZE: u64 = 5000;
    let directory = tempfile::tempdir().unwrap();
    let (cache, object) = (open(directory.path(), 64 * MIB), pinned("o", SIZE));
    cache.write(&object, 0, bytes(0..SIZE));
    cache.flush();
    drop(cache);
    assert_eq!(the_file(directory.path(), "small").metadata().unwrap().len(), file_bytes(SIZE));
    assert_eq!(open(directory.path(), 64 * MIB).read(&object, &(100..SIZE)), Some(bytes(100..SIZE)));
    for offset in (0..file_bytes(SIZE)).step_by(7) {
        // The one before may have been removed.
        let file = the_file(directory.path(), "small");
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
        let found = open(directory.path(), 64 * MIB).read(&object, &(0..SIZE));
        // The end of the header is padding that says nothing.
        assert!(found.is_none_or(|found| found == bytes(0..SIZE) && offset < seal::HEADER_BYTES), "byte {offset}");
        let again = open(directory.path(), 64 * MIB);
        again.write(&object, 0, bytes(0..SIZE));
        again.flush();
        assert_eq!(again.read(&object, &(0..SIZE)), Some(bytes(0..SIZE)), "byte {offset}");
        assert!(matches!(again.whole(&object), Whole::No) && again.verify(&object, PATIENCE).is_none());
    }
    for length in [0, 30, seal::HEADER_BYTES, 100] {
        the_file(directory.path(), "small").set_len(length).unwrap();
        let again = open(directory.path(), 64 * MIB);
        assert_eq!(again.read(&object, &(0..SIZE)), None, "cut to {length}");
        again.write(&object, 0, bytes(0..SIZE));
        again.flush();
        assert_eq!(again.read(&object, &(0..SIZE)), Some(bytes(0..SIZE)), "cut to {length}");
    }
    let again = open(directory.path(), 64 * MIB);
    again.write(&pinned("other", SIZE), 0, bytes(0..SIZE));
    again.flush();
    assert_eq!(again.stats().entries, 2, "one is known of from a look into the directory");
    again.remove(&object);
    assert_eq!(files(directory.path(), "small").len(), 1);
}

/// Of a small entry: header, seal and bytes.
fn file_bytes(size: u64) -> u64 {
    seal::HEADER_BYTES + seal::SEAL_BYTES + size
}

/// The writer opens both files before it writes the first byte of either; a reader may look in between.
#[test]
fn what_is_just_being_made_is_a_miss_and_stays_there() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, object) = filled(directory.path());
    drop(cache);
    let (data, map) = (the_file(directory.path(), "data"), the_file(directory.path(), "map"));
    data.set_len(0).unwrap();
    map.set_len(0).unwrap();
    let cache = open(directory.path(), 64 * MIB);
    assert_eq!(cache.read(&object, &(0..100)), None);
    assert_eq!((data.metadata().unwrap().nlink(), map.metadata().unwrap().nlink()), (1, 1));
    assert_eq!(cache.stats().damaged, 0);
}

#[test]
fn a_directory_removed_while_open_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, object) = filled(directory.path());
    std::fs::remove_dir_all(directory.path().join("blocks-2")).unwrap();
    let other = pinned("other", 10);
    assert_eq!(cache.read(&other, &(0..10)), None);
    for object in [&object, &other] {
        cache.write(object, 0, bytes(0..object.size));
    }
    cache.flush();
    assert_eq!(cache.read(&other, &(0..10)), Some(bytes(0..10)));
    drop(cache);
    assert_eq!(open(directory.path(), 64 * MIB).read(&object, &(0..100)), Some(bytes(0..100)));
}

#[test]
fn the_limit_holds_on_disk_and_the_least_used_goes() {
    let directory = tempfile::tempdir().unwrap();
    let cache = open(directory.path(), 16 * MIB);
    let kept = pinned("kept", MIB);
    cache.write(&kept, 0, bytes(0..MIB));
    for number in 0..40 {
        cache.write(&pinned(&format!("o{number}"), MIB), 0, bytes(0..MIB));
        cache.flush();
        assert!(cache.read(&kept, &(0..10)).is_some(), "read again and again");
        let on_disk = on_disk(directory.path());
        assert!(on_disk <= 16 * MIB, "{on_disk} bytes after object {number}");
    }
    assert!(cache.read(&pinned("o39", MIB), &(0..10)).is_some());
    assert!(cache.read(&pinned("o0", MIB), &(0..10)).is_none());
    assert!(cache.stats().evictions >= 24, "{:?}", cache.stats());
}

/// What all files of a cache take, also those that are being made. Right while nothing is written there.
fn on_disk(directory: &Path) -> u64 {
    let all = ["data", "map", "small", "new"].into_iter().flat_map(|extension| files(directory, extension));
    all.map(|path| std::fs::metadata(path).unwrap().blocks() * 512).sum()
}

#[test]
fn recency_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let cache = open(directory.path(), 64 * MIB);
    for key in ["old", "new"] {
        cache.write(&pinned(key, MIB), 0, bytes(0..MIB));
        cache.flush();
    }
    drop(cache);
    let old = files(directory.path(), "map")
        .into_iter()
        .min_by_key(|path| std::fs::metadata(path).unwrap().modified().unwrap());
    let hour_ago = std::time::SystemTime::now() - Duration::from_hours(1);
    File::options().write(true).open(old.unwrap()).unwrap().set_modified(hour_ago).unwrap();
    let small = open(directory.path(), 3 * MIB / 2);
    small.flush();
    small.write(&pinned("x", 10), 0, bytes(0..10));
    small.flush();
    assert!(small.read(&pinned("old", MIB), &(0..10)).is_none());
    assert!(small.read(&pinned("new", MIB), &(0..10)).is_some());
}

#[test]
fn of_an_object_larger_than_the_cache_the_beginning_stays() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, object) = (open(directory.path(), 4 * MIB), pinned("large", 20 * MIB));
    for block in 0..20 {
        cache.write(&object, block * MIB, bytes(block * MIB..(block + 1) * MIB));
        cache.flush();
    }
    assert!(cache.read(&object, &(0..3 * MIB)).is_some());
    assert!(cache.read(&object, &(19 * MIB..20 * MIB)).is_none());
    assert!(cache.stats().disk_bytes <= 4 * MIB && cache.stats().skipped_bytes >= 16 * MIB, "{:?}", cache.stats());
}

#[test]
fn two_mounts_share_what_either_wrote() {
    let directory = tempfile::tempdir().unwrap();
    let (first, object) = filled(directory.path());
    let second = open(directory.path(), 64 * MIB);
    assert_eq!(second.read(&object, &(0..100)), Some(bytes(0..100)));
    let other = pinned("other", MIB);
    second.write(&other, 0, bytes(0..MIB));
    second.flush();
    assert_eq!(first.read(&other, &(0..100)), Some(bytes(0..100)));
    second.remove(&other);
    drop(first);
    assert_eq!(open(directory.path(), 64 * MIB).read(&other, &(0..100)), None);
}

#[test]
fn a_whole_object_is_given_out_as_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, object) = filled(directory.path());
    drop(cache);
    let again = open(directory.path(), 64 * MIB);
    assert!(matches!(again.whole(&object), Whole::Unverified));
    let file = again.verify(&object, PATIENCE).unwrap();
    assert!(matches!(again.whole(&object), Whole::File(_)));
    let mut all = vec![0; (MIB + 5) as usize];
    file.read_exact_at(&mut all, 0).unwrap();
    assert!(all == bytes(0..MIB + 5));
    the_file(directory.path(), "data").write_all_at(b"damage", 900_000).unwrap();
    drop(again);
    let damaged = open(directory.path(), 64 * MIB);
    assert!(damaged.verify(&object, PATIENCE).is_none());
    assert!(damaged.read(&object, &(0..object.size)).is_none());
    assert_eq!(damaged.stats().damaged, 1);
}

#[test]
fn nobody_else_can_read_it_and_names_are_hashes() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, object) = (open(directory.path(), 64 * MIB), pinned("../../../etc/passwd", 10));
    cache.write(&object, 0, bytes(0..10));
    cache.flush();
    assert_eq!(std::fs::metadata(directory.path().join("blocks-2")).unwrap().mode() & 0o777, 0o700);
    let data = files(directory.path(), "small");
    assert_eq!(data.len(), 1);
    assert_eq!(std::fs::metadata(&data[0]).unwrap().mode() & 0o777, 0o600);
    assert!(data[0].file_stem().unwrap().to_str().unwrap().bytes().all(|byte| byte.is_ascii_hexdigit()));
}

#[test]
fn files_under_the_name_of_another_version_are_not_taken() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, object) = filled(directory.path());
    drop(cache);
    let cache = open(directory.path(), 64 * MIB);
    let other = Pinned { etag: ETag::new("v2"), ..object };
    let stem = cache.inner.directory.stem(&name(&cache.inner.identity(&other)));
    std::fs::create_dir_all(stem.parent().unwrap()).unwrap();
    for extension in ["data", "map"] {
        std::fs::rename(files(directory.path(), extension).remove(0), stem.with_extension(extension)).unwrap();
    }
    assert_eq!(cache.read(&other, &(0..10)), None);
}

#[test]
fn a_link_in_place_of_a_file_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, object) = filled(directory.path());
    drop(cache);
    let data = files(directory.path(), "data").remove(0);
    let elsewhere = directory.path().join("elsewhere");
    std::fs::rename(&data, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &data).unwrap();
    let again = open(directory.path(), 64 * MIB);
    assert_eq!(again.read(&object, &(0..10)), None);
    assert_eq!(std::fs::read(&elsewhere).unwrap().len() as u64, MIB + 5);
}

/// A file with the first bytes of every object.
fn local_file(directory: &Path, size: u64) -> File {
    let path = directory.join("draft");
    std::fs::write(&path, bytes(0..size)).unwrap();
    File::open(path).unwrap()
}

/// Over restarts, until what was verified once is known without being read.
fn known_verified(directory: &Path, object: &Pinned) {
    let begun = Instant::now();
    while open(directory, 64 * MIB).verify(object, Duration::ZERO).is_none() {
        assert!(begun.elapsed() < PATIENCE, "it is verified anew after each start");
        assert!(open(directory, 64 * MIB).verify(object, PATIENCE).is_some());
    }
}

#[test]
fn what_was_verified_before_a_restart_is_not_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, object) = filled(directory.path());
    drop(cache);
    known_verified(directory.path(), &object);
    let again = open(directory.path(), 64 * MIB);
    assert_eq!(again.read(&object, &(0..MIB + 5)), Some(bytes(0..MIB + 5)));
}

#[test]
fn what_was_written_to_since_is_verified_again() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, object) = filled(directory.path());
    drop(cache);
    known_verified(directory.path(), &object);
    the_file(directory.path(), "data").write_all_at(&[!byte(9)], 9).unwrap();
    let damaged = open(directory.path(), 64 * MIB);
    assert!(damaged.verify(&object, PATIENCE).is_none());
    assert_eq!(damaged.read(&object, &(0..10)), None);
    drop(damaged);
    assert!(open(directory.path(), 64 * MIB).verify(&object, PATIENCE).is_none(), "a block is missing");
}

#[test]
fn a_local_file_is_taken_whole() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, object) = (open(&directory.path().join("cache"), 64 * MIB), pinned("o", 3 * MIB + 5));
    cache.write_file(&object, local_file(directory.path(), object.size), || true);
    cache.flush();
    assert!(matches!(cache.whole(&object), Whole::Unverified), "not before it was looked at");
    assert!(cache.verify(&object, std::time::Duration::from_mins(1)).is_some(), "{:?}", cache.stats());
    assert!(matches!(cache.whole(&object), Whole::File(_)), "{:?}", cache.stats());
    assert_eq!(cache.read(&object, &(MIB..object.size)), Some(bytes(MIB..object.size)));
    drop(cache);
    let again = open(&directory.path().join("cache"), 64 * MIB);
    assert_eq!(again.read(&object, &(0..object.size)), Some(bytes(0..object.size)));
    assert!(files(directory.path(), "new").is_empty());
}

#[test]
fn of_a_file_that_changed_meanwhile_nothing_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, object) = (open(&directory.path().join("cache"), 64 * MIB), pinned("o", 3 * MIB));
    cache.write_file(&object, local_file(directory.path(), object.size), || false);
    cache.write_file(&pinned("short", 9 * MIB), local_file(directory.path(), object.size), || true);
    cache.flush();
    assert!(cache.missing(&object, MIB).len() == 3 && cache.missing(&pinned("short", 9 * MIB), MIB).len() == 9);
    assert_eq!((cache.stats().entries, files(directory.path(), "data").len()), (0, 0));
    assert!(files(directory.path(), "new").is_empty());
    // Nor is it taken for a fault of the disk, which would keep everything out for a minute.
    cache.write(&pinned("next", 10), 0, bytes(0..10));
    cache.flush();
    assert_eq!(cache.read(&pinned("next", 10), &(0..10)), Some(bytes(0..10)));
}

#[test]
fn a_file_larger_than_the_cache_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, object) = (open(&directory.path().join("cache"), 4 * MIB), pinned("o", 9 * MIB));
    cache.write_file(&object, local_file(directory.path(), object.size), || true);
    cache.flush();
    assert!(files(&directory.path().join("cache"), "new").is_empty());
    assert_eq!(cache.stats().entries, 0);
    cache.write(&pinned("small", 10), 0, bytes(0..10));
    cache.flush();
    assert_eq!(cache.read(&pinned("small", 10), &(0..10)), Some(bytes(0..10)));
}

#[test]
fn what_was_used_last_is_verified_ahead() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, object) = (open(directory.path(), 64 * MIB), pinned("o", 5 * MIB));
    cache.write(&object, 0, bytes(0..object.size));
    cache.flush();
    drop(cache);
    let again = open(directory.path(), 64 * MIB);
    again.verify_recent();
    let begun = Instant::now();
    while !matches!(again.whole(&object), Whole::File(_)) {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn renamed(object: &Pinned) -> Pinned {
    Pinned { key: "another/name".into(), etag: ETag::new("v2"), size: object.size }
}

#[test]
fn what_has_another_name_is_read_under_it_also_after_a_restart() {
    for size in [5000, MIB + 5] {
        let directory = tempfile::tempdir().unwrap();
        let (cache, old) = (open(directory.path(), 64 * MIB), pinned("a", size));
        let new = renamed(&old);
        cache.write(&old, 0, bytes(0..size));
        cache.flush();
        let (disk_bytes, written_bytes) = (cache.stats().disk_bytes, cache.stats().written_bytes);
        cache.relabel(&old, &new);
        assert_eq!(cache.read(&new, &(0..size)), Some(bytes(0..size)));
        assert_eq!((cache.read(&old, &(0..10)), cache.stats().damaged), (None, 0));
        let stats = cache.stats();
        assert_eq!((stats.disk_bytes, stats.written_bytes, stats.entries), (disk_bytes, written_bytes, 1));
        drop(cache);
        let again = open(directory.path(), 64 * MIB);
        assert_eq!(again.read(&new, &(0..size)), Some(bytes(0..size)));
        assert_eq!((again.read(&old, &(0..10)), again.stats().damaged), (None, 0));
        again.remove(&new);
        assert_eq!(["map", "data", "small"].map(|extension| files(directory.path(), extension).len()), [0; 3]);
    }
}

#[test]
fn what_waits_to_be_written_is_written_under_the_new_name() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, old) = (open(directory.path(), 64 * MIB), pinned("a", 5000));
    let new = renamed(&old);
    cache.write_later(&old, 0, bytes(0..5000));
    cache.relabel(&old, &new);
    cache.flush();
    assert_eq!(cache.read(&new, &(0..5000)), Some(bytes(0..5000)));
    assert_eq!(cache.read(&old, &(0..10)), None);
    assert_eq!(files(directory.path(), "small").len(), 1);
}

#[test]
fn a_whole_file_is_given_out_under_its_new_name_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, old) = filled(directory.path());
    let new = renamed(&old);
    assert!(matches!(cache.whole(&old), Whole::File(_)));
    cache.relabel(&old, &new);
    assert!(matches!(cache.whole(&new), Whole::File(_)) && matches!(cache.whole(&old), Whole::No));
}

#[test]
fn what_is_there_under_the_new_name_already_stays() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, old) = filled(directory.path());
    let new = renamed(&old);
    cache.write(&new, 0, bytes(0..old.size));
    cache.flush();
    cache.relabel(&old, &new);
    assert_eq!(cache.read(&new, &(0..old.size)), Some(bytes(0..old.size)));
    assert_eq!((cache.read(&old, &(0..10)), cache.stats().entries), (None, 1));
}
