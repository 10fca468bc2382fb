//! The directory of the disk cache: names, scanning, free space.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::DiskDirectory;
use super::ledger::Name;

/// Subdirectory that holds the files; its name changes with their format.
const FILES: &str = "blocks-2";
/// Who uses the directory has a lock on this file in it.
const USERS: &str = "users";
/// End the names of the files of an entry: its map and its bytes, or both in one.
pub(super) const MAP: &str = "map";
pub(super) const DATA: &str = "data";
pub(super) const SMALL: &str = "small";
/// Ends the name of a data file that is not complete yet.
pub(super) const NEW: &str = "new";
/// What is not finished is left this long after it was written to: another mount may be making it.
const UNFINISHED_AGE: Duration = Duration::from_mins(1);
/// This part of the file system stays free: one tenth.
const FREE_PART: u64 = 10;

/// What a look into the directory found.
#[derive(Debug)]
pub(super) struct Scan {
    /// Every entry, oldest first, with the bytes that it takes on the disk.
    pub entries: Vec<(Name, u64)>,
    /// What is being made, in bytes as it will be, and when the first of it was written to last.
    pub unfinished_bytes: u64,
    pub unfinished_since: Option<SystemTime>,
}

/// The directory. Nothing in a bucket can lead out of it: every name in it is a hash.
#[derive(Debug)]
pub(super) struct Directory {
    /// What the user named; attribute indexes lie in it as well.
    above: PathBuf,
    root: PathBuf,
    /// Locked by every mount that uses the directory, shared.
    users: Mutex<Option<File>>,
}

impl Directory {
    /// Makes the directory, for its owner's eyes only.
    ///
    /// # Errors
    /// `PermissionDenied` when it belongs to somebody else: what they put there would be read as
    /// the bucket's bytes.
    pub fn open(path: &Path) -> io::Result<Self> {
        let root = path.join(FILES);
        make(&root)?;
        check(&root)?;
        std::fs::set_permissions(&root, Permissions::from_mode(0o700))?;
        let users = Mutex::new(join_users(&root));
        Ok(Self { above: path.to_owned(), root, users })
    }

    /// Whether another mount uses it now. After this directory was removed and made again, that is
    /// known of those that noticed.
    pub fn is_shared(&self) -> bool {
        let users = self.users.lock();
        let Some(file) = users.as_ref() else { return true };
        let is_alone = file.try_lock().is_ok();
        is_locked(file);
        !is_alone
    }

    /// Takes part again after somebody removed the directory.
    pub fn rejoin(&self) -> io::Result<()> {
        make(&self.root)?;
        *self.users.lock() = join_users(&self.root);
        Ok(())
    }

