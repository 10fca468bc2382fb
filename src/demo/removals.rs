//! `DeleteObject` and `DeleteObjects`.

use s3s::dto::{
    self, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, ETagCondition,
    ObjectIdentifier, Timestamp,
};
use s3s::{S3Error, S3Result, s3_error};

use super::catalog::Bucket;
use super::conditions::{matches, unix_s};
use super::directory_buckets::is_one;
use super::headers::refuse;
use super::objects::told_version_id;
use super::record::{NULL_VERSION, Record, Version, Versioning, now_s};
use super::store::Store;

/// Most keys of one `DeleteObjects` (AWS).
const MAX_KEYS: usize = 1000;

/// What has to hold of an object for its deletion: of the current version, whichever is to go.
#[derive(Debug, Default)]
struct DeleteConditions {
    if_match: Option<ETagCondition>,
    size: Option<i64>,
    modified: Option<Timestamp>,
}

impl DeleteConditions {
    /// # Errors
    /// `PreconditionFailed`, and `NoSuchKey` for a tag of what is not there; in a directory bucket that is deleted already.
    fn check(&self, bucket: &Bucket, name: &str, key: &str) -> S3Result<()> {
        let found = bucket.latest(key).and_then(|version| Some((version, version.object.as_ref()?)));
        let Some((version, object)) = found else {
            let is_wanted = self.if_match.is_some() && !is_one(name);
            return if is_wanted { Err(s3_error!(NoSuchKey)) } else { Ok(()) };
        };
        let holds = self.if_match.as_ref().is_none_or(|condition| matches(condition, object))
            && self.size.is_none_or(|size| u64::try_from(size) == Ok(object.size))
            && self.modified.as_ref().is_none_or(|modified| unix_s(modified) == version.modified_s);
        if holds { Ok(()) } else { Err(s3_error!(PreconditionFailed)) }
    }
}

/// What a deletion did, for the answer.
#[derive(Debug, Default)]
struct Deleted {
    /// The version removed, or the delete marker made.
    version_id: Option<String>,
    /// A delete marker was made or removed.
    marker: bool,
}

/// `DeleteObject`.
pub(super) fn delete(store: &Store, input: DeleteObjectInput) -> S3Result<DeleteObjectOutput> {
    let conditions = DeleteConditions {
        if_match: input.if_match,
        size: input.if_match_size,
        modified: input.if_match_last_modified_time,
    };
    let deleted = store.change(|catalog| {
        let bucket = catalog.bucket(&input.bucket)?;
        conditions.check(bucket, &input.bucket, &input.key)?;
        let (record, deleted) = decide(bucket, &input.bucket, &input.key, input.version_id.as_deref());
        Ok((record.into_iter().collect(), deleted))
    })?;
    Ok(DeleteObjectOutput {
        delete_marker: deleted.marker.then_some(true),
        version_id: deleted.version_id,
        ..DeleteObjectOutput::default()
    })
}

/// `DeleteObjects`: each key for itself, all in one step.
pub(super) fn delete_many(store: &Store, input: DeleteObjectsInput) -> S3Result<DeleteObjectsOutput> {
    if input.delete.objects.len() > MAX_KEYS || input.delete.objects.is_empty() {
        return Err(s3_error!(MalformedXML));
    }
    refuse(&[("MFA delete", input.mfa.is_some())])?;
    let (deleted, errors) = store.change(|catalog| {
        let bucket = catalog.bucket(&input.bucket)?;
        let mut records = Vec::new();
        let mut deleted = Vec::new();
        let mut errors = Vec::new();
        for object in input.delete.objects {
            match delete_one(bucket, &input.bucket, &object) {
                Ok((record, done)) => {
                    records.extend(record);
                    deleted.push(told(object, done));
                }
                Err(error) => errors.push(told_error(object, &error)),
            }
        }
        Ok((records, (deleted, errors)))
    })?;
    let quiet = input.delete.quiet.unwrap_or(false);
    Ok(DeleteObjectsOutput {
        deleted: Some(deleted).filter(|_| !quiet),
        errors: Some(errors).filter(|errors| !errors.is_empty()),
        ..DeleteObjectsOutput::default()
    })
}

fn delete_one(bucket: &Bucket, name: &str, object: &ObjectIdentifier) -> S3Result<(Option<Record>, Deleted)> {
    let conditions = DeleteConditions {
        if_match: object.e_tag.clone().map(ETagCondition::ETag),
        size: object.size,
        modified: object.last_modified_time.clone(),
    };
    conditions.check(bucket, name, &object.key)?;
    Ok(decide(bucket, name, &object.key, object.version_id.as_deref()))
}

/// What deleting means here: a version goes for good, a key without versioning too, and a key with
/// versioning gets a delete marker.
fn decide(bucket: &Bucket, name: &str, key: &str, version_id: Option<&str>) -> (Option<Record>, Deleted) {
    let remove = |version_id: &str| {
        let known = bucket.version(key, Some(version_id)).ok()?;
        let record = Record::Remove { bucket: name.to_owned(), key: key.to_owned(), version_id: known.id.clone() };
        Some((record, known.object.is_none()))
    };
    match (version_id, bucket.versioning) {
        (Some(version_id), _) => {
            let (record, marker) = remove(version_id).unzip();
            let told = told_version_id(bucket, version_id);
            (record, Deleted { version_id: told, marker: marker.unwrap_or(false) })
        }
        (None, Versioning::Off) => (remove(NULL_VERSION).map(|(record, _)| record), Deleted::default()),
        (None, Versioning::Enabled | Versioning::Suspended) => {
            let marker = Box::new(Version { id: bucket.next_version_id(), modified_s: now_s(), object: None });
            let deleted = Deleted { version_id: Some(marker.id.clone()), marker: true };
            (Some(Record::Put { bucket: name.to_owned(), key: key.to_owned(), version: marker }), deleted)
        }
    }
}

fn told(object: ObjectIdentifier, deleted: Deleted) -> DeletedObject {
    let made_marker = deleted.marker && object.version_id.is_none();
    DeletedObject {
        key: Some(object.key),
        delete_marker: deleted.marker.then_some(true),
        delete_marker_version_id: deleted.version_id.filter(|_| deleted.marker),
        version_id: object.version_id.filter(|_| !made_marker),
    }
}

fn told_error(object: ObjectIdentifier, error: &S3Error) -> dto::Error {
    dto::Error {
        code: Some(error.code().as_str().to_owned()),
        key: Some(object.key),
        message: error.message().map(str::to_owned),
        version_id: object.version_id,
    }
}
