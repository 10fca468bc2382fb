//! What the file system tells about itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde::Serialize;

use super::Fs;
use super::backlog::BacklogStatus;
use super::inodes::Ino;
use crate::key::Oddity;

/// Odd keys listed by name; more are counted only.
const MAX_ODD_KEYS: usize = 1_000;

/// Keys that have no path: seen while listing, never dropped in silence.
#[derive(Debug, Default)]
pub struct OddKeys {
    known: BTreeMap<String, Oddity>,
    /// Prefixes that were looked into.
    prefixes: BTreeSet<String>,
    unlisted: u64,
}

impl OddKeys {
    /// Whether a prefix is seen for the first time.
    pub fn is_new_prefix(&mut self, prefix: &str) -> bool {
        self.prefixes.len() < MAX_ODD_KEYS && self.prefixes.insert(prefix.to_owned())
    }

    #[cfg(test)]
    pub fn keys(&self) -> Vec<&str> {
        self.known.keys().map(String::as_str).collect()
    }

    /// A listing showed this key.
    pub fn note(&mut self, key: &str, oddity: Oddity) {
        if self.known.len() < MAX_ODD_KEYS {
            if self.known.insert(key.to_owned(), oddity).is_none() {
                tracing::warn!(key = %key.escape_debug(), ?oddity, "key has no path of its own; it is left untouched");
            }
        } else if !self.known.contains_key(key) {
            self.unlisted += 1;
        }
    }
}

/// A snapshot for `s3mount status`.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Paths below the mountpoint whose content S3 does not have yet.
    pub dirty_files: Vec<String>,
    /// Closes are answered from the journal, and what waits to be sent.
    pub write_back: bool,
    pub pending: BacklogStatus,
    /// Versions of ours that lost against another client's and are still kept, of earlier mounts too.
    pub conflicts: usize,
    /// Where they are, each a `.conflict` file.
    pub conflicts_dir: PathBuf,
    /// Files that a hook has refused; their bytes are kept.
    pub rejected: usize,
    pub open_files: usize,
    /// Objects that were removed here and are still to go from the bucket.
    pub removals_waiting: usize,
    /// The kernel reads what is wholly in the disk cache by itself.
    pub passthrough: bool,
    /// Opens whose reads the kernel answered so.
    pub passthrough_opens: u64,
    pub inodes: usize,
    pub odd_keys: BTreeMap<String, Oddity>,
    /// Odd keys beyond those listed.
    pub odd_keys_unlisted: u64,
}

/// What is counted, for the metrics: as [`Status`], without a name of anything.
#[derive(Clone, Debug, Default)]
pub struct FileCounts {
    /// Open files, by how often each is open.
    pub open_handles: usize,
    pub inodes: usize,
    /// Files that S3 does not have as they are.
    pub dirty: usize,
    /// What the uploader is to send.
    pub pending: BacklogStatus,
    pub conflicts: u64,
    pub rejected: usize,
    pub removals_waiting: usize,
    pub passthrough_opens: u64,
    pub odd_keys: u64,
    /// Bytes of drafts that lie in memory.
    pub draft_memory_bytes: u64,
}

impl Fs {
    /// How much of everything there is. Holds up the tree while each node is looked at once, as the search
    /// for what is to be stored again does.
    pub fn counts(&self) -> FileCounts {
        let odd = self.odd_keys.lock();
        let odd_keys = odd.known.len() as u64 + odd.unlisted;
        drop(odd);
        let tree = self.tree.lock();
        let (inodes, dirty) = (tree.len(), tree.nodes().filter(|node| node.is_unstored()).count());
        drop(tree);
        FileCounts {
            open_handles: self.handles.open_files(),
            inodes,
            dirty,
            pending: self.backlog.status(Instant::now()),
            conflicts: self.conflicts.load(Ordering::Relaxed),
            rejected: self.rejected().map_or(0, |rejected| rejected.len()),
            removals_waiting: self.removals.len(),
            passthrough_opens: self.passthrough_status().1,
            odd_keys,
            draft_memory_bytes: self.drafts.used_bytes(),
        }
    }

    /// What is dirty, open and odd right now.
    pub fn status(&self) -> Status {
        let odd = self.odd_keys.lock();
        let (odd_keys, odd_keys_unlisted) = (odd.known.clone(), odd.unlisted);
        drop(odd);
        let (passthrough, passthrough_opens) = self.passthrough_status();
        // A directory that can't be read is told of where something is put into it.
        let rejected = self.rejected().map_or(0, |rejected| rejected.len());
        let conflicts = self.kept_conflicts();
        let tree = self.tree.lock();
        let dirty = tree.nodes().filter(|node| node.is_unstored());
        let mut dirty_files: Vec<_> = dirty.filter_map(|node| self.path_of(&tree.key(node.ino)?)).collect();
        dirty_files.sort();
        Status {
            dirty_files,
            write_back: self.settings.write_back.is_some(),
            pending: self.backlog.status(Instant::now()),
            conflicts,
            conflicts_dir: self.settings.draft_dir.clone(),
            rejected,
            removals_waiting: self.removals.len(),
            open_files: tree.nodes().filter(|node| node.opens > 0).count(),
            passthrough,
            passthrough_opens,
            inodes: tree.len(),
            odd_keys,
            odd_keys_unlisted,
        }
    }

    pub(super) fn path_of(&self, key: &str) -> Option<String> {
        key.strip_prefix(&self.settings.root_prefix).map(str::to_owned)
    }

    /// Another part of the program changed this key in S3: ask again at the next use.
    pub fn forget_key(&self, key: &str) {
        let Some(path) = key.strip_prefix(self.settings.root_prefix.as_str()) else { return };
        self.cache.forget(key);
        self.walks.forget(key);
        if let Some(ino) = self.expire_path(path) {
            self.tell_kernel(|kernel| kernel.forget_pages(ino));
        }
    }

    /// Everything along a path is asked for again; returns its node, if it is in memory.
    fn expire_path(&self, path: &str) -> Option<Ino> {
        let mut tree = self.tree.lock();
        let mut ino = crate::key::ROOT_INO;
        for name in path.split('/') {
            tree.directory_mut(ino)?.expire();
            ino = tree.child(ino, name)?.ino;
            tree.get_mut(ino)?.expire();
        }
        Some(ino)
    }
}
