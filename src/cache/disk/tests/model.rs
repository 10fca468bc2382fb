//! Random reads, remote changes, restarts and damage, against the bytes that must come.

use proptest::prelude::*;

use super::*;
use crate::bucket::memory::MemoryBucket;
use crate::bucket::{Bucket, Metadata};
use crate::cache::{BlockCache, CacheSettings, ReadAhead};
use crate::error::Kind;

const SIZE: u64 = 3 * MIB + 77;

#[derive(Clone, Debug)]
enum Step {
    Read(Range<u64>),
    /// Another client replaces the object; who still reads the old version gets it or is told.
    Replace,
    /// Unmounted and mounted: memory is gone, the disk stays.
    Restart,
    /// Some bytes of some file are overwritten.
    Scribble(prop::sample::Index, prop::sample::Index),
    Truncate(prop::sample::Index, prop::sample::Index),
    RemoveDirectory,
    Clear,
}

fn any_step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        8 => (0..SIZE, 1..SIZE).prop_map(|(start, length)| Step::Read(start..start + length)),
        4 => (0..SIZE, 1..5000_u64).prop_map(|(start, length)| Step::Read(start..start + length)),
        1 => Just(Step::Replace),
        3 => Just(Step::Restart),
        2 => (index(), index()).prop_map(|(file, at)| Step::Scribble(file, at)),
        1 => (index(), index()).prop_map(|(file, at)| Step::Truncate(file, at)),
        1 => Just(Step::RemoveDirectory),
        1 => Just(Step::Clear),
    ]
}

struct Bench {
    directory: tempfile::TempDir,
    bucket: Arc<MemoryBucket>,
    version: u8,
    content: Vec<u8>,
    object: Pinned,
    disk: Arc<DiskCache>,
    cache: Arc<BlockCache>,
    ahead: ReadAhead,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bucket = Arc::new(MemoryBucket::new());
        let (disk, cache) = Self::mount(&directory, &bucket);
        let object = pinned("o", SIZE);
        let (content, ahead) = (Vec::new(), ReadAhead::new());
        let mut bench = Self { directory, bucket, version: 0, content, object, disk, cache, ahead };
        bench.replace();
        bench
    }

    fn mount(directory: &tempfile::TempDir, bucket: &Arc<MemoryBucket>) -> (Arc<DiskCache>, Arc<BlockCache>) {
        // Room for two versions: the third evicts the first.
        let disk = open(directory.path(), 8 * MIB);
        let settings = CacheSettings { memory_bytes: 4 * MIB, max_parallel_gets: 8 };
        let bucket: Arc<dyn Bucket> = bucket.clone();
        (disk.clone(), BlockCache::with_disk(bucket, settings, disk))
    }

    fn restart(&mut self) {
        self.disk.flush();
        self.ahead = ReadAhead::new();
        (self.disk, self.cache) = Self::mount(&self.directory, &self.bucket);
    }

    fn replace(&mut self) {
        self.version += 1;
        let salt = self.version.wrapping_mul(31);
        self.content = bytes(0..SIZE).iter().map(|byte| byte ^ salt).collect();
        let etag = self.bucket.insert("o", self.content.clone(), Metadata::new());
        self.object = Pinned { etag, ..self.object.clone() };
    }

    fn some_file(&self, index: prop::sample::Index) -> Option<File> {
        let mut all = files(self.directory.path(), "data");
        all.append(&mut files(self.directory.path(), "map"));
        all.sort();
        (!all.is_empty()).then(|| File::options().read(true).write(true).open(index.get(&all)).unwrap())
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Read(range) => {
                let found = self.cache.read(&self.object, range.clone(), &self.ahead).await.unwrap();
                assert!(found == self.content[range.start as usize..range.end.min(SIZE) as usize], "{range:?}");
            }
            Step::Replace => {
                let before = self.object.clone();
                let content = self.content.clone();
                self.replace();
                let late = self.cache.read(&before, 0..SIZE, &ReadAhead::new()).await;
                assert!(late.map_or_else(|error| error.kind == Kind::Changed, |found| found == content));
            }
            Step::Restart => self.restart(),
            Step::Scribble(file, at) => {
                let Some(file) = self.some_file(file) else { return };
                let length = file.metadata().unwrap().len().max(1);
                file.write_all_at(&[0xA5; 20], at.index(length as usize) as u64).unwrap();
            }
            Step::Truncate(file, at) => {
                let Some(file) = self.some_file(file) else { return };
                let length = file.metadata().unwrap().len().max(1);
                file.set_len(at.index(length as usize) as u64).unwrap();
            }
            Step::RemoveDirectory => {
                let _ = std::fs::remove_dir_all(self.directory.path().join("blocks-2"));
            }
            Step::Clear => self.disk.clear(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]
    #[test]
    fn whatever_happens_to_the_disk_the_bytes_are_right(steps in prop::collection::vec(any_step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut bench = Bench::new();
            for step in steps {
                bench.step(step).await;
            }
        });
    }
}

#[tokio::test]
async fn after_a_restart_a_read_needs_no_get() {
    let mut bench = Bench::new();
    bench.step(Step::Read(0..SIZE)).await;
    let gets = bench.bucket.count("GetObject");
    bench.restart();
    bench.step(Step::Read(0..SIZE)).await;
    assert_eq!(bench.bucket.count("GetObject"), gets);
    assert!(bench.disk.verify(&bench.object, PATIENCE).is_some());
}

#[tokio::test]
async fn what_was_uploaded_needs_no_get_after_a_restart() {
    let mut bench = Bench::new();
    bench.cache.insert(&bench.object, 0, bench.content.clone().into());
    bench.restart();
    bench.step(Step::Read(5..SIZE)).await;
    assert_eq!(bench.bucket.count("GetObject"), 0);
}
