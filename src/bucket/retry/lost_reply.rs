//! Finds out whether a write happened whose reply was lost, by looking at what the key holds now.

use std::num::NonZeroUsize;

use bytes::Bytes;
use lru::LruCache;
use md5::{Digest, Md5};
use parking_lot::Mutex;

use super::Retrying;
use crate::bucket::attributes::OP_ID;
use crate::bucket::{Bucket, CopyRequest, ETag, Error, Metadata, ObjectInfo, Part, PutOptions, Result};
use crate::error::Kind;

/// Uploads whose operation id is remembered; far more than ever are open at once.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// Operation ids of uploads under way: `CompleteMultipartUpload` no longer names them.
#[derive(Debug)]
pub(super) struct OpenUploads(Mutex<LruCache<String, String>>);

impl Default for OpenUploads {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl OpenUploads {
    pub(super) fn begun(&self, upload_id: &str, options: &PutOptions) {
        if let Some(op_id) = options.metadata.get(OP_ID) {
            self.0.lock().put(upload_id.to_owned(), op_id.clone());
        }
    }

    pub(super) fn ended(&self, upload_id: &str) {
        self.0.lock().pop(upload_id);
    }

    fn op_id(&self, upload_id: &str) -> Option<String> {
        self.0.lock().peek(upload_id).cloned()
    }
}

impl<B: Bucket> Retrying<B> {
    /// A conditional PUT was refused after a try whose end is unknown.
    pub(super) async fn find_put(&self, key: &str, body: &Bytes, options: &PutOptions, refusal: Error) -> Result<ETag> {
        let size = body.len() as u64;
        self.find(key, refusal, |now| {
            now.size == size && carries(now, &options.metadata, || now.etag.as_str() == hex::encode(Md5::digest(body)))
        })
        .await
    }

    /// A copy was refused: the target exists already, or the source is no longer what it was —
    /// perhaps because both are the same key, and the copy was made.
    pub(super) async fn find_copy(&self, request: &CopyRequest, refusal: Error) -> Result<ETag> {
        // Without new metadata nothing tells our copy from another one.
        let Some(options) = &request.replace else { return Err(refusal) };
        self.find(&request.to, refusal, |now| {
            carries(now, &options.metadata, || request.from_etag.as_ref().is_some_and(|from| *from == now.etag))
        })
        .await
    }

    /// A completion was refused because the upload is gone, or the key is no longer what it was.
    pub(super) async fn find_completed(
        &self,
        key: &str,
        upload_id: &str,
        parts: &[Part],
        refusal: Error,
    ) -> Result<ETag> {
        let op_id = self.uploads.op_id(upload_id);
        let etag = multipart_etag(parts);
        self.find(key, refusal, |now| {
            let same_operation = op_id.is_some() && now.metadata.get(OP_ID) == op_id.as_ref();
            same_operation || etag.as_ref() == Some(&now.etag)
        })
        .await
    }

    /// Looks at the key: `Ok` when it holds what `is_ours` knows, the refusal when it does not.
    async fn find(&self, key: &str, refusal: Error, is_ours: impl Fn(&ObjectInfo) -> bool + Send) -> Result<ETag> {
        let mut operation = self.operation(0);
        match self.run("HeadObject", key, &mut operation, || self.inner.head(key)).await {
            Ok(now) if is_ours(&now) => {
                tracing::debug!(key, "the reply was lost, but the write had happened");
                Ok(now.etag)
            }
            Err(error) if error.kind != Kind::NotFound => Err(error),
            _ => Err(refusal),
        }
    }
}

/// Whether the object is the one written with this metadata: by its operation id, else by all of
/// its metadata and its content.
fn carries(now: &ObjectInfo, metadata: &Metadata, same_content: impl Fn() -> bool) -> bool {
    match metadata.get(OP_ID) {
        Some(op_id) => now.metadata.get(OP_ID) == Some(op_id),
        None => now.metadata == *metadata && same_content(),
    }
}

/// S3's tag of an object uploaded in parts: MD5 of the parts' MD5s, and their number.
fn multipart_etag(parts: &[Part]) -> Option<ETag> {
    let mut digests = Vec::new();
    for part in parts {
        let digest = hex::decode(part.etag.as_str()).ok().filter(|digest| digest.len() == 16)?;
        digests.extend(digest);
    }
    Some(ETag::new(&format!("{}-{}", hex::encode(Md5::digest(&digests)), parts.len())))
}
