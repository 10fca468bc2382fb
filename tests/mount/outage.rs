//! The server stops, freezes, comes back: an errno within the deadline, never a hang.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::stage::servers::Server;
use crate::stage::{Mount, PATIENCE, Stage, process, sys, wait_for};

/// The longest that any call may take: the deadline of an operation is 60 s, and there is slack for
/// a busy machine.
const LONGEST: Duration = Duration::from_secs(90);

/// A mount of a server of its own, with something in it that no cache knows.
fn stage(server: &Server) -> Mount {
    let mut mount = Stage::at(server.endpoint()).args(&["--attr-ttl", "100ms", "--list-ttl", "100ms"]).prepare();
    for number in 0..10 {
        mount.outside().put(&format!("cold/f{number}"), &vec![b'x'; 200_000]);
    }
    mount.outside().put("known", b"known");
    mount.start();
    mount
}

type Call = Box<dyn FnOnce(&Path) -> io::Result<()> + Send>;

/// One call of every kind that needs S3.
fn calls() -> Vec<(&'static str, Call)> {
    fn call(name: &'static str, call: impl FnOnce(&Path) -> io::Result<()> + Send + 'static) -> (&'static str, Call) {
        (name, Box::new(call))
    }
    vec![
        call("stat", |dir| fs::metadata(dir.join("cold/f0")).map(drop)),
        call("readdir", |dir| fs::read_dir(dir.join("cold"))?.try_for_each(|entry| entry.map(drop))),
        call("read", |dir| fs::read(dir.join("cold/f1")).map(drop)),
        call("overwrite", |dir| {
            let mut file = OpenOptions::new().write(true).truncate(true).open(dir.join("cold/f2"))?;
            file.write_all(b"new")?;
            sys::close(file)
        }),
        call("create", |dir| {
            let mut file = File::create(dir.join("created"))?;
            file.write_all(b"new")?;
            sys::close(file)
        }),
        call("fsync", |dir| {
            let mut file = File::create(dir.join("synced"))?;
            file.write_all(b"new")?;
            file.sync_all()
        }),
        call("truncate", |dir| sys::truncate(&dir.join("cold/f3"), 10)),
        call("chmod", |dir| sys::chmod(&dir.join("cold/f4"), 0o600)),
        call("unlink", |dir| fs::remove_file(dir.join("cold/f5"))),
        call("rename", |dir| fs::rename(dir.join("cold/f6"), dir.join("moved"))),
        call("rename of a directory", |dir| fs::rename(dir.join("cold"), dir.join("moved-dir"))),
        call("mkdir", |dir| fs::create_dir(dir.join("made"))),
        call("rmdir", |dir| fs::remove_dir(dir.join("cold"))),
        call("symlink", |dir| std::os::unix::fs::symlink("t", dir.join("link"))),
        call("setxattr", |dir| sys::setxattr(&dir.join("cold/f7"), "user.a", b"1", 0)),
    ]
}

/// Makes every call at the same time; answers how each ended, and after how long.
fn call_all(mount: &Mount) -> BTreeMap<&'static str, (Duration, io::Result<()>)> {
    let (sender, answers) = channel();
    let all = calls();
    let count = all.len();
    for (name, call) in all {
        let (sender, dir) = (sender.clone(), mount.path().to_path_buf());
        std::thread::spawn(move || {
            let begun = Instant::now();
            let answer = call(&dir);
            let _ = sender.send((name, (begun.elapsed(), answer)));
        });
    }
    let begun = Instant::now();
    let mut ended = BTreeMap::new();
    while ended.len() < count {
        match answers.recv_timeout((LONGEST * 2).saturating_sub(begun.elapsed())) {
            Ok((name, how)) => ended.insert(name, how),
            Err(_) => panic!("a call hangs; ended so far: {ended:?}\n{}", mount.log()),
        };
    }
    ended
}

/// What an outage may look like to a program (`error.rs`).
const ALLOWED: [i32; 5] = [libc::ETIMEDOUT, libc::EHOSTUNREACH, libc::EAGAIN, libc::ENOENT, libc::ENOTEMPTY];

