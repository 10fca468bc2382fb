//! For buckets that list in no order: directory buckets, of S3 Express One Zone.
//!
//! Their LIST tells keys as they come, knows no `start-after` and no prefix but those that end in `/` (AWS: "Differences
//! for directory buckets"). All rooms read listings in binary order, page by page. So a listing is read to its end, and
//! the first keys of it are a page, a large one. What lies behind is not kept: it would be old when it is asked for, and
//! who asks takes an answer for as new as his question. He has it listed once more, which no directory of up to
//! [`PAGE_KEYS`] names needs. Whoever can do without an order says so ([`ListRequest::any_order`]).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::upload::Arriving;
use super::{
    AppendRequest, Bucket, Condition, CopyRequest, Deletion, ETag, Error, Fetched, ListPage, ListRequest, Listed,
    ObjectInfo, Part, PendingUpload, PutOptions, RenameRequest, Result, Sink,
};

/// Most keys and common prefixes of a page, and so in memory for it: some 300 bytes each.
const PAGE_KEYS: usize = 50_000;

/// The decorator: lists in binary order.
#[derive(Debug)]
pub struct InOrder {
    inner: Arc<dyn Bucket>,
    page_keys: usize,
}

impl InOrder {
    /// Puts in order what `inner` lists.
    #[must_use]
    pub fn over(inner: Arc<dyn Bucket>) -> Self {
        Self { inner, page_keys: PAGE_KEYS }
    }

    /// One page as the server gives it.
    async fn as_it_comes(&self, request: &ListRequest) -> Result<ListPage> {
        let mut page = self.inner.list(&ListRequest { start_after: None, ..request.clone() }).await?;
        page.objects.sort_by(|one, other| one.key.cmp(&other.key));
        page.prefixes.sort();
        Ok(page)
    }

    /// The first keys behind a token, which is the last key of the page before.
    async fn in_order(&self, request: &ListRequest) -> Result<ListPage> {
        let after = request.token.as_deref().or(request.start_after.as_deref()).unwrap_or_default();
        let most = request.max_keys.map_or(self.page_keys, |most| usize::from(most).min(self.page_keys)).max(1);
        let mut first = First { after, most, ..First::default() };
        let directory = &request.prefix[..request.prefix.rfind('/').map_or(0, |slash| slash + 1)];
        if directory.len() == request.prefix.len() {
            self.read(directory, request.delimited, &mut |key, object| first.take(key, object)).await?;
            return Ok(first.into_page());
        }
        // What begins so in the directory, and then what lies below that.
        let mut take = |key: String, object| {
            if key.starts_with(&request.prefix) {
                first.take(key, object);
            }
        };
        self.read(directory, true, &mut take).await?;
        if !request.delimited {
            for below in first.take_prefixes() {
                self.read(&below, false, &mut |key, object| first.take(key, object)).await?;
            }
        }
        Ok(first.into_page())
    }

    /// Tells all keys, and common prefixes (`None`), of a listing.
    async fn read(
        &self,
        directory: &str,
        delimited: bool,
        take: &mut (dyn FnMut(String, Option<Listed>) + Send),
    ) -> Result<()> {
        let mut request = ListRequest { prefix: directory.to_owned(), delimited, ..ListRequest::default() };
        loop {
            let page = self.inner.list(&request).await?;
            for object in page.objects {
                take(object.key.clone(), Some(object));
            }
            for below in page.prefixes {
                take(below, None);
            }
            match page.next {
                Some(token) => request.token = Some(token),
                None => return Ok(()),
            }
        }
    }
}

/// The first keys and common prefixes (`None`) behind one.
#[derive(Default)]
struct First<'a> {
    after: &'a str,
    most: usize,
    entries: BTreeMap<String, Option<Listed>>,
    /// The last of them before what lies below took the place of prefixes.
    last: Option<String>,
    /// A prefix that `after` itself lies below: so may what comes next.
    around: Option<String>,
    is_cut: bool,
}

impl First<'_> {
    fn take(&mut self, key: String, object: Option<Listed>) {
        if key.as_str() > self.after {
            self.entries.insert(key, object);
            if self.entries.len() > self.most {
                self.entries.pop_last();
                self.is_cut = true;
            }
        } else if object.is_none() && self.after.starts_with(&key) {
            self.around = Some(key);
        }
    }

    /// Whatever was cut off lies behind them, and behind all that is below them.
    fn take_prefixes(&mut self) -> Vec<String> {
        self.last = self.entries.last_key_value().map(|(key, _)| key.clone());
        let prefixes = self.entries.iter().filter(|(_, it)| it.is_none()).map(|(key, _)| key.clone());
        let prefixes = self.around.take().into_iter().chain(prefixes).collect();
        self.entries.retain(|_, it| it.is_some());
        prefixes
    }

    fn into_page(self) -> ListPage {
        let last = self.entries.last_key_value().map(|(key, _)| key.clone()).or(self.last);
        let mut page = ListPage { next: last.filter(|_| self.is_cut), ..ListPage::default() };
        for (key, object) in self.entries {
            match object {
                Some(object) => page.objects.push(object),
                None => page.prefixes.push(key),
            }
        }
        page
    }
}

