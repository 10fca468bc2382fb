//! Attributes from LIST: what foreign objects cost, and that nothing they carry is lost.

use s3mount::bucket::clock::ServerClock;

use super::*;

fn metadata(pairs: &[(&str, &str)]) -> Metadata {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A bucket as s3fs leaves it, and a mount that has not looked yet.
async fn foreign_house() -> House {
    with_foreign_file(House::new().await)
}

fn with_foreign_file(house: House) -> House {
    house.bucket.insert("f", "bytes", metadata(&[("mode", "33216"), ("uid", "7"), ("x-thing", "kept")]));
    house
}

async fn chmod(house: &House, ino: Ino, mode: u32) -> Result<Entry, s3mount::fs::Error> {
    house.fs.setattr(ino, SetAttr { mode: Some(mode), ..SetAttr::default() }).await
}

/// Another machine: nothing remembered.
async fn elsewhere(house: &House) -> House {
    House::on(house.bucket.clone(), tempfile::tempdir().unwrap()).await
}

#[tokio::test]
async fn foreign_objects_are_listed_without_a_head() {
    let house = House::patient().await;
    for number in 0..1_500 {
        house.bucket.insert(&format!("f{number:04}"), "12345", Metadata::new());
    }
    assert_eq!(house.names(ROOT).await.len(), 1_500);
    let entry = house.lookup(ROOT, "f0007").await.unwrap();
    assert_eq!((entry.stat.size, entry.stat.perm, entry.stat.uid), (5, 0o644, 1000));
    assert_eq!(entry.stat.mtime, house.bucket.info("f0007").unwrap().modified);
    assert_eq!(house.fs.getxattr(entry.ino, OsStr::new("user.k")).await.unwrap_err().errno(), Errno::ENODATA);
    assert_eq!(house.bucket.requests().values().sum::<u64>(), 2, "{:?}", house.bucket.requests());
}

#[tokio::test]
async fn what_s3mount_wrote_elsewhere_is_seen_with_its_attributes_by_heads_in_parallel() {
    let writer = House::new().await;
    for number in 0..100 {
        let ino = writer.write_file(ROOT, &format!("f{number:03}"), b"x").await.ino;
        chmod(&writer, ino, 0o600 + number % 8).await.unwrap();
    }
    let reader = elsewhere(&writer).await;
    let delay = Effect::Delay(Duration::from_millis(30));
    reader.bucket.inject(Fault { operation: Some("HeadObject"), ..Fault::always(delay) });
    assert_eq!(reader.names(ROOT).await.len(), 100);
    for number in 0..100 {
        let entry = reader.lookup(ROOT, &format!("f{number:03}")).await.unwrap();
        assert_eq!(u32::from(entry.stat.perm), 0o600 + number % 8);
    }
    assert_eq!(reader.bucket.count("HeadObject"), 100);
    assert!(reader.bucket.most_at_once("HeadObject") >= 20);
}

#[tokio::test]
async fn a_foreign_objects_metadata_survives_a_chmod_and_the_chmod_is_seen_elsewhere() {
    let house = foreign_house().await;
    let ino = house.lookup(ROOT, "f").await.unwrap().ino;
    chmod(&house, ino, 0o640).await.unwrap();
    let metadata = house.bucket.info("f").unwrap().metadata;
    assert_eq!((metadata["file-owner"].as_str(), metadata["x-thing"].as_str()), ("7", "kept"));
    let reader = elsewhere(&house).await;
    let seen = reader.lookup(ROOT, "f").await.unwrap().stat;
    assert_eq!((seen.perm, seen.uid), (0o640, 7));
}

#[tokio::test]
async fn a_foreign_objects_metadata_survives_a_rewrite() {
    let house = foreign_house().await;
    let ino = house.lookup(ROOT, "f").await.unwrap().ino;
    let opened = house.fs.open(ino, WRITE | libc::O_TRUNC, ME).await.unwrap();
    house.fs.write(opened.handle, 0, b"new").await.unwrap();
    house.fs.flush(opened.handle, ME).await.unwrap();
    let written = house.bucket.info("f").unwrap();
    assert_eq!((written.size, written.metadata["file-permissions"].as_str()), (3, "0100700"));
    assert_eq!((written.metadata["file-owner"].as_str(), written.metadata["x-thing"].as_str()), ("7", "kept"));
}

#[tokio::test]
async fn a_foreign_objects_metadata_survives_a_truncation_and_an_xattr() {
    let house = foreign_house().await;
    let ino = house.lookup(ROOT, "f").await.unwrap().ino;
    house.fs.setxattr(ino, OsStr::new("user.k"), b"v", 0).await.unwrap();
    house.fs.setattr(ino, SetAttr { size: Some(2), ..SetAttr::default() }).await.unwrap();
    let metadata = house.bucket.info("f").unwrap().metadata;
    assert_eq!((metadata["file-owner"].as_str(), metadata["x-thing"].as_str()), ("7", "kept"));
    assert_eq!(house.bucket.bytes("f").unwrap(), "by");
}

#[tokio::test]
async fn a_renamed_foreign_object_keeps_its_metadata_and_its_inode_number() {
    for body in ["bytes", ""] {
        let house = House::new().await;
        house.bucket.insert("f", body, metadata(&[("mode", "33216"), ("x-thing", "kept")]));
        let ino = house.lookup(ROOT, "f").await.unwrap().ino;
        house.fs.rename(ROOT, OsStr::new("f"), ROOT, OsStr::new("g"), 0).await.unwrap();
        assert_eq!(house.bucket.info("g").unwrap().metadata["x-thing"], "kept");
        let house = house.restart().await;
        let moved = house.lookup(ROOT, "g").await.unwrap();
        assert_eq!(moved.ino, ino);
        chmod(&house, ino, 0o640).await.unwrap();
        assert_eq!(house.bucket.info("g").unwrap().metadata["x-thing"], "kept");
    }
}

#[tokio::test]
async fn reading_a_foreign_file_does_not_change_its_attributes() {
    let house = foreign_house().await;
    let before = house.lookup(ROOT, "f").await.unwrap();
    assert_eq!(house.read_file(before.ino).await, "bytes");
    assert_eq!(house.fs.getattr(before.ino).await.unwrap().stat, before.stat);
    assert_eq!(house.bucket.count("HeadObject"), 0);
}

#[tokio::test]
async fn what_was_read_needs_no_head_to_be_written() {
    let house = with_foreign_file(House::patient().await);
    let ino = house.lookup(ROOT, "f").await.unwrap().ino;
    assert_eq!(house.read_file(ino).await, "bytes");
    let opened = house.fs.open(ino, WRITE | libc::O_TRUNC, ME).await.unwrap();
    house.fs.write(opened.handle, 0, b"new").await.unwrap();
    house.fs.flush(opened.handle, ME).await.unwrap();
    assert_eq!(house.bucket.count("HeadObject"), 0);
    let metadata = house.bucket.info("f").unwrap().metadata;
    assert_eq!((metadata["file-owner"].as_str(), metadata["x-thing"].as_str()), ("7", "kept"));
}

#[tokio::test]
async fn what_changed_under_the_same_tag_since_it_was_read_is_asked_for() {
    let house = foreign_house().await;
    let ino = house.lookup(ROOT, "f").await.unwrap().ino;
    assert_eq!(house.read_file(ino).await, "bytes");
    let read = house.bucket.info("f").unwrap().modified;
    let second = |time: std::time::SystemTime| time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    while second(house.bucket.info("f").unwrap().modified) == second(read) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        house.bucket.insert("f", "bytes", metadata(&[("x-thing", "changed")]));
    }
    after_the_ttl().await;
    house.lookup(ROOT, "f").await.unwrap();
    chmod(&house, ino, 0o640).await.unwrap();
    assert_eq!(house.bucket.info("f").unwrap().metadata["x-thing"], "changed");
}

