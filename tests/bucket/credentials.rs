//! Credentials that are replaced while the bucket is in use: S3 refuses the old ones, and nobody notices.

use std::fs;
use std::path::Path;

use super::*;

fn write(file: &Path, key: &str) {
    fs::write(file, format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {key}\n"))
        .expect("a written file");
}

#[tokio::test]
async fn whatever_meets_the_refusal_first_is_sent_again_with_the_new_keys() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credentials");
    write(&file, KEY);
    let from_file = |settings| ConnectSettings { credentials: None, credentials_file: Some(file.clone()), ..settings };
    let place = Place::with(from_file).await;
    let replace = |key: &str| {
        write(&file, key);
        place.server.replace_keys(key, key);
    };
    let (bucket, key) = (place.bucket(), place.key("object"));
    let etag = place.put("object", "1").await;

    replace("second");
    assert_eq!(bucket.get(&key, None, Some(&etag)).await.unwrap().bytes, "1");
    replace("third");
    assert_eq!(bucket.head(&key).await.unwrap().etag, etag);
    replace("fourth");
    let etag = bucket.put(&key, "2".into(), &options(Condition::IfMatch(etag))).await.unwrap();
    replace("fifth");
    assert_eq!(place.list(ListRequest::default()).await.objects.len(), 1);
    let upload = bucket.create_upload(&key, &PutOptions::default()).await.unwrap();
    replace("sixth");
    let part = bucket.upload_part(&key, &upload, 1, bytes(100)).await.unwrap();
    replace("seventh");
    bucket.complete_upload(&key, &upload, &[part], &Condition::IfMatch(etag)).await.unwrap();
    replace("eighth");
    assert!(bucket.delete_many(&[Deletion::of_any(&key)]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_refusal_is_told_when_there_are_no_other_keys() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credentials");
    write(&file, KEY);
    let from_file = |settings| ConnectSettings { credentials: None, credentials_file: Some(file.clone()), ..settings };
    let place = Place::with(from_file).await;
    place.server.replace_keys("other", "other");
    let error = place.bucket().list(&ListRequest::default()).await.unwrap_err();
    assert_eq!((error.kind, error.code()), (Kind::AccessDenied, Some("InvalidAccessKeyId")));
}
