//! The bucket as another client sees it: the AWS SDK, one blocking call per request.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketVersioningStatus, ObjectLockConfiguration, ObjectLockEnabled, ObjectVersion, VersioningConfiguration,
};
use tokio::runtime::Runtime;

use super::servers::Endpoint;

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime")
    })
}

/// What an object is, as GET tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    pub bytes: Vec<u8>,
    pub metadata: BTreeMap<String, String>,
    pub etag: String,
    pub content_type: Option<String>,
}

/// A client of one server, and of one bucket there.
#[derive(Clone, Debug)]
pub struct Outside {
    client: Client,
    bucket: String,
}

impl Outside {
    pub fn new(endpoint: &Endpoint) -> Self {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .credentials_provider(Credentials::new(endpoint.access_key, endpoint.secret, None, None, "test"))
            .region(Region::new("us-east-1"))
            .endpoint_url(&endpoint.url)
            .force_path_style(true)
            .build();
        Self { client: Client::from_conf(config), bucket: String::new() }
    }

    pub fn with_bucket(mut self, bucket: &str) -> Self {
        bucket.clone_into(&mut self.bucket);
        self
    }

    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// True when the server answers at all.
    pub fn is_up(&self) -> bool {
        runtime().block_on(async {
            let answer = tokio::time::timeout(std::time::Duration::from_secs(2), self.client.list_buckets().send());
            matches!(answer.await, Ok(Ok(_)))
        })
    }

    pub fn create_bucket(&self, bucket: &str) {
        // It cannot have a session before it is there.
        let without_session = aws_sdk_s3::config::Builder::new().disable_s3_express_session_auth(true);
        let call = self.client.create_bucket().bucket(bucket).customize().config_override(without_session);
        let made = runtime().block_on(call.send());
        made.unwrap_or_else(|error| panic!("create bucket {bucket}: {error:?}"));
    }

    /// PUT without metadata.
    pub fn put(&self, key: &str, bytes: &[u8]) -> String {
        self.put_with(key, bytes, &[], None)
    }

    /// PUT with user metadata and content type; answers the ETag.
    pub fn put_with(&self, key: &str, bytes: &[u8], metadata: &[(&str, &str)], content_type: Option<&str>) -> String {
        let metadata: HashMap<String, String> =
            metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let call = self.client.put_object().bucket(&self.bucket).key(key).set_metadata(Some(metadata));
        let call = call.set_content_type(content_type.map(str::to_owned)).body(ByteStream::from(bytes.to_vec()));
        let done = runtime().block_on(call.send()).unwrap_or_else(|error| panic!("PUT {key:?}: {error:?}"));
        done.e_tag().unwrap_or_default().to_owned()
    }

    /// PUT with whatever the builder is given.
    pub fn put_by(&self, key: &str, bytes: &[u8], with: impl FnOnce(PutObjectFluentBuilder) -> PutObjectFluentBuilder) {
        let call = self.client.put_object().bucket(&self.bucket).key(key).body(ByteStream::from(bytes.to_vec()));
        runtime().block_on(with(call).send()).unwrap_or_else(|error| panic!("PUT {key:?}: {error:?}"));
    }

    /// What HEAD tells of an object that has to be there.
    pub fn told(&self, key: &str) -> HeadObjectOutput {
        let call = self.client.head_object().bucket(&self.bucket).key(key);
        runtime().block_on(call.send()).unwrap_or_else(|error| panic!("HEAD {key:?}: {error:?}"))
    }

    /// An object's tags, sorted.
    pub fn tags(&self, key: &str) -> Vec<(String, String)> {
        let call = self.client.get_object_tagging().bucket(&self.bucket).key(key);
        let told = runtime().block_on(call.send()).unwrap_or_else(|error| panic!("tags of {key:?}: {error:?}"));
        let mut tags: Vec<_> =
            told.tag_set().iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect();
        tags.sort();
        tags
    }

    /// From now on the bucket keeps every version.
    pub fn keep_versions(&self) {
        let enabled = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        let call = self.client.put_bucket_versioning().bucket(&self.bucket).versioning_configuration(enabled);
        runtime().block_on(call.send()).unwrap_or_else(|error| panic!("PutBucketVersioning: {error:?}"));
    }

