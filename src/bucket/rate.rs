//! Bounds for the bytes that go over the link in a second, over all requests.
//!
//! A request goes when those before it have had their time, and then at the link's own speed: the
//! bound holds on average, over a few requests. Nothing is slowed down while it is under way, so no
//! deadline is touched.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// For each direction; `None` = as fast as it goes.
#[derive(Debug, Default)]
pub struct Rates {
    pub down: Option<Rate>,
    pub up: Option<Rate>,
}

/// Bytes in a second.
#[derive(Debug)]
pub struct Rate {
    bytes_per_s: u64,
    /// When all that went so far has had its time.
    free_at: Mutex<Option<Instant>>,
}

impl Rate {
    /// At most so many bytes in a second, but one.
    #[must_use]
    pub fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s: bytes_per_s.max(1), free_at: Mutex::default() }
    }

    /// Waits until these bytes may go. Who comes first goes first.
    pub async fn take(&self, bytes: u64) {
        tokio::time::sleep_until(self.turn(Instant::now(), bytes)).await;
    }

    /// Counts bytes of which nobody knew how many would come.
    pub fn count(&self, bytes: u64) {
        self.turn(Instant::now(), bytes);
    }

    /// When these bytes may go.
    fn turn(&self, now: Instant, bytes: u64) -> Instant {
        let mut free_at = self.free_at.lock();
        let turn = free_at.map_or(now, |free_at| free_at.max(now));
        *free_at = Some(turn + self.time_of(bytes));
        turn
    }

    fn time_of(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_s);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_goes_at_once_and_the_others_when_those_before_had_their_time() {
        let (rate, now) = (Rate::new(1000), Instant::now());
        let turns = [500, 1500, 1000].map(|bytes| rate.turn(now, bytes) - now);
        assert_eq!(turns, [0, 500, 2000].map(Duration::from_millis));
    }

    #[test]
    fn what_was_not_used_is_not_saved_up() {
        let (rate, now) = (Rate::new(1000), Instant::now());
        rate.turn(now, 1000);
        let later = now + Duration::from_mins(1);
        assert_eq!(rate.turn(later, 1000), later);
        assert_eq!(rate.turn(later, 1000), later + Duration::from_secs(1));
    }
}
