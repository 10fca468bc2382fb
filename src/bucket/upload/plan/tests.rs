use proptest::prelude::*;
use rangemap::RangeSet;

use super::PlannedPart::{Copy, Send};
use super::*;

const MIB: u64 = 1 << 20;
const PART: u64 = 8 * MIB;

/// The plan for an object in which these ranges were written over.
fn changed(size: u64, written: &[Range<u64>]) -> Vec<PlannedPart> {
    plan(size, &rest(size, size, written), PART)
}

fn only(range: Range<u64>) -> Vec<Range<u64>> {
    vec![range]
}

/// What is left of the first `limit` bytes.
fn rest(size: u64, limit: u64, written: &[Range<u64>]) -> Vec<Range<u64>> {
    let written: RangeSet<u64> = written.iter().filter(|range| !range.is_empty()).cloned().collect();
    let limit = limit.min(size);
    if limit == 0 { Vec::new() } else { written.gaps(&(0..limit)).collect() }
}

fn ranges(plan: &[PlannedPart]) -> impl Iterator<Item = &Range<u64>> {
    plan.iter().map(|part| match part {
        Copy(range) | Send(range) => range,
    })
}

#[test]
fn a_small_change_is_grown_at_one_edge_and_the_rest_is_copied() {
    let plan = changed(256 * MIB, &only(100 * MIB..100 * MIB + 4096));
    assert_eq!(plan, [Copy(0..100 * MIB), Send(100 * MIB..105 * MIB), Copy(105 * MIB..256 * MIB)]);
}

#[test]
fn what_is_appended_is_the_last_part_and_needs_no_edge() {
    let (size, end) = (256 * MIB + 4096, 256 * MIB);
    let plan = plan(size, &rest(size, end, &only(end..size)), PART);
    assert_eq!(plan, [Copy(0..end / 2), Copy(end / 2..end), Send(end..size)]);
}

#[test]
fn a_change_anywhere_in_a_quarter_of_a_gibibyte_costs_two_copies_at_most() {
    for at in (0..256).step_by(4) {
        let plan = changed(256 * MIB, &only(at * MIB..at * MIB + 4096));
        assert!(plan.iter().filter(|part| matches!(part, Copy(_))).count() <= 2, "{plan:?}");
    }
}

#[test]
fn a_long_copy_goes_in_equal_parts() {
    let plan = changed(1000 * MIB, &only(0..5 * MIB));
    let copies: Vec<_> =
        plan[1..].iter().map(|part| length(ranges(std::slice::from_ref(part)).next().unwrap())).collect();
    assert_eq!(copies.iter().sum::<u64>(), 995 * MIB);
    assert_eq!(copies.len(), 7);
    assert!(copies.iter().all(|bytes| *bytes - copies[0] < 7), "{copies:?}");
}

#[test]
fn a_change_near_the_end_runs_to_the_end() {
    assert_eq!(changed(64 * MIB, &only(62 * MIB..62 * MIB + 1)), [Copy(0..62 * MIB), Send(62 * MIB..64 * MIB)]);
}

#[test]
fn a_change_at_the_begin_grows_forward() {
    assert_eq!(changed(64 * MIB, &only(0..1)), [Send(0..5 * MIB), Copy(5 * MIB..64 * MIB)]);
}

#[test]
fn neighbouring_changes_become_one() {
    let plan = changed(64 * MIB, &[20 * MIB..20 * MIB + 1, 24 * MIB..25 * MIB]);
    assert_eq!(plan, [Copy(0..20 * MIB), Send(20 * MIB..25 * MIB), Copy(25 * MIB..64 * MIB)]);
}

#[test]
fn a_change_before_a_narrow_gap_grows_backward() {
    let plan = changed(64 * MIB, &[20 * MIB..21 * MIB, 27 * MIB..32 * MIB]);
    let expected = [
        Copy(0..16 * MIB),
        Send(16 * MIB..21 * MIB),
        Copy(21 * MIB..27 * MIB),
        Send(27 * MIB..32 * MIB),
        Copy(32 * MIB..64 * MIB),
    ];
    assert_eq!(plan, expected);
}

#[test]
fn what_changed_all_over_is_sent_in_plain_parts() {
    let written: Vec<_> = (0..16).map(|index| index * 4 * MIB..index * 4 * MIB + 4096).collect();
    let plan = changed(64 * MIB, &written);
    assert_eq!(plan, (0..8).map(|index| Send(index * PART..(index + 1) * PART)).collect::<Vec<_>>());
}

#[test]
fn the_largest_object_is_no_more_than_ten_thousand_parts() {
    let size = 5 << 40;
    let scattered: Vec<_> = (0..100_000).map(|index| index * 50 * MIB..index * 50 * MIB + 1).collect();
    for written in [Vec::new(), only(0..1), only(size - 1..size), scattered] {
        let plan = changed(size, &written);
        assert!(plan.len() as u64 <= MAX_PARTS, "{}", plan.len());
        assert!(ranges(&plan).all(|range| length(range) <= super::super::MAX_PART_BYTES));
    }
}

proptest! {
    /// Whatever was written: the parts are the object, none is too small, nothing that was written is
    /// copied, and what has to be fetched for a lonely change is less than a part.
    #[test]
    fn every_plan_is_the_object(
        size in 16 * MIB..96 * MIB,
        limit in 0..96 * MIB,
        written in prop::collection::vec((0..96 * MIB, 1..6 * MIB), 0..8),
    ) {
        let written: Vec<_> = written.iter().map(|(at, len)| (*at).min(size)..(at + len).min(size)).collect();
        let untouched = rest(size, limit, &written);
        let parts = plan(size, &untouched, PART);
        let mut end = 0;
        for (index, part) in parts.iter().enumerate() {
            let (Copy(range) | Send(range)) = part;
            prop_assert_eq!(range.start, end);
            prop_assert!(length(range) >= MIN_PART_BYTES || index + 1 == parts.len());
            if let Copy(range) = part {
                prop_assert!(untouched.iter().any(|whole| whole.start <= range.start && range.end <= whole.end));
            }
            end = range.end;
        }
        prop_assert_eq!(end, size);
        let sent: u64 = parts.iter().map(|part| if let Send(range) = part { length(range) } else { 0 }).sum();
        let kept: u64 = untouched.iter().map(length).sum();
        let gaps = untouched.len() as u64 + 1;
        prop_assert!(sent <= size - kept + gaps * 2 * MIN_PART_BYTES);
    }
}
