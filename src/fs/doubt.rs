//! What S3 may hold although nobody heard of it: an upload had no answer, or the process died while it
//! was under way.
//!
//! Who goes on writing meanwhile writes on top of such a version without knowing of it. So the journal keeps
//! with each close what was in doubt then: else a later start would take our own version for somebody else's.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use super::content::Content;
use super::inodes::Ino;
use super::persist::{Snapshot, created};
use super::stat::{FileKind, Stat};
use super::{Error, Fs, Result};
use crate::bucket::attributes::{Attributes, OP_ID, is_same_but_ctime};
use crate::bucket::upload::MULTIPART_FROM_BYTES;
use crate::bucket::{Metadata, ObjectInfo, Tail, optional};
use crate::cache::{Pinned, Remembered};
use crate::error::Kind;
use crate::failpoint::{self, Failpoint};
use crate::journal::{EventName, Sent};

/// How much of a draft and an object is compared at a time.
const COMPARED_BYTES: u64 = 8 << 20;

/// Of what was written before this process, or to another file: no draft here is of it.
const ANOTHER_GENERATION: u64 = u64::MAX;
/// Versions of one file that are remembered. Where more of them are in doubt, the oldest had most time to appear.
const MOST_VERSIONS: usize = 32;

/// A version whose upload had no answer, or was under way when the process died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    pub generation: u64,
    pub attributes: Attributes,
    pub size: u64,
    /// It was an append: how it is known again, and the note of this process that stands for its attributes.
    pub appended: Option<(Tail, Option<u64>)>,
}

impl Doubt {
    fn sent(&self) -> Option<Sent> {
        let tail = self.appended.as_ref().map(|(tail, _)| tail.clone());
        // What was sent fitted.
        Some(Sent { size: self.size, metadata: self.attributes.to_metadata().ok()?, tail })
    }
}

/// The versions of one file that S3 may hold; it holds one of them at most.
#[derive(Clone, Debug, Default)]
pub struct Doubts {
    versions: Vec<Doubt>,
    /// S3 had none of them when it was asked.
    looked: bool,
}

impl Doubts {
    /// Of what the journal says.
    pub fn of(sent: &[Sent]) -> Self {
        let doubt = |sent: &Sent| Doubt {
            generation: ANOTHER_GENERATION,
            attributes: Attributes::from_metadata(&sent.metadata),
            size: sent.size,
            appended: sent.tail.clone().map(|tail| (tail, None)),
        };
        Self { versions: sent.iter().map(doubt).collect(), looked: false }
    }

    /// One more; of those that are alike one is enough.
    pub fn add(&mut self, doubt: Doubt) {
        self.looked = false;
        let is_same = |known: &&mut Doubt| {
            let tail = |doubt: &Doubt| doubt.appended.as_ref().map(|(tail, _)| tail.clone());
            (known.generation, known.size) == (doubt.generation, doubt.size)
                && known.attributes == doubt.attributes
                && tail(known) == tail(&doubt)
        };
        if let Some(known) = self.versions.iter_mut().find(is_same) {
            // The note of the last try stands for it.
            known.appended = doubt.appended;
            return;
        }
        if self.versions.len() == MOST_VERSIONS {
            self.versions.remove(0);
        }
        self.versions.push(doubt);
    }

    /// S3 holds what is known here.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// What the journal is to keep beside a draft of this generation that carries this: it is in doubt by itself.
    fn besides(&self, generation: u64, metadata: &Metadata) -> Vec<Sent> {
        if self.versions.is_empty() {
            return Vec::new();
        }
        let attributes = Attributes::from_metadata(metadata);
        let is_it = |doubt: &Doubt| {
            doubt.generation == generation && doubt.attributes == attributes && doubt.appended.is_none()
        };
        self.versions.iter().filter(|doubt| !is_it(doubt)).filter_map(Doubt::sent).collect()
    }

    /// All of them, also where S3 had none when it was asked: it may be slow to do what it was told.
    pub fn sent(&self) -> Vec<Sent> {
        self.versions.iter().filter_map(Doubt::sent).collect()
    }

