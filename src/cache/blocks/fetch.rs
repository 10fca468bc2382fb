//! Sending GETs off, and what becomes of them.
//!
//! A flight is a task of its own: it takes room in the budget, looks on the disk, else takes a permit
//! and the bytes from the bucket, and ends in the books however it ends. Whoever has a permit has
//! room already, so nobody waits in a circle. Read-ahead starts one only when both are free.

use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::super::Pinned;
use super::super::ahead::Stream;
use super::super::extents::Piece;
use super::super::flight::{Flight, failure};
use super::BlockCache;
use crate::bucket::Result;
use crate::error::Kind;

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
        for piece in &mut pieces {
            let Piece::Gap(gap) = piece else { continue };
            let wide = extents.widen(object, gap, wanted);
            let within = (gap.start - wide.start) as usize..(gap.end - wide.start) as usize;
            let flight = Arc::new(Flight::new(wide, false, Arc::downgrade(stream)));
            *piece = Piece::Coming(flight.join(), within);
            extents.board(object, flight.clone());
            boarded.push(flight);
        }
        // A task that cannot start ends its flight at once, and needs the lock for it.
        drop(extents);
        for flight in &boarded {
            self.send_off(object, flight, None);
        }
        pieces
    }

    /// Fetches what is missing of a range before anybody asks. False when there is no room or no
    /// GET free now.
    pub(in crate::cache) fn fetch_ahead(
        self: &Arc<Self>,
        object: &Pinned,
        range: &Range<u64>,
        stream: &Arc<Stream>,
    ) -> bool {
        loop {
            let mut extents = self.extents.lock();
            let Some(gap) = extents.gaps(object, range).into_iter().next() else { return true };
            if self.gets.available_permits() <= self.spare_gets {
                return false;
            }
            let Ok(permit) = self.gets.clone().try_acquire_owned() else { return false };
            let flight = Arc::new(Flight::new(gap, true, Arc::downgrade(stream)));
            if !extents.reserve(&flight) {
                return false;
            }
            extents.board(object, flight.clone());
            drop(extents);
            self.counters.prefetched_bytes.fetch_add(flight.range.end - flight.range.start, Ordering::Relaxed);
            self.send_off(object, &flight, Some(permit));
        }
    }

    /// Starts the task of a flight. With a permit, its room is reserved already.
    fn send_off(self: &Arc<Self>, object: &Pinned, flight: &Arc<Flight>, permit: Option<OwnedSemaphorePermit>) {
        let runtime = self.runtime.get().expect("the first read, which precedes every flight, sets it");
        let landing = Landing {
            cache: self.clone(),
            object: object.clone(),
            flight: flight.clone(),
            reserved: permit.is_some(),
            landed: false,
        };
        let task = runtime.spawn(landing.fly(permit));
        flight.started(task.abort_handle());
    }

    async fn wait_for_room(&self, flight: &Flight) {
        loop {
            let mut told = pin!(self.room.notified());
            told.as_mut().enable();
            if self.extents.lock().reserve(flight) {
                return;
            }
            told.await;
        }
    }

    /// The bytes of a range, if the disk has all of them.
    async fn read_disk(&self, object: &Pinned, range: &Range<u64>) -> Option<Bytes> {
        let disk = self.disk.clone()?;
        let (object, range) = (object.clone(), range.clone());
        let reading = tokio::task::spawn_blocking(move || disk.read(&object, &range));
        // A reading that panicked is a miss: the panic itself was logged.
        reading.await.ok().flatten()
    }

    /// The bytes of a range from the bucket, checked to be this version's and complete.
    async fn fetch(&self, object: &Pinned, range: &Range<u64>) -> Result<Bytes> {
        self.counters.gets.fetch_add(1, Ordering::Relaxed);
        let asked = Instant::now();
        let answer = self.bucket.get(&object.key, Some(range.clone()), Some(&object.etag)).await;
        let fetched = answer.map_err(|mut error| {
            // The version we were pinned to is gone: for its reader that is a change, not an absence.
            if error.kind == Kind::NotFound {
                error.kind = Kind::Changed;
            }
            error
        })?;
        self.counters.fetched_bytes.fetch_add(fetched.bytes.len() as u64, Ordering::Relaxed);
        // Some servers ignore If-Match: the answer's own tag decides.
        if fetched.info.etag != object.etag {
            let cause = format!("the object is version {} now, {} was opened", fetched.info.etag, object.etag);
            return Err(failure(&object.key, Kind::Changed, &cause));
        }
        if fetched.bytes.len() as u64 != range.end - range.start {
            let cause = format!("{} bytes came for the range {}-{}", fetched.bytes.len(), range.start, range.end);
            return Err(failure(&object.key, Kind::Corrupt, &cause));
        }
        self.extents.lock().confirm(object, asked);
        Ok(fetched.bytes)
    }
}

/// Sees to it that a flight ends in the books, also when its task is aborted or panics.
struct Landing {
    cache: Arc<BlockCache>,
    object: Pinned,
    flight: Arc<Flight>,
    reserved: bool,
    landed: bool,
}

impl Landing {
    async fn fly(mut self, mut permit: Option<OwnedSemaphorePermit>) {
        let ahead = permit.is_some();
        if !self.reserved {
            self.cache.wait_for_room(&self.flight).await;
            self.reserved = true;
        }
        let result = match self.cache.read_disk(&self.object, &self.flight.range).await {
            Some(bytes) => Ok(bytes),
            None => self.read_bucket(&mut permit).await,
        };
        self.land(result);
        if let Some(disk) = self.cache.disk.as_ref().filter(|_| ahead) {
            // Nobody waits for this but the next read-ahead, for which the permit is kept meanwhile.
            disk.keep_up().await;
        }
    }

    async fn read_bucket(&self, permit: &mut Option<OwnedSemaphorePermit>) -> Result<Bytes> {
        if permit.is_none() {
            *permit = Some(self.cache.gets.clone().acquire_owned().await.expect("the semaphore is never closed"));
        }
        let bytes = self.cache.fetch(&self.object, &self.flight.range).await?;
        if let Some(disk) = &self.cache.disk {
            disk.write(&self.object, self.flight.range.start, bytes.clone());
        }
        Ok(bytes)
    }

    fn land(&mut self, result: Result<Bytes>) {
        self.landed = true;
        self.cache.extents.lock().land(&self.object, &self.flight, self.reserved, result.as_ref().ok());
        self.flight.publish(result);
        self.cache.room.notify_waiters();
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if !self.landed {
            self.land(Err(failure(&self.object.key, Kind::Local, "the fetch was cut off")));
        }
    }
}
