//! Directories of which S3 is told a moment later: their attributes, and in a write-back mount that
//! they are there at all.
//!
//! A note in the journal answers for them meanwhile ([`crate::journal::Note::Attributes`]); the uploader tells S3. So
//! what `mkdir`, `chmod` and `utimes` say of a directory one after the other is one request.
//!
//! It is none where a new directory has only the attributes that every directory has here, and by then another with
//! a marker lies in it, or several files: a prefix of a key is a directory, for us and for every other client. One
//! file would tell as much, but other clients take a file away when they have done with it, and what was made is to
//! stay then. Whoever takes the last name away by this mount, a hook too, leaves a marker ([`Fs::keep_soon`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::doubt::is_doubtful;
use super::inodes::Ino;
use super::persist::Snapshot;
use super::stat::Stat;
use super::waiting::attributes_note;
use super::{Fs, Result};
use crate::bucket::{ETag, optional};
use crate::failpoint::{self, Failpoint};
use crate::key::ROOT_INO;

/// How long a new directory waits for what is being stored in it, before it gets a marker itself: others are to see
/// it soon.
const IMPLIED_WITHIN: Duration = Duration::from_secs(2);
/// What a directory without a marker has in every mount that was not told otherwise.
const USUAL_PERM: u16 = 0o755;

/// What is noted of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It was made.
    Made,
    /// It has other attributes.
    Changed,
}

/// What S3 is to be told of a directory.
#[derive(Debug, Default)]
pub struct Noted {
    /// Held while it is told, and while the directory is removed.
    pub(super) gate: tokio::sync::Mutex<()>,
    /// Locked after the tree, where both are.
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    /// The note in the journal.
    number: Option<u64>,
    changes: u64,
    /// All that is to be told is that it is there: what lies in it tells as much.
    bare: Option<Bare>,
    /// S3 may have a version of the marker that nobody here knows: there was no answer, or one that it is in the way.
    in_doubt: bool,
}

impl Open {
    /// Nothing is to be told any more: the number of the note.
    fn take(&mut self) -> Option<u64> {
        self.bare = None;
        self.number.take()
    }
}

#[derive(Debug)]
struct Bare {
    since: Instant,
    /// The last name that was about to leave it: not to be relied on.
    leaving: Option<String>,
}

impl Noted {
    /// S3 has yet to be told.
    pub fn is_open(&self) -> bool {
        self.open.lock().number.is_some()
    }

    /// Which change is the last, if S3 has yet to be told.
    fn last_change(&self) -> Option<u64> {
        let open = self.open.lock();
        open.number.map(|_| open.changes)
    }

    /// Whether S3 may have a version of its marker that nobody here knows.
    pub fn is_in_doubt(&self) -> bool {
        self.open.lock().in_doubt
    }

    /// A name is about to leave the directory.
    pub fn note_leaving(&self, name: &str) {
        if let Some(bare) = &mut self.open.lock().bare {
            bare.leaving = Some(name.to_owned());
        }
    }

    /// S3 was told of this change: the number of the note, unless another has come since.
    fn end(&self, change: u64) -> Option<u64> {
        let mut open = self.open.lock();
        if open.changes == change { open.take() } else { None }
    }
}

impl Fs {
    /// Whether S3 may be told of a directory a moment later. Not while a removal or another marker waits
    /// under its key: after a crash nobody could say which came first.
    pub(super) fn may_note(&self, key: &str) -> bool {
        self.settings.attributes_wait && !self.settings.layout.is_keyless(key) && self.removals.is_free(key)
    }

    /// As [`Fs::may_note`], of a node.
    pub(super) fn may_note_directory(&self, ino: Ino) -> bool {
        let key = {
            let tree = self.tree.lock();
            tree.get(ino).filter(|node| node.is_directory()).and_then(|_| tree.key(ino))
        };
        key.is_some_and(|key| self.may_note(&key))
    }

    /// Whether S3 may be told a moment later that a directory was made.
    pub(super) fn may_note_new(&self, key: &str) -> bool {
        let Some(limits) = &self.settings.write_back else { return false };
        // The root never waits: it stands for who has no number yet.
        self.may_note(key) && !self.backlog.is_full_for(ROOT_INO, limits, &self.settings.draft_dir)
    }

    /// Notes a directory as it is, and has S3 told soon.
    ///
    /// # Errors
    /// What the journal says: then nothing is noted.
    pub(super) fn note_directory(&self, ino: Ino, news: News) -> Result<()> {
        let noted = match self.tree.lock().get_mut(ino) {
            Some(node) => node.noted.get_or_insert_default().clone(),
            None => return Ok(()),
        };
        let snapshot = self.snapshot(ino)?;
        let is_usual = snapshot.stat.perm == USUAL_PERM && snapshot.stat.is_like(&Stat::directory(&self.settings));
        let note = attributes_note(snapshot)?;
        {
            let mut open = noted.open.lock();
            self.note_latest(&mut open.number, &note)?;
            // Who finds the name before mkdir has answered may have changed it already.
            let is_bare = is_usual && news == News::Made && open.changes == 0;
            open.changes += 1;
            open.bare = is_bare.then(|| Bare { since: Instant::now(), leaving: None });
        }
        failpoint::reach(Failpoint::AttributesNoted);
        self.backlog.add_directory(ino, Instant::now());
        Ok(())
    }

