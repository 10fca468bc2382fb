//! After a crash: how did each operation end that the journal says was begun?

use std::collections::HashSet;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::persist::{created, lost_is_stale, removed};
use super::{Fs, Result};
use crate::bucket::attributes::Attributes;
use crate::bucket::upload::{self, FileParts, MULTIPART_FROM_BYTES};
use crate::bucket::{Condition, ETag, Metadata, PutOptions};
use crate::error::Kind;
use crate::failpoint::{self, Failpoint};
use crate::journal::{EventName, Intent, IntentId, NewEvent};

/// How much of a draft and an object is compared at a time.
const COMPARED_BYTES: u64 = 8 << 20;

/// What recovery did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Operations that turned out to be complete, or were completed now.
    pub finished: usize,
    /// Operations that never happened.
    pub dropped: usize,
    /// Drafts that could not be stored (somebody wrote the key meanwhile) and where they lie.
    pub conflicts: Vec<PathBuf>,
    /// Operations whose end could not be found out now; tried again at the next start.
    pub left: usize,
}

/// How one intent ended.
enum Outcome {
    Finished(Vec<NewEvent>),
    Dropped,
    Conflict(PathBuf),
}

impl Fs {
    /// Finds out about every open intent, oldest first, and clears drafts that nobody answers for.
    ///
    /// # Errors
    /// Only when the journal itself cannot be read or written. What S3 cannot answer now is left.
    pub async fn recover(&self) -> Result<RecoveryReport> {
        self.recall_root();
        let mut report = RecoveryReport::default();
        // First: what came after them may have been promised under the same keys.
        self.recover_removals(&mut report).await?;
        let mut drafts_in_use = HashSet::new();
        for (id, intent) in self.journal.open_intents()? {
            let draft = if let Intent::Deferred { draft, .. } = &intent { Some(draft.clone()) } else { None };
            let (before, after) = windows(&intent);
            failpoint::reach(before);
            match self.resolve_intent(&intent).await {
                Ok(outcome) => {
                    failpoint::reach(after);
                    self.settle_outcome(id, outcome, &mut report).await?;
                }
                Err(error) => {
                    tracing::warn!(?intent, cause = %error, "left for the next start");
                    report.left += 1;
                    drafts_in_use.extend(draft);
                }
            }
        }
        failpoint::reach(Failpoint::RecoverBeforeClear);
        self.clear_drafts(&drafts_in_use)?;
        Ok(report)
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
            Outcome::Conflict(path) => {
                tracing::error!(kept = %path.display(), "somebody wrote this key meanwhile; our bytes are kept");
                report.conflicts.push(path);
                Vec::new()
            }
        };
        self.settle(&[id], events).await
    }

    async fn resolve_intent(&self, intent: &Intent) -> Result<Outcome> {
        match intent {
            Intent::Put { key, op_id, multipart } => self.resolve_put(key, op_id, *multipart).await,
            Intent::Remove { key } => match self.bucket.head(key).await {
                Err(error) if error.kind == Kind::NotFound => Ok(Outcome::Finished(vec![removed(key)])),
                Err(error) => Err(error.into()),
                // Never acknowledged, and the object is there: it stays.
                Ok(_) => Ok(Outcome::Dropped),
            },
            Intent::Rename { from, to, etag, to_etag } => self.resolve_rename(from, to, etag, to_etag.as_deref()).await,
            Intent::RenameTree { from, to } => {
                self.move_tree(from, to).await?;
                self.index.rename_tree(from, to);
                Ok(Outcome::Finished(Vec::new()))
            }
            Intent::Deferred { key, draft, metadata, base_etag, .. } => {
                self.resolve_deferred(key, draft, metadata, base_etag.as_deref()).await
            }
            // Done before the notes were looked at.
            Intent::Removed { .. } => Ok(Outcome::Dropped),
            Intent::Upload { key, upload_id } => match self.bucket.abort_upload(key, upload_id).await {
                Err(error) if error.kind != Kind::NoSuchUpload => Err(error.into()),
                _ => Ok(Outcome::Dropped),
            },
        }
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
        match source {
            Some(source) if source.etag == etag && is_copy(&source, &target, to_etag) => {
                self.bucket.delete(from).await?;
            }
            Some(_) => return Ok(Outcome::Dropped),
            None => {}
        }
        let copied = created(EventName::CreatedCopy, to, target.size, &target.etag);
        Ok(Outcome::Finished(vec![copied, removed(from)]))
    }

    /// A close was acknowledged from this draft: it is sent now.
    async fn resolve_deferred(
        &self,
        key: &str,
        draft: &str,
        metadata: &Metadata,
        base_etag: Option<&str>,
    ) -> Result<Outcome> {
        let path = self.settings.draft_dir.join(draft);
        let size = match std::fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Outcome::Dropped),
            Err(error) => return Err(error.into()),
        };
        let condition = base_etag.map_or(Condition::IfAbsent, |etag| Condition::IfMatch(ETag::new(etag)));
        let options = PutOptions { metadata: metadata.clone(), content_type: None, condition };
        let (sent, name) = if size >= MULTIPART_FROM_BYTES {
            let source = std::sync::Arc::new(FileParts::from(std::fs::File::open(&path)?));
            let options = &options;
            let sent =
                |settings| async move { upload::upload(&self.bucket, key, source, size, options, &settings).await };
            (self.journaled(key, sent).await, EventName::CreatedMultipart)
        } else {
            let bytes = Bytes::from(std::fs::read(&path)?);
            (self.bucket.put(key, bytes, &options).await.map_err(lost_is_stale), EventName::CreatedPut)
        };
        match sent {
            Ok(etag) => Ok(Outcome::Finished(vec![created(name, key, size, &etag)])),
            Err(error) if error.is_conflict() => self.conflict_or_done(key, &path, size, name).await,
            Err(error) => Err(error),
        }
    }

    /// The key holds another version than the draft was begun from. It may be the draft itself, if
    /// a crash came between its upload and the journal: then it has the same bytes. Its attributes may
    /// be newer than those that the journal has of the close before.
    async fn conflict_or_done(&self, key: &str, path: &Path, size: u64, name: EventName) -> Result<Outcome> {
        match optional(self.bucket.head(key).await)? {
            Some(info) if info.size == size && self.has_bytes_of(key, &info.etag, path, size).await? => {
                Ok(Outcome::Finished(vec![created(name, key, size, &info.etag)]))
            }
            _ => Ok(Outcome::Conflict(set_aside(path)?)),
        }
    }

    async fn has_bytes_of(&self, key: &str, etag: &ETag, path: &Path, size: u64) -> Result<bool> {
        let file = std::fs::File::open(path)?;
        let mut at = 0;
        while at < size {
            let end = size.min(at + COMPARED_BYTES);
            let there = self.bucket.get(key, Some(at..end), Some(etag)).await?.bytes;
            let mut here = vec![0; there.len()];
            file.read_exact_at(&mut here, at)?;
            if there.len() as u64 != end - at || here != there {
                return Ok(false);
            }
            at = end;
        }
        Ok(true)
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
        Intent::Remove { .. } | Intent::Removed { .. } => (Failpoint::RecoverRemove, Failpoint::RecoverRemoveSettle),
        Intent::Rename { .. } => (Failpoint::RecoverRename, Failpoint::RecoverRenameSettle),
        Intent::RenameTree { .. } => (Failpoint::RecoverTree, Failpoint::RecoverTreeSettle),
        Intent::Deferred { .. } => (Failpoint::RecoverDeferred, Failpoint::RecoverDeferredSettle),
        Intent::Upload { .. } => (Failpoint::RecoverUpload, Failpoint::RecoverUploadSettle),
    }
}

