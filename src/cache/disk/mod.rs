//! Clean bytes on the local disk, kept across mounts and shared by several of them.
//!
//! One version of an object is a file with its raw bytes at their offsets, sparse where nothing is
//! known, and a map with the checksum of each block that is there. Nothing is ever synced: whatever
//! a crash, another program or the disk does to the files, a block that does not match its checksum
//! is not there. Writes happen behind the readers, on a thread of their own.
//!
//! **Invariant**: reads give bytes of exactly this version or nothing. Everything in the directory
//! may be deleted, truncated or overwritten at any time.

mod directory;
mod entry;
mod ledger;
mod queue;
mod recent;
mod seal;
mod skipped;
mod stamp;
mod take;
mod writer;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use self::directory::Directory;
use self::entry::{Entry, Found};
use self::ledger::{Ledger, Name};
use self::queue::{Job, Payload, Queue};
pub(super) use self::seal::BLOCK_BYTES;
use self::seal::Identity;
use self::skipped::Skipped;
use super::{Error, Pinned};
use crate::bucket::{Layout, Root};

/// Files kept open, in pairs.
const OPEN_ENTRIES: NonZeroUsize = NonZeroUsize::new(256).expect("256 is not zero");
/// Most that a cache without a given limit takes, where a tenth of the file system is more.
const DEFAULT_LIMIT_BYTES: u64 = 20 << 30;
/// How long a fetch ahead of a reader waits for the disk: 48 of them at a time, 1 MiB and more each.
const KEEP_UP_DEADLINE: Duration = Duration::from_millis(250);
/// For a file that somebody waits for: one alone verifies 6 GB/s, which is slower than programs read.
const VERIFY_THREADS: usize = 4;
/// How often a use is written down in the files.
const TOUCH_PERIOD: Duration = Duration::from_mins(1);

/// What the app decides about the disk cache.
#[derive(Clone, Debug)]
pub struct DiskSettings {
    /// Made if missing, mode 0700; several mounts may share it.
    pub directory: PathBuf,
    /// Bytes on disk, at most; `None` = a tenth of the file system, 20 GiB at most.
    pub limit_bytes: Option<u64>,
    /// Tells buckets apart: what is cached goes by server, bucket and the key there, so that whatever mounts
    /// the bucket finds it.
    pub layout: Layout,
    /// Bytes that may wait to be written before readers are slowed; of thrice as many none is kept.
    pub queue_bytes: u64,
}

/// What lies in a cache directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct DiskDirectory {
    /// All that it takes on the disk: entries, and the attribute indexes beside them.
    pub disk_bytes: u64,
    /// Versions of objects.
    pub entries: u64,
}

/// Numbers for `s3mount cache stats`. Counters begin at zero with the mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct DiskStats {
    /// Bytes in the directory, of all mounts.
    pub disk_bytes: u64,
    pub limit_bytes: u64,
    /// Versions in the directory.
    pub entries: u64,
    pub hits: u64,
    pub misses: u64,
    /// Blocks that did not match their checksum.
    pub damaged: u64,
    pub written_bytes: u64,
    /// In memory, waiting to be written.
    pub waiting_bytes: u64,
    /// Not written: the disk was slower than the readers, too full or failed.
    pub skipped_bytes: u64,
    pub evictions: u64,
}

/// Whether a version is on disk, all of it.
#[derive(Debug)]
pub enum Whole {
    /// All of it, and verified by this process.
    File(File),
    /// Some of it, or not verified: [`DiskCache::verify`] knows more.
    Unverified,
    No,
}

/// Clean bytes on disk. Every method but [`DiskCache::write`] and [`DiskCache::stats`] waits for
/// the disk: not for an asynchronous task to call directly.
pub struct DiskCache {
    inner: Arc<Inner>,
    writer: Option<JoinHandle<()>>,
}

struct Inner {
    directory: Directory,
    limit_bytes: u64,
    layout: Layout,
    open: Mutex<LruCache<Name, Opened>>,
    ledger: Mutex<Ledger>,
    queue: Queue,
    skipped: Skipped,
    counters: Counters,
}

#[derive(Clone)]
struct Opened {
    entry: Arc<Entry>,
    touched: Instant,
}

#[derive(Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    damaged: AtomicU64,
    written_bytes: AtomicU64,
    skipped_bytes: AtomicU64,
    evictions: AtomicU64,
}

impl DiskCache {
    /// What lies in a directory; nothing is made there.
    pub fn look_into(directory: &Path) -> Result<DiskDirectory, Error> {
        Self::at(directory).map(|found| found.map_or_else(DiskDirectory::default, |found| found.contents()))
    }

