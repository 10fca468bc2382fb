//! From settings to a bucket that is known to answer: configuration, credentials, region, first LIST.
//!
//! Everything a user gets wrong shows here, within [`CONNECT_DEADLINE`], in words that say what to do.

mod answers;
mod clock;
mod config;
mod directory_bucket;
mod headers;
mod proxy;
mod several;
mod verify;
mod wishes;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::check_first::CheckFirst;
use super::history::History;
use super::layout::Layout;
use super::probe::{Capabilities, probe};
use super::rate::{Rate, Rates};
use super::request_log::{Counted, RequestLog};
use super::retry::{RetryPolicy, Retrying};
use super::s3::S3Bucket;
use super::{Bucket, Error, ListPage, Result};
use crate::error::Kind;
use crate::key::is_directory_bucket;
pub use proxy::Proxy;
pub use several::{Direct, connect_several};
use verify::Answer;
pub use wishes::{ClassOfKey, Encryption, Retention, Wishes};

/// [`connect`] has answered by then.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(15);
/// What an error of [`connect`] calls its operation.
pub(super) const CONNECT: &str = "Connect";
/// Default of [`ConnectSettings::deadline`].
pub const DEADLINE: Duration = Duration::from_mins(1);

/// Which bucket, where, and how patient to be.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the user's")]
pub struct ConnectSettings {
    pub bucket: String,
    /// Keys below this are used: empty, or ending in `/`.
    pub prefix: String,
    /// `http[s]://host[:port]`; `None` = AWS, or what the AWS configuration names.
    pub endpoint_url: Option<String>,
    /// `None` = what the AWS configuration names, else `us-east-1`; S3 is followed when it names another.
    pub region: Option<String>,
    pub profile: Option<String>,
    /// In the format of `~/.aws/credentials`, which it stands for; used before the environment.
    pub credentials_file: Option<PathBuf>,
    /// Use these and no chain: for the embedded server, whose key is no secret.
    pub credentials: Option<StaticCredentials>,
    /// Send requests without a signature, for public buckets.
    pub no_sign_request: bool,
    /// `http://host/bucket/key` instead of `http://bucket.host/key`; `None` = for every endpoint but AWS.
    pub force_path_style: Option<bool>,
    /// Which of S3's endpoints; `None` = as the AWS configuration says.
    pub dual_stack: Option<bool>,
    pub fips: Option<bool>,
    /// Transfer Acceleration.
    pub accelerate: bool,
    pub wishes: Wishes,
    /// Bytes in a second, on average; `None` = as fast as it goes.
    pub most_down_per_s: Option<u64>,
    pub most_up_per_s: Option<u64>,
    /// Longest time for one operation with all its retries.
    pub deadline: Duration,
    /// Longest time to open a connection.
    pub connect_timeout: Duration,
    /// How often one request is sent at most.
    pub max_attempts: u32,
    /// Nothing is ever written, not even to find out what the server can do.
    pub read_only: bool,
    /// What the server can do is not found out, whatever is written afterwards.
    pub untried: bool,
    /// Older versions are in the bucket that is given, below `.versions` of each directory.
    pub show_versions: bool,
}

impl ConnectSettings {
    /// The defaults for a bucket.
    #[must_use]
    pub fn new(bucket: &str, prefix: &str) -> Self {
        Self {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint_url: None,
            region: None,
            profile: None,
            credentials_file: None,
            credentials: None,
            no_sign_request: false,
            force_path_style: None,
            dual_stack: None,
            fips: None,
            accelerate: false,
            wishes: Wishes::default(),
            most_down_per_s: None,
            most_up_per_s: None,
            deadline: DEADLINE,
            connect_timeout: Duration::from_secs(5),
            max_attempts: 10,
            read_only: false,
            untried: false,
            show_versions: false,
        }
    }
}

/// An access key and its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct StaticCredentials {
    pub access_key: String,
    pub secret_key: String,
}

impl fmt::Debug for StaticCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StaticCredentials(…)")
    }
}

