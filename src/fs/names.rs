//! What a directory holds: the last listing, corrected by what was done here since.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::time::{Duration, Instant, SystemTime};

use super::hints::Hints;
use super::inodes::Ino;
use crate::bucket::{ETag, StorageClass};
use crate::key::Oddity;

/// Names of one directory that are kept in memory at once: some 5 MB. A larger one is read page by
/// page each time, and its names are asked for one by one.
pub const MAX_NAMES_KEPT: usize = 20_000;

/// The version of an object as LIST tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub etag: ETag,
    pub size: u64,
    pub modified: SystemTime,
    pub storage_class: Option<StorageClass>,
    /// It may carry attributes that LIST does not tell: only a HEAD knows.
    pub asks: bool,
}

/// One name in a directory.
#[derive(Clone, Debug)]
pub struct Child {
    /// The node, where one was needed already.
    pub ino: Option<Ino>,
    pub is_directory: bool,
    /// What the listing said; `None` for directories and for what was made here.
    pub seen: Option<Seen>,
}

/// A directory's names.
#[derive(Debug, Default)]
pub struct Directory {
    children: BTreeMap<String, Child>,
    /// When the last whole listing was *asked for*: what happened later is not in it.
    listed: Option<Instant>,
    /// Names changed here, with the moment: a listing asked for earlier knows nothing of them.
    changed: HashMap<String, Instant>,
    /// Names asked for one by one since, because the directory is large.
    alone: u32,
    /// A listing that was begun, for whoever wants the rest of it.
    begun: Option<Begun>,
    /// What S3 has told of some names before they were asked for.
    pub hints: Option<Hints>,
    /// When one of the directories in it was last asked for by listing that.
    answered_itself: Option<Instant>,
    /// The last listing took more than one page: too dear to repeat for a single name.
    pub is_large: bool,
    /// The last whole listing held keys that are no names.
    holds_odd: bool,
}

/// The first page of a listing that has more; its names are among the children.
#[derive(Clone, Debug)]
pub struct Begun {
    pub asked: Instant,
    pub marker: Option<Seen>,
    /// The last key or prefix of the page.
    pub last_key: String,
}

/// What a listing found, ready to be merged.
#[derive(Debug, Default)]
pub struct Listing {
    pub names: BTreeMap<String, Child>,
    /// The object `dir/` itself, where it exists.
    pub marker: Option<Seen>,
    /// Prefixes whose next component cannot be a name.
    pub odd_prefixes: Vec<(String, Oddity)>,
    /// Keys and prefixes, odd ones and the marker too.
    pub keys: usize,
    /// Those that are no names: odd ones, files beside a directory of the same name.
    pub odd: usize,
    /// The last key or prefix so far; empty where they come in no order.
    pub last_key: String,
    /// Every page was read.
    pub complete: bool,
    pub pages: usize,
}

impl Listing {
    /// Adds the next page.
    pub fn append(&mut self, page: Self) {
        self.names.extend(page.names);
        self.marker = self.marker.take().or(page.marker);
        self.odd_prefixes.extend(page.odd_prefixes);
        self.keys += page.keys;
        self.odd += page.odd;
        self.pages += page.pages;
    }

    /// No key begins with the prefix: no such directory.
    pub fn is_nothing(&self) -> bool {
        self.complete && self.keys == 0
    }
}

impl Directory {
    /// What is known of a name.
    pub fn child(&self, name: &str) -> Option<&Child> {
        self.children.get(name)
    }

    /// All names, in binary order.
    pub fn children(&self) -> impl Iterator<Item = (&String, &Child)> {
        self.children.iter()
    }

    /// The names after `name`, in binary order.
    pub fn children_after(&self, name: &str) -> impl Iterator<Item = (&String, &Child)> {
        self.children.range::<str, _>((Bound::Excluded(name), Bound::Unbounded))
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.children.len()
    }

    /// How many of the names are directories; not counted where that would make `stat(2)` dear.
    pub fn subdirectories(&self) -> u32 {
        const COUNTED: usize = 1_000;
        if self.children.len() > COUNTED {
            return 0;
        }
        self.children.values().filter(|child| child.is_directory).count() as u32
    }

    /// Some name has a node in memory, whose parent this must stay.
    pub fn has_nodes(&self) -> bool {
        self.children.values().any(|child| child.ino.is_some())
    }

    /// The listing is complete and no older than `ttl`.
    pub fn is_fresh(&self, ttl: Duration) -> bool {
        self.listed.is_some_and(|listed| listed.elapsed() < ttl)
    }

    /// The last name in it was removed here, as far as a listing knows that is no older than `ttl`.
    pub fn was_emptied(&self, ttl: Duration) -> bool {
        self.is_fresh(ttl) && self.children.is_empty() && !self.holds_odd && self.has_changes()
    }

    /// When S3 was asked for a directory in which it had nothing, as far as names tell; `None` if there was something,
    /// or has been since.
    pub fn nothing_at(&self) -> Option<Instant> {
        let is_nothing = self.children.is_empty() && !self.holds_odd && !self.is_large && !self.has_changes();
        self.listed.filter(|_| is_nothing)
    }