    /// Removes all entries from a directory, and nothing else; what was there. Mounts that use it go
    /// on; [`DiskCache::clear`] is for them.
    pub fn clear_directory(directory: &Path) -> Result<DiskDirectory, Error> {
        let Some(found) = Self::at(directory)? else { return Ok(DiskDirectory::default()) };
        let contents = found.contents();
        found.remove_all();
        Ok(contents)
    }

    /// What a cache in this directory, or in a new one below it, could still write before less than a
    /// tenth of the file system is free.
    ///
    /// # Errors
    /// When nothing can be told of the path.
    pub fn spare_bytes_at(path: &Path) -> std::io::Result<u64> {
        directory::spare_bytes(path)
    }

    fn at(path: &Path) -> Result<Option<Directory>, Error> {
        let failed = |source| Error::Directory { path: path.to_owned(), source };
        Directory::find(path).map_err(failed)
    }

    /// Opens the directory, in a time that does not depend on what it holds.
    pub fn open(settings: DiskSettings) -> Result<Arc<Self>, Error> {
        let failed = |source| Error::Directory { path: settings.directory.clone(), source };
        let directory = Directory::open(&settings.directory).map_err(failed)?;
        let limit_bytes = match settings.limit_bytes {
            Some(bytes) => bytes,
            None => (directory.file_system_bytes().map_err(failed)? / 10).min(DEFAULT_LIMIT_BYTES),
        };
        let inner = Arc::new(Inner {
            directory,
            limit_bytes,
            layout: settings.layout,
            open: Mutex::new(LruCache::new(OPEN_ENTRIES)),
            ledger: Mutex::new(Ledger::new()),
            queue: Queue::new(settings.queue_bytes),
            skipped: Skipped::default(),
            counters: Counters::default(),
        });
        let writing = Arc::clone(&inner);
        let thread = std::thread::Builder::new().name("disk-cache".to_owned());
        let writer = thread.spawn(move || writer::run(&writing)).map_err(Error::Thread)?;
        Ok(Arc::new(Self { inner, writer: Some(writer) }))
    }

    /// The directory that was given.
    pub fn directory(&self) -> &Path {
        self.inner.directory.above()
    }

