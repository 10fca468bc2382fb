//! Whole objects fetched before anybody asks for them.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use tokio::runtime::Handle;

use super::ahead::Stream;
use super::{BlockCache, Pinned};

/// Objects fetched for one guess about what will be read. They take their room from the share of
/// read-ahead and leave GETs to readers. Dropping it gives the guess up, as [`Prefetch::stop`] does.
#[derive(Debug)]
pub struct Prefetch {
    cache: Weak<BlockCache>,
    /// Tells this guess's bytes from those of others.
    stream: Arc<Stream>,
    sent: VecDeque<Pinned>,
}

impl Prefetch {
    /// Objects that a guess has under way at once, at most.
    pub const MAX_OBJECTS: usize = 64;

    /// A guess that has fetched nothing yet.
    #[must_use]
    pub fn new(cache: &Arc<BlockCache>) -> Self {
        Self { cache: Arc::downgrade(cache), stream: Arc::default(), sent: VecDeque::new() }
    }

    /// Fetches an object unless it is in memory or on its way; from the disk if it is there. False when
    /// there is no room or no GET free now. Needs a runtime.
    pub fn fetch(&mut self, object: &Pinned) -> bool {
        let Some(cache) = self.cache.upgrade() else { return false };
        cache.runtime.get_or_init(Handle::current);
        if !cache.fetch_ahead(object, &(0..object.size), &self.stream) {
            return false;
        }
        if self.sent.len() >= Self::MAX_OBJECTS {
            self.sent.pop_front();
        }
        self.sent.push_back(object.clone());
        true
    }

    /// The guess has failed: what is under way and awaited by nobody is aborted, and what came unread
    /// is the first to go.
    pub fn stop(&mut self) {
        let Some(cache) = self.cache.upgrade() else { return };
        for object in self.sent.drain(..) {
            cache.abandon(&object, &(0..object.size), &Arc::downgrade(&self.stream));
        }
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        self.stop();
    }
}
