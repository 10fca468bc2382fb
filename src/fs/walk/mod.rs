//! Walked trees: when directory after directory is entered, one flat LIST (no delimiter) tells what
//! lies in all of them, a thousand keys a request.
//!
//! A walk begins where a directory with many unknown sub-directories is read, or where one
//! sub-directory after the other is listed by itself. It reads a few pages ahead of its readers and
//! stops when they do not follow; so a guess that fails costs a few requests, however large the tree.
//! Who goes down level by level may be in a small tree (`.git`): then one page is read beside the
//! listing that he waits for, and if that does not hold where he goes next, that was all.
//!
//! Who works in a directory with little below it is told all of that by one page ([`small`]), which no walk follows.
//!
//! What is read is kept by prefix, with the moment it was asked for, until somebody asks for that
//! directory: then it is a listing like any other.

mod small;
mod sorter;
mod stream;
mod table;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::small::SmallTrees;
use self::stream::{Progress, Walk};
use self::table::Table;
use super::names::{Listing, Seen};
use super::pages::Lister;
use crate::bucket;
use crate::telemetry::spans;

/// Siblings that are listed by themselves before a walk begins at their parent.
const SIBLINGS: u32 = 3;
/// Pages that a reader lets a walk go on before it asks for its directory itself.
const PATIENCE_PAGES: usize = 2;
/// Walks at once; beyond, the oldest ends.
const MAX_WALKS: usize = 8;
/// Directories whose entered children are counted.
const MAX_COUNTED: usize = 1_000;
/// A guess that failed is not tried again for this long, and twice as long the next time.
const FIRST_PAUSE: Duration = Duration::from_secs(10);

/// All walks of a mount.
#[derive(Debug)]
pub struct Walks {
    lister: Lister,
    /// Bytes of the shortest prefix at which a walk begins: of the mount's, or of a name where the root holds
    /// several buckets. One of them says nothing of the next.
    shortest: usize,
    /// How long a listing is believed.
    ttl: Duration,
    /// The server's flat listings are no use.
    disabled: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    table: Table,
    walks: Vec<Arc<Walk>>,
    next_walk: u64,
    small: SmallTrees,
    entered: HashMap<String, Entered>,
    /// Looking below who goes down.
    looking: Pause,
    /// Answers asked for before this moment are of no use: many keys changed at once.
    not_before: Option<Instant>,
}

/// How the sub-directories of a directory are being entered.
#[derive(Debug)]
struct Entered {
    since: Instant,
    count: u32,
    /// The last one: coming back to it is no sign that the next will be entered.
    last: String,
    pause: Pause,
}

impl Entered {
    fn new() -> Self {
        Self { since: Instant::now(), count: 0, last: String::new(), pause: Pause::default() }
    }

    fn is_paused(&self) -> bool {
        self.pause.holds()
    }
}

/// Of guesses: each that fails makes it twice as long.
#[derive(Debug, Default)]
struct Pause {
    until: Option<Instant>,
    failed: u32,
}

impl Pause {
    fn holds(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    fn lengthen(&mut self) {
        const LONGEST: Duration = Duration::from_hours(1);
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failed.min(16)).min(LONGEST);
        (self.until, self.failed) = (Some(Instant::now() + pause), self.failed + 1);
    }
}

impl Walks {
    /// No walk yet.
    pub fn new(lister: Lister, shortest: usize, ttl: Duration) -> Arc<Self> {
        let disabled = AtomicBool::new(false);
        Arc::new(Self { lister, shortest, ttl, disabled, state: Mutex::default() })
    }

