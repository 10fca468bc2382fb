//! What `s3mount status` tells of a mount.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::telemetry::Problem;

/// A running mount, as its process sees itself. The JSON of `s3mount status --json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub bucket: String,
    /// Empty, or ending in `/`.
    pub prefix: String,
    pub endpoint: String,
    pub region: String,
    pub mountpoint: PathBuf,
    pub read_only: bool,
    pub uptime_s: u64,
    /// S3 requests sent, by operation: `{"GetObject": 12}`.
    pub requests: BTreeMap<String, u64>,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// The memory cache's own counters.
    pub cache: Value,
    /// Files, dirty files, keys without a path: what the file system tells of itself.
    pub files: Value,
    /// `null` without hooks.
    pub hooks: Value,
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