    /// The bytes of a range, when all of them are on disk and match their checksums.
    pub fn read(&self, object: &Pinned, range: &Range<u64>) -> Option<Bytes> {
        let found = self.inner.read(object, range);
        let counter = if found.is_some() { &self.inner.counters.hits } else { &self.inner.counters.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Hands over bytes of a version to be written soon. Returns at once; when the disk is behind,
    /// they are not kept.
    pub fn write(&self, object: &Pinned, offset: u64, bytes: Bytes) {
        self.hand_over(object, offset, bytes, Queue::offer);
    }

    /// The same for what is in memory too: it is written when there is nothing else to write, and
    /// nothing more of this kind has come for a moment.
    pub fn write_later(&self, object: &Pinned, offset: u64, bytes: Bytes) {
        self.hand_over(object, offset, bytes, Queue::offer_later);
    }

    fn hand_over(&self, object: &Pinned, offset: u64, bytes: Bytes, offer: fn(&Queue, Job) -> Result<(), Job>) {
        let length = bytes.len() as u64;
        let job = Job { object: object.clone(), payload: Payload::Bytes { offset, bytes }, told: None };
        if offer(&self.inner.queue, job).is_err() {
            self.inner.counters.skipped_bytes.fetch_add(length, Ordering::Relaxed);
            self.inner.skipped.note(object, offset..offset + length);
        }
    }

    /// A range that was skipped because the disk was behind, once it has nothing else to do.
    pub async fn next_skipped(&self) -> (Pinned, Range<u64>) {
        let skipped = self.inner.skipped.next().await;
        self.inner.queue.idle().await;
        skipped
    }

    /// Hands over a local file with all bytes of a version above 64 KiB, to be copied soon: what is smaller
    /// is handed over as bytes. `is_unchanged` tells
    /// after that whether it still held them.
    pub fn write_file(&self, object: &Pinned, file: File, is_unchanged: impl Fn() -> bool + Send + 'static) {
        let payload = Payload::File { file, is_unchanged: Box::new(is_unchanged) };
        if self.inner.queue.offer(Job { object: object.clone(), payload, told: None }).is_err() {
            self.inner.counters.skipped_bytes.fetch_add(object.size, Ordering::Relaxed);
        }
    }

    /// Writes bytes of a version, waiting for its turn; whether they are on disk then.
    pub async fn store(&self, object: &Pinned, offset: u64, bytes: Bytes) -> bool {
        let (told, hears) = oneshot::channel();
        self.inner.queue.settle().await;
        let job = Job { object: object.clone(), payload: Payload::Bytes { offset, bytes }, told: Some(told) };
        self.inner.queue.offer(job).is_ok() && hears.await.unwrap_or(false)
    }

    /// Memory that what waits for the disk may take.
    pub fn most_waiting_bytes(&self) -> u64 {
        self.inner.queue.most_waiting_bytes()
    }

    /// Waits until the disk has nearly caught up with what it was handed, a moment at most: it should
    /// miss nothing of a fast reader, and a slow disk should not slow a reader much.
    pub async fn keep_up(&self) {
        let _ = tokio::time::timeout(KEEP_UP_DEADLINE, self.inner.queue.settle()).await;
    }

    /// Ranges of a version that are not on disk, in steps of so many bytes: a multiple of the block.
    pub fn missing(&self, object: &Pinned, step_bytes: u64) -> Vec<Range<u64>> {
        let entry = self.inner.entry(&self.inner.identity(object), object);
        let steps = (0..object.size).step_by(step_bytes as usize);
        let steps = steps.map(|start| start..object.size.min(start + step_bytes));
        steps.filter(|step| !entry.as_ref().is_some_and(|entry| entry.holds(step))).collect()
    }

    /// The file with all bytes of a version, when all are on disk and were verified by this
    /// process: what may be given to the kernel to read. Cheap.
    pub fn whole(&self, object: &Pinned) -> Whole {
        if seal::is_small(object.size) {
            // Its bytes lie behind its map, where the kernel does not look.
            return Whole::No;
        }
        let Some(entry) = self.inner.entry(&self.inner.identity(object), object) else { return Whole::No };
        match entry.data() {
            Ok(file) if entry.is_verified_whole() => {
                // For the next process, should this one be killed. Without it that one verifies.
                let _ = entry.stamp();
                Whole::File(file)
            }
            _ => Whole::Unverified,
        }
    }

    /// The same after verifying what was not yet, as far as it is in memory and the time suffices.
    pub fn verify(&self, object: &Pinned, budget: Duration) -> Option<File> {
        if seal::is_small(object.size) {
            return None;
        }
        let identity = self.inner.identity(object);
        let entry = self.inner.entry(&identity, object)?;
        match entry.verify(VERIFY_THREADS, Instant::now() + budget) {
            Ok(true) => {
                self.inner.used(&name(&identity));
                entry.data().ok()
            }
            Ok(false) => None,
            Err(error) => {
                self.inner.discard_broken(&name(&identity), object, &error);
                None
            }
        }
    }

    /// A version has another name now, and the same bytes: its files and what waits to be written of it go by that.
    /// Whoever has the files open may go on.
    pub fn relabel(&self, from: &Pinned, to: &Pinned) {
        self.inner.queue.relabel(from, to);
        self.inner.relabel(from, to);
    }

    /// Removes one version.
    pub fn remove(&self, object: &Pinned) {
        self.inner.discard(&name(&self.inner.identity(object)));
    }

    /// Removes everything, of all mounts and buckets.
    pub fn clear(&self) {
        self.inner.open.lock().clear();
        self.inner.directory.remove_all();
        self.inner.ledger.lock().replace([]);
    }

    /// Returns when everything handed over so far is written or given up.
    pub fn flush(&self) {
        self.inner.queue.drain();
    }

    /// Numbers for the user.
    pub fn stats(&self) -> DiskStats {
        let ledger = self.inner.ledger.lock();
        let counters = &self.inner.counters;
        DiskStats {
            disk_bytes: ledger.total_bytes(),
            limit_bytes: self.inner.limit_bytes,
            entries: ledger.entries() as u64,
            hits: counters.hits.load(Ordering::Relaxed),
            misses: counters.misses.load(Ordering::Relaxed),
            damaged: counters.damaged.load(Ordering::Relaxed),
            written_bytes: counters.written_bytes.load(Ordering::Relaxed),
            waiting_bytes: self.inner.queue.waiting_bytes(),
            skipped_bytes: counters.skipped_bytes.load(Ordering::Relaxed),
            evictions: counters.evictions.load(Ordering::Relaxed),
        }
    }
}

impl Drop for DiskCache {
    fn drop(&mut self) {
        self.inner.queue.stop();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has said so already.
            let _ = writer.join();
        }
        for (_, opened) in self.inner.open.lock().iter() {
            if let Err(error) = opened.entry.stamp() {
                tracing::debug!(%error, "a cached object will be verified once more");
            }
        }
    }
}

impl std::fmt::Debug for DiskCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskCache").field("directory", &self.inner.directory).finish_non_exhaustive()
    }
}

