//! `ListParts` and `ListMultipartUploads`.

use std::collections::BTreeMap;

use s3s::S3Result;
use s3s::dto::{
    self, ChecksumAlgorithm, ChecksumType, CommonPrefix, ListMultipartUploadsInput, ListMultipartUploadsOutput,
    ListPartsInput, ListPartsOutput, MultipartUpload,
};

use super::{Part, Upload, Uploads};
use crate::demo::buckets::{self, owner};
use crate::demo::checksums::{fields, tell_checksum};
use crate::demo::conditions::timestamp;
use crate::demo::headers::storage_class;
use crate::demo::listing::{After, Entry, Names, Walk, max_keys};
use crate::demo::store::Store;

/// `ListParts`.
pub(in crate::demo) fn list_parts(uploads: &Uploads, input: ListPartsInput) -> S3Result<ListPartsOutput> {
    let upload = uploads.read(&input.bucket, &input.key, &input.upload_id, Upload::clone)?;
    let marker = input.part_number_marker.unwrap_or(0);
    let max_parts = max_keys(input.max_parts)?;
    let behind: Vec<_> = upload.parts.iter().filter(|(number, _)| i32::from(**number) > marker).collect();
    let page = &behind[..behind.len().min(usize::try_from(max_parts).unwrap_or(0))];
    Ok(ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        checksum_algorithm: Some(ChecksumAlgorithm::from_static(upload.algorithm.name())),
        checksum_type: Some(checksum_type(&upload)),
        is_truncated: Some(page.len() < behind.len()),
        max_parts: Some(max_parts),
        part_number_marker: Some(marker),
        next_part_number_marker: page.last().map(|(number, _)| i32::from(**number)),
        owner: Some(owner()),
        parts: Some(page.iter().map(|(number, part)| told_part(&upload, **number, part)).collect()),
        storage_class: Some(storage_class(&upload.headers).to_owned().into()),
        ..ListPartsOutput::default()
    })
}

fn told_part(upload: &Upload, number: u16, part: &Part) -> dto::Part {
    let mut told = dto::Part {
        e_tag: Some(part.etag()),
        last_modified: Some(timestamp(part.modified_s)),
        part_number: Some(number.into()),
        size: Some(part.size.cast_signed()),
        ..dto::Part::default()
    };
    tell_checksum!(told, fields(upload.algorithm, part.sum.clone()));
    told
}

/// `ListMultipartUploads`: by key, of each key the oldest first. A page ends between keys only.
pub(in crate::demo) fn list_uploads(
    store: &Store,
    uploads: &Uploads,
    input: ListMultipartUploadsInput,
) -> S3Result<ListMultipartUploadsOutput> {
    buckets::exists(store, &input.bucket)?;
    let names = Names::new(input.encoding_type.as_ref());
    let max_uploads = max_keys(input.max_uploads)?;
    let walk = Walk {
        prefix: input.prefix.as_deref().unwrap_or(""),
        delimiter: input.delimiter.as_deref(),
        after: input.key_marker.clone().filter(|key| !key.is_empty()).map_or(After::Nothing, After::Key),
        max_keys: usize::try_from(max_uploads).unwrap_or(0),
    };
    let by_key = by_key(uploads, &input.bucket, names);
    let page = walk.page(|from| {
        let (key, uploads) = by_key.range::<str, _>(from).next()?;
        Some((key.clone(), uploads.clone()))
    });
    let mut output = ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        prefix: Some(names.tell(walk.prefix)),
        delimiter: input.delimiter.as_deref().map(|delimiter| names.tell(delimiter)),
        key_marker: Some(names.tell(input.key_marker.as_deref().unwrap_or(""))),
        upload_id_marker: input.upload_id_marker,
        max_uploads: Some(max_uploads),
        is_truncated: Some(page.next.is_some() && max_uploads > 0),
        encoding_type: input.encoding_type,
        ..ListMultipartUploadsOutput::default()
    };
    if let (Some(After::Key(name) | After::Prefix(name)), true) = (&page.next, max_uploads > 0) {
        output.next_key_marker = Some(names.tell(name));
    }
    for entry in page.entries {
        match entry {
            Entry::Key(_, mut uploads) => output.uploads.get_or_insert_default().append(&mut uploads),
            Entry::Prefix(prefix) => {
                let prefix = CommonPrefix { prefix: Some(names.tell(&prefix)) };
                output.common_prefixes.get_or_insert_default().push(prefix);
            }
        }
    }
    Ok(output)
}

fn by_key(uploads: &Uploads, bucket: &str, names: Names) -> BTreeMap<String, Vec<MultipartUpload>> {
    let mut by_key: BTreeMap<String, Vec<MultipartUpload>> = BTreeMap::new();
    let uploads = uploads.by_id.lock();
    for (id, upload) in uploads.iter().filter(|(_, upload)| upload.bucket == bucket) {
        by_key.entry(upload.key.clone()).or_default().push(MultipartUpload {
            checksum_algorithm: Some(ChecksumAlgorithm::from_static(upload.algorithm.name())),
            checksum_type: Some(checksum_type(upload)),
            initiated: Some(timestamp(upload.initiated_s)),
            initiator: None,
            key: Some(names.tell(&upload.key)),
            owner: Some(owner()),
            storage_class: Some(storage_class(&upload.headers).to_owned().into()),
            upload_id: Some(id.clone()),
        });
    }
    by_key
}

fn checksum_type(upload: &Upload) -> ChecksumType {
    ChecksumType::from_static(if upload.full_object { ChecksumType::FULL_OBJECT } else { ChecksumType::COMPOSITE })
}
