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

async fn set_mode(house: &House, ino: Ino, mode: u32) {
    house.fs.setattr(ino, SetAttr { mode: Some(mode), ..SetAttr::default() }).await.unwrap();
}

fn permissions(house: &House, key: &str) -> String {
    house.bucket.info(key).unwrap().metadata["file-permissions"].clone()
}

/// A mount that keeps changes of attributes waiting, on an object to which every copy gives another tag.
async fn patient_house_on(bucket: Arc<MemoryBucket>, state: tempfile::TempDir) -> House {
    House::with(bucket, state, |settings| Settings { attributes_wait: true, ..waiting(roomy())(settings) }).await
}

async fn with_a_tag_of_parts(key: &str) -> Arc<MemoryBucket> {
    let bucket = Arc::new(MemoryBucket::new());
    let upload = bucket.create_upload(key, &s3mount::bucket::PutOptions::default()).await.unwrap();
    let part = bucket.upload_part(key, &upload, 1, Bytes::from_static(b"old")).await.unwrap();
    bucket.complete_upload(key, &upload, &[part], &s3mount::bucket::Condition::None).await.unwrap();
    bucket
}

#[tokio::test]
async fn a_close_after_a_chmod_that_waits_still_meets_its_version_after_a_crash() {
    let house = patient_house_on(with_a_tag_of_parts("f").await, tempfile::tempdir().unwrap()).await;
    let ino = house.lookup(ROOT, "f").await.unwrap().ino;
    set_mode(&house, ino, 0o600).await;
    write_anew(&house, ino, b"two").await;
    let (bucket, state) = crash(house, None).await;
    let house = patient_house_on(bucket, state).await;
    let uploader = house.fs.start_uploader();
    all_sent(&house).await;
    uploader.stop().await;
    assert_eq!(kept_conflicts(&house), Vec::<Vec<u8>>::new());
    assert_eq!(house.bucket.bytes("f").unwrap(), "two");
    assert_eq!(permissions(&house, "f"), "0100600");
}
