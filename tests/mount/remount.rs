//! What stays the same over an unmount and a new mount: git, make, rsync and tar compare it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use crate::stage::{Maker, Mount, PATIENCE, Place, Stage, place, process, sys, wait_for};

/// Inode number, mtime, ctime, mode and size of everything in a tree.
fn identities(root: &Path) -> BTreeMap<String, [i64; 7]> {
    fn walk(dir: &Path, root: &Path, into: &mut BTreeMap<String, [i64; 7]>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
            let [mtime, mtime_nsec, ctime, ctime_nsec] = times;
            let (number, mode, size) = (meta.ino().cast_signed(), i64::from(meta.mode()), meta.size().cast_signed());
            into.insert(name, [number, mtime, mtime_nsec, ctime, ctime_nsec, mode, size]);
            if meta.is_dir() {
                walk(&path, root, into);
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(root, root, &mut all);
    all
}

/// One of everything, made in different ways.
fn furnish(place: &Place) {
    fs::create_dir_all(place.at("d/e")).unwrap();
    fs::write(place.at("written"), "bytes").unwrap();
    fs::write(place.at("d/e/deep"), "bytes").unwrap();
    fs::write(place.at("empty"), "").unwrap();
    fs::write(place.at("before"), "renamed").unwrap();
    fs::rename(place.at("before"), place.at("d/after")).unwrap();
    fs::write(place.at("chmodded"), "bytes").unwrap();
    sys::chmod(&place.at("chmodded"), 0o600).unwrap();
    fs::write(place.at("dated"), "bytes").unwrap();
    sys::set_times(&place.at("dated"), (1, 2), (3, 4)).unwrap();
    symlink("written", place.at("link")).unwrap();
    sys::mknod(&place.at("pipe"), libc::S_IFIFO, 0o600, 0).unwrap();
    process::bash(place.path(), "echo x > shell; cp -p dated copied; echo y >> shell");
}

#[test]
fn inode_mtime_and_ctime_are_the_same_after_a_remount() {
    let mut place = place();
    furnish(&place);
    let before = identities(place.path());
    place.remount();
    assert_eq!(identities(place.path()), before);
}

#[test]
fn on_another_machine_files_have_the_same_inode_mtime_and_ctime() {
    let mut place = place();
    furnish(&place);
    // Not in the bucket, as each would cost a request of its own: when a directory's entries
    // changed, and what a file was called when it was made.
    let of_files = |mut all: BTreeMap<String, [i64; 7]>| {
        all.retain(|name, [.., mode, _]| (*mode as u32 & libc::S_IFMT) != libc::S_IFDIR && name != "d/after");
        all
    };
    let before = of_files(identities(place.path()));
    place.remount_elsewhere();
    assert_eq!(of_files(identities(place.path())), before);
}

#[test]
fn renaming_keeps_the_inode_number_also_over_a_remount() {
    let mut place = place();
    fs::write(place.at("a"), "bytes").unwrap();
    let ino = fs::metadata(place.at("a")).unwrap().ino();
    fs::rename(place.at("a"), place.at("b")).unwrap();
    assert_eq!(fs::metadata(place.at("b")).unwrap().ino(), ino);
    place.remount();
    assert_eq!(fs::metadata(place.at("b")).unwrap().ino(), ino);
}

#[test]
fn objects_of_others_keep_their_identity_too() {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    for number in 0..20 {
        mount.outside().put(&format!("dir/f{number}"), b"x");
    }
    mount.start();
    let before = identities(mount.path());
    mount.remount();
    assert_eq!(identities(mount.path()), before);
}

#[test]
fn git_status_after_a_remount_reads_no_working_file() {
    let mut mount = Stage::on(Maker::Embedded).mount();
    process::bash(
        mount.path(),
        "git init -q repo; cd repo; git config user.email t@example.com; git config user.name t; \
         for i in $(seq 60); do echo $i > f$i; done; git add -A; git commit -qm all; git status --porcelain",
    );
    mount.remount();
    let printed = process::bash(&mount.at("repo"), "git status --porcelain");
    assert_eq!(printed, "");
    let status = mount.status();
    let gets = status["requests"]["GetObject"].as_u64().unwrap_or(0);
    // .git holds a handful of files that status reads (HEAD, config, index, refs, the commit).
    assert!(gets < 25, "{gets} GETs: git re-read its working files: {}", status["requests"]);
}

#[test]
fn make_finds_nothing_to_do_after_a_remount() {
    let mut place = place();
    fs::write(place.at("Makefile"), "out: in\n\tcp in out\n").unwrap();
    fs::write(place.at("in"), "x").unwrap();
    process::bash(place.path(), "make -s");
    place.remount();
    let printed = process::bash(place.path(), "make");
    assert!(printed.contains("up to date"), "{printed}");
}

#[test]
fn a_mount_without_state_shows_the_same_tree_as_one_with_it() {
    let mut place = place();
    furnish(&place);
    let listing = "find . -type d -printf '%P %y %m %U %G\\n' -o -printf '%P %y %m %U %G %s %T@ %l\\n' | sort";
    let before = process::bash(place.path(), listing);
    place.remount_elsewhere();
    assert_eq!(process::bash(place.path(), listing), before);
}

/// Requests of one kind that a mount has sent since it serves.
fn listings(mount: &Mount) -> u64 {
    mount.status()["requests"]["ListObjectsV2"].as_u64().unwrap_or(0)
}

#[test]
fn the_first_name_looked_up_in_the_root_costs_no_request() {
    let mut mount =
        Stage::on(Maker::Embedded).prefix("p").args(&["--attr-ttl", "10m", "--negative-ttl", "10m"]).prepare();
    mount.outside().put("p/f", b"bytes");
    mount.start();
    let before = listings(&mount);
    assert_eq!(fs::metadata(mount.at("f")).unwrap().len(), 5);
    assert_eq!(listings(&mount), before);
    // A name of which the mount has not heard is not taken for missing, and neither is anything else.
    mount.outside().put("p/new", b"right after mounting");
    assert_eq!(fs::read(mount.at("new")).unwrap(), b"right after mounting");
    let mut names: Vec<_> = fs::read_dir(mount.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["f", "new"]);
}

#[test]
fn what_another_client_replaces_right_after_mounting_is_seen_after_the_ttl() {
    let mut mount = Stage::on(Maker::Embedded).args(&["--attr-ttl", "100ms"]).prepare();
    mount.outside().put("f", b"old");
    mount.start();
    mount.outside().put("f", b"new and longer");
    wait_for("the new size", PATIENCE, || (fs::metadata(mount.at("f")).ok()?.len() == 14).then_some(()));
    assert_eq!(fs::read(mount.at("f")).unwrap(), b"new and longer");
}

/// systemd would say that the process of a mount unit "remains running after unit stopped".
#[test]
fn when_umount_returns_the_process_has_ended() {
    let mut mount = Stage::on(Maker::Embedded).mount();
    fs::write(mount.at("f"), "bytes").unwrap();
    for _ in 0..3 {
        process::run(mount.command().arg("umount").arg(mount.path()));
        assert!(!mount.is_alive());
        mount.wait_end(PATIENCE);
        mount.start();
    }
}

#[test]
fn the_socket_of_a_killed_mount_goes_with_the_next_start_of_any_other() {
    let mut killed = Stage::on(Maker::Embedded).mount();
    let (mut alive, mut next) = (killed.elsewhere(), killed.elsewhere());
    let socket = |mount: &Mount| s3mount::app::socket_path(&s3mount::app::run_dir().unwrap(), mount.path());
    alive.start();
    killed.kill();
    next.start();
    assert_eq!([&killed, &alive, &next].map(|mount| socket(mount).exists()), [false, true, true]);
    assert_eq!(alive.status()["ending"], false);
    // It is not mounted again.
    sys::umount_lazily(killed.path()).unwrap();
}