    /// The directory, if it is there. Nothing is changed.
    ///
    /// # Errors
    /// As [`Directory::open`].
    pub fn find(path: &Path) -> io::Result<Option<Self>> {
        let root = path.join(FILES);
        match check(&root) {
            Ok(()) => Ok(Some(Self { above: path.to_owned(), root, users: Mutex::default() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What it holds and takes.
    pub fn contents(&self) -> DiskDirectory {
        let found = self.scan();
        let bytes: u64 = found.entries.iter().map(|(_, bytes)| bytes).sum();
        let disk_bytes = bytes + found.unfinished_bytes + self.other_bytes();
        DiskDirectory { disk_bytes, entries: found.entries.len() as u64 }
    }

    /// Removes all that has the name of a file of ours, whole entries or not. Links are removed, not
    /// followed.
    pub fn remove_all(&self) {
        for shelf in list(&self.root).iter().filter(|shelf| is_directory(shelf)) {
            for stem in list(shelf).iter().map(|path| path.with_extension("")) {
                if name(&stem).is_some() {
                    remove(&stem);
                }
            }
            // Somebody else's file in it keeps it.
            let _ = std::fs::remove_dir(shelf);
        }
    }

    /// The directory that the user named.
    pub fn above(&self) -> &Path {
        &self.above
    }

    /// The path of an entry's files, without their extension.
    pub fn stem(&self, name: &Name) -> PathBuf {
        let name = hex::encode(name);
        self.root.join(&name[..2]).join(&name[2..])
    }

    /// What there is. What was given up before it was finished is removed.
    pub fn scan(&self) -> Scan {
        let mut found = Shelves::default();
        for shelf in list(&self.root).iter().filter(|shelf| is_directory(shelf)) {
            scan_shelf(shelf, &mut found);
        }
        found.entries.sort_unstable();
        Scan {
            entries: found.entries.into_iter().map(|(_, name, bytes)| (name, bytes)).collect(),
            unfinished_bytes: found.unfinished.iter().map(|(_, bytes)| bytes).sum(),
            unfinished_since: found.unfinished.iter().map(|(at, _)| *at).min(),
        }
    }

    /// Bytes that the directory takes besides its entries: attribute indexes, and directories.
    pub fn other_bytes(&self) -> u64 {
        let beside = list(&self.above).into_iter().filter(|path| *path != self.root);
        let below = |directory: &PathBuf| list(directory);
        let inside: Vec<PathBuf> = beside.clone().flat_map(|path| below(&path)).collect();
        let shelves = list(&self.root);
        let all = beside.chain(inside).chain(shelves).chain([self.above.clone(), self.root.clone()]);
        all.filter_map(|path| std::fs::symlink_metadata(path).ok()).map(|found| found.blocks() * 512).sum()
    }

    /// Whether somebody removed the whole directory.
    pub fn is_gone(&self) -> bool {
        std::fs::symlink_metadata(&self.root).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Removes an entry; the map first, so that no map ever speaks of bytes that are gone. Whether
    /// there was one: of several who remove it at once, one hears so.
    pub fn remove(&self, name: &Name) -> bool {
        remove(&self.stem(name))
    }

    /// Bytes that may still be written before less than a tenth of the file system is free.
    pub fn spare_bytes(&self) -> io::Result<u64> {
        spare_bytes(&self.root)
    }

    /// Size of the file system in bytes.
    pub fn file_system_bytes(&self) -> io::Result<u64> {
        let system = nix::sys::statvfs::statvfs(&self.root)?;
        Ok(system.blocks() * system.fragment_size())
    }
}

/// The same on the file system of any path.
pub(super) fn spare_bytes(path: &Path) -> io::Result<u64> {
    let system = nix::sys::statvfs::statvfs(path)?;
    let unit = system.fragment_size();
    Ok((system.blocks_available() * unit).saturating_sub(system.blocks() * unit / FREE_PART))
}

/// `None`: other mounts cannot be told of, and may be there.
fn join_users(root: &Path) -> Option<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
    options.open(root.join(USERS)).ok().filter(is_locked)
}

/// Locks it shared. Whoever has it alone at this moment only looked, and lets go at once.
fn is_locked(file: &File) -> bool {
    file.lock_shared().is_ok()
}

fn check(root: &Path) -> io::Result<()> {
    let metadata = std::fs::symlink_metadata(root)?;
    if !metadata.is_dir() || metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not a directory of yours"));
    }
    Ok(())
}

fn is_directory(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

/// Makes a directory and those above it, also after somebody removed all of them.
pub(super) fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn remove(stem: &Path) -> bool {
    // Gone already, or not ours to remove: either way there is nothing more to do.
    let [small, map, _] =
        [SMALL, MAP, DATA].map(|extension| std::fs::remove_file(stem.with_extension(extension)).is_ok());
    small || map
}

fn list(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).collect()
}

#[derive(Default)]
struct Pair {
    map: Option<Metadata>,
    data: Option<Metadata>,
}

/// By when they were written to last: entries with their bytes on the disk, and the bytes of what is being made.
#[derive(Default)]
struct Shelves {
    entries: Vec<(SystemTime, Name, u64)>,
    unfinished: Vec<(SystemTime, u64)>,
}

impl Shelves {
    /// Counts what is being made, or has it removed when it was given up.
    fn count_unfinished(&mut self, file: &Metadata, bytes: u64, remove: impl FnOnce() -> bool) {
        let at = changed(file);
        if is_given_up(at) {
            remove();
        } else {
            self.unfinished.push((at, bytes));
        }
    }
}

fn scan_shelf(shelf: &Path, found: &mut Shelves) {
    let mut pairs: HashMap<PathBuf, Pair> = HashMap::new();
    for path in list(shelf) {
        let Ok(metadata) = look(&path) else { continue };
        let pair = pairs.entry(path.with_extension("")).or_default();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some(SMALL) => found.entries.extend(name(&path.with_extension("")).map(|name| entry(name, &metadata, 0))),
            Some(MAP) => pair.map = Some(metadata),
            Some(DATA) => pair.data = Some(metadata),
            // Its length is what it will take.
            _ if is_new(&path) => {
                found.count_unfinished(&metadata, metadata.len(), || std::fs::remove_file(path).is_ok());
            }
            _ => {}
        }
    }
    for (stem, pair) in pairs {
        match (name(&stem), pair) {
            (Some(name), Pair { map: Some(map), data: Some(data) }) => {
                found.entries.push(entry(name, &map, data.blocks()));
            }
            (Some(_), Pair { map: Some(half), .. } | Pair { data: Some(half), .. }) => {
                found.count_unfinished(&half, half.blocks() * 512, || remove(&stem));
            }
            _ => {}
        }
    }
}

/// When it was used last, its name and what it takes on the disk.
fn entry(name: Name, map: &Metadata, data_blocks: u64) -> (SystemTime, Name, u64) {
    (changed(map), name, (map.blocks() + data_blocks) * 512)
}

/// What is known of a file. A copy that became the data file after it was listed is found there.
fn look(path: &Path) -> io::Result<Metadata> {
    let found = std::fs::symlink_metadata(path);
    if found.is_err() && is_new(path) { std::fs::symlink_metadata(path.with_extension(DATA)) } else { found }
}

fn changed(file: &Metadata) -> SystemTime {
    file.modified().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Whether what was written to last at that time, and is not finished, will not be: its process died.
pub(super) fn is_given_up(changed: SystemTime) -> bool {
    changed.elapsed().is_ok_and(|age| age > UNFINISHED_AGE)
}

/// Whether this is a copy of ours that will become a data file.
fn is_new(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|found| found.starts_with(NEW)) && name(&path.with_extension("")).is_some()
}

/// The name that [`Directory::stem`] made this path from.
fn name(stem: &Path) -> Option<Name> {
    let shelf = stem.parent()?.file_name()?.to_str()?;
    let rest = stem.file_name()?.to_str()?;
    hex::decode(format!("{shelf}{rest}")).ok()?.try_into().ok()
}
