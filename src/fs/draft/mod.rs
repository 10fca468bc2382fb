//! The local image of a file being written: it holds what differs from the version in S3, and knows
//! where.

mod image;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use rangemap::RangeSet;

use super::outgoing::Slot;
use crate::bucket::upload::MULTIPART_FROM_BYTES;
use crate::cache::Pinned;
use crate::journal::DraftBytes;
use image::Image;

pub use image::{Kept, Space};

/// A piece of a range to be read.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// In the draft file (holes read as zeros).
    Local(Range<u64>),
    /// Still only in the version that the draft was begun from.
    Base(Range<u64>),
}

/// The bytes: an image of our own, and the version below it where that has none.
#[derive(Debug)]
pub struct Draft {
    image: Image,
    size: u64,
    /// What lies below the parts that were never written, and up to where it shows through
    /// (a truncation cuts it for good).
    base: Option<(Pinned, u64)>,
    /// What the file has itself.
    written: RangeSet<u64>,
    /// What is not as in the base.
    changed: RangeSet<u64>,
    /// What has changed since bytes were last read to be sent, and up to where they are still as they were then.
    since_sent: (RangeSet<u64>, u64),
    /// Told of every change.
    outgoing: Arc<Slot>,
    /// Written since parts were last thought of.
    fresh_bytes: u64,
}

impl Draft {
    /// A new draft, empty, or standing for the whole of `base`.
    pub fn create(space: &Arc<Space>, base: Option<Pinned>) -> io::Result<Self> {
        let size = base.as_ref().map_or(0, |base| base.size);
        let base = base.filter(|base| base.size > 0).map(|base| (base, size));
        Ok(Self::with(Image::new(space, size)?, size, base))
    }

    /// The first `size` bytes of a draft of an earlier process, for which the journal answers.
    pub fn resume(space: &Arc<Space>, left: &DraftBytes, size: u64) -> io::Result<(Self, Kept)> {
        let (image, kept) = Image::resume(space, left, size)?;
        Ok((Self::with(image, size, None), kept))
    }

    fn with(image: Image, size: u64, base: Option<(Pinned, u64)>) -> Self {
        let (written, changed, since_sent) = (RangeSet::new(), RangeSet::new(), (RangeSet::new(), 0));
        Self { image, size, base, written, changed, since_sent, outgoing: Arc::default(), fresh_bytes: 0 }
    }

    /// Before bytes from `from` on change: where the journal answers for some of them in a file, that stays
    /// as it is, and the draft goes on in a copy of its first `kept` bytes.
    fn leave_promised(&mut self, from: u64, kept: u64) -> io::Result<()> {
        if let Some((file, place)) = self.image.part(from, kept)? {
            // Parts that left are as good as they were; those to come are read here.
            self.outgoing.move_to(|| file.try_clone())?;
            self.image.go_on_in(file, place);
        }
        Ok(())
    }

    /// Size of the file in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where the draft lies, in a file from now on.
    pub fn path(&mut self) -> io::Result<PathBuf> {
        self.image.path()
    }

    /// The bytes as they are now, for the journal, and the file that has to be synced before that answers
    /// for them.
    pub fn keep(&mut self) -> io::Result<(Kept, Option<File>)> {
        self.image.keep()
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
        if let Err(error) = self.image.write(offset, data) {
            // Half a write must not come to light when the file grows later.
            self.image.set_len(self.size)?;
            return Err(error);
        }
        let end = offset + data.len() as u64;
        if offset < end {
            self.written.insert(offset..end);
            self.changed.insert(offset..end);
            self.since_sent.0.insert(offset..end);
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
            self.image.write(gap.start, piece)?;
            self.written.insert(gap);
        }
        Ok(())
    }

    /// `truncate(2)`: bytes beyond a shorter size are gone, a longer size shows zeros.
    pub fn set_size(&mut self, size: u64) -> io::Result<()> {
        self.leave_promised(size, size)?;
        self.image.set_len(size)?;
        if size < self.size {
            self.written.remove(size..u64::MAX);
            self.changed.remove(size..u64::MAX);
            self.since_sent.0.remove(size..u64::MAX);
            self.since_sent.1 = self.since_sent.1.min(size);
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
        self.image.read(range)
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

    /// What was added to the version below, where nothing else has changed.
    pub fn growth(&self) -> Option<Range<u64>> {
        let (base, limit) = self.base.as_ref()?;
        let is_as_it_was = *limit == base.size && !self.changed.overlaps(&(0..base.size));
        (is_as_it_was && base.size < self.size).then_some(base.size..self.size)
    }

    /// Bytes are read to be sent while others may be written.
    pub fn begin_sending(&mut self) {
        self.since_sent = (RangeSet::new(), self.size);
    }

    /// A version was made of the bytes that were here at [`Draft::begin_sending`]: what was written since is a change to
    /// that. The file has all of it that the version below had not.
    pub fn stand_on(&mut self, stored: Pinned) {
        let (changed, limit) = std::mem::take(&mut self.since_sent);
        let limit = limit.min(stored.size);
        if self.base_limit() < limit {
            self.written.insert(self.base_limit()..limit);
        }
        self.changed = changed;
        self.base = Some((stored, limit)).filter(|_| limit > 0);
    }

    /// Everything is in the file now: the base is needed no more.
    pub fn detach_base(&mut self) {
        self.base = None;
    }

    /// A second descriptor, for an upload that reads without the lock. The draft lies in a file from now on.
    pub fn reader(&mut self) -> io::Result<File> {
        self.image.file()?.try_clone()
    }

    fn base_limit(&self) -> u64 {
        self.base.as_ref().map_or(0, |(_, limit)| *limit)
    }
}
