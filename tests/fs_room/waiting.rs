//! Attributes of closed files wait a moment for what carries them, and are lost by nothing meanwhile.

use super::*;

/// The uploader has not begun: what waits goes on waiting until something carries it.
async fn house() -> House {
    house_on(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap()).await
}

async fn house_on(bucket: Arc<MemoryBucket>, state: tempfile::TempDir) -> House {
    let long = Duration::from_mins(10);
    let waiting = |settings| Settings { attributes_wait: true, attr_ttl: long, list_ttl: long, ..settings };
    House::with(bucket, state, waiting).await
}

async fn chmod(house: &House, ino: Ino, mode: u32) {
    let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
    assert_eq!(u32::from(house.fs.setattr(ino, set).await.unwrap().stat.perm), mode);
}

async fn stored_mode(house: &House, key: &str) -> u32 {
    let there = house.bucket.head(key).await.unwrap();
    Attributes::from_metadata(&there.metadata).mode.unwrap() & 0o7777
}

fn changes(house: &House) -> Vec<(&'static str, u64)> {
    let requests = house.bucket.requests();
    ["PutObject", "CopyObject"].map(|name| (name, requests.get(name).copied().unwrap_or_default())).to_vec()
}

fn open_notes(house: &House) -> usize {
    house.journal.open_notes().unwrap().len()
}

/// As `kill -9` leaves it.
async fn crash(house: House) -> (Arc<MemoryBucket>, tempfile::TempDir) {
    let House { bucket, fs, journal, state, .. } = house;
    fs.stop_removals().await;
    drop((fs, journal));
    (bucket, state)
}

/// Numbers go round where a file is written under one name and renamed to another, again and again, as git does with
/// its configuration.
#[tokio::test]
async fn what_waits_for_a_file_is_not_said_of_the_next_that_gets_its_number() {
    let house = House::with(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap(), |settings| {
        let long = Duration::from_mins(10);
        Settings { attributes_wait: true, attr_ttl: long, list_ttl: long, negative_ttl: long, ..settings }
    });
    let house = Arc::new(house.await);
    let rename = async |house: &House| house.fs.rename(ROOT, OsStr::new("lock"), ROOT, OsStr::new("config"), 0).await;
    let first = house.write_file(ROOT, "lock", b"first").await.ino;
    rename(&house).await.unwrap();
    chmod(&house, first, 0o600).await;
    house.write_file(ROOT, "lock", b"second").await;
    let copied = house.bucket.count("CopyObject");
    house.bucket.inject(Fault::once("CopyObject", Effect::Delay(Duration::from_millis(100))));
    let replacing = tokio::spawn({
        let house = house.clone();
        async move {
            rename(&house).await.unwrap();
            house.fs.forget(first, 1);
            let (entry, opened) = house.fs.create(ROOT, OsStr::new("lock"), 0o644, WRITE, ME).await.unwrap();
            assert_eq!(entry.ino, first, "no number was given again");
            opened.handle
        }
    });
    while house.bucket.count("CopyObject") == copied {
        tokio::task::yield_now().await;
    }
    // Waits for the file that is being replaced.
    assert!(house.fs.sync(None).await.is_empty());
    let third = replacing.await.unwrap();
    assert_eq!(house.bucket.bytes("lock"), None, "nobody has closed it yet");
    house.fs.write(third, 0, b"third").await.unwrap();
    house.fs.flush(third, ME).await.unwrap();
    house.fs.release(third).await.unwrap();
    assert_eq!(
        (&house.bucket.bytes("config").unwrap()[..], &house.bucket.bytes("lock").unwrap()[..]),
        (&b"second"[..], &b"third"[..])
    );
    assert_eq!(house.fs.status().conflicts, 0);
}

#[tokio::test]
async fn a_file_that_is_written_dated_and_renamed_costs_a_put_and_a_copy() {
    let house = house().await;
    // What rsync does with each file.
    let ino = house.write_file(ROOT, ".f.tmp", b"bytes").await.ino;
    let past = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let dated = SetAttr { mtime: Some(NewTime::At(past)), ..SetAttr::default() };
    house.fs.setattr(ino, dated).await.unwrap();
    chmod(&house, ino, 0o640).await;
    house.fs.rename(ROOT, OsStr::new(".f.tmp"), ROOT, OsStr::new("f"), 0).await.unwrap();
    assert_eq!(changes(&house), [("PutObject", 1), ("CopyObject", 1)]);
    assert_eq!(stored_mode(&house, "f").await, 0o640);
    house.fs.settle_removals().await.unwrap();
    assert_eq!((house.fs.count_unstored(), open_notes(&house)), (0, 0));
    let stat = house.fs.getattr(ino).await.unwrap().stat;
    assert_eq!((stat.perm, stat.mtime), (0o640, past));
}

