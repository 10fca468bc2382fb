//! The S3 client against a server: what goes in comes out, byte for byte, under every odd key, and
//! conditions hold.

mod connecting;
mod credentials;
mod directory_buckets;
mod fake;
mod fault_table;
mod faults;
mod history;
mod keys;
mod objects;
mod uploads;
mod wishes;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use s3mount::bucket::attributes::Attributes;
use s3mount::bucket::client::{CONNECT_DEADLINE, ConnectSettings, Connection, StaticCredentials, connect};
use s3mount::bucket::properties::Header;
use s3mount::bucket::upload::{self, UploadSettings};
use s3mount::bucket::{
    Bucket, Condition, CopyRequest, Deletion, ETag, ListPage, ListRequest, Metadata, Properties, PutOptions,
    StorageClass,
};
use s3mount::demo::{Fault, FaultKind, Server, ServerSettings};
use s3mount::error::Kind;
use tempfile::TempDir;

const BUCKET: &str = "test-bucket";
const KEY: &str = "test-key";

/// A server of its own for each test, gone with it.
struct Place {
    server: Server,
    connection: Connection,
    prefix: &'static str,
    _data: TempDir,
}

impl Place {
    async fn new() -> Self {
        Self::with(|settings| settings).await
    }

    async fn with(change: impl Fn(ConnectSettings) -> ConnectSettings) -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        let server = ServerSettings {
            data_dir: data.path().to_owned(),
            listen: ([127, 0, 0, 1], 0).into(),
            access_key: KEY.to_owned(),
            secret_key: KEY.to_owned(),
            buckets: vec![BUCKET.to_owned()],
            latency: Duration::ZERO,
            mbps_per_connection: None,
        };
        let server = Server::start(server).await.expect("the server starts");
        let settings = change(settings(&server));
        let connection = connect(&settings).await.expect("the server answers");
        Self { server, connection, prefix: "below/", _data: data }
    }

    fn bucket(&self) -> &Arc<dyn Bucket> {
        &self.connection.bucket
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn list(&self, request: ListRequest) -> ListPage {
        let prefix = format!("{}{}", self.prefix, request.prefix);
        self.bucket().list(&ListRequest { prefix, ..request }).await.expect("a listing")
    }

    async fn put(&self, name: &str, body: &str) -> ETag {
        self.bucket()
            .put(&self.key(name), body.to_owned().into(), &PutOptions::default())
            .await
            .expect("a stored object")
    }

    fn fault(&self, operation: &str, kind: FaultKind, times: u32) {
        self.server.faults().add(Fault { times, ..Fault::once(operation, kind) });
    }
}

fn settings(server: &Server) -> ConnectSettings {
    ConnectSettings {
        endpoint_url: Some(server.endpoint_url()),
        credentials: Some(StaticCredentials { access_key: KEY.into(), secret_key: KEY.into() }),
        deadline: Duration::from_secs(20),
        ..ConnectSettings::new(BUCKET, "below/")
    }
}

fn options(condition: Condition) -> PutOptions {
    PutOptions { condition, ..PutOptions::default() }
}

fn bytes(size: usize) -> Bytes {
    (0..size).map(|index| (index % 251) as u8).collect()
}
