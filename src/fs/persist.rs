//! Attributes into S3, and facts into index and journal.

use std::time::Instant;

use bytes::Bytes;
use nix::errno::Errno;

use super::content::Content;
use super::doubt::{Sending, is_doubtful};
use super::inodes::{Ino, Node, Pages, Tree};
use super::noted::News;
use super::stat::{FileKind, Stat};
use super::{Error, Fs, Result};
use crate::bucket::attributes::{Attributes, OP_ID};
use crate::bucket::upload::{COPY_PARTS_FROM_BYTES, copy_large};
use crate::bucket::{Condition, CopyRequest, ETag, PutOptions};
use crate::cache::{Modified, Pinned, Remembered};
use crate::error::Kind;
use crate::failpoint::{self, Failpoint};
use crate::journal::{EventName, Intent, IntentId, NewEvent, stored_etag};
use crate::key::{self, ROOT_INO, is_directory_bucket};

/// What a node is and where, read in one go.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub key: String,
    pub stat: Stat,
    pub etag: Option<ETag>,
    pub linked: bool,
}

impl Snapshot {
    /// The condition under which this node's object may be written.
    pub fn condition(&self) -> Condition {
        self.etag.clone().map_or(Condition::IfAbsent, Condition::IfMatch)
    }
}

impl Fs {
    pub(super) fn snapshot(&self, ino: Ino) -> Result<Snapshot> {
        let tree = self.tree.lock();
        let node = tree.get(ino).ok_or(Errno::ESTALE)?;
        let key = tree.key(ino).ok_or(Errno::ESTALE)?;
        Ok(Snapshot { key, stat: node.stat.clone(), etag: node.etag.clone(), linked: node.linked })
    }

    /// Changes a node's attributes here and in S3; if S3 refuses, nothing has changed.
    ///
    /// While somebody writes the file, the change rides in its upload; after that it waits a moment for
    /// what may carry it ([`crate::fs::waiting`]).
    pub(super) async fn change_attributes(&self, ino: Ino, change: impl Fn(&mut Stat)) -> Result<()> {
        self.ensure_told(ino).await?;
        self.ask_marker(ino).await;
        if self.only_moves_ctime(ino, &change).await {
            return Ok(());
        }
        let (before, drafted) = {
            let mut tree = self.tree.lock();
            let node = tree.get_mut(ino).ok_or(Errno::ESTALE)?;
            if node.superseded {
                // The kernel looks the name up anew then, and the change reaches who has it now.
                return Err(Errno::ESTALE.into());
            }
            let before = node.stat.clone();
            change(&mut node.stat);
            if !node.linked {
                return Ok(());
            }
            if let Some(content) = &node.content {
                content.times_follow.store(false, std::sync::atomic::Ordering::Release);
                content.attributes_dirty.store(true, std::sync::atomic::Ordering::Release);
            }
            (before, node.content.is_some())
        };
        if drafted {
            // The last writer may be gone already, its release on the way.
            let stored = self.close_unless_written(ino).await;
            self.drop_clean_content(ino);
            return stored;
        }
        let stored = self.store_attributes_guarded(ino).await;
        if stored.is_err()
            && let Some(node) = self.tree.lock().get_mut(ino)
            && !node.has_unstored_bytes()
        {
            node.stat = before;
        }
        stored
    }

    /// Writes the attributes of a node without touching its bytes, or has them wait. Who opens the file
    /// meanwhile and writes stores after this, on top of the version that this makes.
    async fn store_attributes_guarded(&self, ino: Ino) -> Result<()> {
        self.hold(ino)?;
        let stored = async {
            let guard = self.content_to_guard(ino)?;
            let _stable = self.namespace.read().await;
            let _gate = match &guard {
                Some(content) => Some(content.gate.lock().await),
                None => None,
            };
            match &guard {
                Some(content) if self.attributes_may_wait(ino, content) => {
                    content.times_follow.store(false, std::sync::atomic::Ordering::Release);
                    content.attributes_dirty.store(true, std::sync::atomic::Ordering::Release);
                    self.wait_with_attributes(ino, content)
                }
                None if self.may_note_directory(ino) => self.note_directory(ino, News::Changed),
                Some(content) => self.store_attributes_of(ino, content).await,
                None => self.store_attributes_stable(ino).await,
            }
        }
        .await;
        self.let_go(ino);
        stored
    }

