//! Learning from S3: listings, attributes, and what they change in the tree.
//!
//! A name is asked for by listing its directory, because a program that asks for one name soon
//! asks for the next; only in a directory of several pages it is asked for by itself. Attributes
//! come from the index where the version is known, else from one HEAD.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::stream::{self, StreamExt};
use nix::errno::Errno;
use parking_lot::Mutex;

use super::inodes::{Ino, Node};
use super::names::{Child, Listing, Seen};
use super::stat::Stat;
use super::{Error, Fs, Result};
use crate::bucket;
use crate::bucket::attributes::Attributes;
use crate::bucket::{ListPage, ListRequest, ObjectInfo};
use crate::cache::Remembered;
use crate::error::Kind;
use crate::key::{self, Oddity, ROOT_INO};

/// HEADs under way at once for one listing.
const PARALLEL_HEADS: usize = 32;

/// How long a listing that had no answer speaks for the next one of that directory.
const OUTAGE_STANDS: Duration = Duration::from_secs(2);

/// What memory knows of a name.
enum Known {
    There(Ino),
    Missing,
    /// S3 has to be asked.
    Unsure,
}

/// Listings under way: whoever wants the same one waits for it instead of asking again, and takes
/// its failure too. Else those who wait would fail one after the other, each after a deadline of
/// its own. Some wait in the kernel, which lets one at a time change a directory: for them the
/// failure of an outage stands for [`OUTAGE_STANDS`].
#[derive(Debug, Default)]
pub struct Flights(Mutex<HashMap<Ino, Arc<Flight>>>);

#[derive(Debug, Default)]
struct Flight {
    gate: tokio::sync::Mutex<()>,
    failed: Mutex<Option<(Instant, bucket::Error)>>,
}

impl Flights {
    fn join(&self, ino: Ino) -> Arc<Flight> {
        self.0.lock().entry(ino).or_default().clone()
    }

    fn leave(&self, ino: Ino) {
        let mut flights = self.0.lock();
        // This one and the caller's: nobody else waits. Failures stay for those to come.
        if flights.get(&ino).is_some_and(|flight| Arc::strong_count(flight) <= 2 && flight.failed.lock().is_none()) {
            flights.remove(&ino);
        }
    }
}

impl Flight {
    /// How the flight failed that was under way at `since`, or had no answer just before, if so.
    fn failure_since(&self, since: Instant) -> Option<Error> {
        let failed = self.failed.lock();
        let (at, error) = failed.as_ref()?;
        let silent = matches!(error.kind, Kind::Unreachable | Kind::Deadline);
        (*at >= since || (silent && since - *at < OUTAGE_STANDS)).then(|| error.clone().into())
    }
}

impl Fs {
    /// Makes sure that the directory's names are complete and were asked for within `ttl`.
    pub(super) async fn list(&self, ino: Ino, ttl: Duration) -> Result<()> {
        self.list_pages(ino, ttl, usize::MAX).await
    }

    /// As [`Fs::list`], giving up after `max_pages`: the names found so far are merged all the same.
    pub(super) async fn list_pages(&self, ino: Ino, ttl: Duration, max_pages: usize) -> Result<()> {
        if self.is_listed(ino, ttl) {
            return Ok(());
        }
        let wanted = Instant::now();
        let flight = self.listings.join(ino);
        let outcome = self.list_once(ino, ttl, max_pages, &flight, wanted).await;
        self.listings.leave(ino);
        outcome
    }

    async fn list_once(
        &self,
        ino: Ino,
        ttl: Duration,
        max_pages: usize,
        flight: &Flight,
        wanted: Instant,
    ) -> Result<()> {
        let _turn = flight.gate.lock().await;
        if self.is_listed(ino, ttl) {
            return Ok(());
        }
        if let Some(failure) = flight.failure_since(wanted) {
            return Err(failure);
        }
        let outcome = self.fetch_listing(ino, max_pages).await;
        *flight.failed.lock() = match &outcome {
            Err(Error::Bucket(error)) => Some((Instant::now(), error.clone())),
            _ => None,
        };
        outcome
    }

    fn is_listed(&self, ino: Ino, ttl: Duration) -> bool {
        self.tree.lock().directory_mut(ino).is_some_and(|directory| directory.is_fresh(ttl))
    }

