//! Every kind of fault as a client sees it, the request log, and that faults end.

use std::time::{Duration, Instant};

use aws_sdk_s3::config::Config;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumMode, CompletedMultipartUpload, CompletedPart};
use s3mount::demo::{Fault, FaultKind};

use crate::stage::{BUCKET, Stage, answer_to, bytes, is_broken};

async fn stage(operation: &str, kind: FaultKind) -> Stage {
    let stage = Stage::new().await;
    stage.put("k", bytes(600_000)).await;
    stage.server.faults().add(Fault::once(operation, kind));
    stage
}

#[tokio::test]
async fn a_status_takes_the_place_of_the_operation() {
    let stage = Stage::new().await;
    for (status, code) in [
        (403, "AccessDenied"),
        (404, "NoSuchKey"),
        (409, "ConditionalRequestConflict"),
        (412, "PreconditionFailed"),
        (429, "TooManyRequests"),
        (500, "InternalError"),
        (503, "SlowDown"),
    ] {
        stage.server.faults().add(Fault::once("PutObject", FaultKind::Status(status)));
        // Larger than what the socket buffers hold: the answer has to reach a client that still sends.
        let put = stage.client.put_object().bucket(BUCKET).key("k").body(ByteStream::from(bytes(12 << 20)));
        assert_eq!(answer_to(&put.send().await.unwrap_err()), (status, code));
    }
    assert_eq!(stage.get("k").await, None);
    stage.put("k", "x").await;
    assert!(stage.server.faults().waiting().is_empty());
}

#[tokio::test]
async fn expired_tokens_and_lost_uploads_have_their_codes() {
    let stage = stage("GetObject", FaultKind::ExpiredToken).await;
    let get = stage.client.get_object().bucket(BUCKET).key("k").send().await.unwrap_err();
    assert_eq!(answer_to(&get), (400, "ExpiredToken"));
    let id = stage.client.create_multipart_upload().bucket(BUCKET).key("k").send().await.unwrap().upload_id.unwrap();
    stage.server.faults().add(Fault::once("UploadPart", FaultKind::NoSuchUpload));
    let part = stage.client.upload_part().bucket(BUCKET).key("k").upload_id(id).part_number(1).send().await;
    assert_eq!(answer_to(&part.unwrap_err()), (404, "NoSuchUpload"));
}

#[tokio::test]
async fn a_reset_before_the_answer_leaves_nothing_done() {
    let stage = stage("PutObject", FaultKind::ResetBefore).await;
    let put = stage.client.put_object().bucket(BUCKET).key("k").body(ByteStream::from_static(b"x")).send().await;
    assert!(is_broken(put.as_ref().unwrap_err()), "{put:?}");
    assert_eq!(stage.get("k").await.unwrap(), bytes(600_000));
    assert_eq!(stage.server.requests().iter().find(|request| request.status == 0).unwrap().operation, "PutObject");
}

#[tokio::test]
async fn a_lost_reply_leaves_it_done() {
    let stage = stage("PutObject", FaultKind::AppliedThenLostReply).await;
    let put = stage.client.put_object().bucket(BUCKET).key("k").body(ByteStream::from_static(b"x")).send().await;
    assert!(is_broken(put.as_ref().unwrap_err()), "{put:?}");
    assert_eq!(stage.get("k").await.unwrap(), b"x");
}

#[tokio::test]
async fn a_reset_in_the_middle_breaks_uploads_and_answers() {
    let stage = stage("PutObject", FaultKind::ResetDuring).await;
    let put = stage.client.put_object().bucket(BUCKET).key("k").body(ByteStream::from(bytes(2 << 20))).send().await;
    assert!(is_broken(put.as_ref().unwrap_err()), "{put:?}");
    assert_eq!(stage.get("k").await.unwrap(), bytes(600_000));
    stage.await_body_files(1).await;
    stage.server.faults().add(Fault::once("GetObject", FaultKind::ResetDuring));
    let got = stage.client.get_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(got.content_length(), Some(600_000));
    got.body.collect().await.unwrap_err();
    stage.server.faults().add(Fault::once("DeleteObject", FaultKind::ResetDuring));
    let delete = stage.client.delete_object().bucket(BUCKET).key("k").send().await;
    assert!(is_broken(delete.as_ref().unwrap_err()), "{delete:?}");
}

#[tokio::test]
async fn a_truncated_answer_ends_in_its_middle() {
    let stage = stage("GetObject", FaultKind::Truncated).await;
    let mut body = stage.client.get_object().bucket(BUCKET).key("k").send().await.unwrap().body;
    let mut received = Vec::new();
    let end = loop {
        match body.next().await {
            Some(Ok(piece)) => received.extend_from_slice(&piece),
            end => break end,
        }
    };
    assert!(matches!(end, Some(Err(_))), "the client knows how much is missing");
    assert_eq!(received, bytes(600_000)[..300_000]);
}

