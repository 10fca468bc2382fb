//! Storing what waits because somebody asks for it: `s3mount sync`, the end of a mount, and files that
//! stay open for long.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use nix::errno::Errno;
use parking_lot::Mutex;
use serde::Serialize;

use super::backlog::PARALLEL_UPLOADS;
use super::doubt::is_doubtful;
use super::inodes::{Ino, Node};
use super::{Fs, Result};

/// Removals that are named when they could not be sent in time.
const UNDRAINED_NAMED: usize = 100;
/// How long the end of a mount waits for what only an old version has of a file.
const COMPLETE_DEADLINE: Duration = Duration::from_secs(5);
/// How often files that are open for long are looked for, at most and at least.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A file that could not be stored.
#[derive(Clone, Debug, Serialize)]
pub struct Undrained {
    pub path: String,
    pub cause: String,
}

impl Fs {
    /// Stores everything that was closed before, and removes what was removed; returns what could not be
    /// stored, or not in time. An outage ends it early: nobody is served by waiting for each file in turn.
    pub async fn sync(self: &Arc<Self>, deadline: Option<Duration>) -> Vec<Undrained> {
        let is_answered_for = |node: &Node| node.content.as_ref().is_some_and(|content| content.is_answered_for());
        let closed = |node: &Node| node.opens == 0 || node.is_noted() || is_answered_for(node);
        let until = deadline.map(|deadline| tokio::time::Instant::now() + deadline);
        let left = self.store_all(self.unstored(closed), until, true).await.into_iter();
        let mut left: Vec<_> = left.map(|(ino, cause)| Undrained { path: self.path_of_ino(ino), cause }).collect();
        left.extend(self.drain_removals(until).await);
        self.journal.settle_gathered().await;
        left
    }

    /// Stores everything that is dirty; what cannot be stored in time stays in the state directory
    /// for the next start, and is returned.
    pub async fn drain(self: &Arc<Self>, deadline: Duration) -> Vec<Undrained> {
        let until = tokio::time::Instant::now() + deadline;
        let mut left = Vec::new();
        for (ino, cause) in self.store_all(self.unstored(|_| true), Some(until), false).await {
            let path = self.path_of_ino(ino);
            let cause = match self.keep_for_next_start(ino).await {
                Ok(()) => cause,
                Err(error) => format!("{cause}; nor could its draft be kept: {error}"),
            };
            tracing::error!(path = %path.escape_debug(), cause, "left for the next start");
            left.push(Undrained { path, cause });
        }
        left.extend(self.drain_removals(Some(until)).await);
        self.journal.settle_gathered().await;
        self.index.flush();
        left
    }

    /// Sends what waits to be removed; returns what could not be in time. What is removed meanwhile is not
    /// its business. What S3 refused was told, is there again, and does not wait.
    async fn drain_removals(&self, until: Option<tokio::time::Instant>) -> Vec<Undrained> {
        let last = self.removals.last_number();
        let cause = match within(until, self.settle_removals()).await {
            Some(Err(error)) => error.to_string(),
            _ => "not sent before the deadline".to_owned(),
        };
        let (keys, more) = self.removals.some_keys(last, UNDRAINED_NAMED);
        let paths = keys.iter().filter_map(|key| self.path_of(key));
        let mut paths: Vec<String> = paths.collect();
        if more > 0 {
            paths.push(format!("and {more} more"));
        }
        let cause = format!("removed here, but not from the bucket: {cause}");
        paths.into_iter().map(|path| Undrained { path, cause: cause.clone() }).collect()
    }

    /// How many files S3 does not have as they are.
    pub fn count_unstored(&self) -> usize {
        self.unstored(|_| true).len()
    }

    /// Files that S3 does not have as they are, and that are so.
    pub(super) fn unstored(&self, are: impl Fn(&Node) -> bool) -> Vec<Ino> {
        let tree = self.tree.lock();
        tree.nodes().filter(|node| node.is_unstored() && are(node)).map(|node| node.ino).collect()
    }

