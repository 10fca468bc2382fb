//! Remembering over a restart that a data file was verified.
//!
//! A stamp says what the file was like when this machine, since it was booted, had checked all of it.
//! A file that is still like that, and all of whose pages are still in memory, is as verified as it
//! was: nobody has written to it, and nothing was read from the disk since. Any other one is read and
//! checked anew, which for a large file takes longer than reading it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use super::super::boot;

pub(super) type Stamp = [u8; 8];

/// What nobody has stamped has this.
pub(super) const NONE: Stamp = [0; 8];

/// A file that was changed this short ago may be changed again without another time of change:
/// the kernel's coarse clock ticks every 1 to 10 ms (`CONFIG_HZ`).
const LEAST_AGE: Duration = Duration::from_millis(50);
/// `cachestat(2)`, Linux 6.5; the number is the same on every architecture.
const SYS_CACHESTAT: libc::c_long = 451;
/// What the kernel counts in, where pages are the smallest (x86-64, most of arm64): with larger ones
/// the count is smaller, and the file is verified.
const PAGE_BYTES: u64 = 4096;

/// The stamp of a file as it is; `None` when it cannot have one, or not yet.
pub(super) fn of(file: &File) -> io::Result<Option<Stamp>> {
    let Some(boot) = boot::id() else { return Ok(None) };
    let found = file.metadata()?;
    let seconds = Duration::from_secs(u64::try_from(found.ctime()).unwrap_or(0));
    let changed =
        SystemTime::UNIX_EPOCH + seconds + Duration::from_nanos(u64::try_from(found.ctime_nsec()).unwrap_or(0));
    if !changed.elapsed().is_ok_and(|age| age > LEAST_AGE) {
        return Ok(None);
    }
    let mut hash = Sha256::new();
    hash.update(boot);
    for number in [found.dev(), found.ino(), found.size()] {
        hash.update(number.to_be_bytes());
    }
    for time in [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()] {
        hash.update(time.to_be_bytes());
    }
    Ok(hash.finalize().first_chunk().copied().filter(|stamp| *stamp != NONE))
}

/// All pages of a file of this size are in memory. `false` too where the kernel does not tell.
pub(super) fn is_resident(file: &File, size: u64) -> bool {
    #[repr(C)]
    struct Range {
        offset: u64,
        length: u64,
    }
    /// Pages: in memory, dirty, under writeback, evicted, recently evicted.
    #[derive(Default)]
    #[repr(C)]
    struct Counted([u64; 5]);
    let (range, mut counted) = (Range { offset: 0, length: size }, Counted::default());
    // SAFETY: the descriptor is open, and both structures are those of the kernel's header
    // (include/uapi/linux/mman.h) and live until the call returns.
    let told = unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut counted, 0) };
    told == 0 && counted.0[0] >= size.div_ceil(PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn stamped(file: &File) -> Stamp {
        let begun = SystemTime::now();
        loop {
            match of(file).unwrap() {
                Some(stamp) => return stamp,
                None => assert!(begun.elapsed().unwrap() < Duration::from_secs(30), "the file does not grow old"),
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_stamp_holds_until_the_file_is_written_to() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 9000]).unwrap();
        assert_eq!(of(&file).unwrap(), None, "within the same tick it may be written to again");
        let stamp = stamped(&file);
        assert_eq!(stamped(&file), stamp);
        std::os::unix::fs::FileExt::write_all_at(&file, &[8], 3).unwrap();
        assert_ne!(stamped(&file), stamp);
    }

    #[test]
    fn holes_are_not_in_memory() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 9000]).unwrap();
        assert!(is_resident(&file, 9000));
        file.set_len(90_000).unwrap();
        assert!(!is_resident(&file, 90_000));
    }
}
