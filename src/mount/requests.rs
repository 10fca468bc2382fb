//! What the kernel asks for, counted: an atomic add for each request, and one more where it fails.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Errno, Kind};

macro_rules! operations {
    ($($operation:ident $name:literal)*) => {
        /// A FUSE operation that the kernel waits for.
        #[derive(Clone, Copy, Debug)]
        pub(super) enum Operation {
            $($operation,)*
        }

        /// As libfuse names them, in the order of [`Operation`].
        const NAMES: &[&str] = &[$($name,)*];
    };
}

operations! {
    Lookup "lookup"
    GetAttr "getattr"
    SetAttr "setattr"
    ReadLink "readlink"
    MkNod "mknod"
    MkDir "mkdir"
    Unlink "unlink"
    RmDir "rmdir"
    Symlink "symlink"
    Rename "rename"
    Link "link"
    Open "open"
    Create "create"
    Read "read"
    Write "write"
    Flush "flush"
    Release "release"
    Fsync "fsync"
    OpenDir "opendir"
    ReadDir "readdir"
    ReadDirPlus "readdirplus"
    ReleaseDir "releasedir"
    FsyncDir "fsyncdir"
    StatFs "statfs"
    SetXattr "setxattr"
    GetXattr "getxattr"
    ListXattr "listxattr"
    RemoveXattr "removexattr"
    Access "access"
    Fallocate "fallocate"
    Lseek "lseek"
}

impl Operation {
    /// As libfuse names it.
    pub(super) fn name(self) -> &'static str {
        NAMES[self as usize]
    }
}

/// Numbers of errors end below this on Linux (`errno-base.h`, `errno.h`).
const ERRNOS: usize = 134;

/// Requests of the kernel since the mount, and errors that it was answered.
#[derive(Debug)]
pub struct Requests {
    operations: Box<[AtomicU64]>,
    errors: Box<[AtomicU64]>,
}

impl Default for Requests {
    fn default() -> Self {
        let zeros = |count| std::iter::repeat_with(AtomicU64::default).take(count).collect();
        Self { operations: zeros(NAMES.len()), errors: zeros(ERRNOS) }
    }
}

impl Requests {
    pub(super) fn count(&self, operation: Operation) {
        self.operations[operation as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self, errno: Errno) {
        let number = usize::try_from(errno as i32).ok().filter(|number| *number < ERRNOS);
        self.errors[number.unwrap_or(Errno::EIO as usize)].fetch_add(1, Ordering::Relaxed);
    }

    /// Requests by operation; each is there.
    pub fn by_operation(&self) -> Vec<(&'static str, u64)> {
        let counts = self.operations.iter().map(|count| count.load(Ordering::Relaxed));
        NAMES.iter().copied().zip(counts).collect()
    }

    /// Errors by the name of their errno: what s3mount's own table knows always, others once there was one.
    /// A name that is not there (`ENOENT`) is an everyday answer.
    pub fn errors(&self) -> Vec<(String, u64)> {
        let counts = (0..).map(Errno::from_raw).zip(self.errors.iter().map(|count| count.load(Ordering::Relaxed)));
        let is_known = |errno| Kind::ALL.iter().any(|kind| kind.errno() == errno);
        let told = counts.filter(|(errno, count)| *count > 0 || is_known(*errno));
        told.map(|(errno, count)| (format!("{errno:?}"), count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_errors_are_counted_by_name() {
        let requests = Requests::default();
        requests.count(Operation::Lookup);
        requests.count(Operation::Lseek);
        requests.count(Operation::Lseek);
        requests.failed(Errno::ENOENT);
        requests.failed(Errno::ENOTEMPTY);
        let by_operation = requests.by_operation();
        assert_eq!((by_operation[0], by_operation[NAMES.len() - 1]), (("lookup", 1), ("lseek", 2)));
        let errors = requests.errors();
        let of = |name: &str| errors.iter().find(|(errno, _)| errno == name).map(|(_, count)| *count);
        assert_eq!((of("ENOENT"), of("ENOTEMPTY"), of("EIO"), of("EEXIST")), (Some(1), Some(1), Some(0), None));
    }
}
