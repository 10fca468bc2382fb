//! `s3mount status [MOUNTPOINT] [--json]`

use std::path::{Path, PathBuf};

use super::status_text;
use crate::app::control::{self, Reply, Request};
use crate::app::{self, Failure, Status};
use crate::error::Kind;
use crate::mount;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Of this mount only; without it, of all mounts of this user
    mountpoint: Option<PathBuf>,
    /// For programs: an object with MOUNTPOINT, else an array
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let run_dir = app::run_dir()?;
        let Some(mountpoint) = self.mountpoint else {
            return all(&run_dir, self.json);
        };
        let mountpoint = mount::named(&mountpoint)?;
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

fn status_at(socket: &Path) -> Result<Option<Status>, Failure> {
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
