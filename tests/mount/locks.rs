//! flock and fcntl locks: between the processes of this machine.

use std::fs::{self, File, OpenOptions};

use crate::assert_errno;
use crate::stage::{place, process, sys};

fn open(path: &std::path::Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

#[test]
fn an_exclusive_flock_keeps_others_out() {
    let place = place();
    let (first, second) = (open(&place.at("f")), open(&place.at("f")));
    sys::flock(&first, libc::LOCK_EX).unwrap();
    assert_errno!(sys::flock(&second, libc::LOCK_EX | libc::LOCK_NB), EWOULDBLOCK);
    assert_errno!(sys::flock(&second, libc::LOCK_SH | libc::LOCK_NB), EWOULDBLOCK);
    sys::flock(&first, libc::LOCK_UN).unwrap();
    sys::flock(&second, libc::LOCK_EX | libc::LOCK_NB).unwrap();
}

#[test]
fn shared_flocks_go_together() {
    let place = place();
    let (first, second) = (open(&place.at("f")), open(&place.at("f")));
    sys::flock(&first, libc::LOCK_SH).unwrap();
    sys::flock(&second, libc::LOCK_SH | libc::LOCK_NB).unwrap();
    assert_errno!(sys::flock(&second, libc::LOCK_EX | libc::LOCK_NB), EWOULDBLOCK);
}

#[test]
fn closing_gives_a_flock_back() {
    let place = place();
    let first = open(&place.at("f"));
    sys::flock(&first, libc::LOCK_EX).unwrap();
    drop(first);
    sys::flock(&open(&place.at("f")), libc::LOCK_EX | libc::LOCK_NB).unwrap();
}

#[test]
fn fcntl_locks_conflict_where_their_ranges_meet() {
    let place = place();
    let (first, second) = (open(&place.at("f")), open(&place.at("f")));
    sys::ofd_lock(&first, libc::F_WRLCK, 100, 100).unwrap();
    assert_errno!(sys::ofd_lock(&second, libc::F_WRLCK, 150, 10), EAGAIN);
    assert_errno!(sys::ofd_lock(&second, libc::F_RDLCK, 199, 1), EAGAIN);
    sys::ofd_lock(&second, libc::F_WRLCK, 200, 100).unwrap();
    sys::ofd_lock(&first, libc::F_UNLCK, 100, 100).unwrap();
    sys::ofd_lock(&second, libc::F_WRLCK, 150, 10).unwrap();
}

#[test]
fn flock_lets_one_process_in_at_a_time() {
    let place = place();
    fs::write(place.at("counter"), "0").unwrap();
    // Each round reads, adds one and writes back: any overlap would lose a count.
    let script = "for p in 1 2 3; do (for i in 1 2 3 4 5 6 7 8; do \
        flock lock sh -c 'n=$(cat counter); echo $((n + 1)) > counter'; done) & done; wait";
    process::bash(place.path(), script);
    assert_eq!(fs::read_to_string(place.at("counter")).unwrap().trim(), "24");
}

#[test]
fn lockf_of_python_keeps_another_process_out() {
    let place = place();
    let script = "import fcntl, subprocess, sys\n\
        f = open('f', 'w'); fcntl.lockf(f, fcntl.LOCK_EX)\n\
        other = 'import fcntl; f = open(\"f\", \"r+\"); fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)'\n\
        assert subprocess.run([sys.executable, '-c', other], stderr=subprocess.DEVNULL).returncode != 0\n\
        fcntl.lockf(f, fcntl.LOCK_UN)\n\
        assert subprocess.run([sys.executable, '-c', other]).returncode == 0\n";
    process::run(std::process::Command::new("python3").current_dir(place.path()).args(["-c", script]));
}
