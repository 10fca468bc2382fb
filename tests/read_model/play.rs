//! Doing each step to the file system and to the reference, and comparing.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::Instant;

use bytes::Bytes;
use s3mount::bucket::Metadata;
use s3mount::error::Errno;
use s3mount::fs::ops::{Entry, SetAttr};
use s3mount::fs::{Caller, FileKind, Ino};

use super::compare::assert_bytes;
use super::house::House;
use super::reference::{File, FileId, Place, Reference, Stale, Version};
use super::steps::{Case, DIRECTORIES, PATHS, SLOTS, Step};

pub const ROOT: Ino = 1;
pub const ME: Caller = Caller { uid: 1000, gid: 1000, pid: 0 };
/// What objects without attributes have: 0666 less the umask.
pub const FOREIGN_MODE: u32 = 0o644;
/// What files that are made here have.
const OWN_MODE: u32 = 0o600;
/// Metadata that only other programs know.
pub const COLOR: &str = "color";
/// What the kernel asks for at once, about.
const READ_BYTES: u32 = 200_000;

/// An open file of some program.
struct Slot {
    handle: u64,
    ino: Ino,
    file: FileId,
    write: bool,
}

#[derive(Default)]
struct Lookups {
    count: u64,
    directory: bool,
}

/// What another client replaced, and how long it may still be shown.
struct Replaced {
    path: String,
    before: Option<Version>,
    until: Instant,
}

/// The file system, what it must look like, and the programs that have files open.
pub struct World {
    house: Option<House>,
    pub reference: Reference,
    slots: [Option<Slot>; SLOTS],
    /// References of the kernel, by inode.
    lookups: BTreeMap<Ino, Lookups>,
    replaced: Vec<Replaced>,
    /// No two versions have the same bytes.
    versions: u64,
    files: FileId,
    turn: usize,
    compares_each: usize,
    pub write_back: bool,
}

/// Bytes that no other version has at any offset, cheaply: noise of a prime length, repeated.
pub fn noise(version: u64, bytes: usize) -> Vec<u8> {
    let mut state = version.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    let tile: Vec<u8> = (0..509).map(|_| next()).collect();
    let mut all = tile.repeat(bytes.div_ceil(tile.len()));
    all.truncate(bytes);
    all
}

