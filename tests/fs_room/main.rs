//! The `fs` room by itself: real cache, index and journal, and a bucket in memory whose requests
//! can be counted and broken.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in what prepares it")]

mod attributes;
mod deletions;
mod gatekeeper;
mod hints;
mod large;
mod large_model;
mod noted;
mod opening;
mod parts;
mod removals;
mod renaming;
mod sending;
mod siblings;
mod unchanged;
mod waiting;
mod walks;
mod working;
mod write_back;

use std::ffi::OsStr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use s3mount::bucket::attributes::Attributes;
use s3mount::bucket::memory::{Effect, Fault, MemoryBucket};
use s3mount::bucket::upload::UploadSettings;
use s3mount::bucket::{Bucket, Layout, Metadata, PutOptions};
use s3mount::cache::{AttributeIndex, BlockCache, CacheSettings};
use s3mount::error::{Errno, Kind};
use s3mount::fs::ops::{Entry, NewTime, SetAttr};
use s3mount::fs::{Attrs, Caller, Fs, Gatekeeper, Ino, RecoveryReport, Settings};
use s3mount::journal::Journal;
use tokio::runtime::Runtime;

/// For models, whose cases are no tests of their own.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());

const ROOT: Ino = 1;
const ME: Caller = Caller { uid: 1000, gid: 1000, pid: 0 };
const WRITE: i32 = libc::O_RDWR;

/// A file system on a bucket in memory.
struct House {
    bucket: Arc<MemoryBucket>,
    cache: Arc<BlockCache>,
    fs: Arc<Fs>,
    journal: Arc<Journal>,
    state: tempfile::TempDir,
    recovered: RecoveryReport,
}

impl House {
    async fn new() -> Self {
        Self::on(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap()).await
    }

    /// Believes what it knows for as long as a test can take on a busy machine: where requests are
    /// counted.
    async fn patient() -> Self {
        let long = Duration::from_mins(10);
        let believing = |settings| Settings { attr_ttl: long, list_ttl: long, negative_ttl: long, ..settings };
        Self::with(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap(), believing).await
    }

    async fn on(bucket: Arc<MemoryBucket>, state: tempfile::TempDir) -> Self {
        Self::with(bucket, state, |settings| settings).await
    }

    async fn with(bucket: Arc<MemoryBucket>, state: tempfile::TempDir, change: impl Fn(Settings) -> Settings) -> Self {
        Self::guarded(bucket, state, change, None).await
    }

    async fn guarded(
        bucket: Arc<MemoryBucket>,
        state: tempfile::TempDir,
        change: impl Fn(Settings) -> Settings,
        gatekeeper: Option<Arc<dyn Gatekeeper>>,
    ) -> Self {
        Self::over(bucket.clone(), bucket, state, change, gatekeeper).await
    }

    /// Sees `bucket` through `shared`.
    async fn over(
        bucket: Arc<MemoryBucket>,
        shared: Arc<dyn Bucket>,
        state: tempfile::TempDir,
        change: impl Fn(Settings) -> Settings,
        gatekeeper: Option<Arc<dyn Gatekeeper>>,
    ) -> Self {
        let cache = BlockCache::new(shared.clone(), CacheSettings { memory_bytes: 32 << 20, max_parallel_gets: 64 });
        let index = AttributeIndex::open(&state.path().join("index.redb")).unwrap();
        let journal = Journal::open(&state.path().join("journal")).unwrap();
        let settings = Settings {
            root_prefix: String::new(),
            layout: Layout::of_bucket("b", "", ""),
            uid: 1000,
            gid: 1000,
            umask: 0o022,
            read_only: false,
            attr_ttl: Duration::from_secs(1),
            list_ttl: Duration::from_secs(5),
            negative_ttl: Duration::from_secs(1),
            attrs: Attrs::Auto,
            list_checksums: Some(true),
            heeds_conditions: true,
            draft_dir: state.path().join("drafts"),
            draft_memory_bytes: 1 << 20,
            events: false,
            write_back: None,
            attributes_wait: false,
            show_versions: false,
            upload: UploadSettings::default(),
        };
        let settings = change(settings);
        let fs = Fs::new(shared, cache.clone(), index, journal.clone(), settings);
        if let Some(gatekeeper) = gatekeeper {
            fs.guard_with(gatekeeper);
        }
        let recovered = fs.recover().await.unwrap();
        Self { bucket, cache, fs, journal, state, recovered }
    }

