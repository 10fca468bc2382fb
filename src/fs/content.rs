//! What is known of a file that is written to: its draft, what S3 has of it, and what the journal
//! answers for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::doubt::{Doubt, Doubts};
use super::draft::{Draft, Kept};
use super::gatekeeper::Verdicts;
use super::outgoing::Slot;
use crate::bucket::Metadata;
use crate::bucket::attributes::Attributes;
use crate::journal::{IntentId, Sent};

/// A draft, the locks around it and what the flush rule must know.
#[derive(Debug)]
pub struct Content {
    pub draft: Mutex<Draft>,
    /// One upload, truncation or rename of this file at a time.
    pub gate: tokio::sync::Mutex<()>,
    /// Held shared by a write, exclusively by a multipart upload: its parts are read from the file
    /// one after another and must be of one moment.
    pub freeze: tokio::sync::RwLock<()>,
    /// Counts changes of bytes or size.
    generation: AtomicU64,
    /// The generation that S3 has.
    stored: AtomicU64,
    /// Attributes changed while open; they ride in the next upload.
    pub attributes_dirty: AtomicBool,
    /// They are on their way: S3 need not have them yet.
    attributes_leave: AtomicBool,
    /// Nothing of them changed but the times of bytes that were appended.
    pub times_follow: AtomicBool,
    /// The note that answers for them once the file is closed.
    pub attributes_note: Mutex<Option<u64>>,
    /// Nothing was written since it was created or emptied.
    pub untouched: AtomicBool,
    /// Parts that leave before the commit.
    pub outgoing: Arc<Slot>,
    /// The journal answers for this already: a close was acknowledged from here.
    pub deferred: Mutex<Option<Deferral>>,
    /// Bytes of it lost their name to somebody else's version: each who wrote some is to hear of it.
    pub refused: AtomicBool,
    /// Versions that S3 may hold although nobody heard of it.
    pub doubts: Mutex<Doubts>,
    /// Left by an earlier process.
    pub is_resumed: bool,
    /// What a gatekeeper has said of it.
    pub verdicts: Mutex<Verdicts>,
    /// What is kept of it because it was refused.
    pub rejected: Mutex<Option<String>>,
}

/// What the journal holds of a draft whose close was acknowledged from here.
#[derive(Clone, Debug)]
pub struct Deferral {
    pub generation: u64,
    pub key: String,
    pub metadata: Metadata,
    pub id: IntentId,
    /// The bytes that it answers for.
    pub kept: Kept,
    /// A gatekeeper has allowed these bytes under this key.
    pub allowed: bool,
}

impl Content {
    /// A draft that S3 must be told of even if nothing is written to it: new, or emptied.
    pub fn emptied(draft: Draft) -> Self {
        Self::with(draft, 1, true)
    }

    /// A draft equal to what S3 holds.
    pub fn unchanged(draft: Draft) -> Self {
        Self::with(draft, 0, false)
    }

    /// A draft that an earlier process left; S3 may have it by now, or one of those that were `earlier`.
    pub fn resumed(draft: Draft, attributes: Attributes, earlier: &[Sent]) -> Self {
        let mut doubts = Doubts::of(earlier);
        doubts.add(Doubt { generation: 1, attributes, size: draft.size(), appended: None });
        Self { doubts: Mutex::new(doubts), is_resumed: true, ..Self::with(draft, 1, false) }
    }

    fn with(draft: Draft, generation: u64, untouched: bool) -> Self {
        Self {
            outgoing: draft.outgoing().clone(),
            draft: Mutex::new(draft),
            gate: tokio::sync::Mutex::new(()),
            freeze: tokio::sync::RwLock::new(()),
            generation: AtomicU64::new(generation),
            stored: AtomicU64::new(0),
            attributes_dirty: AtomicBool::new(false),
            attributes_leave: AtomicBool::new(false),
            times_follow: AtomicBool::new(false),
            attributes_note: Mutex::new(None),
            untouched: AtomicBool::new(untouched),
            deferred: Mutex::new(None),
            refused: AtomicBool::new(false),
            doubts: Mutex::default(),
            is_resumed: false,
            verdicts: Mutex::default(),
            rejected: Mutex::default(),
        }
    }

    /// The journal answers for this very content under this key, and knows if it was allowed.
    pub fn answers_for(&self, generation: u64, key: &str, metadata: &Metadata, allowed: bool) -> bool {
        let deferred = self.deferred.lock();
        deferred.as_ref().is_some_and(|deferral| {
            deferral.generation >= generation
                && deferral.key == key
                && deferral.metadata == *metadata
                && (deferral.allowed || !allowed)
        })
    }

