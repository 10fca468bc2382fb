//! After a crash: how did each operation end that the journal says was begun?

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::inodes::Ino;
use super::ops::Renaming;
use super::persist::{created, removed};
use super::resume::Left;
use super::{Fs, Result};
use crate::bucket::attributes::Attributes;
use crate::bucket::{ETag, optional};
use crate::error::Kind;
use crate::failpoint::{self, Failpoint};
use crate::journal::{DraftBytes, EventName, Intent, IntentId, NewEvent, Note, stored_etag};

/// How long a start may take to send what was left; the rest is sent while the mount serves.
const RESUME_DEADLINE: Duration = Duration::from_mins(2);

/// What recovery did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Operations that turned out to be complete, or were completed now.
    pub finished: usize,
    /// Operations that never happened.
    pub dropped: usize,
    /// Drafts that could not be stored, because somebody wrote the key meanwhile; the log tells where
    /// they lie.
    pub conflicts: u64,
    /// Files that wait to be sent.
    pub waiting: usize,
    /// Operations whose end could not be found out now; tried again at the next start.
    pub left: usize,
}

/// How one intent ended.
enum Outcome {
    Finished(Vec<NewEvent>),
    Dropped,
}

impl Fs {
    /// Finds out about every open intent, oldest first, and clears drafts that nobody answers for.
    /// Closes that were answered from the journal become files that wait to be sent. Where a close
    /// answers for S3 they are sent before anything is served, else behind it.
    ///
    /// # Errors
    /// Only when the journal itself cannot be read or written. What S3 cannot answer now is left.
    pub async fn recover(&self) -> Result<RecoveryReport> {
        self.recall_root();
        let mut report = RecoveryReport::default();
        let removed = self.removed_versions()?;
        // First: what came after them may have been promised under the same keys.
        self.recover_removals(&mut report).await?;
        self.recover_attributes(&mut report).await?;
        let mut closes = Vec::new();
        for (id, intent) in self.journal.open_intents()? {
            let (before, after) = windows(&intent);
            failpoint::reach(before);
            if let Some(left) = Left::of(id, &intent) {
                match left.base_etag.as_ref().filter(|etag| removed.contains(&(left.key.clone(), (*etag).clone()))) {
                    // Removed after that close: only the record was still to go.
                    Some(_) => self.settle_outcome(id, Outcome::Dropped, &mut report).await?,
                    None => closes.push(left),
                }
                continue;
            }
            let resolved = match &intent {
                Intent::RenameTree { from, to, objects, retagged } => {
                    let (from, to, moving) = (from.clone(), to.clone(), objects.clone());
                    let rename = Renaming { id, from, to, moving, retagged: retagged.clone() };
                    self.finish_rename(rename, &mut closes).await
                }
                intent => self.resolve_intent(intent).await,
            };
            match resolved {
                Ok(outcome) => {
                    failpoint::reach(after);
                    self.settle_outcome(id, outcome, &mut report).await?;
                }
                Err(error) => {
                    tracing::warn!(?intent, cause = %error, "left for the next start");
                    report.left += 1;
                }
            }
        }
        let closes = self.newest_closes(closes, &mut report).await?;
        let file_of = |left: &Left| if let DraftBytes::File(name) = &left.draft { Some(name.clone()) } else { None };
        let drafts_in_use: HashSet<String> = closes.iter().filter_map(file_of).collect();
        let resumed = self.resume_all(closes, &mut report).await?;
        failpoint::reach(Failpoint::RecoverBeforeClear);
        self.clear_drafts(&drafts_in_use)?;
        if self.settings.write_back.is_none() {
            self.send_resumed(resumed, &mut report).await;
        }
        Ok(report)
    }

    /// Keys and versions that are noted to be removed, but for what an operation that was cut short decides.
    fn removed_versions(&self) -> Result<HashSet<(String, String)>> {
        let notes = self.journal.open_notes()?.into_iter().map(|(_, note)| note);
        let undecided: HashSet<u64> = self.journal.open_intents()?.into_iter().map(|(id, _)| id.0).collect();
        let version = |note| match note {
            Note::Remove { intent: Some(intent), .. } if undecided.contains(&intent) => None,
            Note::Remove { key, etag: Some(etag), .. } => Some((key, etag)),
            _ => None,
        };
        Ok(notes.filter_map(version).collect())
    }

