//! Read-ahead of one file handle: sees sequential use and asks for what will be read next.
//!
//! The kernel sends reads of 128 KiB to 1 MiB, several in flight and a little out of order, and a
//! program may read in a few places in turn. So a handle has up to four runs, and a read belongs to
//! the run that it lands near. The window of a run grows while its reader has to wait, to at most eight
//! times what the run has read: a program that reads a little wastes a little, one that is slower
//! than the link never fills the memory, and each round trip reaches nine times as far. The GETs grow
//! with it: large ones cost less, but the first of them would hold up all that lies behind it.
//!
//! Isolated reads fetch a stretch, see [`Reach`].

use std::ops::Range;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::{BLOCK_BYTES, BlockCache, Pinned, disk};

/// Runs told apart per handle.
const MAX_RUNS: usize = 4;
/// A read this near to the end of a run belongs to it: a program that skips a little still streams.
const MIN_SLACK_BYTES: u64 = 1 << 20;
/// The kernel's own window: so far may its requests overtake each other.
const MAX_SLACK_BYTES: u64 = 8 << 20;
/// What is fetched begins at a multiple of this: the disk keeps whole blocks of its own size.
const ALIGN_BYTES: u64 = disk::BLOCK_BYTES;
/// A first read this long, from the start of a file, will go on: the kernel reads so much at a time
/// only for programs that do.
const EAGER_BYTES: u64 = 512 << 10;
/// The window in units of what the run has read. Of a GiB, over 20 ms and 90 MB/s per connection, the
/// first 128 MiB took 235 ms with four.
const WINDOW_PER_READ: u64 = 8;
/// One GET of read-ahead asks for at most this part of what the run has read.
const READ_PER_PART: u64 = 8;
/// Longest GET of read-ahead in bytes: evicted as a whole.
const MAX_PART_BYTES: u64 = 8 << 20;

/// Per file handle: where it reads and what was fetched ahead for it. Dropping it cancels what it
/// asked for and nobody waits for.
#[derive(Debug, Default)]
pub struct ReadAhead {
    stream: Arc<Stream>,
}

impl ReadAhead {
    /// Of a handle that has read nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.stream.stop();
    }
}

/// The shared inside of a [`ReadAhead`]: fetched extents point to it, so that a read answered from
/// memory still moves the window.
#[derive(Debug, Default)]
pub(super) struct Stream {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whom the runs are about; set by the first read.
    subject: Option<(Weak<BlockCache>, Pinned)>,
    runs: Runs,
    reach: Reach,
    /// Counted among the streams that share the budget of read-ahead.
    counted: bool,
    stopped: bool,
}

impl Stream {
    /// Takes note of a read, which is answered from memory (`hit`) or not, and returns what should be
    /// fetched for it: the range and some around it.
    pub fn note(
        self: &Arc<Self>,
        object: &Pinned,
        range: &Range<u64>,
        cache: &Arc<BlockCache>,
        hit: bool,
    ) -> Range<u64> {
        let mut state = self.state.lock();
        if state.subject.as_ref().is_none_or(|(_, known)| known.etag != object.etag || known.key != object.key) {
            state.runs = Runs::default();
            state.reach = Reach::default();
            if let Some((_, known)) = state.subject.replace((Arc::downgrade(cache), object.clone())) {
                cache.abandon(&known, &(0..known.size), &Arc::downgrade(self));
            }
        }
        state.runs.note(range, hit);
        if state.runs.is_isolated() {
            state.reach.note(hit);
        }
        let reach_bytes = state.reach.bytes.min(cache.extent_share_bytes());
        state.runs.widened(range, object.size, reach_bytes)
    }

