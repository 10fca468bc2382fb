//! Files of a directory are fetched before they are opened, while they are opened in an order that
//! can be foretold: that of the names, or that of the inode numbers.
//!
//! Programs that read trees go from file to file, and each open waits for S3. `tar c`, `grep -r`, a
//! data loader and `git` take the files as the directory lists them, `cp -r` sorts them by inode
//! number. A [`Walk`] watches one directory; after two opens in a row that it would have foretold it
//! fetches what comes next. A guess that fails ends it at once. A program that has read one directory
//! in order is believed to do so with the next ([`Belief`]).

mod walk;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::walk::{Ahead, ByInode, HITS_TO_BEGIN, Order, SLACK, Verdict, Walk};
use super::Fs;
use super::inodes::{Ino, Pages, Tree};
use super::names::{Child, Directory};
use super::persist::pin;
use super::stat::FileKind;
use crate::cache::{BLOCK_BYTES, Pinned};
use crate::key;

/// Directories watched at once; a walk through a tree has one on each level.
const MAX_WALKS: usize = 32;
/// Files ahead at first in a directory of which the order is believed beforehand.
const BELIEVED_WINDOW: usize = 16;
/// How long a program may be busy with one directory and still be believed in the next.
const BELIEF_LASTS: Duration = Duration::from_secs(5);
/// So many directories may be listed without being read before nothing more is fetched for a listing.
const MAX_IDLE_LISTINGS: usize = 3;
/// Largest directory that is sorted by inode number.
const MAX_SORTED: usize = 10_000;

/// All directories that are being read.
#[derive(Debug, Default)]
pub(super) struct Siblings {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The most recent one last.
    walks: Vec<Walk>,
    belief: Option<Belief>,
}

/// Somebody has just read a directory in order.
#[derive(Clone, Copy, Debug)]
struct Belief {
    order: Order,
    at: Instant,
    /// Listings since then for which something was fetched that nobody has opened.
    idle_listings: usize,
}

impl Fs {
    /// A file is being opened for reading: fetches what will be opened next, if that can be foretold.
    pub(super) fn siblings_of_opened(&self, ino: Ino) {
        let place = {
            let tree = self.tree.lock();
            let Some(node) = tree.get(ino).filter(|node| node.linked && !node.is_directory()) else { return };
            (node.parent, node.name.clone())
        };
        let (directory, name) = place;
        let mut state = self.siblings.state.lock();
        let belief = state.belief.filter(Belief::is_alive);
        let mut walk = state.take(directory).unwrap_or_else(|| self.new_walk(directory, belief));
        if walk.last.is_empty() && walk.hits == 0 {
            walk.begin_anew(&name);
        } else {
            self.follow_open(&mut walk, &name);
        }
        if walk.window > 0 {
            self.fetch_siblings(&mut walk);
            state.belief = Some(Belief { order: walk.order, at: Instant::now(), idle_listings: 0 });
        }
        state.put(walk);
    }

    /// A directory was listed: by somebody who is going to read it, if that is what he has done with
    /// those before.
    pub(super) fn siblings_of_listed(&self, directory: Ino) {
        let mut state = self.siblings.state.lock();
        let Some(belief) = state.belief.filter(Belief::is_alive) else { return };
        if belief.idle_listings >= MAX_IDLE_LISTINGS || state.walks.iter().any(|walk| walk.directory == directory) {
            return;
        }
        let mut walk = self.new_walk(directory, Some(belief));
        walk.begin(BELIEVED_WINDOW);
        self.fetch_siblings(&mut walk);
        if walk.ahead.iter().any(|ahead| ahead.bytes > 0) {
            state.belief = Some(Belief { idle_listings: belief.idle_listings + 1, ..belief });
        }
        state.put(walk);
    }

    fn new_walk(&self, directory: Ino, belief: Option<Belief>) -> Walk {
        let mut walk = Walk::new(directory, belief.map_or(Order::Name, |belief| belief.order), &self.cache);
        if belief.is_some() {
            // Its first file is all that has to be right.
            walk.hits = HITS_TO_BEGIN - 1;
        }
        walk
    }

    /// Takes note of an open and moves the walk on, or begins it anew.
    fn follow_open(&self, walk: &mut Walk, name: &str) {
        let verdict = match walk.judge(name, &[]) {
            Verdict::Miss => {
                let next = self.following(walk, SLACK);
                walk.judge(name, &next)
            }
            sure => sure,
        };
        match verdict {
            Verdict::Again => {}
            Verdict::Hit { skipped } => walk.advance(name, skipped),
            Verdict::Miss => {
                let before = walk.begin_anew(name);
                // Two opens that are no neighbours in one order may be so in the other.
                walk.order = walk.order.other();
                if self.first_after(walk, &before).is_some_and(|next| next == name) {
                    walk.hits = 1;
                }
            }
        }
    }

