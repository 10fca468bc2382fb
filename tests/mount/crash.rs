//! `kill -9`: what a close acknowledged is in the bucket, and its hook has run.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

use nix::sys::signal::Signal;

use crate::stage::{Dice, Maker, Mount, PATIENCE, Stage, process, sys, wait_for};

const ROUNDS: usize = 50;

/// Writes files until the mount dies; tells each close that answered 0 the moment it did.
fn write_until_death(dir: &Path, round: usize) -> Receiver<(String, Vec<u8>)> {
    let (acknowledged, ledger) = channel();
    let dir = dir.to_path_buf();
    std::thread::spawn(move || {
        for number in 0.. {
            // Every third is an overwrite of one of four files: versions, not only names.
            let name = if number % 3 == 2 { format!("again-{}", number % 4) } else { format!("r{round}-{number}") };
            let bytes = format!("round {round} number {number} ").repeat(1 + number * 37 % 400).into_bytes();
            let written = File::create(dir.join(&name)).and_then(|mut file| {
                file.write_all(&bytes)?;
                sys::close(file)
            });
            if written.is_err() || acknowledged.send((name, bytes)).is_err() {
                return;
            }
        }
    });
    ledger
}

/// Kills the mount after a number of acknowledged closes, at no particular moment of the next one.
fn one_round(mount: &mut Mount, round: usize, dice: &mut Dice, ledger: &mut BTreeMap<String, Vec<u8>>) -> usize {
    fs::create_dir_all(mount.at("uploads")).unwrap();
    let acknowledged = write_until_death(&mount.at("uploads"), round);
    let before_kill = dice.roll(12);
    let mut count = 0;
    let mut take = |(name, bytes): (String, Vec<u8>), ledger: &mut BTreeMap<String, Vec<u8>>| {
        ledger.insert(name, bytes);
        count += 1;
    };
    for _ in 0..before_kill {
        take(acknowledged.recv_timeout(PATIENCE).expect("closes succeed while the mount lives"), ledger);
    }
    for _ in 0..dice.roll(200_000) {
        std::hint::spin_loop();
    }
    mount.kill();
    while let Ok(entry) = acknowledged.recv_timeout(PATIENCE) {
        take(entry, ledger);
    }
    count
}

/// What is acknowledged and not in the bucket. An overwrite whose close never answered may have
/// replaced an acknowledged version: then a later one has to be there, whole.
fn lost(mount: &Mount, ledger: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let whole = |name: &str, found: &[u8]| {
        let text = String::from_utf8_lossy(found);
        let word: String = text.split_inclusive(' ').take(4).collect();
        name.starts_with("again-")
            && !word.is_empty()
            && text.len().is_multiple_of(word.len())
            && word.repeat(text.len() / word.len()) == text
    };
    let mut lost = Vec::new();
    for (name, bytes) in ledger {
        let found = mount.outside().get(&format!("uploads/{name}")).map(|object| object.bytes);
        match found {
            Some(found) if found == *bytes || whole(name, &found) => {}
            other => lost.push(format!("{name}: {:?} bytes", other.map(|bytes| bytes.len()))),
        }
    }
    lost
}

#[test]
fn every_committed_file_fires_its_hook_though_the_process_is_killed() {
    let mut mount = Stage::on(Maker::Embedded).hooks(&super::hooks_run::sha256sum_hooks()).mount();
    let mut dice = Dice::new(11);
    let mut ledger = BTreeMap::new();
    for round in 0..ROUNDS {
        one_round(&mut mount, round, &mut dice, &mut ledger);
        mount.start();
    }
    assert_eq!(lost(&mount, &ledger), Vec::<String>::new());
    for name in ledger.keys() {
        let key = format!("uploads/{name}");
        // The hook may still be at work on the last versions; each ends with the sum of what is there.
        wait_for(&format!("the right {key}.sha256"), PATIENCE * 4, || {
            let sum = mount.outside().get(&format!("{key}.sha256"))?;
            let wanted = super::hooks_run::sha256_line(&mount.outside().bytes(&key), name);
            (sum.bytes == wanted.into_bytes()).then_some(())
        });
    }
}

#[test]
fn a_dead_mount_is_cleaned_by_the_next_start() {
    let mut mount = Stage::on(Maker::Embedded).mount();
    fs::write(mount.at("f"), "x").unwrap();
    mount.kill();
    assert_eq!(fs::read_dir(mount.path()).unwrap_err().raw_os_error(), Some(libc::ENOTCONN));
    mount.start();
    assert_eq!(fs::read(mount.at("f")).unwrap(), b"x");
}

