//! opendir, readdir, releasedir.

use std::sync::Arc;
use std::time::Instant;

use futures::stream::{self, StreamExt};
use nix::errno::Errno;

use super::Entry;
use crate::cache::Remembered;
use crate::fs::inodes::{Ino, Node};
use crate::fs::names::Child;
use crate::fs::pages::Lines;
use crate::fs::resolve::PARALLEL_HEADS;
use crate::fs::stat::FileKind;
use crate::fs::{Error, Fs, Result};
use crate::key;

/// Names told by one call, at most: more than the kernel takes at once.
const NAMES_AT_ONCE: usize = 1_024;
/// So many sub-directories that nobody knows are worth a walk.
const UNKNOWN_SUBDIRECTORIES: usize = 4;
/// `.` and `..`.
const DOTS: usize = 2;

/// One line of a directory as the kernel is told of it.
#[derive(Clone, Debug)]
pub struct Listed {
    pub name: String,
    pub ino: Ino,
    pub kind: FileKind,
    /// Where the line after this one begins (`d_off`).
    pub next: u64,
    parent: Ino,
    /// What becomes its node when the kernel is told more than the name; `None` where there is one.
    found: Option<Arc<Found>>,
}

#[derive(Debug)]
struct Found {
    parent: Ino,
    key: String,
    directory: bool,
    remembered: Remembered,
    /// When the name was listed, and when its attributes were asked for.
    listed: Instant,
    asked: Instant,
}

impl Fs {
    /// `opendir(3)`.
    pub fn opendir(&self, ino: Ino) -> Result<u64> {
        if !self.tree.lock().get(ino).ok_or(Errno::ENOENT)?.is_directory() {
            return Err(Errno::ENOTDIR.into());
        }
        Ok(self.handles.add_directory(ino))
    }

    /// Some names from position `from` on, none at the end: 0 is `.`, 1 is `..`. The names are those
    /// of the first call on this handle, or of the last rewind (`rewinddir(3)`), less what was
    /// removed here since.
    pub async fn readdir(&self, number: u64, from: u64) -> Result<Vec<Listed>> {
        self.read_lines(number, from, false).await
    }

    /// As [`Fs::readdir`], with all that [`Fs::enter_listed`] needs.
    pub async fn readdirplus(&self, number: u64, from: u64) -> Result<Vec<Listed>> {
        self.read_lines(number, from, true).await
    }

    /// For readdirplus: the entry behind a listed name, with a reference for the kernel. `None` if
    /// it has gone since.
    pub fn enter_listed(&self, listed: &Listed) -> Option<Entry> {
        if listed.name == "." || listed.name == ".." {
            return self.entry(listed.ino).ok();
        }
        if let Some(found) = &listed.found {
            return self.enter_found(&listed.name, found);
        }
        {
            let mut tree = self.tree.lock();
            let known = tree.child(listed.parent, &listed.name).map(|node| node.ino);
            if let Some(node) = known.and_then(|ino| tree.get_mut(ino)) {
                node.lookups += 1;
                drop(tree);
                return known.and_then(|ino| self.entry(ino).ok());
            }
        }
        self.enter_forgotten(listed)
    }

    /// The kernel let go of the inode since: it gets a new one, unless the name has gone.
    fn enter_forgotten(&self, listed: &Listed) -> Option<Entry> {
        let asked = Instant::now();
        let child = self.tree.lock().directory_mut(listed.parent)?.child(&listed.name)?.clone();
        let key = self.child_key(listed.parent, &listed.name, child.is_directory).ok()?;
        let remembered = self.known_attributes(&key, child.is_directory, child.seen.as_ref())?;
        let (parent, directory) = (listed.parent, child.is_directory);
        self.enter_found(&listed.name, &Found { parent, key, directory, remembered, listed: asked, asked })
    }

    fn enter_found(&self, name: &str, found: &Found) -> Option<Entry> {
        const TRIES: u32 = 3;
        for _ in 0..TRIES {
            let vouched = {
                let mut tree = self.tree.lock();
                let directory = tree.directory_mut(found.parent)?;
                let is_known = directory.child(name).is_some_and(|child| child.ino.is_some());
                let is_changed = !is_known && directory.changed_since(name, found.asked);
                if is_changed || directory.is_gone(name, found.listed) {
                    return None;
                }
                found.asked.min(directory.vouches_at(self.settings.list_ttl))
            };
            let ino = self.adopt(found.parent, name, &found.key, found.directory, &found.remembered, vouched);
            // An inode that nobody refers to may be let go of in between.
            if let Ok(entry) = self.enter(ino) {
                return Some(entry);
            }
        }
        None
    }