    /// As [`Fs::store_attributes_stable`], of a file that others may write to from then on.
    pub(super) async fn store_attributes_of(&self, ino: Ino, content: &Content) -> Result<()> {
        let stat = self.snapshot(ino)?.stat;
        let sending = Sending::version(content, content.stored(), stat.size, stat.to_attributes(None));
        let stored = self.store_attributes_stable(ino).await;
        sending.end(stored.as_ref().is_err_and(is_doubtful));
        stored
    }

    /// As [`Fs::store_attributes_guarded`], for callers that hold the namespace.
    pub(super) async fn store_attributes_stable(&self, ino: Ino) -> Result<()> {
        let mut snapshot = self.snapshot(ino)?;
        if self.settings.layout.is_keyless(&snapshot.key) {
            self.remember_keyless(&snapshot.key, &snapshot.stat);
            return Ok(());
        }
        if snapshot.stat.kind == FileKind::Directory {
            // A marker of its own may be on its way: then it is the version to write on.
            self.settle_at(&snapshot.key).await?;
            snapshot = self.snapshot(ino)?;
        }
        let options = PutOptions {
            metadata: snapshot.stat.to_attributes(None).to_metadata()?,
            properties: snapshot.stat.properties.clone(),
            condition: Condition::None,
        };
        let size = if snapshot.stat.kind == FileKind::Directory { 0 } else { snapshot.stat.size };
        let restated = self.restate_object(&snapshot.key, snapshot.etag.as_ref(), size, options).await;
        let etag = match restated.map_err(lost_is_stale) {
            Ok(etag) => etag,
            Err(error) => {
                if is_doubtful(&error) {
                    // S3 may have the same bytes under another tag.
                    self.tree.lock().doubt(ino);
                }
                return Err(error);
            }
        };
        failpoint::reach(Failpoint::AttributesStored);
        if let Some(node) = self.tree.lock().get_mut(ino)
            && !node.is_drafted()
        {
            // An answer asked for earlier may have come in meanwhile. With a draft none is let in,
            // and what differs is a newer change, which rides in the draft's upload.
            node.stat = snapshot.stat;
        }
        self.stored(ino, &snapshot.key, &etag);
        self.rebase(ino, &snapshot.key, &etag);
        Ok(())
    }

    /// Gives an object other attributes, as long as it is this version (or none, if `etag` is `None`).
    pub(super) async fn restate_object(
        &self,
        key: &str,
        etag: Option<&ETag>,
        size: u64,
        options: PutOptions,
    ) -> std::result::Result<ETag, crate::bucket::Error> {
        if size == 0 {
            // Written anew rather than copied onto itself: the same one request, and servers that
            // cannot copy `dir/` markers exist (SeaweedFS answers ENOENT).
            let condition = etag.cloned().map_or(Condition::IfAbsent, Condition::IfMatch);
            return self.bucket.put(key, Bytes::new(), &PutOptions { condition, ..options }).await;
        }
        let (from, to) = (key.to_owned(), key.to_owned());
        let request = CopyRequest { from_etag: etag.cloned(), ..CopyRequest::new(from, to) };
        if self.is_in_directory_bucket(key) {
            return Box::pin(self.restate_in_place(request, size, options)).await;
        }
        let replace = Some(PutOptions { condition: Condition::None, ..options });
        self.copy(&CopyRequest { replace, ..request }, size).await
    }

    /// The same in a directory bucket: what another client appends while the copy is made must not be lost to it. Tags are
    /// random there, so the copy is known again by an id.
    async fn restate_in_place(
        &self,
        request: CopyRequest,
        size: u64,
        options: PutOptions,
    ) -> std::result::Result<ETag, crate::bucket::Error> {
        let plain = PutOptions { condition: Condition::None, ..options };
        let mut careful = plain.clone();
        careful.condition = request.from_etag.clone().map_or(Condition::None, Condition::IfMatch);
        careful.metadata.insert(OP_ID.to_owned(), uuid::Uuid::new_v4().simple().to_string());
        match self.copy(&CopyRequest { replace: Some(careful), ..request.clone() }, size).await {
            // No room for the id, or a server without that condition, which is not appended to either.
            Err(error) if matches!(error.kind, Kind::Refused | Kind::Unsupported) => {
                self.copy(&CopyRequest { replace: Some(plain), ..request }, size).await
            }
            copied => copied,
        }
    }

