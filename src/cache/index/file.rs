//! The file of the attribute index, on `redb`; memory in its place when it cannot be used.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parking_lot::RwLock;
use redb::backends::InMemoryBackend;
use redb::{
    Database, DatabaseError, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table,
    TableDefinition,
};

use super::super::Remembered;
use super::Changes;
use super::mark::Mark;

/// The name carries the version of the records: another one starts empty.
const TABLE: TableDefinition<&str, &[u8]> = TableDefinition::new("attributes-1");
/// Pages of the file kept in memory by redb.
const PAGE_CACHE_BYTES: usize = 16 << 20;
/// A file up to this size is checked wholly when it is opened (tens of milliseconds).
const CHECKED_FILE_BYTES: u64 = 64 << 20;
/// Entries in the file, at most (some 500 MB); beyond, it starts empty again.
const MAX_ENTRIES: u64 = 2_000_000;
/// Entries at most, when there is no file.
const MAX_ENTRIES_IN_MEMORY: u64 = 100_000;

/// Attributes by key, in a file of ours alone.
#[derive(Debug)]
pub(super) struct IndexFile {
    path: PathBuf,
    store: RwLock<Store>,
}

impl IndexFile {
    /// Opens or creates the file. One that is damaged is deleted; one that is in use, or cannot be
    /// created, gives an index in memory.
    pub fn open(path: &Path) -> Self {
        Self { path: path.to_owned(), store: RwLock::new(open_store(path)) }
    }

    /// Where to note that changes are not in the file; none for an index in memory.
    pub fn mark(&self) -> Option<Mark> {
        let in_memory = self.store.read().in_memory;
        (!in_memory).then(|| Mark::beside(&self.path))
    }

    /// Forgets everything.
    pub fn clear(&self) {
        let store = self.store.read();
        let cleared = guarded(|| {
            let transaction = store.database().begin_write()?;
            transaction.delete_table(TABLE)?;
            transaction.commit()?;
            Ok(())
        });
        drop(store);
        if let Err(cause) = cleared {
            let _: Option<Remembered> = self.give_up(&cause);
        }
    }

    /// What the file has of a key.
    pub fn get(&self, key: &str) -> Option<Remembered> {
        let store = self.store.read();
        let found = guarded(|| {
            let Some(table) = store.table()? else { return Ok(None) };
            Ok(table.get(key)?.map(|value| Remembered::decode(key, value.value())))
        });
        drop(store);
        match found {
            Ok(None) => None,
            Ok(Some(Some(remembered))) => Some(remembered),
            Ok(Some(None)) => self.give_up("a record does not match its checksum"),
            Err(cause) => self.give_up(&cause),
        }
    }

    /// Some keys under a prefix, in their order, from `from` on; none if there are no more.
    pub fn some_keys(&self, prefix: &str, from: &str) -> Vec<String> {
        const SOME: usize = 5_000;
        let store = self.store.read();
        let found = guarded(|| {
            let Some(table) = store.table()? else { return Ok(Vec::new()) };
            let mut keys = Vec::new();
            for entry in table.range(from..)?.take(SOME) {
                let (key, _) = entry?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                keys.push(key.value().to_owned());
            }
            Ok(keys)
        });
        drop(store);
        found.unwrap_or_else(|cause| {
            self.give_up(&cause);
            Vec::new()
        })
    }

    /// One transaction: the changes, then the renaming of every key under a prefix.
    pub fn write(&self, changes: &Changes, tree: Option<(&str, &str)>, durability: Durability) {
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
                if let Some((from, to)) = tree {
                    rename(&mut table, from, to)?;
                }
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
    fn give_up(&self, cause: &str) -> Option<Remembered> {
        let mut store = self.store.write();
        if !store.in_memory {
            tracing::warn!(path = %self.path.display(), %cause, "the attribute index failed; it is deleted and starts empty");
            let _ = std::fs::remove_file(&self.path);
            *store = in_memory();
        }
        None
    }
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

    /// `None` if nothing was ever written.
    fn table(&self) -> Result<Option<ReadOnlyTable<&'static str, &'static [u8]>>, redb::Error> {
        match self.database().begin_read()?.open_table(TABLE) {
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            table => Ok(Some(table?)),
        }
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
