//! A mount that is being served, and the ways in which it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::control::{Order, Replies, Reply};
use super::interrupts::Interrupts;
use super::rooms::Rooms;
use super::status::Facts;
use super::supervisor::Watch;
use super::{Failure, Left};
use crate::error::Kind;
use crate::mount::{self, Mounted};
use crate::telemetry::printable;

/// How long dirty files are stored at the end; systemd kills 90 s after SIGTERM.
pub(super) const DRAIN_DEADLINE: Duration = Duration::from_mins(1);
/// How long an unmount is tried again when something holds the mount: indexers let go soon.
const BUSY_DEADLINE: Duration = Duration::from_secs(2);
/// How long the kernel may take to end the session after the mount is gone.
const END_DEADLINE: Duration = Duration::from_secs(2);
/// Between two signs of life for whoever waits for an unmount.
const MENTION_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Running {
    pub facts: Arc<Facts>,
    pub rooms: Arc<Rooms>,
    pub mounted: Mounted,
    pub orders: mpsc::Receiver<Order>,
    pub interrupts: Interrupts,
    /// Of what a service manager has started.
    pub watch: Option<Watch>,
}

/// Why a mount ends.
enum Cause {
    /// SIGTERM or SIGINT, or nobody wanted it any more when it was ready.
    Interrupted,
    /// Somebody else unmounted it.
    Unmounted,
    /// `s3mount umount`, which waits for the outcome and knows what could not be stored before.
    Ordered { replies: Replies, left: Vec<Left> },
}

/// A mount that is over.
pub(super) struct Ended {
    asked_by: Option<Replies>,
    left: Vec<Left>,
}

impl Running {
    /// Serves until the mount is to end, takes it away, and stores what is dirty. `wanted`: somebody
    /// still waited for the mount when it was ready.
    pub(super) async fn until_end(mut self, wanted: bool) -> Ended {
        let cause = if wanted { self.wait().await } else { Cause::Interrupted };
        self.facts.set_ending();
        drop(self.watch.take());
        if matches!(cause, Cause::Interrupted) {
            tracing::info!("asked to end: unmounting, storing what is dirty");
            if let Err(error) = tokio::task::block_in_place(|| self.mounted.unmount(true)) {
                tracing::error!("{error}");
            }
        }
        let (asked_by, before) = match cause {
            Cause::Ordered { replies, left } => (Some(replies), left),
            Cause::Interrupted | Cause::Unmounted => (None, Vec::new()),
        };
        let left = self.last_drain(asked_by.as_ref(), &before).await;
        tracing::debug!(left = left.len(), "drained");
        if !self.mounted.wait(END_DEADLINE).await {
            tracing::warn!("programs still have files open: they get ENOTCONN from now on");
        }
        Ended { asked_by, left }
    }

    async fn wait(&mut self) -> Cause {
        loop {
            tokio::select! {
                () = self.interrupts.next() => return Cause::Interrupted,
                () = self.mounted.ended() => return Cause::Unmounted,
                Some(order) = self.orders.recv() => {
                    if let Some(cause) = self.obey(order).await {
                        return cause;
                    }
                }
            }
        }
    }

    /// Stores what is dirty while the mount still serves, then unmounts; `None` if it is busy.
    async fn obey(&self, order: Order) -> Option<Cause> {
        let left = drain_mentioned(&self.rooms, DRAIN_DEADLINE, Some(&order.replies)).await;
        match self.unmount_when_free(order.lazy).await {
            Ok(()) => Some(Cause::Ordered { replies: order.replies, left }),
            Err(error) => {
                order.replies.conclude(Reply::Refused(error.into())).await;
                None
            }
        }
    }

    async fn unmount_when_free(&self, lazy: bool) -> mount::Result<()> {
        let until = Instant::now() + BUSY_DEADLINE;
        loop {
            match tokio::task::block_in_place(|| self.mounted.unmount(lazy)) {
                Err(mount::Error::Busy(_)) if Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// What the unmount itself made dirty, and what the user does not want to wait for any longer.
    async fn last_drain(&mut self, asked_by: Option<&Replies>, before: &[Left]) -> Vec<Left> {
        // S3 has just had its time for these; asking it for as long again helps nobody.
        let deadline = if before.is_empty() { DRAIN_DEADLINE } else { Duration::from_secs(1) };
        let rooms = Arc::clone(&self.rooms);
        let draining = drain_mentioned(&rooms, deadline, asked_by);
        let mut left = tokio::select! {
            left = draining => left,
            () = self.interrupts.next() => rooms.drain(Duration::ZERO).await,
        };
        for file in &mut left {
            if let Some(earlier) = before.iter().find(|earlier| earlier.path == file.path) {
                file.cause.clone_from(&earlier.cause);
            }
        }
        left
    }
}

/// Drains, and tells whoever waits how far it is.
async fn drain_mentioned(rooms: &Rooms, deadline: Duration, asked_by: Option<&Replies>) -> Vec<Left> {
    let mut draining = std::pin::pin!(rooms.drain(deadline));
    let mut tick = tokio::time::interval(MENTION_EVERY);
    loop {
        tokio::select! {
            left = &mut draining => return left,
            _ = tick.tick() => {
                if let Some(replies) = asked_by {
                    replies.mention(Reply::Storing { files: rooms.dirty_files() });
                }
            }
        }
    }
}

impl Ended {
    /// Tells whoever waits how it ended.
    pub(super) async fn conclude(self) -> Result<(), Failure> {
        let Self { asked_by, left } = self;
        for file in &left {
            let (path, cause) = (printable(&file.path), printable(&file.cause));
            tracing::error!("not stored: {path}: {cause}; it is kept, and the next mount here stores it");
        }
        let count = left.len();
        if let Some(replies) = asked_by {
            replies.conclude(Reply::Unmounted { left }).await;
        }
        tracing::info!("ended");
        if count == 0 {
            return Ok(());
        }
        Err(Failure::new(Kind::Deadline, format!("{count} file(s) could not be stored"))
            .hint("they are kept: mount the bucket again at the same place, and they are stored"))
    }
}
