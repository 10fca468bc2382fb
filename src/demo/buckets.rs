//! Buckets themselves, and the settings of them that the demo server has.

use s3s::dto::{
    self, CreateBucketInput, CreateBucketOutput, GetBucketLocationOutput, Grant, Grantee, HeadBucketOutput,
    ListBucketsInput, ListBucketsOutput, NotificationConfiguration, Owner, Permission, PutObjectAclInput, Type,
};
use s3s::path::check_bucket_name;
use s3s::{S3Result, s3_error};

use super::conditions::timestamp;
use super::headers::{check_acl, refuse};
use super::record::{Record, now_s};
use super::store::Store;

/// The region that the server says it is in. `us-east-1` is the one whose buckets have no
/// location constraint.
pub(super) const REGION: &str = "us-east-1";

/// The one account there is.
pub(super) fn owner() -> Owner {
    Owner { display_name: Some("demo".into()), id: Some("demo".into()) }
}

/// `CreateBucket`.
pub(super) fn create(store: &Store, input: CreateBucketInput) -> S3Result<CreateBucketOutput> {
    refuse(&[("object lock", input.object_lock_enabled_for_bucket.unwrap_or(false))])?;
    if input.acl.as_ref().is_some_and(|acl| acl.as_str() != dto::BucketCannedACL::PRIVATE) {
        return Err(s3_error!(AccessControlListNotSupported, "The bucket does not allow ACLs"));
    }
    let location = format!("/{}", input.bucket);
    ensure(store, input.bucket, false)?;
    Ok(CreateBucketOutput { location: Some(location) })
}

/// Makes a bucket. One that is there already stays, or is an error unless `may_exist`.
///
/// # Errors
/// `InvalidBucketName`, `BucketAlreadyOwnedByYou`.
pub(super) fn ensure(store: &Store, bucket: String, may_exist: bool) -> S3Result<()> {
    if !check_bucket_name(&bucket) {
        return Err(s3_error!(InvalidBucketName));
    }
    store.change(|catalog| match catalog.buckets.contains_key(&bucket) {
        false => Ok((vec![Record::CreateBucket { bucket, created_s: now_s() }], ())),
        true if may_exist => Ok((Vec::new(), ())),
        true => Err(s3_error!(BucketAlreadyOwnedByYou)),
    })
}

/// `DeleteBucket`.
pub(super) fn delete(store: &Store, bucket: String) -> S3Result<()> {
    store.change(|catalog| {
        if catalog.bucket(&bucket)?.keys.is_empty() {
            return Ok((vec![Record::DeleteBucket { bucket }], ()));
        }
        Err(s3_error!(BucketNotEmpty))
    })
}

/// `HeadBucket`.
pub(super) fn head(store: &Store, bucket: &str) -> S3Result<HeadBucketOutput> {
    exists(store, bucket)?;
    Ok(HeadBucketOutput { bucket_region: Some(REGION.into()), ..HeadBucketOutput::default() })
}

/// `GetBucketLocation`.
pub(super) fn location(store: &Store, bucket: &str) -> S3Result<GetBucketLocationOutput> {
    exists(store, bucket)?;
    Ok(GetBucketLocationOutput::default())
}

/// `ListBuckets`.
pub(super) fn list(store: &Store, input: &ListBucketsInput) -> ListBucketsOutput {
    let prefix = input.prefix.as_deref().unwrap_or("");
    let most = input.max_buckets.and_then(|most| usize::try_from(most).ok()).unwrap_or(10_000);
    let after = input.continuation_token.as_deref().unwrap_or("");
    store.read(|catalog| {
        let fits = |name: &&String| name.starts_with(prefix) && name.as_str() > after;
        let mut buckets = catalog.buckets.iter().filter(|(name, _)| fits(name)).map(|(name, bucket)| dto::Bucket {
            bucket_region: Some(REGION.into()),
            creation_date: Some(timestamp(bucket.created_s)),
            name: Some(name.clone()),
        });
        let page: Vec<_> = buckets.by_ref().take(most).collect();
        let last = page.last().and_then(|bucket| bucket.name.clone());
        ListBucketsOutput {
            continuation_token: last.filter(|_| buckets.next().is_some()),
            buckets: Some(page),
            owner: Some(owner()),
            prefix: input.prefix.clone(),
        }
    })
}

/// `PutBucketNotificationConfiguration`: only the empty one, which is true; nothing is sent here.
pub(super) fn put_notification(store: &Store, bucket: &str, config: &NotificationConfiguration) -> S3Result<()> {
    exists(store, bucket)?;
    let some = |empty: Option<bool>| !empty.unwrap_or(true);
    refuse(&[
        ("notifications", some(config.queue_configurations.as_ref().map(Vec::is_empty))),
        ("notifications", some(config.topic_configurations.as_ref().map(Vec::is_empty))),
        ("notifications", some(config.lambda_function_configurations.as_ref().map(Vec::is_empty))),
        ("notifications", config.event_bridge_configuration.is_some()),
    ])
}

/// The grants of everything: the one account may do all.
pub(super) fn grants() -> Vec<Grant> {
    let grantee = Grantee {
        display_name: Some("demo".into()),
        email_address: None,
        id: Some("demo".into()),
        type_: Type::from_static(Type::CANONICAL_USER),
        uri: None,
    };
    vec![Grant { grantee: Some(grantee), permission: Some(Permission::from_static(Permission::FULL_CONTROL)) }]
}

/// `PutObjectAcl`: only those that say what is true anyway.
pub(super) fn put_object_acl(input: &PutObjectAclInput) -> S3Result<()> {
    let grants = input.access_control_policy.is_some()
        || input.grant_read.is_some()
        || input.grant_write.is_some()
        || input.grant_full_control.is_some()
        || input.grant_read_acp.is_some()
        || input.grant_write_acp.is_some();
    if grants || input.acl.is_none() {
        return Err(s3_error!(AccessControlListNotSupported, "The bucket does not allow ACLs"));
    }
    check_acl(input.acl.as_ref())
}

/// Checks that a bucket is there.
///
/// # Errors
/// `NoSuchBucket`.
pub(super) fn exists(store: &Store, bucket: &str) -> S3Result<()> {
    store.read(|catalog| catalog.bucket(bucket).map(|_| ()))
}
