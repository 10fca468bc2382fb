//! Flags + environment + file → one validated [`Config`]. Read by `app` alone: each room gets its
//! own small settings. Every default of an option stands here, once.

mod buckets;
mod collector;
mod directory_bucket;
mod memory;
mod objects;
mod options;
mod source;
mod sources;
mod units;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use buckets::BucketOptions;
pub use collector::Collector;
pub use memory::bytes_there_are as memory_bytes_there_are;
pub use objects::{Objects, Sse};
pub use options::{Attrs, Options};
pub use source::Source;
pub use sources::Sources;
pub use units::{Size, Span, Umask, Words};

use crate::telemetry;

const DEFAULT_UMASK: u16 = 0o022;
const DEFAULT_ATTR_TTL: Duration = Duration::from_secs(1);
const DEFAULT_LIST_TTL: Duration = Duration::from_secs(5);
const DEFAULT_NEGATIVE_TTL: Duration = Duration::from_secs(1);
/// Below this a single read-ahead does not fit.
const LEAST_MEMORY_BYTES: u64 = 16 << 20;
/// How long is waited for a server that answers nothing, at start.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// What is wrong with the user's input, in a sentence, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub message: String,
    pub hint: Option<String>,
}

impl Error {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()) }
    }
}

/// Everything a mount needs to know; checked, with defaults filled in.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the user's")]
pub struct Config {
    pub sources: Sources,
    /// Of several buckets: what holds for each, by the name of its directory. Only what is said of requests and
    /// objects can differ.
    pub buckets: BTreeMap<String, Self>,
    /// Absolute; not yet looked at.
    pub mountpoint: PathBuf,
    pub endpoint_url: Option<String>,
    pub region: Option<String>,
    pub profile: Option<String>,
    /// Absolute; used before the environment and `~/.aws/credentials`.
    pub credentials_file: Option<PathBuf>,
    pub no_sign_request: bool,
    /// `None`: as the endpoint needs it.
    pub force_path_style: Option<bool>,
    /// Which of S3's endpoints; `None`: as the AWS configuration says.
    pub dual_stack: Option<bool>,
    pub fips: Option<bool>,
    pub accelerate: bool,
    /// Bytes in a second; `None`: as fast as it goes.
    pub most_down_per_s: Option<u64>,
    pub most_up_per_s: Option<u64>,
    pub objects: Objects,
    pub read_only: bool,
    pub show_versions: bool,
    pub allow_other: bool,
    pub no_exec: bool,
    pub uid: u32,
    pub gid: u32,
    pub umask: u16,
    pub attr_ttl: Duration,
    pub list_ttl: Duration,
    pub negative_ttl: Duration,
    pub attrs: Attrs,
    pub write_back: bool,
    /// `None`: only a close, fsync or sync stores a file.
    pub flush_open_after: Option<Duration>,
    pub hooks: Option<PathBuf>,
    /// An address of the loopback.
    pub lambda_listen: Option<SocketAddr>,
    /// The file that options were read from: must not lie on the mount.
    pub file: Option<PathBuf>,
    pub cache_dir: PathBuf,
    /// `None`: as much as the file system can spare; 0: nothing but attributes is kept there.
    pub cache_bytes: Option<u64>,
    pub state_dir: PathBuf,
    pub memory_bytes: u64,
    pub log: telemetry::Settings,
    /// Any address: whoever scrapes is seldom on the same machine.
    pub metrics_listen: Option<SocketAddr>,
    /// `None`: nobody is told by himself.
    pub collector: Option<Collector>,
}

impl Config {
    /// As [`Config::resolve`], for a command that mounts nothing.
    ///
    /// # Errors
    /// As there.
    pub fn of_bucket(source: &str, said: Options, file: Option<&Path>) -> Result<Self, Error> {
        Self::resolve(Options { bucket: Some(source.to_owned()), mountpoint: Some("/".into()), ..said }, file)
    }

    /// As [`Config::of_bucket`], of what a file of options names: a bucket, or several.
    ///
    /// # Errors
    /// As there.
    pub fn of_file(said: Options, file: &Path) -> Result<Self, Error> {
        Self::resolve(Options { mountpoint: Some("/".into()), ..said }, Some(file))
    }

