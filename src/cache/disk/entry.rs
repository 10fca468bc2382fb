//! The two files of one version: its raw bytes at their offsets, and the map beside them. What is small
//! has its bytes behind its map, in one file: making a file costs more than writing so little.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use nix::fcntl::FallocateFlags;
use parking_lot::Mutex;

use super::directory::{DATA, MAP, SMALL};
use super::seal::{self, ABSENT, BLOCK_BYTES, HEADER_BYTES, Identity, SEAL_BYTES, STAMP_OFFSET};
use super::stamp;

/// Blocks that are verified at a time: their bytes stay in the processor's cache.
const VERIFY_BLOCKS: u64 = 2;

/// What reading found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// All bytes, each block checked.
    All(Bytes),
    /// Some block is not here.
    Missing,
    /// A block did not match its checksum; it is struck off the map.
    Damaged,
}

/// An open pair of files.
#[derive(Debug)]
pub(super) struct Entry {
    data: File,
    /// Where in it the bytes begin.
    data_offset: u64,
    map: File,
    size: u64,
    /// By block: read back and matched, or written, in this process's lifetime.
    verified: Mutex<Vec<u64>>,
    /// The next process can know that all of it was verified.
    is_stamped: AtomicBool,
}

impl Entry {
    /// Opens what is there.
    ///
    /// # Errors
    /// `NotFound` when nothing is, `InvalidData` when the map is another version's or damaged.
    pub fn open(stem: &Path, identity: &Identity, size: u64) -> io::Result<Self> {
        Self::with(stem, identity, size, false)
    }

    /// Opens what is there or begins it, empty.
    pub fn create(stem: &Path, identity: &Identity, size: u64) -> io::Result<Self> {
        Self::with(stem, identity, size, true)
    }

