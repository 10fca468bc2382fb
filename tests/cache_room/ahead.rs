//! What is fetched before it is asked for, or around it.

use super::*;

#[tokio::test]
async fn random_reads_move_little() {
    let tape = Tape::open(1024 * MIB);
    let (object, cache, ahead) = (tape.pinned(), cache(tape.clone(), 512 * MIB), ReadAhead::new());
    for draw in noise(200 * 4).chunks_exact(4) {
        let page = u64::from(u32::from_be_bytes(draw.try_into().unwrap())) % (1024 * MIB / 4096);
        let start = page * 4096;
        cache.read(&object, start..start + 4096, &ahead).await.unwrap();
    }
    drop(ahead);
    assert!(tape.gets() <= 220, "{} GETs", tape.gets());
    assert!(tape.moved_bytes() <= 256_000_000, "{} bytes", tape.moved_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequential_reader_gets_parallel_gets_and_no_byte_twice() {
    let tape = Tape::open(300 * MIB + 17);
    let cache = cache(tape.clone(), 512 * MIB);
    stream(&cache, &tape, 128 << 10).await;
    assert_eq!(tape.moved_bytes(), tape.size);
    assert!(cache.stats().prefetched_bytes > 295 * MIB, "{:?}", cache.stats());
}

#[tokio::test]
async fn the_window_opens_to_many_gets_at_once() {
    let tape = Tape::with_gate(1024 * MIB, 0);
    let (object, cache, ahead) = (tape.pinned(), cache(tape.clone(), 512 * MIB), ReadAhead::new());
    let read = async {
        for start in (0..64 * MIB).step_by(MIB as usize) {
            cache.read(&object, start..start + MIB, &ahead).await.unwrap();
        }
    };
    // All that are on their way are answered together: none is slower for the others.
    let serve = async {
        loop {
            tape.gate.add_permits(tape.in_flight.load(Ordering::SeqCst));
            until(|| tape.gate.available_permits() == 0).await;
            until(|| tape.in_flight.load(Ordering::SeqCst) > 0).await;
        }
    };
    tokio::select! { () = read => {}, () = serve => {} }
    assert!(tape.most_in_flight.load(Ordering::SeqCst) >= 16);
    assert!(tape.most_in_flight.load(Ordering::SeqCst) <= 24, "a quarter of 32 is kept for readers");
}

#[tokio::test]
async fn reads_answered_from_memory_keep_the_window_moving() {
    let tape = Tape::open(64 * MIB);
    let (object, cache, ahead) = (tape.pinned(), cache(tape.clone(), 512 * MIB), ReadAhead::new());
    for start in [0, 4096] {
        cache.read(&object, start..start + 4096, &ahead).await.unwrap();
    }
    // From here on no read misses: each finds what the ones before had fetched for it.
    for start in (8192..tape.size).step_by(64 << 10) {
        until(|| cache.try_read(&object, start..start + (64 << 10)).is_some()).await;
    }
    assert_eq!((cache.stats().misses, tape.moved_bytes()), (1, tape.size));
}

#[tokio::test]
async fn requests_out_of_order_still_count_as_sequential() {
    let tape = Tape::open(256 * MIB);
    let (object, cache, ahead) = (tape.pinned(), cache(tape.clone(), 512 * MIB), ReadAhead::new());
    let request = 128 << 10;
    for batch in 0..64 {
        for position in [1, 0, 3, 2, 7, 5, 6, 4] {
            let start = (batch * 8 + position) * request;
            cache.read(&object, start..start + request, &ahead).await.unwrap();
        }
    }
    assert!(cache.stats().prefetched_bytes >= 63 * MIB, "{:?}", cache.stats());
    assert!(tape.gets() < 100, "{} GETs for 64 MiB", tape.gets());
}

#[tokio::test]
async fn dropping_the_handle_cancels_what_nobody_waits_for() {
    let tape = Tape::with_gate(256 * MIB, 2);
    let (object, cache, ahead) = (tape.pinned(), cache(tape.clone(), 512 * MIB), ReadAhead::new());
    cache.read(&object, 0..MIB, &ahead).await.unwrap();
    cache.read(&object, MIB..2 * MIB, &ahead).await.unwrap();
    until(|| tape.in_flight.load(Ordering::SeqCst) > 0).await;
    drop(ahead);
    until(|| tape.in_flight.load(Ordering::SeqCst) == 0 && cache.stats().in_flight_bytes == 0).await;
    // Cancelled, not failed: the next reader simply asks again.
    tape.gate.add_permits(100);
    let bytes = cache.read(&object, 3 * MIB..3 * MIB + 10, &ReadAhead::new()).await.unwrap();
    assert_eq!(bytes, Tape::bytes(3 * MIB..3 * MIB + 10));
}

#[tokio::test]
async fn a_handle_closed_under_a_waiting_neighbour_leaves_it_its_get() {
    let tape = Tape::with_gate(256 * MIB, 2);
    let (object, cache, ahead) = (tape.pinned(), cache(tape.clone(), 512 * MIB), ReadAhead::new());
    cache.read(&object, 0..MIB, &ahead).await.unwrap();
    cache.read(&object, MIB..2 * MIB, &ahead).await.unwrap();
    until(|| tape.in_flight.load(Ordering::SeqCst) > 0).await;
    let (coming, misses) = (tape.ranges.lock().last().unwrap().clone(), cache.stats().misses);
    let neighbour = tokio::spawn({
        let (cache, object, coming) = (cache.clone(), object.clone(), coming.clone());
        async move { cache.read(&object, coming, &ReadAhead::new()).await }
    });
    until(|| cache.stats().misses > misses).await;
    drop(ahead);
    tape.gate.add_permits(100);
    assert_eq!(neighbour.await.unwrap().unwrap(), Tape::bytes(coming.clone()));
    assert_eq!(tape.ranges.lock().iter().filter(|range| range.start == coming.start).count(), 1);
}

#[tokio::test]
async fn dropping_the_handle_cancels_the_rest_of_what_an_isolated_read_fetched() {
    let tape = in_pieces(1024 * MIB, 64 << 10);
    let (object, cache, ahead) = (tape.pinned(), cache(tape.clone(), 512 * MIB), ReadAhead::new());
    tape.gate.add_permits(2);
    let page = 500 * MIB..500 * MIB + 4096;
    assert_eq!(cache.read(&object, page.clone(), &ahead).await.unwrap(), Tape::bytes(page));
    assert_eq!(tape.asked(), [(500 * MIB, 501 * MIB)]);
    drop(ahead);
    until(|| tape.in_flight.load(Ordering::SeqCst) == 0 && cache.stats().in_flight_bytes == 0).await;
}

#[tokio::test]
async fn isolated_reads_in_a_small_object_soon_need_no_get() {
    let tape = Tape::open(64 * MIB);
    let (object, cache, ahead) = (tape.pinned(), cache(tape.clone(), 512 * MIB), ReadAhead::new());
    for draw in noise(400 * 4).chunks_exact(4) {
        let start = u64::from(u32::from_be_bytes(draw.try_into().unwrap())) % (64 * MIB / 4096) * 4096;
        let page = start..start + 4096;
        if cache.try_read(&object, page.clone()).is_none() {
            cache.read(&object, page, &ahead).await.unwrap();
        }
    }
    assert!(tape.gets() <= 150, "{} GETs", tape.gets());
    assert!(tape.moved_bytes() <= 80 * MIB, "{} bytes", tape.moved_bytes());
}
