//! From names to inodes.
//!
//! A name is asked for by listing its directory, because a program that asks for one name soon
//! asks for the next; only in a directory of several pages it is asked for by itself.

use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::inodes::{Ino, Node};
use super::names::{Child, Listing, Seen};
use super::stat::Stat;
use super::{Fs, Result};
use crate::bucket::ETag;
use crate::cache::{Modified, Remembered};
use crate::error::Kind;

/// HEADs under way at once for one listing.
pub(super) const PARALLEL_HEADS: usize = 64;

/// What memory knows of a name.
enum Known {
    There(Ino),
    Missing,
    /// S3 has to be asked.
    Unsure,
}

impl Fs {
    /// The node of a name, fetched if need be; `None` where there is no such name.
    pub(super) async fn resolve(&self, parent: Ino, name: &str) -> Result<Option<Ino>> {
        if let Some(ino) = self.history_of(parent, name)? {
            return Ok(Some(ino));
        }
        match self.known(parent, name)? {
            Known::There(ino) => return Ok(Some(ino)),
            Known::Missing => return Ok(None),
            Known::Unsure => {}
        }
        // Callers that the kernel let wait for this one's answer come one after the other: in an
        // outage each would spend the whole deadline anew.
        if let Some(outage) = self.listings.outage() {
            return Err(outage);
        }
        let found = self.resolve_now(parent, name).await;
        self.listings.note_outcome(&found);
        found
    }

    async fn resolve_now(&self, parent: Ino, name: &str) -> Result<Option<Ino>> {
        let _stable = self.namespace.read().await;
        if let Some(ino) = self.resolve_hinted(parent, name).await? {
            return Ok(Some(ino));
        }
        let believed = self.believed();
        let pages = {
            let mut tree = self.tree.lock();
            let directory = tree.directory_mut(parent).ok_or(Errno::ENOTDIR)?;
            let is_dear = directory.is_large && !directory.is_fresh(believed);
            if is_dear { directory.pages_instead() } else { Some(1) }
        };
        let Some(pages) = pages else { return self.resolve_alone(parent, name).await };
        self.list_pages(parent, believed, pages).await?;
        let (listed, partial, vouched) = {
            let mut tree = self.tree.lock();
            let directory = tree.directory_mut(parent).ok_or(Errno::ENOENT)?;
            let partial = directory.is_large && !directory.is_fresh(believed);
            (directory.child(name).cloned(), partial, directory.vouches_at(believed))
        };
        match listed {
            Some(child) if child.is_directory => self.enter_directory(parent, name, child, vouched).await,
            Some(child) => self.node_of(parent, name, child, vouched).await.map(Some),
            None if partial => self.resolve_alone(parent, name).await,
            None => Ok(None),
        }
    }

    /// What memory knows of a name and may still be believed.
    fn known(&self, parent: Ino, name: &str) -> Result<Known> {
        let tree = self.tree.lock();
        let node = tree.get(parent).ok_or(Errno::ENOENT)?;
        let directory = node.directory.as_ref().ok_or(Errno::ENOTDIR)?;
        let Some(child) = directory.child(name) else {
            return Ok(if directory.is_fresh(self.settings.negative_ttl) { Known::Missing } else { Known::Unsure });
        };
        let found = child.ino.and_then(|ino| tree.get(ino)).filter(|node| self.is_fresh(node));
        Ok(found.map_or(Known::Unsure, |node| Known::There(node.ino)))
    }

    /// A node's attributes may be believed. A directory's live as long as a listing: what they
    /// promise is that it is there, and asking for every level of a path each second is dear.
    pub(super) fn is_fresh(&self, node: &Node) -> bool {
        node.is_pending() || node.checked.elapsed() < self.ttl(node.is_directory())
    }

    /// How long a listing speaks for any name that is asked for, there or missing.
    pub(super) fn believed(&self) -> Duration {
        self.settings.attr_ttl.min(self.settings.negative_ttl)
    }

    /// How long attributes of a directory, or of anything else, are believed.
    pub(super) fn ttl(&self, directory: bool) -> Duration {
        if directory { self.settings.list_ttl } else { self.settings.attr_ttl }
    }