    /// The journal answers for this now instead of what it answered for before, whose file goes if
    /// nobody else needs it.
    pub fn set_deferral(&self, deferral: Option<Deferral>) {
        let mut deferred = self.deferred.lock();
        let older = std::mem::replace(&mut *deferred, deferral);
        let is_needed = |kept: &Kept| deferred.as_ref().is_some_and(|newer| newer.kept.shares_file(kept));
        if let Some(older) = older.filter(|older| !is_needed(&older.kept)) {
            older.kept.set_promised(None);
        }
    }

    /// Closed since it was last written to: what the journal answers for is what the draft holds.
    pub fn is_deferred_whole(&self) -> bool {
        self.is_deferred_at(self.generation())
    }

    /// Something of it was answered from the journal, a close, or attributes after one; those ride along
    /// once somebody writes again.
    pub fn is_answered_for(&self) -> bool {
        self.deferred.lock().is_some() || (!self.bytes_dirty() && self.attributes_note.lock().is_some())
    }

    /// What the journal answers for is this generation.
    pub fn is_deferred_at(&self, generation: u64) -> bool {
        self.deferred.lock().as_ref().is_some_and(|deferral| deferral.generation == generation)
    }

    /// Whether other bytes than these were closed before, allowed or left by an earlier process, and wait
    /// to be sent.
    pub fn has_older_promise(&self) -> bool {
        self.is_older_promise(self.deferred.lock().as_ref())
    }

    /// Takes that out, and leaves its file as it is.
    pub fn take_promise(&self) -> Option<Deferral> {
        let mut deferred = self.deferred.lock();
        if self.is_older_promise(deferred.as_ref()) { deferred.take() } else { None }
    }

    fn is_older_promise(&self, deferral: Option<&Deferral>) -> bool {
        deferral.is_some_and(|it| (it.allowed || self.is_resumed) && it.generation != self.generation())
    }

    /// Counts changes: two equal numbers mean equal bytes.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Bytes or size changed. Call with the draft locked.
    pub fn changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// The generation that S3 has.
    pub fn stored(&self) -> u64 {
        self.stored.load(Ordering::Acquire)
    }

    /// S3 has this generation.
    pub fn set_stored(&self, generation: u64) {
        self.stored.store(generation, Ordering::Release);
    }

    /// S3 lacks bytes or the size.
    pub fn bytes_dirty(&self) -> bool {
        self.generation() != self.stored()
    }

    /// Made or emptied, and S3 has yet to be told. Also by who opened it for reading only (`flock(1)`), so that his
    /// close stores it.
    pub fn is_only_made(&self) -> bool {
        self.untouched.load(Ordering::Acquire) && self.bytes_dirty()
    }

    /// The attributes are about to be sent, if S3 lacks any. For callers that hold the gate.
    pub fn send_attributes(&self) -> Option<LeavingAttributes<'_>> {
        if !self.attributes_dirty.load(Ordering::Acquire) {
            return None;
        }
        // In this order: nobody is told in between that S3 has them.
        self.attributes_leave.store(true, Ordering::Release);
        self.attributes_dirty.store(false, Ordering::Release);
        Some(LeavingAttributes(self))
    }

    /// S3 lacks attributes as far as anybody can tell: they have not left, or no answer has come.
    pub fn attributes_leave(&self) -> bool {
        self.attributes_leave.load(Ordering::Acquire)
    }

    /// S3 lacks something: bytes, size or attributes.
    pub fn is_dirty(&self) -> bool {
        self.bytes_dirty() || self.attributes_dirty.load(Ordering::Acquire)
    }
}

/// Attributes on their way to S3. Who gives up half-way has not sent them.
#[derive(Debug)]
pub struct LeavingAttributes<'a>(&'a Content);

impl LeavingAttributes<'_> {
    /// S3 has them, or nobody wants them any more.
    pub fn end(self) {
        self.0.attributes_leave.store(false, Ordering::Release);
    }
}

impl Drop for LeavingAttributes<'_> {
    fn drop(&mut self) {
        if self.0.attributes_leave() {
            self.0.attributes_dirty.store(true, Ordering::Release);
            self.0.attributes_leave.store(false, Ordering::Release);
        }
    }
}
