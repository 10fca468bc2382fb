//! Versioning of buckets, and `ListObjectVersions`.

use std::sync::Arc;

use s3s::dto::{
    BucketVersioningStatus, ChecksumAlgorithm, CommonPrefix, DeleteMarkerEntry, GetBucketVersioningOutput,
    ListObjectVersionsInput, ListObjectVersionsOutput, ObjectVersion, PutBucketVersioningInput,
};
use s3s::{S3Result, s3_error};

use super::buckets::owner;
use super::catalog::Bucket;
use super::conditions::{etag, timestamp};
use super::headers::{refuse, storage_class};
use super::listing::{After, Entry, Names, Walk, max_keys};
use super::record::{Record, Version, Versioning};
use super::store::Store;

/// `GetBucketVersioning`.
pub(super) fn get(store: &Store, bucket: &str) -> S3Result<GetBucketVersioningOutput> {
    let versioning = store.read(|catalog| catalog.bucket(bucket).map(|bucket| bucket.versioning))?;
    let status = match versioning {
        Versioning::Off => None,
        Versioning::Enabled => Some(BucketVersioningStatus::ENABLED),
        Versioning::Suspended => Some(BucketVersioningStatus::SUSPENDED),
    };
    let status = status.map(BucketVersioningStatus::from_static);
    Ok(GetBucketVersioningOutput { status, ..GetBucketVersioningOutput::default() })
}

/// `PutBucketVersioning`.
pub(super) fn put(store: &Store, input: PutBucketVersioningInput) -> S3Result<()> {
    let config = input.versioning_configuration;
    refuse(&[("MFA delete", config.mfa_delete.is_some() || input.mfa.is_some())])?;
    let versioning = match config.status.as_ref().map(BucketVersioningStatus::as_str) {
        Some(BucketVersioningStatus::ENABLED) => Versioning::Enabled,
        Some(BucketVersioningStatus::SUSPENDED) => Versioning::Suspended,
        _ => return Err(s3_error!(MalformedXML)),
    };
    store.change(|catalog| {
        catalog.bucket(&input.bucket)?;
        Ok((vec![Record::SetVersioning { bucket: input.bucket, versioning }], ()))
    })
}

/// `ListObjectVersions`: keys in order, of each key the newest version first.
///
/// A page ends between keys only: keys with very many versions make it longer than asked, which
/// clients take (they go by the markers), and which spares the state of half a key.
pub(super) fn list(store: &Store, input: ListObjectVersionsInput) -> S3Result<ListObjectVersionsOutput> {
    let names = Names::new(input.encoding_type.as_ref());
    let max_keys = max_keys(input.max_keys)?;
    let walk = Walk {
        prefix: input.prefix.as_deref().unwrap_or(""),
        delimiter: input.delimiter.as_deref(),
        after: input.key_marker.clone().filter(|key| !key.is_empty()).map_or(After::Nothing, After::Key),
        max_keys: usize::try_from(max_keys).unwrap_or(0),
    };
    let page = store.read(|catalog| {
        let bucket: &Bucket = catalog.bucket(&input.bucket)?;
        Ok::<_, s3s::S3Error>(walk.page(|from| {
            let (key, versions) = bucket.keys.range::<str, _>(from).next()?;
            Some((key.clone(), versions.clone()))
        }))
    })?;
    let mut output = ListObjectVersionsOutput {
        name: Some(input.bucket),
        prefix: Some(names.tell(walk.prefix)),
        delimiter: input.delimiter.as_deref().map(|delimiter| names.tell(delimiter)),
        key_marker: Some(names.tell(input.key_marker.as_deref().unwrap_or(""))),
        version_id_marker: input.version_id_marker,
        max_keys: Some(max_keys),
        is_truncated: Some(page.next.is_some() && max_keys > 0),
        encoding_type: input.encoding_type,
        ..ListObjectVersionsOutput::default()
    };
    if let (Some(After::Key(name) | After::Prefix(name)), true) = (&page.next, max_keys > 0) {
        output.next_key_marker = Some(names.tell(name));
    }
    for entry in page.entries {
        match entry {
            Entry::Key(key, versions) => tell_versions(&mut output, &names.tell(&key), &versions),
            Entry::Prefix(prefix) => {
                let prefix = CommonPrefix { prefix: Some(names.tell(&prefix)) };
                output.common_prefixes.get_or_insert_default().push(prefix);
            }
        }
    }
    Ok(output)
}

fn tell_versions(output: &mut ListObjectVersionsOutput, key: &str, versions: &[Arc<Version>]) {
    for (index, version) in versions.iter().rev().enumerate() {
        let is_latest = index == 0;
        if version.object.is_some() {
            output.versions.get_or_insert_default().extend(told_version(key, version, is_latest));
        } else {
            output.delete_markers.get_or_insert_default().push(DeleteMarkerEntry {
                is_latest: Some(is_latest),
                key: Some(key.to_owned()),
                last_modified: Some(timestamp(version.modified_s)),
                owner: Some(owner()),
                version_id: Some(version.id.clone()),
            });
        }
    }
}

fn told_version(key: &str, version: &Version, is_latest: bool) -> Option<ObjectVersion> {
    let object = version.object.as_ref()?;
    Some(ObjectVersion {
        checksum_algorithm: Some(vec![ChecksumAlgorithm::from_static(object.checksum.algorithm.name())]),
        checksum_type: object.checksum.fields().checksum_type,
        e_tag: Some(etag(object)),
        is_latest: Some(is_latest),
        key: Some(key.to_owned()),
        last_modified: Some(timestamp(version.modified_s)),
        owner: Some(owner()),
        restore_status: None,
        size: Some(object.size.cast_signed()),
        storage_class: Some(storage_class(&object.headers).to_owned().into()),
        version_id: Some(version.id.clone()),
    })
}
