//! Directory buckets (S3 Express One Zone): buckets whose name ends in `--x-s3`.
//!
//! What S3 has not there is refused here as well (AWS: "Differences for directory buckets"), and what it does in its own
//! way is done so: LIST in no order, tags of objects that are no MD5.

use std::collections::HashSet;

use hyper::{HeaderMap, Uri};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use s3s::dto::ListObjectsV2Input;
use s3s::{S3Result, s3_error};

use super::listing::{After, Entry, Page};
use super::record::{Object, Record, Version};
use super::sessions;
use super::store::Store;

/// What a session is needed for.
const IN_SESSION: [&str; 15] = [
    "RenameObject",
    "HeadBucket",
    "ListObjectsV2",
    "PutObject",
    "GetObject",
    "HeadObject",
    "GetObjectAttributes",
    "DeleteObject",
    "DeleteObjects",
    "CreateMultipartUpload",
    "UploadPart",
    "CompleteMultipartUpload",
    "AbortMultipartUpload",
    "ListParts",
    "ListMultipartUploads",
];
/// What the caller's own keys are for.
const OUTSIDE: [&str; 5] = ["CreateSession", "CopyObject", "UploadPartCopy", "CreateBucket", "DeleteBucket"];
/// Headers begin so that are "not supported for directory buckets".
const REFUSED_HEADERS: [&str; 11] = [
    "x-amz-acl",
    "x-amz-grant-",
    "x-amz-tagging",
    "x-amz-object-lock-",
    "x-amz-bypass-governance-retention",
    "x-amz-mfa",
    "x-amz-request-payer",
    "x-amz-server-side-encryption",
    "x-amz-website-redirect-location",
    "x-amz-optional-object-attributes",
    "content-md5",
];
const REFUSED_PARAMETERS: [&str; 4] = ["start-after", "upload-id-marker", "versionId", "versions"];
const STORAGE_CLASS: &str = "EXPRESS_ONEZONE";

/// Whether a bucket of this name is one.
pub(super) fn is_one(bucket: &str) -> bool {
    bucket.ends_with("--x-s3")
}

/// Whether a request is `RenameObject`.
pub(super) fn is_rename(bucket: &str, uri: &Uri) -> bool {
    is_one(bucket)
        && uri.query().is_some_and(|query| query.split('&').any(|pair| pair.trim_end_matches('=') == "renameObject"))
}

/// Tokens of renames that were done.
#[derive(Debug, Default)]
pub(super) struct Renames(Mutex<HashSet<String>>);

impl Renames {
    /// `RenameObject`; sent again with its token, nothing more is done.
    pub fn rename(&self, store: &Store, bucket: &str, to: String, headers: &HeaderMap) -> S3Result<()> {
        let token = headers.get("x-amz-client-token").and_then(|token| token.to_str().ok()).unwrap_or_default();
        let mut done = self.0.lock();
        if token.is_empty() || !done.contains(token) {
            rename(store, bucket, to, headers)?;
            done.insert(token.to_owned());
        }
        Ok(())
    }
}

/// The same version under another key.
fn rename(store: &Store, bucket: &str, to: String, headers: &HeaderMap) -> S3Result<()> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let source = header("x-amz-rename-source").ok_or_else(|| s3_error!(InvalidRequest, "no x-amz-rename-source"))?;
    let from = percent_decode_str(source).decode_utf8().map_err(|_| s3_error!(InvalidArgument))?.into_owned();
    if from.ends_with('/') || to.ends_with('/') {
        return Err(s3_error!(InvalidRequest, "RenameObject is not for keys that end in /"));
    }
    let tag = header("x-amz-rename-source-if-match").map(|tag| tag.trim_matches('"').to_owned());
    store.change(|catalog| {
        let version = catalog.bucket(bucket)?.latest(&from).ok_or_else(|| s3_error!(NoSuchKey))?;
        let found = version.object.as_ref().map(|object| &object.etag);
        if tag.as_ref().is_some_and(|tag| Some(tag) != found) {
            return Err(s3_error!(PreconditionFailed));
        }
        let is_there =
            || Ok::<_, s3s::S3Error>(catalog.bucket(bucket)?.latest(&to).is_some_and(|it| it.object.is_some()));
        if header("if-none-match") == Some("*") && is_there()? {
            return Err(s3_error!(PreconditionFailed));
        }
        let put = Record::Put { bucket: bucket.to_owned(), key: to, version: Box::new(Version::clone(version)) };
        let remove = Record::Remove { bucket: bucket.to_owned(), key: from, version_id: version.id.clone() };
        Ok((vec![put, remove], ()))
    })
}

