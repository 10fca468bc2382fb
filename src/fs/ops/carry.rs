//! The objects of a directory get other keys: each is copied, or, within a directory bucket, renamed.
//!
//! A renamed object is under its new key alone, so what was to be renamed stands in the journal before the first is: by
//! that a start finishes what a crash has cut short, and a failure is taken back.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use parking_lot::Mutex;

use super::rename::Move;
use crate::bucket::{Deletion, ETag, Listed, RenameRequest};
use crate::error::Kind;
use crate::failpoint::{self, Failpoint};
use crate::fs::{Fs, Result};
use crate::journal::{IntentId, Moving, stored_etag};

/// Copies and renames under way at once.
const PARALLEL_COPIES: usize = 32;
/// How often it is tried to take back what could not be taken back at once.
const UNDO_PAUSE: Duration = Duration::from_secs(2);

/// How an object got its new key.
#[derive(Debug)]
pub(super) enum Carried {
    /// It is under both, with this tag under the new one.
    Copied(ETag),
    /// It is under the new one alone.
    Renamed,
}

impl Fs {
    /// What a directory bucket is to rename of a directory; nothing where objects are copied. Both names end in `/`.
    pub(super) async fn moving(&self, from: &str, to: &str) -> Result<Vec<Moving>> {
        if !self.renames_between(from, to) {
            return Ok(Vec::new());
        }
        let objects = self.keys_below(from).await?.into_iter().filter(|object| !object.key.ends_with('/'));
        let moving = |object: Listed| {
            let (name, etag) = (object.key[from.len()..].to_owned(), stored_etag(&object.etag));
            Moving { name, etag, size: object.size }
        };
        Ok(objects.map(moving).collect())
    }

    /// Whether the server gives an object another key without a copy.
    pub(super) fn renames_between(&self, from: &str, to: &str) -> bool {
        let layout = &self.settings.layout;
        self.renames.load(Ordering::Relaxed)
            && self.is_in_directory_bucket(to)
            && layout.index_of(to) == layout.index_of(from)
    }

    /// All of them get their new keys; of what was copied all, or none.
    pub(super) async fn carry_all(
        &self,
        objects: &[Listed],
        from: &str,
        to: &str,
        moving: &[Moving],
    ) -> Result<Vec<Carried>> {
        let moving: HashMap<&str, &str> = moving.iter().map(|it| (it.name.as_str(), it.etag.as_str())).collect();
        let (made, has_failed) = (Mutex::new(Vec::new()), AtomicBool::new(false));
        let (moving, made, has_failed) = (&moving, &made, &has_failed);
        let all = stream::iter(objects.to_vec()).map(|object| async move {
            if has_failed.load(Ordering::Relaxed) {
                return None;
            }
            let is_moving = moving.get(&object.key[from.len()..]) == Some(&object.etag.as_str());
            let carried = self.carry(&object, from, to, is_moving).await;
            match &carried {
                Ok(Carried::Copied(etag)) => {
                    let key = format!("{to}{}", &object.key[from.len()..]);
                    made.lock().push(Deletion { key, etag: Some(etag.clone()) });
                    failpoint::reach(Failpoint::TreeBetweenCopies);
                }
                Ok(Carried::Renamed) => failpoint::reach(Failpoint::TreeBetweenRenames),
                Err(_) => has_failed.store(true, Ordering::Relaxed),
            }
            Some(carried)
        });
        // Not let go of at the first failure: what is under way then has to end before anything is taken back.
        let outcomes: Vec<Option<Result<Carried>>> = all.buffered(PARALLEL_COPIES).collect().await;
        let carried: Result<Vec<Carried>> = outcomes.into_iter().flatten().collect();
        if carried.is_err() {
            let made = std::mem::take(&mut *made.lock());
            self.take_back(made, to).await;
        }
        carried
    }