/// A bucket that answered, and what was found out about it.
#[derive(Clone, Debug)]
pub struct Connection {
    pub bucket: Arc<dyn Bucket>,
    /// For what is asked seldom, and once each time: versions, archives, settings of the bucket.
    pub direct: Direct,
    /// Of keys: which bucket they lie in.
    pub layout: Layout,
    pub requests: Arc<RequestLog>,
    /// Where requests go, e.g. `http://127.0.0.1:9000` or `https://s3.eu-west-1.amazonaws.com`; of several
    /// buckets all places, with commas between them.
    pub endpoint: String,
    /// With [`Connection::credentials`]; where each bucket is says the layout.
    pub region: String,
    /// The region that was asked first, where S3 named another.
    pub moved_from: Option<String>,
    pub capabilities: Capabilities,
    /// `None` of several buckets, whose root is in none.
    pub first_page: Option<FirstPage>,
    /// What requests are signed with, if they are.
    pub credentials: Option<aws_credential_types::provider::SharedCredentialsProvider>,
}

/// The answer that showed that the bucket can be listed: the beginning of its root.
#[derive(Clone, Debug)]
pub struct FirstPage {
    pub page: ListPage,
    /// Just before the request was sent.
    pub asked: Instant,
}

/// Builds the client and makes sure that the bucket can be listed.
///
/// # Errors
/// In the user's words, within [`CONNECT_DEADLINE`]: [`Kind::Usage`] for an impossible setting,
/// [`Kind::NoCredentials`], [`Kind::NoSuchBucket`], [`Kind::AccessDenied`] (also a wrong clock),
/// [`Kind::Unreachable`], [`Kind::Deadline`].
pub async fn connect(settings: &ConnectSettings) -> Result<Connection> {
    let connecting = connect_patiently(settings);
    tokio::time::timeout(CONNECT_DEADLINE, connecting).await.unwrap_or_else(|_| Err(too_late(settings)))
}

fn too_late(settings: &ConnectSettings) -> Error {
    let place = settings.endpoint_url.as_deref().unwrap_or("S3");
    failure(settings, Kind::Deadline, format!("{place} did not answer within {} s", CONNECT_DEADLINE.as_secs()))
}

async fn connect_patiently(settings: &ConnectSettings) -> Result<Connection> {
    let sdk = config::load(settings).await?;
    connect_with(settings, sdk, Shared::of(settings)).await
}

/// What all buckets of a mount have in common.
#[derive(Clone, Debug)]
struct Shared {
    requests: Arc<RequestLog>,
    rates: Arc<Rates>,
}

impl Shared {
    fn of(settings: &ConnectSettings) -> Self {
        let (down, up) = (settings.most_down_per_s.map(Rate::new), settings.most_up_per_s.map(Rate::new));
        Self { requests: Arc::default(), rates: Arc::new(Rates { down, up }) }
    }
}

async fn connect_with(settings: &ConnectSettings, mut sdk: config::Sdk, shared: Shared) -> Result<Connection> {
    let mut moved_from = None;
    let mut answer = verify::bucket(settings, &sdk).await?;
    if let Answer::OtherRegion(region) = answer {
        moved_from = Some(sdk.region.clone());
        sdk = sdk.in_region(region);
        answer = verify::bucket(settings, &sdk).await?;
    }
    let first_page = match answer {
        // In a directory bucket the rest may have anything: also a directory under the name of a file.
        Answer::Page(first) if first.page.next.is_none() || !is_directory_bucket(&settings.bucket) => Some(first),
        _ => None,
    };
    let bucket_of = |client| {
        let bucket = S3Bucket::new(client, &settings.bucket).within(settings.deadline);
        bucket.choosing_class(settings.wishes.storage_class.clone())
    };
    let direct = bucket_of(sdk.client());
    check_lock(settings, &direct).await?;
    // What it writes is deleted at once: under a lock it would stay.
    let unlocked = if settings.wishes.lock() { bucket_of(sdk.client_without_lock()) } else { direct.clone() };
    let tried = Counted::new(unlocked, Arc::clone(&shared.requests));
    let capabilities = find_capabilities(settings, &sdk, tried).await;
    let direct = direct.appending(capabilities.appends == Some(true));
    let bucket = if settings.show_versions {
        patient(settings, &sdk, History::over(direct.clone(), &settings.prefix), capabilities, &shared)
    } else {
        patient(settings, &sdk, direct.clone(), capabilities, &shared)
    };
    let bucket = directory_bucket::in_order(settings, bucket);
    let direct = Direct::from(direct);
    Ok(Connection {
        bucket,
        direct,
        layout: Layout::of_bucket(&settings.bucket, &sdk.region, &sdk.endpoint()).with_clock(&sdk.clock),
        requests: shared.requests,
        endpoint: sdk.endpoint(),
        moved_from,
        capabilities,
        first_page,
        credentials: sdk.credentials(),
        region: sdk.region,
    })
}

