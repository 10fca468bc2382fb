//! Uploads in parts.

use super::*;

#[tokio::test]
async fn parts_become_one_object_under_a_condition() {
    let place = Place::new().await;
    let (bucket, key) = (place.bucket(), place.key("parts"));
    let settings = UploadSettings { part_bytes: 5 << 20, ..UploadSettings::default() };
    let body = bytes((11 << 20) + 3);
    let metadata = Metadata::from([("a".to_owned(), "1".to_owned())]);
    let create = PutOptions { metadata: metadata.clone(), condition: Condition::IfAbsent, ..PutOptions::default() };
    let size = body.len() as u64;
    let etag = upload::upload(bucket, &key, Arc::new(body.clone()), size, &create, &settings).await.unwrap();
    let stored = bucket.get(&key, None, Some(&etag)).await.unwrap();
    assert_eq!((stored.bytes, stored.info.metadata), (body.clone(), metadata));
    let again = upload::upload(bucket, &key, Arc::new(body.clone()), size, &create, &settings).await;
    assert_eq!(again.unwrap_err().kind, Kind::Changed);
    let copy = CopyRequest {
        from: key,
        to: place.key("copy"),
        from_etag: Some(etag),
        replace: None,
        storage_class: None,
        from_bucket: None,
    };
    upload::copy_large(bucket, &copy, size, &PutOptions::default(), &settings).await.unwrap();
    assert_eq!(bucket.get(&copy.to, None, None).await.unwrap().bytes, body);
    assert!(bucket.list_uploads(place.prefix).await.unwrap().is_empty(), "an upload is left open");
}

#[tokio::test]
async fn uploads_under_way_are_listed_and_aborted() {
    let place = Place::new().await;
    let (bucket, key) = (place.bucket(), place.key("open +%"));
    let id = bucket.create_upload(&key, &PutOptions::default()).await.unwrap();
    bucket.upload_part(&key, &id, 1, bytes(100)).await.unwrap();
    let open = bucket.list_uploads(place.prefix).await.unwrap();
    assert_eq!((open.len(), &open[0].key, &open[0].upload_id), (1, &key, &id));
    bucket.abort_upload(&key, &id).await.unwrap();
    assert!(bucket.list_uploads(place.prefix).await.unwrap().is_empty());
    let late = bucket.upload_part(&key, &id, 2, bytes(100)).await.unwrap_err();
    assert_eq!(late.kind, Kind::NoSuchUpload);
}

#[tokio::test]
async fn more_uploads_than_one_answer_holds_are_all_listed() {
    let place = Place::new().await;
    let bucket = place.bucket();
    let beginning = (0..1_003).map(|number| {
        let key = place.key(&format!("{number}"));
        async move { bucket.create_upload(&key, &PutOptions::default()).await.expect("an upload") }
    });
    futures::future::join_all(beginning).await;
    let listed = bucket.list_uploads(place.prefix).await.unwrap();
    let keys: BTreeSet<String> = listed.into_iter().map(|upload| upload.key).collect();
    assert_eq!(keys.len(), 1_003);
}
