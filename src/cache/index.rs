//! The attribute index: what HEADs and our own PUTs told, by key, kept across mounts.
//!
//! It is a cache: whatever goes wrong with its file costs HEADs, and is told in one log line.
//! Changes are answered from memory at once and reach the file in one transaction a second.

mod file;
mod mark;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use redb::Durability;

use self::file::IndexFile;
use self::mark::{Mark, Unwritten};
use super::{Error, Modified, Remembered};

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
    /// Names the keys of both on the disk; none for an index in memory.
    mark: Option<Mark>,
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
        let mark = file.mark();
        if let Some(mark) = &mark {
            forget_unwritten(&file, mark);
        }
        let shared = Arc::new(Shared {
            file,
            waiting: Mutex::new(Waiting { mark, ..Waiting::default() }),
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
        let changes = waiting.begin_commit();
        self.shared.file.write(&changes, Some((from, to)), Durability::Immediate);
        waiting.end_commit();
    }

    /// Of every version whose key begins with `prefix`, S3 has to say again whether it is still the one of which
    /// the attributes are remembered; of what is learnt meanwhile it may be asked in vain.
    pub fn doubt_tree(&self, prefix: &str) {
        self.flush();
        let mut from = prefix.to_owned();
        loop {
            // In pieces: who wants to know something else is not to wait for all of a large index.
            let keys = self.shared.file.some_keys(prefix, &from);
            let Some(last) = keys.last() else { return };
            from = format!("{last}\0");
            for key in &keys {
                self.doubt(key);
            }
            self.flush();
        }
    }

    /// The same of one key.
    pub fn doubt(&self, key: &str) {
        if let Some(remembered) = self.get(key).filter(|remembered| remembered.etag.is_some()) {
            self.put(key, Remembered { modified: Modified::Unknown, ..remembered });
        }
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
        if waiting.pending.insert(key.to_owned(), change).is_none()
            && let Some(mark) = &mut waiting.mark
        {
            mark.add(key);
        }
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
        let changes = self.waiting.lock().begin_commit();
        self.file.write(&changes, None, Durability::Immediate);
        self.waiting.lock().end_commit();
    }
}

impl Waiting {
    fn begin_commit(&mut self) -> Arc<Changes> {
        self.committing = Arc::new(std::mem::take(&mut self.pending));
        if let Some(mark) = &mut self.mark {
            mark.begin_commit();
        }
        self.committing.clone()
    }

    fn end_commit(&mut self) {
        self.committing = Arc::default();
        if let Some(mark) = &self.mark {
            mark.end_commit();
        }
    }
}

/// After a crash: of the keys whose changes did not reach the file, it remembers nothing.
fn forget_unwritten(file: &IndexFile, mark: &Mark) {
    match mark.found() {
        Unwritten::Nothing => return,
        Unwritten::Keys(keys) => {
            tracing::info!(
                keys = keys.len(),
                "the attribute index missed its last changes; it forgets the keys they were of"
            );
            let changes = keys.into_iter().map(|key| (key, None)).collect();
            file.write(&changes, None, Durability::Immediate);
        }
        Unwritten::Anything => {
            tracing::warn!("the attribute index missed its last changes, and does not know which; it starts empty");
            file.clear();
        }
    }
    mark.remove();
}

#[cfg(test)]
mod tests;
