//! rename of directories: every key below is copied, and only then the old ones are deleted.
//!
//! Journaled: after a crash the next start goes on until the old tree is gone. A failure on the
//! way takes the copies back. Nobody here sees a half: the namespace is held meanwhile.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use nix::errno::Errno;

use super::carry::Carried;
use super::rename::Move;
use crate::bucket::{Condition, CopyRequest, Deletion, ETag, ListRequest, Listed, PutOptions};
use crate::error::Kind;
use crate::failpoint::{self, Failpoint};
use crate::fs::content::{Content, Deferral};
use crate::fs::deferral::deferred_intent;
use crate::fs::doubt::may_be_done;
use crate::fs::heads::is_version;
use crate::fs::inodes::Ino;
use crate::fs::names::Seen;
use crate::fs::persist::{created, removed};
use crate::fs::resume::Left;
use crate::fs::{Error, Fs, Result};
use crate::journal::{EventName, Intent, IntentId, Moving, Retagged, stored_etag};
use crate::key::MAX_KEY_BYTES;

/// Objects that somebody is asked about at once.
const PARALLEL_ASKS: usize = 8;
/// How long a directory's rename waits for uploads under way.
const NAMESPACE_DEADLINE: Duration = Duration::from_mins(1);
const NAMESPACE_POLL: Duration = Duration::from_millis(10);
/// Keys in one DeleteObjects request (AWS: at most 1,000).
const KEYS_PER_DELETE: usize = 1_000;

/// The rename of a directory, as the journal has it. Both names end in `/`.
#[derive(Debug)]
pub(in crate::fs) struct Renaming {
    pub id: IntentId,
    pub from: String,
    pub to: String,
    /// What is renamed rather than copied.
    pub moving: Vec<Moving>,
    pub retagged: Vec<Retagged>,
}

impl Renaming {
    fn intent(&self) -> Intent {
        let Self { from, to, moving, retagged, .. } = self;
        let (objects, retagged) = (moving.clone(), retagged.clone());
        Intent::RenameTree { from: from.clone(), to: to.clone(), objects, retagged }
    }
}

/// Why some keys are not deleted.
struct Undeleted {
    some_may_be_gone: bool,
    error: Error,
}

/// One object of a moved tree, copied or renamed.
#[derive(Debug)]
pub(in crate::fs) struct Copied {
    from: String,
    /// Where it lies now.
    pub key: String,
    /// Size of both in bytes.
    pub size: u64,
    /// The version that was moved.
    pub source_etag: ETag,
    pub etag: ETag,
}

impl Fs {
    /// `is_vacant`: nothing lies where it goes, as far as S3 was asked just now.
    pub(super) async fn rename_directory(&self, plan: &Move, is_vacant: bool) -> Result<()> {
        let _paused = self.backlog.pause();
        let _exclusive = self.whole_namespace().await?;
        let from = self.snapshot(plan.ino)?.key;
        let to = format!("{}/", self.key_of(&plan.to)?);
        // What waits to be removed is no part of the tree, and a marker that waits is.
        self.settle_below(&from).await?;
        self.settle_below(&to).await?;
        self.send_waiting_attributes(plan.ino).await?;
        if let Some(target) = plan.target {
            self.send_waiting_attributes(target).await?;
        }
        if !is_vacant {
            self.must_be_empty(plan.target, &to).await?;
        }
        self.permit_rename_tree(plan.ino, &from, &to).await?;
        self.replace_marker(plan).await?;
        if plan.from.0 != plan.to.0 {
            self.keep_directory(plan.from.0, &plan.from.1).await?;
        }
        let moving = self.moving(&from, &to).await?;
        let mut rename = Renaming { id: IntentId(0), from, to, moving, retagged: Vec::new() };
        rename.id = self.journal.intend(rename.intent()).await?;
        failpoint::reach(Failpoint::TreeIntended);
        let moved = self.move_tree(&mut rename).await;
        let Renaming { id, from, to, moving, .. } = rename;
        failpoint::reach(Failpoint::TreeDeleted);
        self.walks.forget_all();
        let copies = match moved {
            Ok(copies) => copies,
            Err(error) => {
                self.give_up_rename(id, (&from, &to), moving, plan).await?;
                return Err(error);
            }
        };
        // What was renamed has the tag that a listing told later: that may be another client's version.
        let are_copies = moving.is_empty();
        let carried = |copy: &Copied| {
            self.carried((&copy.from, &copy.source_etag), (&copy.key, &copy.etag), copy.size, are_copies)
        };
        self.cache.carry(copies.iter().filter_map(carried).collect()).await;
        self.relink(plan).await?;
        self.index.rename_tree(&from, &to);
        self.follow(plan.ino, &copies);
        self.defer_again(plan.ino, id).await?;
        failpoint::reach(Failpoint::TreeSettled);
        self.touch_directory(plan.from.0);
        self.touch_directory(plan.to.0);
        Ok(())
    }

