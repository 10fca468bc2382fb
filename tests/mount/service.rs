//! As a service of systemd: it hears when the mount is usable, that it lives, and that it ends (sd_notify(3)).

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::stage::{Maker, PATIENCE, Stage, is_mountpoint, process};

/// What a service manager is told next.
fn next_word(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).expect("a word within the time");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

fn wait_for_word(socket: &UnixDatagram, wanted: &str) {
    while !next_word(socket).lines().any(|line| line == wanted) {}
}

#[test]
fn a_service_manager_hears_that_the_mount_is_usable_that_it_lives_and_that_it_ends() {
    let mount = Stage::on(Maker::Embedded).prepare();
    let config = mount.beside("demo.toml");
    let place = |path: &Path| path.display().to_string();
    let text = format!(
        "bucket = '{}'\nmountpoint = '{}'\nstate-dir = '{}'\ncache-dir = '{}'\n",
        mount.outside().bucket(),
        place(mount.path()),
        place(&mount.beside("state")),
        place(&mount.beside("cache")),
    );
    fs::write(&config, text).unwrap();
    let socket = UnixDatagram::bind(mount.beside("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = mount.command();
    command.arg("--foreground").arg("--config").arg(&config);
    command.env("NOTIFY_SOCKET", mount.beside("notify")).env("WATCHDOG_USEC", "300000").env_remove("WATCHDOG_PID");
    command.stderr(fs::File::create(mount.beside("log")).unwrap());
    let mut daemon = process::spawn(command, Signal::SIGTERM);

    wait_for_word(&socket, "READY=1");
    assert!(is_mountpoint(mount.path()), "before it is said");
    fs::write(mount.at("f"), "stored").unwrap();
    for _ in 0..3 {
        wait_for_word(&socket, "WATCHDOG=1");
    }
    process::signal(daemon.id(), Signal::SIGTERM);
    wait_for_word(&socket, "STOPPING=1");
    let ended = process::wait(&mut daemon, PATIENCE).expect("its end");
    assert!(ended.success(), "{ended:?}: {}", fs::read_to_string(mount.beside("log")).unwrap());
    assert!(!is_mountpoint(mount.path()));
    assert_eq!(mount.outside().bytes("f"), b"stored");
}
