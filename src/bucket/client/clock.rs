//! How far this machine's clock is from the server's.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

/// No answer has told the time yet.
const UNKNOWN: i64 = i64::MIN;

/// Compares the `Date` of the first answer that has one with our own clock.
#[derive(Clone, Debug)]
pub(super) struct ServerClock {
    ahead_s: Arc<AtomicI64>,
}

impl ServerClock {
    pub(super) fn new() -> Self {
        Self { ahead_s: Arc::new(AtomicI64::new(UNKNOWN)) }
    }

    /// By how many seconds this machine's clock is ahead of the server's; negative where it is behind.
    /// Right to a second or two, and to the time that the answer took.
    pub(super) fn ahead_s(&self) -> Option<i64> {
        Some(self.ahead_s.load(Ordering::Relaxed)).filter(|ahead| *ahead != UNKNOWN)
    }
}

#[dyn_dispatch_hint]
impl Intercept for ServerClock {
    fn name(&self) -> &'static str {
        "ServerClock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // One look is enough, and this is on the way of every answer.
        if self.ahead_s().is_none()
            && let Some(ahead) =
                context.response().headers().get("date").and_then(|date| ahead_of(date, SystemTime::now()))
        {
            self.ahead_s.store(ahead, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn ahead_of(date: &str, now: SystemTime) -> Option<i64> {
    let theirs = DateTime::from_str(date, Format::HttpDate).ok()?.secs();
    let ours = now.duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(i64::try_from(ours).ok()? - theirs)
}

/// `1 h 2 min ahead of`, `5 min behind`.
pub(super) fn in_words(ahead_s: i64) -> String {
    let minutes = ahead_s.unsigned_abs() / 60;
    let far = match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{} s", ahead_s.unsigned_abs()),
        (0, minutes) => format!("{minutes} min"),
        (hours, 0) => format!("{hours} h"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    };
    format!("{far} {}", if ahead_s < 0 { "behind" } else { "ahead of" })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ahead_is_positive() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777 + 90);
        assert_eq!(ahead_of("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(90));
        assert_eq!(ahead_of("Sun, 06 Nov 1994 09:49:37 GMT", now), Some(90 - 3600));
        assert_eq!(ahead_of("yesterday", now), None);
    }

    #[test]
    fn a_span_is_told_with_its_direction() {
        assert_eq!(in_words(3600), "1 h ahead of");
        assert_eq!(in_words(-3725), "1 h 2 min behind");
        assert_eq!(in_words(-12), "12 s behind");
        assert_eq!(in_words(360), "6 min ahead of");
    }
}
