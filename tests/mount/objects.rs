//! Objects and files are the same thing, seen from both sides; boto3 is the independent witness.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use crate::stage::{Maker, Mount, PATIENCE, Stage, process, servers, sys, wait_for};

/// Runs Python with a boto3 client `s3` and the bucket's name `B`; answers what it prints, as JSON.
fn boto3(mount: &Mount, script: &str) -> serde_json::Value {
    let head = "import boto3, json, os, hashlib\n\
        from botocore.config import Config\n\
        B = os.environ['B']\n\
        s3 = boto3.client('s3', endpoint_url=os.environ['U'], region_name='us-east-1', \
        config=Config(s3={'addressing_style': 'path'}))\n";
    let mut command = Command::new(servers::venv("python"));
    command.args(["-c", &format!("{head}{script}")]).env("B", mount.outside().bucket());
    let endpoint = mount.endpoint();
    command.env("U", &endpoint.url).env("AWS_ACCESS_KEY_ID", endpoint.access_key);
    command.env("AWS_SECRET_ACCESS_KEY", endpoint.secret);
    let printed = process::run(&mut command);
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
}

#[test]
fn what_a_file_is_another_client_gets_embedded() {
    what_a_file_is_another_client_gets(Maker::Embedded);
}

#[test]
fn what_a_file_is_another_client_gets_ministack() {
    what_a_file_is_another_client_gets(Maker::Ministack);
}

#[test]
fn what_a_file_is_another_client_gets_seaweedfs() {
    what_a_file_is_another_client_gets(Maker::Seaweedfs);
}

fn what_a_file_is_another_client_gets(maker: Maker) {
    let mount = Stage::on(maker).mount();
    fs::create_dir(mount.at("dir")).unwrap();
    let bytes: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
    fs::write(mount.at("dir/some file.bin"), &bytes).unwrap();
    sys::chmod(&mount.at("dir/some file.bin"), 0o640).unwrap();
    chown(mount.at("dir/some file.bin"), Some(1000), Some(2000)).unwrap();
    sys::set_times(&mount.at("dir/some file.bin"), (1_700_000_000, 5), (1_600_000_000, 7)).unwrap();
    fs::File::open(mount.at("dir/some file.bin")).unwrap().sync_all().unwrap();
    let seen = boto3(
        &mount,
        "o = s3.get_object(Bucket=B, Key='dir/some file.bin')\n\
         body = o['Body'].read()\n\
         print(json.dumps({'sum': sum(body), 'len': len(body), 'sha': hashlib.sha256(body).hexdigest(), 'meta': o['Metadata']}))",
    );
    assert_eq!(seen["len"], 100_000);
    assert_eq!(seen["sum"], bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>());
    let expected = process::run(Command::new("sha256sum").arg(mount.at("dir/some file.bin")));
    assert_eq!(seen["sha"].as_str(), expected.split(' ').next());
    assert_eq!(seen["meta"]["file-permissions"], "0100640");
    assert_eq!(seen["meta"]["file-owner"], "1000");
    assert_eq!(seen["meta"]["file-group"], "2000");
    assert_eq!(seen["meta"]["file-mtime"], "1600000000000000007ns");
    assert_eq!(seen["meta"]["file-atime"], "1700000000000000005ns");
}

#[test]
fn what_another_client_puts_is_a_file() {
    for maker in [Maker::Embedded, Maker::Ministack, Maker::Seaweedfs] {
        let mut mount = Stage::on(maker).args(&["--attrs=full"]).prepare();
        let put = boto3(
            &mount,
            "s3.put_object(Bucket=B, Key='in/a b.txt', Body=b'from boto3', Metadata={'file-permissions': '0100751', \
             'file-owner': '77', 'file-group': '88', 'file-mtime': '1500000000000000009ns'})\n\
             print(json.dumps(s3.head_object(Bucket=B, Key='in/a b.txt')['LastModified'].timestamp()))",
        );
        assert!(put.is_number());
        mount.start();
        assert_eq!(fs::read(mount.at("in/a b.txt")).unwrap(), b"from boto3");
        let meta = fs::metadata(mount.at("in/a b.txt")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o751, 77, 88), "{maker:?}");
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_500_000_000, 9), "{maker:?}");
    }
}

