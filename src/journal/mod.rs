//! What must survive `kill -9`: intents of operations under way, committed events, hook tasks.
//!
//! `fs` writes facts (this version of this key was committed), `hooks` takes them out. Every call
//! that returns has reached the disk (fsync); concurrent calls share one commit.
//!
//! | table | key | what a row is |
//! |---|---|---|
//! | `intents` | number | an operation under way ([`Intent`]) |
//! | `events` | sequence number | a fact that no hook was asked about yet ([`Event`]) |
//! | `tasks` | hook, number | one hook has to see one event ([`Task`]) |
//! | `dead` | number | a task that was given up ([`DeadTask`]) |
//! | `seen` | key, hook | the version that the hook was done with last ([`Seen`]); of some, none |
//! | `meta` | name | format of the file and the next numbers |
//!
//! Beside it lies a file of [`Note`]s, which cost no fsync: what was answered and S3 is told soon.

mod error;
mod gathering;
mod in_base64;
mod notes;
mod open;
mod queue;
mod seen;
mod standing;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::bucket::{ETag, Metadata, Properties, Tail};

pub use error::{Error, Result};
pub use notes::Note;
pub use queue::{Counts, Taken};
pub use standing::Standing;
use store::Change;

/// Names an open intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IntentId(pub u64);

/// An operation that a crash may cut in two, and what is needed to find out how it ended.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Intent {
    /// A version is about to be written; the object's metadata will carry `op_id`.
    Put { key: String, op_id: String, multipart: bool },
    /// `from` is about to be copied to `to`, then deleted.
    Rename {
        from: String,
        to: String,
        etag: String,
        /// The version that stood at `to` before, if any was known.
        #[serde(default)]
        to_etag: Option<String>,
    },
    /// Every key under `from` is about to be copied to `to`, then deleted (both end in `/`).
    RenameTree {
        from: String,
        to: String,
        /// What is renamed instead, by a directory bucket: nothing else would tell of what was.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        objects: Vec<Moving>,
        /// Copies that waiting closes are on top of, where they have other tags than what was copied.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        retagged: Vec<Retagged>,
    },
    /// A close was answered before S3 had the bytes: the first `size` bytes of the draft are the truth
    /// until the object is written.
    Deferred {
        key: String,
        draft: DraftBytes,
        size: u64,
        metadata: Metadata,
        base_etag: Option<String>,
        #[serde(flatten)]
        properties: Properties,
        /// Who may forbid the version was asked, and allowed it.
        #[serde(default)]
        allowed: bool,
        /// What S3 may hold under the key instead of the version `base_etag`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        earlier: Vec<Sent>,
    },
    /// A multipart upload was begun; abort it if it is still there after a crash.
    Upload { key: String, upload_id: String },
    /// What these [`Note`]s asked for is done and its events are appended. It stands until the notes
    /// are closed, so that a crash in between tells of nothing twice.
    Removed { notes: Vec<u64> },
}

/// An object that is to be renamed with its directory.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Moving {
    /// Its key, without that of the directory.
    pub name: String,
    /// The version that is renamed.
    pub etag: String,
    /// Its size in bytes.
    pub size: u64,
}

/// A copy that has another tag than the version of which it was made.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Retagged {
    /// Its key, without that of the directory.
    pub name: String,
    /// The version that was copied.
    pub etag: String,
    pub copy_etag: String,
}

/// A version that was sent, or that a process which has died may have been sending: nobody heard if S3 took it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Sent {
    /// Its size in bytes.
    pub size: u64,
    /// What the object carries then.
    pub metadata: Metadata,
    /// It was an append, which leaves the metadata as they are: what the object ends with then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<Tail>,
}

/// Where the bytes are that a close has left.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum DraftBytes {
    /// In a file of this name in the draft directory.
    File(String),
    /// In the record itself: one fsync instead of two, and no file to be made and removed.
    Here {
        #[serde(rename = "base64", with = "in_base64")]
        bytes: Bytes,
    },
}

/// S3's names for what happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum EventName {
    CreatedPut,
    CreatedCopy,
    CreatedMultipart,
    RemovedDelete,
}

impl EventName {
    /// Every name.
    pub const ALL: [Self; 4] = [Self::CreatedPut, Self::CreatedCopy, Self::CreatedMultipart, Self::RemovedDelete];

    /// The name as S3 writes it into an event, without `s3:`.
    #[must_use]
    pub fn s3_name(self) -> &'static str {
        match self {
            Self::CreatedPut => "ObjectCreated:Put",
            Self::CreatedCopy => "ObjectCreated:Copy",
            Self::CreatedMultipart => "ObjectCreated:CompleteMultipartUpload",
            Self::RemovedDelete => "ObjectRemoved:Delete",
        }
    }
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
    /// The version that it has replaced had the same bytes (the same ETag).
    #[serde(default)]
    pub rewritten: bool,
    /// It happened before, and is told again to these hooks; none: it has just happened, and all are asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replayed_for: Vec<String>,
}

