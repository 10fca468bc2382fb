//! Directories that a walk has read ahead of their readers.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::sorter::Walked;
use crate::fs::names::{Listing, Seen};

/// Names in the table, at most; beyond, the oldest directories go.
const MAX_NAMES: usize = 100_000;

/// Listings by prefix, until they are taken or too old.
#[derive(Debug, Default)]
pub struct Table {
    listings: BTreeMap<String, Kept>,
    /// In the order they came; what was taken meanwhile is passed over.
    order: VecDeque<(String, u64)>,
    names: usize,
    serial: u64,
}

#[derive(Debug)]
struct Kept {
    walked: Walked,
    serial: u64,
    /// Page of its walk that completed it, and which walk.
    source: Source,
}

/// Which page of which walk a listing came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    pub walk: u64,
    pub page: usize,
}

impl Table {
    /// Keeps a directory.
    pub fn insert(&mut self, walked: Walked, source: Source) {
        self.remove(&walked.prefix);
        self.serial += 1;
        self.names += cost(&walked.listing);
        self.order.push_back((walked.prefix.clone(), self.serial));
        self.listings.insert(walked.prefix.clone(), Kept { walked, serial: self.serial, source });
        while self.names > MAX_NAMES
            && let Some((prefix, serial)) = self.order.pop_front()
        {
            if self.listings.get(&prefix).is_some_and(|kept| kept.serial == serial) {
                self.remove(&prefix);
            }
        }
    }

    /// Takes a directory out if it was asked for after `since`.
    pub fn take(&mut self, prefix: &str, since: Instant) -> Option<(Listing, Instant, Source)> {
        let kept = self.remove(prefix)?;
        (kept.walked.asked > since).then_some((kept.walked.listing, kept.walked.asked, kept.source))
    }

    /// Whether a directory is in it, however old.
    pub fn contains(&self, prefix: &str) -> bool {
        self.listings.contains_key(prefix)
    }

    /// The marker of a directory and when it was asked for, if that was after `since`.
    pub fn marker(&self, prefix: &str, since: Instant) -> Option<(Option<Seen>, Instant)> {
        let walked = &self.listings.get(prefix)?.walked;
        (walked.asked > since).then(|| (walked.listing.marker.clone(), walked.asked))
    }

    /// Lets go of a directory.
    pub fn forget(&mut self, prefix: &str) {
        self.remove(prefix);
    }

    /// Lets go of what is older than `ttl`.
    pub fn expire(&mut self, ttl: Duration) {
        while let Some((prefix, serial)) = self.order.front().cloned() {
            match self.listings.get(&prefix) {
                Some(kept) if kept.serial == serial && kept.walked.asked.elapsed() < ttl => return,
                Some(kept) if kept.serial == serial => drop(self.remove(&prefix)),
                _ => {}
            }
            self.order.pop_front();
        }
    }

    fn remove(&mut self, prefix: &str) -> Option<Kept> {
        let kept = self.listings.remove(prefix)?;
        self.names -= cost(&kept.walked.listing);
        Some(kept)
    }
}

/// A directory costs memory by itself.
fn cost(listing: &Listing) -> usize {
    1 + listing.names.len()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::bucket::ETag;
    use crate::fs::names::Child;

    fn walked(prefix: &str, names: usize) -> Walked {
        let seen =
            Seen { etag: ETag::new("t"), size: 0, modified: SystemTime::UNIX_EPOCH, storage_class: None, asks: false };
        let child = Child { ino: None, is_directory: false, seen: Some(seen) };
        let names = (0..names).map(|number| (number.to_string(), child.clone())).collect();
        let listing = Listing { names, complete: true, ..Listing::default() };
        Walked { prefix: prefix.to_owned(), listing, asked: Instant::now() }
    }

    const SOURCE: Source = Source { walk: 1, page: 0 };

    #[test]
    fn the_oldest_go_when_there_are_too_many_names() {
        let long_ago = Instant::now().checked_sub(Duration::from_mins(1)).unwrap();
        let mut table = Table::default();
        for number in 0..5 {
            table.insert(walked(&format!("{number}/"), MAX_NAMES / 4), SOURCE);
        }
        assert!(table.take("1/", long_ago).is_none());
        assert!(table.take("4/", long_ago).is_some());
        assert!(table.names <= MAX_NAMES);
    }

    #[test]
    fn what_was_asked_before_the_moment_given_is_not_told() {
        let mut table = Table::default();
        table.insert(walked("d/", 1), SOURCE);
        assert!(table.marker("d/", Instant::now()).is_none());
        assert!(table.take("d/", Instant::now()).is_none());
        table.insert(walked("d/", 1), SOURCE);
        table.expire(Duration::ZERO);
        assert!(table.listings.is_empty() && table.order.is_empty() && table.names == 0);
    }
}
