//! Versions that S3 has although nobody heard of it, and what is written on top of them.

use s3mount::bucket::Metadata;
use s3mount::journal::{Intent, Note};
use tokio::sync::Notify;

use super::*;

/// `f` holds "one" in S3; the mount that sent that died before it knew.
async fn sent_but_not_heard_of() -> (Arc<MemoryBucket>, tempfile::TempDir) {
    let bucket = Arc::new(MemoryBucket::new());
    bucket.insert("f", "old", Metadata::default());
    let house = written_to((bucket, tempfile::tempdir().unwrap()), b"one").await;
    send_unheard(&house, "PutObject", |house| house.bucket.bytes("f").unwrap() == "one").await;
    crash(house, None).await
}

async fn write_anew(house: &House, ino: Ino, bytes: &[u8]) {
    let opened = house.fs.open(ino, WRITE | libc::O_TRUNC, ME).await.unwrap();
    house.fs.write(opened.handle, 0, bytes).await.unwrap();
    house.fs.flush(opened.handle, ME).await.unwrap();
    house.fs.release(opened.handle).await.unwrap();
}

/// A mount on what is there in which `f` is written anew and closed, and nothing is sent.
async fn written_to((bucket, state): (Arc<MemoryBucket>, tempfile::TempDir), bytes: &[u8]) -> House {
    let house = house_on(bucket, state).await;
    let ino = house.lookup(ROOT, "f").await.unwrap().ino;
    write_anew(&house, ino, bytes).await;
    house
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
    let house = written_to(sent_but_not_heard_of().await, b"two").await;
    let house = sends_without_a_conflict(crash(house, None).await).await;
    assert_eq!(house.bucket.bytes("f").unwrap(), "two");
}

#[tokio::test]
async fn it_is_known_again_however_often_the_mount_dies_over_it() {
    let house = written_to(sent_but_not_heard_of().await, b"two").await;
    let house = written_to(crash(house, None).await, b"three").await;
    let house = sends_without_a_conflict(crash(house, None).await).await;
    assert_eq!(house.bucket.bytes("f").unwrap(), "three");
}

#[tokio::test]
async fn a_close_after_an_answer_that_was_lost_is_stored_by_a_later_start() {
    let house = house().await;
    let ino = house.write_file(ROOT, "f", b"one").await.ino;
    send_unheard(&house, "PutObject", |house| house.bucket.bytes("f").is_some()).await;
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
        let house = written_to((bucket, tempfile::tempdir().unwrap()), b"one").await;
        let metadata = metadata_of_close(&house);
        let (bucket, state) = crash(house, None).await;
        let house = if rewritten { written_to((bucket, state), b"two").await } else { house_on(bucket, state).await };
        let held = Arc::new(Notify::new());
        house.bucket.inject(Fault::once("PutObject", Effect::Hold(held.clone())));
        let uploader = house.fs.start_uploader();
        until("the request", || house.bucket.count("PutObject") == 1).await;
        house.bucket.insert("f", "one", metadata);
        held.notify_one();
        all_sent(&house).await;
        uploader.stop().await;
        assert_eq!(kept_conflicts(&house), Vec::<Vec<u8>>::new());
        assert_eq!(house.bucket.bytes("f").unwrap(), if rewritten { "two" } else { "one" });
    }
}

async fn set_mode(house: &House, ino: Ino, mode: u32) {
    house.fs.setattr(ino, SetAttr { mode: Some(mode), ..SetAttr::default() }).await.unwrap();
}

/// As `cp -p`, `rsync -t` and `tar` do.
async fn set_time_of_source(house: &House, ino: Ino) {
    let time = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    house.fs.setattr(ino, SetAttr { mtime: Some(NewTime::At(time)), ..SetAttr::default() }).await.unwrap();
}

fn permissions(house: &House, key: &str) -> String {
    house.bucket.info(key).unwrap().metadata["file-permissions"].clone()
}

/// What the only close in the journal says that its object carries.
fn metadata_of_close(house: &House) -> Metadata {
    let intents = house.journal.open_intents().unwrap();
    let [(_, Intent::Deferred { metadata, .. })] = &intents[..] else { panic!("not one close: {intents:?}") };
    metadata.clone()
}