impl NewEvent {
    /// This happened to a key just now; nothing more is known of it.
    #[must_use]
    pub fn now(name: EventName, key: &str) -> Self {
        let (key, time) = (key.to_owned(), SystemTime::now());
        let (lineage, replayed_for) = (Vec::new(), Vec::new());
        Self { name, key, size: 0, etag: None, time, lineage, rewritten: false, replayed_for }
    }
}

/// The version of a key that a hook was done with last.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Seen {
    pub etag: String,
    pub size: u64,
    /// What the hook was then: another module, or other settings, may do something else.
    pub by: String,
}

/// A fact with its name and its place in the order of facts.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Event {
    /// UUID; stays the same over every retry, so that a receiver can drop duplicates.
    pub id: String,
    /// Grows with every event of this journal; begins at the clock (microseconds since 1970), so
    /// that it keeps growing when a state directory is lost.
    pub sequence: u64,
    #[serde(flatten)]
    pub fact: NewEvent,
}

impl Event {
    /// The sequence number as S3 writes it: 16 hexadecimal digits, so that strings compare like numbers.
    #[must_use]
    pub fn sequencer(&self) -> String {
        format!("{:016X}", self.sequence)
    }
}

/// One hook has to see one event.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Task {
    pub hook: String,
    /// Grows in commit order of the events; the order of delivery within (hook, key).
    pub number: u64,
    /// How often the hook was run for it and failed.
    pub failures: u32,
    /// How often it could not be run, or its output not be stored, for reasons outside of the hook.
    pub delays: u32,
    /// Not to be tried before this moment.
    pub not_before: Option<SystemTime>,
    /// When it was taken back from the dead: its age counts from here.
    #[serde(default)]
    pub redriven: Option<SystemTime>,
    /// What the hook is given instead of the event, where somebody called it; the event's fact says
    /// nothing then but when, and who had a hand in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// What S3 said of the event, where it told of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<serde_json::Value>,
    pub event: Event,
}

impl Task {
    /// One that was never tried.
    #[must_use]
    pub fn new(hook: String, number: u64, payload: Option<String>, event: Event) -> Self {
        Self { hook, number, failures: 0, delays: 0, not_before: None, redriven: None, payload, record: None, event }
    }
}

/// A call: one hook, or whoever else takes tasks under a name, is to be given a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCall {
    /// As of an event.
    pub id: String,
    pub hook: String,
    pub payload: String,
    /// Hooks that had a hand in it, oldest first.
    pub lineage: Vec<String>,
}

impl NewCall {
    /// The task that gives it over.
    #[must_use]
    pub fn into_task(self, number: u64) -> Task {
        let Self { id, hook, payload, lineage } = self;
        let fact = NewEvent { lineage, ..NewEvent::now(EventName::CreatedPut, "") };
        Task::new(hook, number, Some(payload), Event { id, sequence: number, fact })
    }
}

/// A task that will not be tried again by itself.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeadTask {
    /// `failures` counts the last one, too.
    pub task: Task,
    pub reason: String,
    /// What the hook's log says of its last run; empty where none was made.
    #[serde(default)]
    pub report: String,
    pub time: SystemTime,
}

/// The journal of one state directory. One process at a time has it open.
#[derive(Debug)]
pub struct Journal {
    /// `None` once closed.
    store: RwLock<Option<Arc<store::Store>>>,
    notes: notes::Notes,
    writer: Mutex<Option<writer::Writer>>,
    gathering: Arc<gathering::Gathering>,
    next_intent: std::sync::atomic::AtomicU64,
    leases: queue::Leases,
    changes: watch::Receiver<u64>,
}

impl Journal {
    /// Notes an operation that is about to begin.
    ///
    /// # Errors
    /// [`Error`] when the record could not be stored; the operation must not begin then.
    pub async fn intend(&self, intent: Intent) -> Result<IntentId> {
        let id = IntentId(self.next_intent.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        self.change(Change::Intend { id, intent }).await?;
        Ok(id)
    }

    /// Ends operations: forgets the intents and appends what happened, in one transaction. Intents
    /// that are not there any more are passed over.
    ///
    /// # Errors
    /// [`Error`] when nothing of it could be stored.
    pub async fn settle(&self, intents: &[IntentId], events: Vec<NewEvent>) -> Result<()> {
        self.change(Change::Settle { intents: intents.to_vec(), events }).await
    }

    /// As [`Journal::settle`], for what nobody waits for: a moment later, in one transaction with what
    /// ends meanwhile.
    ///
    /// # Errors
    /// [`Error`] when nothing of it could be stored.
    pub async fn settle_unhurried(&self, intents: &[IntentId], events: Vec<NewEvent>) -> Result<()> {
        self.gathering.add(self.sender()?, intents.to_vec(), events).await.map_err(|_| Error::Closed)?
    }

    /// As [`Journal::settle_unhurried`], without waiting: for records that do no harm where they stay, as the
    /// next start finds out what they are about.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn settle_behind(&self, intents: Vec<IntentId>) -> Result<()> {
        if !intents.is_empty() {
            drop(self.gathering.add(self.sender()?, intents, Vec::new()));
        }
        Ok(())
    }