    async fn read_lines(&self, number: u64, from: u64, plus: bool) -> Result<Vec<Listed>> {
        let handle = self.handles.directory(number).ok_or(Errno::EBADF)?;
        let _stable = self.namespace.read().await;
        let mut open = handle.lines.lock().await;
        let lines = match &mut *open {
            Some(lines) if from > 0 => lines,
            stale => {
                let fresh = self.read_lines_of(handle.ino, self.settings.list_ttl).await?;
                if fresh.rest.is_none() {
                    self.siblings_of_listed(handle.ino);
                }
                stale.insert(fresh)
            }
        };
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let mut told = if from < DOTS { self.dots(handle.ino, from)? } else { Vec::new() };
        let mut position = from.saturating_sub(DOTS);
        let asked = lines.asked;
        loop {
            let names = match self.names_from(handle.ino, lines, position).await {
                Ok(names) => names,
                Err(error) => {
                    // The rest will not come: the next call begins anew.
                    *open = None;
                    return Err(error);
                }
            };
            let (now, later) = names.split_at(names.len().min(NAMES_AT_ONCE));
            if now.is_empty() {
                return Ok(told);
            }
            let prefix = self.tree.lock().key(handle.ino).ok_or(Errno::ENOENT)?;
            let (parent, first, listed) = (handle.ino, position + DOTS, asked);
            let portion = Portion { parent, prefix, names: now, first, listed, plus };
            told.extend(self.describe(&portion, later).await?);
            position += now.len();
            // What has gone since leaves no line; but no line at all would mean the end.
            if !told.is_empty() {
                return Ok(told);
            }
        }
    }