    /// Fetches ahead as far as the window allows, the budget has room and GETs are free.
    pub fn advance(self: &Arc<Self>, cache: &Arc<BlockCache>) {
        let mut state = self.state.lock();
        let State { subject, runs, counted, stopped, .. } = &mut *state;
        let Some((_, object)) = subject else { return };
        if *stopped {
            return;
        }
        for left in runs.retired.drain(..) {
            cache.abandon(object, &left, &Arc::downgrade(self));
        }
        let window_bytes = cache.ahead_share_bytes(*counted);
        while let Some(part) = runs.next_part(object.size, window_bytes, cache.ahead_parts()) {
            if !*counted {
                *counted = true;
                cache.ahead_streams(1);
            }
            if !cache.fetch_ahead(object, &part, self) {
                break;
            }
            runs.issued(part.end);
        }
    }

    fn stop(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.stopped = true;
        let Some((cache, object)) = state.subject.take() else { return };
        let Some(cache) = cache.upgrade() else { return };
        if state.counted {
            cache.ahead_streams(-1);
        }
        cache.abandon(&object, &(0..object.size), &Arc::downgrade(self));
    }
}

/// How much an isolated read fetches.
///
/// At 20 ms to the first byte a mebibyte costs a reader nothing (it has its page as soon as that has
/// come, the rest follows), and where reads are not quite random, or the file is small, it saves later
/// round trips. It pays if later reads land in what was fetched: the more do, the further it reaches;
/// where next to none do, as in a file of terabytes, it is given up.
#[derive(Clone, Copy, Debug)]
struct Reach {
    bytes: u64,
    /// Isolated reads since it was last judged, and how many of them were hits.
    reads: u32,
    hits: u32,
}

impl Reach {
    const FIRST_BYTES: u64 = 1 << 20;
    const MOST_BYTES: u64 = 8 << 20;
    /// It is judged after so many reads.
    const JUDGED_READS: u32 = 64;

    fn note(&mut self, hit: bool) {
        self.reads += 1;
        self.hits += u32::from(hit);
        if self.reads == Self::JUDGED_READS {
            if self.hits >= Self::JUDGED_READS / 4 {
                self.bytes = (self.bytes * 2).min(Self::MOST_BYTES);
            } else if self.hits <= Self::JUDGED_READS / 64 {
                self.bytes = (self.bytes / 2).max(ALIGN_BYTES);
            }
            (self.reads, self.hits) = (0, 0);
        }
    }
}

impl Default for Reach {
    fn default() -> Self {
        Self { bytes: Self::FIRST_BYTES, reads: 0, hits: 0 }
    }
}

/// One place of a file that is read forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// Furthest byte read.
    next: u64,
    /// Bytes read in this run.
    bytes: u64,
    reads: u64,
    /// So much may be fetched ahead of `next`.
    window: u64,
    /// Everything before was fetched, or asked for.
    issued: u64,
}

/// The runs of a handle, the current one last. Pure.
#[derive(Debug, Default)]
struct Runs {
    runs: Vec<Run>,
    /// Ranges fetched for runs that are given up.
    retired: Vec<Range<u64>>,
}

impl Runs {
    fn note(&mut self, range: &Range<u64>, hit: bool) {
        let bytes = range.end - range.start;
        let slack = (4 * bytes).clamp(MIN_SLACK_BYTES, MAX_SLACK_BYTES);
        let near = |run: &Run| run.next <= range.start + slack && range.start <= run.next + slack;
        let mut run = match self.runs.iter().rposition(near) {
            Some(index) => self.runs.remove(index),
            None => Run { next: range.start, bytes: 0, reads: 0, window: 0, issued: 0 },
        };
        run.next = run.next.max(range.end);
        run.bytes += bytes;
        run.reads += 1;
        if !hit {
            run.window = run.bytes * WINDOW_PER_READ;
        }
        self.runs.push(run);
        if self.runs.len() > MAX_RUNS {
            let left = self.runs.remove(0);
            if left.issued > 0 {
                self.retired.push(left.next.saturating_sub(MAX_SLACK_BYTES)..left.issued);
            }
        }
    }

