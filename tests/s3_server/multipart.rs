//! Multipart uploads.

use aws_sdk_s3::operation::complete_multipart_upload::builders::CompleteMultipartUploadFluentBuilder;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart, ObjectAttributes,
};
use crc_fast::CrcAlgorithm::Crc64Nvme;

use crate::stage::{BUCKET, Stage, answer_to, bytes};

const MIN_PART: usize = 5 << 20;

async fn begin(stage: &Stage, key: &str) -> String {
    let create = stage.client.create_multipart_upload().bucket(BUCKET).key(key).metadata("m", "1");
    create.send().await.unwrap().upload_id.unwrap()
}

async fn upload(stage: &Stage, key: &str, id: &str, number: i32, body: Vec<u8>) -> CompletedPart {
    let part = stage.client.upload_part().bucket(BUCKET).key(key).upload_id(id).part_number(number);
    let etag = part.body(ByteStream::from(body)).send().await.unwrap().e_tag.unwrap();
    CompletedPart::builder().part_number(number).e_tag(etag).build()
}

fn complete(stage: &Stage, key: &str, id: &str, parts: &[CompletedPart]) -> CompleteMultipartUploadFluentBuilder {
    let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.to_vec())).build();
    stage.client.complete_multipart_upload().bucket(BUCKET).key(key).upload_id(id).multipart_upload(parts)
}

#[tokio::test]
async fn parts_become_one_object_with_its_own_checksum() {
    let stage = Stage::new().await;
    let body = bytes(MIN_PART + 1234);
    let id = begin(&stage, "k").await;
    let second = upload(&stage, "k", &id, 7, body[MIN_PART..].to_vec()).await;
    let first = upload(&stage, "k", &id, 3, body[..MIN_PART].to_vec()).await;
    assert_eq!(stage.get("k").await, None, "nothing is there before it is complete");
    let sum = crc_fast::checksum(Crc64Nvme, &body).to_be_bytes();
    let sum = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, sum);
    let wrong = complete(&stage, "k", &id, &[first.clone(), second.clone()]).checksum_crc64_nvme("AAAAAAAAAAA=");
    assert_eq!(answer_to(&wrong.send().await.unwrap_err()), (400, "BadDigest"));
    let done = complete(&stage, "k", &id, &[first, second])
        .checksum_crc64_nvme(&sum)
        .mpu_object_size(i64::try_from(body.len()).unwrap())
        .send()
        .await
        .unwrap();
    assert!(done.e_tag().unwrap().ends_with("-2\""), "{done:?}");
    assert_eq!(done.checksum_type(), Some(&ChecksumType::FullObject));
    assert_eq!(stage.get("k").await.unwrap(), body);
    let head = stage.client.head_object().bucket(BUCKET).key("k").checksum_mode(ChecksumMode::Enabled);
    let head = head.send().await.unwrap();
    assert_eq!(head.checksum_crc64_nvme(), Some(sum.as_str()));
    assert_eq!(head.metadata().unwrap()["m"], "1");
    let part = stage.client.get_object().bucket(BUCKET).key("k").part_number(2).send().await.unwrap();
    assert_eq!(part.body.collect().await.unwrap().to_vec(), &body[MIN_PART..]);
    let attributes = stage.client.get_object_attributes().bucket(BUCKET).key("k");
    let attributes = attributes.object_attributes(ObjectAttributes::ObjectParts).send().await.unwrap();
    assert_eq!(attributes.object_parts().unwrap().total_parts_count(), Some(2));
}

#[tokio::test]
async fn wrong_completions_change_nothing() {
    let stage = Stage::new().await;
    let id = begin(&stage, "k").await;
    let small = upload(&stage, "k", &id, 1, b"small".to_vec()).await;
    let last = upload(&stage, "k", &id, 2, b"last".to_vec()).await;
    let refusal = async |parts: &[CompletedPart]| {
        let error = complete(&stage, "k", &id, parts).send().await.unwrap_err();
        answer_to(&error).1.to_owned()
    };
    assert_eq!(refusal(&[small.clone(), last.clone()]).await, "EntityTooSmall");
    assert_eq!(refusal(&[last.clone(), small.clone()]).await, "InvalidPartOrder");
    let unknown = CompletedPart::builder().part_number(9).e_tag("x").build();
    assert_eq!(refusal(&[unknown]).await, "InvalidPart");
    let mistaken = CompletedPart::builder().part_number(1).e_tag(last.e_tag().unwrap()).build();
    assert_eq!(refusal(&[mistaken]).await, "InvalidPart");
    assert_eq!(stage.get("k").await, None);
    stage.put("k", "rival").await;
    let conditional = complete(&stage, "k", &id, std::slice::from_ref(&small)).if_none_match("*");
    assert_eq!(answer_to(&conditional.send().await.unwrap_err()), (412, "PreconditionFailed"));
    complete(&stage, "k", &id, &[small]).send().await.unwrap();
    assert_eq!(stage.get("k").await.unwrap(), b"small");
    stage.await_body_files(1).await;
}

