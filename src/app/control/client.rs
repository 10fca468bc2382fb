//! The command's side. Blocking: a command has nothing else to do.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;

use super::{Reply, Request};
use crate::app::Failure;
use crate::error::Kind;

/// A mount that does not even answer about itself within this hangs.
const STATUS_DEADLINE: Duration = Duration::from_secs(5);
/// Between two signs of life of an unmount; the mount sends one each second.
const UNMOUNT_DEADLINE: Duration = Duration::from_secs(15);
/// How long the process may take to end, which has nothing left to do.
const END_DEADLINE: Duration = Duration::from_secs(2);
const END_POLL: Duration = Duration::from_millis(5);
/// Longest reply, of several, that is read.
const REPLY_BYTES: u64 = 16 << 20;

/// Sends a request and hands each reply to `heard`, until the mount closes the connection.
/// `None`: nobody listens there.
///
/// # Errors
/// When the mount does not answer in time or in words.
pub fn ask(socket: &Path, request: &Request, mut heard: impl FnMut(Reply)) -> Result<Option<()>, Failure> {
    let mut stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(cause) if nobody_listens(&cause) => return Ok(None),
        Err(cause) => return Err(broken(socket, &cause)),
    };
    let deadline = if *request == Request::Status { STATUS_DEADLINE } else { UNMOUNT_DEADLINE };
    let line = serde_json::to_string(request).expect("a request is JSON") + "\n";
    stream
        .set_read_timeout(Some(deadline))
        .and_then(|()| stream.set_write_timeout(Some(deadline)))
        .and_then(|()| stream.write_all(line.as_bytes()))
        .map_err(|cause| broken(socket, &cause))?;
    let mut replies = BufReader::new(stream);
    loop {
        let mut line = String::new();
        match replies.by_ref().take(REPLY_BYTES).read_line(&mut line) {
            Ok(0) => return Ok(Some(())),
            // The process ended, which closes the connection in a ruder way.
            Err(cause) if cause.kind() == io::ErrorKind::ConnectionReset => return Ok(Some(())),
            Err(cause) => return Err(broken(socket, &cause)),
            Ok(_) => heard(serde_json::from_str(&line).map_err(|cause| broken(socket, &cause.into()))?),
        }
    }
}

/// Whether a mount's process listens there, or may: also one that is about to end.
#[must_use]
pub fn is_served(socket: &Path) -> bool {
    !UnixStream::connect(socket).is_err_and(|cause| nobody_listens(&cause))
}

/// No socket, or one that a process has left behind.
fn nobody_listens(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// The process of a mount.
#[derive(Clone, Copy, Debug)]
pub struct Daemon(i32);

impl Daemon {
    /// Who listens at a socket, if anybody does.
    #[must_use]
    pub fn at(socket: &Path) -> Option<Self> {
        let stream = UnixStream::connect(socket).ok()?;
        let peer = getsockopt(&stream, PeerCredentials).ok()?;
        // 0: of another namespace of processes.
        Some(Self(peer.pid())).filter(|daemon| daemon.0 > 0)
    }

    /// Waits for its end, which comes a moment after its last word, and no longer than 2 s: who has started it, as
    /// systemd has, would else find it after the end of what it did.
    pub fn wait_end(self) {
        let until = Instant::now() + END_DEADLINE;
        while self.is_running() && Instant::now() < until {
            std::thread::sleep(END_POLL);
        }
    }

    /// One that its parent has not heard of yet is not (proc(5): a state of `Z` or `X`).
    fn is_running(self) -> bool {
        let told = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        told.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    }
}

fn broken(socket: &Path, cause: &io::Error) -> Failure {
    let late = matches!(cause.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
    let (kind, what) =
        if late { (Kind::Deadline, "no answer in time".into()) } else { (Kind::Local, cause.to_string()) };
    Failure::new(kind, format!("the mount's process does not answer at {}: {what}", socket.display()))
        .hint("its log tells more; `umount -l MOUNTPOINT` unmounts in any case")
}

/// The sockets of all mounts of this user, also those that nobody listens at any more.
#[must_use]
pub fn all_sockets(run_dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(run_dir).into_iter().flatten().flatten();
    let mut sockets: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "sock")).collect();
    sockets.sort();
    sockets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_served_until_its_process_is_gone() {
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("mount.sock");
        assert!(!is_served(&socket));
        let listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(is_served(&socket));
        drop(listening);
        assert!(socket.exists() && !is_served(&socket), "what a killed process leaves");
    }
}
