//! Opening the file, and leaving it in order.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::error::{io_kind, kind};
use super::notes::Notes;
use super::store::Store;
use super::writer::Writer;
use super::{Error, Journal, Result};
use crate::error::Kind;

/// Name of the file in the state directory.
pub const FILE_NAME: &str = "journal.redb";
/// Memory for pages of the file; its default of 1 GiB is more than the whole mount may use.
const PAGE_CACHE_BYTES: usize = 8 << 20;

impl Journal {
    /// Opens the journal in `dir`, or makes one. A directory that is made is for its owner alone
    /// (0700), and so is the file (0600). After a crash the file is checked and repaired.
    ///
    /// # Errors
    /// [`Error::InUse`] when another process has it open; [`Error::Open`] or [`Error::Corrupt`]
    /// when it can't be read.
    pub fn open(dir: &Path) -> Result<Arc<Self>> {
        let path = dir.join(FILE_NAME);
        prepare(dir, &path).map_err(|error| Error::Open {
            path: path.clone(),
            kind: io_kind(&error),
            cause: error.to_string(),
        })?;
        let store = Arc::new(Store::new(open_database(&path)?)?);
        let (notify, changes) = watch::channel(0);
        let next_intent = AtomicU64::new(store.intents()?.last().map_or(1, |(id, _)| id.0 + 1));
        let notes = Notes::open(dir).map_err(|error| Error::Open {
            path: dir.join(super::notes::FILE_NAME),
            kind: io_kind(&error),
            cause: error.to_string(),
        })?;
        let writer = Writer::start(Arc::clone(&store), notify).map_err(|error| Error::Open {
            path,
            kind: Kind::Local,
            cause: format!("no thread for it: {error}"),
        })?;
        Ok(Arc::new(Self {
            store: RwLock::new(Some(store)),
            notes,
            writer: Mutex::new(Some(writer)),
            gathering: Arc::default(),
            next_intent,
            leases: super::queue::Leases::default(),
            changes,
        }))
    }
}

/// The directory and an empty file, closed to others before anything is in it. A directory that is
/// there already keeps its permissions: it may be `/tmp`.
fn prepare(dir: &Path, path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))
}

/// redb may panic on a damaged file; to the user that is the same as an error about it.
fn open_database(path: &Path) -> Result<redb::Database> {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        redb::Builder::new().set_cache_size(PAGE_CACHE_BYTES).set_check_integrity_on_open(true).create(path)
    }));
    match opened {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(redb::DatabaseError::DatabaseAlreadyOpen)) => Err(Error::InUse { path: path.to_owned() }),
        Ok(Err(error)) => {
            let error = redb::Error::from(error);
            Err(Error::Open { path: path.to_owned(), kind: kind(&error), cause: error.to_string() })
        }
        Err(_panic) => Err(Error::corrupt(path.display().to_string(), "its structure makes no sense")),
    }
}
