//! Conditional requests: each decided in the step that does it.

use aws_sdk_s3::config::Builder;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{BucketVersioningStatus, Delete, ObjectIdentifier, VersioningConfiguration};

use crate::stage::{BUCKET, Stage, answer_to};

const EXPRESS: &str = "fast--local--x-s3";
const OTHER: &str = "\"0123456789abcdef0123456789abcdef\"";

#[tokio::test]
async fn writes_happen_only_when_their_condition_holds() {
    let stage = Stage::new().await;
    let put = |key: &str| stage.client.put_object().bucket(BUCKET).key(key).body(ByteStream::from_static(b"new"));
    put("k").if_none_match("*").send().await.unwrap();
    let again = put("k").if_none_match("*").send().await.unwrap_err();
    assert_eq!(answer_to(&again), (412, "PreconditionFailed"));
    let etag = stage.put("k", "old").await;
    assert_eq!(answer_to(&put("k").if_match(OTHER).send().await.unwrap_err()), (412, "PreconditionFailed"));
    assert_eq!(stage.get("k").await.unwrap(), b"old");
    put("k").if_match(&etag).send().await.unwrap();
    assert_eq!(stage.get("k").await.unwrap(), b"new");
    assert_eq!(answer_to(&put("nothing").if_match(&etag).send().await.unwrap_err()), (404, "NoSuchKey"));
    assert_eq!(stage.get("nothing").await, None);
}

#[tokio::test]
async fn of_many_creators_and_of_many_overwriters_one_wins() {
    let stage = Stage::new().await;
    let etag = stage.put("old", "x").await;
    let put = |key: &str, writer: usize| {
        let body = ByteStream::from(vec![b'0' + u8::try_from(writer).unwrap(); 50_000]);
        stage.client.put_object().bucket(BUCKET).key(key).body(body)
    };
    let creators = (0..8).map(|writer| put("new", writer).if_none_match("*").send());
    let created = futures::future::join_all(creators).await;
    assert_eq!(created.iter().filter(|result| result.is_ok()).count(), 1);
    let overwriters = (0..8).map(|writer| put("old", writer).if_match(&etag).send());
    let overwritten = futures::future::join_all(overwriters).await;
    let winner = overwritten.iter().position(Result::is_ok).unwrap();
    for (writer, result) in overwritten.iter().enumerate().filter(|(writer, _)| *writer != winner) {
        assert_eq!(answer_to(result.as_ref().unwrap_err()).0, 412, "writer {writer}");
    }
    assert_eq!(stage.get("old").await.unwrap()[0], b'0' + u8::try_from(winner).unwrap());
}

#[tokio::test]
async fn reads_answer_304_and_412() {
    let stage = Stage::new().await;
    let etag = stage.put("k", "x").await;
    let get = || stage.client.get_object().bucket(BUCKET).key("k");
    let head = || stage.client.head_object().bucket(BUCKET).key("k");
    assert!(get().if_match(&etag).send().await.is_ok());
    assert_eq!(answer_to(&get().if_match(OTHER).send().await.unwrap_err()), (412, "PreconditionFailed"));
    assert_eq!(answer_to(&head().if_match(OTHER).send().await.unwrap_err()).0, 412);
    assert_eq!(answer_to(&get().if_none_match(&etag).send().await.unwrap_err()).0, 304);
    let modified = *head().send().await.unwrap().last_modified().unwrap();
    assert_eq!(answer_to(&get().if_modified_since(modified).send().await.unwrap_err()).0, 304);
    assert!(get().if_unmodified_since(modified).send().await.is_ok());
}

#[tokio::test]
async fn copies_have_conditions_on_both_ends() {
    let stage = Stage::new().await;
    let etag = stage.put("from", "new").await;
    stage.put("to", "old").await;
    let copy = || stage.client.copy_object().bucket(BUCKET).key("to").copy_source(format!("{BUCKET}/from"));
    let wrong_source = copy().copy_source_if_match(OTHER).send().await.unwrap_err();
    assert_eq!(answer_to(&wrong_source), (412, "PreconditionFailed"));
    assert_eq!(answer_to(&copy().if_none_match("*").send().await.unwrap_err()), (412, "PreconditionFailed"));
    assert_eq!(stage.get("to").await.unwrap(), b"old");
    copy().copy_source_if_match(etag).send().await.unwrap();
    assert_eq!(stage.get("to").await.unwrap(), b"new");
}

