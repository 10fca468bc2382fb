//! What somebody may forbid: it is not in the bucket, the call fails with his errno, and nothing that
//! was allowed before is lost by it.

use async_trait::async_trait;
use parking_lot::Mutex;
use s3mount::fs::{Answer, BacklogLimits, Proposal, Proposed, Refusal};
use s3mount::journal::EventName;

use super::*;

/// Guards `in/`: refuses bytes that begin with `bad`, and that something with `keep` in its name goes.
#[derive(Debug, Default)]
struct Censor {
    asked: Mutex<Vec<String>>,
    bucket: Arc<MemoryBucket>,
}

#[async_trait]
impl Gatekeeper for Censor {
    fn is_awake(&self) -> bool {
        true
    }

    fn guards(&self, _event: EventName, key: &str) -> bool {
        key.starts_with("in/")
    }

    async fn ask(&self, proposal: Proposal) -> Answer {
        let name = proposal.event.s3_name().rsplit(':').next().unwrap();
        self.asked.lock().push(format!("{name} {}", proposal.key));
        let refused = match proposal.bytes {
            None => proposal.key.contains("keep"),
            Some(Proposed::File(path)) => {
                let bytes = std::fs::read(path).unwrap();
                assert_eq!(bytes.len() as u64, proposal.size);
                bytes.starts_with(b"bad")
            }
            Some(Proposed::Version { key, .. }) => self.bucket.bytes(&key).unwrap().starts_with(b"bad"),
        };
        let refusal = Refusal { errno: Errno::EPERM, by: "censor".into(), reason: "bad".into() };
        if refused { Answer::Refused(refusal) } else { Answer::Allowed }
    }
}

/// A house with its censor, and the directory that he guards.
struct Guarded {
    house: House,
    censor: Arc<Censor>,
    dir: Ino,
}

fn write_back(settings: Settings) -> Settings {
    let limits = BacklogLimits { free_percent: 0, ..BacklogLimits::default() };
    Settings { write_back: Some(limits), ..settings }
}

impl Guarded {
    async fn new() -> Self {
        Self::on(Arc::default(), tempfile::tempdir().unwrap(), |settings| settings).await
    }

    async fn on(bucket: Arc<MemoryBucket>, state: tempfile::TempDir, change: impl Fn(Settings) -> Settings) -> Self {
        let censor = Arc::new(Censor { bucket: bucket.clone(), ..Censor::default() });
        let house = House::guarded(bucket, state, change, Some(censor.clone())).await;
        let dir = match house.lookup(ROOT, "in").await {
            Ok(there) => there.ino,
            Err(_) => house.fs.mkdir(ROOT, OsStr::new("in"), 0o755, ME).await.unwrap().ino,
        };
        Self { house, censor, dir }
    }

    /// Everything in memory is gone, as after `kill -9`.
    async fn crash(self) -> (Arc<MemoryBucket>, tempfile::TempDir) {
        let House { bucket, fs, state, .. } = self.house;
        fs.stop_removals().await;
        drop(fs);
        (bucket, state)
    }

    async fn create(&self, name: &str, bytes: &[u8]) -> u64 {
        let (_, opened) = self.house.fs.create(self.dir, OsStr::new(name), 0o644, WRITE, ME).await.unwrap();
        self.house.fs.write(opened.handle, 0, bytes).await.unwrap();
        opened.handle
    }

    async fn flush(&self, handle: u64) -> Result<(), Errno> {
        self.house.fs.flush(handle, ME).await.map_err(|error| error.errno())
    }

    /// Creates or replaces a file, as `cp` does; answers what its close did.
    async fn store(&self, name: &str, bytes: &[u8]) -> Result<(), Errno> {
        let handle = match self.house.lookup(self.dir, name).await {
            Err(_) => self.create(name, bytes).await,
            Ok(there) => {
                let opened = self.house.fs.open(there.ino, WRITE | libc::O_TRUNC, ME).await.unwrap();
                self.house.fs.write(opened.handle, 0, bytes).await.unwrap();
                opened.handle
            }
        };
        let closed = self.flush(handle).await;
        let released = self.house.fs.release(handle).await.map_err(|error| error.errno());
        assert_eq!(released, closed, "nobody hears of it, but it is the same");
        closed
    }

    async fn rename(&self, from: (Ino, &str), to: (Ino, &str)) -> Result<(), Errno> {
        let renamed = self.house.fs.rename(from.0, OsStr::new(from.1), to.0, OsStr::new(to.1), 0).await;
        renamed.map_err(|error| error.errno())
    }

    /// What a program reads there, if there is anything.
    async fn read(&self, name: &str) -> Option<Bytes> {
        let there = self.house.lookup(self.dir, name).await.ok()?;
        Some(self.house.read_file(there.ino).await)
    }

