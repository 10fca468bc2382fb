//! Readers side by side with other clients and damage: what no order of single steps shows.

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;
use s3mount::bucket::Metadata;
use s3mount::error::Errno;

use super::compare::assert_bytes;
use super::house::{Damage, House};
use super::play::{ME, ROOT, noise};
use super::steps::Case;

const READERS: usize = 6;
const OPENS: usize = 300;
const READS: usize = 6;
const NAMES: [&str; 2] = ["one", "two"];
/// The first bytes of a version are its number.
const NUMBER_BYTES: usize = 8;

/// Every version of a name that was ever in the bucket.
struct History {
    name: &'static str,
    versions: RwLock<Vec<Bytes>>,
    /// How many of them were in the bucket, for sure.
    published: AtomicUsize,
    /// Reads that gave bytes.
    reads: AtomicUsize,
}

impl History {
    fn new(name: &'static str) -> Self {
        Self { name, versions: RwLock::default(), published: AtomicUsize::new(0), reads: AtomicUsize::new(0) }
    }

    /// Another client replaces the object.
    fn replace(&self, house: &House, dice: &mut Dice) {
        let mut versions = self.versions.write();
        let number = versions.len();
        let mut bytes = noise(number as u64 + 1, NUMBER_BYTES + dice.below(400_000));
        bytes[..NUMBER_BYTES].copy_from_slice(&(number as u64).to_le_bytes());
        let version = Bytes::from(bytes);
        versions.push(version.clone());
        house.bucket.insert(self.name, version, Metadata::new());
        self.published.store(number + 1, Ordering::Release);
    }
}

/// Numbers without a pattern, the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit
    }
}

/// Opens, reads here and there, and closes. All that a handle gives must be of one version, and that
/// must not be older than what was in the bucket before the open.
async fn read_once(house: &House, history: &History, dice: &mut Dice) {
    let before = history.published.load(Ordering::Acquire);
    let entry = house.fs.lookup(ROOT, OsStr::new(history.name)).await.unwrap();
    let opened = match house.fs.open(entry.ino, libc::O_RDONLY, ME).await {
        Ok(opened) => opened,
        // Replaced between the lookup and the open; the kernel looks the name up again.
        Err(error) => return assert_eq!(error.errno(), Errno::ESTALE, "open: {error}"),
    };
    let mut version: Option<Bytes> = None;
    for _ in 0..READS {
        if dice.below(READS * 3) == 0 {
            history.replace(house, dice);
        }
        let length = version.as_ref().map_or(NUMBER_BYTES, |version| version.len().max(1));
        let (start, size) = if version.is_none() { (0, NUMBER_BYTES) } else { (dice.below(length), 150_000) };
        let found = match house.fs.read(opened.handle, start as u64, size as u32).await {
            Ok(found) => found,
            Err(error) => {
                assert_eq!(error.errno(), Errno::ESTALE, "read: {error}");
                break;
            }
        };
        history.reads.fetch_add(1, Ordering::Relaxed);
        let expected = version.get_or_insert_with(|| {
            let number = u64::from_le_bytes(found[..NUMBER_BYTES].try_into().unwrap()) as usize;
            assert!(number + 1 >= before, "version {number} though {before} versions had been there before the open");
            history.versions.read()[number].clone()
        });
        if let Ok(now) = house.fs.getattr(entry.ino).await {
            assert_eq!(now.stat.size, expected.len() as u64, "the size that cuts the reads of an open file");
        }
        let end = expected.len().min(start + size);
        assert_bytes(&found, &expected[start..end], &format!("{} bytes at {start}", expected.len()));
    }
    house.fs.release(opened.handle).await.unwrap();
    house.fs.forget(entry.ino, 1);
}

pub async fn readers_and_others(telling: bool) {
    let case = Case { believing: false, telling, small_disk: true, write_back: false, steps: Vec::new() };
    let house = Arc::new(House::new(&case).await);
    let histories = Arc::new(NAMES.map(History::new));
    let mut dice = Dice(0x5EED);
    histories.iter().for_each(|history| history.replace(&house, &mut dice));
    let ended = Arc::new(AtomicBool::new(false));
    let damage = tokio::task::spawn_blocking({
        let (house, ended) = (house.clone(), ended.clone());
        move || {
            while !ended.load(Ordering::Acquire) {
                match dice.below(12) {
                    0 => house.remove_cache_directory(),
                    1 => house.disk.clear(),
                    2 => house.fs.forget_key(NAMES[dice.below(NAMES.len())]),
                    3..6 => house.damage(Damage::Cut, dice.below(1 << 30), dice.below(1 << 30)),
                    _ => house.damage(Damage::Flip, dice.below(1 << 30), dice.below(1 << 30)),
                }
            }
        }
    });
    let readers = (0..READERS).map(|reader| {
        let (house, histories) = (house.clone(), histories.clone());
        tokio::spawn(async move {
            let mut dice = Dice(reader as u64 + 77);
            for _ in 0..OPENS {
                read_once(&house, &histories[dice.below(NAMES.len())], &mut dice).await;
            }
        })
    });
    let outcomes = futures::future::join_all(readers).await;
    ended.store(true, Ordering::Release);
    damage.await.unwrap();
    for outcome in outcomes {
        outcome.unwrap();
    }
    for history in histories.iter() {
        let (reads, versions) = (history.reads.load(Ordering::Relaxed), history.versions.read().len());
        assert!(reads > OPENS * READERS / 2 && versions > OPENS / 3, "only {reads} reads of {versions} versions");
    }
}
