//! The rooms of one mount: opened in order, closed in reverse.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;

use super::deploying::HookPlace;
use super::places::Places;
use super::{Failure, Left, membership};
use crate::bucket::Bucket;
use crate::bucket::StorageClass;
use crate::bucket::client::{self, ClassOfKey, ConnectSettings, Connection, Encryption, Retention, Wishes};
use crate::bucket::request_log::{OperationCounts, RequestLog};
use crate::bucket::upload::UploadSettings;
use crate::cache::{AttributeIndex, BlockCache, CacheSettings, CacheStats, DiskCache, DiskSettings, DiskStats};
use crate::config::{Attrs, Config, Source, Sources};
use crate::error::Kind;
use crate::fs::{self, FileCounts, Fs};
use crate::hooks::{self, Deployed, Front, HookSettings, HookSpec, HooksStatus};
use crate::journal::Journal;
use crate::mount::adapter::Adapter;
use crate::mount::{self, Mounted, Requests};
use crate::relay::Relay;

/// Every failure of a start is told within 15 s, and this is where it waits.
const CONNECT_DEADLINE: Duration = Duration::from_secs(12);
/// Between two tries to store what a last close could not.
const RETRY_INTERVAL: Duration = Duration::from_secs(15);
/// Enough to fill a fast line at 20 ms to the first byte; each costs a connection.
const PARALLEL_GETS: usize = 64;
/// Largest attribute index that is taken over where there is no cache on disk; about a million names.
const LARGEST_INDEX_BYTES: u64 = 1 << 30;
/// What may wait for the disk is a part of `--memory`, within these bounds.
const LEAST_QUEUE_BYTES: u64 = 1 << 20;
const MOST_QUEUE_BYTES: u64 = 128 << 20;
/// So is what small drafts lie in; what the journal keeps of them beside it takes as much again.
const DRAFT_MEMORY_PART: u64 = 32;
const MOST_DRAFT_BYTES: u64 = 16 << 20;
/// How long the end of a mount waits for the cache on disk.
pub(super) const FLUSH_DEADLINE: Duration = Duration::from_secs(5);
/// How long hooks that run at the end may go on; the events of all others wait in the journal.
pub(super) const HOOK_GRACE: Duration = Duration::from_secs(10);

/// Finds the buckets and makes sure that they answer.
pub(super) async fn connect(config: &Config) -> Result<Connection, Failure> {
    connect_as(config, false).await
}

/// As [`connect`], without finding out what the server can do: nothing is written by that, and nothing that is
/// written later depends on it.
pub(super) async fn connect_untried(config: &Config) -> Result<Connection, Failure> {
    connect_as(config, true).await
}

async fn connect_as(config: &Config, untried: bool) -> Result<Connection, Failure> {
    let settings = |(name, source, own): (Option<&str>, &Source, &Config)| ConnectSettings {
        untried,
        ..connect_settings(own, name, source)
    };
    let connecting = async {
        match &config.sources {
            Sources::One(source) => client::connect(&settings((None, source, config))).await,
            Sources::Named(_) => {
                let named = config.each().filter_map(|each| Some((each.0?.to_owned(), settings(each))));
                let none = Source { bucket: String::new(), prefix: String::new() };
                let usual = settings((None, &none, config));
                client::connect_several(&usual, &named.collect::<Vec<_>>()).await
            }
        }
    };
    let Ok(outcome) = tokio::time::timeout(CONNECT_DEADLINE, connecting).await else {
        let places: BTreeSet<&str> =
            config.each().map(|(_, _, own)| own.endpoint_url.as_deref().unwrap_or("S3")).collect();
        let place = places.into_iter().collect::<Vec<_>>().join(", ");
        let seconds = CONNECT_DEADLINE.as_secs();
        return Err(Failure::new(Kind::Deadline, format!("{place} did not answer within {seconds} s"))
            .hint("is the endpoint right, is the network up?"));
    };
    Ok(outcome?)
}

