//! The thread behind the readers: looks into the directory, writes, evicts.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use super::entry::Entry;
use super::ledger::Name;
use super::queue::{Job, Payload};
use super::seal::Identity;
use super::{Inner, Pinned, directory, name};

/// After so much of the limit was written, mounts beside this one may have written as much: look
/// again. Half of the margin, so that two of them stay below the limit together.
const RESCAN_PART: u64 = 64;
/// The same when there is no other mount: for what nobody told, such as files removed by hand.
const LONE_RESCAN_PART: u64 = 4;
/// This part of the limit is left for what is not accounted: rounding, what others write meanwhile.
const MARGIN_PART: u64 = 32;
/// How often the attribute indexes beside the entries are measured, and an idle cache looks.
const MEASURE_PERIOD: Duration = Duration::from_secs(1);
/// How long nothing is written after the disk refused to.
const PAUSE: Duration = Duration::from_mins(1);

/// Why bytes were not written.
pub(super) enum Refusal {
    /// They would not fit below the limit, whatever else is evicted, or nobody wants them any more.
    NoRoom,
    /// They would leave less free on the file system than has to be.
    DiskFull,
    Disk(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// The writer's own notes.
pub(super) struct Writer<'a> {
    pub(super) inner: &'a Inner,
    /// Since the last look into the directory.
    pub(super) written_bytes: u64,
    /// When the first of what others were making then had been written to last.
    unfinished_since: Option<SystemTime>,
    paused_until: Option<Instant>,
    measured: Instant,
    /// The user knows that the file system is full.
    told_full: bool,
}

/// Writes until the queue is stopped and empty.
pub(super) fn run(inner: &Inner) {
    let mut writer = Writer {
        inner,
        written_bytes: 0,
        unfinished_since: None,
        paused_until: None,
        measured: Instant::now(),
        told_full: false,
    };
    writer.rescan(0);
    while let Some(mut job) = inner.queue.take() {
        let is_stored = writer.write(&job);
        if let Some(told) = job.told.take() {
            // Who asked may have gone.
            let _ = told.send(is_stored);
        }
    }
}

impl Writer<'_> {
    /// Whether the bytes are on disk now.
    fn write(&mut self, job: &Job) -> bool {
        let paused = self.paused_until.is_some_and(|until| Instant::now() < until);
        let (length, stored) = match &job.payload {
            Payload::Bytes { bytes, .. } if paused => (bytes.len() as u64, Err(Refusal::NoRoom)),
            Payload::Bytes { offset, bytes } => (bytes.len() as u64, self.store(&job.object, *offset, bytes)),
            Payload::File { .. } if paused => (job.object.size, Err(Refusal::NoRoom)),
            Payload::File { file, is_unchanged } => (job.object.size, self.take_file(&job.object, file, is_unchanged)),
        };
        let is_stored = stored.is_ok();
        match stored {
            Ok(()) => self.told_full = false,
            Err(refusal) => {
                self.inner.counters.skipped_bytes.fetch_add(length, Ordering::Relaxed);
                self.tell(refusal);
            }
        }
        let is_time = self.measured.elapsed() > MEASURE_PERIOD;
        // What was being made may be an entry by now, which can go, or be gone.
        let is_stale = is_time && !is_stored && self.unfinished_since.is_some();
        if is_stale || self.is_rescan_due() {
            self.rescan(0);
        } else if is_time {
            self.measure();
        }
        is_stored
    }

    pub(super) fn is_rescan_due(&self) -> bool {
        let after = |part| self.written_bytes > self.inner.limit_bytes / part;
        after(RESCAN_PART) && (after(LONE_RESCAN_PART) || self.inner.directory.is_shared())
            || self.unfinished_since.is_some_and(directory::is_given_up)
    }

