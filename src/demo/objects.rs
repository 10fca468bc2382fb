//! PUT, GET, HEAD and attributes of one object.

use std::ops::Range;
use std::sync::Arc;

use hyper::StatusCode;
use s3s::dto::{
    self, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput, PutObjectInput, PutObjectOutput,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result, s3_error};

use super::append::append;
use super::catalog::{Bucket, Catalog};
use super::checksums::{Algorithm, checksum_fields, fields, tell_checksum};
use super::conditions::{ReadConditions, WriteConditions, etag, timestamp};
use super::directory_buckets;
use super::headers::{self, refuse, refuse_unbuilt, stored_headers, tags_of_header, tell_headers};
use super::intake::{self, Claims};
use super::outlet::{self, Pinned};
use super::record::{NULL_VERSION, Object, Record, Version, Versioning, now_s};
use super::store::Store;

/// Longest key in bytes (AWS: "Naming Amazon S3 objects").
const MAX_KEY_BYTES: usize = 1024;

/// `PutObject`.
pub(super) async fn put(store: &Store, request: S3Request<PutObjectInput>) -> S3Result<PutObjectOutput> {
    let mut input = request.input;
    refuse_unbuilt!(input)?;
    let appends = input.write_offset_bytes.is_some();
    refuse(&[("append (x-amz-write-offset-bytes)", appends && !directory_buckets::is_one(&input.bucket))])?;
    check_key(&input.key)?;
    store.read(|catalog| catalog.bucket(&input.bucket).map(|_| ()))?;
    let algorithm = input.checksum_algorithm.as_ref();
    let mut claims = Claims::new(&request.headers, checksum_fields!(input), algorithm, request.trailing_headers)?;
    claims.content_length = input.content_length;
    claims.content_md5 = input.content_md5.take();
    let headers = stored_headers!(input);
    let tags = tags_of_header(input.tagging.as_deref())?;
    let conditions = WriteConditions { if_match: input.if_match.take(), if_none_match: input.if_none_match.take() };
    let wanted = claims.chosen().unwrap_or(Algorithm::DEFAULT);
    let received = intake::receive(store, input.body.take(), &claims, wanted).await?;
    let mut object = Object {
        etag: hex::encode(received.md5),
        size: received.size,
        content: received.content(),
        headers,
        tags,
        checksum: received.checksum(),
        parts: Vec::new(),
    };
    if let Some(offset) = input.write_offset_bytes {
        return append(store, &input.bucket, input.key, offset, object, &conditions);
    }
    directory_buckets::settle(&input.bucket, &mut object);
    let mut output = PutObjectOutput {
        e_tag: Some(etag(&object)),
        server_side_encryption: object.headers.encryption.clone().map(Into::into),
        ssekms_key_id: object.headers.kms_key_id.clone(),
        ..PutObjectOutput::default()
    };
    let sums = object.checksum.fields();
    output.checksum_type.clone_from(&sums.checksum_type);
    tell_checksum!(output, sums);
    output.version_id = commit(store, &input.bucket, input.key, object, &conditions)?;
    Ok(output)
}

/// Makes an object the latest version of its key, when the conditions hold at that moment.
/// Returns the version id to tell. The caller holds the bodies of the object.
///
/// # Errors
/// `NoSuchBucket`, and those of [`WriteConditions::check`].
pub(super) fn commit(
    store: &Store,
    bucket_name: &str,
    key: String,
    object: Object,
    conditions: &WriteConditions,
) -> S3Result<Option<String>> {
    store.change(|catalog| {
        let bucket = catalog.bucket(bucket_name)?;
        conditions.check(bucket.latest(&key))?;
        let version_id = bucket.next_version_id();
        let told = told_version_id(bucket, &version_id);
        let version = Box::new(Version { id: version_id, modified_s: now_s(), object: Some(object) });
        Ok((vec![Record::Put { bucket: bucket_name.to_owned(), key, version }], told))
    })
}

/// Tells what GET and HEAD tell alike, in output types that have the same names for it.
macro_rules! describe {
    ($output:expr, $found:expr, $part:expr, $checksum_mode:expr) => {{
        let object = $found.object();
        $output.accept_ranges = Some("bytes".to_owned());
        $output.content_length = Some(($part.range.end - $part.range.start).cast_signed());
        $output.content_range.clone_from(&$part.content_range);
        $output.parts_count = $part.parts_count;
        $output.e_tag = Some(etag(object));
        $output.last_modified = Some(timestamp($found.version.modified_s));
        $output.version_id.clone_from(&$found.told_id);
        tell_headers!($output, &object.headers);
        // The checksum is of the whole: beside a part of it, clients would find it wrong.
        if $checksum_mode.is_some() && $part.is_whole() {
            let sums = object.checksum.fields();
            $output.checksum_type.clone_from(&sums.checksum_type);
            tell_checksum!($output, sums);
        }
    }};
}

