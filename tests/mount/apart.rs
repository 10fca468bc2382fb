//! Several buckets of one mount on servers of their own, with credentials of their own.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::symlink;
use std::time::Duration;

use crate::assert_errno;
use crate::stage::servers::Inside;
use crate::stage::{Mount, Outside, PATIENCE, Stage, process, sys};

/// `near` and `far` are buckets of the same name on two servers, each with a secret of its own. `fixed` is a
/// part of another bucket of the second server, and only read.
struct House {
    mount: Mount,
    near: Outside,
    far: Outside,
    fixed: Outside,
    servers: [Inside; 2],
}

impl House {
    fn new() -> Self {
        let servers = [Inside::start("first"), Inside::start("second")];
        let mut mount = Stage::at(servers[0].endpoint()).prepare();
        let near = mount.outside().clone();
        let far = Outside::new(&servers[1].endpoint()).with_bucket(near.bucket());
        let fixed = far.clone().with_bucket("fixed-bucket");
        for bucket in [&far, &fixed] {
            bucket.create_bucket(bucket.bucket());
        }
        let keys = "[default]\naws_access_key_id = s3mount\naws_secret_access_key = second\n";
        fs::write(mount.beside("keys"), keys).unwrap();
        let reached = |bucket: &str| {
            let (url, keys) = (servers[1].endpoint().url, mount.beside("keys"));
            format!("bucket = \"{bucket}\"\nendpoint-url = \"{url}\"\ncredentials-file = \"{}\"\n", keys.display())
        };
        let text = format!(
            "mountpoint = \"{}\"\nattr-ttl = \"10m\"\nlist-ttl = \"10m\"\nnegative-ttl = \"10m\"\n[buckets]\nnear = \"{}\"\n[buckets.far]\n{}storage-class = [\"**/*.log=STANDARD_IA\"]\n\
             [buckets.fixed]\n{}read-only = true\n",
            mount.path().display(),
            near.bucket(),
            reached(far.bucket()),
            reached("fixed-bucket/part"),
        );
        let file = mount.beside("s3mount.toml");
        fs::write(&file, text).unwrap();
        mount.set_source("");
        mount.set_args(&["--config", file.to_str().unwrap()]);
        Self { mount, near, far, fixed, servers }
    }

    fn started() -> Self {
        let mut house = Self::new();
        house.mount.start();
        house
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.mount.at(name)
    }
}

#[test]
fn buckets_of_one_name_on_two_servers_are_two_directories() {
    let mut house = House::new();
    let (ours, theirs) = (vec![b'a'; 300_000], vec![b'b'; 300_000]);
    house.near.put("k", &ours);
    house.far.put("k", &theirs);
    house.fixed.put("part/k", b"fixed");
    house.mount.start();
    let read = |house: &House| ["near/k", "far/k", "fixed/k"].map(|name| fs::read(house.at(name)).unwrap());
    let wanted = [ours, theirs, b"fixed".to_vec()];
    assert!(read(&house) == wanted);
    house.mount.remount();
    assert!(read(&house) == wanted, "what is cached of one is not taken for the other");
    process::bash(house.mount.path(), "mkdir far/d near/d && echo 1 > far/d/f.log && echo 22 > near/d/f.log");
    assert_eq!((house.far.bytes("d/f.log"), house.near.bytes("d/f.log")), (b"1\n".to_vec(), b"22\n".to_vec()));
    let class = |bucket: &Outside| bucket.told("d/f.log").storage_class.map(|class| class.as_str().to_owned());
    assert_eq!((class(&house.far), class(&house.near)), (Some("STANDARD_IA".to_owned()), None));

    let (status, [one, other]) = (house.mount.status(), house.servers.each_ref().map(|server| server.endpoint().url));
    assert_eq!(status["endpoint"], format!("{other},{one}"));
    assert_eq!(status["read_only_buckets"], serde_json::json!(["fixed"]));
    let told = process::run(house.mount.command().args(["doctor", "--config"]).arg(house.mount.beside("s3mount.toml")));
    for (bucket, server) in [(house.near.bucket(), &one), (house.far.bucket(), &other), ("fixed-bucket/part", &other)] {
        let line = format!("s3://{bucket} at {server} can be listed");
        assert!(told.lines().any(|told| told.starts_with("good") && told.ends_with(&line)), "{line}: {told}");
    }
}

