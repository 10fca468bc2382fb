//! Removals: a name goes here at once, its object from the bucket within a second, together with all
//! the others that went.
//!
//! What is to go is noted in the journal ([`crate::journal::Note`]) and in the [`book`]. A task of its
//! own sends what waits ([`round`], [`deletions`]). Everything that `fs` says to S3 goes through the [`view`]: the
//! bucket as it will be when nothing waits any more, in which a key that waits is not there, and
//! nothing is written under it before it is gone. [`recover`] goes on where a crash came between.

mod book;
mod deletions;
mod recover;
mod round;
mod view;

use std::sync::{Arc, Weak};

use nix::errno::Errno;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

pub use self::book::Removal;
use self::book::{Book, Kept, Standing, Wanted};
use self::view::View;
use super::inodes::Ino;
use super::persist::Snapshot;
use super::{Fs, Result};
use crate::bucket::{self, Bucket, ETag, Metadata, optional};
use crate::error::Kind;
use crate::failpoint::{self, Failpoint};
use crate::journal::{IntentId, Note, Sent, stored_etag};
use crate::key::ROOT_INO;

/// Removals of a mount.
#[derive(Debug)]
pub struct Removals {
    waiting: Arc<Waiting>,
    /// The bucket as it is.
    bucket: Arc<dyn Bucket>,
    task: Mutex<Option<JoinHandle<()>>>,
    /// The intent in the journal that says what was settled last.
    settled: Mutex<Option<IntentId>>,
}

/// The book, and who wants to know of it.
#[derive(Debug)]
struct Waiting {
    book: Mutex<Book>,
    wake: Notify,
    /// How many rounds have ended.
    rounds: watch::Sender<u64>,
}

impl Removals {
    /// Nothing waits; of the bucket as it is.
    pub fn new(bucket: Arc<dyn Bucket>) -> Self {
        let waiting = Waiting { book: Mutex::default(), wake: Notify::new(), rounds: watch::Sender::new(0) };
        Self { waiting: Arc::new(waiting), bucket, task: Mutex::default(), settled: Mutex::default() }
    }

    /// The bucket as it will be.
    pub fn view(&self) -> Arc<dyn Bucket> {
        Arc::new(View::new(self.bucket.clone(), self.waiting.clone()))
    }

    /// How many objects wait.
    pub fn len(&self) -> usize {
        self.waiting.book.lock().len()
    }

    /// Whether nothing waits that has to come before a change of the object at `key`.
    pub fn is_free(&self, key: &str) -> bool {
        matches!(self.waiting.book.lock().standing(Wanted::Free(key)), Standing::Over)
    }

    /// The last note that was taken in.
    pub fn last_number(&self) -> u64 {
        self.waiting.book.lock().last_number()
    }

    /// Some of the keys that wait since this note or longer, and how many more there are.
    pub fn some_keys(&self, up_to: u64, most: usize) -> (Vec<String>, usize) {
        self.waiting.book.lock().some_keys(up_to, most)
    }

    /// Begins the task that sends what waits.
    fn ensure_task(&self, fs: &Weak<Fs>) {
        let mut task = self.task.lock();
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            *task = Some(tokio::spawn(run(fs.clone(), self.waiting.clone())));
        }
    }
}

impl Drop for Removals {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

impl Waiting {
    /// Waits until something is done, at once; the failure of a try that ended meanwhile ends it too.
    async fn wait(&self, wanted: Wanted<'_>) -> bucket::Result<()> {
        let mut ended = self.rounds.subscribe();
        let begun = self.book.lock().rounds();
        loop {
            ended.mark_unchanged();
            {
                let mut book = self.book.lock();
                match book.standing(wanted) {
                    Standing::Over => return Ok(()),
                    Standing::Waiting(Some((round, error))) if round > begun => return Err(error),
                    Standing::Waiting(_) => book.set_hurry(),
                }
            }
            self.wake.notify_one();
            // It lives as long as `self`.
            let _ = ended.changed().await;
        }
    }

