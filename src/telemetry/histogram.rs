//! How long things took, by classes: as Prometheus counts it, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Durations in classes, each up to a bound, and one for what is longer than all of them.
#[derive(Debug)]
pub struct Histogram {
    bounds_ms: &'static [u64],
    /// One more than there are bounds.
    counts: Box<[AtomicU64]>,
    sum_us: AtomicU64,
}

/// A histogram at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// How many were at most so long (seconds), shorter ones among them.
    pub up_to: Vec<(f64, u64)>,
    /// All there were.
    pub count: u64,
    /// All of them together, in seconds.
    pub sum_s: f64,
}

impl Histogram {
    /// Nothing yet. The bounds, in milliseconds, belong to the class below them and rise.
    #[must_use]
    pub fn new(bounds_ms: &'static [u64]) -> Self {
        let counts = std::iter::repeat_with(AtomicU64::default).take(bounds_ms.len() + 1).collect();
        Self { bounds_ms, counts, sum_us: AtomicU64::new(0) }
    }

    /// Counts one.
    pub fn observe(&self, took: Duration) {
        let class = self.bounds_ms.partition_point(|bound| Duration::from_millis(*bound) < took);
        self.counts[class].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What was counted. The classes agree with the count, also while others are counting.
    pub fn observed(&self) -> Observed {
        let mut count = 0;
        let mut up_to = Vec::with_capacity(self.bounds_ms.len());
        for (class, counted) in self.counts.iter().enumerate() {
            count += counted.load(Ordering::Relaxed);
            if let Some(bound_ms) = self.bounds_ms.get(class) {
                up_to.push((Duration::from_millis(*bound_ms).as_secs_f64(), count));
            }
        }
        let sum_s = Duration::from_micros(self.sum_us.load(Ordering::Relaxed)).as_secs_f64();
        Observed { up_to, count, sum_s }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_its_class_and_in_all_longer_ones() {
        let histogram = Histogram::new(&[5, 10, 1000]);
        for ms in [1, 5, 6, 1000, 60_000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let Observed { up_to, count, sum_s } = histogram.observed();
        assert_eq!(up_to, [(0.005, 2), (0.01, 3), (1.0, 4)]);
        assert_eq!((count, sum_s), (5, 61.012));
    }
}
