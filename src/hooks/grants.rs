//! The objects that a typed hook may ask for, and what it did to them.
//!
//! Paths are those of the mount. Nothing is granted by default but reading the event's own object.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::invocation::Publication;
use super::{Front, HookSpec, lineage};
use crate::bucket::{self, Bucket, Condition, CopyRequest, ETag, Fetched, ListRequest, Listed, ObjectInfo, PutOptions};
use crate::journal::{EventName, NewEvent, stored_etag};
use crate::key;

/// What one call may carry: it is in memory, beside the guest's own.
pub(super) const MAX_CALL_BYTES: u64 = 16 << 20;
/// Pages of a listing that one call reads to find what may be read.
const MAX_PAGES: usize = 100;

/// Why a guest does not get what it asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}")]
    Denied(String),
    #[error("more than {MAX_CALL_BYTES} bytes in one call")]
    TooLarge,
    #[error(transparent)]
    Bucket(#[from] bucket::Error),
}

type Result<T> = std::result::Result<T, Error>;

/// The bucket as one run of one hook sees it.
pub(super) struct Granted {
    bucket: Arc<dyn Bucket>,
    /// Key prefix of the mount, empty or ending in `/`.
    prefix: String,
    spec: HookSpec,
    /// Path of the event's object.
    own: String,
    lineage: Vec<String>,
    /// When dry, writes are answered as if, and told.
    publication: Publication,
    front: Arc<dyn Front>,
    /// What was written or removed, or is about to be: whoever is stopped in between may have done it.
    facts: Mutex<Vec<NewEvent>>,
}

impl Granted {
    /// For a run on the object of this event, whose path in the mount is `path`.
    pub(super) fn new(
        bucket: Arc<dyn Bucket>,
        front: Arc<dyn Front>,
        prefix: &str,
        spec: &HookSpec,
        event: &NewEvent,
        path: &str,
        publication: Publication,
    ) -> Self {
        let lineage = [event.lineage.as_slice(), std::slice::from_ref(&spec.name)].concat();
        let (prefix, own, spec) = (prefix.to_owned(), path.to_owned(), spec.clone());
        Self { bucket, prefix, spec, own, lineage, publication, front, facts: Mutex::default() }
    }

    /// What happened to objects, for the journal.
    pub(super) fn take_facts(&self) -> Vec<NewEvent> {
        std::mem::take(&mut *self.facts.lock())
    }

    pub(super) async fn stat(&self, path: &str) -> Result<ObjectInfo> {
        Ok(self.bucket.head(&self.readable(path)?).await?)
    }

    /// `length` bytes from `offset`, or all that follow; of this version, if one is named.
    pub(super) async fn get(
        &self,
        path: &str,
        offset: u64,
        length: Option<u64>,
        version: Option<&ETag>,
    ) -> Result<Fetched> {
        let key = self.readable(path)?;
        // Nobody can ask S3 for a range of nothing: the size has to be known first.
        let info = self.bucket.head(&key).await?;
        let etag = version.unwrap_or(&info.etag).clone();
        let end = length.map_or(info.size, |length| info.size.min(offset.saturating_add(length)));
        if end.saturating_sub(offset) > MAX_CALL_BYTES {
            return Err(Error::TooLarge);
        }
        if offset >= end {
            return Ok(Fetched { info, bytes: Bytes::new() });
        }
        let fetched = self.bucket.get(&key, Some(offset..end), Some(&etag)).await?;
        bucket::check_version(&key, &fetched.info.etag, &etag)?;
        Ok(fetched)
    }

    pub(super) async fn put(&self, path: &str, body: Vec<u8>, mut options: PutOptions) -> Result<ETag> {
        let key = self.writable(path)?;
        let size = body.len() as u64;
        if size > MAX_CALL_BYTES {
            return Err(Error::TooLarge);
        }
        options.metadata.extend(lineage::metadata(&self.lineage));
        let write = self.bucket.put(&key, body.into(), &options);
        self.noting(EventName::CreatedPut, &key, size, write).await
    }

