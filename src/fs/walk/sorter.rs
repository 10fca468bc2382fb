//! Keys of a flat listing, in binary order, sorted into one listing a directory.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::bucket::Listed;
use crate::fs::names::{Child, Listing, MAX_NAMES_KEPT, Seen};
use crate::fs::status::OddKeys;
use crate::key::{self, Oddity};

/// A directory whose keys are all read.
#[derive(Debug)]
pub struct Walked {
    pub prefix: String,
    pub listing: Listing,
    /// When its first page was asked for: what changed here since is not in it.
    pub asked: Instant,
}

/// Why a flat listing cannot be used any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// The server does not list in binary order (SeaweedFS): nobody can tell when a directory is
    /// over.
    Unordered,
    TooLarge,
}

/// Directories that are being read: each lies in the one before.
#[derive(Debug)]
pub struct Sorter {
    root: String,
    open: Vec<Walked>,
    last_key: String,
    odd_keys: Arc<Mutex<OddKeys>>,
}

impl Sorter {
    /// For the keys below `root` that come strictly after `after`.
    pub fn new(root: &str, after: &str, odd_keys: Arc<Mutex<OddKeys>>) -> Self {
        Self { root: root.to_owned(), open: Vec::new(), last_key: after.to_owned(), odd_keys }
    }

    /// The last key that was read.
    pub fn last_key(&self) -> &str {
        &self.last_key
    }

    /// Takes the next key; returns the directories that are thereby complete.
    ///
    /// # Errors
    /// When the listing is no use for walking.
    pub fn take(&mut self, object: &Listed, seen: Seen, asked: Instant) -> Result<Vec<Walked>, Unusable> {
        if object.key.ends_with('/') && self.last_key.starts_with(&object.key) {
            // A marker that is to come, shown once more: in the place of a key that is to go.
            return Ok(Vec::new());
        }
        if object.key <= self.last_key {
            return Err(Unusable::Unordered);
        }
        self.last_key.clone_from(&object.key);
        let complete = self.close_unless_within(&object.key);
        self.place(object, seen, asked);
        match self.open.last() {
            Some(top) if top.listing.names.len() > MAX_NAMES_KEPT => Err(Unusable::TooLarge),
            _ => Ok(complete),
        }
    }

    /// The listing is over: everything is complete.
    pub fn finish(&mut self) -> Vec<Walked> {
        self.open.drain(..).rev().collect()
    }

    fn close_unless_within(&mut self, key: &str) -> Vec<Walked> {
        let within = self.open.iter().take_while(|walked| key.starts_with(&walked.prefix)).count();
        self.open.drain(within..).rev().collect()
    }

    fn place(&mut self, object: &Listed, seen: Seen, asked: Instant) {
        let known = self.open.last().map_or(self.root.len(), |top| top.prefix.len());
        let mut begin = known;
        while let Some(length) = object.key[begin..].find('/') {
            let name = &object.key[begin..begin + length];
            if self.is_odd(object, name) {
                return;
            }
            self.enter(name, object.key[..=begin + length].to_owned(), asked);
            begin += length + 1;
        }
        // What lies in the root of the walk itself belongs to a listing of its own.
        let name = &object.key[begin..];
        if begin == self.root.len() {
            return;
        }
        if name.is_empty() {
            if object.size > 0 {
                self.odd_keys.lock().note(&object.key, Oddity::MarkerWithBody);
            }
            if let Some(top) = self.open.last_mut() {
                top.listing.keys += 1;
                top.listing.odd += usize::from(object.size > 0);
                top.listing.marker = Some(seen);
            }
        } else if !self.is_odd(object, name)
            && let Some(top) = self.open.last_mut()
        {
            top.listing.keys += 1;
            top.listing.names.insert(name.to_owned(), Child { ino: None, is_directory: false, seen: Some(seen) });
        }
    }

    /// A component that cannot be a name: the key is told, and counts for its directory.
    fn is_odd(&mut self, object: &Listed, name: &str) -> bool {
        let Some(oddity) = key::oddity(name) else { return false };
        self.odd_keys.lock().note(&object.key, oddity);
        if let Some(top) = self.open.last_mut() {
            top.listing.keys += 1;
            top.listing.odd += 1;
        }
        true
    }

