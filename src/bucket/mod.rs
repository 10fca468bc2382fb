//! All that is said to S3: a small trait of verbs, and what goes in and out of them.
//!
//! Each verb is one S3 request, so that the decorators around the trait (deadline and retry,
//! request log, faults for tests) see what the wire sees. What takes several requests, such as a
//! multipart upload, is a function over the trait ([`upload`]).

mod append;
pub mod attributes;
pub mod check_first;
pub mod checksum;
pub mod client;
pub mod clock;
pub mod history;
pub mod identity;
pub mod in_order;
pub mod layout;
pub mod memory;
pub mod probe;
pub mod properties;
pub mod rate;
pub mod request_log;
pub mod retry;
pub mod s3;
pub mod united;
pub mod upload;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Kind;
use append::cannot_append;
pub use append::{AppendRequest, Tail};
pub use layout::{Layout, Root};
pub use properties::{Properties, StorageClass};
use upload::Arriving;

/// User metadata of an object: `x-amz-meta-` names without that prefix, lower case. At most 2 KiB
/// in all (AWS: "Working with object metadata").
pub type Metadata = BTreeMap<String, String>;

/// An entity tag without its quotes: names one version of one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ETag(Arc<str>);

impl ETag {
    /// Takes a tag as a header or a listing gives it, quoted or not.
    #[must_use]
    pub fn new(tag: &str) -> Self {
        Self(tag.trim_matches('"').into())
    }

    /// The tag without quotes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tag as HTTP wants it in `If-Match`.
    #[must_use]
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.0)
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an object is at one moment, as HEAD and GET tell it.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectInfo {
    pub etag: ETag,
    /// Size of the whole object in bytes (also when a range of it was fetched).
    pub size: u64,
    /// `Last-Modified`, whole seconds.
    pub modified: SystemTime,
    pub metadata: Metadata,
    pub properties: Properties,
    /// The version's name in a bucket that keeps versions.
    pub version_id: Option<String>,
    /// In an archive tier and not restored: its bytes cannot be read now.
    pub archived: bool,
}

/// One object of a listing page. LIST returns no user metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    pub key: String,
    pub etag: ETag,
    pub size: u64,
    pub modified: SystemTime,
    /// `None` where the server tells none.
    pub storage_class: Option<StorageClass>,
    /// Algorithms from `ChecksumAlgorithm`, e.g. `["CRC32C"]`; empty where the server tells none.
    pub checksums: Vec<String>,
}

impl Listed {
    /// Whether it carries the checksum that our writes carry. An object without it is another
    /// program's.
    #[must_use]
    pub fn has_our_checksum(&self) -> bool {
        self.checksums.iter().any(|algorithm| algorithm == "CRC32C")
    }
}

/// What to list. Pages hold at most 1,000 keys (AWS: `ListObjectsV2`).
#[derive(Clone, Debug, Default)]
pub struct ListRequest {
    pub prefix: String,
    /// Group keys at the next `/` into [`ListPage::prefixes`].
    pub delimited: bool,
    /// Continuation token of the page before.
    pub token: Option<String>,
    /// First page only: keys strictly after this one.
    pub start_after: Option<String>,
    /// At most this many keys and prefixes; `None` = the server's 1,000.
    pub max_keys: Option<u16>,
    /// Keys may come in any order, over all pages: a directory bucket is spared being listed to its end first. Only
    /// for a prefix that is empty or ends in `/`, and not with `start_after`.
    pub any_order: bool,
}

/// Largest page of a server (AWS: `ListObjectsV2`).
const PAGE_KEYS: usize = 1_000;

/// One page of a listing, in binary key order.
#[derive(Clone, Debug, Default)]
pub struct ListPage {
    pub objects: Vec<Listed>,
    /// Common prefixes, each ending in `/`.
    pub prefixes: Vec<String>,
    /// Token of the next page; `None` = this was the last.
    pub next: Option<String>,
}

impl ListPage {
    /// How many pages of a server it is worth, at least one: [`in_order`] makes larger ones.
    #[must_use]
    pub fn pages(&self) -> usize {
        (self.objects.len() + self.prefixes.len()).div_ceil(PAGE_KEYS).max(1)
    }

