//! Conditional requests: each decided in the step that does it.

use aws_sdk_s3::primitives::ByteStream;

use crate::stage::{BUCKET, Stage, answer_to};

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
    assert_eq!(answer_to(&delete().if_match(OTHER).send().await.unwrap_err()), (412, "PreconditionFailed"));
    assert!(stage.get("k").await.is_some());
    delete().if_match(&etag).send().await.unwrap();
    assert_eq!(stage.get("k").await, None);
    delete().if_match(&etag).send().await.unwrap();
}
