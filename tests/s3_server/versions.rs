//! Buckets with versioning.

use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};

use crate::stage::{BUCKET, Stage, answer_to};

async fn enable(stage: &Stage) {
    let config = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
    stage.client.put_bucket_versioning().bucket(BUCKET).versioning_configuration(config).send().await.unwrap();
}

#[tokio::test]
async fn old_versions_stay_until_they_are_deleted_by_id() {
    let stage = Stage::new().await;
    stage.put("k", "null").await;
    enable(&stage).await;
    stage.put("k", "one").await;
    stage.put("k", "two").await;
    let deleted = stage.client.delete_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(deleted.delete_marker(), Some(true));
    assert_eq!(stage.get("k").await, None);
    assert!(stage.keys().await.is_empty());
    let stage = stage.restart_abruptly().await;
    let listed = stage.client.list_object_versions().bucket(BUCKET).send().await.unwrap();
    assert_eq!((listed.versions().len(), listed.delete_markers().len()), (3, 1));
    assert_eq!(listed.versions()[2].version_id(), Some("null"));
    let marker = listed.delete_markers()[0].version_id().unwrap();
    let by_marker = stage.client.get_object().bucket(BUCKET).key("k").version_id(marker).send().await;
    assert_eq!(answer_to(&by_marker.unwrap_err()).0, 405);
    stage.client.delete_object().bucket(BUCKET).key("k").version_id(marker).send().await.unwrap();
    assert_eq!(stage.get("k").await.unwrap(), b"two");
    let latest = listed.versions()[0].version_id().unwrap();
    stage.client.delete_object().bucket(BUCKET).key("k").version_id(latest).send().await.unwrap();
    assert_eq!(stage.get("k").await.unwrap(), b"one");
}

#[tokio::test]
async fn a_bucket_is_deleted_only_when_nothing_is_left_in_it() {
    let stage = Stage::new().await;
    stage.put("k", "x").await;
    let full = stage.client.delete_bucket().bucket(BUCKET).send().await.unwrap_err();
    assert_eq!(answer_to(&full), (409, "BucketNotEmpty"));
    stage.client.delete_object().bucket(BUCKET).key("k").send().await.unwrap();
    stage.client.delete_bucket().bucket(BUCKET).send().await.unwrap();
    assert_eq!(answer_to(&stage.client.head_bucket().bucket(BUCKET).send().await.unwrap_err()).0, 404);
    stage.client.create_bucket().bucket(BUCKET).send().await.unwrap();
    let again = stage.client.create_bucket().bucket(BUCKET).send().await.unwrap_err();
    assert_eq!(answer_to(&again), (409, "BucketAlreadyOwnedByYou"));
}
