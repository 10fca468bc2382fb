//! Several buckets in one mount: each is a directory in the root, and the root is nothing else.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use serde_json::Value;

use super::guests;
use super::hooks_command::hooks;
use crate::assert_errno;
use crate::stage::servers::Server;
use crate::stage::{Maker, Mount, Outside, PATIENCE, Stage, fresh_bucket_name, process, sys, wait_for};

/// `photos` is a bucket, `logs` is `2026/` of another.
struct House {
    mount: Mount,
    photos: Outside,
    logs: Outside,
}

impl House {
    fn prepare(stage: Stage) -> Self {
        let mut mount = stage.prepare();
        let photos = mount.outside().clone();
        let logs = photos.clone().with_bucket(&fresh_bucket_name());
        logs.create_bucket(logs.bucket());
        mount.set_source(&format!("photos={},logs=s3://{}/2026", photos.bucket(), logs.bucket()));
        Self { mount, photos, logs }
    }

    fn new() -> Self {
        let mut house = Self::prepare(Stage::on(Maker::Embedded));
        house.mount.start();
        house
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.mount.at(name)
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

fn number(mount: &Mount, part: &str, name: &str) -> u64 {
    mount.status()[part][name].as_u64().unwrap_or(0)
}

fn says(mount: &Mount, args: &[&str], path: &Path) -> String {
    process::run(mount.command().args(args).arg(path))
}

#[test]
fn each_bucket_is_a_directory_of_the_root() {
    let house = House::new();
    assert_eq!(names(house.mount.path()), ["logs", "photos"]);
    house.photos.put("a/theirs", b"1");
    house.logs.put("2026/theirs", b"2");
    house.logs.put("2025/older", b"3");
    assert_eq!((names(&house.at("photos")), names(&house.at("logs"))), (vec!["a".into()], vec!["theirs".into()]));
    assert_eq!(fs::read(house.at("photos/a/theirs")).unwrap(), b"1");
    fs::write(house.at("photos/a/ours"), "4").unwrap();
    fs::create_dir(house.at("logs/d")).unwrap();
    fs::write(house.at("logs/d/ours"), "5").unwrap();
    assert_eq!(house.photos.keys(""), ["a/ours", "a/theirs"]);
    assert_eq!(house.logs.keys(""), ["2025/older", "2026/d/", "2026/d/ours", "2026/theirs"]);
    let found = process::bash(house.mount.path(), "find . -type f | sort | tr '\\n' ' '");
    assert_eq!(found.trim(), "./logs/d/ours ./logs/theirs ./photos/a/ours ./photos/a/theirs");
    let source = format!("logs=s3://{}/2026,photos=s3://{}", house.logs.bucket(), house.photos.bucket());
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(table.lines().any(|line| line.starts_with(&format!("{source} {}", house.mount.path().display()))));
    let status = house.mount.status();
    assert_eq!(status["buckets"]["logs"], format!("s3://{}/2026", house.logs.bucket()));
    assert!(says(&house.mount, &["status"], house.mount.path()).starts_with(&source));
}

#[test]
fn files_and_directories_move_between_buckets_without_their_bytes_coming_here() {
    let house = House::new();
    let script = "set -e
        mkdir -p photos/d/e; head -c 3000000 /dev/urandom > photos/big; echo small > photos/d/e/small
        : > photos/d/empty; ln -s e/small photos/d/link; chmod 640 photos/d/e/small; sha256sum photos/big > /dev/null";
    process::bash(house.mount.path(), script);
    sys::setxattr(&house.at("photos/d/e/small"), "user.note", b"kept", 0).unwrap();
    process::run(house.mount.command().arg("sync").arg(house.mount.path()));
    let big = fs::read(house.at("photos/big")).unwrap();
    let requests = || ["CopyObject", "PutObject"].map(|operation| number(&house.mount, "requests", operation));
    let [copies, puts] = requests();
    process::bash(house.mount.path(), "mv photos/big logs/big");
    assert_eq!(requests(), [copies + 1, puts]);
    process::bash(house.mount.path(), "mv photos/d logs/d && cp logs/big photos/copied && cp -a logs/d photos/again");
    house.mount.settle();
    assert!(house.logs.bytes("2026/big") == big && house.photos.bytes("copied") == big);
    assert_eq!(
        house.logs.keys(""),
        ["2026/big", "2026/d/", "2026/d/e/", "2026/d/e/small", "2026/d/empty", "2026/d/link"]
    );
    assert!(!house.photos.keys("").iter().any(|key| key.starts_with("d/") || key == "big"));
    for dir in ["logs/d", "photos/again"] {
        assert_eq!(fs::read(house.at(dir).join("link")).unwrap(), b"small\n");
        assert_eq!(sys::mode(&house.at(dir).join("e/small")) & 0o777, 0o640);
        assert_eq!(sys::getxattr(&house.at(dir).join("e/small"), "user.note").unwrap(), b"kept");
    }
    // Back over what is there, and away with all of it.
    fs::rename(house.at("logs/big"), house.at("photos/copied")).unwrap();
    process::bash(house.mount.path(), "rm -r logs/* photos/again");
    house.mount.settle();
    assert_eq!((house.photos.keys(""), house.logs.keys("")), (vec!["copied".to_owned()], Vec::new()));
}

#[test]
fn an_object_in_parts_moves_between_buckets_and_back() {
    let house = House::new();
    let bytes: Vec<u8> = (0..24 << 20).map(|at: u32| (at ^ (at >> 9)) as u8).collect();
    fs::write(house.at("photos/large"), &bytes).unwrap();
    fs::rename(house.at("photos/large"), house.at("logs/large")).unwrap();
    assert!(house.logs.bytes("2026/large") == bytes);
    // A change in it is copied around in the bucket where it lies now.
    process::bash(house.mount.path(), "printf X | dd of=logs/large bs=1 seek=20000000 conv=notrunc status=none");
    let changed = house.logs.bytes("2026/large");
    assert!(changed[20_000_000] == b'X' && changed[..20_000_000] == bytes[..20_000_000]);
    assert!(changed[20_000_001..] == bytes[20_000_001..]);
}

#[test]
fn a_directory_that_a_crash_left_in_both_buckets_is_moved_to_its_end() {
    let mut house = House::prepare(Stage::on(Maker::Embedded));
    for number in 0..5 {
        house.photos.put(&format!("d/{number}"), b"bytes");
    }
    house.mount.crash_at(Some("tree-between-copies:3"));
    house.mount.start();
    assert!(fs::rename(house.at("photos/d"), house.at("logs/d")).is_err());
    house.mount.wait_end(PATIENCE);
    house.mount.crash_at(None);
    house.mount.start();
    assert_eq!(names(&house.at("logs/d")), ["0", "1", "2", "3", "4"]);
    assert_eq!(house.photos.keys(""), [""; 0]);
}

#[test]
fn the_root_holds_its_buckets_and_nothing_else() {
    let mut house = House::new();
    fs::write(house.at("photos/f"), "bytes").unwrap();
    fs::create_dir(house.at("photos/d")).unwrap();
    assert_errno!(fs::write(house.at("f"), "bytes"), EPERM);
    assert_errno!(fs::create_dir(house.at("d")), EPERM);
    assert_errno!(symlink("photos", house.at("link")), EPERM);
    assert_errno!(sys::mknod(&house.at("pipe"), libc::S_IFIFO, 0o600, 0), EPERM);
    assert_errno!(fs::rename(house.at("photos/f"), house.at("f")), EPERM);
    assert_errno!(fs::rename(house.at("photos/d"), house.at("d")), EPERM);
    assert_errno!(fs::rename(house.at("photos"), house.at("pictures")), EPERM);
    assert_errno!(fs::rename(house.at("photos"), house.at("logs/photos")), EPERM);
    assert_errno!(fs::remove_dir(house.at("logs")), EPERM);
    assert_errno!(fs::remove_file(house.at("none")), ENOENT);
    assert_errno!(fs::create_dir(house.at("logs")), EEXIST);
    let told = "name=\"d\"";
    assert!(
        house.mount.log().lines().any(|line| line.contains("EPERM") && line.contains(told)),
        "{}",
        house.mount.log()
    );
    // An empty bucket is a directory all the same, and gets no marker for it.
    process::bash(house.mount.path(), "rm -r photos/*");
    house.mount.settle();
    assert_eq!((house.photos.keys(""), house.logs.keys("")), (Vec::<String>::new(), Vec::<String>::new()));
    house.mount.remount();
    assert_eq!(names(house.mount.path()), ["logs", "photos"]);
}

#[test]
fn the_directories_of_buckets_keep_their_attributes_over_a_remount() {
    let mut house = House::new();
    let identity = |path: &Path| {
        let meta = fs::metadata(path).unwrap();
        (meta.mode() & 0o7777, meta.uid(), meta.gid(), meta.ino())
    };
    let identities = |house: &House| ["", "photos", "logs"].map(|name| identity(&house.at(name)));
    for (name, mode) in [("", 0o751), ("photos", 0o750), ("logs", 0o700)] {
        sys::chmod(&house.at(name), mode).unwrap();
    }
    process::bash(house.mount.path(), "chown 12:34 photos logs; ls -l photos logs");
    let before = identities(&house);
    assert_eq!((before[1].0, before[1].1, before[2].0, before[2].2), (0o750, 12, 0o700, 34));
    house.mount.remount();
    process::bash(house.mount.path(), "ls -lR");
    assert_eq!(identities(&house), before);
    // Only a part of a bucket has a key that can tell of them.
    assert_eq!((house.photos.keys(""), house.logs.keys("")), (Vec::<String>::new(), vec!["2026/".to_owned()]));
}

#[test]
fn hooks_are_told_the_bucket_and_the_key_there() {
    let mut house = House::prepare(Stage::on(Maker::Embedded).hooks(""));
    let hook = |name: &str| {
        fs::write(house.mount.beside(&format!("{name}.wat")), guests::echoes(name)).unwrap();
        let events = format!("wasm = \"{name}.wat\"\nevents = [\"s3:Object{name}:*\"]");
        format!("[[hook]]\nname = \"{name}\"\n{events}\nmatch = [\"*/in/**\"]\noutput = \"photos/told/\"\n")
    };
    let settings = [hook("Created"), hook("Removed")].concat();
    fs::write(house.mount.beside("hooks.toml"), settings).unwrap();
    house.mount.start();
    fs::create_dir(house.at("logs/in")).unwrap();
    fs::create_dir(house.at("photos/in")).unwrap();
    let event = |bucket: &Outside, path: &str, key: &str, name: &str| {
        assert!(hooks(&house.mount, &["wait", house.mount.path().to_str().unwrap()]).status.success());
        let told = house.photos.bytes(if name.contains("Created") { "told/Created" } else { "told/Removed" });
        let told: Value = serde_json::from_slice(&told).unwrap();
        let s3 = &told["Records"][0]["s3"];
        let found =
            [&s3["bucket"]["name"], &s3["object"]["key"], &told["s3mount"]["path"], &told["Records"][0]["eventName"]];
        assert_eq!(found.map(|word| word.as_str().unwrap()), [bucket.bucket(), key, path, name]);
    };
    fs::write(house.at("logs/in/a b"), "1").unwrap();
    event(&house.logs, "logs/in/a b", "2026/in/a+b", "ObjectCreated:Put");
    fs::write(house.at("photos/in/f"), "2").unwrap();
    event(&house.photos, "photos/in/f", "in/f", "ObjectCreated:Put");
    fs::rename(house.at("photos/in/f"), house.at("logs/in/f")).unwrap();
    house.mount.settle();
    event(&house.logs, "logs/in/f", "2026/in/f", "ObjectCreated:Copy");
    event(&house.photos, "photos/in/f", "in/f", "ObjectRemoved:Delete");
}

#[test]
fn a_mount_of_one_of_the_buckets_shares_the_cache() {
    let mut house = House::new();
    let bytes: Vec<u8> = (0..3 << 20).map(|at: u32| (at ^ (at >> 7)) as u8).collect();
    house.logs.put("2026/object", &bytes);
    assert!(fs::read(house.at("logs/object")).unwrap() == bytes);
    let is_written = || number(&house.mount, "disk", "written_bytes") >= bytes.len() as u64;
    wait_for("the disk cache", PATIENCE, || is_written().then_some(()));
    house.mount.remount();
    assert!(fs::read(house.at("logs/object")).unwrap() == bytes);
    assert_eq!(number(&house.mount, "requests", "GetObject"), 0);

    let mut alone = house.mount.elsewhere();
    alone.set_source(house.logs.bucket());
    alone.set_args(&["--cache-dir", house.mount.beside("cache").to_str().unwrap()]);
    alone.start();
    assert!(fs::read(alone.at("2026/object")).unwrap() == bytes);
    assert_eq!(number(&alone, "requests", "GetObject"), 0);
}

#[test]
fn a_bucket_that_work_waits_for_cannot_be_taken_away_and_others_can_come_and_go() {
    let mut server = Server::embedded(&[]);
    let patient = ["--write-back", "--list-ttl=10m", "--negative-ttl=10m", "--attr-ttl=10m"];
    let mut house = House::prepare(Stage::at(server.endpoint()).args(&patient));
    let (photos, logs) = (house.photos.bucket().to_owned(), house.logs.bucket().to_owned());
    house.mount.start();
    assert_eq!(names(&house.at("photos")), [""; 0]);
    server.stop();
    fs::write(house.at("photos/waits"), "bytes").unwrap();
    house.mount.kill();
    server.start_again();

    for other in [format!("logs={logs}/2026"), format!("photos={logs}/else,logs={logs}/2026"), format!("photos={logs}")]
    {
        house.mount.set_source(&other);
        house.mount.spawn();
        assert_eq!(house.mount.wait_end(PATIENCE).code(), Some(64), "{other}");
    }
    let log = house.mount.log();
    assert!(log.contains("wait for the directory photos") && log.contains(&format!("s3://{photos}/")), "{log}");
    // One more is no matter.
    house.mount.set_source(&format!("photos={photos},logs={logs}/2026,more={logs}/more"));
    house.mount.start();
    assert_eq!(names(house.mount.path()), ["logs", "more", "photos"]);
    process::run(house.mount.command().arg("sync").arg(house.mount.path()));
    assert_eq!(house.photos.bytes("waits"), b"bytes");
    house.mount.stop();
    house.mount.set_source(&format!("logs={logs}/2026"));
    house.mount.start();
    assert_eq!(names(house.mount.path()), ["logs"]);
}

#[test]
fn a_file_names_the_buckets_and_commands_find_theirs() {
    let mut house = House::prepare(Stage::on(Maker::Embedded));
    house.photos.keep_versions();
    house.photos.put("old/f", b"bytes");
    let file = house.mount.beside("s3mount.toml");
    let mountpoint = house.mount.path().display();
    let buckets = format!("photos = \"{}\"\nlogs = \"s3://{}/2026\"", house.photos.bucket(), house.logs.bucket());
    let place = |name: &str| house.mount.beside(name).to_string_lossy().into_owned();
    let places = format!("state-dir = \"{}\"\ncache-dir = \"{}\"", place("state"), place("cache"));
    fs::write(&file, format!("mountpoint = \"{mountpoint}\"\n{places}\n[buckets]\n{buckets}\n")).unwrap();
    house.mount.set_source("");
    house.mount.set_args(&["--config", file.to_str().unwrap()]);
    house.mount.start();
    assert_eq!(names(house.mount.path()), ["logs", "photos"]);

    says(&house.mount, &["cache", "warm"], &house.at("photos/old"));
    assert_eq!(fs::read(house.at("photos/old/f")).unwrap(), b"bytes");
    fs::remove_file(house.at("photos/old/f")).unwrap();
    house.mount.settle();
    says(&house.mount, &["undelete"], &house.at("photos/old/f"));
    assert_eq!(fs::read(house.at("photos/old/f")).unwrap(), b"bytes");
    let versions: Value =
        serde_json::from_str(&says(&house.mount, &["versions", "--json"], &house.at("photos/old/f"))).unwrap();
    assert_eq!(versions.as_array().map(Vec::len), Some(1));
    assert_eq!(sys::getxattr(&house.at("photos/old/f"), "user.s3.etag").unwrap(), b"4b3a6218bb3e3a7303e8a171a60fcf92");
    let found = says(&house.mount, &["doctor", "--config"], &file);
    for bucket in [format!("s3://{} ", house.photos.bucket()), format!("s3://{}/2026 ", house.logs.bucket())] {
        assert!(found.lines().any(|line| line.starts_with("good") && line.contains(&bucket)), "{found}");
    }
    let both = format!("photos={},logs={}/2026", house.photos.bucket(), house.logs.bucket());
    let told = process::run(house.mount.command().args(["gc", &both]));
    assert!(told.contains("no incomplete uploads in logs=s3://"), "{told}");
}

#[test]
fn a_bucket_that_is_not_there_is_told_by_its_name() {
    let mut house = House::prepare(Stage::on(Maker::Embedded));
    house.mount.set_source(&format!("photos={},logs=no-such-bucket", house.photos.bucket()));
    house.mount.spawn();
    assert_eq!(house.mount.wait_end(PATIENCE).code(), Some(66));
    assert!(house.mount.log().contains("there is no bucket \"no-such-bucket\""), "{}", house.mount.log());
}
