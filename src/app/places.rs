//! Directories of a mount: its state, its cache, its control socket. All of them 0700, none of
//! them on the mount itself, where the process would wait for its own answer.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use super::Failure;
use crate::bucket::Layout;
use crate::config::{Config, Sources};
use crate::error::Kind;
use crate::mount;

/// How long a start waits for the process before it, which may still be storing files.
const LOCK_DEADLINE: Duration = Duration::from_secs(5);

/// The directories of one mount. The state belongs to it alone while this lives.
#[derive(Debug)]
pub struct Places {
    /// What must survive a crash: journal, drafts, the log.
    pub state: PathBuf,
    /// What can be fetched again.
    pub cache: PathBuf,
    _lock: Flock<File>,
}

impl Places {
    /// Makes the directories of this mount, and takes its state for this process.
    ///
    /// # Errors
    /// When a directory cannot be made, or another process holds the state.
    pub fn open(config: &Config, layout: &Layout, mountpoint: &Path) -> Result<Self, Failure> {
        let name = mount_name(&config.sources, layout, mountpoint);
        let state = config.state_dir.join(&name);
        let cache = config.cache_dir.join(&name);
        for dir in [&state, &cache] {
            private_dir(dir)?;
        }
        let lock = lock(&state)?;
        Ok(Self { state, cache, _lock: lock })
    }
}

/// Names the state of a mount: the same bucket on the same path finds its unfinished work again,
/// and work for one server never goes to another. Several buckets are named by the path alone, so that
/// one can be added or taken away; that none gets another's work is looked after by `membership`.
fn mount_name(sources: &Sources, layout: &Layout, mountpoint: &Path) -> String {
    let mut digest = Sha256::new();
    let (server, bucket, prefix) = match (sources, layout.roots().first()) {
        (Sources::One(source), Some(root)) => (root.server.as_str(), source.bucket.as_str(), source.prefix.as_str()),
        // No server is called so.
        _ => ("", "buckets", ""),
    };
    for part in [server, bucket, prefix] {
        digest.update(part);
        // No part can hold a NUL: two different lists never hash the same bytes.
        digest.update([0]);
    }
    digest.update(mountpoint.as_os_str().as_bytes());
    let readable: String = bucket.chars().filter(char::is_ascii_alphanumeric).take(24).collect();
    format!("{readable}-{}", &hex::encode(digest.finalize())[..16])
}

fn lock(dir: &Path) -> Result<Flock<File>, Failure> {
    let path = dir.join("lock");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|cause| local("open", &path, &cause))?;
    let until = Instant::now() + LOCK_DEADLINE;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((_, errno)) if Instant::now() >= until => {
                return Err(Failure::new(Kind::Busy, format!("another process uses {} ({errno})", dir.display()))
                    .hint("a mount that was just unmounted may still be storing files: try again in a moment"));
            }
            Err((back, _)) => file = back,
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn local(what: &str, path: &Path, cause: &io::Error) -> Failure {
    let kind = if cause.kind() == io::ErrorKind::StorageFull { Kind::NoSpace } else { Kind::Local };
    Failure::new(kind, format!("cannot {what} {}: {cause}", path.display()))
}

/// Makes a directory that only this user can look into, with what is missing above it. An existing
/// one of this user becomes so; those above it stay as they are: they may be /tmp.
fn private_dir(dir: &Path) -> Result<(), Failure> {
    const HINT: &str = "choose other places with --state-dir and --cache-dir";
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|cause| local("create", dir, &cause).hint(HINT))?;
    // Where others can write, somebody may have laid a link or a directory there before us.
    let found = fs::symlink_metadata(dir).map_err(|cause| local("look at", dir, &cause))?;
    if !found.is_dir() || found.uid() != nix::unistd::geteuid().as_raw() {
        let message = format!("{} is not a directory of this user", dir.display());
        return Err(Failure::new(Kind::Usage, message).hint(HINT));
    }
    if found.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(|cause| local("protect", dir, &cause))?;
    }
    Ok(())
}

/// Refuses what would make the mount wait for itself.
///
/// # Errors
/// A usage failure that names the option.
pub fn refuse_on_mount<'a>(config: &'a Config, mountpoint: &Path) -> Result<(), Failure> {
    let paths = [
        ("--cache-dir", Some(&config.cache_dir)),
        ("--state-dir", Some(&config.state_dir)),
        ("--config", config.file.as_ref()),
        ("--hooks", config.hooks.as_ref()),
    ];
    let of_bucket = |(_, _, own): (_, _, &'a Config)| {
        let key = own.objects.sse_c_key_file.as_ref();
        [("--sse-c-key-file", key), ("--credentials-file", own.credentials_file.as_ref())]
    };
    for (option, path) in paths.into_iter().chain(config.each().flat_map(of_bucket)) {
        if let Some(path) = path.filter(|path| mount::lies_on(path, mountpoint)) {
            return Err(Failure::new(
                Kind::Usage,
                format!("{option} {} lies on the mountpoint {}", path.display(), mountpoint.display()),
            )
            .hint("the mount would wait for itself: choose a place outside"));
        }
    }
    Ok(())
}