    /// What waits to be told of a directory, if anything ever did.
    pub(super) fn noted(&self, ino: Ino) -> Option<Arc<Noted>> {
        self.tree.lock().get(ino)?.noted.clone()
    }

    /// Tells S3 now what is noted of a directory, if something is. For callers that hold the namespace.
    ///
    /// # Errors
    /// What S3 answers. What another client has made of the marker stays, and ends the note.
    pub(super) async fn tell_noted(&self, ino: Ino) -> Result<()> {
        let Some(noted) = self.noted(ino) else { return Ok(()) };
        let _gate = noted.gate.lock().await;
        if !self.noted(ino).is_some_and(|now| Arc::ptr_eq(&now, &noted)) {
            // Its number is another directory's by now.
            return Ok(());
        }
        if self.end_if_implied(ino, &noted) {
            return Ok(());
        }
        let Some(change) = noted.last_change() else { return Ok(()) };
        let is_new = self.snapshot(ino)?.etag.is_none();
        // Before it is sent: nobody may be there any more to hear the answer.
        noted.open.lock().in_doubt = true;
        let told = self.store_attributes_stable(ino).await;
        noted.open.lock().in_doubt = told.as_ref().is_err_and(|error| is_doubtful(error) || error.is_conflict());
        match told {
            Ok(()) => {
                self.close_notes(noted.end(change).as_slice());
                let Snapshot { key, etag, .. } = self.snapshot(ino)?;
                self.remember(ino, &key, etag.as_ref());
                Ok(())
            }
            Err(error) if error.is_conflict() => {
                self.close_notes(noted.end(change).as_slice());
                self.tree.lock().doubt(ino);
                // Somebody else has made it as well: it is there.
                if is_new { Ok(()) } else { Err(error) }
            }
            Err(error) => Err(error),
        }
    }

    /// Ends the note of a directory of which what lies in it tells already.
    ///
    /// Looked at and ended in one step: whoever takes the last name out of it finds it either noted still,
    /// or without a marker, which it is to get then ([`Fs::keep_soon`]).
    fn end_if_implied(&self, ino: Ino, noted: &Noted) -> bool {
        let (key, number) = {
            let mut tree = self.tree.lock();
            let mut open = noted.open.lock();
            let Some(bare) = &open.bare else { return false };
            if !tree.stays_unmarked(ino, bare.leaving.as_deref()) {
                return false;
            }
            let number = open.take();
            drop(open);
            // A listing that was asked for before that was stored does not know of the directory.
            tree.note_change(ino);
            (tree.key(ino), number)
        };
        self.close_notes(number.as_slice());
        if let Some(key) = key {
            self.remember(ino, &key, None);
        }
        true
    }

    /// Whether a directory need not be told of yet, since something in it is about to be stored.
    pub(super) fn may_be_implied(&self, ino: Ino) -> bool {
        let tree = self.tree.lock();
        let Some(noted) = tree.get(ino).and_then(|node| node.noted.as_ref()) else { return false };
        let is_young = noted.open.lock().bare.as_ref().is_some_and(|bare| bare.since.elapsed() < IMPLIED_WITHIN);
        is_young && !tree.stays_unmarked(ino, None) && !tree.drafted_children(ino).is_empty()
    }

    /// The version of a directory's marker, looked up where it is in doubt. For callers that hold its gate.
    ///
    /// # Errors
    /// What S3 answers who looks.
    pub(super) async fn marker_version(&self, ino: Ino, noted: Option<&Noted>) -> Result<Option<ETag>> {
        let Snapshot { key, etag, .. } = self.snapshot(ino)?;
        if !noted.is_some_and(Noted::is_in_doubt) {
            return Ok(etag);
        }
        Ok(optional(self.bucket.head(&key).await)?.map(|there| there.etag))
    }

    /// The directory is gone: S3 need not be told of it. For callers that hold its gate.
    pub(super) fn forget_noted(&self, ino: Ino, noted: &Noted) {
        let number = noted.open.lock().take();
        self.close_notes(number.as_slice());
        self.backlog.remove(ino);
    }

    /// `fsync(2)` of a directory: what was made, changed or removed in it is in the bucket when this
    /// returns, and its own attributes are.
    ///
    /// # Errors
    /// What S3 answered. What could not be sent is sent later; what S3 refused to remove is there again.
    pub async fn sync_directory(&self, ino: Ino) -> Result<()> {
        self.settle_removals().await?;
        let below = self.tree.lock().drafted_children(ino);
        let _stable = self.namespace.read().await;
        for ino in std::iter::once(ino).chain(below) {
            self.tell_noted(ino).await?;
        }
        Ok(())
    }
}
