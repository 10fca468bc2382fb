//! The `Date` of each answer, and how far this machine's clock is from the server's in words.

use std::time::SystemTime;

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

use crate::bucket::clock::ServerClock;

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
        if let Some(date) = context.response().headers().get("date").and_then(parse) {
            self.note(date);
        }
        Ok(())
    }
}

fn parse(date: &str) -> Option<SystemTime> {
    DateTime::from_str(date, Format::HttpDate).ok()?.try_into().ok()
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
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_date_is_one_of_http() {
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 GMT"), Some(UNIX_EPOCH + Duration::from_secs(784_111_777)));
        assert_eq!(parse("yesterday"), None);
    }

    #[test]
    fn a_span_is_told_with_its_direction() {
        assert_eq!(in_words(3600), "1 h ahead of");
        assert_eq!(in_words(-3725), "1 h 2 min behind");
        assert_eq!(in_words(-12), "12 s behind");
        assert_eq!(in_words(360), "6 min ahead of");
    }
}
