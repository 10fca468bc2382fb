//! Who may do what: `--allow-other`, owners and modes, `--uid --gid --umask`, `--read-only`.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::assert_errno;
use crate::stage::servers::Inside;
use crate::stage::{Maker, Mount, Stage, process, sys};

const NOBODY: u32 = 65_534;

/// Runs a shell line as user `nobody`; true when it succeeded.
fn as_nobody(dir: &Path, line: &str) -> bool {
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir("/").env("D", dir).uid(NOBODY).gid(NOBODY);
    process::output(&mut command, crate::stage::PATIENCE).status.success()
}

fn shared() -> Mount {
    Stage::on(Maker::Embedded).args(&["--allow-other"]).mount()
}

#[test]
fn without_allow_other_only_the_mounting_user_gets_in() {
    let mount = Stage::on(Maker::Embedded).mount();
    fs::write(mount.at("f"), "x").unwrap();
    sys::chmod(mount.path(), 0o777).unwrap();
    assert!(!as_nobody(mount.path(), "cat $D/f"));
}

#[test]
fn with_allow_other_modes_decide() {
    let mount = shared();
    sys::chmod(mount.path(), 0o755).unwrap();
    fs::write(mount.at("open"), "x").unwrap();
    fs::write(mount.at("closed"), "x").unwrap();
    sys::chmod(&mount.at("open"), 0o644).unwrap();
    sys::chmod(&mount.at("closed"), 0o600).unwrap();
    assert!(as_nobody(mount.path(), "cat $D/open"));
    assert!(!as_nobody(mount.path(), "cat $D/closed"));
    assert!(!as_nobody(mount.path(), "echo y > $D/open"));
    assert!(!as_nobody(mount.path(), "touch $D/new"));
    assert!(!as_nobody(mount.path(), "rm -f $D/open"));
    assert!(!as_nobody(mount.path(), "chmod 666 $D/open"));
}

#[test]
fn a_file_made_by_another_user_is_theirs() {
    let mount = shared();
    sys::chmod(mount.path(), 0o1777).unwrap();
    assert!(as_nobody(mount.path(), "echo mine > $D/f && mkdir $D/d && ln -s f $D/l && mkfifo $D/p"));
    for name in ["f", "d", "l", "p"] {
        let meta = fs::symlink_metadata(mount.at(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (NOBODY, NOBODY), "{name}");
    }
    assert!(as_nobody(mount.path(), "chmod 600 $D/f && rm $D/f"));
}

#[test]
fn a_sticky_directory_protects_what_is_in_it() {
    let mount = shared();
    fs::create_dir(mount.at("d")).unwrap();
    sys::chmod(mount.path(), 0o755).unwrap();
    sys::chmod(&mount.at("d"), 0o1777).unwrap();
    fs::write(mount.at("d/roots"), "x").unwrap();
    assert!(!as_nobody(mount.path(), "rm -f $D/d/roots"));
    assert!(!as_nobody(mount.path(), "mv $D/d/roots $D/d/stolen"));
    chown(mount.at("d/roots"), Some(NOBODY), None).unwrap();
    assert!(as_nobody(mount.path(), "rm -f $D/d/roots"));
}

#[test]
fn objects_without_attributes_look_as_the_options_say() {
    let stage = Stage::on(Maker::Embedded).args(&["--uid", "1200", "--gid", "1300", "--umask", "027"]);
    let mut mount = stage.prepare();
    mount.outside().put("dir/f", b"x");
    mount.start();
    let file = fs::metadata(mount.at("dir/f")).unwrap();
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (1200, 1300, 0o640));
    let dir = fs::metadata(mount.at("dir")).unwrap();
    assert_eq!((dir.uid(), dir.gid(), dir.mode() & 0o7777), (1200, 1300, 0o750));
}

#[test]
fn a_read_only_mount_answers_erofs_to_every_change() {
    let mut mount = Stage::on(Maker::Embedded).args(&["--read-only"]).prepare();
    mount.outside().put("f", b"x");
    mount.start();
    assert_eq!(fs::read(mount.at("f")).unwrap(), b"x");
    try_every_change(&mount);
    assert_eq!(mount.outside().keys(""), ["f"]);
}

fn try_every_change(mount: &Mount) {
    assert_errno!(fs::write(mount.at("f"), "y"), EROFS);
    assert_errno!(fs::write(mount.at("g"), "y"), EROFS);
    assert_errno!(fs::create_dir(mount.at("d")), EROFS);
    assert_errno!(fs::remove_file(mount.at("f")), EROFS);
    assert_errno!(fs::rename(mount.at("f"), mount.at("g")), EROFS);
    assert_errno!(sys::chmod(&mount.at("f"), 0o600), EROFS);
    assert_errno!(sys::truncate(&mount.at("f"), 0), EROFS);
    assert_errno!(sys::setxattr(&mount.at("f"), "user.a", b"1", 0), EROFS);
    assert_errno!(std::os::unix::fs::symlink("f", mount.at("l")), EROFS);
}

