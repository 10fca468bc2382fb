//! `s3mount versions` and `undelete`: what a bucket that keeps versions has of a file, and bringing it back.

use std::time::UNIX_EPOCH;

use super::Failure;
use super::control::Reply;
use super::status::Facts;
use crate::bucket::s3::{S3Bucket, Version};
use crate::error::Kind;

/// One version of a file, the newest first.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileVersion {
    pub id: String,
    /// Bytes; `None`: at this moment the file was deleted.
    pub size: Option<u64>,
    /// Seconds since the epoch.
    pub modified_s: u64,
    pub is_latest: bool,
    pub storage_class: Option<String>,
    pub etag: Option<String>,
}

impl FileVersion {
    fn of(version: &Version) -> Self {
        Self {
            id: version.id.clone(),
            size: (!version.is_marker()).then_some(version.size),
            modified_s: version.modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            is_latest: version.is_latest,
            storage_class: version.storage_class.as_ref().map(ToString::to_string),
            etag: version.etag.as_ref().map(ToString::to_string),
        }
    }
}

impl Facts {
    pub(super) async fn versions(&self, path: &str) -> Reply {
        match self.versions_of(path).await {
            Ok(versions) => Reply::Versions(versions.iter().map(FileVersion::of).collect()),
            Err(failure) => Reply::Refused(failure),
        }
    }

    /// Brings a version of a file back: this one, else the last before it was deleted.
    pub(super) async fn undelete(&self, path: &str, id: Option<&str>) -> Reply {
        let brought = async {
            let versions = self.versions_of(path).await?;
            match id {
                Some(id) => self.bring_back(path, &versions, id).await?,
                None => self.take_marker_away(path, &versions).await?,
            }
            Ok(())
        };
        match brought.await {
            // It stands in another place of the listing now, or for the first time.
            Ok(()) => self.invalidate(&[path.to_owned()]).await,
            Err(failure) => Reply::Refused(failure),
        }
    }

    async fn versions_of(&self, path: &str) -> Result<Vec<Version>, Failure> {
        let (bucket, key) = self.there(path)?;
        let versions = bucket.versions(&key).await?;
        if versions.is_empty() {
            return Err(self
                .failure(path, "the bucket has no version of it")
                .hint("the path is that of a file, as it was"));
        }
        Ok(versions)
    }

    async fn bring_back(&self, path: &str, versions: &[Version], id: &str) -> Result<(), Failure> {
        let wanted = versions.iter().find(|version| version.id == id && !version.is_marker());
        let wanted = wanted.ok_or_else(|| {
            self.failure(path, &format!("no version {id}")).hint("`s3mount versions PATH` lists them")
        })?;
        let (bucket, key) = self.there(path)?;
        bucket.copy_version(&key, wanted).await?;
        Ok(())
    }

    async fn take_marker_away(&self, path: &str, versions: &[Version]) -> Result<(), Failure> {
        let markers = versions.iter().take_while(|version| version.is_marker());
        let markers: Vec<_> = markers.map(|marker| marker.id.as_str()).collect();
        if markers.is_empty() {
            return Err(self.failure(path, "it is not deleted").hint("--version ID brings an older version back"));
        }
        if markers.len() == versions.len() {
            return Err(self.failure(path, "nothing but its deletion is left in the bucket"));
        }
        let (bucket, key) = self.there(path)?;
        for id in markers {
            bucket.delete_version(&key, id).await?;
        }
        Ok(())
    }

    /// The bucket of a file, and its key there.
    fn there(&self, path: &str) -> Result<(&S3Bucket, String), Failure> {
        let key = format!("{}{path}", self.rooms.prefix);
        self.rooms.connection.direct.at(&key).map_err(|error| self.failure(path, &error.cause))
    }

    fn failure(&self, path: &str, what: &str) -> Failure {
        Failure::new(Kind::NotFound, format!("{}: {what}", self.mountpoint.join(path).display()))
    }
}