    /// Returns when something is to be sent.
    async fn until_due(&self) {
        loop {
            let due = self.book.lock().due();
            match due {
                None => self.wake.notified().await,
                Some(at) if at <= std::time::Instant::now() => return,
                Some(at) => {
                    let _ = tokio::time::timeout_at(at.into(), self.wake.notified()).await;
                }
            }
        }
    }
}

fn log_theirs(key: &str) {
    tracing::warn!(
        key = %key.escape_debug(),
        "somebody else wrote this key since it was removed or renamed here: theirs stays"
    );
}

/// The task: sends what waits, as long as there is somebody to send it for.
async fn run(fs: Weak<Fs>, waiting: Arc<Waiting>) {
    loop {
        waiting.until_due().await;
        let Some(fs) = fs.upgrade() else { return };
        fs.removal_round().await;
    }
}

impl Fs {
    /// The object under `key` is to go: durably noted when this returns, unseen from then on, and gone
    /// from the bucket within a second, if it is this version then or one of those in doubt.
    pub(super) fn remove_soon(&self, key: &str, etag: Option<&ETag>, sent: Vec<Sent>, event: bool) -> Result<()> {
        let removal = self.note_removal(key, etag, event, None)?;
        failpoint::reach(Failpoint::RemoveIntended);
        self.remove_noted(key, Removal { sent, ..removal }, Ok(()))
    }

    /// As [`Fs::remove_soon`], of a file of which the last look at S3 may be long ago: it is looked at
    /// before it goes, also where the server heeds no conditions.
    pub(super) fn remove_unless_replaced(&self, key: &str, etag: &ETag) -> Result<()> {
        let removal = self.note_removal(key, Some(etag), true, None)?;
        failpoint::reach(Failpoint::RemoveIntended);
        self.remove_noted(key, removal.unless_replaced(), Ok(()))
    }

    /// The first half of [`Fs::remove_soon`]: durably noted, and nothing is sent yet. While the journal
    /// holds `intent`, that decides at the next start.
    pub(super) fn note_removal(
        &self,
        key: &str,
        etag: Option<&ETag>,
        event: bool,
        intent: Option<IntentId>,
    ) -> Result<Removal> {
        let note = Note::Remove {
            key: key.to_owned(),
            etag: etag.map(stored_etag),
            event: event && self.tells_hooks(),
            intent: intent.map(|intent| intent.0),
        };
        let number = self.journal.note(&note)?;
        Ok(Removal { number, etag: etag.cloned(), event, sent: Vec::new(), doubtful: false, failed: None })
    }

    /// The same for what nothing can take back any more, as the copy of a rename is made: where the journal takes
    /// no note, as on a full disk, the object goes now.
    pub(super) async fn note_or_remove(
        &self,
        key: &str,
        etag: &ETag,
        event: bool,
        intent: Option<IntentId>,
    ) -> Result<Option<Removal>> {
        let cause = match self.note_removal(key, Some(etag), event, intent) {
            Ok(removal) => return Ok(Some(removal)),
            Err(cause) => cause,
        };
        tracing::warn!(key = %key.escape_debug(), %cause, "the old name of a renamed file is removed at once");
        self.remove_now(key, etag).await?;
        Ok(None)
    }

    /// This version of an object goes now; whether it is gone: that of another client stays.
    pub(super) async fn remove_now(&self, key: &str, etag: &ETag) -> Result<bool> {
        match self.bucket.delete(key, Some(etag)).await {
            // Some servers say that where there is nothing any more.
            Err(error) if error.kind == Kind::Changed => {
                let is_gone = optional(self.bucket.head(key).await)?.is_none();
                if !is_gone {
                    log_theirs(key);
                }
                Ok(is_gone)
            }
            deleted => Ok(deleted.map(|()| true)?),
        }
    }

    /// The second half: unseen from now on, and sent soon; unless what had to come between has failed.
    pub(super) fn remove_noted(&self, key: &str, removal: Removal, settled: Result<()>) -> Result<()> {
        if let Err(error) = settled {
            self.journal.close_notes(&[removal.number])?;
            return Err(error);
        }
        let (released, wakes) = {
            let mut book = self.removals.waiting.book.lock();
            (book.release(key), book.add(key, removal))
        };
        self.journal.close_notes(released.as_slice())?;
        self.send_soon(wakes);
        Ok(())
    }