    /// For a file that takes the place of this one.
    pub fn of_replaced(&self) -> Self {
        let foreign = |doubt: &Doubt| Doubt { generation: ANOTHER_GENERATION, ..doubt.clone() };
        Self { versions: self.versions.iter().map(foreign).collect(), looked: self.looked }
    }

    /// Those of which S3 was not asked yet.
    fn open(&self) -> Vec<Doubt> {
        if self.looked { Vec::new() } else { self.versions.clone() }
    }

    /// S3 has none of them, as far as it can tell by now. Answers the notes that stood for some.
    fn note_none(&mut self) -> Vec<u64> {
        self.looked = true;
        let note = |doubt: &mut Doubt| doubt.appended.as_mut()?.1.take();
        self.versions.iter_mut().filter_map(note).collect()
    }
}

/// Whether this failure leaves open what became of a write.
pub fn is_doubtful(error: &Error) -> bool {
    matches!(error, Error::Bucket(error) if may_be_done(error.kind))
}

/// The same of a bucket's failure.
pub fn may_be_done(kind: Kind) -> bool {
    matches!(kind, Kind::Unreachable | Kind::Deadline | Kind::Busy | Kind::Corrupt)
}

/// A request that makes a version: what it has sent is in doubt unless it is answered, also where nobody waits for
/// the answer any more.
#[must_use]
#[derive(Debug)]
pub struct Sending<'a> {
    content: &'a Content,
    doubt: Option<Doubt>,
}

impl<'a> Sending<'a> {
    /// Of bytes of this draft.
    pub fn begin(content: &'a Content, doubt: Doubt) -> Self {
        Self { content, doubt: Some(doubt) }
    }

    /// Of a whole version that carries this.
    pub fn version(content: &'a Content, generation: u64, size: u64, carries: Attributes) -> Self {
        let attributes = carries.without_op_id();
        Self::begin(content, Doubt { generation, attributes, size, appended: None })
    }

    /// It has ended.
    pub fn end(mut self, is_doubtful: bool) {
        if !is_doubtful {
            self.doubt = None;
        }
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if let Some(doubt) = self.doubt.take() {
            if doubt.appended.is_none() {
                self.content.attributes_dirty.store(true, Ordering::Release);
            }
            self.content.doubts.lock().add(doubt);
        }
    }
}

/// Whether an object is this version.
pub fn is_of(sent: &Sent, there: &ObjectInfo) -> bool {
    let carries = |metadata| Attributes::from_metadata(metadata).without_op_id();
    sent.tail.is_none() && sent.size == there.size && carries(&sent.metadata) == carries(&there.metadata)
}

/// A rename moves ctime once more after the journal has noted the close.
fn but_ctime(attributes: &Attributes) -> Attributes {
    Attributes { ctime: None, ..attributes.clone() }
}

impl Content {
    /// What the journal is to keep beside bytes of this generation and size that carry this.
    pub fn earlier(&self, generation: u64, size: u64, metadata: &Metadata) -> Vec<Sent> {
        let mut earlier = self.doubts.lock().besides(generation, metadata);
        // An upload that was begun before this has an object of its own until what was set since follows.
        if let Some(outgoing) = self.outgoing.current() {
            let mut metadata_then = outgoing.options().metadata.clone();
            metadata_then.remove(OP_ID);
            if !is_same_but_ctime(&metadata_then, metadata) {
                earlier.push(Sent { size, metadata: metadata_then, tail: None });
            }
        }
        earlier
    }
}

