//! The block cache: reads through memory, shared GETs pinned to one version.

mod fetch;
mod whole;

use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::ahead::Stream;
use super::disk::DiskCache;
use super::extents::{Extents, Piece};
use super::pace::Pace;
use super::pool::Pool;
use super::{BLOCK_BYTES, CacheSettings, CacheStats, Headers, Pinned, ReadAhead};
use crate::bucket::upload::{Loan, PartMemory};
use crate::bucket::{Bucket, Result};

/// Least budget that is taken: room for a few blocks, or reads would wait for each other.
const MIN_MEMORY_BYTES: u64 = 4 << 20;
/// A read longer than this is made of several, this many bytes each.
const STEP_BYTES: u64 = 2 * BLOCK_BYTES;
/// So many steps of a long read are under way at once.
const PARALLEL_STEPS: usize = 16;
/// What is lent is counted in these.
const LOAN_UNIT_BYTES: u64 = 1 << 10;
/// A window is cut into so many parts: one is read while the others come, and each GET costs the
/// time of half a mebibyte.
const WINDOW_PARTS: RangeInclusive<u64> = 4..=32;
/// Largest buffer that `insert` keeps as it is; larger ones are copied into pieces of this size,
/// since an extent is evicted as a whole.
const MAX_EXTENT_BYTES: u64 = BLOCK_BYTES;

/// Clean bytes in memory, by version and offset, within a budget.
pub struct BlockCache {
    myself: Weak<Self>,
    bucket: Arc<dyn Bucket>,
    disk: Option<Arc<DiskCache>>,
    extents: Mutex<Extents>,
    gets: Arc<Semaphore>,
    /// GETs that read-ahead must leave to readers.
    spare_gets: usize,
    /// Told whenever there may be room.
    room: Notify,
    /// Held by who waits for room.
    turn: tokio::sync::Mutex<()>,
    /// The part of the budget that may be lent, in units of [`LOAN_UNIT_BYTES`].
    loans: Arc<Semaphore>,
    pool: Arc<Pool>,
    pace: Pace,
    /// GETs of read-ahead under way.
    ahead_gets: AtomicUsize,
    pub(super) runtime: OnceLock<Handle>,
    streams: AtomicI64,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    gets: AtomicU64,
    fetched_bytes: AtomicU64,
    prefetched_bytes: AtomicU64,
}

impl BlockCache {
    /// An empty cache in front of a bucket.
    pub fn new(bucket: Arc<dyn Bucket>, settings: CacheSettings) -> Arc<Self> {
        Self::build(bucket, settings, None)
    }

    /// A cache in memory in front of one on disk, in front of a bucket.
    pub fn with_disk(bucket: Arc<dyn Bucket>, settings: CacheSettings, disk: Arc<DiskCache>) -> Arc<Self> {
        Self::build(bucket, settings, Some(disk))
    }

    fn build(bucket: Arc<dyn Bucket>, settings: CacheSettings, disk: Option<Arc<DiskCache>>) -> Arc<Self> {
        let gets = settings.max_parallel_gets.max(1);
        let spare_gets = gets / 4;
        let limit_bytes = settings.memory_bytes.max(MIN_MEMORY_BYTES);
        let loans = (limit_bytes / 2 / LOAN_UNIT_BYTES) as usize;
        Arc::new_cyclic(|myself| Self {
            myself: myself.clone(),
            bucket,
            disk,
            extents: Mutex::new(Extents::new(limit_bytes)),
            gets: Arc::new(Semaphore::new(gets)),
            spare_gets,
            room: Notify::new(),
            turn: tokio::sync::Mutex::new(()),
            loans: Arc::new(Semaphore::new(loans)),
            pool: Arc::default(),
            pace: Pace::new(gets - spare_gets),
            ahead_gets: AtomicUsize::new(0),
            runtime: OnceLock::new(),
            streams: AtomicI64::new(0),
            counters: Counters::default(),
        })
    }

    /// Bytes of the range, cut at the object's size, if all of them are in memory. Does not wait;
    /// may be called outside of the runtime.
    pub fn try_read(&self, object: &Pinned, range: Range<u64>) -> Option<Bytes> {
        let range = cut(range, object.size);
        if range.is_empty() {
            return Some(Bytes::new());
        }
        let hit = self.extents.lock().hit(object, &range)?;
        self.counters.hits.fetch_add(1, Ordering::Relaxed);
        if let (Some(stream), Some(myself)) = (hit.stream, self.myself.upgrade()) {
            stream.note(object, &range, &myself, true);
            stream.advance(&myself);
        }
        if hit.rest.is_empty() {
            return Some(hit.first);
        }
        let mut bytes = BytesMut::with_capacity((range.end - range.start) as usize);
        bytes.extend_from_slice(&hit.first);
        hit.rest.iter().for_each(|piece| bytes.extend_from_slice(piece));
        Some(bytes.freeze())
    }

