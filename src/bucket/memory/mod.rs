//! A bucket in memory with S3's conditions and listing order, for tests of everything above the
//! trait. Faults are injected by rule ([`Fault`]), and every request is counted.

mod fault;
mod listing;
mod uploads;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use md5::{Digest, Md5};
use parking_lot::Mutex;

use super::upload::Arriving;
use super::{
    Bucket, Condition, CopyRequest, Deletion, ETag, Error, Fetched, ListPage, ListRequest, Metadata, ObjectInfo, Part,
    PendingUpload, Properties, PutOptions, Result, StorageClass,
};
use crate::error::Kind;
pub use fault::{Effect, Fault};
use uploads::Upload;

/// The operation of a [`Fault`] that makes `DeleteObjects` fail for a single key.
pub const DELETED_KEY: &str = "DeleteObjects of a key";

/// One stored object.
#[derive(Clone, Debug)]
struct Object {
    bytes: Bytes,
    etag: ETag,
    modified: SystemTime,
    metadata: Metadata,
    properties: Properties,
    archived: bool,
    /// As LIST tells it: what our client writes carries CRC32C, what others write S3's default.
    checksum: &'static str,
}

impl Object {
    fn new(key: &str, bytes: Bytes, etag: ETag, options: &PutOptions) -> Self {
        let (metadata, content_type) = (options.metadata.clone(), options.properties.content_type_at(key));
        let properties = Properties { content_type, ..options.properties.clone() };
        Self { bytes, etag, modified: whole_seconds_now(), metadata, properties, archived: false, checksum: "CRC32C" }
    }

    fn info(&self) -> ObjectInfo {
        ObjectInfo {
            etag: self.etag.clone(),
            size: self.bytes.len() as u64,
            modified: self.modified,
            metadata: self.metadata.clone(),
            properties: self.properties.clone(),
            version_id: None,
            archived: self.archived,
        }
    }
}

/// `Last-Modified` has whole seconds.
fn whole_seconds_now() -> SystemTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

fn etag_of(bytes: &[u8]) -> ETag {
    ETag::new(&hex::encode(Md5::digest(bytes)))
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, Upload>,
    uploads_begun: u64,
    requests: BTreeMap<&'static str, u64>,
    faults: Vec<Fault>,
    faithless: BTreeSet<Faithless>,
    tags_given: u64,
    /// Keys in a page of a bucket that lists in no order.
    directory_page: Option<usize>,
    /// Bytes of objects that came in and went out.
    moved: Moved,
    /// Requests under way by operation, and the most there were.
    at_once: BTreeMap<&'static str, (usize, usize)>,
}

/// What some servers do otherwise than S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Faithless {
    IgnoresConditions,
    IgnoresTagsOfCopied,
    HidesChecksums,
    LosesChecksumsOfCopies,
    GivesRandomTags,
    RefusesTagsOfDeleted,
    DeniesTagsOfDeleted,
    InsistsOnTagsOfDeleted,
}

/// Bytes of objects in the bodies of requests and answers; what is copied inside moves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    pub sent: u64,
    pub fetched: u64,
}

impl State {
    /// Checks a write's condition as S3 does: 412 for another or an existing version, 404 for
    /// `If-Match` on a key that does not exist.
    fn check(&self, operation: &'static str, key: &str, condition: &Condition) -> Result<()> {
        if self.faithless.contains(&Faithless::IgnoresConditions) {
            return Ok(());
        }
        match (condition, self.objects.get(key)) {
            (Condition::IfAbsent, Some(_)) => Err(changed(operation, key)),
            (Condition::IfMatch(tag), Some(object)) if object.etag != *tag => Err(changed(operation, key)),
            (Condition::IfMatch(_), None) => Err(no_such_key(operation, key)),
            _ => Ok(()),
        }
    }

    /// Deletes a key if it is the version that is to go, as S3 does; what is not there is gone.
    fn delete(&mut self, operation: &'static str, key: &str, if_match: Option<&ETag>) -> Result<()> {
        let is = |habit| self.faithless.contains(&habit);
        match (if_match, self.objects.get(key)) {
            (Some(_), _) if is(Faithless::RefusesTagsOfDeleted) => {
                return Err(error(Kind::Unsupported, operation, key, "NotImplemented", 501));
            }
            (Some(_), _) if is(Faithless::DeniesTagsOfDeleted) => return Err(denied(operation, key)),
            (None, _) if is(Faithless::InsistsOnTagsOfDeleted) => return Err(denied(operation, key)),
            (Some(tag), Some(object)) if object.etag != *tag && !is(Faithless::IgnoresConditions) => {
                return Err(changed(operation, key));
            }
            _ => {}
        }
        self.objects.remove(key);
        Ok(())
    }

    fn object(&self, operation: &'static str, key: &str) -> Result<&Object> {
        self.objects.get(key).ok_or_else(|| no_such_key(operation, key))
    }

