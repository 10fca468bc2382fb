//! Mount, serve, unmount.
//!
//! As root the mount(2) is our own: `fuser` would unmount what lies underneath after an external
//! `umount` (its `is_mounted()` is inverted in 0.18), and would leave us on a busy mountpoint.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};
use tokio::sync::watch;

use super::fusermount::{mount_by_helper, unmount_by_helper};
use super::mountpoint::{Occupant, mounts, occupant};
use super::notify::Notices;
use super::{Error, Result};
use crate::fs::Fs;

/// The subtype in /proc/mounts.
pub(super) const NAME: &str = "s3mount";
/// The type in /proc/mounts, and what fstab(5) calls us.
pub(super) const FS_TYPE: &str = "fuse.s3mount";
/// Larger requests bring nothing (measured).
pub(super) const MAX_READ_BYTES: u32 = 1 << 20;
/// What the kernel reads ahead of a sequential reader; its own default is 128 and INIT cannot raise
/// it. Measured: cold buffered reads 0.4–1.4 → 1.6–2.0 GB/s.
const READ_AHEAD_KIB: u32 = 4096;

/// What the kernel has to know about a mount.
#[derive(Clone, Debug)]
pub struct MountSettings {
    /// Absolute, without symbolic links: as [`super::prepare`] returns it.
    pub mountpoint: PathBuf,
    /// Shown as the device: `s3://bucket/prefix`.
    pub source: String,
    pub read_only: bool,
    pub allow_other: bool,
    pub no_exec: bool,
    /// Threads that take requests from the kernel; 2 to 8 are useful.
    pub threads: usize,
}

/// A mount that answers.
#[derive(Debug)]
pub struct Mounted {
    mountpoint: PathBuf,
    notifier: fuser::Notifier,
    notices: OnceLock<Arc<Notices>>,
    ended: watch::Receiver<bool>,
    device: Option<String>,
}

/// Mounts a file system and serves it on threads of its own. When this returns, the kernel and the
/// file system have shaken hands: the mount is usable.
///
/// # Errors
/// [`Error::NoFuse`], [`Error::NotPermitted`], [`Error::NoHelper`] or [`Error::System`].
pub fn mount<F: fuser::Filesystem>(filesystem: F, settings: &MountSettings) -> Result<Mounted> {
    let fuse = match mount_by_ourselves(settings) {
        Err(Error::NotPermitted { .. }) if !nix::unistd::geteuid().is_root() => mount_by_helper(settings)?,
        outcome => outcome?,
    };
    serve(filesystem, fuse, settings).inspect_err(|_| {
        // Nobody will answer there.
        let _ = unmount(&settings.mountpoint, true);
    })
}

fn serve<F: fuser::Filesystem>(filesystem: F, fuse: OwnedFd, settings: &MountSettings) -> Result<Mounted> {
    let failed = |cause| Error::system("serve", &settings.mountpoint, cause);
    let mut config = fuser::Config::default();
    config.n_threads = Some(settings.threads.clamp(1, 8));
    // The kernel decides who may come in (`allow_other`); fuser's own check would keep root out.
    let acl = fuser::SessionACL::All;
    let session = fuser::Session::from_fd(filesystem, fuse, acl, config).map_err(failed)?;
    let notifier = session.notifier();
    let (end, ended) = watch::channel(false);
    let serving = move || {
        if let Err(cause) = session.run() {
            tracing::error!(%cause, "the kernel's connection ended with an error");
        }
        end.send_replace(true);
    };
    thread::Builder::new().name("fuse-session".into()).spawn(serving).map_err(failed)?;
    let device = occupant(&settings.mountpoint).map(|mount| mount.device);
    if let Some(device) = &device {
        raise_read_ahead(device);
    }
    let notices = OnceLock::new();
    Ok(Mounted { mountpoint: settings.mountpoint.clone(), notifier, notices, ended, device })
}