#[tokio::test]
async fn the_next_write_carries_them() {
    let house = house().await;
    let ino = house.write_file(ROOT, "f", b"one").await.ino;
    chmod(&house, ino, 0o600).await;
    let opened = house.fs.open(ino, WRITE, ME).await.unwrap();
    house.fs.write(opened.handle, 0, b"two").await.unwrap();
    house.fs.flush(opened.handle, ME).await.unwrap();
    house.fs.release(opened.handle).await.unwrap();
    assert_eq!(changes(&house), [("PutObject", 2), ("CopyObject", 0)]);
    assert_eq!((stored_mode(&house, "f").await, open_notes(&house)), (0o600, 0));
}

#[tokio::test]
async fn without_anything_to_carry_them_they_are_sent_soon_and_once() {
    let house = house().await;
    let ino = house.write_file(ROOT, "f", b"bytes").await.ino;
    chmod(&house, ino, 0o600).await;
    chmod(&house, ino, 0o640).await;
    assert_eq!((stored_mode(&house, "f").await, open_notes(&house)), (0o644, 1));
    let uploader = house.fs.start_uploader();
    while house.fs.count_unstored() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    uploader.stop().await;
    assert_eq!(changes(&house), [("PutObject", 1), ("CopyObject", 1)]);
    assert_eq!((stored_mode(&house, "f").await, open_notes(&house)), (0o640, 0));
    assert_eq!(house.read_file(ino).await, "bytes");
}

#[tokio::test]
async fn fsync_sync_and_the_end_of_the_mount_wait_for_them() {
    let house = house().await;
    let ino = house.write_file(ROOT, "f", b"bytes").await.ino;
    chmod(&house, ino, 0o600).await;
    let opened = house.fs.open(ino, libc::O_RDONLY, ME).await.unwrap();
    house.fs.fsync(opened.handle).await.unwrap();
    house.fs.release(opened.handle).await.unwrap();
    assert_eq!(stored_mode(&house, "f").await, 0o600);
    chmod(&house, ino, 0o640).await;
    assert!(house.fs.sync(None).await.is_empty());
    assert_eq!(stored_mode(&house, "f").await, 0o640);
    chmod(&house, ino, 0o700).await;
    assert!(house.fs.drain(Duration::from_secs(5)).await.is_empty());
    assert_eq!((stored_mode(&house, "f").await, open_notes(&house)), (0o700, 0));
}

#[tokio::test]
async fn the_end_of_the_mount_waits_for_those_that_are_on_their_way() {
    let house = house().await;
    let ino = house.write_file(ROOT, "f", b"bytes").await.ino;
    house.bucket.inject(Fault::once("CopyObject", Effect::Delay(Duration::from_millis(200))));
    chmod(&house, ino, 0o600).await;
    let uploader = house.fs.start_uploader();
    while house.bucket.count("CopyObject") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(house.fs.drain(Duration::from_secs(5)).await.is_empty());
    uploader.stop().await;
    assert_eq!((stored_mode(&house, "f").await, open_notes(&house)), (0o600, 0));
}

#[tokio::test]
async fn a_crash_loses_none_and_the_next_start_sends_them() {
    let house = house().await;
    let file = house.write_file(ROOT, "f", b"bytes").await.ino;
    let empty = house.write_file(ROOT, "empty", b"").await.ino;
    let gone = house.write_file(ROOT, "gone", b"bytes").await.ino;
    for ino in [file, empty, gone] {
        chmod(&house, ino, 0o600).await;
    }
    house.fs.unlink(ROOT, OsStr::new("gone")).await.unwrap();
    let (bucket, state) = crash(house).await;
    let house = house_on(bucket, state).await;
    assert_eq!((stored_mode(&house, "f").await, stored_mode(&house, "empty").await), (0o600, 0o600));
    assert_eq!(house.bucket.keys(), ["empty", "f"]);
    assert_eq!(open_notes(&house), 0);
    assert_eq!(house.lookup(ROOT, "f").await.unwrap().stat.perm, 0o600);
}

#[tokio::test]
async fn another_clients_version_does_not_get_them() {
    let house = house().await;
    let ino = house.write_file(ROOT, "f", b"ours").await.ino;
    chmod(&house, ino, 0o600).await;
    house.bucket.insert("f", "theirs", Metadata::new());
    assert!(!house.fs.sync(None).await.is_empty());
    assert_eq!((house.fs.count_unstored(), open_notes(&house)), (0, 0));
    let ino = house.lookup(ROOT, "f").await.unwrap().ino;
    assert_eq!(house.read_file(ino).await, "theirs");
    assert!(house.bucket.head("f").await.unwrap().metadata.is_empty());
    // Nor after a crash.
    let ours = house.write_file(ROOT, "g", b"ours").await.ino;
    chmod(&house, ours, 0o600).await;
    house.bucket.insert("g", "theirs", Metadata::new());
    let (bucket, state) = crash(house).await;
    let house = house_on(bucket, state).await;
    assert!(house.bucket.head("g").await.unwrap().metadata.is_empty());
    assert_eq!(open_notes(&house), 0);
}

