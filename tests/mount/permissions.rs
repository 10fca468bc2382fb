//! Who may do what: `--allow-other`, owners and modes, `--uid --gid --umask`, `--read-only`.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::assert_errno;
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
    assert_errno!(fs::write(mount.at("f"), "y"), EROFS);
    assert_errno!(fs::write(mount.at("g"), "y"), EROFS);
    assert_errno!(fs::create_dir(mount.at("d")), EROFS);
    assert_errno!(fs::remove_file(mount.at("f")), EROFS);
    assert_errno!(fs::rename(mount.at("f"), mount.at("g")), EROFS);
    assert_errno!(sys::chmod(&mount.at("f"), 0o600), EROFS);
    assert_errno!(sys::truncate(&mount.at("f"), 0), EROFS);
    assert_errno!(sys::setxattr(&mount.at("f"), "user.a", b"1", 0), EROFS);
    assert_errno!(std::os::unix::fs::symlink("f", mount.at("l")), EROFS);
    assert_eq!(mount.outside().keys(""), ["f"]);
}
