//! What a mount counts ([`look`]), and `--metrics-listen`: the same as Prometheus reads it. `app/otlp` sends it elsewhere.
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
mod server;

pub(super) use exposition::{Kind, Metric, Sample, Value};
pub(super) use of_mount::look;
pub(super) use server::{Listener, listen};
