//! `ListObjects` in both versions, and what all listings have in common.

mod walk;

use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::{
    self, CommonPrefix, EncodingType, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output,
};
use s3s::{S3Result, s3_error};

use super::buckets::owner;
use super::catalog::Bucket;
use super::conditions::{etag, timestamp};
use super::directory_buckets;
use super::headers::storage_class;
use super::multipart::Uploads;
use super::record::Version;
use super::store::Store;

pub(super) use walk::{After, Entry, Page, Walk};

/// Most entries of a page (AWS).
const MAX_KEYS: i32 = 1000;
/// What `encoding-type=url` leaves as it is. A space becomes `%20`, which decoders of forms and of
/// paths read alike.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// How names are told: as they are, or URL-encoded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    is_url: bool,
}

impl Names {
    /// As the request wants names encoded (`encoding-type`).
    pub fn new(encoding: Option<&EncodingType>) -> Self {
        Self { is_url: encoding.is_some_and(|encoding| encoding.as_str() == EncodingType::URL) }
    }

    /// The name as the answer gives it.
    pub fn tell(self, name: &str) -> String {
        if self.is_url { utf8_percent_encode(name, PLAIN).to_string() } else { name.to_owned() }
    }
}

/// The number of entries asked for.
///
/// # Errors
/// `InvalidArgument`.
pub(super) fn max_keys(asked: Option<i32>) -> S3Result<i32> {
    match asked {
        None => Ok(MAX_KEYS),
        Some(asked) if asked < 0 => Err(s3_error!(InvalidArgument, "max-keys must not be negative")),
        Some(asked) => Ok(asked.min(MAX_KEYS)),
    }
}

/// Lists the latest objects of a bucket.
fn objects(bucket: &Bucket, walk: &Walk) -> Page<Arc<Version>> {
    walk.page(|from| {
        let mut keys = bucket.keys.range::<str, _>(from);
        keys.find_map(|(key, versions)| {
            let latest = versions.last().filter(|version| version.object.is_some())?;
            Some((key.clone(), Arc::clone(latest)))
        })
    })
}

/// Whether a page is cut off. S3 says no when nothing was asked for.
fn is_truncated<T>(page: &Page<T>, max_keys: i32) -> bool {
    page.next.is_some() && max_keys > 0
}

/// `ListObjectsV2`.
pub(super) fn list_v2(store: &Store, uploads: &Uploads, input: ListObjectsV2Input) -> S3Result<ListObjectsV2Output> {
    let names = Names::new(input.encoding_type.as_ref());
    let max_keys = max_keys(input.max_keys)?;
    let after = match (&input.continuation_token, &input.start_after) {
        (Some(token), _) => After::of_token(token)?,
        (None, Some(key)) => After::Key(key.clone()),
        (None, None) => After::Nothing,
    };
    let walk = Walk {
        prefix: input.prefix.as_deref().unwrap_or(""),
        delimiter: input.delimiter.as_deref(),
        after,
        max_keys: usize::try_from(max_keys).unwrap_or(0),
    };
    let page = if directory_buckets::is_one(&input.bucket) {
        directory_buckets::check_listing(&input)?;
        directory_page(store, uploads, &input.bucket, &walk)?
    } else {
        store.read(|catalog| Ok::<_, s3s::S3Error>(objects(catalog.bucket(&input.bucket)?, &walk)))?
    };
    let truncated = is_truncated(&page, max_keys);
    let next = page.next.as_ref().filter(|_| truncated).map(After::to_token);
    let (contents, prefixes) = split(page, names, input.fetch_owner.unwrap_or(false));
    Ok(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(names.tell(walk.prefix)),
        delimiter: input.delimiter.as_deref().map(|delimiter| names.tell(delimiter)),
        start_after: input.start_after.as_deref().map(|key| names.tell(key)),
        max_keys: Some(max_keys),
        key_count: i32::try_from(contents.len() + prefixes.len()).ok(),
        continuation_token: input.continuation_token,
        is_truncated: Some(truncated),
        next_continuation_token: next,
        contents: Some(contents),
        common_prefixes: Some(prefixes),
        encoding_type: input.encoding_type,
        request_charged: None,
    })
}

