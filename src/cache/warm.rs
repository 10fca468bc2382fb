//! Filling the disk cache before anybody reads: `s3mount cache warm`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::stream::{self, Stream, StreamExt};
use parking_lot::Mutex;

use super::{DiskCache, Pinned};
use crate::bucket::{self, Bucket, ListRequest};
use crate::error::Kind;

/// Fetched with one GET; a multiple of the disk cache's block.
const PART_BYTES: u64 = 4 << 20;
/// Failures kept by name.
const MAX_FAILURES: usize = 1_000;
/// Objects that are looked at again at the end: did they stay?
const MAX_RECHECKED: usize = 10_000;

/// Brings objects into the disk cache.
#[derive(Debug)]
pub struct Warming {
    bucket: Arc<dyn Bucket>,
    disk: Arc<DiskCache>,
    parallel: usize,
    files: AtomicU64,
    bytes: AtomicU64,
    failures: Mutex<BTreeMap<String, String>>,
    done: Mutex<Vec<Pinned>>,
}

impl Warming {
    /// Nothing is fetched yet. As many GETs are under way at once as fit into `memory_bytes`.
    pub fn new(bucket: Arc<dyn Bucket>, disk: Arc<DiskCache>, memory_bytes: u64) -> Self {
        Self {
            bucket,
            disk,
            parallel: (memory_bytes / PART_BYTES).clamp(1, 32) as usize,
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            failures: Mutex::default(),
            done: Mutex::default(),
        }
    }

    /// Objects and bytes looked at so far: on disk now, or failed.
    pub fn progress(&self) -> (u64, u64) {
        (self.files.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Fetches the object of a key and all below it; the empty key is the whole bucket, one that
    /// ends in `/` a directory. Stops when dropped.
    pub async fn warm(&self, key: &str) {
        let found = AtomicU64::new(0);
        let parts = self.objects(key).flat_map(|object| {
            found.fetch_add(1, Ordering::Relaxed);
            self.parts(object)
        });
        parts.for_each_concurrent(self.parallel, |(object, part)| self.bring(object, part)).await;
        if found.load(Ordering::Relaxed) == 0 && !self.failures.lock().contains_key(key) {
            self.fail(key, "there is no such file or directory in the bucket");
        }
    }

    /// What could not be brought, as (key, cause), at most a thousand.
    pub async fn conclude(&self) -> Vec<(String, String)> {
        let (disk, done) = (Arc::clone(&self.disk), std::mem::take(&mut *self.done.lock()));
        let recheck = move || -> Vec<_> {
            done.into_iter().filter(|object| !disk.missing(object, object.size.max(1)).is_empty()).collect()
        };
        for object in tokio::task::spawn_blocking(recheck).await.unwrap_or_default() {
            self.fail(&object.key, "it did not stay: the cache is smaller than what it is to hold (--cache-size)");
        }
        std::mem::take(&mut *self.failures.lock()).into_iter().collect()
    }

    fn fail(&self, key: &str, cause: &str) {
        let mut failures = self.failures.lock();
        if failures.len() < MAX_FAILURES {
            failures.entry(key.to_owned()).or_insert_with(|| cause.to_owned());
        }
    }

    /// The object of the key, and those of a listing below it.
    fn objects<'a>(&'a self, key: &'a str) -> impl Stream<Item = Pinned> + 'a {
        let prefix = if key.is_empty() || key.ends_with('/') { key.to_owned() } else { format!("{key}/") };
        let is_file = prefix != key;
        let alone = stream::once(async move { if is_file { self.head(key).await } else { None } });
        let pages = stream::unfold(Some(None), move |next: Option<Option<String>>| {
            let request = ListRequest { prefix: prefix.clone(), any_order: true, ..ListRequest::default() };
            async move {
                let page = match self.bucket.list(&ListRequest { token: next?, ..request }).await {
                    Ok(page) => page,
                    Err(error) => {
                        self.fail(key, &error.to_string());
                        return None;
                    }
                };
                let objects: Vec<_> = page
                    .objects
                    .into_iter()
                    .map(|o| Pinned { key: o.key.into(), etag: o.etag, size: o.size })
                    .collect();
                Some((stream::iter(objects), page.next.map(Some)))
            }
        });
        alone.filter_map(std::future::ready).chain(pages.flatten()).filter(|object| {
            // Markers of directories have no bytes.
            std::future::ready(!object.key.ends_with('/'))
        })
    }

    async fn head(&self, key: &str) -> Option<Pinned> {
        match self.bucket.head(key).await {
            Ok(info) => Some(Pinned { key: key.into(), etag: info.etag, size: info.size }),
            Err(error) => {
                if error.kind != Kind::NotFound {
                    self.fail(key, &error.to_string());
                }
                None
            }
        }
    }

    /// What is missing of an object; an object with nothing missing is done.
    fn parts(&self, object: Pinned) -> impl Stream<Item = (Arc<Missing>, Range<u64>)> {
        let (disk, asked) = (Arc::clone(&self.disk), object.clone());
        let missing = tokio::task::spawn_blocking(move || disk.missing(&asked, PART_BYTES));
        stream::once(async move {
            let parts = missing.await.unwrap_or_default();
            let missing_bytes: u64 = parts.iter().map(|part| part.end - part.start).sum();
            self.bytes.fetch_add(object.size - missing_bytes, Ordering::Relaxed);
            if parts.is_empty() {
                self.finish(&object);
            }
            let missing = Arc::new(Missing { object, parts: AtomicU64::new(parts.len() as u64) });
            stream::iter(parts.into_iter().map(move |part| (Arc::clone(&missing), part)))
        })
        .flatten()
    }

    async fn bring(&self, missing: Arc<Missing>, part: Range<u64>) {
        let length = part.end - part.start;
        let object = &missing.object;
        let failure = match self.fetch(object, &part).await {
            Ok(true) => None,
            Ok(false) => Some("the disk cache did not take it: it is too small, or the disk is full".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(cause) = failure {
            self.fail(&object.key, &cause);
        }
        self.bytes.fetch_add(length, Ordering::Relaxed);
        if missing.parts.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.finish(object);
        }
    }

    async fn fetch(&self, object: &Pinned, part: &Range<u64>) -> bucket::Result<bool> {
        let fetched = self.bucket.get(&object.key, Some(part.clone()), Some(&object.etag)).await?;
        let is_right = fetched.info.etag == object.etag && fetched.bytes.len() as u64 == part.end - part.start;
        if !is_right {
            return Err(super::flight::failure(&object.key, Kind::Changed, "the object was replaced meanwhile"));
        }
        Ok(self.disk.store(object, part.start, fetched.bytes).await)
    }

    fn finish(&self, object: &Pinned) {
        self.files.fetch_add(1, Ordering::Relaxed);
        let mut done = self.done.lock();
        if done.len() < MAX_RECHECKED && !self.failures.lock().contains_key(&*object.key) {
            done.push(object.clone());
        }
    }
}

/// An object, and how many of its parts are still to come.
#[derive(Debug)]
struct Missing {
    object: Pinned,
    parts: AtomicU64,
}
