//! What S3 may hold although nobody heard of it: an upload had no answer, or the process died while it
//! was under way.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::content::{Content, Doubt};
use super::inodes::Ino;
use super::persist::{Snapshot, created};
use super::stat::{FileKind, Stat};
use super::{Error, Fs, Result};
use crate::bucket::ObjectInfo;
use crate::bucket::attributes::Attributes;
use crate::bucket::upload::MULTIPART_FROM_BYTES;
use crate::cache::Remembered;
use crate::error::Kind;
use crate::failpoint::{self, Failpoint};
use crate::journal::EventName;

/// How much of a draft and an object is compared at a time.
const COMPARED_BYTES: u64 = 8 << 20;

/// Whether this failure leaves open what became of a write.
pub fn is_doubtful(error: &Error) -> bool {
    let Error::Bucket(error) = error else { return false };
    matches!(error.kind, Kind::Unreachable | Kind::Deadline | Kind::Busy | Kind::Corrupt)
}

/// An upload of what the draft holds now has ended without an answer.
pub fn doubt_upload(content: &Content, before: &Snapshot) {
    let (generation, size) = {
        let draft = content.draft.lock();
        (content.generation(), draft.size())
    };
    let attributes = before.stat.to_attributes(None);
    *content.doubt.lock() = Some(Doubt { generation, attributes, size, appended: None });
}

impl Fs {
    /// Finds out whether S3 has the version in doubt: then the file goes on from that one. For callers
    /// that hold the namespace and the file's gate.
    pub(super) async fn resolve_doubt(&self, ino: Ino, content: &Arc<Content>) -> Result<()> {
        let Some(doubt) = content.doubt.lock().clone() else { return Ok(()) };
        let snapshot = self.snapshot(ino)?;
        if !snapshot.linked {
            return Ok(());
        }
        if let Some((tail, note)) = doubt.appended {
            return self.resolve_append(ino, content, doubt.generation, tail, note).await;
        }
        let found = match self.bucket.head(&snapshot.key).await {
            Ok(there) => Some(there),
            Err(error) if error.kind == Kind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        content.doubt.lock().take();
        let Some(there) = found else { return Ok(()) };
        if snapshot.etag.as_ref() == Some(&there.etag) || !self.is_ours(content, &doubt, &snapshot.key, &there).await? {
            return Ok(());
        }
        tracing::debug!(key = %snapshot.key.escape_debug(), "the version that nobody heard of is there");
        self.stored(ino, &snapshot.key, &there.etag);
        let attributes = Attributes { op_id: None, ..Attributes::from_metadata(&there.metadata) };
        let ours = snapshot.stat.to_attributes(None);
        // What a crash has cut short may have had newer attributes than the journal knew.
        let is_last = attributes == ours || (content.is_resumed && ours == doubt.attributes);
        if !is_last || content.generation() != doubt.generation {
            return Ok(());
        }
        if let Some(node) = self.tree.lock().get_mut(ino) {
            let properties = there.properties.clone();
            let remembered = Remembered { size: there.size, attributes, properties, ..Remembered::default() };
            node.stat = Stat::of_object(&remembered, false, &self.settings);
        }
        self.note_stored(content, ino, &doubt, &snapshot, &there).await
    }

    /// Whether an object is the version in doubt, or one with the same bytes and other attributes. The
    /// time of the last write, in nanoseconds, is hardly ever another program's; else the bytes tell.
    async fn is_ours(&self, content: &Content, doubt: &Doubt, key: &str, there: &ObjectInfo) -> Result<bool> {
        if there.size != doubt.size {
            return Ok(false);
        }
        let mtime = Attributes::from_metadata(&there.metadata).mtime;
        if mtime.is_some() && mtime == doubt.attributes.mtime {
            return Ok(true);
        }
        if !content.is_resumed || content.generation() != doubt.generation {
            return Ok(false);
        }
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
        content.set_stored(doubt.generation);
        content.attributes_dirty.store(false, Ordering::Release);
        let multipart = there.size >= MULTIPART_FROM_BYTES;
        let name = if multipart { EventName::CreatedMultipart } else { EventName::CreatedPut };
        let deferred = content.deferred.lock().as_ref().map(|deferral| deferral.id);
        let is_file = snapshot.stat.kind == FileKind::File;
        let event = is_file.then(|| created(name, &snapshot.key, there.size, &there.etag));
        if content.is_resumed {
            failpoint::reach(Failpoint::RecoverDeferredSettle);
        }
        self.settle(deferred.as_slice(), event.into_iter().collect()).await?;
        content.set_deferral(None);
        self.backlog.remove(ino);
        Ok(())
    }
}
