//! The embedded S3 server: a real bucket in a directory, for `s3mount demo` and for tests.
//!
//! `s3s` speaks HTTP, XML and Signature V4; everything that makes a bucket a bucket is here:
//! byte-exact keys in binary order, atomic conditions, checksums, multipart uploads, versions.
//!
//! A request takes one way through the room:
//!
//! ```text
//! server (accept) → exchange (latency, faults, log) → s3s → access (who, what) → service
//!    service → objects, copies, removals, listing, multipart, tags, buckets
//!       each → conditions, checksums, intake/outlet (bytes) → store → {journal file, bodies}
//! ```
//!
//! **Invariant**: an answer of 200 to a write means its record is in the log file, so that it
//! survives `kill -9` of the process (not a power cut: nothing is synced). **Invariant**: a body
//! never changes; overwriting a key swaps which bodies it points to, so a reader keeps the version
//! it began with. What is not built answers 501, never a success without effect.

mod access;
mod append;
mod bodies;
mod buckets;
mod catalog;
mod checksums;
mod conditions;
mod copies;
mod digests;
mod directory_buckets;
mod exchange;
mod faults;
mod headers;
mod intake;
mod link;
mod listing;
mod log;
mod multipart;
mod objects;
mod outlet;
mod record;
mod removals;
mod request_log;
mod server;
mod service;
mod sessions;
mod store;
mod tags;
mod versions;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use faults::{Fault, FaultKind, Faults};
pub use request_log::RequestRecord;
pub use server::Server;

use crate::error::Kind;

/// How to run a [`Server`].
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Where buckets live; made when missing. One server at a time owns it.
    pub data_dir: PathBuf,
    /// Address to listen on; port 0 picks a free one (see [`Server::addr`]).
    pub listen: SocketAddr,
    /// The one access key id that may sign requests.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// Buckets that exist from the start; those that are there already stay as they are.
    pub buckets: Vec<String>,
    /// Delay before the first byte of each answer.
    pub latency: Duration,
    /// Link speed of each connection in megabytes (10⁶ bytes) a second, each direction for itself;
    /// `None` = as fast as it goes.
    pub mbps_per_connection: Option<u32>,
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory or something in it cannot be used.
    #[error("demo server: cannot use {path}: {source}; choose a directory that you can write")]
    Data {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another server owns the data directory.
    #[error("demo server: {path} is in use by another demo server; stop that one or choose another directory")]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// The address cannot be bound.
    #[error("demo server: cannot listen on {addr}: {source}; choose another address or port")]
    Listen {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A bucket name breaks S3's naming rules.
    #[error("demo server: {0:?} is no bucket name: 3 to 63 of a-z, 0-9, '-' and '.'")]
    BucketName(String),
}

impl Error {
    /// The kind that names errno and exit code.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Data { .. } | Self::Listen { .. } => Kind::Local,
            Self::InUse { .. } | Self::BucketName(_) => Kind::Usage,
        }
    }
}
