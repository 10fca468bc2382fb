//! Credentials that expire, or are replaced, while files are open: no operation fails.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use s3mount::demo::{Server, ServerSettings};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::stage::{Endpoint, Outside, PATIENCE, Stage, sys, wait_for};

/// A server whose keys can be replaced, and what a mount is told of them.
struct Place {
    runtime: Runtime,
    server: Option<Server>,
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let (dir, runtime) = (tempfile::tempdir().unwrap(), Runtime::new().unwrap());
        let settings = ServerSettings {
            data_dir: dir.path().join("data"),
            listen: ([127, 0, 0, 1], 0).into(),
            access_key: "first".to_owned(),
            secret_key: "first".to_owned(),
            buckets: Vec::new(),
            latency: Duration::ZERO,
            mbps_per_connection: None,
        };
        let server = Some(runtime.block_on(Server::start(settings)).unwrap());
        Self { runtime, server, dir }
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    fn endpoint(&self, key: &'static str) -> Endpoint {
        Endpoint { url: self.server().endpoint_url(), access_key: key, secret: key }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The next keys, which `tell` hands to the mount before the old ones end.
    fn replace(&self, key: &str, tell: impl Fn(&str)) {
        tell(key);
        self.server().replace_keys(key, key);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop());
        }
    }
}

/// A mount that keeps nothing that it has read, with its credentials from a file.
fn stage(place: &Place, file: &Path) -> Stage {
    let file = file.to_str().unwrap();
    Stage::at(place.endpoint("first")).args(&["--credentials-file", file, "--cache-size", "0", "--memory", "16M"])
}

fn static_keys(file: &Path, key: &str) {
    fs::write(file, format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {key}\n")).unwrap();
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| (index / 4096 + index % 251) as u8).collect()
}

#[test]
fn a_reader_and_a_writer_go_on_when_the_file_has_other_keys() {
    let place = Place::new();
    let file = place.file("credentials");
    static_keys(&file, "first");
    let mut mount = stage(&place, &file).prepare();
    let (large, body) = (pattern(48 << 20), pattern(40 << 20));
    mount.outside().put("large", &large);
    mount.start();

    let mut reader = File::open(mount.at("large")).unwrap();
    let mut read = vec![0; 1 << 20];
    reader.read_exact(&mut read).unwrap();
    let mut writer = File::create(mount.at("new")).unwrap();
    let (begin, rest) = body.split_at(30 << 20);
    writer.write_all(begin).unwrap();
    let replace = |key: &str| place.replace(key, |key| static_keys(&file, key));

    replace("second");
    reader.seek(SeekFrom::Start(40 << 20)).unwrap();
    let mut last = Vec::new();
    reader.read_to_end(&mut last).unwrap();
    assert!(last == large[40 << 20..], "what was read across the change");
    replace("third");
    writer.write_all(rest).unwrap();
    sys::close(writer).unwrap();
    replace("fourth");
    fs::write(mount.at("small"), "closed").unwrap();
    replace("fifth");
    let mut appending = OpenOptions::new().append(true).open(mount.at("small")).unwrap();
    appending.write_all(b", and more").unwrap();
    replace("sixth");
    appending.sync_all().unwrap();
    replace("seventh");
    fs::rename(mount.at("small"), mount.at("renamed")).unwrap();
    assert!(fs::remove_file(mount.at("large")).is_ok());
    replace("eighth");
    mount.settle();
    drop((reader, appending));

    let outside = Outside::new(&place.endpoint("eighth")).with_bucket(mount.outside().bucket());
    assert!(outside.bytes("new") == body, "what was written across the change");
    assert_eq!(outside.bytes("renamed"), b"closed, and more");
    mount.stop();
}

#[test]
fn a_process_is_asked_again_before_what_it_gave_expires() {
    let place = Place::new();
    let (file, script, key, runs) = (place.file("file"), place.file("script"), place.file("key"), place.file("runs"));
    let text = format!(
        "#!/bin/sh\necho run >>'{}'\nprintf '{{\"Version\":1,\"AccessKeyId\":\"%s\",\"SecretAccessKey\":\"%s\",\
         \"Expiration\":\"%s\"}}' $(cat '{key}') $(cat '{key}') $(date -u -d '4 seconds' +%FT%TZ)\n",
        runs.display(),
        key = key.display(),
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&file, format!("[default]\ncredential_process = {}\n", script.display())).unwrap();
    fs::write(&key, "first").unwrap();
    let mut mount = stage(&place, &file).mount();

    let runs = || fs::read_to_string(&runs).unwrap().lines().count();
    let mut writer = File::create(mount.at("log")).unwrap();
    let (begun, mut lines) = (runs(), 0);
    wait_for("two renewals", PATIENCE, || {
        writer.write_all(b"line\n").unwrap();
        writer.sync_all().unwrap();
        lines += 1;
        (runs() >= begun + 2).then_some(())
    });
    let refused = place.server().requests().iter().filter(|request| matches!(request.status, 400..=403)).count();
    assert_eq!(refused, 0, "they expired before new ones were asked for");
    assert!(runs() < lines, "asked {} times for {lines} requests", runs());

    // And what ends before its time is not waited for.
    place.replace("second", |new| fs::write(&key, new).unwrap());
    writer.write_all(b"last\n").unwrap();
    sys::close(writer).unwrap();
    let outside = Outside::new(&place.endpoint("second")).with_bucket(mount.outside().bucket());
    assert_eq!(outside.bytes("log"), ["line\n".repeat(lines), "last\n".to_owned()].concat().as_bytes());
    mount.stop();
}
