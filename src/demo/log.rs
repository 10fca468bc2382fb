//! The log file: one framed record per change, appended before the change is answered.
//!
//! A frame is `length: u32 LE | CRC32C of the payload: u32 LE | payload (JSON)`. `write(2)` has put
//! it into the kernel's page cache before the client hears of it: that survives `kill -9`, and
//! costs no sync. A torn last frame is what an unanswered change leaves: it is cut off at the next
//! start. A start also rewrites a log that is mostly history.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crc_fast::{CrcAlgorithm, checksum};

use super::record::Record;

/// An open log.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    length: u64,
}

impl Log {
    /// Opens the log, hands every record of it to `replay` in order and cuts a torn end.
    pub fn open(path: &Path, mut replay: impl FnMut(Record)) -> io::Result<Self> {
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut length = 0;
        let file_bytes = file.metadata()?.len();
        let mut reader = BufReader::with_capacity(1 << 20, &file);
        while let Some((record, frame_bytes)) = read_frame(&mut reader, file_bytes - length)? {
            replay(record);
            length += frame_bytes;
        }
        if length < file_bytes {
            tracing::warn!(path = %path.display(), "demo server: cutting a half-written record off the log");
            file.set_len(length)?;
        }
        file.seek(SeekFrom::Start(length))?;
        Ok(Self { file, length })
    }

    /// Replaces the log by one that holds just `records`; the old one counts until the rename.
    pub fn rewrite(path: &Path, records: impl Iterator<Item = Record>) -> io::Result<Self> {
        let new_path = new_path(path);
        let mut writer = io::BufWriter::with_capacity(1 << 20, File::create(&new_path)?);
        let mut length = 0;
        for record in records {
            let frame = frame(&record)?;
            writer.write_all(&frame)?;
            length += frame.len() as u64;
        }
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        fs::rename(&new_path, path)?;
        Ok(Self { file, length })
    }

    /// Appends records, all or none.
    pub fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let mut frames = Vec::new();
        for record in records {
            frames.append(&mut frame(record)?);
        }
        if let Err(error) = self.file.write_all(&frames) {
            // A full disk may have taken half of it: what was not answered must not come back.
            self.file.set_len(self.length)?;
            self.file.seek(SeekFrom::Start(self.length))?;
            return Err(error);
        }
        self.length += frames.len() as u64;
        Ok(())
    }
}

fn new_path(path: &Path) -> PathBuf {
    path.with_extension("new")
}

fn frame(record: &Record) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 8];
    serde_json::to_writer(&mut frame, record)?;
    let (head, payload) = frame.split_at_mut(8);
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..].copy_from_slice(&crc32c(payload).to_le_bytes());
    Ok(frame)
}

/// The next record and the bytes of its frame; `None` where the log ends or its last frame is torn.
///
/// A bad frame with others behind it is no torn write but damage: that is for the user to decide.
fn read_frame(reader: &mut impl Read, bytes_left: u64) -> io::Result<Option<(Record, u64)>> {
    let mut head = [0; 8];
    if bytes_left < head.len() as u64 {
        return Ok(None);
    }
    reader.read_exact(&mut head)?;
    let [length, crc] = [0, 4].map(|at| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes are four")));
    let frame_bytes = head.len() as u64 + u64::from(length);
    if frame_bytes > bytes_left {
        return Ok(None);
    }
    let mut payload = vec![0; length as usize];
    reader.read_exact(&mut payload)?;
    match serde_json::from_slice(&payload) {
        Ok(record) if crc32c(&payload) == crc => Ok(Some((record, frame_bytes))),
        _ if frame_bytes == bytes_left => Ok(None),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the log is damaged in its middle")),
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(name: &str) -> Record {
        Record::CreateBucket { bucket: name.into(), created_s: 1 }
    }

    fn names(path: &Path) -> Vec<String> {
        let mut names = Vec::new();
        Log::open(path, |record| {
            if let Record::CreateBucket { bucket, .. } = record {
                names.push(bucket);
            }
        })
        .unwrap();
        names
    }

    #[test]
    fn what_was_appended_comes_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::open(&path, |_| panic!("a new log is empty")).unwrap();
        log.append(&[bucket("one"), bucket("two")]).unwrap();
        log.append(&[bucket("three")]).unwrap();
        assert_eq!(names(&path), ["one", "two", "three"]);
    }

    #[test]
    fn a_torn_end_is_cut_and_the_log_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::open(&path, |_| ()).unwrap();
        log.append(&[bucket("one"), bucket("two")]).unwrap();
        let whole = fs::metadata(&path).unwrap().len();
        File::options().write(true).open(&path).unwrap().set_len(whole - 3).unwrap();
        let mut log = Log::open(&path, |_| ()).unwrap();
        log.append(&[bucket("three")]).unwrap();
        assert_eq!(names(&path), ["one", "three"]);
    }

    #[test]
    fn damage_in_the_middle_is_an_error_and_at_the_end_a_torn_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        Log::open(&path, |_| ()).unwrap().append(&[bucket("one"), bucket("two")]).unwrap();
        let good = fs::read(&path).unwrap();
        let flip = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
        };
        flip(good.len() - 1);
        assert_eq!(names(&path), ["one"]);
        flip(12);
        assert_eq!(Log::open(&path, |_| ()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_rewritten_log_holds_only_what_it_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        Log::open(&path, |_| ()).unwrap().append(&[bucket("one"), bucket("two")]).unwrap();
        let mut log = Log::rewrite(&path, [bucket("two")].into_iter()).unwrap();
        log.append(&[bucket("four")]).unwrap();
        assert_eq!(names(&path), ["two", "four"]);
    }
}