    /// The version that the files of a stem are about, as (identity, size), when the map says so.
    pub fn peek(stem: &Path) -> io::Result<(Identity, u64)> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
        let mut header = [0; HEADER_BYTES as usize];
        let map = match options.open(stem.with_extension(MAP)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => options.open(stem.with_extension(SMALL))?,
            map => map?,
        };
        map.read_exact_at(&mut header, 0)?;
        seal::version(&header).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no map of this format"))
    }

    /// Size of the version in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn with(stem: &Path, identity: &Identity, size: u64, create: bool) -> io::Result<Self> {
        let open = |extension: &str| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(create).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
            options.open(stem.with_extension(extension))
        };
        let (map, data, data_offset) = if seal::is_small(size) {
            let map = open(SMALL)?;
            let data = map.try_clone()?;
            (map, data, seal::seal_offset(seal::blocks(size)))
        } else {
            (open(MAP)?, open(DATA)?, 0)
        };
        let whole = data_offset + size;
        if map.metadata()?.len() < HEADER_BYTES {
            if !create {
                // The writer is about to make it, or was killed while it did. Nothing is there yet: what is called
                // damaged is removed, and would be from under the writer's hands.
                return Err(io::ErrorKind::NotFound.into());
            }
            if !seal::is_small(size) {
                data.set_len(whole)?;
            }
            map.write_all_at(&seal::header(identity, size), 0)?;
        }
        if seal::is_small(size) && data.metadata()?.len() < whole {
            // In one file the header comes first: whoever finds part of it finds no header.
            if !create {
                return Err(io::ErrorKind::NotFound.into());
            }
            // Of what was cut off, no seal must speak.
            map.set_len(HEADER_BYTES)?;
            map.set_len(whole)?;
        }
        let mut header = [0; HEADER_BYTES as usize];
        let is_read = map.read_exact_at(&mut header, 0).is_ok();
        let is_ours = is_read && seal::version(&header) == Some((*identity, size));
        if !is_ours || data.metadata()?.len() != whole {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the map is not this version's"));
        }
        Ok(Self { data, data_offset, map, size, verified: Mutex::default(), is_stamped: AtomicBool::default() })
    }

    /// Moves the files to another stem, and has the map say whose they are then. The bytes go first: a crash in
    /// between leaves two halves, which count for nothing.
    pub fn relabel(&self, from: &Path, to: &Path, identity: &Identity) -> io::Result<()> {
        let rename = |extension| std::fs::rename(from.with_extension(extension), to.with_extension(extension));
        let is_small = seal::is_small(self.size);
        if !is_small {
            rename(DATA)?;
            // A rename counts as a change of the file.
            self.is_stamped.store(false, Ordering::Relaxed);
        }
        self.map.write_all_at(&seal::header(identity, self.size)[..STAMP_OFFSET as usize], 0)?;
        rename(if is_small { SMALL } else { MAP })
    }

    /// The bytes of a range, when all of its blocks are here and whole.
    pub fn read(&self, range: &Range<u64>) -> io::Result<Found> {
        let blocks = range.start / BLOCK_BYTES..seal::blocks(range.end);
        let seals = self.seals(&blocks)?;
        let present = |number: u64| seal::is_seal(number, one(&seals, &blocks, number));
        if !blocks.clone().all(present) {
            return Ok(Found::Missing);
        }
        let span = self.span(&blocks);
        let mut bytes = vec![0; (span.end - span.start) as usize];
        self.data.read_exact_at(&mut bytes, self.data_offset + span.start)?;
        for (number, block) in blocks.clone().zip(bytes.chunks(BLOCK_BYTES as usize)) {
            if seal::seal(number, block) != *one(&seals, &blocks, number) {
                self.strike(number)?;
                return Ok(Found::Damaged);
            }
        }
        self.mark_verified(&blocks);
        let within = (range.start - span.start) as usize..(range.end - span.start) as usize;
        Ok(Found::All(Bytes::from(bytes).slice(within)))
    }

    /// Writes the whole blocks of these bytes that are not here yet; returns how many bytes.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<u64> {
        let end = offset + bytes.len() as u64;
        let last = if end >= self.size { seal::blocks(self.size) } else { end / BLOCK_BYTES };
        let blocks = offset.div_ceil(BLOCK_BYTES)..last;
        if blocks.is_empty() {
            return Ok(0);
        }
        let known = self.seals(&blocks)?;
        if blocks.clone().all(|number| seal::is_seal(number, one(&known, &blocks, number))) {
            return Ok(0);
        }
        let span = self.span(&blocks);
        let whole = &bytes[(span.start - offset) as usize..(span.end - offset) as usize];
        reserve(&self.data, &span);
        self.data.write_all_at(whole, self.data_offset + span.start)?;
        let numbered = blocks.clone().zip(whole.chunks(BLOCK_BYTES as usize));
        let seals: Vec<u8> = numbered.flat_map(|(number, block)| seal::seal(number, block)).collect();
        self.map.write_all_at(&seals, seal::seal_offset(blocks.start))?;
        self.mark_verified(&blocks);
        Ok(whole.len() as u64)
    }

    /// The seals of all blocks, whose bytes are in the data file: if nobody has removed it since, so
    /// they are verified before the kernel is given it.
    pub fn put_seals(&self, seals: &[u8]) -> io::Result<()> {
        self.map.write_all_at(seals, seal::seal_offset(0))
    }

    /// Whether the map tells of all blocks of a range. They are not looked at.
    pub fn holds(&self, range: &Range<u64>) -> bool {
        let blocks = range.start / BLOCK_BYTES..seal::blocks(range.end);
        self.seals(&blocks)
            .is_ok_and(|seals| blocks.clone().all(|number| seal::is_seal(number, one(&seals, &blocks, number))))
    }

    /// Whether all blocks are here and were checked by this process. Cheap.
    pub fn is_verified_whole(&self) -> bool {
        let blocks = seal::blocks(self.size);
        let ones: u64 = self.verified.lock().iter().map(|word| u64::from(word.count_ones())).sum();
        ones == blocks && self.data.metadata().is_ok_and(|metadata| metadata.len() == self.size)
    }

    /// Tells the next process that all of it was verified, if that is so. What is small is checked when it
    /// is read.
    pub fn stamp(&self) -> io::Result<()> {
        if seal::is_small(self.size) || self.is_stamped.load(Ordering::Relaxed) || !self.is_verified_whole() {
            return Ok(());
        }
        let Some(stamp) = stamp::of(&self.data)? else { return Ok(()) };
        self.is_stamped.store(true, Ordering::Relaxed);
        self.map.write_all_at(&stamp, STAMP_OFFSET)
    }

    /// Whether an earlier process has verified all of it, and all is as it was.
    fn is_as_stamped(&self) -> io::Result<bool> {
        let mut found = stamp::NONE;
        self.map.read_exact_at(&mut found, STAMP_OFFSET)?;
        // In this order: what is not resident any more after it was found unchanged was read as it is.
        Ok(found != stamp::NONE && stamp::is_resident(&self.data, self.size) && stamp::of(&self.data)? == Some(found))
    }

    /// Checks what this process has not, on so many threads, until `until`, and as far as it need not
    /// wait for the disk; whether all blocks are here and checked then. Who reads the rest checks it,
    /// and what is damaged is found and told there too.
    pub fn verify(&self, threads: usize, until: Instant) -> io::Result<bool> {
        let all = 0..seal::blocks(self.size);
        let seals = self.seals(&all)?;
        if !all.clone().all(|number| seal::is_seal(number, one(&seals, &all, number))) {
            return Ok(false);
        }
        if self.is_as_stamped()? {
            self.is_stamped.store(true, Ordering::Relaxed);
            self.mark_verified(&all);
            return Ok(true);
        }
        let steps: Vec<_> = all.clone().step_by(VERIFY_BLOCKS as usize).collect();
        let (next, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
        let work = || -> io::Result<()> {
            let mut buffer = vec![0; (VERIFY_BLOCKS * BLOCK_BYTES) as usize];
            while !stopped.load(Ordering::Relaxed) && Instant::now() < until {
                let Some(first) = steps.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                let blocks = *first..all.end.min(first + VERIFY_BLOCKS);
                let checked = self.verify_step(&blocks, &seals, &mut buffer);
                if !matches!(checked, Ok(true)) {
                    stopped.store(true, Ordering::Relaxed);
                    return checked.map(drop);
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let more: Vec<_> = (1..threads.min(steps.len())).map(|_| scope.spawn(work)).collect();
            let mine = work();
            // One that panicked has verified nothing, and said so.
            let theirs = more.into_iter().filter_map(|thread| thread.join().ok());
            theirs.chain([mine]).collect::<io::Result<()>>()
        })?;
        Ok(self.is_verified_whole())
    }

    fn verify_step(&self, blocks: &Range<u64>, seals: &[u8], buffer: &mut [u8]) -> io::Result<bool> {
        if blocks.clone().all(|number| self.is_verified(number)) {
            return Ok(true);
        }
        let span = self.span(blocks);
        let bytes = &mut buffer[..(span.end - span.start) as usize];
        if !read_resident(&self.data, bytes, span.start)? {
            return Ok(false);
        }
        let known = 0..seal::blocks(self.size);
        let mut numbered = blocks.clone().zip(bytes.chunks(BLOCK_BYTES as usize));
        if !numbered.all(|(number, block)| seal::seal(number, block) == *one(seals, &known, number)) {
            return Ok(false);
        }
        self.mark_verified(blocks);
        Ok(true)
    }

    /// The data file, for the kernel to read from.
    pub fn data(&self) -> io::Result<File> {
        self.data.try_clone()
    }

    /// Somebody removed the files: what is written to them is lost.
    pub fn is_orphan(&self) -> bool {
        let gone = |file: &File| file.metadata().is_ok_and(|metadata| metadata.nlink() == 0);
        gone(&self.data) || gone(&self.map)
    }

    /// Makes this the most recently used entry, also for other mounts and after a restart.
    pub fn touch(&self) -> io::Result<()> {
        self.map.set_modified(std::time::SystemTime::now())
    }

    fn strike(&self, number: u64) -> io::Result<()> {
        if let Some(word) = self.verified.lock().get_mut((number / 64) as usize) {
            *word &= !(1 << (number % 64));
        }
        self.is_stamped.store(false, Ordering::Relaxed);
        self.map.write_all_at(&stamp::NONE, STAMP_OFFSET)?;
        self.map.write_all_at(&ABSENT, seal::seal_offset(number))
    }

    /// The seals of some blocks; beyond the end of the map there are none.
    fn seals(&self, blocks: &Range<u64>) -> io::Result<Vec<u8>> {
        let mut seals = vec![0; ((blocks.end - blocks.start) * SEAL_BYTES) as usize];
        let mut read = 0;
        while read < seals.len() {
            match self.map.read_at(&mut seals[read..], seal::seal_offset(blocks.start) + read as u64) {
                Ok(0) => break,
                Ok(bytes) => read += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(seals)
    }

    /// The bytes of some blocks; the last block of an object ends with it.
    fn span(&self, blocks: &Range<u64>) -> Range<u64> {
        blocks.start * BLOCK_BYTES..(blocks.end * BLOCK_BYTES).min(self.size)
    }

    fn mark_verified(&self, blocks: &Range<u64>) {
        let mut verified = self.verified.lock();
        verified.resize(seal::blocks(self.size).div_ceil(64) as usize, 0);
        for number in blocks.clone() {
            verified[(number / 64) as usize] |= 1 << (number % 64);
        }
    }

    fn is_verified(&self, number: u64) -> bool {
        self.verified.lock().get((number / 64) as usize).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }
}

fn one<'a>(seals: &'a [u8], blocks: &Range<u64>, number: u64) -> &'a [u8] {
    let at = ((number - blocks.start) * SEAL_BYTES) as usize;
    &seals[at..at + SEAL_BYTES as usize]
}

/// Room for what is written next, taken in one piece: half of the time that the system takes for
/// writing a MiB into a sparse file goes into finding room for each page of it (ext4, measured).
pub(super) fn reserve(file: &File, range: &Range<u64>) {
    const LEAST_BYTES: u64 = 256 << 10;
    let (Ok(offset), Ok(length)) = (i64::try_from(range.start), i64::try_from(range.end - range.start)) else { return };
    if range.end - range.start >= LEAST_BYTES {
        // Where this cannot be done, writing tells what is wrong.
        let _ = nix::fcntl::fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, offset, length);
    }
}

/// Fills the buffer from a file as far as its pages are in memory; whether they all were.
fn read_resident(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
    let mut read = 0;
    while read < buffer.len() {
        let rest = &mut buffer[read..];
        let slot = libc::iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: rest.len() };
        let at = i64::try_from(offset + read as u64).map_err(io::Error::other)?;
        // SAFETY: the descriptor is open, and the one slot is the rest of a buffer borrowed for this.
        let got = unsafe { libc::preadv2(file.as_raw_fd(), &raw const slot, 1, at, libc::RWF_NOWAIT) };
        match usize::try_from(got) {
            Ok(0) => return Ok(false),
            Ok(got) => read += got,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                error if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                    return file.read_exact_at(&mut buffer[read..], offset + read as u64).map(|()| true);
                }
                error => return Err(error),
            },
        }
    }
    Ok(true)
}
