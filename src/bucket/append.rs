//! Appends to objects of directory buckets: what is asked for, and how one is known again whose answer was lost.
//!
//! An append leaves an object's metadata as it is (AWS: `PutObject`, "Cannot specify both a write offset value and
//! user-defined object metadata for existing objects"), so no id in there tells that it was done. The size and the bytes
//! at the end of the object do.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Bucket, ETag, Error, ObjectInfo, Result, checksum};
use crate::error::Kind;

/// Bytes that are to follow those that an object has.
#[derive(Clone, Debug)]
pub struct AppendRequest {
    pub key: String,
    /// Append to this version or fail with [`Kind::Changed`].
    pub etag: ETag,
    /// Its size in bytes: where the new ones begin.
    pub offset: u64,
    /// The type that the object has. Whatever sends a body names one.
    pub content_type: Option<String>,
}

/// The end of an object, by which an append is known again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Size of the object that ends with it, in bytes.
    pub size: u64,
    /// CRC32C, base64.
    pub crc32c: String,
}

impl Tail {
    /// What an object has at its end once these bytes are appended at `offset`.
    #[must_use]
    pub fn of(offset: u64, bytes: &Bytes) -> Self {
        Self { offset, size: offset + bytes.len() as u64, crc32c: checksum::crc32c(bytes) }
    }

    /// What the key holds, if that ends so: a HEAD, and where the size fits a GET of these bytes.
    ///
    /// # Errors
    /// Those of the requests. An object that is not there, or changes meanwhile, does not end so.
    pub async fn find(&self, bucket: &dyn Bucket, key: &str) -> Result<Option<ObjectInfo>> {
        let found = async {
            let now = bucket.head(key).await?;
            Ok(self.is_end_of(bucket, key, &now).await?.then_some(now))
        };
        match found.await {
            Err(Error { kind: Kind::NotFound, .. }) => Ok(None),
            found => found,
        }
    }

    /// Whether the version that a HEAD has told of ends so.
    ///
    /// # Errors
    /// Those of a GET. An object that changes meanwhile does not end so.
    pub async fn is_end_of(&self, bucket: &dyn Bucket, key: &str, version: &ObjectInfo) -> Result<bool> {
        if version.size != self.size {
            return Ok(false);
        }
        match bucket.get(key, Some(self.offset..self.size), Some(&version.etag)).await {
            Ok(end) => Ok(end.info.etag == version.etag && checksum::crc32c(&end.bytes) == self.crc32c),
            Err(Error { kind: Kind::NotFound | Kind::Changed, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// [`Kind::Unsupported`], without a word to the server.
pub(super) fn cannot_append(key: &str) -> Error {
    let (key, cause) = (key.to_owned(), "only a directory bucket appends".to_owned());
    Error { kind: Kind::Unsupported, operation: "PutObject", key, cause, http_status: None, request_id: None }
}