    /// A name is about to leave a directory, which must not vanish with it: if S3 knows the directory
    /// only by what is in it, it is to get a marker before that goes.
    pub(super) fn keep_soon(&self, directory: Ino, leaving: &str) -> Result<()> {
        let Some((key, metadata)) = self.marker_needed(directory, leaving)? else { return Ok(()) };
        if self.removals.waiting.book.lock().keeps(&key) {
            return Ok(());
        }
        let number = self.journal.note(&Note::Keep { key: key.clone(), metadata: metadata.clone() })?;
        let kept = Kept { number, metadata, since: std::time::SystemTime::now(), failed: None };
        let wakes = self.removals.waiting.book.lock().keep(&key, kept);
        self.send_soon(wakes);
        Ok(())
    }

    /// Another part of the program is about to delete the object at this key: as with `unlink`, the directory it
    /// lies in stays. If it needs a marker for that, the bucket has it when this returns.
    pub async fn keep_directory_of(&self, key: &str) {
        let Some((above, name)) = key.rsplit_once('/') else { return };
        let above = format!("{above}/");
        let Some(directory) = self.directory_at(&above) else { return };
        let kept = match self.keep_soon(directory, name) {
            Ok(()) => self.settle_at(&above).await,
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            tracing::warn!(key = %key.escape_debug(), cause = %error, "its directory may go with it");
        }
    }

    fn send_soon(&self, wakes: bool) {
        self.removals.ensure_task(&self.me);
        if wakes {
            self.removals.waiting.wake.notify_one();
        }
    }

    /// The key of a directory that has no marker and needs one when a name leaves it, and what the
    /// marker is to say.
    pub(super) fn marker_needed(&self, ino: Ino, leaving: &str) -> Result<Option<(String, Metadata)>> {
        let needed = {
            let tree = self.tree.lock();
            let node = tree.get(ino).ok_or(Errno::ESTALE)?;
            if let Some(noted) = &node.noted {
                noted.note_leaving(leaving);
            }
            let is_listed = node.directory.as_ref().is_some_and(|directory| directory.listed_at().is_some());
            let stays = ino == ROOT_INO || tree.key(ino).is_some_and(|key| self.settings.layout.is_top(&key));
            let tells = || is_listed && tree.holds_stored(ino, Some(leaving));
            !stays && node.etag.is_none() && !node.is_noted() && !tells()
        };
        if !needed {
            return Ok(None);
        }
        let Snapshot { key, stat, .. } = self.snapshot(ino)?;
        let mut attributes = stat.to_attributes(None);
        // What nobody has said of it, but the options of this mount, is not to become its own.
        let said = self.index.get(&key).map(|remembered| remembered.attributes).unwrap_or_default();
        (attributes.mode, attributes.uid, attributes.gid) = (said.mode, said.uid, said.gid);
        Ok(Some((key, attributes.to_metadata()?)))
    }

    /// Returns when all that was removed so far is gone from the bucket: what fsync of a directory
    /// promises.
    ///
    /// # Errors
    /// What S3 answered. What could not be sent is sent later; what S3 refused is there again.
    pub async fn settle_removals(&self) -> Result<()> {
        let (last, begun) = {
            let book = self.removals.waiting.book.lock();
            (book.last_number(), book.rounds())
        };
        self.removals.waiting.wait(Wanted::UpTo(last)).await?;
        match self.removals.waiting.book.lock().refused_since(begun) {
            Some(error) => Err(error.clone().into()),
            None => Ok(()),
        }
    }

    /// Returns when nothing waits under a prefix, or at the key itself.
    pub(super) async fn settle_below(&self, prefix: &str) -> Result<()> {
        Ok(self.removals.waiting.wait(Wanted::Below(prefix)).await?)
    }

    /// Returns when nothing waits that has to come before a change of the object at `key`.
    pub(super) async fn settle_at(&self, key: &str) -> Result<()> {
        Ok(self.removals.waiting.wait(Wanted::Free(key)).await?)
    }

    /// Ends the task that sends what waits; it is noted for the next start. To be called before the
    /// journal is closed.
    pub async fn stop_removals(&self) {
        let task = self.removals.task.lock().take();
        if let Some(task) = task {
            task.abort();
            // It was aborted, or has ended with an answer that nobody needs.
            let _ = task.await;
        }
    }
}
