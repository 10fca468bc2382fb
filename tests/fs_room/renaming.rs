//! rename, where somebody else has been or S3 refuses.

use super::*;

#[tokio::test]
async fn noreplace_asks_the_bucket_and_not_the_last_listing() {
    let house = House::new().await;
    house.write_file(ROOT, "a", b"ours").await;
    house.bucket.insert("b", "theirs", Metadata::new());
    let (a, b) = (OsStr::new("a"), OsStr::new("b"));
    let refused = house.fs.rename(ROOT, a, ROOT, b, libc::RENAME_NOREPLACE).await.unwrap_err();
    assert_eq!(refused.errno(), Errno::EEXIST);
    assert_eq!(house.bucket.bytes("b").unwrap(), "theirs");

    let directory = house.fs.mkdir(ROOT, OsStr::new("d"), 0o755, ME).await.unwrap().ino;
    house.write_file(directory, "f", b"x").await;
    house.bucket.insert("c/f", "theirs", Metadata::new());
    house.bucket.insert("e-f", "theirs", Metadata::new());
    for (name, expected) in [("b", Err(Errno::EEXIST)), ("c", Err(Errno::ENOTEMPTY)), ("e", Ok(()))] {
        let renamed = house.fs.rename(ROOT, OsStr::new("d"), ROOT, OsStr::new(name), libc::RENAME_NOREPLACE).await;
        assert_eq!(renamed.map_err(|error| error.errno()), expected, "{name}");
    }
    assert_eq!(house.bucket.keys(), ["a", "b", "c/f", "e-f", "e/", "e/f"]);
}

#[tokio::test]
async fn a_failed_directory_rename_leaves_only_the_old_tree() {
    let house = House::new().await;
    house.bucket.insert("d/a", "1", Metadata::new());
    house.bucket.insert("d/b", "2", Metadata::new());
    house.lookup(ROOT, "d").await.unwrap();
    house.bucket.inject(Fault::once("CopyObject", Effect::Fail(Kind::AccessDenied)).on_key("e/b"));
    let refused = house.fs.rename(ROOT, OsStr::new("d"), ROOT, OsStr::new("e"), 0).await.unwrap_err();
    assert_eq!(refused.errno(), Errno::EACCES);
    assert_eq!(house.bucket.keys(), ["d/a", "d/b"]);
}

#[tokio::test]
async fn an_empty_file_that_grew_elsewhere_survives_our_rename() {
    let house = House::new().await;
    house.bucket.insert("f", "", Metadata::new());
    house.lookup(ROOT, "f").await.unwrap();
    house.bucket.insert("f", "a gigabyte", Metadata::new());
    let refused = house.fs.rename(ROOT, OsStr::new("f"), ROOT, OsStr::new("g"), 0).await.unwrap_err();
    assert_eq!(refused.errno(), Errno::ESTALE);
    assert_eq!(house.bucket.bytes("f").unwrap(), "a gigabyte");
}

#[tokio::test]
async fn a_failed_rename_of_an_open_file_leaves_both_as_they_were() {
    let house = House::new().await;
    let target = house.write_file(ROOT, "t", b"target").await.ino;
    let (source, opened) = house.fs.create(ROOT, OsStr::new("s"), 0o644, WRITE, ME).await.unwrap();
    house.fs.write(opened.handle, 0, b"source").await.unwrap();
    house.bucket.inject(Fault::once("PutObject", Effect::Fail(Kind::Unreachable)));
    let (from, to) = (OsStr::new("s"), OsStr::new("t"));
    let refused = house.fs.rename(ROOT, from, ROOT, to, 0).await.unwrap_err();
    assert_eq!(refused.errno(), Errno::EHOSTUNREACH);
    assert_eq!(house.lookup(ROOT, "t").await.unwrap().ino, target);
    assert_eq!(house.lookup(ROOT, "s").await.unwrap().ino, source.ino);
    assert_eq!(house.read_file(target).await, "target");
    house.fs.rename(ROOT, from, ROOT, to, 0).await.unwrap();
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.bucket.bytes("t").unwrap(), "source");
    assert_eq!(house.bucket.keys(), ["t"]);
}

