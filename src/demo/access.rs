//! Who may come in (one pair of keys), and what they may ask for.
//!
//! `s3s` takes query parameters that it does not know for none: `PUT /b/k?renameObject` would be a
//! plain PUT that overwrites the destination. So every operation lists the parameters it has here,
//! and anything else is 501.

use std::sync::Arc;

use async_trait::async_trait;
use hyper::Uri;
use parking_lot::RwLock;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey, SimpleAuth};
use s3s::{S3Result, s3_error};

use super::directory_buckets;
use super::exchange::Exchange;
use super::sessions::SESSION_KEYS;

/// Parameters that any operation may have: the SDKs' name tag and signatures in the URL.
const COMMON: [&str; 4] = ["x-id", "AWSAccessKeyId", "Signature", "Expires"];

/// The one pair of keys, which can be replaced by another.
#[derive(Clone, Debug)]
pub(super) struct Keys(Arc<RwLock<SimpleAuth>>);

impl Keys {
    /// This pair.
    pub fn new(access_key: String, secret_key: String) -> Self {
        Self(Arc::new(RwLock::new(with_session(access_key, secret_key))))
    }

    /// From now on this pair, and no other.
    pub fn replace(&self, access_key: String, secret_key: String) {
        *self.0.write() = with_session(access_key, secret_key);
    }

    /// The secret that belongs to a key.
    pub fn secret_of(&self, access_key: &str) -> Option<String> {
        self.0.read().lookup(access_key).map(|secret| secret.expose().to_owned())
    }
}

/// The pair, and that of its sessions.
fn with_session(access_key: String, secret_key: String) -> SimpleAuth {
    let mut pairs = SimpleAuth::from_single(format!("{access_key}{SESSION_KEYS}"), secret_key.clone());
    pairs.register(access_key, secret_key.into());
    pairs
}

#[async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let known = self.0.read().lookup(access_key).cloned();
        known.ok_or_else(|| s3_error!(InvalidAccessKeyId, "The access key is not known here."))
    }
}

/// The gate that every request goes through once its signature is known to be right or missing.
#[derive(Debug)]
pub(super) struct Gate;

#[async_trait]
impl S3Access for Gate {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let bucket = context.s3_path().get_bucket_name().unwrap_or_default().to_owned();
        let key = context.s3_path().get_object_key().unwrap_or_default().to_owned();
        // `s3s` takes it for a PUT.
        let is_rename = directory_buckets::is_rename(&bucket, context.uri());
        let operation = if is_rename { "RenameObject" } else { context.s3_op().name() }.to_owned();
        let exchange = context.extensions_mut().get::<Arc<Exchange>>().cloned();
        if let Some(exchange) = &exchange {
            exchange.name(operation.clone(), bucket.clone(), key);
        }
        if context.credentials().is_none() {
            return Err(s3_error!(AccessDenied, "Signature is required"));
        }
        if let Some(error) = exchange.and_then(|exchange| exchange.fault()?.error()) {
            return Err(error);
        }
        if directory_buckets::is_one(&bucket) {
            let access_key = context.credentials().map(|keys| keys.access_key.as_str()).unwrap_or_default();
            directory_buckets::check(
                &operation,
                access_key,
                context.headers(),
                context.uri().query().unwrap_or_default(),
            )?;
        }
        check_parameters(&operation, context.uri())
    }
}

fn check_parameters(operation: &str, uri: &Uri) -> S3Result<()> {
    let Some(known) = parameters(operation) else {
        return Err(s3_error!(NotImplemented, "The demo server has no {operation}."));
    };
    let names = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    for name in names.map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name)) {
        let is_common = COMMON.contains(&name) || name.to_ascii_lowercase().starts_with("x-amz-");
        if !is_common && !known.contains(&name) {
            return Err(s3_error!(NotImplemented, "The demo server has no {operation} with {name:?}."));
        }
    }
    Ok(())
}

/// The query parameters of each operation that is built; `None` for any other operation.
fn parameters(operation: &str) -> Option<&'static [&'static str]> {
    Some(match operation {
        "ListBuckets" => &["prefix", "max-buckets", "continuation-token", "bucket-region"],
        "CreateBucket" | "HeadBucket" | "DeleteBucket" | "PutObject" | "CopyObject" => &[],
        "CreateSession" => &["session"],
        "RenameObject" => &["renameObject"],
        "GetBucketLocation" => &["location"],
        "GetBucketVersioning" | "PutBucketVersioning" => &["versioning"],
        "GetBucketNotificationConfiguration" | "PutBucketNotificationConfiguration" => &["notification"],
        "ListObjects" => &["prefix", "delimiter", "marker", "max-keys", "encoding-type"],
        "ListObjectsV2" => &[
            "list-type",
            "prefix",
            "delimiter",
            "max-keys",
            "encoding-type",
            "continuation-token",
            "start-after",
            "fetch-owner",
        ],
        "ListObjectVersions" => {
            &["versions", "prefix", "delimiter", "max-keys", "encoding-type", "key-marker", "version-id-marker"]
        }
        "ListMultipartUploads" => {
            &["uploads", "prefix", "delimiter", "max-uploads", "encoding-type", "key-marker", "upload-id-marker"]
        }
        "DeleteObjects" => &["delete"],
        "GetObject" | "HeadObject" => &[
            "versionId",
            "partNumber",
            "response-cache-control",
            "response-content-disposition",
            "response-content-encoding",
            "response-content-language",
            "response-content-type",
            "response-expires",
        ],
        "DeleteObject" => &["versionId"],
        "GetObjectAttributes" => &["attributes", "versionId"],
        "GetObjectTagging" | "PutObjectTagging" | "DeleteObjectTagging" => &["tagging", "versionId"],
        "GetObjectAcl" | "PutObjectAcl" => &["acl", "versionId"],
        "CreateMultipartUpload" => &["uploads"],
        "UploadPart" | "UploadPartCopy" => &["partNumber", "uploadId"],
        "CompleteMultipartUpload" | "AbortMultipartUpload" => &["uploadId"],
        "ListParts" => &["uploadId", "max-parts", "part-number-marker"],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(operation: &str, uri: &str) -> Option<u16> {
        let error = check_parameters(operation, &uri.parse().unwrap()).err()?;
        error.status_code().map(|status| status.as_u16())
    }

    #[test]
    fn sub_resources_that_are_not_built_are_501() {
        assert_eq!(status("PutObject", "/b/k?renameObject"), Some(501));
        assert_eq!(status("PutObject", "/b/k?attributes"), Some(501));
        assert_eq!(status("GetObject", "/b/k?torrent&x-id=GetObject"), Some(501));
        assert_eq!(status("GetBucketPolicy", "/b?policy"), Some(501));
        assert_eq!(status("PostObject", "/b"), Some(501));
    }

    #[test]
    fn parameters_of_the_operation_and_of_signatures_pass() {
        assert_eq!(status("GetObject", "/b/k?versionId=1&x-id=GetObject"), None);
        assert_eq!(status("GetObject", "/b/k?X-Amz-Signature=0&X-Amz-Expires=60"), None);
        assert_eq!(status("ListObjectsV2", "/b?list-type=2&prefix=a%26b"), None);
    }
}
