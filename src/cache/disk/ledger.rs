//! What the directory holds, by recency, and what has to go. Pure.

use lru::LruCache;

/// Names the files of one version: the first half of its identity.
pub(super) type Name = [u8; 16];

/// Charged for an entry besides its blocks: two inodes, a page of the map.
pub(super) const ENTRY_BYTES: u64 = 8 << 10;

/// The accounts of the directory. Other mounts write to it as well: [`Ledger::replace`] tells what
/// they did.
pub(super) struct Ledger {
    entries: LruCache<Name, u64>,
    total_bytes: u64,
    other_bytes: u64,
    unfinished_bytes: u64,
}

impl Ledger {
    /// Accounts of an empty directory.
    pub fn new() -> Self {
        Self { entries: LruCache::unbounded(), total_bytes: 0, other_bytes: 0, unfinished_bytes: 0 }
    }

    /// What all entries take, and what lies beside them.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes + self.fixed_bytes()
    }

    /// What cannot be evicted.
    pub fn fixed_bytes(&self) -> u64 {
        self.other_bytes + self.unfinished_bytes
    }

    /// What others are making, and will be an entry.
    pub fn set_unfinished_bytes(&mut self, bytes: u64) {
        self.unfinished_bytes = bytes;
    }

    /// What lies beside the entries and cannot be evicted.
    pub fn set_other_bytes(&mut self, bytes: u64) {
        self.other_bytes = bytes;
    }

    /// How many entries there are.
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// What a write of so many bytes to an entry will charge.
    pub fn charge(&self, name: &Name, bytes: u64) -> u64 {
        bytes.next_multiple_of(4096) + if self.entries.contains(name) { 0 } else { ENTRY_BYTES }
    }

    /// Charges an entry, which is the most recent one then.
    pub fn add(&mut self, name: Name, bytes: u64) {
        let charge = self.charge(&name, bytes);
        *self.entries.get_or_insert_mut(name, || 0) += charge;
        self.total_bytes += charge;
    }

    /// An entry was used.
    pub fn touch(&mut self, name: &Name) {
        self.entries.promote(name);
    }

    /// An entry has another name.
    pub fn relabel(&mut self, from: &Name, to: Name) {
        if let Some(bytes) = self.entries.pop(from) {
            self.total_bytes -= self.entries.put(to, bytes).unwrap_or(0);
        }
    }

    /// An entry is gone.
    pub fn remove(&mut self, name: &Name) {
        self.total_bytes -= self.entries.pop(name).unwrap_or(0);
    }

    /// The entry that was not used for longest, unless it is `spared`: an object is never evicted
    /// to make room for itself, so of one that is too large its beginning stays.
    pub fn oldest(&self, spared: &Name) -> Option<Name> {
        self.entries.peek_lru().map(|(name, _)| *name).filter(|name| name != spared)
    }

    /// What a look into the directory found, oldest first.
    pub fn replace(&mut self, found: impl IntoIterator<Item = (Name, u64)>) {
        self.entries.clear();
        self.total_bytes = 0;
        for (name, bytes) in found {
            self.entries.put(name, bytes);
            self.total_bytes += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Name = [1; 16];
    const B: Name = [2; 16];

    #[test]
    fn writes_are_charged_in_pages_and_the_first_for_the_files() {
        let mut ledger = Ledger::new();
        ledger.add(A, 1);
        ledger.add(A, 4096);
        assert_eq!(ledger.total_bytes(), ENTRY_BYTES + 8192);
        ledger.remove(&A);
        ledger.remove(&A);
        assert_eq!((ledger.total_bytes(), ledger.entries()), (0, 0));
    }

    #[test]
    fn the_one_not_used_for_longest_goes_but_never_for_itself() {
        let mut ledger = Ledger::new();
        ledger.replace([(A, 10), (B, 20)]);
        assert_eq!((ledger.total_bytes(), ledger.oldest(&B)), (30, Some(A)));
        assert_eq!(ledger.oldest(&A), None);
        ledger.touch(&A);
        assert_eq!(ledger.oldest(&A), Some(B));
    }
}
