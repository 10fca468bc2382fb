//! The attribute index: what HEADs and our own PUTs told, by key, kept across mounts.
//!
//! It is a cache: whatever goes wrong with its file costs HEADs, and is told in one log line.
//! Changes are answered from memory at once and reach the file in one transaction a second.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};
use redb::backends::InMemoryBackend;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition};

use super::{Error, Remembered};

/// The name carries the version of the records: another one starts empty.
const TABLE: TableDefinition<&str, &[u8]> = TableDefinition::new("attributes-1");
/// How long a change may wait for its transaction.
const COMMIT_DELAY: Duration = Duration::from_secs(1);
/// So many changes waiting are written without waiting for more.
const MAX_PENDING: usize = 10_000;
/// Pages of the file kept in memory by redb.
const PAGE_CACHE_BYTES: usize = 16 << 20;
/// A file up to this size is checked wholly when it is opened (tens of milliseconds).
const CHECKED_FILE_BYTES: u64 = 64 << 20;
/// Entries in the file, at most (some 500 MB); beyond, it starts empty again.
const MAX_ENTRIES: u64 = 2_000_000;
/// Entries at most, when there is no file.
const MAX_ENTRIES_IN_MEMORY: u64 = 100_000;

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
    path: PathBuf,
    store: RwLock<Store>,
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Held by whoever writes a transaction; taken before `waiting`.
    commit: Mutex<()>,
}

#[derive(Debug)]
struct Store {
    /// `None` only while this is dropped.
    database: Option<Database>,
    /// Without a file: another mount has it, or it failed.
    in_memory: bool,
}

impl Store {
    fn database(&self) -> &Database {
        self.database.as_ref().expect("it is taken only when this is dropped")
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Closing a damaged file panics like reading it.
        let database = self.database.take();
        let _ = guarded(|| {
            drop(database);
            Ok(())
        });
    }
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
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            store: RwLock::new(open_store(path)),
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
        self.shared.read(key)
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
    /// `to` instead. Takes a transaction, without waiting for the disk.
    pub fn rename_tree(&self, from: &str, to: &str) {
        let _commit = self.shared.commit.lock();
        let mut waiting = self.shared.waiting.lock();
        let changes = std::mem::take(&mut waiting.pending);
        self.shared.store(&changes, redb::Durability::None, |table| rename(table, from, to));
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
        self.store(&changes, redb::Durability::Immediate, |_| Ok(()));
        self.waiting.lock().committing = Arc::default();
    }

    fn read(&self, key: &str) -> Option<Remembered> {
        let store = self.store.read();
        let found = guarded(|| {
            let table = match store.database().begin_read()?.open_table(TABLE) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
                table => table?,
            };
            Ok(table.get(key)?.map(|value| Remembered::decode(key, value.value())))
        });
        drop(store);
        match found {
            Ok(None) => None,
            Ok(Some(Some(remembered))) => Some(remembered),
            Ok(Some(None)) => {
                tracing::warn!(path = %self.path.display(), "a record of the attribute index is damaged; dropped it");
                self.change(key, None);
                None
            }
            Err(cause) => {
                self.give_up(&cause);
                None
            }
        }
    }

    /// One transaction: the changes, then what else there is to do.
    fn store(
        &self,
        changes: &Changes,
        durability: redb::Durability,
        also: impl FnOnce(&mut Table<'_, &'static str, &'static [u8]>) -> Result<(), redb::Error>,
    ) {
        let store = self.store.read();
        let max_entries = if store.in_memory { MAX_ENTRIES_IN_MEMORY } else { MAX_ENTRIES };
        let written = guarded(|| {
            let mut transaction = store.database().begin_write()?;
            transaction.set_durability(durability)?;
            if transaction.open_table(TABLE)?.len()? > max_entries {
                transaction.delete_table(TABLE)?;
            }
            {
                let mut table = transaction.open_table(TABLE)?;
                apply(&mut table, changes)?;
                also(&mut table)?;
            }
            transaction.commit()?;
            Ok(())
        });
        drop(store);
        if let Err(cause) = written {
            self.give_up(&cause);
        }
    }

    /// After a failure the file may hold what is no longer true: it is deleted, and memory serves
    /// until the next mount.
    fn give_up(&self, cause: &str) {
        let mut store = self.store.write();
        if store.in_memory {
            return;
        }
        tracing::warn!(path = %self.path.display(), %cause, "the attribute index failed; it is deleted and starts empty");
        let _ = std::fs::remove_file(&self.path);
        *store = in_memory();
    }
}

fn apply(table: &mut Table<'_, &'static str, &'static [u8]>, changes: &Changes) -> Result<(), redb::Error> {
    for (key, change) in changes {
        match change {
            Some(remembered) => drop(table.insert(key.as_str(), remembered.encode(key).as_slice())?),
            None => drop(table.remove(key.as_str())?),
        }
    }
    Ok(())
}

/// Records carry a checksum over their key: they are written anew.
fn rename(table: &mut Table<'_, &'static str, &'static [u8]>, from: &str, to: &str) -> Result<(), redb::Error> {
    let mut moved = Vec::new();
    for entry in table.range(from..)? {
        let (key, value) = entry?;
        let Some(rest) = key.value().strip_prefix(from) else { break };
        moved.push((rest.to_owned(), Remembered::decode(key.value(), value.value())));
    }
    for (rest, _) in &moved {
        table.remove(format!("{from}{rest}").as_str())?;
    }
    for (rest, remembered) in moved {
        let key = format!("{to}{rest}");
        if let Some(remembered) = remembered {
            table.insert(key.as_str(), remembered.encode(&key).as_slice())?;
        }
    }
    Ok(())
}

/// redb answers a damaged file with an error where it notices, and may panic where it does not.
fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("its pages make no sense".to_owned()),
    }
}

fn open_store(path: &Path) -> Store {
    match open_database(path) {
        Ok(database) => return Store { database: Some(database), in_memory: false },
        Err(Unopened::Locked) => {
            tracing::warn!(path = %path.display(), "the attribute index is in use by another mount; this one keeps its own in memory");
            return in_memory();
        }
        Err(Unopened::Damaged(cause)) => {
            tracing::warn!(path = %path.display(), %cause, "the attribute index is damaged; it is deleted and starts empty");
        }
    }
    let _ = std::fs::remove_file(path);
    match open_database(path) {
        Ok(database) => Store { database: Some(database), in_memory: false },
        Err(_) => in_memory(),
    }
}

enum Unopened {
    Locked,
    Damaged(String),
}

fn open_database(path: &Path) -> Result<Database, Unopened> {
    let small = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() <= CHECKED_FILE_BYTES);
    let open =
        || Ok(Database::builder().set_cache_size(PAGE_CACHE_BYTES).set_check_integrity_on_open(small).create(path));
    match guarded(open) {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch)) => Err(Unopened::Locked),
        Ok(Err(error)) => Err(Unopened::Damaged(error.to_string())),
        Err(cause) => Err(Unopened::Damaged(cause)),
    }
}

fn in_memory() -> Store {
    let database = Database::builder()
        .set_cache_size(PAGE_CACHE_BYTES)
        .create_with_backend(InMemoryBackend::new())
        .expect("a database in memory has nothing to fail on");
    Store { database: Some(database), in_memory: true }
}

#[cfg(test)]
mod tests;
