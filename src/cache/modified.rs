//! `Last-Modified` of a version, as far as it is known.
//!
//! A change of attributes is a copy of the object onto itself, which keeps the tag: only this date tells that there
//! was one, and only to the second.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::bucket::clock::{CLOCK_ERROR, later};

/// The `Date` of an answer may be so much behind what it is about: told from an older second by a server that is busy, or
/// by what stands before it.
const DATE_BEHIND: Duration = Duration::from_secs(1);

/// When S3 stored the version of which the attributes are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Modified {
    /// Nobody has told.
    #[default]
    Unknown,
    /// Told by S3 when that second was over.
    At(SystemTime),
    /// Told by S3 when that second may not have been over: another change in it would have the same date. So it is
    /// worth nothing once this time of our own clock has come, and S3 has to be asked again.
    JustNow { date: SystemTime, until: SystemTime },
    /// Written from here, by this second of the server's clock: PUT does not tell.
    By(SystemTime),
}

impl Modified {
    /// Then a change of a version has a later date than who stored it takes for his own: his answer may have come in the
    /// next second, and another one is allowed for.
    pub const OUTLIVED_AFTER: Duration = Duration::from_secs(3);

    /// The date that S3 has just told beside the attributes; our clock is ahead of its clock by so many seconds.
    pub fn told(date: SystemTime, clock_ahead_s: i64) -> Self {
        Self::told_at(SystemTime::now(), date, clock_ahead_s)
    }

    /// As [`Modified::told`], of an answer that came at this time of our clock or later.
    pub fn told_at(when: SystemTime, date: SystemTime, clock_ahead_s: i64) -> Self {
        let until = later(date + CLOCK_ERROR, clock_ahead_s);
        if when >= until { Self::At(date) } else { Self::JustNow { date, until } }
    }

    /// Whether an object of the same tag that is listed with this date is the version that is known.
    pub fn is(self, listed: SystemTime) -> bool {
        match self {
            Self::Unknown => false,
            Self::At(date) => same_second(date, listed),
            Self::JustNow { date, until } => same_second(date, listed) && SystemTime::now() < until,
            Self::By(latest) => second_of(listed) <= second_of(latest) + DATE_BEHIND,
        }
    }

    /// With what a listing says of this version.
    #[must_use]
    pub fn or(self, listed: SystemTime) -> Self {
        if self.date().is_some() { self } else { Self::At(listed) }
    }

    /// From when on, by the server's clock, whoever has stored a version that S3 has just told of sees a change of it.
    pub fn outlived_at(self) -> Option<SystemTime> {
        if let Self::JustNow { date, .. } = self { Some(second_of(date) + Self::OUTLIVED_AFTER) } else { None }
    }

    /// The date, if S3 has told it.
    pub fn date(self) -> Option<SystemTime> {
        match self {
            Self::At(date) | Self::JustNow { date, .. } => Some(date),
            Self::Unknown | Self::By(_) => None,
        }
    }
}

/// The second in which a date lies.
fn second_of(time: SystemTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(time.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs()))
}

/// LIST gives milliseconds, HEAD whole seconds.
fn same_second(left: SystemTime, right: SystemTime) -> bool {
    second_of(left) == second_of(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_holds_for_its_second() {
        let date = UNIX_EPOCH + Duration::from_secs(1_000);
        let told = Modified::told(date, 0);
        assert_eq!(told, Modified::At(date));
        assert!(told.is(date + Duration::from_millis(999)));
        assert!(!told.is(date + Duration::from_secs(1)) && !told.is(date - Duration::from_millis(1)));
    }

    #[test]
    fn a_date_told_within_its_second_is_believed_for_a_moment() {
        let now = SystemTime::now();
        let told = Modified::told(now, 0);
        assert!(told.is(now) && !told.is(now + Duration::from_secs(1)));
        let Modified::JustNow { date, .. } = told else { panic!("{told:?}") };
        assert!(!Modified::JustNow { date, until: now }.is(now), "its time is over");
        // By a clock that is an hour behind ours this is long ago, by one that is ahead it is to come.
        assert_eq!(Modified::told(now - Duration::from_hours(1), 0), Modified::At(now - Duration::from_hours(1)));
        assert!(matches!(Modified::told(now - Duration::from_hours(1), 3_600), Modified::JustNow { .. }));
    }

    #[test]
    fn what_was_written_here_is_not_what_is_dated_later() {
        let second = UNIX_EPOCH + Duration::from_secs(1_000);
        let written = Modified::By(second + Duration::from_millis(100));
        assert!(written.is(second) && written.is(second + Duration::from_millis(1_999)));
        assert!(written.is(second - Duration::from_mins(10)), "begun long ago, in parts");
        assert!(!written.is(second + Duration::from_secs(2)), "another client has written since");
        assert_eq!((written.date(), written.or(second)), (None, Modified::At(second)));
    }
}