    /// The last key or common prefix; empty when there is none.
    #[must_use]
    pub fn last_key(&self) -> String {
        let object = self.objects.last().map(|object| object.key.as_str());
        object.max(self.prefixes.last().map(String::as_str)).unwrap_or_default().to_owned()
    }
}

/// What must hold at the server for a write to happen; else [`Kind::Changed`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    #[default]
    None,
    /// `If-Match`: the key still holds this version.
    IfMatch(ETag),
    /// `If-None-Match: *`: the key does not exist yet.
    IfAbsent,
}

/// What a new object carries besides its bytes.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    pub metadata: Metadata,
    pub properties: Properties,
    pub condition: Condition,
}

impl PutOptions {
    /// Whether an object under this key would be the same with these.
    #[must_use]
    pub fn makes_same(&self, other: &Self, key: &str) -> bool {
        let with_type = |properties: &Properties| {
            let content_type = properties.content_type_at(key);
            Properties { content_type, ..properties.clone() }
        };
        self.metadata == other.metadata && with_type(&self.properties) == with_type(&other.properties)
    }
}

/// A server-side copy (at most 5 GiB in one request).
#[derive(Clone, Debug)]
pub struct CopyRequest {
    pub from: String,
    pub to: String,
    /// `x-amz-copy-source-if-match`: copy this version or fail with [`Kind::Changed`].
    pub from_etag: Option<ETag>,
    /// `Some` replaces the metadata and properties, `None` keeps the source's.
    pub replace: Option<PutOptions>,
    /// The source's storage class, where it is known: a copy is not made in that class by itself.
    pub storage_class: Option<StorageClass>,
    /// Where `from` lies, if that is another bucket of the same server.
    pub from_bucket: Option<String>,
}

impl CopyRequest {
    /// Of whichever version is there, within a bucket, with all that the source carries.
    #[must_use]
    pub fn new(from: String, to: String) -> Self {
        Self { from, to, from_etag: None, replace: None, storage_class: None, from_bucket: None }
    }
}

/// An object that is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    pub key: String,
    /// `If-Match`: the key still holds this version. `None` deletes whichever is there.
    pub etag: Option<ETag>,
}

impl Deletion {
    /// Of whichever version is there.
    #[must_use]
    pub fn of_any(key: impl Into<String>) -> Self {
        Self { key: key.into(), etag: None }
    }
}

/// An object that is to have another key.
#[derive(Clone, Debug)]
pub struct RenameRequest {
    pub from: String,
    /// What is there is replaced, unless that is not wanted.
    pub to: String,
    /// Move this version or fail with [`Kind::Changed`].
    pub from_etag: ETag,
    /// What is at `to` is not replaced: [`Kind::Changed`].
    pub only_if_absent: bool,
    /// By which the server knows the request when it is sent again, at most 64 characters.
    pub token: String,
}

impl RenameRequest {
    /// Of this version, in the place of whatever is at `to`.
    #[must_use]
    pub fn new(from: String, to: String, from_etag: ETag) -> Self {
        let token = uuid::Uuid::new_v4().simple().to_string();
        Self { from, to, from_etag, only_if_absent: false, token }
    }
}

/// [`Kind::Unsupported`], without a word to the server.
fn cannot_rename(request: &RenameRequest) -> Error {
    let (key, cause) = (request.to.clone(), "only a directory bucket renames, within itself".to_owned());
    Error { kind: Kind::Unsupported, operation: "RenameObject", key, cause, http_status: None, request_id: None }
}

/// A part that the server has: what `complete_upload` must repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// 1 to 10,000.
    pub number: u16,
    pub etag: ETag,
    /// CRC32C of the part, base64, when we sent one.
    pub crc32c: Option<String>,
}

/// A multipart upload under way, as `ListMultipartUploads` tells it.
#[derive(Clone, Debug)]
pub struct PendingUpload {
    pub key: String,
    pub upload_id: String,
    pub initiated: SystemTime,
}

/// Bytes and what they belong to.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub info: ObjectInfo,
    /// Exactly the asked range, cut at the end of the object.
    pub bytes: Bytes,
}

