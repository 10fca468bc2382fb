//! The control socket of a running mount: one JSON request per connection, JSON lines back.

mod client;
mod server;

pub use client::{all_sockets, ask};
pub use server::{Order, Replies, Server};

use std::path::PathBuf;

use futures::future::BoxFuture;
use tokio::sync::mpsc;

use super::{Failure, Left, Status};

/// What a command asks of a running mount.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Request {
    Status,
    /// Store what is dirty, then unmount; `lazy`: also while programs still use the mount.
    Unmount {
        lazy: bool,
    },
    /// Store what was closed before, within so many seconds if they are given.
    Sync {
        timeout_ms: Option<u64>,
    },
    /// Fetch these into the disk cache, and all below them. Ends when the asker goes away.
    Warm {
        paths: Vec<String>,
    },
    /// Forget what is known and cached of these, and of all below them.
    Invalidate {
        paths: Vec<String>,
    },
    /// Empty the disk cache, if it lies in this directory.
    ClearCache {
        directory: PathBuf,
    },
}

/// What it answers. What takes its time is answered by several, and is over when the socket closes.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    Status(Box<Status>),
    /// Still under way.
    Alive,
    /// Still storing this many files.
    Storing {
        files: u64,
    },
    /// Stored, but for these.
    Synced {
        left: Vec<Left>,
    },
    /// Not done; the mount goes on.
    Refused(Failure),
    /// Unmounted; these files could not be stored.
    Unmounted {
        left: Vec<Left>,
    },
    /// So much is in the disk cache so far.
    Warming {
        files: u64,
        bytes: u64,
    },
    /// That was all; these could not be brought.
    Warmed {
        files: u64,
        bytes: u64,
        failed: Vec<Left>,
    },
    /// Forgotten, or emptied.
    Done,
}

/// What a mount does for a command, apart from ending.
pub trait Service: Send + Sync + 'static {
    /// Everything that `s3mount status` tells. Takes locks and reads the journal.
    fn status(&self) -> Status;
    /// Carries out what is asked; signs of life go to `tell`. Stops when dropped.
    fn carry_out<'a>(&'a self, request: Request, tell: &'a mpsc::Sender<Reply>) -> BoxFuture<'a, Reply>;
}
