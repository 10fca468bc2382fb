//! Multipart uploads: begun, filled part by part, completed or aborted.
//!
//! They live in memory: a restart forgets them, and their bodies, which nothing points to, are
//! swept. Completing copies no byte; the object points to the bodies of its parts.

mod complete;
mod list;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::{
    AbortMultipartUploadInput, ChecksumAlgorithm, ChecksumType, CopyPartResult, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, ETag, Range, UploadPartCopyInput, UploadPartCopyOutput, UploadPartInput,
    UploadPartOutput,
};
use s3s::{S3Request, S3Result, s3_error};

use super::bodies::Body;
use super::buckets;
use super::checksums::{Algorithm, checksum_fields, fields, tell_checksum};
use super::conditions::timestamp;
use super::copies::{self, source_conditions};
use super::headers::{refuse, refuse_unbuilt, stored_headers, tags_of_header};
use super::intake::{self, Claims};
use super::objects::check_key;
use super::outlet;
use super::record::{Extent, Headers, Object, Tags, now_s};
use super::store::Store;

pub(super) use complete::complete;
pub(super) use list::{list_parts, list_uploads};

/// Highest part number (AWS).
const MAX_PARTS: i32 = 10_000;

/// All uploads under way, by id. Ids ascend with time.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    by_id: Mutex<BTreeMap<String, Upload>>,
}

/// One upload under way.
#[derive(Clone, Debug)]
struct Upload {
    bucket: String,
    key: String,
    initiated_s: i64,
    headers: Headers,
    tags: Tags,
    algorithm: Algorithm,
    /// The client named the algorithm: then its parts must keep to it.
    algorithm_is_chosen: bool,
    full_object: bool,
    parts: BTreeMap<u16, Arc<Part>>,
}

/// A part that was taken in.
#[derive(Debug)]
struct Part {
    /// The MD5 of what was uploaded; of a copied part see [`tag_of_copy`].
    tag: [u8; 16],
    size: u64,
    modified_s: i64,
    /// In the upload's algorithm.
    sum: String,
    content: Vec<Extent>,
    /// Keeps the bytes while no version points to them.
    _bodies: Vec<Arc<Body>>,
}

impl Part {
    fn etag(&self) -> ETag {
        ETag::Strong(hex::encode(self.tag))
    }
}

impl Uploads {
    /// Looks at an upload.
    fn read<R>(&self, bucket: &str, key: &str, id: &str, look: impl FnOnce(&Upload) -> R) -> S3Result<R> {
        self.change(bucket, key, id, |upload| look(upload))
    }

    /// Changes an upload.
    ///
    /// # Errors
    /// `NoSuchUpload`.
    fn change<R>(&self, bucket: &str, key: &str, id: &str, change: impl FnOnce(&mut Upload) -> R) -> S3Result<R> {
        let mut uploads = self.by_id.lock();
        let upload = uploads.get_mut(id).filter(|upload| upload.bucket == bucket && upload.key == key);
        upload.map(change).ok_or_else(|| s3_error!(NoSuchUpload))
    }

    fn remove(&self, id: &str) -> Option<Upload> {
        self.by_id.lock().remove(id)
    }

    /// Keys in a bucket that something is uploaded to.
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        let uploads = self.by_id.lock();
        uploads.values().filter(|upload| upload.bucket == bucket).map(|upload| upload.key.clone()).collect()
    }

    /// Forgets the uploads of a bucket that is deleted.
    pub fn remove_bucket(&self, bucket: &str) {
        self.by_id.lock().retain(|_, upload| upload.bucket != bucket);
    }
}

/// `CreateMultipartUpload`.
pub(super) fn create(
    store: &Store,
    uploads: &Uploads,
    mut input: CreateMultipartUploadInput,
) -> S3Result<CreateMultipartUploadOutput> {
    refuse_unbuilt!(input)?;
    check_key(&input.key)?;
    buckets::exists(store, &input.bucket)?;
    let chosen = input.checksum_algorithm.as_ref().map(|name| Algorithm::parse(name.as_str())).transpose()?;
    let algorithm = chosen.unwrap_or(Algorithm::DEFAULT);
    let upload = Upload {
        bucket: input.bucket.clone(),
        key: input.key.clone(),
        initiated_s: now_s(),
        headers: stored_headers!(input),
        tags: tags_of_header(input.tagging.as_deref())?,
        algorithm,
        algorithm_is_chosen: chosen.is_some(),
        full_object: algorithm.full_object(input.checksum_type.as_ref().map(ChecksumType::as_str))?,
        parts: BTreeMap::new(),
    };
    let kind = if upload.full_object { ChecksumType::FULL_OBJECT } else { ChecksumType::COMPOSITE };
    let id = uuid::Uuid::now_v7().simple().to_string();
    let output = CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(id.clone()),
        checksum_algorithm: chosen.map(|algorithm| ChecksumAlgorithm::from_static(algorithm.name())),
        checksum_type: chosen.map(|_| ChecksumType::from_static(kind)),
        server_side_encryption: upload.headers.encryption.clone().map(Into::into),
        ..CreateMultipartUploadOutput::default()
    };
    uploads.by_id.lock().insert(id, upload);
    Ok(output)
}