#[test]
fn attributes_written_by_s3fs_and_rclone_are_read() {
    let mut mount = Stage::on(Maker::Embedded).args(&["--attrs=full"]).prepare();
    let outside = mount.outside();
    let s3fs = [("mode", "33184"), ("uid", "500"), ("gid", "501"), ("mtime", "1400000000")];
    outside.put_with("s3fs", b"x", &s3fs, None);
    outside.put_with("rclone", b"x", &[("mtime", "1400000001.5")], None);
    outside.put_with("plain", b"x", &[], None);
    mount.start();
    let s3fs = fs::metadata(mount.at("s3fs")).unwrap();
    assert_eq!((s3fs.mode() & 0o7777, s3fs.uid(), s3fs.gid(), s3fs.mtime()), (0o640, 500, 501, 1_400_000_000));
    let rclone = UNIX_EPOCH + Duration::new(1_400_000_001, 500_000_000);
    assert_eq!(sys::mtime(&mount.at("rclone")), rclone);
    let plain = fs::metadata(mount.at("plain")).unwrap();
    assert_eq!((plain.mode() & 0o7777, plain.uid()), (0o644, nix::unistd::getuid().as_raw()));
}

#[test]
fn metadata_and_content_type_of_others_survive_a_rewrite_and_a_chmod() {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    for key in ["written", "chmodded"] {
        mount.outside().put_with(key, b"old", &[("project", "apollo")], Some("image/x-own"));
    }
    mount.start();
    File::options().append(true).open(mount.at("written")).unwrap().write_all(b" new").unwrap();
    sys::chmod(&mount.at("chmodded"), 0o600).unwrap();
    for (key, bytes) in [("written", "old new"), ("chmodded", "old")] {
        let object = mount.outside().object(key);
        assert_eq!(object.bytes, bytes.as_bytes());
        assert_eq!(object.metadata.get("project").map(String::as_str), Some("apollo"), "{key}");
        assert_eq!(object.content_type.as_deref(), Some("image/x-own"), "{key}");
    }
}

#[test]
fn objects_of_other_clients_are_listed_without_a_head() {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    for number in 0..50 {
        mount.outside().put_with(&format!("lake/f{number:02}"), b"12345", &[("mode", "33184")], None);
    }
    mount.start();
    process::bash(mount.path(), "ls -l lake | tail -n +2 | wc -l | grep -qx 50; [ $(stat -c %s-%a lake/f07) = 5-644 ]");
    let requests = mount.status()["requests"].clone();
    assert_eq!(requests["HeadObject"].as_u64().unwrap_or(0), 0, "{requests}");
    sys::chmod(&mount.at("lake/f07"), 0o600).unwrap();
    mount.stop();
    mount.forget_state();
    mount.start();
    assert_eq!(fs::metadata(mount.at("lake/f07")).unwrap().mode() & 0o7777, 0o600, "the copy is ours");
}

#[test]
fn a_chmod_of_another_clients_object_is_seen_by_another_mount() {
    for maker in [Maker::Embedded, Maker::Ministack, Maker::Seaweedfs] {
        let mut mount = Stage::on(maker).prepare();
        mount.outside().put("theirs", b"12345");
        mount.start();
        sys::chmod(&mount.at("theirs"), 0o601).unwrap();
        fs::write(mount.at("large"), vec![7; 17 << 20]).unwrap();
        sys::chmod(&mount.at("large"), 0o602).unwrap();
        fs::rename(mount.at("large"), mount.at("moved")).unwrap();
        mount.stop();
        mount.forget_state();
        mount.start();
        for (name, mode) in [("theirs", 0o601), ("moved", 0o602)] {
            assert_eq!(fs::metadata(mount.at(name)).unwrap().mode() & 0o7777, mode, "{name} on {maker:?}");
        }
    }
}

