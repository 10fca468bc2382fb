//! One round: markers for directories that would vanish, then the deletions, then what is told of them.

use bytes::Bytes;
use futures::stream::{self, StreamExt};

use super::book::{Kept, Removal};
use super::deletions::{Fate, Going, Tried};
use super::log_theirs;
use crate::bucket::{self, Condition, PutOptions};
use crate::error::Kind;
use crate::failpoint::{self, Failpoint};
use crate::fs::inodes::{Ino, Node};
use crate::fs::persist::removed;
use crate::fs::{Fs, Result};
use crate::journal::{Note, stored_etag};
use crate::key::ROOT_INO;

/// Markers that are put at once.
const PARALLEL_PUTS: usize = 16;
/// Names that came back and are logged one by one.
const LOGGED: usize = 20;

impl Fs {
    /// Sends what waits, once, and takes what is done off the books.
    pub(in crate::fs) async fn removal_round(&self) {
        let round = self.removals.waiting.book.lock().begin_round();
        let barred = self.put_markers(&round.kept).await;
        let mut tried = Vec::with_capacity(round.removals.len());
        let mut sure = Vec::with_capacity(round.removals.len());
        let mut doubtful = Vec::new();
        for (key, removal) in round.removals {
            match barred.iter().find(|(above, _)| key.starts_with(above.as_str())) {
                Some((_, error)) => tried.push(Tried { key, removal, fate: Fate::Failed(error.clone()) }),
                None if removal.doubtful => doubtful.push((key, removal, None)),
                None => sure.push(Going { if_match: removal.etag.clone(), key, removal }),
            }
        }
        self.look(doubtful, &mut sure, &mut tried).await;
        let refused = self.delete(sure, &mut tried).await;
        let (refused, mut sure) =
            (refused.into_iter().map(|(key, removal, error)| (key, removal, Some(error))), Vec::new());
        self.look(refused.collect(), &mut sure, &mut tried).await;
        let refused = self.delete(sure, &mut tried).await.into_iter();
        tried.extend(refused.map(|(key, removal, error)| Tried { key, removal, fate: Fate::Failed(error) }));
        failpoint::reach(Failpoint::RemoveDeleted);
        self.end_round(tried, &barred).await;
    }

    /// Gives directories their markers; returns those that could not get one, and why.
    async fn put_markers(&self, kept: &[(String, Kept)]) -> Vec<(String, bucket::Error)> {
        let puts = stream::iter(kept.to_vec()).map(|(key, kept)| async move {
            let condition = Condition::IfAbsent;
            let options = PutOptions { metadata: kept.metadata, condition, ..PutOptions::default() };
            let put = self.removals.bucket.put(&key, Bytes::new(), &options).await;
            (key, kept.number, put)
        });
        let mut puts = puts.buffer_unordered(PARALLEL_PUTS);
        let (mut barred, mut done) = (Vec::new(), Vec::new());
        while let Some((key, number, put)) = puts.next().await {
            match put {
                Ok(etag) => {
                    failpoint::reach(Failpoint::MarkerKept);
                    self.note_marker(&key, &etag);
                    self.removals.waiting.book.lock().end_kept(&key);
                    done.push(number);
                }
                // It was there all along.
                Err(error) if error.kind == Kind::Changed => {
                    self.removals.waiting.book.lock().end_kept(&key);
                    done.push(number);
                }
                Err(error) => barred.push((key, error)),
            }
        }
        self.close_notes(&done);
        barred
    }

    /// The marker of a directory is there now: its node learns that, or the note of its removal, if it
    /// was removed meanwhile.
    fn note_marker(&self, key: &str, etag: &bucket::ETag) {
        let learnt = self.removals.waiting.book.lock().learn_tag(key, etag);
        if let Some(Removal { number, event, .. }) = learnt {
            let note = Note::Remove { key: key.to_owned(), etag: Some(stored_etag(etag)), event, intent: None };
            if let Err(error) = self.journal.note_again(number, &note) {
                tracing::warn!(cause = %error, "a directory may be there again after a crash");
            }
        } else if let Some(ino) = self.directory_at(key) {
            self.stored(ino, key, etag);
        }
    }

    /// The node of a directory's key, if it is in memory.
    pub(super) fn directory_at(&self, key: &str) -> Option<Ino> {
        let path = key.strip_prefix(self.settings.root_prefix.as_str())?;
        let tree = self.tree.lock();
        let below = |above: Option<Ino>, name| tree.child(above?, name).map(|node| node.ino);
        let ino = path.trim_end_matches('/').split('/').fold(Some(ROOT_INO), below)?;
        tree.get(ino).filter(|node| node.linked && Node::is_directory(node)).map(|node| node.ino)
    }

