//! How many GETs of read-ahead the link rewards, found by measuring.
//!
//! A GET that is added pays as long as the others hardly get slower by it: then the link, the server
//! and this machine had something left. So the time of each GET is held against the best that was
//! seen for its size. On a line of 12 MB/s two or three at a time are enough, and a read elsewhere in
//! the file is not queued behind a hundred megabytes; where each connection brings 90 MB/s and there
//! is no end of them, as many run as there are permits.
//!
//! Below a quarter of a second nothing is taken away: at 1 GB/s that is a window of 250 MB, and on a
//! machine that is busy with other things every GET is slow, but fewer would be slower still.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// GETs at a time before anything was measured: enough to fill a data centre's line at once.
const FIRST_STREAMS: usize = 32;
/// One that is read while the next one comes.
const LEAST_STREAMS: usize = 2;
/// Up to here a GET goes unhindered, and another one pays: the larger of a time and of so many halves
/// of the best time.
const UNHINDERED: (u64, u64) = (250_000, 3);
/// From here on the link only shares what it has.
const HINDERED: (u64, u64) = (500_000, 6);
/// In this time what counts as the best doubles: networks change.
const FORGET_MICROS: u64 = 30_000_000;
/// An hour: no GET takes longer, and what is multiplied with it does not overflow.
const LONGEST_MICROS: u64 = 3_600_000_000;
/// Sizes told apart: up to 1, 2, 4 MiB and above.
const CLASSES: usize = 4;

/// The measurements of all GETs of one mount.
#[derive(Debug)]
pub(super) struct Pace {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Twice as many as may be under way: they are taken away by halves.
    half_streams: usize,
    /// The fastest GET of each size.
    best: [Option<Best>; CLASSES],
    /// The shortest time to a first byte.
    first_byte_micros: u64,
    noted: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Best {
    bytes: u64,
    micros: u64,
}

impl Best {
    /// From a smaller size, what comes after the first byte takes as much longer as it is larger.
    fn micros_for(self, bytes: u64, first_byte_micros: u64) -> u64 {
        let first = first_byte_micros.min(self.micros);
        first + (self.micros - first) * bytes.max(self.bytes) / self.bytes
    }
}

impl Pace {
    /// Never more than `most` at a time.
    pub fn new(most: usize) -> Self {
        let state = State {
            half_streams: 2 * FIRST_STREAMS.min(most),
            best: [None; CLASSES],
            first_byte_micros: u64::MAX,
            noted: Instant::now(),
        };
        Self { most, state: Mutex::new(state) }
    }

    /// GETs of read-ahead that may be under way at a time.
    pub fn streams(&self) -> usize {
        self.state.lock().half_streams / 2
    }

    /// A GET came to its end; `first_byte` is the part of its time until the first byte.
    pub fn note(&self, bytes: u64, first_byte: Duration, took: Duration) {
        let mut state = self.state.lock();
        let since = state.noted.elapsed().as_micros() as u64;
        // Whole parts only, or nothing would ever be forgotten for rounding.
        if since > FORGET_MICROS / 1000 {
            state.noted = Instant::now();
            for best in state.best.iter_mut().flatten() {
                let more = u128::from(best.micros) * u128::from(since) / u128::from(FORGET_MICROS);
                best.micros = best.micros.saturating_add(more as u64).min(LONGEST_MICROS);
            }
        }
        state.first_byte_micros = state.first_byte_micros.min(first_byte.as_micros() as u64);
        state.note(bytes.max(1), took.as_micros().max(1) as u64, self.most);
    }
}

impl State {
    fn note(&mut self, bytes: u64, micros: u64, most: usize) {
        let first_byte_micros = self.first_byte_micros;
        let expected = self.best.iter().flatten().map(|best| best.micros_for(bytes, first_byte_micros)).min();
        let best = expected.map_or(micros, |expected| expected.min(micros));
        let class = &mut self.best[class(bytes)];
        if class.is_none_or(|known| micros < known.micros) {
            *class = Some(Best { bytes, micros });
        }
        let most_micros = |(micros, halves): (u64, u64)| micros.max(best * halves / 2);
        if micros < most_micros(UNHINDERED) {
            self.half_streams = (self.half_streams + 2).min(2 * most);
        } else if micros > most_micros(HINDERED) {
            // A whole round of such GETs halves their number.
            self.half_streams = (self.half_streams - 1).max(2 * LEAST_STREAMS.min(most));
        }
    }
}

fn class(bytes: u64) -> usize {
    let mebibytes = bytes.div_ceil(1 << 20).max(1);
    (mebibytes.next_power_of_two().trailing_zeros() as usize).min(CLASSES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// After rounds of GETs, all at once, over a line and connections of so many bytes per
    /// millisecond, 20 ms to the first.
    fn streams_after(rounds: usize, line: u64, connection: u64) -> usize {
        let pace = Pace::new(48);
        let get = |bytes: u64, rate: u64| {
            pace.note(bytes, Duration::from_millis(20), Duration::from_millis(20 + bytes / rate));
        };
        get(MIB, connection.min(line));
        for _ in 0..rounds {
            let streams = pace.streams();
            let rate = connection.min(line / streams as u64);
            (0..streams).for_each(|_| get(4 * MIB, rate));
        }
        pace.streams()
    }

    #[test]
    fn a_link_that_rewards_more_gets_more() {
        assert_eq!(streams_after(3, 1_000_000_000, 90_000), 48);
    }

    #[test]
    fn a_slow_line_is_not_crowded() {
        let streams = streams_after(20, 12_000, 90_000);
        assert!((LEAST_STREAMS..=4).contains(&streams), "{streams}");
    }

    #[test]
    fn a_full_line_keeps_what_fills_it() {
        // A thousand megabytes per second in connections of 90 are full with twelve.
        let streams = streams_after(20, 1_000_000, 90_000);
        assert!(streams >= 12, "{streams}");
    }

    #[test]
    fn sizes_are_told_apart() {
        assert_eq!([1, MIB, MIB + 1, 4 * MIB, 5 * MIB, 64 * MIB].map(class), [0, 0, 1, 2, 3, 3]);
    }
}
