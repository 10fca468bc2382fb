//! Deletions name the version that was removed: what another client has written since stays.

use std::sync::Arc;

use s3mount::bucket::in_order::InOrder;
use s3mount::bucket::retry::{RetryPolicy, Retrying};
use s3mount::journal::{EventName, Intent, stored_etag};
use tokio::sync::Notify;

use super::*;

fn name(text: &str) -> &OsStr {
    OsStr::new(text)
}

fn with_events(settings: Settings) -> Settings {
    Settings { events: true, ..settings }
}

/// The next request of an operation is held until it is let go.
fn hold(house: &House, operation: &'static str) -> Arc<Notify> {
    let released = Arc::new(Notify::new());
    house.bucket.inject(Fault::once(operation, Effect::Hold(released.clone())));
    released
}

/// Another client acts when a request of this operation is on its way, which is let go then.
async fn while_held(bucket: &MemoryBucket, operation: &'static str, released: &Notify, theirs: impl FnOnce()) {
    while bucket.count(operation) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    theirs();
    released.notify_one();
}

/// A mount of a bucket with these objects, in which they are known.
async fn filled(keys: &[&'static str]) -> House {
    let house = House::new().await;
    for key in keys {
        house.bucket.insert(key, if key.ends_with('/') { "" } else { key }, Metadata::new());
    }
    house.names(ROOT).await;
    house
}

async fn unlink(house: &House, parent: Ino, names: &[&str]) {
    for text in names {
        house.fs.unlink(parent, name(text)).await.unwrap();
    }
}

#[tokio::test]
async fn what_another_client_writes_before_the_deletion_stays_and_is_seen() {
    let house = filled(&["f"]).await;
    let released = hold(&house, "DeleteObject");
    unlink(&house, ROOT, &["f"]).await;
    while_held(&house.bucket, "DeleteObject", &released, || drop(house.bucket.insert("f", "theirs", Metadata::new())))
        .await;
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.read_file(house.lookup(ROOT, "f").await.unwrap().ino).await, "theirs");
    assert_eq!((house.bucket.count("DeleteObject"), house.bucket.count("HeadObject")), (1, 1));
    // It is a file as any other, and can be removed.
    unlink(&house, ROOT, &["f"]).await;
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.bucket.keys(), Vec::<String>::new());
}

#[tokio::test]
async fn of_a_batch_all_go_but_what_has_changed() {
    let house = filled(&["a", "b", "c"]).await;
    let released = hold(&house, "DeleteObjects");
    unlink(&house, ROOT, &["a", "b", "c"]).await;
    while_held(&house.bucket, "DeleteObjects", &released, || drop(house.bucket.insert("b", "theirs", Metadata::new())))
        .await;
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.bucket.keys(), ["b"]);
    assert_eq!(house.names(ROOT).await, ["b"]);
    assert_eq!(house.bucket.bytes("b").unwrap(), "theirs");
    let counts = ["DeleteObjects", "DeleteObject", "HeadObject"].map(|operation| house.bucket.count(operation));
    assert_eq!(counts, [1, 0, 1]);
    assert_eq!(house.fs.status().removals_waiting, 0);
}

#[tokio::test]
async fn what_is_gone_already_is_gone_though_the_server_calls_it_changed() {
    let house = House::with(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap(), with_events).await;
    house.bucket.insert("f", "f", Metadata::new());
    house.bucket.inject(Fault::once("DeleteObject", Effect::Fail(Kind::Changed)));
    unlink(&house, ROOT, &["f"]).await;
    house.bucket.remove("f");
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.lookup(ROOT, "f").await.unwrap_err(), Errno::ENOENT);
    assert_eq!(house.fs.status().removals_waiting, 0);
    let told: Vec<_> = house.journal.events(10).unwrap().into_iter().map(|event| event.fact.name).collect();
    assert_eq!(told, [EventName::RemovedDelete]);
}

#[tokio::test]
async fn a_server_that_does_not_mean_its_tags_is_asked_once_more_without_them() {
    let house = filled(&["f"]).await;
    house.bucket.inject(Fault::once("DeleteObject", Effect::Fail(Kind::Changed)));
    unlink(&house, ROOT, &["f"]).await;
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.bucket.keys(), Vec::<String>::new());
    assert_eq!((house.bucket.count("DeleteObject"), house.bucket.count("HeadObject")), (2, 1));
}

