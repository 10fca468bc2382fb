//! HEADs: what they tell goes into the index, so that each is paid once; those that will be needed
//! go out in parallel, ahead of the question.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::names::Seen;
use crate::bucket::attributes::Attributes;
use crate::bucket::{self, Bucket, Layout, ObjectInfo};
use crate::cache::{AttributeIndex, Modified, Remembered};
use crate::telemetry::spans;

/// HEADs ahead of the question that are under way at once.
const PARALLEL_AHEAD: usize = 64;
/// HEADs ahead that wait for their turn, at most; beyond, whoever needs one asks himself.
const MAX_WAITING: usize = 2_048;

type Outcome = Option<bucket::Result<()>>;

/// Asks for attributes, and remembers the answers.
#[derive(Debug)]
pub struct Heads {
    bucket: Arc<dyn Bucket>,
    index: Arc<AttributeIndex>,
    /// Knows the servers' clocks.
    layout: Layout,
    ahead: Mutex<HashMap<String, watch::Receiver<Outcome>>>,
    slots: Semaphore,
    /// Some marker had metadata: so the server keeps it.
    markers_carry: AtomicBool,
}

impl Heads {
    /// None under way.
    pub fn new(bucket: Arc<dyn Bucket>, index: Arc<AttributeIndex>, layout: Layout) -> Arc<Self> {
        let slots = Semaphore::new(PARALLEL_AHEAD);
        Arc::new(Self { bucket, index, layout, ahead: Mutex::default(), slots, markers_carry: AtomicBool::new(false) })
    }

    /// One HEAD; the index learns what it says.
    pub async fn ask(&self, key: &str) -> bucket::Result<Remembered> {
        let before = self.index.get(key);
        let remembered = self.remembered(key, self.bucket.head(key).await?);
        // What was stored here meanwhile is newer than the answer.
        if self.index.get(key) == before {
            self.index.put(key, remembered.clone());
        }
        Ok(remembered)
    }

    /// What a HEAD told, in the form of the index. A new version of a key keeps the inode number that
    /// the key had here.
    pub fn remembered(&self, key: &str, info: ObjectInfo) -> Remembered {
        self.remembered_at(SystemTime::now(), key, info)
    }

    /// The same, of an answer that came at this time or later.
    pub fn remembered_at(&self, when: SystemTime, key: &str, info: ObjectInfo) -> Remembered {
        let mut attributes = Attributes::from_metadata(&info.metadata);
        let known = self.index.get(key);
        let is_lost = self.loses_metadata(key, &info);
        if let Some(known) = known.as_ref().filter(|known| is_lost && known.etag.as_ref() == Some(&info.etag)) {
            attributes = known.attributes.clone();
        }
        attributes.ino = attributes.ino.or_else(|| known?.attributes.ino);
        Remembered {
            etag: Some(info.etag),
            size: info.size,
            modified: Modified::told_at(when, info.modified, self.layout.clock(key).ahead_s().unwrap_or(0)),
            attributes,
            properties: info.properties,
            untold: false,
        }
    }

    /// Whether it may be the server's fault that a marker carries nothing: one with real directories (SeaweedFS) keeps
    /// nothing of it, and what this mount has told it is known here alone. Not where any marker has ever carried
    /// something.
    fn loses_metadata(&self, key: &str, info: &ObjectInfo) -> bool {
        let is_marker = key.ends_with('/');
        if is_marker && !info.metadata.is_empty() {
            self.markers_carry.store(true, Ordering::Relaxed);
        }
        is_marker && !self.markers_carry.load(Ordering::Relaxed)
    }

    /// This version's attributes will be needed: asks for them unless the index has them.
    pub fn ahead(self: &Arc<Self>, key: &str, seen: &Seen) {
        if self.index.get(key).is_some_and(|remembered| !remembered.untold && is_version(&remembered, seen)) {
            return;
        }
        let mut ahead = self.ahead.lock();
        if ahead.len() >= MAX_WAITING || ahead.contains_key(key) {
            return;
        }
        let (outcome, waiting) = watch::channel(None);
        ahead.insert(key.to_owned(), waiting);
        drop(ahead);
        let (heads, key) = (self.clone(), key.to_owned());
        tokio::spawn(spans::carried(async move {
            // Taken off the books also when the task is dropped half-way.
            let _done = Done { heads: &heads, key: &key };
            let Ok(_slot) = heads.slots.acquire().await else { return };
            let told = heads.ask(&key).await;
            outcome.send_replace(Some(told.map(drop)));
        }));
    }

    /// Waits for a HEAD of this key that is under way ahead; `None` when there is none.
    pub async fn join(&self, key: &str) -> Option<bucket::Result<()>> {
        let mut waiting = self.ahead.lock().get(key)?.clone();
        let outcome = waiting.wait_for(Option::is_some).await.ok()?;
        outcome.clone()
    }
}

struct Done<'a> {
    heads: &'a Heads,
    key: &'a str,
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.heads.ahead.lock().remove(self.key);
    }
}

/// Whether what is remembered is of the version that a listing shows.
pub fn is_version(remembered: &Remembered, seen: &Seen) -> bool {
    remembered.etag.as_ref() == Some(&seen.etag)
        && remembered.size == seen.size
        && remembered.modified.is(seen.modified)
}
