//! Where the bytes of a draft lie: in memory while they are few, in a file from then on.
//!
//! Most files are small and are closed at once. A file of its own on the local disk would be made,
//! synced and removed for each of them, which costs more than all else that is done for it.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::journal::DraftBytes;

/// Up to here a draft lies in memory, and in the journal's own row when that answers for it.
pub const SMALL_BYTES: u64 = 64 << 10;

/// What a draft that is not empty takes at least, in bytes; a larger one the next power of two.
const LEAST_HELD_BYTES: u64 = 512;
/// With less free on their disk, drafts go into files before the journal answers for them.
const LEAST_FREE_BYTES: u64 = 64 << 20;

/// What a draft of so many bytes takes of memory.
fn held_bytes(length: u64) -> u64 {
    if length == 0 { 0 } else { length.next_power_of_two().max(LEAST_HELD_BYTES) }
}

/// The place of all drafts of a mount.
#[derive(Debug)]
pub struct Space {
    directory: PathBuf,
    /// What drafts may take of memory, all together.
    memory_bytes: u64,
    used_bytes: AtomicU64,
}

impl Space {
    /// `directory` is on a local file system; `memory_bytes` is for all drafts together, and the rest
    /// of them lie in files.
    pub fn new(directory: &Path, memory_bytes: u64) -> Arc<Self> {
        Arc::new(Self { directory: directory.to_owned(), memory_bytes, used_bytes: AtomicU64::new(0) })
    }

    /// What drafts take of memory now.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Whether there is so little room on the disk that the journal should not take bytes: what one failed
    /// write of its file brings is felt by every close.
    fn is_nearly_full(&self) -> bool {
        let disk = nix::sys::statvfs::statvfs(&self.directory);
        disk.is_ok_and(|disk| disk.blocks_available() * disk.fragment_size() < LEAST_FREE_BYTES)
    }

    /// Whether so much more, or less, was lent.
    fn lend(&self, before: u64, after: u64) -> bool {
        let lent = |used: u64| Some(used - before + after).filter(|used| after <= before || *used <= self.memory_bytes);
        self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lent).is_ok()
    }

    /// An empty file that no other draft has.
    fn new_file(&self) -> io::Result<(File, Arc<DraftFile>)> {
        let path = self.directory.join(uuid::Uuid::now_v7().simple().to_string());
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        Ok((file, DraftFile::new(path, None)))
    }
}

/// A draft's file on the local disk. It goes with whoever is the last to need it, but for the bytes
/// that the journal answers for: those stay as they are, and outlive the process.
#[derive(Debug)]
pub struct DraftFile {
    path: PathBuf,
    /// How many of them, from the start; `None`: the journal knows nothing of this file.
    promised: Mutex<Option<u64>>,
}

impl DraftFile {
    fn new(path: PathBuf, promised: Option<u64>) -> Arc<Self> {
        Arc::new(Self { path, promised: Mutex::new(promised) })
    }

    fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

impl Drop for DraftFile {
    fn drop(&mut self) {
        if self.promised.get_mut().is_none() {
            // Nothing to tell anybody: the next start clears the directory of what is left.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The bytes of a draft as they were at one moment, for the journal to answer for.
#[derive(Clone, Debug)]
pub enum Kept {
    /// They go into the journal themselves.
    Bytes(Bytes),
    /// The journal names the file.
    File(Arc<DraftFile>),
}

impl Kept {
    /// As the journal has it.
    pub fn record(&self) -> DraftBytes {
        match self {
            Self::Bytes(bytes) => DraftBytes::Here { bytes: bytes.clone() },
            Self::File(file) => DraftBytes::File(file.name()),
        }
    }

    /// How many bytes the journal answers for.
    pub fn promised(&self) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::File(file) => *file.promised.lock(),
        }
    }

    /// Sets how many bytes of a file the journal answers for; returns what it was. With the draft
    /// locked, if there is one.
    pub fn set_promised(&self, bytes: Option<u64>) -> Option<u64> {
        match self {
            Self::Bytes(_) => None,
            Self::File(file) => std::mem::replace(&mut *file.promised.lock(), bytes),
        }
    }

    /// Both are in one file.
    pub fn shares_file(&self, other: &Self) -> bool {
        matches!((self, other), (Self::File(one), Self::File(other)) if Arc::ptr_eq(one, other))
    }
}

/// The bytes, and no more: how they make up a file the draft knows.
#[derive(Debug)]
pub(super) struct Image {
    space: Arc<Space>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// As long as the file, in memory that is lent by the space.
    Memory(Vec<u8>),
    File(File, Arc<DraftFile>),
}

impl Image {
    /// So many zeros.
    pub fn new(space: &Arc<Space>, size: u64) -> io::Result<Self> {
        let mut image = Self { space: space.clone(), place: Place::Memory(Vec::new()) };
        image.set_len(size)?;
        Ok(image)
    }

