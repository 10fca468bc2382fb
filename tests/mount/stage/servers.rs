//! S3 servers on loopback: the embedded one and two foreign ones, each started once per test run.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use s3mount::demo;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{Outside, process, wait_for};

/// Ports of a SeaweedFS, in a row.
const SEAWEEDFS_PORTS: u16 = 8;

/// Who made the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Maker {
    /// Ours: `s3mount demo --server-only`.
    Embedded,
    /// ministack from PyPI: the best semantics of the foreign ones, in memory.
    Ministack,
    /// SeaweedFS from PyPI: independent and fast, with directories of its own.
    Seaweedfs,
}

/// Where a server answers and who may ask.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub url: String,
    pub access_key: &'static str,
    pub secret: &'static str,
}

/// A running server; ends with this value.
pub struct Server {
    endpoint: Endpoint,
    child: Child,
    data: Option<TempDir>,
    port: u16,
    args: Vec<String>,
}

/// An embedded server in this process: what it was asked can be counted, and what goes wrong be chosen.
pub struct Inside {
    server: demo::Server,
    secret: &'static str,
    _data: TempDir,
    /// The server lives on it: dropped after it.
    _runtime: Runtime,
}

impl Inside {
    pub fn start(secret: &'static str) -> Self {
        let data = scratch("s3mount-server-");
        let settings = demo::ServerSettings {
            data_dir: data.path().to_owned(),
            listen: ([127, 0, 0, 1], 0).into(),
            access_key: "s3mount".to_owned(),
            secret_key: secret.to_owned(),
            buckets: Vec::new(),
            latency: Duration::ZERO,
            mbps_per_connection: None,
        };
        let runtime = Runtime::new().expect("runtime");
        let server = runtime.block_on(demo::Server::start(settings)).expect("the server starts");
        Self { server, secret, _data: data, _runtime: runtime }
    }

    pub fn server(&self) -> &demo::Server {
        &self.server
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint { url: self.server.endpoint_url(), access_key: "s3mount", secret: self.secret }
    }
}

/// The server of that maker which all tests share; ended, with its data, when the tests are over.
pub fn shared(maker: Maker) -> Endpoint {
    static SHARED: Mutex<BTreeMap<Maker, Server>> = Mutex::new(BTreeMap::new());
    extern "C" fn end_all() {
        // A panic must not leave a C function; what could not be taken ends with the process.
        if let Ok(mut servers) = SHARED.lock() {
            servers.clear();
        }
    }
    let instead = std::env::var("S3MOUNT_TEST_SERVER");
    let maker = match (maker, instead.as_deref()) {
        (Maker::Embedded, Ok("ministack")) => Maker::Ministack,
        (Maker::Embedded, Ok("seaweedfs")) => Maker::Seaweedfs,
        _ => maker,
    };
    let mut servers = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if servers.is_empty() {
        // libtest ends by exit(3) and drops no statics.
        // SAFETY: the handler is a function of this program and touches nothing that exit(3) ends.
        unsafe { libc::atexit(end_all) };
    }
    let server = servers.entry(maker).or_insert_with(|| match maker {
        Maker::Embedded => Server::embedded(&[]),
        Maker::Ministack => ministack(),
        Maker::Seaweedfs => seaweedfs(),
    });
    server.endpoint()
}

impl Server {
    /// An embedded server of one's own, to slow down, stop and start again.
    pub fn embedded(args: &[&str]) -> Self {
        let port = free_ports(1);
        let data = scratch("s3mount-server-");
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let child = spawn_embedded(port, data.path(), &args);
        let endpoint =
            Endpoint { url: format!("http://127.0.0.1:{port}"), access_key: "s3mount", secret: "s3mount-demo" };
        Self { endpoint, child, data: Some(data), port, args }.ready()
    }

    pub fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    /// Ends the server at once; its data stays.
    pub fn stop(&mut self) {
        self.child.kill().expect("kill the server");
        self.child.wait().expect("reap the server");
    }

    /// Starts the embedded server again, on the same port and data.
    pub fn start_again(&mut self) {
        let data = self.data.as_ref().expect("an embedded server has its data here");
        self.child = spawn_embedded(self.port, data.path(), &self.args);
        wait_for("the server's return", Duration::from_secs(60), || self.is_up().then_some(()));
    }

    /// Stops the server's processes without ending them: connections open, no answer comes.
    pub fn freeze(&self) {
        process::signal(self.child.id(), Signal::SIGSTOP);
    }

    /// The opposite of [`Server::freeze`].
    pub fn thaw(&self) {
        process::signal(self.child.id(), Signal::SIGCONT);
    }

    fn is_up(&self) -> bool {
        Outside::new(&self.endpoint).is_up()
    }

