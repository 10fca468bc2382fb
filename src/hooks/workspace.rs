//! The three directories of one run, and their removal whatever a guest made of them.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// `in`, `tmp` and `out` below a fresh private directory, gone when dropped.
#[derive(Debug)]
pub(super) struct Workspace {
    directory: PathBuf,
    is_there: bool,
}

impl Workspace {
    /// Makes one below `parent`.
    pub(super) fn new(parent: &Path) -> io::Result<Self> {
        let workspace = Self { directory: parent.join(uuid::Uuid::new_v4().to_string()), is_there: true };
        for directory in [workspace.input(), workspace.scratch(), workspace.output()] {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        Ok(workspace)
    }

    /// For a guest that opens no files: nothing is made.
    pub(super) fn without_files() -> Self {
        Self { directory: PathBuf::new(), is_there: false }
    }

    /// Whether there are directories.
    pub(super) fn is_there(&self) -> bool {
        self.is_there
    }

    pub(super) fn input(&self) -> PathBuf {
        self.directory.join("in")
    }

    pub(super) fn scratch(&self) -> PathBuf {
        self.directory.join("tmp")
    }

    pub(super) fn output(&self) -> PathBuf {
        self.directory.join("out")
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if !self.is_there {
            return;
        }
        let directory = std::mem::take(&mut self.directory);
        let work = move || {
            if let Err(error) = remove(&directory) {
                tracing::warn!("{}: can't be removed: {error}", directory.display());
            }
        };
        // Ten thousand files take their time. If the process ends before, the next start does it.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(work)),
            Err(_) => work(),
        }
    }
}

/// Removes a directory with all that is in it. A guest can nest directories deeper than a stack or
/// a path is long, so nothing here is recursive: each directory is moved up to the top first.
pub(super) fn remove(directory: &Path) -> io::Result<()> {
    let mut waiting = vec![directory.to_owned()];
    let mut moved = 0_u64;
    // The directory itself is the first in the list, and has to go last.
    let mut empty = Vec::new();
    while let Some(current) = waiting.pop() {
        for entry in fs::read_dir(&current)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                moved += 1;
                let up = directory.with_extension(format!("gone-{moved}"));
                fs::rename(entry.path(), &up)?;
                waiting.push(up);
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        empty.push(current);
    }
    for directory in empty {
        fs::remove_dir(directory)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_a_run() {
        let parent = tempfile::tempdir().unwrap();
        let outside = parent.path().join("outside");
        fs::write(&outside, "stays").unwrap();
        let workspace = Workspace::new(parent.path()).unwrap();
        fs::create_dir_all(workspace.output().join("a/b/c")).unwrap();
        fs::write(workspace.output().join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink(parent.path(), workspace.scratch().join("link")).unwrap();
        drop(workspace);
        let left: Vec<_> = fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [outside]);
    }

    #[test]
    fn directories_deeper_than_any_path_are_removed() {
        use nix::fcntl::{AT_FDCWD, OFlag, openat};
        use nix::sys::stat::{Mode, mkdirat};
        let parent = tempfile::tempdir().unwrap();
        let workspace = Workspace::new(parent.path()).unwrap();
        let open = |at: &std::os::fd::OwnedFd, name: &str| openat(at, name, OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        let mut directory = openat(AT_FDCWD, &workspace.output(), OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..1500 {
            mkdirat(&directory, "deep", Mode::S_IRWXU).unwrap();
            directory = open(&directory, "deep");
        }
        drop(directory);
        drop(workspace);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