    /// Everything in memory is gone, as after `kill -9`; bucket and state directory stay.
    async fn restart(self) -> Self {
        let Self { bucket, fs, journal, state, .. } = self;
        fs.stop_removals().await;
        drop((fs, journal));
        Self::on(bucket, state).await
    }

    async fn write_file(&self, parent: Ino, name: &str, bytes: &[u8]) -> Entry {
        let (entry, opened) = self.fs.create(parent, OsStr::new(name), 0o644, WRITE, ME).await.unwrap();
        self.fs.write(opened.handle, 0, bytes).await.unwrap();
        self.fs.flush(opened.handle, ME).await.unwrap();
        self.fs.release(opened.handle).await.unwrap();
        entry
    }

    /// By another mount.
    async fn put_marker(&self, key: &str, metadata: Metadata) {
        let options = PutOptions { metadata, ..PutOptions::default() };
        self.bucket.put(key, Bytes::new(), &options).await.unwrap();
    }

    async fn read_file(&self, ino: Ino) -> Bytes {
        let opened = self.fs.open(ino, libc::O_RDONLY, ME).await.unwrap();
        let bytes = self.fs.read(opened.handle, 0, 1 << 20).await.unwrap();
        self.fs.release(opened.handle).await.unwrap();
        bytes
    }

    async fn lookup(&self, parent: Ino, name: &str) -> Result<Entry, Errno> {
        self.fs.lookup(parent, OsStr::new(name)).await.map_err(|error| error.errno())
    }

    async fn names(&self, ino: Ino) -> Vec<String> {
        self.list(ino, false).await.into_iter().map(|(name, _)| name).collect()
    }

    /// Reads a directory as the kernel does: all of it, `plus` with attributes and a reference each.
    async fn list(&self, ino: Ino, plus: bool) -> Vec<(String, Option<Entry>)> {
        let handle = self.fs.opendir(ino).unwrap();
        let (mut from, mut lines) = (2, Vec::new());
        loop {
            let read = if plus { self.fs.readdirplus(handle, from).await } else { self.fs.readdir(handle, from).await };
            let read = read.unwrap();
            let Some(last) = read.last() else { break };
            from = last.next;
            for line in read {
                let entry = if plus { self.fs.enter_listed(&line) } else { None };
                lines.push((line.name, entry));
            }
        }
        self.fs.releasedir(handle);
        lines
    }
}

#[tokio::test]
async fn a_new_file_is_one_put_with_its_attributes_inside() {
    let house = House::new().await;
    house.write_file(ROOT, "a", b"hello").await;
    assert_eq!(house.bucket.bytes("a").unwrap(), "hello");
    let metadata = house.bucket.info("a").unwrap().metadata;
    assert_eq!(metadata["file-permissions"], "0100644");
    assert_eq!(metadata["file-owner"], "1000");
    assert_eq!(house.bucket.count("PutObject"), 1);
    assert_eq!(house.bucket.count("ListObjectsV2"), 1);
    assert_eq!(house.bucket.requests().values().sum::<u64>(), 2, "{:?}", house.bucket.requests());
}

#[tokio::test]
async fn a_write_in_the_middle_keeps_the_rest() {
    let house = House::new().await;
    house.bucket.insert("a", "0123456789", Metadata::new());
    let ino = house.lookup(ROOT, "a").await.unwrap().ino;
    let opened = house.fs.open(ino, WRITE, ME).await.unwrap();
    house.fs.write(opened.handle, 3, b"XY").await.unwrap();
    assert_eq!(house.fs.read(opened.handle, 0, 100).await.unwrap(), "012XY56789");
    house.fs.flush(opened.handle, ME).await.unwrap();
    assert_eq!(house.bucket.bytes("a").unwrap(), "012XY56789");
}

