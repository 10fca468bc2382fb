//! `s3mount umount MOUNTPOINT`

use std::path::{Path, PathBuf};

use super::progress::Progress;
use super::storing;
use crate::app::control::{self, Daemon, Reply, Request};
use crate::app::{self, Failure, Left};
use crate::error::Kind;
use crate::mount;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where the bucket is mounted
    mountpoint: PathBuf,
    /// Unmount also while programs still use the mount
    #[arg(short, long)]
    lazy: bool,
    /// For umount(8), which unmounts also what nobody answers for: the mount of another user
    #[arg(long, hide = true)]
    helper: bool,
}

impl Arguments {
    /// Returns when everything is stored and the mount's process has ended.
    pub(super) fn run(self) -> Result<(), Failure> {
        let mountpoint = mount::named(&self.mountpoint)?;
        let socket = app::socket_path(&app::run_dir()?, &mountpoint);
        let daemon = Daemon::at(&socket);
        let mut outcome = Outcome::default();
        let answered = control::ask(&socket, &Request::Unmount { lazy: self.lazy }, |reply| outcome.hear(reply))?;
        outcome.progress.clear();
        if answered.is_none() {
            return self.unmount_unheard(&mountpoint);
        }
        if let (Some(daemon), Some(_)) = (daemon, &outcome.left) {
            daemon.wait_end();
        }
        outcome.conclude(&mountpoint)
    }

    /// Nobody listens: the process was killed, or this is no mount of ours.
    fn unmount_unheard(&self, mountpoint: &Path) -> Result<(), Failure> {
        match mount::silence(mountpoint) {
            mount::Error::Dead(_) => Ok(mount::unmount(mountpoint, true)?),
            mount::Error::Unheard(_) if self.helper => Ok(mount::unmount(mountpoint, self.lazy)?),
            other => Err(other.into()),
        }
    }
}

/// What the mount has told so far.
#[derive(Default)]
struct Outcome {
    refused: Option<Failure>,
    left: Option<Vec<Left>>,
    progress: Progress,
}

impl Outcome {
    fn hear(&mut self, reply: Reply) {
        match reply {
            Reply::Storing { files } => storing::show(&mut self.progress, files),
            Reply::Refused(failure) => self.refused = Some(failure),
            Reply::Unmounted { left } => self.left = Some(left),
            _ => {}
        }
    }

    fn conclude(self, mountpoint: &Path) -> Result<(), Failure> {
        if let Some(failure) = self.refused {
            return Err(failure);
        }
        let left = self.left.ok_or_else(storing::cut_off)?;
        if left.is_empty() {
            return Ok(());
        }
        storing::tell(&left);
        Err(Failure::new(
            Kind::Deadline,
            format!("{} is unmounted, but {} file(s) could not be stored", mountpoint.display(), left.len()),
        )
        .hint("they are kept: mount the bucket again at the same place, and they are stored"))
    }
}
