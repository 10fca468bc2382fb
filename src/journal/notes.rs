//! Notes of what was answered already and the bucket is told soon: removals wait here, because a
//! program that removes four hundred files is not to wait for four hundred requests.
//!
//! A note is one `write(2)` and no fsync: the page cache survives `kill -9`, and POSIX promises that
//! a removal outlives a power failure only to who calls fsync on the directory. Each record is its
//! length, CRC32C over the rest, and JSON. When nothing is open, the file is emptied if it is
//! long, and at the end.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::error::io_kind;
use super::{Error, Result, Sent};
use crate::bucket::{Metadata, Properties, Tail};

/// Name of the file in the state directory.
pub const FILE_NAME: &str = "notes.log";
/// A file that is longer than this, half of it about what is done, is written anew.
const LONG_FILE_BYTES: u64 = 16 << 20;
/// Kept of the disk behind what is written, for some thousand notes: who removes and renames files is not to fail when a
/// disk is full, least of all in the middle of it.
const RESERVED_BYTES: u64 = 1 << 20;
/// Length and checksum before each record.
const HEAD_BYTES: usize = 8;

/// What is to be done in the bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Note {
    /// The object is to be deleted, as long as it is this version.
    Remove {
        key: String,
        /// `None` where only a name was known: a directory without a marker.
        etag: Option<String>,
        /// Hooks are told.
        event: bool,
        /// The operation that this is a part of. While the journal holds its intent, that decides.
        intent: Option<u64>,
    },
    /// The directory (`d/`) is to get a marker before anything below it is deleted.
    Keep { key: String, metadata: Metadata },
    /// The object is to get these attributes, as long as it is this version.
    Attributes {
        key: String,
        /// `None`: there is none yet, it is the marker of a directory.
        etag: Option<String>,
        size: u64,
        metadata: Metadata,
        #[serde(flatten)]
        properties: Properties,
        /// What S3 may hold under the key instead of that version.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        earlier: Vec<Sent>,
    },
    /// Bytes are appended to the object, which cannot say anything else of it: once it ends so, it is to get these
    /// attributes.
    Append {
        key: String,
        tail: Tail,
        metadata: Metadata,
        #[serde(flatten)]
        properties: Properties,
    },
}

impl Note {
    /// What it is about.
    #[must_use]
    pub fn key(&self) -> &String {
        match self {
            Self::Remove { key, .. }
            | Self::Keep { key, .. }
            | Self::Attributes { key, .. }
            | Self::Append { key, .. } => key,
        }
    }
}

#[derive(Serialize, Deserialize)]
enum Record {
    Open { number: u64, note: Note },
    Done { numbers: Vec<u64> },
}

/// The file of notes.
#[derive(Debug)]
pub(super) struct Notes {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    length: u64,
    /// How long it was when it held nothing but what was open.
    least_length: u64,
    open: HashSet<u64>,
    /// Numbers never return while the process lives.
    next_number: u64,
}

impl Notes {
    /// Opens the file in `dir`, or makes one. What a crash of the machine left of a last record goes.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE_NAME);
        let (notes, torn_bytes) = replay(&read(&path)?);
        if torn_bytes > 0 {
            tracing::warn!(path = %path.display(), torn_bytes, "the last notes were not written whole; they are left out");
        }
        let next_number = notes.last_key_value().map_or(1, |(number, _)| number + 1);
        let (file, length) = rewrite(&path, &notes)?;
        let state = State { file, length, least_length: length, open: notes.into_keys().collect(), next_number };
        Ok(Self { path, state: Mutex::new(state) })
    }

    /// Notes something; what names it is returned.
    pub(super) fn add(&self, note: &Note) -> Result<u64> {
        let mut state = self.state.lock();
        let number = state.next_number;
        state.append(&Record::Open { number, note: note.clone() })?;
        state.next_number += 1;
        state.open.insert(number);
        Ok(number)
    }

    /// More became known of an open note.
    pub(super) fn replace(&self, number: u64, note: &Note) -> Result<()> {
        self.state.lock().append(&Record::Open { number, note: note.clone() })
    }

    /// It is done. Numbers that are not open are passed over.
    pub(super) fn close(&self, numbers: &[u64]) -> Result<()> {
        let mut state = self.state.lock();
        let numbers: Vec<u64> = numbers.iter().copied().filter(|number| state.open.remove(number)).collect();
        if numbers.is_empty() {
            return Ok(());
        }
        if state.open.is_empty() && state.length > RESERVED_BYTES {
            // Not each time: what is kept of the disk is another program's for a moment.
            state.file.set_len(0).map_err(|error| failed(&error))?;
            reserve(&state.file, 0);
            (state.length, state.least_length) = (0, 0);
            return Ok(());
        }
        state.append(&Record::Done { numbers })?;
        if state.length > LONG_FILE_BYTES.max(2 * state.least_length) {
            let (file, length) = self.compact().map_err(|error| failed(&error))?;
            (state.file, state.length, state.least_length) = (file, length, length);
        }
        Ok(())
    }

    /// What is open, oldest first.
    pub(super) fn all(&self) -> Result<Vec<(u64, Note)>> {
        let _state = self.state.lock();
        let bytes = read(&self.path).map_err(|error| failed(&error))?;
        Ok(replay(&bytes).0.into_iter().collect())
    }

    fn compact(&self) -> io::Result<(File, u64)> {
        rewrite(&self.path, &replay(&read(&self.path)?).0)
    }
}

impl Drop for Notes {
    /// Nothing is left behind where nothing is open; if that fails, the next start finds it out.
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if state.open.is_empty() {
            let _ = state.file.set_len(0);
        }
    }
}

