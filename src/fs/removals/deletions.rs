//! Deletes what was removed, as long as it is what was removed.
//!
//! Each deletion names its version. What S3 refuses therefore is looked at: it is gone, or another client's, which stays,
//! or to be deleted after all.

use std::collections::HashMap;

use futures::stream::{self, StreamExt};

use super::book::Removal;
use crate::bucket::{self, Deletion, ETag, ObjectInfo};
use crate::error::Kind;
use crate::fs::Fs;
use crate::fs::doubt::is_of;

/// Keys in one DeleteObjects request (AWS: at most 1,000).
const KEYS_PER_DELETE: usize = 1_000;
/// Requests of each kind at once.
const PARALLEL_DELETES: usize = 4;
const PARALLEL_SINGLE: usize = 32;
const PARALLEL_HEADS: usize = 64;

/// What became of an object that was to go.
#[derive(Debug)]
pub(super) enum Fate {
    Gone,
    /// Another client has written the key since.
    Theirs,
    Failed(bucket::Error),
}

/// An object that was to go, and what became of it.
pub(super) struct Tried {
    pub key: String,
    pub removal: Removal,
    pub fate: Fate,
}

/// An object that is to go now, if it is this version.
pub(super) struct Going {
    pub key: String,
    pub removal: Removal,
    pub if_match: Option<ETag>,
}

/// An object to be looked at before it goes: S3 has refused its deletion, or time has passed.
type Looked = (String, Removal, Option<bucket::Error>);
/// One whose deletion S3 has refused as it was asked for.
type Refused = (String, Removal, bucket::Error);

impl Fs {
    /// Deletes objects, each under its condition; returns those whose condition did not hold.
    pub(super) async fn delete(&self, sure: Vec<Going>, tried: &mut Vec<Tried>) -> Vec<Refused> {
        if sure.is_empty() {
            return Vec::new();
        }
        let deletion = |going: &Going| Deletion { key: going.key.clone(), etag: going.if_match.clone() };
        let mut failed = self.delete_keys(sure.iter().map(deletion).collect()).await;
        let mut refused = Vec::new();
        for Going { key, removal, if_match } in sure {
            let is_for_condition = |error: &bucket::Error| match error.kind {
                Kind::Changed => if_match.is_some(),
                // A bucket may want a version named: of a directory that had no marker none is known.
                Kind::AccessDenied => if_match.is_none() && removal.etag.is_none(),
                _ => false,
            };
            match failed.remove(&key) {
                None => tried.push(Tried { key, removal, fate: Fate::Gone }),
                Some(error) if is_for_condition(&error) => refused.push((key, removal, error)),
                Some(error) => tried.push(Tried { key, removal, fate: Fate::Failed(error) }),
            }
        }
        refused
    }

    /// Looks whether objects still are the versions that were removed: time has passed, or S3 has refused.
    pub(super) async fn look(&self, asked: Vec<Looked>, sure: &mut Vec<Going>, tried: &mut Vec<Tried>) {
        let looks = stream::iter(asked).map(|(key, removal, refusal)| async move {
            let looked = self.look_at(&key, &removal, refusal).await;
            (key, removal, looked)
        });
        let mut looks = looks.buffer_unordered(PARALLEL_HEADS);
        while let Some((key, removal, looked)) = looks.next().await {
            match looked {
                Ok(if_match) => sure.push(Going { key, removal, if_match }),
                Err(fate) => tried.push(Tried { key, removal, fate }),
            }
        }
    }