/// Drafts that lost against another writer keep their bytes under this ending.
const CONFLICT_SUFFIX: &str = ".conflict";

fn set_aside(draft: &Path) -> Result<PathBuf> {
    let kept = conflict_path(draft);
    std::fs::rename(draft, &kept)?;
    Ok(kept)
}

/// A name of its own for each conflict: one draft may have several.
pub fn conflict_path(draft: &Path) -> PathBuf {
    let name = format!("{}{CONFLICT_SUFFIX}", uuid::Uuid::now_v7().simple());
    draft.with_file_name(name)
}

/// A missing object is an answer, not an error.
fn optional(
    head: crate::bucket::Result<crate::bucket::ObjectInfo>,
) -> crate::bucket::Result<Option<crate::bucket::ObjectInfo>> {
    match head {
        Ok(info) => Ok(Some(info)),
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether `target` is what copying `source` made. A copy of a multipart object has another ETag:
/// there the target must be another one than before, of the same size and metadata.
fn is_copy(
    source: &crate::bucket::ObjectInfo,
    target: &crate::bucket::ObjectInfo,
    target_before: Option<&str>,
) -> bool {
    if source.size != target.size {
        return false;
    }
    let in_parts = source.etag.as_str().contains('-');
    let replaced = target_before != Some(target.etag.as_str());
    source.etag == target.etag || (in_parts && replaced && source.metadata == target.metadata)
}
