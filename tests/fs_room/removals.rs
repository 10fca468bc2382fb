//! Removals: unseen at once, gone from the bucket soon, in few requests; through failures and crashes.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use s3mount::bucket::Metadata;
use s3mount::bucket::memory::{DELETED_KEY, Effect, Fault, MemoryBucket};
use s3mount::error::{Errno, Kind};
use s3mount::fs::ops::SetAttr;
use s3mount::fs::{Ino, Settings};
use s3mount::journal::EventName;

use super::{House, ME, ROOT, WRITE};

fn name(text: &str) -> &OsStr {
    OsStr::new(text)
}

/// Deletions and markers have no answer, as from a server that hangs.
fn hold(bucket: &MemoryBucket) {
    for operation in ["DeleteObject", "DeleteObjects"] {
        bucket.inject(Fault::once(operation, Effect::Hang).times(u32::MAX));
    }
}

/// Deletions and markers fail so.
fn fail(bucket: &MemoryBucket, kind: Kind) {
    for operation in ["DeleteObject", "DeleteObjects", "PutObject"] {
        bucket.inject(Fault::once(operation, Effect::Fail(kind)).times(u32::MAX));
    }
}

fn with_events(settings: Settings) -> Settings {
    Settings { events: true, ..settings }
}

/// A mount whose changes are told to hooks.
async fn telling() -> House {
    House::with(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap(), with_events).await
}

/// As after `kill -9` of such a mount.
async fn killed(house: House) -> House {
    let House { bucket, fs, journal, state, .. } = house;
    fs.stop_removals().await;
    drop((fs, journal));
    House::with(bucket, state, with_events).await
}

fn events(house: &House) -> Vec<(EventName, String)> {
    let events = house.journal.events(1_000).unwrap();
    events.into_iter().map(|event| (event.fact.name, event.fact.key)).collect()
}

/// All requests but LIST.
fn requests(house: &House) -> u64 {
    house.bucket.requests().iter().filter(|(operation, _)| **operation != "ListObjectsV2").map(|(_, count)| count).sum()
}

/// What `rm -rf` does.
async fn remove_tree(house: &House, parent: Ino, directory: &str) {
    let ino = house.lookup(parent, directory).await.unwrap().ino;
    for (child, entry) in house.list(ino, true).await {
        if entry.unwrap().stat.kind == s3mount::fs::FileKind::Directory {
            Box::pin(remove_tree(house, ino, &child)).await;
        } else {
            house.fs.unlink(ino, name(&child)).await.unwrap();
        }
    }
    house.fs.rmdir(parent, name(directory)).await.unwrap();
}

#[tokio::test]
async fn a_tree_of_four_hundred_files_goes_in_a_few_requests() {
    let house = House::new().await;
    for number in 0..400 {
        house.bucket.insert(&format!("t/part{:02}/file{number}", number / 10), "x", Metadata::new());
    }
    remove_tree(&house, ROOT, "t").await;
    assert_eq!(house.lookup(ROOT, "t").await.unwrap_err(), Errno::ENOENT);
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.bucket.keys(), Vec::<String>::new());
    assert!(requests(&house) <= 10, "{:?}", house.bucket.requests());
    assert!(house.bucket.count("ListObjectsV2") <= 6, "{:?}", house.bucket.requests());
    assert_eq!(house.fs.status().removals_waiting, 0);
}

#[tokio::test]
async fn thousands_go_in_batches_and_directories_after_what_is_in_them() {
    let house = House::patient().await;
    for number in 0..2_500 {
        house.bucket.insert(&format!("d/{number:04}"), "", Metadata::new());
    }
    remove_tree(&house, ROOT, "d").await;
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.bucket.keys(), Vec::<String>::new());
    assert!(requests(&house) <= 30, "{:?}", house.bucket.requests());
}