impl Fs {
    /// Finds out whether S3 has a version in doubt: then the file goes on from that one. For callers
    /// that hold the namespace and the file's gate.
    pub(super) async fn resolve_doubt(&self, ino: Ino, content: &Arc<Content>) -> Result<()> {
        let doubts = content.doubts.lock().open();
        if doubts.is_empty() {
            return Ok(());
        }
        let snapshot = self.snapshot(ino)?;
        if !snapshot.linked {
            return Ok(());
        }
        let Some((doubt, there)) = self.find_ours(content, doubts, &snapshot).await? else {
            let notes = content.doubts.lock().note_none();
            self.close_notes(&notes);
            return Ok(());
        };
        content.doubts.lock().clear();
        tracing::debug!(key = %snapshot.key.escape_debug(), "the version that nobody heard of is there");
        if let Some((tail, Some(note))) = &doubt.appended {
            return self.note_appended(ino, content, doubt.generation, tail, &there.etag, *note).await;
        }
        self.stand_on(ino, content, &doubt, &snapshot.key, &there);
        let attributes = Attributes::from_metadata(&there.metadata).without_op_id();
        let ours = snapshot.stat.to_attributes(None);
        // What a crash has cut short may have had newer attributes than the journal knew.
        let is_last = attributes == ours || (content.is_resumed && ours == doubt.attributes);
        if !is_last {
            return Ok(());
        }
        {
            let mut tree = self.tree.lock();
            let node = tree.get_mut(ino).ok_or(Errno::ESTALE)?;
            // Changed while this looked: that is to be sent.
            if node.stat != snapshot.stat || content.generation() != doubt.generation {
                return Ok(());
            }
            let properties = there.properties.clone();
            let remembered = Remembered { size: there.size, attributes, properties, ..Remembered::default() };
            node.stat = Stat::of_object(&remembered, false, &self.settings);
            content.attributes_dirty.store(false, Ordering::Release);
        }
        self.note_stored(content, ino, &doubt, &snapshot, &there).await
    }

    /// As [`Fs::resolve_doubt`], for a reader who meets another version than the one that is known of a file; whether
    /// there was a version in doubt.
    pub(super) async fn look_for_ours(&self, ino: Ino) -> Result<bool> {
        let Some(content) = self.content(ino) else { return Ok(false) };
        if content.doubts.lock().open().is_empty() {
            return Ok(false);
        }
        let _stable = self.namespace.read().await;
        let _gate = content.gate.lock().await;
        self.resolve_doubt(ino, &content).await?;
        Ok(true)
    }

    /// Whether what is in the way of an upload is ours: a server may be slow to do what was asked of it by a
    /// process that is gone, so that nothing was there yet when this looked. Then the file goes on from that.
    ///
    /// # Errors
    /// What S3 answers who looks: then nobody knows yet whose it is.
    pub(super) async fn is_ours_in_the_way(&self, ino: Ino, content: &Arc<Content>, before: &Snapshot) -> Result<bool> {
        let doubts = content.doubts.lock().versions.clone();
        if doubts.is_empty() || !self.is_under(ino, &before.key) {
            return Ok(false);
        }
        let Some((doubt, there)) = self.find_ours(content, doubts, before).await? else { return Ok(false) };
        content.doubts.lock().clear();
        tracing::debug!(key = %before.key.escape_debug(), "the version in the way is ours, and came late");
        self.stand_on(ino, content, &doubt, &before.key, &there);
        Ok(true)
    }

    /// The file goes on from a version that was made of it.
    fn stand_on(&self, ino: Ino, content: &Content, doubt: &Doubt, key: &str, there: &ObjectInfo) {
        self.stored(ino, key, &there.etag);
        if doubt.generation != ANOTHER_GENERATION {
            // What the draft lacks is the same in there as in the version before.
            let pinned = Pinned { key: key.into(), etag: there.etag.clone(), size: there.size };
            content.draft.lock().rebase(pinned);
        }
    }