    /// Whether a key lies in a directory bucket.
    pub(super) fn is_in_directory_bucket(&self, key: &str) -> bool {
        self.settings.layout.root_of(key).is_some_and(|root| is_directory_bucket(&root.bucket))
    }

    /// A server-side copy of a file of any size.
    pub(super) async fn copy(
        &self,
        request: &CopyRequest,
        size: u64,
    ) -> std::result::Result<ETag, crate::bucket::Error> {
        if size < COPY_PARTS_FROM_BYTES {
            return self.bucket.copy(request).await;
        }
        // In parts nothing is taken over from the source: say everything.
        let options = if let Some(options) = &request.replace {
            options.clone()
        } else {
            let info = self.bucket.head(&request.from).await?;
            PutOptions { metadata: info.metadata, properties: info.properties, condition: Condition::None }
        };
        copy_large(&self.bucket, request, size, &options, &self.settings.upload).await
    }

    /// S3 holds a new version of a node that we wrote ourselves: everybody here moves along.
    pub(super) fn stored(&self, ino: Ino, key: &str, etag: &ETag) {
        self.listings.note_answer(Instant::now());
        let (previous, size) = {
            let mut tree = self.tree.lock();
            let Some(node) = tree.get_mut(ino) else { return };
            let was_cached = node.pages == Pages::Of(node.etag.clone());
            let previous = node.etag.replace(etag.clone());
            node.modified = Modified::By(self.settings.layout.clock(key).stored_by());
            if was_cached {
                node.pages = Pages::Of(Some(etag.clone()));
            }
            let size = node.stat.size;
            tree.note_change(ino);
            (previous, size)
        };
        self.handles.repin(ino, previous.as_ref(), &Pinned { key: key.into(), etag: etag.clone(), size });
        self.remember(ino, key, Some(etag));
    }

    /// The version below an open draft has another name or tag now; its bytes are the same.
    pub(super) fn rebase(&self, ino: Ino, key: &str, etag: &ETag) {
        let Some(content) = self.content(ino) else { return };
        let mut draft = content.draft.lock();
        if let Some(size) = draft.base().map(|base| base.size) {
            draft.rebase(Pinned { key: key.into(), etag: etag.clone(), size });
        }
    }

    /// The index learns what we know of a node and S3 has been told.
    pub(super) fn remember(&self, ino: Ino, key: &str, etag: Option<&ETag>) {
        self.remember_of(&self.tree.lock(), ino, key, etag);
    }

    /// As [`Fs::remember`], for callers that hold the tree.
    pub(super) fn remember_of(&self, tree: &Tree, ino: Ino, key: &str, etag: Option<&ETag>) {
        let Some(node) = tree.get(ino) else { return };
        let mut attributes = node.stat.to_attributes(None);
        if !node.told {
            // These are nobody's words but the options of this mount.
            let Attributes { mtime, ctime, .. } = attributes;
            let kept = node.is_directory();
            attributes =
                Attributes { mtime: mtime.filter(|_| kept), ctime: ctime.filter(|_| kept), ..Attributes::default() };
        }
        attributes.ino = (ino != key::inode_number(key)).then_some(ino);
        if node.is_directory() && etag.is_none() {
            // Without a marker these are nobody's words but the options of this mount.
            let told = self.index.get(key).map(|remembered| remembered.attributes).unwrap_or_default();
            (attributes.mode, attributes.uid, attributes.gid) = (told.mode, told.uid, told.gid);
        }
        if node.is_pending() {
            // S3 has other ones under this tag, and after a crash they would be taken for these.
            let attributes = Attributes { ino: attributes.ino, ..Attributes::default() };
            self.index.put(key, Remembered { attributes, ..Remembered::default() });
            return;
        }
        let size = if node.is_directory() { 0 } else { node.stat.size };
        let (properties, modified, untold) = (node.stat.properties.clone(), node.modified, !node.told);
        self.index.put(key, Remembered { etag: etag.cloned(), size, modified, attributes, properties, untold });
    }

    /// The directory that a whole bucket appears as has no key that could carry its attributes: the index
    /// keeps them.
    fn remember_keyless(&self, key: &str, stat: &Stat) {
        let attributes = stat.to_attributes(None);
        self.index.put(key, Remembered { attributes, ..Remembered::default() });
    }