    fn object(&self, key: &str) -> Option<Bytes> {
        self.house.bucket.bytes(key)
    }

    /// The bytes that were kept, with their keys.
    fn kept(&self) -> Vec<(String, Vec<u8>)> {
        let all = self.house.fs.rejected().unwrap();
        all.into_iter().map(|one| (one.key, std::fs::read(one.path).unwrap())).collect()
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.censor.asked.lock())
    }
}

#[tokio::test]
async fn what_is_refused_is_kept_here_and_the_file_is_what_it_was() {
    let place = Guarded::new().await;
    assert_eq!(place.store("a", b"bad news").await, Err(Errno::EPERM));
    assert_eq!((place.object("in/a"), place.read("a").await), (None, None));
    assert_eq!(place.kept(), [("in/a".to_owned(), b"bad news".to_vec())]);

    place.store("a", b"good").await.unwrap();
    assert_eq!(place.store("a", b"bad").await, Err(Errno::EPERM));
    assert_eq!(place.object("in/a").unwrap(), &b"good"[..]);
    assert_eq!(place.read("a").await.unwrap(), &b"good"[..]);
    place.store("a", b"better").await.unwrap();
    assert_eq!(place.read("a").await.unwrap(), &b"better"[..]);
    assert_eq!((place.kept().len(), place.house.fs.status().rejected), (2, 2));
    assert_eq!(place.house.fs.drop_rejected(None).unwrap(), 2);
    assert!(place.kept().is_empty());
    assert_eq!(std::fs::read_dir(place.house.state.path().join("drafts")).unwrap().count(), 0);
}

#[tokio::test]
async fn each_version_is_asked_about_once() {
    let place = Guarded::new().await;
    let handle = place.create("a", b"good").await;
    for _ in 0..3 {
        place.house.fs.fsync(handle).await.unwrap();
        place.flush(handle).await.unwrap();
    }
    assert_eq!(place.asked(), ["Put in/a"]);
    place.house.fs.write(handle, 0, b"bad!").await.unwrap();
    assert!(place.house.fs.fsync(handle).await.is_err());
    assert_eq!(place.flush(handle).await, Err(Errno::EPERM));
    assert_eq!(place.asked(), ["Put in/a"]);
    // Who has it open may make it right.
    place.house.fs.write(handle, 0, b"fine").await.unwrap();
    place.flush(handle).await.unwrap();
    place.house.fs.release(handle).await.unwrap();
    assert_eq!(place.object("in/a").unwrap(), &b"fine"[..]);
    place.house.write_file(ROOT, "beside", b"bad").await;
    assert_eq!(place.asked(), ["Put in/a"], "nobody guards the rest");
}

#[tokio::test]
async fn a_change_inside_an_object_is_shown_whole() {
    let bucket = Arc::new(MemoryBucket::new());
    bucket.insert("in/b", &b"0123456789"[..], Metadata::new());
    let place = Guarded::on(bucket, tempfile::tempdir().unwrap(), |settings| settings).await;
    let there = place.house.lookup(place.dir, "b").await.unwrap();
    let opened = place.house.fs.open(there.ino, WRITE, ME).await.unwrap();
    place.house.fs.write(opened.handle, 12, b"!").await.unwrap();
    place.flush(opened.handle).await.unwrap();
    assert_eq!(place.object("in/b").unwrap(), &b"0123456789\0\0!"[..]);
}

#[tokio::test]
async fn renames_and_removals_that_are_refused_change_nothing() {
    let place = Guarded::new().await;
    let fs = &place.house.fs;
    place.store("keep", b"good").await.unwrap();
    place.house.write_file(ROOT, "x", b"bad").await;
    place.asked();
    let gone = fs.unlink(place.dir, OsStr::new("keep")).await.map_err(|error| error.errno());
    assert_eq!(gone, Err(Errno::EPERM));
    assert_eq!(place.rename((ROOT, "x"), (place.dir, "x")).await, Err(Errno::EPERM));
    assert_eq!(place.rename((place.dir, "keep"), (ROOT, "out")).await, Err(Errno::EPERM));
    assert_eq!(place.rename((ROOT, "in"), (ROOT, "else")).await, Err(Errno::EPERM));
    assert_eq!(place.asked(), ["Delete in/keep", "Copy in/x", "Delete in/keep", "Delete in/keep"]);
    fs.settle_removals().await.unwrap();
    assert_eq!(place.house.bucket.keys(), ["in/", "in/keep", "x"]);
    assert_eq!(place.read("keep").await.unwrap(), &b"good"[..]);

    // A file that is being written is asked about under its new name.
    let (_, opened) = fs.create(ROOT, OsStr::new("y"), 0o644, WRITE, ME).await.unwrap();
    fs.write(opened.handle, 0, b"bad").await.unwrap();
    assert_eq!(place.rename((ROOT, "y"), (place.dir, "y")).await, Err(Errno::EPERM));
    assert_eq!(place.flush(opened.handle).await, Ok(()));
    fs.release(opened.handle).await.unwrap();
    assert_eq!(place.object("y").unwrap(), &b"bad"[..]);
    assert!(place.kept().is_empty(), "it has its name");

    place.house.write_file(ROOT, "z", b"good").await;
    place.rename((ROOT, "z"), (place.dir, "z")).await.unwrap();
    fs.unlink(place.dir, OsStr::new("z")).await.unwrap();
    assert_eq!(place.asked(), ["Put in/y", "Copy in/z", "Delete in/z"]);
}