/// mount(2) by ourselves; needs CAP_SYS_ADMIN.
fn mount_by_ourselves(settings: &MountSettings) -> Result<OwnedFd> {
    if !nix::unistd::geteuid().is_root() {
        return Err(not_permitted(settings, Errno::EPERM));
    }
    let fuse: File = OpenOptions::new().read(true).write(true).open("/dev/fuse").map_err(Error::NoFuse)?;
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions,max_read={MAX_READ_BYTES}",
        fuse.as_raw_fd(),
        nix::unistd::getuid(),
        nix::unistd::getgid(),
    );
    if settings.allow_other {
        data.push_str(",allow_other");
    }
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    flags.set(MsFlags::MS_RDONLY, settings.read_only);
    flags.set(MsFlags::MS_NOEXEC, settings.no_exec);
    let mount = |fs_type| {
        let (source, target) = (Some(settings.source.as_str()), settings.mountpoint.as_path());
        nix::mount::mount(source, target, Some(fs_type), flags, Some(data.as_str()))
    };
    // Kernels that know no subtypes answer ENODEV.
    match mount(FS_TYPE).or_else(|errno| if errno == Errno::ENODEV { mount("fuse") } else { Err(errno) }) {
        Ok(()) => Ok(fuse.into()),
        Err(errno @ (Errno::EPERM | Errno::EACCES)) => Err(not_permitted(settings, errno)),
        Err(errno) => Err(Error::system("mount on", &settings.mountpoint, errno)),
    }
}

fn not_permitted(settings: &MountSettings, errno: Errno) -> Error {
    Error::NotPermitted { mountpoint: settings.mountpoint.clone(), cause: io::Error::from(errno).to_string() }
}

/// Only root may, and only speed depends on it.
fn raise_read_ahead(device: &str) {
    let file = format!("/sys/class/bdi/{device}/read_ahead_kb");
    if let Err(cause) = std::fs::write(&file, READ_AHEAD_KIB.to_string()) {
        tracing::debug!(file, %cause, "read-ahead stays at the kernel's default");
    }
}

impl Mounted {
    /// From now on the file system tells the kernel what changes.
    ///
    /// # Errors
    /// [`Error::System`], when no thread can be started for it.
    pub fn attach(&self, fs: &Arc<Fs>) -> Result<()> {
        let failed = |cause| Error::system("serve", &self.mountpoint, cause);
        let notices = Notices::start(self.notifier.clone(), fs).map_err(failed)?;
        fs.attach(notices.clone());
        let _ = self.notices.set(notices);
        Ok(())
    }

    /// Unmounts. `lazy` takes the mountpoint away at once and lets programs finish with what they
    /// have open. Nothing happens if ours is no longer mounted there.
    ///
    /// # Errors
    /// [`Error::Busy`] (never when `lazy`), [`Error::Occupied`] when another mount lies on ours, or
    /// the system's own.
    pub fn unmount(&self, lazy: bool) -> Result<()> {
        let arm = |armed| self.notices.get().into_iter().for_each(|notices| notices.arm(armed));
        arm(false);
        self.take_away(lazy).inspect_err(|_| arm(true))
    }