    async fn fetch_listing(&self, ino: Ino, max_pages: usize) -> Result<()> {
        let asked = Instant::now();
        let prefix = self.tree.lock().key(ino).ok_or(Errno::ENOENT)?;
        let mut listing = Listing::default();
        let mut request = ListRequest { prefix: prefix.clone(), delimited: true, ..ListRequest::default() };
        loop {
            let page = self.bucket.list(&request).await?;
            listing.pages += 1;
            let next = page.next.clone();
            self.sort_page(&prefix, page, &mut listing);
            listing.complete = next.is_none();
            if listing.complete || listing.pages >= max_pages {
                break;
            }
            request.token = next;
        }
        let marker = listing.marker.take();
        let complete = listing.complete;
        self.note_odd_prefixes(std::mem::take(&mut listing.odd_prefixes)).await?;
        self.merge(ino, &mut listing, asked);
        if complete {
            self.check_marker(ino, &prefix, marker).await?;
        }
        Ok(())
    }

    /// Sorts the keys of a page into names and oddities.
    fn sort_page(&self, prefix: &str, page: ListPage, listing: &mut Listing) {
        for object in page.objects {
            let name = &object.key[prefix.len().min(object.key.len())..];
            let seen = Seen { etag: object.etag, size: object.size, modified: object.modified };
            if name.is_empty() && !prefix.is_empty() {
                if object.size > 0 {
                    self.odd_keys.lock().note(&object.key, Oddity::MarkerWithBody);
                }
                listing.marker = Some(seen);
            } else if let Some(oddity) = key::oddity(name) {
                self.odd_keys.lock().note(&object.key, oddity);
            } else {
                listing.names.insert(name.to_owned(), Child { ino: None, is_directory: false, seen: Some(seen) });
            }
        }
        for below in page.prefixes {
            let name = &below[prefix.len()..below.len() - 1];
            if let Some(oddity) = key::oddity(name) {
                listing.odd_prefixes.push((below, oddity));
                continue;
            }
            let directory = Child { ino: None, is_directory: true, seen: None };
            if listing.names.insert(name.to_owned(), directory).is_some() {
                self.odd_keys.lock().note(below.trim_end_matches('/'), Oddity::Shadowed);
            }
        }
    }

    /// What lies below a component that has no path is told key by key, the first page of it.
    async fn note_odd_prefixes(&self, prefixes: Vec<(String, Oddity)>) -> Result<()> {
        for (prefix, oddity) in prefixes {
            if !self.odd_keys.lock().is_new_prefix(&prefix) {
                continue;
            }
            let page = self.bucket.list(&ListRequest { prefix, ..ListRequest::default() }).await?;
            for object in page.objects {
                self.odd_keys.lock().note(&object.key, oddity);
            }
        }
        Ok(())
    }

    fn merge(&self, ino: Ino, listing: &mut Listing, asked: Instant) {
        let mut tree = self.tree.lock();
        let drafted = tree.drafted_children(ino);
        let Some(directory) = tree.directory_mut(ino) else { return };
        let gone = directory.merge(listing, asked, |child| drafted.contains(&child));
        let confirmed: Vec<_> = directory
            .children()
            .filter_map(|(name, child)| Some((child.ino?, child.seen.clone(), directory.changed_since(name, asked))))
            .collect();
        for orphan in gone {
            tree.orphan(orphan);
        }
        for (child, seen, changed_here) in confirmed {
            let Some(node) = tree.get_mut(child) else { continue };
            let known = match (&seen, &node.etag) {
                (Some(seen), Some(etag)) => {
                    *etag == seen.etag && node.modified.is_none_or(|modified| same_second(modified, seen.modified))
                }
                (None, _) => node.is_directory(),
                (Some(_), None) => false,
            };
            if known && !changed_here {
                node.checked = asked;
                if let Some(seen) = seen {
                    node.modified = Some(seen.modified);
                }
            }
        }
        if let Some(node) = tree.get_mut(ino) {
            node.checked = node.checked.max(asked);
        }
    }

    /// A listing shows the directory's own marker: when it is another version, its attributes are
    /// read anew.
    async fn check_marker(&self, ino: Ino, key: &str, marker: Option<Seen>) -> Result<()> {
        if ino == ROOT_INO && key.is_empty() {
            return Ok(());
        }
        let asked = Instant::now();
        let Some(seen) = marker else {
            if let Some(node) = self.tree.lock().get_mut(ino) {
                node.etag = None;
            }
            return Ok(());
        };
        if let Some(node) = self.tree.lock().get_mut(ino)
            && node.etag.as_ref() == Some(&seen.etag)
            // Every marker is empty and has the same tag: its date tells them apart.
            && node.modified.is_none_or(|modified| same_second(modified, seen.modified))
        {
            node.modified = Some(seen.modified);
            return Ok(());
        }
        let remembered = self.attributes(key, true, Some(&seen)).await?;
        self.adopt_attributes(ino, true, &remembered, asked);
        Ok(())
    }

