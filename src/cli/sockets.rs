//! Where running mounts listen, and how they are asked.

use std::path::{Path, PathBuf};

use crate::app::control::{self, Reply, Request};
use crate::app::{self, Failure, Status};
use crate::error::Kind;
use crate::mount;

/// The control socket of a mount.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Socket {
    path: PathBuf,
    pub(super) mountpoint: PathBuf,
}

impl Socket {
    /// Of what is mounted there.
    pub(super) fn at(mountpoint: &Path) -> Result<Self, Failure> {
        Self::of(mount::named(mountpoint)?)
    }

    /// Of the mount that a path lies on, and the path in that mount.
    pub(super) fn holding(path: &Path) -> Result<(Self, String), Failure> {
        let (mountpoint, below) = mount::holding(path)?;
        let Some(below) = below.to_str() else {
            return Err(Failure::new(Kind::Usage, format!("{} is not UTF-8, as every key is", path.display())));
        };
        Ok((Self::of(mountpoint)?, below.to_owned()))
    }

    fn of(mountpoint: PathBuf) -> Result<Self, Failure> {
        Ok(Self { path: app::socket_path(&app::run_dir()?, &mountpoint), mountpoint })
    }

    /// Asks, and hands each reply to `heard` until there is no more. What is refused is an error.
    pub(super) fn ask(&self, request: &Request, mut heard: impl FnMut(Reply)) -> Result<(), Failure> {
        let mut refused = None;
        let answered = control::ask(&self.path, request, |reply| match reply {
            Reply::Refused(failure) => refused = Some(failure),
            reply => heard(reply),
        })?;
        match (answered, refused) {
            (None, _) => Err(mount::silence(&self.mountpoint).into()),
            (_, Some(failure)) => Err(failure),
            (Some(()), None) => Ok(()),
        }
    }

    /// Asks for one answer, which `pick` knows among the signs of life.
    pub(super) fn ask_for<T>(&self, request: &Request, mut pick: impl FnMut(Reply) -> Option<T>) -> Result<T, Failure> {
        let mut answer = None;
        self.ask(request, |reply| {
            if let Some(picked) = pick(reply) {
                answer = Some(picked);
            }
        })?;
        answer.ok_or_else(|| Failure::new(Kind::Local, "the mount ended before it was done"))
    }

    pub(super) fn status(&self) -> Result<Status, Failure> {
        self.ask_for(&Request::Status, |reply| match reply {
            Reply::Status(status) => Some(*status),
            _ => None,
        })
    }
}

/// All mounts of this user that answer.
pub(super) fn all_statuses() -> Result<Vec<Status>, Failure> {
    let mut found = Vec::new();
    for path in control::all_sockets(&app::run_dir()?) {
        // One that hangs does not hide the others.
        let _ = control::ask(&path, &Request::Status, |reply| {
            if let Reply::Status(status) = reply {
                found.push(*status);
            }
        });
    }
    Ok(found)
}