impl State {
    fn append(&mut self, record: &Record) -> Result<()> {
        let bytes = encode(record);
        if self.length / RESERVED_BYTES != (self.length + bytes.len() as u64) / RESERVED_BYTES {
            reserve(&self.file, self.length);
        }
        if let Err(error) = self.file.write_all(&bytes) {
            // Half a record would hide all that come after it.
            let _ = self.file.set_len(self.length);
            return Err(failed(&error));
        }
        self.length += bytes.len() as u64;
        Ok(())
    }
}

fn failed(error: &io::Error) -> Error {
    Error::Storage { action: "a note", cause: error.to_string(), kind: io_kind(error) }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(mut file) => file.read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    Ok(bytes)
}

/// A file of nothing but these, in the place of the one before.
fn rewrite(path: &Path, notes: &BTreeMap<u64, Note>) -> io::Result<(File, u64)> {
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
    let records = notes.iter().map(|(number, note)| encode(&Record::Open { number: *number, note: note.clone() }));
    let bytes: Vec<u8> = records.flatten().collect();
    file.write_all(&bytes)?;
    if !bytes.is_empty() {
        file.sync_data()?;
    }
    std::fs::rename(&fresh, path)?;
    let file = OpenOptions::new().append(true).open(path)?;
    reserve(&file, bytes.len() as u64);
    Ok((file, bytes.len() as u64))
}

/// Where that cannot be had, notes take what is free when they are written.
fn reserve(file: &File, length: u64) {
    // One that lies across a border between two of these has that much behind it, too.
    let (from, bytes) = (length.cast_signed(), 2 * RESERVED_BYTES.cast_signed());
    if let Err(error) = fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, from, bytes) {
        tracing::debug!(%error, "no room is kept for notes");
    }
}

fn encode(record: &Record) -> Vec<u8> {
    let body = serde_json::to_vec(record).expect("a note has string keys and numbers only");
    let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(&checksum(&body).to_be_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// The notes that are open after these bytes, and how many bytes at the end are no record.
fn replay(bytes: &[u8]) -> (BTreeMap<u64, Note>, usize) {
    let mut open = BTreeMap::new();
    let mut rest = bytes;
    while let Some((record, after)) = decode(rest) {
        match record {
            Record::Open { number, note } => drop(open.insert(number, note)),
            Record::Done { numbers } => numbers.iter().for_each(|number| drop(open.remove(number))),
        }
        rest = after;
    }
    (open, rest.len())
}

fn decode(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let length = u32::from_be_bytes(head[..4].try_into().ok()?);
    let sum = u32::from_be_bytes(head[4..].try_into().ok()?);
    let (body, rest) = rest.split_at_checked(length as usize)?;
    if checksum(body) != sum {
        return None;
    }
    Some((serde_json::from_slice(body).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remove(key: &str) -> Note {
        Note::Remove { key: key.to_owned(), etag: Some("v1".to_owned()), event: true, intent: None }
    }

    fn keys(notes: &Notes) -> Vec<String> {
        notes.all().unwrap().into_iter().map(|(_, note)| note.key().clone()).collect()
    }

    #[test]
    fn what_is_open_is_there_after_a_restart_and_numbers_do_not_return() {
        let dir = tempfile::tempdir().unwrap();
        let notes = Notes::open(dir.path()).unwrap();
        let first = notes.add(&remove("a")).unwrap();
        let second = notes.add(&Note::Keep { key: "d/".to_owned(), metadata: BTreeMap::new() }).unwrap();
        notes.close(&[first]).unwrap();
        drop(notes);
        let notes = Notes::open(dir.path()).unwrap();
        assert_eq!(keys(&notes), ["d/"]);
        assert!(notes.add(&remove("b")).unwrap() > second);
    }

    #[test]
    fn a_long_file_with_nothing_open_is_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let notes = Notes::open(dir.path()).unwrap();
        let length = || std::fs::metadata(dir.path().join(FILE_NAME)).unwrap().len();
        let short = notes.add(&remove("a")).unwrap();
        notes.close(&[short]).unwrap();
        assert!(length() > 0, "its room is not given away each time");
        let numbers: Vec<u64> =
            (0..8_000).map(|number| notes.add(&remove(&format!("{number:0100}"))).unwrap()).collect();
        assert!(length() > RESERVED_BYTES);
        notes.close(&numbers).unwrap();
        assert_eq!(length(), 0);
        notes.add(&remove("b")).unwrap();
        drop(notes);
        let notes = Notes::open(dir.path()).unwrap();
        assert_eq!(keys(&notes), ["b"]);
        let open: Vec<u64> = notes.all().unwrap().into_iter().map(|(number, _)| number).collect();
        notes.close(&open).unwrap();
        drop(notes);
        assert_eq!(length(), 0, "nothing is left behind");
    }

    #[test]
    fn cut_or_damaged_anywhere_the_records_before_stand_and_nothing_panics() {
        let dir = tempfile::tempdir().unwrap();
        let notes = Notes::open(dir.path()).unwrap();
        notes.add(&remove("a")).unwrap();
        let whole = std::fs::metadata(dir.path().join(FILE_NAME)).unwrap().len() as usize;
        notes.add(&remove("b")).unwrap();
        let bytes = std::fs::read(dir.path().join(FILE_NAME)).unwrap();
        for at in whole..bytes.len() {
            assert_eq!(replay(&bytes[..at]).0.len(), 1, "cut at {at}");
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(replay(&damaged).0.len(), 1, "damaged at {at}");
        }
        std::fs::write(dir.path().join(FILE_NAME), &bytes[..bytes.len() - 1]).unwrap();
        let notes = Notes::open(dir.path()).unwrap();
        notes.add(&remove("c")).unwrap();
        assert_eq!(keys(&notes), ["a", "c"]);
    }
}
