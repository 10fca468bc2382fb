//! `--metrics-listen`, scraped over TCP.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use crate::stage::servers::Server;
use crate::stage::{Maker, Mount, PATIENCE, Stage, is_mountpoint, process, wait_for};

const LISTEN: [&str; 2] = ["--metrics-listen", "127.0.0.1:0"];

fn address(mount: &Mount) -> SocketAddr {
    mount.status()["metrics"].as_str().expect("status tells the port").parse().unwrap()
}

/// Sends bytes and answers head and body of what comes back until the connection ends.
fn send(address: SocketAddr, request: &[u8]) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // Who is refused early does not read to the end.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.to_ascii_lowercase(), body.to_owned())
}

pub fn ask(address: SocketAddr, request: &str) -> (String, String) {
    send(address, format!("{request} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())
}

/// One scrape.
pub struct Scrape(String);

impl Scrape {
    fn of(mount: &Mount) -> Self {
        Self::at(address(mount))
    }

    pub fn at(address: SocketAddr) -> Self {
        let (head, body) = ask(address, "GET /metrics");
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        Self(body)
    }

    /// The first that has this value: what the kernel and the uploader have yet to say may come later.
    fn once(mount: &Mount, sample: &str, value: u64) -> Self {
        wait_for(sample, PATIENCE, || Some(Self::of(mount)).filter(|scrape| scrape.value(sample) == value))
    }

    /// The value of a sample, if it is there.
    pub fn get(&self, sample: &str) -> Option<u64> {
        let line = self.0.lines().find(|line| line.rsplit_once(' ').is_some_and(|(named, _)| named == sample))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    pub fn value(&self, sample: &str) -> u64 {
        self.get(sample).unwrap_or_else(|| panic!("{sample} is missing in\n{}", self.0))
    }

    /// All samples of a name with these words in their labels.
    pub fn sum(&self, name: &str, label: &str) -> u64 {
        let lines = self.0.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }
}

#[test]
fn a_scrape_finds_what_was_read_and_what_went_wrong() {
    let mount = Stage::on(Maker::Embedded).args(&LISTEN).mount();
    mount.outside().put("read", b"12345");
    let before = Scrape::of(&mount);
    assert_eq!(fs::read(mount.at("read")).unwrap(), b"12345");
    assert!(fs::metadata(mount.at("missing")).is_err());
    fs::write(mount.at("ours"), b"first").unwrap();
    // Another client is faster: the close must not overwrite it.
    let undisturbed = process::without_children();
    let mut file = fs::OpenOptions::new().append(true).open(mount.at("ours")).unwrap();
    file.write_all(b" and ours").unwrap();
    mount.outside().put("ours", b"theirs");
    // Who drops a file hears nothing of its close.
    assert_eq!(nix::unistd::close(file).unwrap_err(), nix::errno::Errno::ESTALE);
    drop(undisturbed);
    let held = fs::File::open(mount.at("read")).unwrap();

    let scrape = Scrape::once(&mount, "s3mount_open_handles", 1);
    let grown = |sample: &str| scrape.value(sample) - before.get(sample).unwrap_or_default();
    assert!(grown("s3mount_s3_requests_total{operation=\"GetObject\",outcome=\"ok\"}") >= 1);
    assert!(grown("s3mount_s3_received_bytes_total") >= 5);
    assert!(grown("s3mount_s3_sent_bytes_total") >= 5);
    assert!(grown("s3mount_s3_requests_total{operation=\"PutObject\",outcome=\"changed\"}") >= 1);
    assert!(grown("s3mount_s3_failures_total{error=\"changed\"}") >= 1);
    assert_eq!(scrape.value("s3mount_s3_failures_total{error=\"unreachable\"}"), 0);
    assert_eq!(scrape.value("s3mount_conflicts_total"), 1);
    assert!(grown("s3mount_fuse_requests_total{operation=\"lookup\"}") >= 2);
    assert!(grown("s3mount_fuse_requests_total{operation=\"write\"}") >= 2);
    assert!(grown("s3mount_fuse_errors_total{errno=\"ENOENT\"}") >= 1);
    assert!(grown("s3mount_fuse_errors_total{errno=\"ESTALE\"}") >= 1);
    for operation in ["GetObject", "PutObject", "ListObjectsV2"] {
        let label = format!("operation=\"{operation}\"");
        let count = scrape.value(&format!("s3mount_s3_request_duration_seconds_count{{{label}}}"));
        assert_eq!(scrape.sum("s3mount_s3_requests_total", &label), count, "{operation}");
        let all = format!("s3mount_s3_request_duration_seconds_bucket{{{label},le=\"+Inf\"}}");
        assert_eq!(scrape.value(&all), count, "{operation}");
    }
    let bucket = format!("bucket=\"{}\"", mount.outside().bucket());
    assert_eq!(scrape.sum("s3mount_mount_info", &bucket), 1);
    assert!(scrape.value("process_resident_memory_bytes") > 1_000_000);
    let words = process::run(mount.command().arg("status").arg(mount.path()));
    assert!(words.contains(&format!("http://{}/metrics", address(&mount))), "{words}");
    drop(held);
}

#[test]
fn what_waits_for_a_server_that_is_away_is_told_meanwhile() {
    let server = Server::embedded(&[]);
    let mount = Stage::at(server.endpoint()).args(&LISTEN).args(&["--write-back"]).mount();
    fs::write(mount.at("before"), "x").unwrap();
    process::run(mount.command().arg("sync").arg(mount.path()));
    Scrape::once(&mount, "s3mount_backlog_files", 0);
    server.freeze();
    fs::write(mount.at("f"), "12345").unwrap();
    let scrape = Scrape::of(&mount);
    server.thaw();
    assert_eq!(scrape.value("s3mount_backlog_files"), 1);
    assert_eq!(scrape.value("s3mount_backlog_bytes"), 5);
    assert_eq!(scrape.value("s3mount_dirty_files"), 1);
    assert!(scrape.value("s3mount_memory_used_bytes{use=\"drafts\"}") >= 5);
    process::run(mount.command().arg("sync").arg(mount.path()));
    let scrape = Scrape::once(&mount, "s3mount_backlog_files", 0);
    assert_eq!(scrape.value("s3mount_dirty_files"), 0);
    assert_eq!(scrape.value("s3mount_backlog_oldest_age_seconds"), 0);
}

#[test]
fn hooks_are_counted_by_their_names() {
    let mut mount = Stage::on(Maker::Embedded).args(&LISTEN).hooks("").prepare();
    fs::write(mount.beside("fine.wat"), "(module (func (export \"_start\")))").unwrap();
    fs::write(mount.beside("fails.wat"), "(module (func (export \"_start\") unreachable))").unwrap();
    let hook = |name: &str| {
        format!(
            "[[hook]]\nname = \"{name}\"\nwasm = \"{name}.wat\"\nmatch = [\"*.txt\"]\noutput = \"made\"\nretries = 0\n"
        )
    };
    fs::write(mount.beside("hooks.toml"), hook("fine") + &hook("fails")).unwrap();
    mount.start();
    fs::write(mount.at("a.txt"), "x").unwrap();
    // Says with its exit code that something was given up.
    let mut wait = mount.command();
    process::output(wait.args(["hooks", "wait"]).arg(mount.at("a.txt")), PATIENCE);
    let scrape = Scrape::of(&mount);
    for (hook, errors) in [("fine", 0), ("fails", 1)] {
        assert_eq!(scrape.value(&format!("s3mount_hook_invocations_total{{hook=\"{hook}\"}}")), 1);
        assert_eq!(scrape.value(&format!("s3mount_hook_errors_total{{hook=\"{hook}\"}}")), errors);
        assert_eq!(scrape.value(&format!("s3mount_hook_dead_letters{{hook=\"{hook}\"}}")), errors);
        assert_eq!(scrape.value(&format!("s3mount_hook_duration_seconds_count{{hook=\"{hook}\"}}")), 1);
        assert_eq!(scrape.value(&format!("s3mount_hook_queued{{hook=\"{hook}\"}}")), 0);
    }
}

#[test]
fn nothing_that_a_client_does_there_disturbs_the_mount() {
    let mut mount = Stage::on(Maker::Embedded).args(&LISTEN).mount();
    let address = address(&mount);
    for (request, status) in [("POST /metrics", "405"), ("GET /", "200"), ("GET /etc/passwd", "404")] {
        let (head, _) = ask(address, request);
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{request}: {head}");
    }
    let (head, body) = ask(address, "HEAD /metrics");
    assert!(head.starts_with("http/1.1 200 ") && body.is_empty(), "{head}\n{body}");
    // A head without an end, and no HTTP at all.
    let endless = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(1 << 20));
    for rubbish in [endless.as_bytes(), &[0, 255, 13, 10, 13, 10]] {
        let (head, _) = send(address, rubbish);
        assert!(!head.starts_with("http/1.1 200"), "{head}");
    }
    // More than may be connected at a time, all of them silent.
    let silent: Vec<_> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
    fs::write(mount.at("f"), "x").unwrap();
    assert_eq!(fs::read(mount.at("f")).unwrap(), b"x");
    drop(silent);
    Scrape::of(&mount);
    process::run(mount.command().arg("umount").arg(mount.path()));
    TcpListener::bind(address).expect("the port is free when umount has returned, for the next mount");
    mount.wait_end(PATIENCE);
}

#[test]
fn a_port_that_is_taken_is_told_before_anything_is_mounted() {
    let mount = Stage::on(Maker::Embedded).prepare();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    let try_at = |place: &str| {
        let mut command: Command = mount.command();
        command.args(["--metrics-listen", place]).arg(mount.outside().bucket()).arg(mount.path());
        command.env("S3MOUNT_STATE_DIR", mount.beside("state")).env("S3MOUNT_CACHE_DIR", mount.beside("cache"));
        let output = process::output(&mut command, PATIENCE);
        assert_eq!(output.status.code(), Some(64), "{output:?}");
        assert!(!is_mountpoint(mount.path()));
        String::from_utf8(output.stderr).unwrap()
    };
    let told = try_at(&taken);
    assert!(told.contains(&taken) && told.contains("in use") && told.contains("a port of its own"), "{told}");
    assert_eq!(told.lines().count(), 2, "{told}");
    // TEST-NET-1 (RFC 5737): no machine has it.
    let told = try_at("192.0.2.1:9102");
    assert!(told.contains("192.0.2.1:9102") && told.contains("an address of this machine"), "{told}");
}

#[test]
fn every_mount_of_a_machine_answers_for_itself() {
    let [one, other] = [0, 1].map(|_| Stage::on(Maker::Embedded).args(&LISTEN).mount());
    fs::write(one.at("f"), "x").unwrap();
    let put = "s3mount_s3_requests_total{operation=\"PutObject\",outcome=\"ok\"}";
    let of_other = Scrape::of(&other).value(put);
    wait_for("the request to be counted", PATIENCE, || (Scrape::of(&one).value(put) > of_other).then_some(()));
}