    /// Bytes of the range, cut at the object's size: exactly those or an error, never fewer. What
    /// is missing is fetched by GETs that other readers of it share.
    ///
    /// # Errors
    /// [`crate::error::Kind::Changed`] when the bucket no longer holds this version, `Kind::Deadline` after
    /// 60 s, else what the bucket says. The next read tries again.
    pub async fn read(self: &Arc<Self>, object: &Pinned, range: Range<u64>, ahead: &ReadAhead) -> Result<Bytes> {
        let range = cut(range, object.size);
        if range.end - range.start <= STEP_BYTES {
            return self.read_step(object, range, ahead).await;
        }
        let starts = (range.start..range.end).step_by(STEP_BYTES as usize);
        let steps = starts.map(|start| self.read_step(object, start..range.end.min(start + STEP_BYTES), ahead));
        let whole = BytesMut::with_capacity((range.end - range.start) as usize);
        let append = |mut whole: BytesMut, step: Bytes| async move {
            whole.extend_from_slice(&step);
            Ok(whole)
        };
        let bytes = futures::stream::iter(steps).buffered(PARALLEL_STEPS).try_fold(whole, append).await?;
        Ok(bytes.freeze())
    }

    async fn read_step(self: &Arc<Self>, object: &Pinned, range: Range<u64>, ahead: &ReadAhead) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.runtime.get_or_init(Handle::current);
        let stream = ahead.stream();
        let wanted = stream.note(object, &range, self, false);
        let pieces = self.pieces(object, &range, &wanted, stream);
        stream.advance(self);
        let here = pieces.iter().all(|piece| matches!(piece, Piece::Here(_)));
        let counter = if here { &self.counters.hits } else { &self.counters.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        gather(object, pieces, (range.end - range.start) as usize).await
    }

    /// Holds bytes known to be this version's from `offset` on, without a request. What is beyond
    /// the object's size is not kept, nor what is beyond a quarter of the budget in memory. The
    /// buffer should be the bytes' own: a small slice of a large one keeps all of it in memory.
    pub fn insert(&self, object: &Pinned, offset: u64, mut bytes: Bytes) {
        let range = cut(offset..offset.saturating_add(bytes.len() as u64), object.size);
        bytes.truncate((range.end - range.start) as usize);
        if let Some(disk) = &self.disk {
            disk.write_later(object, offset, bytes.clone());
        }
        let most = self.extents.lock().budget().limit_bytes() / 4;
        bytes.truncate(most as usize);
        if bytes.len() as u64 <= MAX_EXTENT_BYTES {
            self.extents.lock().insert(object, offset, &bytes);
            return;
        }
        let mut start = offset;
        for piece in bytes.chunks(MAX_EXTENT_BYTES as usize) {
            let copy = Bytes::copy_from_slice(piece);
            self.extents.lock().insert(object, start, &copy);
            start += piece.len() as u64;
        }
    }

    /// When the bucket was last asked for bytes of this version and had them: every GET is pinned, so
    /// it proves the version as well as a HEAD does. `None` where none of it is in memory, or what is
    /// there came otherwise.
    pub fn confirmed(&self, object: &Pinned) -> Option<Instant> {
        self.extents.lock().confirmed(object)
    }

    /// What the last GET of this version told besides bytes. `None` where none of these are in memory, they came
    /// otherwise, or it was much.
    pub fn headers(&self, object: &Pinned) -> Option<Headers> {
        self.extents.lock().headers(object)
    }

    /// Drops all versions of a key.
    pub fn forget(&self, key: &str) {
        self.extents.lock().forget(key);
        self.room.notify_waiters();
    }

    /// Versions, each with the name that it has now: the bytes are the same, and what is held of them, in memory
    /// and on disk, is held under the new name from now on. Nothing is read for it.
    pub async fn carry(&self, moves: Vec<(Pinned, Pinned)>) {
        for (from, to) in &moves {
            self.extents.lock().relabel(from, to);
        }
        let Some(disk) = self.disk.clone().filter(|_| !moves.is_empty()) else { return };
        let moving = tokio::task::spawn_blocking(move || moves.iter().for_each(|(from, to)| disk.relabel(from, to)));
        // Who renames does not wait for a disk that hangs. A panic there was logged.
        let _ = tokio::time::timeout(fetch::DISK_PATIENCE, moving).await;
    }

