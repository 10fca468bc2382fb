//! Opening for reading: what it asks of S3, which version it shows, what the kernel is told.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use s3mount::bucket::Metadata;
use s3mount::bucket::memory::{Effect, Fault, MemoryBucket};
use s3mount::error::{Errno, Kind};
use s3mount::fs::ops::{Opened, Place};
use s3mount::fs::{Ino, Kernel, Settings};

use super::{House, ME, ROOT, after_the_ttl};

/// A kernel that notes what it is told.
#[derive(Debug, Default)]
struct Told {
    told: Mutex<Vec<String>>,
}

impl Told {
    fn attached(house: &House) -> Arc<Self> {
        let kernel = Arc::new(Self::default());
        house.fs.attach(kernel.clone());
        kernel
    }

    fn note(&self, what: String) {
        self.told.lock().push(what);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.told.lock())
    }
}

impl Kernel for Told {
    fn forget_attributes(&self, _ino: Ino) {
        self.note("attributes".into());
    }

    fn forget_pages(&self, _ino: Ino) {
        self.note("pages".into());
    }

    fn forget_name(&self, _parent: Ino, name: &str) {
        self.note(format!("name {name}"));
    }

    fn fill(&self, _ino: Ino, bytes: &[u8]) -> bool {
        self.note(format!("fill {}", String::from_utf8_lossy(bytes)));
        true
    }
}

async fn open(house: &House, ino: Ino) -> Opened {
    house.fs.open(ino, libc::O_RDONLY, ME).await.unwrap()
}

async fn open_and_close(house: &House, ino: Ino) -> Opened {
    let opened = open(house, ino).await;
    house.fs.release(opened.handle).await.unwrap();
    opened
}