/// Takes the bytes of an answer in order, as they come.
pub trait Sink: Send + Sync {
    /// What the bytes belong to, before the first of them; again with each request that follows another.
    fn begin(&self, _info: &ObjectInfo) {}
    /// The next bytes.
    fn take(&self, bytes: &[u8]);
    /// How many bytes were taken so far: where a request that broke off goes on.
    fn taken_bytes(&self) -> u64;
}

/// A failed request: which, on what, why, and what the server called it.
#[derive(Clone, Debug, thiserror::Error)]
pub struct Error {
    pub kind: Kind,
    /// The S3 operation, e.g. `PutObject`.
    pub operation: &'static str,
    /// The key, or the bucket for operations without one.
    pub key: String,
    /// The server's error code (`SlowDown`) or the client's own words.
    pub cause: String,
    pub http_status: Option<u16>,
    pub request_id: Option<String>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.operation, self.key.escape_debug(), self.cause)?;
        if let Some(status) = self.http_status {
            write!(f, " (HTTP {status})")?;
        }
        if let Some(id) = &self.request_id {
            write!(f, " [request {id}]")?;
        }
        Ok(())
    }
}

impl Error {
    /// The server's error code (`SlowDown`), where it gave one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.http_status?;
        let code = match self.operation {
            // Told in the user's words: the code follows them.
            client::CONNECT => self.cause.strip_suffix(')')?.rsplit_once('(')?.1,
            _ => self.cause.split(':').next()?,
        };
        code.bytes().all(|byte| byte.is_ascii_alphanumeric()).then_some(code)
    }

    /// What the user can do about it, where there is something to do.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match (self.code().unwrap_or_default(), self.kind) {
            ("RequestTimeTooSkewed", _) => Some("set this machine's clock, e.g. `timedatectl set-ntp true`"),
            ("ExpiredToken" | "TokenRefreshRequired", _) => Some("log in again, e.g. `aws sso login`"),
            ("InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken", _) => {
                Some("check the access key and its secret, or choose another --profile")
            }
            (_, Kind::AccessDenied) => Some("the caller lacks a permission: `s3mount doctor BUCKET` tells which"),
            (_, Kind::NoCredentials) => Some(
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, log in, choose a --profile, or --no-sign-request",
            ),
            (_, Kind::Archived) => Some("restore it first: `s3mount restore PATH --wait`, then open it again"),
            (_, Kind::NoSuchBucket) => Some("check the name of the bucket and the endpoint"),
            (_, Kind::Unreachable) => Some("is the endpoint right, is its server up?"),
            (_, Kind::Busy) => Some("the server is overloaded: try again later, or lower the concurrency"),
            _ => None,
        }
    }
}

/// `None` for what is not there.
///
/// # Errors
/// All but [`Kind::NotFound`].
pub fn optional<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Some servers ignore `If-Match`: the answer's own tag decides.
///
/// # Errors
/// [`Kind::Changed`].
pub fn check_version(key: &str, came: &ETag, wanted: &ETag) -> Result<()> {
    if came == wanted {
        return Ok(());
    }
    let cause = format!("the object is version {came} now, {wanted} was opened");
    let (key, operation) = (key.to_owned(), "GetObject");
    Err(Error { kind: Kind::Changed, operation, key, cause, http_status: None, request_id: None })
}

/// What ends before its range does was cut short, or is not what it says.
///
/// # Errors
/// [`Kind::Corrupt`].
pub fn check_length(key: &str, came: &Bytes, wanted: &Range<u64>) -> Result<()> {
    if came.len() as u64 == wanted.end - wanted.start {
        return Ok(());
    }
    let cause = format!("{} bytes came for the range {}-{}", came.len(), wanted.start, wanted.end);
    let (key, operation) = (key.to_owned(), "GetObject");
    Err(Error { kind: Kind::Corrupt, operation, key, cause, http_status: None, request_id: None })
}

/// Nobody was asked to take a part before all of it was there.
fn only_whole_parts(key: &str) -> Error {
    let (key, cause) = (key.to_owned(), "parts are sent once all of them is there".to_owned());
    Error { kind: Kind::Unsupported, operation: "UploadPart", key, cause, http_status: None, request_id: None }
}

/// Result of a request.
pub type Result<T> = std::result::Result<T, Error>;