#[tokio::test]
async fn what_is_removed_goes_by_itself() {
    let house = House::new().await;
    house.write_file(ROOT, "f", b"x").await;
    house.fs.unlink(ROOT, name("f")).await.unwrap();
    while house.bucket.bytes("f").is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_waits_is_not_seen_whoever_asks() {
    let house = House::new().await;
    for number in 0..1_200 {
        house.bucket.insert(&format!("large/{number:04}"), "x", Metadata::new());
    }
    for key in ["d/a", "d/b", "e/sub/x", "e/y"] {
        house.bucket.insert(key, "x", Metadata::new());
    }
    let [large, d, e] =
        [house.lookup(ROOT, "large").await, house.lookup(ROOT, "d").await, house.lookup(ROOT, "e").await]
            .map(|entry| entry.unwrap().ino);
    house.lookup(large, "0500").await.unwrap();
    hold(&house.bucket);
    house.fs.unlink(large, name("0500")).await.unwrap();
    house.fs.unlink(d, name("a")).await.unwrap();
    remove_tree(&house, e, "sub").await;
    assert_eq!(house.fs.status().removals_waiting, 4);
    assert_eq!(house.bucket.keys().len(), 1_204, "nothing is gone from the bucket");
    // Everything that was known is forgotten, with the inodes too.
    for key in ["large/0500", "d/a", "e/sub"] {
        house.fs.forget_key(key);
    }
    assert_eq!(house.lookup(large, "0500").await.unwrap_err(), Errno::ENOENT);
    assert_eq!(house.names(large).await.len(), 1_199);
    assert_eq!(house.lookup(d, "a").await.unwrap_err(), Errno::ENOENT);
    assert_eq!(house.names(d).await, ["b"]);
    assert_eq!(house.lookup(e, "sub").await.unwrap_err(), Errno::ENOENT);
    assert_eq!(house.names(e).await, ["y"]);
    assert_eq!(house.fs.rmdir(ROOT, name("e")).await.unwrap_err().errno(), Errno::ENOTEMPTY);
    assert!(house.fs.bucket().head("d/a").await.is_err(), "hooks do not see it either");
}

#[tokio::test]
async fn a_name_made_again_waits_until_the_old_object_is_gone() {
    let house = telling().await;
    let directory = house.fs.mkdir(ROOT, name("d"), 0o755, ME).await.unwrap().ino;
    house.fs.rmdir(ROOT, name("d")).await.unwrap();
    house.fs.forget(directory, 1);
    let directory = house.fs.mkdir(ROOT, name("d"), 0o700, ME).await.unwrap().ino;
    for round in 0..3 {
        house.write_file(directory, "f", round.to_string().as_bytes()).await;
        house.fs.unlink(directory, name("f")).await.unwrap();
    }
    house.write_file(directory, "f", b"last").await;
    house.fs.unlink(directory, name("f")).await.unwrap();
    house.fs.symlink(directory, name("f"), name("target"), ME).await.unwrap();
    house.fs.unlink(directory, name("f")).await.unwrap();
    house.write_file(directory, "g", b"moved").await;
    house.fs.rename(directory, name("g"), directory, name("f"), 0).await.unwrap();
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.bucket.keys(), ["d/", "d/f"]);
    assert_eq!(house.bucket.bytes("d/f").unwrap(), "moved");
    assert_eq!(house.bucket.info("d/").unwrap().metadata["file-permissions"], "0040700");
    let of_f: Vec<_> = events(&house).into_iter().filter(|(_, key)| key == "d/f").map(|(name, _)| name).collect();
    // Of symlinks hooks are told nothing.
    let once = [EventName::CreatedPut, EventName::RemovedDelete];
    assert_eq!(of_f, [&once.repeat(4)[..], &[EventName::CreatedCopy]].concat());
}

#[tokio::test]
async fn a_directory_moves_to_where_something_was_removed() {
    let house = House::new().await;
    for key in ["from/", "from/f", "to/", "to/f"] {
        house.bucket.insert(key, if key.ends_with('/') { "" } else { key }, Metadata::new());
    }
    remove_tree(&house, ROOT, "to").await;
    house.lookup(ROOT, "from").await.unwrap();
    house.fs.rename(ROOT, name("from"), ROOT, name("to"), 0).await.unwrap();
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.bucket.keys(), ["to/", "to/f"]);
    assert_eq!(house.bucket.bytes("to/f").unwrap(), "from/f");
    let to = house.lookup(ROOT, "to").await.unwrap().ino;
    assert_eq!(house.names(to).await, ["f"]);
}

