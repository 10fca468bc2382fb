//! What is told about hooks: counters by Lambda's names, and what waits.

use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::event::timestamp;

/// The state of all hooks at one moment.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct HooksStatus {
    /// Events that no hook was asked about yet.
    pub events_waiting: u64,
    /// Events that no hook saw, because too many had a hand in their object already.
    pub recursive_invocations_dropped: u64,
    pub hooks: Vec<HookStatus>,
}

/// The state of one hook. Counters begin at the mount; the queue and the dead are in the journal.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct HookStatus {
    pub name: String,
    /// Its log file.
    pub log: std::path::PathBuf,
    /// Runs, retries among them.
    pub invocations: u64,
    /// Runs that failed.
    pub errors: u64,
    /// What it has forbidden (a synchronous hook), its own failures among it.
    pub refused: u64,
    /// Tasks whose object had changed before the hook saw it.
    pub superseded: u64,
    /// Events that it was not run for, because it was done with the same bytes of the same path.
    pub unchanged: u64,
    /// Time of all runs together.
    pub duration_ms: u64,
    /// Memory a hook may have, times the time it ran: what Lambda would bill.
    pub gb_seconds: f64,
    /// Most memory that one run used.
    pub max_memory_used_bytes: u64,
    /// Tasks that wait, those that wait for their next try among them.
    pub queued: u64,
    pub running: u64,
    /// Tasks that were given up.
    pub dead: u64,
    pub last_error: Option<LastError>,
}

/// The last thing that went wrong with a hook.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct LastError {
    /// ISO 8601, UTC.
    pub time: String,
    pub key: String,
    pub message: String,
}

/// Counts for one hook.
#[derive(Debug, Default)]
pub(super) struct Counters(Mutex<HookStatus>);

impl Counters {
    pub(super) fn ran(&self, duration: Duration, memory_limit_bytes: u64, memory_peak_bytes: u64) {
        let mut status = self.0.lock();
        status.invocations += 1;
        status.duration_ms += duration.as_millis() as u64;
        // Whole MiB, at most 4,096: exact in any float.
        let memory_mib = f64::from(u32::try_from(memory_limit_bytes >> 20).unwrap_or(u32::MAX));
        status.gb_seconds += duration.as_secs_f64() * memory_mib / 1024.0;
        status.max_memory_used_bytes = status.max_memory_used_bytes.max(memory_peak_bytes);
    }

    pub(super) fn failed(&self, key: &str, message: &str) {
        let mut status = self.0.lock();
        status.errors += 1;
        status.last_error =
            Some(LastError { time: timestamp(SystemTime::now()), key: key.to_owned(), message: message.to_owned() });
    }

    pub(super) fn refused(&self) {
        self.0.lock().refused += 1;
    }

    pub(super) fn unchanged(&self) {
        self.0.lock().unchanged += 1;
    }

    pub(super) fn superseded(&self) {
        self.0.lock().superseded += 1;
    }

    pub(super) fn status(&self) -> HookStatus {
        self.0.lock().clone()
    }
}
