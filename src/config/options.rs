//! Every option once, as it is written: on the command line, in `S3MOUNT_…` or in the file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;

use super::buckets::BucketOptions;
use super::objects::Sse;
use super::units::{Size, Span, Umask, Words};
use crate::telemetry::{Format, Level};

/// Where the attributes in a listing come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attrs {
    /// From LIST, but for objects that s3mount wrote: those are asked for once
    #[default]
    Auto,
    /// Every object is asked for once, so that attributes by s3fs and rclone show too
    Full,
    /// From LIST and what this machine knows; nothing is asked for
    List,
}

/// What the user said; `None` where nothing was said. The same struct is read from the command
/// line and environment (clap) and from the file given with `--config` (TOML, keys as the flags).
#[derive(Clone, Debug, Default, PartialEq, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Options {
    /// What to mount, and where: in the file only, for a service that is named after it. On the command line
    /// they stand by themselves.
    #[arg(skip)]
    pub bucket: Option<String>,
    #[arg(skip)]
    pub mountpoint: Option<PathBuf>,
    /// Several buckets, by the names of their directories.
    #[arg(skip)]
    pub buckets: Option<BTreeMap<String, BucketOptions>>,
    /// S3 server to use instead of AWS, e.g. http://127.0.0.1:9000
    #[arg(long, value_name = "URL", env = "S3MOUNT_ENDPOINT_URL", help_heading = "Bucket")]
    pub endpoint_url: Option<String>,
    /// Region of the bucket [default: from the AWS configuration, else us-east-1]
    #[arg(long, value_name = "NAME", env = "S3MOUNT_REGION", help_heading = "Bucket")]
    pub region: Option<String>,
    /// Profile of ~/.aws/config to take credentials and settings from
    #[arg(long, value_name = "NAME", env = "S3MOUNT_PROFILE", help_heading = "Bucket")]
    pub profile: Option<String>,
    /// Credentials of a mount by itself: a file as ~/.aws/credentials is one, used before all others
    #[arg(long, value_name = "FILE", env = "S3MOUNT_CREDENTIALS_FILE", help_heading = "Bucket")]
    pub credentials_file: Option<PathBuf>,
    /// Send no credentials, for public buckets
    #[arg(long, value_name = "BOOL", env = "S3MOUNT_NO_SIGN_REQUEST", help_heading = "Bucket",
          num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub no_sign_request: Option<bool>,
    /// Put the bucket into the path of the URL, not into the host name [default: as the endpoint needs it]
    #[arg(long, value_name = "BOOL", env = "S3MOUNT_FORCE_PATH_STYLE", help_heading = "Bucket",
          num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub force_path_style: Option<bool>,
    /// Use S3's dual-stack endpoints, which IPv6 reaches [default: from the AWS configuration]
    #[arg(long, value_name = "BOOL", env = "S3MOUNT_DUAL_STACK", help_heading = "Bucket",
          num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub dual_stack: Option<bool>,
    /// Use S3's FIPS endpoints [default: from the AWS configuration]
    #[arg(long, value_name = "BOOL", env = "S3MOUNT_FIPS", help_heading = "Bucket",
          num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub fips: Option<bool>,
    /// Use S3's Transfer Acceleration, which the bucket must have switched on
    #[arg(long, value_name = "BOOL", env = "S3MOUNT_ACCELERATE", help_heading = "Bucket",
          num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub accelerate: Option<bool>,
    /// Most bytes that come from S3 in a second, on average, 0 for no bound [default: 0]
    #[arg(long, value_name = "SIZE", env = "S3MOUNT_MAX_DOWNLOAD", help_heading = "Bucket")]
    pub max_download: Option<Size>,
    /// The same of bytes that go there [default: 0]
    #[arg(long, value_name = "SIZE", env = "S3MOUNT_MAX_UPLOAD", help_heading = "Bucket")]
    pub max_upload: Option<Size>,
    /// Pay for requests and transfer where the bucket's owner does not
    #[arg(long, value_name = "BOOL", env = "S3MOUNT_REQUESTER_PAYS", help_heading = "Bucket",
          num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub requester_pays: Option<bool>,
    /// Refuse to work on a bucket of another AWS account than this one
    #[arg(long, value_name = "ACCOUNT", env = "S3MOUNT_EXPECTED_BUCKET_OWNER", help_heading = "Bucket")]
    pub expected_bucket_owner: Option<String>,

    /// Storage class of new files: CLASS, or GLOB=CLASS for some paths, the first that fits; rewritten ones
    /// stay in theirs [default: the bucket's]
    #[arg(long, value_name = "[GLOB=]CLASS,…", env = "S3MOUNT_STORAGE_CLASS", help_heading = "Objects")]
    pub storage_class: Option<Words>,
    /// How S3 encrypts what is written [default: as the bucket says]
    #[arg(long, value_name = "HOW", env = "S3MOUNT_SSE", help_heading = "Objects")]
    pub sse: Option<Sse>,
    /// Key of AWS KMS to encrypt with
    #[arg(long, value_name = "ID", env = "S3MOUNT_SSE_KMS_KEY_ID", help_heading = "Objects")]
    pub sse_kms_key_id: Option<String>,
    /// Key of your own to encrypt and read all objects with (SSE-C): a file of 32 bytes, or of their base64
    #[arg(long, value_name = "FILE", env = "S3MOUNT_SSE_C_KEY_FILE", help_heading = "Objects")]
    pub sse_c_key_file: Option<PathBuf>,
    /// Canned ACL of what is written, such as bucket-owner-full-control
    #[arg(long, value_name = "ACL", env = "S3MOUNT_ACL", help_heading = "Objects")]
    pub acl: Option<String>,
    /// Tags of what is written
    #[arg(long, value_name = "KEY=VALUE,…", env = "S3MOUNT_TAGS", help_heading = "Objects")]
    pub tags: Option<Words>,
    /// Keep every version that is written from being deleted, for so long: GOVERNANCE:30d, or COMPLIANCE:30d, which
    /// nobody can shorten. The bucket must have Object Lock [default: as the bucket says]
    #[arg(long, value_name = "MODE:TIME", env = "S3MOUNT_OBJECT_LOCK", help_heading = "Objects")]
    pub object_lock: Option<String>,
    /// Put a legal hold on every version that is written: it cannot be deleted until somebody takes that off
    #[arg(long, value_name = "BOOL", env = "S3MOUNT_LEGAL_HOLD", help_heading = "Objects",
          num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub legal_hold: Option<bool>,

    /// Refuse every change
    #[arg(long, value_name = "BOOL", env = "S3MOUNT_READ_ONLY", help_heading = "Mount",
          num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub read_only: Option<bool>,
    /// Show the older versions of a bucket that keeps them, in a hidden directory .versions of each directory
    #[arg(long, value_name = "BOOL", env = "S3MOUNT_SHOW_VERSIONS", help_heading = "Mount",
          num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub show_versions: Option<bool>,
    /// Let other users in, each with the rights that the files' modes give
    #[arg(long, value_name = "BOOL", env = "S3MOUNT_ALLOW_OTHER", help_heading = "Mount",
          num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub allow_other: Option<bool>,
    /// Refuse to run programs from the mount (`noexec` of mount(8))
    #[arg(long, value_name = "BOOL", env = "S3MOUNT_NO_EXEC", help_heading = "Mount",
          num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub no_exec: Option<bool>,
    /// Owner of objects that carry none [default: you]
    #[arg(long, value_name = "ID", env = "S3MOUNT_UID", help_heading = "Mount")]
    pub uid: Option<u32>,
    /// Group of objects that carry none [default: yours]
    #[arg(long, value_name = "ID", env = "S3MOUNT_GID", help_heading = "Mount")]
    pub gid: Option<u32>,
    /// Permission bits taken from objects that carry none [default: 022]
    #[arg(long, value_name = "OCTAL", env = "S3MOUNT_UMASK", help_heading = "Mount")]
    pub umask: Option<Umask>,
    /// How long attributes are believed without asking S3 [default: 1s]
    #[arg(long, value_name = "TIME", env = "S3MOUNT_ATTR_TTL", help_heading = "Mount")]
    pub attr_ttl: Option<Span>,
    /// How long listings are believed without asking S3 [default: 5s]
    #[arg(long, value_name = "TIME", env = "S3MOUNT_LIST_TTL", help_heading = "Mount")]
    pub list_ttl: Option<Span>,
    /// How long a missing name is believed to be missing without asking S3 [default: 1s]
    #[arg(long, value_name = "TIME", env = "S3MOUNT_NEGATIVE_TTL", help_heading = "Mount")]
    pub negative_ttl: Option<Span>,
    /// Where the attributes in a listing come from [default: auto]
    #[arg(long, value_name = "FROM", env = "S3MOUNT_ATTRS", help_heading = "Mount")]
    pub attrs: Option<Attrs>,
    /// Close a file when it is safe on the local disk; it goes to S3 behind that, fsync still means S3
    #[arg(long, value_name = "BOOL", env = "S3MOUNT_WRITE_BACK", help_heading = "Mount",
          num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub write_back: Option<bool>,
    /// Store files that stay open for writing, such as logs, as often as this while they change, 0 for never
    /// [default: 0]
    #[arg(long, value_name = "TIME", env = "S3MOUNT_FLUSH_OPEN_AFTER", help_heading = "Mount")]
    pub flush_open_after: Option<Span>,
    /// Hooks to run when files are closed, renamed or removed
    #[arg(long, value_name = "FILE", env = "S3MOUNT_HOOKS", help_heading = "Mount")]
    pub hooks: Option<PathBuf>,
    /// Answer Lambda's Invoke API for the hooks at this address of the machine itself, e.g. 127.0.0.1:9001
    #[arg(long, value_name = "ADDRESS", env = "S3MOUNT_LAMBDA_LISTEN", help_heading = "Mount")]
    pub lambda_listen: Option<SocketAddr>,

    /// Where what can be fetched again is kept, for all mounts [default: ~/.cache/s3mount, root: /var/cache/s3mount]
    #[arg(long, value_name = "DIR", env = "S3MOUNT_CACHE_DIR", help_heading = "Local files and memory")]
    pub cache_dir: Option<PathBuf>,
    /// Most bytes in the cache directory, 0 for no cache on disk; a tenth of the disk always stays free
    /// [default: a tenth of the disk, at most 20G]
    #[arg(long, value_name = "SIZE", env = "S3MOUNT_CACHE_SIZE", help_heading = "Local files and memory")]
    pub cache_size: Option<Size>,
    /// Where what must survive a crash is kept, and the log [default: ~/.local/state/s3mount, root: /var/lib/s3mount]
    #[arg(long, value_name = "DIR", env = "S3MOUNT_STATE_DIR", help_heading = "Local files and memory")]
    pub state_dir: Option<PathBuf>,
    /// Most memory for file contents, cached or on their way [default: a quarter of what there is, 512M at most]
    #[arg(long, value_name = "SIZE", env = "S3MOUNT_MEMORY", help_heading = "Local files and memory")]
    pub memory: Option<Size>,

    /// What is logged [default: info]
    #[arg(long, value_name = "LEVEL", env = "S3MOUNT_LOG_LEVEL", help_heading = "Log")]
    pub log_level: Option<Level>,
    /// How a log line looks [default: text]
    #[arg(long, value_name = "FORMAT", env = "S3MOUNT_LOG_FORMAT", help_heading = "Log")]
    pub log_format: Option<Format>,

    /// Answer Prometheus at this address with what is counted, e.g. 127.0.0.1:9102 or 0.0.0.0:9102: any machine
    /// that reaches it reads names of buckets and hooks, and no contents
    #[arg(long, value_name = "ADDRESS", env = "S3MOUNT_METRICS_LISTEN", help_heading = "Monitoring")]
    pub metrics_listen: Option<SocketAddr>,
    /// Send metrics and traces to this collector of OpenTelemetry (OTLP over HTTP), e.g. http://127.0.0.1:4318: names of
    /// files are in the traces
    #[arg(long, value_name = "URL", env = "S3MOUNT_OTLP_ENDPOINT", help_heading = "Monitoring")]
    pub otlp_endpoint: Option<String>,
    /// How often metrics are sent there [default: 60s]
    #[arg(long, value_name = "TIME", env = "S3MOUNT_OTLP_INTERVAL", help_heading = "Monitoring")]
    pub otlp_interval: Option<Span>,
    /// Part of all traces that are sent there, 0 for none [default: 1]
    #[arg(long, value_name = "RATIO", env = "S3MOUNT_OTLP_TRACES", help_heading = "Monitoring")]
    pub otlp_traces: Option<f64>,
}

