//! Write-back: a close is safe on the local disk, S3 has it soon, and neither a crash nor an outage
//! nor another client makes a lie of either.

mod doubts;
mod kept;
mod model;
mod symlinks;
mod tree_model;

use s3mount::fs::{BacklogLimits, Uploader};

use super::*;

const LONG: Duration = Duration::from_mins(10);

fn waiting(limits: BacklogLimits) -> impl Fn(Settings) -> Settings {
    move |settings| Settings {
        write_back: Some(limits),
        attr_ttl: LONG,
        list_ttl: LONG,
        negative_ttl: LONG,
        // Enough for a few: the journal has those itself, and of the others it knows the files.
        draft_memory_bytes: 2048,
        ..settings
    }
}

/// A test machine's disk may be nearly full.
fn roomy() -> BacklogLimits {
    BacklogLimits { free_percent: 0, ..BacklogLimits::default() }
}

/// A write-back mount whose uploader has not begun yet.
async fn house() -> House {
    house_on(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap()).await
}

async fn house_on(bucket: Arc<MemoryBucket>, state: tempfile::TempDir) -> House {
    House::with(bucket, state, waiting(roomy())).await
}

/// Killed; what was on its way is given up.
async fn crash(house: House, uploader: Option<Uploader>) -> (Arc<MemoryBucket>, tempfile::TempDir) {
    if let Some(uploader) = uploader {
        uploader.stop().await;
    }
    let House { bucket, fs, state, .. } = house;
    drop(fs);
    (bucket, state)
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(30), "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn all_sent(house: &House) {
    until("everything in S3", || house.fs.count_unstored() == 0 && house.fs.status().pending.files == 0).await;
}

/// Requests beside listings: what changes and reads objects.
fn requests(house: &House) -> u64 {
    house.bucket.requests().iter().filter(|(name, _)| **name != "ListObjectsV2").map(|(_, count)| count).sum()
}

async fn rename(house: &House, from: &str, to: &str) {
    house.fs.rename(ROOT, OsStr::new(from), ROOT, OsStr::new(to), 0).await.unwrap();
}

/// Opens an existing file, writes and closes.
async fn rewrite(house: &House, ino: Ino, offset: u64, bytes: &[u8]) {
    let opened = house.fs.open(ino, WRITE, ME).await.unwrap();
    house.fs.write(opened.handle, offset, bytes).await.unwrap();
    house.fs.flush(opened.handle, ME).await.unwrap();
    house.fs.release(opened.handle).await.unwrap();
}

fn kept_conflicts(house: &House) -> Vec<Vec<u8>> {
    let drafts = std::fs::read_dir(house.state.path().join("drafts")).unwrap().map(|entry| entry.unwrap().path());
    let kept = drafts.filter(|path| path.extension().is_some_and(|ending| ending == "conflict"));
    kept.map(|path| std::fs::read(path).unwrap()).collect()
}

fn drafts(house: &House) -> usize {
    std::fs::read_dir(house.state.path().join("drafts")).unwrap().count()
}

#[tokio::test]
async fn two_hundred_closed_files_are_two_hundred_puts_that_no_close_waits_for() {
    let house = house().await;
    for number in 0..200_u8 {
        house.write_file(ROOT, &format!("f{number}"), &[number; 4096]).await;
    }
    assert_eq!(requests(&house), 0);
    assert_eq!(house.fs.status().pending.files, 200);
    assert_eq!(house.fs.status().pending.bytes, 200 * 4096);
    let uploader = house.fs.start_uploader();
    all_sent(&house).await;
    assert_eq!(house.bucket.count("PutObject"), 200);
    assert_eq!(requests(&house), 200);
    assert_eq!(house.bucket.bytes("f7").unwrap(), vec![7; 4096]);
    assert_eq!(drafts(&house), 0, "nothing is left on the local disk");
    uploader.stop().await;
}