/// Checks a request to one.
///
/// # Errors
/// `NotImplemented` for what S3 has not there, `AccessDenied` without a session where that is needed.
pub(super) fn check(operation: &str, access_key: &str, headers: &HeaderMap, query: &str) -> S3Result<()> {
    let is_within = sessions::is_within(access_key, headers);
    match (IN_SESSION.contains(&operation), OUTSIDE.contains(&operation)) {
        (true, _) if !is_within => Err(s3_error!(AccessDenied, "{operation} needs a session")),
        (_, true) if is_within => Err(s3_error!(AccessDenied, "{operation} is not for a session")),
        (false, false) => Err(s3_error!(MethodNotAllowed, "A directory bucket has no {operation}")),
        _ => check_words(operation, headers, query),
    }
}

fn check_words(operation: &str, headers: &HeaderMap, query: &str) -> S3Result<()> {
    let refuse = |what: &str| Err(s3_error!(NotImplemented, "A directory bucket has no {what} in {operation}"));
    let refused = |name: &str| REFUSED_HEADERS.iter().any(|refused| name.starts_with(refused));
    if let Some(name) = headers.keys().find(|name| refused(name.as_str())) {
        return refuse(name.as_str());
    }
    let is = |name: &str, wanted: &str| headers.get(name).is_none_or(|value| value == wanted);
    if !is("x-amz-storage-class", STORAGE_CLASS) || !is("content-encoding", "aws-chunked") {
        return refuse("such class or encoding");
    }
    let mut names = query.split('&').map(|pair| pair.split('=').next().unwrap_or_default());
    names.find(|name| REFUSED_PARAMETERS.contains(name)).map_or(Ok(()), refuse)
}

/// Checks what a listing is asked for.
///
/// # Errors
/// `InvalidArgument`.
pub(super) fn check_listing(input: &ListObjectsV2Input) -> S3Result<()> {
    let prefix = input.prefix.as_deref().unwrap_or_default();
    if !prefix.is_empty() && !prefix.ends_with('/') {
        return Err(s3_error!(InvalidArgument, "A prefix has to end in / in a directory bucket"));
    }
    match input.delimiter.as_deref() {
        None | Some("/") => Ok(()),
        Some(_) => Err(s3_error!(InvalidArgument, "The only delimiter of a directory bucket is /")),
    }
}

/// Makes an object one of such a bucket, before its tag is told.
pub(super) fn settle(bucket: &str, object: &mut Object) {
    if is_one(bucket) {
        object.etag = uuid::Uuid::new_v4().simple().to_string();
        object.headers.storage_class = Some(STORAGE_CLASS.to_owned());
    }
}

/// A page of all entries in an order that has nothing to do with their names.
pub(super) fn scattered<T>(mut entries: Vec<Entry<T>>, after: &After, max_keys: usize) -> Page<T> {
    entries.sort_by_cached_key(|entry| place(&entry.as_after()));
    if *after != After::Nothing {
        let behind = place(after);
        entries.retain(|entry| place(&entry.as_after()) > behind);
    }
    let is_cut = entries.len() > max_keys;
    entries.truncate(max_keys);
    let next = entries.last().filter(|_| is_cut).map(Entry::as_after);
    Page { entries, next }
}

fn place(at: &After) -> (u32, String) {
    let (After::Key(name) | After::Prefix(name)) = at else { return (0, String::new()) };
    // FNV-1a: neighbours by name land far apart.
    let hash = name.bytes().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash, name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(operation: &str, access_key: &str, headers: &[(&'static str, &str)], query: &str) -> Option<u16> {
        let headers = headers.iter().map(|(name, value)| ((*name).try_into().unwrap(), value.parse().unwrap()));
        let error = check(operation, access_key, &headers.collect(), query).err()?;
        error.status_code().map(|status| status.as_u16())
    }

    #[test]
    fn a_session_is_for_its_own_requests() {
        let token = ("x-amz-s3session-token", "demo-session");
        assert_eq!(refusal("PutObject", "k", &[], ""), Some(403));
        assert_eq!(refusal("PutObject", "k", &[token], ""), Some(403));
        assert_eq!(refusal("PutObject", "k-session", &[token], ""), None);
        assert_eq!(refusal("CopyObject", "k", &[], ""), None);
        assert_eq!(refusal("CopyObject", "k-session", &[token], ""), Some(403));
        assert_eq!(refusal("GetObjectTagging", "k-session", &[token], "tagging"), Some(405));
        assert_eq!(refusal("PutObject", "k-session", &[token, ("x-amz-acl", "private")], ""), Some(501));
        assert_eq!(refusal("ListObjectsV2", "k-session", &[token], "list-type=2&start-after=a"), Some(501));
    }

    #[test]
    fn all_entries_come_once_and_not_in_order() {
        let entries = || (0..50).map(|number| Entry::Key(format!("{number:02}"), ())).collect::<Vec<_>>();
        let (mut after, mut came) = (After::Nothing, Vec::new());
        loop {
            let page = scattered(entries(), &after, 7);
            came.extend(page.entries.iter().map(Entry::as_after));
            let Some(next) = page.next else { break };
            after = next;
        }
        let ordered: Vec<_> = entries().iter().map(Entry::as_after).collect();
        assert!(came.len() == 50 && came != ordered);
        assert!(ordered.iter().all(|entry| came.contains(entry)));
    }
}