macro_rules! first_said {
    ($first:expr, $second:expr; $($field:ident)*) => {
        Options { $($field: $first.$field.or($second.$field),)* }
    };
}

/// Whether the file knows an option of this name.
pub(super) fn is_key(name: &str) -> bool {
    let command = Options::augment_args(clap::Command::new("options"));
    ["bucket", "mountpoint"].contains(&name) || command.get_arguments().any(|flag| flag.get_long() == Some(name))
}

/// The options that a bucket beside others can have for itself: how it is reached, and what is written there.
pub(super) fn keys_of_bucket() -> Vec<String> {
    let command = Options::augment_args(clap::Command::new("options"));
    let is_of_bucket = |flag: &&clap::Arg| {
        let (name, heading) = (flag.get_long(), flag.get_help_heading());
        // The bounds are those of the line, which all of them share.
        let is_bound = matches!(name, Some("max-download" | "max-upload"));
        name == Some("read-only") || matches!(heading, Some("Bucket" | "Objects")) && !is_bound
    };
    let flags = command.get_arguments().filter(is_of_bucket).filter_map(clap::Arg::get_long);
    ["bucket"].into_iter().chain(flags).map(str::to_owned).collect()
}

impl Options {
    /// As [`Options::or`], of what a file says. Who names a bucket does not mean those of the file.
    #[must_use]
    pub fn or_file(self, file: Self) -> Self {
        let buckets = file.buckets.filter(|_| self.bucket.is_none());
        self.or(Self { buckets, ..file })
    }

