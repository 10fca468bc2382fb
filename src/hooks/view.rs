//! Views: read-only directories whose files are what a hook makes of objects (`kind = "transform"`).
//!
//! Seen from `fs` a view is part of the bucket: [`Views`] is that bucket, in which a key below a view
//! stands for what the hook makes of the object of the same path beside it. It is made once for each version
//! of the object and of the hook, and kept on the local disk.

use std::ops::Range;
use std::sync::{Arc, OnceLock, Weak};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, StreamExt};

use super::Hooks;
use super::invocation::Hook;
use super::transform::Made;
use crate::bucket::attributes::Attributes;
use crate::bucket::upload::Arriving;
use crate::bucket::{
    self, AppendRequest, Bucket, Condition, CopyRequest, Deletion, ETag, Error, Fetched, ListPage, ListRequest, Listed,
    ObjectInfo, Part, PendingUpload, Properties, PutOptions, RenameRequest, Result, Sink, check_version,
};
use crate::error::Kind;

/// Files of a page that are made at once.
const PARALLEL: usize = 8;
/// Version of a view's own directory, which is in no bucket.
const DIRECTORY_TAG: &str = "view";

/// A bucket with the views of a mount in it.
#[derive(Debug)]
pub struct Views {
    inner: Arc<dyn Bucket>,
    hooks: OnceLock<Known>,
}

struct Known(Weak<Hooks>);

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Known")
    }
}

/// A key below a view.
struct Shown {
    hooks: Arc<Hooks>,
    hook: Arc<Hook>,
    /// Key of the view's own directory.
    view: String,
    /// Key of the object that is shown; of the view's own directory, the prefix of the mount.
    source: String,
}

impl Views {
    /// This bucket; it has no views before [`Views::attach`].
    #[must_use]
    pub fn over(inner: Arc<dyn Bucket>) -> Arc<Self> {
        Arc::new(Self { inner, hooks: OnceLock::new() })
    }

    /// From now on it has those of these hooks.
    pub fn attach(&self, hooks: &Arc<Hooks>) {
        let _ = self.hooks.set(Known(Arc::downgrade(hooks)));
    }

    fn hooks(&self) -> Option<Arc<Hooks>> {
        self.hooks.get()?.0.upgrade()
    }

    /// What a key below a view stands for; `None` for all other keys.
    fn shown(&self, key: &str) -> Option<Shown> {
        let hooks = self.hooks()?;
        let (hook, view, below) = hooks.view_of(key)?;
        let source = format!("{}{below}", hooks.prefix());
        Some(Shown { hooks, hook, view, source })
    }

    /// Nothing is written below a view.
    fn real(&self, operation: &'static str, key: &str) -> Result<()> {
        match self.hooks().and_then(|hooks| hooks.view_of(key)) {
            Some((hook, ..)) => Err(read_only(operation, key, &hook)),
            None => Ok(()),
        }
    }

    async fn list_view(&self, shown: Shown, request: &ListRequest) -> Result<ListPage> {
        let Shown { hooks, hook, view, source } = &shown;
        if !request.delimited {
            // A guess of what will be read would have all of it made.
            return Err(read_only("ListObjectsV2", &request.prefix, hook));
        }
        let of_source = |key: &String| format!("{}{}", hooks.prefix(), key.strip_prefix(view.as_str()).unwrap_or(key));
        let start_after = request.start_after.as_ref().map(of_source);
        let there = ListRequest { prefix: source.clone(), start_after, ..request.clone() };
        let page = self.inner.list(&there).await?;
        let here = |key: &str| format!("{view}{}", &key[hooks.prefix().len()..]);
        let is_source = |key: &str| hooks.view_of(key).is_none();
        let made = stream::iter(page.objects).map(|object| {
            let key = here(&object.key);
            async move {
                if object.key.ends_with('/') {
                    return Some(Listed { key, ..object });
                }
                let made = hooks.made(hook, &object.key, &object.etag, object.size, object.modified).await?.ok()?;
                // No checksum of ours: nobody asks what it carries.
                Some(Listed {
                    key,
                    etag: made.etag,
                    size: made.size,
                    modified: object.modified,
                    storage_class: None,
                    checksums: Vec::new(),
                })
            }
        });
        let mut objects: Vec<Listed> = made.buffered(PARALLEL).filter_map(std::future::ready).collect().await;
        if request.prefix == *view && request.token.is_none() && request.start_after.is_none() {
            let (key, etag) = (view.clone(), ETag::new(DIRECTORY_TAG));
            let modified = SystemTime::UNIX_EPOCH;
            objects.insert(0, Listed { key, etag, size: 0, modified, storage_class: None, checksums: Vec::new() });
        }
        let prefixes = page.prefixes.iter().filter(|key| is_source(key)).map(|key| here(key)).collect();
        Ok(ListPage { objects, prefixes, next: page.next })
    }
}

/// Puts the directories of views into a page of the directory that they lie in.
fn add_views(hooks: &Hooks, request: &ListRequest, page: &mut ListPage) {
    if !request.delimited || request.prefix != hooks.prefix() {
        return;
    }
    let is_first = request.token.is_none() && request.start_after.is_none();
    let first =
        page.objects.first().map(|object| object.key.clone()).into_iter().chain(page.prefixes.first().cloned()).min();
    let last = page.last_key();
    for view in hooks.views() {
        let begins = is_first || first.as_ref().is_some_and(|first| *first < view);
        let ends = page.next.is_none() || view < last;
        if begins && ends && !page.prefixes.contains(&view) {
            page.prefixes.push(view);
        }
    }
    page.prefixes.sort();
}