fn directory_of(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl World {
    pub async fn new(case: &Case) -> Self {
        let house = House::new(case).await;
        for directory in &DIRECTORIES[..2] {
            house.fs.mkdir(ROOT, OsStr::new(directory), 0o755, ME).await.unwrap();
        }
        let directories = DIRECTORIES[..2].iter().map(|&name| name.to_owned()).collect();
        Self {
            house: Some(house),
            reference: Reference { directories, ..Reference::default() },
            slots: [const { None }; SLOTS],
            lookups: BTreeMap::new(),
            replaced: Vec::new(),
            versions: 0,
            files: 0,
            turn: 0,
            compares_each: if case.believing { 5 } else { 1 },
            write_back: case.write_back,
        }
    }

    pub fn house(&self) -> &House {
        self.house.as_ref().expect("there is a house but in the middle of a reboot")
    }

    pub async fn play(&mut self, step: &Step) {
        if step.is_by_others() {
            self.tell().await;
        }
        match *step {
            Step::Open { slot, path, write } => self.open_slot(slot, path, write).await,
            Step::Create { slot, path } => {
                self.close(slot).await;
                self.slots[slot] = self.create(path).await;
            }
            Step::Read { slot, offset, bytes } => self.read(slot, offset, bytes).await,
            Step::Write { slot, offset, bytes } => self.write(slot, offset, bytes).await,
            Step::Fsync { slot } => self.store(slot, true).await,
            Step::Flush { slot } => self.store(slot, false).await,
            Step::Stat { slot } => self.stat(slot).await,
            Step::Close { slot } => self.close(slot).await,
            Step::Load { path } => self.load(path).await,
            Step::Save { path, bytes } => self.save(path, bytes).await,
            Step::Truncate { path, bytes } => self.truncate(path, bytes).await,
            Step::Chmod { path, mode } => self.chmod(path, mode).await,
            Step::Rename { from, to } => self.rename(from, to).await,
            Step::Remove { path } => self.remove(path).await,
            Step::MoveDirectory { from, to } => self.move_directory(from, to).await,
            Step::Forget => self.forget(),
            Step::PutByOthers { path, bytes } => self.put_by_others(path, Some(bytes)).await,
            Step::DeleteByOthers { path } => self.put_by_others(path, None).await,
            Step::Settle => self.settle().await,
            Step::Reboot { keep_cache } => self.reboot(keep_cache).await,
            Step::Damage { damage, file, at } => self.house().damage(damage, file, at),
            Step::RemoveCacheDirectory => self.house().remove_cache_directory(),
            Step::ClearDisk => self.house().disk.clear(),
            Step::ForgetKey { path } => self.house().fs.forget_key(path),
            Step::Wait => self.outwait().await,
            Step::CompareAll => self.compare_all().await,
        }
        self.turn += 1;
        if !self.write_back || step.is_by_others() || self.turn.is_multiple_of(4) {
            self.tell().await;
            self.compare_bucket().await;
        }
        if self.turn.is_multiple_of(self.compares_each) {
            self.compare_some(self.turn / self.compares_each).await;
        }
    }

    /// What a name may show now: what the reference says, and what may still be believed.
    pub fn allowed(&self, path: &str) -> Vec<Option<Version>> {
        let mut allowed = self.reference.shown(path);
        let drafted = self.reference.at(path).is_some_and(|id| self.reference.files[&id].drafted);
        // Where the bucket may show through beside what readers have open, it may do so as it was a moment ago.
        if !drafted || allowed.len() > 1 {
            let now = Instant::now();
            let old = self.replaced.iter().filter(|old| old.path == path && now <= old.until);
            allowed.extend(old.map(|old| old.before.clone()));
        }
        allowed
    }

    /// Until nothing old is believed any more.
    async fn outwait(&mut self) {
        if let Some(until) = self.replaced.iter().map(|old| old.until).max() {
            let still = until.saturating_duration_since(Instant::now());
            tokio::time::sleep(still).await;
        }
        self.replaced.clear();
    }

    /// While a draft was there, nothing was asked about its name: what was believed when it was begun
    /// may be believed once more.
    fn believe_again(&mut self, id: FileId) {
        let file = &self.reference.files[&id];
        if file.drafted
            && self.reference.is_estranged(id)
            && let Some(path) = file.path().map(str::to_owned)
        {
            let before = file.base.clone().map(|bytes| Version { bytes, ..file.version() });
            let until = Instant::now() + self.house().staleness();
            self.replaced.push(Replaced { path, before, until });
        }
    }

    /// Before a name is used to change something: nothing old is believed, and nobody has another
    /// version than the bucket's open under it. (Who does, is told so by his close.)
    async fn approach(&mut self, path: &str) {
        self.outwait().await;
        let Some(id) = self.reference.at(path) else { return };
        if !self.reference.is_estranged(id) {
            return;
        }
        if self.reference.files[&id].drafted {
            for slot in 0..SLOTS {
                if self.slots[slot].as_ref().is_some_and(|slot| slot.file == id) {
                    self.close(slot).await;
                }
            }
            self.outwait().await;
        } else if let Some(file) = self.reference.files.get_mut(&id) {
            file.place = Place::Taken;
        }
    }

    async fn lookup(&mut self, parent: Ino, name: &str) -> Result<Entry, Errno> {
        let entry = self.house().fs.lookup(parent, OsStr::new(name)).await.map_err(|error| error.errno())?;
        self.note_lookup(&entry);
        Ok(entry)
    }

    fn note_lookup(&mut self, entry: &Entry) {
        let lookups = self.lookups.entry(entry.ino).or_default();
        lookups.count += 1;
        lookups.directory = entry.stat.kind == FileKind::Directory;
    }

    pub async fn find_directory(&mut self, directory: &str) -> Result<Ino, Errno> {
        if directory.is_empty() { Ok(ROOT) } else { Ok(self.lookup(ROOT, directory).await?.ino) }
    }

    pub async fn find(&mut self, path: &str) -> Result<Entry, Errno> {
        let (directory, name) = directory_of(path);
        let parent = self.find_directory(directory).await?;
        let found = self.lookup(parent, name).await;
        self.note_found(path, found.as_ref().ok().map(|entry| entry.ino));
        found
    }

    /// Who had the file open under a name that now leads elsewhere keeps an inode without a name.
    fn note_found(&mut self, path: &str, found: Option<Ino>) {
        let Some(id) = self.reference.at(path) else { return };
        let open = self.slots.iter().flatten().find(|slot| slot.file == id);
        if open.is_some_and(|slot| Some(slot.ino) != found) {
            self.reference.files.get_mut(&id).unwrap().place = Place::Taken;
        }
    }

    async fn open_slot(&mut self, slot: usize, path: &str, write: bool) {
        self.close(slot).await;
        self.slots[slot] = self.open(path, write).await;
    }

    async fn open(&mut self, path: &str, write: bool) -> Option<Slot> {
        if write {
            self.approach(path).await;
        }
        let allowed = self.allowed(path);
        let entry = match self.find(path).await {
            Ok(entry) => entry,
            Err(error) => {
                assert!(error == Errno::ENOENT && allowed.contains(&None), "lookup of {path}: {error}");
                return None;
            }
        };
        let flags = if write { libc::O_RDWR } else { libc::O_RDONLY };
        let handle = match self.house().fs.open(entry.ino, flags, ME).await {
            Ok(opened) => opened.handle,
            Err(error) => {
                let errno = error.errno();
                let gone = matches!(errno, Errno::ENOENT | Errno::ESTALE) && allowed.len() > 1;
                assert!(gone, "open of {path}: {error}");
                return None;
            }
        };
        let version = if allowed.len() == 1 {
            allowed[0].clone().unwrap_or_else(|| panic!("{path} is shown and must not be there"))
        } else {
            let Some(bytes) = self.read_all(handle).await else {
                self.house().fs.release(handle).await.unwrap();
                return None;
            };
            let mut versions = allowed.into_iter().flatten();
            let version = versions.find(|version| version.bytes == bytes);
            version.unwrap_or_else(|| panic!("{path}: {} bytes of no version allowed", bytes.len()))
        };
        let file = self.join(path, version);
        Some(self.slot(handle, entry.ino, file, write))
    }

    /// The open file that a name led to: one that others have open already, or another one.
    fn join(&mut self, path: &str, version: Version) -> FileId {
        let known = self.reference.at(path);
        if let Some(id) = known {
            let file = self.reference.files.get_mut(&id).unwrap();
            if file.bytes == version.bytes {
                return id;
            }
            file.place = Place::Taken;
        }
        self.add(File::stored(path, version))
    }

    fn add(&mut self, file: File) -> FileId {
        self.files += 1;
        self.reference.files.insert(self.files, file);
        self.files
    }

    fn slot(&mut self, handle: u64, ino: Ino, file: FileId, write: bool) -> Slot {
        let open = self.reference.files.get_mut(&file).unwrap();
        open.drafted |= write;
        *(if write { &mut open.writers } else { &mut open.readers }) += 1;
        Slot { handle, ino, file, write }
    }

    async fn create(&mut self, path: &str) -> Option<Slot> {
        self.approach(path).await;
        let (directory, name) = directory_of(path);
        let Ok(parent) = self.find_directory(directory).await else {
            assert!(!self.reference.has_place(path), "no directory for {path}");
            return None;
        };
        let created = self.house().fs.create(parent, OsStr::new(name), OWN_MODE, libc::O_RDWR, ME).await;
        let (entry, opened) = created.unwrap_or_else(|error| panic!("create of {path}: {error}"));
        self.note_lookup(&entry);
        let file = match self.reference.shown(path).remove(0) {
            Some(version) => self.join(path, version),
            None => self.add(File::new(path, OWN_MODE)),
        };
        assert_eq!(entry.stat.size, self.reference.files[&file].bytes.len() as u64, "size of {path}");
        Some(self.slot(opened.handle, entry.ino, file, true))
    }

    /// All bytes of an open file; `None` if its version is gone.
    async fn read_all(&self, handle: u64) -> Option<Bytes> {
        let mut all = Vec::new();
        loop {
            match self.house().fs.read(handle, all.len() as u64, READ_BYTES).await {
                Ok(bytes) if bytes.is_empty() => return Some(all.into()),
                Ok(bytes) => all.extend_from_slice(&bytes),
                Err(error) if error.errno() == Errno::ESTALE => return None,
                Err(error) => panic!("read: {error}"),
            }
        }
    }

    async fn read(&mut self, slot: usize, offset: u64, bytes: u32) {
        let Some(slot) = &self.slots[slot] else { return };
        let file = &self.reference.files[&slot.file];
        let what = format!("read of {:?} at {offset}", file.place);
        match self.house().fs.read(slot.handle, offset, bytes).await {
            Ok(found) => {
                let start = file.bytes.len().min(offset as usize);
                let end = file.bytes.len().min(offset as usize + bytes as usize);
                assert_bytes(&found, &file.bytes[start..end], &what);
            }
            Err(error) => {
                assert_eq!(error.errno(), Errno::ESTALE, "{what}: {error}");
                assert!(self.reference.is_estranged(slot.file), "{what}: {error}, and its version is there");
            }
        }
    }

    async fn write(&mut self, slot: usize, offset: u64, bytes: usize) {
        self.versions += 1;
        let Some(slot) = self.slots[slot].as_ref().filter(|slot| slot.write) else { return };
        let bytes = noise(self.versions, bytes);
        assert_eq!(self.house().fs.write(slot.handle, offset, &bytes).await.unwrap() as usize, bytes.len());
        self.reference.write(slot.file, offset as usize, &bytes);
    }

    async fn stat(&mut self, slot: usize) {
        let Some(slot) = &self.slots[slot] else { return };
        match self.house().fs.getattr(slot.ino).await {
            Ok(entry) => assert_eq!(entry.stat.size, self.reference.files[&slot.file].bytes.len() as u64, "fstat"),
            Err(error) => {
                let gone = error.errno() == Errno::ESTALE && self.reference.is_estranged(slot.file);
                assert!(gone, "fstat: {error}");
            }
        }
    }

    /// Flush or fsync; both answer whether the bytes are safe.
    async fn store(&mut self, slot: usize, sync: bool) {
        let Some(&Slot { handle, file, .. }) = self.slots[slot].as_ref().filter(|slot| slot.write) else { return };
        let fs = &self.house().fs;
        let found = if sync { fs.fsync(handle).await } else { fs.flush(handle, ME).await };
        let expected = if sync { self.reference.commit(file) } else { self.reference.flush(file) };
        self.compare_stored(file, expected, found.map_err(|error| error.errno())).await;
    }

    async fn close(&mut self, slot: usize) {
        self.store(slot, false).await;
        // A conflict has closed it already.
        let Some(Slot { handle, file, write, .. }) = self.slots[slot].take() else { return };
        self.believe_again(file);
        let found = self.house().fs.release(handle).await.map_err(|error| error.errno());
        let expected = self.reference.release(file, write);
        self.compare_stored(file, expected, found).await;
    }

    /// In a conflict theirs stays, and whoever has ours open lets go of it: the next open shows theirs.
    pub async fn compare_stored(&mut self, file: FileId, expected: Result<(), Stale>, found: Result<(), Errno>) {
        let stale = match (expected, found) {
            (Ok(()), Ok(())) => false,
            (Err(Stale), Err(Errno::ESTALE)) => true,
            (Err(Stale), Ok(())) if self.write_back => {
                self.house().fs.sync(None).await;
                true
            }
            (expected, found) => panic!("storing answered {found:?} instead of {expected:?}"),
        };
        if stale {
            for slot in &mut self.slots {
                if let Some(open) = slot.take_if(|slot| slot.file == file) {
                    let _ = self.house.as_ref().unwrap().fs.release(open.handle).await;
                }
            }
            self.reference.files.remove(&file);
        }
    }

    pub async fn load(&mut self, path: &str) {
        let Some(slot) = self.open(path, false).await else { return };
        let expected = self.reference.files[&slot.file].bytes.clone();
        match self.read_all(slot.handle).await {
            Some(found) => assert_bytes(&found, &expected, &format!("reading {path}")),
            None => assert!(self.reference.is_estranged(slot.file), "{path} is ESTALE, and its version is there"),
        }
        self.house().fs.release(slot.handle).await.unwrap();
        self.reference.release(slot.file, false).expect("a reader stores nothing");
    }

    /// As `cp` does it.
    async fn save(&mut self, path: &str, bytes: usize) {
        let Some(slot) = self.create(path).await else { return };
        if !self.reference.files[&slot.file].bytes.is_empty() {
            let empty = SetAttr { size: Some(0), ..SetAttr::default() };
            self.house().fs.setattr(slot.ino, empty).await.unwrap();
            self.reference.truncate(path, 0);
        }
        self.versions += 1;
        let bytes = noise(self.versions, bytes);
        for (number, part) in bytes.chunks(READ_BYTES as usize).enumerate() {
            let offset = number * READ_BYTES as usize;
            self.house().fs.write(slot.handle, offset as u64, part).await.unwrap();
            self.reference.write(slot.file, offset, part);
        }
        self.house().fs.flush(slot.handle, ME).await.unwrap();
        self.reference.flush(slot.file).expect("nobody was there in between");
        self.house().fs.release(slot.handle).await.unwrap();
        self.reference.release(slot.file, true).expect("nobody was there in between");
    }

    async fn truncate(&mut self, path: &str, bytes: usize) {
        let set = SetAttr { size: Some(bytes as u64), ..SetAttr::default() };
        if let Some(entry) = self.change(path, set).await {
            assert_eq!(entry.stat.size, bytes as u64);
            self.reference.truncate(path, bytes);
        }
    }

    async fn chmod(&mut self, path: &str, mode: u32) {
        // Of a mode that the file has already S3 is told or not, depending on how long ago it was asked; and so its
        // writer is told of another client's version or not.
        let open = self.reference.at(path).map(|id| &self.reference.files[&id]);
        if open.is_some_and(|file| file.writers > 0 && file.mode == mode) {
            return;
        }
        if self.change(path, SetAttr { mode: Some(mode), ..SetAttr::default() }).await.is_some() {
            self.reference.chmod(path, mode);
        }
    }

    /// A setattr on a name; `None` if it is not there.
    async fn change(&mut self, path: &str, set: SetAttr) -> Option<Entry> {
        self.approach(path).await;
        let shown = self.reference.shown(path).remove(0);
        match self.find(path).await {
            Ok(entry) => {
                let changed = self.house().fs.setattr(entry.ino, set).await;
                Some(changed.unwrap_or_else(|error| panic!("{set:?} of {path}: {error}")))
            }
            Err(error) => {
                assert!(error == Errno::ENOENT && shown.is_none(), "lookup of {path}: {error}");
                None
            }
        }
    }

    async fn rename(&mut self, from: &str, to: &str) {
        self.approach(from).await;
        self.approach(to).await;
        let ((above, name), (new_above, new_name)) = (directory_of(from), directory_of(to));
        let parents = (self.find_directory(above).await, self.find_directory(new_above).await);
        let (Ok(parent), Ok(new_parent)) = parents else {
            assert!(!self.reference.has_place(from) || !self.reference.has_place(to), "no directory: {parents:?}");
            return;
        };
        let there = self.reference.shown(from)[0].is_some();
        let renamed = self.house().fs.rename(parent, OsStr::new(name), new_parent, OsStr::new(new_name), 0).await;
        match renamed {
            Ok(()) => assert!(there, "a missing {from} was renamed"),
            Err(error) => assert!(!there && error.errno() == Errno::ENOENT, "rename of {from} to {to}: {error}"),
        }
        if there && from != to {
            self.reference.rename(from, to);
        }
    }

    async fn remove(&mut self, path: &str) {
        self.approach(path).await;
        let (directory, name) = directory_of(path);
        let Ok(parent) = self.find_directory(directory).await else { return };
        let there = self.reference.shown(path)[0].is_some();
        match self.house().fs.unlink(parent, OsStr::new(name)).await {
            Ok(()) => assert!(there, "a missing {path} was removed"),
            Err(error) => assert!(!there && error.errno() == Errno::ENOENT, "unlink of {path}: {error}"),
        }
        if there {
            self.reference.remove(path);
        }
    }

    async fn move_directory(&mut self, from: &str, to: &str) {
        self.outwait().await;
        for path in PATHS.iter().filter(|path| directory_of(path).0 == to) {
            self.approach(path).await;
        }
        let expected = match (from == to, self.reference.directories.contains(from)) {
            (_, false) => Err(Errno::ENOENT),
            (true, true) => Ok(()),
            (false, true) if self.reference.names(to).is_empty() => Ok(()),
            (false, true) => Err(Errno::ENOTEMPTY),
        };
        let renamed = self.house().fs.rename(ROOT, OsStr::new(from), ROOT, OsStr::new(to), 0).await;
        assert_eq!(renamed.map_err(|error| error.errno()), expected, "rename of the directory {from} to {to}");
        if expected.is_ok() && from != to {
            self.reference.move_directory(from, to);
        }
    }

    /// An open file keeps its inode and the directories above it.
    fn forget(&mut self) {
        let open: Vec<Ino> = self.slots.iter().flatten().map(|slot| slot.ino).collect();
        let fs = &self.house.as_ref().unwrap().fs;
        self.lookups.retain(|ino, lookups| {
            let needed = open.contains(ino) || (lookups.directory && !open.is_empty());
            if !needed {
                fs.forget(*ino, lookups.count);
            }
            needed
        });
    }

    /// All that was removed here is gone from the bucket, too.
    pub async fn settle(&self) {
        self.house().fs.settle_removals().await.unwrap();
    }

    async fn put_by_others(&mut self, path: &str, bytes: Option<usize>) {
        if !self.reference.has_place(path) {
            return;
        }
        if !self.reference.stored.contains_key(path) {
            // What is put under a key within the second of its removal may go with it.
            self.settle().await;
        }
        self.versions += 1;
        let version = bytes.map(|bytes| Version {
            bytes: noise(self.versions, bytes).into(),
            mode: FOREIGN_MODE,
            color: Some(self.versions.to_string()),
        });
        let bucket = &self.house().bucket;
        let before = if let Some(version) = version {
            let metadata = Metadata::from([(COLOR.to_owned(), self.versions.to_string())]);
            bucket.insert(path, version.bytes.clone(), metadata);
            self.reference.stored.insert(path.to_owned(), version)
        } else {
            bucket.remove(path);
            self.reference.stored.remove(path)
        };
        let until = Instant::now() + self.house().staleness();
        self.replaced.push(Replaced { path: path.to_owned(), before, until });
    }

    async fn reboot(&mut self, keep_cache: bool) {
        self.slots = [const { None }; SLOTS];
        self.lookups.clear();
        let house = self.house.take().unwrap();
        self.house = Some(house.reboot(keep_cache).await);
        self.reference.reboot();
    }
}
