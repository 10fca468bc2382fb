//! One budget for readers and uploads.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_streams_stay_within_a_small_budget() {
    let tape = Tape::open(48 * MIB);
    let cache = cache(tape.clone(), 16 * MIB);
    let most = Arc::new(AtomicU64::new(0));
    let watch = tokio::spawn({
        let (cache, most) = (cache.clone(), most.clone());
        async move {
            loop {
                let stats = cache.stats();
                most.fetch_max(stats.memory_bytes + stats.in_flight_bytes, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
        }
    });
    let streams: Vec<_> = (0..4)
        .map(|reader| {
            let (cache, tape) = (cache.clone(), tape.clone());
            tokio::spawn(async move {
                let object = Pinned { key: format!("tape-{reader}").into(), ..tape.pinned() };
                let ahead = ReadAhead::new();
                for start in (0..tape.size).step_by(MIB as usize / 2) {
                    let range = start..start + MIB / 2;
                    let bytes = cache.read(&object, range.clone(), &ahead).await.unwrap();
                    assert!(bytes == Tape::bytes(range));
                }
            })
        })
        .collect();
    for stream in streams {
        stream.await.unwrap();
    }
    watch.abort();
    let most = most.load(Ordering::SeqCst);
    assert!(most <= 16 * MIB, "{most} bytes");
    assert!(cache.stats().evictions > 0);
    // Nothing that was fetched ahead was thrown away unread.
    assert!(tape.moved_bytes() <= 4 * 48 * MIB * 11 / 10, "{} bytes moved", tape.moved_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_does_not_fill_the_memory_with_what_it_has_passed() {
    let tape = Tape::open(600 * MIB);
    let cache = cache(tape.clone(), 512 * MIB);
    stream(&cache, &tape, MIB).await;
    assert!(cache.stats().memory_bytes <= 256 * MIB, "{:?}", cache.stats());
}

#[tokio::test]
async fn what_is_lent_is_taken_from_the_cache_and_given_back() {
    let tape = Tape::open(64 * MIB);
    let (object, cache) = (tape.pinned(), cache(tape.clone(), 16 * MIB));
    for start in (0..16 * MIB).step_by(MIB as usize) {
        cache.read(&object, start..start + 4096, &ReadAhead::new()).await.unwrap();
    }
    assert!(cache.stats().memory_bytes > 10 * MIB);
    let loan = cache.lend(8 * MIB).await;
    let stats = cache.stats();
    assert!(stats.memory_bytes <= 8 * MIB && stats.in_flight_bytes == 8 * MIB, "{stats:?}");
    // Half of the budget is out: the next waits until it is back, and a reader does not.
    let second = tokio::spawn({
        let cache = cache.clone();
        async move { cache.lend(MIB).await }
    });
    cache.read(&object, 40 * MIB..40 * MIB + 10, &ReadAhead::new()).await.unwrap();
    assert!(!second.is_finished());
    drop(loan);
    drop(second.await.unwrap());
    until(|| cache.stats().in_flight_bytes == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_and_uploads_share_the_smallest_budget_without_a_deadlock() {
    let tape = Tape::open(24 * MIB);
    let cache = cache(tape.clone(), 4 * MIB);
    let readers = (0..6).map(|reader| {
        let (cache, tape) = (cache.clone(), tape.clone());
        tokio::spawn(async move {
            let object = Pinned { key: format!("tape-{}", reader % 3).into(), ..tape.pinned() };
            let ahead = ReadAhead::new();
            for start in (0..tape.size).step_by(MIB as usize / 4) {
                let range = start..start + MIB / 4;
                assert!(cache.read(&object, range.clone(), &ahead).await.unwrap() == Tape::bytes(range));
            }
        })
    });
    let uploads = (0..6).map(|_| {
        let cache = cache.clone();
        tokio::spawn(async move {
            for _ in 0..50 {
                // Larger than the budget: as much as may be lent at all.
                let loan = cache.lend(8 * MIB).await;
                let stats = cache.stats();
                assert!(stats.memory_bytes + stats.in_flight_bytes <= stats.limit_bytes, "{stats:?}");
                tokio::task::yield_now().await;
                drop(loan);
            }
        })
    });
    let all = futures::future::try_join_all(readers.chain(uploads).collect::<Vec<_>>());
    tokio::time::timeout(PATIENCE, all).await.expect("nobody waits for ever").unwrap();
    until(|| cache.stats().in_flight_bytes == 0).await;
}
