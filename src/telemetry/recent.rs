//! The last problems, for `s3mount status`: what a user asks for first.

use std::collections::VecDeque;
use std::fmt::Write;
use std::time::SystemTime;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::{printable, redacted};

/// How many are kept.
const KEPT: usize = 16;
/// Longest text kept of one, in bytes.
const TEXT_BYTES: usize = 512;

/// A warning or an error that was logged.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Problem {
    /// Seconds since 1970.
    pub time_s: u64,
    /// `WARN` or `ERROR`.
    pub level: String,
    pub text: String,
}

static PROBLEMS: Mutex<VecDeque<Problem>> = Mutex::new(VecDeque::new());

/// The last problems of this process, oldest first; at most 16.
#[must_use]
pub fn last_problems() -> Vec<Problem> {
    PROBLEMS.lock().iter().cloned().collect()
}

/// Keeps every warning and error that passes the log's filter.
pub(super) struct Recent;

impl<S: Subscriber> Layer<S> for Recent {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        if level != Level::ERROR && level != Level::WARN {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let time_s = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        let mut problems = PROBLEMS.lock();
        if problems.len() == KEPT {
            problems.pop_front();
        }
        problems.push_back(Problem { time_s, level: level.to_string(), text: text.finish() });
    }
}

/// `message key=value …`, as in the log line.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn finish(self) -> String {
        let mut text = printable(&redacted(&(self.message + &self.fields)));
        if text.len() > TEXT_BYTES {
            let end = (0..=TEXT_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
            text.push('…');
        }
        text
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn warnings_are_kept_with_their_fields_and_news_are_not() {
        let subscriber = tracing_subscriber::registry().with(Recent);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("all is well");
            tracing::warn!(key = "a/b", "upload failed");
            for _ in 0..KEPT {
                tracing::error!("{}", "x".repeat(TEXT_BYTES * 2));
            }
            tracing::warn!(key = "c", "delete failed");
        });
        let problems = last_problems();
        assert_eq!(problems.len(), KEPT);
        let last = problems.last().unwrap();
        assert_eq!((last.level.as_str(), last.text.as_str()), ("WARN", "delete failed key=\"c\""));
        assert!(problems.iter().all(|problem| problem.text.len() <= TEXT_BYTES + '…'.len_utf8()));
        assert!(!problems.iter().any(|problem| problem.text.contains("well")));
    }
}