    /// The condition under which an object is to go, if it still is, or what became of it.
    async fn look_at(
        &self,
        key: &str,
        removal: &Removal,
        refusal: Option<bucket::Error>,
    ) -> std::result::Result<Option<ETag>, Fate> {
        let now = match self.removals.bucket.head(key).await {
            Ok(now) => now,
            Err(error) if error.kind == Kind::NotFound => return Err(Fate::Gone),
            Err(error) => return Err(Fate::Failed(error)),
        };
        let is_known = removal.etag.as_ref() == Some(&now.etag);
        match refusal {
            None if is_known => Ok(Some(now.etag)),
            // Two requests met: whose was the last, the next round finds out.
            Some(error) if is_known && is_conflict(&error) => Err(Fate::Failed(error)),
            // The server does not mean the tags that it tells.
            Some(_) if is_known => Ok(None),
            // A marker is alike whoever puts it, and what is known of its tag may be a guess.
            Some(_) if key.ends_with('/') && now.size == 0 => Ok(Some(now.etag)),
            _ => match self.is_ours(key, removal, &now).await {
                Ok(true) => Ok(Some(now.etag)),
                Ok(false) => Err(Fate::Theirs),
                Err(error) => Err(Fate::Failed(error)),
            },
        }
    }

    /// Whether an object is one that was sent from here, and nobody heard of.
    async fn is_ours(&self, key: &str, removal: &Removal, now: &ObjectInfo) -> bucket::Result<bool> {
        for sent in &removal.sent {
            let is_it = match &sent.tail {
                Some(tail) => tail.is_end_of(self.removals.bucket.as_ref(), key, now).await?,
                None => is_of(sent, now),
            };
            if is_it {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Deletes keys; returns those that could not be, and why.
    ///
    /// What lies in a directory goes before its marker: a server with real directories (SeaweedFS)
    /// keeps one that is not empty.
    async fn delete_keys(&self, mut deletions: Vec<Deletion>) -> HashMap<String, bucket::Error> {
        deletions.sort_unstable_by(|left, right| right.key.cmp(&left.key));
        if deletions.len() <= KEYS_PER_DELETE {
            return self.delete_batch(deletions).await.into_iter().collect();
        }
        let (markers, files): (Vec<_>, Vec<_>) = deletions.into_iter().partition(|it| it.key.ends_with('/'));
        let batches: Vec<Vec<Deletion>> = files.chunks(KEYS_PER_DELETE).map(<[Deletion]>::to_vec).collect();
        let batches = stream::iter(batches).map(|batch| self.delete_batch(batch)).buffer_unordered(PARALLEL_DELETES);
        let mut failed: HashMap<_, _> = batches.flat_map(stream::iter).collect().await;
        for batch in markers.chunks(KEYS_PER_DELETE) {
            failed.extend(self.delete_batch(batch.to_vec()).await);
        }
        failed
    }

    async fn delete_batch(&self, deletions: Vec<Deletion>) -> Vec<(String, bucket::Error)> {
        if deletions.len() < 2 {
            return self.delete_singly(deletions).await;
        }
        match self.removals.bucket.delete_many(&deletions).await {
            Ok(failed) => failed.into_iter().filter(|(_, error)| error.kind != Kind::NotFound).collect(),
            // Servers that do not know this request know the other one.
            Err(error) if matches!(error.kind, Kind::Unsupported | Kind::Refused) => {
                self.delete_singly(deletions).await
            }
            Err(error) => deletions.into_iter().map(|deletion| (deletion.key, error.clone())).collect(),
        }
    }

    async fn delete_singly(&self, deletions: Vec<Deletion>) -> Vec<(String, bucket::Error)> {
        let deletes = stream::iter(deletions).map(|Deletion { key, etag }| async move {
            let deleted = self.removals.bucket.delete(&key, etag.as_ref()).await;
            deleted.err().map(|error| (key, error))
        });
        deletes.buffered(PARALLEL_SINGLE).filter_map(std::future::ready).collect().await
    }
}

/// Whether a deletion was refused because another request was under way (AWS: "How to perform conditional deletes").
fn is_conflict(error: &bucket::Error) -> bool {
    ["ConditionalRequestConflict", "OperationAborted"].iter().any(|code| error.cause.starts_with(code))
}
