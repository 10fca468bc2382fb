//! Sending GETs off, and what becomes of them.
//!
//! A flight is a task of its own: it takes room in the budget, looks on the disk, else takes a permit
//! and the bytes from the bucket, and ends in the books however it ends. Whoever has a permit has
//! room already, so nobody waits in a circle. Read-ahead starts one only when both are free.

use std::ops::Range;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use super::super::ahead::Stream;
use super::super::extents::{Extents, Piece};
use super::super::flight::{Flight, failure};
use super::super::pool::Buffer;
use super::super::{Pinned, disk};
use super::BlockCache;
use crate::bucket::{Error, ObjectInfo, Result, Sink, check_length, check_version};
use crate::error::Kind;
use crate::telemetry::spans;

/// A cache disk that takes longer is no help: the bucket is asked.
pub(super) const DISK_PATIENCE: Duration = Duration::from_secs(2);

impl BlockCache {
    /// What is here or comes of the range; a GET is sent off for the rest, and for what of `wanted`
    /// lies around it.
    pub(super) fn pieces(
        self: &Arc<Self>,
        object: &Pinned,
        range: &Range<u64>,
        wanted: &Range<u64>,
        stream: &Arc<Stream>,
    ) -> Vec<Piece> {
        let mut boarded = Vec::new();
        let mut extents = self.extents.lock();
        let mut pieces = extents.pieces(object, range);
        // Seats of flights that were just boarded, one piece each.
        if let Some(at) = pieces.iter().position(|piece| matches!(piece, Piece::Gap(_))) {
            for gap in extents.gaps(object, range) {
                let wide = extents.widen(object, &gap, wanted);
                let first_end = gap.end.next_multiple_of(disk::BLOCK_BYTES);
                let flight = Arc::new(Flight::new(wide, first_end, false, Arc::downgrade(stream)));
                extents.board(object, &flight);
                boarded.push(flight);
            }
            let reached = pieces[..at].iter().map(Piece::bytes).sum::<u64>() + range.start;
            pieces.truncate(at);
            pieces.extend(extents.pieces(object, &(reached..range.end)));
        }
        // A task that cannot start ends its flight at once, and needs the lock for it.
        drop(extents);
        for flight in &boarded {
            self.send_off(object, flight, None);
        }
        pieces
    }

    /// Fetches what is missing of a range before anybody asks. False when there is no room, no GET
    /// free now, or when another one would not pay.
    pub(in crate::cache) fn fetch_ahead(
        self: &Arc<Self>,
        object: &Pinned,
        range: &Range<u64>,
        stream: &Arc<Stream>,
    ) -> bool {
        loop {
            let mut extents = self.extents.lock();
            let Some(gap) = extents.gaps(object, range).into_iter().next() else { return true };
            if self.gets.available_permits() <= self.spare_gets || self.ahead_gets() >= self.pace.streams() {
                return false;
            }
            // Who waits for room goes first.
            if self.turn.try_lock().is_err() {
                return false;
            }
            let Ok(permit) = self.gets.clone().try_acquire_owned() else { return false };
            let flight = Arc::new(Flight::new(gap, 0, true, Arc::downgrade(stream)));
            if !extents.reserve(&flight) {
                return false;
            }
            extents.board(object, &flight);
            drop(extents);
            self.counters.prefetched_bytes.fetch_add(flight.range.end - flight.range.start, Ordering::Relaxed);
            self.send_off(object, &flight, Some(permit));
        }
    }

    /// Starts the task of a flight. With a permit, its room is reserved already.
    fn send_off(self: &Arc<Self>, object: &Pinned, flight: &Arc<Flight>, permit: Option<OwnedSemaphorePermit>) {
        let runtime = self.runtime.get().expect("the first read, which precedes every flight, sets it");
        let landing = Landing::new(self.clone(), object.clone(), flight.clone(), permit.is_some());
        let task = runtime.spawn(spans::carried(landing.fly(permit)));
        flight.started(task.abort_handle());
    }

    /// Waits until `reserve` finds room. One at a time and in order: a large one is not passed by
    /// small ones for ever.
    pub(super) async fn wait_for_room(&self, reserve: impl Fn(&mut Extents) -> bool) {
        let _turn = self.turn.lock().await;
        loop {
            let mut told = pin!(self.room.notified());
            told.as_mut().enable();
            if reserve(&mut self.extents.lock()) {
                return;
            }
            told.await;
        }
    }

    /// The bytes of a seat, if the disk has all of them.
    async fn read_disk(&self, object: &Pinned, range: &Range<u64>) -> Option<Bytes> {
        let disk = self.disk.clone()?;
        let (object, range) = (object.clone(), range.clone());
        let reading = tokio::task::spawn_blocking(move || disk.read(&object, &range));
        // A disk that hangs is a miss, and so is a reading that panicked: the panic itself was logged.
        tokio::time::timeout(DISK_PATIENCE, reading).await.ok()?.ok().flatten()
    }
}

/// Sees to it that a flight ends in the books, also when its task is aborted or panics. As the sink
/// of its GET it lands seat after seat.
struct Landing {
    cache: Arc<BlockCache>,
    object: Pinned,
    flight: Arc<Flight>,
    /// Whether its room is taken from the budget.
    reserved: AtomicBool,
    /// From the bucket: what came from the disk is not written there again.
    from_bucket: AtomicBool,
    asked: OnceLock<Instant>,
    first_byte: OnceLock<Instant>,
    pouring: Mutex<Pouring>,
}

/// The seat that is being filled.
#[derive(Default)]
struct Pouring {
    buffer: Option<Buffer>,
    taken_bytes: u64,
}

