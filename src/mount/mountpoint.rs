//! Where the mount goes: is it there, is it free, is it the corpse of a killed process.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use super::{Error, Result, session};

/// How long a mount may take to tell that it is there.
const LOOK_DEADLINE: Duration = Duration::from_secs(3);

/// A mounted file system, as /proc/self/mountinfo tells it (proc_pid_mountinfo(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Occupant {
    /// `MAJOR:MINOR` of the mount, which also names its `/sys/class/bdi/` entry.
    pub device: String,
    pub mountpoint: PathBuf,
    pub fs_type: String,
    /// Source as its mounter named it, `s3://bucket/prefix` for ours.
    pub source: String,
}

impl Occupant {
    /// Whether it is one of our mounts.
    fn is_ours(&self) -> bool {
        self.fs_type == session::FS_TYPE
    }

    /// Whether it only waits for somebody to look, to have the real one mounted on it (autofs(5),
    /// `x-systemd.automount`).
    fn is_trigger(&self) -> bool {
        self.fs_type == "autofs"
    }
}

/// All mounts of this process's namespace, in the order in which they were made.
pub(super) fn mounts() -> Vec<Occupant> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    table.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// `ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS [TAG…] - TYPE SOURCE SUPEROPTIONS`
fn parse_line(line: &[u8]) -> Option<Occupant> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    let text = |field: &[u8]| String::from_utf8_lossy(&unescaped(field)).into_owned();
    Some(Occupant {
        device: text(fields.get(2)?),
        mountpoint: PathBuf::from(OsString::from_vec(unescaped(fields.get(4)?))),
        fs_type: text(fields.get(dash + 1)?),
        source: text(fields.get(dash + 2)?),
    })
}

/// The kernel writes blank, tab, newline and backslash as `\040` and so on.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        if let (b'\\', Some(digits)) = (byte, after.get(..3))
            && let Some(code) = std::str::from_utf8(digits).ok().and_then(|octal| u8::from_str_radix(octal, 8).ok())
        {
            out.push(code);
            rest = &after[3..];
        } else {
            out.push(*byte);
            rest = after;
        }
    }
    out
}

/// What is mounted exactly here, topmost first.
pub(super) fn occupant(mountpoint: &Path) -> Option<Occupant> {
    mounts().into_iter().rfind(|mount| mount.mountpoint == mountpoint)
}

/// Finds the real path of a mountpoint, unmounts what a killed process left on it, and makes sure
/// that it is a free directory. A directory with files in it is fine: they reappear afterwards.
///
/// # Errors
/// [`Error::Missing`], [`Error::NoDirectory`], [`Error::Occupied`] or the system's own.
pub fn prepare(mountpoint: &Path) -> Result<PathBuf> {
    let path = resolve(mountpoint)?;
    // Corpses can lie on each other; a handful is bound enough.
    for _ in 0..8 {
        let looked = std::fs::metadata(&path);
        let Some(occupant) = occupant(&path).filter(|mount| !mount.is_trigger()) else { return checked(path, looked) };
        if !is_corpse(&path) {
            return Err(Error::Occupied { mountpoint: path, source_name: occupant.source, fs_type: occupant.fs_type });
        }
        tracing::warn!(mountpoint = %path.display(), "cleaning up a mount whose process is gone");
        session::unmount(&path, true)?;
    }
    Err(Error::Busy(path))
}

fn checked(path: PathBuf, looked: io::Result<std::fs::Metadata>) -> Result<PathBuf> {
    match looked {
        Ok(found) if found.is_dir() => Ok(path),
        Ok(_) => Err(Error::NoDirectory(path)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Err(Error::Missing(path)),
        Err(cause) => Err(Error::system("look at", &path, cause)),
    }
}

/// The path without symbolic links. A dead mount cannot be looked into, its parent can.
///
/// # Errors
/// [`Error::Missing`], [`Error::NoDirectory`] or the system's own.
fn resolve(mountpoint: &Path) -> Result<PathBuf> {
    let cause = match mountpoint.canonicalize() {
        Ok(path) => return Ok(path),
        Err(cause) => cause,
    };
    match (mountpoint.parent(), mountpoint.file_name()) {
        (Some(parent), Some(name)) if is_dead(&cause) => {
            let parent = parent.canonicalize().map_err(|cause| Error::system("look at", mountpoint, cause))?;
            Ok(parent.join(name))
        }
        _ if cause.kind() == io::ErrorKind::NotFound => Err(Error::Missing(mountpoint.to_owned())),
        _ if cause.kind() == io::ErrorKind::NotADirectory => Err(Error::NoDirectory(mountpoint.to_owned())),
        _ => Err(Error::system("look at", mountpoint, cause)),
    }
}

/// Whether the process behind a mount is gone. Asks by statfs, which always goes to that process: a
/// stat may be answered by what the kernel remembers for a second.
fn is_corpse(mountpoint: &Path) -> bool {
    nix::sys::statvfs::statvfs(mountpoint).is_err_and(|errno| is_dead(&errno.into()))
}

/// ENOTCONN: "Transport endpoint is not connected". ECONNABORTED follows a `fusectl` abort.
fn is_dead(cause: &io::Error) -> bool {
    matches!(cause.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED))
}

/// Finds the real path of what a user takes for a mount, without looking into it.
///
/// # Errors
/// [`Error::NotMounted`], when there is nothing of that name.
pub fn named(mountpoint: &Path) -> Result<PathBuf> {
    resolve(mountpoint).map_err(|error| match error {
        Error::Missing(path) | Error::NoDirectory(path) => no_mount(&path),
        other => other,
    })
}

