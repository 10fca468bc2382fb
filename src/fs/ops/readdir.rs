//! opendir, readdir, releasedir.

use std::sync::Arc;

use nix::errno::Errno;

use super::Entry;
use crate::fs::handles::DirEntry;
use crate::fs::inodes::Ino;
use crate::fs::stat::FileKind;
use crate::fs::{Fs, Result};

/// One line of a directory as the kernel is told of it.
#[derive(Clone, Debug)]
pub struct Listed {
    pub name: String,
    pub ino: Ino,
    pub kind: FileKind,
}

impl Fs {
    /// `opendir(3)`.
    pub fn opendir(&self, ino: Ino) -> Result<u64> {
        if !self.tree.lock().get(ino).ok_or(Errno::ENOENT)?.is_directory() {
            return Err(Errno::ENOTDIR.into());
        }
        Ok(self.handles.add_directory(ino))
    }

    /// The names from position `from` on: 0 is `.`, 1 is `..`. The names are those of the first
    /// call on this handle, or of the last rewind (`rewinddir(3)`).
    pub async fn readdir(&self, number: u64, from: u64) -> Result<Vec<Listed>> {
        let handle = self.handles.directory(number).ok_or(Errno::EBADF)?;
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
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let listed = |entry: &DirEntry| Listed { name: entry.name.clone(), ino: entry.ino, kind: entry.stat.kind };
        Ok(snapshot.iter().skip(from).map(listed).collect())
    }

    /// For readdirplus: the entry behind a listed name, with a reference for the kernel. `None` if
    /// it has gone since.
    pub fn enter_listed(&self, listed: &Listed) -> Option<Entry> {
        if listed.name == "." || listed.name == ".." {
            return self.entry(listed.ino).ok();
        }
        // Renamed or removed since the snapshot: its name must not lead to that inode any more.
        let same = self.tree.lock().get(listed.ino).is_some_and(|node| node.linked && node.name == listed.name);
        if same { self.enter(listed.ino).ok() } else { None }
    }

    async fn read_names(&self, ino: Ino) -> Result<Vec<DirEntry>> {
        let children = {
            let _stable = self.namespace.read().await;
            self.list(ino, self.settings.list_ttl).await?;
            self.resolve_all(ino).await?
        };
        let tree = self.tree.lock();
        let node = tree.get(ino).ok_or(Errno::ENOENT)?;
        let parent = tree.get(node.parent).ok_or(Errno::ENOENT)?;
        let mut entries = vec![
            DirEntry { name: ".".into(), ino, stat: node.stat.clone() },
            DirEntry { name: "..".into(), ino: parent.ino, stat: parent.stat.clone() },
        ];
        for (name, child) in children {
            if let Some(node) = tree.get(child) {
                entries.push(DirEntry { name, ino: child, stat: node.stat.clone() });
            }
        }
        Ok(entries)
    }

    /// `closedir(3)`: nodes that only this listing needed are let go.
    pub fn releasedir(&self, number: u64) {
        let snapshot = self.handles.directory(number).and_then(|handle| handle.snapshot.lock().take());
        self.handles.remove_directory(number);
        let mut tree = self.tree.lock();
        for entry in snapshot.iter().flat_map(|entries| entries.iter()) {
            tree.drop_if_idle(entry.ino);
        }
    }
}