    fn take_away(&self, lazy: bool) -> Result<()> {
        let Some(device) = &self.device else {
            // The table did not show it under this path: then there is nothing to mistake it for.
            return unmount(&self.mountpoint, lazy);
        };
        let is_ours = |mount: &Occupant| mount.device == *device;
        let here: Vec<Occupant> = mounts().into_iter().filter(|mount| mount.mountpoint == self.mountpoint).collect();
        match here.last() {
            Some(top) if is_ours(top) => unmount(&self.mountpoint, lazy),
            Some(top) if here.iter().any(is_ours) => Err(Error::Occupied {
                mountpoint: self.mountpoint.clone(),
                source_name: top.source.clone(),
                fs_type: top.fs_type.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Returns when the kernel has ended the session: unmounted, and the last open file closed.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // An error means that the session's thread is gone, which is an end as well.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// The same with a bound; whether the session has ended.
    pub async fn wait(&self, deadline: Duration) -> bool {
        tokio::time::timeout(deadline, self.ended()).await.is_ok()
    }
}

/// Unmounts what is on top of this path, by umount2(2) or the helper.
///
/// # Errors
/// [`Error::Busy`] (never when `lazy`), [`Error::NotMounted`] or the system's own.
pub fn unmount(mountpoint: &Path, lazy: bool) -> Result<()> {
    let flags = MntFlags::UMOUNT_NOFOLLOW | if lazy { MntFlags::MNT_DETACH } else { MntFlags::empty() };
    match nix::mount::umount2(mountpoint, flags) {
        Ok(()) => Ok(()),
        Err(Errno::EPERM) => unmount_by_helper(mountpoint, lazy),
        Err(Errno::EBUSY) => Err(Error::Busy(mountpoint.to_owned())),
        Err(Errno::EINVAL | Errno::ENOENT) => Err(Error::NotMounted(mountpoint.to_owned())),
        Err(errno) => Err(Error::system("unmount", mountpoint, errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fuser::{Errno as FuseErrno, FileAttr, FileHandle, Filesystem, INodeNo, ReplyAttr, ReplyStatfs, Request};
    use std::os::unix::fs::OpenOptionsExt;
    use std::time::SystemTime;

    /// An empty root directory that tells its own size.
    struct Empty;

    impl Filesystem for Empty {
        fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
            if ino != INodeNo::ROOT {
                return reply.error(FuseErrno::ENOENT);
            }
            let time = SystemTime::UNIX_EPOCH;
            reply.attr(
                &Duration::from_secs(1),
                &FileAttr {
                    ino,
                    size: 4711,
                    blocks: 0,
                    atime: time,
                    mtime: time,
                    ctime: time,
                    crtime: time,
                    kind: fuser::FileType::Directory,
                    perm: 0o755,
                    nlink: 2,
                    uid: 0,
                    gid: 0,
                    rdev: 0,
                    blksize: 4096,
                    flags: 0,
                },
            );
        }

        fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
            reply.statfs(0, 0, 0, 0, 0, 4096, 255, 4096);
        }
    }

    /// A directory that is free again at the end, whatever the test did.
    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn settings(&self) -> MountSettings {
            MountSettings {
                mountpoint: super::super::prepare(self.0.path()).unwrap(),
                source: "s3://bucket/a b".into(),
                read_only: false,
                allow_other: false,
                no_exec: false,
                threads: 2,
            }
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = nix::mount::umount2(self.0.path(), MntFlags::MNT_DETACH);
        }
    }

    fn can_mount() -> bool {
        nix::unistd::geteuid().is_root() && Path::new("/dev/fuse").exists()
    }

    #[tokio::test]
    async fn a_mount_answers_and_is_shown_with_its_bucket() {
        if !can_mount() {
            return;
        }
        let place = Place::new();
        let settings = place.settings();
        let mounted = mount(Empty, &settings).unwrap();
        assert_eq!(std::fs::metadata(&settings.mountpoint).unwrap().len(), 4711);
        let shown = occupant(&settings.mountpoint).unwrap();
        assert_eq!((shown.fs_type.as_str(), shown.source.as_str()), (FS_TYPE, "s3://bucket/a b"));
        let ahead = std::fs::read_to_string(format!("/sys/class/bdi/{}/read_ahead_kb", shown.device)).unwrap();
        assert_eq!(ahead.trim(), READ_AHEAD_KIB.to_string());
        assert!(matches!(super::super::prepare(&settings.mountpoint), Err(Error::Occupied { .. })));
        mounted.unmount(false).unwrap();
        assert!(mounted.wait(Duration::from_secs(10)).await);
        assert_eq!(occupant(&settings.mountpoint), None);
    }

    #[tokio::test]
    async fn a_busy_mount_says_so_and_can_still_be_detached() {
        if !can_mount() {
            return;
        }
        let place = Place::new();
        let settings = place.settings();
        let mounted = mount(Empty, &settings).unwrap();
        let open = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&settings.mountpoint).unwrap();
        assert!(matches!(mounted.unmount(false), Err(Error::Busy(_))));
        mounted.unmount(true).unwrap();
        assert!(!*mounted.ended.borrow(), "the open file keeps the session");
        drop(open);
        assert!(mounted.wait(Duration::from_secs(10)).await);
    }

    #[tokio::test]
    async fn an_external_umount_ends_the_session_and_touches_nothing_below() {
        if !can_mount() {
            return;
        }
        let place = Place::new();
        let settings = place.settings();
        let below = mount(Empty, &settings).unwrap();
        let above = mount(Empty, &settings).unwrap();
        assert!(matches!(below.unmount(true), Err(Error::Occupied { .. })), "the other mount is not taken for ours");
        nix::mount::umount(&settings.mountpoint).unwrap();
        assert!(above.wait(Duration::from_secs(10)).await);
        above.unmount(true).unwrap();
        assert!(occupant(&settings.mountpoint).is_some(), "the mount below stays");
        below.unmount(false).unwrap();
        assert!(below.wait(Duration::from_secs(10)).await);
    }
}