    /// Whether a directory in it may be asked for by listing that, once within `ttl`.
    pub fn may_answer_itself(&mut self, ttl: Duration) -> bool {
        let may = self.answered_itself.is_none_or(|at| at.elapsed() >= ttl);
        if may {
            self.answered_itself = Some(Instant::now());
        }
        may
    }

    /// The directory was made here just now: nothing can be in it.
    pub fn set_new(&mut self) {
        self.listed = Some(Instant::now());
    }

    /// One more name is to be asked for by itself. When so many were that listing all names costs
    /// less: how many pages that may take.
    pub fn pages_instead(&mut self) -> Option<usize> {
        const FEW: usize = 8;
        const NAMES_IN_PAGE: usize = 1_000;
        self.alone += 1;
        let pages = self.children.len() / NAMES_IN_PAGE + 2;
        if (self.alone as usize) < FEW.max(2 * pages) || self.children.len() > MAX_NAMES_KEPT {
            return None;
        }
        self.alone = 0;
        Some(pages)
    }

    /// Asks S3 again at the next use.
    pub fn expire(&mut self) {
        self.listed = None;
        self.begun = None;
        self.hints = None;
    }

    /// The first page is known, and no older than `ttl`.
    pub fn begun(&self, ttl: Duration) -> Option<&Begun> {
        self.begun.as_ref().filter(|begun| begun.asked.elapsed() < ttl)
    }

    /// When S3 was last asked for all names.
    pub fn listed_at(&self) -> Option<Instant> {
        self.listed
    }

    /// For how long what a believed listing says of a name may be told as if S3 had been asked now:
    /// no longer than the listing itself is believed. Who finds it fresh and then waits for a processor
    /// would else let an old answer live on from whenever he gets one.
    pub fn vouches_at(&self, ttl: Duration) -> Instant {
        let now = Instant::now();
        self.listed.filter(|_| !self.is_large).map_or(now, |listed| now.min(listed + ttl))
    }

    /// A name appeared here.
    pub fn attach(&mut self, name: &str, ino: Ino, is_directory: bool) {
        self.note_moment(name);
        self.children.insert(name.to_owned(), Child { ino: Some(ino), is_directory, seen: None });
    }

    /// Remembers that a name changed now; in a directory that is never listed whole, moments older
    /// than any request are let go of.
    fn note_moment(&mut self, name: &str) {
        const MANY: usize = 10_000;
        const LONGEST_REQUEST: Duration = Duration::from_mins(2);
        self.hints.as_mut().and_then(|hints| hints.take(name));
        if self.changed.len() >= MANY {
            self.changed.retain(|_, moment| moment.elapsed() < LONGEST_REQUEST);
        }
        self.changed.insert(name.to_owned(), Instant::now());
    }

    /// A name was taken away here.
    pub fn detach(&mut self, name: &str) -> Option<Ino> {
        self.note_moment(name);
        self.children.remove(name)?.ino
    }

    /// A name's object was written here: older listings must not contradict.
    pub fn note_change(&mut self, name: &str) {
        self.note_moment(name);
        if let Some(child) = self.children.get_mut(name) {
            child.seen = None;
        }
    }

    /// Everything in it was copied elsewhere: tags may differ, and the names were listed elsewhere.
    pub fn forget_versions(&mut self) {
        self.expire();
        for child in self.children.values_mut() {
            child.seen = None;
        }
    }

    /// The name has a node now, from S3's side: no change made here.
    pub fn adopt(&mut self, name: &str, ino: Ino, is_directory: bool) {
        let child = self.children.entry(name.to_owned()).or_insert(Child { ino: None, is_directory, seen: None });
        child.ino = Some(ino);
        child.is_directory = is_directory;
    }

    /// The node is gone from memory; the name stays.
    pub fn forget_node(&mut self, name: &str) {
        let is_kept = !self.is_large || self.listed.is_some();
        match self.children.get_mut(name) {
            Some(child) if is_kept => child.ino = None,
            // Nobody would ever take it out.
            _ => drop(self.children.remove(name)),
        }
    }

    /// A name that was there at `asked` is so no more: taken away here, or missing in a newer listing.
    pub fn is_gone(&self, name: &str, asked: Instant) -> bool {
        !self.children.contains_key(name)
            && (self.changed_since(name, asked) || self.listed.is_some_and(|listed| listed >= asked))
    }

    /// Names made or changed here since `asked`, which a listing of that moment may not know.
    pub fn made_since(&self, asked: Instant) -> impl Iterator<Item = (&String, &Child)> {
        let changed = self.changed.iter().filter(move |(_, moment)| **moment >= asked);
        changed.filter_map(|(name, _)| self.children.get_key_value(name))
    }

    /// S3 says that the name is not there.
    pub fn remove_absent(&mut self, name: &str) -> Option<Ino> {
        self.children.remove(name)?.ino
    }