/// `GetObject`.
pub(super) async fn get(store: &Store, mut input: GetObjectInput) -> S3Result<GetObjectOutput> {
    refuse(&[("SSE-C", input.sse_customer_algorithm.is_some())])?;
    let conditions = ReadConditions {
        matches: input.if_match.take(),
        differs: input.if_none_match.take(),
        modified_since: input.if_modified_since.take(),
        unmodified_since: input.if_unmodified_since.take(),
    };
    let (found, content) = store.read(|catalog| {
        let found = find(catalog, &input.bucket, &input.key, input.version_id.as_deref())?;
        conditions.check(&found.version, found.object())?;
        let content = pin(catalog, found.object());
        Ok::<_, S3Error>((found, content))
    })?;
    let object = found.object();
    if headers::is_archived(&object.headers) {
        return Err(s3_error!(InvalidObjectState, "The operation is not valid for the object's storage class"));
    }
    let part = Part::new(object, input.range, input.part_number)?;
    let mut output = GetObjectOutput {
        body: Some(outlet::stream(outlet::cut(content, &part.range)).await?),
        tag_count: i32::try_from(object.tags.len()).ok().filter(|count| *count > 0),
        ..GetObjectOutput::default()
    };
    describe!(output, found, part, input.checksum_mode);
    Ok(output)
}

/// `HeadObject`.
pub(super) fn head(store: &Store, mut input: HeadObjectInput) -> S3Result<HeadObjectOutput> {
    refuse(&[("SSE-C", input.sse_customer_algorithm.is_some())])?;
    let conditions = ReadConditions {
        matches: input.if_match.take(),
        differs: input.if_none_match.take(),
        modified_since: input.if_modified_since.take(),
        unmodified_since: input.if_unmodified_since.take(),
    };
    let found = store.read(|catalog| find(catalog, &input.bucket, &input.key, input.version_id.as_deref()))?;
    conditions.check(&found.version, found.object())?;
    let part = Part::new(found.object(), input.range, input.part_number)?;
    let mut output = HeadObjectOutput::default();
    describe!(output, found, part, input.checksum_mode);
    Ok(output)
}

/// `GetObjectAttributes`.
pub(super) fn attributes(
    store: &Store,
    input: &dto::GetObjectAttributesInput,
) -> S3Result<dto::GetObjectAttributesOutput> {
    let found = store.read(|catalog| find(catalog, &input.bucket, &input.key, input.version_id.as_deref()))?;
    let object = found.object();
    // One header may name several attributes, separated by commas.
    let wanted: Vec<&str> =
        input.object_attributes.iter().flat_map(|name| name.as_str().split(',')).map(str::trim).collect();
    let wants = |name: &str| wanted.contains(&name);
    Ok(dto::GetObjectAttributesOutput {
        e_tag: wants(dto::ObjectAttributes::ETAG).then(|| etag(object)),
        checksum: wants(dto::ObjectAttributes::CHECKSUM).then(|| object.checksum.fields()),
        object_size: wants(dto::ObjectAttributes::OBJECT_SIZE).then(|| object.size.cast_signed()),
        storage_class: wants(dto::ObjectAttributes::STORAGE_CLASS)
            .then(|| headers::storage_class(&object.headers).to_owned().into()),
        object_parts: (wants(dto::ObjectAttributes::OBJECT_PARTS) && !object.parts.is_empty())
            .then(|| attributes_of_parts(object, input)),
        last_modified: Some(timestamp(found.version.modified_s)),
        version_id: found.told_id.clone(),
        ..dto::GetObjectAttributesOutput::default()
    })
}