    fn first_after(&self, walk: &mut Walk, name: &str) -> Option<String> {
        let last = std::mem::replace(&mut walk.last, name.to_owned());
        let first = self.following(walk, 1).into_iter().next();
        walk.last = last;
        first
    }

    /// Fetches as far ahead as the window reaches.
    fn fetch_siblings(&self, walk: &mut Walk) {
        let share = self.cache.prefetch_share_bytes();
        let mut ahead_bytes: u64 = walk.ahead.iter().map(|ahead| ahead.bytes).sum();
        let missing = walk.window.saturating_sub(walk.ahead.len());
        if missing == 0 {
            return;
        }
        for name in self.following(walk, missing) {
            let object = self.version_ahead(walk.directory, &name);
            let bytes = object.as_ref().map_or(0, |object| object.size);
            ahead_bytes += bytes;
            let fits = ahead_bytes <= share;
            if !fits || object.is_some_and(|object| !walk.prefetch.fetch(&object)) {
                return;
            }
            walk.ahead.push_back(Ahead { name, bytes });
        }
    }

    /// The files that come after what the walk knows of already.
    fn following(&self, walk: &mut Walk, count: usize) -> Vec<String> {
        let tree = self.tree.lock();
        let Some(directory) = tree.get(walk.directory).and_then(|node| node.directory.as_ref()) else {
            return Vec::new();
        };
        let after = walk.ahead.back().map_or(walk.last.as_str(), |ahead| ahead.name.as_str());
        match walk.order {
            Order::Name => {
                let files = directory.children_after(after).filter(|(_, child)| !child.is_directory);
                files.take(count).map(|(name, _)| name.clone()).collect()
            }
            Order::Inode => {
                let Some(sorted) = self.by_inode(&tree, walk.directory, directory, walk.by_inode.take()) else {
                    return Vec::new();
                };
                let files = sorted.after(after, count);
                walk.by_inode = Some(sorted);
                files
            }
        }
    }

    /// The files of a directory by inode number: those `known`, while it is the same listing. `None`
    /// where there are too many.
    fn by_inode(
        &self,
        tree: &Tree,
        ino: Ino,
        directory: &Directory,
        known: Option<Arc<ByInode>>,
    ) -> Option<Arc<ByInode>> {
        let listed_at = directory.listed_at();
        if let Some(known) = known.filter(|known| known.listed_at == listed_at) {
            return Some(known);
        }
        if directory.len() > MAX_SORTED {
            return None;
        }
        let prefix = tree.key(ino)?;
        // As `readdir` tells them.
        let number = |name: &str, child: &Child| {
            let key = || format!("{prefix}{name}");
            let remembered = || self.index.get(&key()).and_then(|remembered| remembered.attributes.ino);
            child.ino.or_else(remembered).unwrap_or_else(|| key::inode_number(&key()))
        };
        let files = directory.children().filter(|(_, child)| !child.is_directory);
        let mut files: Vec<_> = files.map(|(name, child)| (number(name, child), name.clone())).collect();
        files.sort_unstable();
        Some(Arc::new(ByInode { listed_at, files }))
    }

    /// The version of a file that is worth fetching: small, not being written, not with the kernel.
    fn version_ahead(&self, directory: Ino, name: &str) -> Option<Pinned> {
        let tree = self.tree.lock();
        let child = tree.get(directory)?.directory.as_ref()?.child(name)?;
        let node = child.ino.and_then(|ino| tree.get(ino));
        let known = match node {
            Some(node) if node.is_drafted() || node.stat.kind != FileKind::File => return None,
            Some(node) if node.pages == Pages::Of(node.etag.clone()) => return None,
            Some(node) => pin(&tree.key(node.ino)?, node),
            None => None,
        };
        let object = match &child.seen {
            Some(seen) => {
                let key = format!("{}{name}", tree.key(directory)?);
                Some(Pinned { key: key.into(), etag: seen.etag.clone(), size: seen.size })
            }
            None => known,
        };
        object.filter(|object| (1..=BLOCK_BYTES).contains(&object.size))
    }
}

impl State {
    fn take(&mut self, directory: Ino) -> Option<Walk> {
        let index = self.walks.iter().position(|walk| walk.directory == directory)?;
        Some(self.walks.remove(index))
    }

    fn put(&mut self, walk: Walk) {
        if self.walks.len() >= MAX_WALKS {
            self.walks.remove(0);
        }
        self.walks.push(walk);
    }
}

impl Belief {
    fn is_alive(&self) -> bool {
        self.at.elapsed() < BELIEF_LASTS
    }
}
