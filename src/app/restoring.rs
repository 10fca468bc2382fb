//! `s3mount restore`: brings archived objects back, and follows them until they can be read.

use std::time::Duration;

use futures::stream::{self, StreamExt};
use tokio::sync::mpsc;

use super::control::Reply;
use super::status::Facts;
use super::{Failure, Left};
use crate::bucket::s3::RestoreTier;
use crate::bucket::{self, ListRequest, Listed, StorageClass};
use crate::error::Kind;

/// Requests under way at once.
const PARALLEL: usize = 16;
/// Pauses between two looks at what is on its way, which takes minutes or hours: from the first to the
/// longest, each twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// What to bring back, and how.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Restore {
    /// In the mount; of a directory all that is below it.
    pub path: String,
    pub days: u32,
    pub tier: RestoreTier,
    /// Answer when all of it can be read.
    pub wait: bool,
}

impl Facts {
    pub(super) async fn restore(&self, restore: &Restore, tell: &mpsc::Sender<Reply>) -> Reply {
        let keys = match self.archived(&restore.path).await {
            Ok(keys) if keys.is_empty() => {
                let place = self.mountpoint.join(&restore.path);
                let told = format!("{}: nothing of it is archived", place.display());
                return Reply::Refused(
                    Failure::new(Kind::Usage, told).hint("what is in no archive can be read as it is"),
                );
            }
            Ok(keys) => keys,
            Err(error) => return Reply::Refused(error.into()),
        };
        let asked = keys.len() as u64;
        let direct = &self.rooms.connection.direct;
        let asking = stream::iter(keys).map(|key| async move {
            let asking = async {
                let (bucket, there) = direct.at(&key)?;
                bucket.restore(&there, restore.days, restore.tier).await
            };
            let answer = asking.await;
            (key, answer)
        });
        let answers: Vec<_> = asking.buffer_unordered(PARALLEL).collect().await;
        let (mut under_way, mut failed) = (Vec::new(), Vec::new());
        for (key, answer) in answers {
            match answer {
                Ok(()) => under_way.push(key),
                Err(error) => failed.push(self.left(&key, &error)),
            }
        }
        let mut ready = 0;
        let mut pause = FIRST_PAUSE;
        while restore.wait && !under_way.is_empty() {
            // Who hears none of these goes on waiting for the next.
            let _ = tell.try_send(Reply::Restoring { asked, ready });
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            let (waiting, lost) = self.still_archived(under_way).await;
            failed.extend(lost);
            under_way = waiting;
            ready = asked - (under_way.len() + failed.len()) as u64;
        }
        Reply::Restored { asked, ready, failed }
    }

    /// Keys of a path, and below it, whose objects lie in an archive.
    async fn archived(&self, path: &str) -> bucket::Result<Vec<String>> {
        let bucket = &self.rooms.connection.bucket;
        let key = format!("{}{path}", self.rooms.prefix);
        let mut keys = Vec::new();
        if !path.is_empty() {
            match bucket.head(&key).await {
                Ok(info) if info.archived => keys.push(key.clone()),
                Ok(_) => {}
                Err(error) if error.kind == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let prefix = if key.is_empty() || key.ends_with('/') { key } else { key + "/" };
        let mut request = ListRequest { prefix, any_order: true, ..ListRequest::default() };
        loop {
            let page = bucket.list(&request).await?;
            let in_archive = |object: &Listed| object.storage_class.as_ref().is_some_and(StorageClass::is_archive);
            let archived = page.objects.into_iter().filter(in_archive);
            keys.extend(archived.map(|object| object.key));
            match page.next {
                Some(token) => request.token = Some(token),
                None => return Ok(keys),
            }
        }
    }

    /// Those that cannot be read yet, and those of which that is not known.
    async fn still_archived(&self, keys: Vec<String>) -> (Vec<String>, Vec<Left>) {
        let bucket = &self.rooms.connection.bucket;
        let looks = stream::iter(keys).map(|key| async move {
            let found = bucket.head(&key).await;
            (key, found)
        });
        let found: Vec<_> = looks.buffer_unordered(PARALLEL).collect().await;
        let (mut waiting, mut lost) = (Vec::new(), Vec::new());
        for (key, found) in found {
            match found {
                Ok(info) if info.archived => waiting.push(key),
                Ok(_) => {}
                Err(error) => lost.push(self.left(&key, &error)),
            }
        }
        (waiting, lost)
    }

    fn left(&self, key: &str, error: &bucket::Error) -> Left {
        let path = key.strip_prefix(&self.rooms.prefix).unwrap_or(key).to_owned();
        Left { path, cause: error.to_string() }
    }
}
