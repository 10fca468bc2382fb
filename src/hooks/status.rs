//! What is told about hooks: counters by Lambda's names, and what waits.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::event::timestamp;
use crate::telemetry::{Histogram, Observed};

/// From what costs nothing to the longest that Lambda allows.
const DURATION_BOUNDS_MS: &[u64] = &[5, 25, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 900_000];
/// Days whose costs are told one by one; older ones are in the sum.
const DAYS: usize = 31;

/// The state of all hooks at one moment.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct HooksStatus {
    /// Events that no hook was asked about yet.
    pub events_waiting: u64,
    /// Events that no hook saw, because too many had a hand in their object already.
    pub recursive_invocations_dropped: u64,
    /// Records for destinations that none of them took, and that were given up.
    pub destination_delivery_failures: u64,
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
    /// The same by how long each took; for the metrics.
    #[serde(skip)]
    pub durations: Observed,
    /// Memory a hook may have, times the time it ran: what Lambda would bill.
    pub gb_seconds: f64,
    /// The same by day (ISO 8601, UTC) on which a run ended, of the last 31 with any.
    pub gb_seconds_by_day: BTreeMap<String, f64>,
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
#[derive(Debug)]
pub(super) struct Counters {
    status: Mutex<HookStatus>,
    durations: Histogram,
}

impl Default for Counters {
    fn default() -> Self {
        Self { status: Mutex::default(), durations: Histogram::new(DURATION_BOUNDS_MS) }
    }
}

impl Counters {
    pub(super) fn ran(&self, duration: Duration, memory_limit_bytes: u64, memory_peak_bytes: u64) {
        self.durations.observe(duration);
        let mut status = self.status.lock();
        status.invocations += 1;
        status.duration_ms += duration.as_millis() as u64;
        // Whole MiB, at most 4,096: exact in any float.
        let memory_mib = f64::from(u32::try_from(memory_limit_bytes >> 20).unwrap_or(u32::MAX));
        let billed = duration.as_secs_f64() * memory_mib / 1024.0;
        status.gb_seconds += billed;
        let day = timestamp(SystemTime::now()).chars().take_while(|letter| *letter != 'T').collect();
        *status.gb_seconds_by_day.entry(day).or_default() += billed;
        while status.gb_seconds_by_day.len() > DAYS {
            status.gb_seconds_by_day.pop_first();
        }
        status.max_memory_used_bytes = status.max_memory_used_bytes.max(memory_peak_bytes);
    }

    pub(super) fn failed(&self, key: &str, message: &str) {
        let mut status = self.status.lock();
        status.errors += 1;
        status.last_error =
            Some(LastError { time: timestamp(SystemTime::now()), key: key.to_owned(), message: message.to_owned() });
    }

    pub(super) fn refused(&self) {
        self.status.lock().refused += 1;
    }

    pub(super) fn unchanged(&self) {
        self.status.lock().unchanged += 1;
    }

    pub(super) fn superseded(&self) {
        self.status.lock().superseded += 1;
    }

    pub(super) fn status(&self) -> HookStatus {
        HookStatus { durations: self.durations.observed(), ..self.status.lock().clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_cost_is_told_in_all_and_by_day() {
        let counters = Counters::default();
        for _ in 0..2 {
            counters.ran(Duration::from_millis(500), 512 << 20, 1 << 20);
        }
        let status = counters.status();
        assert!((status.gb_seconds - 0.5).abs() < 1e-9);
        let days: Vec<_> = status.gb_seconds_by_day.iter().collect();
        assert!((days.iter().map(|(_, billed)| **billed).sum::<f64>() - 0.5).abs() < 1e-9);
        assert!(days.iter().all(|(day, _)| day.len() == 10 && day.starts_with("20")), "{days:?}");
    }
}
