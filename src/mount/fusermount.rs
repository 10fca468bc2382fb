//! Mounting without being root: the set-uid helper `fusermount3` mounts and passes the descriptor
//! of /dev/fuse back over a socket (libfuse, lib/mount.c and util/fusermount.c).

use std::io::{self, IoSliceMut, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::session::{MAX_READ_BYTES, MountSettings, NAME};
use super::{Error, Result};

const HELPER: &str = "fusermount3";
/// The helper only makes system calls; a longer wait means that one of them hangs.
const DEADLINE: Duration = Duration::from_secs(10);

/// Mounts by the helper and returns the descriptor of /dev/fuse.
pub(super) fn mount_by_helper(settings: &MountSettings) -> Result<OwnedFd> {
    let failed = |cause: io::Error| Error::system("mount on", &settings.mountpoint, cause);
    let (theirs, ours) = UnixStream::pair().map_err(failed)?;
    // The helper must inherit its end. Between here and its end no other process is started.
    fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|errno| failed(errno.into()))?;
    let child = Command::new(HELPER)
        .args(["-o", &options(settings), "--"])
        .arg(&settings.mountpoint)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|cause| if cause.kind() == io::ErrorKind::NotFound { Error::NoHelper } else { failed(cause) })?;
    drop(theirs);
    let received = receive_descriptor(&ours);
    let ended = end_of(child).map_err(failed)?;
    match received {
        Ok(Some(fuse)) if ended.status.success() => Ok(fuse),
        Err(cause) => Err(failed(cause)),
        _ => Err(refused(settings, &String::from_utf8_lossy(&ended.stderr))),
    }
}

/// `nosuid,nodev` the helper adds by itself.
fn options(settings: &MountSettings) -> String {
    let source = settings.source.replace('\\', "\\\\").replace(',', "\\,");
    let mut options = format!("fsname={source},subtype={NAME},default_permissions,max_read={MAX_READ_BYTES}");
    for (wanted, option) in
        [(settings.read_only, ",ro"), (settings.allow_other, ",allow_other"), (settings.no_exec, ",noexec")]
    {
        if wanted {
            options.push_str(option);
        }
    }
    options
}

fn refused(settings: &MountSettings, words: &str) -> Error {
    let cause = words.lines().last().unwrap_or("").trim_start_matches("fusermount3: ").trim().to_owned();
    if words.contains("/dev/fuse") || words.contains("fuse device") {
        return Error::NoFuse(io::Error::other(cause));
    }
    let cause = if cause.is_empty() { "fusermount3 gave no reason".to_owned() } else { cause };
    Error::NotPermitted { mountpoint: settings.mountpoint.clone(), cause }
}

/// The descriptor, or `None` if the helper ended without sending one.
fn receive_descriptor(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let wait = PollTimeout::try_from(DEADLINE).expect("10 s are a poll timeout");
    if poll(&mut [PollFd::new(std::os::fd::AsFd::as_fd(socket), PollFlags::POLLIN)], wait)? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut byte = [0_u8];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(RawFd);
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let descriptor = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
        _ => None,
    });
    // SAFETY: the kernel has just made this descriptor for us (SCM_RIGHTS); nobody else owns it.
    Ok(descriptor.map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }))
}

/// Waits for the helper, at most [`DEADLINE`].
fn end_of(mut child: Child) -> io::Result<Output> {
    let until = Instant::now() + DEADLINE;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= until {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, "fusermount3 does not end"));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut stderr = Vec::new();
    if let Some(pipe) = child.stderr.take() {
        // Bounded: a pipe's buffer is all that an ended process leaves.
        pipe.take(64 << 10).read_to_end(&mut stderr)?;
    }
    Ok(Output { status, stdout: Vec::new(), stderr })
}

/// Unmounts by the helper: what a user may do without being root.
///
/// # Errors
/// [`Error::Busy`] (never when `lazy`), [`Error::NoHelper`], or what the helper says.
pub fn unmount_by_helper(mountpoint: &Path, lazy: bool) -> Result<()> {
    let failed = |cause: io::Error| Error::system("unmount", mountpoint, cause);
    let child = Command::new(HELPER)
        .args(if lazy { &["-u", "-z", "--"][..] } else { &["-u", "--"] })
        .arg(mountpoint)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|cause| if cause.kind() == io::ErrorKind::NotFound { Error::NoHelper } else { failed(cause) })?;
    let ended = end_of(child).map_err(failed)?;
    if ended.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
    Err(match words.as_str() {
        busy if busy.contains("busy") => Error::Busy(mountpoint.to_owned()),
        gone if gone.contains("not found in") || gone.contains("not mounted") => {
            Error::NotMounted(mountpoint.to_owned())
        }
        _ => failed(io::Error::other(words)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_the_prefix_is_no_option() {
        let settings = MountSettings {
            mountpoint: "/m".into(),
            source: "s3://b/a,suid".into(),
            read_only: true,
            allow_other: false,
            no_exec: false,
            threads: 2,
        };
        let text = options(&settings);
        assert!(text.starts_with(r"fsname=s3://b/a\,suid,subtype=s3mount,"), "{text}");
        assert!(text.ends_with(",ro"), "{text}");
    }
}
