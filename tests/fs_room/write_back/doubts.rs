//! Versions that S3 has although nobody heard of it, and what is written on top of them.

use s3mount::bucket::Metadata;
use s3mount::journal::Intent;

use super::*;

/// `f` holds "one" in S3; the mount that sent that died before it knew.
async fn sent_but_not_heard_of() -> (Arc<MemoryBucket>, tempfile::TempDir) {
    let bucket = Arc::new(MemoryBucket::new());
    bucket.insert("f", "old", Metadata::default());
    let house = house_on(bucket, tempfile::tempdir().unwrap()).await;
    let ino = house.lookup(ROOT, "f").await.unwrap().ino;
    write_anew(&house, ino, b"one").await;
    house.bucket.inject(Fault::once("PutObject", Effect::LoseReply(Kind::Deadline)));
    let uploader = house.fs.start_uploader();
    until("the version", || house.bucket.bytes("f").unwrap() == "one").await;
    crash(house, Some(uploader)).await
}

async fn write_anew(house: &House, ino: Ino, bytes: &[u8]) {
    let opened = house.fs.open(ino, WRITE | libc::O_TRUNC, ME).await.unwrap();
    house.fs.write(opened.handle, 0, bytes).await.unwrap();
    house.fs.flush(opened.handle, ME).await.unwrap();
    house.fs.release(opened.handle).await.unwrap();
}

/// Starts on what is there, sends it, and finds no other client in the way.
async fn sends_without_a_conflict((bucket, state): (Arc<MemoryBucket>, tempfile::TempDir)) -> House {
    let house = house_on(bucket, state).await;
    let uploader = house.fs.start_uploader();
    all_sent(&house).await;
    uploader.stop().await;
    assert_eq!(kept_conflicts(&house), Vec::<Vec<u8>>::new());
    house
}

#[tokio::test]
async fn what_is_closed_before_that_is_found_out_is_stored_by_a_later_start() {
    let (bucket, state) = sent_but_not_heard_of().await;
    let house = house_on(bucket, state).await;
    let ino = house.lookup(ROOT, "f").await.unwrap().ino;
    write_anew(&house, ino, b"two").await;
    let house = sends_without_a_conflict(crash(house, None).await).await;
    assert_eq!(house.bucket.bytes("f").unwrap(), "two");
}

#[tokio::test]
async fn it_is_known_again_however_often_the_mount_dies_over_it() {
    let (bucket, state) = sent_but_not_heard_of().await;
    let house = house_on(bucket, state).await;
    let ino = house.lookup(ROOT, "f").await.unwrap().ino;
    write_anew(&house, ino, b"two").await;
    let (bucket, state) = crash(house, None).await;
    let house = house_on(bucket, state).await;
    let ino = house.lookup(ROOT, "f").await.unwrap().ino;
    write_anew(&house, ino, b"three").await;
    let house = sends_without_a_conflict(crash(house, None).await).await;
    assert_eq!(house.bucket.bytes("f").unwrap(), "three");
}

#[tokio::test]
async fn a_close_after_an_answer_that_was_lost_is_stored_by_a_later_start() {
    let house = house().await;
    let ino = house.write_file(ROOT, "f", b"one").await.ino;
    house.bucket.inject(Fault::once("PutObject", Effect::LoseReply(Kind::Deadline)));
    let uploader = house.fs.start_uploader();
    until("the version", || house.bucket.bytes("f").is_some()).await;
    uploader.stop().await;
    write_anew(&house, ino, b"two").await;
    let house = sends_without_a_conflict(crash(house, None).await).await;
    assert_eq!(house.bucket.bytes("f").unwrap(), "two");
}

#[tokio::test]
async fn a_file_that_is_renamed_over_it_takes_its_place() {
    for (target_is_open, source_is_stored) in [(false, false), (true, false), (true, true)] {
        let (bucket, state) = sent_but_not_heard_of().await;
        bucket.insert("stored", "before", Metadata::default());
        let house = house_on(bucket, state).await;
        let ino = house.lookup(ROOT, "f").await.unwrap().ino;
        let opened = house.fs.open(ino, WRITE, ME).await.unwrap();
        if target_is_open {
            // Not closed: the rename need not store it first.
            house.fs.write(opened.handle, 0, b"not closed").await.unwrap();
        }
        if source_is_stored {
            let ino = house.lookup(ROOT, "stored").await.unwrap().ino;
            let opened = house.fs.open(ino, WRITE | libc::O_TRUNC, ME).await.unwrap();
            house.fs.write(opened.handle, 0, b"two").await.unwrap();
            rename(&house, "stored", "f").await;
        } else {
            house.write_file(ROOT, "new", b"two").await;
            rename(&house, "new", "f").await;
        }
        let house = sends_without_a_conflict(crash(house, None).await).await;
        assert_eq!(house.bucket.bytes("f").unwrap(), "two");
    }
}

/// A server may be slow to do what a process has asked for that died meanwhile.
#[tokio::test]
async fn it_is_known_again_when_it_appears_after_it_was_looked_for() {
    for rewritten in [false, true] {
        let bucket = Arc::new(MemoryBucket::new());
        bucket.insert("f", "old", Metadata::default());
        let house = house_on(bucket, tempfile::tempdir().unwrap()).await;
        let ino = house.lookup(ROOT, "f").await.unwrap().ino;
        write_anew(&house, ino, b"one").await;
        let intents = house.journal.open_intents().unwrap();
        let [(_, Intent::Deferred { metadata, .. })] = &intents[..] else { panic!("not one close: {intents:?}") };
        let (bucket, state) = crash(house, None).await;
        let house = house_on(bucket, state).await;
        if rewritten {
            let ino = house.lookup(ROOT, "f").await.unwrap().ino;
            write_anew(&house, ino, b"two").await;
        }
        house.bucket.inject(Fault::once("PutObject", Effect::Delay(Duration::from_millis(200))));
        let before = house.bucket.count("HeadObject");
        let uploader = house.fs.start_uploader();
        until("the look", || house.bucket.count("HeadObject") > before && house.bucket.under_way() == 1).await;
        house.bucket.insert("f", "one", metadata.clone());
        all_sent(&house).await;
        uploader.stop().await;
        assert_eq!(kept_conflicts(&house), Vec::<Vec<u8>>::new());
        assert_eq!(house.bucket.bytes("f").unwrap(), if rewritten { "two" } else { "one" });
    }
}

#[tokio::test]
async fn a_change_inside_a_large_object_goes_on_top_of_one_that_nobody_heard_of() {
    let house = House::new().await;
    let mut wanted: Vec<u8> = (0..20_u32 << 20).map(|at| (at % 251) as u8).collect();
    house.bucket.insert("f", wanted.clone(), Metadata::default());
    let ino = house.lookup(ROOT, "f").await.unwrap().ino;
    let opened = house.fs.open(ino, WRITE, ME).await.unwrap();
    house.bucket.inject(Fault::once("CompleteMultipartUpload", Effect::LoseReply(Kind::Deadline)));
    for (offset, bytes) in [(9_000_000, b"first"), (19_000_000, b"other")] {
        house.fs.write(opened.handle, offset, bytes).await.unwrap();
        wanted[offset as usize..][..5].copy_from_slice(bytes);
        let closed = house.fs.flush(opened.handle, ME).await;
        assert_eq!(closed.is_ok(), bytes == b"other", "{closed:?}");
        assert!(house.bucket.bytes("f").unwrap() == wanted);
    }
    house.fs.release(opened.handle).await.unwrap();
    assert_eq!(kept_conflicts(&house), Vec::<Vec<u8>>::new());
}