#[tokio::test]
async fn what_is_not_sent_yet_is_shown_and_written_on_here() {
    let house = house().await;
    let ino = house.write_file(ROOT, "f", b"12345").await.ino;
    assert_eq!(house.read_file(ino).await, "12345");
    rewrite(&house, ino, 1, b"XY").await;
    assert_eq!(house.read_file(ino).await, "1XY45");
    assert_eq!(house.names(ROOT).await, ["f"]);
    assert_eq!(house.lookup(ROOT, "f").await.unwrap().stat.size, 5);
    let uploader = house.fs.start_uploader();
    all_sent(&house).await;
    assert_eq!(house.bucket.count("PutObject"), 1, "what was overtaken before it began is not sent");
    assert_eq!(house.bucket.bytes("f").unwrap(), "1XY45");
    uploader.stop().await;
}

#[tokio::test]
async fn a_rename_before_sending_costs_nothing_but_the_put() {
    let house = house().await;
    house.write_file(ROOT, "t.tmp", b"new").await;
    rename(&house, "t.tmp", "t").await;
    assert_eq!(requests(&house), 0);
    assert_eq!(house.names(ROOT).await, ["t"]);
    let uploader = house.fs.start_uploader();
    all_sent(&house).await;
    assert_eq!(house.bucket.keys(), ["t"]);
    assert_eq!(requests(&house), 1);
    uploader.stop().await;
}

#[tokio::test]
async fn a_rename_over_a_stored_file_replaces_it_by_the_put() {
    let house = house().await;
    house.bucket.insert("t", "old", Metadata::new());
    house.lookup(ROOT, "t").await.unwrap();
    let ino = house.write_file(ROOT, "t.tmp", b"newer").await.ino;
    let reader = house.fs.open(ino, libc::O_RDONLY, ME).await.unwrap();
    rename(&house, "t.tmp", "t").await;
    assert_eq!(house.bucket.bytes("t").unwrap(), "old");
    assert_eq!(house.read_file(house.lookup(ROOT, "t").await.unwrap().ino).await, "newer");
    let uploader = house.fs.start_uploader();
    all_sent(&house).await;
    assert_eq!(house.bucket.keys(), ["t"]);
    assert_eq!(house.bucket.bytes("t").unwrap(), "newer");
    assert_eq!((house.bucket.count("PutObject"), house.bucket.count("CopyObject")), (1, 0));
    // Who had it open before goes on reading it.
    assert_eq!(house.fs.read(reader.handle, 0, 100).await.unwrap(), "newer");
    uploader.stop().await;
}

#[tokio::test]
async fn a_rename_over_a_file_that_waits_too_sends_only_the_last() {
    let house = house().await;
    house.write_file(ROOT, "t", b"old").await;
    house.write_file(ROOT, "t.tmp", b"newer").await;
    rename(&house, "t.tmp", "t").await;
    let (bucket, state) = crash(house, None).await;
    let house = house_on(bucket, state).await;
    let uploader = house.fs.start_uploader();
    all_sent(&house).await;
    assert_eq!(house.bucket.keys(), ["t"]);
    assert_eq!(house.bucket.bytes("t").unwrap(), "newer");
    assert_eq!(house.bucket.count("PutObject"), 1);
    uploader.stop().await;
}

#[tokio::test]
async fn a_rename_over_a_file_that_is_being_sent_comes_after_it() {
    let house = house().await;
    house.bucket.inject(Fault::once("PutObject", Effect::Delay(Duration::from_millis(300))));
    house.write_file(ROOT, "t", b"old").await;
    let uploader = house.fs.start_uploader();
    until("the upload", || house.fs.status().pending.sending == 1).await;
    house.write_file(ROOT, "t.tmp", b"newer").await;
    rename(&house, "t.tmp", "t").await;
    all_sent(&house).await;
    assert_eq!(house.bucket.keys(), ["t"]);
    assert_eq!(house.bucket.bytes("t").unwrap(), "newer");
    assert!(kept_conflicts(&house).is_empty());
    uploader.stop().await;
}

#[tokio::test]
async fn what_is_removed_before_sending_is_never_sent() {
    let house = house().await;
    house.write_file(ROOT, "f", b"x").await;
    house.fs.unlink(ROOT, OsStr::new("f")).await.unwrap();
    assert_eq!(house.fs.status().pending.files, 0);
    let (bucket, state) = crash(house, None).await;
    let house = house_on(bucket, state).await;
    assert_eq!((requests(&house), house.fs.count_unstored(), drafts(&house)), (0, 0, 0));
}

