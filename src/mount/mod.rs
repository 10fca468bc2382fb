//! The kernel edge: the only room that knows `fuser`.

pub mod adapter;
mod fusermount;
mod mountpoint;
mod notify;
mod replies;
mod requests;
mod session;

use std::io;
use std::path::PathBuf;

pub use fusermount::unmount_by_helper;
pub use mountpoint::{above, hides_files, holding, lies_on, named, prepare, silence};
pub use requests::Requests;
pub use session::{MountSettings, Mounted, mount, unmount};

use crate::error::Kind;

/// What can go wrong between us and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("mountpoint {} does not exist", .0.display())]
    Missing(PathBuf),
    #[error("mountpoint {} is not a directory", .0.display())]
    NoDirectory(PathBuf),
    #[error("{source_name} ({fs_type}) is already mounted on {}", .mountpoint.display())]
    Occupied { mountpoint: PathBuf, source_name: String, fs_type: String },
    #[error("{} is a mount of {source_name} ({fs_type}), not of s3mount", .mountpoint.display())]
    Foreign { mountpoint: PathBuf, source_name: String, fs_type: String },
    #[error("{} is not mounted", .0.display())]
    NotMounted(PathBuf),
    #[error("{} is not a mountpoint, but lies on the mount on {}", .path.display(), .mountpoint.display())]
    Below { path: PathBuf, mountpoint: PathBuf },
    #[error("the process of the mount on {} is gone", .0.display())]
    Dead(PathBuf),
    #[error("nobody answers for the mount on {}: it belongs to another user, or its control socket is gone", .0.display())]
    Unheard(PathBuf),
    #[error("{} is busy: a program has a file open there, or works in it", .0.display())]
    Busy(PathBuf),
    #[error("/dev/fuse cannot be opened: {0}")]
    NoFuse(io::Error),
    #[error("not permitted to mount on {}: {cause}", .mountpoint.display())]
    NotPermitted { mountpoint: PathBuf, cause: String },
    #[error("fusermount3 is not installed, and only root can mount without it")]
    NoHelper,
    #[error("cannot {operation} {}: {cause}", .mountpoint.display())]
    System { operation: &'static str, mountpoint: PathBuf, cause: io::Error },
}

impl Error {
    fn system(operation: &'static str, mountpoint: &std::path::Path, cause: impl Into<io::Error>) -> Self {
        Self::System { operation, mountpoint: mountpoint.to_owned(), cause: cause.into() }
    }

    /// What this is in the one table of causes.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Missing(_)
            | Self::NoDirectory(_)
            | Self::Occupied { .. }
            | Self::Foreign { .. }
            | Self::NotMounted(_)
            | Self::Below { .. } => Kind::Usage,
            Self::Busy(_) => Kind::Busy,
            Self::Unheard(_) | Self::NotPermitted { .. } => Kind::AccessDenied,
            Self::Dead(_) | Self::NoFuse(_) | Self::NoHelper | Self::System { .. } => Kind::Local,
        }
    }

    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Missing(path) => format!("create it: mkdir -p {}", path.display()),
            Self::Occupied { mountpoint, fs_type, .. } if fs_type == session::FS_TYPE => {
                format!("unmount it first: s3mount umount {}", mountpoint.display())
            }
            Self::Occupied { .. } => "choose another directory, or unmount that first".into(),
            Self::Foreign { .. } => "umount(8) is for those".into(),
            Self::NotMounted(_) => "`s3mount status` lists your mounts".into(),
            Self::Below { mountpoint, .. } => format!("give the mountpoint: {}", mountpoint.display()),
            Self::Dead(path) => {
                format!("`s3mount umount {}` cleans up; mounting there again does so too", path.display())
            }
            Self::Unheard(path) => {
                format!("ask as that user; as root, `umount {}` lets it store what is dirty, too", path.display())
            }
            Self::Busy(path) => {
                format!("`fuser -vm {0}` names it; `s3mount umount --lazy {0}` does not wait for it", path.display())
            }
            Self::NoFuse(_) => "try `modprobe fuse`; a container needs --device /dev/fuse --cap-add SYS_ADMIN".into(),
            Self::NotPermitted { .. } => {
                "you must own the directory; --allow-other needs user_allow_other in /etc/fuse.conf".into()
            }
            Self::NoHelper => "install the package fuse3".into(),
            Self::NoDirectory(_) | Self::System { .. } => return None,
        })
    }
}

/// Result of what the kernel is asked.
pub type Result<T> = std::result::Result<T, Error>;
