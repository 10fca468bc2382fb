//! The [`Bucket`] trait on `aws-sdk-s3`: one method, one request, no retry.
//!
//! What the SDK would do by itself and must not:
//! - **sign payloads**: SHA-256 of every body costs 17 times the CPU of everything else together;
//!   the CRC32C that goes along is checked by the server just as well;
//! - **retry**: a conditional PUT whose reply was lost answers 412 to its own retry, and only the
//!   `Retrying` decorator finds out which of the two happened;
//! - **stop a stalled request**: its guard sees an upload that is one buffer as done at once;
//!   [`progress`] watches the bytes instead.

mod errors;
mod listing;
mod multipart;
mod progress;
mod properties;
mod read;
mod restore;
mod upkeep;
mod versions;
mod write;

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use bytes::Bytes;
use futures::future::BoxFuture;

use super::client::ClassOfKey;
use super::upload::Arriving;
use super::{
    AppendRequest, Bucket, Condition, CopyRequest, Deletion, ETag, Error, Fetched, ListPage, ListRequest, ObjectInfo,
    Part, PendingUpload, PutOptions, RenameRequest, Result, Sink,
};
use crate::key::is_directory_bucket;
pub(in crate::bucket) use errors::root_cause;
use progress::Progress;
pub use restore::RestoreTier;
pub use versions::Version;

/// No byte in either direction for this long: the request is given up (and may be tried again).
pub const STALL: Duration = Duration::from_secs(15);
/// The same for requests that the server works on before it answers: copies and completions.
pub const SLOW_STALL: Duration = Duration::from_secs(55);

/// A bucket at an S3 server.
#[derive(Clone, Debug)]
pub struct S3Bucket {
    client: Client,
    name: String,
    /// What is read, instead of the latest.
    version: Option<String>,
    class_of_key: Option<ClassOfKey>,
    /// A directory bucket: some headers and parameters must not be sent to it.
    is_directory: bool,
    /// It appends, as far as is known.
    appends: bool,
    stall: Duration,
    slow_stall: Duration,
}

impl S3Bucket {
    /// Speaks through a client whose own retries are off.
    #[must_use]
    pub fn new(client: Client, name: &str) -> Self {
        let (name, is_directory) = (name.to_owned(), is_directory_bucket(name));
        let (version, class_of_key) = (None, None);
        let (appends, stall, slow_stall) = (is_directory, STALL, SLOW_STALL);
        Self { client, name, version, class_of_key, is_directory, appends, stall, slow_stall }
    }

    /// Leaves time for other tries within this deadline.
    #[must_use]
    pub fn within(self, deadline: Duration) -> Self {
        Self { stall: STALL.min(deadline / 4), slow_stall: SLOW_STALL.min(deadline), ..self }
    }

    /// Puts new objects into the storage class that this names for their key.
    #[must_use]
    pub fn choosing_class(self, class_of_key: Option<ClassOfKey>) -> Self {
        Self { class_of_key, ..self }
    }

    /// Is not asked to append, unless that is known to work.
    #[must_use]
    pub fn appending(self, appends: bool) -> Self {
        Self { appends: self.is_directory && appends, ..self }
    }

    /// Reads this version of the key that it is asked for.
    #[must_use]
    pub fn at_version(&self, id: &str) -> Self {
        Self { version: Some(id.to_owned()), ..self.clone() }
    }

    /// Region that S3 names for this bucket, also where the caller has no access to it.
    pub async fn region(&self) -> Option<String> {
        let answer = self.client.head_bucket().bucket(&self.name).send().await;
        match answer {
            Ok(output) => output.bucket_region,
            Err(error) => errors::region_header(&error),
        }
    }

    /// Sends a request that must move within the stall time.
    fn send<'a, T, E>(
        &self,
        operation: &'static str,
        key: &'a str,
        request: impl Future<Output = Answer<T, E>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T>>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        send(operation, key, Progress::new(self.stall), request)
    }

    /// Sends a request that the server may work on for a while.
    fn send_slow<'a, T, E>(
        &self,
        operation: &'static str,
        key: &'a str,
        request: impl Future<Output = Answer<T, E>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T>>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        send(operation, key, Progress::new(self.slow_stall), request)
    }
}

/// What the SDK answers.
type Answer<T, E> = std::result::Result<T, SdkError<E, HttpResponse>>;

/// Sends a request as long as it moves. The SDK's futures are some 20 KB each: they go to the heap
/// once instead of into every future around them.
fn send<'a, T, E>(
    operation: &'static str,
    key: &'a str,
    progress: Progress,
    request: impl Future<Output = Answer<T, E>> + Send + 'a,
) -> BoxFuture<'a, Result<T>>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let request = Box::pin(request);
    Box::pin(async move {
        match progress.watch(request).await {
            Ok(answer) => answer.map_err(|error| errors::from_sdk(operation, key, &error)),
            Err(stalled) => Err(errors::stalled(operation, key, stalled)),
        }
    })
}

/// The `If-Match` and `If-None-Match` header values of a condition.
fn condition_headers(condition: &Condition) -> (Option<String>, Option<String>) {
    match condition {
        Condition::None => (None, None),
        Condition::IfMatch(tag) => (Some(tag.quoted()), None),
        Condition::IfAbsent => (None, Some("*".to_owned())),
    }
}

#[async_trait]
impl Bucket for S3Bucket {
    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        self.head_object(key).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>, if_match: Option<&ETag>) -> Result<Fetched> {
        self.get_object(key, range, if_match).await
    }

    async fn get_into(&self, key: &str, range: Range<u64>, etag: &ETag, sink: &dyn Sink) -> Result<()> {
        self.get_object_into(key, range, etag, sink).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        self.list_objects(request).await
    }

    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<ETag> {
        self.put_object(key, body, options).await
    }

    async fn copy(&self, request: &CopyRequest) -> Result<ETag> {
        self.copy_object(request).await
    }

    async fn rename(&self, request: &RenameRequest) -> Result<()> {
        self.rename_object(request).await
    }

    async fn append(&self, request: &AppendRequest, body: Bytes) -> Result<ETag> {
        self.append_object(request, body).await
    }

    async fn delete(&self, key: &str, if_match: Option<&ETag>) -> Result<()> {
        self.delete_object(key, if_match).await
    }

    async fn delete_many(&self, deletions: &[Deletion]) -> Result<Vec<(String, Error)>> {
        self.delete_objects(deletions).await
    }

    async fn create_upload(&self, key: &str, options: &PutOptions) -> Result<String> {
        self.create_multipart_upload(key, options).await
    }

    async fn upload_part(&self, key: &str, upload_id: &str, number: u16, body: Bytes) -> Result<Part> {
        self.send_part(key, upload_id, number, body).await
    }

    async fn upload_arriving_part(&self, key: &str, id: &str, number: u16, part: &Arc<Arriving>) -> Result<Part> {
        self.send_arriving_part(key, id, number, part).await
    }

    async fn copy_part(
        &self,
        key: &str,
        upload_id: &str,
        number: u16,
        from: &CopyRequest,
        range: Range<u64>,
    ) -> Result<Part> {
        self.upload_part_copy(key, upload_id, number, from, range).await
    }

    async fn complete_upload(&self, key: &str, upload_id: &str, parts: &[Part], condition: &Condition) -> Result<ETag> {
        self.complete_multipart_upload(key, upload_id, parts, condition).await
    }

    async fn abort_upload(&self, key: &str, upload_id: &str) -> Result<()> {
        self.abort_multipart_upload(key, upload_id).await
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        self.list_multipart_uploads(prefix).await
    }
}
