//! The control socket of a running mount: one JSON request per connection, JSON lines back.

mod client;
mod server;

pub use client::{Daemon, all_sockets, ask, is_served};
pub use server::{Order, Replies, Server};

use std::path::PathBuf;

use futures::future::BoxFuture;
use tokio::sync::mpsc;

use super::hooking::{DeadLetter, Description, Invocation, Rejected, Replay, Replayed, Switched, Trace, Which};
use super::{Failure, FileVersion, Left, Restore, Status};

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
    /// Bring archived objects back. Ends when the asker goes away.
    Restore {
        restore: Restore,
    },
    /// What the bucket has of a file.
    Versions {
        path: String,
    },
    /// Bring a version of a file back.
    Undelete {
        path: String,
        version: Option<String>,
    },
    Hooks {
        ask: HooksRequest,
    },
}

/// What a command asks of the hooks of a mount. Paths are those in the mount.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum HooksRequest {
    /// How they are set up.
    List,
    DeadLetters {
        which: Which,
    },
    /// Deliver these again.
    Redrive {
        which: Which,
    },
    /// Forget these.
    Drop {
        which: Which,
    },
    /// Run a hook once on an object. Ends when the asker goes away.
    Invoke {
        hook: String,
        path: String,
        event: String,
        dry_run: bool,
    },
    /// Tell hooks again of what is in the bucket. Ends when the asker goes away.
    Replay {
        replay: Replay,
    },
    /// What synchronous hooks have refused and is kept.
    Rejected,
    /// Forget one of these, or all.
    DropRejected {
        id: Option<String>,
    },
    /// What is known of a path.
    Trace {
        path: String,
    },
    /// Answer when the hooks of a path, or of all below it, are done.
    Wait {
        path: String,
        deadline_ms: Option<u64>,
    },
    /// Take the hooks of this file in place of those there are; `None`: of the mount's own file.
    Deploy {
        file: Option<PathBuf>,
    },
    /// Take a hook away.
    Remove {
        hook: String,
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
    /// Of the archived objects that were asked for so many can be read by now.
    Restoring {
        asked: u64,
        ready: u64,
    },
    /// That was all; these could not be asked for.
    Restored {
        asked: u64,
        ready: u64,
        failed: Vec<Left>,
    },
    Versions(Vec<FileVersion>),
    Hooks(Vec<Description>),
    /// Some of the dead letters that were asked for; `Done` follows the last.
    DeadLetters(Vec<DeadLetter>),
    Rejected(Vec<Rejected>),
    /// So many dead letters are delivered again, or so many things dropped.
    Moved {
        count: u64,
        /// Hooks whose dead letters stay, because the settings do not name them.
        unknown_hooks: Vec<String>,
    },
    Invoked(Box<Invocation>),
    /// So much was told again so far.
    Replaying(Replayed),
    /// That was all.
    Replayed(Replayed),
    Traced(Box<Trace>),
    /// These hooks have come and gone.
    Switched(Box<Switched>),
    /// The hooks of a path are done; these dead letters there are of it.
    Waited {
        dead: Vec<DeadLetter>,
    },
}

/// What a mount does for a command, apart from ending.
pub trait Service: Send + Sync + 'static {
    /// Everything that `s3mount status` tells. Takes locks and reads the journal.
    fn status(&self) -> Status;
    /// Carries out what is asked; signs of life, and all replies but the last, go to `tell`. Stops when
    /// dropped.
    fn carry_out<'a>(&'a self, request: Request, tell: &'a mpsc::Sender<Reply>) -> BoxFuture<'a, Reply>;
}
