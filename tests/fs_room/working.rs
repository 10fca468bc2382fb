//! A working directory: what commands in it cost that begin when nothing known of it may be believed any more.

use super::*;

fn listings(house: &House) -> u64 {
    house.bucket.count("ListObjectsV2")
}

/// A directory that somebody works in, after nobody has asked about it for longer than the TTLs.
async fn stale_directory(house: &House, name: &str) -> Ino {
    let ino = house.lookup(ROOT, name).await.unwrap().ino;
    house.fs.invalidate(name).await.unwrap();
    ino
}

fn put(house: &House, keys: &[&str]) {
    for key in keys {
        house.bucket.insert(key, "x", Metadata::new());
    }
}

#[tokio::test]
async fn a_command_in_a_directory_costs_a_listing_of_it_and_of_nothing_else() {
    let house = House::patient().await;
    put(&house, &["d/f", "e"]);
    let directory = stale_directory(&house, "d").await;
    let before = listings(&house);
    house.fs.getattr(directory).await.unwrap();
    house.lookup(directory, "f").await.unwrap();
    assert_eq!(house.lookup(directory, "missing").await.unwrap_err(), Errno::ENOENT);
    assert_eq!(house.names(directory).await, ["f"]);
    assert_eq!(listings(&house), before + 1, "{:?}", house.bucket.requests());
}

#[tokio::test]
async fn what_lies_below_a_working_directory_comes_with_it() {
    let house = House::patient().await;
    put(&house, &["d/a/b/c/f", "d/a/g", "d/h/i", "d/h/j/k"]);
    let directory = stale_directory(&house, "d").await;
    let before = listings(&house);
    house.fs.getattr(directory).await.unwrap();
    for path in ["a/b/c/f", "a/g", "h/i", "h/j/k"] {
        let mut ino = directory;
        for name in path.split('/') {
            ino = house.lookup(ino, name).await.unwrap().ino;
        }
    }
    assert_eq!(listings(&house), before + 1, "{:?}", house.bucket.requests());
}

#[tokio::test]
async fn removing_a_directory_from_where_one_works_costs_one_listing_and_one_request() {
    let house = House::patient().await;
    put(&house, &["d/old/a", "d/old/b", "d/old/sub/c", "d/kept"]);
    let directory = stale_directory(&house, "d").await;
    let before = listings(&house);
    house.fs.getattr(directory).await.unwrap();
    let old = house.lookup(directory, "old").await.unwrap().ino;
    let sub = house.lookup(old, "sub").await.unwrap().ino;
    assert_eq!(house.names(sub).await, ["c"]);
    house.fs.unlink(sub, OsStr::new("c")).await.unwrap();
    house.fs.rmdir(old, OsStr::new("sub")).await.unwrap();
    for name in ["a", "b"] {
        house.fs.unlink(old, OsStr::new(name)).await.unwrap();
    }
    house.fs.rmdir(directory, OsStr::new("old")).await.unwrap();
    house.fs.settle_removals().await.unwrap();
    assert_eq!(
        (listings(&house), house.bucket.count("DeleteObjects")),
        (before + 1, 1),
        "{:?}",
        house.bucket.requests()
    );
    assert_eq!(house.bucket.keys(), ["d/kept"]);
}

#[tokio::test]
async fn a_tree_of_more_than_a_page_is_listed_directory_by_directory() {
    let long = Duration::from_mins(10);
    let stale = |settings| Settings { attr_ttl: long, negative_ttl: long, list_ttl: Duration::ZERO, ..settings };
    let house = House::with(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap(), stale).await;
    put(&house, &["d/f"]);
    for number in 0..1_500 {
        house.bucket.insert(&format!("d/sub/f{number:04}"), "x", Metadata::new());
    }
    // A flat listing that does not reach the end, and that of the directory; from then on only this.
    for expected in [2, 1, 1] {
        let directory = stale_directory(&house, "d").await;
        let before = listings(&house);
        house.fs.getattr(directory).await.unwrap();
        house.lookup(directory, "f").await.unwrap();
        assert_eq!(house.lookup(directory, "missing").await.unwrap_err(), Errno::ENOENT);
        assert_eq!(listings(&house), before + expected, "{:?}", house.bucket.requests());
    }
}

#[tokio::test]
async fn many_directories_of_one_parent_are_answered_by_its_listing() {
    let house = House::patient().await;
    let names: Vec<String> = (0..50).map(|number| format!("d{number:02}")).collect();
    let mut inodes = Vec::new();
    for name in &names {
        put(&house, &[&format!("{name}/f")]);
    }
    for name in &names {
        inodes.push(house.lookup(ROOT, name).await.unwrap().ino);
    }
    house.fs.invalidate("").await.unwrap();
    let before = listings(&house);
    for ino in inodes {
        house.fs.getattr(ino).await.unwrap();
    }
    assert_eq!(listings(&house), before + 2, "the first, and the root for all others");
}

#[tokio::test]
async fn a_large_directory_and_a_view_are_asked_for_in_their_parent() {
    let house = House::patient().await;
    put(&house, &["view/f"]);
    for number in 0..1_500 {
        house.bucket.insert(&format!("large/f{number:04}"), "x", Metadata::new());
    }
    house.fs.set_views(vec!["view/".to_owned()]);
    for name in ["large", "view"] {
        let directory = house.lookup(ROOT, name).await.unwrap().ino;
        house.names(directory).await;
        house.fs.invalidate(name).await.unwrap();
        let before = listings(&house);
        house.fs.getattr(directory).await.unwrap();
        assert_eq!(house.lookup(ROOT, "missing").await.unwrap_err(), Errno::ENOENT);
        assert_eq!(listings(&house), before + 1, "the root: {name}");
    }
}