/// The proxy that [`connect`] goes through, if the environment names one.
#[must_use]
pub fn proxy_towards(settings: &ConnectSettings) -> Option<Proxy> {
    proxy::towards(&config::first_endpoint(settings))
}

/// `1 h ahead of`, `5 min behind`: what is between a clock and another.
#[must_use]
pub fn clock_in_words(ahead_s: i64) -> String {
    clock::in_words(ahead_s)
}

/// A bucket without Object Lock refuses every write that asks for one: better told now.
async fn check_lock(settings: &ConnectSettings, bucket: &S3Bucket) -> Result<()> {
    if settings.read_only
        || settings.untried
        || !settings.wishes.lock()
        || bucket.has_object_lock().await != Some(false)
    {
        return Ok(());
    }
    let told = format!(
        "bucket {} has no Object Lock, which --object-lock and --legal-hold need: switch it on, or leave them out",
        settings.bucket
    );
    Err(failure(settings, Kind::Usage, told))
}

/// What the server does, as far as it must be known before the first write.
async fn find_capabilities(settings: &ConnectSettings, sdk: &config::Sdk, wire: impl Bucket) -> Capabilities {
    let is_directory = is_directory_bucket(&settings.bucket);
    let found = match (sdk.is_aws() && !is_directory, settings.read_only || settings.untried) {
        (true, _) => Capabilities::AWS,
        (_, true) => Capabilities::default(),
        _ if is_directory => directory_bucket::tried(settings, wire).await,
        _ => probe(&wire, &settings.prefix).await,
    };
    if found.conditional_writes == Some(false) {
        tracing::warn!(
            endpoint = sdk.endpoint(),
            "the server ignores conditions of writes or copies: s3mount looks before it writes, \
             but a write of another client at the same moment can be lost"
        );
    }
    if found.conditional_deletes == Some(false) {
        tracing::warn!(
            endpoint = sdk.endpoint(),
            "the server does not heed conditions of deletions: what another client writes under a name within a second of \
             its removal here goes with it"
        );
    }
    found
}

/// The decorators: retries around what checks conditions around what counts.
fn patient(
    settings: &ConnectSettings,
    sdk: &config::Sdk,
    wire: impl Bucket,
    capabilities: Capabilities,
    shared: &Shared,
) -> Arc<dyn Bucket> {
    let policy = RetryPolicy::within(settings.deadline, settings.max_attempts);
    let (Shared { requests, rates }, identity) = (shared.clone(), sdk.identity());
    let wire = Counted::new(wire, Arc::clone(&requests));
    if capabilities.conditional_writes == Some(false) {
        Arc::new(Retrying::new(CheckFirst::new(wire), policy, requests).at_most(rates).signing_as(identity))
    } else {
        Arc::new(Retrying::new(wire, policy, requests).at_most(rates).signing_as(identity))
    }
}

/// An error of [`connect`].
fn failure(settings: &ConnectSettings, kind: Kind, cause: impl Into<String>) -> Error {
    let (key, cause) = (settings.bucket.clone(), cause.into());
    Error { kind, operation: CONNECT, key, cause, http_status: None, request_id: None }
}