    /// What to fetch when the current read misses: whole blocks from the start of a file and in a
    /// run, little around an isolated read, small objects whole.
    fn widened(&self, range: &Range<u64>, size: u64, reach_bytes: u64) -> Range<u64> {
        if size <= BLOCK_BYTES {
            return 0..size;
        }
        let start = range.start / ALIGN_BYTES * ALIGN_BYTES;
        let end = if self.is_isolated() && range.start > 0 {
            range.end.next_multiple_of(ALIGN_BYTES).max(start + reach_bytes)
        } else {
            range.end.next_multiple_of(BLOCK_BYTES)
        };
        start..end.min(size)
    }

    /// Whether the current read belongs to no run.
    fn is_isolated(&self) -> bool {
        self.runs.last().is_some_and(|run| run.reads == 1)
    }

    /// The next range to fetch ahead for the current run, if its window reaches that far: one of
    /// `parts` that the window is cut into.
    fn next_part(&self, size: u64, max_window_bytes: u64, parts: u64) -> Option<Range<u64>> {
        let run = self.runs.last()?;
        let eager = run.next == run.bytes && run.bytes >= EAGER_BYTES;
        if run.reads < 2 && !eager {
            return None;
        }
        let window = run.window.min(max_window_bytes).max(BLOCK_BYTES);
        let part = (window / parts).min(run.bytes / READ_PER_PART).next_multiple_of(BLOCK_BYTES);
        let part = part.clamp(BLOCK_BYTES, MAX_PART_BYTES);
        let start = run.issued.max(run.next.next_multiple_of(BLOCK_BYTES));
        let end = (start + part).min(size);
        (start < end && end <= run.next.next_multiple_of(BLOCK_BYTES) + window).then_some(start..end)
    }

