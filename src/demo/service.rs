//! The operations that the server has, each handed on to where it is done. Whatever is not here
//! answers 501: that is the trait's default.

use std::sync::Arc;

use async_trait::async_trait;
use s3s::dto::{self, ETagCondition};
use s3s::{S3, S3Request, S3Response, S3Result};

use super::conditions::WriteConditions;
use super::directory_buckets::Renames;
use super::multipart::{self, Uploads};
use super::store::Store;
use super::{buckets, copies, directory_buckets, listing, objects, removals, sessions, tags, versions};

/// The server behind `s3s`.
#[derive(Debug)]
pub(super) struct Demo {
    store: Arc<Store>,
    uploads: Uploads,
    renames: Renames,
}

impl Demo {
    /// Serves a store.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, uploads: Uploads::default(), renames: Renames::default() }
    }
}

type Answer<T> = S3Result<S3Response<T>>;

fn answer<T>(output: T) -> S3Response<T> {
    S3Response::new(output)
}

/// `s3s` reads the conditions on the source of a copy, not those on its destination.
fn destination_conditions<T>(request: &S3Request<T>) -> S3Result<WriteConditions> {
    let condition = |name: &str| {
        let header = request.headers.get(name);
        let parse = |value: &hyper::header::HeaderValue| ETagCondition::parse_http_header(value.as_bytes());
        header.map(parse).transpose().map_err(|error| s3s::s3_error!(error, InvalidArgument, "{name} is no ETag"))
    };
    Ok(WriteConditions { if_match: condition("if-match")?, if_none_match: condition("if-none-match")? })
}

#[async_trait]
impl S3 for Demo {
    async fn list_buckets(&self, request: S3Request<dto::ListBucketsInput>) -> Answer<dto::ListBucketsOutput> {
        Ok(answer(buckets::list(&self.store, &request.input)))
    }

    async fn create_bucket(&self, request: S3Request<dto::CreateBucketInput>) -> Answer<dto::CreateBucketOutput> {
        buckets::create(&self.store, request.input).map(answer)
    }

    async fn head_bucket(&self, request: S3Request<dto::HeadBucketInput>) -> Answer<dto::HeadBucketOutput> {
        buckets::head(&self.store, &request.input.bucket).map(answer)
    }

    async fn delete_bucket(&self, request: S3Request<dto::DeleteBucketInput>) -> Answer<dto::DeleteBucketOutput> {
        buckets::delete(&self.store, request.input.bucket.clone())?;
        self.uploads.remove_bucket(&request.input.bucket);
        Ok(answer(dto::DeleteBucketOutput {}))
    }

    async fn create_session(&self, request: S3Request<dto::CreateSessionInput>) -> Answer<dto::CreateSessionOutput> {
        buckets::exists(&self.store, &request.input.bucket)?;
        sessions::create(request.credentials).map(answer)
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<dto::GetBucketLocationInput>,
    ) -> Answer<dto::GetBucketLocationOutput> {
        buckets::location(&self.store, &request.input.bucket).map(answer)
    }

    async fn get_bucket_versioning(
        &self,
        request: S3Request<dto::GetBucketVersioningInput>,
    ) -> Answer<dto::GetBucketVersioningOutput> {
        versions::get(&self.store, &request.input.bucket).map(answer)
    }

    async fn put_bucket_versioning(
        &self,
        request: S3Request<dto::PutBucketVersioningInput>,
    ) -> Answer<dto::PutBucketVersioningOutput> {
        versions::put(&self.store, request.input)?;
        Ok(answer(dto::PutBucketVersioningOutput {}))
    }

    async fn get_bucket_notification_configuration(
        &self,
        request: S3Request<dto::GetBucketNotificationConfigurationInput>,
    ) -> Answer<dto::GetBucketNotificationConfigurationOutput> {
        buckets::exists(&self.store, &request.input.bucket)?;
        Ok(answer(dto::GetBucketNotificationConfigurationOutput::default()))
    }

    async fn put_bucket_notification_configuration(
        &self,
        request: S3Request<dto::PutBucketNotificationConfigurationInput>,
    ) -> Answer<dto::PutBucketNotificationConfigurationOutput> {
        let input = request.input;
        buckets::put_notification(&self.store, &input.bucket, &input.notification_configuration)?;
        Ok(answer(dto::PutBucketNotificationConfigurationOutput {}))
    }

    async fn list_objects(&self, request: S3Request<dto::ListObjectsInput>) -> Answer<dto::ListObjectsOutput> {
        listing::list_v1(&self.store, request.input).map(answer)
    }

    async fn list_objects_v2(&self, request: S3Request<dto::ListObjectsV2Input>) -> Answer<dto::ListObjectsV2Output> {
        listing::list_v2(&self.store, &self.uploads, request.input).map(answer)
    }

    async fn list_object_versions(
        &self,
        request: S3Request<dto::ListObjectVersionsInput>,
    ) -> Answer<dto::ListObjectVersionsOutput> {
        versions::list(&self.store, request.input).map(answer)
    }

