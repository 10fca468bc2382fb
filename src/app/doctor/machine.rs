//! This machine: FUSE, the right to mount, directories, memory. Nothing is made by looking.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{major, minor};
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, faccessat, geteuid};

use super::{Finding, Tell};
use crate::cache::DiskCache;
use crate::config::{self, Config};
use crate::error::Kind;
use crate::fs::BacklogLimits;
use crate::hooks;
use crate::mount;

/// Linux's `Documentation/admin-guide/devices.txt`.
const FUSE_DEVICE: (u64, u64) = (10, 229);
/// `capabilities(7)`: the bit of `CAP_SYS_ADMIN`.
const SYS_ADMIN: u32 = 21;
/// The journal and the files beside it do not fit into less.
const LEAST_STATE_BYTES: u64 = 1 << 20;
/// What the process takes beside `--memory`, with hooks that have run for an hour.
const OWN_MEMORY_BYTES: u64 = 85 << 20;
const IN_CONTAINER: &str = "a container needs --cap-add SYS_ADMIN --device /dev/fuse";

pub(super) fn examine(config: &Config, tell: Tell) {
    tell(fuse_device(Path::new("/dev/fuse")));
    tell(if geteuid().is_root() { right_of_root() } else { right_of_user(config.allow_other) });
    tell(cache_directory(config));
    tell(state_directory(config));
    tell(memory(config.memory_bytes, config::memory_bytes_there_are()));
    if let Some(file) = &config.hooks {
        tell(hooks_file(file, &config.sources.bucket_name()));
    }
}

fn fuse_device(path: &Path) -> Finding {
    const ABOUT: &str = "FUSE";
    let broken = |cause: io::Error| {
        let error = mount::Error::NoFuse(cause);
        Finding::broken(ABOUT, error.kind(), error.to_string(), error.hint())
    };
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(cause) => return broken(cause),
    };
    if !found.file_type().is_char_device() || (major(found.rdev()), minor(found.rdev())) != FUSE_DEVICE {
        let told = format!("{} is not the FUSE device (a character device 10:229)", path.display());
        let advice = format!("`rm {0} && mknod -m 666 {0} c 10 229`; {IN_CONTAINER}", path.display());
        return Finding::broken(ABOUT, Kind::Local, told, Some(advice));
    }
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => Finding::good(ABOUT, format!("{} can be opened", path.display())),
        // fusermount3 opens it as root.
        Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied && !geteuid().is_root() => {
            Finding::good(ABOUT, format!("{} is there", path.display()))
        }
        Err(cause) => broken(cause),
    }
}

fn right_of_root() -> Finding {
    const ABOUT: &str = "right to mount";
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if may_administer(&status) {
        return Finding::good(ABOUT, "root, with CAP_SYS_ADMIN");
    }
    Finding::broken(ABOUT, Kind::AccessDenied, "root without CAP_SYS_ADMIN cannot mount", Some(IN_CONTAINER.into()))
}

/// Where nothing is said, the kernel's answer to mount(2) is what counts.
fn may_administer(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_none_or(|bits| bits >> SYS_ADMIN & 1 == 1)
}

fn right_of_user(allow_other: bool) -> Finding {
    const ABOUT: &str = "right to mount";
    let path = std::env::var_os("PATH").unwrap_or_default();
    let Some(helper) = std::env::split_paths(&path).map(|dir| dir.join("fusermount3")).find(|file| file.is_file())
    else {
        let error = mount::Error::NoHelper;
        return Finding::broken(ABOUT, error.kind(), error.to_string(), error.hint());
    };
    if allow_other && !allows_others(&fs::read_to_string("/etc/fuse.conf").unwrap_or_default()) {
        let advice = "add the line user_allow_other to /etc/fuse.conf, or leave --allow-other out".to_owned();
        return Finding::broken(ABOUT, Kind::AccessDenied, "--allow-other is root's alone here", Some(advice));
    }
    Finding::good(ABOUT, format!("by {}", helper.display()))
}

fn allows_others(fuse_conf: &str) -> bool {
    fuse_conf.lines().any(|line| line.trim() == "user_allow_other")
}

fn cache_directory(config: &Config) -> Finding {
    const ABOUT: &str = "cache directory";
    let place = match usable(&config.cache_dir) {
        Ok(place) => place,
        Err(wrong) => return Finding::broken(ABOUT, Kind::Local, wrong, Some("give another --cache-dir".to_owned())),
    };
    let is_full = DiskCache::spare_bytes_at(&place).is_ok_and(|spare| spare == 0);
    if is_full && config.cache_bytes != Some(0) {
        let told = format!(
            "{}: {}: nothing more is cached there while less than a tenth of the disk is free",
            config.cache_dir.display(),
            free(&place)
        );
        return Finding::warning(ABOUT, told, "make room, or give a --cache-dir on another disk");
    }
    Finding::good(ABOUT, format!("{}: {}", config.cache_dir.display(), free(&place)))
}