    async fn carry(&self, object: &Listed, from: &str, to: &str, is_moving: bool) -> Result<Carried> {
        if is_moving && self.renames.load(Ordering::Relaxed) {
            let key = format!("{to}{}", &object.key[from.len()..]);
            if self.try_rename(rename_to_nothing(&object.key, &key, &object.etag)).await? {
                return Ok(Carried::Renamed);
            }
        }
        self.copy_one(object, from, to).await.map(Carried::Copied)
    }

    /// Whether the server has given an object its other key. A zone that has no such request is not asked again.
    pub(super) async fn try_rename(&self, request: RenameRequest) -> Result<bool> {
        match self.bucket.rename(&request).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind == Kind::Unsupported => {
                self.renames.store(false, Ordering::Relaxed);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives those back their old keys that have none but the new one, whoever was told what. Of a directory that was
    /// not there before nothing is left.
    async fn rename_back(&self, from: &str, to: &str, moving: &[Moving], was_there: bool) -> Result<()> {
        let (here, there) = (self.keys_below(from).await?, self.keys_below(to).await?);
        let here: HashSet<&str> = here.iter().map(|object| &object.key[from.len()..]).collect();
        let there: HashMap<&str, &Listed> = there.iter().map(|object| (&object.key[to.len()..], object)).collect();
        let mut backs = Vec::new();
        for moved in moving.iter().filter(|moved| !here.contains(moved.name.as_str())) {
            if let Some(object) = there.get(moved.name.as_str()).filter(|object| object.size == moved.size) {
                backs.push((object.key.clone(), format!("{from}{}", moved.name), object.etag.clone()));
            }
        }
        let renames = stream::iter(backs)
            .map(|(key, back, etag)| async move { self.bucket.rename(&rename_to_nothing(&key, &back, &etag)).await });
        renames.buffer_unordered(PARALLEL_COPIES).try_collect::<()>().await?;
        let is_lone_marker = |left: &[Listed]| matches!(left, [marker] if marker.key == to);
        if !was_there && is_lone_marker(&self.keys_below(to).await?) {
            self.bucket.delete(to, None).await?;
        }
        Ok(())
    }

    /// The rename of a directory has failed: its old tree is whole again, if not now then as soon as the server
    /// answers, and if the mount ends before that the next one finishes it.
    pub(super) async fn give_up_rename(
        &self,
        rename: IntentId,
        (from, to): (&str, &str),
        moving: Vec<Moving>,
        plan: &Move,
    ) -> Result<()> {
        let around = [plan.from.0, plan.to.0, plan.ino];
        let was_there = plan.target.is_some();
        let undone = self.rename_back(from, to, &moving, was_there).await;
        self.expire_all(around);
        let Err(error) = undone else { return Ok(self.journal.settle(&[rename], Vec::new()).await?) };
        if moving.is_empty() {
            // The old tree is whole; copies of some of it are left.
            return Ok(self.journal.settle(&[rename], Vec::new()).await?);
        }
        tracing::error!(
            from = %from.escape_debug(),
            to = %to.escape_debug(),
            cause = %error,
            "files of a directory whose rename has failed have their new names as yet; they get their old ones as soon as \
             the server lets them, or the next mount finishes the rename"
        );
        let (fs, from, to) = (self.me.clone(), from.to_owned(), to.to_owned());
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(UNDO_PAUSE).await;
                let Some(fs) = fs.upgrade() else { return };
                let Ok(_exclusive) = fs.whole_namespace().await else { continue };
                if fs.rename_back(&from, &to, &moving, was_there).await.is_ok() {
                    fs.expire_all(around);
                    let settled = fs.journal.settle(&[rename], Vec::new()).await;
                    tracing::info!(from = %from.escape_debug(), ok = settled.is_ok(), "the failed rename is taken back");
                    return;
                }
            }
        });
        Ok(())
    }
}

/// Nothing may be there: what another client has put there since is not ours to replace.
fn rename_to_nothing(from: &str, to: &str, etag: &ETag) -> RenameRequest {
    RenameRequest { only_if_absent: true, ..RenameRequest::new(from.to_owned(), to.to_owned(), etag.clone()) }
}
