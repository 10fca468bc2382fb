//! Multipart upload: parts in parallel, one version at the end; and server-side copies of any size.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::{Bucket, CopyRequest, ETag, Error, Part, PutOptions, Result};
use crate::error::Kind;

/// Objects from this size on are sent in parts.
pub const MULTIPART_FROM_BYTES: u64 = 16 << 20;
/// Largest object that one CopyObject request copies (AWS: "Copying objects").
pub const MAX_COPY_BYTES: u64 = 5 << 30;
/// Parts of one upload (AWS: "Amazon S3 multipart upload limits").
const MAX_PARTS: u64 = 10_000;
/// Parts of a server-side copy cost no bytes here: few large ones.
const COPY_PART_BYTES: u64 = 512 << 20;

/// How an upload is cut, and how much of it travels at once.
#[derive(Clone, Copy, Debug)]
pub struct UploadSettings {
    /// Size of a part while they are at most 10,000; at least 5 MiB.
    pub part_bytes: u64,
    /// Parts in flight.
    pub concurrency: usize,
}

impl Default for UploadSettings {
    fn default() -> Self {
        Self { part_bytes: 8 << 20, concurrency: 16 }
    }
}

/// Where the bytes of an upload come from; a part may be read more than once.
#[async_trait]
pub trait PartSource: Send + Sync + 'static {
    /// Exactly the bytes of `range`.
    async fn read(&self, range: Range<u64>) -> io::Result<Bytes>;
}

/// The bytes of a local file.
#[derive(Debug)]
pub struct FileParts(Arc<File>);

impl FileParts {
    /// Opens a file to be sent.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::from(File::open(path)?))
    }
}

impl From<File> for FileParts {
    fn from(file: File) -> Self {
        Self(Arc::new(file))
    }
}

#[async_trait]
impl PartSource for FileParts {
    async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let file = self.0.clone();
        let read = move || {
            let mut buffer = vec![0; (range.end - range.start) as usize];
            file.read_exact_at(&mut buffer, range.start)?;
            Ok(buffer.into())
        };
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }
}

/// Sends `size` bytes as one new version of `key`. On failure nothing is left at the server but,
/// if even the abort fails, an upload that `AbortIncompleteMultipartUpload` rules clear.
pub async fn upload(
    bucket: &Arc<dyn Bucket>,
    key: &str,
    source: Arc<dyn PartSource>,
    size: u64,
    options: &PutOptions,
    settings: &UploadSettings,
) -> Result<ETag> {
    let part_bytes = part_bytes(size, settings.part_bytes);
    let upload_id = bucket.create_upload(key, options).await?;
    let parts = stream::iter(numbered_ranges(size, part_bytes)).map(|(number, range)| {
        let (source, upload_id) = (source.clone(), upload_id.as_str());
        async move {
            let body = source.read(range).await.map_err(|cause| unreadable(key, &cause))?;
            bucket.upload_part(key, upload_id, number, body).await
        }
    });
    let parts: Result<Vec<Part>> = parts.buffered(settings.concurrency).try_collect().await;
    finish(bucket, key, &upload_id, parts, options).await
}

/// Copies an object above [`MAX_COPY_BYTES`] in parts. The request must say the metadata: in parts
/// nothing is taken over from the source.
pub async fn copy_large(
    bucket: &Arc<dyn Bucket>,
    request: &CopyRequest,
    size: u64,
    settings: &UploadSettings,
) -> Result<ETag> {
    let options = request.replace.clone().unwrap_or_default();
    let key = request.to.as_str();
    let upload_id = bucket.create_upload(key, &options).await?;
    let ranges = numbered_ranges(size, part_bytes(size, COPY_PART_BYTES));
    let parts = stream::iter(ranges).map(|(number, range)| {
        let upload_id = upload_id.as_str();
        async move { bucket.copy_part(key, upload_id, number, request, range).await }
    });
    let parts: Result<Vec<Part>> = parts.buffered(settings.concurrency).try_collect().await;
    finish(bucket, key, &upload_id, parts, &options).await
}

async fn finish(
    bucket: &Arc<dyn Bucket>,
    key: &str,
    upload_id: &str,
    parts: Result<Vec<Part>>,
    options: &PutOptions,
) -> Result<ETag> {
    let completed = match parts {
        Ok(parts) => bucket.complete_upload(key, upload_id, &parts, &options.condition).await,
        Err(error) => Err(error),
    };
    if completed.is_err()
        && let Err(error) = bucket.abort_upload(key, upload_id).await
        && error.kind != Kind::NoSuchUpload
    {
        tracing::warn!(key = %key.escape_debug(), upload_id, cause = %error, "parts of a failed upload are left");
    }
    completed
}

/// Part size such that `size` fits into 10,000 parts, in whole MiB.
fn part_bytes(size: u64, wanted: u64) -> u64 {
    let least = size.div_ceil(MAX_PARTS).next_multiple_of(1 << 20);
    wanted.max(least)
}

fn numbered_ranges(size: u64, part_bytes: u64) -> impl Iterator<Item = (u16, Range<u64>)> {
    let parts = size.div_ceil(part_bytes).max(1);
    (0..parts).map(move |index| {
        let start = index * part_bytes;
        (index as u16 + 1, start..(start + part_bytes).min(size))
    })
}

fn unreadable(key: &str, cause: &io::Error) -> Error {
    Error {
        kind: Kind::Local,
        operation: "UploadPart",
        key: key.to_owned(),
        cause: format!("the local draft cannot be read: {cause}"),
        http_status: None,
        request_id: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_object_fits_into_ten_thousand_parts() {
        let size = 5 << 40;
        let bytes = part_bytes(size, 8 << 20);
        assert!(size.div_ceil(bytes) <= MAX_PARTS);
        assert_eq!(part_bytes(1 << 30, 8 << 20), 8 << 20);
    }

    #[test]
    fn the_ranges_cover_the_object_once() {
        let ranges: Vec<_> = numbered_ranges(20, 8).collect();
        assert_eq!(ranges, [(1, 0..8), (2, 8..16), (3, 16..20)]);
    }
}