#[tokio::test]
async fn a_rename_moves_the_object_and_keeps_the_inode() {
    let house = House::new().await;
    let before = house.write_file(ROOT, "a", b"data").await.ino;
    house.fs.rename(ROOT, OsStr::new("a"), ROOT, OsStr::new("b"), 0).await.unwrap();
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.bucket.keys(), ["b"]);
    let after = house.lookup(ROOT, "b").await.unwrap();
    assert_eq!(after.ino, before);
    let house = house.restart().await;
    assert_eq!(house.read_file(house.lookup(ROOT, "b").await.unwrap().ino).await, "data");
}

#[tokio::test]
async fn a_mode_set_while_the_file_is_open_for_writing_goes_along_with_a_rename() {
    let house = House::new().await;
    house.bucket.insert("full", "bytes", Metadata::new());
    house.bucket.insert("empty", "", Metadata::new());
    for name in ["full", "empty"] {
        let ino = house.lookup(ROOT, name).await.unwrap().ino;
        house.fs.open(ino, WRITE, ME).await.unwrap();
        let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
        house.fs.setattr(ino, set).await.unwrap();
        let renamed = format!("{name}-renamed");
        house.fs.rename(ROOT, OsStr::new(name), ROOT, OsStr::new(&renamed), 0).await.unwrap();
        let stored = house.bucket.head(&renamed).await.unwrap();
        assert_eq!(Attributes::from_metadata(&stored.metadata).mode.unwrap() & 0o7777, 0o600, "{renamed}");
    }
}

/// What one program does to a file while another opens it, writes and closes: neither is lost.
async fn while_a_copy_is_under_way(change: impl AsyncFnOnce(Arc<Fs>, Ino) + 'static, name: &str) {
    let house = House::new().await;
    let ino = house.write_file(ROOT, "f", b"the old bytes").await.ino;
    house.bucket.inject(Fault::once("CopyObject", Effect::Delay(Duration::from_millis(200))));
    let changing = change(house.fs.clone(), ino);
    let writing = async {
        while !house.bucket.requests().contains_key("CopyObject") {
            tokio::task::yield_now().await;
        }
        let opened = house.fs.open(ino, WRITE, ME).await.unwrap();
        house.fs.write(opened.handle, 0, b"NEW").await.unwrap();
        house.fs.flush(opened.handle, ME).await.unwrap();
        house.fs.release(opened.handle).await.unwrap();
    };
    tokio::join!(changing, writing);
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.bucket.keys(), [name]);
    assert_eq!(house.bucket.bytes(name).unwrap(), "NEW old bytes");
}

#[tokio::test]
async fn a_chmod_and_a_write_at_once_are_both_stored() {
    let chmod = async |fs: Arc<Fs>, ino| {
        fs.setattr(ino, SetAttr { mode: Some(0o600), ..SetAttr::default() }).await.unwrap();
    };
    Box::pin(while_a_copy_is_under_way(chmod, "f")).await;
}

#[tokio::test]
async fn a_rename_and_a_write_at_once_are_both_stored() {
    let rename = async |fs: Arc<Fs>, _| fs.rename(ROOT, OsStr::new("f"), ROOT, OsStr::new("g"), 0).await.unwrap();
    while_a_copy_is_under_way(rename, "g").await;
}

#[tokio::test]
async fn a_rename_over_a_file_replaces_it_and_noreplace_does_not() {
    let house = House::new().await;
    house.write_file(ROOT, "a", b"new").await;
    house.write_file(ROOT, "b", b"old").await;
    let (a, b) = (OsStr::new("a"), OsStr::new("b"));
    let refused = house.fs.rename(ROOT, a, ROOT, b, libc::RENAME_NOREPLACE).await.unwrap_err();
    assert_eq!(refused.errno(), Errno::EEXIST);
    house.fs.rename(ROOT, a, ROOT, b, 0).await.unwrap();
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.bucket.keys(), ["b"]);
    assert_eq!(house.bucket.bytes("b").unwrap(), "new");
    assert_eq!(house.names(ROOT).await, ["b"]);
}

