//! Logs: one line per event, to stderr or to a bounded file; names and secrets made safe; the last
//! problems kept for `s3mount status`. And what rooms count for the metrics with ([`Histogram`]), and tell of what they
//! do ([`spans`]).

mod histogram;
mod log_file;
mod recent;
mod sanitise;
pub mod spans;

use std::io;
use std::path::Path;

use serde::Deserialize;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, fmt, registry};

pub use histogram::{Histogram, Observed};
pub use recent::{Problem, last_problems};
pub use sanitise::{printable, redacted};

/// What is logged at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// What the user chose about the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub level: Level,
    pub format: Format,
}

/// The log of a running mount: first kept in memory, then in the file that [`Log::open`] names.
#[derive(Clone, Debug)]
pub struct Log(Option<log_file::LogFile>);

impl Log {
    /// Starts writing to this file, with what was logged before. Without effect on a log to stderr.
    ///
    /// # Errors
    /// When the file cannot be opened; its directory must exist.
    pub fn open(&self, path: &Path) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |file| file.open(path))
    }
}

/// Logs to stderr, for a process that stays in the foreground. Called once.
pub fn log_to_stderr(settings: Settings) -> Log {
    install(settings, io::stderr);
    Log(None)
}

/// Logs to a file that is named later. Called once.
pub fn log_to_file(settings: Settings) -> Log {
    let file = log_file::LogFile::default();
    install(settings, file.clone());
    Log(Some(file))
}

/// Our own events from `level` on. The SDK's only from warnings on, at `trace` its news as well, and never more: below
/// that it tells hundreds of lines a request, and prints headers: a customer's key (SSE-C) is in them.
/// `s3s` (the demo's server) calls every 404 an error.
fn filter(level: Level) -> EnvFilter {
    EnvFilter::new(match level {
        Level::Error => "error,s3s=off",
        Level::Warn => "warn,s3s=off",
        Level::Info => "warn,s3s=off,s3mount=info",
        Level::Debug => "warn,s3s=off,s3mount=debug",
        Level::Trace => "info,s3mount=trace",
    })
}

fn install<W>(settings: Settings, writer: W)
where
    W: for<'w> fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_ansi(false).with_writer(sanitise::Safe(writer));
    let lines = match settings.format {
        Format::Text => lines.with_target(false).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    let subscriber = registry().with(filter(settings.level)).with(recent::Recent).with(lines);
    // A second call (tests in one process) keeps the first log.
    let _ = tracing::subscriber::set_global_default(subscriber);
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let words = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(place, "bug: {}", printable(words));
    }));
}
