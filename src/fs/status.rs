//! What the file system tells about itself, and what is left when it has to go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::inodes::Ino;
use super::{Error, Fs};
use crate::key::Oddity;

/// Removals that are named when they could not be sent in time.
const UNDRAINED_NAMED: usize = 100;
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

/// A file that could not be stored.
#[derive(Clone, Debug, Serialize)]
pub struct Undrained {
    pub path: String,
    pub cause: String,
}

impl Fs {
    /// What is dirty, open and odd right now.
    pub fn status(&self) -> Status {
        let odd = self.odd_keys.lock();
        let (odd_keys, odd_keys_unlisted) = (odd.known.clone(), odd.unlisted);
        drop(odd);
        let (passthrough, passthrough_opens) = self.passthrough_status();
        let tree = self.tree.lock();
        let dirty = tree.nodes().filter(|node| node.linked && node.is_pending());
        let mut dirty_files: Vec<_> = dirty.filter_map(|node| self.path_of(&tree.key(node.ino)?)).collect();
        dirty_files.sort();
        Status {
            dirty_files,
            removals_waiting: self.removals.len(),
            open_files: tree.nodes().filter(|node| node.opens > 0).count(),
            passthrough,
            passthrough_opens,
            inodes: tree.nodes().count(),
            odd_keys,
            odd_keys_unlisted,
        }
    }

    fn path_of(&self, key: &str) -> Option<String> {
        key.strip_prefix(&self.settings.root_prefix).map(str::to_owned)
    }

    /// Stores everything that is dirty; what cannot be stored in time stays in the state directory
    /// for the next start, and is returned.
    pub async fn drain(self: &Arc<Self>, deadline: Duration) -> Vec<Undrained> {
        let until = tokio::time::Instant::now() + deadline;
        let mut left = Vec::new();
        for ino in self.dirty_inodes() {
            let cause = match tokio::time::timeout_at(until, self.commit(ino)).await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "not stored before the deadline".to_owned(),
            };
            let key = self.snapshot(ino).map(|snapshot| snapshot.key).unwrap_or_default();
            let path = self.path_of(&key).unwrap_or_default();
            let cause = match self.keep_for_next_start(ino).await {
                Ok(()) => cause,
                Err(error) => format!("{cause}; nor could its draft be kept: {error}"),
            };
            tracing::error!(path = %path.escape_debug(), cause, "left for the next start");
            left.push(Undrained { path, cause });
        }
        left.extend(self.drain_removals(until).await);
        self.index.flush();
        left
    }

    /// Sends what waits to be removed; returns what could not be in time.
    async fn drain_removals(&self, until: tokio::time::Instant) -> Vec<Undrained> {
        let cause = match tokio::time::timeout_at(until, self.settle_removals()).await {
            // What S3 refused was told, and is there again.
            _ if self.removals.len() == 0 => return Vec::new(),
            Ok(Err(error)) => error.to_string(),
            _ => "not sent before the deadline".to_owned(),
        };
        let (keys, more) = self.removals.some_keys(UNDRAINED_NAMED);
        let paths = keys.iter().filter_map(|key| self.path_of(key));
        let mut paths: Vec<String> = paths.collect();
        if more > 0 {
            paths.push(format!("and {more} more"));
        }
        let cause = format!("removed here, but not from the bucket: {cause}");
        paths.into_iter().map(|path| Undrained { path, cause: cause.clone() }).collect()
    }

    fn dirty_inodes(&self) -> Vec<Ino> {
        let tree = self.tree.lock();
        tree.nodes().filter(|node| node.linked && node.is_pending()).map(|node| node.ino).collect()
    }

    async fn keep_for_next_start(self: &Arc<Self>, ino: Ino) -> Result<(), Error> {
        let Some(content) = self.content(ino) else { return Ok(()) };
        // Without the old version's bytes the draft alone is not the file.
        if content.draft.lock().base().is_some() {
            tokio::time::timeout(Duration::from_secs(5), self.complete(&content))
                .await
                .map_err(|_| nix::errno::Errno::ETIMEDOUT)??;
            content.draft.lock().detach_base();
        }
        // No close: whatever its commit has come to, the draft is kept.
        let _stable = self.namespace.read().await;
        let _gate = content.gate.lock().await;
        self.defer_gated(ino, &content).await
    }

    /// Another part of the program changed this key in S3: ask again at the next use.
    pub fn forget_key(&self, key: &str) {
        let Some(path) = key.strip_prefix(self.settings.root_prefix.as_str()) else { return };
        self.cache.forget(key);
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