    /// The version in doubt that S3 has under the key, if it has one, and not the one that is known.
    async fn find_ours(
        &self,
        content: &Content,
        doubts: Vec<Doubt>,
        snapshot: &Snapshot,
    ) -> Result<Option<(Doubt, ObjectInfo)>> {
        let Some(there) = optional(self.bucket.head(&snapshot.key).await)? else { return Ok(None) };
        if snapshot.etag.as_ref() == Some(&there.etag) {
            return Ok(None);
        }
        for doubt in &doubts {
            if let Some((tail, _)) = &doubt.appended
                && tail.is_end_of(self.bucket.as_ref(), &snapshot.key, &there).await?
            {
                return Ok(Some((doubt.clone(), there)));
            }
        }
        let written: Vec<_> = doubts.into_iter().filter(|doubt| doubt.appended.is_none()).collect();
        let ours = self.find_written(content, &written, &snapshot.key, &there).await?;
        Ok(ours.map(|doubt| (doubt, there)))
    }

    /// Which of these versions an object is, or has the bytes of. All of its attributes tell that. They may have
    /// changed as it was sent: the time of the last write, in nanoseconds, is hardly ever another program's then.
    /// Where several have the same (who copies a file sets it), or none, the bytes tell.
    async fn find_written(
        &self,
        content: &Content,
        doubts: &[Doubt],
        key: &str,
        there: &ObjectInfo,
    ) -> Result<Option<Doubt>> {
        let attributes = Attributes::from_metadata(&there.metadata).without_op_id();
        let of_size: Vec<&Doubt> = doubts.iter().filter(|doubt| doubt.size == there.size).collect();
        let is_like = |doubt: &&&Doubt| but_ctime(&doubt.attributes) == but_ctime(&attributes);
        let alike: Vec<_> = of_size.iter().filter(is_like).collect();
        let only = if let [only] = alike[..] { Some(only) } else { None };
        if let Some(same) = of_size.iter().find(|doubt| doubt.attributes == attributes).or(only) {
            return Ok(Some((*same).clone()));
        }
        let has_time = |doubt: &Doubt| attributes.mtime.is_some() && doubt.attributes.mtime == attributes.mtime;
        let of_time: Vec<&Doubt> = of_size.iter().copied().filter(|doubt| has_time(doubt)).collect();
        if let [only] = of_time[..] {
            return Ok(Some(only.clone()));
        }
        // The bytes of the others are not here.
        let is_last = |doubt: &Doubt| content.is_resumed && doubt.generation == content.generation();
        if let Some(last) = of_size.into_iter().find(|doubt| is_last(doubt))
            && self.has_bytes(content, last, key, there).await?
        {
            return Ok(Some(last.clone()));
        }
        Ok(of_time.into_iter().find(|doubt| !is_last(doubt)).cloned())
    }

    async fn has_bytes(&self, content: &Content, doubt: &Doubt, key: &str, there: &ObjectInfo) -> Result<bool> {
        let mut at = 0;
        while at < doubt.size {
            let end = doubt.size.min(at + COMPARED_BYTES);
            let bytes = self.bucket.get(key, Some(at..end), Some(&there.etag)).await?.bytes;
            if content.generation() != doubt.generation || content.draft.lock().read_local(at..end)? != bytes {
                return Ok(false);
            }
            at = end;
        }
        Ok(true)
    }

    /// The version in doubt is the last one: nothing is left to be sent.
    async fn note_stored(
        &self,
        content: &Content,
        ino: Ino,
        doubt: &Doubt,
        snapshot: &Snapshot,
        there: &ObjectInfo,
    ) -> Result<()> {
        let are_bytes = content.bytes_dirty();
        content.set_stored(doubt.generation);
        self.end_waiting_attributes(content);
        let multipart = there.size >= MULTIPART_FROM_BYTES;
        let name = if multipart { EventName::CreatedMultipart } else { EventName::CreatedPut };
        let deferred = content.deferred.lock().as_ref().map(|deferral| deferral.id);
        let is_told = are_bytes && snapshot.stat.kind == FileKind::File;
        let event = is_told.then(|| created(name, &snapshot.key, there.size, &there.etag));
        if content.is_resumed {
            failpoint::reach(Failpoint::RecoverDeferredSettle);
        }
        self.settle(deferred.as_slice(), event.into_iter().collect()).await?;
        content.set_deferral(None);
        self.backlog.remove(ino);
        Ok(())
    }
}