    pub(super) async fn copy(&self, from: &str, to: &str) -> Result<ETag> {
        let (from, to) = (self.readable(from)?, self.writable(to)?);
        let info = self.bucket.head(&from).await?;
        let ObjectInfo { etag, size, mut metadata, properties, .. } = info;
        metadata.extend(lineage::metadata(&self.lineage));
        let replace = Some(PutOptions { metadata, properties, condition: Condition::None });
        let request = CopyRequest { from_etag: Some(etag), replace, ..CopyRequest::new(from, to.clone()) };
        self.noting(EventName::CreatedCopy, &to, size, self.bucket.copy(&request)).await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<()> {
        let key = self.writable(path)?;
        let delete = async {
            self.front.before_deletion(&key).await;
            self.bucket.delete(&key, None).await.map(|()| ETag::new(""))
        };
        self.noting(EventName::RemovedDelete, &key, 0, delete).await.map(drop)
    }

    /// Paths below `prefix` that may be read, with what LIST tells, at most `limit`.
    pub(super) async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(String, Listed)>> {
        if self.spec.read.patterns().is_empty() {
            return Err(denied(prefix, "read"));
        }
        let mut found = Vec::new();
        let start_after = after.map(|after| format!("{}{after}", self.prefix));
        let mut request =
            ListRequest { prefix: format!("{}{prefix}", self.prefix), start_after, ..ListRequest::default() };
        for _ in 0..MAX_PAGES {
            let page = self.bucket.list(&request).await?;
            let paths = page.objects.into_iter().filter_map(|listed| Some((self.path(&listed.key)?, listed)));
            found.extend(paths.filter(|(path, _)| self.spec.read.matches(path)).take(limit - found.len()));
            request.start_after = None;
            request.token = page.next;
            if found.len() == limit || request.token.is_none() {
                break;
            }
        }
        Ok(found)
    }

    fn path(&self, key: &str) -> Option<String> {
        key.strip_prefix(&self.prefix).map(str::to_owned)
    }

    fn readable(&self, path: &str) -> Result<String> {
        let granted = path == self.own || self.spec.read.matches(path);
        self.key(path, granted, "read")
    }

    fn writable(&self, path: &str) -> Result<String> {
        let granted = self.spec.write.iter().any(|directory| path.starts_with(directory.as_str()));
        self.key(path, granted, "write")
    }

    fn key(&self, path: &str, granted: bool, setting: &str) -> Result<String> {
        if !granted || path.split('/').any(|component| key::oddity(component).is_some()) {
            return Err(denied(path, setting));
        }
        Ok(format!("{}{path}", self.prefix))
    }

    /// Does something to a key, and notes it: before, because a run can be stopped while the bucket
    /// does it, and for good only if the bucket did not refuse.
    async fn noting(
        &self,
        name: EventName,
        key: &str,
        size: u64,
        work: impl Future<Output = bucket::Result<ETag>>,
    ) -> Result<ETag> {
        let fact = NewEvent { size, lineage: self.lineage.clone(), ..NewEvent::now(name, key) };
        if self.publication == Publication::Dry {
            self.facts.lock().push(fact);
            return Ok(ETag::new("dry-run"));
        }
        let at = {
            let mut facts = self.facts.lock();
            facts.push(fact);
            facts.len() - 1
        };
        let done = work.await;
        self.front.changed(key);
        match &done {
            Ok(etag) if name != EventName::RemovedDelete => self.facts.lock()[at].etag = Some(stored_etag(etag)),
            // One guest does one thing at a time: nothing was noted after it.
            Err(error) if error.http_status.is_some_and(|status| status < 500) => self.facts.lock().truncate(at),
            _ => {}
        }
        Ok(done?)
    }
}

fn denied(path: &str, setting: &str) -> Error {
    Error::Denied(format!(
        "\"{}\" is not granted: `{setting}` of the hook's settings does not name it",
        path.escape_debug()
    ))
}
