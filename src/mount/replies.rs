//! What the kernel is answered: outcomes of [`crate::fs`] in the words of `fuser`.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, ReplyXattr,
};
use parking_lot::Mutex;

use super::adapter::MAX_WRITE_BYTES;
use crate::fs::ops::{Entry, Listed, Opened};
use crate::fs::{Backing, Error, FileKind, Fs, Result};

/// Inode numbers are never used again for another file while the kernel knows them.
const GENERATION: Generation = Generation(0);

/// How often a full disk is told.
const TELL_AGAIN: Duration = Duration::from_mins(1);
static FULL_DISK_TOLD: Mutex<Option<Instant>> = Mutex::new(None);

pub(super) fn errno(error: &Error) -> Errno {
    let errno = error.errno();
    if errno == nix::errno::Errno::ENOSPC && matches!(error, Error::Draft(_) | Error::Journal(_)) {
        tell_full_disk(error);
    }
    match error {
        Error::Posix(_) => {}
        told => tracing::debug!(cause = %told, %errno, "operation failed"),
    }
    Errno::from_i32(errno as i32)
}

/// Programs seldom say which disk they mean, and `df` shows that of the bucket.
fn tell_full_disk(cause: &Error) {
    let mut told = FULL_DISK_TOLD.lock();
    if told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
        *told = Some(Instant::now());
        tracing::warn!(%cause, "the disk of the state directory is full: files cannot be written before there is room");
    }
}

fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

fn file_attr(entry: &Entry) -> FileAttr {
    let stat = &entry.stat;
    FileAttr {
        ino: INodeNo(entry.ino),
        size: stat.size,
        blocks: stat.size.div_ceil(512),
        atime: stat.atime,
        mtime: stat.mtime,
        ctime: stat.ctime,
        crtime: SystemTime::UNIX_EPOCH,
        kind: file_type(stat.kind),
        perm: stat.perm,
        nlink: entry.nlink,
        uid: stat.uid,
        gid: stat.gid,
        rdev: stat.rdev,
        blksize: MAX_WRITE_BYTES,
        flags: 0,
    }
}

fn open_flags(opened: Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache && !opened.direct_io);
    flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct_io);
    flags.set(FopenFlags::FOPEN_NOFLUSH, opened.no_flush);
    flags
}

pub(super) fn reply_entry(reply: ReplyEntry) -> impl FnOnce(Result<Entry>) + Send + 'static {
    move |outcome| match outcome {
        Ok(entry) => reply.entry(&entry.ttl, &file_attr(&entry), GENERATION),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn reply_attr(reply: ReplyAttr) -> impl FnOnce(Result<Entry>) + Send + 'static {
    move |outcome| match outcome {
        Ok(entry) => reply.attr(&entry.ttl, &file_attr(&entry)),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn reply_empty(reply: ReplyEmpty) -> impl FnOnce(Result<()>) + Send + 'static {
    move |outcome| match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn reply_bytes(reply: ReplyData) -> impl FnOnce(Result<bytes::Bytes>) + Send + 'static {
    move |outcome| match outcome {
        Ok(bytes) => reply.data(&bytes),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn reply_written(reply: ReplyWrite) -> impl FnOnce(Result<u32>) + Send + 'static {
    move |outcome| match outcome {
        Ok(written) => reply.written(written),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn reply_opened(reply: ReplyOpen, fs: Arc<Fs>) -> impl FnOnce(Result<Opened>) + Send + 'static {
    move |outcome| match outcome {
        Ok(opened) => match fs.backing(opened.handle) {
            Some(backing) => hand_over(reply, &fs, opened, &backing),
            None => reply.opened(FileHandle(opened.handle), open_flags(opened)),
        },
        Err(error) => reply.error(errno(&error)),
    }
}

/// Lets the kernel read a file by itself. Where it refuses (it wants CAP_SYS_ADMIN, and a file system
/// that is not stacked on another), it refuses the next one too.
fn hand_over(reply: ReplyOpen, fs: &Fs, opened: Opened, backing: &Backing) {
    let register = |file: &File| {
        reply.open_backing(file).inspect_err(|cause| tracing::debug!(%cause, "the kernel reads no files itself")).ok()
    };
    let handle = FileHandle(opened.handle);
    // The kernel refuses an open with any other flag.
    let flags = open_flags(opened) & FopenFlags::FOPEN_NOFLUSH;
    if let Some(id) = backing.registered(register) {
        reply.opened_passthrough(handle, flags, id);
    } else {
        fs.offer_passthrough(false);
        fs.keep_reads(opened.handle);
        reply.opened(handle, open_flags(opened));
    }
}

pub(super) fn reply_created(reply: ReplyCreate) -> impl FnOnce(Result<(Entry, Opened)>) + Send + 'static {
    move |outcome| match outcome {
        Ok((entry, opened)) => {
            let handle = FileHandle(opened.handle);
            reply.created(&entry.ttl, &file_attr(&entry), GENERATION, handle, open_flags(opened));
        }
        Err(error) => reply.error(errno(&error)),
    }
}

/// A size of 0 asks how large the value is (`getxattr(2)`).
pub(super) fn reply_xattr(reply: ReplyXattr, size: u32, outcome: Result<Vec<u8>>) {
    match outcome {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(errno(&error)),
    }
}

/// As many names as the reply holds.
pub(super) fn fill(mut reply: ReplyDirectory, listed: &[Listed]) {
    for line in listed {
        if reply.add(INodeNo(line.ino), line.next, file_type(line.kind), &line.name) {
            break;
        }
    }
    reply.ok();
}

/// As many entries as the reply holds; references of those that did not fit are given back.
pub(super) fn fill_plus(fs: &Fs, mut reply: ReplyDirectoryPlus, listed: &[Listed]) {
    for line in listed {
        let Some(entry) = fs.enter_listed(line) else { continue };
        let full = reply.add(INodeNo(entry.ino), line.next, &line.name, &entry.ttl, &file_attr(&entry), GENERATION);
        if full {
            if line.name != "." && line.name != ".." {
                fs.forget(entry.ino, 1);
            }
            break;
        }
    }
    reply.ok();
}