    /// What lies in the directory `prefix`, if a walk has read that within `ttl` and after `since`,
    /// or is just about to. The moment is when it was asked for.
    ///
    /// # Errors
    /// When a walk that was waited for had no answer from S3.
    pub async fn listing(
        self: &Arc<Self>,
        prefix: &str,
        ttl: Duration,
        since: Instant,
    ) -> bucket::Result<Option<(Listing, Instant)>> {
        if let Some(found) = self.take(prefix, ttl, since) {
            return Ok(Some(found));
        }
        if self.ahead_of(prefix).is_none() {
            if let Some(found) = self.listing_of_tree(prefix, ttl, since).await? {
                return Ok(Some(found));
            }
            if self.looks_below(prefix) {
                return Ok(None);
            }
            self.count_entering(prefix);
        }
        let Some(walk) = self.ahead_of(prefix) else { return Ok(None) };
        if !walk.is_look() {
            walk.grant(walk.pages() + PATIENCE_PAGES);
        }
        match walk.wait_for(prefix).await {
            Progress::Passed | Progress::Ended => Ok(self.take(prefix, ttl, since)),
            Progress::Paused => {
                self.give_up(&walk);
                Ok(None)
            }
            Progress::Failed(error) => Err(error),
        }
    }

    /// The marker of a directory that a walk has read or is reading now, and when it was asked for.
    /// Unlike [`Self::listing`] this makes no walk go on.
    pub async fn marker(&self, prefix: &str, since: Instant) -> Option<(Option<Seen>, Instant)> {
        let known = || {
            let state = self.state.lock();
            let since = oldest(&state, self.ttl, since);
            state.table.marker(prefix, since)
        };
        if let Some(marker) = known() {
            return Some(marker);
        }
        self.ahead_of(prefix)?.wait_for(prefix).await;
        known()
    }

    /// The sub-directories of `root` from `first` on are about to be entered, some `count` of them:
    /// reads as many pages ahead as it is likely to take.
    pub fn begin(self: &Arc<Self>, root: &str, first: &str, count: usize) {
        /// In sub-directories of fewer keys than this a walk costs less time than their HEADs.
        const KEYS_IN_ONE: usize = 16;
        const KEYS_IN_PAGE: usize = 1_000;
        if self.ahead_of(first).is_some() {
            return;
        }
        {
            let mut state = self.state.lock();
            state.table.expire(self.ttl);
            if state.table.contains(first) || state.entered.get(root).is_some_and(Entered::is_paused) {
                return;
            }
        }
        self.start(root, first, (count * KEYS_IN_ONE).div_ceil(KEYS_IN_PAGE), false);
    }

    /// Many keys changed at once (the rename of a directory), or somebody wants S3 to be asked: nothing that
    /// was asked for before now is used any more.
    pub fn forget_all(&self) {
        let mut state = self.state.lock();
        state.not_before = Some(Instant::now());
        state.table = Table::default();
    }

    /// Another part of the program changed this key: what was read of the directories on the way to it is not used.
    pub fn forget(&self, key: &str) {
        let mut state = self.state.lock();
        for (slash, _) in key.match_indices('/') {
            state.table.forget(&key[..=slash]);
        }
    }

    fn take(&self, prefix: &str, ttl: Duration, since: Instant) -> Option<(Listing, Instant)> {
        let mut state = self.state.lock();
        let since = oldest(&state, ttl.min(self.ttl), since);
        let (listing, asked, source) = state.table.take(prefix, since)?;
        let is_one_of_many = state.small.note_told(prefix);
        if let Some(walk) = state.walks.iter().find(|walk| walk.number == source.walk).cloned() {
            if walk.is_look() {
                state.looking = Pause::default();
            }
            walk.hit(source.page);
        }
        drop(state);
        if is_one_of_many {
            self.ask_ahead(prefix, &listing);
        }
        Some((listing, asked))
    }

    /// The walk that has `prefix` still before it.
    fn ahead_of(&self, prefix: &str) -> Option<Arc<Walk>> {
        let mut state = self.state.lock();
        state.walks.retain(|walk| !walk.has_ended());
        state.walks.iter().find(|walk| walk.is_ahead_of(prefix)).cloned()
    }

