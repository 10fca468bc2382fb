//! What `s3mount status` tells of a mount.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::places::Places;
use super::rooms::{Parts, Rooms};
use crate::config::{Config, Sources};
use crate::telemetry::{self, Problem};

/// A running mount, as its process sees itself. The JSON of `s3mount status --json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub bucket: String,
    /// Empty, or ending in `/`.
    pub prefix: String,
    /// Of several: what each directory in the root is, e.g. `{"logs": "s3://company/2026"}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub buckets: BTreeMap<String, String>,
    /// Of several: those that nothing can be written to, though the mount as a whole is not read-only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read_only_buckets: Vec<String>,
    /// Of several on more than one server: all of them, with commas between them; the same of regions.
    pub endpoint: String,
    pub region: String,
    pub mountpoint: PathBuf,
    pub read_only: bool,
    /// Unmounted already, and storing what is dirty.
    pub ending: bool,
    pub uptime_s: u64,
    /// S3 requests sent, by operation: `{"GetObject": 12}`.
    pub requests: BTreeMap<String, u64>,
    /// Those that were answered with an error or not at all; a missing object is no error.
    #[serde(default)]
    pub failures: BTreeMap<String, u64>,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// What was found out about the server.
    pub capabilities: Value,
    /// The memory cache's own counters.
    pub cache: Value,
    /// The same of the cache on disk, its size and limit; `null` without one.
    pub disk: Value,
    /// Files, dirty files, keys without a path: what the file system tells of itself.
    pub files: Value,
    /// `null` without hooks.
    pub hooks: Value,
    /// Where Lambda's API answers for them.
    #[serde(default)]
    pub lambda: Option<SocketAddr>,
    /// Where Prometheus is answered.
    #[serde(default)]
    pub metrics: Option<SocketAddr>,
    /// The last warnings and errors of the log, oldest first.
    pub last_errors: Vec<Problem>,
    pub log: PathBuf,
    pub state_dir: PathBuf,
}

/// A file that could not be stored at the end. Its draft is kept; the next mount resumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Relative to the mountpoint.
    pub path: String,
    pub cause: String,
}

/// Where a mount listens besides its control socket.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Addresses {
    pub(super) lambda: Option<SocketAddr>,
    pub(super) metrics: Option<SocketAddr>,
}

fn named(sources: &Sources) -> BTreeMap<String, String> {
    sources.each().filter_map(|(name, source)| Some((name?.to_owned(), source.to_string()))).collect()
}

/// What stays the same as long as a mount lives, and where to ask for the rest.
pub(super) struct Facts {
    pub(super) config: Config,
    pub(super) mountpoint: PathBuf,
    state_dir: PathBuf,
    pub(super) rooms: Arc<Rooms>,
    addresses: Addresses,
    started: Instant,
    ending: AtomicBool,
}

impl Facts {
    pub(super) fn new(
        config: &Config,
        mountpoint: &Path,
        places: &Places,
        rooms: Arc<Rooms>,
        addresses: Addresses,
    ) -> Self {
        Self {
            addresses,
            config: config.clone(),
            mountpoint: mountpoint.to_owned(),
            state_dir: places.state.clone(),
            rooms,
            started: Instant::now(),
            ending: AtomicBool::new(false),
        }
    }

    pub(super) fn set_ending(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// What is mounted where, names and values.
    pub(super) fn about(&self) -> [(&'static str, String); 4] {
        [
            ("bucket", self.config.sources.bucket_name()),
            ("prefix", self.config.sources.root_prefix().to_owned()),
            ("mountpoint", self.mountpoint.to_string_lossy().into_owned()),
            ("endpoint", self.rooms.connection.endpoint.clone()),
        ]
    }

    fn read_only_buckets(&self) -> Vec<String> {
        let fixed = self.config.each().filter(|(_, _, own)| own.read_only && !self.config.read_only);
        fixed.filter_map(|(name, ..)| Some(name?.to_owned())).collect()
    }

    pub(super) fn status(&self) -> Status {
        let connection = &self.rooms.connection;
        let by_operation = |counts: BTreeMap<&str, u64>| {
            counts.into_iter().map(|(operation, count)| (operation.to_owned(), count)).collect()
        };
        let Parts { cache, disk, files, hooks } = self.rooms.status();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            bucket: self.config.sources.bucket_name(),
            prefix: self.config.sources.root_prefix().to_owned(),
            buckets: named(&self.config.sources),
            read_only_buckets: self.read_only_buckets(),
            endpoint: connection.endpoint.clone(),
            region: connection.layout.regions(),
            mountpoint: self.mountpoint.clone(),
            read_only: self.config.read_only,
            ending: self.ending.load(Ordering::Relaxed),
            uptime_s: self.started.elapsed().as_secs(),
            requests: by_operation(connection.requests.counts()),
            failures: by_operation(connection.requests.failures()),
            bytes_received: connection.requests.bytes_received(),
            bytes_sent: connection.requests.bytes_sent(),
            capabilities: serde_json::to_value(connection.capabilities).expect("flags are JSON"),
            cache,
            disk,
            files,
            hooks,
            lambda: self.addresses.lambda,
            metrics: self.addresses.metrics,
            last_errors: telemetry::last_problems(),
            log: self.state_dir.join(super::serve::LOG_NAME),
            state_dir: self.state_dir.clone(),
        }
    }
}
