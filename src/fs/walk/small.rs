//! Small trees: where somebody works in a directory below which there is no more than a page of keys, one flat LIST
//! tells what lies in it and in all directories below, as often as one of them would be listed by itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::sorter::{Sorter, Walked};
use super::table::Source;
use super::{MAX_COUNTED, Pause, SIBLINGS, Walks, parent_of};
use crate::bucket::{self, ListPage, ListRequest};
use crate::fs::listing::is_silence;
use crate::fs::names::Listing;
use crate::key;

/// Small trees at once; beyond, the oldest is forgotten.
const MAX_TREES: usize = 8;
/// Of listings that no walk brought.
const NO_WALK: Source = Source { walk: 0, page: 0 };

/// The small trees in which somebody works.
#[derive(Debug, Default)]
pub struct SmallTrees {
    trees: Vec<SmallTree>,
    /// Trees that were more than a page.
    pauses: HashMap<String, Pause>,
}

#[derive(Debug)]
struct SmallTree {
    root: String,
    /// The directory that was told last. Who asks for that one alone needs not be told of the others.
    last: String,
    /// How many were told, one after the other.
    told: u32,
    flight: Arc<Flight>,
}

/// The flat listing of a tree: one at a time, and who waited for it takes its failure too.
#[derive(Debug, Default)]
struct Flight {
    gate: tokio::sync::Mutex<()>,
    failure: Mutex<Option<(Instant, bucket::Error)>>,
}

impl Flight {
    fn failure_since(&self, wanted: Instant) -> Option<bucket::Error> {
        self.failure.lock().as_ref().filter(|(at, _)| *at >= wanted).map(|(_, error)| error.clone())
    }
}

impl SmallTrees {
    fn of(&mut self, prefix: &str) -> Option<&mut SmallTree> {
        self.trees.iter_mut().find(|tree| prefix.starts_with(&tree.root))
    }

    /// Somebody begins to work in `root`.
    fn begin(&mut self, root: &str) {
        if self.pauses.get(root).is_some_and(Pause::holds) {
            return;
        }
        if let Some(tree) = self.of(root) {
            (tree.last, tree.told) = (String::new(), 0);
            return;
        }
        self.trees.retain(|tree| !tree.root.starts_with(root));
        if self.trees.len() >= MAX_TREES {
            self.trees.remove(0);
        }
        self.trees.push(SmallTree { root: root.to_owned(), last: String::new(), told: 0, flight: Arc::default() });
    }

    /// A directory was told from the listing of its tree. Whether so many were that those who enter them are
    /// likely to need the attributes of all that is in it.
    pub fn note_told(&mut self, prefix: &str) -> bool {
        let Some(tree) = self.of(prefix) else { return false };
        if tree.last != prefix {
            prefix.clone_into(&mut tree.last);
            tree.told += 1;
        }
        tree.told >= SIBLINGS
    }

    /// The tree in which a directory lies and how it is listed, if that may tell more than the directory's listing.
    fn worth_listing(&mut self, prefix: &str) -> Option<(String, Arc<Flight>)> {
        let tree = self.of(prefix).filter(|tree| tree.last != prefix)?;
        Some((tree.root.clone(), tree.flight.clone()))
    }

    /// A tree has grown too large, or cannot be listed so.
    fn give_up(&mut self, root: &str) {
        self.trees.retain(|tree| tree.root != root);
        if self.pauses.len() >= MAX_COUNTED {
            self.pauses.retain(|_, pause| pause.holds());
        }
        if self.pauses.len() < MAX_COUNTED {
            self.pauses.entry(root.to_owned()).or_default().lengthen();
        }
    }
}

impl Walks {
    /// Somebody works in a directory: if what lies below it is a page at most, one listing tells all of that.
    pub fn work_in(&self, root: &str) {
        if self.is_walkable(root) {
            self.state.lock().small.begin(root);
        }
    }

