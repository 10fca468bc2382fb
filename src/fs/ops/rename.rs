//! rename of files: copy, then delete; never a moment without the bytes under one of the names. The
//! copy is made when the rename answers; the old object goes as a removed one does.

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use nix::errno::Errno;
use nix::libc;

use crate::bucket::{Condition, CopyRequest, ETag, ListRequest, PutOptions, RenameRequest};
use crate::cache::Pinned;
use crate::error::Kind;
use crate::failpoint::{self, Failpoint};
use crate::fs::content::Content;
use crate::fs::inodes::{Ino, Node, Pages};
use crate::fs::persist::{Snapshot, created, removed};
use crate::fs::removals::Removal;
use crate::fs::stat::FileKind;
use crate::fs::{Fs, Result};
use crate::journal::{EventName, Intent, stored_etag};

/// From where to where.
#[derive(Clone, Debug)]
pub(super) struct Move {
    pub ino: Ino,
    pub from: (Ino, String),
    pub to: (Ino, String),
    /// What has the new name now and is to be replaced.
    pub target: Option<Ino>,
}

impl Fs {
    /// `renameat2(2)`.
    ///
    /// # Errors
    /// `EEXIST` with `RENAME_NOREPLACE`, `EINVAL` for other flags and for a directory into itself,
    /// `ENOTDIR`, `EISDIR`, `ENOTEMPTY`, `EXDEV` between buckets of which neither server copies.
    pub async fn rename(&self, parent: Ino, name: &OsStr, new_parent: Ino, new_name: &OsStr, flags: u32) -> Result<()> {
        self.writable_at(new_parent)?;
        self.writable_at(parent)?;
        self.names_may_change_in(parent, name)?;
        self.names_may_change_in(new_parent, new_name)?;
        self.copies_between(parent, new_parent)?;
        if flags & !libc::RENAME_NOREPLACE != 0 {
            return Err(Errno::EINVAL.into());
        }
        let (name, new_name) = (self.name_in(parent, name)?, self.name_in(new_parent, new_name)?);
        let ino = self.resolve(parent, &name).await?.ok_or(Errno::ENOENT)?;
        self.writable_at(ino)?;
        let target = self.resolve(new_parent, &new_name).await?;
        if let Some(target) = target {
            self.writable_at(target)?;
        }
        if target == Some(ino) {
            return Ok(());
        }
        let no_replace = flags & libc::RENAME_NOREPLACE != 0;
        if no_replace && target.is_some() {
            return Err(Errno::EEXIST.into());
        }
        let plan = Move { ino, from: (parent, name), to: (new_parent, new_name), target };
        let is_directory = self.check_kinds(&plan)?;
        let is_vacant = no_replace && self.is_vacant_now(&plan.to, is_directory).await?;
        if is_directory {
            return self.rename_directory(&plan, is_vacant).await;
        }
        self.hold(ino)?;
        let renamed = self.rename_file(&plan).await;
        self.let_go(ino);
        renamed
    }