    /// Whether a file of options names a bucket.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn names_bucket(file: &Path) -> Result<bool, Error> {
        let options = read_file(file)?;
        Ok(options.bucket.is_some() || options.buckets.is_some())
    }

    /// Puts together what the command line and environment say (`said`) and the file (`file`).
    ///
    /// # Errors
    /// What is wrong with the file or with a value.
    pub fn resolve(said: Options, file: Option<&Path>) -> Result<Self, Error> {
        let options = match file {
            Some(path) => said.or_file(read_file(path)?),
            None => said,
        };
        let sources = buckets::sources(&options)?;
        let buckets = buckets::each(&sources, &options, file)?;
        Self { buckets, ..Self::of(options, sources, file)? }.checked()
    }

    /// Each option by itself, for all of `sources`.
    fn of(options: Options, sources: Sources, file: Option<&Path>) -> Result<Self, Error> {
        let dirs = Dirs::of_this_user();
        let objects = Objects::of(&options)?;
        let collector = Collector::of(&options)?;
        Ok(Self {
            sources,
            buckets: BTreeMap::new(),
            mountpoint: absolute(&options.mountpoint.ok_or_else(|| not_named("mountpoint", "a directory"))?)?,
            endpoint_url: options.endpoint_url.map(checked_url).transpose()?,
            region: options.region,
            profile: options.profile,
            credentials_file: options.credentials_file.as_deref().map(absolute).transpose()?,
            no_sign_request: options.no_sign_request.unwrap_or(false),
            force_path_style: options.force_path_style,
            dual_stack: options.dual_stack,
            fips: options.fips,
            accelerate: options.accelerate.unwrap_or(false),
            most_down_per_s: options.max_download.map(|size| size.0).filter(|bytes| *bytes > 0),
            most_up_per_s: options.max_upload.map(|size| size.0).filter(|bytes| *bytes > 0),
            objects,
            read_only: options.read_only.unwrap_or(false),
            show_versions: options.show_versions.unwrap_or(false),
            allow_other: options.allow_other.unwrap_or(false),
            no_exec: options.no_exec.unwrap_or(false),
            uid: options.uid.unwrap_or_else(|| nix::unistd::getuid().as_raw()),
            gid: options.gid.unwrap_or_else(|| nix::unistd::getgid().as_raw()),
            umask: options.umask.map_or(DEFAULT_UMASK, |umask| umask.0),
            attr_ttl: options.attr_ttl.map_or(DEFAULT_ATTR_TTL, |span| span.0),
            list_ttl: options.list_ttl.map_or(DEFAULT_LIST_TTL, |span| span.0),
            negative_ttl: options.negative_ttl.map_or(DEFAULT_NEGATIVE_TTL, |span| span.0),
            attrs: options.attrs.unwrap_or_default(),
            write_back: options.write_back.unwrap_or(false),
            flush_open_after: options.flush_open_after.map(|span| span.0).filter(|after| !after.is_zero()),
            hooks: options.hooks.as_deref().map(absolute).transpose()?,
            lambda_listen: options.lambda_listen.map(loopback).transpose()?,
            file: file.map(absolute).transpose()?,
            cache_dir: absolute(&options.cache_dir.map_or_else(|| dirs.cache.ok_or_else(|| no_home("cache")), Ok)?)?,
            cache_bytes: options.cache_size.map(|size| size.0),
            state_dir: absolute(&options.state_dir.map_or_else(|| dirs.state.ok_or_else(|| no_home("state")), Ok)?)?,
            memory_bytes: options.memory.map_or_else(memory::default_bytes, |size| size.0),
            log: telemetry::Settings {
                level: options.log_level.unwrap_or_default(),
                format: options.log_format.unwrap_or_default(),
            },
            metrics_listen: options.metrics_listen,
            collector,
        })
    }

    /// What no option can see by itself.
    fn checked(self) -> Result<Self, Error> {
        if self.memory_bytes < LEAST_MEMORY_BYTES {
            return Err(Error::new("--memory is too small to work with", "give at least 16M"));
        }
        let several = self.each().find(|(_, source, own)| source.is_multi_region() && !own.read_only);
        if let Some((_, source, _)) = several {
            return Err(Error::new(
                format!("{source} is in several regions: S3 copies nothing from there, so nothing could be renamed"),
                "mount it with --read-only, or mount the bucket of one region",
            ));
        }
        directory_bucket::check(&self)?;
        Ok(self)
    }
}

