//! How an object is cut into parts whose size nobody knows yet: by the number of a part alone.
//!
//! So parts can leave while the object is still being written, and an upload goes on with them when it
//! has been. The first thousand parts have the wanted size, then each 32 parts are larger by it: 10,000
//! parts of 5 MiB at first hold 5 TiB, the largest object, and the first 8 GiB go in parts of 8 MiB.

use std::ops::Range;

use super::{MAX_PART_BYTES, MAX_PARTS};

/// So many parts have the first size.
const LEVEL_PARTS: u64 = 1_000;
/// So many parts in a row have the same size after that.
const STEP_PARTS: u64 = 32;

/// The parts of every object that is sent, from its size on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    part_bytes: u64,
}

impl Schedule {
    /// With first parts of this size, at least 5 MiB.
    #[must_use]
    pub fn new(part_bytes: u64) -> Self {
        Self { part_bytes: part_bytes.max(super::MIN_PART_BYTES) }
    }

    /// Number and range of every part that an object can have, in order.
    pub fn parts(self) -> impl Iterator<Item = (u16, Range<u64>)> {
        (0..MAX_PARTS).scan(0, move |start, index| {
            let range = *start..*start + self.bytes_of(index);
            *start = range.end;
            Some((u16::try_from(index + 1).ok()?, range))
        })
    }

    /// The parts of an object of this size; an empty one is one empty part.
    pub fn parts_of(self, size: u64) -> impl Iterator<Item = (u16, Range<u64>)> {
        let cut = move |(number, range): (u16, Range<u64>)| (number, range.start..range.end.min(size));
        self.parts().take_while(move |(number, range)| *number == 1 || range.start < size).map(cut)
    }

    fn bytes_of(self, index: u64) -> u64 {
        let larger_by = index.saturating_sub(LEVEL_PARTS).div_ceil(STEP_PARTS);
        (self.part_bytes * (1 + larger_by)).min(MAX_PART_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::super::MIN_PART_BYTES;
    use super::*;

    #[test]
    fn ten_thousand_parts_hold_the_largest_object_whatever_their_first_size() {
        for part_bytes in [1, MIN_PART_BYTES, 8 << 20, 64 << 20] {
            let schedule = Schedule::new(part_bytes);
            let last = schedule.parts_of(5 << 40).last().unwrap();
            assert_eq!(last.1.end, 5 << 40, "{part_bytes}");
            assert!(schedule.parts().all(|(_, range)| range.end - range.start <= MAX_PART_BYTES));
        }
    }

    #[test]
    fn parts_follow_each_other_and_none_but_the_last_is_smaller_than_s3_takes() {
        let mut end = 0;
        for (index, (number, range)) in Schedule::new(8 << 20).parts().enumerate() {
            assert_eq!((range.start, usize::from(number)), (end, index + 1));
            assert!(range.end - range.start >= MIN_PART_BYTES);
            end = range.end;
        }
    }

    #[test]
    fn the_first_eight_gibibytes_go_in_parts_of_the_wanted_size() {
        let mut parts = Schedule::new(8 << 20).parts_of(8_000 << 20);
        assert!(parts.all(|(_, range)| range.end - range.start == 8 << 20));
    }

    #[test]
    fn the_last_part_ends_with_the_object_and_an_empty_object_is_one_empty_part() {
        let schedule = Schedule::new(5 << 20);
        let parts: Vec<_> = schedule.parts_of((10 << 20) + 1).collect();
        assert_eq!(parts, [(1, 0..5 << 20), (2, 5 << 20..10 << 20), (3, 10 << 20..(10 << 20) + 1)]);
        assert_eq!(schedule.parts_of(10 << 20).count(), 2);
        assert_eq!(schedule.parts_of(0).collect::<Vec<_>>(), [(1, 0..0)]);
    }
}