    fn enter(&mut self, name: &str, prefix: String, asked: Instant) {
        if let Some(above) = self.open.last_mut() {
            above.listing.keys += 1;
            let directory = Child { ino: None, is_directory: true, seen: None };
            if above.listing.names.insert(name.to_owned(), directory).is_some() {
                above.listing.odd += 1;
                self.odd_keys.lock().note(prefix.trim_end_matches('/'), Oddity::Shadowed);
            }
        }
        let listing = Listing { complete: true, pages: 1, ..Listing::default() };
        self.open.push(Walked { prefix, listing, asked });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    use super::*;
    use crate::bucket::ETag;

    fn listed(key: &str) -> Listed {
        let (etag, modified) = (ETag::new("t"), SystemTime::UNIX_EPOCH);
        Listed { key: key.to_owned(), etag, size: 0, modified, storage_class: None, checksums: Vec::new() }
    }

    fn seen() -> Seen {
        Seen { etag: ETag::new("t"), size: 0, modified: SystemTime::UNIX_EPOCH, storage_class: None, asks: false }
    }

    /// What each directory holds; directories with a slash, a marker as the empty name.
    fn sorted(root: &str, keys: &[&str]) -> Result<BTreeMap<String, Vec<String>>, Unusable> {
        let mut sorter = Sorter::new(root, "", Arc::default());
        let mut walked = Vec::new();
        for key in keys {
            walked.extend(sorter.take(&listed(key), seen(), Instant::now())?);
        }
        walked.extend(sorter.finish());
        let told = |walked: Walked| {
            let marker = walked.listing.marker.map(|_| String::new()).into_iter();
            let slash = |child: &Child| if child.is_directory { "/" } else { "" };
            let names = walked.listing.names.iter().map(|(name, child)| format!("{name}{}", slash(child)));
            (walked.prefix, marker.chain(names).collect())
        };
        Ok(walked.into_iter().map(told).collect())
    }

    fn map(pairs: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        pairs.iter().map(|(prefix, names)| ((*prefix).to_owned(), owned(names))).collect()
    }

    #[test]
    fn keys_become_the_directories_that_they_lie_in() {
        let keys = ["a-b/z", "a/", "a/1", "a/b/c/d", "a/b0", "e/f", "top"];
        let wanted: [(&str, &[&str]); 5] =
            [("a-b/", &["z"]), ("a/", &["", "1", "b/", "b0"]), ("a/b/", &["c/"]), ("a/b/c/", &["d"]), ("e/", &["f"])];
        assert_eq!(sorted("", &keys).unwrap(), map(&wanted));
    }

    #[test]
    fn below_a_root_the_root_itself_is_left_out() {
        assert_eq!(sorted("r/", &["r/", "r/x", "r/y/", "r/y/1"]).unwrap(), map(&[("r/y/", &["", "1"])]));
    }

    #[test]
    fn odd_keys_are_told_and_a_directory_wins_over_a_file() {
        let odd = Arc::new(Mutex::new(OddKeys::default()));
        let mut sorter = Sorter::new("", "", odd.clone());
        let mut keys = ["/lead", "d/..", "d/../x", "d//y", "d/s", "d/s/t"];
        keys.sort_unstable();
        let mut walked = Vec::new();
        for key in keys {
            walked.extend(sorter.take(&listed(key), seen(), Instant::now()).unwrap());
        }
        walked.extend(sorter.finish());
        let names: Vec<_> = walked.iter().map(|walked| walked.prefix.as_str()).collect();
        assert_eq!(names, ["d/s/", "d/"]);
        let d = &walked[1].listing;
        assert!(d.names["s"].is_directory && d.names.len() == 1);
        assert_eq!(odd.lock().keys(), ["/lead", "d/..", "d/../x", "d//y", "d/s"]);
    }

    #[test]
    fn a_marker_shown_again_for_what_is_to_go_changes_nothing() {
        assert_eq!(sorted("", &["a/", "a/1", "a/", "a/2"]).unwrap(), map(&[("a/", &["", "1", "2"])]));
    }

    #[test]
    fn a_listing_out_of_order_is_refused() {
        assert_eq!(sorted("", &["b/x", "a/x"]), Err(Unusable::Unordered));
    }
}
