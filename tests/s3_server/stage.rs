//! A server in this process on a free port, with a bucket, a client, and a directory of its own.

use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use s3mount::demo::{Server, ServerSettings};
use tempfile::TempDir;

/// The bucket of every stage.
pub const BUCKET: &str = "bucket";
/// How long a client waits for an answer before it gives up: long, for slow and busy machines.
const CLIENT_DEADLINE: Duration = Duration::from_mins(1);

/// A server and its client. Everything goes away with it, also when a test fails.
pub struct Stage {
    pub server: Server,
    pub client: Client,
    pub dir: TempDir,
}

impl Stage {
    /// A server as fast as it goes.
    pub async fn new() -> Self {
        Self::with(Duration::ZERO, None).await
    }

    /// A server with latency and link speed.
    pub async fn with(latency: Duration, mbps_per_connection: Option<u32>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server =
            Server::start(ServerSettings { latency, mbps_per_connection, ..settings(dir.path()) }).await.unwrap();
        Self { client: client(&server.endpoint_url(), "secret"), server, dir }
    }

    /// Drops the server in the middle of whatever it does, and starts another on its directory.
    pub async fn restart_abruptly(self) -> Self {
        drop(self.server);
        let server = Server::start(settings(self.dir.path())).await.unwrap();
        Self { client: client(&server.endpoint_url(), "secret"), server, dir: self.dir }
    }

    pub async fn put(&self, key: &str, body: impl Into<Vec<u8>>) -> String {
        let body = ByteStream::from(body.into());
        let put = self.client.put_object().bucket(BUCKET).key(key).body(body).send().await.unwrap();
        put.e_tag.unwrap()
    }

    pub async fn get(&self, key: &str) -> Option<Vec<u8>> {
        match self.client.get_object().bucket(BUCKET).key(key).send().await {
            Ok(got) => Some(got.body.collect().await.unwrap().to_vec()),
            Err(error) => {
                assert_eq!(answer_to(&error), (404, "NoSuchKey"));
                None
            }
        }
    }

    pub async fn keys(&self) -> Vec<String> {
        let pages = self.client.list_objects_v2().bucket(BUCKET).into_paginator().send();
        let pages: Vec<ListObjectsV2Output> = pages.try_collect().await.unwrap();
        pages.iter().flat_map(ListObjectsV2Output::contents).map(|object| object.key().unwrap().to_owned()).collect()
    }

    /// Files that hold bytes of objects and parts.
    pub fn body_files(&self) -> usize {
        let shards = std::fs::read_dir(self.dir.path().join("bodies")).unwrap();
        shards.map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap().count()).sum()
    }

    /// Waits until just so many body files are left: they are deleted behind the answers.
    pub async fn await_body_files(&self, want: usize) {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while self.body_files() != want {
            assert!(std::time::Instant::now() < deadline, "{} body files, wanted {want}", self.body_files());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Settings for a server on a free port of this machine.
pub fn settings(data_dir: &Path) -> ServerSettings {
    ServerSettings {
        data_dir: data_dir.to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        access_key: "key".into(),
        secret_key: "secret".into(),
        buckets: vec![BUCKET.into()],
        latency: Duration::ZERO,
        mbps_per_connection: None,
    }
}

/// A client that asks once, and neither adds checksums nor asks for them on its own.
pub fn client(endpoint_url: &str, secret_key: &str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint_url)
        .force_path_style(true)
        .credentials_provider(Credentials::new("key", secret_key, None, None, "test"))
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_timeout(CLIENT_DEADLINE).build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    Client::from_conf(config)
}

/// Status and code of a refusal.
pub fn answer_to<E: ProvideErrorMetadata + Debug>(error: &SdkError<E, HttpResponse>) -> (u16, &str) {
    let status = error.raw_response().unwrap_or_else(|| panic!("no answer: {error:?}")).status().as_u16();
    (status, error.code().unwrap_or(""))
}

/// Whether there was no answer at all: the connection broke.
pub fn is_broken<E>(error: &SdkError<E, HttpResponse>) -> bool {
    matches!(error, SdkError::DispatchFailure(failure) if failure.is_io() || failure.is_other())
}

/// Bytes that are not all alike.
pub fn bytes(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}
