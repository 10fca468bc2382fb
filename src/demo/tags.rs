//! Object tags.

use s3s::S3Result;
use s3s::dto::{
    DeleteObjectTaggingInput, DeleteObjectTaggingOutput, GetObjectTaggingInput, GetObjectTaggingOutput,
    PutObjectTaggingInput, PutObjectTaggingOutput, Tag,
};

use super::headers::check_tags;
use super::objects::find;
use super::record::{Record, Tags};
use super::store::Store;

/// `GetObjectTagging`.
pub(super) fn get(store: &Store, input: &GetObjectTaggingInput) -> S3Result<GetObjectTaggingOutput> {
    let found = store.read(|catalog| find(catalog, &input.bucket, &input.key, input.version_id.as_deref()))?;
    let tag = |(name, value): &(String, String)| Tag { key: Some(name.clone()), value: Some(value.clone()) };
    let tag_set = found.object().tags.iter().map(tag).collect();
    Ok(GetObjectTaggingOutput { tag_set, version_id: found.told_id })
}

/// `PutObjectTagging`.
pub(super) fn put(store: &Store, input: PutObjectTaggingInput) -> S3Result<PutObjectTaggingOutput> {
    let pair = |tag: Tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default());
    let tags = input.tagging.tag_set.into_iter().map(pair).collect();
    let version_id = set(store, &input.bucket, &input.key, input.version_id.as_deref(), tags)?;
    Ok(PutObjectTaggingOutput { version_id })
}

/// `DeleteObjectTagging`.
pub(super) fn delete(store: &Store, input: &DeleteObjectTaggingInput) -> S3Result<DeleteObjectTaggingOutput> {
    let version_id = set(store, &input.bucket, &input.key, input.version_id.as_deref(), Tags::new())?;
    Ok(DeleteObjectTaggingOutput { version_id })
}

fn set(store: &Store, bucket: &str, key: &str, version_id: Option<&str>, tags: Tags) -> S3Result<Option<String>> {
    check_tags(&tags)?;
    store.change(|catalog| {
        let found = find(catalog, bucket, key, version_id)?;
        let version_id = found.version.id.clone();
        let record = Record::SetTags { bucket: bucket.to_owned(), key: key.to_owned(), version_id, tags };
        Ok((vec![record], found.told_id))
    })
}