#[tokio::test]
async fn they_follow_when_their_directory_is_renamed() {
    let house = house().await;
    let directory = house.fs.mkdir(ROOT, OsStr::new("d"), 0o755, ME).await.unwrap().ino;
    let ino = house.write_file(directory, "f", b"bytes").await.ino;
    chmod(&house, ino, 0o600).await;
    house.fs.rename(ROOT, OsStr::new("d"), ROOT, OsStr::new("e"), 0).await.unwrap();
    assert_eq!((stored_mode(&house, "e/f").await, open_notes(&house)), (0o600, 0));
}

#[tokio::test]
async fn what_could_not_be_sent_before_the_end_is_sent_by_the_next_start() {
    let house = house().await;
    let ino = house.write_file(ROOT, "f", b"bytes").await.ino;
    chmod(&house, ino, 0o600).await;
    house.bucket.inject(Fault::always(Effect::Fail(Kind::Busy)));
    assert_eq!(house.fs.drain(Duration::from_millis(100)).await.len(), 1);
    house.bucket.heal();
    let (bucket, state) = crash(house).await;
    let house = house_on(bucket, state).await;
    assert_eq!(house.lookup(ROOT, "f").await.unwrap().stat.perm, 0o600);
    assert_eq!((stored_mode(&house, "f").await, open_notes(&house)), (0o600, 0));
}

#[tokio::test]
async fn they_are_sent_while_the_file_is_open_again_and_ride_along_once_it_is_written() {
    let house = house().await;
    let ino = house.write_file(ROOT, "f", b"bytes").await.ino;
    chmod(&house, ino, 0o600).await;
    let opened = house.fs.open(ino, WRITE, ME).await.unwrap();
    assert!(house.fs.sync(None).await.is_empty());
    assert_eq!((stored_mode(&house, "f").await, open_notes(&house)), (0o600, 0));
    house.fs.release(opened.handle).await.unwrap();

    chmod(&house, ino, 0o640).await;
    let opened = house.fs.open(ino, WRITE, ME).await.unwrap();
    house.fs.write(opened.handle, 0, b"half ").await.unwrap();
    assert!(house.fs.sync(None).await.is_empty());
    assert_eq!(house.bucket.bytes("f").unwrap(), "bytes", "half of what he writes is no version");
    house.fs.write(opened.handle, 5, b"and half").await.unwrap();
    house.fs.flush(opened.handle, ME).await.unwrap();
    house.fs.release(opened.handle).await.unwrap();
    assert_eq!((stored_mode(&house, "f").await, open_notes(&house)), (0o640, 0));
    assert_eq!(house.bucket.bytes("f").unwrap(), "half and half");
}

/// Of an object that was sent in parts a copy has another tag.
#[tokio::test]
async fn what_is_written_after_a_copy_that_nobody_heard_of_is_stored_on_top_of_it() {
    for attributes_wait in [false, true] {
        let long = Duration::from_mins(10);
        let settings = |settings| Settings { attributes_wait, attr_ttl: long, list_ttl: long, ..settings };
        let house = House::with(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap(), settings).await;
        let ino = house.write_file(ROOT, "f", &vec![1; 17 << 20]).await.ino;
        let before = house.bucket.head("f").await.unwrap().etag;
        house.bucket.inject(Fault::once("CopyObject", Effect::LoseReply(Kind::Deadline)));
        let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
        let answered = house.fs.setattr(ino, set).await.is_ok();
        assert_eq!(answered, attributes_wait, "it waits, or has failed");
        assert_eq!(house.fs.sync(None).await.is_empty(), !attributes_wait);
        assert_ne!(house.bucket.head("f").await.unwrap().etag, before, "the copy was made");
        let opened = house.fs.open(ino, WRITE, ME).await.unwrap();
        house.fs.write(opened.handle, 0, b"written").await.unwrap();
        house.fs.flush(opened.handle, ME).await.unwrap();
        house.fs.release(opened.handle).await.unwrap();
        assert!(house.bucket.bytes("f").unwrap().starts_with(b"written\x01"));
        if attributes_wait {
            assert_eq!(stored_mode(&house, "f").await, 0o600, "that was answered");
        }
    }
}