    /// The first `size` bytes of what an earlier process left.
    pub fn resume(space: &Arc<Space>, left: &DraftBytes, size: u64) -> io::Result<(Self, Kept)> {
        let too_short = || io::Error::other("a draft is shorter than what was acknowledged of it");
        match left {
            DraftBytes::Here { bytes } => {
                if bytes.len() as u64 != size {
                    return Err(too_short());
                }
                let mut image = Self::new(space, size)?;
                image.write(0, bytes)?;
                Ok((image, Kept::Bytes(bytes.clone())))
            }
            DraftBytes::File(name) => {
                let path = space.directory.join(name);
                let file = OpenOptions::new().read(true).write(true).open(&path)?;
                if file.metadata()?.len() < size {
                    return Err(too_short());
                }
                file.set_len(size)?;
                let place = DraftFile::new(path, Some(size));
                let kept = Kept::File(place.clone());
                Ok((Self { space: space.clone(), place: Place::File(file, place) }, kept))
            }
        }
    }

    /// `pwrite(2)`, all of it.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset + data.len() as u64;
        if let Some(memory) = self.memory_up_to(end, false) {
            memory[offset as usize..end as usize].copy_from_slice(data);
            return Ok(());
        }
        self.file()?.write_all_at(data, offset)
    }

    /// `ftruncate(2)`.
    pub fn set_len(&mut self, size: u64) -> io::Result<()> {
        match self.memory_up_to(size, true) {
            Some(_) => Ok(()),
            None => self.file()?.set_len(size),
        }
    }

    /// Exactly these bytes.
    pub fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        match &self.place {
            Place::Memory(memory) => {
                let bytes = memory.get(range.start as usize..range.end as usize);
                bytes.map(Bytes::copy_from_slice).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
            }
            Place::File(file, _) => {
                let mut buffer = vec![0; (range.end - range.start) as usize];
                file.read_exact_at(&mut buffer, range.start)?;
                Ok(buffer.into())
            }
        }
    }

    /// For the journal, and the file that has to be synced before that answers for it.
    pub fn keep(&mut self) -> io::Result<(Kept, Option<File>)> {
        if self.space.is_nearly_full() {
            self.file()?;
        }
        match &self.place {
            Place::Memory(memory) => Ok((Kept::Bytes(Bytes::copy_from_slice(memory)), None)),
            Place::File(file, place) => Ok((Kept::File(place.clone()), Some(file.try_clone()?))),
        }
    }

    /// The file that they lie in, from now on.
    pub fn file(&mut self) -> io::Result<&File> {
        Ok(self.in_file()?.0)
    }

    /// Where that file is.
    pub fn path(&mut self) -> io::Result<PathBuf> {
        Ok(self.in_file()?.1.path.clone())
    }

    fn in_file(&mut self) -> io::Result<(&File, &DraftFile)> {
        if let Place::Memory(memory) = &self.place {
            let (file, place) = self.space.new_file()?;
            file.write_all_at(memory, 0)?;
            self.go_on_in(file, place);
        }
        match &self.place {
            Place::File(file, place) => Ok((file, place)),
            Place::Memory(_) => Err(io::Error::other("a draft without a file")),
        }
    }

    /// Another file with the first `size` bytes, where the journal answers for bytes of this one that are
    /// about to change: those from `from` on.
    pub fn part(&self, from: u64, size: u64) -> io::Result<Option<(File, Arc<DraftFile>)>> {
        let Place::File(_, place) = &self.place else { return Ok(None) };
        if place.promised.lock().is_none_or(|promised| promised <= from) {
            return Ok(None);
        }
        let (copy, copy_place) = self.space.new_file()?;
        if size > 0 {
            std::fs::copy(&place.path, &copy_place.path)?;
        }
        copy.set_len(size)?;
        Ok(Some((copy, copy_place)))
    }

    /// The bytes are in this file too: it is the one from now on.
    pub fn go_on_in(&mut self, file: File, place: Arc<DraftFile>) {
        self.give_back();
        self.place = Place::File(file, place);
    }

    /// The memory, long enough for a file up to `end`, or just so long; `None`: they are, or have to be, in
    /// a file.
    fn memory_up_to(&mut self, end: u64, exactly: bool) -> Option<&mut Vec<u8>> {
        let Place::Memory(memory) = &mut self.place else { return None };
        let before = memory.len() as u64;
        let after = if exactly { end } else { end.max(before) };
        let held = held_bytes(after);
        if after > SMALL_BYTES || !self.space.lend(held_bytes(before), held) {
            return None;
        }
        memory.truncate(after as usize);
        memory.shrink_to(held as usize);
        memory.reserve_exact(held as usize - memory.len());
        memory.resize(after as usize, 0);
        Some(memory)
    }

    fn give_back(&mut self) {
        if let Place::Memory(memory) = &mut self.place {
            self.space.lend(held_bytes(memory.len() as u64), 0);
            *memory = Vec::new();
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        self.give_back();
    }
}
