//! System calls that `std` does not offer, answering `io::Result`.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Error};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("paths hold no NUL")
}

fn check(answer: impl Into<i64>) -> io::Result<u64> {
    let answer = answer.into();
    u64::try_from(answer).map_err(|_| Error::last_os_error())
}

pub fn umount_lazily(path: &Path) -> io::Result<()> {
    nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH).map_err(Into::into)
}

pub fn mknod(path: &Path, kind: libc::mode_t, mode: libc::mode_t, device: u64) -> io::Result<()> {
    // SAFETY: the path is NUL-terminated and lives over the call.
    check(unsafe { libc::mknod(c_path(path).as_ptr(), kind | mode, device) }).map(drop)
}

pub fn chmod(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// Permission bits, without the file type.
pub fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).expect("stat").mode() & 0o7777
}

pub fn setxattr(path: &Path, name: &str, value: &[u8], flags: i32) -> io::Result<()> {
    let name = CString::new(name).expect("names hold no NUL");
    // SAFETY: both strings are NUL-terminated; the value is passed with its length.
    let done =
        unsafe { libc::setxattr(c_path(path).as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags) };
    check(done).map(drop)
}

pub fn getxattr(path: &Path, name: &str) -> io::Result<Vec<u8>> {
    let name = CString::new(name).expect("names hold no NUL");
    let mut value = vec![0; 65536];
    // SAFETY: the buffer is passed with its length.
    let size = check(unsafe {
        libc::getxattr(c_path(path).as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) as i64
    })?;
    value.truncate(size as usize);
    Ok(value)
}

/// Asks for a value with a buffer of this size (0 = only its length).
pub fn getxattr_sized(path: &Path, name: &str, room: usize) -> io::Result<usize> {
    let name = CString::new(name).expect("names hold no NUL");
    let mut value = vec![0u8; room];
    // SAFETY: the buffer is passed with its length.
    let size =
        check(unsafe { libc::getxattr(c_path(path).as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), room) as i64 })?;
    Ok(size as usize)
}

pub fn listxattr(path: &Path) -> io::Result<Vec<String>> {
    let mut names = vec![0u8; 65536];
    // SAFETY: the buffer is passed with its length.
    let size = check(unsafe { libc::listxattr(c_path(path).as_ptr(), names.as_mut_ptr().cast(), names.len()) as i64 })?;
    let mut listed: Vec<String> = names[..size as usize]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    listed.sort();
    Ok(listed)
}

pub fn removexattr(path: &Path, name: &str) -> io::Result<()> {
    let name = CString::new(name).expect("names hold no NUL");
    // SAFETY: both strings are NUL-terminated.
    check(unsafe { libc::removexattr(c_path(path).as_ptr(), name.as_ptr()) }).map(drop)
}

/// `renameat2` with flags such as `RENAME_NOREPLACE`.
pub fn rename_with(from: &Path, to: &Path, flags: libc::c_uint) -> io::Result<()> {
    let (from, to) = (c_path(from), c_path(to));
    // SAFETY: both paths are NUL-terminated and live over the call.
    check(unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags) }).map(drop)
}

pub fn fallocate(file: &File, mode: i32, offset: i64, len: i64) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `file` lives.
    check(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, len) }).map(drop)
}

pub fn lseek(file: &File, offset: i64, whence: i32) -> io::Result<u64> {
    // SAFETY: the descriptor is open for as long as `file` lives.
    check(unsafe { libc::lseek(file.as_raw_fd(), offset, whence) })
}

pub fn fdatasync(file: &File) -> io::Result<()> {
    file.sync_data()
}

/// Closes a file and answers what close(2) said: `drop` hides it.
pub fn close(file: File) -> io::Result<()> {
    use std::os::fd::IntoRawFd;
    // SAFETY: `into_raw_fd` gives up the descriptor, so it is closed once.
    check(unsafe { libc::close(file.into_raw_fd()) }).map(drop)
}

/// Sets atime and mtime to seconds and nanoseconds since the epoch; does not follow symlinks.
pub fn set_times(path: &Path, atime: (i64, i64), mtime: (i64, i64)) -> io::Result<()> {
    let spec = |(tv_sec, tv_nsec)| libc::timespec { tv_sec, tv_nsec };
    let times = [spec(atime), spec(mtime)];
    // SAFETY: the path is NUL-terminated, the array has the two entries that the call reads.
    let done =
        unsafe { libc::utimensat(libc::AT_FDCWD, c_path(path).as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW) };
    check(done).map(drop)
}

pub fn truncate(path: &Path, size: i64) -> io::Result<()> {
    // SAFETY: the path is NUL-terminated.
    check(unsafe { libc::truncate(c_path(path).as_ptr(), size) }).map(drop)
}

pub fn flock(file: &File, how: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `file` lives.
    check(unsafe { libc::flock(file.as_raw_fd(), how) }).map(drop)
}

/// A lock of the open file description (`F_OFD_SETLK`): conflicts between two opens in one process,
/// unlike `F_SETLK`.
pub fn ofd_lock(file: &File, kind: i32, start: i64, len: i64) -> io::Result<()> {
    let lock =
        libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: start, l_len: len, l_pid: 0 };
    // SAFETY: the structure lives over the call.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) }).map(drop)
}

pub fn copy_file_range(from: &File, to: &File, len: usize) -> io::Result<u64> {
    let nowhere = std::ptr::null_mut();
    // SAFETY: null offsets mean the files' own positions.
    check(unsafe { libc::copy_file_range(from.as_raw_fd(), nowhere, to.as_raw_fd(), nowhere, len, 0) as i64 })
}

/// A shared, writable mapping of the first `len` bytes of a file.
pub struct Mapping {
    start: *mut u8,
    len: usize,
}

impl Mapping {
    pub fn new(file: &File, len: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(Self { start: start.cast(), len }) }
    }

    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len);
        // SAFETY: inside the mapping, and the caller keeps the file at least that long.
        unsafe { self.start.add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
    }

    pub fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        assert!(offset + len <= self.len);
        // SAFETY: inside the mapping, and the caller keeps the file at least that long.
        unsafe { std::slice::from_raw_parts(self.start.add(offset), len).to_vec() }
    }

    pub fn sync(&self) -> io::Result<()> {
        // SAFETY: the mapping is ours.
        check(unsafe { libc::msync(self.start.cast(), self.len, libc::MS_SYNC) }).map(drop)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and ends here.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}

/// The file's modification time.
pub fn mtime(path: &Path) -> SystemTime {
    let meta = std::fs::symlink_metadata(path).expect("stat");
    UNIX_EPOCH + Duration::new(u64::try_from(meta.mtime()).expect("after 1970"), meta.mtime_nsec() as u32)
}

/// Seconds and nanoseconds of the inode change time.
pub fn ctime(path: &Path) -> (i64, i64) {
    let meta = std::fs::symlink_metadata(path).expect("stat");
    (meta.ctime(), meta.ctime_nsec())
}

/// One letter for the kind of a file, as `ls -l` shows it.
pub fn kind_letter(path: &Path) -> char {
    let kind = std::fs::symlink_metadata(path).expect("stat").file_type();
    match () {
        () if kind.is_dir() => 'd',
        () if kind.is_symlink() => 'l',
        () if kind.is_fifo() => 'p',
        () if kind.is_socket() => 's',
        () if kind.is_char_device() => 'c',
        () if kind.is_block_device() => 'b',
        () => '-',
    }
}