fn read_only(operation: &'static str, key: &str, hook: &Hook) -> Error {
    let cause = format!("a view of hook \"{}\" can only be read", hook.spec.name);
    Error { kind: Kind::ReadOnly, operation, key: key.to_owned(), cause, http_status: None, request_id: None }
}

/// Attributes of the source, without the right to write.
fn info_of(made: &Made, source: &ObjectInfo) -> ObjectInfo {
    let attributes = Attributes::from_metadata(&source.metadata);
    let shown = Attributes { mode: attributes.mode.map(|mode| mode & !0o222), ..attributes };
    // What fits into S3's metadata fits again.
    let metadata = shown.to_metadata().unwrap_or_default();
    ObjectInfo { etag: made.etag.clone(), size: made.size, metadata, ..source.clone() }
}

fn directory(modified: SystemTime) -> ObjectInfo {
    ObjectInfo {
        etag: ETag::new(DIRECTORY_TAG),
        size: 0,
        modified,
        metadata: bucket::Metadata::new(),
        properties: Properties::default(),
        version_id: None,
        archived: false,
    }
}

#[async_trait]
impl Bucket for Views {
    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        let Some(shown) = self.shown(key) else { return self.inner.head(key).await };
        if key == shown.view {
            return Ok(directory(SystemTime::UNIX_EPOCH));
        }
        let source = self.inner.head(&shown.source).await?;
        if key.ends_with('/') {
            return Ok(source);
        }
        let made = shown.make(&source, key).await?;
        Ok(info_of(&made, &source))
    }

    /// Of a version that was made nothing is asked.
    async fn get(&self, key: &str, range: Option<Range<u64>>, if_match: Option<&ETag>) -> Result<Fetched> {
        let Some(shown) = self.shown(key) else { return self.inner.get(key, range, if_match).await };
        if let Some(made) = if_match.and_then(|etag| shown.hooks.kept(&shown.hook, etag)) {
            let info = ObjectInfo { etag: made.etag.clone(), size: made.size, ..directory(made.modified) };
            return Ok(Fetched { info, bytes: read(&made, range, key).await? });
        }
        let source = self.inner.head(&shown.source).await?;
        let made = shown.make(&source, key).await?;
        if let Some(wanted) = if_match {
            check_version(key, &made.etag, wanted)?;
        }
        Ok(Fetched { info: info_of(&made, &source), bytes: read(&made, range, key).await? })
    }

    async fn get_into(&self, key: &str, range: Range<u64>, etag: &ETag, sink: &dyn Sink) -> Result<()> {
        if self.shown(key).is_none() {
            return self.inner.get_into(key, range, etag, sink).await;
        }
        let start = range.start + sink.taken_bytes();
        if start < range.end {
            sink.take(&self.get(key, Some(start..range.end), Some(etag)).await?.bytes);
        }
        Ok(())
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        if let Some(shown) = self.shown(&request.prefix) {
            return self.list_view(shown, request).await;
        }
        let mut page = self.inner.list(request).await?;
        if let Some(hooks) = self.hooks() {
            add_views(&hooks, request, &mut page);
        }
        Ok(page)
    }

    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<ETag> {
        self.real("PutObject", key)?;
        self.inner.put(key, body, options).await
    }

    async fn copy(&self, request: &CopyRequest) -> Result<ETag> {
        self.real("CopyObject", &request.from)?;
        self.real("CopyObject", &request.to)?;
        self.inner.copy(request).await
    }

    async fn rename(&self, request: &RenameRequest) -> Result<()> {
        self.real("RenameObject", &request.from)?;
        self.real("RenameObject", &request.to)?;
        self.inner.rename(request).await
    }

    async fn append(&self, request: &AppendRequest, body: Bytes) -> Result<ETag> {
        self.real("PutObject", &request.key)?;
        self.inner.append(request, body).await
    }

    async fn delete(&self, key: &str, if_match: Option<&ETag>) -> Result<()> {
        self.real("DeleteObject", key)?;
        self.inner.delete(key, if_match).await
    }

    async fn delete_many(&self, deletions: &[Deletion]) -> Result<Vec<(String, Error)>> {
        self.inner.delete_many(deletions).await
    }

    async fn create_upload(&self, key: &str, options: &PutOptions) -> Result<String> {
        self.real("CreateMultipartUpload", key)?;
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

impl Shown {
    async fn make(&self, source: &ObjectInfo, key: &str) -> Result<Made> {
        let made = self.hooks.made(&self.hook, &self.source, &source.etag, source.size, source.modified).await;
        made.unwrap_or_else(|| Err(no_such_key(key)))
    }
}

/// What the rule of a view leaves out is not in it.
fn no_such_key(key: &str) -> Error {
    let cause = "NoSuchKey: its rule does not show it".to_owned();
    let key = key.to_owned();
    Error { kind: Kind::NotFound, operation: "HeadObject", key, cause, http_status: None, request_id: None }
}

async fn read(made: &Made, range: Option<Range<u64>>, key: &str) -> Result<Bytes> {
    use std::os::unix::fs::FileExt;
    let (path, size) = (made.path.clone(), made.size);
    let read = move || {
        let range = range.unwrap_or(0..size);
        let end = range.end.min(size);
        let mut bytes = vec![0; end.saturating_sub(range.start) as usize];
        std::fs::File::open(path)?.read_exact_at(&mut bytes, range.start)?;
        Ok::<_, std::io::Error>(Bytes::from(bytes))
    };
    let bytes = tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other).flatten();
    bytes.map_err(|error| super::transform::local("GetObject", key, &error))
}