    /// Stores many at a time; returns those that it could not store, with the cause.
    pub(super) async fn store_all(
        &self,
        inos: Vec<Ino>,
        until: Option<tokio::time::Instant>,
        ends_in_outage: bool,
    ) -> Vec<(Ino, String)> {
        let _paused = self.backlog.pause();
        let outage = Mutex::new(None);
        let stores = inos.into_iter().map(|ino| {
            let outage = ends_in_outage.then_some(&outage);
            async move { Some((ino, self.store_one(ino, until, outage).await?)) }
        });
        stream::iter(stores).buffer_unordered(PARALLEL_UPLOADS).filter_map(std::future::ready).collect().await
    }

    /// Why a file could not be stored, if so. What `outage` holds is the answer for all, and once S3 does
    /// not answer it is put there.
    async fn store_one(
        &self,
        ino: Ino,
        until: Option<tokio::time::Instant>,
        outage: Option<&Mutex<Option<String>>>,
    ) -> Option<String> {
        if let Some(cause) = outage.and_then(|outage| outage.lock().clone()) {
            return Some(cause);
        }
        let stored = within(until, self.commit_all(ino)).await;
        // Also where another client was faster: theirs is to be seen then.
        self.drop_clean_content(ino);
        let Some(stored) = stored else { return Some("not stored before the deadline".to_owned()) };
        let error = stored.err()?;
        if let Some(outage) = outage.filter(|_| is_doubtful(&error)) {
            *outage.lock() = Some(error.to_string());
        }
        Some(error.to_string())
    }

    fn path_of_ino(&self, ino: Ino) -> String {
        let key = self.snapshot(ino).map(|snapshot| snapshot.key).unwrap_or_default();
        self.path_of(&key).unwrap_or_default()
    }

    async fn keep_for_next_start(&self, ino: Ino) -> Result<()> {
        let Some(content) = self.content(ino) else { return Ok(()) };
        if !content.bytes_dirty() && content.attributes_note.lock().is_some() {
            // Only attributes are missing, and their note is kept.
            return Ok(());
        }
        // Without the old version's bytes the draft alone is not the file.
        if content.draft.lock().base().is_some() {
            tokio::time::timeout(COMPLETE_DEADLINE, self.complete(&content)).await.map_err(|_| Errno::ETIMEDOUT)??;
            content.draft.lock().detach_base();
        }
        // No close: whatever its commit has come to, the draft is kept.
        let _stable = self.namespace.read().await;
        let _gate = content.gate.lock().await;
        if !self.is_content_of(ino, &content) {
            return Ok(());
        }
        self.defer_gated(ino, &content, None).await
    }

    /// Stores files that are open for writing and have had unstored bytes for so long, again and again.
    /// Ends with the mount.
    pub fn keep_storing_open_files(self: &Arc<Self>, after: Duration) {
        let fs = Arc::downgrade(self);
        tokio::spawn(async move {
            // Of which files what is stored has been known to be old, and since when.
            let mut dirty = HashMap::<Ino, (u64, Instant)>::new();
            loop {
                tokio::time::sleep((after / 4).clamp(LOOK_EVERY.0, LOOK_EVERY.1)).await;
                let Some(fs) = fs.upgrade() else { return };
                let open = fs.open_and_dirty();
                dirty.retain(|ino, (stored, _)| open.get(ino) == Some(stored));
                for (ino, stored) in open {
                    let (_, since) = *dirty.entry(ino).or_insert((stored, Instant::now()));
                    // An error is in the log, and the next look tries again.
                    if since.elapsed() >= after && fs.commit(ino).await.is_ok() {
                        dirty.remove(&ino);
                    }
                }
            }
        });
    }

    /// Files open for writing whose bytes S3 lacks, each with the generation that S3 has.
    fn open_and_dirty(&self) -> HashMap<Ino, u64> {
        let tree = self.tree.lock();
        let open = tree.nodes().filter(|node| node.linked && node.opens > 0 && self.handles.is_written(node.ino));
        let dirty = open.filter_map(|node| Some((node.ino, node.content.as_ref().filter(|it| it.bytes_dirty())?)));
        dirty.map(|(ino, content)| (ino, content.stored())).collect()
    }
}

/// What a future says by then, if it does.
async fn within<T>(until: Option<tokio::time::Instant>, future: impl Future<Output = T>) -> Option<T> {
    match until {
        None => Some(future.await),
        Some(until) => tokio::time::timeout_at(until, future).await.ok(),
    }
}