    /// These options, and where they say nothing, those of `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        first_said!(self, other;
            bucket mountpoint buckets
            endpoint_url region profile credentials_file no_sign_request force_path_style dual_stack fips accelerate
            max_download max_upload
            requester_pays expected_bucket_owner storage_class sse sse_kms_key_id sse_c_key_file acl tags
            object_lock legal_hold
            read_only show_versions allow_other no_exec uid gid umask attr_ttl list_ttl negative_ttl attrs
            write_back flush_open_after hooks lambda_listen
            cache_dir cache_size state_dir memory log_level log_format metrics_listen
            otlp_endpoint otlp_interval otlp_traces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_says_something_wins() {
        let line = Options { region: Some("eu-west-1".into()), read_only: Some(false), ..Options::default() };
        let file =
            Options { region: Some("us-east-1".into()), read_only: Some(true), uid: Some(7), ..Options::default() };
        let both = line.or(file);
        assert_eq!(both.region.as_deref(), Some("eu-west-1"));
        assert_eq!(both.read_only, Some(false));
        assert_eq!(both.uid, Some(7));
    }

    #[test]
    fn the_file_knows_every_option_by_its_flag() {
        // A value that each option takes, in TOML.
        let text = "endpoint-url = 'http://h'\nregion = 'r'\nprofile = 'p'\ncredentials-file = '/p'\nno-sign-request = true\n\
            force-path-style = true\n\
            dual-stack = true\nfips = true\naccelerate = true\nmax-download = '10M'\nmax-upload = 0\nrequester-pays = true\n\
            expected-bucket-owner = '1'\nstorage-class = ['a=B', 'C']\nsse = 'aws:kms'\nsse-kms-key-id = 'k'\n\
            sse-c-key-file = '/k'\nacl = 'private'\ntags = 'a=b,c=d'\nobject-lock = 'GOVERNANCE:30d'\nlegal-hold = true\nread-only = true\nshow-versions = true\nallow-other = true\nno-exec = true\nuid = 1\ngid = 1\n\
            umask = '027'\nattr-ttl = '500ms'\nlist-ttl = 3\nnegative-ttl = 1\nattrs = 'full'\nwrite-back = true\n\
            flush-open-after = '30s'\nhooks = '/h'\nlambda-listen = '127.0.0.1:9001'\n\
            cache-dir = '/c'\ncache-size = '2G'\n\
            state-dir = '/s'\nmemory = 1048576\nlog-level = 'debug'\nlog-format = 'json'\n\
            metrics-listen = '0.0.0.0:9102'\notlp-endpoint = 'http://h:4318'\n\
            otlp-interval = '10s'\notlp-traces = 1\n";
        let options: Options = toml::from_str(text).unwrap();
        assert_eq!(options.memory, Some(Size(1 << 20)));
        assert_eq!(options.otlp_traces, Some(1.0));
        assert_eq!(options.umask, Some(Umask(0o027)));
        assert_eq!(options.storage_class, Some(Words(vec!["a=B".into(), "C".into()])));
        assert_eq!(options.tags, Some(Words(vec!["a=b".into(), "c=d".into()])));
        let command = Options::augment_args(clap::Command::new("x"));
        for flag in command.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(text.contains(&format!("{flag} = ")), "--{flag} is missing in this test");
        }
    }

    #[test]
    fn unknown_keys_in_the_file_are_errors() {
        let error = toml::from_str::<Options>("cache-sise = '2G'").unwrap_err().to_string();
        assert!(error.contains("cache-sise"), "{error}");
    }
}