    /// A name in a directory too large to list: HEAD for the file, one key for the directory.
    async fn resolve_alone(&self, parent: Ino, name: &str) -> Result<Option<Ino>> {
        let asked = Instant::now();
        let prefix = self.tree.lock().key(parent).ok_or(Errno::ENOENT)?;
        let (file_key, below) = (format!("{prefix}{name}"), format!("{prefix}{name}/"));
        let (head, listed) = tokio::join!(self.bucket.head(&file_key), self.ask_listing(&below, 1));
        let (listing, _) = listed?;
        let child = if listing.is_nothing() && !self.settings.layout.is_top(&below) {
            match head {
                Ok(info) => {
                    let (etag, storage_class) = (info.etag.clone(), info.properties.storage_class.clone());
                    let seen = Seen { etag, size: info.size, modified: info.modified, storage_class, asks: true };
                    self.index.put(&file_key, self.heads.remembered(&file_key, info));
                    Child { ino: None, is_directory: false, seen: Some(seen) }
                }
                Err(error) if error.kind == Kind::NotFound => {
                    self.lose(parent, name, asked);
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        } else {
            Child { ino: None, is_directory: true, seen: None }
        };
        let known = self.tree.lock().child(parent, name).map(|node| (node.ino, node.is_directory()));
        let child = match known {
            Some((ino, directory)) if directory == child.is_directory => Child { ino: Some(ino), ..child },
            Some(_) => {
                self.lose(parent, name, asked);
                child
            }
            None => child,
        };
        if child.is_directory && child.ino.is_none() {
            return self.adopt_listed(parent, name, &below, listing, asked).await.map(Some);
        }
        self.node_of(parent, name, child, asked).await.map(Some)
    }

    /// S3 does not have the name (any more).
    pub(super) fn lose(&self, parent: Ino, name: &str, asked: Instant) {
        let mut tree = self.tree.lock();
        if tree.child(parent, name).is_some_and(|node| tree.is_held(node.ino)) {
            return;
        }
        let Some(directory) = tree.directory_mut(parent) else { return };
        if directory.changed_since(name, asked) {
            return;
        }
        if let Some(ino) = directory.remove_absent(name) {
            tree.orphan(ino);
        }
    }

    /// The node of a listed directory. One that nobody knows yet is listed: that shows its marker and
    /// what is in it, and whoever asks for a directory soon asks for something in it.
    pub(super) async fn enter_directory(
        &self,
        parent: Ino,
        name: &str,
        child: Child,
        vouched: Instant,
    ) -> Result<Option<Ino>> {
        let key = self.child_key(parent, name, true)?;
        if child.ino.is_some() || self.known_attributes(&key, true, None).is_some() {
            return self.node_of(parent, name, child, vouched).await.map(Some);
        }
        let (listing, asked) = self.read_listing(&key, 1, self.settings.list_ttl).await?;
        if listing.is_nothing() && !self.settings.layout.is_top(&key) {
            self.lose(parent, name, asked);
            return Ok(None);
        }
        self.adopt_listed(parent, name, &key, listing, asked).await.map(Some)
    }

    /// The node of a directory whose listing has just come.
    async fn adopt_listed(&self, parent: Ino, name: &str, key: &str, listing: Listing, asked: Instant) -> Result<Ino> {
        let remembered = match &listing.marker {
            // It would be the first key of the first page.
            None => self.implicit_directory(key),
            marker => self.attributes(key, true, marker.as_ref()).await?,
        };
        let ino = self.adopt(parent, name, key, true, &remembered, asked);
        self.take_listing(ino, key, listing, asked).await?;
        Ok(ino)
    }

    /// The key of a name, which ends in `/` for a directory.
    pub(super) fn child_key(&self, parent: Ino, name: &str, directory: bool) -> Result<String> {
        let slash = if directory { "/" } else { "" };
        let prefix = self.tree.lock().key(parent).ok_or(Errno::ENOENT)?;
        Ok(format!("{prefix}{name}{slash}"))
    }

    /// Turns a listed name into a node with current attributes. Those that nobody has to ask for are
    /// as of `vouched`.
    pub(super) async fn node_of(&self, parent: Ino, name: &str, child: Child, vouched: Instant) -> Result<Ino> {
        if let Some(ino) = child.ino {
            let tree = self.tree.lock();
            if tree.get(ino).is_some_and(|node| node.is_drafted() || self.is_current(node, child.seen.as_ref())) {
                return Ok(ino);
            }
        }
        let key = self.child_key(parent, name, child.is_directory)?;
        if let Some(known) = self.known_attributes(&key, child.is_directory, child.seen.as_ref()) {
            return Ok(self.adopt(parent, name, &key, child.is_directory, &known, vouched));
        }
        let asked = Instant::now();
        let remembered = match self.attributes(&key, child.is_directory, child.seen.as_ref()).await {
            Err(error) if error.is_not_found() => {
                self.lose(parent, name, asked);
                return Err(Errno::ENOENT.into());
            }
            other => other?,
        };
        Ok(self.adopt(parent, name, &key, child.is_directory, &remembered, asked))
    }

    pub(super) fn is_current(&self, node: &Node, seen: Option<&Seen>) -> bool {
        match seen {
            Some(seen) => {
                (node.told || !seen.asks) && node.etag.as_ref() == Some(&seen.etag) && node.modified.is(seen.modified)
            }
            None => !is_doubted(node.etag.as_ref(), node.modified) && (node.is_directory() || self.is_fresh(node)),
        }
    }

    /// The node of a name that S3 has: the one in memory brought up to date, or a new one.
    pub(super) fn adopt(
        &self,
        parent: Ino,
        name: &str,
        key: &str,
        directory: bool,
        remembered: &Remembered,
        asked: Instant,
    ) -> Ino {
        self.leave_to_readers(parent, name, remembered, asked);
        let known = self.tree.lock().child(parent, name).map(|node| node.ino);
        if let Some(ino) = known {
            self.adopt_attributes(ino, directory, remembered, asked);
            return ino;
        }
        let stat = self.as_shown(key, Stat::of_object(remembered, directory, &self.settings));
        let mut tree = self.tree.lock();
        // Somebody may have been faster while the lock was free.
        if let Some(node) = tree.child(parent, name) {
            return node.ino;
        }
        let ino = tree.pick_ino(key, remembered.attributes.ino);
        let mut node = Node::new(ino, parent, name, stat, asked);
        node.etag.clone_from(&remembered.etag);
        node.modified = remembered.modified;
        node.told = !remembered.untold;
        if let Some(above) = tree.directory_mut(parent) {
            above.adopt(name, ino, directory);
        }
        tree.insert(node);
        ino
    }

    /// Somebody reads another version of this file: that inode stays theirs, without a name, and
    /// the name gets a new one. Else the size of the new version would cut their reads short.
    fn leave_to_readers(&self, parent: Ino, name: &str, remembered: &Remembered, asked: Instant) {
        let mut tree = self.tree.lock();
        let Some(node) = tree.child(parent, name) else { return };
        let (ino, read_by_others) = (node.ino, node.opens > 0 && !node.is_drafted() && !node.is_directory());
        if !read_by_others || node.etag == remembered.etag || tree.changed_since(ino, asked) {
            return;
        }
        tree.supersede(ino);
    }

    /// Attributes of a directory that a walk has read or is reading now, and when they were asked for.
    pub(super) async fn walked_directory(&self, key: &str) -> Result<Option<(Remembered, Instant)>> {
        let since = self.tree.lock().forgotten_since(key);
        let Some((marker, asked)) = self.walks.marker(key, since).await else { return Ok(None) };
        let remembered = match marker {
            Some(seen) => self.attributes(key, true, Some(&seen)).await?,
            None => self.implicit_directory(key),
        };
        Ok(Some((remembered, asked)))
    }
}

/// Nobody can say whether this is the version that S3 has.
pub(super) fn is_doubted(etag: Option<&ETag>, modified: Modified) -> bool {
    etag.is_some() && modified == Modified::Unknown
}
