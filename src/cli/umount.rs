//! `s3mount umount MOUNTPOINT`

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::app::control::{self, Reply, Request};
use crate::app::{self, Failure, Left};
use crate::error::Kind;
use crate::mount;
use crate::telemetry::printable;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where the bucket is mounted
    mountpoint: PathBuf,
    /// Unmount also while programs still use the mount
    #[arg(short, long)]
    lazy: bool,
}

impl Arguments {
    /// Returns when everything is stored and the mount's process has ended.
    pub(super) fn run(self) -> Result<(), Failure> {
        let mountpoint = mount::named(&self.mountpoint)?;
        let socket = app::socket_path(&app::run_dir()?, &mountpoint);
        let mut outcome = Outcome::default();
        let answered = control::ask(&socket, &Request::Unmount { lazy: self.lazy }, |reply| outcome.hear(reply))?;
        outcome.clear_line();
        match answered {
            None => unmount_dead(&mountpoint),
            Some(()) => outcome.conclude(&mountpoint),
        }
    }
}

/// Nobody listens: the process was killed, or this is no mount of ours.
fn unmount_dead(mountpoint: &Path) -> Result<(), Failure> {
    match mount::silence(mountpoint) {
        mount::Error::Dead(_) => Ok(mount::unmount(mountpoint, true)?),
        other => Err(other.into()),
    }
}

/// What the mount has told so far.
#[derive(Default)]
struct Outcome {
    refused: Option<Failure>,
    left: Option<Vec<Left>>,
    shown: bool,
}

impl Outcome {
    fn hear(&mut self, reply: Reply) {
        match reply {
            Reply::Storing { files } => self.show(files),
            Reply::Refused(failure) => self.refused = Some(failure),
            Reply::Unmounted { left } => self.left = Some(left),
            _ => {}
        }
    }

    fn show(&mut self, files: u64) {
        if files > 0 && super::is_watched() {
            self.shown = true;
            let _ = write!(std::io::stderr(), "\r\x1b[Kstoring {files} file(s) …");
        }
    }

    fn clear_line(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    fn conclude(self, mountpoint: &Path) -> Result<(), Failure> {
        if let Some(failure) = self.refused {
            return Err(failure);
        }
        let left = self.left.ok_or_else(|| {
            Failure::new(Kind::Local, "the mount's process ended before everything was stored")
                .hint("mount the bucket again at the same place: what is left is stored then")
        })?;
        if left.is_empty() {
            return Ok(());
        }
        for file in &left {
            let _ = writeln!(std::io::stderr(), "not stored: {}: {}", printable(&file.path), printable(&file.cause));
        }
        Err(Failure::new(
            Kind::Deadline,
            format!("{} is unmounted, but {} file(s) could not be stored", mountpoint.display(), left.len()),
        )
        .hint("they are kept: mount the bucket again at the same place, and they are stored"))
    }
}