    /// Ends operations, and notes those that take their place, in one transaction: whoever looks after a
    /// crash finds either the ones or the others. Intents that are not there any more are passed over.
    ///
    /// # Errors
    /// [`Error`] when nothing of it could be stored.
    pub async fn replace(&self, ended: &[IntentId], begun: Vec<Intent>) -> Result<Vec<IntentId>> {
        let count = begun.len() as u64;
        let first = self.next_intent.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
        let ids: Vec<IntentId> = (first..first + count).map(IntentId).collect();
        let begun = ids.iter().copied().zip(begun).collect();
        self.change(Change::Replace { ended: ended.to_vec(), begun }).await?;
        Ok(ids)
    }

    /// Notes what the bucket is to be told soon; `kill -9` does not lose it, a power failure may.
    ///
    /// # Errors
    /// [`Error`] when it could not be written; nothing may be answered on it then.
    pub fn note(&self, note: &Note) -> Result<u64> {
        self.notes.add(note)
    }

    /// More became known of an open note.
    ///
    /// # Errors
    /// [`Error`] when it could not be written; the note is as before then.
    pub fn note_again(&self, number: u64, note: &Note) -> Result<()> {
        self.notes.replace(number, note)
    }

    /// Notes calls, each of which becomes a task.
    ///
    /// # Errors
    /// [`Error`] when nothing of it could be stored.
    pub async fn call(&self, calls: Vec<NewCall>) -> Result<()> {
        self.change(Change::Call(calls)).await
    }

    /// What is noted and not done yet, oldest first.
    ///
    /// # Errors
    /// [`Error`] when the file can't be read.
    pub fn open_notes(&self) -> Result<Vec<(u64, Note)>> {
        self.notes.all()
    }

    /// What was noted is done. Numbers that are not open are passed over.
    ///
    /// # Errors
    /// [`Error`] when it could not be written; the notes are open for the next start then.
    pub fn close_notes(&self, numbers: &[u64]) -> Result<()> {
        self.notes.close(numbers)
    }

    /// What was noted is done, and hooks are told: appends the events and an intent that says so in
    /// one transaction, which ends the intent of the time before.
    ///
    /// # Errors
    /// [`Error`] when nothing of it could be stored.
    pub async fn settle_notes(
        &self,
        notes: Vec<u64>,
        events: Vec<NewEvent>,
        before: Option<IntentId>,
    ) -> Result<IntentId> {
        let id = IntentId(self.next_intent.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        self.change(Change::Removed { id, notes, events, before }).await?;
        Ok(id)
    }

    /// The operations that have begun and not ended, oldest first: after a crash, those to look at.
    ///
    /// # Errors
    /// [`Error`] when the file can't be read or a record can't be decoded.
    pub fn open_intents(&self) -> Result<Vec<(IntentId, Intent)>> {
        self.store()?.intents()
    }

    /// A number that changes whenever there may be something new for hooks.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Writes now what [`Journal::settle_unhurried`] has gathered.
    pub async fn settle_gathered(&self) {
        if let Ok(sender) = self.sender() {
            self.gathering.commit(sender).await;
        }
    }

    /// Waits for what is being written, then lets go of the file. Calls after it fail with
    /// [`Error::Closed`].
    ///
    /// # Errors
    /// None today; a place for what closing the file may have to say.
    pub async fn close(&self) -> Result<()> {
        self.settle_gathered().await;
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            writer.stop().await;
        }
        self.store.write().take();
        Ok(())
    }

    fn store(&self) -> Result<Arc<store::Store>> {
        self.store.read().clone().ok_or(Error::Closed)
    }

    async fn change(&self, change: Change) -> Result<()> {
        self.sender()?.change(change).await
    }

    fn sender(&self) -> Result<writer::Sender> {
        self.writer.lock().as_ref().map(writer::Writer::sender).ok_or(Error::Closed)
    }
}

/// Makes an [`ETag`] storable.
#[must_use]
pub fn stored_etag(etag: &ETag) -> String {
    etag.as_str().to_owned()
}
