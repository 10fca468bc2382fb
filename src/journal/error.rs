//! What can go wrong with the journal.

use std::path::PathBuf;

use crate::error::Kind;

/// Result of a journal call.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure of the journal. Cloneable, because calls that share a commit share its failure.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{}: the journal is in use by another s3mount; unmount that one, or give this one its own --state-dir",
        path.display()
    )]
    InUse { path: PathBuf },
    #[error("{}: the journal can't be opened: {cause}", path.display())]
    Open { path: PathBuf, cause: String, kind: Kind },
    #[error("journal: {record} is damaged ({cause}); move the file away to start anew, and report this")]
    Corrupt { record: String, cause: String },
    #[error("journal: {action} failed: {cause}")]
    Storage { action: &'static str, cause: String, kind: Kind },
    #[error("journal: it is closed already")]
    Closed,
}

impl Error {
    /// What kind of failure this is, for errno and exit code.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::InUse { .. } | Self::Closed => Kind::Local,
            Self::Open { kind, .. } | Self::Storage { kind, .. } => *kind,
            Self::Corrupt { .. } => Kind::Corrupt,
        }
    }

    /// Wraps what redb says while `action` was done.
    pub(super) fn storage(action: &'static str, error: impl Into<redb::Error>) -> Self {
        let error = error.into();
        Self::Storage { action, kind: kind(&error), cause: error.to_string() }
    }

    pub(super) fn corrupt(record: impl Into<String>, cause: impl std::fmt::Display) -> Self {
        Self::Corrupt { record: record.into(), cause: cause.to_string() }
    }
}

/// The cause behind a failure of redb.
pub(super) fn kind(error: &redb::Error) -> Kind {
    match error {
        redb::Error::Corrupted(_) => Kind::Corrupt,
        redb::Error::Io(io) => io_kind(io),
        _ => Kind::Local,
    }
}

/// The cause behind a failure of the local file system.
pub(super) fn io_kind(error: &std::io::Error) -> Kind {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Kind::NoSpace,
        std::io::ErrorKind::InvalidData => Kind::Corrupt,
        _ => Kind::Local,
    }
}
