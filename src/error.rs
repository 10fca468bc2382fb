//! What can go wrong, and the only two tables that turn it into numbers: errno and exit code.
//!
//! Rooms have typed errors of their own; each of them names its [`Kind`], and everything a
//! program or a shell sees of a failure comes from here.

pub use nix::errno::Errno;

/// The causes that s3mount tells apart. A kind is a promise to the user about what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The object does not exist (404 `NoSuchKey`).
    NotFound,
    /// The bucket does not exist (404 `NoSuchBucket`).
    NoSuchBucket,
    /// S3 refused the caller (403).
    AccessDenied,
    /// No usable credentials were found before anything was sent.
    NoCredentials,
    /// The object is not the version we knew (412, or 409 from a concurrent write).
    Changed,
    /// S3 asked us to slow down, or failed on its side, more often than we may retry (429, 5xx).
    Busy,
    /// A quota or a size limit of the server is reached.
    QuotaExceeded,
    /// The object is archived (Glacier) and has to be restored first.
    Archived,
    /// No answer within the deadline.
    Deadline,
    /// The endpoint cannot be reached at all.
    Unreachable,
    /// The server does not know this operation (501).
    Unsupported,
    /// The multipart upload is gone (404 `NoSuchUpload`).
    NoSuchUpload,
    /// S3 called the request wrong (another 4xx): a bug of ours or a limit of the server.
    Refused,
    /// Bytes do not match their checksum, or a record cannot be decoded.
    Corrupt,
    /// The local disk is full.
    NoSpace,
    /// Part of the mount can only be read.
    ReadOnly,
    /// A hook failed for good.
    HookFailed,
    /// Another local failure: journal, draft or cache file.
    Local,
    /// The user's input is wrong: a flag, a config file, a mountpoint.
    Usage,
}

impl Kind {
    /// All of them, in the order of their numbers (`kind as usize`).
    pub const ALL: [Self; 19] = [
        Self::NotFound,
        Self::NoSuchBucket,
        Self::AccessDenied,
        Self::NoCredentials,
        Self::Changed,
        Self::Busy,
        Self::QuotaExceeded,
        Self::Archived,
        Self::Deadline,
        Self::Unreachable,
        Self::Unsupported,
        Self::NoSuchUpload,
        Self::Refused,
        Self::Corrupt,
        Self::NoSpace,
        Self::ReadOnly,
        Self::HookFailed,
        Self::Local,
        Self::Usage,
    ];

    /// What a metric calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::NoSuchBucket => "no_such_bucket",
            Self::AccessDenied => "access_denied",
            Self::NoCredentials => "no_credentials",
            Self::Changed => "changed",
            Self::Busy => "busy",
            Self::QuotaExceeded => "quota_exceeded",
            Self::Archived => "archived",
            Self::Deadline => "deadline",
            Self::Unreachable => "unreachable",
            Self::Unsupported => "unsupported",
            Self::NoSuchUpload => "no_such_upload",
            Self::Refused => "refused",
            Self::Corrupt => "corrupt",
            Self::NoSpace => "no_space",
            Self::ReadOnly => "read_only",
            Self::HookFailed => "hook_failed",
            Self::Local => "local",
            Self::Usage => "usage",
        }
    }

    /// The errno a program sees. The only such table (`errno(3)`).
    #[must_use]
    pub fn errno(self) -> Errno {
        match self {
            Self::NotFound | Self::NoSuchBucket => Errno::ENOENT,
            Self::AccessDenied | Self::NoCredentials => Errno::EACCES,
            Self::Changed | Self::NoSuchUpload => Errno::ESTALE,
            Self::Busy => Errno::EAGAIN,
            Self::QuotaExceeded => Errno::EDQUOT,
            Self::Archived => Errno::ENODATA,
            Self::Deadline => Errno::ETIMEDOUT,
            Self::Unreachable => Errno::EHOSTUNREACH,
            Self::Unsupported => Errno::ENOTSUP,
            Self::NoSpace => Errno::ENOSPC,
            Self::ReadOnly => Errno::EROFS,
            Self::HookFailed => Errno::ECANCELED,
            Self::Refused | Self::Usage => Errno::EINVAL,
            Self::Corrupt | Self::Local => Errno::EIO,
        }
    }

    /// The exit code of the command, after `sysexits.h`. The only such table.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Usage => 64,
            Self::NotFound | Self::NoSuchBucket => 66,
            Self::Unreachable => 68,
            Self::Busy | Self::Unsupported | Self::QuotaExceeded => 69,
            Self::Refused | Self::Archived | Self::Changed | Self::NoSuchUpload | Self::HookFailed | Self::ReadOnly => {
                70
            }
            Self::Local | Self::NoSpace | Self::Corrupt => 74,
            Self::Deadline => 75,
            Self::AccessDenied | Self::NoCredentials => 77,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eio_means_corruption_or_a_local_fault_only() {
        for kind in [Kind::NotFound, Kind::AccessDenied, Kind::Changed, Kind::Busy, Kind::Deadline, Kind::Unreachable] {
            assert_ne!(kind.errno(), Errno::EIO, "{kind:?}");
        }
        assert_eq!(Kind::Corrupt.errno(), Errno::EIO);
    }

    #[test]
    fn every_kind_stands_at_its_number_under_a_name_of_its_own() {
        for (number, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number, "{kind:?}");
        }
        let names: std::collections::BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
    }

    #[test]
    fn no_failure_exits_with_zero() {
        for kind in [Kind::Usage, Kind::Local, Kind::Deadline, Kind::NoSuchBucket, Kind::AccessDenied] {
            assert_ne!(kind.exit_code(), 0, "{kind:?}");
        }
    }
}
