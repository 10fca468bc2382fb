//! `CopyObject`: a new version that points to the same bodies; no byte is moved.

use s3s::dto::{CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, MetadataDirective, TaggingDirective};
use s3s::{S3Error, S3Result, s3_error};

use super::checksums::{Algorithm, Checksum, tell_checksum};
use super::conditions::{ReadConditions, WriteConditions, etag, timestamp};
use super::directory_buckets;
use super::headers::{self, refuse_unbuilt, stored_headers, tags_of_header};
use super::intake;
use super::objects::{self, Found, check_key, commit};
use super::outlet::Pinned;
use super::record::{Headers, Object, now_s};
use super::store::Store;

/// Largest object of one copy request (AWS: 5 GiB).
const MAX_COPY_BYTES: u64 = 5 << 30;

/// The source of a copy, its bytes held open.
pub(super) struct Source {
    pub found: Found,
    pub content: Vec<Pinned>,
}

/// Finds the source of a copy and checks the conditions on it.
///
/// # Errors
/// Those of [`objects::find`] and [`ReadConditions::check_source`]; `InvalidObjectState` for an
/// archived source.
pub(super) fn source(store: &Store, from: &CopySource, conditions: &ReadConditions) -> S3Result<Source> {
    let CopySource::Bucket { bucket, key, version_id } = from else {
        return Err(s3_error!(NotImplemented, "The demo server has no access points."));
    };
    let source = store.read(|catalog| {
        let found = objects::find(catalog, bucket, key, version_id.as_deref())?;
        let content = objects::pin(catalog, found.object());
        Ok::<_, S3Error>(Source { found, content })
    })?;
    conditions.check_source(&source.found.version, source.found.object())?;
    if headers::is_archived(&source.found.object().headers) {
        return Err(s3_error!(InvalidObjectState, "The source of the copy is archived"));
    }
    Ok(source)
}

/// Gathers the conditions on the source; both kinds of copy have them under the same names.
macro_rules! source_conditions {
    ($input:expr) => {
        crate::demo::conditions::ReadConditions {
            matches: $input.copy_source_if_match.take(),
            differs: $input.copy_source_if_none_match.take(),
            modified_since: $input.copy_source_if_modified_since.take(),
            unmodified_since: $input.copy_source_if_unmodified_since.take(),
        }
    };
}

pub(super) use source_conditions;

/// `CopyObject`. `to` are the conditions on the destination, which the input type does not carry.
pub(super) async fn copy(store: &Store, mut input: CopyObjectInput, to: WriteConditions) -> S3Result<CopyObjectOutput> {
    refuse_unbuilt!(input)?;
    check_key(&input.key)?;
    let source = source(store, &input.copy_source, &source_conditions!(input))?;
    let object = source.found.object();
    if object.size > MAX_COPY_BYTES {
        return Err(s3_error!(InvalidRequest, "The copy source is larger than 5 GiB: copy it in parts"));
    }
    let replaces = input.metadata_directive.as_ref().is_some_and(|to| to.as_str() == MetadataDirective::REPLACE);
    refuse_self_copy(&input, replaces)?;
    let given = stored_headers!(input);
    let replaces_tags = input.tagging_directive.as_ref().is_some_and(|to| to.as_str() == TaggingDirective::REPLACE);
    let mut copy = Object {
        etag: single_etag(&source).await?,
        content: object.content.clone(),
        headers: if replaces { given } else { copied_headers(&object.headers, given) },
        tags: if replaces_tags { tags_of_header(input.tagging.as_deref())? } else { object.tags.clone() },
        checksum: checksum(&source, input.checksum_algorithm.as_ref().map(|name| Algorithm::parse(name.as_str())))
            .await?,
        size: object.size,
        parts: Vec::new(),
    };
    directory_buckets::settle(&input.bucket, &mut copy);
    let mut result = CopyObjectResult {
        e_tag: Some(etag(&copy)),
        last_modified: Some(timestamp(now_s())),
        ..CopyObjectResult::default()
    };
    let sums = copy.checksum.fields();
    result.checksum_type.clone_from(&sums.checksum_type);
    tell_checksum!(result, sums);
    Ok(CopyObjectOutput {
        copy_object_result: Some(result),
        copy_source_version_id: source.found.told_id.clone(),
        version_id: commit(store, &input.bucket, input.key, copy, &to)?,
        ..CopyObjectOutput::default()
    })
}

fn refuse_self_copy(input: &CopyObjectInput, replaces: bool) -> S3Result<()> {
    let changes = replaces || input.storage_class.is_some() || input.server_side_encryption.is_some();
    match &input.copy_source {
        CopySource::Bucket { bucket, key, version_id: None }
            if **bucket == *input.bucket && **key == *input.key && !changes =>
        {
            Err(s3_error!(
                InvalidRequest,
                "This copy request is illegal because it is trying to copy an object to itself without changing anything."
            ))
        }
        _ => Ok(()),
    }
}

/// The class is of the copy, not of the source: S3 never copies it.
fn copied_headers(from: &Headers, given: Headers) -> Headers {
    Headers {
        storage_class: given.storage_class,
        encryption: given.encryption.or_else(|| from.encryption.clone()),
        ..from.clone()
    }
}

/// A copy is written in one piece, so that its ETag is the MD5 of the bytes even where the source
/// came in parts.
async fn single_etag(source: &Source) -> S3Result<String> {
    let object = source.found.object();
    if object.parts.is_empty() {
        return Ok(object.etag.clone());
    }
    Ok(hex::encode(intake::md5(source.content.clone()).await?))
}

async fn checksum(source: &Source, asked: Option<S3Result<Algorithm>>) -> S3Result<Checksum> {
    let known = &source.found.object().checksum;
    let algorithm = asked.transpose()?.unwrap_or(known.algorithm);
    if algorithm == known.algorithm && known.full_object {
        return Ok(known.clone());
    }
    Ok(Checksum::full(algorithm, intake::checksum(source.content.clone(), algorithm).await?))
}
