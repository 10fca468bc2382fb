//! Words that are nearly right: what was probably meant is told, and what works goes on working.

use std::fs;
use std::time::Duration;

use s3mount::demo::{Server, ServerSettings};
use tokio::runtime::Runtime;

use super::{Stage, assert_quiet, assert_refused, can_mount, is_mounted, run, s3mount, text};

#[test]
fn a_misspelt_command_is_told_beside_what_went_wrong() {
    let mount = "did you mean `s3mount mount demo C`?";
    assert_refused(s3mount().args(["moutn", "demo", "C"]), 64, &["'C'", mount]);
    let stage = Stage::new();
    let status = format!("did you mean `s3mount status {}`?", stage.mountpoint.display());
    assert_refused(&mut stage.mount_command(&["statsu"]), 66, &["statsu", &status]);
    if !can_mount() {
        return;
    }
    stage.mount(&["s3://demo"]);
    assert_refused(&mut stage.mount_command(&["statsu"]), 64, &["already mounted", &status, "s3mount umount"]);
    let as_bucket = run(&mut stage.mount_command(&["mount", "statsu"]));
    assert!(!as_bucket.status.success() && !text(&as_bucket.stderr).contains("did you mean"), "{as_bucket:?}");
}

#[test]
fn a_bucket_whose_name_is_close_to_a_commands_is_mounted_without_a_word() {
    if !can_mount() {
        return;
    }
    let stage = Stage::new();
    let settings = ServerSettings {
        data_dir: stage.dir.path().join("other-data"),
        listen: ([127, 0, 0, 1], 0).into(),
        access_key: "s3mount".into(),
        secret_key: "s3mount-demo".into(),
        buckets: vec!["statsu".into()],
        latency: Duration::ZERO,
        mbps_per_connection: None,
    };
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(Server::start(settings)).unwrap();
    assert_quiet(&run(stage.mount_command(&["statsu"]).env("S3MOUNT_ENDPOINT_URL", server.endpoint_url())));
    assert_eq!(stage.status()["bucket"], "statsu");
    assert_quiet(&stage.umount());
}

#[test]
fn a_path_below_a_mountpoint_stands_for_its_mount_but_not_for_umount() {
    if !can_mount() {
        return;
    }
    let stage = Stage::new();
    stage.mount(&["s3://demo"]);
    let directory = stage.mountpoint.join("directory");
    fs::create_dir(&directory).unwrap();
    let first_line = format!("s3://demo on {}\n", stage.mountpoint.display());
    for path in [&directory, &directory.join("none")] {
        let status = text(&run(s3mount().arg("status").arg(path)).stdout);
        assert!(status.starts_with(&first_line), "{status}");
        assert_quiet(&run(s3mount().arg("sync").arg(path)));
        let mountpoint = format!("give the mountpoint: {}\n", stage.mountpoint.display());
        assert_refused(s3mount().arg("umount").arg(path), 64, &["is not a mountpoint", &mountpoint]);
    }
    assert!(is_mounted(&stage.mountpoint));
}

#[test]
fn doctor_of_a_directory_says_who_tells_of_a_mount() {
    for path in ["/mnt/x", "./x", "."] {
        let status = format!("s3mount status {path}\n");
        assert_refused(s3mount().args(["doctor", path]), 64, &["names no bucket", "BUCKET/PREFIX", &status]);
    }
}

#[test]
fn what_a_mount_hides_is_told_in_one_line_and_is_back_afterwards() {
    if !can_mount() {
        return;
    }
    let stage = Stage::new();
    let hidden = stage.mountpoint.join("hidden");
    fs::write(&hidden, "x").unwrap();
    let output = run(&mut stage.mount_command(&["s3://demo"]));
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    let told = format!("{} is not empty: what lies in it is hidden while it is mounted", stage.mountpoint.display());
    assert_eq!(text(&output.stderr), format!("s3mount: {told}\n"));
    let log = stage.status()["log"].as_str().map(fs::read_to_string).unwrap().unwrap();
    assert_eq!(log.matches(&told).count(), 1, "{log}");
    assert!(!hidden.exists());
    assert_quiet(&stage.umount());
    assert_eq!(fs::read(&hidden).unwrap(), b"x");
}
