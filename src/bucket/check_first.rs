//! For servers that ignore conditions on writes: look, then write.
//!
//! Between the two another client may write, which a condition at the server would have told; it is
//! the best that can be done there, and it is said once in the log when such a bucket is mounted.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::upload::Arriving;
use super::{
    Bucket, Condition, CopyRequest, Deletion, ETag, Error, Fetched, ListPage, ListRequest, ObjectInfo, Part,
    PendingUpload, PutOptions, Result, Sink,
};
use crate::error::Kind;

/// The decorator: checks conditions of writes by HEAD and takes them off the request.
#[derive(Debug)]
pub struct CheckFirst<B> {
    inner: B,
}

impl<B: Bucket> CheckFirst<B> {
    /// Checks before it writes to `inner`.
    pub fn new(inner: B) -> Self {
        Self { inner }
    }

    async fn check(&self, operation: &'static str, key: &str, condition: &Condition) -> Result<()> {
        if *condition == Condition::None {
            return Ok(());
        }
        let holds = match (self.inner.head(key).await, condition) {
            (Ok(now), Condition::IfMatch(tag)) => now.etag == *tag,
            (Ok(_), _) => false,
            (Err(error), Condition::IfAbsent) if error.kind == Kind::NotFound => true,
            (Err(error), _) => return Err(error),
        };
        if holds {
            return Ok(());
        }
        let (key, cause) = (key.to_owned(), "PreconditionFailed: the object is not the version we knew".to_owned());
        Err(Error { kind: Kind::Changed, operation, key, cause, http_status: Some(412), request_id: None })
    }

    async fn check_source(&self, operation: &'static str, request: &CopyRequest) -> Result<()> {
        match &request.from_etag {
            Some(tag) => self.check(operation, &request.from, &Condition::IfMatch(tag.clone())).await,
            None => Ok(()),
        }
    }
}

fn unconditional(options: &PutOptions) -> PutOptions {
    PutOptions { condition: Condition::None, ..options.clone() }
}

#[async_trait]
impl<B: Bucket> Bucket for CheckFirst<B> {
    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        self.inner.head(key).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>, if_match: Option<&ETag>) -> Result<Fetched> {
        self.inner.get(key, range, if_match).await
    }

    async fn get_into(&self, key: &str, range: Range<u64>, etag: &ETag, sink: &dyn Sink) -> Result<()> {
        self.inner.get_into(key, range, etag, sink).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        self.inner.list(request).await
    }

    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<ETag> {
        self.check("PutObject", key, &options.condition).await?;
        self.inner.put(key, body, &unconditional(options)).await
    }

    async fn copy(&self, request: &CopyRequest) -> Result<ETag> {
        self.check_source("CopyObject", request).await?;
        let Some(options) = &request.replace else { return self.inner.copy(request).await };
        self.check("CopyObject", &request.to, &options.condition).await?;
        self.inner.copy(&CopyRequest { replace: Some(unconditional(options)), ..request.clone() }).await
    }

    /// A deletion's condition is the server's business: to look before each would double the requests of `rm -r`.
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
        self.check_source("UploadPartCopy", from).await?;
        self.inner.copy_part(key, upload_id, number, from, range).await
    }

    async fn complete_upload(&self, key: &str, upload_id: &str, parts: &[Part], condition: &Condition) -> Result<ETag> {
        self.check("CompleteMultipartUpload", key, condition).await?;
        self.inner.complete_upload(key, upload_id, parts, &Condition::None).await
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
    use crate::bucket::Metadata;
    use crate::bucket::memory::MemoryBucket;

    #[tokio::test]
    async fn nobody_is_overwritten_on_a_server_that_ignores_conditions() {
        let memory = MemoryBucket::new();
        memory.ignore_conditions();
        memory.ignore_tags_of_copied();
        let first = memory.insert("k", "1", Metadata::new());
        let bucket = CheckFirst::new(memory);
        let put = |condition| PutOptions { condition, ..PutOptions::default() };
        assert_eq!(bucket.put("k", "2".into(), &put(Condition::IfAbsent)).await.unwrap_err().kind, Kind::Changed);
        let second = bucket.put("k", "2".into(), &put(Condition::IfMatch(first.clone()))).await.unwrap();
        assert_eq!(
            bucket.put("k", "3".into(), &put(Condition::IfMatch(first.clone()))).await.unwrap_err().kind,
            Kind::Changed
        );
        let copy = CopyRequest { replace: Some(put(Condition::IfAbsent)), ..CopyRequest::new("k".into(), "k".into()) };
        assert_eq!(bucket.copy(&copy).await.unwrap_err().kind, Kind::Changed);
        assert_eq!(bucket.head("k").await.unwrap().etag, second);
        bucket.put("new", "".into(), &put(Condition::IfAbsent)).await.unwrap();
        let older = CopyRequest { from_etag: Some(first), ..CopyRequest::new("k".into(), "to".into()) };
        assert_eq!(bucket.copy(&older).await.unwrap_err().kind, Kind::Changed);
    }
}
