//! What a worker has done already: queues and S3 tell of the same thing twice now and then.
//!
//! Marks of 16 bytes, appended to a file; when it is full it becomes the older one, and the older one
//! goes. Nothing is synced: after a power failure some hooks run once more than they would have to.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

/// Marks in a file. Between once and twice as many are remembered.
const FILE_MARKS: usize = 50_000;
const MARK_BYTES: usize = 16;

/// Stands for one version of one object and one hook.
pub(super) type Mark = [u8; MARK_BYTES];

/// The mark of these words together.
pub(super) fn mark(words: &[&str]) -> Mark {
    let mut digest = Sha256::new();
    for word in words {
        digest.update((word.len() as u64).to_le_bytes());
        digest.update(word);
    }
    *digest.finalize().first_chunk().expect("a digest has 32 bytes")
}

/// What was done.
#[derive(Debug)]
pub(super) struct Known(Mutex<State>);

#[derive(Debug)]
struct State {
    path: PathBuf,
    file: File,
    newer: HashSet<Mark>,
    older: HashSet<Mark>,
}

impl Known {
    /// Reads what was remembered there, or begins.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let older = read(&older_path(path))?;
        let newer = read(path)?;
        let file = append_to(path)?;
        // A crash may have left half of one: those behind it would be none.
        file.set_len(file.metadata()?.len() / MARK_BYTES as u64 * MARK_BYTES as u64)?;
        Ok(Self(Mutex::new(State { path: path.to_owned(), file, newer, older })))
    }

    pub(super) fn contains(&self, mark: &Mark) -> bool {
        let state = self.0.lock();
        state.newer.contains(mark) || state.older.contains(mark)
    }

    /// Remembers. What can't be written is known until the end of this process.
    pub(super) fn add(&self, mark: Mark) {
        let mut state = self.0.lock();
        if !state.newer.insert(mark) {
            return;
        }
        if let Err(error) = state.write(&mark) {
            tracing::warn!("{}: {error}: a later start may run hooks again", state.path.display());
        }
    }
}

impl State {
    fn write(&mut self, mark: &Mark) -> io::Result<()> {
        self.file.write_all(mark)?;
        if self.newer.len() >= FILE_MARKS {
            fs::rename(&self.path, older_path(&self.path))?;
            self.file = append_to(&self.path)?;
            self.older = std::mem::take(&mut self.newer);
        }
        Ok(())
    }
}

fn older_path(path: &Path) -> PathBuf {
    path.with_extension("older")
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn read(path: &Path) -> io::Result<HashSet<Mark>> {
    match fs::read(path) {
        Ok(bytes) => Ok(bytes.as_chunks().0.iter().copied().collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(HashSet::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_known_over_restarts_also_after_half_a_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known");
        let (one, two, three) = (mark(&["a", "b"]), mark(&["ab", ""]), mark(&["c"]));
        assert_ne!(one, two, "words are kept apart");
        Known::open(&path).unwrap().add(one);
        append_to(&path).unwrap().write_all(b"half").unwrap();
        let known = Known::open(&path).unwrap();
        assert!(known.contains(&one) && !known.contains(&two));
        known.add(two);
        known.add(three);
        let known = Known::open(&path).unwrap();
        assert!([one, two, three].iter().all(|mark| known.contains(mark)));
        assert_eq!(fs::metadata(&path).unwrap().len(), 3 * MARK_BYTES as u64);
    }

    #[test]
    fn the_latest_are_remembered_and_no_more_than_twice_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known");
        let numbered = |number: usize| mark(&[&number.to_string()]);
        let count = 3 * FILE_MARKS + 10;
        let known = Known::open(&path).unwrap();
        (0..count).for_each(|number| known.add(numbered(number)));
        for known in [known, Known::open(&path).unwrap()] {
            assert!((count - FILE_MARKS..count).all(|number| known.contains(&numbered(number))));
            assert!(!known.contains(&numbered(0)));
            let state = known.0.lock();
            assert!(state.newer.len() + state.older.len() <= 2 * FILE_MARKS);
        }
    }
}