#[tokio::test]
async fn modes_times_sizes_and_attributes_ride_along() {
    let house = house().await;
    let ino = house.write_file(ROOT, "f", b"0123456789").await.ino;
    let past = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let set = SetAttr { mode: Some(0o600), mtime: Some(NewTime::At(past)), ..SetAttr::default() };
    house.fs.setattr(ino, SetAttr { size: Some(4), ..SetAttr::default() }).await.unwrap();
    house.fs.setattr(ino, set).await.unwrap();
    house.fs.setxattr(ino, OsStr::new("user.k"), b"v", 0).await.unwrap();
    assert_eq!(requests(&house), 0);
    // Not even a crash loses them.
    let (bucket, state) = crash(house, None).await;
    let house = house_on(bucket, state).await;
    let uploader = house.fs.start_uploader();
    all_sent(&house).await;
    assert_eq!(house.bucket.bytes("f").unwrap(), "0123");
    assert_eq!(house.bucket.count("PutObject"), 1);
    let stored = Attributes::from_metadata(&house.bucket.info("f").unwrap().metadata);
    assert_eq!((stored.mode.unwrap() & 0o7777, stored.mtime), (0o600, Some(past)));
    assert_eq!(stored.xattrs["user.k"], b"v");
    uploader.stop().await;
}

#[tokio::test]
async fn fsync_and_sync_mean_s3() {
    let house = house().await;
    let (_, opened) = house.fs.create(ROOT, OsStr::new("a"), 0o644, WRITE, ME).await.unwrap();
    house.fs.write(opened.handle, 0, b"synced").await.unwrap();
    house.fs.fsync(opened.handle).await.unwrap();
    assert_eq!(house.bucket.bytes("a").unwrap(), "synced");
    house.write_file(ROOT, "b", b"closed").await;
    assert!(house.fs.sync(None).await.is_empty());
    assert_eq!(house.bucket.bytes("b").unwrap(), "closed");
    assert_eq!(house.bucket.count("PutObject"), 2);
    assert_eq!(house.fs.status().pending.files, 0);
}