    /// What lies in the directory `prefix`, from a listing of the small tree that it is in.
    ///
    /// # Errors
    /// When that had no answer from S3.
    pub(super) async fn listing_of_tree(
        &self,
        prefix: &str,
        ttl: Duration,
        since: Instant,
    ) -> bucket::Result<Option<(Listing, Instant)>> {
        let tree = if self.is_walkable(prefix) { self.state.lock().small.worth_listing(prefix) } else { None };
        let Some((root, flight)) = tree else { return Ok(None) };
        let wanted = Instant::now();
        let _turn = flight.gate.lock().await;
        if let Some(failure) = flight.failure_since(wanted) {
            return Err(failure);
        }
        if let Some(found) = self.take(prefix, ttl.max(wanted.elapsed()), since) {
            return Ok(Some(found));
        }
        // Whoever was first may have found that it is none.
        if self.state.lock().small.worth_listing(prefix).is_none_or(|(still, _)| still != root) {
            return Ok(None);
        }
        let asked = Instant::now();
        let request = ListRequest { prefix: root.clone(), ..ListRequest::default() };
        let page = match self.lister.bucket.list(&request).await {
            Ok(page) if page.next.is_none() => page,
            Err(error) if is_silence(&error) => {
                *flight.failure.lock() = Some((Instant::now(), error.clone()));
                return Err(error);
            }
            _ => {
                self.state.lock().small.give_up(&root);
                return Ok(None);
            }
        };
        let Some(mut walked) = self.sort_tree(&root, &page, asked) else { return Ok(None) };
        let own = walked.iter().position(|walked| walked.prefix == prefix).map(|at| walked.swap_remove(at));
        self.keep(walked, NO_WALK);
        let is_one_of_many = self.state.lock().small.note_told(prefix);
        if let Some(own) = own.as_ref().filter(|_| is_one_of_many) {
            self.ask_ahead(prefix, &own.listing);
        }
        Ok(own.map(|own| (own.listing, own.asked)))
    }

    /// Asks for the attributes of the files in a directory.
    pub(super) fn ask_ahead(&self, prefix: &str, listing: &Listing) {
        for (name, child) in &listing.names {
            if let Some(seen) = child.seen.as_ref().filter(|seen| seen.asks) {
                self.lister.heads.ahead(&format!("{prefix}{name}"), seen);
            }
        }
    }

    /// Sorts the keys of a tree into its directories, the root among them.
    fn sort_tree(&self, root: &str, page: &ListPage, asked: Instant) -> Option<Vec<Walked>> {
        let tells = self.lister.origins.tells(page);
        let mut sorter = Sorter::new(parent_of(root)?, "", self.lister.odd_keys.clone());
        let mut walked = Vec::new();
        for object in &page.objects {
            let Ok(complete) = sorter.take(object, self.lister.origins.seen(object, tells), asked) else {
                self.disable();
                return None;
            };
            walked.extend(complete);
        }
        walked.extend(sorter.finish());
        Some(walked)
    }

    /// Whether a flat listing of `root` may be asked for. Versions are listed directory by directory.
    pub(super) fn is_walkable(&self, root: &str) -> bool {
        let is_disabled = self.disabled.load(Ordering::Relaxed);
        !is_disabled && root.len() >= self.shortest && key::split_versions(root).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_worth(small: &mut SmallTrees, prefix: &str) -> bool {
        small.worth_listing(prefix).is_some()
    }

    #[test]
    fn a_tree_is_listed_for_each_of_its_directories_but_not_twice_for_one_alone() {
        let mut small = SmallTrees::default();
        assert!(!is_worth(&mut small, "d/"));
        small.begin("d/");
        assert!(is_worth(&mut small, "d/") && is_worth(&mut small, "d/a/b/") && !is_worth(&mut small, "e/"));
        small.note_told("d/a/");
        assert!(!is_worth(&mut small, "d/a/") && is_worth(&mut small, "d/b/"));
        small.note_told("d/b/");
        assert!(is_worth(&mut small, "d/a/"));
        small.begin("d/b/");
        assert!(is_worth(&mut small, "d/b/"), "somebody begins to work there");
        assert_eq!(small.trees.len(), 1, "in the tree that is known");
    }

    #[test]
    fn what_was_more_than_a_page_is_not_tried_again_for_a_while_but_what_lies_in_it_is() {
        let mut small = SmallTrees::default();
        small.begin("d/");
        small.give_up("d/");
        small.begin("d/");
        assert!(!is_worth(&mut small, "d/"));
        small.begin("d/a/");
        assert!(is_worth(&mut small, "d/a/b/") && !is_worth(&mut small, "d/b/"));
        for number in 0..20 {
            small.begin(&format!("e{number}/"));
        }
        assert!(small.trees.len() == MAX_TREES && is_worth(&mut small, "e19/") && !is_worth(&mut small, "d/a/"));
    }
}