#[tokio::test]
async fn a_foreign_object_replaced_before_our_chmod_is_not_given_old_metadata() {
    let house = foreign_house().await;
    let ino = house.lookup(ROOT, "f").await.unwrap().ino;
    house.bucket.insert("f", "other bytes", metadata(&[("uid", "9")]));
    chmod(&house, ino, 0o640).await.unwrap();
    assert_eq!(house.bucket.bytes("f").unwrap(), "other bytes");
    assert_eq!(house.bucket.info("f").unwrap().metadata["file-owner"], "9");
    assert_eq!(house.fs.getattr(ino).await.unwrap().stat.size, 11);
}

#[tokio::test]
async fn with_full_attributes_every_object_is_asked_for_once() {
    let bucket = Arc::new(MemoryBucket::new());
    bucket.insert("f", "bytes", metadata(&[("mode", "33216"), ("uid", "7")]));
    let full = |settings| Settings { attrs: Attrs::Full, ..settings };
    let house = House::with(bucket.clone(), tempfile::tempdir().unwrap(), full).await;
    assert_eq!(house.lookup(ROOT, "f").await.unwrap().stat.uid, 7);
    let House { fs, journal, state, .. } = house;
    drop((fs, journal));
    let house = House::with(bucket.clone(), state, full).await;
    assert_eq!(house.lookup(ROOT, "f").await.unwrap().stat.perm, 0o700);
    assert_eq!(bucket.count("HeadObject"), 1);
}