/// `UploadPart`.
pub(super) async fn upload_part(
    store: &Store,
    uploads: &Uploads,
    request: S3Request<UploadPartInput>,
) -> S3Result<UploadPartOutput> {
    let mut input = request.input;
    refuse(&[("SSE-C", input.sse_customer_algorithm.is_some())])?;
    let number = part_number(input.part_number)?;
    let (algorithm, is_chosen) = uploads
        .read(&input.bucket, &input.key, &input.upload_id, |upload| (upload.algorithm, upload.algorithm_is_chosen))?;
    let named = input.checksum_algorithm.as_ref();
    let mut claims = Claims::new(&request.headers, checksum_fields!(input), named, request.trailing_headers)?;
    if is_chosen && claims.chosen().is_some_and(|chosen| chosen != algorithm) {
        return Err(s3_error!(InvalidRequest, "Checksum Type mismatch occurred, expected {}", algorithm.name()));
    }
    claims.content_length = input.content_length;
    claims.content_md5 = input.content_md5.take();
    let received = intake::receive(store, input.body.take(), &claims, algorithm).await?;
    let part = Part {
        tag: received.md5,
        size: received.size,
        modified_s: now_s(),
        sum: received.sum(algorithm).to_owned(),
        content: received.content(),
        _bodies: received.body.iter().cloned().collect(),
    };
    let mut output = UploadPartOutput { e_tag: Some(part.etag()), ..UploadPartOutput::default() };
    let told = claims.chosen().unwrap_or(algorithm);
    tell_checksum!(output, fields(told, received.sum(told).to_owned()));
    // The upload may have been aborted meanwhile: then the part goes away with its bodies.
    uploads
        .change(&input.bucket, &input.key, &input.upload_id, |upload| upload.parts.insert(number, Arc::new(part)))?;
    Ok(output)
}

/// `UploadPartCopy`.
pub(super) async fn copy_part(
    store: &Store,
    uploads: &Uploads,
    mut input: UploadPartCopyInput,
) -> S3Result<UploadPartCopyOutput> {
    refuse(&[("SSE-C", input.sse_customer_algorithm.is_some() || input.copy_source_sse_customer_algorithm.is_some())])?;
    let number = part_number(input.part_number)?;
    let algorithm = uploads.read(&input.bucket, &input.key, &input.upload_id, |upload| upload.algorithm)?;
    let source = copies::source(store, &input.copy_source, &source_conditions!(input))?;
    let size = source.found.object().size;
    let range = source_range(input.copy_source_range.as_deref(), size)?;
    let content = outlet::cut(source.content, &range);
    let part = Part {
        tag: tag_of_copy(source.found.object(), &range),
        size: range.end - range.start,
        modified_s: now_s(),
        sum: intake::checksum(content.clone(), algorithm).await?,
        content: content.iter().map(outlet::Pinned::extent).collect(),
        _bodies: content.into_iter().map(outlet::Pinned::into_body).collect(),
    };
    let mut result = CopyPartResult {
        e_tag: Some(part.etag()),
        last_modified: Some(timestamp(part.modified_s)),
        ..CopyPartResult::default()
    };
    tell_checksum!(result, fields(algorithm, part.sum.clone()));
    uploads
        .change(&input.bucket, &input.key, &input.upload_id, |upload| upload.parts.insert(number, Arc::new(part)))?;
    Ok(UploadPartCopyOutput {
        copy_part_result: Some(result),
        copy_source_version_id: source.found.told_id,
        ..UploadPartCopyOutput::default()
    })
}

/// Stands for the bytes of a copied part: of which version they are, and where they lie in it. Their MD5 would
/// take a second for each 700 MB, and S3 does not promise it ("Part Copy", API reference: Object, ETag).
fn tag_of_copy(from: &Object, range: &std::ops::Range<u64>) -> [u8; 16] {
    let mut md5 = Md5::new();
    md5.update(format!("{} {}-{}", from.etag, range.start, range.end).as_bytes());
    md5.finalize()
}

/// `AbortMultipartUpload`.
pub(super) fn abort(uploads: &Uploads, input: &AbortMultipartUploadInput) -> S3Result<()> {
    uploads.read(&input.bucket, &input.key, &input.upload_id, |_| ())?;
    drop(uploads.remove(&input.upload_id));
    Ok(())
}

fn part_number(number: i32) -> S3Result<u16> {
    let wrong = || s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive");
    u16::try_from(number).ok().filter(|_| (1..=MAX_PARTS).contains(&number)).ok_or_else(wrong)
}

/// The range of a source that a part takes. Other than for GET, it has to lie inside.
fn source_range(header: Option<&str>, size: u64) -> S3Result<std::ops::Range<u64>> {
    let Some(header) = header else { return Ok(0..size) };
    match Range::parse(header) {
        Ok(Range::Int { first, last: Some(last) }) if last < size => Ok(first..last + 1),
        Ok(Range::Int { last: Some(_), .. }) => Err(s3_error!(InvalidRange, "The source is {size} bytes long")),
        _ => Err(s3_error!(InvalidArgument, "The x-amz-copy-source-range value must be of the form bytes=first-last")),
    }
}