#[tokio::test]
async fn a_directory_without_a_marker_outlives_its_last_file_and_moves_with_what_is_left() {
    let house = House::new().await;
    house.bucket.insert("r/d/only", "x", Metadata::new());
    let r = house.lookup(ROOT, "r").await.unwrap().ino;
    let d = house.lookup(r, "d").await.unwrap().ino;
    house.lookup(d, "only").await.unwrap();
    // The marker cannot be put: then the file is not deleted, and the directory not lost.
    fail(&house.bucket, Kind::Unreachable);
    house.fs.unlink(d, name("only")).await.unwrap();
    assert_eq!(house.fs.settle_removals().await.unwrap_err().errno(), Errno::EHOSTUNREACH);
    assert_eq!(house.bucket.keys(), ["r/d/only"]);
    house.fs.forget_key("r/d");
    assert_eq!(house.names(d).await, Vec::<String>::new());
    assert_eq!(house.names(r).await, ["d"]);
    let house = house.restart().await;
    let r = house.lookup(ROOT, "r").await.unwrap().ino;
    assert_eq!(house.names(r).await, ["d"]);
    let d = house.lookup(r, "d").await.unwrap().ino;
    assert_eq!(house.names(d).await, Vec::<String>::new());
    house.bucket.heal();
    house.fs.rename(r, name("d"), r, name("moved"), 0).await.unwrap();
    assert_eq!(house.bucket.keys(), ["r/moved/"]);
}

#[tokio::test]
async fn a_name_that_s3_does_not_let_go_is_there_again() {
    let house = House::new().await;
    for key in ["locked", "free", "d/locked"] {
        house.bucket.insert(key, key, Metadata::new());
    }
    let d = house.lookup(ROOT, "d").await.unwrap().ino;
    for key in ["locked", "d/locked"] {
        house.bucket.inject(Fault::once(DELETED_KEY, Effect::Fail(Kind::AccessDenied)).on_key(key));
    }
    for key in ["locked", "free"] {
        house.fs.unlink(ROOT, name(key)).await.unwrap();
    }
    house.fs.unlink(d, name("locked")).await.unwrap();
    assert_eq!(house.fs.settle_removals().await.unwrap_err().errno(), Errno::EACCES);
    assert_eq!(house.names(ROOT).await, ["d", "locked"]);
    assert_eq!(house.read_file(house.lookup(ROOT, "locked").await.unwrap().ino).await, "locked");
    assert_eq!(house.names(d).await, ["locked"]);
    assert_eq!(house.fs.status().removals_waiting, 0);
    // Nothing is left for the next start, and another try is as good as the first.
    let house = house.restart().await;
    assert_eq!(house.names(ROOT).await, ["d", "locked"]);
    house.fs.unlink(ROOT, name("locked")).await.unwrap();
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.names(ROOT).await, ["d"]);
}

#[tokio::test]
async fn sync_waits_for_what_was_removed_before_it_and_for_nothing_else() {
    let house = House::new().await;
    for key in ["before", "meanwhile"] {
        house.bucket.insert(key, key, Metadata::new());
    }
    house.lookup(ROOT, "before").await.unwrap();
    let slow = Effect::Delay(Duration::from_millis(300));
    house.bucket.inject(Fault::once("DeleteObject", slow).on_key("before"));
    house.bucket.inject(Fault::once("DeleteObject", Effect::Hang).on_key("meanwhile"));
    house.fs.unlink(ROOT, name("before")).await.unwrap();
    let fs = house.fs.clone();
    let syncing = tokio::spawn(async move { fs.sync(None).await });
    while house.bucket.count("DeleteObject") == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    house.fs.unlink(ROOT, name("meanwhile")).await.unwrap();
    let left = syncing.await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(house.bucket.keys(), ["meanwhile"]);
}