    /// What an earlier mount remembered of the root.
    pub(super) fn recall_root(&self) {
        let key = self.settings.root_prefix.as_str();
        if let Some(remembered) = self.index.get(key) {
            self.adopt_attributes(ROOT_INO, true, &remembered, Instant::now());
        }
    }

    /// A name came or went in a directory (`mtime` and `ctime` of the directory, POSIX).
    ///
    /// Kept here and in the index, not in S3: a request for each file created would double the
    /// cost of every unpacked archive, and nobody but us reads a directory's mtime.
    pub(super) fn touch_directory(&self, ino: Ino) {
        let (key, etag) = {
            let mut tree = self.tree.lock();
            let key = tree.key(ino);
            let Some(node) = tree.get_mut(ino) else { return };
            node.stat.touch();
            (key, node.etag.clone())
        };
        if let Some(key) = key {
            self.remember(ino, &key, etag.as_ref());
        }
    }

    /// Says in the journal what is about to be done; `None` when no hook listens.
    pub(super) async fn intend(&self, intent: impl FnOnce() -> Intent) -> Result<Option<IntentId>> {
        if !self.tells_hooks() {
            return Ok(None);
        }
        Ok(Some(self.journal.intend(intent()).await?))
    }

    /// It is done: the intents go, the events come, in one transaction.
    pub(super) async fn settle(&self, intents: &[IntentId], events: Vec<NewEvent>) -> Result<()> {
        self.settle_when(intents, events, false).await
    }

    /// As [`Fs::settle`], for a version of this file and the upload that has made it: where the uploader sends
    /// it, nobody waits. Nor for the record of an upload alone: at worst the next start aborts what is gone.
    pub(super) async fn settle_version(
        &self,
        ino: Ino,
        mut intents: Vec<IntentId>,
        uploads: Vec<IntentId>,
        event: Option<NewEvent>,
    ) -> Result<()> {
        if intents.is_empty() && !self.tells_hooks() {
            return Ok(self.journal.settle_behind(uploads)?);
        }
        intents.extend(uploads);
        self.settle_when(&intents, event.into_iter().collect(), self.backlog.is_sending(ino)).await
    }

    async fn settle_when(&self, intents: &[IntentId], events: Vec<NewEvent>, can_wait: bool) -> Result<()> {
        let events = if self.tells_hooks() { events } else { Vec::new() };
        if intents.is_empty() && events.is_empty() {
            return Ok(());
        }
        if can_wait {
            self.journal.settle_unhurried(intents, events).await?;
        } else {
            self.journal.settle(intents, events).await?;
        }
        Ok(())
    }

    /// A directory must not vanish with the last thing in it: S3 knows it only by its marker.
    pub(super) async fn keep_directory(&self, ino: Ino, leaving: &str) -> Result<()> {
        let Some((key, metadata)) = self.marker_needed(ino, leaving)? else { return Ok(()) };
        let options = PutOptions { metadata, condition: Condition::IfAbsent, ..PutOptions::default() };
        match self.bucket.put(&key, Bytes::new(), &options).await {
            Ok(etag) => self.stored(ino, &key, &etag),
            // The marker was there all along.
            Err(error) if error.kind == Kind::Changed => {}
            Err(error) => return Err(error.into()),
        }
        failpoint::reach(Failpoint::MarkerKept);
        Ok(())
    }
}

/// What the object at `key` has become.
pub fn created(name: EventName, key: &str, size: u64, etag: &ETag) -> NewEvent {
    NewEvent { size, etag: Some(stored_etag(etag)), ..NewEvent::now(name, key) }
}

/// The object at `key` is gone.
pub fn removed(key: &str) -> NewEvent {
    NewEvent::now(EventName::RemovedDelete, key)
}

/// We wrote on top of a version that is gone altogether: for the writer that is a conflict like
/// any other (ESTALE), not a file that was never there.
pub fn lost_is_stale(mut error: crate::bucket::Error) -> Error {
    if error.kind == Kind::NotFound {
        error.kind = Kind::Changed;
    }
    error.into()
}

/// Whether a node's bytes can be had under a version of S3.
pub fn pin(key: &str, node: &Node) -> Option<Pinned> {
    let etag = node.etag.clone()?;
    Some(Pinned { key: key.into(), etag, size: node.stat.size })
}
