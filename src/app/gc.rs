//! Finds multipart uploads that nobody completes any more, and aborts them: S3 bills their parts.
//!
//! What a mount of this machine began is in its journal and aborted by its next start. Left over are
//! uploads of machines that never came back, and of other programs. Nothing tells them from one that
//! is under way just now but their age: so they are only told, and aborted on demand.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::stream::{self, StreamExt};

use super::{Failure, rooms, serve};
use crate::bucket::{self, Bucket, PendingUpload};
use crate::config::Config;
use crate::error::Kind;

/// Aborts under way at once.
const PARALLEL_ABORTS: usize = 8;

/// What became of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Younger than the bound: may be under way.
    Young,
    /// Older than the bound, and left.
    Old,
    Aborted,
    /// Why it could not be aborted.
    Failed(String),
}

/// An upload that was begun and neither completed nor aborted.
#[derive(Clone, Debug)]
pub struct Incomplete {
    pub key: String,
    pub upload_id: String,
    pub initiated: SystemTime,
    /// Of the server's clock and ours; zero where ours is behind.
    pub age: Duration,
    pub fate: Fate,
}

/// All incomplete uploads below the prefix of `config`, the oldest first; with `delete`, those that
/// are at least `older_than` old are aborted. Must be called before any thread is started.
///
/// # Errors
/// When the bucket cannot be reached or listed.
pub fn gc(config: &Config, older_than: Duration, delete: bool) -> Result<Vec<Incomplete>, Failure> {
    let mut found = Vec::new();
    serve::on_runtime(async {
        let bucket = rooms::connect_untried(config).await?.bucket;
        let uploads = bucket.list_uploads(config.sources.root_prefix()).await?;
        found = settle(&bucket, uploads, older_than, delete).await;
        Ok(())
    })?;
    Ok(found)
}

async fn settle(
    bucket: &Arc<dyn Bucket>,
    uploads: Vec<PendingUpload>,
    older_than: Duration,
    delete: bool,
) -> Vec<Incomplete> {
    let now = SystemTime::now();
    let settling = uploads.into_iter().map(|upload| async move {
        let age = now.duration_since(upload.initiated).unwrap_or_default();
        let fate = match (age >= older_than, delete) {
            (false, _) => Fate::Young,
            (true, false) => Fate::Old,
            (true, true) => fate_of(bucket.abort_upload(&upload.key, &upload.upload_id).await),
        };
        Incomplete { key: upload.key, upload_id: upload.upload_id, initiated: upload.initiated, age, fate }
    });
    let mut found: Vec<_> = stream::iter(settling).buffer_unordered(PARALLEL_ABORTS).collect().await;
    found.sort_by(|a, b| (a.initiated, &a.key, &a.upload_id).cmp(&(b.initiated, &b.key, &b.upload_id)));
    found
}

fn fate_of(aborted: bucket::Result<()>) -> Fate {
    match aborted {
        // Completed or aborted by somebody meanwhile.
        Err(error) if error.kind == Kind::NoSuchUpload => Fate::Aborted,
        Err(error) => Fate::Failed(error.to_string()),
        Ok(()) => Fate::Aborted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::PutOptions;
    use crate::bucket::memory::{Effect, Fault, MemoryBucket};

    #[tokio::test]
    async fn only_old_uploads_are_aborted_and_only_on_demand() {
        let memory = Arc::new(MemoryBucket::new());
        let bucket: Arc<dyn Bucket> = memory.clone();
        for key in ["p/a", "p/b"] {
            bucket.create_upload(key, &PutOptions::default()).await.unwrap();
        }
        let listed = || async { bucket.list_uploads("p/").await.unwrap() };
        let fates = |found: Vec<Incomplete>| found.into_iter().map(|one| one.fate).collect::<Vec<_>>();
        let day = Duration::from_hours(24);
        assert_eq!(fates(settle(&bucket, listed().await, day, true).await), [Fate::Young, Fate::Young]);
        assert_eq!(fates(settle(&bucket, listed().await, Duration::ZERO, false).await), [Fate::Old, Fate::Old]);
        assert_eq!(listed().await.len(), 2);
        memory.inject(Fault::once("AbortMultipartUpload", Effect::Fail(Kind::AccessDenied)).on_key("p/a"));
        let fates = fates(settle(&bucket, listed().await, Duration::ZERO, true).await);
        assert!(matches!(&fates[..], [Fate::Failed(_), Fate::Aborted]), "{fates:?}");
        assert_eq!(listed().await.len(), 1);
    }
}