    /// Drops all versions of a key from memory, and this one from the disk.
    pub async fn invalidate(&self, object: &Pinned) {
        self.forget(&object.key);
        let Some(disk) = self.disk.clone() else { return };
        let object = object.clone();
        // A panic there was logged, and what could not be removed is verified when it is read.
        let _ = tokio::task::spawn_blocking(move || disk.remove(&object)).await;
    }

    /// Numbers for the user.
    pub fn stats(&self) -> CacheStats {
        let extents = self.extents.lock();
        let counters = &self.counters;
        CacheStats {
            memory_bytes: extents.budget().held_bytes(),
            in_flight_bytes: extents.budget().reserved_bytes(),
            limit_bytes: extents.budget().limit_bytes(),
            hits: counters.hits.load(Ordering::Relaxed),
            misses: counters.misses.load(Ordering::Relaxed),
            evictions: extents.evictions(),
            gets: counters.gets.load(Ordering::Relaxed),
            fetched_bytes: counters.fetched_bytes.load(Ordering::Relaxed),
            prefetched_bytes: counters.prefetched_bytes.load(Ordering::Relaxed),
        }
    }

    /// Bytes that one stream may have ahead of its reader: half of the budget among all of them,
    /// and a quarter at most.
    pub(super) fn ahead_share_bytes(&self, counted: bool) -> u64 {
        let limit = self.extents.lock().budget().limit_bytes();
        let streams = self.streams.load(Ordering::Relaxed) + i64::from(!counted);
        (limit / 2 / streams.max(1).unsigned_abs()).min(limit / 4)
    }

    /// What an isolated read may take of the budget.
    pub(super) fn extent_share_bytes(&self) -> u64 {
        self.extents.lock().budget().limit_bytes() / 16
    }

    /// Bytes that one guess about whole objects may have fetched unread.
    pub fn prefetch_share_bytes(&self) -> u64 {
        self.ahead_share_bytes(false)
    }

    /// Counts the streams that fetch ahead.
    pub(super) fn ahead_streams(&self, change: i64) {
        self.streams.fetch_add(change, Ordering::Relaxed);
    }

    /// GETs of read-ahead under way now.
    fn ahead_gets(&self) -> usize {
        self.ahead_gets.load(Ordering::Relaxed)
    }

    /// Into how many GETs a stream should cut its window, so that all that pay are under way.
    pub(super) fn ahead_parts(&self) -> u64 {
        let streams = self.streams.load(Ordering::Relaxed).max(1).unsigned_abs();
        (self.pace.streams() as u64 / streams).clamp(*WINDOW_PARTS.start(), *WINDOW_PARTS.end())
    }

    /// A stream lost interest in a range.
    pub(super) fn abandon(&self, object: &Pinned, range: &Range<u64>, stream: &Weak<Stream>) {
        let idle = self.extents.lock().abandon(object, range, stream);
        for flight in idle {
            flight.abort();
        }
    }
}

#[async_trait]
impl PartMemory for BlockCache {
    /// Evicts for it; at most half of the budget is lent at a time.
    async fn lend(&self, bytes: u64) -> Loan {
        let most = self.extents.lock().budget().limit_bytes() / 2;
        let bytes = bytes.clamp(LOAN_UNIT_BYTES, most);
        let permits = u32::try_from(bytes / LOAN_UNIT_BYTES).unwrap_or(u32::MAX);
        let permit = self.loans.clone().acquire_many_owned(permits).await.expect("the semaphore is never closed");
        self.wait_for_room(|extents| extents.reserve_bytes(bytes, false)).await;
        Box::new(Lent { cache: self.myself.upgrade(), bytes, _permit: permit })
    }
}

/// Room that somebody else fills.
struct Lent {
    cache: Option<Arc<BlockCache>>,
    bytes: u64,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(cache) = &self.cache {
            cache.extents.lock().release_bytes(self.bytes);
            cache.room.notify_waiters();
        }
    }
}

impl fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockCache").field("bucket", &self.bucket).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// The bytes of all pieces in a row; a single one is handed on without a copy.
async fn gather(object: &Pinned, pieces: Vec<Piece>, bytes: usize) -> Result<Bytes> {
    let single = pieces.len() == 1;
    let mut whole = BytesMut::with_capacity(if single { 0 } else { bytes });
    for piece in pieces {
        let piece = match piece {
            Piece::Here(bytes) => bytes,
            Piece::Coming(waiting, within) => waiting.bytes(&object.key).await?.slice(within),
            Piece::Gap(_) => unreachable!("a flight was boarded for every gap"),
        };
        if single {
            return Ok(piece);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

fn cut(range: Range<u64>, size: u64) -> Range<u64> {
    let end = range.end.min(size);
    range.start.min(end)..end
}
