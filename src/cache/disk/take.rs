//! Taking over a whole version from a local file: what was just uploaded from a draft.
//!
//! The file is copied beside the entry and takes its place at the end, by a rename: it may have
//! changed while it was read, and bytes that are only perhaps right must not come into a data file
//! that another mount has given to the kernel.
//!
//! The copy has its whole length before the directory is looked into and before its first byte: a
//! mount that looks leaves it that room. Of two that begin at once at least the later sees the other.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::directory::NEW;
use super::entry::{Entry, reserve};
use super::ledger::{ENTRY_BYTES, Name};
use super::queue::IsUnchanged;
use super::seal::{self, BLOCK_BYTES};
use super::writer::{Refusal, Writer, make_room, within_margin};
use super::{Pinned, name};

/// Copied at a time: whole blocks.
const STEP_BYTES: u64 = 8 * BLOCK_BYTES;

impl Writer<'_> {
    /// Takes over a version, unless some of it is here already.
    pub(super) fn take_file(
        &mut self,
        object: &Pinned,
        file: &File,
        is_unchanged: &IsUnchanged,
    ) -> Result<(), Refusal> {
        self.check_fits(object)?;
        let identity = self.inner.identity(object);
        let name = name(&identity);
        if self.inner.entry(&identity, object).is_some() {
            return Ok(());
        }
        let stem = self.shelf(&name)?;
        // A name of its own: another mount may be taking over the same version, and must not write into
        // a file that became the entry meanwhile.
        let copy = stem.with_extension(format!("{NEW}-{}", uuid::Uuid::now_v7().simple()));
        let taken = self.begin(object, &name, &copy).and_then(|target| {
            let seals = self.copy(object, file, &target)?;
            if !is_unchanged() {
                // What it holds now is another version's, and comes when that is stored.
                return Err(Refusal::NoRoom);
            }
            std::fs::rename(&copy, stem.with_extension("data"))?;
            let entry = Entry::create(&stem, &identity, object.size)?;
            entry.put_seals(&seals)?;
            self.inner.keep_open(name, entry);
            Ok(())
        });
        if taken.is_err() {
            let _ = std::fs::remove_file(&copy);
            self.inner.ledger.lock().remove(&name);
        }
        taken
    }

    /// What would push everything else out and still not fit is not begun.
    fn check_fits(&self, object: &Pinned) -> Result<(), Refusal> {
        let fixed_bytes = self.inner.ledger.lock().fixed_bytes();
        let fits = fixed_bytes + object.size + ENTRY_BYTES <= within_margin(self.inner.limit_bytes);
        if fits { Ok(()) } else { Err(Refusal::NoRoom) }
    }

    /// Makes the copy, with room for all of it but no bytes yet.
    fn begin(&mut self, object: &Pinned, name: &Name, copy: &Path) -> Result<File, Refusal> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
        let copy = options.open(copy)?;
        copy.set_len(object.size)?;
        self.written_bytes += object.size;
        if self.is_rescan_due() {
            self.rescan(object.size);
            self.check_fits(object)?;
        }
        let charge = self.inner.ledger.lock().charge(name, object.size);
        make_room(self.inner, charge, name)?;
        self.inner.ledger.lock().add(*name, object.size);
        // The room that was just made is not left to others.
        reserve(&copy, &(0..object.size));
        Ok(copy)
    }

    /// Copies the file; returns the seals of its blocks.
    fn copy(&self, object: &Pinned, file: &File, copy: &File) -> Result<Vec<u8>, Refusal> {
        let mut seals = Vec::new();
        let mut buffer = vec![0; STEP_BYTES.min(object.size) as usize];
        for offset in (0..object.size).step_by(STEP_BYTES as usize) {
            if self.inner.queue.is_stopped() {
                return Err(Refusal::NoRoom);
            }
            let bytes = &mut buffer[..STEP_BYTES.min(object.size - offset) as usize];
            file.read_exact_at(bytes, offset).map_err(unreadable)?;
            copy.write_all_at(bytes, offset)?;
            let numbered = (offset / BLOCK_BYTES..).zip(bytes.chunks(BLOCK_BYTES as usize));
            seals.extend(numbered.flat_map(|(number, block)| seal::seal(number, block)));
        }
        self.inner.note_written(object.size);
        Ok(seals)
    }
}

/// A draft that was cut shorter meanwhile holds another version by now; the disk has no part in it.
fn unreadable(cause: io::Error) -> Refusal {
    if cause.kind() == io::ErrorKind::UnexpectedEof { Refusal::NoRoom } else { cause.into() }
}
