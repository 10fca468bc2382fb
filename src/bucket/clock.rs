//! What time it is at the server, as its answers tell.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// By so much may be wrong what is known of the server's clock from ours, and a date that is told in seconds.
pub const CLOCK_ERROR: Duration = Duration::from_secs(3);
/// Clocks drift: a `Date` says nothing any more of later than this.
const DATE_STANDS: Duration = Duration::from_mins(10);
/// A clock that is so far behind what it said before was set.
const SET_BACK: Duration = Duration::from_secs(2);

/// The clock of a server. Cheap to clone; all clones learn from each answer.
#[derive(Clone, Debug, Default)]
pub struct ServerClock(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    ahead_s: Option<i64>,
    /// The date of which most is known by now: told just after its second began.
    latest: Option<(SystemTime, Instant)>,
}

impl Told {
    /// It is not earlier than this there.
    fn now(&self) -> Option<SystemTime> {
        let (date, at) = self.latest.filter(|(_, at)| at.elapsed() < DATE_STANDS)?;
        Some(date + at.elapsed())
    }
}

impl ServerClock {
    /// One that this machine's is so many seconds ahead of, and that answers do not tell.
    #[must_use]
    pub fn behind_by_s(ahead_s: i64) -> Self {
        Self(Arc::new(Mutex::new(Told { ahead_s: Some(ahead_s), latest: None })))
    }

    /// An answer that has just come says that it is this late, in whole seconds.
    pub fn note(&self, date: SystemTime) {
        let (Ok(ours), Ok(theirs)) = (SystemTime::now().duration_since(UNIX_EPOCH), date.duration_since(UNIX_EPOCH))
        else {
            return;
        };
        let mut told = self.0.lock();
        told.ahead_s = Some(ours.as_secs().cast_signed() - theirs.as_secs().cast_signed());
        if told.now().is_none_or(|known| date > known || date + SET_BACK < known) {
            told.latest = Some((date, Instant::now()));
        }
    }

    /// By how many seconds this machine's clock is ahead of the server's; negative where it is behind.
    /// Right to a second or two, and to the time that an answer takes; `None` until one has told the time.
    #[must_use]
    pub fn ahead_s(&self) -> Option<i64> {
        self.0.lock().ahead_s
    }

    /// No earlier than this is it there, but for some milliseconds; `None` where answers do not tell the time.
    #[must_use]
    pub fn now(&self) -> Option<SystemTime> {
        self.0.lock().now()
    }

    /// What S3 has said to have stored until now is not dated later than this, at least not later than in this second.
    #[must_use]
    pub fn stored_by(&self) -> SystemTime {
        self.now().unwrap_or_else(|| later(SystemTime::now() + CLOCK_ERROR, -self.ahead_s().unwrap_or(0)))
    }
}

/// So many seconds later, or earlier if they are negative.
#[must_use]
pub fn later(time: SystemTime, seconds: i64) -> SystemTime {
    let apart = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { time - apart } else { time + apart }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second that has begun.
    fn second(time: SystemTime) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(time.duration_since(UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn answers_tell_the_time() {
        let clock = ServerClock::default();
        assert_eq!((clock.ahead_s(), clock.now()), (None, None));
        assert!(clock.stored_by() > SystemTime::now() + Duration::from_secs(2), "nobody knows");
        let date = second(SystemTime::now()) - Duration::from_hours(1);
        clock.clone().note(date);
        assert!((3_600..=3_601).contains(&clock.ahead_s().unwrap()));
        assert!(clock.now().unwrap() >= date && clock.stored_by() < date + Duration::from_mins(1));
    }

    #[test]
    fn of_what_answers_tell_the_latest_counts() {
        let clock = ServerClock::default();
        let date = second(SystemTime::now());
        clock.note(date);
        clock.note(date - Duration::from_secs(1));
        assert!(clock.now().unwrap() >= date, "an answer that was long on its way");
        clock.note(date + Duration::from_secs(9));
        assert!(clock.now().unwrap() >= date + Duration::from_secs(9));
        clock.note(date);
        assert!(clock.now().unwrap() < date + Duration::from_secs(9), "it was set");
    }

    #[test]
    fn a_clock_that_nobody_tells_is_known_to_some_seconds() {
        let behind = ServerClock::behind_by_s(3_600);
        let (now, hour) = (SystemTime::now(), Duration::from_hours(1));
        assert!(behind.stored_by() < now - hour + 2 * CLOCK_ERROR && behind.stored_by() > now - hour);
        assert!(ServerClock::behind_by_s(-3_600).stored_by() > now + hour);
    }
}
