//! The cache room from outside: what a reader gets, and what the bucket is asked for it.

mod ahead;
mod memory;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use proptest::prelude::*;
use s3mount::bucket::memory::{Effect, Fault, MemoryBucket};
use s3mount::bucket::upload::PartMemory;
use s3mount::bucket::{
    Bucket, Condition, CopyRequest, Deletion, ETag, Error, Fetched, ListPage, ListRequest, Metadata, ObjectInfo, Part,
    PendingUpload, Properties, PutOptions, Result, Sink, check_length, check_version,
};
use s3mount::cache::{BLOCK_BYTES, BlockCache, CacheSettings, Pinned, ReadAhead};
use s3mount::error::Kind;
use tokio::sync::Semaphore;

const MIB: u64 = 1 << 20;
/// Longest wait for a condition that has to come true.
const PATIENCE: Duration = Duration::from_secs(20);

fn cache(bucket: Arc<dyn Bucket>, memory_bytes: u64) -> Arc<BlockCache> {
    BlockCache::new(bucket, CacheSettings { memory_bytes, max_parallel_gets: 32 })
}

/// Bytes without a pattern that a wrong offset could hide in.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// Noise of a prime length: repeated, it is another at each block.
static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| noise(1_000_003));

async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the condition came true in time");
}

/// A bucket in which every object is alike: its byte at an offset follows from the offset. Sees
/// every GET, answers when the gate has a permit for it, and ignores `If-Match`, as some servers do.
#[derive(Debug)]
struct Tape {
    size: u64,
    gate: Semaphore,
    ranges: Mutex<Vec<Range<u64>>>,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
    /// Takes this many bytes off every answer.
    short_by: usize,
    /// Answers come in pieces of this size, each when the gate has a permit for it.
    piece_bytes: Option<u64>,
}

impl Tape {
    fn open(size: u64) -> Arc<Self> {
        Self::with_gate(size, Semaphore::MAX_PERMITS)
    }

    fn with_gate(size: u64, permits: usize) -> Arc<Self> {
        Arc::new(Self {
            size,
            gate: Semaphore::new(permits),
            ranges: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
            short_by: 0,
            piece_bytes: None,
        })
    }

    fn pinned(&self) -> Pinned {
        Pinned { key: "tape".into(), etag: ETag::new("reel-1"), size: self.size }
    }

    fn bytes(range: Range<u64>) -> Bytes {
        let mut bytes = BytesMut::with_capacity((range.end - range.start) as usize);
        let mut offset = range.start;
        while offset < range.end {
            let rest = &NOISE[(offset % NOISE.len() as u64) as usize..];
            let piece = &rest[..rest.len().min((range.end - offset) as usize)];
            bytes.extend_from_slice(piece);
            offset += piece.len() as u64;
        }
        bytes.freeze()
    }

    fn moved_bytes(&self) -> u64 {
        self.ranges.lock().iter().map(|range| range.end - range.start).sum()
    }

    fn asked(&self) -> Vec<(u64, u64)> {
        self.ranges.lock().iter().map(|range| (range.start, range.end)).collect()
    }

    fn gets(&self) -> usize {
        self.ranges.lock().len()
    }
}

struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Bucket for Tape {
    async fn get(&self, _key: &str, range: Option<Range<u64>>, if_match: Option<&ETag>) -> Result<Fetched> {
        let range = range.expect("the cache asks for ranges");
        assert!(if_match.is_some(), "a GET without its pin");
        assert!(range.start < range.end && range.end <= self.size, "{range:?} of {}", self.size);
        self.ranges.lock().push(range.clone());
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        let _in_flight = InFlight(&self.in_flight);
        self.most_in_flight.fetch_max(now, Ordering::SeqCst);
        self.gate.acquire().await.expect("the gate is never closed").forget();
        let bytes = Self::bytes(range);
        let info = ObjectInfo {
            etag: ETag::new("reel-1"),
            size: self.size,
            modified: SystemTime::UNIX_EPOCH,
            metadata: Metadata::new(),
            properties: Properties::default(),
            version_id: None,
            archived: false,
        };
        Ok(Fetched { info, bytes: bytes.slice(self.short_by..) })
    }

    async fn get_into(&self, key: &str, range: Range<u64>, etag: &ETag, sink: &dyn Sink) -> Result<()> {
        let Some(piece_bytes) = self.piece_bytes else {
            let fetched = self.get(key, Some(range.clone()), Some(etag)).await?;
            check_version(key, &fetched.info.etag, etag)?;
            check_length(key, &fetched.bytes, &range)?;
            sink.take(&fetched.bytes);
            return Ok(());
        };
        self.ranges.lock().push(range.clone());
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        let _in_flight = InFlight(&self.in_flight);
        for start in range.clone().step_by(piece_bytes as usize) {
            self.gate.acquire().await.expect("the gate is never closed").forget();
            sink.take(&Self::bytes(start..range.end.min(start + piece_bytes)));
        }
        Ok(())
    }

    async fn head(&self, _: &str) -> Result<ObjectInfo> {
        unimplemented!("the cache only GETs")
    }
    async fn list(&self, _: &ListRequest) -> Result<ListPage> {
        unimplemented!("the cache only GETs")
    }
    async fn put(&self, _: &str, _: Bytes, _: &PutOptions) -> Result<ETag> {
        unimplemented!("the cache only GETs")
    }
    async fn copy(&self, _: &CopyRequest) -> Result<ETag> {
        unimplemented!("the cache only GETs")
    }
    async fn delete(&self, _: &str, _: Option<&ETag>) -> Result<()> {
        unimplemented!("the cache only GETs")
    }
    async fn delete_many(&self, _: &[Deletion]) -> Result<Vec<(String, Error)>> {
        unimplemented!("the cache only GETs")
    }
    async fn create_upload(&self, _: &str, _: &PutOptions) -> Result<String> {
        unimplemented!("the cache only GETs")
    }
    async fn upload_part(&self, _: &str, _: &str, _: u16, _: Bytes) -> Result<Part> {
        unimplemented!("the cache only GETs")
    }
    async fn copy_part(&self, _: &str, _: &str, _: u16, _: &CopyRequest, _: Range<u64>) -> Result<Part> {
        unimplemented!("the cache only GETs")
    }
    async fn complete_upload(&self, _: &str, _: &str, _: &[Part], _: &Condition) -> Result<ETag> {
        unimplemented!("the cache only GETs")
    }
    async fn abort_upload(&self, _: &str, _: &str) -> Result<()> {
        unimplemented!("the cache only GETs")
    }
    async fn list_uploads(&self, _: &str) -> Result<Vec<PendingUpload>> {
        unimplemented!("the cache only GETs")
    }
}

#[derive(Clone, Debug)]
enum Step {
    Read(Range<u64>),
    TryRead(Range<u64>),
    Insert(Range<u64>),
    Forget,
    NewHandle,
}

fn any_range(size: u64) -> impl Strategy<Value = Range<u64>> {
    let length = prop_oneof![1..200_u64, 1..300_000_u64, 1..2 * size];
    (0..size + 10, length).prop_map(|(start, length)| start..start + length)
}

fn any_step(size: u64) -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => any_range(size).prop_map(Step::Read),
        3 => any_range(size).prop_map(Step::TryRead),
        1 => any_range(size).prop_map(Step::Insert),
        1 => Just(Step::Forget),
        1 => Just(Step::NewHandle),
    ]
}

fn any_case() -> impl Strategy<Value = (u64, Vec<Step>)> {
    let size = prop_oneof![0..5000_u64, MIB - 2..MIB + 2, 0..12 * MIB];
    size.prop_flat_map(|size| (Just(size), prop::collection::vec(any_step(size.max(1)), 1..40)))
}