    /// Who goes down level by level, as to `prefix` now, is likely to go on: begins to look what lies
    /// there and behind it. For callers whom no walk is ahead of.
    fn looks_below(self: &Arc<Self>, prefix: &str) -> bool {
        let Some(parent) = parent_of(prefix).filter(|parent| parent.len() > self.shortest) else { return false };
        let Some(above) = parent_of(parent) else { return false };
        {
            let state = self.state.lock();
            let fresh = |entered: &&Entered| entered.since.elapsed() < self.ttl && !entered.is_paused();
            let goes_down = state.entered.get(above).filter(fresh).is_some_and(|entered| entered.last == parent);
            let is_sibling = state.entered.get(parent).is_some_and(|entered| entered.count > 0 || entered.is_paused());
            if !goes_down || is_sibling || state.looking.holds() {
                return false;
            }
        }
        self.count_entering(prefix);
        self.start(parent, prefix, 1, true);
        true
    }

    /// One more sub-directory is listed by itself: after some, a walk begins at their parent. For
    /// callers whom no walk is ahead of.
    fn count_entering(self: &Arc<Self>, prefix: &str) {
        let Some(parent) = parent_of(prefix).filter(|parent| parent.len() >= self.shortest) else { return };
        {
            let mut state = self.state.lock();
            if state.entered.len() >= MAX_COUNTED {
                state.entered.retain(|_, entered| entered.since.elapsed() < self.ttl || entered.is_paused());
            }
            if state.entered.len() >= MAX_COUNTED {
                return;
            }
            let entered = state.entered.entry(parent.to_owned()).or_insert_with(Entered::new);
            if entered.since.elapsed() > self.ttl {
                (entered.since, entered.count) = (Instant::now(), 0);
            }
            if entered.last == prefix {
                return;
            }
            prefix.clone_into(&mut entered.last);
            entered.count += 1;
            if entered.count < SIBLINGS || entered.is_paused() {
                return;
            }
        }
        self.start(parent, prefix, 1, false);
    }

    /// The reader could not wait any longer.
    fn give_up(&self, walk: &Walk) {
        walk.end();
        let mut state = self.state.lock();
        if walk.is_look() {
            state.looking.lengthen();
            return;
        }
        let entered = state.entered.entry(walk.root.clone()).or_insert_with(Entered::new);
        entered.pause.lengthen();
        entered.count = 0;
        entered.last.clear();
    }

    /// This server lists in an order of its own.
    pub fn disable(&self) {
        tracing::debug!("flat listings do not come in the order of their keys: no walks on this server");
        self.disabled.store(true, Ordering::Relaxed);
    }

    fn start(self: &Arc<Self>, root: &str, first: &str, pages: usize, is_look: bool) {
        if !self.is_walkable(root) {
            return;
        }
        let walk = {
            let mut state = self.state.lock();
            state.next_walk += 1;
            // Before everything in `first`, behind the sub-directories that were entered already.
            let walk = Arc::new(Walk::new(state.next_walk, root, first.trim_end_matches('/'), pages, is_look));
            for other in state.walks.iter().filter(|other| other.root == root) {
                other.end();
            }
            if state.walks.len() >= MAX_WALKS {
                state.walks.remove(0).end();
            }
            state.walks.push(walk.clone());
            walk
        };
        tracing::debug!(root = %root.escape_debug(), pages, is_look, "a walk begins");
        tokio::spawn(spans::carried(stream::run(self.clone(), walk)));
    }

    fn keep(&self, walked: Vec<sorter::Walked>, source: table::Source) {
        let mut state = self.state.lock();
        state.table.expire(self.ttl);
        for walked in walked {
            state.table.insert(walked, source);
        }
    }
}

/// The moment after which an answer must have been asked for.
fn oldest(state: &State, ttl: Duration, since: Instant) -> Instant {
    let expired = Instant::now().checked_sub(ttl).unwrap_or(since);
    since.max(expired).max(state.not_before.unwrap_or(since))
}

/// `a/b/` for `a/b/c/`, the empty prefix for `a/`; nothing for that.
fn parent_of(prefix: &str) -> Option<&str> {
    let inside = prefix.strip_suffix('/')?;
    Some(inside.rfind('/').map_or("", |slash| &inside[..=slash]))
}