#[test]
fn a_read_only_mount_refuses_before_any_request() {
    let server = Inside::start("s3mount-demo");
    // What was looked at is believed for as long as this takes: a request would be one of the change's own.
    let ttls = ["--attr-ttl", "1h", "--list-ttl", "1h", "--negative-ttl", "1h"];
    let mut mount = Stage::at(server.endpoint()).args(&["--read-only"]).args(&ttls).prepare();
    mount.outside().put("f", b"x");
    let before = server.server().request_counts();
    mount.start();
    assert_eq!(fs::read(mount.at("f")).unwrap(), b"x");
    for name in ["g", "d", "l"] {
        assert_errno!(fs::metadata(mount.at(name)), ENOENT);
    }
    let looked = server.server().request_counts();
    try_every_change(&mount);
    assert_eq!(server.server().request_counts(), looked);
    mount.stop();
    let reads = |name: &str| ["Get", "Head", "List"].iter().any(|verb| name.starts_with(verb));
    let sent = server.server().request_counts();
    let changes: Vec<_> =
        sent.iter().filter(|(name, count)| !reads(name) && before.get(*name) != Some(count)).collect();
    assert!(changes.is_empty(), "from its start to its end: {changes:?}");
}

#[test]
fn set_user_id_and_device_nodes_mean_nothing_there() {
    let mount = shared();
    sys::chmod(mount.path(), 0o755).unwrap();
    fs::copy("/usr/bin/id", mount.at("id")).unwrap();
    sys::chmod(&mount.at("id"), 0o4755).unwrap();
    assert_eq!(fs::metadata(mount.at("id")).unwrap().uid(), 0);
    assert!(as_nobody(mount.path(), &format!("test \"$($D/id -u)\" = {NOBODY}")));
    // The same device as /dev/null.
    sys::mknod(&mount.at("null"), libc::S_IFCHR, 0o666, libc::makedev(1, 3)).unwrap();
    assert!(fs::metadata(mount.at("null")).unwrap().file_type().is_char_device());
    assert_errno!(fs::File::open(mount.at("null")), EACCES);
}

/// Whatever lies below a directory, and the directory.
fn all_below(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = vec![dir.to_owned()];
    let mut at = 0;
    while at < found.len() {
        if found[at].symlink_metadata().unwrap().is_dir() {
            let below: io::Result<Vec<_>> = fs::read_dir(&found[at]).unwrap().collect();
            found.extend(below.unwrap().iter().map(fs::DirEntry::path));
        }
        at += 1;
    }
    found
}

#[test]
fn what_a_mount_keeps_on_the_disk_is_for_its_user_alone() {
    let module = "(module (memory (export \"memory\") 1) (func (export \"_start\") unreachable))";
    let mut mount = Stage::on(Maker::Embedded).args(&["--write-back"]).hooks("").prepare();
    fs::write(mount.beside("hook.wat"), module).unwrap();
    let hook = "[[hook]]\nname = \"h\"\nwasm = \"hook.wat\"\nmatch = [\"f\"]\nretries = 0\noutput = \"out\"\n";
    fs::write(mount.beside("hooks.toml"), hook).unwrap();
    mount.start();
    fs::write(mount.at("f"), vec![b'x'; 1 << 20]).unwrap();
    let mut draft = fs::File::create(mount.at("draft")).unwrap();
    io::Write::write_all(&mut draft, &vec![b'x'; 1 << 20]).unwrap();
    crate::stage::wait_for("the log of the hook", crate::stage::PATIENCE, || {
        let found = all_below(&mount.beside("state"));
        found.iter().any(|path| path.ends_with("h.log")).then_some(())
    });
    let run_dir = s3mount::app::run_dir().unwrap();
    let socket = s3mount::app::socket_path(&run_dir, mount.path());
    assert!(socket.symlink_metadata().unwrap().file_type().is_socket());
    let ours = [all_below(&mount.beside("state")), all_below(&mount.beside("cache")), vec![run_dir, socket]].concat();
    for path in &ours {
        // What is renamed into its place or removed meanwhile was seen under its other name.
        let Ok(found) = path.symlink_metadata() else { continue };
        assert_eq!(found.mode() & 0o077, 0, "{} is {:o}", path.display(), found.mode());
        assert_eq!(found.uid(), nix::unistd::geteuid().as_raw(), "{}", path.display());
    }
    assert!(ours.len() > 15, "{ours:#?}");
}