    fn new_tag(&mut self, bytes: &[u8]) -> ETag {
        if !self.faithless.contains(&Faithless::GivesRandomTags) {
            return etag_of(bytes);
        }
        self.tags_given += 1;
        ETag::new(&format!("tag-{}", self.tags_given))
    }

    /// The bytes of `from` if it still is the version that the copy names.
    fn copy_source(&self, operation: &'static str, request: &CopyRequest) -> Result<Object> {
        let source = self.object(operation, &request.from)?;
        let ignores_tag = self.faithless.contains(&Faithless::IgnoresTagsOfCopied);
        match request.from_etag.as_ref().filter(|_| !ignores_tag) {
            Some(tag) if source.etag != *tag => Err(changed(operation, &request.from)),
            _ => Ok(source.clone()),
        }
    }
}

/// Other buckets of the same server, by name.
type Neighbours = Mutex<BTreeMap<String, Weak<MemoryBucket>>>;

fn error(kind: Kind, operation: &'static str, key: &str, cause: &str, status: u16) -> Error {
    let (key, cause) = (key.to_owned(), cause.to_owned());
    Error { kind, operation, key, cause, http_status: Some(status), request_id: None }
}

fn no_such_key(operation: &'static str, key: &str) -> Error {
    error(Kind::NotFound, operation, key, "NoSuchKey", 404)
}

fn changed(operation: &'static str, key: &str) -> Error {
    error(Kind::Changed, operation, key, "PreconditionFailed", 412)
}

fn denied(operation: &'static str, key: &str) -> Error {
    error(Kind::AccessDenied, operation, key, "AccessDenied", 403)
}

/// A [`Bucket`] in memory. Cheap to make, one per test.
#[derive(Debug, Default)]
pub struct MemoryBucket {
    state: Mutex<State>,
    neighbours: Neighbours,
}

impl MemoryBucket {
    /// An empty bucket.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Copies may come from this bucket, too.
    pub fn beside(&self, name: &str, other: &Arc<Self>) {
        self.neighbours.lock().insert(name.to_owned(), Arc::downgrade(other));
    }

    /// What a copy takes from another bucket; `None` for one inside of this.
    fn taken_from_neighbour(&self, operation: &'static str, request: &CopyRequest) -> Option<Result<Object>> {
        let name = request.from_bucket.as_ref()?;
        let neighbour = self.neighbours.lock().get(name).and_then(Weak::upgrade);
        Some(match neighbour {
            Some(neighbour) => neighbour.state.lock().copy_source(operation, request),
            None => Err(error(Kind::NoSuchBucket, operation, name, "NoSuchBucket", 404)),
        })
    }

    /// Stores an object as another client would: no condition, not counted, no fault. Returns its tag.
    pub fn insert(&self, key: &str, bytes: impl Into<Bytes>, metadata: Metadata) -> ETag {
        let bytes = bytes.into();
        let etag = etag_of(&bytes);
        let options = PutOptions { metadata, ..PutOptions::default() };
        let object = Object { checksum: "CRC64NVME", ..Object::new(key, bytes, etag.clone(), &options) };
        self.state.lock().objects.insert(key.to_owned(), object);
        etag
    }

    /// Removes an object as another client would; not counted.
    pub fn remove(&self, key: &str) {
        self.state.lock().objects.remove(key);
    }

    /// Moves an object into the archive tier: HEAD says so, GET refuses.
    pub fn archive(&self, key: &str) {
        if let Some(object) = self.state.lock().objects.get_mut(key) {
            object.archived = true;
            object.properties.storage_class = Some(StorageClass::from("GLACIER".to_owned()));
        }
    }

    /// The bytes of an object, if it exists; not counted.
    pub fn bytes(&self, key: &str) -> Option<Bytes> {
        self.state.lock().objects.get(key).map(|object| object.bytes.clone())
    }

    /// What HEAD would say of an object, if it exists; not counted.
    pub fn info(&self, key: &str) -> Option<ObjectInfo> {
        self.state.lock().objects.get(key).map(Object::info)
    }

    /// Every key, in order.
    pub fn keys(&self) -> Vec<String> {
        self.state.lock().objects.keys().cloned().collect()
    }