#[test]
fn a_symlink_and_a_directory_of_another_client_are_what_they_say() {
    let mut mount = Stage::on(Maker::Embedded).args(&["--attrs=full"]).prepare();
    mount.outside().put_with("link", b"d/target", &[("file-permissions", "0120777")], None);
    mount.outside().put_with("d/", b"", &[("file-permissions", "0040700"), ("file-owner", "5")], None);
    mount.outside().put("d/target", b"x");
    mount.start();
    assert_eq!(fs::read_link(mount.at("link")).unwrap().to_str(), Some("d/target"));
    assert_eq!(fs::read(mount.at("link")).unwrap(), b"x");
    let dir = fs::metadata(mount.at("d")).unwrap();
    assert_eq!((dir.mode() & 0o7777, dir.uid()), (0o700, 5));
}

#[test]
fn changes_by_another_client_are_seen_after_the_ttl() {
    let mount = Stage::on(Maker::Embedded).args(&["--attr-ttl", "100ms", "--list-ttl", "100ms"]).mount();
    fs::write(mount.at("changed"), "old").unwrap();
    fs::write(mount.at("removed"), "old").unwrap();
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 2);
    mount.outside().put("changed", b"new and longer");
    mount.outside().put("added", b"new");
    mount.outside().delete("removed");
    wait_for("the changed bytes", PATIENCE, || {
        (fs::read(mount.at("changed")).ok()? == b"new and longer").then_some(())
    });
    wait_for("the added file", PATIENCE, || (fs::read(mount.at("added")).ok()? == b"new").then_some(()));
    wait_for("the removed file", PATIENCE, || fs::metadata(mount.at("removed")).is_err().then_some(()));
    wait_for("the new listing", PATIENCE, || {
        let mut names: Vec<_> = fs::read_dir(mount.path()).ok()?.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        (names == ["added", "changed"]).then_some(())
    });
}

#[test]
fn a_prefix_is_a_world_of_its_own() {
    let mut mount = Stage::on(Maker::Embedded).prefix("team/data").prepare();
    mount.outside().put("team/data/f", b"inside");
    mount.outside().put("team/secret", b"outside");
    mount.start();
    assert_eq!(fs::read(mount.at("f")).unwrap(), b"inside");
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 1);
    fs::write(mount.at("new"), "x").unwrap();
    fs::create_dir(mount.at("d")).unwrap();
    symlink("../../secret", mount.at("link")).unwrap();
    assert_eq!(
        mount.outside().keys(""),
        ["team/data/d/", "team/data/f", "team/data/link", "team/data/new", "team/secret"]
    );
    assert!(fs::read(mount.at("link")).is_err(), "no name in the bucket leads out of the prefix");
}

#[test]
fn keys_are_the_paths_byte_by_byte() {
    let mount = Stage::on(Maker::Embedded).mount();
    let names = ["a b+c", "100%", "%2F", "new\nline", "日本語", "back\\slash", "?query#frag", "&<>'\""];
    for name in names {
        fs::write(mount.at(name), name).unwrap();
    }
    let seen = boto3(&mount, "print(json.dumps(sorted(o['Key'] for o in s3.list_objects_v2(Bucket=B)['Contents'])))");
    let mut wanted: Vec<&str> = names.to_vec();
    wanted.sort_unstable();
    assert_eq!(seen, serde_json::json!(wanted));
    for name in names {
        assert_eq!(mount.outside().bytes(name), name.as_bytes());
    }
}

#[test]
fn an_object_is_stored_in_one_request_with_its_attributes() {
    let mount = Stage::on(Maker::Embedded).mount();
    fs::write(mount.beside("source"), vec![1; 5_000]).unwrap();
    sys::chmod(&mount.beside("source"), 0o604).unwrap();
    sys::set_times(&mount.beside("source"), (1, 0), (1_111_111_111, 222)).unwrap();
    process::bash(mount.path(), "cp -p ../source f");
    let object = mount.outside().object("f");
    assert_eq!(object.metadata.get("file-permissions").map(String::as_str), Some("0100604"));
    assert_eq!(object.metadata.get("file-mtime").map(String::as_str), Some("1111111111000000222ns"));
}
