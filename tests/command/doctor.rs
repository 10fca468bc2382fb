//! What `doctor` says of set-ups that are broken, each in its own way: the cause, and what to do.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use s3mount::bucket::client::{ConnectSettings, StaticCredentials, connect};
use s3mount::bucket::{ListRequest, PutOptions};
use s3mount::demo::{Fault, FaultKind, Server, ServerSettings};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

use super::{can_mount, run, s3mount, text};

const PROXIES: [&str; 8] =
    ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"];

/// A server in this process, which faults can be put into, and directories that do not exist yet.
struct Setup {
    runtime: Runtime,
    server: Server,
    dir: TempDir,
}

impl Setup {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let runtime = Runtime::new().expect("threads");
        let settings = ServerSettings {
            data_dir: dir.path().join("data"),
            listen: ([127, 0, 0, 1], 0).into(),
            access_key: "s3mount".into(),
            secret_key: "s3mount-demo".into(),
            buckets: vec!["demo".into()],
            latency: Duration::ZERO,
            mbps_per_connection: None,
        };
        let server = runtime.block_on(Server::start(settings)).expect("the server starts");
        Self { runtime, server, dir }
    }

    fn doctor(&self, words: &[&str]) -> Command {
        doctor(self.dir.path(), &self.server.endpoint_url(), words)
    }

    fn fault(&self, operation: &str, kind: FaultKind) {
        self.server.faults().add(Fault { times: u32::MAX, ..Fault::once(operation, kind) });
    }

    fn connect_settings(&self) -> ConnectSettings {
        let credentials = StaticCredentials { access_key: "s3mount".into(), secret_key: "s3mount-demo".into() };
        ConnectSettings {
            endpoint_url: Some(self.server.endpoint_url()),
            credentials: Some(credentials),
            read_only: true,
            ..ConnectSettings::new("demo", "")
        }
    }

    fn put(&self, key: &str) {
        self.runtime.block_on(async {
            let bucket = connect(&self.connect_settings()).await.expect("the server answers").bucket;
            bucket.put(key, "x".into(), &PutOptions::default()).await.expect("stored");
        });
    }

    /// Keys, and how many uploads are under way.
    fn contents(&self) -> (Vec<String>, usize) {
        self.runtime.block_on(async {
            let bucket = connect(&self.connect_settings()).await.expect("the server answers").bucket;
            let page = bucket.list(&ListRequest::default()).await.expect("a listing");
            let uploads = bucket.list_uploads("").await.expect("uploads").len();
            (page.objects.into_iter().map(|object| object.key).collect(), uploads)
        })
    }
}

fn doctor(dir: &Path, endpoint: &str, words: &[&str]) -> Command {
    let mut command = s3mount();
    for name in PROXIES {
        command.env_remove(name);
    }
    command
        .arg("doctor")
        .args(words)
        .env("S3MOUNT_ENDPOINT_URL", endpoint)
        .env("S3MOUNT_STATE_DIR", dir.join("state"))
        .env("S3MOUNT_CACHE_DIR", dir.join("cache"));
    command
}

/// Status line, further headers, body.
type Answer = fn(&str) -> (&'static str, String, &'static str);

/// A server of canned answers to heads of requests, in lower case.
struct Canned {
    url: String,
    dir: TempDir,
    _runtime: Runtime,
}

impl Canned {
    fn start(answer: Answer) -> Self {
        let runtime = Runtime::new().expect("threads");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer_all(stream, answer));
            }
        });
        Self { url, dir: tempfile::tempdir().expect("temporary directory"), _runtime: runtime }
    }

    fn doctor(&self, words: &[&str]) -> Command {
        doctor(self.dir.path(), &self.url, words)
    }
}