    /// Of several closes of one key the last one holds what the file is; the others were on their way out
    /// of the journal.
    async fn newest_closes(&self, closes: Vec<Left>, report: &mut RecoveryReport) -> Result<Vec<Left>> {
        let mut newest: Vec<Left> = Vec::with_capacity(closes.len());
        let mut places = HashMap::new();
        for left in closes {
            match places.entry(left.key.clone()) {
                Entry::Vacant(place) => {
                    place.insert(newest.len());
                    newest.push(left);
                }
                Entry::Occupied(place) => {
                    let older = std::mem::replace(&mut newest[*place.get()], left);
                    self.settle_outcome(older.id, Outcome::Dropped, report).await?;
                }
            }
        }
        Ok(newest)
    }

    /// Takes over the files of closes that were left.
    async fn resume_all(&self, closes: Vec<Left>, report: &mut RecoveryReport) -> Result<Vec<Ino>> {
        let mut resumed = Vec::new();
        for left in closes {
            match self.resume(&left).await {
                Ok(Some(ino)) => {
                    resumed.push(ino);
                    if self.settings.write_back.is_some() {
                        self.backlog.add(ino, left.size, Instant::now());
                    }
                }
                Ok(None) => self.settle_outcome(left.id, Outcome::Dropped, report).await?,
                Err(error) => {
                    tracing::warn!(key = %left.key.escape_debug(), cause = %error, "left for the next start");
                    report.left += 1;
                }
            }
        }
        report.waiting = resumed.len();
        Ok(resumed)
    }

    /// What cannot be sent goes on waiting.
    async fn send_resumed(&self, resumed: Vec<Ino>, report: &mut RecoveryReport) {
        let count = resumed.len();
        if count > 0 {
            tracing::info!(files = count, "storing what the last mount has left");
        }
        let conflicts = self.conflicts.load(Ordering::Relaxed);
        let waiting = self.store_all(resumed, Some(tokio::time::Instant::now() + RESUME_DEADLINE), true).await;
        report.conflicts = self.conflicts.load(Ordering::Relaxed) - conflicts;
        report.waiting = self.count_unstored();
        report.finished += count - waiting.len();
    }

    async fn settle_outcome(&self, id: IntentId, outcome: Outcome, report: &mut RecoveryReport) -> Result<()> {
        let events = match outcome {
            Outcome::Finished(events) => {
                report.finished += 1;
                events
            }
            Outcome::Dropped => {
                report.dropped += 1;
                Vec::new()
            }
        };
        self.settle(&[id], events).await
    }

    async fn resolve_intent(&self, intent: &Intent) -> Result<Outcome> {
        match intent {
            Intent::Put { key, op_id, multipart } => self.resolve_put(key, op_id, *multipart).await,
            Intent::Rename { from, to, etag, to_etag } => self.resolve_rename(from, to, etag, to_etag.as_deref()).await,
            Intent::Upload { key, upload_id } => match self.bucket.abort_upload(key, upload_id).await {
                Err(error) if error.kind != Kind::NoSuchUpload => Err(error.into()),
                _ => Ok(Outcome::Dropped),
            },
            // Done before the notes were looked at; the others have their own ways.
            Intent::Removed { .. } | Intent::RenameTree { .. } | Intent::Deferred { .. } => Ok(Outcome::Dropped),
        }
    }

    /// Finishes the rename of a directory. Closes below it that were left before follow, in the
    /// transaction that ends it.
    async fn finish_rename(&self, mut rename: Renaming, closes: &mut [Left]) -> Result<Outcome> {
        let copies = self.move_tree(&mut rename).await?;
        let Renaming { id, from, to, retagged, .. } = rename;
        self.index.rename_tree(&from, &to);
        let (mut ended, mut followers) = (vec![id], Vec::new());
        for left in closes.iter_mut().filter(|left| left.key.starts_with(&from)) {
            let name = left.key[from.len()..].to_owned();
            left.key = format!("{to}{name}");
            let base = left.base_etag.clone();
            let here = copies.iter().find(|copy| copy.key == left.key);
            let here = here.filter(|copy| base.as_deref() == Some(copy.source_etag.as_str()));
            let before = retagged.iter().rev().find(|it| it.name == name && Some(&it.etag) == base.as_ref());
            if let Some(copy) = here {
                left.base_etag = Some(stored_etag(&copy.etag));
            } else if let Some(copy) = before {
                left.base_etag = Some(copy.copy_etag.clone());
            }
            ended.push(left.id);
            followers.push(left);
        }
        let ids = self.journal.replace(&ended, followers.iter().map(|left| left.intent()).collect()).await?;
        for (left, id) in followers.into_iter().zip(ids) {
            left.id = id;
        }
        Ok(Outcome::Finished(Vec::new()))
    }