/// What was said about a bucket, in its room's terms; `name`: of its directory, where there are several.
pub(super) fn connect_settings(config: &Config, name: Option<&str>, source: &Source) -> ConnectSettings {
    ConnectSettings {
        endpoint_url: config.endpoint_url.clone(),
        region: config.region.clone(),
        profile: config.profile.clone(),
        credentials_file: config.credentials_file.clone(),
        no_sign_request: config.no_sign_request,
        force_path_style: config.force_path_style,
        read_only: config.read_only,
        show_versions: config.show_versions,
        dual_stack: config.dual_stack,
        fips: config.fips,
        accelerate: config.accelerate,
        wishes: wishes(config, name, source),
        most_down_per_s: config.most_down_per_s,
        most_up_per_s: config.most_up_per_s,
        ..ConnectSettings::new(&source.bucket, &source.prefix)
    }
}

/// What was said about objects, in the bucket's terms.
fn wishes(config: &Config, name: Option<&str>, source: &Source) -> Wishes {
    let objects = config.objects.clone();
    let by_server = objects.sse.map(|sse| {
        let kms_key_id = objects.sse_kms_key_id.clone();
        Encryption::Server { header: sse.header(), kms_key_id }
    });
    let (requester_pays, expected_bucket_owner) = (objects.requester_pays, objects.expected_bucket_owner.clone());
    let encryption = by_server.or_else(|| objects.sse_c_key_file.clone().map(Encryption::Customer));
    let (acl, tags) = (objects.acl.clone(), objects.tags.clone());
    let retention = objects.object_lock.map(|(mode, span)| Retention { mode, span });
    let legal_hold = objects.legal_hold;
    let (prefix, above) = (source.prefix.clone(), name.map(|name| format!("{name}/")).unwrap_or_default());
    let class = move |key: &str| {
        // A directory's marker has no bytes; the cheaper classes bill it as 128 KiB.
        let below = key.strip_prefix(&prefix).filter(|path| !path.ends_with('/') && !path.is_empty())?;
        Some(StorageClass::from(objects.storage_class(&format!("{above}{below}"))?.to_owned()))
    };
    let storage_class = Some(ClassOfKey(Arc::new(class)));
    Wishes { requester_pays, expected_bucket_owner, encryption, acl, tags, retention, legal_hold, storage_class }
}

fn attrs(said: Attrs) -> fs::Attrs {
    match said {
        Attrs::Auto => fs::Attrs::Auto,
        Attrs::Full => fs::Attrs::Full,
        Attrs::List => fs::Attrs::List,
    }
}

/// What serves a mounted bucket.
pub(super) struct Rooms {
    /// Of keys: what the root directory stands for.
    pub(super) prefix: String,
    /// What `cache warm` may hold at a time.
    pub(super) warm_bytes: u64,
    pub(super) connection: Connection,
    cache: Arc<BlockCache>,
    pub(super) disk: Option<Arc<DiskCache>>,
    journal: Arc<Journal>,
    pub(super) fs: Arc<Fs>,
    /// What the kernel has asked.
    asked: Arc<Requests>,
    /// Until the end, in a write-back mount.
    uploader: Mutex<Option<fs::Uploader>>,
    pub(super) hooks: HookPlace,
}

/// What is counted of requests to S3.
pub(super) struct RequestCounts {
    pub(super) operations: Vec<OperationCounts>,
    pub(super) failures: Vec<(Kind, u64)>,
    pub(super) in_flight: u64,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
}

impl RequestCounts {
    pub(super) fn of(requests: &RequestLog) -> Self {
        Self {
            operations: requests.operations(),
            failures: requests.failures_for_good(),
            in_flight: requests.in_flight(),
            bytes_sent: requests.bytes_sent(),
            bytes_received: requests.bytes_received(),
        }
    }
}

