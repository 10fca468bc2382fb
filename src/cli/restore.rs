//! `s3mount restore PATH [--days N] [--tier TIER] [--wait]`

use std::path::PathBuf;

use super::progress::Progress;
use super::sockets::Socket;
use crate::app::control::{Reply, Request};
use crate::app::{Failure, Left, Restore, RestoreTier};
use crate::error::Kind;
use crate::telemetry::printable;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// File of a mounted bucket, or a directory for all that is below it
    path: PathBuf,
    /// For so many days it can be read; S3 bills a second copy for as long
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    days: u32,
    /// How soon, and how dear
    #[arg(long, value_enum, default_value_t)]
    tier: RestoreTier,
    /// Return when it can be read
    #[arg(long)]
    wait: bool,
}

impl Arguments {
    /// Asks for archived objects. Without --wait the answer says that they will come.
    pub(super) fn run(self) -> Result<(), Failure> {
        let (socket, path) = Socket::holding(&self.path)?;
        let restore = Restore { path, days: self.days, tier: self.tier, wait: self.wait };
        let mut progress = Progress::default();
        let restored = socket.ask_for(&Request::Restore { restore }, |reply| match reply {
            Reply::Restoring { asked, ready } => {
                progress.show(format_args!("{ready} of {asked} can be read …"));
                None
            }
            Reply::Restored { asked, ready, failed } => Some((asked, ready, failed)),
            _ => None,
        });
        progress.clear();
        let (asked, ready, failed) = restored?;
        let on_their_way = asked - failed.len() as u64 - ready;
        if on_their_way > 0 {
            super::say(&format!("{on_their_way} on the way; with --wait this command ends when they can be read\n"));
        }
        conclude(&failed)
    }
}

fn conclude(failed: &[Left]) -> Result<(), Failure> {
    let Some(first) = failed.first() else { return Ok(()) };
    let (path, cause) = (printable(&first.path), printable(&first.cause));
    Err(Failure::new(Kind::Refused, format!("{} not restored, the first is {path}: {cause}", failed.len())))
}
