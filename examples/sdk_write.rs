//! What the AWS SDK alone reaches when it writes one object in parallel: the mark that writing through
//! a mount is held against. One part's bytes are sent over and over, each time with their CRC32C, and
//! the request signer does not hash them once more.
//!
//! `sdk_write ENDPOINT BUCKET KEY MIB [CONNECTIONS]`, with the key in `AWS_ACCESS_KEY_ID` and
//! `AWS_SECRET_ACCESS_KEY`, prints one line of JSON.

use std::error::Error;
use std::time::{Duration, Instant};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, StalledStreamProtectionConfig};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use nix::sys::resource::{UsageWho, getrusage};

const PART_BYTES: usize = 8 << 20;
const DEFAULT_CONNECTIONS: usize = 32;
const USAGE: &str = "usage: sdk_write ENDPOINT BUCKET KEY MIB [CONNECTIONS]";

struct Job {
    endpoint: String,
    bucket: String,
    key: String,
    mib: usize,
    connections: usize,
}

fn job() -> Result<Job, Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let mut word = || words.next().ok_or(USAGE);
    let (endpoint, bucket, key, mib) = (word()?, word()?, word()?, word()?.parse()?);
    let connections = words.next().map_or(Ok(DEFAULT_CONNECTIONS), |count| count.parse())?;
    Ok(Job { endpoint, bucket, key, mib, connections })
}

fn client(endpoint: &str) -> Result<Client, Box<dyn Error>> {
    let credentials = Credentials::new(
        std::env::var("AWS_ACCESS_KEY_ID")?,
        std::env::var("AWS_SECRET_ACCESS_KEY")?,
        None,
        None,
        "environment",
    );
    let config = aws_sdk_s3::config::Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .http_client(Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https())
        .credentials_provider(credentials)
        .endpoint_url(endpoint)
        .region(Region::new("us-east-1"))
        .force_path_style(true)
        // It watches every byte: what is measured is the least that writing takes.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    Ok(Client::from_conf(config.build()))
}

/// One object as it goes up.
#[derive(Clone)]
struct Upload {
    client: Client,
    bucket: String,
    key: String,
    id: String,
}

impl Upload {
    async fn begin(client: Client, bucket: String, key: String) -> Result<Self, Box<dyn Error>> {
        let call = client.create_multipart_upload().bucket(&bucket).key(&key);
        let begun = call.checksum_algorithm(ChecksumAlgorithm::Crc32C).send().await?;
        let id = begun.upload_id.ok_or("an upload without an id")?;
        Ok(Self { client, bucket, key, id })
    }

    async fn send(self, number: i32, body: Bytes) -> Result<CompletedPart, Box<dyn Error + Send + Sync>> {
        let call = self.client.upload_part().bucket(self.bucket).key(self.key).upload_id(self.id);
        let call = call.part_number(number).checksum_algorithm(ChecksumAlgorithm::Crc32C).body(ByteStream::from(body));
        let sent = call.customize().disable_payload_signing().send().await?;
        let part = CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag);
        Ok(part.set_checksum_crc32_c(sent.checksum_crc32_c).build())
    }

    async fn complete(self, mut parts: Vec<CompletedPart>) -> Result<(), Box<dyn Error>> {
        parts.sort_by_key(CompletedPart::part_number);
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let call = self.client.complete_multipart_upload().bucket(self.bucket).key(self.key).upload_id(self.id);
        call.multipart_upload(parts).send().await?;
        Ok(())
    }
}

/// Of this process so far, user and system, in microseconds.
fn cpu_micros() -> Result<i64, Box<dyn Error>> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok([usage.user_time(), usage.system_time()].iter().map(|time| time.tv_sec() * 1_000_000 + time.tv_usec()).sum())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Job { endpoint, bucket, key, mib, connections } = job()?;
    let client = client(&endpoint)?;
    let size = mib << 20;
    let piece: Bytes = (0..PART_BYTES).map(|at| ((at * 7919) >> 8) as u8).collect();
    let (begun, cpu_before) = (Instant::now(), cpu_micros()?);
    let upload = Upload::begin(client, bucket, key).await?;
    let sizes = (0..size).step_by(PART_BYTES).map(|start| PART_BYTES.min(size - start));
    let sends = (1..).zip(sizes).map(|(number, size)| tokio::spawn(upload.clone().send(number, piece.slice(..size))));
    // `map` is lazy: a part is sent off when one of the connections is free.
    let parts: Vec<CompletedPart> = stream::iter(sends)
        .buffer_unordered(connections)
        .map(|joined| joined?)
        .try_collect()
        .await
        .map_err(|error: Box<dyn Error + Send + Sync>| error.to_string())?;
    let requests = parts.len() + 2;
    upload.complete(parts).await?;
    let (elapsed, cpu) = (begun.elapsed(), Duration::from_micros((cpu_micros()? - cpu_before).unsigned_abs()));
    let figures = serde_json::json!({
        "bytes": size,
        "connections": connections,
        "requests": requests,
        "seconds": elapsed.as_secs_f64(),
        "mb_per_s": size as u128 / elapsed.as_micros().max(1),
        "cpu_s": cpu.as_secs_f64(),
    });
    println!("{figures}");
    Ok(())
}
