//! Comparing what is seen with what must be.

use std::collections::BTreeSet;

use s3mount::bucket::ListRequest;
use s3mount::error::Errno;

use super::play::{COLOR, FOREIGN_MODE, World};
use super::steps::{DIRECTORIES, PATHS};

/// Fails with the first wrong byte rather than with all bytes.
pub fn assert_bytes(found: &[u8], expected: &[u8], what: &str) {
    if found == expected {
        return;
    }
    let wrong = found.iter().zip(expected).position(|(found, expected)| found != expected);
    panic!("{what}: {} bytes where {} must come, first wrong at {wrong:?}", found.len(), expected.len());
}

fn mode_of(metadata: &str) -> u32 {
    u32::from_str_radix(metadata, 8).unwrap() & 0o7777
}

impl World {
    /// Nothing that was acknowledged is lost, nothing is there that nobody stored, but for what was
    /// removed and is on its way out.
    pub async fn compare_bucket(&self) {
        let shown = self.house().fs.bucket().list(&ListRequest::default()).await.unwrap();
        self.compare_keys(shown.objects.into_iter().map(|object| object.key).collect());
    }

    fn compare_keys(&self, keys: Vec<String>) {
        let bucket = &self.house().bucket;
        let keys: Vec<String> = keys.into_iter().filter(|key| !key.ends_with('/')).collect();
        let expected: Vec<&String> = self.reference.stored.keys().collect();
        assert_eq!(keys.iter().collect::<Vec<_>>(), expected, "keys in the bucket");
        for (path, version) in &self.reference.stored {
            assert_bytes(&bucket.bytes(path).unwrap(), &version.bytes, &format!("the object {path}"));
            let metadata = bucket.info(path).unwrap().metadata;
            let mode = metadata.get("file-permissions").map_or(FOREIGN_MODE, |mode| mode_of(mode));
            assert_eq!((mode, metadata.get(COLOR)), (version.mode, version.color.as_ref()), "metadata of {path}");
        }
    }

    /// After each step a part of the tree, in turn.
    pub async fn compare_some(&mut self, turn: usize) {
        let directory = ["", DIRECTORIES[0], DIRECTORIES[1], DIRECTORIES[2]][turn % 4];
        self.compare_names(directory).await;
        self.compare_stat(PATHS[turn % PATHS.len()]).await;
    }

    pub async fn compare_all(&mut self) {
        self.settle().await;
        self.compare_keys(self.house().bucket.keys());
        self.compare_names("").await;
        for directory in DIRECTORIES {
            self.compare_names(directory).await;
        }
        for path in PATHS {
            self.compare_stat(path).await;
            self.load(path).await;
        }
    }

    /// `ls`: each name once, and no other.
    async fn compare_names(&mut self, directory: &str) {
        let mut doubtful = self.doubtful_names(directory);
        let expected = self.reference.names(directory);
        let Ok(ino) = self.find_directory(directory).await else {
            assert!(!self.reference.directories.contains(directory), "the directory {directory} is not there");
            return;
        };
        let fs = &self.house().fs;
        let handle = fs.opendir(ino).unwrap();
        let listed = fs.readdir(handle, 2).await.unwrap();
        fs.releasedir(handle);
        let found: BTreeSet<String> = listed.iter().map(|line| line.name.clone()).collect();
        assert_eq!(found.len(), listed.len(), "a name came twice in {directory:?}");
        doubtful.extend(expected.intersection(&found).cloned());
        let wrong: Vec<_> = found.symmetric_difference(&expected).filter(|name| !doubtful.contains(*name)).collect();
        assert!(wrong.is_empty(), "ls of {directory:?} shows {found:?} instead of {expected:?}");
    }

    /// `stat`: there or not, how large, and who may do what.
    async fn compare_stat(&mut self, path: &str) {
        let allowed = self.allowed(path);
        let stats = allowed.iter().map(|version| version.as_ref().map(|is| (is.bytes.len(), is.mode)));
        let stats: Vec<_> = stats.collect();
        let found = match self.find(path).await {
            Ok(entry) => Some((entry.stat.size as usize, u32::from(entry.stat.perm))),
            Err(Errno::ENOENT) => None,
            Err(error) => panic!("stat of {path}: {error}"),
        };
        assert!(stats.contains(&found), "stat of {path} shows (bytes, mode) {found:?}, not one of {stats:?}");
    }

    /// Names that may be told or not, since an old answer may still be believed.
    fn doubtful_names(&self, directory: &str) -> BTreeSet<String> {
        let all = PATHS.iter().filter(|path| path.rsplit_once('/').map_or("", |(above, _)| above) == directory);
        let doubtful = all.filter(|path| self.allowed(path).len() > 1);
        doubtful.map(|path| path.rsplit_once('/').map_or(*path, |(_, name)| name).to_owned()).collect()
    }
}