#[tokio::test]
async fn a_working_directory_that_another_client_removes_is_gone_and_one_that_it_fills_is_not() {
    let house = House::patient().await;
    put(&house, &["gone/f", "kept/f", "marked/"]);
    for (name, left) in [("gone", None), ("kept", Some("kept/other")), ("marked", None)] {
        let directory = stale_directory(&house, name).await;
        house.bucket.remove(&format!("{name}/f"));
        left.inspect(|key| put(&house, &[key]));
        let outcome = house.fs.getattr(directory).await.map(|entry| entry.nlink).map_err(|error| error.errno());
        assert_eq!(outcome.is_ok(), name != "gone", "{name}: {outcome:?}");
        assert_eq!(house.lookup(ROOT, name).await.is_ok(), name != "gone", "{name}");
        house.fs.invalidate("").await.unwrap();
    }
}

#[tokio::test]
async fn a_working_directory_stays_while_a_file_in_it_waits_to_be_stored() {
    let house = House::patient().await;
    put(&house, &["d/f"]);
    let directory = stale_directory(&house, "d").await;
    let (_, opened) = house.fs.create(directory, OsStr::new("new"), 0o644, WRITE, ME).await.unwrap();
    house.fs.write(opened.handle, 0, b"x").await.unwrap();
    house.bucket.remove("d/f");
    house.fs.invalidate("d").await.unwrap();
    house.fs.getattr(directory).await.unwrap();
    assert_eq!(house.names(directory).await, ["new"]);
    house.fs.flush(opened.handle, ME).await.unwrap();
    assert_eq!(house.bucket.keys(), ["d/new"]);
}

#[tokio::test]
async fn what_is_made_in_a_small_tree_is_not_hidden_by_what_was_listed_before() {
    let house = House::patient().await;
    put(&house, &["d/a/old", "d/b/old"]);
    let directory = stale_directory(&house, "d").await;
    house.fs.getattr(directory).await.unwrap();
    let a = house.lookup(directory, "a").await.unwrap().ino;
    house.write_file(a, "new", b"x").await;
    house.fs.unlink(a, OsStr::new("old")).await.unwrap();
    assert_eq!(house.names(a).await, ["new"]);
    house.fs.rename(directory, OsStr::new("b"), directory, OsStr::new("c"), 0).await.unwrap();
    let c = house.lookup(directory, "c").await.unwrap().ino;
    assert_eq!(house.names(c).await, ["old"]);
    assert_eq!(house.names(directory).await, ["a", "c"]);
}

#[tokio::test]
async fn who_enters_directory_after_directory_of_a_small_tree_finds_attributes_asked_for() {
    let writer = House::new().await;
    let top = writer.fs.mkdir(ROOT, OsStr::new("d"), 0o755, ME).await.unwrap().ino;
    for name in ["a", "b", "c", "e"] {
        let directory = writer.fs.mkdir(top, OsStr::new(name), 0o755, ME).await.unwrap().ino;
        for number in 0..10 {
            writer.write_file(directory, &format!("f{number}"), b"x").await;
        }
    }
    let long = Duration::from_mins(10);
    let believing = |settings| Settings { attr_ttl: long, list_ttl: long, negative_ttl: long, ..settings };
    let reader = House::with(writer.bucket.clone(), tempfile::tempdir().unwrap(), believing).await;
    let heads = |house: &House| house.bucket.count("HeadObject");
    let directory = stale_directory(&reader, "d").await;
    reader.fs.getattr(directory).await.unwrap();
    let a = reader.lookup(directory, "a").await.unwrap().ino;
    let before = heads(&reader);
    reader.lookup(a, "f0").await.unwrap();
    assert_eq!(heads(&reader), before + 1, "one name is one question");
    let delay = Effect::Delay(Duration::from_millis(20));
    reader.bucket.inject(Fault { operation: Some("HeadObject"), ..Fault::always(delay) });
    for name in ["b", "c", "e"] {
        let directory = reader.lookup(directory, name).await.unwrap().ino;
        for number in 0..10 {
            assert_eq!(reader.lookup(directory, &format!("f{number}")).await.unwrap().stat.perm, 0o644);
        }
    }
    assert!(reader.bucket.most_at_once("HeadObject") >= 10);
}

#[tokio::test]
async fn what_a_hook_publishes_in_a_small_tree_is_seen_at_once() {
    let house = House::patient().await;
    put(&house, &["d/out/old"]);
    let directory = stale_directory(&house, "d").await;
    house.fs.getattr(directory).await.unwrap();
    put(&house, &["d/out/new"]);
    house.fs.forget_key("d/out/new");
    let out = house.lookup(directory, "out").await.unwrap().ino;
    assert_eq!(house.names(out).await, ["new", "old"]);
}

#[tokio::test]
async fn an_outage_fails_a_command_in_a_directory_and_passes() {
    let house = House::patient().await;
    put(&house, &["d/f"]);
    let directory = stale_directory(&house, "d").await;
    house.bucket.inject(Fault::always(Effect::Fail(Kind::Unreachable)));
    assert_eq!(house.fs.getattr(directory).await.unwrap_err().errno(), Errno::EHOSTUNREACH);
    house.bucket.heal();
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    house.fs.getattr(directory).await.unwrap();
    house.lookup(directory, "f").await.unwrap();
}