/// The same bytes as the model's, whatever was read, inserted or forgotten before, in a budget
/// that is smaller than the object.
async fn reads_like_the_model(size: u64, steps: Vec<Step>) {
    let bucket = Arc::new(MemoryBucket::new());
    let model = Tape::bytes(0..size).to_vec();
    let etag = bucket.insert("o", model.clone(), Metadata::new());
    let object = Pinned { key: "o".into(), etag, size };
    let cache = cache(bucket, 4 * MIB);
    let mut ahead = ReadAhead::new();
    let expected = |range: &Range<u64>| {
        let end = range.end.min(size) as usize;
        &model[(range.start as usize).min(end)..end]
    };
    for step in steps {
        match step {
            Step::Read(range) => {
                let bytes = cache.read(&object, range.clone(), &ahead).await.expect("the object is there");
                assert!(bytes == expected(&range), "read {range:?}");
            }
            Step::TryRead(range) => {
                if let Some(bytes) = cache.try_read(&object, range.clone()) {
                    assert!(bytes == expected(&range), "try_read {range:?}");
                }
            }
            Step::Insert(range) => {
                cache.insert(&object, range.start, Bytes::copy_from_slice(expected(&range)));
            }
            Step::Forget => cache.forget("o"),
            Step::NewHandle => ahead = ReadAhead::new(),
        }
        let stats = cache.stats();
        assert!(stats.memory_bytes + stats.in_flight_bytes <= stats.limit_bytes, "{stats:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]
    #[test]
    fn any_range_reads_the_right_bytes((size, steps) in any_case()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(reads_like_the_model(size, steps));
    }
}

#[tokio::test]
async fn a_second_read_needs_no_get() {
    let tape = Tape::open(10 * MIB);
    let (object, cache, ahead) = (tape.pinned(), cache(tape.clone(), 64 * MIB), ReadAhead::new());
    assert_eq!(cache.try_read(&object, 5..10), None);
    assert_eq!(cache.read(&object, 5..10, &ahead).await.unwrap(), Tape::bytes(5..10));
    assert_eq!(cache.try_read(&object, 5..10).unwrap(), Tape::bytes(5..10));
    assert_eq!(cache.read(&object, 5..10, &ahead).await.unwrap(), Tape::bytes(5..10));
    assert_eq!(tape.gets(), 1);
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.gets), (2, 1, 1));
}

#[tokio::test]
async fn a_read_within_a_block_shares_its_buffer() {
    let tape = Tape::open(MIB);
    let (object, cache) = (tape.pinned(), cache(tape.clone(), 64 * MIB));
    cache.read(&object, 0..MIB, &ReadAhead::new()).await.unwrap();
    let whole = cache.try_read(&object, 0..MIB).unwrap();
    let part = cache.try_read(&object, 1000..2000).unwrap();
    assert_eq!(part.as_ptr(), whole[1000..].as_ptr());
}

#[tokio::test]
async fn reads_are_cut_at_the_end_of_the_object() {
    let tape = Tape::open(1000);
    let (object, cache, ahead) = (tape.pinned(), cache(tape.clone(), 64 * MIB), ReadAhead::new());
    assert_eq!(cache.read(&object, 990..5000, &ahead).await.unwrap(), Tape::bytes(990..1000));
    assert_eq!(cache.read(&object, 1000..5000, &ahead).await.unwrap(), Bytes::new());
    assert_eq!(cache.try_read(&object, 7000..9000), Some(Bytes::new()));
}

#[tokio::test]
async fn an_empty_object_needs_no_get() {
    let tape = Tape::open(0);
    let cache = cache(tape.clone(), 64 * MIB);
    assert_eq!(cache.read(&tape.pinned(), 0..4096, &ReadAhead::new()).await.unwrap(), Bytes::new());
    assert_eq!(tape.gets(), 0);
}

