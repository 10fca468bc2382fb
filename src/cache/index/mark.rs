//! The mark beside the index file: which keys' changes are not in it yet.
//!
//! If one lies there at the start, a crash came in between, and what the file says of these keys may
//! be older than what the bucket was told: a chmod changes no tag, so nothing else would tell. A mark
//! is a list, one key a line as a JSON string, written to before the change is answered and never
//! synced: `kill -9` leaves it whole. One that was written before this machine was booted, or makes no
//! sense, stands for every key.
//!
//! There are two: what a transaction is about to write, and what came since it was begun.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::super::boot;

/// What a crash has left out of the index file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unwritten {
    Nothing,
    /// The changes of these keys.
    Keys(Vec<String>),
    /// The changes of any key.
    Anything,
}

#[derive(Debug)]
pub(super) struct Mark {
    /// Lists the changes that wait for a transaction.
    waiting: PathBuf,
    /// Lists those in the transaction that is being written.
    committing: PathBuf,
    /// `waiting`, once there is one.
    open: Option<File>,
}

impl Mark {
    /// The mark of the index file at this path.
    pub fn beside(index: &Path) -> Self {
        let [waiting, committing] = ["unwritten", "committing"].map(|name| index.with_extension(name));
        Self { waiting, committing, open: None }
    }

    /// What the last mount has left.
    pub fn found(&self) -> Unwritten {
        let mut keys = Vec::new();
        for path in [&self.committing, &self.waiting] {
            match std::fs::read_to_string(path) {
                Ok(text) => match listed(&text) {
                    Some(listed) => keys.extend(listed),
                    None => return Unwritten::Anything,
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) => return Unwritten::Anything,
            }
        }
        if keys.is_empty() { Unwritten::Nothing } else { Unwritten::Keys(keys) }
    }

    /// A change of this key waits from now on.
    pub fn add(&mut self, key: &str) {
        if self.try_add(key).is_err() {
            // Empty, it stands for every key. If not even that can be had, a crash leaves old attributes.
            let _ = File::create(&self.waiting);
        }
    }

    fn try_add(&mut self, key: &str) -> io::Result<()> {
        let line = format!("{}\n", serde_json::to_string(key)?);
        if let Some(open) = &mut self.open {
            return open.write_all(line.as_bytes());
        }
        let file = OpenOptions::new().create(true).append(true).open(&self.waiting)?;
        let file = self.open.insert(file);
        file.write_all(format!("{}\n{line}", boot::id().unwrap_or_default()).as_bytes())
    }

    /// What waits goes into a transaction; what comes from now on waits for the next one.
    pub fn begin_commit(&mut self) {
        self.open = None;
        let _ = std::fs::rename(&self.waiting, &self.committing);
    }

    /// The transaction is on the disk.
    pub fn end_commit(&self) {
        let _ = std::fs::remove_file(&self.committing);
    }

    /// The file says no more than what is true.
    pub fn remove(&self) {
        for path in [&self.committing, &self.waiting] {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The keys of a mark of this machine's present boot; `None` if it is not one, or not whole.
fn listed(text: &str) -> Option<Vec<String>> {
    let mut lines = text.strip_suffix('\n')?.split('\n');
    if lines.next()? != boot::id()? {
        return None;
    }
    lines.map(|line| serde_json::from_str(line).ok()).collect()
}
