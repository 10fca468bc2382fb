//! unlink: the name goes at once, the bytes when the last descriptor does.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::Instant;

use crate::assert_errno;
use crate::stage::servers::Server;
use crate::stage::{Maker, Mount, PATIENCE, Stage, place, process, sys, wait_for};

#[test]
fn a_removed_file_is_gone_also_after_a_remount() {
    let mut place = place();
    fs::write(place.at("f"), "x").unwrap();
    fs::remove_file(place.at("f")).unwrap();
    assert_errno!(fs::metadata(place.at("f")), ENOENT);
    assert_errno!(fs::remove_file(place.at("f")), ENOENT);
    place.remount_elsewhere();
    assert_errno!(fs::metadata(place.at("f")), ENOENT);
}

#[test]
fn a_removed_file_stays_readable_for_who_has_it_open() {
    let place = place();
    let bytes: Vec<u8> = (0..2_000_000_u32).map(|at| (at % 241) as u8).collect();
    fs::write(place.at("f"), &bytes).unwrap();
    let mut file = File::open(place.at("f")).unwrap();
    let mut head = [0; 100];
    file.read_exact(&mut head).unwrap();
    fs::remove_file(place.at("f")).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut all = Vec::new();
    file.read_to_end(&mut all).unwrap();
    assert!(all == bytes);
}

#[test]
fn a_cold_object_removed_while_open_stays_readable() {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 239) as u8).collect();
    mount.outside().put("f", &bytes);
    mount.start();
    let mut file = File::open(mount.at("f")).unwrap();
    fs::remove_file(mount.at("f")).unwrap();
    let mut all = Vec::new();
    file.read_to_end(&mut all).unwrap();
    assert!(all == bytes);
}

#[test]
fn a_file_removed_while_open_can_still_be_written_and_does_not_come_back() {
    let mut place = place();
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(place.at("f")).unwrap();
    file.write_all(b"before").unwrap();
    fs::remove_file(place.at("f")).unwrap();
    file.write_all(b" after").unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "before after");
    sys::close(file).unwrap();
    assert_errno!(fs::metadata(place.at("f")), ENOENT);
    place.remount_elsewhere();
    assert_errno!(fs::metadata(place.at("f")), ENOENT);
}

#[test]
fn a_new_file_of_a_removed_open_ones_name_is_another_file() {
    let mut place = place();
    let mut old = File::create(place.at("f")).unwrap();
    old.write_all(b"old").unwrap();
    fs::remove_file(place.at("f")).unwrap();
    fs::write(place.at("f"), "new").unwrap();
    old.write_all(b" and more").unwrap();
    sys::close(old).unwrap();
    assert_eq!(fs::read(place.at("f")).unwrap(), b"new");
    place.remount_elsewhere();
    assert_eq!(fs::read(place.at("f")).unwrap(), b"new");
}

#[test]
fn unlink_of_a_directory_is_eisdir() {
    let place = place();
    fs::create_dir(place.at("d")).unwrap();
    assert_errno!(fs::remove_file(place.at("d")), EISDIR);
}

#[test]
fn the_object_goes_from_the_bucket_by_itself() {
    let mount = Stage::on(Maker::Embedded).mount();
    fs::create_dir(mount.at("d")).unwrap();
    fs::write(mount.at("d/f"), "x").unwrap();
    assert!(mount.outside().get("d/f").is_some());
    fs::remove_file(mount.at("d/f")).unwrap();
    assert_errno!(fs::metadata(mount.at("d/f")), ENOENT);
    wait_for("the object to go", PATIENCE, || mount.outside().get("d/f").is_none().then_some(()));
    assert!(fs::metadata(mount.at("d")).unwrap().is_dir(), "the directory stays when its last file goes");
}

#[test]
fn what_another_client_writes_after_a_removal_stays() {
    for maker in [Maker::Embedded, Maker::Ministack, Maker::Seaweedfs] {
        let mount = Stage::on(maker).mount();
        let names = ["a", "b", "c"];
        for batch in [&names[..], &names[1..2]] {
            for name in batch {
                fs::write(mount.at(name), name).unwrap();
            }
            for name in batch {
                fs::remove_file(mount.at(name)).unwrap();
            }
            mount.outside().put("b", b"theirs");
            mount.settle();
            assert_eq!(mount.outside().keys(""), ["b"], "{maker:?}");
            assert_eq!(mount.outside().bytes("b"), b"theirs", "{maker:?}");
            wait_for("their version under its name", PATIENCE, || {
                (fs::read(mount.at("b")).ok()? == b"theirs").then_some(())
            });
        }
    }
}

