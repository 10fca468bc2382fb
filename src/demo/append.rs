//! `PutObject` with a write offset: bytes that follow those of an object, in directory buckets (AWS: "Appending data to
//! objects in directory buckets").

use hyper::StatusCode;
use s3s::dto::PutObjectOutput;
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use super::checksums::{Checksum, tell_checksum};
use super::conditions::{WriteConditions, etag};
use super::directory_buckets;
use super::record::{Object, PartSize, Record, Version, now_s};
use super::store::Store;

/// Parts of an object, of which each append is one (AWS: 10,000).
const MAX_PARTS: usize = 10_000;

/// Makes `added` the end of the object, if that has `offset` bytes at that moment. The caller holds the bodies.
///
/// # Errors
/// `InvalidWriteOffset`, `TooManyParts`; `InvalidRequest` for metadata, for no bytes, and for a checksum of another
/// algorithm than the object's.
pub(super) fn append(
    store: &Store,
    bucket_name: &str,
    key: String,
    offset: i64,
    added: Object,
    conditions: &WriteConditions,
) -> S3Result<PutObjectOutput> {
    if added.size == 0 {
        return Err(s3_error!(InvalidRequest, "Request body cannot be empty when 'write offset' is specified."));
    }
    store.change(|catalog| {
        let bucket = catalog.bucket(bucket_name)?;
        let latest = bucket.latest(&key);
        conditions.check(latest)?;
        let before = latest.and_then(|version| version.object.as_ref());
        if u64::try_from(offset).ok() != Some(before.map_or(0, |object| object.size)) {
            return Err(bad_request(
                "InvalidWriteOffset",
                "The write offset value that you specified does not match the current object size.",
            ));
        }
        let mut object = match before {
            Some(before) => joined(before, added)?,
            None => added,
        };
        directory_buckets::settle(bucket_name, &mut object);
        let output = told(&object);
        let version = Version { id: bucket.next_version_id(), modified_s: now_s(), object: Some(object) };
        Ok((vec![Record::Put { bucket: bucket_name.to_owned(), key, version: Box::new(version) }], output))
    })
}

fn joined(before: &Object, added: Object) -> S3Result<Object> {
    if !added.headers.metadata.is_empty() {
        return Err(s3_error!(
            InvalidRequest,
            "Cannot specify both a write offset value and user-defined object metadata for existing objects."
        ));
    }
    let (algorithm, given) = (before.checksum.algorithm, added.checksum.algorithm);
    if algorithm != given {
        let (expected, actual) = (algorithm.name().to_lowercase(), given.name().to_lowercase());
        return Err(s3_error!(
            InvalidRequest,
            "Checksum Type mismatch occurred, expected checksum Type: {expected}, actual checksum Type: {actual}."
        ));
    }
    let mut parts = before.parts.clone();
    if parts.is_empty() {
        parts.push(PartSize { number: 1, size: before.size, checksum: before.checksum.value.clone() });
    }
    if parts.len() >= MAX_PARTS {
        return Err(bad_request(
            "TooManyParts",
            "You have attempted to add more parts than the maximum of 10000 that are allowed for this object.",
        ));
    }
    let number = u16::try_from(parts.len() + 1).map_err(S3Error::internal_error)?;
    parts.push(PartSize { number, size: added.size, checksum: added.checksum.value });
    let sums: Vec<_> = parts.iter().map(|part| (part.checksum.clone(), part.size)).collect();
    let is_crc = algorithm.full_object(Some("FULL_OBJECT")).is_ok();
    Ok(Object {
        size: before.size + added.size,
        content: before.content.iter().chain(&added.content).copied().collect(),
        checksum: Checksum::of_parts(algorithm, is_crc, &sums),
        parts,
        ..before.clone()
    })
}

fn told(object: &Object) -> PutObjectOutput {
    let mut output = PutObjectOutput {
        e_tag: Some(etag(object)),
        size: Some(object.size.cast_signed()),
        ..PutObjectOutput::default()
    };
    let sums = object.checksum.fields();
    output.checksum_type.clone_from(&sums.checksum_type);
    tell_checksum!(output, sums);
    output
}

fn bad_request(code: &str, message: &'static str) -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom(code.to_owned().into()), message);
    error.set_status_code(StatusCode::BAD_REQUEST);
    error
}