    fn issued(&mut self, end: u64) {
        if let Some(run) = self.runs.last_mut() {
            run.issued = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const SIZE: u64 = 1 << 30;
    const WIDE: u64 = 128 * MIB;
    const PARTS: u64 = 32;

    fn noted(reads: &[(u64, u64)]) -> Runs {
        let mut runs = Runs::default();
        for (start, end) in reads {
            runs.note(&(*start..*end), false);
        }
        runs
    }

    /// All parts that the window has room for.
    fn parts(runs: &mut Runs, max_window_bytes: u64) -> Vec<Range<u64>> {
        let mut parts = Vec::new();
        while let Some(part) = runs.next_part(SIZE, max_window_bytes, PARTS) {
            runs.issued(part.end);
            parts.push(part);
        }
        parts
    }

    #[test]
    fn a_single_read_fetches_nothing_ahead() {
        assert_eq!(noted(&[(0, 4096)]).next_part(SIZE, WIDE, PARTS), None);
    }

    #[test]
    fn the_second_read_in_a_row_fetches_one_block_ahead() {
        let parts = parts(&mut noted(&[(0, 4096), (4096, 8192)]), WIDE);
        assert_eq!((parts.len(), parts[0].start, parts[0].end), (1, MIB, 2 * MIB));
    }

    #[test]
    fn the_window_grows_with_what_was_read_up_to_its_limit() {
        let mut runs = noted(&[(0, MIB)]);
        let mut ahead = Vec::new();
        for block in 1..200 {
            runs.note(&(block * MIB..(block + 1) * MIB), false);
            parts(&mut runs, WIDE);
            ahead.push(runs.runs[0].issued - runs.runs[0].next);
        }
        assert!(ahead.is_sorted() || ahead.windows(2).all(|pair| pair[1] + 8 * MIB > pair[0]), "{ahead:?}");
        assert_eq!(ahead[0], 16 * MIB);
        assert!(ahead[9] >= 80 * MIB, "{ahead:?}");
        assert!((WIDE - 4 * MIB..=WIDE).contains(&ahead[198]), "{ahead:?}");
    }

    #[test]
    fn parts_follow_each_other_and_are_many_in_a_wide_window() {
        let reads: Vec<_> = (0..64).map(|block| (block * MIB, (block + 1) * MIB)).collect();
        let parts = parts(&mut noted(&reads), WIDE);
        assert_eq!(parts.first().map(|part| part.start), Some(64 * MIB));
        assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert!(parts.len() >= 32 && parts.iter().all(|part| part.end - part.start == 4 * MIB), "{parts:?}");
    }

    #[test]
    fn nothing_is_fetched_beyond_the_end() {
        let mut runs = noted(&[(SIZE - 3 * MIB, SIZE - 2 * MIB), (SIZE - 2 * MIB, SIZE - MIB - 5)]);
        assert_eq!(parts(&mut runs, WIDE).last().map(|part| part.end), Some(SIZE));
        assert_eq!(noted(&[(SIZE - 10, SIZE - 5), (SIZE - 5, SIZE)]).next_part(SIZE, WIDE, PARTS), None);
    }

    #[test]
    fn two_readers_on_one_handle_are_two_runs() {
        let mut runs = Runs::default();
        for block in 0..4 {
            runs.note(&(block * MIB..(block + 1) * MIB), false);
            runs.note(&((block + 500) * MIB..(block + 501) * MIB), false);
        }
        assert_eq!(runs.runs.iter().map(|run| run.reads).collect::<Vec<_>>(), [4, 4]);
        assert_eq!(parts(&mut runs, WIDE).first().map(|part| part.start), Some(504 * MIB));
    }

    #[test]
    fn a_run_that_others_push_out_is_retired_with_what_it_fetched() {
        let mut runs = noted(&[(0, MIB), (MIB, 2 * MIB)]);
        parts(&mut runs, WIDE);
        for place in 1..=4 {
            assert!(runs.retired.is_empty());
            runs.note(&(place * 100 * MIB..place * 100 * MIB + 4096), false);
        }
        assert_eq!((runs.retired[0].start, runs.retired[0].end), (0, 18 * MIB));
        assert_eq!(runs.next_part(SIZE, WIDE, PARTS), None);
    }

    #[test]
    fn an_isolated_read_fetches_little_around_it_and_a_run_to_the_end_of_the_block() {
        let page = 300 * MIB + 5 * 4096;
        let runs = noted(&[(page, page + 4096)]);
        assert_eq!(runs.widened(&(page..page + 4096), SIZE, 2 * MIB), 300 * MIB..302 * MIB);
        assert_eq!(runs.widened(&(page..page + 4096), SIZE, 0), 300 * MIB..300 * MIB + ALIGN_BYTES);
        let runs = noted(&[(page, page + 4096), (page + 4096, page + 8192)]);
        assert_eq!(runs.widened(&(page + 4096..page + 8192), SIZE, 2 * MIB), 300 * MIB..301 * MIB);
    }

    #[test]
    fn the_window_stays_as_it_is_while_its_reader_never_waits() {
        let mut runs = noted(&[(0, MIB), (MIB, 2 * MIB)]);
        for block in 2..100 {
            runs.note(&(block * MIB..(block + 1) * MIB), true);
            parts(&mut runs, WIDE);
        }
        assert_eq!(runs.runs[0].issued, (100 + 16) * MIB);
    }

    #[test]
    fn a_file_that_is_begun_with_a_large_read_is_streamed_at_once() {
        assert_eq!(parts(&mut noted(&[(0, MIB)]), WIDE).last().map(|part| part.end), Some(9 * MIB));
        assert_eq!(noted(&[(0, 128 << 10)]).next_part(SIZE, WIDE, PARTS), None);
        assert_eq!(noted(&[(9 * MIB, 10 * MIB)]).next_part(SIZE, WIDE, PARTS), None);
    }

    #[test]
    fn isolated_reads_reach_further_where_it_pays_and_less_where_it_does_not() {
        let judged = |hits: u32, rounds: u32| {
            let mut reach = Reach::default();
            for read in 0..rounds * Reach::JUDGED_READS {
                reach.note(read % Reach::JUDGED_READS < hits);
            }
            reach.bytes
        };
        assert_eq!(judged(20, 1), 2 * MIB);
        assert_eq!(judged(20, 9), Reach::MOST_BYTES);
        assert_eq!(judged(8, 9), MIB);
        assert_eq!(judged(0, 9), ALIGN_BYTES);
    }
}