    /// The names from a position on: as many as are there, none at the end.
    async fn names_from<'a>(&self, ino: Ino, lines: &'a mut Lines, position: usize) -> Result<&'a [(String, Child)]> {
        if position < lines.first {
            lines.seek_back(position, self.lister.clone());
        }
        while position >= lines.first + lines.names.len() {
            lines.forget_before(position);
            if lines.rest.is_none() || self.read_page(ino, lines).await? {
                break;
            }
        }
        lines.forget_before(position);
        let known = lines.first + lines.names.len();
        Ok(&lines.names[position.min(known).saturating_sub(lines.first)..])
    }

    fn dots(&self, ino: Ino, from: usize) -> Result<Vec<Listed>> {
        let parent = self.tree.lock().get(ino).ok_or(Errno::ENOENT)?.parent;
        let line = |name: &str, ino, next| Listed {
            name: name.to_owned(),
            ino,
            kind: FileKind::Directory,
            next,
            parent: ino,
            found: None,
        };
        Ok([line(".", ino, 1), line("..", parent, 2)].into_iter().skip(from).collect())
    }

    /// The lines of a portion of names; those that come `later` are got ready.
    async fn describe(&self, portion: &Portion<'_>, later: &[(String, Child)]) -> Result<Vec<Listed>> {
        let mut lines = self.known_lines(portion);
        let unknown: Vec<usize> = {
            let tree = self.tree.lock();
            let directory = tree.get(portion.parent).and_then(|node| node.directory.as_ref()).ok_or(Errno::ENOENT)?;
            let is_gone = |index: &usize| directory.is_gone(&portion.names[*index].0, portion.listed);
            (0..lines.len()).filter(|index| lines[*index].is_none() && !is_gone(index)).collect()
        };
        self.walk_ahead(portion, &unknown, later);
        for (name, child) in later.iter().take(NAMES_AT_ONCE) {
            if let Some(seen) = child.seen.as_ref().filter(|seen| child.ino.is_none() && seen.asks) {
                self.heads.ahead(&portion.key(name, child), seen);
            }
        }
        let mut asked = stream::iter(unknown)
            .map(|index| async move { (index, self.ask_line(portion, index).await) })
            .buffer_unordered(PARALLEL_HEADS);
        while let Some((index, line)) = asked.next().await {
            match line {
                Ok(line) => lines[index] = Some(line),
                // Deleted by somebody between LIST and HEAD.
                Err(Error::Posix(Errno::ENOENT)) => {}
                Err(error) => return Err(error),
            }
        }
        let placed = lines.into_iter().zip(portion.first as u64 + 1..);
        Ok(placed.filter_map(|(line, next)| Some(Listed { next, ..line? })).collect())
    }

    /// The lines that can be told without asking S3.
    fn known_lines(&self, portion: &Portion<'_>) -> Vec<Option<Listed>> {
        let asked = Instant::now();
        // What has a node, or has gone, is settled.
        let settled: Vec<Option<Option<Listed>>> = {
            let tree = self.tree.lock();
            let directory = tree.get(portion.parent).and_then(|node| node.directory.as_ref());
            let settle = |name: &str| {
                let directory = directory?;
                if directory.is_gone(name, portion.listed) {
                    return Some(None);
                }
                let child = directory.child(name)?;
                let node = tree.get(child.ino?)?;
                let current = node.is_drafted() || self.is_current(node, child.seen.as_ref());
                current.then(|| Some(Listed::of_node(name, node)))
            };
            portion.names.iter().map(|(name, _)| settle(name)).collect()
        };
        let known = |name: &str, child: &Child| {
            let key = portion.key(name, child);
            match self.known_attributes(&key, child.is_directory, child.seen.as_ref()) {
                Some(remembered) => Some(portion.found(name, key, child, remembered, asked)),
                // The name of a directory says enough.
                None if child.is_directory && !portion.plus => {
                    let (ino, kind) = (key::inode_number(&key), FileKind::Directory);
                    Some(Listed { name: name.to_owned(), ino, kind, next: 0, parent: portion.parent, found: None })
                }
                None => None,
            }
        };
        let lines = settled.into_iter().zip(portion.names);
        lines.map(|(settled, (name, child))| settled.unwrap_or_else(|| known(name, child))).collect()
    }

    /// Several sub-directories that nobody knows: whoever reads this is likely to enter them all.
    fn walk_ahead(&self, portion: &Portion<'_>, unknown: &[usize], later: &[(String, Child)]) {
        let unknown = || unknown.iter().map(|index| &portion.names[*index]).filter(|(_, child)| child.is_directory);
        let Some((first, child)) = unknown().next() else { return };
        let count = unknown().count();
        if count > UNKNOWN_SUBDIRECTORIES {
            let count = count + later.iter().filter(|(_, child)| child.is_directory).count();
            self.walks.begin(&portion.prefix, &portion.key(first, child), count);
        }
    }

    /// A line that S3 has to be asked for.
    async fn ask_line(&self, portion: &Portion<'_>, index: usize) -> Result<Listed> {
        let asked = Instant::now();
        let (name, child) = &portion.names[index];
        let key = portion.key(name, child);
        let walked = if child.is_directory { self.walked_directory(&key).await? } else { None };
        let (remembered, asked) = match walked {
            Some(walked) => walked,
            None => match self.attributes(&key, child.is_directory, child.seen.as_ref()).await {
                Err(error) if error.is_not_found() => {
                    self.lose(portion.parent, name, asked);
                    return Err(Errno::ENOENT.into());
                }
                told => (told?, asked),
            },
        };
        Ok(portion.found(name, key, child, remembered, asked))
    }

    /// `closedir(3)`.
    pub fn releasedir(&self, number: u64) {
        self.handles.remove_directory(number);
    }
}

/// Some names of a directory that are told at once.
struct Portion<'a> {
    parent: Ino,
    prefix: String,
    names: &'a [(String, Child)],
    /// Position of the first.
    first: usize,
    /// When they were asked for.
    listed: Instant,
    plus: bool,
}

impl Portion<'_> {
    fn key(&self, name: &str, child: &Child) -> String {
        format!("{}{name}{}", self.prefix, if child.is_directory { "/" } else { "" })
    }

    fn found(&self, name: &str, key: String, child: &Child, remembered: Remembered, asked: Instant) -> Listed {
        let ino = remembered.attributes.ino.unwrap_or_else(|| key::inode_number(&key));
        let kind = FileKind::of_object(remembered.attributes.mode, child.is_directory);
        let (parent, listed, directory) = (self.parent, self.listed, child.is_directory);
        let found = Found { parent, key, directory, remembered, listed, asked };
        Listed { name: name.to_owned(), ino, kind, next: 0, parent, found: Some(Arc::new(found)) }
    }
}

impl Listed {
    fn of_node(name: &str, node: &Node) -> Self {
        Self { name: name.to_owned(), ino: node.ino, kind: node.stat.kind, next: 0, parent: node.parent, found: None }
    }
}
