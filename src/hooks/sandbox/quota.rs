//! How much a guest may have on disk. WASI knows no quota, so its files are counted while it runs
//! and once more when it has ended: it can overshoot by what it writes between two counts, and
//! nothing of it is ever published.

use std::fs;
use std::path::PathBuf;

/// Files and directories a guest may make.
const MAX_ENTRIES: usize = 10_000;
/// Directories inside each other.
const MAX_DEPTH: usize = 32;

/// Limit over some directories together.
#[derive(Clone, Debug)]
pub(in crate::hooks) struct Quota {
    directories: Vec<PathBuf>,
    limit_bytes: u64,
}

impl Quota {
    pub(in crate::hooks) fn new(directories: Vec<PathBuf>, limit_bytes: u64) -> Self {
        Self { directories, limit_bytes }
    }

    /// Counts. A file counts by its length even where it is sparse: that is what would be published.
    ///
    /// # Errors
    /// A sentence about what is exceeded.
    pub(in crate::hooks) fn check(&self) -> Result<(), String> {
        let mut waiting: Vec<_> = self.directories.iter().map(|directory| (directory.clone(), 0)).collect();
        let (mut bytes, mut entries) = (0_u64, 0);
        while let Some((directory, depth)) = waiting.pop() {
            if depth > MAX_DEPTH {
                return Err(format!("directories are nested deeper than {MAX_DEPTH}"));
            }
            let listing = match fs::read_dir(&directory) {
                Ok(listing) => listing,
                // The guest is running: it may have removed it.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(format!("a directory can't be counted: {error}")),
            };
            for entry in listing.flatten() {
                let Ok(metadata) = entry.metadata() else { continue };
                entries += 1;
                bytes = bytes.saturating_add(metadata.len());
                if metadata.is_dir() {
                    waiting.push((entry.path(), depth + 1));
                }
                if entries > MAX_ENTRIES {
                    return Err(format!("more than {MAX_ENTRIES} files in /tmp and /out"));
                }
                if bytes > self.limit_bytes {
                    return Err(format!("more than {} bytes in /tmp and /out", self.limit_bytes));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_count_by_their_length_in_all_directories_together() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let quota = Quota::new(vec![one.path().into(), two.path().into()], 100_000);
        fs::create_dir(one.path().join("d")).unwrap();
        fs::write(one.path().join("d/a"), vec![0; 50_000]).unwrap();
        assert_eq!(quota.check(), Ok(()));
        fs::File::create(two.path().join("sparse")).unwrap().set_len(60_000).unwrap();
        assert_eq!(quota.check(), Err("more than 100000 bytes in /tmp and /out".into()));
    }

    #[test]
    fn a_link_is_never_followed() {
        let (mine, big) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(big.path().join("file"), vec![0; 50_000]).unwrap();
        std::os::unix::fs::symlink(big.path(), mine.path().join("link")).unwrap();
        assert_eq!(Quota::new(vec![mine.path().into()], 10_000).check(), Ok(()));
    }

    #[test]
    fn many_files_and_deep_directories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let quota = Quota::new(vec![dir.path().into()], u64::MAX);
        fs::create_dir_all(dir.path().join("d/".repeat(MAX_DEPTH))).unwrap();
        assert_eq!(quota.check(), Ok(()));
        fs::create_dir_all(dir.path().join("d/".repeat(MAX_DEPTH + 1))).unwrap();
        assert!(quota.check().unwrap_err().contains("nested deeper"));
        fs::remove_dir_all(dir.path().join("d")).unwrap();
        for number in 0..=MAX_ENTRIES {
            fs::File::create(dir.path().join(number.to_string())).unwrap();
        }
        assert!(quota.check().unwrap_err().contains("more than 10000 files"));
    }
}
