//! Who has what open.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::libc;
use parking_lot::Mutex;

use super::inodes::{Ino, Pages};
use super::pages::Lines;
use super::passthrough::Backing;
use crate::bucket::ETag;
use crate::cache::{Pinned, ReadAhead};

/// An open file (`open(2)`): what its reads are pinned to.
#[derive(Debug)]
pub struct FileHandle {
    pub ino: Ino,
    flags: i32,
    /// Thread group of the opener; 0 if unknown. A flush by another one is a child's close.
    pub opener_tgid: u32,
    /// The version that this handle reads; moves along with our own commits only.
    pub pinned: Mutex<Option<Pinned>>,
    pub ahead: ReadAhead,
    /// The file that the kernel reads instead of asking us.
    pub backing: Option<Arc<Backing>>,
    /// What was noted of the kernel's pages by this open, where it makes the kernel drop some.
    pub dropped: Option<Pages>,
    /// Bytes were written through it since a flush or fsync last answered for them from S3.
    pub unanswered: AtomicBool,
}

impl FileHandle {
    /// A file opened with `flags` of `open(2)`.
    pub fn new(ino: Ino, flags: i32, opener_tgid: u32, pinned: Option<Pinned>) -> Self {
        let (pinned, ahead) = (Mutex::new(pinned), ReadAhead::new());
        let unanswered = AtomicBool::new(false);
        Self { ino, flags, opener_tgid, pinned, ahead, backing: None, dropped: None, unanswered }
    }

    /// The same with reads that the kernel answers from this file.
    pub fn backed_by(self, backing: Option<Arc<Backing>>) -> Self {
        Self { backing, ..self }
    }

    /// The same with an open that makes the kernel drop the pages of other versions.
    pub fn dropping(self, dropped: Option<Pages>) -> Self {
        Self { dropped, ..self }
    }

    /// Opened for writing.
    pub fn can_write(&self) -> bool {
        writes(self.flags)
    }
}

/// Whether open flags ask for writing.
pub fn writes(flags: i32) -> bool {
    flags & libc::O_ACCMODE != libc::O_RDONLY
}

/// An open directory: the names as they were at the first `readdir`, so that a walk that deletes
/// as it goes misses nothing and sees nothing twice (`readdir(3p)`).
#[derive(Debug)]
pub struct DirHandle {
    pub ino: Ino,
    pub lines: tokio::sync::Mutex<Option<Lines>>,
}

/// All open files and directories, by handle number.
#[derive(Debug, Default)]
pub struct Handles {
    next: AtomicU64,
    files: Mutex<HashMap<u64, Arc<FileHandle>>>,
    directories: Mutex<HashMap<u64, Arc<DirHandle>>>,
}

impl Handles {
    /// Gives an open file its number.
    pub fn add_file(&self, handle: FileHandle) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.files.lock().insert(number, Arc::new(handle));
        number
    }

    /// The open file of a number.
    pub fn file(&self, number: u64) -> Option<Arc<FileHandle>> {
        self.files.lock().get(&number).cloned()
    }

    /// Closes a number for good.
    pub fn remove_file(&self, number: u64) -> Option<Arc<FileHandle>> {
        self.files.lock().remove(&number)
    }

    /// How many files are open.
    pub fn open_files(&self) -> usize {
        self.files.lock().len()
    }

    /// Whether anybody has the file open.
    pub fn is_open(&self, ino: Ino) -> bool {
        self.files.lock().values().any(|handle| handle.ino == ino)
    }

    /// The reads of an open come to us after all. Before the kernel knows its number.
    pub fn drop_backing(&self, number: u64) {
        if let Some(handle) = self.files.lock().get_mut(&number).and_then(Arc::get_mut) {
            handle.backing = None;
        }
    }

    /// Gives an open directory its number.
    pub fn add_directory(&self, ino: Ino) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.directories.lock().insert(number, Arc::new(DirHandle { ino, lines: tokio::sync::Mutex::default() }));
        number
    }

    /// The open directory of a number.
    pub fn directory(&self, number: u64) -> Option<Arc<DirHandle>> {
        self.directories.lock().get(&number).cloned()
    }

    /// Closes a number for good.
    pub fn remove_directory(&self, number: u64) {
        self.directories.lock().remove(&number);
    }

    /// Whether somebody has the file open for writing.
    pub fn is_written(&self, ino: Ino) -> bool {
        self.files.lock().values().any(|handle| handle.ino == ino && handle.can_write())
    }

    /// Our own new version of a file: whoever read the `previous` one reads that from now on.
    pub fn repin(&self, ino: Ino, previous: Option<&ETag>, pinned: &Pinned) {
        for handle in self.files.lock().values().filter(|handle| handle.ino == ino) {
            let mut current = handle.pinned.lock();
            if handle.can_write() || current.as_ref().map(|pinned| &pinned.etag) == previous {
                *current = Some(pinned.clone());
            }
        }
    }

    /// Whether somebody reads another version of `ino` than `pinned`.
    pub fn reads_other_version(&self, ino: Ino, pinned: &Pinned) -> bool {
        self.files.lock().values().any(|handle| {
            handle.ino == ino && handle.pinned.lock().as_ref().is_some_and(|other| other.etag != pinned.etag)
        })
    }
}