    /// The namespace for ourselves. Not by queueing: who waits in the queue holds up every reader
    /// behind it, and the one before it may be uploading for minutes.
    pub(super) async fn whole_namespace(&self) -> Result<tokio::sync::RwLockWriteGuard<'_, ()>> {
        let until = tokio::time::Instant::now() + NAMESPACE_DEADLINE;
        loop {
            if let Ok(guard) = self.namespace.try_write() {
                return Ok(guard);
            }
            if tokio::time::Instant::now() >= until {
                return Err(Errno::ETIMEDOUT.into());
            }
            tokio::time::sleep(NAMESPACE_POLL).await;
        }
    }

    /// Nothing may lie where the directory goes, not even what another client put there since the
    /// last listing.
    async fn must_be_empty(&self, target: Option<Ino>, to: &str) -> Result<()> {
        if let Some(target) = target {
            return self.empty_directory(target).await.map(drop);
        }
        let request =
            ListRequest { prefix: to.to_owned(), max_keys: Some(1), any_order: true, ..ListRequest::default() };
        let page = self.bucket.list(&request).await?;
        if page.objects.is_empty() { Ok(()) } else { Err(Errno::ENOTEMPTY.into()) }
    }

    /// The marker of the directory that is replaced is not to stay as that of a directory that has none.
    async fn replace_marker(&self, plan: &Move) -> Result<()> {
        let has_marker = |ino| self.snapshot(ino).is_ok_and(|there| there.etag.is_some());
        if !plan.target.is_some_and(has_marker) || has_marker(plan.ino) {
            return Ok(());
        }
        match self.store_attributes_stable(plan.ino).await {
            // It has one: of another client, or ours of which no answer told.
            Err(error) if error.is_conflict() => Ok(()),
            stored => stored,
        }
    }

    /// Whether all that lies below may have other keys; of what nobody may say no to, S3 is not asked.
    async fn permit_rename_tree(&self, above: Ino, from: &str, to: &str) -> Result<()> {
        if !self.has_gatekeeper() {
            return Ok(());
        }
        for (ino, key, content) in self.closed_and_unsent(above, from, to) {
            drop(self.permit_draft(ino, &content, &key, None).await?);
        }
        let objects = self.keys_below(from).await?.into_iter().filter(|object| !object.key.ends_with('/'));
        let asks = stream::iter(objects.collect::<Vec<_>>()).map(|object| async move {
            let key = format!("{to}{}", &object.key[from.len()..]);
            self.permit_copy(&object.key, &object.etag, object.size, &key).await?;
            self.permit_removal_of(&object.key).await
        });
        asks.buffer_unordered(PARALLEL_ASKS).try_collect().await
    }

    /// Files below that a close has left to be sent, with their keys after the rename.
    fn closed_and_unsent(&self, above: Ino, from: &str, to: &str) -> Vec<(Ino, String, Arc<Content>)> {
        let tree = self.tree.lock();
        let below = tree.nodes().filter(|node| node.is_unstored() && tree.is_within(node.ino, above));
        let closed =
            below.filter_map(|node| Some((node.ino, node.content.clone().filter(|it| it.is_deferred_whole())?)));
        let with_keys = closed.filter_map(|(ino, content)| {
            let key = tree.key(ino)?;
            Some((ino, format!("{to}{}", key.strip_prefix(from)?), content))
        });
        with_keys.collect()
    }

    /// After a failure the bucket alone knows what is where.
    pub(super) fn expire_all(&self, inos: [Ino; 3]) {
        let mut tree = self.tree.lock();
        for ino in inos {
            tree.expire_listing(ino);
        }
    }

    /// Drafts that the journal answers for have other keys now. They follow in the transaction that
    /// ends the rename: a crash finds either the old keys and the rename to finish, or the new ones.
    async fn defer_again(&self, above: Ino, rename: IntentId) -> Result<()> {
        let below: Vec<_> = {
            let tree = self.tree.lock();
            let below = tree.nodes().filter(|node| node.linked && tree.is_within(node.ino, above));
            below.filter_map(|node| Some((node.ino, node.content.clone()?))).collect()
        };
        let (mut ended, mut begun, mut moved) = (vec![rename], Vec::new(), Vec::new());
        for (ino, content) in below {
            let Some(deferral) = content.deferred.lock().clone() else { continue };
            let there = self.snapshot(ino)?;
            let Some(size) = deferral.kept.promised() else { continue };
            ended.push(deferral.id);
            let allowed = content.verdicts.lock().allow(deferral.generation, &there.key);
            let earlier = content.earlier(deferral.generation, size, &deferral.metadata);
            let (draft, metadata) = (deferral.kept.record(), deferral.metadata.clone());
            begun.push(deferred_intent(&there, draft, size, metadata, allowed, earlier));
            moved.push((content, Deferral { key: there.key, allowed, ..deferral }));
        }
        let ids = self.journal.replace(&ended, begun).await?;
        for (id, (content, deferral)) in ids.into_iter().zip(moved) {
            content.set_deferral(Some(Deferral { id, ..deferral }));
        }
        Ok(())
    }

    /// Copies everything under `from` to `to`, tells the journal, then deletes what was copied; what of it is among
    /// `moving` is renamed, or was already.
    pub(in crate::fs) async fn move_tree(&self, rename: &mut Renaming) -> Result<Vec<Copied>> {
        let (from, to, moving) = (rename.from.as_str(), rename.to.as_str(), rename.moving.as_slice());
        let objects = self.keys_below(from).await?;
        let grown = to.len().saturating_sub(from.len());
        if objects.iter().any(|object| object.key.len() + grown > MAX_KEY_BYTES) {
            return Err(Errno::ENAMETOOLONG.into());
        }
        let carried = self.carry_all(&objects, from, to, moving).await?;
        failpoint::reach(Failpoint::TreeCopied);
        let mut copies = Vec::new();
        for (object, carried) in objects.iter().zip(carried) {
            let Carried::Copied(etag) = carried else { continue };
            let (key, source_etag) = (format!("{to}{}", &object.key[from.len()..]), object.etag.clone());
            copies.push(Copied { from: object.key.clone(), key, size: object.size, source_etag, etag });
        }
        let of = |copy: &Copied| Deletion { key: copy.from.clone(), etag: Some(copy.source_etag.clone()) };
        let old: Vec<Deletion> = copies.iter().map(of).collect();
        copies.extend(self.renamed(from, to, moving, &old).await?);
        let mut events = Vec::new();
        for copy in copies.iter().filter(|copy| !copy.key.ends_with('/')) {
            events.push(created(EventName::CreatedCopy, &copy.key, copy.size, &copy.etag));
            events.push(removed(&copy.from));
        }
        // Before the deletes: what they take away, no recovery could tell of any more.
        self.settle(&[], events).await?;
        self.note_retagged(rename, &copies).await?;
        failpoint::reach(Failpoint::TreeTold);
        let left: Vec<&Copied> = match self.delete_all(&old).await {
            Ok(changed) => copies.iter().filter(|copy| changed.contains(&copy.from)).collect(),
            Err(undeleted) if undeleted.some_may_be_gone => {
                let (from, cause) = (rename.from.escape_debug(), &undeleted.error);
                tracing::warn!(%from, %cause, "the old names of a renamed directory go later");
                copies[..old.len()].iter().collect()
            }
            Err(undeleted) => return Err(undeleted.error),
        };
        if let Err(error) = self.delete_later(rename.id, &left) {
            tracing::error!(from = %rename.from.escape_debug(), cause = %error, "some of them stay");
        }
        Ok(copies)
    }

    /// The new tree alone is whole: what is left of the old one goes as removed files do, tried again for as long as
    /// that takes. What another client has put there since stays. While the journal has the rename, a start finishes
    /// that instead: closes below wait under their old names until then.
    fn delete_later(&self, rename: IntentId, copies: &[&Copied]) -> Result<()> {
        for copy in copies {
            let removal = self.note_removal(&copy.from, Some(&copy.source_etag), false, Some(rename))?;
            self.remove_noted(&copy.from, removal.unless_replaced(), Ok(()))?;
        }
        Ok(())
    }

    /// Of a copy whose source is deleted nobody could tell any more that a close is on top of it.
    async fn note_retagged(&self, rename: &mut Renaming, copies: &[Copied]) -> Result<()> {
        let retagged = copies.iter().filter(|copy| copy.etag != copy.source_etag);
        let copies: HashMap<&str, &Copied> = retagged.map(|copy| (copy.from.as_str(), copy)).collect();
        if copies.is_empty() {
            return Ok(());
        }
        let mut retagged = Vec::new();
        for left in self.journal.open_intents()?.iter().filter_map(|(id, intent)| Left::of(*id, intent)) {
            let Some(copy) = copies.get(left.key.as_str()) else { continue };
            let (etag, copy_etag) = (stored_etag(&copy.source_etag), stored_etag(&copy.etag));
            if left.base_etag.as_ref() == Some(&etag) {
                retagged.push(Retagged { name: left.key[rename.from.len()..].to_owned(), etag, copy_etag });
            }
        }
        if !retagged.is_empty() {
            rename.retagged.extend(retagged);
            rename.id = self.journal.replace(&[rename.id], vec![rename.intent()]).await?[0];
        }
        Ok(())
    }

    /// What has its new key alone, now or since before a crash. A listing tells all tags at once; a rename tells none.
    async fn renamed(&self, from: &str, to: &str, moving: &[Moving], copied: &[Deletion]) -> Result<Vec<Copied>> {
        if moving.is_empty() {
            return Ok(Vec::new());
        }
        let copied: HashSet<&str> = copied.iter().map(|copy| &copy.key[from.len()..]).collect();
        let there: HashMap<String, Listed> =
            self.keys_below(to).await?.into_iter().map(|object| (object.key.clone(), object)).collect();
        let renamed = moving.iter().filter(|it| !copied.contains(it.name.as_str())).filter_map(|it| {
            let Listed { key, size, etag, .. } = there.get(&format!("{to}{}", it.name))?.clone();
            Some(Copied { from: format!("{from}{}", it.name), key, size, source_etag: ETag::new(&it.etag), etag })
        });
        Ok(renamed.collect())
    }

    pub(super) async fn keys_below(&self, prefix: &str) -> Result<Vec<Listed>> {
        let mut objects = Vec::new();
        let mut request = ListRequest { prefix: prefix.to_owned(), ..ListRequest::default() };
        loop {
            let page = self.bucket.list(&request).await?;
            objects.extend(page.objects);
            match page.next {
                Some(token) => request.token = Some(token),
                None => return Ok(objects),
            }
        }
    }

    pub(super) async fn copy_one(&self, object: &Listed, from: &str, to: &str) -> Result<ETag> {
        let key = format!("{to}{}", &object.key[from.len()..]);
        if object.size == 0 {
            // Not every server copies `dir/` markers; written anew they cost a HEAD more at most.
            let options = match self.known_options(object) {
                Some(options) => options,
                None => self.asked_options(object).await?,
            };
            return Ok(self.bucket.put(&key, Bytes::new(), &options).await?);
        }
        let from_etag = Some(object.etag.clone());
        let storage_class = object.storage_class.clone();
        let request = CopyRequest { from_etag, storage_class, ..CopyRequest::new(object.key.clone(), key) };
        Ok(self.copy(&request, object.size).await?)
    }

    /// What a listed version carries, if the index was told all of it.
    fn known_options(&self, object: &Listed) -> Option<PutOptions> {
        let Listed { etag, size, modified, storage_class, .. } = object.clone();
        let seen = Seen { etag, size, modified, storage_class, asks: true };
        let known = self.index.get(&object.key).filter(|known| !known.untold && is_version(known, &seen))?;
        let (metadata, properties) = (known.attributes.to_metadata().ok()?, known.properties);
        Some(PutOptions { metadata, properties, condition: Condition::None })
    }

    async fn asked_options(&self, object: &Listed) -> Result<PutOptions> {
        let info = self.bucket.head(&object.key).await?;
        if info.size != 0 {
            return Err(Errno::ESTALE.into());
        }
        Ok(PutOptions { metadata: info.metadata, properties: info.properties, condition: Condition::None })
    }

    /// Deletes keys that are in binary order, the last first: a server with real directories
    /// (SeaweedFS) keeps one whose marker is deleted before what lies in it. Returns those that were not deleted because
    /// they are other versions now.
    async fn delete_all(&self, deletions: &[Deletion]) -> std::result::Result<HashSet<String>, Undeleted> {
        let last_first: Vec<Deletion> = deletions.iter().rev().cloned().collect();
        let (mut some_are_gone, mut changed) = (false, HashSet::new());
        for batch in last_first.chunks(KEYS_PER_DELETE) {
            let failed = match self.bucket.delete_many(batch).await {
                Ok(failed) => failed,
                Err(error) => {
                    let some_may_be_gone = some_are_gone || may_be_done(error.kind);
                    return Err(Undeleted { some_may_be_gone, error: error.into() });
                }
            };
            some_are_gone |= failed.len() < batch.len();
            let (others, failed): (Vec<_>, Vec<_>) =
                failed.into_iter().partition(|(_, error)| error.kind == Kind::Changed);
            if let Some((_, error)) = failed.into_iter().next() {
                return Err(Undeleted { some_may_be_gone: some_are_gone, error: error.into() });
            }
            changed.extend(others.into_iter().map(|(key, _)| key));
            failpoint::reach(Failpoint::TreeBetweenDeletes);
        }
        Ok(changed)
    }

    /// A copy failed: those that were made go again, so that only the old tree is there. The marker
    /// of an empty directory that stood there before stays, and what another client has put in the place of one.
    pub(super) async fn take_back(&self, made: Vec<Deletion>, to: &str) {
        let copies: Vec<Deletion> = made.into_iter().filter(|copy| copy.key != to).collect();
        if let Err(error) = self.delete_all(&copies).await {
            tracing::warn!(prefix = %to.escape_debug(), cause = %error.error, "copies of a failed rename are left");
        }
    }

    /// Open files below the moved directory go on under their new keys; copies of multipart
    /// objects have new tags. Who was on another version than the one that was copied stays on it:
    /// it is gone, and his close is to learn that.
    fn follow(&self, above: Ino, copies: &[Copied]) {
        let copies: HashMap<&str, &Copied> = copies.iter().map(|copy| (copy.key.as_str(), copy)).collect();
        let moved: Vec<(Ino, String, Option<ETag>)> = {
            let mut tree = self.tree.lock();
            let below = tree.nodes().filter(|node| node.linked && tree.is_within(node.ino, above));
            let below: Vec<Ino> = below.map(|node| node.ino).collect();
            for ino in &below {
                if let Some(directory) = tree.directory_mut(*ino) {
                    directory.forget_versions();
                }
            }
            below.iter().filter_map(|ino| Some((*ino, tree.key(*ino)?, tree.get(*ino)?.etag.clone()))).collect()
        };
        for (ino, key, etag) in moved {
            let copy = copies.get(key.as_str()).filter(|copy| etag.as_ref() == Some(&copy.source_etag));
            match copy {
                Some(copy) => {
                    self.rebase(ino, &key, &copy.etag);
                    self.stored(ino, &key, &copy.etag);
                }
                None if key.ends_with('/') => self.remember(ino, &key, etag.as_ref()),
                None => {}
            }
        }
    }
}
