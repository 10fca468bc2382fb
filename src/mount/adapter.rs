//! fuser → [`crate::fs`]: each request becomes one call of an operation, and gets exactly one reply.
//!
//! **Hits inline, misses elsewhere.** Handing an answer that memory has to another thread costs
//! 30–50 % of the metadata rate. So an operation is polled once on the thread that read the
//! request; only if it has to wait for S3 it moves to the runtime, and the thread reads on.

use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo, InitFlags, KernelConfig, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use futures::FutureExt;
use nix::libc;
use tokio::runtime::Handle;

use super::replies::{
    errno, fill, fill_plus, reply_attr, reply_bytes, reply_created, reply_empty, reply_entry, reply_opened,
    reply_written, reply_xattr,
};
use super::requests::{Operation, Requests};
use crate::fs::ops::{NewTime, Place, SetAttr};
use crate::fs::{Caller, Error, Fs, Result};
use crate::telemetry::spans;

/// Requests that the kernel may have under way in the background (read-ahead, asynchronous direct
/// I/O). fuser's default of 16 hides no latency: 228 against 779 MB/s at 20 ms.
const MAX_BACKGROUND: u16 = 256;
/// Largest WRITE; larger ones bring nothing.
pub(super) const MAX_WRITE_BYTES: u32 = 1 << 20;

/// A mounted [`Fs`] as fuser wants it.
#[derive(Debug)]
pub struct Adapter {
    fs: Arc<Fs>,
    runtime: Handle,
    requests: Arc<Requests>,
}

impl Adapter {
    /// Serves `fs`; what has to wait runs on `runtime`. Counts what it is asked in `requests`.
    pub fn new(fs: Arc<Fs>, runtime: Handle, requests: Arc<Requests>) -> Self {
        Self { fs, runtime, requests }
    }

    /// Runs an operation to its reply: at once if it needs not wait, else on the runtime.
    fn answer<T: Send + 'static>(
        &self,
        name: Operation,
        operation: impl Future<Output = Result<T>> + Send + 'static,
        reply: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        self.requests.count(name);
        let traced = spans::Operation::begin();
        let operation = AssertUnwindSafe(operation).catch_unwind();
        let mut operation: Pin<Box<dyn Future<Output = _> + Send>> = match &traced {
            Some(traced) => Box::pin(traced.scope(operation)),
            None => Box::pin(operation),
        };
        let _runtime = self.runtime.enter();
        let mut context = Context::from_waker(Waker::noop());
        match operation.as_mut().poll(&mut context) {
            Poll::Ready(outcome) => reply(told(traced, name, self.noted(unless_panicked(outcome)))),
            // The first waker wakes nobody: spawning polls again and leaves a real one.
            Poll::Pending => {
                let requests = Arc::clone(&self.requests);
                self.runtime.spawn(async move {
                    let outcome = noted(&requests, unless_panicked(operation.await));
                    reply(told(traced, name, outcome));
                });
            }
        }
    }

    /// The same outcome, counted if it is an error.
    fn noted<T>(&self, outcome: Result<T>) -> Result<T> {
        noted(&self.requests, outcome)
    }
}

fn noted<T>(requests: &Requests, outcome: Result<T>) -> Result<T> {
    outcome.inspect_err(|error| requests.failed(error.errno()))
}

/// The same outcome, told to who collects spans.
fn told<T>(traced: Option<spans::Operation>, name: Operation, outcome: Result<T>) -> Result<T> {
    if let Some(traced) = traced {
        let fault = |error: &Error| spans::Fault { kind: format!("{:?}", error.errno()), words: error.to_string() };
        traced.end(|| spans::Work::Fuse { operation: name.name() }, outcome.as_ref().err().map(fault));
    }
    outcome
}

/// A panic in an operation is a defect, and must not take the mount down: EIO, and a log line
/// (written by the panic hook).
fn unless_panicked<T>(outcome: std::result::Result<Result<T>, Box<dyn std::any::Any + Send>>) -> Result<T> {
    outcome.unwrap_or_else(|_| Err(Error::Posix(nix::errno::Errno::EIO)))
}

fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid() }
}

fn new_time(time: TimeOrNow) -> NewTime {
    match time {
        TimeOrNow::SpecificTime(time) => NewTime::At(mend_before_epoch(time)),
        TimeOrNow::Now => NewTime::Now,
    }
}