#[tokio::test]
async fn nothing_of_a_large_file_leaves_before_it_is_allowed() {
    let place = Guarded::new().await;
    for (name, first) in [("bad", &b"bad"[..]), ("good", &b"good"[..])] {
        let handle = place.create(name, first).await;
        for mib in 1..20 {
            place.house.fs.write(handle, mib << 20, &vec![7; 1 << 20]).await.unwrap();
        }
        assert_eq!(place.house.bucket.count("CreateMultipartUpload"), 0);
        assert_eq!(place.flush(handle).await.is_ok(), name == "good");
        assert_eq!(place.house.fs.release(handle).await.is_ok(), name == "good");
    }
    assert_eq!(place.asked(), ["CompleteMultipartUpload in/bad", "CompleteMultipartUpload in/good"]);
    assert_eq!(place.object("in/good").unwrap().len(), 20 << 20);
    assert_eq!((place.house.bucket.count("CreateMultipartUpload"), place.object("in/bad")), (1, None));
}

#[tokio::test]
async fn nobody_is_asked_about_symlinks() {
    let place = Guarded::on(Arc::default(), tempfile::tempdir().unwrap(), write_back).await;
    for name in ["a", "b"] {
        place.house.fs.symlink(place.dir, OsStr::new(name), OsStr::new("bad"), ME).await.unwrap();
    }
    place.rename((place.dir, "a"), (place.dir, "c")).await.unwrap();
    assert!(place.house.fs.sync(None).await.is_empty());
    assert_eq!((place.object("in/b").unwrap(), place.object("in/c").unwrap()), ("bad".into(), "bad".into()));
    assert!(place.asked().is_empty() && place.kept().is_empty());
}

#[tokio::test]
async fn in_a_write_back_mount_the_close_is_asked_about_and_what_it_allowed_is_sent() {
    let place = Guarded::on(Arc::default(), tempfile::tempdir().unwrap(), write_back).await;
    place.store("a", b"good").await.unwrap();
    // No uploader runs: the next version comes before this one was sent.
    assert_eq!(place.store("a", b"bad and longer").await, Err(Errno::EPERM));
    assert_eq!(place.read("a").await.unwrap(), &b"good"[..], "what was allowed is what it is");
    place.store("b", b"fine").await.unwrap();
    assert_eq!(place.asked(), ["Put in/a", "Put in/a", "Put in/b"]);
    assert_eq!(place.kept(), [("in/a".to_owned(), b"bad and longer".to_vec())]);
    assert_eq!((place.object("in/a"), place.object("in/b")), (None, None));

    // Nor does a crash lose it, or have it asked about again.
    let (bucket, state) = place.crash().await;
    let place = Guarded::on(bucket, state, write_back).await;
    assert_eq!(place.read("a").await.unwrap(), &b"good"[..]);
    let uploader = place.house.fs.start_uploader();
    assert!(place.house.fs.sync(None).await.is_empty());
    uploader.stop().await;
    assert_eq!(place.object("in/a").unwrap(), &b"good"[..]);
    assert_eq!(place.object("in/b").unwrap(), &b"fine"[..]);
    assert!(place.asked().is_empty());
}

#[tokio::test]
async fn what_was_closed_unasked_is_asked_about_by_the_next_start() {
    let house = House::with(Arc::default(), tempfile::tempdir().unwrap(), write_back).await;
    let dir = house.fs.mkdir(ROOT, OsStr::new("in"), 0o755, ME).await.unwrap().ino;
    house.write_file(dir, "a", b"bad").await;
    house.write_file(dir, "b", b"good").await;
    let House { bucket, fs, state, journal, .. } = house;
    drop((fs, journal));
    let place = Guarded::on(bucket, state, |settings| settings).await;
    assert_eq!((place.object("in/a"), place.object("in/b").unwrap()), (None, Bytes::from_static(b"good")));
    assert_eq!(place.kept(), [("in/a".to_owned(), b"bad".to_vec())]);
    assert_eq!(place.read("a").await, None);
    let mut asked = place.asked();
    asked.sort();
    assert_eq!(asked, ["Put in/a", "Put in/b"]);
    assert!(place.house.journal.open_intents().unwrap().is_empty());
}
