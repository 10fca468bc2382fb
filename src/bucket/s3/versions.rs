//! The versions of one key, in a bucket that keeps them: asked for seldom, so outside of the trait.

use std::collections::BTreeSet;
use std::time::SystemTime;

use aws_sdk_s3::types::{CommonPrefix, EncodingType, ObjectVersion};

use super::S3Bucket;
use super::errors::plain;
use super::listing::decode;
use super::read::whole_seconds;
use super::write::{copy_source, tag};
use crate::bucket::{ETag, Result, StorageClass};
use crate::error::Kind;

const LIST: &str = "ListObjectVersions";
const COPY: &str = "CopyObject";
const DELETE: &str = "DeleteObject";

/// One version of a key, or the marker that a deletion left.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// `null` for what was written before the bucket kept versions.
    pub id: String,
    /// Of a marker there is none.
    pub etag: Option<ETag>,
    /// Bytes.
    pub size: u64,
    pub modified: SystemTime,
    /// What a GET without a version answers with.
    pub is_latest: bool,
    pub storage_class: Option<StorageClass>,
}

impl Version {
    /// Whether it says only that the key was deleted.
    #[must_use]
    pub fn is_marker(&self) -> bool {
        self.etag.is_none()
    }
}

impl S3Bucket {
    /// `ListObjectVersions` of one key, the newest first: all of them, in as many requests as that takes.
    ///
    /// # Errors
    /// As of any request; [`Kind::AccessDenied`] without `s3:ListBucketVersions`, [`Kind::Unsupported`] of a directory
    /// bucket.
    pub async fn versions(&self, key: &str) -> Result<Vec<Version>> {
        if self.is_directory {
            return Err(plain(
                Kind::Unsupported,
                LIST,
                key,
                "a directory bucket (S3 Express One Zone) keeps no versions",
            ));
        }
        let (mut versions, mut after_key, mut after_id) = (Vec::new(), None, None);
        loop {
            let call = self.client.list_object_versions().bucket(&self.name).prefix(key);
            let call = call.set_key_marker(after_key.clone()).set_version_id_marker(after_id.clone());
            let output = self.send(LIST, key, call.encoding_type(EncodingType::Url).send()).await?;
            let encoded = output.encoding_type == Some(EncodingType::Url);
            let is_it =
                |listed: Option<&str>| listed.and_then(|listed| decode(listed, encoded)).as_deref() == Some(key);
            let stored = output.versions.unwrap_or_default().into_iter().filter(|version| is_it(version.key()));
            versions.extend(stored.map(|version| Version {
                id: version.version_id.unwrap_or_default(),
                etag: Some(ETag::new(&version.e_tag.unwrap_or_default())),
                size: version.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
                modified: whole_seconds(version.last_modified),
                is_latest: version.is_latest.unwrap_or_default(),
                storage_class: version.storage_class.map(|class| StorageClass::from(class.as_str().to_owned())),
            }));
            let markers = output.delete_markers.unwrap_or_default().into_iter().filter(|marker| is_it(marker.key()));
            versions.extend(markers.map(|marker| Version {
                id: marker.version_id.unwrap_or_default(),
                etag: None,
                size: 0,
                modified: whole_seconds(marker.last_modified),
                is_latest: marker.is_latest.unwrap_or_default(),
                storage_class: None,
            }));
            let next = (output.next_key_marker.and_then(|next| decode(&next, encoded)), output.next_version_id_marker);
            // Keys come in order: behind ours there is none of it.
            if output.is_truncated != Some(true) || next.0.as_deref() != Some(key) || next == (after_key, after_id) {
                break;
            }
            (after_key, after_id) = next;
        }
        // Two lists came, each in order; where their times are the same the latest goes first.
        versions.sort_by_key(|version| (std::cmp::Reverse(version.modified), !version.is_latest));
        Ok(versions)
    }

    /// Names below a prefix, up to their next `/`, of which there are versions: of files, deleted ones too, and of
    /// directories that have any below them. `ListObjectVersions`, in as many requests as that takes.
    ///
    /// # Errors
    /// As of [`S3Bucket::versions`].
    pub async fn names_with_versions(&self, prefix: &str) -> Result<BTreeSet<String>> {
        let (mut names, mut after_key, mut after_id) = (BTreeSet::new(), None, None);
        loop {
            let call = self.client.list_object_versions().bucket(&self.name).prefix(prefix).delimiter("/");
            let call = call.set_key_marker(after_key.clone()).set_version_id_marker(after_id.clone());
            let output = self.send(LIST, prefix, call.encoding_type(EncodingType::Url).send()).await?;
            let encoded = output.encoding_type == Some(EncodingType::Url);
            let files = output.versions().iter().filter_map(ObjectVersion::key);
            let directories = output.common_prefixes().iter().filter_map(CommonPrefix::prefix);
            let keys = files.chain(directories).filter_map(|key| decode(key, encoded));
            let below = keys.filter_map(|key| Some(key.strip_prefix(prefix)?.trim_end_matches('/').to_owned()));
            names.extend(below.filter(|name| !name.is_empty()));
            let next = output.next_key_marker.as_deref().and_then(|next| decode(next, encoded));
            let next = (next, output.next_version_id_marker);
            if output.is_truncated != Some(true) || next == (after_key, after_id) {
                return Ok(names);
            }
            (after_key, after_id) = next;
        }
    }

    /// `DeleteObject` of one version: it is gone for good, and what is beneath it is the latest.
    ///
    /// # Errors
    /// As of any request.
    pub async fn delete_version(&self, key: &str, id: &str) -> Result<()> {
        let call = self.client.delete_object().bucket(&self.name).key(key).version_id(id);
        self.send(DELETE, key, call.send()).await?;
        Ok(())
    }

    /// Copies an older version over what the key holds now, with all that it carries (at most 5 GiB).
    ///
    /// # Errors
    /// As of any request; [`Kind::NotFound`] when there is no such version.
    pub async fn copy_version(&self, key: &str, version: &Version) -> Result<ETag> {
        let source = format!("{}?versionId={}", copy_source(&self.name, key), version.id);
        let class = self.class_to_write(version.storage_class.as_ref(), key);
        let call = self.client.copy_object().bucket(&self.name).key(key).copy_source(source).set_storage_class(class);
        let output = self.send_slow(COPY, key, call.send()).await?;
        let copied = output.copy_object_result.ok_or_else(|| plain(Kind::Corrupt, COPY, key, "no result"))?;
        tag(COPY, key, copied.e_tag)
    }
}
