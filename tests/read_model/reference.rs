//! What must be seen: a bucket, the files open on it, and the rules, in as few words as possible.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

/// Names an open file: one inode as its openers see it.
pub type FileId = usize;

/// What somebody else's version in our place answers (`ESTALE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale;

/// What a name stands for in the bucket, and what `stat` and S3 tell of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub bytes: Bytes,
    pub mode: u32,
    /// Metadata by another program, which stays with the object whatever happens to it here.
    pub color: Option<String>,
}

/// Where an open file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    At(String),
    /// It was removed or replaced here, and its bytes were kept: the bucket is needed no more.
    Kept,
    /// Another client's version has taken its name.
    Taken,
}

/// What of a file the bucket does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unstored {
    Nothing,
    Attributes,
    Bytes,
}

/// An open file. All who opened it on this machine see the same bytes.
#[derive(Clone, Debug)]
pub struct File {
    pub place: Place,
    pub bytes: Vec<u8>,
    pub mode: u32,
    pub color: Option<String>,
    /// The bytes in the bucket that it was begun from.
    pub base: Option<Bytes>,
    /// Has been opened for writing since somebody has had it open.
    pub drafted: bool,
    pub unstored: Unstored,
    /// Nothing was written since it was made or emptied: closing it then promises the local disk only.
    pub untouched: bool,
    /// Such a close was acknowledged: of an empty file with this mode.
    pub promised: Option<u32>,
    /// In a write-back mount: a close was acknowledged that S3 has not been told of.
    pub waiting: bool,
    pub readers: usize,
    pub writers: usize,
}

impl File {
    /// A file as the bucket has it.
    pub fn stored(path: &str, version: Version) -> Self {
        let Version { bytes: base, mode, color } = version;
        let (bytes, unstored) = (base.to_vec(), Unstored::Nothing);
        Self { bytes, color, base: Some(base), unstored, untouched: false, drafted: false, ..Self::new(path, mode) }
    }

    /// A file that was made just now.
    pub fn new(path: &str, mode: u32) -> Self {
        Self {
            place: Place::At(path.to_owned()),
            bytes: Vec::new(),
            mode,
            color: None,
            base: None,
            drafted: true,
            unstored: Unstored::Bytes,
            untouched: true,
            promised: None,
            waiting: false,
            readers: 0,
            writers: 0,
        }
    }

    /// The name that leads to it.
    pub fn path(&self) -> Option<&str> {
        if let Place::At(path) = &self.place { Some(path) } else { None }
    }

    /// As it is now.
    pub fn version(&self) -> Version {
        Version { bytes: self.bytes.clone().into(), mode: self.mode, color: self.color.clone() }
    }

    /// The bucket has all of it now.
    fn set_stored(&mut self) {
        (self.unstored, self.promised) = (Unstored::Nothing, None);
    }
}

/// The bucket and who has what open.
#[derive(Clone, Debug, Default)]
pub struct Reference {
    pub stored: BTreeMap<String, Version>,
    pub directories: BTreeSet<String>,
    pub files: BTreeMap<FileId, File>,
}

impl Reference {
    /// The open file that a name leads to.
    pub fn at(&self, path: &str) -> Option<FileId> {
        self.files.iter().find(|(_, file)| file.path() == Some(path)).map(|(id, _)| *id)
    }

    /// Whether the directory of a path is there.
    pub fn has_place(&self, path: &str) -> bool {
        path.split_once('/').is_none_or(|(directory, _)| self.directories.contains(directory))
    }

    /// The bucket does not hold the version that an open file was begun from: what of it is not
    /// here already cannot be read any more.
    pub fn is_estranged(&self, id: FileId) -> bool {
        let file = &self.files[&id];
        let there = file.path().and_then(|path| self.stored.get(path)).map(|version| &version.bytes);
        file.place != Place::Kept && there != file.base.as_ref()
    }

    /// What opening a name now may show, `None` meaning that it is not there. Several only where a
    /// writer has gone, readers have stayed, and another client has been there since.
    pub fn shown(&self, path: &str) -> Vec<Option<Version>> {
        let stored = self.stored.get(path).cloned();
        let Some(id) = self.at(path) else { return vec![stored] };
        let file = &self.files[&id];
        let ours = Some(file.version());
        match file.drafted {
            true if file.writers == 0 && file.unstored == Unstored::Nothing && self.is_estranged(id) => {
                vec![ours, stored]
            }
            true => vec![ours],
            false => vec![stored],
        }
    }

    /// Names that a directory ("" is the root) must show.
    pub fn names(&self, directory: &str) -> BTreeSet<String> {
        let open = self.files.values().filter(|file| file.drafted).filter_map(File::path);
        let files = self.stored.keys().map(String::as_str).chain(open);
        let within = |path: &str| match path.split_once('/') {
            Some((above, name)) => (above == directory).then(|| name.to_owned()),
            None => directory.is_empty().then(|| path.to_owned()),
        };
        let directories = self.directories.iter().map(String::as_str);
        files.chain(directories).filter_map(within).collect()
    }

    /// `pwrite(2)`.
    pub fn write(&mut self, id: FileId, offset: usize, bytes: &[u8]) {
        let file = self.files.get_mut(&id).unwrap();
        let end = offset + bytes.len();
        file.bytes.resize(file.bytes.len().max(end), 0);
        file.bytes[offset..end].copy_from_slice(bytes);
        (file.unstored, file.untouched) = (Unstored::Bytes, false);
    }

