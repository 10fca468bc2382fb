//! `s3mount status [MOUNTPOINT] [--json | --watch[=TIME]]`

use std::path::{Path, PathBuf};

use super::{status_text, watch};
use crate::app::control::{self, Reply, Request};
use crate::app::{self, Failure, Status};
use crate::config::Span;
use crate::error::Kind;
use crate::mount;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Of the mount on which this lies only; without it, of all mounts of this user
    mountpoint: Option<PathBuf>,
    /// For programs: an object with MOUNTPOINT, else an array
    #[arg(long)]
    json: bool,
    /// Go on, with what happens in each such time [default: 2s]; Ctrl-C ends it
    #[arg(long, value_name = "TIME", conflicts_with = "json",
          num_args = 0..=1, require_equals = true, default_missing_value = "2s")]
    watch: Option<Span>,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let run_dir = app::run_dir()?;
        let mountpoint = self.mountpoint.as_deref().map(mount::above).transpose()?;
        if let Some(Span(every)) = self.watch {
            return watch::watch(&run_dir, mountpoint.as_deref(), every);
        }
        let Some(mountpoint) = mountpoint else {
            return all(&run_dir, self.json);
        };
        let status = status_at(&app::socket_path(&run_dir, &mountpoint))?
            .ok_or_else(|| Failure::from(mount::silence(&mountpoint)))?;
        super::say(&if self.json { super::pretty(&status) } else { status_text::text(&status) });
        Ok(())
    }
}

fn all(run_dir: &Path, as_json: bool) -> Result<(), Failure> {
    let mut found = Vec::new();
    // One that hangs does not hide the others.
    let mut failed = None;
    for socket in control::all_sockets(run_dir) {
        match status_at(&socket) {
            Ok(status) => found.extend(status),
            Err(failure) => failed = Some(failure),
        }
    }
    if as_json {
        super::say(&super::pretty(&found));
    } else if found.is_empty() && failed.is_none() {
        super::say("nothing is mounted\n");
    } else {
        super::say(&found.iter().map(status_text::text).collect::<Vec<_>>().join("\n"));
    }
    failed.map_or(Ok(()), Err)
}

/// What a mount tells of itself; `None` if there is none at the socket.
pub(super) fn status_at(socket: &Path) -> Result<Option<Status>, Failure> {
    let mut status = None;
    let listening = control::ask(socket, &Request::Status, |reply| {
        if let Reply::Status(told) = reply {
            status = Some(*told);
        }
    })?;
    if listening.is_some() && status.is_none() {
        return Err(Failure::new(Kind::Deadline, format!("the mount behind {} gives no status", socket.display()))
            .hint("its log tells more; `s3mount umount --lazy MOUNTPOINT` unmounts in any case"));
    }
    Ok(status)
}