    /// The version carries the operation's id if it was written.
    async fn resolve_put(&self, key: &str, op_id: &str, multipart: bool) -> Result<Outcome> {
        let info = match self.bucket.head(key).await {
            Err(error) if error.kind == Kind::NotFound => return Ok(Outcome::Dropped),
            other => other?,
        };
        if Attributes::from_metadata(&info.metadata).op_id.as_deref() != Some(op_id) {
            return Ok(Outcome::Dropped);
        }
        let name = if multipart { EventName::CreatedMultipart } else { EventName::CreatedPut };
        Ok(Outcome::Finished(vec![created(name, key, info.size, &info.etag)]))
    }

    /// A copy that was made is finished by the delete that was to follow; one that was not made is
    /// no rename. The source is deleted only while it is the version that was copied.
    async fn resolve_rename(&self, from: &str, to: &str, etag: &str, to_etag: Option<&str>) -> Result<Outcome> {
        let (source, target) = tokio::join!(self.bucket.head(from), self.bucket.head(to));
        let source = optional(source)?;
        let Some(target) = optional(target)? else { return Ok(Outcome::Dropped) };
        let etag = ETag::new(etag);
        let tags_are_random = self.is_in_directory_bucket(to);
        if let Some(source) = source {
            let is_copied = source.etag == etag && is_copy(&source, &target, to_etag, tags_are_random);
            if !is_copied || !self.remove_now(from, &etag).await? {
                return Ok(Outcome::Dropped);
            }
        }
        let copied = created(EventName::CreatedCopy, to, target.size, &target.etag);
        Ok(Outcome::Finished(vec![copied, removed(from)]))
    }

    /// What lies in the draft directory and belongs to no open intent was never acknowledged.
    fn clear_drafts(&self, in_use: &HashSet<String>) -> Result<()> {
        std::fs::create_dir_all(&self.settings.draft_dir)?;
        for entry in std::fs::read_dir(&self.settings.draft_dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.ends_with(CONFLICT_SUFFIX) && !in_use.contains(&name) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Where a start may die over an intent: before it looks into it, and before it settles it.
fn windows(intent: &Intent) -> (Failpoint, Failpoint) {
    match intent {
        Intent::Put { .. } => (Failpoint::RecoverPut, Failpoint::RecoverPutSettle),
        Intent::Removed { .. } => (Failpoint::RecoverRemove, Failpoint::RecoverRemoveSettle),
        Intent::Rename { .. } => (Failpoint::RecoverRename, Failpoint::RecoverRenameSettle),
        Intent::RenameTree { .. } => (Failpoint::RecoverTree, Failpoint::RecoverTreeSettle),
        Intent::Deferred { .. } => (Failpoint::RecoverDeferred, Failpoint::RecoverDeferredSettle),
        Intent::Upload { .. } => (Failpoint::RecoverUpload, Failpoint::RecoverUploadSettle),
    }
}

/// Drafts that lost against another writer keep their bytes under this ending.
pub(super) const CONFLICT_SUFFIX: &str = ".conflict";

/// A name of its own for each conflict: one draft may have several.
pub fn conflict_path(draft: &Path) -> PathBuf {
    let name = format!("{}{CONFLICT_SUFFIX}", uuid::Uuid::now_v7().simple());
    draft.with_file_name(name)
}

/// Whether `target` is what copying `source` made. A copy of a multipart object has another ETag, and any copy where
/// tags are random: there the target must be another one than before, of the same size and metadata.
fn is_copy(
    source: &crate::bucket::ObjectInfo,
    target: &crate::bucket::ObjectInfo,
    target_before: Option<&str>,
    tags_are_random: bool,
) -> bool {
    if source.size != target.size {
        return false;
    }
    let has_other_tag = tags_are_random || source.etag.as_str().contains('-');
    let replaced = target_before != Some(target.etag.as_str());
    source.etag == target.etag || (has_other_tag && replaced && source.metadata == target.metadata)
}
