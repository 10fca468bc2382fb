//! What commands ask of a running mount apart from its end, and of a cache directory that none may be
//! using.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use tokio::sync::mpsc;

use super::control::Reply;
use super::status::Facts;
use super::{Failure, Left};
use crate::cache::{DiskCache, Warming};
use crate::error::Kind;

pub use crate::cache::DiskDirectory as CacheDirectory;

/// How often whoever waits hears how far it is.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// What lies in a cache directory. None is an empty one.
///
/// # Errors
/// When it is not this user's.
pub fn look_into(directory: &Path) -> Result<CacheDirectory, Failure> {
    Ok(DiskCache::look_into(directory)?)
}

/// Removes the cached bytes in a cache directory, and nothing else; what was there.
///
/// # Errors
/// When it is not this user's.
pub fn clear_directory(directory: &Path) -> Result<CacheDirectory, Failure> {
    Ok(DiskCache::clear_directory(directory)?)
}

impl Facts {
    pub(super) async fn sync(&self, deadline: Option<Duration>, tell: &mpsc::Sender<Reply>) -> Reply {
        let mut syncing = std::pin::pin!(self.rooms.sync(deadline));
        let mut tick = tokio::time::interval(PROGRESS_EVERY);
        loop {
            tokio::select! {
                left = &mut syncing => return Reply::Synced { left },
                _ = tick.tick() => {
                    // Who hears none of these goes on waiting for the next.
                    let _ = tell.try_send(Reply::Storing { files: self.rooms.dirty_files() });
                }
            }
        }
    }

    pub(super) async fn invalidate(&self, paths: &[String]) -> Reply {
        for path in paths {
            if let Err(error) = self.rooms.fs.invalidate(path).await {
                let place = self.mountpoint.join(path);
                let kind = if error.errno() == Errno::ENOENT { Kind::NotFound } else { Kind::Local };
                return Reply::Refused(Failure::new(kind, format!("{}: {error}", place.display())));
            }
        }
        Reply::Done
    }

    pub(super) async fn clear(&self, directory: &Path) -> Reply {
        if let Some(disk) = self.rooms.disk.clone().filter(|disk| is_same(disk.directory(), directory)) {
            // A removal that panicked was logged; what is left is seen in the numbers.
            let _ = tokio::task::spawn_blocking(move || disk.clear()).await;
        }
        Reply::Done
    }

    pub(super) async fn warm(&self, paths: &[String], tell: &mpsc::Sender<Reply>) -> Reply {
        let Some(disk) = self.rooms.disk.clone() else {
            return Reply::Refused(
                Failure::new(Kind::Usage, "this mount has no cache on disk").hint("mount without --cache-size 0"),
            );
        };
        let warming = Warming::new(Arc::clone(&self.rooms.connection.bucket), disk, self.rooms.warm_bytes);
        let prefix = &self.rooms.prefix;
        let work = async {
            for path in paths {
                warming.warm(&format!("{prefix}{path}")).await;
            }
        };
        let mut work = std::pin::pin!(work);
        let mut tick = tokio::time::interval(PROGRESS_EVERY);
        loop {
            tokio::select! {
                () = &mut work => break,
                _ = tick.tick() => {
                    let (files, bytes) = warming.progress();
                    // Who hears none of these goes on waiting for the next.
                    let _ = tell.try_send(Reply::Warming { files, bytes });
                }
            }
        }
        let (files, bytes) = warming.progress();
        let failed = warming.conclude().await.into_iter();
        let below = |key: String| key.strip_prefix(prefix.as_str()).map_or(key.clone(), str::to_owned);
        let failed = failed.map(|(key, cause)| Left { path: below(key), cause }).collect();
        Reply::Warmed { files, bytes, failed }
    }
}

/// Whether two paths are the same directory, also by other names.
fn is_same(one: &Path, other: &Path) -> bool {
    one == other || one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}