    /// Requests since the start by operation, also those that failed.
    pub fn requests(&self) -> BTreeMap<&'static str, u64> {
        self.state.lock().requests.clone()
    }

    /// Requests of one operation, e.g. `GetObject`.
    pub fn count(&self, operation: &str) -> u64 {
        self.state.lock().requests.get(operation).copied().unwrap_or(0)
    }

    /// Bytes since the start.
    pub fn moved(&self) -> Moved {
        self.state.lock().moved
    }

    /// Uploads begun and neither completed nor aborted.
    pub fn open_uploads(&self) -> usize {
        self.state.lock().uploads.len()
    }

    /// Adds a fault; rules are tried in the order they came.
    pub fn inject(&self, fault: Fault) {
        self.state.lock().faults.push(fault);
    }

    /// Takes all faults away.
    pub fn heal(&self) {
        self.state.lock().faults.clear();
    }

    /// LIST tells no checksum algorithms, as SeaweedFS and older servers do.
    pub fn hide_checksums(&self) {
        self.state.lock().faithless.insert(Faithless::HidesChecksums);
    }

    /// Lists as S3 does in a directory bucket, so many keys in a page.
    pub fn list_as_directory_bucket(&self, page_keys: usize) {
        self.state.lock().directory_page = Some(page_keys);
    }

    /// Copies lose the checksum algorithm that was asked for.
    pub fn lose_checksums_of_copies(&self) {
        self.state.lock().faithless.insert(Faithless::LosesChecksumsOfCopies);
    }

    /// The most requests of one operation that were under way at once.
    pub fn most_at_once(&self, operation: &str) -> usize {
        self.state.lock().at_once.get(operation).map_or(0, |(_, most)| *most)
    }

    /// Requests under way now.
    pub fn under_way(&self) -> usize {
        self.state.lock().at_once.values().map(|(now, _)| *now).sum()
    }

    /// Accepts conditional writes and deletions with success and ignores the condition, as garage does.
    pub fn ignore_conditions(&self) {
        self.state.lock().faithless.insert(Faithless::IgnoresConditions);
    }

    /// Copies whatever is there, where another version was asked for.
    pub fn ignore_tags_of_copied(&self) {
        self.state.lock().faithless.insert(Faithless::IgnoresTagsOfCopied);
    }

    /// Each version has a tag of its own, whatever its bytes, as those encrypted by KMS have.
    pub fn give_random_tags(&self) {
        self.state.lock().faithless.insert(Faithless::GivesRandomTags);
    }

    /// Knows no conditions of deletions, and says so.
    pub fn refuse_tags_of_deleted(&self) {
        self.state.lock().faithless.insert(Faithless::RefusesTagsOfDeleted);
    }

    /// Lets the caller delete, but not name a version for it, as S3 does without `s3:GetObject`.
    pub fn deny_tags_of_deleted(&self) {
        self.state.lock().faithless.insert(Faithless::DeniesTagsOfDeleted);
    }

    /// Has a policy that allows only deletions that name a version.
    pub fn insist_on_tags_of_deleted(&self) {
        self.state.lock().faithless.insert(Faithless::InsistsOnTagsOfDeleted);
    }

    /// Counts the request, plays the first fault that fits, and applies the operation in between.
    async fn request<T>(
        &self,
        operation: &'static str,
        key: &str,
        apply: impl FnOnce(&mut State) -> Result<T> + Send,
    ) -> Result<T> {
        let effect = {
            let mut state = self.state.lock();
            *state.requests.entry(operation).or_default() += 1;
            let (now, most) = state.at_once.entry(operation).or_default();
            *now += 1;
            *most = (*most).max(*now);
            fault::take(&mut state.faults, operation, key)
        };
        let _under_way = UnderWay { bucket: self, operation };
        match effect {
            None => apply(&mut self.state.lock()),
            Some(Effect::Fail(kind)) => Err(fault::failure(kind, operation, key)),
            Some(Effect::Delay(duration)) => {
                tokio::time::sleep(duration).await;
                apply(&mut self.state.lock())
            }
            Some(Effect::Hold(released)) => {
                released.notified().await;
                apply(&mut self.state.lock())
            }
            Some(Effect::Hang) => std::future::pending().await,
            Some(Effect::LoseReply(kind)) => {
                apply(&mut self.state.lock())?;
                Err(fault::failure(kind, operation, key))
            }
        }
    }
}

/// Ends with its request, also when that is dropped.
struct UnderWay<'a> {
    bucket: &'a MemoryBucket,
    operation: &'static str,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some((now, _)) = self.bucket.state.lock().at_once.get_mut(self.operation) {
            *now -= 1;
        }
    }
}