/// What each room counts.
pub(super) struct Counts {
    pub(super) requests: RequestCounts,
    pub(super) cache: CacheStats,
    /// `None` without a cache on disk.
    pub(super) disk: Option<DiskStats>,
    pub(super) files: FileCounts,
    pub(super) asked: Vec<(&'static str, u64)>,
    pub(super) answered_errors: Vec<(String, u64)>,
    /// `None` without hooks.
    pub(super) hooks: Option<HooksStatus>,
}

/// What each room tells of itself.
pub(super) struct Parts {
    pub(super) cache: Value,
    pub(super) disk: Value,
    pub(super) files: Value,
    pub(super) hooks: Value,
}

impl Rooms {
    /// Opens the rooms and brings what the last mount left to its end, before anything is served.
    /// With hooks this can take as long as compiling them.
    pub(super) async fn open(
        config: &Config,
        places: &Places,
        mut connection: Connection,
        specs: Option<Vec<HookSpec>>,
    ) -> Result<Self, Failure> {
        let disk = open_disk(config, &connection);
        let (memory_bytes, draft_memory_bytes) = shares_of_memory(config, disk.as_deref());
        let settings = CacheSettings { memory_bytes, max_parallel_gets: PARALLEL_GETS };
        let views = hooks::Views::over(Arc::clone(&connection.bucket));
        let bucket: Arc<dyn Bucket> = views.clone();
        let cache = match &disk {
            Some(disk) => BlockCache::with_disk(bucket, settings, Arc::clone(disk)),
            None => BlockCache::new(bucket, settings),
        };
        let journal = Journal::open(&places.state)?;
        let index = open_index(places, &connection, &journal, disk.as_deref())?;
        let deployed = Deployed::new(&places.state, &config.sources.bucket_name(), config.hooks.as_deref());
        let specs = tokio::task::block_in_place(|| deployed.at_start(specs))?;
        let settings = fs::Settings {
            root_prefix: config.sources.root_prefix().to_owned(),
            layout: connection.layout.clone(),
            uid: config.uid,
            gid: config.gid,
            umask: config.umask,
            read_only: config.read_only,
            attr_ttl: config.attr_ttl,
            list_ttl: config.list_ttl,
            negative_ttl: config.negative_ttl,
            attrs: attrs(config.attrs),
            list_checksums: connection.capabilities.list_checksums,
            heeds_conditions: connection.capabilities.conditional_writes == Some(true),
            draft_dir: places.state.join("drafts"),
            draft_memory_bytes,
            events: specs.is_some(),
            write_back: config.write_back.then(fs::BacklogLimits::default),
            attributes_wait: true,
            show_versions: config.show_versions,
            upload: UploadSettings { memory: Some(cache.clone()), ..UploadSettings::default() },
        };
        let fs = Fs::new(views.clone(), Arc::clone(&cache), index, Arc::clone(&journal), settings);
        let hooks = HookPlace::new(hook_settings(config, places, &connection, &fs), deployed, (&fs, &views), &journal);
        if let Some(specs) = specs {
            // Before what was left is sent: nothing gets past a hook that may forbid it.
            hooks.open(specs)?;
        }
        let report = recover(&fs).await?;
        if let Some(first) = connection.first_page.take() {
            fs.hint_root(first.page, first.asked, &report);
        }
        let uploader = fs.start_uploader();
        if !config.write_back {
            keep_storing(&fs);
        }
        if let Some(after) = config.flush_open_after {
            fs.keep_storing_open_files(after);
        }
        cache.keep_mending();
        if let Some(disk) = disk.as_ref().filter(|_| nix::unistd::geteuid().is_root()) {
            // Only the kernel's own reads want that beforehand.
            disk.verify_recent();
        }
        // What recovery has hidden and settled is seen as it is now.
        hooks.begin();
        let (prefix, warm_bytes) = (config.sources.root_prefix().to_owned(), config.memory_bytes / 8);
        let uploader = Mutex::new(Some(uploader));
        Ok(Self { prefix, warm_bytes, connection, cache, disk, journal, fs, asked: Arc::default(), uploader, hooks })
    }

