//! What closes have left to be sent goes to S3 behind the programs: oldest first, many at a time, and
//! again until it succeeds.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Instant;

use futures::FutureExt;
use nix::errno::Errno;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use super::backlog::{Backlog, Next};
use super::inodes::Ino;
use super::{Error, Fs, Result};
use crate::cache::Modified;

/// The running uploader of a mount.
#[derive(Debug)]
pub struct Uploader {
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Uploader {
    /// Ends it: what is on its way is given up, as in a crash, and stays in the journal.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        // It has panicked: the log has it.
        let _ = self.running.await;
    }
}

/// How sending a file has ended.
enum Sent {
    Done,
    /// Somebody writes to it, and the next close makes it whole; or a directory is being filled; or a change would
    /// have the date of what it changes.
    Unfinished,
}

impl Fs {
    /// Begins to send what waits; until then it only gathers.
    pub fn start_uploader(self: &Arc<Self>) -> Uploader {
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(run(Arc::downgrade(self), Arc::clone(&self.backlog), stopped));
        Uploader { stop, running }
    }

    /// Sends one file, and says in the queue how that ended.
    async fn send(self: Arc<Self>, ino: Ino) {
        let outcome = AssertUnwindSafe(self.try_to_send(ino)).catch_unwind().await;
        let outcome = outcome.unwrap_or_else(|_| Err(Errno::EIO.into()));
        let left = self.left_to_send(ino);
        let now = Instant::now();
        match outcome {
            Ok(Sent::Unfinished) => self.backlog.put_off(ino, now),
            Ok(Sent::Done) => self.backlog.sent(ino, left, now),
            // Set aside, or gone: the log has it.
            Err(_) if left.is_none() => self.backlog.sent(ino, None, now),
            Err(error) => {
                let kind = if let Error::Bucket(error) = &error { Some(error.kind) } else { None };
                if self.backlog.failed(ino, kind, error.to_string(), now) {
                    tracing::warn!(cause = %error, "not stored yet; it is kept, and tried again until it succeeds");
                }
            }
        }
        self.drop_clean_content(ino);
    }

    async fn try_to_send(&self, ino: Ino) -> Result<Sent> {
        if self.is_dated_like_theirs(ino) {
            return Ok(Sent::Unfinished);
        }
        let _stable = self.namespace.read().await;
        let Some(content) = self.content(ino) else {
            if self.may_be_implied(ino) {
                return Ok(Sent::Unfinished);
            }
            return self.tell_noted(ino).await.map(|()| Sent::Done);
        };
        let _gate = content.gate.lock().await;
        // Who has it open may go on writing: what was closed is sent, and nothing that came after.
        let only = self.handles.is_written(ino).then(|| content.generation());
        if only.is_some_and(|only| content.bytes_dirty() && !content.is_deferred_at(only)) {
            return Ok(Sent::Unfinished);
        }
        match self.commit_only(ino, &content, only).await {
            Err(Error::Posix(Errno::EAGAIN)) => Ok(Sent::Unfinished),
            sent => sent.map(|()| Sent::Done),
        }
    }

    /// Whether S3 would date a change of the attributes of another client's version like that version itself: its tag
    /// stays the same, and so whoever has stored it would never see the change. Some seconds later it does not.
    fn is_dated_like_theirs(&self, ino: Ino) -> bool {
        let (key, over) = {
            let tree = self.tree.lock();
            let Some(node) = tree.get(ino).filter(|node| !node.has_unstored_bytes()) else { return false };
            let Some((key, over)) = tree.key(ino).zip(node.modified.outlived_at()) else { return false };
            (key, over)
        };
        let left = self.settings.layout.clock(&key).now().and_then(|now| over.duration_since(now).ok());
        // Dated later than it can be: a clock was wrong, and waiting would not help.
        left.is_some_and(|left| left <= Modified::OUTLIVED_AFTER)
    }

    /// The bytes of a file that S3 does not have as it is.
    fn left_to_send(&self, ino: Ino) -> Option<u64> {
        let tree = self.tree.lock();
        tree.get(ino).filter(|node| node.is_unstored()).map(|node| node.stat.size)
    }
}

async fn run(fs: Weak<Fs>, backlog: Arc<Backlog>, mut stopped: oneshot::Receiver<()>) {
    let mut sending = JoinSet::new();
    loop {
        let next = backlog.next(Instant::now());
        if let Next::Send(ino) = next {
            let Some(fs) = fs.upgrade() else { break };
            sending.spawn(fs.send(ino));
            continue;
        }
        let due = async {
            match next {
                Next::At(moment) => tokio::time::sleep_until(moment.into()).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = &mut stopped => break,
            () = backlog.changed() => {}
            Some(_) = sending.join_next() => {}
            () = due => {}
        }
    }
    sending.shutdown().await;
}