    /// `truncate(2)` of a file that is there.
    pub fn truncate(&mut self, path: &str, size: usize) {
        let Some(id) = self.at(path) else {
            let version = self.stored.get_mut(path).expect("a file that is there");
            let mut bytes = version.bytes.to_vec();
            bytes.resize(size, 0);
            version.bytes = bytes.into();
            return;
        };
        let file = self.files.get_mut(&id).unwrap();
        let mut changed = if file.bytes.len() == size { Unstored::Nothing } else { Unstored::Bytes };
        file.bytes.resize(size, 0);
        file.drafted = true;
        if size == 0 && file.writers > 0 {
            file.unstored = file.unstored.max(changed);
            file.untouched = true;
            return;
        }
        if file.untouched {
            changed = Unstored::Bytes;
        }
        file.unstored = file.unstored.max(changed).max(Unstored::Attributes);
        file.untouched = false;
        if file.writers == 0 {
            self.commit(id).expect("a file that is not estranged can be stored");
        }
    }

    /// `chmod(2)` of a file that is there.
    pub fn chmod(&mut self, path: &str, mode: u32) {
        let Some(id) = self.at(path) else {
            self.stored.get_mut(path).expect("a file that is there").mode = mode;
            return;
        };
        let file = self.files.get_mut(&id).unwrap();
        file.mode = mode;
        file.unstored = file.unstored.max(Unstored::Attributes);
        if file.writers == 0 {
            self.commit(id).expect("a file that is not estranged can be stored");
        }
    }

    /// What makes the bucket hold what the file holds.
    pub fn commit(&mut self, id: FileId) -> Result<(), Stale> {
        let estranged = self.is_estranged(id);
        let file = self.files.get_mut(&id).unwrap();
        let Some(path) = file.path().map(str::to_owned) else { return Ok(()) };
        if file.unstored == Unstored::Nothing {
            return Ok(());
        }
        if estranged {
            return Err(Stale);
        }
        let version = file.version();
        file.base = Some(version.bytes.clone());
        // Attributes alone go to S3 at once.
        file.waiting |= file.unstored == Unstored::Bytes;
        self.stored.insert(path, version);
        file.set_stored();
        Ok(())
    }

    /// One `close(2)` of one of several descriptors.
    pub fn flush(&mut self, id: FileId) -> Result<(), Stale> {
        let file = self.files.get_mut(&id).unwrap();
        if file.unstored == Unstored::Bytes && file.untouched {
            file.promised = file.path().map(|_| file.mode);
            return Ok(());
        }
        self.commit(id)
    }

    /// S3 is told of closes that it has not been told of, as the files are now; of these it is.
    pub fn told(&mut self) -> Vec<FileId> {
        let waits = |file: &&mut File| file.waiting || file.promised.is_some();
        let waiting = self.files.iter_mut().filter(|(_, file)| waits(file));
        waiting
            .map(|(id, file)| {
                file.waiting = false;
                *id
            })
            .collect()
    }

    /// The last descriptor of one opener is gone.
    pub fn release(&mut self, id: FileId, write: bool) -> Result<(), Stale> {
        let file = self.files.get_mut(&id).unwrap();
        *(if write { &mut file.writers } else { &mut file.readers }) -= 1;
        let last_writer = write && file.writers == 0;
        let stored = if last_writer { self.commit(id) } else { Ok(()) };
        let file = &self.files[&id];
        if file.readers + file.writers == 0 {
            self.files.remove(&id);
        }
        stored
    }

    /// A name is gone: who has the file open reads on.
    fn keep(&mut self, path: &str) {
        if let Some(file) = self.at(path).and_then(|id| self.files.get_mut(&id)) {
            (file.place, file.drafted) = (Place::Kept, true);
        }
    }

    /// `unlink(2)` of a file that is there.
    pub fn remove(&mut self, path: &str) {
        self.keep(path);
        self.stored.remove(path);
    }

    /// `rename(2)` of a file that is there.
    pub fn rename(&mut self, from: &str, to: &str) {
        self.keep(to);
        let mut version = self.stored.remove(from);
        if let Some(file) = self.at(from).and_then(|id| self.files.get_mut(&id)) {
            file.place = Place::At(to.to_owned());
            if file.unstored != Unstored::Nothing {
                version = Some(file.version());
                file.base = Some(file.bytes.clone().into());
                file.set_stored();
            }
        }
        self.stored.insert(to.to_owned(), version.expect("a file that is there"));
    }

    /// `rename(2)` of a directory onto nothing or an empty one.
    pub fn move_directory(&mut self, from: &str, to: &str) {
        let moved = |path: &str| match path.split_once('/') {
            Some((directory, name)) if directory == from => format!("{to}/{name}"),
            _ => path.to_owned(),
        };
        self.stored = self.stored.iter().map(|(path, version)| (moved(path), version.clone())).collect();
        for file in self.files.values_mut() {
            if let Place::At(path) = &mut file.place {
                *path = moved(path);
            }
        }
        self.directories.remove(from);
        self.directories.insert(to.to_owned());
    }

    /// Killed and started again: what was promised is there, and what was only written is not.
    pub fn reboot(&mut self) {
        for (_, file) in std::mem::take(&mut self.files) {
            if let Place::At(path) = &file.place
                && let Some(mode) = file.promised
                && self.stored.get(path).map(|version| &version.bytes) == file.base.as_ref()
            {
                self.stored.insert(path.clone(), Version { mode, bytes: Bytes::new(), ..file.version() });
            }
        }
    }
}