#[test]
fn fsync_of_a_directory_and_umount_wait_until_the_object_is_gone() {
    let mut mount = Stage::on(Maker::Embedded).mount();
    fs::create_dir(mount.at("d")).unwrap();
    for name in ["d/f", "g"] {
        fs::write(mount.at(name), "x").unwrap();
    }
    for _ in 0..10 {
        fs::write(mount.at("d/f"), "x").unwrap();
        fs::remove_file(mount.at("d/f")).unwrap();
        File::open(mount.at("d")).unwrap().sync_all().unwrap();
        assert_eq!(mount.outside().keys("d"), ["d/"]);
    }
    fs::remove_file(mount.at("g")).unwrap();
    mount.stop();
    assert_eq!(mount.outside().keys(""), ["d/"]);
}

#[test]
fn four_hundred_files_go_in_a_few_requests() {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    for number in 0..400 {
        mount.outside().put(&format!("t/part{:02}/f{number}", number / 10), b"x");
    }
    mount.start();
    let sum = |mount: &Mount| -> u64 {
        let requests = mount.status()["requests"].clone();
        let all = requests.as_object().unwrap().iter().filter(|(name, _)| *name != "ListObjectsV2");
        all.map(|(_, count)| count.as_u64().unwrap()).sum()
    };
    let (before, begun) = (sum(&mount), Instant::now());
    process::bash(mount.path(), "rm -rf t && [ -z \"$(ls -A)\" ]");
    mount.settle();
    // Where it takes long, what waits is sent twice a second.
    let most = 10 + 4 * begun.elapsed().as_secs();
    assert_eq!(mount.outside().keys(""), Vec::<String>::new());
    let requests = sum(&mount) - before;
    assert!(requests <= most, "{requests}: {}", mount.status()["requests"]);
}

#[test]
fn what_was_removed_is_gone_though_the_process_is_killed() {
    let mut mount = Stage::on(Maker::Embedded).mount();
    for round in 0..5 {
        process::bash(mount.path(), "mkdir d; for i in {1..20}; do echo $i > d/$i; done; rm -r d");
        fs::write(mount.at("again"), round.to_string()).unwrap();
        fs::remove_file(mount.at("again")).unwrap();
        mount.kill();
        mount.start();
        assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 0);
        assert_eq!(mount.outside().keys(""), Vec::<String>::new());
    }
}

#[test]
fn what_waits_in_an_outage_is_told_and_goes_with_the_next_start() {
    let mut server = Server::embedded(&[]);
    let mut mount = Stage::at(server.endpoint()).mount();
    for name in ["f", "kept"] {
        fs::write(mount.at(name), name).unwrap();
    }
    server.stop();
    fs::remove_file(mount.at("f")).unwrap();
    assert_eq!(mount.status()["files"]["removals_waiting"], 1);
    let words = process::run(mount.command().arg("status").arg(mount.path()));
    assert!(words.contains("1 removed and still in the bucket"), "{words}");
    let (output, status) = mount.umount();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && !status.success(), "{output:?} {status:?}");
    assert!(said.contains("f: removed here, but not from the bucket"), "{said}");
    server.start_again();
    assert_eq!(mount.outside().keys(""), ["f", "kept"]);
    mount.start();
    assert_errno!(fs::metadata(mount.at("f")), ENOENT);
    mount.settle();
    assert_eq!(mount.outside().keys(""), ["kept"]);
}

#[test]
fn a_directory_that_was_only_a_prefix_stays_when_its_last_file_goes() {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    mount.outside().put("d/f", b"x");
    mount.start();
    fs::remove_file(mount.at("d/f")).unwrap();
    assert!(fs::metadata(mount.at("d")).unwrap().is_dir());
    mount.remount();
    assert!(fs::metadata(mount.at("d")).unwrap().is_dir());
}

#[test]
fn a_dirty_file_removed_before_its_close_never_reaches_the_bucket() {
    let mut mount = Stage::on(Maker::Embedded).mount();
    let mut file = File::create(mount.at("temporary")).unwrap();
    file.write_all(b"secret").unwrap();
    fs::remove_file(mount.at("temporary")).unwrap();
    sys::close(file).unwrap();
    mount.stop();
    assert_eq!(mount.outside().keys(""), Vec::<String>::new());
}