/// Requests that `work` costs, by operation.
async fn costs(house: &House, work: impl Future<Output = ()>) -> Vec<(&'static str, u64)> {
    let before = house.bucket.requests();
    work.await;
    let after = house.bucket.requests().into_iter();
    after
        .map(|(name, count)| (name, count - before.get(name).copied().unwrap_or(0)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

#[tokio::test]
async fn a_small_file_is_one_get_which_checks_the_version_too() {
    let house = House::new().await;
    house.bucket.insert("a", "first", Metadata::new());
    let ino = house.lookup(ROOT, "a").await.unwrap().ino;
    after_the_ttl().await;
    let reading = async { assert_eq!(house.read_file(ino).await, "first") };
    assert_eq!(costs(&house, reading).await, [("GetObject", 1)]);
    let again = async { assert_eq!(house.read_file(ino).await, "first") };
    assert_eq!(costs(&house, again).await, []);
}

#[tokio::test]
async fn one_listing_confirms_all_that_is_cached() {
    let house = House::new().await;
    let mut inos = Vec::new();
    let names = ["a", "b", "c", "d"];
    for name in names {
        house.bucket.insert(name, name, Metadata::new());
    }
    for name in names {
        inos.push(house.lookup(ROOT, name).await.unwrap().ino);
    }
    for ino in &inos {
        house.read_file(*ino).await;
    }
    after_the_ttl().await;
    let again = async {
        for ino in &inos {
            house.read_file(*ino).await;
        }
    };
    assert_eq!(costs(&house, again).await, [("ListObjectsV2", 1)]);
}

#[tokio::test]
async fn an_open_shows_what_replaced_the_object_though_it_looked_fresh() {
    let house = House::new().await;
    house.bucket.insert("a", "first", Metadata::new());
    let ino = house.lookup(ROOT, "a").await.unwrap().ino;
    house.bucket.insert("a", "the second version", Metadata::new());
    assert_eq!(house.read_file(ino).await, "the second version");
}

#[tokio::test]
async fn cached_bytes_are_not_shown_past_the_ttl() {
    let house = House::new().await;
    house.bucket.insert("a", "first", Metadata::new());
    let ino = house.lookup(ROOT, "a").await.unwrap().ino;
    assert_eq!(house.read_file(ino).await, "first");
    house.bucket.insert("a", "other", Metadata::new());
    after_the_ttl().await;
    assert_eq!(house.read_file(ino).await, "other");
}

#[tokio::test]
async fn what_was_deleted_cannot_be_opened() {
    let house = House::new().await;
    house.bucket.insert("a", "first", Metadata::new());
    let ino = house.lookup(ROOT, "a").await.unwrap().ino;
    house.bucket.remove("a");
    let refused = house.fs.open(ino, libc::O_RDONLY, ME).await.unwrap_err();
    assert_eq!(refused.errno(), Errno::ESTALE);
    assert_eq!(house.lookup(ROOT, "a").await.unwrap_err(), Errno::ENOENT);
}

#[tokio::test]
async fn an_inode_that_lost_its_name_to_another_version_is_not_opened_again() {
    let house = House::new().await;
    house.bucket.insert("a", "first", Metadata::new());
    let old = house.lookup(ROOT, "a").await.unwrap().ino;
    let reader = open(&house, old).await;
    house.bucket.insert("a", "other", Metadata::new());
    after_the_ttl().await;
    let refused = house.fs.open(old, libc::O_RDONLY, ME).await.unwrap_err();
    assert_eq!(refused.errno(), Errno::ESTALE, "the kernel then asks for the name again");
    let new = house.lookup(ROOT, "a").await.unwrap().ino;
    assert_eq!(house.read_file(new).await, "other");
    assert_eq!(house.fs.read(reader.handle, 0, 100).await.unwrap(), "first");
}

#[tokio::test]
async fn the_bytes_of_a_small_file_go_to_the_kernel_once() {
    let house = House::new().await;
    let kernel = Told::attached(&house);
    house.bucket.insert("a", "first", Metadata::new());
    let ino = house.lookup(ROOT, "a").await.unwrap().ino;
    assert!(open_and_close(&house, ino).await.keep_cache);
    assert_eq!(kernel.take(), ["fill first"]);
    assert!(open_and_close(&house, ino).await.keep_cache, "the kernel has it");
    assert_eq!(kernel.take(), Vec::<String>::new());
}

#[tokio::test]
async fn the_kernel_drops_pages_and_size_of_a_replaced_file() {
    let house = House::new().await;
    let kernel = Told::attached(&house);
    house.bucket.insert("a", "first", Metadata::new());
    let ino = house.lookup(ROOT, "a").await.unwrap().ino;
    open_and_close(&house, ino).await;
    kernel.take();
    house.bucket.insert("a", "the second version", Metadata::new());
    after_the_ttl().await;
    let opened = open(&house, ino).await;
    assert!(!opened.keep_cache, "the pages are those of the first version");
    assert_eq!(kernel.take(), ["pages", "attributes"], "not filled: the old pages are still there");
    assert_eq!(house.fs.read(opened.handle, 0, 100).await.unwrap(), "the second version");
}

#[tokio::test]
async fn a_file_that_is_written_is_never_filled_from_the_bucket() {
    let house = House::new().await;
    let kernel = Told::attached(&house);
    house.bucket.insert("a", "first", Metadata::new());
    let ino = house.lookup(ROOT, "a").await.unwrap().ino;
    let writer = house.fs.open(ino, libc::O_RDWR, ME).await.unwrap();
    house.fs.write(writer.handle, 0, b"FI").await.unwrap();
    open(&house, ino).await;
    assert_eq!(kernel.take(), Vec::<String>::new());
}

#[tokio::test]
async fn a_missing_name_is_asked_for_again_after_its_ttl() {
    let house = House::new().await;
    assert_eq!(house.lookup(ROOT, "a").await.unwrap_err(), Errno::ENOENT);
    house.bucket.insert("a", "here", Metadata::new());
    assert_eq!(house.lookup(ROOT, "a").await.unwrap_err(), Errno::ENOENT, "the listing is believed");
    after_the_ttl().await;
    house.lookup(ROOT, "a").await.unwrap();
}

#[tokio::test]
async fn what_is_invalidated_is_fetched_again_and_forgotten_by_the_kernel() {
    let house = House::new().await;
    house.bucket.insert("d/a", "first", Metadata::new());
    let directory = house.lookup(ROOT, "d").await.unwrap().ino;
    let ino = house.lookup(directory, "a").await.unwrap().ino;
    let kernel = Told::attached(&house);
    assert_eq!(house.read_file(ino).await, "first");
    kernel.take();
    assert_eq!(house.fs.invalidate("d").await.unwrap(), 2);
    let told = kernel.take();
    for what in ["attributes", "pages", "name d", "name a"] {
        assert!(told.iter().any(|line| line == what), "{what}: {told:?}");
    }
    assert_eq!(house.fs.invalidate("e").await.unwrap_err().errno(), Errno::ENOENT);
    let gets = house.bucket.count("GetObject");
    let lists = house.bucket.count("ListObjectsV2");
    assert_eq!(house.read_file(ino).await, "first");
    assert!(house.bucket.count("ListObjectsV2") > lists, "attributes were not asked again");
    let opened = open(&house, ino).await;
    assert_eq!(house.fs.read(opened.handle, 0, 5).await.unwrap(), "first");
    assert_eq!(house.bucket.count("GetObject"), gets + 1, "bytes were not fetched again");
}

#[tokio::test]
async fn an_open_that_s3_does_not_answer_fails() {
    use s3mount::bucket::memory::{Effect, Fault};
    use s3mount::error::Kind;
    let house = House::new().await;
    house.bucket.insert("a", "first", Metadata::new());
    let ino = house.lookup(ROOT, "a").await.unwrap().ino;
    house.bucket.inject(Fault::always(Effect::Fail(Kind::Unreachable)));
    let refused = house.fs.open(ino, libc::O_RDONLY, ME).await.unwrap_err();
    assert_eq!(refused.errno(), Errno::EHOSTUNREACH);
    house.bucket.heal();
    tokio::time::sleep(Duration::from_millis(2_050)).await;
    assert_eq!(house.read_file(ino).await, "first");
}

#[tokio::test]
async fn a_read_that_found_its_version_gone_makes_the_next_open_look() {
    let house = House::patient().await;
    let ours = house.write_file(ROOT, "f", b"ours").await;
    house.cache.forget("f");
    house.bucket.insert("f", "theirs, which is longer", Metadata::new());
    let opened = house.fs.open(ours.ino, libc::O_RDWR, ME).await.unwrap();
    let read = house.fs.read(opened.handle, 0, 100).await;
    assert_eq!(read.map_err(|error| error.errno()), Err(Errno::ESTALE));
    house.fs.release(opened.handle).await.unwrap();
    let theirs = house.lookup(ROOT, "f").await.unwrap();
    assert_eq!(house.read_file(theirs.ino).await, "theirs, which is longer");
}

#[tokio::test]
async fn an_outage_is_over_for_everybody_with_the_first_answer() {
    let house = House::patient().await;
    for name in ["a", "b"] {
        house.bucket.insert(name, "bytes", Metadata::new());
    }
    let (a, b) = (house.lookup(ROOT, "a").await.unwrap().ino, house.lookup(ROOT, "b").await.unwrap().ino);
    house.bucket.inject(Fault::always(Effect::Fail(Kind::Unreachable)));
    assert_eq!(house.fs.open(a, libc::O_RDONLY, ME).await.unwrap_err().errno(), Errno::EHOSTUNREACH);
    house.bucket.heal();
    house.write_file(ROOT, "c", b"stored").await;
    assert_eq!(house.read_file(b).await, "bytes");
}

#[tokio::test]
async fn what_is_appended_goes_behind_lines_that_the_kernel_has_not_heard_of() {
    let house = House::with(Arc::default(), tempfile::tempdir().unwrap(), |settings| Settings {
        attr_ttl: Duration::ZERO,
        list_ttl: Duration::ZERO,
        ..settings
    })
    .await;
    house.bucket.insert("log", "ours\n", Metadata::new());
    let ino = house.lookup(ROOT, "log").await.unwrap().ino;
    house.bucket.insert("log", "ours\ntheirs\n", Metadata::new());
    let appending = libc::O_WRONLY | libc::O_APPEND;
    let opened = house.fs.open(ino, appending, ME).await.unwrap();
    assert!(opened.direct_io, "or the kernel would keep the line where it takes the end to be");
    let at_old_end = Place { offset: 5, appends: true };
    house.fs.write(opened.handle, at_old_end, b"ours again\n").await.unwrap();
    house.fs.flush(opened.handle, ME).await.unwrap();
    assert_eq!(house.bucket.bytes("log").unwrap(), "ours\ntheirs\nours again\n");
    house.fs.write(opened.handle, 0, b"OURS").await.unwrap();
    house.fs.flush(opened.handle, ME).await.unwrap();
    assert_eq!(house.bucket.bytes("log").unwrap(), "OURS\ntheirs\nours again\n", "who says where is heard");
}

#[tokio::test]
async fn the_kernel_forgets_the_rights_of_a_directory_that_another_mount_has_changed() {
    let asking = |settings| Settings { list_ttl: Duration::ZERO, ..settings };
    let house = House::with(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap(), asking).await;
    let kernel = Told::attached(&house);
    let put = async |mode: &str| {
        house.put_marker("d/", Metadata::from([("mode".to_owned(), mode.to_owned())])).await;
        house.bucket.info("d/").unwrap().modified
    };
    let dated = put("16877").await;
    let directory = house.lookup(ROOT, "d").await.unwrap().ino;
    house.names(directory).await;
    while put("16832").await == dated {}
    kernel.take();
    house.names(directory).await;
    assert_eq!(kernel.take(), ["attributes"]);
    assert_eq!(house.lookup(ROOT, "d").await.unwrap().stat.perm, 0o700);
}