#[tokio::test]
async fn readers_of_one_block_share_one_get() {
    let tape = Tape::with_gate(4 * MIB, 0);
    let cache = cache(tape.clone(), 64 * MIB);
    let readers: Vec<_> = (0..20)
        .map(|reader| {
            let (cache, object) = (cache.clone(), tape.pinned());
            tokio::spawn(async move { cache.read(&object, reader..reader + 100, &ReadAhead::new()).await })
        })
        .collect();
    until(|| cache.stats().misses == 20).await;
    tape.gate.add_permits(1000);
    for (reader, task) in (0..).zip(readers) {
        assert_eq!(task.await.unwrap().unwrap(), Tape::bytes(reader..reader + 100));
    }
    // Only reader 0 began at the start of the file and took the whole block; the rest joined.
    assert_eq!(tape.gets(), 1);
}

#[tokio::test]
async fn a_failed_get_fails_its_readers_and_the_next_read_tries_again() {
    let bucket = Arc::new(MemoryBucket::new());
    let etag = bucket.insert("o", Tape::bytes(0..1000), Metadata::new());
    let object = Pinned { key: "o".into(), etag, size: 1000 };
    bucket.inject(Fault::once("GetObject", Effect::Fail(Kind::Busy)));
    let (cache, ahead) = (cache(bucket.clone(), 64 * MIB), ReadAhead::new());
    let both = tokio::join!(cache.read(&object, 0..10, &ahead), cache.read(&object, 10..20, &ahead));
    assert_eq!((both.0.unwrap_err().kind, both.1.unwrap_err().kind), (Kind::Busy, Kind::Busy));
    assert_eq!(cache.stats().in_flight_bytes, 0);
    assert_eq!(cache.read(&object, 0..10, &ahead).await.unwrap(), Tape::bytes(0..10));
    assert_eq!(bucket.count("GetObject"), 2);
}

#[tokio::test]
async fn a_reader_that_leaves_does_not_hold_up_the_others() {
    let tape = Tape::with_gate(4 * MIB, 0);
    let cache = cache(tape.clone(), 64 * MIB);
    let read =
        |cache: Arc<BlockCache>, object: Pinned| async move { cache.read(&object, 0..100, &ReadAhead::new()).await };
    let leader = tokio::spawn(read(cache.clone(), tape.pinned()));
    until(|| tape.gets() == 1).await;
    let follower = tokio::spawn(read(cache.clone(), tape.pinned()));
    until(|| cache.stats().misses == 2).await;
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    tape.gate.add_permits(1);
    assert_eq!(follower.await.unwrap().unwrap(), Tape::bytes(0..100));
    assert_eq!(tape.gets(), 1);
}

#[tokio::test]
async fn an_object_that_was_replaced_or_deleted_has_changed() {
    let bucket = Arc::new(MemoryBucket::new());
    let etag = bucket.insert("o", Tape::bytes(0..3 * MIB), Metadata::new());
    let object = Pinned { key: "o".into(), etag, size: 3 * MIB };
    let (cache, ahead) = (cache(bucket.clone(), 64 * MIB), ReadAhead::new());
    cache.read(&object, 0..10, &ahead).await.unwrap();
    bucket.insert("o", vec![7; 3 * MIB as usize], Metadata::new());
    assert_eq!(cache.read(&object, 2 * MIB..2 * MIB + 10, &ahead).await.unwrap_err().kind, Kind::Changed);
    bucket.remove("o");
    assert_eq!(cache.read(&object, 2 * MIB..2 * MIB + 10, &ahead).await.unwrap_err().kind, Kind::Changed);
    // What was read of the old version stays readable as such: its bytes are true of that version.
    assert_eq!(cache.try_read(&object, 0..10).unwrap(), Tape::bytes(0..10));
}

#[tokio::test]
async fn a_server_that_ignores_if_match_is_not_believed() {
    let tape = Tape::open(MIB);
    let cache = cache(tape.clone(), 64 * MIB);
    let object = Pinned { etag: ETag::new("reel-0"), ..tape.pinned() };
    let error = cache.read(&object, 0..10, &ReadAhead::new()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Changed, "{error}");
    assert!(cache.try_read(&object, 0..10).is_none());
}

