//! How the next version of a large object is put together: what did not change is copied inside of
//! S3, what did is sent.
//!
//! S3 wants 5 MiB of every part but the last, so a small change is made larger, at one edge only: then
//! one GET fetches what it lacks. What lies between two changes is copied only where it is a part
//! itself, and so neighbours become one.

use std::ops::Range;

use super::{MAX_PARTS, MIN_PART_BYTES};

/// Copied in one request, up to twice that: copies run side by side, and a server takes as long for one as
/// it has bytes.
const COPY_BYTES: u64 = 128 << 20;

/// Never cut larger: with what is left over at an end, a part stays below what S3 takes.
const MOST_BYTES: u64 = 4 << 30;
/// The same for copies, which may be twice as long.
const MOST_COPY_BYTES: u64 = 2 << 30;

/// One part of the next version, by its range there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlannedPart {
    /// The same range of the version before.
    Copy(Range<u64>),
    /// Bytes that have to be sent.
    Send(Range<u64>),
}

/// Plans an object of `size` bytes of which these ranges, in order, are as in the version before.
/// Where nothing is worth a copy, all of it is sent. `part_bytes` are sent in one part, or somewhat
/// more; at most 10,000 parts come out for the largest object.
#[must_use]
pub fn plan(size: u64, untouched: &[Range<u64>], part_bytes: u64) -> Vec<PlannedPart> {
    let (mut least_copy, mut part_bytes, mut copy_bytes) = (MIN_PART_BYTES, part_bytes.max(MIN_PART_BYTES), COPY_BYTES);
    loop {
        let parts = cut_all(size, &copies(size, untouched, least_copy), part_bytes, copy_bytes);
        if parts.len() as u64 <= MAX_PARTS {
            return parts;
        }
        least_copy *= 2;
        (part_bytes, copy_bytes) = ((part_bytes * 2).min(MOST_BYTES), (copy_bytes * 2).min(MOST_COPY_BYTES));
    }
}

/// What is copied: each range is at least so long, but for the last of the object, and what lies
/// between two of them is long enough to be a part.
fn copies(size: u64, untouched: &[Range<u64>], least: u64) -> Vec<Range<u64>> {
    let mut kept: Vec<Range<u64>> = Vec::new();
    let mut changed_from = 0;
    for range in untouched.iter().filter(|range| length(range) >= least) {
        let mut range = range.clone();
        let changed = range.start - changed_from;
        if (1..MIN_PART_BYTES).contains(&changed) {
            let lacks = MIN_PART_BYTES - changed;
            let is_last = range.end == size;
            let before = kept.last_mut().filter(|before| length(before) >= lacks + least);
            if (is_last && length(&range) > MIN_PART_BYTES) || (!is_last && length(&range) >= lacks + least) {
                range.start += lacks;
            } else if let Some(before) = before.filter(|_| !is_last) {
                before.end -= lacks;
            } else {
                // The change grows over all of it, and goes on behind it.
                continue;
            }
        }
        changed_from = range.end;
        kept.push(range);
    }
    kept
}

fn cut_all(size: u64, copies: &[Range<u64>], part_bytes: u64, copy_bytes: u64) -> Vec<PlannedPart> {
    let mut parts = Vec::new();
    let mut at = 0;
    for copy in copies {
        parts.extend(cut(at..copy.start, part_bytes).map(PlannedPart::Send));
        parts.extend(split(copy.clone(), copy_bytes).map(PlannedPart::Copy));
        at = copy.end;
    }
    parts.extend(cut(at..size, part_bytes).map(PlannedPart::Send));
    parts
}

/// Parts of `bytes` each. A rest too small for a part goes with the last.
fn cut(range: Range<u64>, bytes: u64) -> impl Iterator<Item = Range<u64>> {
    let (whole, rest) = (length(&range) / bytes, length(&range) % bytes);
    let count = if rest >= MIN_PART_BYTES || (whole == 0 && rest > 0) { whole + 1 } else { whole };
    let end_of = move |index| if index + 1 == count { range.end } else { range.start + (index + 1) * bytes };
    (0..count).map(move |index| range.start + index * bytes..end_of(index))
}

/// As many equal parts as hold `bytes` each, at least.
fn split(range: Range<u64>, bytes: u64) -> impl Iterator<Item = Range<u64>> {
    let count = (length(&range) / bytes).max(1);
    let each = length(&range) / count;
    let end_of = move |index| if index + 1 == count { range.end } else { range.start + (index + 1) * each };
    (0..count).map(move |index| range.start + index * each..end_of(index))
}

fn length(range: &Range<u64>) -> u64 {
    range.end - range.start
}

#[cfg(test)]
mod tests;