#[tokio::test]
async fn an_upload_of_ours_that_arrives_late_goes_with_its_name() {
    let house = House::new().await;
    house.write_file(ROOT, "f", b"first").await;
    let first = house.bucket.info("f").unwrap().metadata;
    let ino = house.lookup(ROOT, "f").await.unwrap().ino;
    let opened = house.fs.open(ino, WRITE, ME).await.unwrap();
    house.fs.write(opened.handle, 0, b"other").await.unwrap();
    house.bucket.inject(Fault::once("PutObject", Effect::LoseReply(Kind::Unreachable)));
    house.fs.flush(opened.handle, ME).await.unwrap_err();
    let sent = house.bucket.info("f").unwrap().metadata;
    // As if the server had not done it yet.
    house.bucket.insert("f", "first", first);
    let released = hold(&house, "DeleteObject");
    unlink(&house, ROOT, &["f"]).await;
    while_held(&house.bucket, "DeleteObject", &released, || drop(house.bucket.insert("f", "other", sent))).await;
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.bucket.keys(), Vec::<String>::new());
    assert_eq!(house.lookup(ROOT, "f").await.unwrap_err(), Errno::ENOENT);
}

#[tokio::test]
async fn a_marker_goes_whoever_has_put_it() {
    let bucket = Arc::new(MemoryBucket::new());
    bucket.give_random_tags();
    let house = House::on(bucket, tempfile::tempdir().unwrap()).await;
    house.fs.mkdir(ROOT, name("d"), 0o755, ME).await.unwrap();
    let released = hold(&house, "DeleteObject");
    house.fs.rmdir(ROOT, name("d")).await.unwrap();
    while_held(&house.bucket, "DeleteObject", &released, || drop(house.bucket.insert("d/", "", Metadata::new()))).await;
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.bucket.keys(), Vec::<String>::new());
}

#[tokio::test]
async fn a_source_that_another_client_writes_during_a_rename_stays_beside_the_copy() {
    let house = House::with(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap(), with_events).await;
    for (from, to) in [("full", "full-renamed"), ("empty", "empty-renamed")] {
        house.bucket.insert(from, if from == "full" { "ours" } else { "" }, Metadata::new());
        house.lookup(ROOT, from).await.unwrap();
        let (released, before) = (hold(&house, "DeleteObject"), house.bucket.count("DeleteObject"));
        house.fs.rename(ROOT, name(from), ROOT, name(to), 0).await.unwrap();
        while house.bucket.count("DeleteObject") == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        house.bucket.insert(from, "theirs", Metadata::new());
        released.notify_one();
        house.fs.settle_removals().await.unwrap();
    }
    let names = ["empty", "empty-renamed", "full", "full-renamed"];
    assert_eq!(house.names(ROOT).await, names);
    for (name, bytes) in names.into_iter().zip(["theirs", "", "theirs", "ours"]) {
        assert_eq!(house.read_file(house.lookup(ROOT, name).await.unwrap().ino).await, bytes, "{name}");
    }
    let told = house.journal.events(10).unwrap();
    assert!(told.iter().all(|event| event.fact.name == EventName::CreatedCopy), "nothing was removed: {told:?}");
    assert_eq!(told.len(), 2);
}

#[tokio::test]
async fn of_a_renamed_directory_what_another_client_has_changed_stays_under_its_old_name() {
    let house = filled(&["d/", "d/a", "d/b", "d/c"]).await;
    let d = house.lookup(ROOT, "d").await.unwrap().ino;
    house.names(d).await;
    let released = hold(&house, "DeleteObjects");
    let theirs = || drop(house.bucket.insert("d/b", "theirs", Metadata::new()));
    let (renamed, ()) = tokio::join!(
        house.fs.rename(ROOT, name("d"), ROOT, name("e"), 0),
        while_held(&house.bucket, "DeleteObjects", &released, theirs)
    );
    renamed.unwrap();
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.bucket.keys(), ["d/b", "e/", "e/a", "e/b", "e/c"]);
    assert_eq!(
        (house.bucket.bytes("d/b").unwrap(), house.bucket.bytes("e/b").unwrap()),
        ("theirs".into(), "d/b".into())
    );
    let d = house.lookup(ROOT, "d").await.unwrap().ino;
    assert_eq!(house.names(d).await, ["b"]);
    assert_eq!(house.read_file(house.lookup(d, "b").await.unwrap().ino).await, "theirs");
    let house = house.restart().await;
    assert_eq!(house.bucket.keys(), ["d/b", "e/", "e/a", "e/b", "e/c"]);
}

