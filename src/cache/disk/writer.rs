//! The thread behind the readers: looks into the directory, writes, evicts.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::entry::Entry;
use super::ledger::Name;
use super::queue::Job;
use super::seal::Identity;
use super::{Inner, directory, name};

/// After so much of the limit was written, others may have written as much: look again.
const RESCAN_PART: u64 = 16;
/// This part of the limit is left for what is not accounted: directories, rounding.
const MARGIN_PART: u64 = 32;
/// How long nothing is written after the disk refused to.
const PAUSE: Duration = Duration::from_mins(1);

/// Why bytes were not written.
enum Refusal {
    /// They would not fit, whatever is evicted.
    NoRoom,
    Disk(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// Writes until the queue is stopped and empty.
pub(super) fn run(inner: &Inner) {
    let mut written_bytes = 0;
    let mut paused_until = None;
    rescan(inner);
    while let Some(job) = inner.queue.take() {
        let length = job.bytes.len() as u64;
        if paused_until.is_some_and(|until| Instant::now() < until) {
            inner.counters.skipped_bytes.fetch_add(length, Ordering::Relaxed);
            continue;
        }
        match store(inner, &job) {
            Ok(bytes) => written_bytes += bytes,
            Err(refusal) => {
                inner.counters.skipped_bytes.fetch_add(length, Ordering::Relaxed);
                if let Refusal::Disk(error) = refusal {
                    tracing::warn!(%error, "cannot write to the disk cache; trying again in a minute");
                    paused_until = Some(Instant::now() + PAUSE);
                }
            }
        }
        if written_bytes > inner.limit_bytes / RESCAN_PART {
            written_bytes = 0;
            rescan(inner);
        }
    }
}

fn rescan(inner: &Inner) {
    let found = inner.directory.scan();
    inner.ledger.lock().replace(found);
    make_room(inner, 0, &Name::default());
}

fn store(inner: &Inner, job: &Job) -> Result<u64, Refusal> {
    let identity = inner.identity(&job.object);
    let name = name(&identity);
    let charge = inner.ledger.lock().charge(&name, job.bytes.len() as u64);
    if !make_room(inner, charge, &name) {
        return Err(Refusal::NoRoom);
    }
    let entry = entry_to_write(inner, &identity, job)?;
    let bytes = entry.write(job.offset, &job.bytes)?;
    if bytes > 0 {
        inner.ledger.lock().add(name, bytes);
        inner.counters.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
    Ok(bytes)
}

fn entry_to_write(inner: &Inner, identity: &Identity, job: &Job) -> io::Result<Arc<Entry>> {
    let name = name(identity);
    if let Some(entry) = inner.entry(identity, &job.object) {
        if !entry.is_orphan() {
            return Ok(entry);
        }
        inner.open.lock().pop(&name);
    }
    let stem = inner.directory.stem(&name);
    stem.parent().map_or(Ok(()), directory::make)?;
    Ok(inner.keep_open(name, Entry::create(&stem, identity, job.object.size)?))
}

/// Evicts until so many bytes more fit, below the limit and beside a tenth of the disk left free.
fn make_room(inner: &Inner, bytes: u64, spared: &Name) -> bool {
    let limit_bytes = inner.limit_bytes - inner.limit_bytes / MARGIN_PART;
    loop {
        let fits = inner.ledger.lock().total_bytes() + bytes <= limit_bytes;
        // A directory that is gone has no free space to tell; it is made anew by the next write.
        if fits && inner.directory.spare_bytes().map_or(true, |spare| spare >= bytes) {
            return true;
        }
        let Some(oldest) = inner.ledger.lock().oldest(spared) else { return false };
        inner.discard(&oldest);
        inner.counters.evictions.fetch_add(1, Ordering::Relaxed);
    }
}