#[async_trait]
impl Bucket for InOrder {
    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        let is_directory = request.prefix.is_empty() || request.prefix.ends_with('/');
        if request.any_order && is_directory { self.as_it_comes(request).await } else { self.in_order(request).await }
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        self.inner.head(key).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>, if_match: Option<&ETag>) -> Result<Fetched> {
        self.inner.get(key, range, if_match).await
    }

    async fn get_into(&self, key: &str, range: Range<u64>, etag: &ETag, sink: &dyn Sink) -> Result<()> {
        self.inner.get_into(key, range, etag, sink).await
    }

    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<ETag> {
        self.inner.put(key, body, options).await
    }

    async fn copy(&self, request: &CopyRequest) -> Result<ETag> {
        self.inner.copy(request).await
    }

    async fn rename(&self, request: &RenameRequest) -> Result<()> {
        self.inner.rename(request).await
    }

    async fn append(&self, request: &AppendRequest, body: Bytes) -> Result<ETag> {
        self.inner.append(request, body).await
    }

    async fn delete(&self, key: &str, if_match: Option<&ETag>) -> Result<()> {
        self.inner.delete(key, if_match).await
    }

    async fn delete_many(&self, deletions: &[Deletion]) -> Result<Vec<(String, Error)>> {
        self.inner.delete_many(deletions).await
    }

    async fn create_upload(&self, key: &str, options: &PutOptions) -> Result<String> {
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
    use crate::bucket::memory::MemoryBucket;

    const KEYS: [&str; 10] = ["a", "a-b", "a/", "a/1", "a/2/x", "a/2/y", "ab/1", "b", "b/c/d", "ü/1"];

    /// Lists as S3 does in a directory bucket.
    fn bucket(page_keys: usize) -> (Arc<MemoryBucket>, InOrder) {
        let bucket = Arc::new(MemoryBucket::new());
        bucket.list_as_directory_bucket(3);
        for key in KEYS {
            bucket.insert(key, key, crate::bucket::Metadata::new());
        }
        let inner: Arc<dyn Bucket> = bucket.clone();
        (bucket, InOrder { inner, page_keys })
    }

    /// The keys and prefixes of all pages, in the order of each.
    async fn pages(bucket: &InOrder, mut request: ListRequest) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let page = bucket.list(&request).await.unwrap();
            let mut names: Vec<_> = page.objects.into_iter().map(|object| object.key).chain(page.prefixes).collect();
            names.sort();
            all.extend(names);
            match page.next {
                Some(token) => request.token = Some(token),
                None => return all,
            }
        }
    }

    fn of(prefix: &str, delimited: bool) -> ListRequest {
        ListRequest { prefix: prefix.to_owned(), delimited, ..ListRequest::default() }
    }

    #[tokio::test]
    async fn pages_of_any_size_are_in_order_with_each_key_once() {
        let ordered = MemoryBucket::new();
        for key in KEYS {
            ordered.insert(key, key, crate::bucket::Metadata::new());
        }
        for page_keys in [1, 2, 3, 100] {
            let (_, bucket) = bucket(page_keys);
            for prefix in ["", "a", "a/", "a/2", "a/2/", "ab", "b/c/d", "x", "x/", "ü"] {
                for delimited in [false, true] {
                    let page = ordered.list(&of(prefix, delimited)).await.unwrap();
                    let keys = page.objects.into_iter().map(|object| object.key);
                    let mut expected: Vec<_> = keys.chain(page.prefixes).collect();
                    expected.sort();
                    let came = pages(&bucket, of(prefix, delimited)).await;
                    assert_eq!(came, expected, "{prefix:?} delimited: {delimited}, {page_keys} in a page");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_start_and_a_bound_hold() {
        let (_, bucket) = bucket(100);
        let request = ListRequest { start_after: Some("a/1".to_owned()), max_keys: Some(2), ..of("a", false) };
        let page = bucket.list(&request).await.unwrap();
        let keys: Vec<_> = page.objects.iter().map(|object| object.key.as_str()).collect();
        assert_eq!((keys, page.next.as_deref()), (vec!["a/2/x", "a/2/y"], Some("a/2/y")));
        // The object comes before all that begins like it.
        let page = bucket.list(&ListRequest { max_keys: Some(1), ..of("b", false) }).await.unwrap();
        assert_eq!(page.objects[0].key, "b");
    }

    #[tokio::test]
    async fn who_needs_no_order_gets_the_pages_of_the_server() {
        let (memory, bucket) = bucket(100);
        let request = ListRequest { any_order: true, max_keys: Some(1), ..of("a/", false) };
        let page = bucket.list(&request).await.unwrap();
        assert_eq!((page.objects.len(), page.next.is_some()), (1, true));
        assert_eq!(memory.requests()["ListObjectsV2"], 1);
        let all = pages(&bucket, ListRequest { any_order: true, ..of("a/", false) }).await;
        assert_eq!(all.len(), 4);
    }
}