fn assert_errnos(ended: &BTreeMap<&'static str, (Duration, io::Result<()>)>) {
    for (name, (took, answer)) in ended {
        assert!(*took < LONGEST, "{name} took {took:?}: {answer:?}");
        let errno = answer.as_ref().expect_err(&format!("{name} succeeded without a server")).raw_os_error();
        assert!(ALLOWED.contains(&errno.unwrap_or(0)), "{name}: {answer:?}");
    }
    let precise = ended.values().filter(|(_, answer)| {
        let errno = answer.as_ref().err().and_then(io::Error::raw_os_error).unwrap_or(0);
        ALLOWED[..3].contains(&errno)
    });
    // A rename that cannot be done may hide a name from the others; most say what is wrong.
    assert!(precise.count() * 3 >= ended.len() * 2, "{ended:?}");
}

#[test]
fn with_the_server_stopped_every_call_answers_an_errno_and_works_again_later() {
    let mut server = Server::embedded(&[]);
    let mut mount = stage(&server);
    server.stop();
    assert_errnos(&call_all(&mount));
    assert!(mount.is_alive(), "{}", mount.log());
    server.start_again();
    wait_for("the mount to work again", LONGEST, || {
        let found = fs::read_dir(mount.path()).ok()?.count();
        (found > 0 && fs::write(mount.at("after"), "works").is_ok()).then_some(())
    });
    assert_eq!(mount.outside().bytes("after"), b"works");
    assert_eq!(fs::read(mount.at("known")).unwrap(), b"known");
}

#[test]
fn with_the_server_frozen_every_call_answers_within_its_deadline() {
    let server = Server::embedded(&[]);
    let mut mount = stage(&server);
    server.freeze();
    let ended = call_all(&mount);
    server.thaw();
    assert_errnos(&ended);
    assert!(mount.is_alive(), "{}", mount.log());
    wait_for("the mount to work again", LONGEST, || fs::write(mount.at("after"), "works").ok());
}

#[test]
fn umount_works_while_the_server_is_stopped() {
    let mut server = Server::embedded(&[]);
    let mut mount = stage(&server);
    server.stop();
    let (output, status) = mount.umount();
    assert!(output.status.success() && status.success(), "nothing was dirty: {output:?} {status:?}\n{}", mount.log());
    assert!(!crate::stage::is_mountpoint(mount.path()));
    server.start_again();
    mount.start();
    assert_eq!(fs::read(mount.at("known")).unwrap(), b"known");
}

#[test]
fn what_could_not_be_stored_is_told_kept_and_stored_by_the_next_start() {
    let mut server = Server::embedded(&[]);
    let mut mount = stage(&server);
    let mut file = File::create(mount.at("draft")).unwrap();
    file.write_all(b"precious").unwrap();
    server.stop();
    let closed = sys::close(file).expect_err("close answered 0 without a server");
    assert!(ALLOWED[..3].contains(&closed.raw_os_error().unwrap()), "{closed}");
    let (output, status) = mount.umount();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && !status.success(), "{output:?} {status:?}");
    assert!(said.contains("draft"), "{said}");
    server.start_again();
    mount.start();
    wait_for("the draft in the bucket", PATIENCE, || {
        mount.outside().get("draft").is_some_and(|object| object.bytes.starts_with(b"precious")).then_some(())
    });
}

#[test]
fn mounting_a_stopped_server_fails_with_words() {
    let mut server = Server::embedded(&[]);
    let mut mount = stage(&server);
    mount.stop();
    server.stop();
    let mut command = mount.command();
    command.arg("--state-dir").arg(mount.beside("state2")).arg("--cache-dir").arg(mount.beside("cache2"));
    let output = process::output(command.arg(mount.outside().bucket()).arg(mount.path()), PATIENCE);
    assert!(!output.status.success(), "{output:?}");
    assert!((1..=3).contains(&String::from_utf8_lossy(&output.stderr).lines().count()), "{output:?}");
}

#[test]
fn errors_of_the_server_are_in_the_status() {
    let mut server = Server::embedded(&[]);
    let mount = stage(&server);
    server.stop();
    assert!(fs::read(mount.at("cold/f0")).is_err());
    let status = mount.status();
    assert!(!status["last_errors"].as_array().expect("a list").is_empty(), "{status}");
    server.start_again();
}
