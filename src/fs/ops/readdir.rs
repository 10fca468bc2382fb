//! opendir, readdir, releasedir.

use std::sync::Arc;
use std::time::Instant;

use futures::stream::{self, StreamExt};
use nix::errno::Errno;

use super::Entry;
use crate::cache::Remembered;
use crate::fs::inodes::Ino;
use crate::fs::names::Child;
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
    /// What becomes its node when the kernel is told more than the name; `None` where there is one.
    found: Option<Arc<Found>>,
}

#[derive(Debug)]
struct Found {
    parent: Ino,
    key: String,
    directory: bool,
    remembered: Remembered,
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
        // Renamed or removed since: its name must not lead to that inode any more.
        let same = self.tree.lock().get(listed.ino).is_some_and(|node| node.linked && node.name == listed.name);
        if same { self.enter(listed.ino).ok() } else { None }
    }

    fn enter_found(&self, name: &str, found: &Found) -> Option<Entry> {
        {
            let mut tree = self.tree.lock();
            let directory = tree.directory_mut(found.parent)?;
            let child = directory.child(name)?;
            if child.ino.is_none() && directory.changed_since(name, found.asked) {
                return None;
            }
        }
        let ino = self.adopt(found.parent, name, &found.key, found.directory, &found.remembered, found.asked);
        self.enter(ino).ok()
    }

    async fn read_lines(&self, number: u64, from: u64, plus: bool) -> Result<Vec<Listed>> {
        let handle = self.handles.directory(number).ok_or(Errno::EBADF)?;
        let _stable = self.namespace.read().await;
        let known = handle.snapshot.lock().clone();
        let snapshot = match known {
            Some(snapshot) if from > 0 => snapshot,
            _ => {
                let fresh = Arc::new(self.read_names(handle.ino).await?);
                self.siblings_of_listed(handle.ino);
                *handle.snapshot.lock() = Some(fresh.clone());
                fresh
            }
        };
        let mut from = usize::try_from(from).unwrap_or(usize::MAX);
        let mut lines = if from < DOTS { self.dots(handle.ino, from)? } else { Vec::new() };
        from = from.max(DOTS);
        // What has gone since leaves no line; but no line at all would mean the end.
        while from < snapshot.len() + DOTS && (lines.is_empty() || from == DOTS) {
            let rest = &snapshot[from - DOTS..];
            let (now, later) = rest.split_at(rest.len().min(NAMES_AT_ONCE));
            lines.extend(self.describe(handle.ino, now, later, from, plus).await?);
            from += now.len();
        }
        Ok(lines)
    }

    fn dots(&self, ino: Ino, from: usize) -> Result<Vec<Listed>> {
        let parent = self.tree.lock().get(ino).ok_or(Errno::ENOENT)?.parent;
        let line =
            |name: &str, ino, next| Listed { name: name.to_owned(), ino, kind: FileKind::Directory, next, found: None };
        Ok([line(".", ino, 1), line("..", parent, 2)].into_iter().skip(from).collect())
    }

    async fn read_names(&self, ino: Ino) -> Result<Vec<(String, Child)>> {
        self.list(ino, self.settings.list_ttl).await?;
        let mut tree = self.tree.lock();
        let directory = tree.directory_mut(ino).ok_or(Errno::ENOENT)?;
        Ok(directory.children().map(|(name, child)| (name.clone(), child.clone())).collect())
    }

    /// The lines of these names, which begin at position `first`; those that will be asked for next
    /// are got ready.
    async fn describe(
        &self,
        parent: Ino,
        names: &[(String, Child)],
        later: &[(String, Child)],
        first: usize,
        plus: bool,
    ) -> Result<Vec<Listed>> {
        let prefix = self.tree.lock().key(parent).ok_or(Errno::ENOENT)?;
        let mut lines: Vec<Option<Listed>> = self.known_lines(parent, &prefix, names, plus);
        let gone = self.gone(parent, names);
        let unknown: Vec<usize> = (0..names.len()).filter(|index| lines[*index].is_none() && !gone[*index]).collect();
        self.walk_ahead(&prefix, names, &unknown, later);
        for (name, child) in later.iter().take(NAMES_AT_ONCE) {
            if let Some(seen) = child.seen.as_ref().filter(|seen| child.ino.is_none() && seen.asks) {
                self.heads.ahead(&format!("{prefix}{name}"), seen);
            }
        }
        let prefix = prefix.as_str();
        let mut asked = stream::iter(unknown)
            .map(|index| async move {
                let (name, child) = &names[index];
                (index, self.ask_line(parent, prefix, name, child).await)
            })
            .buffer_unordered(PARALLEL_HEADS);
        while let Some((index, line)) = asked.next().await {
            match line {
                Ok(line) => lines[index] = Some(line),
                // Deleted by somebody between LIST and HEAD.
                Err(Error::Posix(Errno::ENOENT)) => {}
                Err(error) => return Err(error),
            }
        }
        let placed = lines
            .into_iter()
            .enumerate()
            .filter_map(|(index, line)| Some(Listed { next: (first + index + 1) as u64, ..line? }));
        Ok(placed.collect())
    }

    /// Which names were taken away here since they were listed.
    fn gone(&self, parent: Ino, names: &[(String, Child)]) -> Vec<bool> {
        let mut tree = self.tree.lock();
        let Some(directory) = tree.directory_mut(parent) else { return vec![true; names.len()] };
        names.iter().map(|(name, _)| directory.child(name).is_none()).collect()
    }

    /// The lines that can be told without asking S3.
    fn known_lines(&self, parent: Ino, prefix: &str, names: &[(String, Child)], plus: bool) -> Vec<Option<Listed>> {
        let asked = Instant::now();
        let from_nodes: Vec<Option<Listed>> = {
            let tree = self.tree.lock();
            let line = |name: &str| {
                let directory = tree.get(parent)?.directory.as_ref()?;
                let child = directory.child(name)?;
                let node = tree.get(child.ino?)?;
                let current = node.is_drafted() || self.is_current(node, child.seen.as_ref());
                current.then(|| Listed {
                    name: name.to_owned(),
                    ino: node.ino,
                    kind: node.stat.kind,
                    next: 0,
                    found: None,
                })
            };
            names.iter().map(|(name, _)| line(name)).collect()
        };
        let gone = self.gone(parent, names);
        let lines = from_nodes.into_iter().zip(names).zip(gone);
        lines
            .map(|((line, (name, child)), gone)| {
                if gone || line.is_some() {
                    return line;
                }
                let slash = if child.is_directory { "/" } else { "" };
                let key = format!("{prefix}{name}{slash}");
                match self.known_attributes(&key, child.is_directory, child.seen.as_ref()) {
                    Some(remembered) => Some(found_line(parent, name, key, child.is_directory, remembered, asked)),
                    // The name of a directory says enough.
                    None if child.is_directory && !plus => {
                        let (ino, kind) = (key::inode_number(&key), FileKind::Directory);
                        Some(Listed { name: name.clone(), ino, kind, next: 0, found: None })
                    }
                    None => None,
                }
            })
            .collect()
    }

    /// Several sub-directories that nobody knows: whoever reads this is likely to enter them all.
    fn walk_ahead(&self, prefix: &str, names: &[(String, Child)], unknown: &[usize], later: &[(String, Child)]) {
        let mut directories = unknown.iter().map(|index| &names[*index]).filter(|(_, child)| child.is_directory);
        let Some((first, _)) = directories.next() else { return };
        if directories.count() >= UNKNOWN_SUBDIRECTORIES {
            let directories = unknown.iter().map(|index| &names[*index]).chain(later);
            let count = directories.filter(|(_, child)| child.is_directory).count();
            self.walks.begin(prefix, &format!("{prefix}{first}/"), count);
        }
    }

    /// A line that S3 has to be asked for.
    async fn ask_line(&self, parent: Ino, prefix: &str, name: &str, child: &Child) -> Result<Listed> {
        let asked = Instant::now();
        let slash = if child.is_directory { "/" } else { "" };
        let key = format!("{prefix}{name}{slash}");
        let walked = if child.is_directory { self.walked_directory(&key).await? } else { None };
        let (remembered, asked) = match walked {
            Some(walked) => walked,
            None => match self.attributes(&key, child.is_directory, child.seen.as_ref()).await {
                Err(error) if error.is_not_found() => {
                    self.lose(parent, name, asked);
                    return Err(Errno::ENOENT.into());
                }
                told => (told?, asked),
            },
        };
        Ok(found_line(parent, name, key, child.is_directory, remembered, asked))
    }

    /// `closedir(3)`.
    pub fn releasedir(&self, number: u64) {
        self.handles.remove_directory(number);
    }
}

fn found_line(parent: Ino, name: &str, key: String, directory: bool, remembered: Remembered, asked: Instant) -> Listed {
    let ino = remembered.attributes.ino.unwrap_or_else(|| key::inode_number(&key));
    let kind = FileKind::of_object(remembered.attributes.mode, directory);
    let found = Some(Arc::new(Found { parent, key, directory, remembered, asked }));
    Listed { name: name.to_owned(), ino, kind, next: 0, found }
}