fn attributes_of_parts(object: &Object, input: &dto::GetObjectAttributesInput) -> dto::GetObjectAttributesParts {
    let marker = input.part_number_marker.unwrap_or(0);
    let most = usize::try_from(input.max_parts.unwrap_or(1000).clamp(1, 1000)).unwrap_or(1);
    let behind: Vec<_> = object.parts.iter().filter(|part| i32::from(part.number) > marker).collect();
    let page = &behind[..most.min(behind.len())];
    let part = |part: &&super::record::PartSize| {
        let mut told = dto::ObjectPart {
            part_number: Some(part.number.into()),
            size: Some(part.size.cast_signed()),
            ..dto::ObjectPart::default()
        };
        tell_checksum!(told, fields(object.checksum.algorithm, part.checksum.clone()));
        told
    };
    dto::GetObjectAttributesParts {
        is_truncated: Some(page.len() < behind.len()),
        max_parts: i32::try_from(most).ok(),
        next_part_number_marker: page.last().map(|part| part.number.into()),
        part_number_marker: Some(marker),
        parts: Some(page.iter().map(part).collect()),
        total_parts_count: i32::try_from(object.parts.len()).ok(),
    }
}

/// A version that is an object, and the id to tell of it.
pub(super) struct Found {
    pub version: Arc<Version>,
    pub told_id: Option<String>,
}

impl Found {
    /// The object that was found.
    pub fn object(&self) -> &Object {
        self.version.object.as_ref().expect("a found version is no delete marker")
    }
}

/// Finds an object for reading.
///
/// # Errors
/// `NoSuchBucket`, `NoSuchKey`, `NoSuchVersion`; `MethodNotAllowed` for a delete marker by id.
pub(super) fn find(catalog: &Catalog, bucket: &str, key: &str, version_id: Option<&str>) -> S3Result<Found> {
    let bucket = catalog.bucket(bucket)?;
    let version = bucket.version(key, version_id)?;
    if version.object.is_none() {
        return Err(if version_id.is_some() { s3_error!(MethodNotAllowed) } else { s3_error!(NoSuchKey) });
    }
    Ok(Found { version: Arc::clone(version), told_id: told_version_id(bucket, &version.id) })
}

/// Holds the bytes of an object open.
pub(super) fn pin(catalog: &Catalog, object: &Object) -> Vec<Pinned> {
    catalog.pin(&object.content).into_iter().map(|(body, extent)| Pinned::new(body, extent)).collect()
}

/// S3 tells version ids only of buckets that ever had versioning switched on.
pub(super) fn told_version_id(bucket: &Bucket, version_id: &str) -> Option<String> {
    (bucket.versioning != Versioning::Off || version_id != NULL_VERSION).then(|| version_id.to_owned())
}

/// Checks the length of a key.
///
/// # Errors
/// `KeyTooLongError`.
pub(super) fn check_key(key: &str) -> S3Result<()> {
    if key.len() > MAX_KEY_BYTES { Err(s3_error!(KeyTooLongError)) } else { Ok(()) }
}

/// The stretch of an object that GET or HEAD is about.
struct Part {
    range: Range<u64>,
    content_range: Option<String>,
    parts_count: Option<i32>,
}

impl Part {
    fn new(object: &Object, range: Option<dto::Range>, number: Option<i32>) -> S3Result<Self> {
        let range = match (range, number) {
            (None, None) => return Ok(Self { range: 0..object.size, content_range: None, parts_count: None }),
            (Some(_), Some(_)) => return Err(s3_error!(InvalidRequest, "Cannot specify both Range and partNumber")),
            // RFC 9110: no range of nothing can be satisfied, not even the last bytes of it.
            (Some(_), None) if object.size == 0 => return Err(s3_error!(InvalidRange)),
            (Some(range), None) => range.check(object.size)?,
            (None, Some(number)) => part_range(object, number)?,
        };
        let parts_count = number.and_then(|_| i32::try_from(object.parts.len()).ok()).filter(|count| *count > 0);
        let last = range.end.saturating_sub(1);
        let content_range = (object.size > 0).then(|| format!("bytes {}-{last}/{}", range.start, object.size));
        Ok(Self { range, content_range, parts_count })
    }

    fn is_whole(&self) -> bool {
        self.content_range.is_none()
    }
}

fn part_range(object: &Object, number: i32) -> S3Result<Range<u64>> {
    if object.parts.is_empty() && number == 1 {
        return Ok(0..object.size);
    }
    let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    let part = index.and_then(|index| object.parts.get(index));
    let part = part.ok_or_else(no_such_part)?;
    let start = object.parts[..index.unwrap_or(0)].iter().map(|part| part.size).sum();
    Ok(start..start + part.size)
}

fn no_such_part() -> S3Error {
    let code = S3ErrorCode::Custom("InvalidPartNumber".into());
    let mut error = S3Error::with_message(code, "The requested partnumber is not satisfiable");
    error.set_status_code(StatusCode::RANGE_NOT_SATISFIABLE);
    error
}