    /// Tells hooks and the journal what is done, and gives back the names of what S3 will not delete.
    async fn end_round(&self, mut tried: Vec<Tried>, barred: &[(String, bucket::Error)]) {
        if let Err(error) = self.tell_removed(&tried).await {
            tracing::error!(cause = %error, "removals are not in the journal yet; it is tried again");
            // What nobody was told of is not done: the next round finds the objects gone.
            for tried in tried.iter_mut().filter(|tried| matches!(tried.fate, Fate::Gone)) {
                tried.fate = Fate::Failed(local(&error));
            }
        }
        failpoint::reach(Failpoint::RemoveTold);
        let is_over = |tried: &&Tried| !matches!(&tried.fate, Fate::Failed(error) if !is_lasting(error));
        let over: Vec<u64> = tried.iter().filter(is_over).map(|tried| tried.removal.number).collect();
        // Before anybody may write the key again: the next start would take that for what was removed.
        self.close_notes(&over);
        let released = self.strike(&tried, barred);
        self.close_notes(&released);
        self.give_back(&tried);
        self.show_theirs(&tried);
        self.removals.waiting.rounds.send_modify(|rounds| *rounds += 1);
    }

    /// Takes what is over off the book; returns the notes of directories that nobody will keep.
    fn strike(&self, tried: &[Tried], barred: &[(String, bucket::Error)]) -> Vec<u64> {
        let (mut released, mut has_failed) = (Vec::new(), false);
        let mut book = self.removals.waiting.book.lock();
        for (key, error) in barred {
            if is_lasting(error) {
                released.extend(book.release(key));
            } else {
                book.fail(key, error);
                has_failed = true;
            }
        }
        for Tried { key, fate, .. } in tried {
            match fate {
                Fate::Gone => {}
                Fate::Theirs => log_theirs(key),
                Fate::Failed(error) if is_lasting(error) => book.refuse(error),
                Fate::Failed(error) => {
                    book.fail(key, error);
                    has_failed = true;
                    continue;
                }
            }
            book.end_removal(key);
        }
        book.end_round(has_failed);
        released
    }

    /// Appends the events of objects that are gone, so that a crash loses and doubles none.
    async fn tell_removed(&self, tried: &[Tried]) -> Result<()> {
        let is_told = |tried: &&Tried| matches!(tried.fate, Fate::Gone) && tried.removal.event && self.tells_hooks();
        let mut told: Vec<&Tried> = tried.iter().filter(is_told).collect();
        if told.is_empty() {
            return Ok(());
        }
        told.sort_unstable_by_key(|tried| tried.removal.number);
        let numbers = told.iter().map(|tried| tried.removal.number).collect();
        let events = told.iter().map(|tried| removed(&tried.key)).collect();
        let before = *self.removals.settled.lock();
        let settled = self.journal.settle_notes(numbers, events, before).await?;
        *self.removals.settled.lock() = Some(settled);
        Ok(())
    }

    /// What another client has put there meanwhile is seen from now on.
    fn show_theirs(&self, tried: &[Tried]) {
        let theirs: Vec<&Tried> = tried.iter().filter(|tried| matches!(tried.fate, Fate::Theirs)).collect();
        if !theirs.is_empty() {
            self.walks.forget_all();
            for tried in theirs {
                self.forget_key(&tried.key);
            }
        }
    }

    /// What S3 will not delete is there again under its name.
    fn give_back(&self, tried: &[Tried]) {
        let refused = tried.iter().filter_map(|tried| match &tried.fate {
            Fate::Failed(error) if is_lasting(error) => Some((&tried.key, error)),
            _ => None,
        });
        let refused: Vec<_> = refused.collect();
        if refused.is_empty() {
            return;
        }
        self.walks.forget_all();
        for (key, _) in &refused {
            self.forget_key(key);
        }
        for (key, error) in refused.iter().take(LOGGED) {
            tracing::error!(key = %key.escape_debug(), cause = %error, "not removed, the name is there again");
        }
        if refused.len() > LOGGED {
            tracing::error!(more = refused.len() - LOGGED, "not removed either, their names are there again");
        }
    }
}

/// Whether the next try will end the same.
fn is_lasting(error: &bucket::Error) -> bool {
    !matches!(
        error.kind,
        Kind::Busy | Kind::Unreachable | Kind::Deadline | Kind::Corrupt | Kind::Changed | Kind::Local | Kind::NoSpace
    )
}

/// A failure of the journal, for who waits for a removal.
fn local(error: &crate::fs::Error) -> bucket::Error {
    let (operation, key, cause) = ("DeleteObjects", String::new(), error.to_string());
    bucket::Error { kind: Kind::Local, operation, key, cause, http_status: None, request_id: None }
}
