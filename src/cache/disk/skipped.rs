//! What the disk was too slow for: noted, to be written when it has time.

use std::collections::VecDeque;
use std::ops::Range;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::super::Pinned;

/// Noted at most; what is beyond is not worth fetching again.
const MAX_BYTES: u64 = 256 << 20;
/// And so many ranges.
const MAX_RANGES: usize = 4096;

/// Ranges that were not written.
#[derive(Default)]
pub(super) struct Skipped {
    noted: Mutex<Noted>,
    more: Notify,
}

#[derive(Default)]
struct Noted {
    ranges: VecDeque<(Pinned, Range<u64>)>,
    bytes: u64,
}

impl Skipped {
    /// Notes a range; the oldest go when there are too many.
    pub fn note(&self, object: &Pinned, range: Range<u64>) {
        let mut noted = self.noted.lock();
        noted.bytes += range.end - range.start;
        noted.ranges.push_back((object.clone(), range));
        while noted.bytes > MAX_BYTES || noted.ranges.len() > MAX_RANGES {
            let Some((_, oldest)) = noted.ranges.pop_front() else { break };
            noted.bytes -= oldest.end - oldest.start;
        }
        self.more.notify_one();
    }

    /// The range noted last, of which most is still in memory; waits for one.
    pub async fn next(&self) -> (Pinned, Range<u64>) {
        loop {
            if let Some((object, range)) = self.noted.lock().take_last() {
                return (object, range);
            }
            self.more.notified().await;
        }
    }
}

impl Noted {
    fn take_last(&mut self) -> Option<(Pinned, Range<u64>)> {
        let last = self.ranges.pop_back()?;
        self.bytes -= last.1.end - last.1.start;
        Some(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::ETag;

    #[tokio::test]
    async fn the_newest_come_first_and_the_oldest_go() {
        let skipped = Skipped::default();
        let object = Pinned { key: "k".into(), etag: ETag::new("v"), size: u64::MAX };
        let step = MAX_BYTES / 4;
        for number in 0..6 {
            skipped.note(&object, number * step..(number + 1) * step);
        }
        for number in [5, 4, 3, 2] {
            assert_eq!(skipped.next().await.1.start, number * step);
        }
        assert!(skipped.noted.lock().ranges.is_empty());
    }
}