#[tokio::test]
async fn an_outage_ends_and_what_others_wrote_meanwhile_stays() {
    let house = House::new().await;
    for key in ["a", "b", "c"] {
        house.bucket.insert(key, "old", Metadata::new());
    }
    house.lookup(ROOT, "a").await.unwrap();
    fail(&house.bucket, Kind::Unreachable);
    for key in ["a", "b", "c"] {
        house.fs.unlink(ROOT, name(key)).await.unwrap();
    }
    assert_eq!(house.fs.settle_removals().await.unwrap_err().errno(), Errno::EHOSTUNREACH);
    let (_, opened) = house.fs.create(ROOT, name("c"), 0o644, WRITE, ME).await.unwrap();
    house.fs.write(opened.handle, 0, b"new").await.unwrap();
    assert_eq!(house.fs.flush(opened.handle, ME).await.unwrap_err().errno(), Errno::EHOSTUNREACH);
    house.fs.forget_key("a");
    assert_eq!(house.names(ROOT).await, ["c"]);
    let left = house.fs.drain(Duration::from_millis(50)).await;
    assert!(left.iter().any(|left| left.path == "a" && left.cause.contains("not from the bucket")), "{left:?}");
    house.bucket.insert("b", "theirs", Metadata::new());
    house.bucket.heal();
    house.fs.settle_removals().await.unwrap();
    house.fs.flush(opened.handle, ME).await.unwrap();
    assert_eq!(house.bucket.keys(), ["b", "c"]);
    assert_eq!((house.bucket.bytes("b").unwrap(), house.bucket.bytes("c").unwrap()), ("theirs".into(), "new".into()));
}

#[tokio::test]
async fn killed_before_the_batch_the_next_start_removes_what_was_promised() {
    let house = telling().await;
    for key in ["a", "d/b", "theirs"] {
        house.bucket.insert(key, key, Metadata::new());
    }
    let d = house.lookup(ROOT, "d").await.unwrap().ino;
    hold(&house.bucket);
    house.fs.unlink(d, name("b")).await.unwrap();
    house.fs.rmdir(ROOT, name("d")).await.unwrap();
    for key in ["a", "theirs"] {
        house.fs.unlink(ROOT, name(key)).await.unwrap();
    }
    assert_eq!(house.bucket.keys(), ["a", "d/b", "theirs"]);
    house.bucket.insert("theirs", "a version of another client", Metadata::new());
    house.bucket.heal();
    let house = killed(house).await;
    assert_eq!(house.bucket.keys(), ["theirs"]);
    assert_eq!(house.names(ROOT).await, ["theirs"]);
    let mut told = events(&house);
    told.sort_by(|left, right| left.1.cmp(&right.1));
    assert_eq!(told, ["a", "d/b"].map(|key| (EventName::RemovedDelete, key.to_owned())));
}

#[tokio::test]
async fn killed_with_s3_out_of_reach_the_next_start_shows_nothing_of_it_and_goes_on_later() {
    let house = House::new().await;
    house.bucket.insert("f", "x", Metadata::new());
    house.lookup(ROOT, "f").await.unwrap();
    hold(&house.bucket);
    house.fs.unlink(ROOT, name("f")).await.unwrap();
    house.bucket.heal();
    house.bucket.inject(Fault::once("HeadObject", Effect::Fail(Kind::Unreachable)));
    let house = house.restart().await;
    assert_eq!(house.lookup(ROOT, "f").await.unwrap_err(), Errno::ENOENT);
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.bucket.keys(), Vec::<String>::new());
}

#[tokio::test]
async fn killed_after_the_batch_hooks_are_told_once() {
    let house = telling().await;
    for key in ["lost", "settled", "other"] {
        house.bucket.insert(key, key, Metadata::new());
    }
    house.lookup(ROOT, "lost").await.unwrap();
    let notes = house.state.path().join("journal/notes.log");
    // Killed between the journal's word and the note's end.
    house.fs.unlink(ROOT, name("settled")).await.unwrap();
    let before = std::fs::read(&notes).unwrap();
    house.fs.settle_removals().await.unwrap();
    std::fs::write(&notes, before).unwrap();
    let house = killed(house).await;
    assert_eq!(events(&house), [(EventName::RemovedDelete, "settled".to_owned())]);
    // Killed before the journal's word.
    house.lookup(ROOT, "lost").await.unwrap();
    house.bucket.inject(Fault::once("DeleteObject", Effect::LoseReply(Kind::Unreachable)));
    house.fs.unlink(ROOT, name("lost")).await.unwrap();
    house.fs.settle_removals().await.unwrap_err();
    assert_eq!(house.bucket.keys(), ["other"]);
    let house = killed(house).await;
    let told = ["settled", "lost"].map(|key| (EventName::RemovedDelete, key.to_owned()));
    assert_eq!(events(&house), told);
    assert_eq!(events(&killed(house).await), told);
}