#[tokio::test]
async fn deletes_with_a_condition_spare_another_version() {
    let stage = Stage::new().await;
    let etag = stage.put("k", "x").await;
    let delete = || stage.client.delete_object().bucket(BUCKET).key("k");
    for other in [OTHER, OTHER.trim_matches('"')] {
        assert_eq!(answer_to(&delete().if_match(other).send().await.unwrap_err()), (412, "PreconditionFailed"));
        assert!(stage.get("k").await.is_some());
    }
    for tag in [etag.as_str(), etag.trim_matches('"'), "*"] {
        stage.put("k", "x").await;
        delete().if_match(tag).send().await.unwrap();
        assert_eq!(stage.get("k").await, None);
        assert_eq!(answer_to(&delete().if_match(tag).send().await.unwrap_err()), (404, "NoSuchKey"));
    }
    delete().send().await.unwrap();
}

/// The codes of the keys that a batch has not deleted.
async fn failures_of(stage: &Stage, bucket: &str, objects: &[(&str, Option<&str>)]) -> Vec<(String, String)> {
    let identifier = |(key, tag): &(&str, Option<&str>)| {
        ObjectIdentifier::builder().key(*key).set_e_tag(tag.map(str::to_owned)).build().unwrap()
    };
    let objects = objects.iter().map(identifier).collect();
    let delete = Delete::builder().set_objects(Some(objects)).quiet(true).build().unwrap();
    let done = stage.client.delete_objects().bucket(bucket).delete(delete).send().await.unwrap();
    let failed = done.errors.unwrap_or_default().into_iter();
    failed.map(|error| (error.key.unwrap(), error.code.unwrap())).collect()
}

#[tokio::test]
async fn each_key_of_a_batch_has_a_condition_of_its_own() {
    let stage = Stage::new().await;
    for quoted in [true, false] {
        let mut etag = String::new();
        for key in ["a", "b", "c"] {
            etag = stage.put(key, "x").await;
        }
        let form = |tag: &str| if quoted { tag.to_owned() } else { tag.trim_matches('"').to_owned() };
        let (etag, other) = (form(&etag), form(OTHER));
        let batch = [("a", Some(etag.as_str())), ("b", Some(&other)), ("c", None), ("none", Some(&etag)), ("no", None)];
        let told = |key: &str, code: &str| (key.to_owned(), code.to_owned());
        let failed = failures_of(&stage, BUCKET, &batch).await;
        assert_eq!(failed, [told("b", "PreconditionFailed"), told("none", "NoSuchKey")]);
        assert_eq!(stage.keys().await, ["b"]);
    }
}

#[tokio::test]
async fn what_is_not_in_a_directory_bucket_is_deleted_already() {
    let stage = Stage::new().await;
    // It cannot have a session before it is there.
    let without_session = Builder::new().disable_s3_express_session_auth(true);
    let create = stage.client.create_bucket().bucket(EXPRESS).customize().config_override(without_session);
    create.send().await.unwrap();
    let put = stage.client.put_object().bucket(EXPRESS).key("k").body(ByteStream::from_static(b"x"));
    let etag = put.send().await.unwrap().e_tag.unwrap();
    let delete = || stage.client.delete_object().bucket(EXPRESS).key("k");
    assert_eq!(answer_to(&delete().if_match(OTHER).send().await.unwrap_err()), (412, "PreconditionFailed"));
    let refused = ("k".to_owned(), "PreconditionFailed".to_owned());
    assert_eq!(failures_of(&stage, EXPRESS, &[("k", Some(OTHER))]).await, [refused]);
    for _ in 0..2 {
        delete().if_match(&etag).send().await.unwrap();
    }
    assert_eq!(failures_of(&stage, EXPRESS, &[("k", Some(&etag))]).await, []);
}

#[tokio::test]
async fn where_versions_are_kept_the_current_one_alone_decides() {
    let stage = Stage::new().await;
    let enabled = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
    stage.client.put_bucket_versioning().bucket(BUCKET).versioning_configuration(enabled).send().await.unwrap();
    let older = stage.put("k", "older").await;
    let current = stage.put("k", "current").await;
    let delete = || stage.client.delete_object().bucket(BUCKET).key("k");
    let told = |code: &str| vec![("k".to_owned(), code.to_owned())];
    assert_eq!(answer_to(&delete().if_match(&older).send().await.unwrap_err()), (412, "PreconditionFailed"));
    assert_eq!(failures_of(&stage, BUCKET, &[("k", Some(&older))]).await, told("PreconditionFailed"));
    assert_eq!(stage.get("k").await.unwrap(), b"current");
    delete().if_match(&current).send().await.unwrap();
    assert_eq!(stage.get("k").await, None);
    // There is a delete marker now, which is no object.
    assert_eq!(answer_to(&delete().if_match(&current).send().await.unwrap_err()), (404, "NoSuchKey"));
    assert_eq!(failures_of(&stage, BUCKET, &[("k", Some(&current))]).await, told("NoSuchKey"));
    let versions = stage.client.list_object_versions().bucket(BUCKET).send().await.unwrap();
    assert_eq!((versions.versions().len(), versions.delete_markers().len()), (2, 1));
}