/// The verbs. Keys are full object keys, byte-exact; every call is one S3 request.
#[async_trait]
pub trait Bucket: Send + Sync + fmt::Debug + 'static {
    /// `HeadObject`.
    async fn head(&self, key: &str) -> Result<ObjectInfo>;
    /// `GetObject`, whole (`range` = `None`) or a range; with `If-Match` when a tag is given.
    async fn get(&self, key: &str, range: Option<Range<u64>>, if_match: Option<&ETag>) -> Result<Fetched>;
    /// `GetObject` of a range of one version, handed to `sink` while it comes: of the range, what the
    /// sink has not taken yet. No byte of another version is handed over. A sum of the whole object
    /// is not checked: that is what [`Bucket::get`] does.
    async fn get_into(&self, key: &str, range: Range<u64>, etag: &ETag, sink: &dyn Sink) -> Result<()> {
        let start = range.start + sink.taken_bytes();
        if start < range.end {
            let fetched = self.get(key, Some(start..range.end), Some(etag)).await?;
            check_version(key, &fetched.info.etag, etag)?;
            check_length(key, &fetched.bytes, &(start..range.end))?;
            sink.begin(&fetched.info);
            sink.take(&fetched.bytes);
        }
        Ok(())
    }
    /// `ListObjectsV2`, one page.
    async fn list(&self, request: &ListRequest) -> Result<ListPage>;
    /// `PutObject`, with a CRC32C that the server confirms.
    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<ETag>;
    /// `CopyObject`.
    async fn copy(&self, request: &CopyRequest) -> Result<ETag>;
    /// `RenameObject`: an object gets another key, with all that it carries, at once. Of directory buckets alone: other
    /// servers answer it with success, and write something else over the target. [`Kind::Unsupported`] elsewhere.
    async fn rename(&self, request: &RenameRequest) -> Result<()> {
        Err(cannot_rename(request))
    }
    /// `PutObject` at the end of an object, with a CRC32C that the server checks; what else the object carries stays as it
    /// is. Of directory buckets alone: other servers answer it with success, and have nothing but these bytes then.
    /// [`Kind::Unsupported`] elsewhere.
    async fn append(&self, request: &AppendRequest, _body: Bytes) -> Result<ETag> {
        Err(cannot_append(&request.key))
    }
    /// `DeleteObject`, with `If-Match` when a tag is given; deleting what is not there succeeds. [`Kind::Changed`]: the key
    /// holds another version, or, as some servers have it, none any more.
    async fn delete(&self, key: &str, if_match: Option<&ETag>) -> Result<()>;
    /// `DeleteObjects`, at most 1,000 keys; returns those that failed, each as [`Bucket::delete`] would.
    async fn delete_many(&self, deletions: &[Deletion]) -> Result<Vec<(String, Error)>>;
    /// `CreateMultipartUpload`; the condition of `options` is not looked at here.
    async fn create_upload(&self, key: &str, options: &PutOptions) -> Result<String>;
    /// `UploadPart`: 5 MiB to 5 GiB, only the last may be smaller.
    async fn upload_part(&self, key: &str, upload_id: &str, number: u16, body: Bytes) -> Result<Part>;
    /// `UploadPart` of bytes that are still coming, tried once. After any error of it the part may be sent as a
    /// whole: not every server takes a part whose checksum follows its bytes ([`Kind::Unsupported`]).
    async fn upload_arriving_part(&self, key: &str, _id: &str, _number: u16, _part: &Arc<Arriving>) -> Result<Part> {
        Err(only_whole_parts(key))
    }
    /// `UploadPartCopy` of a range of `from`.
    async fn copy_part(
        &self,
        key: &str,
        upload_id: &str,
        number: u16,
        from: &CopyRequest,
        range: Range<u64>,
    ) -> Result<Part>;
    /// `CompleteMultipartUpload`; parts in ascending order.
    async fn complete_upload(&self, key: &str, upload_id: &str, parts: &[Part], condition: &Condition) -> Result<ETag>;
    /// `AbortMultipartUpload`.
    async fn abort_upload(&self, key: &str, upload_id: &str) -> Result<()>;
    /// `ListMultipartUploads` under a prefix: all of them, in as many requests as that takes.
    async fn list_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>>;
}
