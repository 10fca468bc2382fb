//! One directory that is read file by file: where its reader is, and whether he was foretold.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::cache::{BlockCache, Prefetch};
use crate::fs::inodes::Ino;

/// Opens in a row, after the first, that make an order believed.
pub const HITS_TO_BEGIN: usize = 2;
/// Files ahead at first, then twice as many with each open.
const FIRST_WINDOW: usize = 4;
pub const MAX_WINDOW: usize = Prefetch::MAX_OBJECTS;
/// How far an open may be off before anything is fetched: programs skip a little, and several may
/// share the work.
pub const SLACK: usize = 4;
/// Opens remembered: a file opened again says nothing about the order.
const MAX_OPENED: usize = 64;

/// The orders in which programs go through a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Name,
    Inode,
}

impl Order {
    /// The order to try when this one was wrong.
    pub fn other(self) -> Self {
        match self {
            Self::Name => Self::Inode,
            Self::Inode => Self::Name,
        }
    }
}

/// One directory that is read file by file.
#[derive(Debug)]
pub struct Walk {
    pub directory: Ino,
    pub order: Order,
    /// The furthest file opened; none yet if empty.
    pub last: String,
    pub hits: usize,
    pub skipped: usize,
    /// Files to be ahead by; 0 as long as the order is not believed.
    pub window: usize,
    /// What comes after `last`, as far as it was fetched.
    pub ahead: VecDeque<Ahead>,
    pub opened: VecDeque<String>,
    pub prefetch: Prefetch,
    pub by_inode: Option<Arc<ByInode>>,
}

/// A file that was fetched ahead, or need not be.
#[derive(Debug)]
pub struct Ahead {
    pub name: String,
    pub bytes: u64,
}

/// The files of a directory by inode number.
#[derive(Debug)]
pub struct ByInode {
    pub listed_at: Option<Instant>,
    pub files: Vec<(Ino, String)>,
}

/// What an open says about a guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was foretold; so many files before it were left out.
    Hit { skipped: usize },
    /// The file was opened before.
    Again,
    /// Something else was opened.
    Miss,
}

impl Walk {
    /// Nothing was opened yet.
    pub fn new(directory: Ino, order: Order, cache: &Arc<BlockCache>) -> Self {
        Self {
            directory,
            order,
            last: String::new(),
            hits: 0,
            skipped: 0,
            window: 0,
            ahead: VecDeque::new(),
            opened: VecDeque::new(),
            prefetch: Prefetch::new(cache),
            by_inode: None,
        }
    }

    /// Whether an open was foretold, by what was fetched and by what comes `next`.
    pub fn judge(&self, name: &str, next: &[String]) -> Verdict {
        if self.opened.iter().any(|opened| opened == name) {
            return Verdict::Again;
        }
        let ahead = self.ahead.iter().map(|ahead| &ahead.name).chain(next);
        let Some(skipped) = ahead.into_iter().position(|known| known == name) else { return Verdict::Miss };
        // The very first open can only be the first of all.
        let allowed = if self.last.is_empty() { 0 } else { SLACK + self.hits / 4 };
        if self.skipped + skipped > allowed { Verdict::Miss } else { Verdict::Hit { skipped } }
    }

    /// A foretold file was opened; so many before it were left out.
    pub fn advance(&mut self, name: &str, skipped: usize) {
        self.remember(name);
        name.clone_into(&mut self.last);
        self.hits += 1;
        self.skipped += skipped;
        let passed = (skipped + 1).min(self.ahead.len());
        self.ahead.drain(..passed);
        if self.window > 0 {
            self.window = (self.window * 2).min(MAX_WINDOW);
        } else if self.hits >= HITS_TO_BEGIN && self.skipped == 0 {
            self.begin(FIRST_WINDOW);
        }
    }

    /// The order is believed from now on.
    pub fn begin(&mut self, window: usize) {
        self.hits = self.hits.max(HITS_TO_BEGIN);
        self.window = window;
    }

    /// Nothing is foretold any more: this open may be the first of a new order. Returns the one before.
    pub fn begin_anew(&mut self, name: &str) -> String {
        self.prefetch.stop();
        self.ahead.clear();
        self.opened.clear();
        self.remember(name);
        (self.hits, self.skipped, self.window) = (0, 0, 0);
        std::mem::replace(&mut self.last, name.to_owned())
    }

    fn remember(&mut self, name: &str) {
        if self.opened.len() >= MAX_OPENED {
            self.opened.pop_front();
        }
        self.opened.push_back(name.to_owned());
    }
}

impl ByInode {
    /// The files after this one; the first ones after none.
    pub fn after(&self, name: &str, count: usize) -> Vec<String> {
        let files = if name.is_empty() {
            &self.files[..]
        } else {
            let Some(index) = self.files.iter().position(|(_, file)| file == name) else { return Vec::new() };
            &self.files[index + 1..]
        };
        files.iter().take(count).map(|(_, name)| name.clone()).collect()
    }
}