#[tokio::test]
async fn with_attributes_from_the_list_nothing_is_asked_for() {
    let writer = House::new().await;
    let directory = writer.fs.mkdir(ROOT, OsStr::new("d"), 0o700, ME).await.unwrap().ino;
    writer.write_file(directory, "f", b"x").await;
    let list = |settings| Settings { attrs: Attrs::List, ..settings };
    let reader = House::with(writer.bucket.clone(), tempfile::tempdir().unwrap(), list).await;
    assert_eq!(reader.names(ROOT).await, ["d"]);
    let directory = reader.lookup(ROOT, "d").await.unwrap().ino;
    let file = reader.lookup(directory, "f").await.unwrap().ino;
    assert_eq!(reader.bucket.count("HeadObject"), 0);
    chmod(&reader, file, 0o600).await.unwrap();
    assert_eq!(reader.bucket.info("d/f").unwrap().metadata["file-owner"], "1000");
}

#[tokio::test]
async fn where_list_tells_no_checksums_attributes_are_asked_for() {
    for list_checksums in [Some(false), None] {
        let bucket = Arc::new(MemoryBucket::new());
        bucket.hide_checksums();
        bucket.insert("f", "bytes", metadata(&[("uid", "7")]));
        let settings = |settings| Settings { list_checksums, ..settings };
        let house = House::with(bucket, tempfile::tempdir().unwrap(), settings).await;
        assert_eq!(house.lookup(ROOT, "f").await.unwrap().stat.uid, 7);
    }
}

#[tokio::test]
async fn a_path_costs_one_listing_a_directory_and_a_head_for_what_is_ours() {
    let writer = House::new().await;
    let directory = writer.fs.mkdir(ROOT, OsStr::new("ours"), 0o750, ME).await.unwrap().ino;
    writer.write_file(directory, "f", b"x").await;
    let house = elsewhere(&writer).await;
    house.bucket.insert("a/b/c", "x", Metadata::new());
    let before: u64 = house.bucket.requests().values().sum();
    let a = house.lookup(ROOT, "a").await.unwrap().ino;
    let b = house.lookup(a, "b").await.unwrap().ino;
    house.lookup(b, "c").await.unwrap();
    assert_eq!(house.names(b).await, ["c"]);
    assert_eq!(house.bucket.requests().values().sum::<u64>() - before, 3, "{:?}", house.bucket.requests());
    let ours = house.lookup(ROOT, "ours").await.unwrap();
    assert_eq!(ours.stat.perm, 0o750);
    assert_eq!(house.bucket.requests().values().sum::<u64>() - before, 5);
}

#[tokio::test]
async fn a_mode_that_s3_was_never_told_is_not_remembered_over_a_crash() {
    let house = House::new().await;
    let old = house.fs.mkdir(ROOT, OsStr::new("old"), 0o755, ME).await.unwrap();
    let file = house.write_file(old.ino, "f", b"bytes").await;
    house.fs.open(file.ino, WRITE, ME).await.unwrap();
    chmod(&house, file.ino, 0o600).await.unwrap();
    house.fs.rename(ROOT, OsStr::new("old"), ROOT, OsStr::new("new"), 0).await.unwrap();
    // The writer never closes the file: what is stored is what was there before.
    let house = house.restart().await;
    let new = house.lookup(ROOT, "new").await.unwrap();
    let found = house.lookup(new.ino, "f").await.unwrap();
    assert_eq!(house.bucket.info("new/f").unwrap().metadata["file-permissions"], "0100644");
    assert_eq!((found.stat.perm, found.ino), (0o644, file.ino));
}

