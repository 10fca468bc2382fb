//! The control socket of a running mount: one JSON request per connection, JSON lines back.

mod client;
mod server;

pub use client::{all_sockets, ask};
pub use server::{Order, Replies, Server};

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
}

/// What it answers. An unmount is answered by several, and is over when the socket closes.
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
    /// Not done; the mount goes on.
    Refused(Failure),
    /// Unmounted; these files could not be stored.
    Unmounted {
        left: Vec<Left>,
    },
}