#[tokio::test]
async fn a_directory_moves_with_everything_in_it_and_open_files_go_on() {
    let house = House::new().await;
    let directory = house.fs.mkdir(ROOT, OsStr::new("d"), 0o755, ME).await.unwrap().ino;
    let file = house.write_file(directory, "f", b"12").await.ino;
    let opened = house.fs.open(file, WRITE, ME).await.unwrap();
    house.fs.rename(ROOT, OsStr::new("d"), ROOT, OsStr::new("e"), 0).await.unwrap();
    assert_eq!(house.bucket.keys(), ["e/", "e/f"]);
    house.fs.write(opened.handle, 1, b"X").await.unwrap();
    house.fs.flush(opened.handle, ME).await.unwrap();
    assert_eq!(house.bucket.bytes("e/f").unwrap(), "1X");
    assert_eq!(house.names(directory).await, ["f"]);
    let inside = house.fs.rename(ROOT, OsStr::new("e"), directory, OsStr::new("x"), 0).await.unwrap_err();
    assert_eq!(inside.errno(), Errno::EINVAL);
}

#[tokio::test]
async fn attributes_times_and_inode_numbers_are_the_same_after_a_restart() {
    let house = House::new().await;
    let directory = house.fs.mkdir(ROOT, OsStr::new("d"), 0o750, ME).await.unwrap().ino;
    let file = house.write_file(directory, "f", b"x").await.ino;
    let past = std::time::SystemTime::UNIX_EPOCH + Duration::from_nanos(1_234_567_890_123_456_789);
    let set = SetAttr { mode: Some(0o4711), mtime: Some(NewTime::At(past)), ..SetAttr::default() };
    let before = house.fs.setattr(file, set).await.unwrap();
    house.fs.setxattr(file, OsStr::new("user.k"), b"v", 0).await.unwrap();
    let before = Entry { stat: house.fs.getattr(file).await.unwrap().stat, ..before };
    let house = house.restart().await;
    let directory = house.lookup(ROOT, "d").await.unwrap();
    assert_eq!(directory.stat.perm, 0o750);
    let after = house.lookup(directory.ino, "f").await.unwrap();
    assert_eq!((after.ino, &after.stat), (before.ino, &before.stat));
    assert_eq!(after.stat.mtime, past);
    assert_eq!(house.fs.getxattr(after.ino, OsStr::new("user.k")).await.unwrap(), b"v");
}

#[tokio::test]
async fn another_clients_version_is_not_overwritten() {
    let house = House::new().await;
    house.bucket.insert("a", "first", Metadata::new());
    let ino = house.lookup(ROOT, "a").await.unwrap().ino;
    let opened = house.fs.open(ino, WRITE, ME).await.unwrap();
    house.fs.write(opened.handle, 0, b"mine!").await.unwrap();
    house.bucket.insert("a", "theirs", Metadata::new());
    let refused = house.fs.flush(opened.handle, ME).await.unwrap_err();
    assert_eq!(refused.errno(), Errno::ESTALE);
    assert_eq!(house.bucket.bytes("a").unwrap(), "theirs");
}

#[tokio::test]
async fn a_reader_sees_one_version_or_estale() {
    let house = House::new().await;
    house.bucket.insert("a", vec![1; 4 << 20], Metadata::new());
    let ino = house.lookup(ROOT, "a").await.unwrap().ino;
    let opened = house.fs.open(ino, libc::O_RDONLY, ME).await.unwrap();
    assert_eq!(house.fs.read(opened.handle, 0, 10).await.unwrap(), vec![1; 10]);
    house.bucket.insert("a", vec![2; 4 << 20], Metadata::new());
    let outcome = house.fs.read(opened.handle, 3 << 20, 10).await;
    assert_eq!(outcome.unwrap_err().errno(), Errno::ESTALE);
}

#[tokio::test]
async fn an_empty_file_closed_before_a_crash_is_there_afterwards() {
    let house = House::new().await;
    let (_, opened) = house.fs.create(ROOT, OsStr::new("empty"), 0o600, WRITE, ME).await.unwrap();
    house.fs.flush(opened.handle, ME).await.unwrap();
    assert_eq!(house.bucket.count("PutObject"), 0);
    let house = house.restart().await;
    assert_eq!(house.bucket.info("empty").unwrap().metadata["file-permissions"], "0100600");
}