#[tokio::test]
async fn a_flipped_bit_is_one_wrong_bit() {
    let stage = stage("GetObject", FaultKind::FlippedBit).await;
    let got = stage.get("k").await.unwrap();
    let flipped: u32 = got.iter().zip(bytes(600_000)).map(|(got, want)| (got ^ want).count_ones()).sum();
    assert_eq!((got.len(), flipped), (600_000, 1));
    stage.server.faults().add(Fault::once("PutObject", FaultKind::FlippedBit));
    let put = stage.client.put_object().bucket(BUCKET).key("sum").body(ByteStream::from_static(b"123456789"));
    let put = put.checksum_crc32_c("4waSgw==").customize().disable_payload_signing().send().await;
    assert_eq!(answer_to(&put.unwrap_err()), (400, "BadDigest"));
    assert_eq!(stage.get("sum").await, None);
}

#[tokio::test]
async fn a_wrong_checksum_is_found_by_the_client() {
    let stage = stage("GetObject", FaultKind::WrongChecksum).await;
    let get = || stage.client.get_object().bucket(BUCKET).key("k").checksum_mode(ChecksumMode::Enabled).send();
    let error = get().await.unwrap().body.collect().await.unwrap_err();
    assert!(format!("{error:?}").to_lowercase().contains("checksum"), "{error:?}");
    assert_eq!(get().await.unwrap().body.collect().await.unwrap().to_vec(), bytes(600_000));
}

#[tokio::test]
async fn an_error_can_hide_in_a_200() {
    let stage = Stage::new().await;
    let id = stage.client.create_multipart_upload().bucket(BUCKET).key("k").send().await.unwrap().upload_id.unwrap();
    let part = stage.client.upload_part().bucket(BUCKET).key("k").upload_id(&id).part_number(1);
    let etag = part.body(ByteStream::from_static(b"x")).send().await.unwrap().e_tag.unwrap();
    let parts = CompletedMultipartUpload::builder().parts(CompletedPart::builder().part_number(1).e_tag(etag).build());
    let complete = || {
        let complete = stage.client.complete_multipart_upload().bucket(BUCKET).key("k").upload_id(&id);
        complete.multipart_upload(parts.clone().build()).send()
    };
    stage.server.faults().add(Fault::once("CompleteMultipartUpload", FaultKind::ErrorIn200));
    let error = complete().await.unwrap_err();
    assert_eq!(answer_to(&error), (200, "InternalError"));
    assert_eq!(stage.get("k").await, None);
    complete().await.unwrap();
    assert_eq!(stage.get("k").await.unwrap(), b"x");
}

#[tokio::test]
async fn a_hang_lasts_until_the_client_gives_up() {
    let stage = stage("HeadObject", FaultKind::Hang).await;
    let impatient = TimeoutConfig::builder().operation_timeout(Duration::from_secs(1)).build();
    let head = stage.client.head_object().bucket(BUCKET).key("k").customize();
    let head = head.config_override(Config::builder().timeout_config(impatient)).send().await.unwrap_err();
    assert!(matches!(head, SdkError::TimeoutError(_)), "{head:?}");
    assert_eq!(stage.server.requests().last().map(|hung| hung.status), Some(0));
    assert!(stage.client.head_object().bucket(BUCKET).key("k").send().await.is_ok());
}

#[tokio::test]
async fn a_dripping_answer_is_slow_but_right() {
    let stage = Stage::new().await;
    stage.put("k", "0123456789").await;
    stage.server.faults().add(Fault::once("GetObject", FaultKind::Drip));
    let began = Instant::now();
    assert_eq!(stage.get("k").await.unwrap(), b"0123456789");
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn faults_meet_only_what_they_name() {
    let stage = Stage::new().await;
    let fault =
        Fault { key_contains: Some("/x/".into()), times: 2, ..Fault::once("PutObject", FaultKind::Status(500)) };
    stage.server.faults().add(fault);
    let put = |key: &str| stage.client.put_object().bucket(BUCKET).key(key).send();
    assert!(put("a/y/b").await.is_ok());
    assert!(put("a/x/b").await.is_err());
    assert!(stage.client.head_object().bucket(BUCKET).key("a/y/b").send().await.is_ok());
    assert!(put("a/x/c").await.is_err());
    assert!(put("a/x/d").await.is_ok());
}
