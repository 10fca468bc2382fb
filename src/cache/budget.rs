//! One budget over all bytes, here or on their way, and what to evict first.

use lru::LruCache;

/// Where an extent is: the version's number and the offset of its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub version: u64,
    pub start: u64,
}

/// The accounts. Sizes are charges: bytes and a little overhead.
pub(super) struct Budget {
    limit_bytes: u64,
    held_bytes: u64,
    reserved_bytes: u64,
    /// The part of both that read-ahead asked for and nobody read yet.
    ahead_bytes: u64,
    /// Of what is in `spent`.
    spent_bytes: u64,
    /// What streams have read to its end: the kernel has it in its page cache. Evicted first, and
    /// when it is more than its share even where there is room: what a stream reads once should not
    /// take fresh memory for each block, which costs more time than anything else about it.
    spent: LruCache<Place, u64>,
    /// Recency of what was read at least once, with charges; evicted next.
    read: LruCache<Place, Read>,
    /// Recency of what read-ahead brought and nobody read: evicted only when a reader needs room.
    unread: LruCache<Place, u64>,
}

#[derive(Clone, Copy)]
struct Read {
    bytes: u64,
    /// Brought by read-ahead and not read to its end yet.
    streamed: bool,
}

impl Budget {
    /// Accounts with nothing in them.
    pub fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            held_bytes: 0,
            reserved_bytes: 0,
            ahead_bytes: 0,
            spent_bytes: 0,
            spent: LruCache::unbounded(),
            read: LruCache::unbounded(),
            unread: LruCache::unbounded(),
        }
    }

    /// What held and reserved bytes never exceed together.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Charges of what is in memory.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Charges of what is on its way.
    pub fn reserved_bytes(&self) -> u64 {
        self.reserved_bytes
    }

    /// Whether so many bytes more stay within the limit.
    pub fn fits(&self, bytes: u64) -> bool {
        self.held_bytes + self.reserved_bytes + bytes <= self.limit_bytes
    }

    /// Read-ahead may take half: what readers come back to keeps the other.
    pub fn fits_ahead(&self, bytes: u64) -> bool {
        self.ahead_bytes + bytes <= self.limit_bytes / 2
    }

    /// Takes room for bytes on their way.
    pub fn reserve(&mut self, bytes: u64, ahead: bool) {
        self.reserved_bytes += bytes;
        self.ahead_bytes += if ahead { bytes } else { 0 };
    }

    /// Gives back what [`Self::reserve`] took.
    pub fn release(&mut self, bytes: u64, ahead: bool) {
        self.reserved_bytes -= bytes;
        self.ahead_bytes -= if ahead { bytes } else { 0 };
    }

    /// Enters an extent as the most recent one. One that read-ahead brought (`streamed`) is unread, or
    /// its reader waited for it and has it.
    pub fn hold(&mut self, place: Place, bytes: u64, streamed: bool, unread: bool) {
        self.held_bytes += bytes;
        if unread {
            self.ahead_bytes += bytes;
            self.unread.put(place, bytes);
        } else if streamed {
            self.spent_bytes += bytes;
            self.spent.put(place, bytes);
        } else {
            self.read.put(place, Read { bytes, streamed });
        }
    }

    /// Strikes an extent off.
    pub fn let_go(&mut self, place: Place) {
        if let Some(bytes) = self.spent.pop(&place) {
            self.held_bytes -= bytes;
            self.spent_bytes -= bytes;
        } else if let Some(Read { bytes, .. }) = self.read.pop(&place) {
            self.held_bytes -= bytes;
        } else if let Some(bytes) = self.unread.pop(&place) {
            self.held_bytes -= bytes;
            self.ahead_bytes -= bytes;
        }
    }

    /// An extent was read, perhaps to its end: it is the most recent now. What is read again after
    /// that is worth keeping.
    pub fn touch(&mut self, place: Place, to_its_end: bool) {
        let known = if let Some(bytes) = self.unread.pop(&place) {
            self.ahead_bytes -= bytes;
            Read { bytes, streamed: true }
        } else if let Some(bytes) = self.spent.pop(&place) {
            self.spent_bytes -= bytes;
            Read { bytes, streamed: false }
        } else if let Some(read) = self.read.pop(&place) {
            read
        } else {
            return;
        };
        if known.streamed && to_its_end {
            self.spent_bytes += known.bytes;
            self.spent.put(place, known.bytes);
        } else {
            self.read.put(place, known);
        }
    }

    /// Nobody will read this one: it goes first, and counts as read-ahead no longer.
    pub fn demote(&mut self, place: Place) {
        if let Some(bytes) = self.unread.pop(&place) {
            self.ahead_bytes -= bytes;
            self.spent_bytes += bytes;
            self.spent.put(place, bytes);
            self.spent.demote(&place);
        }
    }

    /// Whether read-ahead brought this and nobody read it yet.
    pub fn is_unread(&self, place: Place) -> bool {
        self.unread.contains(&place)
    }

    /// Whether streams have left more behind than their share.
    pub fn has_surplus(&self) -> bool {
        self.spent_bytes > self.limit_bytes / 8
    }

    /// What to evict next; of unread read-ahead only when `unread_too`.
    pub fn oldest(&self, unread_too: bool) -> Option<Place> {
        let spent = self.spent.peek_lru().map(|(place, _)| place);
        let read = || self.read.peek_lru().map(|(place, _)| place);
        let unread = || self.unread.peek_lru().map(|(place, _)| place).filter(|_| unread_too);
        spent.or_else(read).or_else(unread).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Place = Place { version: 1, start: 0 };
    const B: Place = Place { version: 1, start: 10 };

    #[test]
    fn what_was_read_goes_before_what_waits_to_be_read() {
        let mut budget = Budget::new(100);
        budget.hold(A, 10, true, true);
        budget.hold(B, 10, false, false);
        assert_eq!(budget.oldest(true), Some(B));
        budget.let_go(B);
        assert_eq!((budget.oldest(false), budget.oldest(true)), (None, Some(A)));
    }

    #[test]
    fn reading_makes_recent_and_frees_the_share_of_read_ahead() {
        let mut budget = Budget::new(100);
        budget.hold(A, 40, true, true);
        budget.hold(B, 10, false, false);
        assert!(!budget.fits_ahead(20));
        budget.touch(A, false);
        assert!(budget.fits_ahead(20));
        assert_eq!(budget.oldest(true), Some(B));
        budget.touch(B, true);
        assert_eq!(budget.oldest(true), Some(A));
    }

    #[test]
    fn what_a_stream_has_passed_goes_first_unless_it_is_read_again() {
        let mut budget = Budget::new(100);
        budget.hold(B, 10, false, false);
        budget.hold(A, 20, true, true);
        budget.touch(A, false);
        assert_eq!((budget.oldest(true), budget.has_surplus()), (Some(B), false));
        budget.touch(A, true);
        assert_eq!((budget.oldest(true), budget.has_surplus()), (Some(A), true));
        budget.touch(A, true);
        assert_eq!((budget.oldest(true), budget.has_surplus()), (Some(B), false));
    }

    #[test]
    fn what_nobody_will_read_goes_first() {
        let mut budget = Budget::new(100);
        budget.hold(B, 10, false, false);
        budget.hold(A, 40, true, true);
        budget.demote(A);
        assert_eq!(budget.oldest(false), Some(A));
        assert!(budget.fits_ahead(50) && !budget.is_unread(A));
    }

    #[test]
    fn accounts_return_to_nothing() {
        let mut budget = Budget::new(100);
        budget.reserve(60, true);
        assert!(!budget.fits(50));
        budget.release(60, true);
        for ends in [[false, false], [false, true], [true, true]] {
            budget.hold(A, 50, true, true);
            for end in ends {
                budget.touch(A, end);
            }
            budget.let_go(A);
            budget.let_go(A);
            assert!(budget.fits(100) && budget.fits_ahead(50) && !budget.has_surplus());
        }
    }
}