    /// The file system as the kernel wants it. Needs the runtime.
    pub(super) fn adapter(&self) -> Adapter {
        Adapter::new(Arc::clone(&self.fs), tokio::runtime::Handle::current(), Arc::clone(&self.asked))
    }

    /// From now on the kernel is told what changes.
    pub(super) fn attach(&self, mounted: &Mounted) -> mount::Result<()> {
        mounted.attach(&self.fs)
    }

    /// How many files S3 does not have yet.
    pub(super) fn dirty_files(&self) -> u64 {
        self.fs.count_unstored() as u64
    }

    /// Stores what is dirty; returns what could not be stored in time.
    pub(super) async fn drain(&self, deadline: Duration) -> Vec<Left> {
        let undrained = self.fs.drain(deadline).await;
        undrained.into_iter().map(|file| Left { path: file.path, cause: file.cause }).collect()
    }

    /// Stores what was closed; returns what could not be stored, or not in time.
    pub(super) async fn sync(&self, deadline: Option<Duration>) -> Vec<Left> {
        let unstored = self.fs.sync(deadline).await;
        unstored.into_iter().map(|file| Left { path: file.path, cause: file.cause }).collect()
    }

    /// Ends the hooks and leaves everything in order on the local disk.
    pub(super) async fn close(&self) {
        let uploader = self.uploader.lock().take();
        if let Some(uploader) = uploader {
            uploader.stop().await;
            tracing::debug!("uploader stopped");
        }
        if let Some(hooks) = self.hooks.running() {
            hooks.stop(HOOK_GRACE).await;
            tracing::debug!("hooks stopped");
        }
        self.fs.stop_removals().await;
        if let Err(error) = self.journal.close().await {
            tracing::error!("{error}");
        }
        if let Some(disk) = self.disk.clone() {
            // What is not written by then is fetched again some day.
            let _ = tokio::time::timeout(FLUSH_DEADLINE, tokio::task::spawn_blocking(move || disk.flush())).await;
        }
    }

    /// All that is counted, for the metrics. Takes locks and reads the journal.
    pub(super) fn counts(&self) -> Counts {
        Counts {
            requests: RequestCounts::of(&self.connection.requests),
            cache: self.cache.stats(),
            disk: self.disk.as_ref().map(|disk| disk.stats()),
            files: self.fs.counts(),
            asked: self.asked.by_operation(),
            answered_errors: self.asked.errors(),
            hooks: self.hooks.running().map(|hooks| hooks.status()),
        }
    }

    /// The parts of a status that the rooms know.
    pub(super) fn status(&self) -> Parts {
        let value = |part: serde_json::Result<Value>| part.expect("numbers and names are JSON");
        Parts {
            cache: value(serde_json::to_value(self.cache.stats())),
            disk: self.disk.as_ref().map_or(Value::Null, |disk| {
                let mut told = value(serde_json::to_value(disk.stats()));
                told["directory"] = disk.directory().to_string_lossy().into();
                told
            }),
            files: value(serde_json::to_value(self.fs.status())),
            hooks: value(serde_json::to_value(self.hooks.running().map(|hooks| hooks.status()))),
        }
    }
}

/// What a last close could not store is tried again until it succeeds or the mount ends.
fn keep_storing(fs: &Arc<Fs>) {
    let fs = Arc::downgrade(fs);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(RETRY_INTERVAL).await;
            let Some(fs) = fs.upgrade() else { return };
            fs.retry_unstored().await;
        }
    });
}

/// The cache on disk. A mount that cannot have one is slower, and says why.
fn open_disk(config: &Config, connection: &Connection) -> Option<Arc<DiskCache>> {
    if config.cache_bytes == Some(0) {
        return None;
    }
    let settings = DiskSettings {
        directory: config.cache_dir.clone(),
        limit_bytes: config.cache_bytes,
        layout: connection.layout.clone(),
        queue_bytes: (config.memory_bytes / 16).clamp(LEAST_QUEUE_BYTES, MOST_QUEUE_BYTES),
    };
    DiskCache::open(settings).inspect_err(|error| tracing::warn!("nothing is cached on disk: {error}")).ok()
}