/// Times before 1970 come from the kernel as negative seconds plus nanoseconds; fuser 0.18 takes the
/// nanoseconds away instead of adding them (`time.rs`, `system_time_from_time`).
fn mend_before_epoch(time: SystemTime) -> SystemTime {
    match time.duration_since(UNIX_EPOCH) {
        Ok(_) => time,
        Err(before) => time + 2 * Duration::from_nanos(before.duration().subsec_nanos().into()),
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Never WRITEBACK_CACHE: the kernel would ignore sizes that change in the bucket.
        // Nor ATOMIC_O_TRUNC: it empties a program that runs before open(2) answers ETXTBSY.
        let wanted = [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_CACHE_SYMLINKS,
        ];
        for flag in wanted {
            if config.add_capabilities(flag).is_err() {
                tracing::debug!(?flag, "the kernel does not offer this");
            }
        }
        // A file system may then lie on ours (overlayfs), and our cache on no stacked one.
        let passthrough = config.set_max_stack_depth(1).is_ok()
            && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
            && nix::unistd::geteuid().is_root();
        self.fs.offer_passthrough(passthrough);
        // The nearest possible value is as good as any.
        let _ = config.set_max_background(MAX_BACKGROUND);
        let _ = config.set_congestion_threshold(MAX_BACKGROUND - MAX_BACKGROUND / 4);
        let _ = config.set_max_write(MAX_WRITE_BYTES);
        let _ = config.set_max_readahead(MAX_WRITE_BYTES);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (fs, name) = (self.fs.clone(), name.to_owned());
        self.answer(Operation::Lookup, async move { fs.lookup(parent.0, &name).await }, reply_entry(reply));
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        self.fs.forget(ino.0, count);
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        let fs = self.fs.clone();
        self.answer(Operation::GetAttr, async move { fs.getattr(ino.0).await }, reply_attr(reply));
    }

    fn setattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = SetAttr { mode, uid, gid, size, atime: atime.map(new_time), mtime: mtime.map(new_time) };
        let fs = self.fs.clone();
        self.answer(Operation::SetAttr, async move { fs.setattr(ino.0, set).await }, reply_attr(reply));
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        let fs = self.fs.clone();
        self.answer(Operation::ReadLink, async move { fs.readlink(ino.0).await }, reply_bytes(reply));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let (fs, name, caller) = (self.fs.clone(), name.to_owned(), caller(request));
        self.answer(
            Operation::MkNod,
            async move { fs.mknod(parent.0, &name, mode, rdev, caller).await },
            reply_entry(reply),
        );
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        let (fs, name, caller) = (self.fs.clone(), name.to_owned(), caller(request));
        self.answer(Operation::MkDir, async move { fs.mkdir(parent.0, &name, mode, caller).await }, reply_entry(reply));
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (fs, name) = (self.fs.clone(), name.to_owned());
        self.answer(Operation::Unlink, async move { fs.unlink(parent.0, &name).await }, reply_empty(reply));
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (fs, name) = (self.fs.clone(), name.to_owned());
        self.answer(Operation::RmDir, async move { fs.rmdir(parent.0, &name).await }, reply_empty(reply));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (fs, name, target, caller) = (self.fs.clone(), name.to_owned(), target.to_owned(), caller(request));
        let made = async move { fs.symlink(parent.0, &name, target.as_os_str(), caller).await };
        self.answer(Operation::Symlink, made, reply_entry(reply));
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (fs, name, new_name) = (self.fs.clone(), name.to_owned(), new_name.to_owned());
        let renamed = async move { fs.rename(parent.0, &name, new_parent.0, &new_name, flags.bits()).await };
        self.answer(Operation::Rename, renamed, reply_empty(reply));
    }

    fn link(&self, _request: &Request, _ino: INodeNo, _parent: INodeNo, _name: &OsStr, reply: ReplyEntry) {
        self.requests.count(Operation::Link);
        // One file is one object: there is nothing that two names could share.
        reply.error(Errno::EOPNOTSUPP);
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (fs, caller) = (self.fs.clone(), caller(request));
        let replier = reply_opened(reply, Arc::clone(&self.fs));
        self.answer(Operation::Open, async move { fs.open(ino.0, flags.0, caller).await }, replier);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (fs, name, caller) = (self.fs.clone(), name.to_owned(), caller(request));
        let created = async move { fs.create(parent.0, &name, mode, flags, caller).await };
        self.answer(Operation::Create, created, reply_created(reply));
    }

    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let fs = self.fs.clone();
        self.answer(Operation::Read, async move { fs.read(handle.0, offset, size).await }, reply_bytes(reply));
    }

    fn write(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let place = Place { offset, appends: flags.0 & libc::O_APPEND != 0 };
        if let Some(outcome) = self.fs.try_write(handle.0, place, data) {
            self.requests.count(Operation::Write);
            return reply_written(reply)(self.noted(outcome));
        }
        // The data lies in the reading thread's buffer: what has to wait needs its own.
        let (fs, data) = (self.fs.clone(), data.to_vec());
        self.answer(Operation::Write, async move { fs.write(handle.0, place, &data).await }, reply_written(reply));
    }

    fn flush(&self, request: &Request, _ino: INodeNo, handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        let (fs, caller) = (self.fs.clone(), caller(request));
        self.answer(Operation::Flush, async move { fs.flush(handle.0, caller).await }, reply_empty(reply));
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let fs = self.fs.clone();
        self.answer(Operation::Release, async move { fs.release(handle.0).await }, reply_empty(reply));
    }

    fn fsync(&self, _request: &Request, _ino: INodeNo, handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let fs = self.fs.clone();
        self.answer(Operation::Fsync, async move { fs.fsync(handle.0).await }, reply_empty(reply));
    }

    fn opendir(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.requests.count(Operation::OpenDir);
        match self.noted(self.fs.opendir(ino.0)) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn readdir(&self, _request: &Request, _ino: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectory) {
        let fs = self.fs.clone();
        self.answer(
            Operation::ReadDir,
            async move { fs.readdir(handle.0, offset).await },
            move |outcome| match outcome {
                Ok(listed) => fill(reply, &listed),
                Err(error) => reply.error(errno(&error)),
            },
        );
    }

    fn readdirplus(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let (fs, filler) = (self.fs.clone(), self.fs.clone());
        self.answer(Operation::ReadDirPlus, async move { fs.readdirplus(handle.0, offset).await }, move |outcome| {
            match outcome {
                Ok(listed) => fill_plus(&filler, reply, &listed),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn releasedir(&self, _request: &Request, _ino: INodeNo, handle: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.requests.count(Operation::ReleaseDir);
        self.fs.releasedir(handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _request: &Request, ino: INodeNo, _handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let fs = self.fs.clone();
        self.answer(Operation::FsyncDir, async move { fs.sync_directory(ino.0).await }, reply_empty(reply));
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        self.requests.count(Operation::StatFs);
        let space = self.fs.statfs();
        let (blocks, files) = (space.blocks, space.files);
        reply.statfs(blocks, blocks, blocks, files, files, space.block_bytes, space.max_name_bytes, space.block_bytes);
    }

    fn setxattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (fs, name, value) = (self.fs.clone(), name.to_owned(), value.to_vec());
        self.answer(
            Operation::SetXattr,
            async move { fs.setxattr(ino.0, &name, &value, flags).await },
            reply_empty(reply),
        );
    }

    fn getxattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let (fs, name) = (self.fs.clone(), name.to_owned());
        let reply = move |value| reply_xattr(reply, size, value);
        self.answer(Operation::GetXattr, async move { fs.getxattr(ino.0, &name).await }, reply);
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.requests.count(Operation::ListXattr);
        reply_xattr(reply, size, self.noted(self.fs.listxattr(ino.0)));
    }

    fn removexattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (fs, name) = (self.fs.clone(), name.to_owned());
        self.answer(Operation::RemoveXattr, async move { fs.removexattr(ino.0, &name).await }, reply_empty(reply));
    }

    fn access(&self, _request: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        self.requests.count(Operation::Access);
        // `default_permissions`: the kernel has decided already.
        reply.ok();
    }

    fn fallocate(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let fs = self.fs.clone();
        self.answer(
            Operation::Fallocate,
            async move { fs.fallocate(handle.0, offset, length, mode).await },
            reply_empty(reply),
        );
    }

    fn lseek(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.requests.count(Operation::Lseek);
        match self.noted(self.fs.lseek(handle.0, offset, whence)) {
            Ok(position) => reply.offset(position),
            Err(error) => reply.error(errno(&error)),
        }
    }
}
