//! `CompleteMultipartUpload`: checks what the client says about the parts, then makes the object.

use std::sync::Arc;

use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::{CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CompletedPart};
use s3s::{S3Result, s3_error};

use super::{Part, Upload, Uploads};
use crate::demo::checksums::{self, Checksum, checksum_fields, tell_checksum};
use crate::demo::conditions::{WriteConditions, etag};
use crate::demo::directory_buckets;
use crate::demo::objects::commit;
use crate::demo::record::{Object, PartSize};
use crate::demo::store::Store;

/// Smallest part but the last (AWS: 5 MiB).
const MIN_PART_BYTES: u64 = 5 << 20;
/// Largest object (AWS: 5 TiB).
const MAX_OBJECT_BYTES: u64 = 5 << 40;

/// `CompleteMultipartUpload`.
pub(in crate::demo) fn complete(
    store: &Store,
    uploads: &Uploads,
    mut input: CompleteMultipartUploadInput,
) -> S3Result<CompleteMultipartUploadOutput> {
    // A copy, so that the parts' bodies are held until the commit keeps them, whoever aborts.
    let upload = uploads.read(&input.bucket, &input.key, &input.upload_id, Upload::clone)?;
    let asked = input.multipart_upload.take().and_then(|upload| upload.parts).unwrap_or_default();
    let parts = chosen_parts(&upload, asked)?;
    if directory_buckets::is_one(&input.bucket) && parts.iter().zip(1..).any(|((number, _), next)| *number != next) {
        return Err(s3_error!(InvalidPart, "The parts of an upload to a directory bucket have to be consecutive"));
    }
    let mut object = assemble(&upload, &parts);
    directory_buckets::settle(&input.bucket, &mut object);
    check_object(&mut input, &object)?;
    let conditions = WriteConditions { if_match: input.if_match.take(), if_none_match: input.if_none_match.take() };
    let mut output = CompleteMultipartUploadOutput {
        location: Some(format!("/{}/{}", input.bucket, input.key)),
        bucket: Some(input.bucket.clone()),
        key: Some(input.key.clone()),
        e_tag: Some(etag(&object)),
        server_side_encryption: object.headers.encryption.clone().map(Into::into),
        ..CompleteMultipartUploadOutput::default()
    };
    let sums = object.checksum.fields();
    output.checksum_type.clone_from(&sums.checksum_type);
    tell_checksum!(output, sums);
    output.version_id = commit(store, &input.bucket, input.key, object, &conditions)?;
    uploads.remove(&input.upload_id);
    Ok(output)
}

/// The parts that the client names, each as it names it.
fn chosen_parts(upload: &Upload, asked: Vec<CompletedPart>) -> S3Result<Vec<(u16, Arc<Part>)>> {
    if asked.is_empty() {
        return Err(s3_error!(MalformedXML, "You must specify at least one part"));
    }
    let mut parts: Vec<(u16, Arc<Part>)> = Vec::with_capacity(asked.len());
    for mut claim in asked {
        let number = claim.part_number.and_then(|number| u16::try_from(number).ok()).ok_or_else(invalid_part)?;
        if parts.last().is_some_and(|(last, _)| *last >= number) {
            return Err(s3_error!(InvalidPartOrder));
        }
        let part = upload.parts.get(&number).ok_or_else(invalid_part)?;
        check_part(upload, part, &mut claim)?;
        parts.push((number, Arc::clone(part)));
    }
    let all_but_last = &parts[..parts.len() - 1];
    if all_but_last.iter().any(|(_, part)| part.size < MIN_PART_BYTES) {
        return Err(s3_error!(EntityTooSmall));
    }
    if parts.iter().map(|(_, part)| part.size).sum::<u64>() > MAX_OBJECT_BYTES {
        return Err(s3_error!(EntityTooLarge));
    }
    Ok(parts)
}

fn check_part(upload: &Upload, part: &Part, claim: &mut CompletedPart) -> S3Result<()> {
    if claim.e_tag.as_ref().is_none_or(|tag| tag.value() != part.etag().value()) {
        return Err(invalid_part());
    }
    match checksums::claimed(checksum_fields!(claim))? {
        // Clients repeat the checksum they sent, which need not be the one the upload keeps.
        Some((algorithm, value)) if algorithm == upload.algorithm && value != part.sum => Err(invalid_part()),
        _ => Ok(()),
    }
}

fn invalid_part() -> s3s::S3Error {
    s3_error!(
        InvalidPart,
        "One or more of the specified parts could not be found or did not match its ETag or checksum."
    )
}

fn assemble(upload: &Upload, parts: &[(u16, Arc<Part>)]) -> Object {
    let mut md5 = Md5::new();
    for (_, part) in parts {
        md5.update(&part.tag);
    }
    let sums: Vec<_> = parts.iter().map(|(_, part)| (part.sum.clone(), part.size)).collect();
    let part_size =
        |(number, part): &(u16, Arc<Part>)| PartSize { number: *number, size: part.size, checksum: part.sum.clone() };
    Object {
        etag: format!("{}-{}", hex::encode(md5.finalize()), parts.len()),
        size: parts.iter().map(|(_, part)| part.size).sum(),
        content: parts.iter().flat_map(|(_, part)| part.content.iter().copied()).collect(),
        headers: upload.headers.clone(),
        tags: upload.tags.clone(),
        checksum: Checksum::of_parts(upload.algorithm, upload.full_object, &sums),
        parts: parts.iter().map(part_size).collect(),
    }
}

fn check_object(input: &mut CompleteMultipartUploadInput, object: &Object) -> S3Result<()> {
    if input.mpu_object_size.is_some_and(|size| u64::try_from(size) != Ok(object.size)) {
        return Err(s3_error!(
            InvalidRequest,
            "The provided 'x-amz-mp-object-size' header does not match what was computed"
        ));
    }
    match checksums::claimed(checksum_fields!(input))? {
        Some((algorithm, _)) if algorithm != object.checksum.algorithm => {
            Err(s3_error!(InvalidRequest, "The upload was created with {}", object.checksum.algorithm.name()))
        }
        Some((algorithm, value)) if value != object.checksum.value => {
            Err(s3_error!(BadDigest, "The {} you specified did not match the calculated checksum.", algorithm.name()))
        }
        _ => Ok(()),
    }
}
