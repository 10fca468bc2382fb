//! `--otlp-endpoint`: metrics and spans to a collector of OpenTelemetry, as protobuf over HTTP.
//!
//! Only the types of the protocol are a library's (`opentelemetry-proto`). Its SDK wants to own the counters, has no
//! histogram that others have counted, and makes a span before anybody knows that there is something to tell; what is
//! left, a queue and a POST, is here and in `telemetry/spans`. The way out is that of webhooks (`relay`).
//!
//! **Invariant**: the mount never waits for the collector. Spans go into a queue with a bound, and what finds no place
//! is dropped and counted; one task sends, and its end has a deadline.

mod of_metrics;
mod of_spans;
mod outlet;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval_at};
use uuid::Uuid;

use super::metrics::{Look, Metric};
use crate::config::Collector;
use crate::telemetry::spans::{self, Span, SpanCounts};
use outlet::{Outlet, Sent};

/// Spans of one message, as the SDKs of OpenTelemetry send them.
const MOST_SPANS: usize = 512;
/// How long a span waits for others at most.
const SPAN_DELAY: Duration = Duration::from_secs(5);
/// What could not be sent by then makes room for what is newer.
const MOST_TRIES: u32 = 12;
/// What the end of a mount waits for the collector.
const LAST_DEADLINE: Duration = Duration::from_secs(3);

/// Who sends, until the mount ends.
pub(super) struct Exporter {
    look: Look,
    end: oneshot::Sender<Vec<Metric>>,
    task: JoinHandle<()>,
}

/// What is sent when the rooms are closed, and can tell no more.
pub(super) struct Ending {
    exporter: Exporter,
    last: Vec<Metric>,
}

impl Exporter {
    /// Collects and sends from now on, if a collector is named. `about`: names and values of what this process has
    /// mounted, or works on.
    pub(super) fn start(collector: Option<&Collector>, about: &[(&str, String)], look: &Look) -> Option<Self> {
        let (collector, look) = (collector?.clone(), Arc::clone(look));
        let spans = spans::collect(collector.trace_ratio)?;
        let (end, ended) = oneshot::channel();
        let sender = Sender {
            look: Arc::clone(&look),
            resource: resource(about, &collector),
            begun: SystemTime::now(),
            interval: collector.interval,
            outlet: Outlet::to(collector),
            spans,
            batch: Vec::new(),
            tries: 0,
        };
        let task = tokio::spawn(sender.run(ended));
        Some(Self { look, end, task })
    }

    /// Looks at the rooms for the last time.
    pub(super) async fn ending(self) -> Ending {
        let last = look_at(&self.look).await;
        Ending { exporter: self, last }
    }
}

impl Ending {
    /// Sends what there is, and no longer than for 3 s.
    pub(super) async fn send(self) {
        let Exporter { look, end, task } = self.exporter;
        // It must not hold the rooms when the mount is over.
        drop(look);
        let _ = end.send(self.last);
        let _ = task.await;
    }
}

/// All metrics; nothing if looking at them panicked, which the log tells.
async fn look_at(look: &Look) -> Vec<Metric> {
    let look = Arc::clone(look);
    let looking = tokio::task::spawn_blocking(move || look().into_metrics());
    looking.await.unwrap_or_default()
}

/// The task that sends.
struct Sender {
    look: Look,
    resource: Resource,
    /// Since when metrics are counted.
    begun: SystemTime,
    interval: Duration,
    outlet: Outlet,
    spans: mpsc::Receiver<Span>,
    /// What is sent next, or once more.
    batch: Vec<Span>,
    /// How often that was tried.
    tries: u32,
}

impl Sender {
    async fn run(mut self, ended: oneshot::Receiver<Vec<Metric>>) {
        tokio::select! {
            () = self.work() => {}
            last = ended => {
                let last = last.unwrap_or_default();
                let _ = tokio::time::timeout(LAST_DEADLINE, self.finish(last)).await;
                self.give_up(0);
            }
        }
    }

    /// Sends for ever. May be dropped at any moment: what was not sent is still there.
    async fn work(&mut self) {
        let ticks = |every: Duration| {
            let mut ticks = interval_at(tokio::time::Instant::now() + every, every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let (mut for_metrics, mut for_spans) = (ticks(self.interval), ticks(SPAN_DELAY));
        loop {
            let room = MOST_SPANS - self.batch.len();
            tokio::select! {
                _ = for_metrics.tick() => {
                    let metrics = look_at(&self.look).await;
                    self.send_metrics(metrics).await;
                }
                _ = for_spans.tick() => drop(self.send_spans().await),
                count = self.spans.recv_many(&mut self.batch, room), if room > 0 => {
                    // One that was tried waits for the next tick.
                    if count == room && self.tries == 0 {
                        self.send_spans().await;
                    }
                }
            }
        }
    }

    /// Sends what is left: spans first, as nothing tells them again.
    async fn finish(&mut self, last: Vec<Metric>) {
        loop {
            while self.batch.len() < MOST_SPANS
                && let Ok(span) = self.spans.try_recv()
            {
                self.batch.push(span);
            }
            if self.batch.is_empty() || !self.send_spans().await {
                break;
            }
        }
        self.send_metrics(last).await;
    }

    async fn send_metrics(&mut self, metrics: Vec<Metric>) {
        if !metrics.is_empty() {
            let message = of_metrics::message(&self.resource, metrics, self.begun, SystemTime::now());
            // They count from the beginning: the next message tells all of it again.
            self.outlet.metrics(&message).await;
        }
    }

    /// Sends the batch; false when it has to be sent once more.
    async fn send_spans(&mut self) -> bool {
        if self.batch.is_empty() {
            return true;
        }
        self.tries += 1;
        let message = of_spans::message(&self.resource, &self.batch);
        match self.outlet.spans(&message).await {
            Sent::Taken { rejected } => self.give_up((self.batch.len() as u64).saturating_sub(rejected)),
            Sent::Refused => self.give_up(0),
            Sent::Away if self.tries >= MOST_TRIES => self.give_up(0),
            Sent::Away => return false,
        }
        true
    }

    /// Lets the batch go, of which so many were sent.
    fn give_up(&mut self, sent: u64) {
        spans::settle(SpanCounts { sent, dropped: self.batch.len() as u64 - sent });
        self.batch.clear();
        self.tries = 0;
    }
}

/// What sends: this process, and what it is about. What the environment says of it comes first.
fn resource(about: &[(&str, String)], collector: &Collector) -> Resource {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let own = [
        ("service.name", "s3mount".to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", Uuid::new_v4().to_string()),
        ("host.name", host),
        ("process.pid", std::process::id().to_string()),
    ];
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
    let about = about.iter().map(|(name, value)| (format!("s3mount.{name}"), value.clone()));
    let said = collector.attributes.iter().rev().map(|(name, value)| (name.clone(), value.clone()));
    let mut attributes: Vec<KeyValue> = Vec::new();
    for (name, value) in said.chain(own).chain(about) {
        if !attributes.iter().any(|known| known.key == name) {
            attributes.push(text(&name, value));
        }
    }
    Resource { attributes, ..Resource::default() }
}

fn scope() -> InstrumentationScope {
    let (name, version) = ("s3mount".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    InstrumentationScope { name, version, ..InstrumentationScope::default() }
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// Nanoseconds since 1970, to the year 2554.
fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
