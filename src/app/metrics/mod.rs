//! What a mount ([`of_mount`]) or a worker ([`of_worker`]) counts, and `--metrics-listen`: the same as Prometheus reads it.
//! `app/otlp` sends it elsewhere.
//!
//! The text is our own ([`exposition`]) because the libraries want to own the counters, and ours belong to
//! the rooms that count: every metric would be a collector around one of theirs. What is left are three
//! kinds of lines. The official `prometheus-client` also writes `OpenMetrics` only, not the format 0.0.4,
//! and `prometheus` brings protobuf.
//!
//! **Invariant**: no scrape disturbs the mount. Nothing is counted with a lock, one scrape at a time looks
//! at the rooms, connections are few and short.

mod exposition;
mod of_mount;
mod of_process;
mod of_worker;
mod server;

use std::sync::Arc;

pub(super) use exposition::{Kind, Metric, Sample, Value};
pub(super) use of_worker::Working;
pub(super) use server::{Listener, listen};

use super::status::Facts;
use crate::telemetry::spans;
use exposition::Exposition;

/// Looks at all that is counted. Takes locks, and may read the journal.
pub(super) type Look = Arc<dyn Fn() -> Exposition + Send + Sync>;

/// All metrics of a mount.
pub(super) fn look_at_mount(facts: &Arc<Facts>) -> Look {
    let facts = Arc::clone(facts);
    Arc::new(move || with_process(of_mount::look(&facts)))
}

/// All metrics of a worker.
pub(super) fn look_at_worker(working: Working) -> Look {
    Arc::new(move || with_process(of_worker::look(&working)))
}

fn with_process(mut text: Exposition) -> Exposition {
    if let Some(told) = spans::counts() {
        of_mount::collector(&mut text, told);
    }
    of_process::write(&mut text);
    text
}