async fn answer_all(mut stream: tokio::net::TcpStream, answer: Answer) {
    let mut received = Vec::new();
    while stream.read_buf(&mut received).await.is_ok_and(|count| count > 0) {
        let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&received[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        if received.len() < end + 4 + length {
            continue;
        }
        received.drain(..end + 4 + length);
        let (status, headers, body) = answer(&head);
        let sent = if head.starts_with("head ") { "" } else { body };
        let text = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{sent}", body.len());
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Says yes to everything, whatever the conditions; keeps nothing.
fn lax(head: &str) -> (&'static str, String, &'static str) {
    let request = head.lines().next().unwrap_or_default();
    let has = |words: &[&str]| words.iter().all(|word| head.contains(word));
    let body = match request.split(' ').next() {
        Some("get") if request.contains("list-type=2") => {
            "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
        }
        Some("get") if request.contains("?lifecycle") => {
            return ("404 Not Found", String::new(), "<Error><Code>NoSuchLifecycleConfiguration</Code></Error>");
        }
        Some("get") if request.contains("?versioning") => {
            "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
        }
        Some("get") if request.contains("?uploads") => {
            "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated><Upload><Key>forgotten</Key>\
             <UploadId>u</UploadId><Initiated>2020-01-01T00:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>"
        }
        Some("get") => return ("206 Partial Content", "etag: \"e\"\r\ncontent-range: bytes 0-0/14\r\n".into(), "s"),
        Some("put") if has(&["x-amz-copy-source", "uploadid"]) => "<CopyPartResult><ETag>e</ETag></CopyPartResult>",
        Some("put") if has(&["x-amz-copy-source"]) => "<CopyObjectResult><ETag>e</ETag></CopyObjectResult>",
        Some("put") => return ("200 OK", "etag: \"e\"\r\n".into(), ""),
        Some("post") if request.contains("?uploads") => {
            "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
        }
        Some("post") => "<DeleteResult></DeleteResult>",
        _ => return ("204 No Content", String::new(), ""),
    };
    ("200 OK", String::new(), body)
}

/// A `Date` so far from now.
fn date(hours: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let time = DateTime::from_secs(now.cast_signed() + hours * 3600);
    format!("date: {}\r\n", time.fmt(Format::HttpDate).expect("a date of today"))
}

/// A port where nobody listens.
fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address")
}

/// The finding about this: its line and that of its advice.
fn finding(command: &mut Command, about: &str) -> (Option<i32>, String) {
    let output = run(command);
    let told = text(&output.stdout);
    let all = format!("{told}{}", text(&output.stderr));
    for secret in ["s3mount-demo", "hush"] {
        assert!(!all.contains(secret), "a secret is told: {all}");
    }
    let mut lines = told.lines().skip_while(|line| !line.get(9..).is_some_and(|rest| rest.starts_with(about)));
    let line = lines.next().unwrap_or_else(|| panic!("nothing about {about}:\n{all}"));
    let advice = lines.next().filter(|next| next.trim_start().starts_with('→')).unwrap_or_default();
    (output.status.code(), format!("{line}\n{advice}"))
}

fn assert_says(told: &str, state: &str, words: &[&str]) {
    assert!(told.starts_with(state), "{told}");
    for word in words {
        assert!(told.contains(word), "{word:?} is missing:\n{told}");
    }
}

/// The command must fail, and with this code where nothing is wrong with the machine.
fn assert_broken(command: &mut Command, about: &str, code: i32, words: &[&str]) {
    let (ended, told) = finding(command, about);
    assert_says(&told, "broken", words);
    assert!(told.contains("→ "), "no advice: {told}");
    if can_mount() {
        assert_eq!(ended, Some(code), "{told}");
    }
    assert_ne!(ended, Some(0), "{told}");
}

/// It must succeed, unless something is wrong with the machine.
fn assert_warned(command: &mut Command, about: &str, words: &[&str]) {
    let (ended, told) = finding(command, about);
    assert_says(&told, "warning", words);
    assert!(told.contains("→ "), "no advice: {told}");
    if can_mount() {
        assert_eq!(ended, Some(0), "{told}");
    }
}

#[test]
fn a_sound_setup_is_all_good_and_stays_as_it_was() {
    let setup = Setup::new();
    setup.put("p/file");
    let output = run(&mut setup.doctor(&["demo/p"]));
    let told = text(&output.stdout);
    for about in
        ["bucket", "clock", "read", "write", "copy", "multipart upload", "delete", "conditional writes", "keys"]
    {
        assert!(told.contains(&format!("\ngood     {about:<18}  ")), "{about}:\n{told}");
    }
    if can_mount() {
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert!(!told.contains("broken  "), "{told}");
    }
    assert_eq!(setup.contents(), (vec!["p/file".to_owned()], 0));
    assert!(!setup.dir.path().join("state").exists() && !setup.dir.path().join("cache").exists());
}

#[test]
fn a_mount_that_only_reads_is_examined_without_a_write() {
    let setup = Setup::new();
    setup.put("file");
    let before = setup.server.request_counts();
    let output = run(&mut setup.doctor(&["demo", "--read-only"]));
    assert!(text(&output.stdout).contains("\ngood     read "), "{output:?}");
    let after = setup.server.request_counts();
    for operation in ["PutObject", "CopyObject", "CreateMultipartUpload", "DeleteObject", "DeleteObjects"] {
        assert_eq!(after.get(operation), before.get(operation), "{operation}");
    }
}

#[test]
fn programs_get_a_list() {
    let setup = Setup::new();
    let output = run(&mut setup.doctor(&["demo", "--json"]));
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let one = list.as_array().unwrap().iter().find(|one| one["about"] == "delete").expect("a finding");
    assert_eq!((one["state"].as_str(), one["advice"].is_null()), (Some("good"), true), "{one}");
}

#[test]
fn the_bucket_is_that_of_the_file_and_none_without() {
    let setup = Setup::new();
    let alone = text(&run(&mut setup.doctor(&[])).stdout);
    assert!(alone.contains("FUSE") && alone.contains("memory") && !alone.contains("bucket"), "{alone}");
    let file = setup.dir.path().join("s3mount.toml");
    fs::write(&file, "bucket = 'demo/of-file'\n").unwrap();
    let (_, told) = finding(&mut setup.doctor(&["--config", file.to_str().unwrap()]), "bucket");
    assert_says(&told, "good", &["s3://demo/of-file"]);
}

#[test]
fn help_tells_of_the_bucket_and_hides_the_rest() {
    let help = text(&run(s3mount().args(["doctor", "--help"])).stdout);
    for shown in ["--json", "s3mount-doctor-", "--endpoint-url", "--cache-dir", "--read-only"] {
        assert!(help.contains(shown), "{shown}: {help}");
    }
    assert!(!help.contains("--attr-ttl"), "{help}");
}

#[test]
fn a_wrong_key() {
    let setup = Setup::new();
    let words = ["secret key", "SignatureDoesNotMatch", "--profile", "AWS_ACCESS_KEY_ID in the environment"];
    assert_broken(setup.doctor(&["demo"]).env("AWS_SECRET_ACCESS_KEY", "hush"), "bucket", 77, &words);
    let words = ["does not know the access key", "--profile"];
    assert_broken(setup.doctor(&["demo"]).env("AWS_ACCESS_KEY_ID", "AKIAOTHER"), "bucket", 77, &words);
    let mut without = setup.doctor(&["demo"]);
    without.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY").env("HOME", "/nonexistent");
    assert_broken(&mut without, "bucket", 77, &["no AWS credentials", "log in"]);
}

#[test]
fn a_wrong_region() {
    const MOVED: &str = "<Error><Code>PermanentRedirect</Code><Message>elsewhere</Message></Error>";
    let followed = Canned::start(|head| {
        if head.contains("/eu-west-3/s3/aws4_request") {
            return lax(head);
        }
        ("301 Moved Permanently", "x-amz-bucket-region: eu-west-3\r\n".into(), MOVED)
    });
    let words = ["in eu-west-3, not in us-west-1", "--region eu-west-3"];
    assert_warned(&mut followed.doctor(&["demo", "--region", "us-west-1"]), "region", &words);
    let unnamed = Canned::start(|_| ("301 Moved Permanently", String::new(), MOVED));
    let words = ["in another region than us-west-1", "get-bucket-location --bucket demo"];
    assert_broken(&mut unnamed.doctor(&["demo", "--region", "us-west-1"]), "bucket", 70, &words);
}

#[test]
fn no_right_to_list() {
    let setup = Setup::new();
    setup.fault("ListObjectsV2", FaultKind::Status(403));
    let words = ["no permission to list s3://demo/p/", "allow s3:ListBucket on arn:aws:s3:::demo to the caller"];
    assert_broken(&mut setup.doctor(&["demo/p"]), "bucket", 77, &words);
}

#[test]
fn no_right_to_delete() {
    let setup = Setup::new();
    setup.fault("DeleteObject", FaultKind::Status(403));
    setup.fault("DeleteObjects", FaultKind::Status(403));
    let words = ["rm, mv", "AccessDenied", "allow s3:DeleteObject on arn:aws:s3:::demo/p/* to the caller"];
    assert_broken(&mut setup.doctor(&["demo/p"]), "delete", 77, &words);
    setup.server.faults().clear();
    let left = setup.contents().0;
    assert!(left.iter().all(|key| key.starts_with("p/.s3mount-doctor-")) && left.len() == 2, "{left:?}");
}

#[test]
fn what_is_left_over_is_named() {
    let setup = Setup::new();
    setup.fault("DeleteObjects", FaultKind::Status(403));
    let (_, told) = finding(&mut setup.doctor(&["demo"]), "delete");
    let left = setup.contents().0;
    assert!(told.contains(&format!("{} was left over", left[0])), "{left:?}: {told}");
}

#[test]
fn no_right_to_write() {
    let setup = Setup::new();
    setup.put("file");
    setup.fault("PutObject", FaultKind::Status(403));
    let words = ["allow s3:PutObject on arn:aws:s3:::demo/*", "--read-only"];
    assert_broken(&mut setup.doctor(&["demo"]), "write", 77, &words);
}

#[test]
fn a_clock_that_is_off_by_an_hour() {
    const SKEWED: &str = "<Error><Code>RequestTimeTooSkewed</Code><Message>x</Message></Error>";
    let refused = Canned::start(|_| ("403 Forbidden", date(1), SKEWED));
    let words = ["clock is", "behind the server's (RequestTimeTooSkewed)", "timedatectl set-ntp true"];
    assert_broken(&mut refused.doctor(&["demo"]), "bucket", 77, &words);
    let taken = Canned::start(|head| {
        let (status, headers, body) = lax(head);
        (status, headers + &date(-1), body)
    });
    assert_warned(&mut taken.doctor(&["demo"]), "clock", &["1 h ahead of the server's", "timedatectl"]);
}

#[test]
fn an_endpoint_that_is_down() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = format!("http://{}", closed_port());
    let words = ["cannot reach", &endpoint, "refused", "is its server up?"];
    // No proxy is asked for what is on this machine.
    let mut command = doctor(dir.path(), &endpoint, &["demo"]);
    assert_broken(command.env("http_proxy", "http://192.0.2.1:3128"), "bucket", 68, &words);
}

#[test]
fn a_wrong_proxy() {
    const ENDPOINT: &str = "http://s3.example.test:9000";
    const FORBIDDEN: &str = "<!DOCTYPE html><html><body>Forbidden by policy</body></html>";
    let dir = tempfile::tempdir().unwrap();
    let address = closed_port().to_string();
    let proxy = format!("http://me:hush@{address}/");
    for variable in ["http_proxy", "HTTP_PROXY", "all_proxy"] {
        let mut command = doctor(dir.path(), ENDPOINT, &["demo"]);
        let words = ["cannot reach", ENDPOINT, &address, variable, "NO_PROXY"];
        assert_broken(command.env(variable, &proxy), "bucket", 68, &words);
    }
    let refusing = Canned::start(|_| ("403 Forbidden", "content-type: text/html\r\n".into(), FORBIDDEN));
    let mut command = doctor(dir.path(), ENDPOINT, &["demo"]);
    assert_broken(command.env("http_proxy", &refusing.url), "bucket", 77, &["http_proxy names", "NO_PROXY"]);
}

#[test]
fn a_server_without_conditions() {
    let server = Canned::start(lax);
    let words = ["ignores conditions", "can be lost", "one mount alone"];
    assert_warned(&mut server.doctor(&["demo"]), "conditional writes", &words);
}

#[test]
fn a_lock_that_the_bucket_has_not() {
    let setup = Setup::new();
    let mut command = setup.doctor(&["demo", "--object-lock", "COMPLIANCE:1d"]);
    assert_broken(&mut command, "object lock", 64, &["the bucket has none", "--object-lock", "switch it on"]);
}

#[test]
fn what_lies_in_the_bucket_and_is_billed() {
    let server = Canned::start(lax);
    let words = ["1 older than a day", "`s3mount gc s3://demo/p --delete`"];
    assert_warned(&mut server.doctor(&["demo/p"]), "incomplete uploads", &words);
    assert_warned(&mut server.doctor(&["demo"]), "lifecycle", &["AbortIncompleteMultipartUpload"]);
    let (_, told) = finding(&mut server.doctor(&["demo"]), "versions");
    assert_says(&told, "good", &["billed"]);
    let setup = Setup::new();
    setup.put("a//\u{1b}[2Jb");
    assert_warned(&mut setup.doctor(&["demo"]), "keys", &["1 of 1", r"a//\u{1b}[2Jb"]);
}

/// A small file system in memory; gone with the test.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn on(dir: PathBuf) -> Self {
        fs::create_dir(&dir).expect("a directory");
        mount(Some("none"), &dir, Some("tmpfs"), MsFlags::empty(), Some("size=8m")).expect("a tmpfs");
        Self(dir)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk() {
    if !can_mount() {
        return;
    }
    let setup = Setup::new();
    let cache = Tmpfs::on(setup.dir.path().join("cache"));
    fs::write(cache.0.join("full"), vec![1; (8 << 20) - (400 << 10)]).unwrap();
    let words = ["nothing more is cached", "4 % of the disk", "--cache-dir", setup.dir.path().to_str().unwrap()];
    assert_warned(&mut setup.doctor(&["demo"]), "cache directory", &words);
    // Who wants no cache misses none.
    let (_, told) = finding(&mut setup.doctor(&["demo", "--cache-size", "0"]), "cache directory");
    assert_says(&told, "good", &[]);
    let on_it = ["demo", "--write-back", "--state-dir", cache.0.to_str().unwrap()];
    assert_broken(&mut setup.doctor(&on_it), "state directory", 74, &["the journal does not fit", "--state-dir"]);
}

#[test]
fn a_machine_without_fuse() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // In a namespace of its own, of which nobody else sees anything. `hide` ends in what runs the rest.
    let without = |hide: &str| {
        let script = format!("{hide} \"$0\" doctor --state-dir \"$1\" --cache-dir \"$1\"");
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script, env!("CARGO_BIN_EXE_s3mount")]).arg(dir.path());
        command
    };
    let words = ["/dev/fuse cannot be opened", "modprobe fuse", "--device /dev/fuse"];
    assert_broken(&mut without("mount -t tmpfs none /dev && exec"), "FUSE", 74, &words);
    let words = ["/dev/fuse is not the FUSE device", "mknod", "--device /dev/fuse"];
    assert_broken(&mut without("mount --bind /dev/null /dev/fuse && exec"), "FUSE", 74, &words);
    let words = ["CAP_SYS_ADMIN", "--cap-add SYS_ADMIN"];
    assert_broken(&mut without("exec setpriv --bounding-set -sys_admin"), "right to mount", 77, &words);
}
