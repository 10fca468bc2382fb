//! The bucket as it will be when nothing waits to be removed any more.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::Waiting;
use super::book::{Book, Kept, Wanted};
use crate::bucket::upload::Arriving;
use crate::bucket::{
    AppendRequest, Bucket, Condition, CopyRequest, Deletion, ETag, Error, Fetched, ListPage, ListRequest, ObjectInfo,
    Part, PendingUpload, Properties, PutOptions, RenameRequest, Result, Sink,
};
use crate::error::Kind;

/// What waits is not there, and nothing is written under its keys before it is gone: conditions and
/// the order of events are as if each removal had been waited for.
#[derive(Debug)]
pub struct View {
    inner: Arc<dyn Bucket>,
    waiting: Arc<Waiting>,
}

impl View {
    /// Of this bucket, less what waits.
    pub(super) fn new(inner: Arc<dyn Bucket>, waiting: Arc<Waiting>) -> Self {
        Self { inner, waiting }
    }

    /// `NoSuchKey` for what waits.
    fn seen(&self, operation: &'static str, key: &str) -> Result<()> {
        let book = self.waiting.book.lock();
        if !book.is_blank() && book.hides(key, u64::MAX) {
            return Err(absent(operation, key));
        }
        Ok(())
    }

    /// Waits until something may be written under a key.
    async fn free(&self, key: &str) -> Result<()> {
        if self.waiting.book.lock().is_blank() {
            return Ok(());
        }
        self.waiting.wait(Wanted::Free(key)).await
    }
}

/// Ends with its question, also when that is dropped.
struct Asking<'a> {
    waiting: &'a Waiting,
    moment: u64,
}

impl<'a> Asking<'a> {
    fn begin(waiting: &'a Waiting) -> Self {
        Self { waiting, moment: waiting.book.lock().ask() }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.waiting.book.lock().answered(self.moment);
    }
}

fn absent(operation: &'static str, key: &str) -> Error {
    let cause = "NoSuchKey: it was removed here".to_owned();
    Error { kind: Kind::NotFound, operation, key: key.to_owned(), cause, http_status: None, request_id: None }
}

/// Takes out of a page what is to go, and shows the markers that are to come.
fn filter(book: &Book, request: &ListRequest, moment: u64, page: &mut ListPage) {
    if book.is_blank() {
        return;
    }
    let mut shown = Vec::with_capacity(page.objects.len());
    let is_first = request.token.is_none() && request.start_after.is_none();
    if is_first && page.objects.first().is_none_or(|first| first.key != request.prefix) {
        shown.extend(book.listed_marker(&request.prefix, moment));
    }
    for object in page.objects.drain(..) {
        if !book.hides(&object.key, moment) {
            shown.push(object);
            continue;
        }
        // In its place, which keeps the order of keys: the marker of the directory that it lay in.
        let Some(marker) = book.marker_above(&object.key, moment) else { continue };
        let is_listed = marker.key.starts_with(&request.prefix)
            && !(request.delimited && marker.key != request.prefix)
            && !shown.last().is_some_and(|last: &crate::bucket::Listed| last.key.starts_with(&marker.key));
        if is_listed {
            shown.push(marker);
        }
    }
    page.objects = shown;
    page.prefixes.retain(|below| !book.hides(below, moment));
}

#[async_trait]
impl Bucket for View {
    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        self.seen("HeadObject", key)?;
        let marker = self.waiting.book.lock().marker(key, u64::MAX).cloned();
        if let Some(marker) = marker {
            let (etag, modified, metadata) = (Kept::etag(), marker.since, marker.metadata);
            let properties = Properties::default();
            return Ok(ObjectInfo { etag, size: 0, modified, metadata, properties, version_id: None, archived: false });
        }
        self.inner.head(key).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>, if_match: Option<&ETag>) -> Result<Fetched> {
        self.seen("GetObject", key)?;
        self.inner.get(key, range, if_match).await
    }

    async fn get_into(&self, key: &str, range: Range<u64>, etag: &ETag, sink: &dyn Sink) -> Result<()> {
        self.seen("GetObject", key)?;
        self.inner.get_into(key, range, etag, sink).await
    }

    /// A page of which nothing is left is followed by the next at once: who reads on finds his place
    /// by the last key.
    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        let mut request = request.clone();
        loop {
            let asking = Asking::begin(&self.waiting);
            let mut page = self.inner.list(&request).await?;
            filter(&self.waiting.book.lock(), &request, asking.moment, &mut page);
            let is_empty = page.objects.is_empty() && page.prefixes.is_empty();
            if !is_empty || page.next.is_none() {
                return Ok(page);
            }
            (request.token, request.max_keys) = (page.next, None);
        }
    }

    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<ETag> {
        self.free(key).await?;
        self.inner.put(key, body, options).await
    }

    async fn copy(&self, request: &CopyRequest) -> Result<ETag> {
        self.free(&request.to).await?;
        self.seen("CopyObject", &request.from)?;
        self.inner.copy(request).await
    }

    async fn rename(&self, request: &RenameRequest) -> Result<()> {
        self.free(&request.to).await?;
        self.seen("RenameObject", &request.from)?;
        self.inner.rename(request).await
    }

    async fn append(&self, request: &AppendRequest, body: Bytes) -> Result<ETag> {
        self.seen("PutObject", &request.key)?;
        self.inner.append(request, body).await
    }

    async fn delete(&self, key: &str, if_match: Option<&ETag>) -> Result<()> {
        self.inner.delete(key, if_match).await
    }

    async fn delete_many(&self, deletions: &[Deletion]) -> Result<Vec<(String, Error)>> {
        self.inner.delete_many(deletions).await
    }

    async fn create_upload(&self, key: &str, options: &PutOptions) -> Result<String> {
        self.free(key).await?;
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
        self.free(key).await?;
        self.inner.complete_upload(key, upload_id, parts, condition).await
    }

    async fn abort_upload(&self, key: &str, upload_id: &str) -> Result<()> {
        self.inner.abort_upload(key, upload_id).await
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        self.inner.list_uploads(prefix).await
    }
}
