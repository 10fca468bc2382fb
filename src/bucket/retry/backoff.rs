//! How long to wait before the next try, and how many tries the whole mount may make.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Waits `base · 2ⁿ`, at most `longest`, and of that a random part ("full jitter"): clients that
/// failed together must not come back together.
#[must_use]
pub fn pause(base: Duration, longest: Duration, attempt: u32) -> Duration {
    let full = doubled(base, attempt.saturating_sub(1)).min(longest);
    // At least a tenth: a pause of nothing is no pause.
    full.mul_f64(0.1 + 0.9 * random_fraction())
}

/// `base · 2ⁿ`, as far as that goes.
#[must_use]
pub fn doubled(base: Duration, times: u32) -> Duration {
    base.saturating_mul(1 << times.min(30))
}

/// Between 0 and 1. The hasher's keys are random for each call: enough to spread tries.
#[must_use]
pub fn random_fraction() -> f64 {
    f64::from(RandomState::new().build_hasher().finish() as u32) / f64::from(u32::MAX)
}

/// Tries beyond the first that all operations together may make: a burst, then a trickle. In an
/// outage with hundreds of operations waiting, the server gets this many requests and not all of
/// them again and again.
#[derive(Debug)]
pub(super) struct RetryBudget {
    state: Mutex<(f64, Instant)>,
}

const BURST: f64 = 256.0;
const PER_SECOND: f64 = 16.0;

impl RetryBudget {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new((BURST, Instant::now())) }
    }

    /// Takes one try, or tells when to ask again.
    pub(super) fn take(&self) -> Result<(), Duration> {
        let mut state = self.state.lock();
        let now = Instant::now();
        let earned = now.duration_since(state.1).as_secs_f64() * PER_SECOND;
        *state = ((state.0 + earned).min(BURST), now);
        if state.0 >= 1.0 {
            state.0 -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - state.0) / PER_SECOND))
    }

    /// A request that succeeded earns one.
    pub(super) fn earn(&self) {
        let mut state = self.state.lock();
        state.0 = (state.0 + 1.0).min(BURST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_are_never_nothing() {
        let (base, longest) = (Duration::from_millis(100), Duration::from_secs(5));
        for attempt in 1..100 {
            let pause = pause(base, longest, attempt);
            assert!(pause >= base / 10 && pause <= longest, "{attempt}: {pause:?}");
        }
        let drawn: Vec<_> = (0..20).map(|_| pause(base, longest, 5)).collect();
        assert!(drawn.iter().any(|pause| *pause != drawn[0]), "no jitter");
    }

    #[test]
    fn the_budget_ends_and_is_earned_again() {
        let budget = RetryBudget::new();
        let taken = (0..1000).filter(|_| budget.take().is_ok()).count();
        assert!((256..400).contains(&taken), "{taken}");
        assert!(budget.take().is_err_and(|wait| wait <= Duration::from_millis(63)));
        budget.earn();
        assert!(budget.take().is_ok());
    }
}
