//! Objects: what goes in comes out, and conditions hold.

use super::*;

#[tokio::test]
async fn an_object_comes_back_as_it_was_put() {
    let place = Place::new().await;
    let key = place.key("object");
    let metadata = Metadata::from([("file-owner".to_owned(), "7".to_owned()), ("x".to_owned(), "y z".to_owned())]);
    let properties = Properties {
        headers: [(Header::CacheControl, "no-store".to_owned())].into(),
        storage_class: Some(StorageClass::STANDARD),
        ..Properties::of_type(Some("text/x-odd".to_owned()))
    };
    let put = PutOptions { metadata: metadata.clone(), properties: properties.clone(), condition: Condition::None };
    let etag = place.bucket().put(&key, bytes(1000), &put).await.unwrap();
    let info = place.bucket().head(&key).await.unwrap();
    assert_eq!((&info.etag, info.size, &info.metadata, &info.properties), (&etag, 1000, &metadata, &properties));
    assert!(!info.archived);
    let whole = place.bucket().get(&key, None, Some(&etag)).await.unwrap();
    assert_eq!((whole.bytes, whole.info), (bytes(1000), info));
}

#[tokio::test]
async fn ranges_are_cut_at_the_end_of_the_object() {
    let place = Place::new().await;
    let key = place.key("ranges");
    let etag = place.bucket().put(&key, bytes(100), &PutOptions::default()).await.unwrap();
    let ranges: [(Range<u64>, Range<usize>); 5] =
        [(0..10, 0..10), (90..100, 90..100), (90..5000, 90..100), (0..100, 0..100), (50..51, 50..51)];
    for (asked, got) in ranges.into_iter().chain([(100..200, 100..100), (7..7, 7..7), (500..600, 100..100)]) {
        let fetched = place.bucket().get(&key, Some(asked.clone()), Some(&etag)).await.unwrap();
        assert_eq!(fetched.bytes, bytes(100).slice(got), "{asked:?}");
        assert_eq!((fetched.info.size, &fetched.info.etag), (100, &etag));
    }
    let empty = place.key("empty");
    place.bucket().put(&empty, Bytes::new(), &PutOptions::default()).await.unwrap();
    for range in [None, Some(0..10), Some(0..0)] {
        assert!(place.bucket().get(&empty, range, None).await.unwrap().bytes.is_empty());
    }
}

#[tokio::test]
async fn a_large_object_arrives_whole() {
    let place = Place::new().await;
    let key = place.key("large");
    place.bucket().put(&key, bytes(9_000_001), &PutOptions::default()).await.unwrap();
    assert_eq!(place.bucket().get(&key, None, None).await.unwrap().bytes, bytes(9_000_001));
    let middle = place.bucket().get(&key, Some(4_000_000..8_000_000), None).await.unwrap();
    assert_eq!(middle.bytes, bytes(9_000_001).slice(4_000_000..8_000_000));
}

#[tokio::test]
async fn what_is_missing_is_not_found() {
    let place = Place::new().await;
    let key = place.key("missing");
    assert_eq!(place.bucket().head(&key).await.unwrap_err().kind, Kind::NotFound);
    assert_eq!(place.bucket().get(&key, None, None).await.unwrap_err().kind, Kind::NotFound);
    let copy = CopyRequest::new(key.clone(), place.key("copy"));
    assert_eq!(place.bucket().copy(&copy).await.unwrap_err().kind, Kind::NotFound);
    place.bucket().delete(&key, None).await.expect("deleting what is not there succeeds");
    assert!(place.bucket().delete_many(&[Deletion::of_any(key)]).await.unwrap().is_empty());
}

#[tokio::test]
async fn conditions_hold() {
    let place = Place::new().await;
    let key = place.key("conditions");
    let (bucket, changed) = (place.bucket(), Kind::Changed);
    let first = bucket.put(&key, "1".into(), &options(Condition::IfAbsent)).await.unwrap();
    assert_eq!(bucket.put(&key, "2".into(), &options(Condition::IfAbsent)).await.unwrap_err().kind, changed);
    let second = bucket.put(&key, "22".into(), &options(Condition::IfMatch(first.clone()))).await.unwrap();
    let stale = options(Condition::IfMatch(first.clone()));
    assert_eq!(bucket.put(&key, "3".into(), &stale).await.unwrap_err().kind, changed);
    assert_eq!(bucket.get(&key, None, Some(&first)).await.unwrap_err().kind, changed);
    assert_eq!(bucket.get(&key, Some(7..9), Some(&first)).await.unwrap_err().kind, changed);
    let copy = CopyRequest { from_etag: Some(first), ..CopyRequest::new(key.clone(), place.key("to")) };
    assert_eq!(bucket.copy(&copy).await.unwrap_err().kind, changed);
    assert_eq!(bucket.get(&key, None, Some(&second)).await.unwrap().bytes, "22");
}