impl Inner {
    fn read(&self, object: &Pinned, range: &Range<u64>) -> Option<Bytes> {
        let identity = self.identity(object);
        let entry = self.entry(&identity, object)?;
        match entry.read(range) {
            Ok(Found::All(bytes)) => {
                self.used(&name(&identity));
                Some(bytes)
            }
            Ok(Found::Missing) => None,
            Ok(Found::Damaged) => {
                self.note_damage(object);
                None
            }
            Err(error) => {
                self.counters.damaged.fetch_add(1, Ordering::Relaxed);
                self.discard_broken(&name(&identity), object, &error);
                None
            }
        }
    }

    /// The files of a version, if there are any.
    fn entry(&self, identity: &Identity, object: &Pinned) -> Option<Arc<Entry>> {
        let name = name(identity);
        if let Some(opened) = self.open.lock().get(&name) {
            return Some(opened.entry.clone());
        }
        match Entry::open(&self.directory.stem(&name), identity, object.size) {
            Ok(entry) => Some(self.keep_open(name, entry)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.discard_broken(&name, object, &error);
                None
            }
        }
    }

    fn keep_open(&self, name: Name, entry: Entry) -> Arc<Entry> {
        let entry = Arc::new(entry);
        let touched = Instant::now();
        if let Err(error) = entry.touch() {
            tracing::debug!(%error, "cannot note the use of a cached object");
        }
        self.open.lock().put(name, Opened { entry: entry.clone(), touched });
        entry
    }

    fn used(&self, name: &Name) {
        self.ledger.lock().touch(name);
        let mut open = self.open.lock();
        let Some(opened) = open.get_mut(name).filter(|opened| opened.touched.elapsed() > TOUCH_PERIOD) else { return };
        opened.touched = Instant::now();
        let entry = opened.entry.clone();
        drop(open);
        if let Err(error) = entry.touch() {
            tracing::debug!(%error, "cannot note the use of a cached object");
        }
    }

    fn relabel(&self, from: &Pinned, to: &Pinned) {
        let (old, new) = (self.identity(from), self.identity(to));
        let Some(entry) = self.entry(&old, from).filter(|entry| !entry.is_orphan()) else { return };
        let is_there = self.entry(&new, to).is_some();
        let (old, new_name) = (name(&old), name(&new));
        if is_there {
            self.discard(&old);
            return;
        }
        let (stem, new_stem) = (self.directory.stem(&old), self.directory.stem(&new_name));
        self.open.lock().pop(&old);
        let made = new_stem.parent().map_or(Ok(()), directory::make);
        match made.and_then(|()| entry.relabel(&stem, &new_stem, &new)) {
            Ok(()) => {
                self.ledger.lock().relabel(&old, new_name);
                self.open.lock().put(new_name, Opened { entry, touched: Instant::now() });
            }
            Err(error) => {
                tracing::debug!(%error, "a cached object is fetched again under its new name");
                self.discard(&old);
                self.discard(&new_name);
            }
        }
    }

    fn discard(&self, name: &Name) -> bool {
        self.open.lock().pop(name);
        self.ledger.lock().remove(name);
        self.directory.remove(name)
    }

    fn note_written(&self, bytes: u64) {
        self.counters.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn note_damage(&self, object: &Pinned) {
        self.counters.damaged.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(key = object.key.escape_debug().to_string(), "a cached block is damaged; it is fetched again");
    }

    fn discard_broken(&self, name: &Name, object: &Pinned, error: &io::Error) {
        if self.discard(name) {
            let key = object.key.escape_debug().to_string();
            tracing::warn!(key, %error, "a cached object is damaged; it is removed and fetched again");
        }
    }

    /// Lengths stand before what they measure, so that no two versions read the same.
    fn identity(&self, object: &Pinned) -> Identity {
        let name_of = |root: &Root| format!("{} {}", root.server, root.bucket);
        let (bucket, key) = match self.layout.root_of(&object.key) {
            Some(root) => (name_of(root), root.there(&object.key)),
            // What hooks show beside several buckets is of all of them.
            None => (self.layout.roots().iter().map(name_of).collect(), None),
        };
        let mut hash = Sha256::new();
        for part in [&bucket, key.as_deref().unwrap_or(&object.key), object.etag.as_str()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.update(object.size.to_be_bytes());
        hash.finalize().into()
    }
}

fn name(identity: &Identity) -> Name {
    *identity.first_chunk().expect("an identity is longer than a name")
}