#[tokio::test]
async fn an_object_put_into_an_emptied_directory_by_another_client_stays() {
    let house = House::new().await;
    for key in ["d/", "d/f"] {
        house.bucket.insert(key, "", Metadata::new());
    }
    let d = house.lookup(ROOT, "d").await.unwrap().ino;
    house.names(d).await;
    house.fs.unlink(d, name("f")).await.unwrap();
    house.bucket.insert("d/theirs", "x", Metadata::new());
    // Either answer is right: what counts is that nothing of theirs is lost.
    let _ = house.fs.rmdir(ROOT, name("d")).await;
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.bucket.bytes("d/theirs").unwrap(), "x");
    house.fs.forget_key("d");
    let d = house.lookup(ROOT, "d").await.unwrap().ino;
    assert_eq!(house.names(d).await, ["theirs"]);
}

#[tokio::test]
async fn a_server_that_does_not_know_the_batch_gets_single_requests() {
    let house = House::new().await;
    for key in ["a", "b", "c"] {
        house.bucket.insert(key, key, Metadata::new());
    }
    house.bucket.inject(Fault::once("DeleteObjects", Effect::Fail(Kind::Unsupported)).times(u32::MAX));
    house.lookup(ROOT, "a").await.unwrap();
    for key in ["a", "b", "c"] {
        house.fs.unlink(ROOT, name(key)).await.unwrap();
    }
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.bucket.keys(), Vec::<String>::new());
}

#[tokio::test]
async fn an_emptied_directory_survives_and_rmdir_ends_it() {
    let house = House::new().await;
    house.bucket.insert("d/only", "x", Metadata::new());
    let directory = house.lookup(ROOT, "d").await.unwrap().ino;
    house.lookup(directory, "only").await.unwrap();
    house.fs.unlink(directory, name("only")).await.unwrap();
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.bucket.keys(), ["d/"]);
    house.fs.rmdir(ROOT, name("d")).await.unwrap();
    house.fs.settle_removals().await.unwrap();
    assert!(house.bucket.keys().is_empty());
}

#[tokio::test]
async fn rmdir_refuses_while_a_key_without_a_path_is_below() {
    let house = House::new().await;
    house.bucket.insert("d//x", "x", Metadata::new());
    house.lookup(ROOT, "d").await.unwrap();
    let refused = house.fs.rmdir(ROOT, name("d")).await.unwrap_err();
    assert_eq!(refused.errno(), Errno::ENOTEMPTY);
}

#[tokio::test]
async fn an_unlinked_file_is_still_read_by_its_opener() {
    let house = House::new().await;
    house.bucket.insert("a", "secret", Metadata::new());
    let ino = house.lookup(ROOT, "a").await.unwrap().ino;
    let opened = house.fs.open(ino, libc::O_RDONLY, ME).await.unwrap();
    house.fs.unlink(ROOT, name("a")).await.unwrap();
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.bucket.keys(), Vec::<String>::new());
    assert_eq!(house.fs.read(opened.handle, 0, 100).await.unwrap(), "secret");
    assert_eq!(house.fs.getattr(ino).await.unwrap().nlink, 0);
    assert_eq!(house.lookup(ROOT, "a").await.unwrap_err(), Errno::ENOENT);
}

#[tokio::test]
async fn renames_cost_a_copy_each_and_their_old_names_go_together() {
    let house = telling().await;
    for number in 0..50 {
        house.bucket.insert(&format!("d/{number:02}"), number.to_string(), Metadata::new());
    }
    let d = house.lookup(ROOT, "d").await.unwrap().ino;
    for number in 0..50 {
        let (old, new) = (format!("{number:02}"), format!("n{number:02}"));
        house.fs.rename(d, name(&old), d, name(&new), 0).await.unwrap();
        assert_eq!(house.bucket.bytes(&format!("d/{new}")).unwrap(), number.to_string(), "copied when it answers");
        assert_eq!(house.lookup(d, &old).await.unwrap_err(), Errno::ENOENT);
    }
    house.fs.settle_removals().await.unwrap();
    assert!(house.bucket.keys().iter().all(|key| key.starts_with("d/n")));
    assert_eq!(house.bucket.keys().len(), 50);
    assert!(requests(&house) <= 55, "{:?}", house.bucket.requests());
    let told = events(&house);
    for number in 0..50 {
        let at = |name, key: String| told.iter().position(|told| *told == (name, key.clone())).unwrap();
        let (copied, removed) = (format!("d/n{number:02}"), format!("d/{number:02}"));
        assert!(at(EventName::CreatedCopy, copied) < at(EventName::RemovedDelete, removed));
    }
    assert_eq!(told.len(), 100);
}

