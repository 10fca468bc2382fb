//! What the AWS SDK alone reaches when it reads one object in parallel: the mark that reading
//! through a mount is held against. Bytes are thrown away as they come.
//!
//! `sdk_read ENDPOINT BUCKET KEY [CONNECTIONS]`, with the key in `AWS_ACCESS_KEY_ID` and
//! `AWS_SECRET_ACCESS_KEY`, prints one line of JSON.

use std::error::Error;
use std::ops::Range;
use std::time::{Duration, Instant};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use futures::stream::{self, StreamExt, TryStreamExt};
use nix::sys::resource::{UsageWho, getrusage};

const RANGE_BYTES: u64 = 8 << 20;
const DEFAULT_CONNECTIONS: usize = 32;
const USAGE: &str = "usage: sdk_read ENDPOINT BUCKET KEY [CONNECTIONS]";

struct Job {
    endpoint: String,
    bucket: String,
    key: String,
    connections: usize,
}

fn job() -> Result<Job, Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let mut word = || words.next().ok_or(USAGE);
    let (endpoint, bucket, key) = (word()?, word()?, word()?);
    let connections = words.next().map_or(Ok(DEFAULT_CONNECTIONS), |count| count.parse())?;
    Ok(Job { endpoint, bucket, key, connections })
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
        // Both watch or hash every byte: what is measured is the least that reading takes.
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    Ok(Client::from_conf(config.build()))
}

/// Reads a range to its end; how many bytes came.
async fn read(
    client: Client,
    bucket: String,
    key: String,
    range: Range<u64>,
) -> Result<u64, Box<dyn Error + Send + Sync>> {
    let header = format!("bytes={}-{}", range.start, range.end - 1);
    let mut body = client.get_object().bucket(bucket).key(key).range(header).send().await?.body;
    let mut bytes = 0;
    while let Some(frame) = body.try_next().await? {
        bytes += frame.len() as u64;
    }
    Ok(bytes)
}

/// Of this process so far, user and system, in microseconds.
fn cpu_micros() -> Result<i64, Box<dyn Error>> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok([usage.user_time(), usage.system_time()].iter().map(|time| time.tv_sec() * 1_000_000 + time.tv_usec()).sum())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Job { endpoint, bucket, key, connections } = job()?;
    let client = client(&endpoint)?;
    let head = client.head_object().bucket(&bucket).key(&key).send().await?;
    let size = u64::try_from(head.content_length().unwrap_or_default())?;
    let (begun, cpu_before) = (Instant::now(), cpu_micros()?);
    let ranges = (0..size).step_by(RANGE_BYTES as usize).map(|start| start..(start + RANGE_BYTES).min(size));
    let reads = ranges.map(|range| tokio::spawn(read(client.clone(), bucket.clone(), key.clone(), range)));
    // `map` is lazy: a range is sent off when one of the connections is free.
    let counts: Vec<u64> = stream::iter(reads)
        .buffer_unordered(connections)
        .map(|joined| joined?)
        .try_collect()
        .await
        .map_err(|error: Box<dyn Error + Send + Sync>| error.to_string())?;
    let (elapsed, cpu) = (begun.elapsed(), Duration::from_micros((cpu_micros()? - cpu_before).unsigned_abs()));
    let bytes: u64 = counts.iter().sum();
    if bytes != size {
        return Err(format!("{bytes} of {size} bytes came").into());
    }
    let figures = serde_json::json!({
        "bytes": bytes,
        "connections": connections,
        "requests": counts.len(),
        "seconds": elapsed.as_secs_f64(),
        "mb_per_s": u128::from(bytes) / elapsed.as_micros().max(1),
        "cpu_s": cpu.as_secs_f64(),
    });
    println!("{figures}");
    Ok(())
}