/// The cache directory that is meant when nothing else is said.
///
/// # Errors
/// When there is none: HOME is not set.
pub fn cache_directory(said: Option<&Path>) -> Result<PathBuf, Error> {
    let said = said.map(Path::to_owned).or_else(|| Dirs::of_this_user().cache);
    absolute(&said.ok_or_else(|| no_home("cache"))?)
}

/// The API asks nobody for a password.
fn loopback(address: SocketAddr) -> Result<SocketAddr, Error> {
    if address.ip().is_loopback() {
        return Ok(address);
    }
    let hint = "give 127.0.0.1:PORT or [::1]:PORT; from elsewhere, forward the port: ssh -L";
    Err(Error::new(format!("--lambda-listen {address}: everybody on the network could run hooks there"), hint))
}

fn read_file(path: &Path) -> Result<Options, Error> {
    let text = std::fs::read_to_string(path).map_err(|cause| {
        Error::new(format!("cannot read {}: {cause}", path.display()), "--config takes a TOML file of options")
    })?;
    toml::from_str(&text).map_err(|cause| {
        let line = cause.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        let message = cause.message().lines().next().unwrap_or("not TOML").to_owned();
        Error::new(
            format!("{} line {line}: {message}", path.display()),
            "the keys are the long options without --, such as read-only = true",
        )
    })
}

fn not_named(what: &str, example: &str) -> Error {
    Error::new(
        format!("no {what} is named"),
        format!("give it ({example}), or as {what} = \"…\" in the file of --config"),
    )
}

fn checked_url(url: String) -> Result<String, Error> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let host = rest.unwrap_or("").split('/').next().unwrap_or("");
    if host.is_empty() || url.contains(char::is_whitespace) {
        return Err(Error::new(
            format!("'{}' is no endpoint", url.escape_debug()),
            "write it with http:// or https://, e.g. --endpoint-url http://127.0.0.1:9000",
        ));
    }
    if host.contains('@') {
        return Err(Error::new(
            "the endpoint URL holds credentials",
            "use a profile, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ));
    }
    Ok(url)
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path)
        .map_err(|cause| Error { message: format!("'{}' is no usable path: {cause}", path.display()), hint: None })
}

fn no_home(what: &str) -> Error {
    Error::new(format!("no place for the {what} directory: HOME is not set"), format!("give --{what}-dir"))
}

/// Where this user's files go (XDG Base Directory Specification; FHS for root).
struct Dirs {
    cache: Option<PathBuf>,
    state: Option<PathBuf>,
}

impl Dirs {
    fn of_this_user() -> Self {
        if nix::unistd::geteuid().is_root() {
            return Self { cache: Some("/var/cache/s3mount".into()), state: Some("/var/lib/s3mount".into()) };
        }
        Self { cache: xdg("XDG_CACHE_HOME", ".cache"), state: xdg("XDG_STATE_HOME", ".local/state") }
    }
}