#[tokio::test]
async fn empty_objects_of_a_moved_tree_are_asked_for_only_where_nothing_is_known_of_them() {
    let house = House::new().await;
    let directory = house.fs.mkdir(ROOT, OsStr::new("d"), 0o711, ME).await.unwrap().ino;
    let ours = house.write_file(directory, "ours", b"").await.ino;
    chmod(&house, ours, 0o600).await.unwrap();
    house.bucket.insert("d/theirs", "", metadata(&[("mode", "33216"), ("x-thing", "kept")]));
    house.fs.rename(ROOT, OsStr::new("d"), ROOT, OsStr::new("e"), 0).await.unwrap();
    assert_eq!(house.bucket.requests().get("HeadObject").copied(), Some(1), "{:?}", house.bucket.requests());
    let mode = |key: &str| Attributes::from_metadata(&house.bucket.info(key).unwrap().metadata).mode.unwrap() & 0o7777;
    assert_eq!((mode("e/"), mode("e/ours"), mode("e/theirs")), (0o711, 0o600, 0o700));
    assert_eq!(house.bucket.info("e/theirs").unwrap().metadata["x-thing"], "kept");
}

/// A mount that asks again as soon as it may, and takes its clock to be so far ahead of the bucket's.
async fn doubting(bucket: Arc<MemoryBucket>, clock_ahead_s: i64) -> House {
    let asking = |settings: Settings| {
        let layout = settings.layout.with_clock(&ServerClock::behind_by_s(clock_ahead_s));
        Settings { attr_ttl: Duration::ZERO, list_ttl: Duration::ZERO, layout, ..settings }
    };
    House::with(bucket, tempfile::tempdir().unwrap(), asking).await
}

#[tokio::test]
async fn a_chmod_by_another_mount_of_what_was_written_here_is_seen() {
    // What is written here is dated ten seconds before the other mount's change, though it comes at once.
    let house = doubting(Arc::new(MemoryBucket::new()), 10).await;
    let other = doubting(house.bucket.clone(), 0).await;
    house.write_file(ROOT, "f", b"x").await;
    let theirs = other.lookup(ROOT, "f").await.unwrap().ino;
    chmod(&other, theirs, 0o604).await.unwrap();
    assert_eq!(house.lookup(ROOT, "f").await.unwrap().stat.perm, 0o604);
    // The index has learned it as well.
    let house = house.restart().await;
    assert_eq!(house.lookup(ROOT, "f").await.unwrap().stat.perm, 0o604);
}

#[tokio::test]
async fn a_chmod_by_another_mount_of_a_directory_made_here_is_seen_and_not_undone() {
    let house = doubting(Arc::new(MemoryBucket::new()), 10).await;
    let other = doubting(house.bucket.clone(), 0).await;
    let ours = house.fs.mkdir(ROOT, OsStr::new("d"), 0o755, ME).await.unwrap().ino;
    house.write_file(ours, "f", b"x").await;
    let theirs = other.lookup(ROOT, "d").await.unwrap().ino;
    let set = SetAttr { mode: Some(0o700), uid: Some(5), gid: Some(5), ..SetAttr::default() };
    other.fs.setattr(theirs, set).await.unwrap();
    house.names(ours).await;
    let seen = house.lookup(ROOT, "d").await.unwrap().stat;
    assert_eq!((seen.perm, seen.uid, seen.gid), (0o700, 5, 5));
    chmod(&house, ours, 0o710).await.unwrap();
    let kept = Attributes::from_metadata(&house.bucket.info("d/").unwrap().metadata);
    assert_eq!((kept.mode.unwrap() & 0o7777, kept.uid, kept.gid), (0o710, Some(5), Some(5)));
}

/// As a server with real directories answers.
#[tokio::test]
async fn a_marker_that_carries_nothing_keeps_what_it_has_here() {
    let house = doubting(Arc::new(MemoryBucket::new()), 10).await;
    house.put_marker("e/", metadata(&[("mode", "16832")])).await;
    let ours = house.fs.mkdir(ROOT, OsStr::new("d"), 0o711, ME).await.unwrap().ino;
    house.put_marker("d/", Metadata::new()).await;
    house.names(ours).await;
    assert_eq!(house.bucket.count("HeadObject"), 1, "by its date it is another client's");
    assert_eq!(house.lookup(ROOT, "d").await.unwrap().stat.perm, 0o711);
    // Not where markers are seen to carry something: then another client has put a bare one.
    house.names(house.lookup(ROOT, "e").await.unwrap().ino).await;
    let dated = house.bucket.info("d/").unwrap().modified;
    while house.bucket.info("d/").unwrap().modified == dated {
        house.put_marker("d/", Metadata::new()).await;
    }
    let bare = house.lookup(ROOT, "d").await.unwrap().ino;
    house.names(bare).await;
    assert_eq!(house.lookup(ROOT, "d").await.unwrap().stat.perm, 0o755);
}