#[tokio::test]
async fn a_short_answer_is_an_error_not_a_short_read() {
    let mut tape = Tape::open(MIB);
    Arc::get_mut(&mut tape).unwrap().short_by = 1;
    let cache = cache(tape.clone(), 64 * MIB);
    let error = cache.read(&tape.pinned(), 0..10, &ReadAhead::new()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Corrupt, "{error}");
}

#[tokio::test]
async fn inserted_bytes_need_no_get_and_forgotten_ones_do() {
    let tape = Tape::open(40 * MIB);
    let (object, cache, ahead) = (tape.pinned(), cache(tape.clone(), 256 * MIB), ReadAhead::new());
    cache.insert(&object, 0, Tape::bytes(0..20 * MIB));
    assert_eq!(cache.read(&object, 9 * MIB..11 * MIB, &ahead).await.unwrap(), Tape::bytes(9 * MIB..11 * MIB));
    assert_eq!(tape.gets(), 0);
    cache.forget("tape");
    assert_eq!(cache.stats().memory_bytes, 0);
    assert_eq!(cache.read(&object, 100..200, &ahead).await.unwrap(), Tape::bytes(100..200));
    assert_eq!(tape.gets(), 1);
}

#[tokio::test]
async fn what_has_another_name_needs_no_get_under_it_and_one_under_the_old() {
    let tape = Tape::open(3 * MIB);
    let (cache, old) = (cache(tape.clone(), 16 * MIB), tape.pinned());
    cache.insert(&old, 0, Tape::bytes(0..2 * MIB));
    let held_bytes = cache.stats().memory_bytes;
    let new = Pinned { key: "new".into(), etag: ETag::new("other"), size: old.size };
    cache.carry(vec![(old.clone(), new.clone())]).await;
    assert_eq!(cache.try_read(&new, 0..2 * MIB), Some(Tape::bytes(0..2 * MIB)));
    assert_eq!((cache.try_read(&old, 0..10), tape.gets()), (None, 0));
    assert_eq!(cache.stats().memory_bytes, held_bytes);
    cache.forget("new");
    assert_eq!(cache.stats().memory_bytes, 0);
}

#[tokio::test]
async fn what_is_on_its_way_under_the_old_name_reaches_its_reader_and_is_not_kept() {
    let tape = Tape::with_gate(MIB, 0);
    let (cache, old) = (cache(tape.clone(), 16 * MIB), tape.pinned());
    let new = Pinned { key: "new".into(), ..old.clone() };
    let ahead = ReadAhead::new();
    let reading = cache.read(&old, 0..10, &ahead);
    let moving = async {
        until(|| tape.in_flight.load(Ordering::SeqCst) == 1).await;
        cache.carry(vec![(old.clone(), new.clone())]).await;
        tape.gate.add_permits(1);
    };
    let (bytes, ()) = tokio::join!(reading, moving);
    assert_eq!(bytes.unwrap(), Tape::bytes(0..10));
    until(|| cache.stats().in_flight_bytes == 0).await;
    assert_eq!((cache.try_read(&new, 0..10), cache.stats().memory_bytes), (None, 0));
}

#[tokio::test]
async fn forgetting_a_key_on_its_way_keeps_nothing_but_reaches_the_reader() {
    let tape = Tape::with_gate(4 * MIB, 0);
    let (object, cache) = (tape.pinned(), cache(tape.clone(), 64 * MIB));
    let reader = tokio::spawn({
        let (cache, object) = (cache.clone(), object.clone());
        async move { cache.read(&object, 0..10, &ReadAhead::new()).await }
    });
    until(|| tape.gets() == 1).await;
    cache.forget("tape");
    tape.gate.add_permits(1);
    assert_eq!(reader.await.unwrap().unwrap(), Tape::bytes(0..10));
    let stats = cache.stats();
    assert_eq!((stats.memory_bytes, stats.in_flight_bytes), (0, 0));
}

