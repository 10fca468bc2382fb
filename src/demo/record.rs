//! What is remembered: versions of objects, and the records that the log holds of every change.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::checksums::Checksum;

/// The version id of objects in buckets without versioning.
pub(super) const NULL_VERSION: &str = "null";

/// One change of the store. Replaying all of them in order makes the catalog.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Record {
    CreateBucket {
        bucket: String,
        created_s: i64,
    },
    DeleteBucket {
        bucket: String,
    },
    SetVersioning {
        bucket: String,
        versioning: Versioning,
    },
    /// Becomes the latest version of its key; replaces one of the same version id.
    Put {
        bucket: String,
        key: String,
        version: Box<Version>,
    },
    /// Removes one version for good.
    Remove {
        bucket: String,
        key: String,
        version_id: String,
    },
    SetTags {
        bucket: String,
        key: String,
        version_id: String,
        tags: Tags,
    },
}

/// Object tags in the order given.
pub(super) type Tags = Vec<(String, String)>;

/// Whether a bucket keeps old versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Versioning {
    /// Never was switched on.
    #[default]
    Off,
    Enabled,
    /// New objects get the version id `null`; older versions stay.
    Suspended,
}

/// One version of a key: an object or a delete marker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Version {
    /// Unique among the versions of its key.
    pub id: String,
    /// Seconds since 1970: HTTP dates have no finer unit, so listings tell none either.
    pub modified_s: i64,
    /// `None` = a delete marker.
    pub object: Option<Object>,
}

/// What a version holds when it is no delete marker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Object {
    /// Without quotes: the MD5 of the bytes in hex, or `md5-N` after a multipart upload.
    pub etag: String,
    pub size: u64,
    pub content: Vec<Extent>,
    pub headers: Headers,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Tags,
    pub checksum: Checksum,
    /// The parts of a multipart upload, in order; empty for a simple PUT.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartSize>,
}

/// A stretch of a body. Copies and completed uploads point into bodies instead of copying them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Extent {
    pub body: u64,
    pub offset: u64,
    pub length: u64,
}

/// A part as `GetObjectAttributes` and `GET ?partNumber` tell it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PartSize {
    pub number: u16,
    pub size: u64,
    pub checksum: String,
}

/// Headers that a client stores with an object and gets back with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Headers {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_disposition: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_language: Option<String>,
    /// Seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_s: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub website_redirect: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    /// The `x-amz-server-side-encryption` asked for; remembered and told, bodies stay in clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    /// `x-amz-meta-` names without that prefix, lower case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// Seconds since 1970, now.
pub(super) fn now_s() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}
