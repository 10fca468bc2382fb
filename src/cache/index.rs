//! The attribute index: what HEADs and our own PUTs told, by key, kept across mounts.
//!
//! It is a cache: whatever goes wrong with its file costs HEADs, and is told in one log line.
//! Changes are answered from memory at once and reach the file in one transaction a second.

mod file;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use redb::Durability;

use self::file::IndexFile;
use super::{Error, Remembered};

/// How long a change may wait for its transaction.
const COMMIT_DELAY: Duration = Duration::from_secs(1);
/// So many changes waiting are written without waiting for more.
const MAX_PENDING: usize = 10_000;

/// A change by key: what is remembered from now on, or nothing.
type Changes = HashMap<String, Option<Remembered>>;

/// Attributes by key, kept across mounts.
#[derive(Debug)]
pub struct AttributeIndex {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    file: IndexFile,
    /// Lies beside the file while changes are not in it. If it lies there at the start, a crash came
    /// in between, and what the file says may be older than what the bucket was told: a chmod
    /// changes no tag, so nothing else would tell.
    unwritten: Option<PathBuf>,
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Held by whoever writes a transaction; taken before `waiting`.
    commit: Mutex<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Not in a transaction yet.
    pending: Changes,
    /// In the transaction that is being written.
    committing: Arc<Changes>,
    stopped: bool,
}

impl AttributeIndex {
    /// Opens or creates the index file. One that is damaged is deleted; one that another mount has
    /// open is left to it, and this index then lives in memory.
    pub fn open(path: &Path) -> Result<Arc<Self>, Error> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)
                .map_err(|source| Error::Directory { path: directory.to_owned(), source })?;
        }
        let file = IndexFile::open(path);
        let unwritten = file.unwritten_mark();
        if unwritten.as_ref().is_some_and(|mark| mark.exists()) {
            tracing::warn!(path = %path.display(), "the attribute index missed its last changes; it starts empty");
            file.clear();
        }
        let shared = Arc::new(Shared {
            file,
            unwritten,
            waiting: Mutex::default(),
            changed: Condvar::new(),
            commit: Mutex::new(()),
        });
        let writing = shared.clone();
        let thread = std::thread::Builder::new().name("attributes".to_owned()).spawn(move || writing.write_behind());
        let writer = Mutex::new(Some(thread.map_err(Error::Thread)?));
        Ok(Arc::new(Self { shared, writer }))
    }

    /// What is remembered of a key.
    pub fn get(&self, key: &str) -> Option<Remembered> {
        let waiting = self.shared.waiting.lock();
        if let Some(change) = waiting.pending.get(key).or_else(|| waiting.committing.get(key)) {
            return change.clone();
        }
        drop(waiting);
        self.shared.file.get(key)
    }

    /// Remembers; on disk a second later.
    pub fn put(&self, key: &str, remembered: Remembered) {
        self.shared.change(key, Some(remembered));
    }

    /// Remembers nothing of a key any more.
    pub fn remove(&self, key: &str) {
        self.shared.change(key, None);
    }

    /// Moves what is remembered of every key that begins with `from` (`"d/"`) to the same key with
    /// `to` instead. Takes a transaction on the disk.
    pub fn rename_tree(&self, from: &str, to: &str) {
        let _commit = self.shared.commit.lock();
        let mut waiting = self.shared.waiting.lock();
        let changes = std::mem::take(&mut waiting.pending);
        self.shared.file.write(&changes, Some((from, to)), Durability::Immediate);
        self.shared.unmark(&waiting);
    }

    /// Returns when all changes so far are on the disk.
    pub fn flush(&self) {
        self.shared.commit_pending();
    }
}

impl Drop for AttributeIndex {
    fn drop(&mut self) {
        self.shared.waiting.lock().stopped = true;
        self.shared.changed.notify_all();
        if let Some(writer) = self.writer.lock().take() {
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn change(&self, key: &str, change: Option<Remembered>) {
        let mut waiting = self.waiting.lock();
        if waiting.pending.is_empty()
            && let Some(mark) = &self.unwritten
        {
            // Without the mark a crash would leave old attributes; with nothing but it, only HEADs.
            let _ = std::fs::File::create(mark);
        }
        waiting.pending.insert(key.to_owned(), change);
        if waiting.pending.len() == 1 || waiting.pending.len() == MAX_PENDING {
            self.changed.notify_all();
        }
    }

    /// The thread: gathers changes for a second, then writes them.
    fn write_behind(&self) {
        loop {
            let mut waiting = self.waiting.lock();
            self.changed.wait_while(&mut waiting, |waiting| waiting.pending.is_empty() && !waiting.stopped);
            let gather = |waiting: &mut Waiting| waiting.pending.len() < MAX_PENDING && !waiting.stopped;
            self.changed.wait_while_for(&mut waiting, gather, COMMIT_DELAY);
            let stopped = waiting.stopped;
            drop(waiting);
            self.commit_pending();
            if stopped {
                return;
            }
        }
    }

    fn commit_pending(&self) {
        let _commit = self.commit.lock();
        let changes = {
            let mut waiting = self.waiting.lock();
            waiting.committing = Arc::new(std::mem::take(&mut waiting.pending));
            waiting.committing.clone()
        };
        self.file.write(&changes, None, Durability::Immediate);
        let mut waiting = self.waiting.lock();
        waiting.committing = Arc::default();
        self.unmark(&waiting);
    }

    /// Everything is in the file.
    fn unmark(&self, waiting: &Waiting) {
        if waiting.pending.is_empty()
            && let Some(mark) = &self.unwritten
        {
            let _ = std::fs::remove_file(mark);
        }
    }
}

#[cfg(test)]
mod tests;