#[async_trait]
impl Bucket for MemoryBucket {
    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        self.request("HeadObject", key, |state| state.object("HeadObject", key).map(Object::info)).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>, if_match: Option<&ETag>) -> Result<Fetched> {
        self.request("GetObject", key, |state| {
            let object = state.object("GetObject", key)?;
            if if_match.is_some_and(|tag| *tag != object.etag) {
                return Err(changed("GetObject", key));
            }
            if object.archived {
                return Err(error(Kind::Archived, "GetObject", key, "InvalidObjectState", 403));
            }
            let bytes = range.map_or_else(|| object.bytes.clone(), |range| cut(&object.bytes, range));
            let fetched = Fetched { info: object.info(), bytes };
            state.moved.fetched += fetched.bytes.len() as u64;
            Ok(fetched)
        })
        .await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        self.request("ListObjectsV2", &request.prefix, |state| match state.directory_page {
            None => Ok(listing::page(state, request)),
            Some(page_keys) => listing::page_of_directory_bucket(state, request, page_keys)
                .ok_or_else(|| error(Kind::Refused, "ListObjectsV2", &request.prefix, "InvalidArgument", 400)),
        })
        .await
    }

    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<ETag> {
        self.request("PutObject", key, |state| {
            state.moved.sent += body.len() as u64;
            state.check("PutObject", key, &options.condition)?;
            let etag = state.new_tag(&body);
            state.objects.insert(key.to_owned(), Object::new(key, body, etag.clone(), options));
            Ok(etag)
        })
        .await
    }

    async fn copy(&self, request: &CopyRequest) -> Result<ETag> {
        let taken = self.taken_from_neighbour("CopyObject", request);
        self.request("CopyObject", &request.to, |state| {
            let mut object = taken.unwrap_or_else(|| state.copy_source("CopyObject", request))?;
            if let Some(options) = &request.replace {
                state.check("CopyObject", &request.to, &options.condition)?;
                object = Object::new(&request.to, object.bytes, object.etag, options);
            } else {
                object.properties.storage_class.clone_from(&request.storage_class);
            }
            if state.faithless.contains(&Faithless::LosesChecksumsOfCopies) {
                object.checksum = "CRC64NVME";
            }
            object.modified = whole_seconds_now();
            object.etag = state.new_tag(&object.bytes);
            let etag = object.etag.clone();
            state.objects.insert(request.to.clone(), object);
            Ok(etag)
        })
        .await
    }

    async fn delete(&self, key: &str, if_match: Option<&ETag>) -> Result<()> {
        self.request("DeleteObject", key, |state| state.delete("DeleteObject", key, if_match)).await
    }

    async fn delete_many(&self, deletions: &[Deletion]) -> Result<Vec<(String, Error)>> {
        let first = deletions.first().map_or("", |deletion| deletion.key.as_str());
        self.request("DeleteObjects", first, |state| {
            let mut failed = Vec::new();
            for Deletion { key, etag } in deletions {
                let deleted = match fault::take(&mut state.faults, DELETED_KEY, key) {
                    Some(Effect::Fail(kind)) => Err(fault::failure(kind, DELETED_KEY, key)),
                    _ => state.delete(DELETED_KEY, key, etag.as_ref()),
                };
                // The answer to a batch has a code for each key, and no status.
                failed.extend(deleted.err().map(|error| (key.clone(), Error { http_status: None, ..error })));
            }
            Ok(failed)
        })
        .await
    }

    async fn create_upload(&self, key: &str, options: &PutOptions) -> Result<String> {
        self.request("CreateMultipartUpload", key, |state| Ok(uploads::create(state, key, options))).await
    }

    async fn upload_part(&self, key: &str, upload_id: &str, number: u16, body: Bytes) -> Result<Part> {
        self.request("UploadPart", key, |state| {
            state.moved.sent += body.len() as u64;
            uploads::part(state, "UploadPart", key, upload_id, number, body)
        })
        .await
    }

    async fn upload_arriving_part(&self, key: &str, id: &str, number: u16, part: &Arc<Arriving>) -> Result<Part> {
        let body = part.whole().await;
        self.upload_part(key, id, number, body).await
    }

    async fn copy_part(
        &self,
        key: &str,
        upload_id: &str,
        number: u16,
        from: &CopyRequest,
        range: Range<u64>,
    ) -> Result<Part> {
        let taken = self.taken_from_neighbour("UploadPartCopy", from);
        self.request("UploadPartCopy", key, |state| {
            let source = taken.unwrap_or_else(|| state.copy_source("UploadPartCopy", from))?;
            uploads::part(state, "UploadPartCopy", key, upload_id, number, cut(&source.bytes, range))
        })
        .await
    }

    async fn complete_upload(&self, key: &str, upload_id: &str, parts: &[Part], condition: &Condition) -> Result<ETag> {
        self.request("CompleteMultipartUpload", key, |state| uploads::complete(state, key, upload_id, parts, condition))
            .await
    }

    async fn abort_upload(&self, key: &str, upload_id: &str) -> Result<()> {
        self.request("AbortMultipartUpload", key, |state| uploads::abort(state, key, upload_id)).await
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        self.request("ListMultipartUploads", prefix, |state| Ok(uploads::list(state, prefix))).await
    }
}

/// The asked range, cut at the end of the object.
fn cut(bytes: &Bytes, range: Range<u64>) -> Bytes {
    let end = (range.end as usize).min(bytes.len());
    bytes.slice((range.start as usize).min(end)..end)
}

#[cfg(test)]
mod tests;