/// The specification calls relative values invalid, to be ignored.
fn xdg(variable: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute(variable).or_else(|| Some(absolute("HOME")?.join(below_home)))?;
    Some(base.join("s3mount"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(options: Options) -> Result<Config, Error> {
        let options = Options { cache_dir: Some("/c".into()), state_dir: Some("/s".into()), ..options };
        Config::of_bucket("b", options, None)
    }

    #[test]
    fn nothing_said_means_the_defaults() {
        let config = resolve(Options::default()).unwrap();
        assert_eq!((config.umask, config.attr_ttl), (0o022, Duration::from_secs(1)));
        assert!(!config.read_only && !config.allow_other);
    }

    #[test]
    fn what_is_said_beats_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "uid = 1\ngid = 2\ncache-dir = '/c'\nstate-dir = '/s'\n").unwrap();
        let said = Options { uid: Some(9), ..Options::default() };
        let config = Config::of_bucket("b", said, Some(file.path())).unwrap();
        assert_eq!((config.uid, config.gid), (9, 2));
        assert_eq!(config.file.as_deref(), Some(file.path()));
    }

    #[test]
    fn a_file_can_say_all_and_what_nobody_says_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let dirs = "cache-dir = '/c'\nstate-dir = '/s'\n";
        std::fs::write(file.path(), format!("bucket = 'b/p'\nmountpoint = '/m'\n{dirs}")).unwrap();
        let config = Config::resolve(Options::default(), Some(file.path())).unwrap();
        assert_eq!((config.sources.to_string(), config.mountpoint), ("s3://b/p".to_owned(), PathBuf::from("/m")));
        std::fs::write(file.path(), format!("bucket = 'b'\n{dirs}")).unwrap();
        let error = Config::resolve(Options::default(), Some(file.path())).unwrap_err();
        assert!(error.to_string().contains("no mountpoint is named"), "{error}");
    }

    #[test]
    fn a_file_can_name_several_buckets_and_the_command_line_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |text: &str| std::fs::write(file.path(), format!("cache-dir = '/c'\nstate-dir = '/s'\n{text}"));
        write("mountpoint = '/m'\n[buckets]\nphotos = 'my-photos'\nlogs = 's3://company/2026'\n").unwrap();
        let config = Config::resolve(Options::default(), Some(file.path())).unwrap();
        assert_eq!(config.sources.to_string(), "logs=s3://company/2026,photos=s3://my-photos");
        assert!(Config::names_bucket(file.path()).unwrap());
        let one = Config::of_bucket("b", Options::default(), Some(file.path())).unwrap();
        assert_eq!(one.sources.to_string(), "s3://b");
        write("bucket = 'b'\n[buckets]\nphotos = 'my-photos'\n").unwrap();
        assert!(Config::of_file(Options::default(), file.path()).unwrap_err().message.contains("both"));
    }

    #[test]
    fn an_option_that_slipped_under_the_buckets_is_no_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[buckets]\nphotos = 'p'\nregion = 'eu-west-1'\n").unwrap();
        let error = Config::of_file(Options::default(), file.path()).unwrap_err();
        assert!(error.message.contains("'region'"), "{error}");
    }

    #[test]
    fn a_wrong_file_is_told_with_its_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "uid = 1\nsecret-key = 'x'\n").unwrap();
        let error = Config::of_bucket("b", Options::default(), Some(file.path())).unwrap_err();
        assert!(error.message.contains("line 2") && error.message.contains("secret-key"), "{error}");
    }

    #[test]
    fn endpoints_are_urls_without_credentials() {
        for wrong in ["localhost:9000", "ftp://h", "http://", "http://a b"] {
            assert!(resolve(Options { endpoint_url: Some(wrong.into()), ..Options::default() }).is_err(), "{wrong}");
        }
        let error =
            resolve(Options { endpoint_url: Some("http://me:word@h".into()), ..Options::default() }).unwrap_err();
        assert!(!error.to_string().contains("word"), "{error}");
    }

    #[test]
    fn hooks_are_run_for_this_machine_alone() {
        let listen = |at: &str| resolve(Options { lambda_listen: Some(at.parse().unwrap()), ..Options::default() });
        assert!(listen("127.0.0.1:0").is_ok() && listen("[::1]:9001").is_ok());
        for wrong in ["0.0.0.0:9001", "[::]:9001", "192.0.2.1:9001"] {
            assert!(listen(wrong).unwrap_err().to_string().contains(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_multi_region_access_point_is_for_reading() {
        let several = "arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap";
        let dirs = || Options { cache_dir: Some("/c".into()), state_dir: Some("/s".into()), ..Options::default() };
        let error = Config::of_bucket(several, dirs(), None).unwrap_err();
        assert!(error.to_string().contains("several regions"), "{error}");
        let reading = Options { read_only: Some(true), ..dirs() };
        assert_eq!(Config::of_bucket(several, reading, None).unwrap().sources.bucket_name(), several);
    }

    #[test]
    fn too_little_memory_is_refused() {
        assert!(resolve(Options { memory: Some(Size(1 << 20)), ..Options::default() }).is_err());
    }
}