#[test]
fn between_servers_mv_copies_by_itself() {
    let house = House::started();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at ^ (at >> 9)) as u8).collect();
    fs::create_dir_all(house.at("near/d/e")).unwrap();
    fs::write(house.at("near/d/e/big"), &bytes).unwrap();
    sys::chmod(&house.at("near/d/e/big"), 0o640).unwrap();
    symlink("e/big", house.at("near/d/link")).unwrap();
    assert_errno!(fs::rename(house.at("near/d/e/big"), house.at("far/big")), EXDEV);
    assert_errno!(fs::rename(house.at("near/d"), house.at("far/d")), EXDEV);
    process::bash(house.mount.path(), "mv near/d far/moved");
    house.mount.settle();
    assert!(house.far.bytes("moved/e/big") == bytes && house.near.keys("").is_empty(), "{:?}", house.near.keys(""));
    assert_eq!(sys::mode(&house.at("far/moved/e/big")) & 0o777, 0o640);
    assert!(fs::read(house.at("far/moved/link")).unwrap() == bytes);
    // Within a server the bytes stay there.
    let copies = || house.servers[1].server().request_counts().get("CopyObject").copied().unwrap_or(0);
    let before = copies();
    fs::rename(house.at("far/moved/e/big"), house.at("far/again")).unwrap();
    assert_eq!(copies(), before + 1);
}

#[test]
fn a_bucket_that_is_read_only_is_asked_for_no_change() {
    let house = House::started();
    house.fixed.put("part/d/f", b"bytes");
    fs::write(house.at("far/ours"), "ours").unwrap();
    let (file, none) = (house.at("fixed/d/f"), house.at("fixed/d/none"));
    assert_eq!(fs::read(&file).unwrap(), b"bytes");
    let count = || house.servers[1].server().requests().len();
    let before = count();
    assert_errno!(fs::write(&none, "x"), EROFS);
    assert_errno!(fs::create_dir(&none), EROFS);
    assert_errno!(symlink("f", &none), EROFS);
    assert_errno!(OpenOptions::new().append(true).open(&file).map(drop), EROFS);
    assert_errno!(sys::truncate(&file, 0), EROFS);
    assert_errno!(sys::chmod(&file, 0o600), EROFS);
    assert_errno!(sys::setxattr(&file, "user.note", b"x", 0), EROFS);
    assert_errno!(fs::remove_file(&file), EROFS);
    assert_errno!(fs::remove_dir(house.at("fixed/d")), EROFS);
    assert_errno!(fs::rename(&file, &none), EROFS);
    assert_errno!(fs::rename(&file, house.at("far/f")), EROFS);
    assert_errno!(fs::rename(house.at("far/ours"), &none), EROFS);
    assert_errno!(sys::chmod(&house.at("fixed"), 0o700), EROFS);
    assert_eq!(count(), before, "{:?}", &house.servers[1].server().requests()[before..]);
    let written: Vec<_> =
        house.servers[1].server().requests().into_iter().filter(|one| one.bucket == "fixed-bucket").collect();
    let kinds = ["CreateBucket", "PutObject", "ListObjectsV2", "HeadObject", "GetObject"];
    assert!(written.iter().all(|one| kinds.contains(&one.operation.as_str())), "{written:?}");
    assert_eq!(written.iter().filter(|one| one.operation == "PutObject").count(), 1, "the one of this test");
    process::bash(house.mount.path(), "cp fixed/d/f far/copied");
    assert_eq!(house.far.bytes("copied"), b"bytes");
}

#[test]
fn a_table_with_an_option_of_the_mount_is_refused_with_its_line() {
    let mut house = House::new();
    let file = house.mount.beside("s3mount.toml");
    let text = fs::read_to_string(&file).unwrap();
    let line = text.lines().count() + 1;
    fs::write(&file, format!("{text}memory = \"1G\"\n")).unwrap();
    house.mount.spawn();
    assert_eq!(house.mount.wait_end(PATIENCE).code(), Some(64));
    let told = format!("{} line {line}: `memory` is no option of one bucket", file.display());
    assert!(house.mount.log().contains(&told), "{}", house.mount.log());
}

#[test]
fn a_bucket_that_changes_wait_for_is_not_made_read_only() {
    let mut house = House::new();
    let file = house.mount.beside("s3mount.toml");
    let text = format!("write-back = true\n{}", fs::read_to_string(&file).unwrap());
    fs::write(&file, &text).unwrap();
    house.mount.start();
    assert_eq!(fs::read_dir(house.at("far")).unwrap().count(), 0);
    house.servers[1].server().set_latency(PATIENCE);
    fs::write(house.at("far/waits"), "bytes").unwrap();
    house.mount.kill();
    house.servers[1].server().set_latency(Duration::ZERO);

    fs::write(&file, text.replace("[buckets.far]\n", "[buckets.far]\nread-only = true\n")).unwrap();
    house.mount.spawn();
    assert_eq!(house.mount.wait_end(PATIENCE).code(), Some(64));
    let told = "changes wait for the directory far, which is to be read only";
    assert!(house.mount.log().contains(told), "{}", house.mount.log());
    fs::write(&file, text).unwrap();
    house.mount.start();
    process::run(house.mount.command().arg("sync").arg(house.mount.path()));
    assert_eq!(house.far.bytes("waits"), b"bytes");
}