/// A directory of another client, which has been listed, in a mount that has not listed it.
async fn listed_before() -> House {
    let house = House::new().await;
    house.put_marker("d/", metadata(&[("mode", "16877")])).await;
    let directory = house.lookup(ROOT, "d").await.unwrap().ino;
    house.names(directory).await;
    house.write_file(directory, "f", b"x").await;
    house.restart().await
}

#[tokio::test]
async fn before_a_directory_is_changed_that_was_not_read_for_long_its_marker_is_asked_for() {
    let house = listed_before().await;
    let directory = house.lookup(ROOT, "d").await.unwrap().ino;
    let dated = house.bucket.info("d/").unwrap().modified;
    while house.bucket.info("d/").unwrap().modified == dated {
        house.put_marker("d/", metadata(&[("mode", "16832"), ("uid", "5"), ("gid", "5")])).await;
    }
    chmod(&house, directory, 0o710).await.unwrap();
    let kept = Attributes::from_metadata(&house.bucket.info("d/").unwrap().metadata);
    assert_eq!((kept.mode.unwrap() & 0o7777, kept.uid, kept.gid), (0o710, Some(5), Some(5)));
    let asked = house.bucket.count("HeadObject");
    chmod(&house, directory, 0o711).await.unwrap();
    assert_eq!(house.bucket.count("HeadObject"), asked, "it was stored just now");
}

#[tokio::test]
async fn a_directory_whose_marker_is_the_same_keeps_the_times_that_are_known_here() {
    let house = listed_before().await;
    let before = house.lookup(ROOT, "d").await.unwrap();
    let asked = house.bucket.count("HeadObject");
    chmod(&house, before.ino, 0o700).await.unwrap();
    assert_eq!(house.bucket.count("HeadObject"), asked + 1);
    assert_eq!(house.lookup(ROOT, "d").await.unwrap().stat.mtime, before.stat.mtime);
}

/// Dated by the bucket as what this mount has stored itself, as far as it knows.
#[tokio::test]
async fn a_chmod_that_no_date_tells_is_seen_once_everything_is_forgotten() {
    let house = doubting(Arc::new(MemoryBucket::new()), 0).await;
    let other = doubting(house.bucket.clone(), 0).await;
    house.write_file(ROOT, "f", b"x").await;
    house.fs.mkdir(ROOT, OsStr::new("d"), 0o755, ME).await.unwrap();
    for name in ["f", "d"] {
        let theirs = other.lookup(ROOT, name).await.unwrap().ino;
        chmod(&other, theirs, 0o700).await.unwrap();
    }
    assert_eq!(house.lookup(ROOT, "f").await.unwrap().stat.perm, 0o644, "so it must be for this test");
    house.fs.invalidate("").await.unwrap();
    for name in ["f", "d"] {
        assert_eq!(house.lookup(ROOT, name).await.unwrap().stat.perm, 0o700, "{name}");
    }
}

#[tokio::test]
async fn a_chmod_in_the_second_in_which_another_mount_has_looked_is_seen() {
    let house = doubting(Arc::new(MemoryBucket::new()), 0).await;
    let other = doubting(house.bucket.clone(), 0).await;
    let written = house.write_file(ROOT, "f", b"x").await.ino;
    loop {
        chmod(&house, written, 0o600).await.unwrap();
        let dated = house.bucket.info("f").unwrap().modified;
        assert_eq!(other.lookup(ROOT, "f").await.unwrap().stat.perm, 0o600);
        chmod(&house, written, 0o644).await.unwrap();
        if house.bucket.info("f").unwrap().modified == dated {
            break;
        }
    }
    // Not before it is certain that the second is over.
    let seen = async {
        while other.lookup(ROOT, "f").await.unwrap().stat.perm != 0o644 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), seen).await.expect("the new mode is seen some day");
    let asked = other.bucket.count("HeadObject");
    other.lookup(ROOT, "f").await.unwrap();
    assert_eq!(other.bucket.count("HeadObject"), asked, "what is certain is asked for once");
}