/// What is known of objects, as far as it is of these buckets still.
fn open_index(
    places: &Places,
    connection: &Connection,
    journal: &Journal,
    disk: Option<&DiskCache>,
) -> Result<Arc<AttributeIndex>, Failure> {
    let path = places.cache.join("attributes.redb");
    membership::check(&places.state, &connection.layout, journal, &path)?;
    forget_above(&path, disk.map_or(LARGEST_INDEX_BYTES, |disk| disk.stats().limit_bytes / 2));
    Ok(AttributeIndex::open(&path)?)
}

/// Of `--memory`: what blocks and parts have, and what drafts have. The rest waits for the disk.
fn shares_of_memory(config: &Config, disk: Option<&DiskCache>) -> (u64, u64) {
    let waiting_for_disk = disk.map_or(0, DiskCache::most_waiting_bytes);
    let drafts = (config.memory_bytes / DRAFT_MEMORY_PART).min(MOST_DRAFT_BYTES);
    (config.memory_bytes - waiting_for_disk - drafts, drafts)
}

/// Deletes a cache file that has outgrown its limit: it fills again with what is used.
fn forget_above(path: &Path, limit_bytes: u64) {
    if std::fs::metadata(path).is_ok_and(|found| found.len() > limit_bytes) {
        tracing::info!(path = %path.display(), limit_bytes, "the attribute index is above --cache-size: starting anew");
        let _ = std::fs::remove_file(path);
    }
}

/// Takes away drafts that nobody answers for, so it must come before anything is served.
async fn recover(fs: &Fs) -> Result<fs::RecoveryReport, Failure> {
    let report = fs
        .recover()
        .await
        .map_err(|error| Failure::new(Kind::Local, format!("cannot resume what the last mount left: {error}")))?;
    if report != fs::RecoveryReport::default() {
        let fs::RecoveryReport { finished, dropped, conflicts, waiting, left } = report;
        tracing::info!(finished, dropped, conflicts, waiting, left, "resumed what the last mount left");
    }
    Ok(report)
}

/// The file system that shows what hooks do in the bucket. It holds the hooks, to ask them.
struct ShownBy(Weak<Fs>);

#[async_trait]
impl Front for ShownBy {
    async fn before_deletion(&self, key: &str) {
        if let Some(fs) = self.0.upgrade() {
            fs.keep_directory_of(key).await;
        }
    }

    fn changed(&self, key: &str) {
        if let Some(fs) = self.0.upgrade() {
            fs.forget_key(key);
        }
    }
}

fn hook_settings(config: &Config, places: &Places, connection: &Connection, fs: &Arc<Fs>) -> HookSettings {
    HookSettings {
        prefix: config.sources.root_prefix().to_owned(),
        mountpoint: Some(config.mountpoint.clone()),
        front: Arc::new(ShownBy(Arc::downgrade(fs))),
        relay: Arc::new(Relay::new(connection.credentials.clone(), &connection.region)),
        ..HookSettings::new(Vec::new(), connection.layout.clone(), &places.state)
    }
}

impl From<crate::bucket::Error> for Failure {
    fn from(error: crate::bucket::Error) -> Self {
        // What `connect` says is meant for the user already; requests name themselves.
        let message = if error.operation == "Connect" { error.cause.clone() } else { error.to_string() };
        let failure = Self::new(error.kind, message);
        if let Some(hint) = error.hint() { failure.hint(hint) } else { failure }
    }
}

impl From<hooks::Error> for Failure {
    fn from(error: hooks::Error) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

impl From<crate::cache::Error> for Failure {
    fn from(error: crate::cache::Error) -> Self {
        Self::new(error.kind(), error.to_string()).hint("choose another place with --cache-dir")
    }
}

impl From<crate::journal::Error> for Failure {
    fn from(error: crate::journal::Error) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}
