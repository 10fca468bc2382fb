//! The rooms of one mount over a bucket in memory, and damage to what they keep on disk.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use s3mount::bucket::memory::MemoryBucket;
use s3mount::bucket::upload::UploadSettings;
use s3mount::bucket::{Bucket, Layout};
use s3mount::cache::{AttributeIndex, BlockCache, CacheSettings, DiskCache, DiskSettings};
use s3mount::fs::{BacklogLimits, Fs, Settings};
use s3mount::journal::Journal;

use super::steps::Case;

/// How long a believing mount believes attributes and listings.
const BELIEF: Duration = Duration::from_millis(3);

/// A mount, its bucket, and what it keeps on this machine.
pub struct House {
    pub bucket: Arc<MemoryBucket>,
    pub fs: Arc<Fs>,
    pub disk: Arc<DiskCache>,
    state: tempfile::TempDir,
    traits: Traits,
}

/// What stays the same over all reboots of a case.
#[derive(Clone, Copy)]
struct Traits {
    believed: Duration,
    telling: bool,
    disk_bytes: u64,
    write_back: bool,
}

/// What may happen to a file behind our back.
#[derive(Clone, Copy, Debug)]
pub enum Damage {
    /// A bit flips.
    Flip,
    /// It ends earlier.
    Cut,
}

/// In memory where there is such a place: nothing here is about what `fsync(2)` does.
fn state_directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

impl House {
    pub async fn new(case: &Case) -> Self {
        let believed = if case.believing { BELIEF } else { Duration::ZERO };
        let disk_bytes = if case.small_disk { 1 << 20 } else { 64 << 20 };
        let bucket = MemoryBucket::new();
        if !case.telling {
            bucket.hide_checksums();
        }
        let traits = Traits { believed, telling: case.telling, disk_bytes, write_back: case.write_back };
        Self::open(Arc::new(bucket), state_directory(), traits).await
    }

    async fn open(bucket: Arc<MemoryBucket>, state: tempfile::TempDir, traits: Traits) -> Self {
        let believed = traits.believed;
        let shared: Arc<dyn Bucket> = bucket.clone();
        let directory = state.path().join("cache");
        let disk = DiskCache::open(DiskSettings {
            directory: directory.clone(),
            limit_bytes: Some(traits.disk_bytes),
            layout: Layout::of_bucket("model", "", ""),
            queue_bytes: 4 << 20,
        })
        .unwrap();
        // The least that is taken: 4 MiB.
        let settings = CacheSettings { memory_bytes: 0, max_parallel_gets: 8 };
        let cache = BlockCache::with_disk(shared.clone(), settings, disk.clone());
        let index = AttributeIndex::open(&directory.join("attributes.redb")).unwrap();
        let journal = Journal::open(&state.path().join("journal")).unwrap();
        let settings = Settings {
            root_prefix: String::new(),
            layout: Layout::of_bucket("model", "", ""),
            uid: 1000,
            gid: 1000,
            umask: 0o022,
            read_only: false,
            attr_ttl: believed,
            list_ttl: believed,
            negative_ttl: believed,
            attrs: s3mount::fs::Attrs::Auto,
            list_checksums: Some(traits.telling),
            heeds_conditions: true,
            draft_dir: state.path().join("drafts"),
            // Enough for some of the small ones: the others lie in files.
            draft_memory_bytes: 16 << 10,
            events: false,
            attributes_wait: false,
            show_versions: false,
            write_back: traits.write_back.then(|| BacklogLimits { free_percent: 0, ..BacklogLimits::default() }),
            upload: UploadSettings::default(),
        };
        let fs = Fs::new(shared, cache, index, journal, settings);
        fs.recover().await.unwrap();
        Self { bucket, fs, disk, state, traits }
    }

    /// As after `kill -9` and a new start.
    pub async fn reboot(self, keep_cache: bool) -> Self {
        let Self { bucket, fs, disk, state, traits } = self;
        fs.stop_removals().await;
        disk.flush();
        let gone = Arc::downgrade(&fs);
        drop((fs, disk));
        // A killed process holds no file any more, while a task may still be holding this.
        let begun = std::time::Instant::now();
        while gone.strong_count() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(30), "something goes on holding the old mount");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if !keep_cache {
            let _ = std::fs::remove_dir_all(state.path().join("cache"));
        }
        Self::open(bucket, state, traits).await
    }

    /// How long an old answer of the bucket may still be told: a listing that was believed names a
    /// version, which is then believed in turn.
    pub fn staleness(&self) -> Duration {
        self.traits.believed * 2
    }

    pub fn remove_cache_directory(&self) {
        self.disk.flush();
        let _ = std::fs::remove_dir_all(self.state.path().join("cache"));
    }

    /// Damages one file of the disk cache at one place. Both numbers wrap around.
    pub fn damage(&self, damage: Damage, file: usize, at: usize) {
        let Some(file) = self.cached_file(file) else { return };
        let length = file.metadata().unwrap().len() as usize;
        match damage {
            _ if length == 0 => {}
            Damage::Cut => file.set_len((at % length) as u64).unwrap(),
            Damage::Flip => {
                let bit = (at % (length * 8)) as u64;
                let mut byte = [0];
                // Cut by the cache itself meanwhile: then there is no such bit.
                if file.read_exact_at(&mut byte, bit / 8).is_ok() {
                    file.write_all_at(&[byte[0] ^ 1 << (bit % 8)], bit / 8).unwrap();
                }
            }
        }
    }

    /// Some file of blocks or of their checksums; the index is not one of them.
    fn cached_file(&self, number: usize) -> Option<File> {
        self.disk.flush();
        let mut found = Vec::new();
        files_below(&self.state.path().join("cache"), &mut found);
        found.retain(|path| path.extension().is_some_and(|extension| extension == "data" || extension == "map"));
        found.sort();
        let path = found.get(number % found.len().max(1))?;
        // Evicted meanwhile: nothing to damage.
        File::options().read(true).write(true).open(path).ok()
    }
}

fn files_below(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}
