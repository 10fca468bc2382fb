//! The disk of the state directory is full: what needs it says so, and the rest works.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::assert_errno;
use crate::stage::{Maker, PATIENCE, SmallDisk, Stage, process, sys, wait_for};

/// Takes all that is left.
fn fill(disk: &Path) {
    let mut file = fs::File::create(disk.join("of another program")).unwrap();
    for bytes in [1 << 20, 4096, 1] {
        while file.write_all(&vec![1; bytes]).is_ok() {}
    }
}

#[test]
fn files_are_removed_and_renamed_on_a_full_disk_and_none_is_half_done() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    for options in [&[][..], &["--write-back"]] {
        let place = tempfile::tempdir().unwrap();
        let disk = SmallDisk::new(place.path().join("disk"), 30 << 20);
        let state = disk.0.to_str().unwrap();
        let mount = Stage::on(Maker::Embedded).args(&[options, &["--state-dir", state]].concat()).mount();
        fs::create_dir(mount.at("d")).unwrap();
        fs::create_dir(mount.at("empty")).unwrap();
        for name in ["over", "target", "away", "removed", "d/f"] {
            fs::write(mount.at(name), name).unwrap();
        }
        // What waits to be sent has its name in the journal, which needs room to change it.
        process::run(mount.command().arg("sync").arg(mount.path()));
        fill(&disk.0);
        assert_errno!(fs::write(mount.at("new"), vec![1; 1 << 20]), ENOSPC);
        assert_eq!(mount.log().matches("the disk of the state directory is full").count(), 1, "{}", mount.log());
        fs::rename(mount.at("over"), mount.at("target")).unwrap();
        fs::rename(mount.at("away"), mount.at("d/moved")).unwrap();
        fs::remove_file(mount.at("removed")).unwrap();
        fs::remove_dir(mount.at("empty")).unwrap();
        sys::chmod(&mount.at("d/f"), 0o600).unwrap();
        let wanted = [("d/f", "d/f"), ("d/moved", "away"), ("target", "over")];
        wait_for("the bucket", PATIENCE, || {
            let is_file = |key: &&String| !key.ends_with('/') && *key != "new";
            let keys = mount.outside().keys("");
            let files: Vec<&String> = keys.iter().filter(is_file).collect();
            (files == wanted.map(|(key, _)| key)).then_some(())
        });
        for (key, bytes) in wanted {
            assert_eq!(mount.outside().bytes(key), bytes.as_bytes(), "{options:?}");
            assert_eq!(fs::read(mount.at(key)).unwrap(), bytes.as_bytes());
        }
        fs::remove_file(disk.0.join("of another program")).unwrap();
        fs::write(mount.at("again"), "there is room").unwrap();
        drop(mount);
    }
}