    /// From now on versions can be locked; the bucket has to keep them.
    pub fn allow_locks(&self) {
        let enabled = ObjectLockConfiguration::builder().object_lock_enabled(ObjectLockEnabled::Enabled).build();
        let call = self.client.put_object_lock_configuration().bucket(&self.bucket);
        let done = runtime().block_on(call.object_lock_configuration(enabled).send());
        done.unwrap_or_else(|error| panic!("PutObjectLockConfiguration: {error:?}"));
    }

    /// Keys and versions of all keys that begin so, the newest of each first.
    pub fn versions(&self, prefix: &str) -> Vec<(String, String)> {
        let call = self.client.list_object_versions().bucket(&self.bucket).prefix(prefix);
        let page = runtime().block_on(call.send()).expect("ListObjectVersions");
        let named = |version: &ObjectVersion| Some((version.key()?.to_owned(), version.version_id()?.to_owned()));
        page.versions().iter().filter_map(named).collect()
    }

    /// DELETE of one version: whether it was allowed.
    pub fn delete_version(&self, key: &str, id: &str) -> bool {
        let call = self.client.delete_object().bucket(&self.bucket).key(key).version_id(id);
        runtime().block_on(call.send()).is_ok()
    }

    /// GET; `None` when there is no such object.
    pub fn get(&self, key: &str) -> Option<Object> {
        runtime().block_on(async {
            let answer = match self.client.get_object().bucket(&self.bucket).key(key).send().await {
                Ok(answer) => answer,
                Err(error) => {
                    let error = error.into_service_error();
                    assert!(error.is_no_such_key(), "GET {key:?}: {error:?}");
                    return None;
                }
            };
            let metadata = answer.metadata().map(|map| map.clone().into_iter().collect()).unwrap_or_default();
            let etag = answer.e_tag().unwrap_or_default().to_owned();
            let content_type = answer.content_type().map(str::to_owned);
            let bytes = answer.body.collect().await.expect("body of an object").to_vec();
            Some(Object { bytes, metadata, etag, content_type })
        })
    }

    /// GET of an object that has to be there.
    pub fn object(&self, key: &str) -> Object {
        self.get(key).unwrap_or_else(|| panic!("no object {key:?}; there are {:?}", self.keys("")))
    }

    /// The bytes of an object that has to be there.
    pub fn bytes(&self, key: &str) -> Vec<u8> {
        self.object(key).bytes
    }

    pub fn delete(&self, key: &str) {
        let done = runtime().block_on(self.client.delete_object().bucket(&self.bucket).key(key).send());
        done.unwrap_or_else(|error| panic!("DELETE {key:?}: {error:?}"));
    }

    /// All keys under a prefix, in the server's order; of a directory bucket, which has none, in that of keys.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let is_directory = self.bucket.ends_with("--x-s3");
        let mut keys = Vec::new();
        let mut token = None;
        loop {
            let asked = if is_directory { "" } else { prefix };
            let call = self.client.list_objects_v2().bucket(&self.bucket).prefix(asked);
            let page = runtime().block_on(call.set_continuation_token(token).send()).expect("LIST");
            keys.extend(page.contents().iter().filter_map(|object| object.key().map(str::to_owned)));
            token = page.next_continuation_token().map(str::to_owned);
            if token.is_none() {
                if is_directory {
                    keys.retain(|key| key.starts_with(prefix));
                    keys.sort();
                }
                return keys;
            }
        }
    }

    /// Begins a multipart upload that nobody completes.
    pub fn begin_upload(&self, key: &str) {
        let call = self.client.create_multipart_upload().bucket(&self.bucket).key(key);
        runtime().block_on(call.send()).unwrap_or_else(|error| panic!("upload of {key:?}: {error:?}"));
    }

    /// Keys of multipart uploads that were begun and neither completed nor aborted.
    pub fn pending_uploads(&self) -> Vec<String> {
        let call = self.client.list_multipart_uploads().bucket(&self.bucket);
        let page = runtime().block_on(call.send()).expect("ListMultipartUploads");
        page.uploads().iter().filter_map(|upload| upload.key().map(str::to_owned)).collect()
    }
}
