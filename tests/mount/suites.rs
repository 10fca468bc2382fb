//! Suites that others wrote: pjdfstest and fsx, run by `scripts/test` (they take minutes).
//!
//! Expectations are pinned in `tests/suites/`: what may fail, and why, line by line.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use s3mount::demo::{FaultKind, Server, ServerSettings};

use crate::stage::servers::suite;
use crate::stage::{Endpoint, Maker, Stage, process, sys};

const SUITES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suites");

/// Cases of pjdfstest that must pass at least (of 385 that run on a local ext4).
const LEAST_PASSED: usize = 335;

/// `name: outcome` of every case that pjdfstest ran.
fn outcomes(printed: &str) -> BTreeMap<String, String> {
    printed
        .lines()
        .filter(|line| line.contains("::") && !line.starts_with(char::is_whitespace))
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, outcome)| (name.trim().to_owned(), outcome.to_owned()))
        .collect()
}

/// Names of the cases that may fail: one a line, `#` begins a comment.
fn expected_failures() -> BTreeSet<String> {
    let text = fs::read_to_string(Path::new(SUITES).join("pjdfstest-expected.txt")).unwrap();
    let names = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[test]
#[ignore = "takes minutes: scripts/test runs it"]
fn pjdfstest_fails_only_where_one_object_cannot_be_a_file() {
    let mut mount = Stage::on(Maker::Embedded).args(&["--allow-other"]).mount();
    sys::chmod(mount.path(), 0o755).unwrap();
    let elsewhere = tempfile::tempdir_in("/var/tmp").unwrap();
    sys::chmod(elsewhere.path(), 0o777).unwrap();
    let mut command = Command::new(suite("pjdfstest"));
    command.arg("-c").arg(Path::new(SUITES).join("pjdfstest.toml")).arg("-p").arg(mount.path());
    command.arg("-s").arg(elsewhere.path()).env("NO_COLOR", "1");
    let output = process::output(&mut command, Duration::from_secs(20 * 60));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("pjdfstest.out"), &printed).unwrap();
    assert!(mount.is_alive(), "the daemon died");
    let outcomes = outcomes(&printed);
    let named = |wanted: &str| -> BTreeSet<String> {
        outcomes.iter().filter(|(_, outcome)| *outcome == wanted).map(|(name, _)| name.clone()).collect()
    };
    let (passed, failed) = (named("ok"), named("FAILED"));
    let expected = expected_failures();
    eprintln!(
        "pjdfstest: {} passed, {} failed, {} skipped",
        passed.len(),
        failed.len(),
        outcomes.len() - passed.len() - failed.len()
    );
    let surprises: Vec<_> = failed.difference(&expected).collect();
    assert!(surprises.is_empty(), "{} unexpected failures: {surprises:#?}", surprises.len());
    let outdated: Vec<_> = expected.intersection(&passed).collect();
    assert!(outdated.is_empty(), "these pass now, take them off the list: {outdated:#?}");
    assert!(passed.len() >= LEAST_PASSED, "only {} passed", passed.len());
}

/// Random operations of one profile of fsx; `S3MOUNT_SOAK_FSX` says how many else.
const OPERATIONS: &str = "5000";

/// One profile of fsx, each read compared with what it has to be. Nothing is cached on disk, and the
/// least in memory.
fn fsx(profile: &str) {
    fsx_on(profile, Stage::on(Maker::Embedded).args(&["--memory", "16M", "--cache-size", "0"]));
}

fn fsx_on(profile: &str, stage: Stage) {
    let mut mount = stage.mount();
    let operations = std::env::var("S3MOUNT_SOAK_FSX").unwrap_or_else(|_| OPERATIONS.to_owned());
    let artifacts = tempfile::tempdir().unwrap();
    let mut command = Command::new(suite("fsx"));
    command.args(["-N", &operations, "-S", "20"]).arg("-P").arg(artifacts.path());
    command.arg("-f").arg(Path::new(SUITES).join(format!("fsx-{profile}.toml"))).arg(mount.at("file"));
    let output = process::output(&mut command, Duration::from_hours(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    let tail: Vec<&str> = said.lines().rev().take(40).collect();
    assert!(output.status.success(), "fsx {profile}: {}\n{}", output.status, tail.join("\n"));
    assert!(mount.is_alive(), "the daemon died");
}

#[test]
#[ignore = "takes minutes: scripts/test runs it"]
fn fsx_reads_and_writes() {
    fsx("plain");
}

#[test]
#[ignore = "takes minutes: scripts/test runs it"]
fn fsx_through_mappings() {
    fsx("mmap");
}

#[test]
#[ignore = "takes minutes: scripts/test runs it"]
fn fsx_with_closes_and_syncs() {
    fsx("reopen");
}

#[test]
#[ignore = "takes minutes: scripts/test runs it"]
fn fsx_with_holes_and_copies() {
    fsx("holes");
}

#[test]
#[ignore = "takes minutes: scripts/test runs it"]
fn fsx_with_a_tiny_cache_and_large_files() {
    fsx("large");
}

/// Of a hundred requests two fail, and have to be sent again.
#[test]
#[ignore = "takes minutes: scripts/test runs it"]
fn fsx_while_requests_fail() {
    let data = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let settings = ServerSettings {
        data_dir: data.path().to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        access_key: "s3mount".to_owned(),
        secret_key: "s3mount-demo".to_owned(),
        buckets: Vec::new(),
        latency: Duration::ZERO,
        mbps_per_connection: None,
    };
    let server = runtime.block_on(Server::start(settings)).unwrap();
    let endpoint = Endpoint { url: server.endpoint_url(), access_key: "s3mount", secret: "s3mount-demo" };
    let kinds =
        [FaultKind::Status(503), FaultKind::Status(500), FaultKind::ResetBefore, FaultKind::AppliedThenLostReply];
    let stage = Stage::at(endpoint).args(&["--memory", "16M", "--cache-size", "0"]);
    server.faults().regularly(50, &kinds);
    fsx_on("reopen", stage);
    runtime.block_on(server.stop());
}