#[tokio::test]
async fn an_aborted_upload_leaves_no_file() {
    let stage = Stage::new().await;
    let id = begin(&stage, "k").await;
    let part = upload(&stage, "k", &id, 1, bytes(100)).await;
    upload(&stage, "k", &id, 1, bytes(200)).await;
    let listed = stage.client.list_parts().bucket(BUCKET).key("k").upload_id(&id).send().await.unwrap();
    assert_eq!((listed.parts().len(), listed.parts()[0].size()), (1, Some(200)));
    let uploads = stage.client.list_multipart_uploads().bucket(BUCKET).prefix("k").send().await.unwrap();
    assert_eq!(uploads.uploads()[0].upload_id(), Some(id.as_str()));
    stage.client.abort_multipart_upload().bucket(BUCKET).key("k").upload_id(&id).send().await.unwrap();
    stage.await_body_files(0).await;
    assert_eq!(answer_to(&complete(&stage, "k", &id, &[part]).send().await.unwrap_err()), (404, "NoSuchUpload"));
    let late = stage.client.upload_part().bucket(BUCKET).key("k").upload_id(&id).part_number(1).send().await;
    assert_eq!(answer_to(&late.unwrap_err()), (404, "NoSuchUpload"));
}

#[tokio::test]
async fn parts_are_copied_out_of_objects_without_moving_a_byte() {
    let stage = Stage::new().await;
    let old = bytes(MIN_PART + 1000);
    let etag = stage.put("k", old.clone()).await;
    let id = begin(&stage, "k").await;
    let source = || {
        let copy = stage.client.upload_part_copy().bucket(BUCKET).key("k").upload_id(&id).part_number(1);
        copy.copy_source(format!("{BUCKET}/k"))
    };
    let changed = source().copy_source_if_match("\"00\"").send().await.unwrap_err();
    assert_eq!(answer_to(&changed), (412, "PreconditionFailed"));
    let beyond = source().copy_source_range("bytes=0-99999999").send().await.unwrap_err();
    assert_eq!(answer_to(&beyond), (416, "InvalidRange"));
    let range = format!("bytes=10-{}", MIN_PART + 9);
    let copied = source().copy_source_if_match(&etag).copy_source_range(range).send().await.unwrap();
    let copied = copied.copy_part_result.unwrap().e_tag.unwrap();
    let first = CompletedPart::builder().part_number(1).e_tag(copied).build();
    let second = upload(&stage, "k", &id, 2, b"tail".to_vec()).await;
    complete(&stage, "k", &id, &[first, second]).if_match(&etag).send().await.unwrap();
    assert_eq!(stage.body_files(), 2);
    assert_eq!(stage.get("k").await.unwrap(), [&old[10..MIN_PART + 10], b"tail"].concat());
    let stage = stage.restart_abruptly().await;
    assert_eq!(stage.get("k").await.unwrap(), [&old[10..MIN_PART + 10], b"tail"].concat());
}

#[tokio::test]
async fn composite_checksums_are_over_the_parts() {
    let stage = Stage::new().await;
    let create = stage.client.create_multipart_upload().bucket(BUCKET).key("k");
    let created = create.checksum_algorithm(ChecksumAlgorithm::Crc32C).send().await.unwrap();
    assert_eq!(created.checksum_type(), Some(&ChecksumType::Composite));
    let id = created.upload_id.unwrap();
    let part = stage.client.upload_part().bucket(BUCKET).key("k").upload_id(&id).part_number(1);
    let part = part.body(ByteStream::from_static(b"123456789")).checksum_crc32_c("4waSgw==").send().await.unwrap();
    assert_eq!(part.checksum_crc32_c(), Some("4waSgw=="));
    let lie = CompletedPart::builder().part_number(1).e_tag(part.e_tag().unwrap()).checksum_crc32_c("AAAAAA==").build();
    assert_eq!(answer_to(&complete(&stage, "k", &id, &[lie]).send().await.unwrap_err()), (400, "InvalidPart"));
    let honest =
        CompletedPart::builder().part_number(1).e_tag(part.e_tag().unwrap()).checksum_crc32_c("4waSgw==").build();
    let done = complete(&stage, "k", &id, &[honest]).send().await.unwrap();
    assert!(done.checksum_crc32_c().unwrap().ends_with("-1"), "{done:?}");
}