#[tokio::test]
async fn sync_names_what_it_could_not_store() {
    let house = house().await;
    house.write_file(ROOT, "a", b"x").await;
    house.write_file(ROOT, "b", b"x").await;
    house.bucket.inject(Fault::once("PutObject", Effect::Fail(Kind::AccessDenied)).on_key("a"));
    let left = house.fs.sync(None).await;
    assert_eq!(left.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(house.bucket.keys(), ["b"]);
    house.bucket.inject(Fault::once("PutObject", Effect::Hang));
    let left = house.fs.sync(Some(Duration::from_millis(50))).await;
    assert_eq!(left.len(), 1, "in time");
    assert!(house.fs.sync(None).await.is_empty());
}

#[tokio::test]
async fn a_crash_before_sending_loses_nothing_and_shows_it_at_once() {
    let house = house().await;
    let directory = house.fs.mkdir(ROOT, OsStr::new("d"), 0o750, ME).await.unwrap().ino;
    house.write_file(directory, "f", b"acknowledged").await;
    let (bucket, state) = crash(house, None).await;
    bucket.inject(Fault::always(Effect::Fail(Kind::Unreachable)).on_key("d/f"));
    let house = house_on(bucket, state).await;
    let directory = house.lookup(ROOT, "d").await.unwrap();
    assert_eq!(directory.stat.perm, 0o750);
    assert_eq!(house.names(directory.ino).await, ["f"]);
    assert_eq!(house.read_file(house.lookup(directory.ino, "f").await.unwrap().ino).await, "acknowledged");
}

#[tokio::test]
async fn the_next_mount_sends_what_is_left_whatever_its_options() {
    let house = house().await;
    for number in 0..50 {
        house.write_file(ROOT, &format!("f{number}"), format!("{number}").as_bytes()).await;
    }
    let (bucket, state) = crash(house, None).await;
    let house = House::on(bucket, state).await;
    assert_eq!(house.bucket.keys().len(), 50, "before anything is served");
    assert_eq!(house.bucket.bytes("f17").unwrap(), "17");
    assert_eq!(drafts(&house), 0);
}

#[tokio::test]
async fn a_mount_that_cannot_send_what_is_left_shows_it_and_goes_on_trying() {
    let house = house().await;
    let ino = house.write_file(ROOT, "f", b"acknowledged").await.ino;
    let (bucket, state) = crash(house, None).await;
    bucket.inject(Fault::once("PutObject", Effect::Fail(Kind::AccessDenied)));
    let house = House::on(bucket, state).await;
    assert_eq!(house.lookup(ROOT, "f").await.unwrap().ino, ino);
    assert_eq!(house.read_file(ino).await, "acknowledged");
    house.fs.retry_unstored().await;
    assert_eq!(house.bucket.bytes("f").unwrap(), "acknowledged");
}

#[tokio::test]
async fn a_crash_in_the_middle_of_a_rewrite_leaves_the_version_that_was_closed() {
    let house = house().await;
    let ino = house.write_file(ROOT, "f", b"acknowledged").await.ino;
    let cut = house.fs.open(ino, WRITE | libc::O_TRUNC, ME).await.unwrap();
    house.fs.write(cut.handle, 0, b"half").await.unwrap();
    let other = house.write_file(ROOT, "g", b"acknowledged").await.ino;
    let within = house.fs.open(other, WRITE, ME).await.unwrap();
    house.fs.write(within.handle, 3, b"XXX").await.unwrap();
    house.fs.write(within.handle, 12, b" and more").await.unwrap();
    let (bucket, state) = crash(house, None).await;
    let house = House::on(bucket, state).await;
    for name in ["f", "g"] {
        assert_eq!(house.bucket.bytes(name).unwrap(), "acknowledged", "{name}");
    }
}

#[tokio::test]
async fn an_upload_that_a_crash_hides_is_found_and_not_taken_for_somebody_elses() {
    let house = house().await;
    house.bucket.insert("f", "before", Metadata::new());
    let ino = house.lookup(ROOT, "f").await.unwrap().ino;
    rewrite(&house, ino, 0, b"after!").await;
    house.bucket.inject(Fault::once("PutObject", Effect::LoseReply(Kind::Deadline)));
    let uploader = house.fs.start_uploader();
    until("the upload", || house.bucket.bytes("f").unwrap() == "after!").await;
    let (bucket, state) = crash(house, Some(uploader)).await;
    let house = house_on(bucket, state).await;
    // A program goes on with it before anybody has looked.
    let ino = house.lookup(ROOT, "f").await.unwrap().ino;
    rewrite(&house, ino, 0, b"AFTER!").await;
    let uploader = house.fs.start_uploader();
    all_sent(&house).await;
    assert_eq!(house.bucket.bytes("f").unwrap(), "AFTER!");
    assert!(kept_conflicts(&house).is_empty());
    uploader.stop().await;
}

#[tokio::test]
async fn what_an_upload_without_an_answer_has_stored_is_removed_and_renamed_too() {
    let house = house().await;
    house.bucket.inject(Fault::once("PutObject", Effect::LoseReply(Kind::Deadline)).times(2));
    house.write_file(ROOT, "removed", b"x").await;
    assert_eq!(house.fs.sync(None).await.len(), 1);
    assert_eq!(house.bucket.keys(), ["removed"]);
    house.fs.unlink(ROOT, OsStr::new("removed")).await.unwrap();
    house.write_file(ROOT, "renamed", b"y").await;
    assert_eq!(house.fs.sync(None).await.len(), 1);
    assert_eq!(house.bucket.keys(), ["renamed"]);
    rename(&house, "renamed", "r").await;
    assert!(house.fs.sync(None).await.is_empty());
    assert_eq!(house.bucket.keys(), ["r"]);
}

#[tokio::test]
async fn a_rename_outlives_a_crash() {
    let house = house().await;
    let directory = house.fs.mkdir(ROOT, OsStr::new("d"), 0o755, ME).await.unwrap().ino;
    house.write_file(directory, "f", b"in a directory").await;
    house.write_file(ROOT, "a", b"by itself").await;
    rename(&house, "d", "e").await;
    rename(&house, "a", "b").await;
    assert_eq!(house.read_file(house.lookup(directory, "f").await.unwrap().ino).await, "in a directory");
    let (bucket, state) = crash(house, None).await;
    let house = House::on(bucket, state).await;
    assert_eq!(house.bucket.keys(), ["b", "e/", "e/f"]);
    assert_eq!(house.bucket.bytes("e/f").unwrap(), "in a directory");
}

#[tokio::test]
async fn a_directory_rename_cut_by_a_crash_takes_what_waits_with_it() {
    let house = house().await;
    let directory = house.fs.mkdir(ROOT, OsStr::new("d"), 0o755, ME).await.unwrap().ino;
    let stored = house.write_file(directory, "stored", b"1").await.ino;
    assert!(house.fs.sync(None).await.is_empty());
    rewrite(&house, stored, 0, b"2").await;
    house.write_file(directory, "new", b"3").await;
    let (bucket, state) = crash(house, None).await;
    let journal = Journal::open(&state.path().join("journal")).unwrap();
    let cut = s3mount::journal::Intent::RenameTree {
        from: "d/".into(),
        to: "e/".into(),
        objects: Vec::new(),
        retagged: Vec::new(),
    };
    journal.intend(cut).await.unwrap();
    drop(journal);
    let house = house_on(bucket, state).await;
    // Another crash right then finds the new names.
    let (bucket, state) = crash(house, None).await;
    let house = House::on(bucket, state).await;
    assert_eq!(house.bucket.keys(), ["e/", "e/new", "e/stored"]);
    assert_eq!(house.bucket.bytes("e/stored").unwrap(), "2");
    assert!(kept_conflicts(&house).is_empty());
}

#[tokio::test]
async fn each_version_that_is_sent_is_one_event() {
    let change = |settings| Settings { events: true, ..waiting(roomy())(settings) };
    let house = House::with(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap(), change).await;
    let ino = house.write_file(ROOT, "f", b"1").await.ino;
    rewrite(&house, ino, 0, b"2").await;
    assert!(house.fs.sync(None).await.is_empty());
    rewrite(&house, ino, 0, b"3").await;
    assert!(house.fs.sync(None).await.is_empty());
    let (_bucket, state) = crash(house, None).await;
    let journal = Journal::open(&state.path().join("journal")).unwrap();
    let events: Vec<_> = journal.events(10).unwrap().into_iter().map(|event| event.fact.key).collect();
    assert_eq!(events, ["f", "f"]);
    assert!(journal.open_intents().unwrap().is_empty());
}

#[tokio::test]
async fn a_directorys_rename_does_not_wait_for_a_long_queue() {
    let house = house().await;
    house.fs.mkdir(ROOT, OsStr::new("d"), 0o755, ME).await.unwrap();
    let delayed = Fault::once("PutObject", Effect::Delay(Duration::from_millis(30)));
    house.bucket.inject(delayed.times(1_000));
    for number in 0..300 {
        house.write_file(ROOT, &format!("f{number}"), b"x").await;
    }
    let uploader = house.fs.start_uploader();
    until("uploads", || house.fs.status().pending.sending > 0).await;
    rename(&house, "d", "e").await;
    assert!(house.fs.status().pending.files > 0, "the rename waited for all");
    all_sent(&house).await;
    uploader.stop().await;
}

#[tokio::test]
async fn an_outage_holds_up_no_close_and_its_end_sends_all() {
    let house = house().await;
    house.names(ROOT).await;
    house.bucket.inject(Fault { operation: Some("PutObject"), ..Fault::always(Effect::Fail(Kind::Unreachable)) });
    let uploader = house.fs.start_uploader();
    for number in 0..40 {
        house.write_file(ROOT, &format!("f{number}"), b"x").await;
    }
    until("a failure", || house.fs.status().pending.last_error.is_some()).await;
    assert_eq!(house.fs.count_unstored(), 40);
    house.bucket.heal();
    all_sent(&house).await;
    assert_eq!(house.bucket.keys().len(), 40);
    uploader.stop().await;
}

#[tokio::test]
async fn a_refused_file_is_told_and_holds_up_no_other() {
    let house = house().await;
    let refused = Fault { operation: Some("PutObject"), ..Fault::always(Effect::Fail(Kind::AccessDenied)) };
    house.bucket.inject(refused.on_key("refused"));
    house.write_file(ROOT, "refused", b"x").await;
    let uploader = house.fs.start_uploader();
    for number in 0..10 {
        house.write_file(ROOT, &format!("f{number}"), b"x").await;
    }
    until("the others", || house.bucket.keys().len() == 10).await;
    until("the failure", || house.fs.status().pending.last_error.is_some()).await;
    let status = house.fs.status();
    assert!(status.pending.last_error.unwrap().contains("AccessDenied"));
    assert_eq!(status.dirty_files, ["refused"]);
    uploader.stop().await;
}

#[tokio::test]
async fn another_clients_version_is_not_overwritten_and_ours_is_kept() {
    let house = house().await;
    let ino = house.write_file(ROOT, "f", b"ours").await.ino;
    house.bucket.insert("f", "theirs", Metadata::new());
    let uploader = house.fs.start_uploader();
    all_sent(&house).await;
    assert_eq!(house.bucket.bytes("f").unwrap(), "theirs");
    assert_eq!(kept_conflicts(&house), [b"ours"]);
    assert_eq!(house.fs.status().conflicts, 1);
    let ino_now = house.lookup(ROOT, "f").await.unwrap().ino;
    assert_eq!(house.read_file(ino_now).await, "theirs");
    assert_eq!(ino_now, ino, "nobody had it open");
    uploader.stop().await;
}

#[tokio::test]
async fn a_target_that_another_client_replaced_keeps_theirs() {
    let house = house().await;
    house.bucket.insert("t", "old", Metadata::new());
    house.lookup(ROOT, "t").await.unwrap();
    house.write_file(ROOT, "t.tmp", b"ours").await;
    rename(&house, "t.tmp", "t").await;
    house.bucket.insert("t", "theirs", Metadata::new());
    let uploader = house.fs.start_uploader();
    all_sent(&house).await;
    assert_eq!(house.bucket.bytes("t").unwrap(), "theirs");
    assert_eq!(kept_conflicts(&house), [b"ours"]);
    assert_eq!(house.read_file(house.lookup(ROOT, "t").await.unwrap().ino).await, "theirs");
    uploader.stop().await;
}

#[tokio::test]
async fn a_close_while_the_last_version_is_sent_is_sent_after_it() {
    let house = house().await;
    let delayed = Fault::once("PutObject", Effect::Delay(Duration::from_millis(200)));
    house.bucket.inject(delayed);
    let ino = house.write_file(ROOT, "f", b"first").await.ino;
    let uploader = house.fs.start_uploader();
    until("the upload", || house.fs.status().pending.sending == 1).await;
    rewrite(&house, ino, 0, b"FIRST and last").await;
    all_sent(&house).await;
    assert_eq!(house.bucket.bytes("f").unwrap(), "FIRST and last");
    assert_eq!(house.bucket.count("PutObject"), 2);
    assert!(kept_conflicts(&house).is_empty());
    uploader.stop().await;
}

#[tokio::test]
async fn what_somebody_writes_to_is_not_sent_half() {
    let house = house().await;
    let ino = house.write_file(ROOT, "f", b"whole").await.ino;
    let opened = house.fs.open(ino, WRITE, ME).await.unwrap();
    house.fs.write(opened.handle, 0, b"half").await.unwrap();
    house.write_file(ROOT, "g", b"x").await;
    let uploader = house.fs.start_uploader();
    until("the other file", || house.bucket.info("g").is_some()).await;
    assert!(house.bucket.info("f").is_none());
    house.fs.flush(opened.handle, ME).await.unwrap();
    house.fs.release(opened.handle).await.unwrap();
    all_sent(&house).await;
    assert_eq!(house.bucket.bytes("f").unwrap(), "halfe");
    assert_eq!(house.bucket.count("PutObject"), 2);
    uploader.stop().await;
}

#[tokio::test]
async fn beyond_the_bound_a_close_goes_at_the_pace_of_s3() {
    let few = BacklogLimits { files: 2, free_percent: 0 };
    let house = House::with(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap(), waiting(few)).await;
    for name in ["a", "b", "c"] {
        house.write_file(ROOT, name, b"x").await;
    }
    assert_eq!(house.bucket.keys(), ["c"], "it stored its file itself");
    house.bucket.inject(Fault::once("PutObject", Effect::Fail(Kind::Unreachable)));
    let (_, opened) = house.fs.create(ROOT, OsStr::new("d"), 0o644, WRITE, ME).await.unwrap();
    house.fs.write(opened.handle, 0, b"x").await.unwrap();
    assert_eq!(house.fs.flush(opened.handle, ME).await.unwrap_err().errno(), Errno::EHOSTUNREACH);
    house.fs.release(opened.handle).await.unwrap();
    let full = BacklogLimits { free_percent: 100, ..BacklogLimits::default() };
    let house = House::with(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap(), waiting(full)).await;
    house.write_file(ROOT, "a", b"x").await;
    assert_eq!(house.bucket.keys(), ["a"], "there is too little room on the disk");
}

#[tokio::test]
async fn a_write_into_a_stored_file_fetches_the_rest_and_waits() {
    let house = house().await;
    house.bucket.insert("f", "0123456789", Metadata::from([("color".into(), "red".into())]));
    let ino = house.lookup(ROOT, "f").await.unwrap().ino;
    rewrite(&house, ino, 3, b"XY").await;
    assert_eq!(house.bucket.bytes("f").unwrap(), "0123456789");
    let (bucket, state) = crash(house, None).await;
    let house = House::on(bucket, state).await;
    assert_eq!(house.bucket.bytes("f").unwrap(), "012XY56789");
    assert_eq!(house.bucket.info("f").unwrap().metadata["color"], "red");
}

#[tokio::test]
async fn a_file_tells_whether_it_waits() {
    let house = house().await;
    let ino = house.write_file(ROOT, "f", b"x").await.ino;
    let name = OsStr::new("user.s3.pending");
    assert_eq!(house.fs.getxattr(ino, name).await.unwrap(), b"1");
    assert_eq!(house.fs.listxattr(ino).unwrap(), b"");
    assert_eq!(house.fs.setxattr(ino, name, b"0", 0).await.unwrap_err().errno(), Errno::EPERM);
    assert!(house.fs.sync(None).await.is_empty());
    assert_eq!(house.fs.getxattr(ino, name).await.unwrap(), b"0");
    assert!(Attributes::from_metadata(&house.bucket.info("f").unwrap().metadata).xattrs.is_empty());
}

#[tokio::test]
async fn what_is_left_at_the_end_waits_for_the_next_start() {
    let house = house().await;
    house.write_file(ROOT, "f", b"x").await;
    let gone = Fault { operation: Some("PutObject"), ..Fault::always(Effect::Fail(Kind::Unreachable)) };
    house.bucket.inject(gone);
    let left = house.fs.drain(Duration::from_secs(1)).await;
    assert_eq!(left.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["f"]);
    let (bucket, state) = crash(house, None).await;
    bucket.heal();
    let house = House::on(bucket, state).await;
    assert_eq!(house.bucket.bytes("f").unwrap(), "x");
}

#[tokio::test]
async fn a_file_that_stays_open_is_stored_every_now_and_then() {
    for write_back in [None, Some(roomy())] {
        let change = move |settings| Settings { write_back, ..settings };
        let house = House::with(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap(), change).await;
        house.fs.keep_storing_open_files(Duration::from_millis(50));
        let (_, opened) = house.fs.create(ROOT, OsStr::new("log"), 0o644, WRITE, ME).await.unwrap();
        house.fs.write(opened.handle, 0, b"one\n").await.unwrap();
        until("the first line", || house.bucket.bytes("log").is_some_and(|log| log == "one\n")).await;
        house.fs.write(opened.handle, 4, b"two\n").await.unwrap();
        until("the second line", || house.bucket.bytes("log").is_some_and(|log| log == "one\ntwo\n")).await;
        let puts = house.bucket.count("PutObject");
        house.fs.flush(opened.handle, ME).await.unwrap();
        house.fs.release(opened.handle).await.unwrap();
        assert_eq!(house.bucket.count("PutObject"), puts, "the close has nothing left to store");
    }
}
