//! The store: the catalog, its log and the bodies, changed together or not at all.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};
use parking_lot::RwLock;
use s3s::{S3Error, S3Result};

use super::Error;
use super::bodies::{Bodies, Body};
use super::catalog::Catalog;
use super::log::Log;
use super::record::Record;

/// A log with more than this many records beyond those that count is rewritten at start.
const SLACK_RECORDS: usize = 1_000;

/// Everything of a data directory.
#[derive(Debug)]
pub(super) struct Store {
    state: RwLock<State>,
    bodies: Bodies,
    /// Held as long as the store lives: two servers on one log would tear it.
    _owner: Flock<File>,
}

#[derive(Debug)]
struct State {
    catalog: Catalog,
    log: Log,
}

impl Store {
    /// Opens a data directory, replays its log and sweeps what a crash left behind.
    ///
    /// # Errors
    /// [`Error::Data`], [`Error::InUse`].
    pub fn open(data_dir: &Path) -> Result<Self, Error> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| Error::Data { path, source }
        };
        fs::create_dir_all(data_dir).map_err(at(data_dir))?;
        let owner = own(data_dir)?;
        let bodies_dir = data_dir.join("bodies");
        let bodies = Bodies::open(bodies_dir.clone()).map_err(at(&bodies_dir))?;
        let log_path = data_dir.join("log");
        let (catalog, log) = replay(&log_path, &bodies).map_err(at(&log_path))?;
        let referenced: HashSet<u64> = catalog.referenced_bodies().collect();
        let swept = bodies.sweep(&referenced).map_err(at(&bodies_dir))?;
        tracing::debug!(buckets = catalog.buckets.len(), bodies = referenced.len(), swept, "demo server: store open");
        Ok(Self { state: RwLock::new(State { catalog, log }), bodies, _owner: owner })
    }

    /// Looks something up. The closure sees one moment of the whole store.
    pub fn read<R>(&self, look: impl FnOnce(&Catalog) -> R) -> R {
        look(&self.state.read().catalog)
    }

    /// Decides and commits as one step: nothing else happens between what `decide` sees and its
    /// records becoming true. On an error of either, nothing changed.
    pub fn change<R>(&self, decide: impl FnOnce(&Catalog) -> S3Result<(Vec<Record>, R)>) -> S3Result<R> {
        let mut state = self.state.write();
        let (records, result) = decide(&state.catalog)?;
        state.log.append(&records).map_err(S3Error::internal_error)?;
        let mut released = Vec::new();
        for record in records {
            released.append(&mut state.catalog.apply(record, &self.bodies));
        }
        drop(state);
        drop(released);
        Ok(result)
    }

    /// A new loose body (see [`super::bodies`]).
    pub fn create_body(&self) -> Arc<Body> {
        self.bodies.create()
    }
}

fn own(data_dir: &Path) -> Result<Flock<File>, Error> {
    let path: PathBuf = data_dir.join("lock");
    let file = File::create(&path).map_err(|source| Error::Data { path: path.clone(), source })?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(Error::InUse { path: data_dir.to_owned() }),
        Err((_, errno)) => Err(Error::Data { path, source: errno.into() }),
    }
}

fn replay(path: &Path, bodies: &Bodies) -> io::Result<(Catalog, Log)> {
    let mut catalog = Catalog::default();
    let mut records = 0;
    let log = Log::open(path, |record| {
        records += 1;
        // What history overwrote was unlinked then; what was not, the sweep finds.
        catalog.apply(record, bodies).iter().for_each(|body| body.set_kept(true));
    })?;
    if records <= 2 * catalog.record_count() + SLACK_RECORDS {
        return Ok((catalog, log));
    }
    let log = Log::rewrite(path, catalog.records())?;
    Ok((catalog, log))
}