    /// Names were changed here, which listings asked for earlier know nothing of.
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Whether the name was changed here after `moment`.
    pub fn changed_since(&self, name: &str, moment: Instant) -> bool {
        self.changed.get(name).is_some_and(|changed| *changed >= moment)
    }

    /// Takes over a listing asked for at `asked`. `is_drafted` tells which nodes have a draft here;
    /// those keep their place. Returns the nodes whose names S3 no longer has.
    pub fn merge(&mut self, listing: &mut Listing, asked: Instant, is_drafted: impl Fn(Ino) -> bool) -> Vec<Ino> {
        let mut gone = Vec::new();
        let (marker, last_key) = (listing.marker.clone(), std::mem::take(&mut listing.last_key));
        // With names of an older listing among the children nobody could tell which are of this page.
        let is_begun = listing.pages == 1 && !listing.complete && self.children.is_empty() && !last_key.is_empty();
        self.begun = is_begun.then_some(Begun { asked, marker, last_key });
        self.hints = None;
        if listing.complete {
            let changed = &self.changed;
            let names = &listing.names;
            self.children.retain(|name, child| {
                let keep = names.contains_key(name)
                    || changed.get(name).is_some_and(|moment| *moment >= asked)
                    || child.ino.is_some_and(&is_drafted);
                if !keep {
                    gone.extend(child.ino);
                }
                keep
            });
            self.listed = Some(asked);
            self.holds_odd = listing.odd > 0;
        }
        self.is_large = listing.pages > 1 || !listing.complete;
        for (name, found) in std::mem::take(&mut listing.names) {
            if self.changed_since(&name, asked) {
                continue;
            }
            match self.children.get_mut(&name) {
                Some(child) if child.is_directory == found.is_directory => child.seen = found.seen,
                // A file where a directory was, or the other way round: another inode altogether.
                Some(child) if !child.ino.is_some_and(&is_drafted) => {
                    gone.extend(child.ino);
                    *child = found;
                }
                Some(_) => {}
                None => {
                    self.children.insert(name, found);
                }
            }
        }
        self.changed.retain(|_, moment| *moment >= asked);
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(etag: &str) -> Child {
        let seen =
            Seen { etag: ETag::new(etag), size: 1, modified: SystemTime::UNIX_EPOCH, storage_class: None, asks: true };
        Child { ino: None, is_directory: false, seen: Some(seen) }
    }

    fn listing(names: &[&str]) -> Listing {
        let names = names.iter().map(|name| ((*name).to_owned(), found("v1"))).collect();
        Listing { names, complete: true, pages: 1, ..Listing::default() }
    }

    #[test]
    fn a_listing_asked_before_an_unlink_does_not_bring_the_name_back() {
        let mut directory = Directory::default();
        directory.merge(&mut listing(&["a", "b"]), Instant::now(), |_| false);
        let asked = Instant::now();
        directory.detach("a");
        directory.merge(&mut listing(&["a", "b"]), asked, |_| false);
        assert!(directory.child("a").is_none());
        assert!(directory.child("b").is_some());
    }

    #[test]
    fn a_listing_asked_before_a_create_does_not_take_the_name_away() {
        let mut directory = Directory::default();
        let asked = Instant::now();
        directory.attach("new", 7, false);
        assert!(directory.merge(&mut listing(&[]), asked, |_| false).is_empty());
        assert!(directory.child("new").is_some());
    }

    #[test]
    fn names_gone_from_s3_go_and_pending_ones_stay() {
        let mut directory = Directory::default();
        directory.attach("old", 7, false);
        directory.attach("pending", 8, false);
        let gone = directory.merge(&mut listing(&[]), Instant::now(), |ino| ino == 8);
        assert_eq!(gone, [7]);
        assert!(directory.child("pending").is_some());
    }

    #[test]
    fn a_partial_listing_takes_nothing_away() {
        let mut directory = Directory::default();
        directory.merge(&mut listing(&["z"]), Instant::now(), |_| false);
        let mut partial = Listing { complete: false, ..listing(&["a"]) };
        directory.merge(&mut partial, Instant::now(), |_| false);
        assert!(directory.child("z").is_some() && directory.child("a").is_some());
        assert!(directory.is_large);
    }

    #[test]
    fn what_was_heard_of_a_name_is_forgotten_when_it_changes_here_or_everything_is_listed() {
        let mut directory = Directory::default();
        let heard = || Some(Hints::new(Instant::now(), listing(&["a", "b", "c"]).names));
        let hint = |directory: &mut Directory, name: &str| directory.hints.as_mut()?.take(name);
        directory.hints = heard();
        directory.attach("a", 7, false);
        directory.detach("a");
        directory.note_change("b");
        assert!(hint(&mut directory, "a").is_none() && hint(&mut directory, "b").is_none());
        assert!(hint(&mut directory, "c").is_some() && hint(&mut directory, "c").is_none(), "once");
        directory.hints = heard();
        directory.merge(&mut listing(&["b"]), Instant::now(), |_| false);
        assert!(hint(&mut directory, "a").is_none());
    }
}