/// Of a directory bucket, which tells the directories of uploads under way, too.
fn directory_page(store: &Store, uploads: &Uploads, bucket: &str, walk: &Walk) -> S3Result<Page<Arc<Version>>> {
    let all = Walk { prefix: walk.prefix, delimiter: walk.delimiter, after: After::Nothing, max_keys: usize::MAX };
    let page = store.read(|catalog| Ok::<_, s3s::S3Error>(objects(catalog.bucket(bucket)?, &all)))?;
    let mut entries = page.entries;
    let below = uploads.keys(bucket).into_iter().filter_map(|key| all.common_prefix(&key).map(str::to_owned));
    for below in below {
        if !entries.iter().any(|entry| matches!(entry, Entry::Prefix(known) if *known == below)) {
            entries.push(Entry::Prefix(below));
        }
    }
    Ok(directory_buckets::scattered(entries, &walk.after, walk.max_keys))
}

/// `ListObjects`, the first version.
pub(super) fn list_v1(store: &Store, input: ListObjectsInput) -> S3Result<ListObjectsOutput> {
    let names = Names::new(input.encoding_type.as_ref());
    let max_keys = max_keys(input.max_keys)?;
    let mut walk = Walk {
        prefix: input.prefix.as_deref().unwrap_or(""),
        delimiter: input.delimiter.as_deref(),
        after: After::Nothing,
        max_keys: usize::try_from(max_keys).unwrap_or(0),
    };
    if let Some(marker) = input.marker.clone().filter(|marker| !marker.is_empty()) {
        walk.after = After::of_marker(marker, &walk);
    }
    let page = store.read(|catalog| Ok::<_, s3s::S3Error>(objects(catalog.bucket(&input.bucket)?, &walk)))?;
    let truncated = is_truncated(&page, max_keys);
    let next = match &page.next {
        // S3 tells the next marker only of rolled-up listings: else it is the last key.
        Some(After::Key(name) | After::Prefix(name)) if truncated && walk.delimiter.is_some() => Some(names.tell(name)),
        _ => None,
    };
    let (contents, prefixes) = split(page, names, true);
    Ok(ListObjectsOutput {
        name: Some(input.bucket),
        prefix: Some(names.tell(walk.prefix)),
        marker: Some(names.tell(input.marker.as_deref().unwrap_or(""))),
        delimiter: input.delimiter.as_deref().map(|delimiter| names.tell(delimiter)),
        max_keys: Some(max_keys),
        is_truncated: Some(truncated),
        next_marker: next,
        contents: Some(contents),
        common_prefixes: Some(prefixes),
        encoding_type: input.encoding_type,
        request_charged: None,
    })
}

fn split(page: Page<Arc<Version>>, names: Names, tells_owner: bool) -> (Vec<dto::Object>, Vec<CommonPrefix>) {
    let mut contents = Vec::new();
    let mut prefixes = Vec::new();
    for entry in page.entries {
        match entry {
            Entry::Key(key, version) => contents.extend(told(&names.tell(&key), &version, tells_owner)),
            Entry::Prefix(prefix) => prefixes.push(CommonPrefix { prefix: Some(names.tell(&prefix)) }),
        }
    }
    (contents, prefixes)
}

fn told(key: &str, version: &Version, tells_owner: bool) -> Option<dto::Object> {
    let object = version.object.as_ref()?;
    Some(dto::Object {
        checksum_algorithm: Some(vec![dto::ChecksumAlgorithm::from_static(object.checksum.algorithm.name())]),
        checksum_type: object.checksum.fields().checksum_type,
        e_tag: Some(etag(object)),
        key: Some(key.to_owned()),
        last_modified: Some(timestamp(version.modified_s)),
        owner: tells_owner.then(owner),
        restore_status: None,
        size: Some(object.size.cast_signed()),
        storage_class: Some(storage_class(&object.headers).to_owned().into()),
    })
}
