//! What must survive `kill -9`: intents of operations under way, committed events, hook tasks.
//!
//! `fs` writes facts (this version of this key was committed), `hooks` takes them out. Every call
//! that returns has reached the disk (fsync); concurrent calls share one commit.

use std::time::SystemTime;

use crate::bucket::ETag;

/// Names an open intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IntentId(pub u64);

/// An operation that a crash may cut in two, and what is needed to find out how it ended.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Intent {
    /// A version is about to be written; the object's metadata will carry `op_id`.
    Put { key: String, op_id: String, multipart: bool },
    /// An object is about to be deleted.
    Remove { key: String },
    /// `from` is about to be copied to `to`, then deleted.
    Rename { from: String, to: String, etag: String },
    /// Every key under `from` is about to be copied to `to`, then deleted (both end in `/`).
    RenameTree { from: String, to: String },
    /// A close was answered before S3 had the bytes (an empty new file, or a descriptor shared with
    /// a child): the draft in the state directory is the truth until the object is written.
    Deferred { key: String, draft: String, size: u64, metadata: crate::bucket::Metadata, base_etag: Option<String> },
    /// A multipart upload was begun; abort it if it is still there after a crash.
    Upload { key: String, upload_id: String },
}

/// S3's names for what happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum EventName {
    CreatedPut,
    CreatedCopy,
    CreatedMultipart,
    RemovedDelete,
}

/// A fact: this happened to this key. The journal adds id and sequence number.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NewEvent {
    pub name: EventName,
    pub key: String,
    pub size: u64,
    /// Without quotes; `None` for removals.
    pub etag: Option<String>,
    pub time: SystemTime,
    /// Hooks whose output this object is, oldest first: they do not fire for it again.
    pub lineage: Vec<String>,
}

/// Makes an [`ETag`] storable.
#[must_use]
pub fn stored_etag(etag: &ETag) -> String {
    etag.as_str().to_owned()
}
