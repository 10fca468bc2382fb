//! Several buckets as one: `NAME/KEY` is `KEY` in the bucket of that name.
//!
//! Each has decorators of its own below this (retries, conditions, counting), so that each region
//! and each server is spoken to as it needs. What is said here of a key is the key in the mount, in
//! errors too.

mod listing;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;

use super::layout::{Layout, Root};
use super::upload::Arriving;
use super::{
    AppendRequest, Bucket, Condition, CopyRequest, Deletion, ETag, Error, Fetched, ListPage, ListRequest, ObjectInfo,
    Part, PendingUpload, PutOptions, RenameRequest, Result, Sink, cannot_rename,
};
use crate::error::Kind;

/// Buckets side by side.
#[derive(Debug)]
pub struct United {
    layout: Layout,
    /// In the order of the layout.
    buckets: Vec<Arc<dyn Bucket>>,
}

/// A key, and the bucket in which it is another.
struct There<'a> {
    index: usize,
    root: &'a Root,
    bucket: &'a dyn Bucket,
    key: String,
}

impl United {
    /// Puts buckets together, one for each root of the layout, in its order.
    #[must_use]
    pub fn new(layout: Layout, buckets: Vec<Arc<dyn Bucket>>) -> Self {
        assert_eq!(layout.roots().len(), buckets.len(), "one bucket for each root");
        Self { layout, buckets }
    }

