//! The local image of a file being written: a sparse file that holds what differs from the
//! version in S3, and knows where.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rangemap::RangeSet;

use super::outgoing::Slot;
use crate::bucket::upload::MULTIPART_FROM_BYTES;
use crate::cache::Pinned;

/// A piece of a range to be read.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// In the draft file (holes read as zeros).
    Local(Range<u64>),
    /// Still only in the version that the draft was begun from.
    Base(Range<u64>),
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

    /// File name inside the draft directory.
    pub fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// How many bytes the journal answers for.
    pub fn promised(&self) -> Option<u64> {
        *self.promised.lock()
    }

    /// Sets how many bytes the journal answers for; returns what it was. With the draft locked, if
    /// there is one.
    pub fn set_promised(&self, bytes: Option<u64>) -> Option<u64> {
        std::mem::replace(&mut *self.promised.lock(), bytes)
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

/// The bytes: a local file, and the version below it where the file has none.
#[derive(Debug)]
pub struct Draft {
    file: File,
    place: Arc<DraftFile>,
    size: u64,
    /// What lies below the parts that were never written, and up to where it shows through
    /// (a truncation cuts it for good).
    base: Option<(Pinned, u64)>,
    /// What the file has itself.
    written: RangeSet<u64>,
    /// What is not as in the base.
    changed: RangeSet<u64>,
    /// Told of every change.
    outgoing: Arc<Slot>,
    /// Written since parts were last thought of.
    fresh_bytes: u64,
}

impl Draft {
    /// A new draft file in `directory`, empty, or standing for the whole of `base`.
    pub fn create(directory: &Path, base: Option<Pinned>) -> io::Result<Self> {
        let path = directory.join(fresh_name());
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        let size = base.as_ref().map_or(0, |base| base.size);
        file.set_len(size)?;
        let base = base.filter(|base| base.size > 0).map(|base| (base, size));
        Ok(Self::with(file, DraftFile::new(path, None), size, base))
    }

    /// A draft file of an earlier process, of which the journal answers for `size` bytes.
    pub fn resume(path: PathBuf, size: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        if file.metadata()?.len() < size {
            return Err(io::Error::other("a draft is shorter than what was acknowledged of it"));
        }
        file.set_len(size)?;
        Ok(Self::with(file, DraftFile::new(path, Some(size)), size, None))
    }

    fn with(file: File, place: Arc<DraftFile>, size: u64, base: Option<(Pinned, u64)>) -> Self {
        let (written, changed) = (RangeSet::new(), RangeSet::new());
        Self { file, place, size, base, written, changed, outgoing: Arc::default(), fresh_bytes: 0 }
    }

    /// Before bytes from `from` on change: where the journal answers for some of them, the file stays
    /// as it is, and the draft goes on in a copy of its first `kept` bytes.
    fn leave_promised(&mut self, from: u64, kept: u64) -> io::Result<()> {
        if self.place.promised.lock().is_none_or(|promised| promised <= from) {
            return Ok(());
        }
        let path = self.place.path.with_file_name(fresh_name());
        if kept > 0 {
            std::fs::copy(&self.place.path, &path)?;
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        let place = DraftFile::new(path, None);
        file.set_len(kept)?;
        // Parts that left are as good as they were; those to come are read here.
        self.outgoing.move_to(|| file.try_clone())?;
        (self.file, self.place) = (file, place);
        Ok(())
    }

    /// Size of the file in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where the draft lies.
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    /// The file that the bytes are in now.
    pub fn place(&self) -> &Arc<DraftFile> {
        &self.place
    }

    /// Parts of it that leave before the commit.
    pub fn outgoing(&self) -> &Arc<Slot> {
        &self.outgoing
    }

    /// The version that shows through where nothing was written.
    pub fn base(&self) -> Option<&Pinned> {
        self.base.as_ref().map(|(pinned, _)| pinned)
    }

    /// Another name or tag for the same bytes (a rename, or a copy onto itself for attributes).
    pub fn rebase(&mut self, pinned: Pinned) {
        if let Some((base, _)) = &mut self.base {
            *base = pinned;
        }
    }

    /// `pwrite(2)`; writing beyond the end leaves a hole of zeros.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.leave_promised(offset, self.size)?;
        if let Err(error) = self.file.write_all_at(data, offset) {
            // Half a write must not come to light when the file grows later.
            self.file.set_len(self.size)?;
            return Err(error);
        }
        let end = offset + data.len() as u64;
        if offset < end {
            self.written.insert(offset..end);
            self.changed.insert(offset..end);
            self.outgoing.wrote(&(offset..end));
            self.fresh_bytes += end - offset;
        }
        self.size = self.size.max(end);
        Ok(())
    }

    /// Bytes of the base, brought in; what was written meanwhile wins.
    pub fn fill(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = (offset + data.len() as u64).min(self.base_limit());
        let gaps: Vec<_> = if offset < end { self.written.gaps(&(offset..end)).collect() } else { Vec::new() };
        for gap in gaps {
            let piece = &data[(gap.start - offset) as usize..(gap.end - offset) as usize];
            self.file.write_all_at(piece, gap.start)?;
            self.written.insert(gap);
        }
        Ok(())
    }

    /// `truncate(2)`: bytes beyond a shorter size are gone, a longer size shows zeros.
    pub fn set_size(&mut self, size: u64) -> io::Result<()> {
        self.leave_promised(size, size)?;
        self.file.set_len(size)?;
        if size < self.size {
            self.written.remove(size..u64::MAX);
            self.changed.remove(size..u64::MAX);
            self.outgoing.cut(size);
            // Of a file that was emptied nothing shows through: it needs no version below it.
            self.base = self.base.take().map(|(base, limit)| (base, limit.min(size))).filter(|(_, limit)| *limit > 0);
        }
        self.size = size;
        Ok(())
    }

    /// Zeros from here on (`fallocate(2)`, `FALLOC_FL_PUNCH_HOLE`); never grows the file.
    pub fn punch(&mut self, range: Range<u64>) -> io::Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let end = range.end.min(self.size);
        let mut at = range.start;
        while at < end {
            let step = (end - at).min(ZEROS.len() as u64);
            self.write(at, &ZEROS[..step as usize])?;
            at += step;
        }
        Ok(())
    }

    /// How a range is put together; cut at the end of the file.
    pub fn pieces(&self, range: Range<u64>) -> Vec<Piece> {
        let end = range.end.min(self.size);
        if range.start >= end {
            return Vec::new();
        }
        let shows_through = end.min(self.base_limit());
        let gaps: Vec<_> = if range.start < shows_through {
            self.written.gaps(&(range.start..shows_through)).collect()
        } else {
            Vec::new()
        };
        let mut pieces = Vec::new();
        let mut at = range.start;
        for gap in gaps {
            if at < gap.start {
                pieces.push(Piece::Local(at..gap.start));
            }
            at = gap.end;
            pieces.push(Piece::Base(gap));
        }
        if at < end {
            pieces.push(Piece::Local(at..end));
        }
        pieces
    }

    /// First range that only the base has, at most `max_bytes` of it.
    pub fn missing(&self, max_bytes: u64) -> Option<Range<u64>> {
        let limit = self.base_limit().min(self.size);
        let gap = (limit > 0).then(|| self.written.gaps(&(0..limit)).next()).flatten()?;
        Some(gap.start..gap.end.min(gap.start + max_bytes))
    }

    /// What the file has itself.
    pub fn written(&self) -> &RangeSet<u64> {
        &self.written
    }

    /// Whether parts may leave: what lies below a draft would have to be fetched for them, and there
    /// is nothing to do more often than for each part.
    pub fn is_due(&mut self, part_bytes: u64) -> bool {
        let due = self.base.is_none() && self.size >= MULTIPART_FROM_BYTES && self.fresh_bytes >= part_bytes;
        if due {
            self.fresh_bytes = 0;
        }
        due
    }

    /// Whether the file has all bytes itself.
    pub fn is_whole(&self) -> bool {
        self.missing(1).is_none()
    }

    /// What only the base has of a range.
    pub fn missing_in(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let base = |piece| if let Piece::Base(range) = piece { Some(range) } else { None };
        self.pieces(range).into_iter().filter_map(base).collect()
    }

    /// What is as in the base, in order.
    pub fn untouched(&self) -> Vec<Range<u64>> {
        let limit = self.base_limit().min(self.size);
        if limit == 0 { Vec::new() } else { self.changed.gaps(&(0..limit)).collect() }
    }

    /// Bytes of the file itself, zeros where it has holes. The range must lie below the size.
    pub fn read_local(&self, range: Range<u64>) -> io::Result<Bytes> {
        let mut buffer = vec![0; (range.end - range.start) as usize];
        self.file.read_exact_at(&mut buffer, range.start)?;
        Ok(buffer.into())
    }

    /// A version was made of just these bytes: from here on, changes are changes to it.
    pub fn advance_base(&mut self, stored: Pinned) {
        let limit = self.base_limit();
        if limit < self.size {
            // Zeros in holes of the file are its own.
            self.written.insert(limit..self.size);
        }
        self.changed.clear();
        self.base = Some((stored, self.size)).filter(|_| self.size > 0);
    }

    /// Everything is in the file now: the base is needed no more.
    pub fn detach_base(&mut self) {
        self.base = None;
    }

    /// A second descriptor, for an upload that reads without the lock.
    pub fn reader(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    fn base_limit(&self) -> u64 {
        self.base.as_ref().map_or(0, |(_, limit)| *limit)
    }
}

/// A name that no other draft has.
fn fresh_name() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::ETag;

    fn base(size: u64) -> Pinned {
        Pinned { key: "k".into(), etag: ETag::new("v1"), size }
    }

    fn draft_over(size: u64) -> (tempfile::TempDir, Draft) {
        let directory = tempfile::tempdir().unwrap();
        let draft = Draft::create(directory.path(), Some(base(size))).unwrap();
        (directory, draft)
    }

    fn only(range: Range<u64>) -> Vec<Range<u64>> {
        vec![range]
    }

    #[test]
    fn a_write_in_the_middle_leaves_the_base_around_it() {
        let (_directory, mut draft) = draft_over(100);
        draft.write(40, b"0123456789").unwrap();
        assert_eq!(draft.pieces(0..200), [Piece::Base(0..40), Piece::Local(40..50), Piece::Base(50..100)]);
        assert_eq!(draft.size(), 100);
    }

    #[test]
    fn what_a_truncation_cut_off_never_comes_back() {
        let (_directory, mut draft) = draft_over(100);
        draft.set_size(10).unwrap();
        draft.set_size(50).unwrap();
        assert_eq!(draft.pieces(0..100), [Piece::Base(0..10), Piece::Local(10..50)]);
        assert_eq!(draft.read_local(10..50).unwrap(), vec![0; 40]);
    }

    #[test]
    fn an_emptied_draft_needs_no_base() {
        let (_directory, mut draft) = draft_over(100);
        draft.set_size(0).unwrap();
        assert!(draft.base().is_none());
        draft.write(0, b"x").unwrap();
        assert_eq!(draft.missing(100), None);
    }

    #[test]
    fn a_fill_does_not_overwrite_what_was_written() {
        let (_directory, mut draft) = draft_over(10);
        draft.write(4, b"XX").unwrap();
        draft.fill(0, b"abcdefghij").unwrap();
        assert_eq!(draft.read_local(0..10).unwrap(), &b"abcdXXghij"[..]);
        assert_eq!(draft.missing(100), None);
    }

    #[test]
    fn missing_is_asked_for_in_steps() {
        let (_directory, mut draft) = draft_over(100);
        draft.write(0, b"x").unwrap();
        assert_eq!(draft.missing(30), Some(1..31));
    }

    #[test]
    fn what_is_fetched_is_no_change_and_what_is_written_again_is() {
        let (_directory, mut draft) = draft_over(100);
        draft.write(10, b"0123456789").unwrap();
        draft.fill(20, &[7; 30]).unwrap();
        assert_eq!(draft.untouched(), [0..10, 20..100]);
        assert_eq!(draft.missing_in(5..60), [5..10, 50..60]);
        draft.set_size(15).unwrap();
        draft.set_size(90).unwrap();
        assert_eq!(draft.untouched(), only(0..10), "what was cut off is no longer the base's");
    }

    #[test]
    fn after_a_commit_only_what_is_written_next_is_a_change() {
        let (_directory, mut draft) = draft_over(100);
        draft.write(90, &[1; 20]).unwrap();
        draft.set_size(200).unwrap();
        draft.advance_base(base(200));
        assert_eq!(draft.untouched(), only(0..200));
        assert_eq!(draft.missing_in(0..200), only(0..90), "holes behind the old version are the file's own");
        draft.write(150, b"x").unwrap();
        assert_eq!(draft.untouched(), [0..150, 151..200]);
    }

    #[test]
    fn punching_a_hole_zeroes_and_does_not_grow() {
        let (_directory, mut draft) = draft_over(10);
        draft.punch(5..50).unwrap();
        assert_eq!(draft.size(), 10);
        assert_eq!(draft.pieces(0..10), [Piece::Base(0..5), Piece::Local(5..10)]);
    }

    #[test]
    fn what_the_journal_answers_for_stays_as_it_is() {
        let (directory, mut draft) = draft_over(0);
        draft.write(0, b"promised").unwrap();
        let promised = draft.place().clone();
        promised.set_promised(Some(8));
        // Behind it the same file will do; of it, nothing may change.
        draft.write(8, b" and more").unwrap();
        assert!(Arc::ptr_eq(draft.place(), &promised));
        draft.write(3, b"###").unwrap();
        assert_eq!(draft.read_local(0..17).unwrap(), &b"pro###ed and more"[..]);
        draft.set_size(0).unwrap();
        assert_eq!(&std::fs::read(&promised.path).unwrap()[..8], b"promised");
        drop(draft);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        promised.set_promised(None);
        drop(promised);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_draft_file_goes_with_the_draft() {
        let (directory, draft) = draft_over(10);
        drop(draft);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