/// Sends what waits until S3 has it, though nobody hears of that.
async fn send_unheard(house: &House, operation: &'static str, is_there: impl Fn(&House) -> bool) {
    house.bucket.inject(Fault::once(operation, Effect::LoseReply(Kind::Deadline)));
    assert_eq!(house.fs.sync(None).await.len(), 1);
    assert!(is_there(house));
}

#[tokio::test]
async fn a_chmod_after_an_answer_that_was_lost_survives_a_crash() {
    let house = house().await;
    let ino = house.write_file(ROOT, "f", b"one").await.ino;
    send_unheard(&house, "PutObject", |house| house.bucket.bytes("f").is_some()).await;
    set_mode(&house, ino, 0o600).await;
    let house = sends_without_a_conflict(crash(house, None).await).await;
    assert_eq!(permissions(&house, "f"), "0100600");
}

#[tokio::test]
async fn bytes_with_the_size_and_time_of_those_in_doubt_are_not_taken_for_them() {
    let house = house().await;
    let ino = house.write_file(ROOT, "f", b"one").await.ino;
    set_time_of_source(&house, ino).await;
    send_unheard(&house, "PutObject", |house| house.bucket.bytes("f").is_some()).await;
    write_anew(&house, ino, b"two").await;
    set_time_of_source(&house, ino).await;
    let house = sends_without_a_conflict(crash(house, None).await).await;
    assert_eq!(house.bucket.bytes("f").unwrap(), "two");
}

/// The object of parts that left before the close carries at first what the file had when they began to.
#[tokio::test]
async fn what_was_set_after_the_first_parts_had_left_survives_a_crash() {
    for rewritten in [false, true] {
        let house = house().await;
        let (entry, opened) = house.fs.create(ROOT, OsStr::new("f"), 0o644, WRITE, ME).await.unwrap();
        for at in 0..20 {
            house.fs.write(opened.handle, at << 20, &vec![7; 1 << 20]).await.unwrap();
        }
        until("an upload", || house.bucket.open_uploads() == 1).await;
        set_mode(&house, entry.ino, 0o600).await;
        set_time_of_source(&house, entry.ino).await;
        house.fs.flush(opened.handle, ME).await.unwrap();
        house.fs.release(opened.handle).await.unwrap();
        send_unheard(&house, "CompleteMultipartUpload", |house| house.bucket.bytes("f").is_some()).await;
        let journal = Arc::downgrade(&house.journal);
        let (bucket, state) = crash(house, None).await;
        until("the end of the upload", || journal.strong_count() == 0).await;
        let house = if rewritten { written_to((bucket, state), b"two").await } else { house_on(bucket, state).await };
        let house = sends_without_a_conflict(crash(house, None).await).await;
        assert_eq!(permissions(&house, "f"), "0100600");
        assert_eq!(house.bucket.bytes("f").unwrap().len(), if rewritten { 3 } else { 20 << 20 });
    }
}

/// Who waits only so long for what is stored lets go of requests that are under way.
#[tokio::test]
async fn a_version_is_known_again_whose_sender_was_not_waited_for() {
    for (appended, killed) in [(false, false), (true, false), (true, true)] {
        let house = house().await;
        let (_, opened) = house.fs.create(ROOT, OsStr::new("f"), 0o644, WRITE, ME).await.unwrap();
        house.fs.write(opened.handle, 0, b"one").await.unwrap();
        house.fs.flush(opened.handle, ME).await.unwrap();
        let metadata = metadata_of_close(&house);
        house.bucket.inject(Fault::once("PutObject", Effect::Hang));
        let (fs, writer) = (house.fs.clone(), house.fs.clone());
        let writing = async {
            until("the request", || house.bucket.under_way() == 1).await;
            if appended {
                writer.write(opened.handle, 3, b"two").await.unwrap();
            }
        };
        tokio::select! {
            _ = fs.sync(None) => panic!("it was not cut short"),
            () = writing => {}
        }
        house.bucket.insert("f", "one", metadata);
        house.fs.flush(opened.handle, ME).await.unwrap();
        drop((fs, writer));
        let house = if killed {
            sends_without_a_conflict(crash(house, None).await).await
        } else {
            house.fs.release(opened.handle).await.unwrap();
            let uploader = house.fs.start_uploader();
            all_sent(&house).await;
            uploader.stop().await;
            house
        };
        assert_eq!(kept_conflicts(&house), Vec::<Vec<u8>>::new());
        assert_eq!(house.bucket.bytes("f").unwrap(), if appended { "onetwo" } else { "one" });
    }
}