#[tokio::test]
async fn only_the_version_that_is_named_is_deleted() {
    let place = Place::new().await;
    let (bucket, key, odd) = (place.bucket(), place.key("deleted"), place.key("odd\u{1}"));
    let deletion = |key: &str, etag: &ETag| Deletion { key: key.to_owned(), etag: Some(etag.clone()) };
    let older = bucket.put(&key, "1".into(), &PutOptions::default()).await.unwrap();
    let current = bucket.put(&key, "22".into(), &PutOptions::default()).await.unwrap();
    bucket.put(&odd, "22".into(), &PutOptions::default()).await.unwrap();
    assert_eq!(bucket.delete(&key, Some(&older)).await.unwrap_err().kind, Kind::Changed);
    let failed = bucket.delete_many(&[deletion(&key, &older), deletion(&odd, &older)]).await.unwrap();
    let mut failed: Vec<_> = failed.into_iter().map(|(key, error)| (key, error.kind)).collect();
    failed.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(failed, [(key.clone(), Kind::Changed), (odd.clone(), Kind::Changed)]);
    // The second time it is not there any more, which is what was wanted.
    for _ in 0..2 {
        let failed = bucket.delete_many(&[deletion(&key, &current), deletion(&odd, &current)]).await.unwrap();
        assert!(failed.is_empty(), "{failed:?}");
        bucket.delete(&key, Some(&current)).await.unwrap();
    }
    assert!(place.list(ListRequest::default()).await.objects.is_empty());
    // An answer that was lost is asked for again.
    let again = bucket.put(&key, "3".into(), &PutOptions::default()).await.unwrap();
    place.fault("DeleteObject", FaultKind::AppliedThenLostReply, 1);
    bucket.delete(&key, Some(&again)).await.unwrap();
}

#[tokio::test]
async fn of_many_creators_one_wins() {
    let place = Place::new().await;
    let key = place.key("race");
    let create = |number: usize| {
        let (bucket, key) = (Arc::clone(place.bucket()), key.clone());
        async move { bucket.put(&key, number.to_string().into(), &options(Condition::IfAbsent)).await }
    };
    let results = futures::future::join_all((0..16).map(create)).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(results.iter().filter_map(|result| result.as_ref().err()).all(|error| error.kind == Kind::Changed));
}

#[tokio::test]
async fn a_copy_keeps_or_replaces_what_the_object_carries() {
    let place = Place::new().await;
    let metadata = Metadata::from([("a".to_owned(), "1".to_owned())]);
    let properties = Properties::of_type(Some("a/b".into()));
    let put = PutOptions { metadata: metadata.clone(), properties, condition: Condition::None };
    let etag = place.bucket().put(&place.key("from"), bytes(10), &put).await.unwrap();
    let mut copy = CopyRequest { from_etag: Some(etag), ..CopyRequest::new(place.key("from"), place.key("to")) };
    place.bucket().copy(&copy).await.unwrap();
    let kept = place.bucket().get(&copy.to, None, None).await.unwrap();
    assert_eq!((kept.bytes, kept.info.metadata), (bytes(10), metadata));
    assert_eq!(kept.info.properties.content_type.as_deref(), Some("a/b"));
    let metadata = Metadata::from([("b".to_owned(), "2".to_owned())]);
    copy.replace = Some(PutOptions { metadata: metadata.clone(), ..PutOptions::default() });
    let etag = place.bucket().copy(&copy).await.unwrap();
    let replaced = place.bucket().head(&copy.to).await.unwrap();
    assert_eq!((replaced.metadata, replaced.etag), (metadata, etag));
}

#[tokio::test]
async fn attributes_survive_the_server() {
    let place = Place::new().await;
    let attributes = Attributes {
        mode: Some(0o100_640),
        uid: Some(1000),
        mtime: Some(std::time::UNIX_EPOCH + std::time::Duration::new(1_595_002_920, 123_456_789)),
        xattrs: [("user.note".to_owned(), vec![0, 255, 10])].into(),
        ..Attributes::default()
    };
    let put = PutOptions { metadata: attributes.to_metadata().unwrap(), ..PutOptions::default() };
    place.bucket().put(&place.key("attributes"), "x".into(), &put).await.unwrap();
    let info = place.bucket().head(&place.key("attributes")).await.unwrap();
    assert_eq!(Attributes::from_metadata(&info.metadata), attributes);
}