#[tokio::test]
async fn what_no_close_acknowledged_is_gone_after_a_crash() {
    let house = House::new().await;
    let (_, opened) = house.fs.create(ROOT, OsStr::new("a"), 0o600, WRITE, ME).await.unwrap();
    house.fs.write(opened.handle, 0, b"x").await.unwrap();
    let house = house.restart().await;
    assert!(house.bucket.keys().is_empty());
    assert_eq!(std::fs::read_dir(house.state.path().join("drafts")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_refused_upload_keeps_the_draft_and_the_next_close_stores_it() {
    let house = House::new().await;
    let (entry, opened) = house.fs.create(ROOT, OsStr::new("a"), 0o600, WRITE, ME).await.unwrap();
    house.fs.write(opened.handle, 0, b"x").await.unwrap();
    house.bucket.inject(Fault::once("PutObject", Effect::Fail(Kind::QuotaExceeded)));
    assert_eq!(house.fs.flush(opened.handle, ME).await.unwrap_err().errno(), Errno::EDQUOT);
    assert_eq!(house.fs.status().dirty_files, ["a"]);
    house.fs.flush(opened.handle, ME).await.unwrap();
    assert_eq!(house.bucket.bytes("a").unwrap(), "x");
    assert_eq!(house.fs.status().dirty_files, Vec::<String>::new());
    assert_eq!(house.fs.getattr(entry.ino).await.unwrap().stat.size, 1);
}

#[tokio::test]
async fn keys_without_a_path_are_counted_and_left_alone() {
    let house = House::new().await;
    for key in ["../up", "x//y", "m/", "s", "s/t", "plain"] {
        house.bucket.insert(key, if key == "m/" { "body" } else { "x" }, Metadata::new());
    }
    assert_eq!(house.names(ROOT).await, ["m", "plain", "s", "x"]);
    for name in ["m", "x", "s"] {
        let ino = house.lookup(ROOT, name).await.unwrap().ino;
        house.names(ino).await;
    }
    let odd: Vec<String> = house.fs.status().odd_keys.into_keys().collect();
    assert_eq!(odd, ["../up", "m/", "s", "x//y"]);
}

#[tokio::test]
async fn a_truncation_by_name_is_stored_at_once() {
    let house = House::new().await;
    house.bucket.insert("a", "0123456789", Metadata::new());
    let ino = house.lookup(ROOT, "a").await.unwrap().ino;
    let set = SetAttr { size: Some(4), ..SetAttr::default() };
    assert_eq!(house.fs.setattr(ino, set).await.unwrap().stat.size, 4);
    assert_eq!(house.bucket.bytes("a").unwrap(), "0123");
    let set = SetAttr { size: Some(6), ..SetAttr::default() };
    house.fs.setattr(ino, set).await.unwrap();
    assert_eq!(house.bucket.bytes("a").unwrap(), "0123\0\0");
}

#[tokio::test]
async fn a_large_file_goes_in_parts() {
    let house = House::new().await;
    let bytes: Vec<u8> = (0..20 << 20).map(|index: u32| (index >> 8) as u8).collect();
    house.write_file(ROOT, "large", &bytes).await;
    assert_eq!(house.bucket.bytes("large").unwrap(), bytes);
    assert_eq!(house.bucket.count("UploadPart"), 3);
    assert_eq!(house.bucket.open_uploads(), 0);
}

#[tokio::test]
async fn a_name_asked_for_again_costs_nothing_while_the_listing_is_fresh() {
    let house = House::new().await;
    for _ in 0..5 {
        assert_eq!(house.lookup(ROOT, "missing").await.unwrap_err(), Errno::ENOENT);
    }
    assert_eq!(house.bucket.requests().values().sum::<u64>(), 1);
}

/// What others do is seen once the attribute TTL is over.
async fn after_the_ttl() {
    tokio::time::sleep(Duration::from_millis(1_050)).await;
}

#[tokio::test]
async fn a_stat_between_open_and_write_does_not_make_us_overwrite_a_newer_version() {
    let house = House::new().await;
    house.bucket.insert("a", "first", Metadata::new());
    let ino = house.lookup(ROOT, "a").await.unwrap().ino;
    let opened = house.fs.open(ino, WRITE, ME).await.unwrap();
    house.bucket.insert("a", "theirs", Metadata::new());
    after_the_ttl().await;
    let _ = house.fs.getattr(ino).await;
    house.fs.write(opened.handle, 0, b"mine!").await.unwrap();
    assert_eq!(house.fs.flush(opened.handle, ME).await.unwrap_err().errno(), Errno::ESTALE);
    assert_eq!(house.bucket.bytes("a").unwrap(), "theirs");
    house.fs.release(opened.handle).await.unwrap();
    let kept: Vec<_> = std::fs::read_dir(house.state.path().join("drafts")).unwrap().collect();
    assert_eq!(kept.len(), 1, "our version is kept");
    assert_eq!(std::fs::read(kept[0].as_ref().unwrap().path()).unwrap(), b"mine!");
    assert_eq!(house.read_file(house.lookup(ROOT, "a").await.unwrap().ino).await, "theirs");
}

#[tokio::test]
async fn a_file_deleted_by_somebody_while_open_for_writing_is_not_lost_in_silence() {
    let house = House::new().await;
    house.bucket.insert("log", "1", Metadata::new());
    let ino = house.lookup(ROOT, "log").await.unwrap().ino;
    let opened = house.fs.open(ino, WRITE, ME).await.unwrap();
    house.bucket.remove("log");
    after_the_ttl().await;
    house.names(ROOT).await;
    house.fs.write(opened.handle, 1, b"2").await.unwrap();
    assert_eq!(house.fs.fsync(opened.handle).await.unwrap_err().errno(), Errno::ESTALE);
}

#[tokio::test]
async fn a_reader_of_an_older_version_is_not_cut_short_by_a_newer_one() {
    let house = House::new().await;
    house.bucket.insert("a", vec![1; 3 << 20], Metadata::new());
    let old = house.lookup(ROOT, "a").await.unwrap().ino;
    let opened = house.fs.open(old, libc::O_RDONLY, ME).await.unwrap();
    house.bucket.insert("a", "short", Metadata::new());
    after_the_ttl().await;
    let new = house.lookup(ROOT, "a").await.unwrap();
    assert_eq!(new.stat.size, 5);
    assert_ne!(new.ino, old);
    assert_eq!(house.fs.getattr(old).await.unwrap().stat.size, 3 << 20);
    assert_eq!(house.fs.read(opened.handle, 2 << 20, 10).await.unwrap_err().errno(), Errno::ESTALE);
    assert_eq!(house.read_file(new.ino).await, "short");
}

#[tokio::test]
async fn a_deferred_close_follows_its_directory_and_its_mode_through_a_crash() {
    let house = House::new().await;
    let directory = house.fs.mkdir(ROOT, OsStr::new("d"), 0o755, ME).await.unwrap().ino;
    let (entry, opened) = house.fs.create(directory, OsStr::new("f"), 0o644, WRITE, ME).await.unwrap();
    house.fs.flush(opened.handle, ME).await.unwrap();
    let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    house.fs.setattr(entry.ino, set).await.unwrap();
    house.fs.flush(opened.handle, ME).await.unwrap();
    house.fs.rename(ROOT, OsStr::new("d"), ROOT, OsStr::new("e"), 0).await.unwrap();
    let house = house.restart().await;
    assert_eq!(house.bucket.keys(), ["e/", "e/f"]);
    assert_eq!(house.bucket.info("e/f").unwrap().metadata["file-permissions"], "0100600");
}

#[tokio::test]
async fn a_chmod_is_seen_after_a_crash_that_the_index_missed() {
    let house = House::new().await;
    let ino = house.write_file(ROOT, "f", b"x").await.ino;
    let set = |mode| SetAttr { mode: Some(mode), ..SetAttr::default() };
    house.fs.setattr(ino, set(0o640)).await.unwrap();
    // What the index had on the disk when the process was killed, and its note of what it had not.
    let at = |name: &str| house.state.path().join(name);
    house.fs.drain(Duration::from_secs(5)).await;
    std::fs::copy(at("index.redb"), at("before")).unwrap();
    house.fs.setattr(ino, set(0o600)).await.unwrap();
    std::fs::copy(at("index.unwritten"), at("mark")).expect("the index notes what it has not written");
    let House { bucket, fs, journal, state, .. } = house;
    drop((fs, journal));
    std::fs::rename(state.path().join("before"), state.path().join("index.redb")).unwrap();
    std::fs::rename(state.path().join("mark"), state.path().join("index.unwritten")).unwrap();
    let house = House::on(bucket, state).await;
    assert_eq!(house.lookup(ROOT, "f").await.unwrap().stat.perm, 0o600);
}

#[tokio::test]
async fn a_write_into_a_version_that_is_replaced_loses_and_the_next_open_shows_theirs() {
    let house = House::new().await;
    house.bucket.insert("a", "0123456789", Metadata::new());
    let ino = house.lookup(ROOT, "a").await.unwrap().ino;
    let opened = house.fs.open(ino, WRITE, ME).await.unwrap();
    house.fs.write(opened.handle, 3, b"XY").await.unwrap();
    // What the draft does not have of the old version, nobody has any more.
    house.bucket.insert("a", "theirs", Metadata::new());
    let refused = house.fs.flush(opened.handle, ME).await.unwrap_err();
    assert_eq!(refused.errno(), Errno::ESTALE);
    house.fs.release(opened.handle).await.unwrap();
    let ino = house.lookup(ROOT, "a").await.unwrap().ino;
    assert_eq!(house.read_file(ino).await, "theirs");
}

#[tokio::test]
async fn a_conflict_that_one_close_met_is_told_to_every_other_writer() {
    let house = House::new().await;
    let file = house.write_file(ROOT, "f", b"ours").await;
    let one = house.fs.open(file.ino, WRITE, ME).await.unwrap().handle;
    let other = house.fs.open(file.ino, WRITE, ME).await.unwrap().handle;
    house.fs.write(one, 0, b"one").await.unwrap();
    house.fs.write(other, 3, b"two").await.unwrap();
    house.bucket.insert("f", "theirs", Metadata::new());
    for writer in [one, other] {
        assert_eq!(house.fs.flush(writer, ME).await.unwrap_err().errno(), Errno::ESTALE);
        assert_eq!(house.fs.fsync(writer).await.unwrap_err().errno(), Errno::ESTALE);
    }
    assert_eq!(house.bucket.bytes("f").unwrap(), "theirs");
}

#[tokio::test]
async fn a_chmod_that_lost_its_version_leaves_theirs_to_the_next_open() {
    let house = House::new().await;
    house.bucket.insert("a", "ours", Metadata::new());
    let ino = house.lookup(ROOT, "a").await.unwrap().ino;
    let opened = house.fs.open(ino, WRITE, ME).await.unwrap();
    house.fs.setattr(ino, SetAttr { mode: Some(0o600), ..SetAttr::default() }).await.unwrap();
    house.bucket.insert("a", "theirs", Metadata::new());
    assert_eq!(house.fs.flush(opened.handle, ME).await.unwrap_err().errno(), Errno::ESTALE);
    house.fs.release(opened.handle).await.unwrap();
    let ino = house.lookup(ROOT, "a").await.unwrap().ino;
    assert_eq!(house.read_file(ino).await, "theirs");
}

#[tokio::test]
async fn a_moved_directory_does_not_pass_another_clients_version_off_as_ours() {
    let house = House::new().await;
    house.bucket.insert("d/a", "0123456789", Metadata::new());
    let directory = house.lookup(ROOT, "d").await.unwrap().ino;
    let ino = house.lookup(directory, "a").await.unwrap().ino;
    let reader = house.fs.open(ino, libc::O_RDONLY, ME).await.unwrap();
    let writer = house.fs.open(ino, WRITE, ME).await.unwrap();
    house.fs.write(writer.handle, 3, b"XY").await.unwrap();
    house.bucket.insert("d/a", "abcdefghijkl", Metadata::new());
    house.fs.rename(ROOT, OsStr::new("d"), ROOT, OsStr::new("e"), 0).await.unwrap();
    assert_eq!(house.fs.read(reader.handle, 0, 100).await.unwrap_err().errno(), Errno::ESTALE);
    assert_eq!(house.fs.flush(writer.handle, ME).await.unwrap_err().errno(), Errno::ESTALE);
    assert_eq!(house.bucket.bytes("e/a").unwrap(), "abcdefghijkl");
}
