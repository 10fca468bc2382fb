//! What took how long, and on whose behalf: operations of the kernel, runs of hooks, and the requests to S3 that
//! they cause. For a collector (`app/otlp`), which asks for it by [`collect`]; until then nothing is kept.
//!
//! An operation knows itself by a task-local, not by a span of `tracing`: those are made before anybody knows whether
//! they are worth telling, and cost a getattr that memory answers more than its answer. Here it is two looks at the
//! clock and one allocation, and an operation is told only if it asked S3 or lasted. What runs on in a task of its own
//! is spawned with [`carried`].

mod ids;
mod request;
mod work;

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

pub use ids::Ids;
use ids::Sampling;
pub use request::{answered, asking_s3, tried};
use work::Open;
pub use work::Operation;

/// What waits for the collector at most; the OpenTelemetry SDKs keep as many.
const MOST_WAITING: usize = 2048;

/// One piece of work that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub ids: Ids,
    /// The span of whoever caused it, in the same trace.
    pub parent: Option<[u8; 8]>,
    pub begun: SystemTime,
    pub took: Duration,
    pub work: Work,
    pub fault: Option<Fault>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// For the kernel; as libfuse names the operation.
    Fuse { operation: &'static str },
    /// A run of a hook.
    Hook { name: String, key: String, event_id: String },
    /// A request to S3, with all of its tries.
    S3 { operation: &'static str, key: String, tries: u32, http_status: Option<u16>, request_id: Option<String> },
}

/// Why it was in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// One of few words, such as an errno's name.
    pub kind: String,
    /// For people; may be empty.
    pub words: String,
}

/// Spans since [`collect`], by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpanCounts {
    /// The collector has them.
    pub sent: u64,
    /// Nobody will ever see them.
    pub dropped: u64,
}

static TRACER: OnceLock<Tracer> = OnceLock::new();

/// Where spans go, once somebody collects them.
#[derive(Debug)]
struct Tracer {
    spans: mpsc::Sender<Span>,
    sampling: Sampling,
    sent: AtomicU64,
    dropped: AtomicU64,
}

impl Tracer {
    /// Never waits.
    fn tell(&self, span: Span) {
        if self.spans.try_send(span).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

tokio::task_local! {
    /// On whose behalf this task runs.
    static BEHALF: Option<Arc<Open>>;
}

/// Whom to tell, if somebody collects.
fn tracer() -> Option<&'static Tracer> {
    TRACER.get().filter(|tracer| tracer.sampling.keeps_any())
}

/// From now on spans are kept for this one reader, 2,048 at most: `ratio` of all traces, from 0 to 1. `None` when there is
/// a reader already: one process has one collector, as it has one log.
#[must_use]
pub fn collect(ratio: f64) -> Option<mpsc::Receiver<Span>> {
    let (spans, receiver) = mpsc::channel(MOST_WAITING);
    let (sent, dropped) = (AtomicU64::new(0), AtomicU64::new(0));
    let tracer = Tracer { spans, sampling: Sampling::of(ratio), sent, dropped };
    TRACER.set(tracer).is_ok().then_some(receiver)
}

/// `None` where nobody collects.
#[must_use]
pub fn counts() -> Option<SpanCounts> {
    let tracer = TRACER.get()?;
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    Some(SpanCounts { sent: read(&tracer.sent), dropped: read(&tracer.dropped) })
}

/// The reader says what became of spans that it took.
pub fn settle(counts: SpanCounts) {
    if let Some(tracer) = TRACER.get() {
        tracer.sent.fetch_add(counts.sent, Ordering::Relaxed);
        tracer.dropped.fetch_add(counts.dropped, Ordering::Relaxed);
    }
}

/// Work for whoever is here caused it, to be spawned as a task of its own.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> + use<F> {
    let behalf = BEHALF.try_with(Clone::clone).ok().flatten();
    BEHALF.scope(behalf, work)
}

/// A moment on both clocks: the one that people know, and the one that never jumps.
#[derive(Clone, Copy, Debug)]
struct Moment(SystemTime, Instant);

impl Moment {
    fn now() -> Self {
        Self(SystemTime::now(), Instant::now())
    }
}

#[cfg(test)]
mod tests;