    async fn put_object(&self, request: S3Request<dto::PutObjectInput>) -> Answer<dto::PutObjectOutput> {
        if directory_buckets::is_rename(&request.input.bucket, &request.uri) {
            let (bucket, key) = (request.input.bucket.clone(), request.input.key.clone());
            self.renames.rename(&self.store, &bucket, key, &request.headers)?;
            return Ok(answer(dto::PutObjectOutput::default()));
        }
        objects::put(&self.store, request).await.map(answer)
    }

    async fn get_object(&self, request: S3Request<dto::GetObjectInput>) -> Answer<dto::GetObjectOutput> {
        objects::get(&self.store, request.input).await.map(answer)
    }

    async fn head_object(&self, request: S3Request<dto::HeadObjectInput>) -> Answer<dto::HeadObjectOutput> {
        objects::head(&self.store, request.input).map(answer)
    }

    async fn get_object_attributes(
        &self,
        request: S3Request<dto::GetObjectAttributesInput>,
    ) -> Answer<dto::GetObjectAttributesOutput> {
        objects::attributes(&self.store, &request.input).map(answer)
    }

    async fn copy_object(&self, request: S3Request<dto::CopyObjectInput>) -> Answer<dto::CopyObjectOutput> {
        let to = destination_conditions(&request)?;
        copies::copy(&self.store, request.input, to).await.map(answer)
    }

    async fn delete_object(&self, request: S3Request<dto::DeleteObjectInput>) -> Answer<dto::DeleteObjectOutput> {
        removals::delete(&self.store, request.input).map(answer)
    }

    async fn delete_objects(&self, request: S3Request<dto::DeleteObjectsInput>) -> Answer<dto::DeleteObjectsOutput> {
        removals::delete_many(&self.store, request.input).map(answer)
    }

    async fn get_object_tagging(
        &self,
        request: S3Request<dto::GetObjectTaggingInput>,
    ) -> Answer<dto::GetObjectTaggingOutput> {
        tags::get(&self.store, &request.input).map(answer)
    }

    async fn put_object_tagging(
        &self,
        request: S3Request<dto::PutObjectTaggingInput>,
    ) -> Answer<dto::PutObjectTaggingOutput> {
        tags::put(&self.store, request.input).map(answer)
    }

    async fn delete_object_tagging(
        &self,
        request: S3Request<dto::DeleteObjectTaggingInput>,
    ) -> Answer<dto::DeleteObjectTaggingOutput> {
        tags::delete(&self.store, &request.input).map(answer)
    }

    async fn get_object_acl(&self, request: S3Request<dto::GetObjectAclInput>) -> Answer<dto::GetObjectAclOutput> {
        let input = request.input;
        self.store.read(|catalog| objects::find(catalog, &input.bucket, &input.key, input.version_id.as_deref()))?;
        Ok(answer(dto::GetObjectAclOutput {
            grants: Some(buckets::grants()),
            owner: Some(buckets::owner()),
            request_charged: None,
        }))
    }

    async fn put_object_acl(&self, request: S3Request<dto::PutObjectAclInput>) -> Answer<dto::PutObjectAclOutput> {
        let input = request.input;
        self.store.read(|catalog| objects::find(catalog, &input.bucket, &input.key, input.version_id.as_deref()))?;
        buckets::put_object_acl(&input)?;
        Ok(answer(dto::PutObjectAclOutput::default()))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<dto::CreateMultipartUploadInput>,
    ) -> Answer<dto::CreateMultipartUploadOutput> {
        multipart::create(&self.store, &self.uploads, request.input).map(answer)
    }

    async fn upload_part(&self, request: S3Request<dto::UploadPartInput>) -> Answer<dto::UploadPartOutput> {
        multipart::upload_part(&self.store, &self.uploads, request).await.map(answer)
    }

    async fn upload_part_copy(
        &self,
        request: S3Request<dto::UploadPartCopyInput>,
    ) -> Answer<dto::UploadPartCopyOutput> {
        multipart::copy_part(&self.store, &self.uploads, request.input).await.map(answer)
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<dto::CompleteMultipartUploadInput>,
    ) -> Answer<dto::CompleteMultipartUploadOutput> {
        multipart::complete(&self.store, &self.uploads, request.input).map(answer)
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<dto::AbortMultipartUploadInput>,
    ) -> Answer<dto::AbortMultipartUploadOutput> {
        multipart::abort(&self.uploads, &request.input)?;
        Ok(answer(dto::AbortMultipartUploadOutput::default()))
    }

    async fn list_parts(&self, request: S3Request<dto::ListPartsInput>) -> Answer<dto::ListPartsOutput> {
        multipart::list_parts(&self.uploads, request.input).map(answer)
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<dto::ListMultipartUploadsInput>,
    ) -> Answer<dto::ListMultipartUploadsOutput> {
        multipart::list_uploads(&self.store, &self.uploads, request.input).map(answer)
    }
}