    /// Where a key lies.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for what is in no bucket, and for the directory that a whole bucket appears as:
    /// there is no such object, and never will be.
    fn there(&self, operation: &'static str, key: &str) -> Result<There<'_>> {
        let found = self.layout.locate(key).filter(|(_, key)| !key.is_empty());
        let (index, key) = found.ok_or_else(|| outside(operation, key))?;
        Ok(There { index, root: &self.layout.roots()[index], bucket: self.buckets[index].as_ref(), key })
    }

    /// As [`Self::there`], for a write.
    ///
    /// # Errors
    /// [`Kind::Refused`] in the same cases: a write that finds nothing would be taken for a lost race.
    /// [`Kind::ReadOnly`] where nothing is to be written.
    fn target(&self, operation: &'static str, key: &str) -> Result<There<'_>> {
        let there = self.there(operation, key).map_err(|error| Error { kind: Kind::Refused, ..error })?;
        if there.root.read_only {
            return Err(unasked(Kind::ReadOnly, operation, key, "its bucket is only read by this mount"));
        }
        Ok(there)
    }

    /// A copy as the bucket of its target is to be asked for it.
    ///
    /// # Errors
    /// [`Kind::Refused`] where that could not read the source.
    fn copy_there(&self, operation: &'static str, to: &There, request: &CopyRequest) -> Result<CopyRequest> {
        let from = self.there(operation, &request.from)?;
        if from.root.client != to.root.client {
            let why = "the two lie on different servers, or each needs credentials of its own: copy the bytes";
            return Err(unasked(Kind::Refused, operation, &request.to, why));
        }
        let from_bucket = (from.root.bucket != to.root.bucket).then(|| from.root.bucket.clone());
        Ok(CopyRequest { from: from.key, to: to.key.clone(), from_bucket, ..request.clone() })
    }
}

/// [`Kind::NotFound`] for a key that lies in no bucket.
pub(super) fn outside(operation: &'static str, key: &str) -> Error {
    unasked(Kind::NotFound, operation, key, "it lies in none of the buckets of this mount")
}

/// An error that no server was asked about.
fn unasked(kind: Kind, operation: &'static str, key: &str, why: &str) -> Error {
    Error { kind, operation, key: key.to_owned(), cause: why.to_owned(), http_status: None, request_id: None }
}

/// An error about a key of the mount.
fn about(key: &str) -> impl Fn(Error) -> Error {
    move |error| Error { key: key.to_owned(), ..error }
}

#[async_trait]
impl Bucket for United {
    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        let there = self.there("HeadObject", key)?;
        there.bucket.head(&there.key).await.map_err(about(key))
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>, if_match: Option<&ETag>) -> Result<Fetched> {
        let there = self.there("GetObject", key)?;
        there.bucket.get(&there.key, range, if_match).await.map_err(about(key))
    }

    async fn get_into(&self, key: &str, range: Range<u64>, etag: &ETag, sink: &dyn Sink) -> Result<()> {
        let there = self.there("GetObject", key)?;
        there.bucket.get_into(&there.key, range, etag, sink).await.map_err(about(key))
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        self.list_page(request).await.map_err(about(&request.prefix))
    }

    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<ETag> {
        let there = self.target("PutObject", key)?;
        there.bucket.put(&there.key, body, options).await.map_err(about(key))
    }

    async fn copy(&self, request: &CopyRequest) -> Result<ETag> {
        let there = self.target("CopyObject", &request.to)?;
        let asked = self.copy_there("CopyObject", &there, request)?;
        there.bucket.copy(&asked).await.map_err(about(&request.to))
    }

    async fn rename(&self, request: &RenameRequest) -> Result<()> {
        let there = self.target("RenameObject", &request.to)?;
        let from = self.there("RenameObject", &request.from)?;
        if from.index != there.index {
            return Err(cannot_rename(request));
        }
        let asked = RenameRequest { from: from.key, to: there.key, ..request.clone() };
        there.bucket.rename(&asked).await.map_err(about(&request.to))
    }

    async fn append(&self, request: &AppendRequest, body: Bytes) -> Result<ETag> {
        let there = self.target("PutObject", &request.key)?;
        let asked = AppendRequest { key: there.key, ..request.clone() };
        there.bucket.append(&asked, body).await.map_err(about(&request.key))
    }

    async fn delete(&self, key: &str, if_match: Option<&ETag>) -> Result<()> {
        let there = self.target("DeleteObject", key)?;
        there.bucket.delete(&there.key, if_match).await.map_err(about(key))
    }

    /// One request for each bucket that a key lies in, all at once. When one has no answer the keys of that
    /// bucket have failed; the others are gone.
    async fn delete_many(&self, deletions: &[Deletion]) -> Result<Vec<(String, Error)>> {
        let mut failed = Vec::new();
        let mut by_bucket = BTreeMap::<usize, Vec<&Deletion>>::new();
        for deletion in deletions {
            match self.target("DeleteObjects", &deletion.key) {
                Ok(there) => by_bucket.entry(there.index).or_default().push(deletion),
                Err(error) => failed.push((deletion.key.clone(), error)),
            }
        }
        if let (1, true, Some((index, all))) = (by_bucket.len(), failed.is_empty(), by_bucket.first_key_value()) {
            return self.delete_in(*index, all).await;
        }
        let asked =
            join_all(by_bucket.iter().map(|(index, some)| async move { (some, self.delete_in(*index, some).await) }));
        for (deletions, answer) in asked.await {
            match answer {
                Ok(some) => failed.extend(some),
                // The server knows no such request: the caller knows another one.
                Err(error) if matches!(error.kind, Kind::Unsupported | Kind::Refused) => return Err(error),
                Err(error) => {
                    let keys = deletions.iter().map(|deletion| &deletion.key);
                    failed.extend(keys.map(|key| (key.clone(), about(key)(error.clone()))));
                }
            }
        }
        Ok(failed)
    }

    async fn create_upload(&self, key: &str, options: &PutOptions) -> Result<String> {
        let there = self.target("CreateMultipartUpload", key)?;
        there.bucket.create_upload(&there.key, options).await.map_err(about(key))
    }

    async fn upload_part(&self, key: &str, upload_id: &str, number: u16, body: Bytes) -> Result<Part> {
        let there = self.target("UploadPart", key)?;
        there.bucket.upload_part(&there.key, upload_id, number, body).await.map_err(about(key))
    }

    async fn upload_arriving_part(&self, key: &str, id: &str, number: u16, part: &Arc<Arriving>) -> Result<Part> {
        let there = self.target("UploadPart", key)?;
        there.bucket.upload_arriving_part(&there.key, id, number, part).await.map_err(about(key))
    }

    async fn copy_part(
        &self,
        key: &str,
        upload_id: &str,
        number: u16,
        from: &CopyRequest,
        range: Range<u64>,
    ) -> Result<Part> {
        let there = self.target("UploadPartCopy", key)?;
        let asked = self.copy_there("UploadPartCopy", &there, from)?;
        there.bucket.copy_part(&there.key, upload_id, number, &asked, range).await.map_err(about(key))
    }

    async fn complete_upload(&self, key: &str, upload_id: &str, parts: &[Part], condition: &Condition) -> Result<ETag> {
        let there = self.target("CompleteMultipartUpload", key)?;
        there.bucket.complete_upload(&there.key, upload_id, parts, condition).await.map_err(about(key))
    }

    async fn abort_upload(&self, key: &str, upload_id: &str) -> Result<()> {
        let there = self.target("AbortMultipartUpload", key)?;
        there.bucket.abort_upload(&there.key, upload_id).await.map_err(about(key))
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        let mut pending = Vec::new();
        for (root, bucket) in self.layout.roots().iter().zip(&self.buckets) {
            let Some(below) = listing::prefix_in(root, prefix) else { continue };
            let found = bucket.list_uploads(&below).await.map_err(about(prefix))?;
            pending
                .extend(found.into_iter().filter_map(|one| Some(PendingUpload { key: root.here(&one.key)?, ..one })));
        }
        Ok(pending)
    }
}

impl United {
    /// Deletes keys of the mount that lie in one bucket.
    async fn delete_in(&self, index: usize, deletions: &[&Deletion]) -> Result<Vec<(String, Error)>> {
        let root = &self.layout.roots()[index];
        let there =
            |deletion: &&Deletion| Some(Deletion { key: root.there(&deletion.key)?, etag: deletion.etag.clone() });
        let there: Vec<Deletion> = deletions.iter().filter_map(there).collect();
        let first = deletions.first().map_or("", |deletion| deletion.key.as_str());
        let failed = self.buckets[index].delete_many(&there).await.map_err(about(first))?;
        let here = |(key, error): (String, Error)| {
            let key = root.here(&key)?;
            Some((key.clone(), about(&key)(error)))
        };
        Ok(failed.into_iter().filter_map(here).collect())
    }
}

#[cfg(test)]
mod tests;