#[tokio::test]
async fn what_is_in_the_way_is_nobody_elses_before_s3_has_said_so() {
    let house = house().await;
    house.write_file(ROOT, "f", b"one").await;
    let metadata = metadata_of_close(&house);
    let (bucket, state) = crash(house, None).await;
    let house = house_on(bucket, state).await;
    house.bucket.inject(Fault::once("HeadObject", Effect::Fail(Kind::Deadline)).after(1));
    let held = Arc::new(Notify::new());
    house.bucket.inject(Fault::once("PutObject", Effect::Hold(held.clone())));
    let uploader = house.fs.start_uploader();
    until("the request", || house.bucket.count("PutObject") == 1).await;
    house.bucket.insert("f", "one", metadata);
    held.notify_one();
    all_sent(&house).await;
    uploader.stop().await;
    assert_eq!(kept_conflicts(&house), Vec::<Vec<u8>>::new());
    assert_eq!(house.bucket.bytes("f").unwrap(), "one");
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

#[tokio::test]
async fn a_close_after_a_chmod_of_which_nobody_heard_is_stored() {
    for killed in [false, true] {
        let house = patient_house_on(with_a_tag_of_parts("f").await, tempfile::tempdir().unwrap()).await;
        let ino = house.lookup(ROOT, "f").await.unwrap().ino;
        set_mode(&house, ino, 0o600).await;
        let is_set = |house: &House| {
            house.bucket.info("f").unwrap().metadata.get("file-permissions").is_some_and(|mode| mode == "0100600")
        };
        send_unheard(&house, "CopyObject", is_set).await;
        write_anew(&house, ino, b"two").await;
        let house = if killed {
            let (bucket, state) = crash(house, None).await;
            patient_house_on(bucket, state).await
        } else {
            house
        };
        let uploader = house.fs.start_uploader();
        all_sent(&house).await;
        uploader.stop().await;
        assert_eq!(kept_conflicts(&house), Vec::<Vec<u8>>::new());
        assert_eq!(house.bucket.bytes("f").unwrap(), "two");
    }
}

/// Of a large object only what has changed is here.
#[tokio::test]
async fn who_goes_on_writing_into_a_large_file_stands_on_the_version_that_nobody_heard_of() {
    let house = house().await;
    house.bucket.insert("f", vec![0; 20 << 20], Metadata::new());
    let ino = house.lookup(ROOT, "f").await.unwrap().ino;
    let opened = house.fs.open(ino, WRITE, ME).await.unwrap();
    house.fs.write(opened.handle, 0, b"one").await.unwrap();
    house.bucket.inject(Fault::once("CompleteMultipartUpload", Effect::LoseReply(Kind::Deadline)));
    house.fs.fsync(opened.handle).await.unwrap_err();
    house.fs.write(opened.handle, 3, b"two").await.unwrap();
    house.fs.fsync(opened.handle).await.unwrap();
    assert_eq!(house.bucket.bytes("f").unwrap().slice(..7), "onetwo\0");
    assert_eq!(house.fs.read(opened.handle, 10 << 20, 3).await.unwrap(), "\0\0\0");
}

#[tokio::test]
async fn a_chmod_whose_request_was_not_waited_for_is_sent_again() {
    let house = patient_house_on(with_a_tag_of_parts("f").await, tempfile::tempdir().unwrap()).await;
    let ino = house.lookup(ROOT, "f").await.unwrap().ino;
    set_mode(&house, ino, 0o600).await;
    house.bucket.inject(Fault::once("CopyObject", Effect::Hang));
    tokio::select! {
        _ = house.fs.sync(None) => panic!("it was not cut short"),
        () = until("the request", || house.bucket.count("CopyObject") == 1) => {}
    }
    assert_eq!(house.fs.sync(None).await.len(), 0);
    assert_eq!(permissions(&house, "f"), "0100600");
}

#[tokio::test]
async fn what_is_tried_again_and_again_is_in_doubt_once() {
    let house = house().await;
    let ino = house.write_file(ROOT, "f", b"one").await.ino;
    house.bucket.inject(Fault::once("PutObject", Effect::Fail(Kind::Busy)).times(3));
    for _ in 0..3 {
        assert_eq!(house.fs.sync(None).await.len(), 1);
    }
    write_anew(&house, ino, b"second").await;
    let intents = house.journal.open_intents().unwrap();
    let [(_, Intent::Deferred { size: 6, earlier, .. })] = &intents[..] else { panic!("not one close: {intents:?}") };
    assert_eq!(earlier.iter().map(|sent| sent.size).collect::<Vec<_>>(), [3]);
}

/// Copies of what was uploaded in parts have other tags.
#[tokio::test]
async fn a_close_follows_its_directory_though_the_copy_has_another_tag() {
    for batches in [0, 1] {
        let bucket = with_a_tag_of_parts("d/f").await;
        for number in 0..1000 {
            bucket.insert(&format!("d/{number:04}"), "plain", Metadata::new());
        }
        let house = patient_house_on(bucket, tempfile::tempdir().unwrap()).await;
        let directory = house.lookup(ROOT, "d").await.unwrap().ino;
        let ino = house.lookup(directory, "f").await.unwrap().ino;
        write_anew(&house, ino, b"two").await;
        // The last goes first.
        house.bucket.inject(Fault::once("DeleteObjects", Effect::Hang).after(batches));
        let deletes = || house.bucket.count("DeleteObjects") == u64::from(batches) + 1;
        tokio::select! {
            () = rename(&house, "d", "e") => panic!("it was not cut short"),
            () = until("the deletes", deletes) => {}
        }
        assert_eq!(house.bucket.bytes("d/f").is_some(), batches == 0);
        let house = sends_without_a_conflict(crash(house, None).await).await;
        assert_eq!(house.bucket.bytes("e/f").unwrap(), "two");
        assert_eq!(house.bucket.keys().iter().filter(|key| key.starts_with("d/")).count(), 0);
    }
}

#[tokio::test]
async fn a_chmod_during_the_look_is_not_undone_by_its_answer() {
    let (bucket, state) = sent_but_not_heard_of().await;
    let house = house_on(bucket, state).await;
    let ino = house.lookup(ROOT, "f").await.unwrap().ino;
    let before = house.bucket.count("HeadObject");
    let held = Arc::new(Notify::new());
    house.bucket.inject(Fault::once("HeadObject", Effect::Hold(held.clone())));
    let uploader = house.fs.start_uploader();
    until("the look", || house.bucket.count("HeadObject") > before).await;
    let changed = async {
        while house.fs.getattr(ino).await.unwrap().stat.perm != 0o600 {
            tokio::task::yield_now().await;
        }
        held.notify_one();
    };
    tokio::join!(set_mode(&house, ino, 0o600), changed);
    all_sent(&house).await;
    uploader.stop().await;
    assert_eq!(permissions(&house, "f"), "0100600");
    assert_eq!(house.lookup(ROOT, "f").await.unwrap().stat.perm, 0o600);
}

/// The deletes of a directory's rename come in several requests: one may fail after another was done.
#[tokio::test]
async fn a_close_below_a_directory_follows_it_though_not_all_of_it_can_be_deleted_now() {
    for (after, fate) in [(1, Effect::Fail(Kind::Deadline)), (0, Effect::LoseReply(Kind::Deadline))] {
        let bucket = Arc::new(MemoryBucket::new());
        bucket.insert("d/f", "old", Metadata::new());
        for number in 0..1000 {
            bucket.insert(&format!("d/{number:04}"), "plain", Metadata::new());
        }
        let house = house_on(bucket, tempfile::tempdir().unwrap()).await;
        let directory = house.lookup(ROOT, "d").await.unwrap().ino;
        let ino = house.lookup(directory, "f").await.unwrap().ino;
        write_anew(&house, ino, b"two").await;
        house.bucket.inject(Fault::once("DeleteObjects", fate).after(after));
        rename(&house, "d", "e").await;
        assert_eq!(house.names(ROOT).await, ["e"]);
        let house = sends_without_a_conflict(crash(house, None).await).await;
        assert_eq!(house.bucket.bytes("e/f").unwrap(), "two");
        house.fs.sync(None).await;
        assert_eq!(house.bucket.keys().len(), 1001);
        assert!(house.bucket.keys().iter().all(|key| key.starts_with("e/")));
    }
}

#[tokio::test]
async fn a_directory_of_which_nothing_may_be_deleted_keeps_its_name() {
    let house = house().await;
    house.bucket.insert("d/f", "old", Metadata::new());
    house.lookup(ROOT, "d").await.unwrap();
    house.bucket.inject(Fault::once("DeleteObjects", Effect::Fail(Kind::AccessDenied)));
    let renamed = house.fs.rename(ROOT, OsStr::new("d"), ROOT, OsStr::new("e"), 0).await;
    assert_eq!(renamed.unwrap_err().errno(), Errno::EACCES);
    assert_eq!(house.bucket.bytes("d/f").unwrap(), "old");
    assert!(house.names(ROOT).await.contains(&"d".to_owned()));
}

#[tokio::test]
async fn a_chmod_after_one_of_which_nobody_heard_survives_a_crash() {
    let house = patient_house_on(with_a_tag_of_parts("f").await, tempfile::tempdir().unwrap()).await;
    let ino = house.lookup(ROOT, "f").await.unwrap().ino;
    set_mode(&house, ino, 0o600).await;
    house.bucket.inject(Fault::once("CopyObject", Effect::LoseReply(Kind::Deadline)));
    assert_eq!(house.fs.sync(None).await.len(), 1);
    set_mode(&house, ino, 0o640).await;
    let (bucket, state) = crash(house, None).await;
    let house = patient_house_on(bucket, state).await;
    assert_eq!(permissions(&house, "f"), "0100640");
}

/// The closes below have their old names in the journal until the rename has ended there.
#[tokio::test]
async fn a_close_below_a_directory_outlives_a_death_between_the_deletes_and_the_end() {
    let bucket = Arc::new(MemoryBucket::new());
    bucket.insert("d/f", "old", Metadata::new());
    let house = house_on(bucket, tempfile::tempdir().unwrap()).await;
    let directory = house.lookup(ROOT, "d").await.unwrap().ino;
    let ino = house.lookup(directory, "f").await.unwrap().ino;
    write_anew(&house, ino, b"two").await;
    let rename = Intent::RenameTree { from: "d/".into(), to: "e/".into(), objects: Vec::new(), retagged: Vec::new() };
    let rename = house.journal.intend(rename).await.unwrap();
    let etag = Some(s3mount::journal::stored_etag(&house.bucket.info("d/f").unwrap().etag));
    let note = Note::Remove { key: "d/f".into(), etag, event: false, intent: Some(rename.0) };
    house.journal.note(&note).unwrap();
    let house = sends_without_a_conflict(crash(house, None).await).await;
    assert_eq!(house.bucket.bytes("e/f").unwrap(), "two");
    assert_eq!(house.bucket.keys(), ["e/f"]);
}

#[tokio::test]
async fn a_file_is_read_though_nobody_heard_of_its_chmod() {
    let house = patient_house_on(with_a_tag_of_parts("f").await, tempfile::tempdir().unwrap()).await;
    let ino = house.lookup(ROOT, "f").await.unwrap().ino;
    set_mode(&house, ino, 0o600).await;
    let before = house.bucket.info("f").unwrap().etag;
    send_unheard(&house, "CopyObject", |house| house.bucket.info("f").unwrap().etag != before).await;
    assert_eq!(house.read_file(ino).await, "old");
}

#[tokio::test]
async fn what_is_written_after_attributes_that_follow_parts_is_stored_on_top_of_them() {
    let house = house().await;
    let (entry, opened) = house.fs.create(ROOT, OsStr::new("f"), 0o644, WRITE, ME).await.unwrap();
    for at in 0..20 {
        house.fs.write(opened.handle, at << 20, &vec![7; 1 << 20]).await.unwrap();
    }
    until("an upload", || house.bucket.open_uploads() == 1).await;
    set_mode(&house, entry.ino, 0o600).await;
    house.bucket.inject(Fault::once("CopyObject", Effect::LoseReply(Kind::Deadline)));
    house.fs.fsync(opened.handle).await.unwrap_err();
    assert_eq!(house.bucket.count("CopyObject"), 1);
    house.fs.write(opened.handle, 0, b"two").await.unwrap();
    house.fs.fsync(opened.handle).await.unwrap();
    assert_eq!(kept_conflicts(&house), Vec::<Vec<u8>>::new());
    assert!(house.bucket.bytes("f").unwrap().starts_with(b"two\x07"));
    assert_eq!(permissions(&house, "f"), "0100600");
}
