//! `s3mount sync [MOUNTPOINT]`

use std::path::{Path, PathBuf};

use super::progress::Progress;
use super::storing;
use crate::app::control::{self, Reply, Request};
use crate::app::{self, Failure, Left};
use crate::config::Span;
use crate::error::Kind;
use crate::mount;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where a bucket is mounted, or a path below; without it, all mounts of this user
    mountpoint: Option<PathBuf>,
    /// Give up what is not stored by then [default: as long as S3 answers]
    #[arg(long, value_name = "TIME")]
    timeout: Option<Span>,
}

impl Arguments {
    /// Returns when everything that was closed before is in S3. Nothing is printed: it worked.
    pub(super) fn run(self) -> Result<(), Failure> {
        let run_dir = app::run_dir()?;
        let request = Request::Sync { timeout_ms: self.timeout.map(|span| span.0.as_millis() as u64) };
        let Some(mountpoint) = self.mountpoint else {
            // One that cannot be stored keeps no other waiting.
            let outcomes: Vec<_> = control::all_sockets(&run_dir).iter().map(|socket| sync(socket, &request)).collect();
            return outcomes.into_iter().find_map(Result::err).map_or(Ok(()), Err);
        };
        let mountpoint = mount::above(&mountpoint)?;
        match sync(&app::socket_path(&run_dir, &mountpoint), &request)? {
            Some(()) => Ok(()),
            None => Err(mount::silence(&mountpoint).into()),
        }
    }
}

/// `None`: nobody listens there.
fn sync(socket: &Path, request: &Request) -> Result<Option<()>, Failure> {
    let (mut left, mut progress) = (None, Progress::default());
    let answered = control::ask(socket, request, |reply| match reply {
        Reply::Storing { files } => storing::show(&mut progress, files),
        Reply::Synced { left: told } => left = Some(told),
        _ => {}
    });
    progress.clear();
    match (answered?, left) {
        (None, _) => Ok(None),
        (Some(()), Some(left)) => conclude(&left).map(Some),
        (Some(()), None) => Err(storing::cut_off()),
    }
}

fn conclude(left: &[Left]) -> Result<(), Failure> {
    storing::tell(left);
    if left.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Kind::Deadline, format!("{} file(s) are not stored yet", left.len()))
        .hint("they are kept, and the mount goes on trying; `s3mount status` tells why"))
}
