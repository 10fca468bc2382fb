//! What a mount has heard of its root before anybody asked: it spares the first question, and hides nothing.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use s3mount::bucket::memory::{Effect, Fault, MemoryBucket};
use s3mount::bucket::{Bucket, ListRequest, Metadata};
use s3mount::error::{Errno, Kind};
use s3mount::fs::{Attrs, FileKind, Settings};

use super::{House, ROOT};

/// What a mount asks before it serves; `names`: as many at most.
async fn hear(house: &House, names: u16) {
    let asked = Instant::now();
    hear_as_of(house, names, asked).await;
}

async fn hear_as_of(house: &House, names: u16, asked: Instant) {
    let request = ListRequest { delimited: true, max_keys: Some(names), ..ListRequest::default() };
    let page = house.bucket.list(&request).await.unwrap();
    house.fs.hint_root(page, asked, &house.recovered);
}

fn requests(house: &House) -> u64 {
    house.bucket.requests().values().sum()
}

/// Objects of another client.
fn put(house: &House, objects: &[(&str, &'static str)]) {
    for (key, bytes) in objects {
        house.bucket.insert(key, *bytes, Metadata::new());
    }
}

async fn size(house: &House, name: &str) -> u64 {
    house.lookup(ROOT, name).await.unwrap().stat.size
}

#[tokio::test]
async fn a_name_that_was_heard_of_costs_no_request_and_a_directory_one() {
    let house = House::patient().await;
    put(&house, &[("a", "123"), ("d/x", "1")]);
    hear(&house, 100).await;
    let before = requests(&house);
    assert_eq!(size(&house, "a").await, 3);
    assert_eq!(requests(&house), before);
    assert_eq!(house.lookup(ROOT, "d").await.unwrap().stat.kind, FileKind::Directory);
    assert_eq!(requests(&house), before + 1, "what is in it");
}

#[tokio::test]
async fn what_another_client_adds_is_there_at_once() {
    let house = House::patient().await;
    put(&house, &[("a", "1")]);
    hear(&house, 100).await;
    put(&house, &[("new", "12"), ("d/x", "1")]);
    assert_eq!(size(&house, "new").await, 2);
    let house = House::patient().await;
    put(&house, &[("a", "1")]);
    hear(&house, 100).await;
    put(&house, &[("new", "12")]);
    assert_eq!(size(&house, "a").await, 1);
    assert_eq!(house.names(ROOT).await, ["a", "new"]);
}

#[tokio::test]
async fn what_another_client_replaces_is_seen_after_the_ttl_as_ever() {
    let short = |settings| Settings { attr_ttl: Duration::from_millis(50), ..settings };
    let house = House::with(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap(), short).await;
    put(&house, &[("a", "1"), ("b", "1")]);
    hear(&house, 100).await;
    size(&house, "a").await;
    put(&house, &[("a", "12"), ("b", "12")]);
    let seen = async {
        while size(&house, "a").await != 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), seen).await.expect("the new version is seen some day");
    assert_eq!(size(&house, "b").await, 2);
}

#[tokio::test]
async fn what_was_heard_longer_ago_than_the_ttl_is_not_believed() {
    let house = House::patient().await;
    let Some(long_ago) = Instant::now().checked_sub(Duration::from_mins(11)) else { return };
    put(&house, &[("a", "1")]);
    hear_as_of(&house, 100, long_ago).await;
    put(&house, &[("a", "12")]);
    assert_eq!(size(&house, "a").await, 2);
    let none = |settings| Settings { attr_ttl: Duration::ZERO, ..settings };
    let house = House::with(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap(), none).await;
    put(&house, &[("a", "1")]);
    hear(&house, 100).await;
    put(&house, &[("a", "12")]);
    assert_eq!(size(&house, "a").await, 2, "with a TTL of nothing nothing is believed");
}

#[tokio::test]
async fn a_name_that_has_become_something_else_is_asked_for() {
    let heads = |settings| Settings { attrs: Attrs::Full, attr_ttl: Duration::from_mins(10), ..settings };
    for (before, now, kind) in [("a/x", "a", FileKind::File), ("a", "a/x", FileKind::Directory)] {
        let house = House::with(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap(), heads).await;
        put(&house, &[(before, "1")]);
        hear(&house, 100).await;
        house.bucket.remove(before);
        put(&house, &[(now, "1")]);
        assert_eq!(house.lookup(ROOT, "a").await.unwrap().stat.kind, kind);
    }
}

#[tokio::test]
async fn a_name_that_the_next_page_may_make_a_directory_is_asked_for() {
    let house = House::patient().await;
    put(&house, &[("a", "1"), ("a-b", "1"), ("a/x", "1")]);
    hear(&house, 2).await;
    assert_eq!(house.lookup(ROOT, "a").await.unwrap().stat.kind, FileKind::Directory);
}

#[tokio::test]
async fn a_view_stands_before_what_the_bucket_has_under_its_name() {
    let house = House::patient().await;
    put(&house, &[("thumbs", "1")]);
    house.fs.set_views(vec!["thumbs/".to_owned()]);
    hear(&house, 100).await;
    let before = requests(&house);
    house.lookup(ROOT, "thumbs").await.unwrap();
    assert!(requests(&house) > before);
}

#[tokio::test]
async fn what_waits_to_be_removed_stays_hidden() {
    let house = House::new().await;
    // Nobody would ask for its attributes and be told that it is gone.
    put(&house, &[("gone", "1")]);
    house.bucket.inject(Fault::once("DeleteObject", Effect::Fail(Kind::Busy)).times(u32::MAX));
    house.bucket.inject(Fault::once("DeleteObjects", Effect::Fail(Kind::Busy)).times(u32::MAX));
    house.fs.unlink(ROOT, OsStr::new("gone")).await.unwrap();
    let house = house.restart().await;
    assert_eq!(house.bucket.keys(), ["gone"]);
    hear(&house, 100).await;
    assert_eq!(house.lookup(ROOT, "gone").await.unwrap_err(), Errno::ENOENT);
}
