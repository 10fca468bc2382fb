//! Directories that were let go of although they knew of changes made here, and those of which S3 has contradicted
//! what was known: a listing that was asked for before may be wrong, and nobody can tell where.

use std::collections::HashMap;
use std::time::Instant;

/// Directories told apart; when there are more, all listings asked for until then are of no use.
const MAX_KEYS: usize = 1_000;

/// When which directory was let go of, by key.
#[derive(Debug)]
pub struct Forgotten {
    by_key: HashMap<String, Instant>,
    all: Instant,
}

impl Forgotten {
    /// Nothing was let go of; what was asked for before now is of no use.
    pub fn new() -> Self {
        Self { by_key: HashMap::new(), all: Instant::now() }
    }

    /// A directory that knew of changes is let go of; `None` if nobody can say which.
    pub fn note(&mut self, key: Option<String>) {
        let now = Instant::now();
        match key {
            Some(key) if self.by_key.len() < MAX_KEYS || self.by_key.contains_key(&key) => {
                self.by_key.insert(key, now);
            }
            _ => {
                self.by_key.clear();
                self.all = now;
            }
        }
    }

    /// A listing of `prefix` asked for before this moment may lack changes: of what is in the
    /// directory, or, since its parent remembers those, of its marker.
    pub fn since(&self, prefix: &str) -> Instant {
        let above = prefix.strip_suffix('/').map(|name| &prefix[..name.rfind('/').map_or(0, |slash| slash + 1)]);
        let known = [Some(prefix), above].into_iter().flatten().filter_map(|key| self.by_key.get(key).copied());
        known.max().map_or(self.all, |moment| moment.max(self.all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_was_let_go_of_spoils_its_own_listings_and_markers_in_it_only() {
        let mut forgotten = Forgotten::new();
        let before = Instant::now();
        forgotten.note(Some("a/b/".to_owned()));
        assert!(forgotten.since("a/b/") >= before);
        assert!(forgotten.since("a/b/c/") >= before, "the marker of c is remembered in b");
        assert!(forgotten.since("a/") < before);
        assert!(forgotten.since("a/other/") < before);
        assert!(forgotten.since("") < before);
        forgotten.note(Some(String::new()));
        assert!(forgotten.since("a/") >= before, "the root");
    }

    #[test]
    fn very_many_spoil_all() {
        let mut forgotten = Forgotten::new();
        let before = Instant::now();
        (0..=MAX_KEYS).for_each(|number| forgotten.note(Some(format!("d{number}/"))));
        assert!(forgotten.since("other/") >= before);
        assert_eq!(forgotten.by_key.len(), 0);
    }
}