    fn tell(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::NoRoom => {}
            Refusal::DiskFull if self.told_full => {}
            Refusal::DiskFull => {
                self.told_full = true;
                tracing::warn!(
                    directory = %self.inner.directory.above().display(),
                    "less than a tenth of the cache's disk is free: nothing is cached there until there is room; \
                     free some, or name another disk with --cache-dir"
                );
            }
            Refusal::Disk(error) => {
                let directory = self.inner.directory.above().display();
                tracing::warn!(%directory, %error, "cannot write to the disk cache; trying again in a minute");
                self.paused_until = Some(Instant::now() + PAUSE);
            }
        }
    }

    /// Looks into the directory, in which a file of so many bytes is being made by this writer.
    pub(super) fn rescan(&mut self, own_bytes: u64) {
        self.written_bytes = 0;
        let found = self.inner.directory.scan();
        let unfinished_bytes = found.unfinished_bytes.saturating_sub(own_bytes);
        self.unfinished_since = found.unfinished_since.filter(|_| unfinished_bytes > 0);
        let mut ledger = self.inner.ledger.lock();
        ledger.replace(found.entries);
        ledger.set_unfinished_bytes(unfinished_bytes);
        drop(ledger);
        self.measure();
    }

    fn measure(&mut self) {
        self.measured = Instant::now();
        let bytes = self.inner.directory.other_bytes();
        self.inner.ledger.lock().set_other_bytes(bytes);
        // What is too much already goes; nothing is to be written yet that could be refused.
        let _ = make_room(self.inner, 0, &Name::default());
    }

    fn store(&mut self, object: &Pinned, offset: u64, bytes: &[u8]) -> Result<(), Refusal> {
        let identity = self.inner.identity(object);
        let name = name(&identity);
        let charge = self.inner.ledger.lock().charge(&name, bytes.len() as u64);
        make_room(self.inner, charge, &name)?;
        let entry = self.entry(&identity, object)?;
        let bytes = entry.write(offset, bytes)?;
        if bytes > 0 {
            self.inner.ledger.lock().add(name, bytes);
            self.inner.note_written(bytes);
            self.written_bytes += bytes;
        }
        Ok(())
    }

    fn entry(&mut self, identity: &Identity, object: &Pinned) -> io::Result<Arc<Entry>> {
        let inner = self.inner;
        let name = name(identity);
        if let Some(entry) = inner.entry(identity, object) {
            if !entry.is_orphan() {
                return Ok(entry);
            }
            inner.open.lock().pop(&name);
        }
        let stem = self.shelf(&name)?;
        Ok(inner.keep_open(name, Entry::create(&stem, identity, object.size)?))
    }

    /// The stem of an entry in a directory that is there.
    pub(super) fn shelf(&mut self, name: &Name) -> io::Result<PathBuf> {
        if self.inner.directory.is_gone() {
            tracing::warn!("the directory of the disk cache was removed; it is made again, empty");
            self.inner.open.lock().clear();
            self.inner.directory.rejoin()?;
            self.rescan(0);
        }
        let stem = self.inner.directory.stem(name);
        stem.parent().map_or(Ok(()), directory::make)?;
        Ok(stem)
    }
}

/// What of the limit may be accounted.
pub(super) fn within_margin(limit_bytes: u64) -> u64 {
    limit_bytes - limit_bytes / MARGIN_PART
}

/// Evicts until so many bytes more fit, below the limit and beside a tenth of the disk left free.
pub(super) fn make_room(inner: &Inner, bytes: u64, spared: &Name) -> Result<(), Refusal> {
    let limit_bytes = within_margin(inner.limit_bytes);
    loop {
        let within = inner.ledger.lock().total_bytes() + bytes <= limit_bytes;
        // A directory that is gone has no free space to tell; it is made anew by the next write.
        let spare = inner.directory.spare_bytes().map_or(true, |spare| spare >= bytes);
        if within && spare {
            return Ok(());
        }
        let oldest = inner.ledger.lock().oldest(spared);
        let Some(oldest) = oldest else { return Err(if within { Refusal::DiskFull } else { Refusal::NoRoom }) };
        inner.discard(&oldest);
        inner.counters.evictions.fetch_add(1, Ordering::Relaxed);
    }
}
