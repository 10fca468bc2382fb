//! Finds out whether a write happened whose reply was lost, by looking at what the key holds now.
//!
//! Two moments need it. Within one operation, a try is refused because the try before it had been
//! applied. And between two: an operation ended in an error although it had been applied (the
//! server died right after), and the next one is refused because the key no longer holds what the
//! caller knows — but holds the caller's own earlier version.

use std::num::NonZeroUsize;

use bytes::Bytes;
use lru::LruCache;
use md5::{Digest, Md5};
use parking_lot::Mutex;

use super::{Operation, Retrying};
use crate::bucket::attributes::OP_ID;
use crate::bucket::{Bucket, Condition, CopyRequest, ETag, Error, Metadata, ObjectInfo, Part, PutOptions, Result};
use crate::error::Kind;

/// Uploads whose metadata is remembered; far more than ever are open at once.
const OPEN_UPLOADS: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// Keys with a write of unknown end that are remembered, and writes for each.
const DOUBTFUL_KEYS: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
const DOUBTS_PER_KEY: usize = 4;

/// What tells a version that we wrote from everybody else's.
#[derive(Clone, Debug)]
pub(super) struct Ours {
    metadata: Metadata,
    /// The tag that the content gives where the server makes tags of MD5s.
    etag: Option<ETag>,
}

impl Ours {
    fn put(body: &Bytes, options: &PutOptions) -> Self {
        let etag = ETag::new(&hex::encode(Md5::digest(body)));
        Self { metadata: options.metadata.clone(), etag: Some(etag) }
    }

    /// By its operation id; without one by all of its metadata and its content.
    fn is(&self, now: &ObjectInfo) -> bool {
        match self.metadata.get(OP_ID) {
            Some(op_id) => now.metadata.get(OP_ID) == Some(op_id),
            None => now.metadata == self.metadata && self.etag.as_ref() == Some(&now.etag),
        }
    }
}

/// What later requests no longer say: the metadata of uploads under way, and writes in doubt.
#[derive(Debug)]
pub(super) struct Memory {
    uploads: Mutex<LruCache<String, Metadata>>,
    doubts: Mutex<LruCache<String, Vec<Ours>>>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { uploads: Mutex::new(LruCache::new(OPEN_UPLOADS)), doubts: Mutex::new(LruCache::new(DOUBTFUL_KEYS)) }
    }
}

impl Memory {
    pub(super) fn upload_begun(&self, upload_id: &str, options: &PutOptions) {
        self.uploads.lock().put(upload_id.to_owned(), options.metadata.clone());
    }

    pub(super) fn upload_ended(&self, upload_id: &str) {
        self.uploads.lock().pop(upload_id);
    }

    /// What the key holds is known again.
    pub(super) fn is_certain(&self, key: &str) {
        self.doubts.lock().pop(key);
    }

    fn doubt(&self, key: &str, ours: Ours) {
        let mut doubts = self.doubts.lock();
        let of_key = doubts.get_or_insert_mut(key.to_owned(), Vec::new);
        if of_key.len() == DOUBTS_PER_KEY {
            of_key.remove(0);
        }
        of_key.push(ours);
    }

    fn doubts(&self, key: &str) -> Vec<Ours> {
        self.doubts.lock().peek(key).cloned().unwrap_or_default()
    }
}

impl<B: Bucket> Retrying<B> {
    /// A conditional PUT that was refused, or whose end is unknown.
    pub(super) async fn settle_put(
        &self,
        key: &str,
        body: &Bytes,
        options: &PutOptions,
        operation: &mut Operation,
        answer: Result<ETag>,
    ) -> Result<ETag> {
        let Err(error) = answer else { return answer };
        if !operation.in_doubt && error.kind != Kind::Changed {
            return Err(error);
        }
        let ours = operation.in_doubt.then(|| Ours::put(body, options));
        let again = |condition| {
            let options = PutOptions { condition, ..options.clone() };
            async move { self.inner.put(key, body.clone(), &options).await }
        };
        self.settle_write("PutObject", key, ours, operation, error, again).await
    }

    /// A completion that was refused, or whose end is unknown.
    pub(super) async fn settle_completion(
        &self,
        key: &str,
        upload_id: &str,
        parts: &[Part],
        operation: &mut Operation,
        answer: Result<ETag>,
    ) -> Result<ETag> {
        let Err(error) = answer else { return answer };
        let metadata = self.memory.uploads.lock().peek(upload_id).cloned();
        let ours = metadata.filter(|_| operation.in_doubt);
        let ours = ours.map(|metadata| Ours { metadata, etag: multipart_etag(parts) });
        let again = |condition| async move { self.inner.complete_upload(key, upload_id, parts, &condition).await };
        self.settle_write("CompleteMultipartUpload", key, ours, operation, error, again).await
    }

    /// A copy was refused: the target exists already, or the source is no longer what it was —
    /// perhaps because both are the same key, and the copy was made.
    pub(super) async fn settle_copy(&self, request: &CopyRequest, in_doubt: bool, refusal: Error) -> Result<ETag> {
        // Without new metadata nothing tells our copy from another one.
        let Some(options) = request.replace.as_ref().filter(|_| in_doubt) else { return Err(refusal) };
        let ours = Ours { metadata: options.metadata.clone(), etag: request.from_etag.clone() };
        match self.look(&request.to).await? {
            Some(now) if ours.is(&now) => Ok(now.etag),
            _ => Err(refusal),
        }
    }

    /// `ours` is given when the operation itself is in doubt. A refused write is looked into; one
    /// that just failed is remembered.
    async fn settle_write<F>(
        &self,
        name: &'static str,
        key: &str,
        ours: Option<Ours>,
        operation: &mut Operation,
        error: Error,
        again: impl Fn(Condition) -> F,
    ) -> Result<ETag>
    where
        F: Future<Output = Result<ETag>> + Send,
    {
        let earlier = self.memory.doubts(key);
        let refused = matches!(error.kind, Kind::Changed | Kind::NoSuchUpload);
        let now = if refused && (ours.is_some() || !earlier.is_empty()) { self.look(key).await } else { Ok(None) };
        if let Ok(Some(now)) = &now {
            if ours.as_ref().is_some_and(|ours| ours.is(now)) {
                tracing::debug!(key, "the reply was lost, but the write had happened");
                return Ok(now.etag.clone());
            }
            if error.kind == Kind::Changed && earlier.iter().any(|earlier| earlier.is(now)) {
                tracing::debug!(key, "the version in the way is our own, of a write that seemed to fail");
                let over_ours = || again(Condition::IfMatch(now.etag.clone()));
                return self.run(name, key, operation, over_ours).await;
            }
        }
        if let Some(ours) = ours.filter(|_| !refused || now.is_err()) {
            self.memory.doubt(key, ours);
        }
        now.and(Err(error))
    }

    /// What the key holds; `None` = nothing.
    async fn look(&self, key: &str) -> Result<Option<ObjectInfo>> {
        let mut operation = self.operation(0);
        match self.run("HeadObject", key, &mut operation, || self.inner.head(key)).await {
            Ok(now) => Ok(Some(now)),
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
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