    /// Whether S3 has neither an object of that name now nor a directory, whatever the last listing said.
    /// Of what is to be a file, only the object is looked for.
    ///
    /// # Errors
    /// `EEXIST` if there is an object.
    async fn is_vacant_now(&self, to: &(Ino, String), is_directory: bool) -> Result<bool> {
        let key = self.key_of(to)?;
        if is_directory {
            // One request for both: the object would come before everything that begins like it.
            let request = ListRequest { prefix: key.clone(), max_keys: Some(1), ..ListRequest::default() };
            let first = self.bucket.list(&request).await?.objects.into_iter().next();
            return match first {
                None => Ok(true),
                Some(first) if first.key == key => Err(Errno::EEXIST.into()),
                Some(_) => Ok(false),
            };
        }
        match self.bucket.head(&key).await {
            Ok(_) => Err(Errno::EEXIST.into()),
            Err(error) if error.kind == Kind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a directory is moved, and whether it may be.
    fn check_kinds(&self, plan: &Move) -> Result<bool> {
        let tree = self.tree.lock();
        let directory = tree.get(plan.ino).ok_or(Errno::ENOENT)?.is_directory();
        if directory && tree.is_within(plan.to.0, plan.ino) {
            return Err(Errno::EINVAL.into());
        }
        match plan.target.and_then(|target| tree.get(target)).map(Node::is_directory) {
            Some(true) if !directory => Err(Errno::EISDIR.into()),
            Some(false) if directory => Err(Errno::ENOTDIR.into()),
            _ => Ok(directory),
        }
    }

    async fn rename_file(&self, plan: &Move) -> Result<()> {
        let _stable = self.namespace.read().await;
        let content = self.content_to_guard(plan.ino)?;
        let replaced = plan.target.and_then(|target| self.content(target));
        let _gates =
            both_gates((plan.ino, content.as_ref()), (plan.target.unwrap_or(plan.ino), replaced.as_ref())).await;
        if let Some(content) = &content {
            self.resolve_doubt(plan.ino, content).await?;
        }
        if let Some(target) = plan.target {
            self.keep_for_openers(target).await?;
        }
        let before = self.snapshot(plan.ino)?;
        if !before.linked {
            // Another version took the name while this waited: the kernel looks it up anew.
            return Err(Errno::ESTALE.into());
        }
        // Only the journal has it: S3 need not hear of the old name.
        let is_unsent = |content: &Arc<Content>, there: &Snapshot| {
            self.settings.write_back.is_some() && content.bytes_dirty() && there.etag.is_none()
        };
        if self.settings.write_back.is_some() && !content.as_ref().is_some_and(|content| is_unsent(content, &before)) {
            // Closes that only the journal answers for: S3 is told before their names change there. What
            // was written since has no close yet, and must not show under the old name.
            for (ino, content) in [(Some(plan.ino), &content), (plan.target, &replaced)] {
                let Some((ino, content)) = ino.zip(content.as_ref()) else { continue };
                if content.is_deferred_whole() {
                    self.commit_gated(ino, content).await?;
                }
            }
        }
        let before = self.snapshot(plan.ino)?;
        self.permit_rename(plan.ino, &before, content.as_deref(), &self.key_of(&plan.to)?).await?;
        if plan.from.0 != plan.to.0 {
            self.keep_soon(plan.from.0, &plan.from.1)?;
        }
        match &content {
            Some(content) if is_unsent(content, &before) => self.rename_unsent(plan, &before, content).await?,
            Some(content) if content.bytes_dirty() => self.rename_dirty(plan, &before, content).await?,
            _ => self.rename_stored(plan, &before, content.as_deref()).await?,
        }
        self.index.remove(&before.key);
        self.cache.forget(&before.key);
        self.touch_directory(plan.from.0);
        if plan.from.0 != plan.to.0 {
            self.touch_directory(plan.to.0);
        }
        Ok(())
    }

    /// What S3 has is copied to the new key and goes under the old one. Attributes that changed while
    /// the file is open ride along.
    async fn rename_stored(&self, plan: &Move, before: &Snapshot, content: Option<&Content>) -> Result<()> {
        let etag = before.etag.clone().ok_or(Errno::ESTALE)?;
        let key = self.key_of(&plan.to)?;
        let listens = before.stat.kind == FileKind::File;
        let (from, to) = (before.key.clone(), key.clone());
        let replaced = plan.target.map(|target| self.snapshot(target)).transpose()?.and_then(|target| target.etag);
        let to_etag = replaced.as_ref().map(stored_etag);
        let intent = self.intend(|| Intent::Rename { from, to, etag: stored_etag(&etag), to_etag }).await?;
        failpoint::reach(Failpoint::RenameIntended);
        let changed = content.filter(|content| content.attributes_dirty.swap(false, Ordering::AcqRel));
        if changed.is_none()
            && !self.is_retyped(plan.ino, before, &key)
            && let Some(etag) = self.move_at_once(before, &key, &etag).await?
        {
            let events = [created(EventName::CreatedCopy, &key, before.stat.size, &etag), removed(&before.key)];
            let events = if listens { events.into() } else { Vec::new() };
            failpoint::reach(Failpoint::RenameNoted);
            self.settle(intent.as_slice(), events).await?;
            self.carry_cached(before, &key, &etag, false).await;
            return self.moved(plan, &key, &etag, content).await;
        }
        let moved = self.copy_unchanged(plan, before, &key, etag.clone(), changed.is_some()).await;
        if let (Some(content), Err(_)) = (changed, &moved) {
            content.attributes_dirty.store(true, Ordering::Release);
        }
        let moved = match moved {
            Ok(copy) => {
                let noted = self.note_or_remove(&before.key, &etag, listens, intent).await;
                noted.map(|removal| (copy, removal))
            }
            Err(error) => Err(error),
        };
        failpoint::reach(Failpoint::RenameNoted);
        let events = match &moved {
            Ok((etag, removal)) if listens => {
                let copied = created(EventName::CreatedCopy, &key, before.stat.size, etag);
                // Else it is told with the removal.
                [copied].into_iter().chain(removal.is_none().then(|| removed(&before.key))).collect()
            }
            _ => Vec::new(),
        };
        let settled = self.settle(intent.as_slice(), events).await;
        let (etag, removal) = moved?;
        // Sent from now on, so that hooks hear of the copy first.
        match removal {
            Some(removal) => {
                let sent = content.map(|content| content.doubts.lock().sent()).unwrap_or_default();
                self.remove_noted(&before.key, Removal { sent, ..removal }, settled)?;
            }
            None => settled?,
        }
        self.carry_cached(before, &key, &etag, true).await;
        self.moved(plan, &key, &etag, content).await
    }

    /// What the cache has of the old object it has of the new one.
    async fn carry_cached(&self, before: &Snapshot, key: &str, etag: &ETag, is_copy: bool) {
        let Some(old) = &before.etag else { return };
        self.cache
            .carry(self.carried((&before.key, old), (key, etag), before.stat.size, is_copy).into_iter().collect())
            .await;
    }

    /// Both objects for the cache, if they surely have the same bytes: their tags are the same, or the new one is a
    /// copy, for which the old tag was named to a server that heeds it.
    pub(super) fn carried(
        &self,
        from: (&str, &ETag),
        to: (&str, &ETag),
        size: u64,
        is_copy: bool,
    ) -> Option<(Pinned, Pinned)> {
        let is_sure = from.1 == to.1 || (is_copy && self.settings.heeds_conditions);
        let pinned = |(key, etag): (&str, &ETag)| Pinned { key: key.into(), etag: etag.clone(), size };
        (size > 0 && is_sure).then(|| (pinned(from), pinned(to)))
    }

    /// S3 has it under its new key.
    async fn moved(&self, plan: &Move, key: &str, etag: &ETag, content: Option<&Content>) -> Result<()> {
        if let Some(content) = content {
            self.end_waiting_attributes(content);
        }
        self.relink(plan).await?;
        self.stored(plan.ino, key, etag);
        self.rebase(plan.ino, key, etag);
        Ok(())
    }

    /// Has a directory bucket move it, which is one step and costs no copy; the tag that it has then. `None` where that
    /// cannot be.
    async fn move_at_once(&self, before: &Snapshot, key: &str, etag: &ETag) -> Result<Option<ETag>> {
        if !self.renames_between(&before.key, key) {
            return Ok(None);
        }
        let request = RenameRequest::new(before.key.clone(), key.to_owned(), etag.clone());
        if !self.try_rename(request).await? {
            return Ok(None);
        }
        failpoint::reach(Failpoint::RenameCopied);
        Ok(Some(self.bucket.head(key).await?.etag))
    }

    /// The type follows the extension where nobody has said one: editors and rsync write under another
    /// name first. What LIST alone has described keeps what it has.
    fn is_retyped(&self, ino: Ino, before: &Snapshot, key: &str) -> bool {
        let properties = &before.stat.properties;
        properties.content_type_at(&before.key) != properties.content_type_at(key)
            && self.tree.lock().get(ino).is_some_and(|node| node.told)
    }

    /// Copies what is there still, and nobody has changed here meanwhile.
    async fn copy_unchanged(
        &self,
        plan: &Move,
        before: &Snapshot,
        key: &str,
        etag: ETag,
        changed: bool,
    ) -> Result<ETag> {
        let stat = &before.stat;
        let replace = if changed || self.is_retyped(plan.ino, before, key) {
            let metadata = stat.to_attributes(None).to_metadata()?;
            Some(PutOptions { metadata, properties: stat.properties.clone(), condition: Condition::None })
        } else {
            None
        };
        let new_etag = if before.stat.size == 0 {
            // Written anew, because not every server copies empty objects; so nothing but a look
            // tells that it is empty still, before it is deleted.
            let now = self.bucket.head(&before.key).await?;
            if now.etag != etag || now.size != 0 {
                return Err(Errno::ESTALE.into());
            }
            let (metadata, properties) = (now.metadata, now.properties);
            let as_it_was = PutOptions { metadata, properties, condition: Condition::None };
            let options = replace.unwrap_or(as_it_was);
            self.bucket.put(key, Bytes::new(), &options).await?
        } else {
            let (from, to) = (before.key.clone(), key.to_owned());
            let request = CopyRequest {
                from_etag: Some(etag),
                replace,
                storage_class: stat.properties.storage_class.clone(),
                ..CopyRequest::new(from, to)
            };
            self.copy(&request, before.stat.size).await?
        };
        failpoint::reach(Failpoint::RenameCopied);
        let tree_says = self.snapshot(plan.ino)?;
        if !tree_says.linked || tree_says.etag != before.etag {
            // Who wrote meanwhile got an inode of his own under this name: what he stored stays.
            return Err(Errno::ESTALE.into());
        }
        Ok(new_etag)
    }

    /// A draft that S3 does not have: it is stored under its new name right away.
    async fn rename_dirty(&self, plan: &Move, before: &Snapshot, content: &Arc<Content>) -> Result<()> {
        if let Some((target, replaced)) = plan.target.and_then(|target| Some((target, self.content(target)?))) {
            self.resolve_doubt(target, &replaced).await?;
        }
        let replaced = plan.target.map(|target| self.snapshot(target)).transpose()?;
        let key = self.key_of(&plan.to)?;
        let etag = replaced.and_then(|replaced| replaced.etag);
        // Stored first: should it fail, both names and what lies behind them are as they were.
        let there = Snapshot { key: key.clone(), etag, ..before.clone() };
        self.commit_bytes(plan.ino, content, &there, None).await?;
        failpoint::reach(Failpoint::RenameDirtyStored);
        self.relink(plan).await?;
        let etag = self.snapshot(plan.ino)?.etag;
        self.remember(plan.ino, &key, etag.as_ref());
        if let Some(etag) = &before.etag {
            self.remove_unless_replaced(&before.key, etag)?;
        }
        // A close under the old name may have been answered from the journal. Not before that name goes:
        // else a crash would bring back what S3 has under it, which is older.
        self.undefer(plan.ino, content).await
    }

    /// A draft that S3 has never seen: only its key changes, in the journal and here. What S3 has under
    /// the new one is replaced by the upload.
    async fn rename_unsent(&self, plan: &Move, before: &Snapshot, content: &Arc<Content>) -> Result<()> {
        let replaced = plan.target.map(|target| self.snapshot(target)).transpose()?;
        if replaced.as_ref().is_some_and(|replaced| !replaced.linked) {
            return Err(Errno::ESTALE.into());
        }
        let key = self.key_of(&plan.to)?;
        let etag = replaced.and_then(|replaced| replaced.etag);
        let there = Snapshot { key: key.clone(), etag: etag.clone(), ..before.clone() };
        let target = plan.target.and_then(|target| Some((target, self.content(target)?)));
        let ended = target.as_ref().and_then(|(_, target)| Some(target.deferred.lock().as_ref()?.id));
        // What S3 may hold under the new key is in its way from now on.
        let in_doubt = target.as_ref().map(|(_, target)| target.doubts.lock().of_replaced()).unwrap_or_default();
        let own = std::mem::replace(&mut *content.doubts.lock(), in_doubt);
        if let Err(error) = self.defer_at(content, &there, None, ended.as_slice()).await {
            *content.doubts.lock() = own;
            return Err(error);
        }
        if let Some((target, replaced)) = target {
            replaced.set_deferral(None);
            self.backlog.remove(target);
        }
        self.relink(plan).await?;
        if let Some(node) = self.tree.lock().get_mut(plan.ino) {
            if node.pages == Pages::Of(None) {
                node.pages = Pages::Of(etag.clone());
            }
            node.etag.clone_from(&etag);
        }
        if let Some(etag) = &etag {
            // Who has it open moves along with the upload, which takes the place of that version.
            let (key, etag, size) = (key.as_str().into(), etag.clone(), before.stat.size);
            self.handles.repin(plan.ino, None, &Pinned { key, etag, size });
        }
        self.remember(plan.ino, &key, etag.as_ref());
        Ok(())
    }

    /// Moves the name here; what had it before lives on for its openers only.
    pub(super) async fn relink(&self, plan: &Move) -> Result<()> {
        let replaced = plan.target.and_then(|target| self.content(target));
        {
            let mut tree = self.tree.lock();
            if let Some(target) = plan.target {
                if let Some(node) = tree.get_mut(target) {
                    node.etag = None;
                }
                tree.unlink(plan.to.0, &plan.to.1);
            }
            tree.relink(plan.ino, plan.to.0, &plan.to.1);
            if let Some(node) = tree.get_mut(plan.ino) {
                node.stat.ctime = std::time::SystemTime::now();
            }
        }
        if let Some(target) = plan.target {
            self.drop_clean_content(target);
        }
        match (plan.target, replaced) {
            (Some(target), Some(content)) => self.undefer(target, &content).await,
            _ => Ok(()),
        }
    }

    pub(super) fn key_of(&self, place: &(Ino, String)) -> Result<String> {
        let above = self.tree.lock().key(place.0).ok_or(Errno::ENOENT)?;
        Ok(format!("{above}{}", place.1))
    }
}

type Gate<'a> = Option<tokio::sync::MutexGuard<'a, ()>>;

/// The gates of the two files of a rename, always in the same order: two renames must not wait for
/// each other.
async fn both_gates<'a>(
    one: (Ino, Option<&'a Arc<Content>>),
    other: (Ino, Option<&'a Arc<Content>>),
) -> (Gate<'a>, Gate<'a>) {
    let (first, second) = if one.0 <= other.0 { (one, other) } else { (other, one) };
    let mut gates = (None, None);
    if let Some(content) = first.1 {
        gates.0 = Some(content.gate.lock().await);
    }
    if let Some(content) = second.1 {
        gates.1 = Some(content.gate.lock().await);
    }
    gates
}