fn state_directory(config: &Config) -> Finding {
    const ABOUT: &str = "state directory";
    const ELSEWHERE: &str = "make room, or give a --state-dir on another disk";
    let shown = config.state_dir.display();
    let place = match usable(&config.state_dir) {
        Ok(place) => place,
        Err(wrong) => return Finding::broken(ABOUT, Kind::Local, wrong, Some("give another --state-dir".to_owned())),
    };
    if statvfs(&place).is_ok_and(|disk| disk.blocks_available() * disk.fragment_size() < LEAST_STATE_BYTES) {
        let told = format!("{shown}: {}: the journal does not fit there", free(&place));
        return Finding::broken(ABOUT, Kind::NoSpace, told, Some(ELSEWHERE.to_owned()));
    }
    let limits = BacklogLimits::default();
    if config.write_back && limits.disk_is_full(&place) {
        let told = format!(
            "{shown}: {}: below {} % each close waits for S3, as without --write-back",
            free(&place),
            limits.free_percent
        );
        return Finding::warning(ABOUT, told, ELSEWHERE);
    }
    Finding::good(ABOUT, format!("{shown}: {}", free(&place)))
}

/// The directory, or the nearest that is there and in which it can be made.
fn usable(directory: &Path) -> Result<PathBuf, String> {
    let nearest = directory.ancestors().find(|path| path.symlink_metadata().is_ok()).unwrap_or(Path::new("/"));
    if !nearest.is_dir() {
        return Err(format!("{} is not a directory", nearest.display()));
    }
    let needed = AccessFlags::W_OK | AccessFlags::X_OK;
    faccessat(AT_FDCWD, nearest, needed, AtFlags::AT_EACCESS)
        .map_err(|errno| format!("cannot write to {}: {}", nearest.display(), errno.desc()))?;
    Ok(nearest.to_owned())
}

/// What is free on the disk of a path, in words.
fn free(path: &Path) -> String {
    let Ok(disk) = statvfs(path) else { return "free space unknown".to_owned() };
    let available = disk.blocks_available();
    let percent = (available * 100).checked_div(disk.blocks()).unwrap_or_default();
    format!("{} free, {percent} % of the disk", size(available * disk.fragment_size()))
}

fn memory(wanted: u64, there: u64) -> Finding {
    const ABOUT: &str = "memory";
    let told = format!("{} for file contents, of {}", size(wanted), size(there));
    if wanted.saturating_add(OWN_MEMORY_BYTES) > there {
        let advice = format!("give less --memory: the process takes some {} more", size(OWN_MEMORY_BYTES));
        return Finding::warning(ABOUT, told, advice);
    }
    Finding::good(ABOUT, told)
}

fn hooks_file(file: &Path, bucket: &str) -> Finding {
    const ABOUT: &str = "hooks";
    match hooks::load_for(file, bucket) {
        Ok(hooks) => Finding::good(ABOUT, format!("{} in {}", hooks.len(), file.display())),
        Err(error) => {
            let advice = format!("`s3mount hooks validate {}` checks it anew", file.display());
            Finding::broken(ABOUT, error.kind(), error.to_string(), Some(advice))
        }
    }
}

/// For people: whole MiB, and GiB from ten on.
fn size(bytes: u64) -> String {
    if bytes >= 10 << 30 { format!("{} GiB", bytes >> 30) } else { format!("{} MiB", bytes >> 20) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::State;
    use super::*;

    #[test]
    fn what_is_no_fuse_device_is_told_from_none() {
        let dir = tempfile::tempdir().unwrap();
        let none = fuse_device(&dir.path().join("fuse"));
        assert!(none.told.contains("No such file"), "{none:?}");
        assert!(none.advice.unwrap().contains("modprobe fuse"));
        let other = fuse_device(Path::new("/dev/null"));
        assert!(matches!(other.state, State::Broken(Kind::Local)) && other.told.contains("10:229"), "{other:?}");
    }

    #[test]
    fn a_container_without_the_capability_cannot_mount() {
        assert!(may_administer("Name:\tx\nCapEff:\t000001ffffffffff\n"));
        // What docker gives: all but this one, among others.
        assert!(!may_administer("CapEff:\t00000000a80425fb\n"));
        assert!(may_administer(""));
    }

    #[test]
    fn others_are_allowed_by_a_line_that_is_no_comment() {
        assert!(allows_others("# x\nuser_allow_other\n"));
        assert!(!allows_others("#user_allow_other\nmount_max = 5\n"));
    }

    #[test]
    fn a_directory_is_looked_at_where_it_would_be_made() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = dir.path().join("a/b/c");
        assert_eq!(usable(&wanted).unwrap(), dir.path());
        assert!(!dir.path().join("a").exists(), "looking made it");
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(usable(&dir.path().join("file/below")).unwrap_err().contains("not a directory"));
        if !geteuid().is_root() {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o500)).unwrap();
            assert!(usable(&wanted).unwrap_err().contains("cannot write"));
        }
    }

    #[test]
    fn more_memory_than_there_is_is_a_warning() {
        assert_eq!(memory(512 << 20, 4 << 30).state, State::Good);
        assert_eq!(memory(4 << 30, 4 << 30).state, State::Warning);
    }
}