#[test]
fn umount_of_a_dead_mount_cleans_it() {
    let mut mount = Stage::on(Maker::Embedded).mount();
    mount.kill();
    let output = process::output(mount.command().arg("umount").arg(mount.path()), PATIENCE);
    assert!(output.status.success(), "{output:?}");
    assert!(!crate::stage::is_mountpoint(mount.path()));
}

#[test]
fn killed_twice_in_a_row_it_still_recovers() {
    let mut mount = Stage::on(Maker::Embedded).mount();
    let file = File::create(mount.at("empty-at-first-close")).unwrap();
    drop(file);
    fs::write(mount.at("f"), "acknowledged").unwrap();
    for _ in 0..3 {
        mount.kill();
        mount.spawn();
    }
    mount.kill();
    mount.start();
    assert_eq!(fs::read(mount.at("f")).unwrap(), b"acknowledged");
    wait_for("the empty file", PATIENCE, || mount.outside().get("empty-at-first-close"));
}

#[test]
fn a_directory_rename_cut_in_two_is_finished_by_the_next_start() {
    let mut mount = Stage::on(Maker::Embedded).mount();
    fs::create_dir(mount.at("from")).unwrap();
    for number in 0..120 {
        fs::write(mount.at(&format!("from/f{number}")), number.to_string()).unwrap();
    }
    let (from, to) = (mount.at("from"), mount.at("to"));
    let renaming = std::thread::spawn(move || fs::rename(from, to).is_ok());
    wait_for("the rename to be under way", PATIENCE, || (!mount.outside().keys("to/").is_empty()).then_some(()));
    mount.kill();
    let answered = renaming.join().unwrap();
    mount.start();
    // Under way or done: afterwards every file is there once, under the new name if it was answered.
    let (old, new) = wait_for("one whole directory", PATIENCE, || {
        let count = |dir: &str| fs::read_dir(mount.at(dir)).map_or(0, Iterator::count);
        let (old, new) = (count("from"), count("to"));
        (old + new == 120 && (old == 0 || new == 0)).then_some((old, new))
    });
    assert!(!answered || (old, new) == (0, 120));
    let dir = if new == 120 { "to" } else { "from" };
    for number in 0..120 {
        assert_eq!(fs::read_to_string(mount.at(&format!("{dir}/f{number}"))).unwrap(), number.to_string());
    }
}

#[test]
fn a_multipart_upload_cut_by_a_kill_leaves_the_old_object_and_no_upload() {
    let mut mount = Stage::on(Maker::Embedded).mount();
    fs::write(mount.at("big"), "the old version").unwrap();
    // A process of its own, that closes once: a close by a child, or before anything is written, makes
    // the draft what the next start stores.
    fs::write(mount.beside("source"), vec![1; 100 << 20]).unwrap();
    let mut command = Command::new("cp");
    command.arg("--sparse=never").arg(mount.beside("source")).arg(mount.at("big"));
    let mut writer = process::spawn(command, Signal::SIGKILL);
    // Once a part is sent, the journal knows the upload.
    wait_for("parts under way", PATIENCE, || {
        let parts = mount.status()["requests"]["UploadPart"].as_u64().unwrap_or(0);
        (parts > 0 || writer.try_wait().unwrap().is_some()).then_some(())
    });
    mount.kill();
    let closed = process::wait(&mut writer, PATIENCE).expect("cp ends with its mount").success();
    mount.start();
    let wanted: usize = if closed { 100 << 20 } else { "the old version".len() };
    let found = mount.outside().bytes("big").len();
    assert!(found == wanted || found == 100 << 20, "a torn object of {found} bytes");
    wait_for("the upload's end", PATIENCE, || mount.outside().pending_uploads().is_empty().then_some(()));
}

/// A program that starts another one while it writes has closed what it had written by then (close on
/// exec). Its own close is the last word, also if a crash comes before that is noted here.
#[test]
fn what_was_written_after_a_childs_close_is_not_taken_for_somebody_elses() {
    for (point, rest) in [("put-after", 10), ("upload-completed", 17 << 20)] {
        let mut mount = Stage::on(Maker::Embedded).prepare();
        mount.crash_at(Some(point));
        mount.start();
        let mut file = File::create(mount.at("f")).unwrap();
        file.write_all(b"before").unwrap();
        assert!(Command::new("true").status().unwrap().success());
        file.write_all(&vec![b'x'; rest]).unwrap();
        sys::close(file).unwrap_err();
        mount.wait_end(PATIENCE);
        mount.crash_at(None);
        mount.start();
        assert_eq!(mount.conflicts(), Vec::<String>::new(), "{point}: {}", mount.log());
        assert_eq!(fs::metadata(mount.at("f")).unwrap().len(), 6 + rest as u64, "{point}");
    }
}
