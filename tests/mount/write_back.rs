//! `--write-back` through a real mount: closes that answer from the local disk, `s3mount sync`, and
//! everything there after `kill -9`, an outage, or both. And `--flush-open-after`.

use std::fs::{self, File};
use std::io::Write;
use std::process::Output;

use crate::programs::{grow_tree, listing};
use crate::stage::servers::Server;
use crate::stage::{Maker, Mount, PATIENCE, Stage, process, sys, wait_for};

/// What is known is believed for longer than any test takes: then files can be made without S3.
const BELIEVING: [&str; 7] = ["--write-back", "--attr-ttl", "10m", "--list-ttl", "10m", "--negative-ttl", "10m"];

fn believing_mount(server: &Server) -> Mount {
    let mount = Stage::at(server.endpoint()).args(&BELIEVING).mount();
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 0);
    mount
}

fn save(mount: &Mount, name: &str, bytes: &[u8]) {
    let mut file = File::create(mount.at(name)).unwrap();
    file.write_all(bytes).unwrap();
    sys::close(file).unwrap_or_else(|error| panic!("close of {name}: {error}\n{}", mount.log()));
}

fn sync(mount: &Mount) -> Output {
    process::output(mount.command().arg("sync").arg(mount.path()), PATIENCE * 2)
}

fn assert_synced(mount: &Mount) {
    let output = sync(mount);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}\n{}", mount.log());
}

#[test]
fn what_was_closed_in_an_outage_outlives_a_kill() {
    let mut server = Server::embedded(&[]);
    let mut mount = believing_mount(&server);
    server.stop();
    for number in 0..30 {
        save(&mount, &format!("f{number}"), format!("bytes {number}").as_bytes());
    }
    sys::chmod(&mount.at("f2"), 0o600).unwrap();
    let waiting = mount.status()["files"]["pending"]["files"].as_u64();
    assert_eq!(waiting, Some(30), "{}", mount.status()["files"]);
    mount.kill();
    server.start_again();
    mount.start();
    assert_eq!(fs::read(mount.at("f7")).unwrap(), b"bytes 7", "before it is sent");
    assert_synced(&mount);
    assert_eq!(mount.outside().keys("").len(), 30);
    assert_eq!(mount.outside().object("f2").metadata["file-permissions"], "0100600");
    assert_eq!(mount.outside().bytes("f29"), b"bytes 29");
}

#[test]
fn the_next_mount_without_the_option_sends_what_is_left() {
    let mut server = Server::embedded(&[]);
    let mut mount = believing_mount(&server);
    server.stop();
    save(&mount, "f", b"bytes");
    mount.kill();
    server.start_again();
    mount.set_args(&[]);
    mount.start();
    assert_eq!(mount.outside().bytes("f"), b"bytes", "before the mount is usable");
}

#[test]
fn sync_waits_for_s3_or_says_what_is_missing() {
    let mut server = Server::embedded(&[]);
    let mount = believing_mount(&server);
    server.stop();
    save(&mount, "f", b"bytes");
    let output = sync(&mount);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("not stored: f: "), "{output:?}");
    let text = process::run(mount.command().arg("status").arg(mount.path()));
    assert!(text.contains("1 closed files to be sent"), "{text}");
    assert_eq!(sys::getxattr(&mount.at("f"), "user.s3.pending").unwrap(), b"1");
    server.start_again();
    assert_synced(&mount);
    assert_eq!(mount.outside().bytes("f"), b"bytes");
    assert_eq!(sys::getxattr(&mount.at("f"), "user.s3.pending").unwrap(), b"0");
    assert_eq!(sys::listxattr(&mount.at("f")).unwrap(), Vec::<String>::new());
}

#[test]
fn files_reach_the_bucket_without_being_asked() {
    let mount = Stage::on(Maker::Embedded).args(&BELIEVING).mount();
    for number in 0..50 {
        save(&mount, &format!("f{number}.tmp"), b"bytes");
        fs::rename(mount.at(&format!("f{number}.tmp")), mount.at(&format!("f{number}"))).unwrap();
    }
    wait_for("all of them", PATIENCE, || {
        let keys = mount.outside().keys("");
        (keys.len() == 50 && !keys.iter().any(|key| key.contains(".tmp"))).then_some(())
    });
    wait_for("nothing waiting", PATIENCE, || {
        (mount.status()["files"]["pending"]["files"].as_u64() == Some(0)).then_some(())
    });
    assert_eq!(mount.outside().keys("").len(), 50);
}

#[test]
fn umount_sends_what_waits_and_names_what_it_cannot() {
    let mut server = Server::embedded(&[]);
    let mut mount = believing_mount(&server);
    save(&mount, "sent", b"1");
    mount.stop();
    assert_eq!(mount.outside().bytes("sent"), b"1");
    mount.start();
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 1);
    server.stop();
    save(&mount, "kept", b"2");
    let (output, status) = mount.umount();
    assert!(!output.status.success() && !status.success(), "{output:?} {status:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("not stored: kept"), "{output:?}");
    server.start_again();
    mount.start();
    assert_synced(&mount);
    assert_eq!(mount.outside().bytes("kept"), b"2");
}

#[test]
fn git_and_tar_do_not_notice() {
    let mut mount = Stage::on(Maker::Embedded).args(&["--write-back"]).mount();
    let local = tempfile::tempdir().unwrap();
    grow_tree(local.path());
    process::bash(
        local.path(),
        "tar cf tree.tar --format=posix tree; git init -q source; cd source; git config user.email t@example.com
         git config user.name t; for d in 1 2 3; do mkdir d$d; seq 100 | split -l 10 - d$d/f; done
         git add -A; git commit -qm 'thirty files'",
    );
    let local = local.path().display();
    process::bash(
        mount.path(),
        &format!(
            "tar xpf {local}/tree.tar; diff -r --no-dereference tree {local}/tree; tar df {local}/tree.tar
             git clone -q {local}/source copy; cd copy; git config user.email t@example.com; git config user.name t
             echo changed > d1/faa; git commit -qam change; git fsck --strict; git gc -q; git fsck --strict"
        ),
    );
    let wanted = listing(&mount.at("tree"));
    for _ in 0..2 {
        mount.kill();
        mount.start();
        process::bash(
            mount.path(),
            &format!(
                "diff -r --no-dereference tree {local}/tree; cd copy; git fsck --strict
                 [ -z \"$(git status --porcelain)\" ]; [ \"$(git log --oneline | wc -l)\" = 2 ]"
            ),
        );
        assert_eq!(listing(&mount.at("tree")), wanted);
        assert_synced(&mount);
    }
}

#[test]
fn a_log_that_stays_open_is_in_the_bucket_every_now_and_then() {
    let mount = Stage::on(Maker::Embedded).args(&["--flush-open-after", "200ms"]).mount();
    let mut log = File::create(mount.at("log")).unwrap();
    let mut wanted = Vec::new();
    for line in ["one\n", "two\n", "three\n"] {
        log.write_all(line.as_bytes()).unwrap();
        wanted.extend_from_slice(line.as_bytes());
        wait_for("the line in the bucket", PATIENCE, || {
            mount.outside().get("log").is_some_and(|object| object.bytes == wanted).then_some(())
        });
    }
    sys::close(log).unwrap();
    assert_eq!(mount.outside().bytes("log"), wanted);
}