/// The directory of the control sockets: /run/s3mount for root, else $XDG_RUNTIME_DIR/s3mount or
/// /tmp/s3mount-UID. Made when it is not there.
///
/// # Errors
/// When it belongs to somebody else, or cannot be made.
pub fn run_dir() -> Result<PathBuf, Failure> {
    let uid = nix::unistd::geteuid();
    let dir = if uid.is_root() {
        PathBuf::from("/run/s3mount")
    } else {
        let given =
            std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute() && dir.is_dir());
        given.map_or_else(|| PathBuf::from(format!("/tmp/s3mount-{uid}")), |dir| dir.join("s3mount"))
    };
    private_dir(&dir)?;
    Ok(dir)
}

/// The control socket of what is mounted there.
#[must_use]
pub fn socket_path(run_dir: &Path, mountpoint: &Path) -> PathBuf {
    let digest = Sha256::digest(mountpoint.as_os_str().as_bytes());
    let mut name = OsString::from_vec(hex::encode(&digest[..8]).into_bytes());
    name.push(".sock");
    run_dir.join(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Options;

    fn config(root: &Path, source: &str) -> Config {
        let options =
            Options { cache_dir: Some(root.join("cache")), state_dir: Some(root.join("state")), ..Options::default() };
        let (bucket, mountpoint) = (Some(source.to_owned()), Some(root.join("mnt")));
        Config::resolve(Options { bucket, mountpoint, ..options }, None).unwrap()
    }

    #[test]
    fn directories_are_private_and_taken_once() {
        let root = tempfile::tempdir().unwrap();
        let config = config(root.path(), "bucket");
        let layout = Layout::of_bucket("bucket", "", "http://h");
        let places = Places::open(&config, &layout, Path::new("/m")).unwrap();
        for dir in [&config.state_dir, &config.cache_dir, &places.state, &places.cache] {
            assert_eq!(fs::metadata(dir).unwrap().permissions().mode() & 0o777, 0o700, "{}", dir.display());
        }
        assert!(Flock::lock(File::open(places.state.join("lock")).unwrap(), FlockArg::LockExclusiveNonblock).is_err());
        let state = places.state.clone();
        drop(places);
        assert_eq!(Places::open(&config, &layout, Path::new("/m")).unwrap().state, state);
    }

    #[test]
    fn what_somebody_else_has_laid_there_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let (theirs, link) = (root.path().join("theirs"), root.path().join("link"));
        fs::create_dir(&theirs).unwrap();
        fs::set_permissions(&theirs, fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink(&theirs, &link).unwrap();
        let failure = private_dir(&link).unwrap_err();
        assert!(failure.message.contains("is not a directory of this user"), "{failure}");
        assert_eq!(fs::metadata(&theirs).unwrap().permissions().mode() & 0o777, 0o755, "nothing was changed there");
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&theirs, Some(65_534), None).unwrap();
            assert!(private_dir(&theirs).is_err());
        }
    }

    #[test]
    fn each_mount_has_its_own_state() {
        let root = tempfile::tempdir().unwrap();
        let name = |source: &str, endpoint: &str, mountpoint: &str| {
            let layout = Layout::of_bucket("", "", endpoint);
            mount_name(&config(root.path(), source).sources, &layout, Path::new(mountpoint))
        };
        // A bucket more is the same mount.
        assert_eq!(name("a=bucket", "", "/m"), name("a=bucket,b=other", "", "/m"));
        assert_ne!(name("a=bucket", "", "/m"), name("a=bucket", "", "/n"));
        let one = name("bucket/a", "http://h", "/m");
        assert_eq!(one, name("s3://bucket/a/", "http://h", "/m"));
        for other in
            [name("bucket/b", "http://h", "/m"), name("bucket/a", "http://g", "/m"), name("bucket/a", "http://h", "/n")]
        {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn nothing_of_ours_may_lie_on_the_mount() {
        let root = tempfile::tempdir().unwrap();
        let config = config(root.path(), "bucket");
        assert_eq!(refuse_on_mount(&config, &root.path().join("mnt")), Ok(()));
        let failure = refuse_on_mount(&config, &root.path().canonicalize().unwrap()).unwrap_err();
        assert!(failure.message.starts_with("--cache-dir"), "{failure}");
    }
}