    fn ready(mut self) -> Self {
        wait_for(&self.endpoint.url.clone(), Duration::from_secs(60), || {
            let ended = self.child.try_wait().expect("wait for a server");
            assert!(ended.is_none(), "the server at {} ended with {ended:?}", self.endpoint.url);
            self.is_up().then_some(())
        });
        self
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for socket in seaweedfs_sockets(self.port) {
            let _ = std::fs::remove_file(socket);
        }
    }
}

fn spawn_embedded(port: u16, data: &Path, args: &[String]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_s3mount"));
    command.args(["demo", "--server-only", "--listen", &format!("127.0.0.1:{port}"), "--data"]).arg(data).args(args);
    command.stdout(log_file(&format!("embedded-{port}")));
    command.stderr(log_file(&format!("embedded-{port}")));
    process::spawn(command, Signal::SIGKILL)
}

/// Where `scripts/test` has put the foreign servers.
pub fn venv(program: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin").join(program);
    assert!(path.exists(), "{} is missing: `scripts/test` installs it", path.display());
    path
}

/// Where `scripts/test` has put pjdfstest and fsx.
pub fn suite(program: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/suites/bin").join(program);
    assert!(path.exists(), "{} is missing: `scripts/test` installs it", path.display());
    path
}

fn log_file(name: &str) -> std::fs::File {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = std::fs::OpenOptions::new().create(true).append(true).open(dir.join(format!("{name}.log")));
    file.expect("log of a server")
}

/// A directory for all that a server writes, its logs and pid files too; gone with the server.
fn scratch(prefix: &str) -> TempDir {
    tempfile::Builder::new().prefix(prefix).tempdir().expect("temporary directory")
}

fn ministack() -> Server {
    let port = free_ports(1);
    let data = scratch("s3mount-ministack-");
    let mut command = Command::new(venv("ministack"));
    command.env("AUTH", "true").env("BIND_HOST", "127.0.0.1").env("GATEWAY_PORT", port.to_string());
    command.env("TMPDIR", data.path());
    command.stdout(log_file("ministack")).stderr(log_file("ministack"));
    let endpoint = Endpoint { url: format!("http://127.0.0.1:{port}"), access_key: "test", secret: "test" };
    Server { endpoint, child: process::spawn(command, Signal::SIGKILL), data: Some(data), port, args: Vec::new() }
        .ready()
}

fn seaweedfs() -> Server {
    const IDENTITIES: &str = r#"{"identities":[{"name":"test","credentials":[{"accessKey":"test","secretKey":"test"}],
        "actions":["Admin","Read","Write","List","Tagging"]}]}"#;
    let data = scratch("s3mount-weed-");
    let config = data.path().join("s3.json");
    std::fs::write(&config, IDENTITIES).expect("identities file");
    std::fs::create_dir(data.path().join("data")).expect("data directory");
    let port = free_ports(SEAWEEDFS_PORTS);
    let mut command = Command::new(venv("weed"));
    command.args(["server", "-s3", "-iam=false", "-s3.iam=false", "-webdav=false", "-ip=127.0.0.1"]);
    // A bucket is a collection of seven volumes: room for as many buckets as there are tests.
    command.args(["-ip.bind=127.0.0.1", "-master.telemetry=false", "-volume.max=2000", "-s3.port.iceberg=0"]);
    command.args(["-s3.port.lance=0", "-master.volumeSizeLimitMB=256"]);
    command.arg(format!("-dir={}", data.path().join("data").display()));
    command.arg(format!("-s3.config={}", config.display()));
    let names = ["s3.port", "s3.port.grpc", "master.port", "master.port.grpc"];
    let names = names.into_iter().chain(["volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc"]);
    for (number, name) in (port..).zip(names) {
        command.arg(format!("-{name}={number}"));
    }
    command.env("TMPDIR", data.path());
    command.stdout(log_file("seaweedfs")).stderr(log_file("seaweedfs"));
    let endpoint = Endpoint { url: format!("http://127.0.0.1:{port}"), access_key: "test", secret: "test" };
    let child = process::spawn(command, Signal::SIGKILL);
    Server { endpoint, child, data: Some(data), port, args: Vec::new() }.ready()
}

/// It leaves these behind, in `/tmp` wherever its other files are, each named by one of its ports.
fn seaweedfs_sockets(port: u16) -> impl Iterator<Item = PathBuf> {
    let names = ["s3", "s3-grpc", "master-grpc", "volume-grpc", "filer", "filer-grpc"];
    let ports = port..port + SEAWEEDFS_PORTS;
    ports.flat_map(move |port| names.map(|name| PathBuf::from(format!("/tmp/seaweedfs-{name}-{port}.sock"))))
}

/// The first of `count` neighbouring free ports, below the range that the kernel gives to clients.
fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 1000).expect("below 1,000") * 10;
    for _ in 0..1000 {
        let first = 20_000 + (start + NEXT.fetch_add(count, Ordering::Relaxed)) % 12_000;
        if (first..first + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first;
        }
    }
    panic!("no free ports on loopback");
}