impl Landing {
    fn new(cache: Arc<BlockCache>, object: Pinned, flight: Arc<Flight>, reserved: bool) -> Self {
        if flight.ahead {
            cache.ahead_gets.fetch_add(1, Ordering::Relaxed);
        }
        Self {
            cache,
            object,
            flight,
            reserved: AtomicBool::new(reserved),
            from_bucket: AtomicBool::new(false),
            asked: OnceLock::new(),
            first_byte: OnceLock::new(),
            pouring: Mutex::default(),
        }
    }

    async fn fly(self, mut permit: Option<OwnedSemaphorePermit>) {
        if !self.reserved.load(Ordering::Relaxed) {
            self.cache.wait_for_room(|extents| extents.reserve(&self.flight)).await;
            self.reserved.store(true, Ordering::Relaxed);
        }
        if self.land_from_disk().await {
            return;
        }
        self.from_bucket.store(true, Ordering::Relaxed);
        if let Err(error) = self.fetch(&mut permit).await {
            self.land_rest(&error);
        }
        if let Some(disk) = self.cache.disk.as_ref().filter(|_| self.flight.ahead) {
            // Nobody waits for this but the next read-ahead, for which the permit is kept meanwhile.
            disk.keep_up().await;
        }
    }

    /// Lands what the disk has, up to the first seat that it has not. True when that was all.
    async fn land_from_disk(&self) -> bool {
        if self.cache.disk.is_none() {
            return false;
        }
        while self.flight.landed() < self.flight.seats() {
            let seat = self.flight.seat(self.flight.landed());
            let Some(bytes) = self.cache.read_disk(&self.object, seat).await else { return false };
            self.pouring.lock().taken_bytes += bytes.len() as u64;
            self.land(bytes);
        }
        true
    }

    /// What is left of the range from the bucket, checked to be this version's and complete.
    async fn fetch(&self, permit: &mut Option<OwnedSemaphorePermit>) -> Result<()> {
        let cache = &self.cache;
        if permit.is_none() {
            *permit = Some(cache.gets.clone().acquire_owned().await.expect("the semaphore is never closed"));
        }
        cache.counters.gets.fetch_add(1, Ordering::Relaxed);
        let (asked, before) = (*self.asked.get_or_init(Instant::now), self.taken_bytes());
        self.get().await.map_err(|mut error| {
            // The version we were pinned to is gone: for its reader that is a change, not an absence.
            if error.kind == Kind::NotFound {
                error.kind = Kind::Changed;
            }
            error
        })?;
        let first_byte = self.first_byte.get().map_or(Duration::ZERO, |came| came.duration_since(asked));
        cache.pace.note(self.taken_bytes() - before, first_byte, asked.elapsed());
        Ok(())
    }

    async fn get(&self) -> Result<()> {
        let (bucket, Pinned { key, etag, size }) = (&self.cache.bucket, &self.object);
        let range = self.flight.range.clone();
        if range != (0..*size) || self.taken_bytes() > 0 {
            return bucket.get_into(key, range, etag, self).await;
        }
        // Only a whole object can be held against its checksum, and only when it is there.
        let fetched = bucket.get(key, Some(range), Some(etag)).await?;
        check_version(key, &fetched.info.etag, etag)?;
        check_length(key, &fetched.bytes, &self.flight.range)?;
        self.begin(&fetched.info);
        self.take(&fetched.bytes);
        Ok(())
    }

    /// Lands the next seat.
    fn land(&self, bytes: Bytes) {
        let (cache, flight, seat) = (&self.cache, &self.flight, self.flight.landed());
        if self.from_bucket.load(Ordering::Relaxed)
            && let Some(disk) = &cache.disk
        {
            disk.write(&self.object, flight.seat(seat).start, bytes.clone());
        }
        cache.extents.lock().land(&self.object, flight, seat, true, Some(&bytes));
        flight.publish(seat, Ok(bytes));
        cache.room.notify_waiters();
    }

    /// Lands every seat that is left, with nothing in it.
    fn land_rest(&self, error: &Error) {
        let reserved = self.reserved.load(Ordering::Relaxed);
        for seat in self.flight.landed()..self.flight.seats() {
            self.cache.extents.lock().land(&self.object, &self.flight, seat, reserved, None);
            self.flight.publish(seat, Err(error.clone()));
        }
    }
}

impl Sink for Landing {
    fn begin(&self, info: &ObjectInfo) {
        let asked = self.asked.get().expect("an answer is of a request that was sent");
        self.cache.extents.lock().keep_headers(&self.object, *asked, info);
    }

    fn take(&self, mut bytes: &[u8]) {
        if self.first_byte.set(Instant::now()).is_ok() {
            let asked = self.asked.get().expect("bytes come of a request that was sent");
            self.cache.extents.lock().confirm(&self.object, *asked);
        }
        self.cache.counters.fetched_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let mut pouring = self.pouring.lock();
        pouring.taken_bytes += bytes.len() as u64;
        while !bytes.is_empty() && self.flight.landed() < self.flight.seats() {
            let seat = self.flight.seat(self.flight.landed());
            let buffer = pouring.buffer.get_or_insert_with(|| self.cache.pool.buffer(seat.end - seat.start));
            bytes = buffer.fill(bytes);
            if let Some(full) = pouring.buffer.take_if(|buffer| buffer.is_full()) {
                self.land(full.freeze());
            }
        }
    }

    fn taken_bytes(&self) -> u64 {
        self.pouring.lock().taken_bytes
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.land_rest(&failure(&self.object.key, Kind::Local, "the fetch was cut off"));
        if self.reserved.load(Ordering::Relaxed) {
            self.cache.extents.lock().end(&self.flight);
        }
        if self.flight.ahead {
            self.cache.ahead_gets.fetch_sub(1, Ordering::Relaxed);
        }
        self.cache.room.notify_waiters();
    }
}