#[tokio::test]
async fn a_failed_rename_of_a_directory_takes_back_its_own_copies_alone() {
    let house = filled(&["d/a", "d/b"]).await;
    house.lookup(ROOT, "d").await.unwrap();
    house.bucket.inject(Fault::once("CopyObject", Effect::Fail(Kind::AccessDenied)).on_key("e/b"));
    let released = hold(&house, "DeleteObjects");
    let theirs = || drop(house.bucket.insert("e/a", "theirs", Metadata::new()));
    let (renamed, ()) = tokio::join!(
        house.fs.rename(ROOT, name("d"), ROOT, name("e"), 0),
        while_held(&house.bucket, "DeleteObjects", &released, theirs)
    );
    assert_eq!(renamed.unwrap_err().errno(), Errno::EACCES);
    assert_eq!(house.bucket.keys(), ["d/a", "d/b", "e/a"]);
    assert_eq!(house.bucket.bytes("e/a").unwrap(), "theirs");
}

#[tokio::test]
async fn a_rename_that_a_crash_has_cut_spares_a_source_that_another_client_writes() {
    let house = House::new().await;
    let etag = stored_etag(&house.bucket.insert("a", "ours", Metadata::new()));
    house.bucket.insert("b", "ours", Metadata::new());
    let intent = Intent::Rename { from: "a".to_owned(), to: "b".to_owned(), etag, to_etag: None };
    house.journal.intend(intent).await.unwrap();
    let (released, bucket) = (hold(&house, "DeleteObject"), house.bucket.clone());
    let theirs = || drop(bucket.insert("a", "theirs", Metadata::new()));
    let (house, ()) = tokio::join!(house.restart(), while_held(&bucket, "DeleteObject", &released, theirs));
    assert_eq!(house.names(ROOT).await, ["a", "b"]);
    assert_eq!(house.bucket.bytes("a").unwrap(), "theirs");
    assert!(house.journal.open_intents().unwrap().is_empty());
}

/// Removes and renames all that there is to remove and rename.
async fn live_through(house: &House) {
    for key in ["marked/", "marked/a", "marked/b", "bare/a", "from", "tree/", "tree/f"] {
        house.bucket.insert(key, if key.ends_with('/') { "" } else { key }, Metadata::new());
    }
    for (directory, files) in [("marked", &["a", "b"][..]), ("bare", &["a"])] {
        let ino = house.lookup(ROOT, directory).await.unwrap().ino;
        house.names(ino).await;
        unlink(house, ino, files).await;
        house.fs.rmdir(ROOT, name(directory)).await.unwrap();
    }
    for (from, to) in [("from", "to"), ("tree", "moved")] {
        house.lookup(ROOT, from).await.unwrap();
        house.fs.rename(ROOT, name(from), ROOT, name(to), 0).await.unwrap();
    }
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.bucket.keys(), ["moved/", "moved/f", "to"]);
    assert_eq!(house.names(ROOT).await, ["moved", "to"]);
}

#[tokio::test]
async fn a_bucket_that_wants_each_version_named_is_served() {
    let house = House::new().await;
    house.bucket.insist_on_tags_of_deleted();
    live_through(&house).await;
}

/// A mount whose requests are tried again.
async fn retrying(bucket: Arc<MemoryBucket>) -> House {
    let shared: Arc<dyn Bucket> = bucket.clone();
    let patient = Retrying::new(InOrder::over(shared), RetryPolicy::default(), Arc::default());
    House::over(bucket, Arc::new(patient), tempfile::tempdir().unwrap(), |settings| settings, None).await
}

#[tokio::test]
async fn where_no_version_can_be_named_removals_go_on_without() {
    for habit in [MemoryBucket::deny_tags_of_deleted, MemoryBucket::refuse_tags_of_deleted] {
        let bucket = Arc::new(MemoryBucket::new());
        habit(&bucket);
        live_through(&retrying(bucket).await).await;
    }
}
