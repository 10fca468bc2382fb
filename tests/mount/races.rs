//! What comes right after a close: the kernel has answered it, and lets the file go only later.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use std::time::Duration;

use crate::stage::servers::Server;
use crate::stage::{Mount, Stage, process, sys, wait_for};

/// A mount of a slow server: its answers leave room for the calls that follow.
fn slow() -> (Server, Mount) {
    let server = Server::embedded(&["--latency-ms", "5"]);
    let mount = Stage::at(server.endpoint()).mount();
    (server, mount)
}

/// Four threads, each making this many rounds on paths of its own.
fn race(mount: &Mount, rounds: usize, round: impl Fn(&Path, usize) + Sync) {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (mount, round) = (&mount, &round);
            scope.spawn(move || {
                for number in 0..rounds {
                    round(&mount.at(&format!("f{thread}-{}", number % 10)), number);
                }
            });
        }
    });
}

#[test]
fn a_chmod_right_after_a_close_is_not_lost() {
    let (_server, mut mount) = slow();
    race(&mount, 50, |path, round| {
        fs::write(path, round.to_string()).unwrap();
        sys::chmod(path, 0o640).unwrap();
        assert_eq!(sys::mode(path), 0o640);
        sys::chmod(path, 0o604).unwrap();
        sys::setxattr(path, "user.round", round.to_string().as_bytes(), 0).unwrap();
    });
    mount.stop();
    mount.forget_state();
    mount.start();
    for entry in fs::read_dir(mount.path()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(sys::mode(&path), 0o604, "{}", path.display());
        assert_eq!(sys::getxattr(&path, "user.round").unwrap(), fs::read(&path).unwrap(), "{}", path.display());
    }
}

#[test]
fn attributes_set_right_after_a_close_are_in_the_bucket_soon() {
    let (_server, mount) = slow();
    race(&mount, 30, |path, round| {
        fs::write(path, "x").unwrap();
        for seconds in 1..=3 {
            sys::set_times(path, (1, 0), (round as i64 * 10 + seconds, 0)).unwrap();
        }
        let key = path.file_name().unwrap().to_str().unwrap();
        let wanted = format!("{}000000000ns", round * 10 + 3);
        // Not by a later event, and not by an unmount.
        wait_for("the last mtime in the bucket", Duration::from_secs(5), || {
            (mount.outside().object(key).metadata.get("file-mtime")? == &wanted).then_some(())
        });
    });
}

#[test]
fn a_file_opened_right_after_a_close_is_stored_by_its_own_close_only() {
    let (_server, mount) = slow();
    race(&mount, 50, |path, round| {
        let _undisturbed = process::without_children();
        fs::write(path, "whole").unwrap();
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"half", 0).unwrap();
        let key = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(mount.outside().bytes(key), b"whole", "round {round}");
        std::os::unix::fs::FileExt::write_all_at(&file, b"both ", 0).unwrap();
        sys::close(file).unwrap();
        assert_eq!(mount.outside().bytes(key), b"both ", "round {round}");
    });
}

#[test]
fn an_unlink_right_after_a_close_leaves_no_object() {
    let (_server, mut mount) = slow();
    race(&mount, 50, |path, round| {
        fs::write(path, round.to_string()).unwrap();
        fs::remove_file(path).unwrap();
    });
    mount.stop();
    assert_eq!(mount.outside().keys(""), Vec::<String>::new());
}

#[test]
fn a_rename_right_after_a_close_moves_the_object() {
    let (_server, mut mount) = slow();
    fs::create_dir(mount.at("moved")).unwrap();
    race(&mount, 50, |path, round| {
        fs::write(path, round.to_string()).unwrap();
        let to = path.parent().unwrap().join("moved").join(path.file_name().unwrap());
        fs::rename(path, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), round.to_string());
    });
    mount.stop();
    let keys: BTreeSet<String> = mount.outside().keys("").into_iter().collect();
    assert!(keys.iter().all(|key| key.starts_with("moved/")), "{keys:?}");
    for key in keys.iter().filter(|key| *key != "moved/") {
        let round: usize = String::from_utf8(mount.outside().bytes(key)).unwrap().parse().unwrap();
        assert!(round >= 40, "{key} is of round {round}");
    }
}

#[test]
fn appends_right_after_a_close_are_all_there() {
    let (_server, mut mount) = slow();
    race(&mount, 50, |path, round| {
        use std::io::Write;
        let mut file = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        writeln!(file, "{round}").unwrap();
        sys::close(file).unwrap();
    });
    mount.stop();
    for key in mount.outside().keys("") {
        let text = String::from_utf8(mount.outside().bytes(&key)).unwrap();
        let wanted: Vec<String> =
            (0..50).filter(|round| key.ends_with(&format!("-{}", round % 10))).map(|round| round.to_string()).collect();
        assert_eq!(text.lines().collect::<Vec<_>>(), wanted, "{key}");
    }
}

#[test]
fn overwriting_right_after_a_close_leaves_the_last_version() {
    let (_server, mut mount) = slow();
    race(&mount, 50, |path, round| {
        fs::write(path, format!("{round:04}")).unwrap();
        fs::write(path, format!("{round}")).unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), round.to_string());
    });
    mount.stop();
    for key in mount.outside().keys("") {
        let round: usize = String::from_utf8(mount.outside().bytes(&key)).unwrap().parse().unwrap();
        assert!(round >= 40, "{key} is of round {round}");
    }
}

#[test]
fn a_directory_moved_right_after_its_files_were_closed_is_whole() {
    let (_server, mut mount) = slow();
    race(&mount, 8, |path, round| {
        let dir = path.with_extension(format!("dir{round}"));
        fs::create_dir(&dir).unwrap();
        for number in 0..5 {
            fs::write(dir.join(number.to_string()), number.to_string()).unwrap();
        }
        let to = path.with_extension(format!("moved{round}"));
        fs::rename(&dir, &to).unwrap();
        assert_eq!(fs::read_dir(&to).unwrap().count(), 5);
    });
    mount.stop();
    let keys = mount.outside().keys("");
    assert!(keys.iter().all(|key| key.contains(".moved")), "{keys:?}");
    assert_eq!(keys.iter().filter(|key| !key.ends_with('/')).count(), 4 * 8 * 5);
}
