//! What is counted of one S3 operation. Atomic adds only: a lock would be one for all requests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::error::Kind;
use crate::telemetry::{Histogram, Observed};

/// Every operation that is counted.
pub(super) const OPERATIONS: [&str; 14] = [
    "HeadObject",
    "GetObject",
    "ListObjectsV2",
    "PutObject",
    "RenameObject",
    "CopyObject",
    "DeleteObject",
    "DeleteObjects",
    "CreateMultipartUpload",
    "UploadPart",
    "UploadPartCopy",
    "CompleteMultipartUpload",
    "AbortMultipartUpload",
    "ListMultipartUploads",
];
/// From a server next door to what the deadline of one try allows.
const DURATION_BOUNDS_MS: &[u64] = &[5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000];
/// The outcomes that are no error.
const OK: &str = "ok";
const ABANDONED: &str = "abandoned";

/// Counters of one operation.
#[derive(Debug)]
pub(super) struct Tally {
    sent: AtomicU64,
    ok: AtomicU64,
    /// Nobody waited for the answer any more: its time was up, or it was not needed after all.
    abandoned: AtomicU64,
    errors: [AtomicU64; Kind::ALL.len()],
    pub(super) retries: AtomicU64,
    durations: Histogram,
}

/// What was counted of one operation.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationCounts {
    /// As S3 names it.
    pub operation: &'static str,
    /// Requests that have ended, by how: `ok` always, and every other outcome that there was: the name of
    /// an error's kind, or `abandoned`.
    pub outcomes: Vec<(&'static str, u64)>,
    /// Requests that were sent once more.
    pub retries: u64,
    /// From sending a request to the last byte of its answer, whatever the outcome.
    pub durations: Observed,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            sent: AtomicU64::default(),
            ok: AtomicU64::default(),
            abandoned: AtomicU64::default(),
            errors: Default::default(),
            retries: AtomicU64::default(),
            durations: Histogram::new(DURATION_BOUNDS_MS),
        }
    }
}

impl Tally {
    /// Requests sent, those under way among them.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Errors that are no answer.
    pub(super) fn failed(&self) -> u64 {
        let errors = Kind::ALL.iter().zip(&self.errors).filter(|(kind, _)| **kind != Kind::NotFound);
        errors.map(|(_, count)| count.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn counts(&self, operation: &'static str) -> OperationCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let errors = Kind::ALL.iter().zip(&self.errors).map(|(kind, count)| (kind.name(), read(count)));
        let others = errors.chain([(ABANDONED, read(&self.abandoned))]).filter(|(_, count)| *count > 0);
        OperationCounts {
            operation,
            outcomes: std::iter::once((OK, read(&self.ok))).chain(others).collect(),
            retries: read(&self.retries),
            durations: self.durations.observed(),
        }
    }
}

/// A request from its sending to its end, which may be that nobody waits for it any more.
pub(super) struct UnderWay<'a> {
    tally: &'a Tally,
    in_flight: &'a AtomicU64,
    begun: Instant,
    ended: bool,
}

impl<'a> UnderWay<'a> {
    pub(super) fn new(tally: &'a Tally, in_flight: &'a AtomicU64) -> Self {
        tally.sent.fetch_add(1, Ordering::Relaxed);
        in_flight.fetch_add(1, Ordering::Relaxed);
        Self { tally, in_flight, begun: Instant::now(), ended: false }
    }

    /// It was answered, perhaps with an error.
    pub(super) fn end(mut self, error: Option<Kind>) {
        let outcome = error.map_or(&self.tally.ok, |kind| &self.tally.errors[kind as usize]);
        outcome.fetch_add(1, Ordering::Relaxed);
        self.ended = true;
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.tally.durations.observe(self.begun.elapsed());
        if !self.ended {
            self.tally.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }
}
