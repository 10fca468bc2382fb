//! Clean bytes of objects, and what is remembered of their attributes.
//!
//! - [`BlockCache`]: bytes named by (key, `ETag`, offset), in memory, within one budget. Whatever is
//!   missing comes in ranged GETs pinned to that `ETag`; concurrent readers share them.
//! - [`DiskCache`]: the same on the local disk, kept across mounts; checksummed, written behind.
//! - [`Warming`]: fills it before anybody reads.
//! - [`ReadAhead`]: one per file handle; sees sequential use and fetches before it is asked.
//! - [`Prefetch`]: whole objects that will be asked for, if a guess is right.
//! - [`AttributeIndex`]: attributes by key, kept across mounts: a HEAD is paid once.
//!
//! **Invariant**: everything here may vanish at any time, and only speed changes.

mod ahead;
mod blocks;
mod boot;
mod budget;
mod disk;
mod extents;
mod flight;
mod index;
mod modified;
mod pace;
mod pool;
mod prefetch;
mod record;
mod warm;

use std::sync::Arc;
use std::time::Instant;

pub use ahead::ReadAhead;
pub use blocks::BlockCache;
pub use disk::{DiskCache, DiskDirectory, DiskSettings, DiskStats, Whole};
pub use index::AttributeIndex;
pub use modified::Modified;
pub use prefetch::Prefetch;
pub use record::Remembered;
pub use warm::Warming;

use crate::bucket::{ETag, ObjectInfo};
use crate::error::Kind;

/// The block granule in bytes: reads that are not random fetch whole blocks, aligned to this.
pub const BLOCK_BYTES: u64 = 1 << 20;

/// One version of one object: its bytes never change.
#[derive(Clone, Debug)]
pub struct Pinned {
    pub key: Arc<str>,
    pub etag: ETag,
    /// Size of this version in bytes.
    pub size: u64,
}

/// What a GET told of a version besides its bytes: as much as a HEAD would have.
#[derive(Clone, Debug)]
pub struct Headers {
    /// When it was asked.
    pub asked: Instant,
    pub info: Arc<ObjectInfo>,
}

/// What the app decides about the [`BlockCache`].
#[derive(Clone, Copy, Debug)]
pub struct CacheSettings {
    /// Bytes held plus bytes being fetched, at most. At least 4 MiB are taken.
    pub memory_bytes: u64,
    /// GETs in flight, at most; a quarter of them is kept from read-ahead.
    pub max_parallel_gets: usize,
}

/// Numbers for `s3mount status`. Counters begin at zero with the mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct CacheStats {
    /// Bytes held now.
    pub memory_bytes: u64,
    /// Bytes of GETs under way now.
    pub in_flight_bytes: u64,
    /// The budget for both.
    pub limit_bytes: u64,
    /// Reads answered from memory.
    pub hits: u64,
    /// Reads that had to wait for a GET.
    pub misses: u64,
    /// Extents dropped to stay within the budget.
    pub evictions: u64,
    /// GETs sent.
    pub gets: u64,
    /// Bytes that GETs brought.
    pub fetched_bytes: u64,
    /// Bytes asked for by read-ahead; part of `fetched_bytes` once they are there.
    pub prefetched_bytes: u64,
}

/// A failure of the attribute index. A damaged or locked file is none: the index then starts empty.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot use {path} for the cache: {source}")]
    Directory { path: std::path::PathBuf, source: std::io::Error },
    #[error("cannot start the thread of the attribute index: {0}")]
    Thread(std::io::Error),
}

impl Error {
    /// The cause, for errno and exit code.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Directory { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => Kind::NoSpace,
            Self::Directory { .. } | Self::Thread(_) => Kind::Local,
        }
    }
}
