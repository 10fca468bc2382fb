//! `.versions`: what a bucket that keeps versions has of each name, as directories that can only be read.
//!
//! Seen from above it is part of the bucket. `DIR/.versions/` has a directory for each name that has versions in `DIR`,
//! deleted ones too, and `DIR/.versions/NAME/` an object for each of its versions, called by its time and id. Directories
//! are shown in the same way, so that what was deleted with one is found as well. No listing of `DIR` tells of `.versions`.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use time::OffsetDateTime;
use time::format_description::StaticFormatDescription;
use time::macros::format_description;

use super::s3::{S3Bucket, Version};
use super::upload::Arriving;
use super::{
    Bucket, Condition, CopyRequest, Deletion, ETag, Error, Fetched, ListPage, ListRequest, Listed, Metadata,
    ObjectInfo, Part, PendingUpload, Properties, PutOptions, Result, Sink,
};
use crate::error::Kind;
use crate::key;

/// How the name of a version begins; behind it are a `-` and the id.
const TIME: StaticFormatDescription = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
const TIME_CHARS: usize = "2026-11-27T10:15:00Z".len();
/// Version of a directory, which is no object.
const DIRECTORY_TAG: &str = "versions";

/// A bucket with the older versions of its objects in it.
#[derive(Debug)]
pub struct History {
    inner: S3Bucket,
    /// Of the mount: what is above it has no history here.
    prefix: String,
}

/// What a key stands for.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    /// The history of what lies at or below this key, which ends in `/` or is that of the root.
    Directory(String),
    Version {
        key: String,
        id: &'a str,
    },
    Nothing,
}

impl History {
    /// This bucket, with the histories of what lies below the prefix.
    #[must_use]
    pub fn over(inner: S3Bucket, prefix: &str) -> Self {
        Self { inner, prefix: prefix.to_owned() }
    }

    /// `None` for what lies outside of all histories.
    fn place<'a>(&self, key: &'a str) -> Option<Place<'a>> {
        let (directory, below) = key::split_versions(key.strip_prefix(self.prefix.as_str())?)?;
        let real = |below: &str| format!("{}{directory}{below}", self.prefix);
        if below.is_empty() || below.ends_with('/') {
            return Some(Place::Directory(real(below)));
        }
        let version = below.rsplit_once('/').and_then(|(object, name)| Some((object, id_in(name)?)));
        Some(version.map_or(Place::Nothing, |(object, id)| Place::Version { key: real(object), id }))
    }

    /// Nothing is written into a history.
    fn real(&self, operation: &'static str, key: &str) -> Result<()> {
        if self.place(key).is_some() { Err(read_only(operation, key)) } else { Ok(()) }
    }

    /// All of it in one page: names of files and of directories are one order here, and two in the bucket.
    async fn list_history(&self, request: &ListRequest, of: &str) -> Result<ListPage> {
        if !request.delimited {
            // A guess of what will be read would ask for the versions of everything.
            return Err(read_only("ListObjectsV2", &request.prefix));
        }
        let names: BTreeSet<String> = self.inner.names_with_versions(of).await?;
        // The history of a directory itself is that of its marker, and of no use.
        let is_outermost = request.prefix.ends_with(&format!("{}/", key::VERSIONS_DIR));
        let versions = match of.strip_suffix('/') {
            Some(object) if !is_outermost => self.inner.versions(object).await?,
            _ => Vec::new(),
        };
        let told = |version: &Version| {
            let etag = version.etag.clone()?;
            let (key, size) = (format!("{}{}", request.prefix, name_of(version)), version.size);
            let (modified, storage_class) = (version.modified, version.storage_class.clone());
            // No checksum of ours: nobody asks what it carries.
            Some(Listed { key, etag, size, modified, storage_class, checksums: Vec::new() })
        };
        let mut objects: Vec<Listed> = versions.iter().filter_map(told).collect();
        if is_outermost {
            let (key, etag, modified) = (request.prefix.clone(), ETag::new(DIRECTORY_TAG), SystemTime::UNIX_EPOCH);
            objects.push(Listed { key, etag, size: 0, modified, storage_class: None, checksums: Vec::new() });
        }
        objects.sort_by(|one, other| one.key.cmp(&other.key));
        let mut prefixes: Vec<String> = names.iter().map(|name| format!("{}{name}/", request.prefix)).collect();
        prefixes.sort();
        let is_after = |key: &String| request.start_after.as_ref().is_none_or(|after| key > after);
        objects.retain(|object| is_after(&object.key));
        prefixes.retain(is_after);
        Ok(ListPage { objects, prefixes, next: None })
    }
}

fn name_of(version: &Version) -> String {
    // S3 is younger than the years that have another form.
    let time = OffsetDateTime::from(version.modified).format(TIME).unwrap_or_default();
    format!("{time}-{}", version.id)
}

