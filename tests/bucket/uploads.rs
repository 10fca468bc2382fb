//! Uploads in parts.

use s3mount::bucket::upload::Arriving;

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
    let copy = CopyRequest { from_etag: Some(etag), ..CopyRequest::new(key, place.key("copy")) };
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

/// A part of 5 MiB and a bit, of which the second half comes once it is asked for.
async fn send_while_it_comes(bucket: &Arc<dyn Bucket>, key: &str, body: &Bytes) -> s3mount::bucket::Result<ETag> {
    let id = bucket.create_upload(key, &PutOptions::default()).await?;
    let part = Arc::new(Arriving::new(body.len() as u64));
    part.push(body.slice(..1 << 20));
    let coming = async {
        for start in (1 << 20..body.len()).step_by(100_000) {
            tokio::task::yield_now().await;
            part.push(body.slice(start..body.len().min(start + 100_000)));
        }
    };
    let (sent, ()) = futures::future::join(bucket.upload_arriving_part(key, &id, 1, &part), coming).await;
    match sent {
        Ok(part) => bucket.complete_upload(key, &id, &[part], &Condition::IfAbsent).await,
        Err(error) => {
            bucket.abort_upload(key, &id).await?;
            Err(error)
        }
    }
}

#[tokio::test]
async fn a_part_is_sent_while_it_comes() {
    let place = Place::new().await;
    let (bucket, key, body) = (place.bucket(), place.key("coming"), bytes((5 << 20) + 12_345));
    send_while_it_comes(bucket, &key, &body).await.unwrap();
    assert_eq!(bucket.get(&key, None, None).await.unwrap().bytes, body);
}

#[tokio::test]
async fn a_part_that_arrives_as_another_is_none() {
    let place = Place::new().await;
    let (bucket, body) = (place.bucket(), bytes(6 << 20));
    for kind in [FaultKind::FlippedBit, FaultKind::WrongChecksum] {
        let place = Place::new().await;
        place.fault("UploadPart", kind, 1);
        assert!(send_while_it_comes(place.bucket(), &place.key("spoiled"), &body).await.is_err(), "{kind:?}");
    }
    send_while_it_comes(bucket, &place.key("fine"), &body).await.unwrap();
}

#[tokio::test]
async fn a_server_that_wants_parts_whole_is_asked_once() {
    let place = Place::new().await;
    let (bucket, body) = (place.bucket(), bytes(5 << 20));
    place.fault("UploadPart", FaultKind::Status(501), 1);
    for _ in 0..3 {
        let refused = send_while_it_comes(bucket, &place.key("whole"), &body).await.unwrap_err();
        assert_eq!(refused.kind, Kind::Unsupported);
    }
    assert_eq!(place.server.request_counts()["UploadPart"], 1);
}