#[tokio::test]
async fn a_rename_killed_before_its_old_name_went_is_finished_by_the_next_start() {
    let house = telling().await;
    for key in ["a", "d/only"] {
        house.bucket.insert(key, key, Metadata::new());
    }
    let d = house.lookup(ROOT, "d").await.unwrap().ino;
    house.lookup(d, "only").await.unwrap();
    hold(&house.bucket);
    house.fs.rename(ROOT, name("a"), ROOT, name("b"), 0).await.unwrap();
    house.fs.rename(d, name("only"), ROOT, name("moved"), 0).await.unwrap();
    assert!(house.bucket.bytes("a").is_some());
    house.bucket.heal();
    let house = killed(house).await;
    assert_eq!(house.bucket.keys(), ["b", "d/", "moved"]);
    let mut told = events(&house);
    told.sort_by(|left, right| left.1.cmp(&right.1));
    let (copied, removed) = (EventName::CreatedCopy, EventName::RemovedDelete);
    let wanted = [(removed, "a"), (copied, "b"), (removed, "d/only"), (copied, "moved")];
    assert_eq!(told, wanted.map(|(name, key)| (name, key.to_owned())));
}

#[tokio::test]
async fn a_chmod_of_a_directory_whose_marker_is_on_its_way_is_stored() {
    let house = House::new().await;
    house.bucket.insert("d/only", "x", Metadata::new());
    let d = house.lookup(ROOT, "d").await.unwrap().ino;
    house.lookup(d, "only").await.unwrap();
    house.fs.unlink(d, name("only")).await.unwrap();
    let set = SetAttr { mode: Some(0o700), ..SetAttr::default() };
    house.fs.setattr(d, set).await.unwrap();
    assert_eq!(house.bucket.info("d/").unwrap().metadata["file-permissions"], "0040700");
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.bucket.keys(), ["d/"]);
}

#[tokio::test]
async fn a_walk_shows_neither_what_waits_nor_less_than_the_directories_that_stay() {
    let house = House::new().await;
    for number in 0..12 {
        for key in [format!("t/{number:02}/deep/only"), format!("t/{number:02}/f")] {
            house.bucket.insert(&key, "x", Metadata::new());
        }
    }
    let t = house.lookup(ROOT, "t").await.unwrap().ino;
    let sub = house.lookup(t, "05").await.unwrap().ino;
    let deep = house.lookup(sub, "deep").await.unwrap().ino;
    house.lookup(deep, "only").await.unwrap();
    hold(&house.bucket);
    house.bucket.inject(Fault::once("PutObject", Effect::Hang).times(u32::MAX));
    house.fs.unlink(deep, name("only")).await.unwrap();
    // A mount that knows nothing but its notes walks the tree.
    let House { bucket, fs, journal, state, .. } = house;
    fs.stop_removals().await;
    drop((fs, journal));
    bucket.heal();
    for operation in ["HeadObject", "PutObject"] {
        bucket.inject(Fault::once(operation, Effect::Fail(Kind::Unreachable)).times(u32::MAX));
    }
    let house = House::on(bucket, state).await;
    let t = house.lookup(ROOT, "t").await.unwrap().ino;
    for (child, entry) in house.list(t, true).await {
        let below = entry.unwrap().ino;
        assert_eq!(house.names(below).await, ["deep", "f"], "{child}");
        let deep = house.lookup(below, "deep").await.unwrap().ino;
        let left: &[&str] = if child == "05" { &[] } else { &["only"] };
        assert_eq!(house.names(deep).await, left, "{child}");
    }
}