    /// Attributes of a version: from the index, else from S3.
    pub(super) async fn attributes(&self, key: &str, directory: bool, seen: Option<&Seen>) -> Result<Remembered> {
        if let Some(remembered) = self.index.get(key) {
            let current = match seen {
                Some(seen) => is_version(&remembered, seen),
                // A directory's version is checked when it is listed itself.
                None => directory,
            };
            if current {
                return Ok(self.with_modified(key, remembered, seen));
            }
        }
        match self.bucket.head(key).await {
            Ok(info) => {
                let remembered = self.remembered(key, info);
                self.index.put(key, remembered.clone());
                Ok(remembered)
            }
            Err(error) if directory && error.kind == Kind::NotFound => Ok(self.implicit_directory(key)),
            Err(error) => Err(error.into()),
        }
    }

    /// The index learns when S3 stored what we wrote: PUT does not tell.
    fn with_modified(&self, key: &str, mut remembered: Remembered, seen: Option<&Seen>) -> Remembered {
        if let (None, Some(seen)) = (remembered.modified, seen) {
            remembered.modified = Some(seen.modified);
            self.index.put(key, remembered.clone());
        }
        remembered
    }

    /// What a HEAD told, in the form of the index.
    fn remembered(&self, key: &str, info: ObjectInfo) -> Remembered {
        Remembered {
            etag: Some(info.etag),
            size: info.size,
            modified: Some(info.modified),
            attributes: self.keep_ino(key, Attributes::from_metadata(&info.metadata)),
            content_type: info.content_type,
        }
    }

    /// A new version of a key keeps the inode number that the key had here.
    fn keep_ino(&self, key: &str, mut attributes: Attributes) -> Attributes {
        attributes.ino = attributes.ino.or_else(|| self.index.get(key)?.attributes.ino);
        attributes
    }

    /// A directory that exists only because something lies in it. The moment we first saw it is
    /// remembered, so that its times stay the same after a remount.
    fn implicit_directory(&self, key: &str) -> Remembered {
        let now = SystemTime::now();
        let attributes = Attributes { mtime: Some(now), ctime: Some(now), ..Attributes::default() };
        let remembered = Remembered { attributes, ..Remembered::default() };
        self.index.put(key, remembered.clone());
        remembered
    }

    /// Puts what S3 says into an existing node. Content that S3 lacks is left alone.
    pub(super) fn adopt_attributes(&self, ino: Ino, directory: bool, remembered: &Remembered, asked: Instant) {
        let stat = Stat::of_object(remembered, directory, &self.settings);
        let mut tree = self.tree.lock();
        if tree.changed_since(ino, asked) {
            // Written here while the answer was on its way: the answer is old.
            return;
        }
        let Some(node) = tree.get_mut(ino) else { return };
        if node.is_drafted() {
            return;
        }
        node.stat = stat;
        node.etag.clone_from(&remembered.etag);
        node.modified = remembered.modified;
        node.checked = asked;
    }

    /// The node of a name, fetched if need be; `None` where there is no such name.
    pub(super) async fn resolve(&self, parent: Ino, name: &str) -> Result<Option<Ino>> {
        match self.known(parent, name)? {
            Known::There(ino) => return Ok(Some(ino)),
            Known::Missing => return Ok(None),
            Known::Unsure => {}
        }
        let _stable = self.namespace.read().await;
        let large = self.tree.lock().directory_mut(parent).ok_or(Errno::ENOTDIR)?.is_large;
        if large {
            return self.resolve_alone(parent, name).await;
        }
        self.list_pages(parent, self.settings.attr_ttl, 1).await?;
        let (listed, large) = {
            let mut tree = self.tree.lock();
            let directory = tree.directory_mut(parent).ok_or(Errno::ENOENT)?;
            (directory.child(name).cloned(), directory.is_large)
        };
        match listed {
            Some(child) => self.node_of(parent, name, child).await.map(Some),
            None if large => self.resolve_alone(parent, name).await,
            None => Ok(None),
        }
    }

    /// What memory knows of a name and may still be believed.
    fn known(&self, parent: Ino, name: &str) -> Result<Known> {
        let tree = self.tree.lock();
        let node = tree.get(parent).ok_or(Errno::ENOENT)?;
        let directory = node.directory.as_ref().ok_or(Errno::ENOTDIR)?;
        let Some(child) = directory.child(name) else {
            return Ok(if directory.is_fresh(self.settings.list_ttl) { Known::Missing } else { Known::Unsure });
        };
        let found = child.ino.and_then(|ino| tree.get(ino)).filter(|node| self.is_fresh(node));
        Ok(found.map_or(Known::Unsure, |node| Known::There(node.ino)))
    }

