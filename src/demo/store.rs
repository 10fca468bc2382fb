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

/// History that a log may hold at a start, in records beyond twice those that count.
const START_SLACK_RECORDS: usize = 1_000;
/// The same while the server runs: a rewrite holds up everybody, so it has to be worth it.
const RUN_SLACK_RECORDS: usize = 200_000;

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
    log_path: PathBuf,
    /// Records that the log holds.
    records: usize,
    /// Look at the log's history again when it holds this many.
    next_look: usize,
}

impl State {
    fn open(log_path: PathBuf, bodies: &Bodies) -> io::Result<Self> {
        let mut catalog = Catalog::default();
        let mut records = 0;
        let log = Log::open(&log_path, |record| {
            records += 1;
            // What history overwrote was unlinked then; what was not, the sweep finds.
            catalog.apply(record, bodies).iter().for_each(|body| body.set_kept(true));
        })?;
        let mut state = Self { catalog, log, log_path, records, next_look: 0 };
        state.drop_history(START_SLACK_RECORDS)?;
        Ok(state)
    }

    /// Commits records: into the log first, then into the catalog.
    fn commit(&mut self, records: Vec<Record>, bodies: &Bodies) -> io::Result<Vec<Arc<Body>>> {
        self.log.append(&records)?;
        self.records += records.len();
        let released = records.into_iter().flat_map(|record| self.catalog.apply(record, bodies)).collect();
        if self.records >= self.next_look
            && let Err(error) = self.drop_history(RUN_SLACK_RECORDS)
        {
            // The old log goes on: it is long, not wrong.
            tracing::warn!(path = %self.log_path.display(), %error, "demo server: cannot rewrite the log");
        }
        Ok(released)
    }

    /// Rewrites the log when it is mostly history.
    fn drop_history(&mut self, slack_records: usize) -> io::Result<()> {
        let live = self.catalog.record_count();
        self.next_look = self.records.max(live) + RUN_SLACK_RECORDS;
        if self.records > 2 * live + slack_records {
            self.log = Log::rewrite(&self.log_path, self.catalog.records())?;
            self.records = live;
            self.next_look = live + RUN_SLACK_RECORDS;
        }
        Ok(())
    }
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
        let state = State::open(log_path.clone(), &bodies).map_err(at(&log_path))?;
        let referenced: HashSet<u64> = state.catalog.referenced_bodies().collect();
        let swept = bodies.sweep(&referenced).map_err(at(&bodies_dir))?;
        tracing::debug!(records = state.records, bodies = referenced.len(), swept, "demo server: store open");
        Ok(Self { state: RwLock::new(state), bodies, _owner: owner })
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
        let released = state.commit(records, &self.bodies).map_err(S3Error::internal_error)?;
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
