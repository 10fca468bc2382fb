//! A worker: the hooks of a settings file, run for what a queue says, without any mount.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::interrupts::Interrupts;
use super::metrics;
use super::otlp::Exporter;
use super::places::Places;
use super::rooms::{self, HOOK_GRACE};
use super::{Failure, serve};
use crate::config::Config;
use crate::error::Kind;
use crate::failpoint;
use crate::hooks::{self, HookSettings, HookSpec};
use crate::journal::Journal;
use crate::relay::{Queue, Relay};
use crate::telemetry;

/// SQS hides a message for twelve hours at most; below the other a heartbeat may come too late.
const LEAST_HIDDEN: Duration = Duration::from_secs(2);
const MOST_HIDDEN: Duration = Duration::from_hours(12);

/// Runs hooks for the messages of a queue (`sqs:URL`) until the process is told to end. A message stays
/// hidden from other workers for as long as `hidden` after the last word about it. Must be called before
/// any thread is started.
///
/// # Errors
/// Why it could not begin.
pub fn run_worker(config: Config, from: &str, hidden: Duration) -> Result<(), Failure> {
    failpoint::arm()?;
    let queue = queue(from)?;
    if !(LEAST_HIDDEN..=MOST_HIDDEN).contains(&hidden) {
        return Err(
            Failure::new(Kind::Usage, "a message can't be hidden for so long").hint("give --visibility from 2s to 12h")
        );
    }
    let Some(file) = config.hooks.clone() else {
        return Err(Failure::new(Kind::Usage, "there are no hooks to run").hint("name their settings: --hooks FILE"));
    };
    let specs = hooks::load_for(&file, &config.sources.bucket_name())?;
    telemetry::log_to_stderr(config.log);
    serve::on_runtime(consume(config, specs, queue, hidden))
}

async fn consume(config: Config, specs: Vec<HookSpec>, queue: Queue, hidden: Duration) -> Result<(), Failure> {
    let mut interrupts = Interrupts::new()?;
    let metrics = metrics::listen(config.metrics_listen).await?;
    let starting = async {
        // Hooks write without conditions.
        let connection = rooms::connect_untried(&config).await?;
        let places = Places::open(&config, &connection.layout, Path::new(queue.url()))
            .map_err(|failure| failure.hint("each worker of a queue needs a --state-dir of its own"))?;
        let journal = Journal::open(&places.state)?;
        let settings = HookSettings {
            prefix: config.sources.root_prefix().to_owned(),
            relay: Arc::new(Relay::new(connection.credentials.clone(), &connection.region)),
            ..HookSettings::new(specs, connection.layout.clone(), &places.state)
        };
        let bucket = Arc::clone(&connection.bucket);
        let hooks = Arc::new(block_in_place(|| hooks::open(settings, bucket, Arc::clone(&journal)))?);
        hooks.begin_with_queue(queue.clone(), hidden, &Handle::current()).await?;
        Ok::<_, Failure>((connection, hooks, journal, places))
    };
    let (connection, hooks, journal, _places) = tokio::select! {
        started = starting => started?,
        () = interrupts.next() => return Ok(()),
    };
    let working = metrics::Working::new(&config, &connection, &queue, &hooks);
    let about = working.about().to_vec();
    let look = metrics::look_at_worker(working);
    let exporter = Exporter::start(config.collector.as_ref(), &about, &look);
    let listens = metrics.as_ref().map(metrics::Listener::addr);
    let metrics = metrics.map(|listener| listener.serve(look));
    tracing::info!(source = %config.sources, queue = queue.url(), metrics = listens.map(tracing::field::display), "hooks run for what the queue says");
    interrupts.next().await;
    tracing::info!("what runs may end; what was not begun goes back to the queue");
    tokio::select! {
        () = hooks.stop(HOOK_GRACE) => {}
        // Twice: at once. What runs comes back when its time is over.
        () = interrupts.next() => {}
    }
    if let Some(metrics) = metrics {
        metrics.stop().await;
    }
    if let Some(exporter) = exporter {
        exporter.ending().await.send().await;
    }
    journal.close().await?;
    Ok(())
}

fn queue(from: &str) -> Result<Queue, Failure> {
    let wrong = |problem: String| {
        Failure::new(Kind::Usage, problem).hint("write --from sqs:https://sqs.REGION.amazonaws.com/ACCOUNT/NAME")
    };
    let url = from.strip_prefix("sqs:").ok_or_else(|| wrong(format!("'{}' is no queue", from.escape_debug())))?;
    Queue::at(url).map_err(wrong)
}