#[tokio::test]
async fn a_first_read_asks_for_one_block() {
    let tape = Tape::open(1024 * MIB);
    let cache = cache(tape.clone(), 512 * MIB);
    cache.read(&tape.pinned(), 0..64 << 10, &ReadAhead::new()).await.unwrap();
    assert_eq!(tape.asked(), [(0, BLOCK_BYTES)]);
}

#[tokio::test]
async fn a_small_object_comes_whole_in_one_get() {
    let tape = Tape::open(MIB - 5);
    let cache = cache(tape.clone(), 512 * MIB);
    cache.read(&tape.pinned(), 700_000..700_001, &ReadAhead::new()).await.unwrap();
    assert_eq!(tape.asked(), [(0, MIB - 5)]);
}

/// Reads the whole tape in requests of `request` bytes, misses through `read`, hits by `try_read`
/// as the mount does.
async fn stream(cache: &Arc<BlockCache>, tape: &Tape, request: u64) {
    let (object, ahead) = (tape.pinned(), ReadAhead::new());
    for start in (0..tape.size).step_by(request as usize) {
        let range = start..(start + request).min(tape.size);
        let bytes = match cache.try_read(&object, range.clone()) {
            Some(bytes) => bytes,
            None => cache.read(&object, range.clone(), &ahead).await.expect("the tape answers"),
        };
        assert!(bytes == Tape::bytes(range.clone()), "{range:?}");
    }
}

fn in_pieces(size: u64, piece_bytes: u64) -> Arc<Tape> {
    let mut tape = Tape::with_gate(size, 0);
    Arc::get_mut(&mut tape).expect("nobody else has it yet").piece_bytes = Some(piece_bytes);
    tape
}

#[tokio::test]
async fn a_reader_has_its_bytes_before_the_rest_of_the_answer() {
    let tape = in_pieces(64 * MIB, 64 << 10);
    let (object, cache, ahead) = (tape.pinned(), cache(tape.clone(), 64 * MIB), ReadAhead::new());
    // Exactly the first 128 KiB are let through of a GET for a mebibyte.
    tape.gate.add_permits(2);
    let bytes = cache.read(&object, 0..100_000, &ahead).await.unwrap();
    assert_eq!(bytes, Tape::bytes(0..100_000));
    assert_eq!((tape.asked(), tape.in_flight.load(Ordering::SeqCst)), (vec![(0, MIB)], 1));
    // The rest comes with the same GET.
    tape.gate.add_permits(14);
    assert_eq!(cache.read(&object, 0..MIB, &ahead).await.unwrap(), Tape::bytes(0..MIB));
    assert_eq!(tape.asked()[0], (0, MIB));
    assert!(tape.asked()[1..].iter().all(|(start, _)| *start >= MIB), "{:?}", tape.asked());
}

#[tokio::test]
async fn what_came_of_a_get_that_failed_is_kept_and_the_rest_asked_for_again() {
    let bucket = Arc::new(MemoryBucket::new());
    let etag = bucket.insert("o", Tape::bytes(0..3 * MIB), Metadata::new());
    let object = Pinned { key: "o".into(), etag, size: 3 * MIB };
    let (cache, ahead) = (cache(bucket.clone(), 64 * MIB), ReadAhead::new());
    cache.read(&object, 0..10, &ahead).await.unwrap();
    bucket.inject(Fault::once("GetObject", Effect::Fail(Kind::Unreachable)));
    assert_eq!(cache.read(&object, 2 * MIB..3 * MIB, &ahead).await.unwrap_err().kind, Kind::Unreachable);
    assert_eq!(cache.stats().in_flight_bytes, 0, "{:?}", cache.stats());
    assert_eq!(cache.read(&object, 2 * MIB..3 * MIB, &ahead).await.unwrap(), Tape::bytes(2 * MIB..3 * MIB));
}
