//! `s3mount hooks deploy [FILE | -c FILE] [MOUNTPOINT]`, `remove NAME [MOUNTPOINT]`

use std::path::{Path, PathBuf};

use super::joined;
use crate::app::control::{HooksRequest, Reply, Request};
use crate::app::{Failure, Switched};
use crate::cli::sockets::{Socket, all_statuses};
use crate::cli::{pretty, say};
use crate::error::Kind;
use crate::telemetry::printable;

#[derive(Debug, clap::Args)]
pub(super) struct Deploy {
    /// Settings: a hooks.toml or a serverless.yml; without it, the mount's own --hooks file is read again
    file: Option<PathBuf>,
    /// The mount [default: that of the current directory, or the only one there is]
    mountpoint: Option<PathBuf>,
    /// The same as FILE, as `serverless deploy` has it
    #[arg(short = 'c', long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Remove {
    /// The hook
    name: String,
    /// The mount [default: that of the current directory, or the only one there is]
    mountpoint: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl Deploy {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (file, mountpoint) = self.meant()?;
        let file = file.map(std::path::absolute).transpose().map_err(|cause| {
            Failure::new(Kind::Usage, format!("there is no current directory to find the file in: {cause}"))
        })?;
        let switched = change(mountpoint, HooksRequest::Deploy { file })?;
        say(&if self.json { pretty(&switched) } else { told(&switched) });
        Ok(())
    }

    /// The file and the mountpoint: with -c the first word is the mountpoint, and so is a lone directory.
    fn meant(&self) -> Result<(Option<&Path>, Option<&Path>), Failure> {
        let (first, second) = (self.file.as_deref(), self.mountpoint.as_deref());
        match (&self.config, first, second) {
            (Some(_), Some(_), Some(_)) => {
                Err(Failure::new(Kind::Usage, "a file, and another with -c").hint("give one of them"))
            }
            (Some(config), mountpoint, None) => Ok((Some(config), mountpoint)),
            (None, Some(directory), None) if directory.is_dir() => Ok((None, Some(directory))),
            (_, file, mountpoint) => Ok((file, mountpoint)),
        }
    }
}

impl Remove {
    pub(super) fn run(self) -> Result<(), Failure> {
        let switched = change(self.mountpoint.as_deref(), HooksRequest::Remove { hook: self.name })?;
        say(&if self.json { pretty(&switched) } else { told(&switched) });
        Ok(())
    }
}

fn change(mountpoint: Option<&Path>, ask: HooksRequest) -> Result<Switched, Failure> {
    socket(mountpoint)?.ask_for(&Request::Hooks { ask }, |reply| match reply {
        Reply::Switched(switched) => Some(*switched),
        _ => None,
    })
}

/// Also of a mount that has no hooks yet.
fn socket(mountpoint: Option<&Path>) -> Result<Socket, Failure> {
    if let Some(mountpoint) = mountpoint {
        return Socket::at(mountpoint);
    }
    if let Ok((socket, _)) = Socket::holding(Path::new(".")) {
        return Ok(socket);
    }
    match &all_statuses()?[..] {
        [one] => Socket::at(&one.mountpoint),
        [] => Err(Failure::new(Kind::Usage, "nothing of yours is mounted").hint("mount first: s3mount BUCKET DIR")),
        _ => Err(Failure::new(Kind::Usage, "several mounts are there").hint("say which: name its MOUNTPOINT")),
    }
}

fn told(switched: &Switched) -> String {
    let mut lines = Vec::new();
    for (what, names) in [("added", &switched.added), ("replaced", &switched.replaced), ("removed", &switched.removed)]
    {
        for name in names {
            let waits = switched.waited_for.contains(name);
            let rest = if waits { "; its events wait until a hook of this name is there" } else { "" };
            lines.push(format!("{what:<8} {}{rest}", printable(name)));
        }
    }
    if lines.is_empty() {
        lines.push("there are no hooks in it".into());
    }
    joined(&lines)
}