/// The mountpoint of ours that a path lies on, as df(1) finds it; of any other path as [`named`].
///
/// # Errors
/// Those of [`named`].
pub fn above(path: &Path) -> Result<PathBuf> {
    holding(path).map(|(mountpoint, _)| mountpoint).or_else(|_| named(path))
}

/// The mount of ours that a path lies on, and the path below it: empty for its root. What does not
/// exist lies where it would be.
///
/// # Errors
/// [`Error::NotMounted`].
pub fn holding(path: &Path) -> Result<(PathBuf, PathBuf)> {
    let absolute = std::path::absolute(path).map_err(|cause| Error::system("look at", path, cause))?;
    let real = real_path(&absolute);
    let above = mounts().into_iter().filter(|mount| real.starts_with(&mount.mountpoint));
    // The last of the longest: it lies on top.
    let holder = above.max_by_key(|mount| mount.mountpoint.as_os_str().len()).filter(Occupant::is_ours);
    let holder = holder.ok_or_else(|| Error::NotMounted(path.to_owned()))?;
    let below = real.strip_prefix(&holder.mountpoint).unwrap_or(Path::new("")).to_owned();
    Ok((holder.mountpoint, below))
}

/// Why nobody answers for this mountpoint.
#[must_use]
pub fn silence(mountpoint: &Path) -> Error {
    match occupant(mountpoint) {
        Some(mount) if mount.is_ours() && answers_as_dead(mountpoint) => Error::Dead(mountpoint.to_owned()),
        Some(mount) if mount.is_ours() => Error::Unheard(mountpoint.to_owned()),
        Some(mount) => {
            Error::Foreign { mountpoint: mountpoint.to_owned(), source_name: mount.source, fs_type: mount.fs_type }
        }
        None => no_mount(mountpoint),
    }
}

fn no_mount(path: &Path) -> Error {
    match holding(path) {
        Ok((mountpoint, _)) => Error::Below { path: path.to_owned(), mountpoint },
        Err(_) => Error::NotMounted(path.to_owned()),
    }
}

/// Asks the kernel on a thread of its own: a mount that hangs must not take the command with it.
fn answers_as_dead(mountpoint: &Path) -> bool {
    let (answer, answers) = mpsc::channel();
    let path = mountpoint.to_owned();
    std::thread::spawn(move || {
        // Too late, and nobody listens any more.
        let _ = answer.send(std::fs::metadata(path));
    });
    matches!(answers.recv_timeout(LOOK_DEADLINE), Ok(Err(cause)) if is_dead(&cause))
}

/// Whether something lies in a directory, which nobody sees while something is mounted on it. What cannot be
/// looked into counts as empty.
#[must_use]
pub fn hides_files(mountpoint: &Path) -> bool {
    std::fs::read_dir(mountpoint).is_ok_and(|mut entries| entries.next().is_some())
}

/// Whether a path, which need not exist yet, would lie on the mount.
#[must_use]
pub fn lies_on(path: &Path, mountpoint: &Path) -> bool {
    real_path(path).starts_with(mountpoint)
}

/// Without symbolic links, as far as it exists.
fn real_path(path: &Path) -> PathBuf {
    let existing = path.ancestors().find_map(|ancestor| {
        let rest = path.strip_prefix(ancestor).ok()?;
        let real = ancestor.canonicalize().ok()?;
        Some(if rest.as_os_str().is_empty() { real } else { real.join(rest) })
    });
    existing.unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_with_blanks_and_tags() {
        let line =
            b"36 35 0:52 / /mnt/my\\040photos rw,nosuid shared:7 master:1 - fuse.s3mount s3://b/a\\134b rw,user_id=0";
        let mount = parse_line(line).unwrap();
        assert_eq!(mount.device, "0:52");
        assert_eq!(mount.mountpoint, Path::new("/mnt/my photos"));
        assert_eq!((mount.fs_type.as_str(), mount.source.as_str()), ("fuse.s3mount", r"s3://b/a\b"));
        assert!(mount.is_ours());
    }

    #[test]
    fn this_machine_has_a_root() {
        assert!(mounts().iter().any(|mount| mount.mountpoint == Path::new("/")));
    }

    #[test]
    fn a_mountpoint_is_a_free_directory() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::write(root.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&root, root.join("link")).unwrap();
        assert!(!hides_files(&dir.path().join("none")));
        assert_eq!(prepare(&root).unwrap(), root, "not empty is fine");
        assert!(hides_files(&root));
        assert_eq!(prepare(&root.join("link")).unwrap(), root);
        assert!(matches!(prepare(&root.join("none")), Err(Error::Missing(_))));
        assert!(matches!(prepare(&root.join("file")), Err(Error::NoDirectory(_))));
        assert!(matches!(prepare(&root.join("file/x")), Err(Error::NoDirectory(_))));
        assert!(matches!(prepare(Path::new("/proc")), Err(Error::Occupied { .. })));
    }

    #[test]
    fn paths_on_the_mount_are_seen_through_links() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("mnt")).unwrap();
        std::os::unix::fs::symlink(root.join("mnt"), root.join("link")).unwrap();
        assert!(lies_on(&root.join("mnt/cache/new"), &root.join("mnt")));
        assert!(lies_on(&root.join("link/cache"), &root.join("mnt")));
        assert!(!lies_on(&root.join("mnt2/cache"), &root.join("mnt")));
    }
}