    /// A node's attributes may be believed. A directory's live as long as a listing: what they
    /// promise is that it is there, and asking for every level of a path each second is dear.
    pub(super) fn is_fresh(&self, node: &Node) -> bool {
        node.is_pending() || node.checked.elapsed() < self.ttl(node.is_directory())
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
        let request = ListRequest { prefix: below, max_keys: Some(1), ..ListRequest::default() };
        let (head, list) = tokio::join!(self.bucket.head(&file_key), self.bucket.list(&request));
        let child = if list?.objects.is_empty() {
            match head {
                Ok(info) => {
                    let seen = Seen { etag: info.etag.clone(), size: info.size, modified: info.modified };
                    self.index.put(&file_key, self.remembered(&file_key, info));
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
        self.node_of(parent, name, child).await.map(Some)
    }

    /// S3 does not have the name (any more).
    fn lose(&self, parent: Ino, name: &str, asked: Instant) {
        let mut tree = self.tree.lock();
        if tree.child(parent, name).is_some_and(Node::is_drafted) {
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

    /// Turns a listed name into a node with current attributes.
    async fn node_of(&self, parent: Ino, name: &str, child: Child) -> Result<Ino> {
        let asked = Instant::now();
        if let Some(ino) = child.ino {
            let tree = self.tree.lock();
            if tree.get(ino).is_some_and(|node| node.is_drafted() || self.is_current(node, child.seen.as_ref())) {
                return Ok(ino);
            }
        }
        let slash = if child.is_directory { "/" } else { "" };
        let prefix = self.tree.lock().key(parent).ok_or(Errno::ENOENT)?;
        let key = format!("{prefix}{name}{slash}");
        let remembered = match self.attributes(&key, child.is_directory, child.seen.as_ref()).await {
            Err(error) if error.is_not_found() => {
                self.lose(parent, name, asked);
                return Err(Errno::ENOENT.into());
            }
            other => other?,
        };
        Ok(self.adopt(parent, name, &key, child.is_directory, &remembered, asked))
    }

    fn is_current(&self, node: &Node, seen: Option<&Seen>) -> bool {
        match seen {
            Some(seen) => {
                node.etag.as_ref() == Some(&seen.etag)
                    && node.modified.is_none_or(|modified| same_second(modified, seen.modified))
            }
            None => node.is_directory() || node.checked.elapsed() < self.settings.attr_ttl,
        }
    }

    /// The node of a name that S3 has: the one in memory brought up to date, or a new one.
    fn adopt(
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
        let stat = Stat::of_object(remembered, directory, &self.settings);
        let mut tree = self.tree.lock();
        // Somebody may have been faster while the lock was free.
        if let Some(node) = tree.child(parent, name) {
            return node.ino;
        }
        let ino = tree.pick_ino(key, remembered.attributes.ino);
        let mut node = Node::new(ino, parent, name, stat, asked);
        node.etag.clone_from(&remembered.etag);
        node.modified = remembered.modified;
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
        if let Some(directory) = tree.directory_mut(parent) {
            directory.remove_absent(name);
        }
        tree.orphan(ino);
    }

    /// Attributes of all names of a directory, the missing ones fetched in parallel.
    pub(super) async fn resolve_all(&self, parent: Ino) -> Result<Vec<(String, Ino)>> {
        let names: Vec<(String, Child)> = {
            let mut tree = self.tree.lock();
            let directory = tree.directory_mut(parent).ok_or(Errno::ENOTDIR)?;
            directory.children().map(|(name, child)| (name.clone(), child.clone())).collect()
        };
        let mut found = Vec::with_capacity(names.len());
        let mut nodes = stream::iter(names)
            .map(|(name, child)| async move {
                let node = self.node_of(parent, &name, child).await;
                (name, node)
            })
            .buffered(PARALLEL_HEADS);
        while let Some((name, node)) = nodes.next().await {
            match node {
                Ok(ino) => found.push((name, ino)),
                // Deleted by somebody between LIST and HEAD.
                Err(Error::Posix(Errno::ENOENT)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Asks S3 about a node whose attributes are too old to be believed.
    pub(super) async fn revalidate(&self, ino: Ino) -> Result<()> {
        let (parent, name) = {
            let tree = self.tree.lock();
            let node = tree.get(ino).ok_or(Errno::ENOENT)?;
            if !node.linked || ino == ROOT_INO || self.is_fresh(node) {
                return Ok(());
            }
            (node.parent, node.name.clone())
        };
        match self.resolve(parent, &name).await? {
            Some(_) => Ok(()),
            None => Err(Errno::ESTALE.into()),
        }
    }
}

/// LIST gives milliseconds, HEAD whole seconds.
fn same_second(left: SystemTime, right: SystemTime) -> bool {
    let second = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs());
    second(left) == second(right)
}

fn is_version(remembered: &Remembered, seen: &Seen) -> bool {
    remembered.etag.as_ref() == Some(&seen.etag)
        && remembered.size == seen.size
        && remembered.modified.is_none_or(|modified| same_second(modified, seen.modified))
}