/// Reads a mebibyte of a file from its start; how many GETs that has cost.
async fn gets_to_read(house: &House, parent: Ino, name: &str, expected: &[u8]) -> u64 {
    let before = house.bucket.count("GetObject");
    let ino = house.lookup(parent, name).await.unwrap().ino;
    assert!(house.read_file(ino).await == expected, "{name} has other bytes");
    house.bucket.count("GetObject") - before
}

async fn rename(house: &House, from: &str, to: &str) {
    house.fs.rename(ROOT, OsStr::new(from), ROOT, OsStr::new(to), 0).await.unwrap();
}

#[tokio::test]
async fn what_is_cached_of_a_file_is_not_fetched_again_after_its_rename() {
    let house = House::patient().await;
    house.bucket.insert("d/theirs", "read here", Metadata::new());
    house.write_file(ROOT, "written", b"bytes").await;
    rename(&house, "written", "b").await;
    assert_eq!(gets_to_read(&house, ROOT, "b", b"bytes").await, 0);
    // Over another one, of which other bytes are cached.
    house.write_file(ROOT, "lock", b"newer").await;
    rename(&house, "lock", "b").await;
    assert_eq!(gets_to_read(&house, ROOT, "b", b"newer").await, 0);

    let directory = house.lookup(ROOT, "d").await.unwrap().ino;
    assert_eq!(gets_to_read(&house, directory, "theirs", b"read here").await, 1);
    rename(&house, "d", "e").await;
    assert_eq!(gets_to_read(&house, directory, "theirs", b"read here").await, 0);
}

/// The copy of an object in parts has another tag: that it is of the version that was read, only the condition says.
#[tokio::test]
async fn under_another_tag_the_cache_is_believed_where_the_server_heeds_conditions() {
    let content: Vec<u8> = (0..17_u32 << 20).map(|at| (at ^ (at >> 9)) as u8).collect();
    for (heeds_conditions, gets) in [(true, 0), (false, 1)] {
        let believing = |settings| Settings { heeds_conditions, ..settings };
        let house = House::with(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap(), believing).await;
        house.write_file(ROOT, "a", &content).await;
        let tag = |key| house.bucket.info(key).unwrap().etag;
        let old_tag = tag("a");
        assert!(gets_to_read(&house, ROOT, "a", &content[..1 << 20]).await > 0);
        rename(&house, "a", "b").await;
        assert_ne!(tag("b"), old_tag);
        assert_eq!(gets_to_read(&house, ROOT, "b", &content[..1 << 20]).await.min(1), gets);
    }
}

/// Of an object in parts, or encrypted by KMS, a copy has another tag; what a GET has told is of the one before.
#[tokio::test]
async fn what_was_read_and_renamed_is_written_to_under_its_new_tag() {
    for (from, to) in [("d", "e"), ("f", "g")] {
        let house = House::patient().await;
        house.bucket.give_random_tags();
        for key in ["d/x", "f"] {
            house.bucket.insert(key, "of another client", Metadata::new());
        }
        let find = async |name: &str| {
            let found = house.lookup(ROOT, name).await.unwrap();
            if "de".contains(name) { house.lookup(found.ino, "x").await.unwrap().ino } else { found.ino }
        };
        house.read_file(find(from).await).await;
        house.fs.rename(ROOT, OsStr::new(from), ROOT, OsStr::new(to), 0).await.unwrap();
        let ino = find(to).await;
        let opened = house.fs.open(ino, WRITE, ME).await.unwrap();
        house.fs.write(opened.handle, 17, b", and ours").await.unwrap();
        house.fs.flush(opened.handle, ME).await.unwrap();
        house.fs.release(opened.handle).await.unwrap();
        assert_eq!(house.read_file(ino).await, "of another client, and ours");
    }
}