/// The id in a name that [`name_of`] has made.
fn id_in(name: &str) -> Option<&str> {
    let (time, id) = name.split_at_checked(TIME_CHARS)?;
    time::PrimitiveDateTime::parse(time, TIME).ok()?;
    id.strip_prefix('-').filter(|id| !id.is_empty())
}

fn read_only(operation: &'static str, key: &str) -> Error {
    failure(Kind::ReadOnly, operation, key, "older versions can only be read")
}

fn no_such_key(operation: &'static str, key: &str) -> Error {
    failure(Kind::NotFound, operation, key, "NoSuchKey: it names no version")
}

fn failure(kind: Kind, operation: &'static str, key: &str, cause: &str) -> Error {
    Error { kind, operation, key: key.to_owned(), cause: cause.to_owned(), http_status: None, request_id: None }
}

fn directory() -> ObjectInfo {
    ObjectInfo {
        etag: ETag::new(DIRECTORY_TAG),
        size: 0,
        modified: SystemTime::UNIX_EPOCH,
        metadata: Metadata::new(),
        properties: Properties::default(),
        version_id: None,
        archived: false,
    }
}

#[async_trait]
impl Bucket for History {
    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        match self.place(key) {
            None => self.inner.head(key).await,
            Some(Place::Version { key, id }) => self.inner.at_version(id).head(&key).await,
            Some(Place::Directory(_)) if key.ends_with(&format!("{}/", key::VERSIONS_DIR)) => Ok(directory()),
            Some(_) => Err(no_such_key("HeadObject", key)),
        }
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>, if_match: Option<&ETag>) -> Result<Fetched> {
        match self.place(key) {
            None => self.inner.get(key, range, if_match).await,
            Some(Place::Version { key, id }) => self.inner.at_version(id).get(&key, range, if_match).await,
            Some(_) => Err(no_such_key("GetObject", key)),
        }
    }

    async fn get_into(&self, key: &str, range: Range<u64>, etag: &ETag, sink: &dyn Sink) -> Result<()> {
        match self.place(key) {
            None => self.inner.get_into(key, range, etag, sink).await,
            Some(Place::Version { key, id }) => self.inner.at_version(id).get_into(&key, range, etag, sink).await,
            Some(_) => Err(no_such_key("GetObject", key)),
        }
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        match self.place(&request.prefix) {
            None => self.inner.list(request).await,
            Some(Place::Directory(of)) => self.list_history(request, &of).await,
            Some(_) => Ok(ListPage::default()),
        }
    }

    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<ETag> {
        self.real("PutObject", key)?;
        self.inner.put(key, body, options).await
    }

    async fn copy(&self, request: &CopyRequest) -> Result<ETag> {
        self.real("CopyObject", &request.from)?;
        self.real("CopyObject", &request.to)?;
        self.inner.copy(request).await
    }

    async fn delete(&self, key: &str, if_match: Option<&ETag>) -> Result<()> {
        self.real("DeleteObject", key)?;
        self.inner.delete(key, if_match).await
    }

    async fn delete_many(&self, deletions: &[Deletion]) -> Result<Vec<(String, Error)>> {
        self.inner.delete_many(deletions).await
    }

    async fn create_upload(&self, key: &str, options: &PutOptions) -> Result<String> {
        self.real("CreateMultipartUpload", key)?;
        self.inner.create_upload(key, options).await
    }

    async fn upload_part(&self, key: &str, upload_id: &str, number: u16, body: Bytes) -> Result<Part> {
        self.inner.upload_part(key, upload_id, number, body).await
    }

    async fn upload_arriving_part(&self, key: &str, id: &str, number: u16, part: &Arc<Arriving>) -> Result<Part> {
        self.inner.upload_arriving_part(key, id, number, part).await
    }

    async fn copy_part(
        &self,
        key: &str,
        upload_id: &str,
        number: u16,
        from: &CopyRequest,
        range: Range<u64>,
    ) -> Result<Part> {
        self.inner.copy_part(key, upload_id, number, from, range).await
    }

    async fn complete_upload(&self, key: &str, upload_id: &str, parts: &[Part], condition: &Condition) -> Result<ETag> {
        self.inner.complete_upload(key, upload_id, parts, condition).await
    }

    async fn abort_upload(&self, key: &str, upload_id: &str) -> Result<()> {
        self.inner.abort_upload(key, upload_id).await
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        self.inner.list_uploads(prefix).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_version_gives_its_id_back() {
        let modified = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_795_774_500_999);
        let version = Version {
            id: "a-b.c_d".into(),
            etag: Some(ETag::new("t")),
            size: 1,
            modified,
            is_latest: true,
            storage_class: None,
        };
        assert_eq!(name_of(&version), "2026-11-27T10:15:00Z-a-b.c_d");
        assert_eq!(id_in(&name_of(&version)), Some("a-b.c_d"));
        for other in ["report.txt", "2026-11-27T10:15:00Z", "2026-11-27T10:15:00Z-", "2026-13-27T10:15:00Z-x", "ä"] {
            assert_eq!(id_in(other), None, "{other}");
        }
    }
}
