//! Why an operation failed: POSIX says so, S3 does, or this machine.

use nix::errno::Errno;

use super::gatekeeper::Refusal;
use crate::error::Kind;
use crate::key::NameError;
use crate::{bucket, journal};

/// A failed operation. [`Error::errno`] is what the program sees.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules of POSIX: `ENOTDIR`, `EEXIST`, …
    #[error("{0}")]
    Posix(#[from] Errno),
    /// S3 answered with an error, or not in time.
    #[error(transparent)]
    Bucket(#[from] bucket::Error),
    /// The journal could not record what a crash must not lose.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// A draft on the local disk could not be read or written.
    #[error("draft: {0}")]
    Draft(#[from] std::io::Error),
    /// A gatekeeper forbids it; nothing was done.
    #[error("{0}")]
    Vetoed(Refusal),
    /// A gatekeeper had to be asked, and could not be.
    #[error("not done: {0}")]
    Unasked(String),
}

/// Result of an operation.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The errno that the program sees; S3's causes go through the one table in [`crate::error`].
    pub fn errno(&self) -> Errno {
        match self {
            Self::Posix(errno) => *errno,
            Self::Bucket(error) => error.kind.errno(),
            Self::Journal(error) => error.kind().errno(),
            // The disk says precisely what is wrong (ENOSPC, EDQUOT, EMFILE): pass it on.
            Self::Vetoed(refusal) => refusal.errno,
            Self::Unasked(_) => Kind::HookFailed.errno(),
            Self::Draft(error) => error.raw_os_error().map_or(Kind::Local.errno(), Errno::from_raw),
        }
    }

    /// Somebody else's version stands where ours was to go.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Bucket(error) if error.kind == Kind::Changed)
    }

    /// S3 says that the object is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Bucket(error) if error.kind == Kind::NotFound)
    }
}

impl From<NameError> for Error {
    fn from(error: NameError) -> Self {
        Self::Posix(match error {
            NameError::TooLong => Errno::ENAMETOOLONG,
            NameError::NotUtf8 => Errno::EILSEQ,
        })
    }
}

impl From<bucket::attributes::TooLarge> for Error {
    /// `setxattr(2)`: ENOSPC, there is insufficient space remaining to store the attribute.
    fn from(_: bucket::attributes::TooLarge) -> Self {
        Self::Posix(Errno::ENOSPC)
    }
}
