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
    /// Recency of what was read at least once, with charges; evicted first.
    read: LruCache<Place, u64>,
    /// Recency of what read-ahead brought and nobody read: evicted only when a reader needs room.
    unread: LruCache<Place, u64>,
}

impl Budget {
    /// Accounts with nothing in them.
    pub fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            held_bytes: 0,
            reserved_bytes: 0,
            ahead_bytes: 0,
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

    /// Enters an extent as the most recent one.
    pub fn hold(&mut self, place: Place, bytes: u64, unread: bool) {
        self.held_bytes += bytes;
        if unread {
            self.ahead_bytes += bytes;
            self.unread.put(place, bytes);
        } else {
            self.read.put(place, bytes);
        }
    }

    /// Strikes an extent off.
    pub fn let_go(&mut self, place: Place) {
        if let Some(bytes) = self.read.pop(&place) {
            self.held_bytes -= bytes;
        } else if let Some(bytes) = self.unread.pop(&place) {
            self.held_bytes -= bytes;
            self.ahead_bytes -= bytes;
        }
    }

    /// An extent was read: it is the most recent now.
    pub fn touch(&mut self, place: Place) {
        if self.read.promote(&place) {
            return;
        }
        if let Some(bytes) = self.unread.pop(&place) {
            self.ahead_bytes -= bytes;
            self.read.put(place, bytes);
        }
    }

    /// Nobody will read this one: it goes first, and counts as read-ahead no longer.
    pub fn demote(&mut self, place: Place) {
        self.touch(place);
        self.read.demote(&place);
    }

    /// Whether read-ahead brought this and nobody read it yet.
    pub fn is_unread(&self, place: Place) -> bool {
        self.unread.contains(&place)
    }

    /// What to evict next; of unread read-ahead only when `unread_too`.
    pub fn oldest(&self, unread_too: bool) -> Option<Place> {
        let unread = || self.unread.peek_lru().filter(|_| unread_too);
        self.read.peek_lru().or_else(unread).map(|(place, _)| *place)
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
        budget.hold(A, 10, true);
        budget.hold(B, 10, false);
        assert_eq!(budget.oldest(true), Some(B));
        budget.let_go(B);
        assert_eq!((budget.oldest(false), budget.oldest(true)), (None, Some(A)));
    }

    #[test]
    fn reading_makes_recent_and_frees_the_share_of_read_ahead() {
        let mut budget = Budget::new(100);
        budget.hold(A, 40, true);
        budget.hold(B, 10, false);
        assert!(!budget.fits_ahead(20));
        budget.touch(A);
        assert!(budget.fits_ahead(20));
        assert_eq!(budget.oldest(true), Some(B));
        budget.touch(B);
        assert_eq!(budget.oldest(true), Some(A));
        budget.demote(B);
        assert_eq!(budget.oldest(true), Some(B));
    }

    #[test]
    fn accounts_return_to_nothing() {
        let mut budget = Budget::new(100);
        budget.reserve(60, true);
        assert!(!budget.fits(50));
        budget.release(60, true);
        budget.hold(A, 50, true);
        budget.let_go(A);
        budget.let_go(A);
        assert!(budget.fits(100) && budget.fits_ahead(50));
    }
}
