//! Whole objects: bytes, keys, metadata, ranges, checksums, copies.

use aws_sdk_s3::config::{Config, RequestChecksumCalculation};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, Delete, MetadataDirective, ObjectIdentifier};

use s3mount::demo::{Fault, FaultKind};

use crate::stage::{BUCKET, Stage, answer_to, bytes, client};

#[tokio::test]
async fn bytes_come_back_whole_and_in_ranges() {
    let stage = Stage::new().await;
    let body = bytes(3_000_001);
    stage.put("big", body.clone()).await;
    assert_eq!(stage.get("big").await.unwrap(), body);
    for (range, want) in [
        ("bytes=0-0", &body[..1]),
        ("bytes=1000-2499999", &body[1000..2_500_000]),
        ("bytes=-7", &body[body.len() - 7..]),
        ("bytes=2999999-9999999", &body[2_999_999..]),
    ] {
        let got = stage.client.get_object().bucket(BUCKET).key("big").range(range).send().await.unwrap();
        assert!(got.content_range().unwrap().ends_with("/3000001"));
        assert_eq!(got.body.collect().await.unwrap().to_vec(), want, "{range}");
    }
    let beyond = stage.client.get_object().bucket(BUCKET).key("big").range("bytes=3000001-").send().await;
    assert_eq!(answer_to(&beyond.unwrap_err()), (416, "InvalidRange"));
    stage.put("empty", "").await;
    let of_nothing = stage.client.get_object().bucket(BUCKET).key("empty").range("bytes=-1").send().await;
    assert_eq!(answer_to(&of_nothing.unwrap_err()), (416, "InvalidRange"));
}

#[tokio::test]
async fn keys_are_bytes_and_never_paths() {
    let stage = Stage::new().await;
    let longest = "k".repeat(1024);
    let keys = [
        "a",
        "a/",
        "a/b",
        "a//b",
        "../../etc/passwd",
        "./x",
        "x/..",
        "ü",
        "u\u{308}",
        "a\nb",
        "%2e",
        "a b+c",
        &longest,
    ];
    for key in keys {
        stage.put(key, key).await;
    }
    for key in keys {
        assert_eq!(stage.get(key).await.unwrap(), key.as_bytes(), "{key:?}");
    }
    let too_long = stage.client.put_object().bucket(BUCKET).key("k".repeat(1025)).send().await;
    assert_eq!(answer_to(&too_long.unwrap_err()), (400, "KeyTooLongError"));
    stage.client.delete_object().bucket(BUCKET).key("a").send().await.unwrap();
    assert_eq!(stage.get("a").await, None);
    assert_eq!(stage.get("a/b").await.unwrap(), b"a/b");
}

#[tokio::test]
async fn what_was_stored_with_an_object_is_told_with_it() {
    let stage = Stage::new().await;
    let put = stage.client.put_object().bucket(BUCKET).key("k").body(ByteStream::from_static(b"x"));
    put.content_type("text/x-y")
        .cache_control("no-cache")
        .content_encoding("zstd")
        .metadata("mode", "33188")
        .metadata("s3mount-op", "a b  c")
        .send()
        .await
        .unwrap();
    let head = stage.client.head_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(head.content_type(), Some("text/x-y"));
    assert_eq!(head.cache_control(), Some("no-cache"));
    assert_eq!(head.content_encoding(), Some("zstd"));
    assert_eq!(head.metadata().unwrap()["mode"], "33188");
    assert_eq!(head.metadata().unwrap()["s3mount-op"], "a b  c");
    assert_eq!(head.e_tag(), Some("\"9dd4e461268c8034f5c8564e155c67a6\""));
    let big = stage.client.put_object().bucket(BUCKET).key("big").metadata("m", "x".repeat(2048)).send().await;
    assert_eq!(answer_to(&big.unwrap_err()), (400, "MetadataTooLarge"));
}

#[tokio::test]
async fn wrong_checksums_are_refused_and_right_ones_told() {
    let stage = Stage::new().await;
    let body = || ByteStream::from_static(b"123456789");
    let put = || stage.client.put_object().bucket(BUCKET).key("sum").body(body());
    // The check value of CRC-32C, base64.
    put().checksum_crc32_c("4waSgw==").send().await.unwrap();
    let head = stage.client.head_object().bucket(BUCKET).key("sum").checksum_mode(ChecksumMode::Enabled);
    assert_eq!(head.send().await.unwrap().checksum_crc32_c(), Some("4waSgw=="));
    assert_eq!(answer_to(&put().checksum_crc32_c("4waSgg==").send().await.unwrap_err()), (400, "BadDigest"));
    assert_eq!(answer_to(&put().checksum_crc32_c("4waS").send().await.unwrap_err()), (400, "InvalidRequest"));
    let wrong_md5 = put().content_md5("AAAAAAAAAAAAAAAAAAAAAA==").send().await.unwrap_err();
    assert_eq!(answer_to(&wrong_md5), (400, "BadDigest"));
    let named_only = put().checksum_algorithm(ChecksumAlgorithm::Crc32).send().await.unwrap_err();
    assert_eq!(answer_to(&named_only), (400, "InvalidRequest"));
    for name in ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"] {
        let algorithm = ChecksumAlgorithm::from(name);
        // The client computes the value, and the server verifies it.
        let computed = Config::builder().request_checksum_calculation(RequestChecksumCalculation::WhenSupported);
        put().checksum_algorithm(algorithm.clone()).customize().config_override(computed).send().await.unwrap();
        let list = stage.client.list_objects_v2().bucket(BUCKET).send().await.unwrap();
        assert_eq!(list.contents()[0].checksum_algorithm(), [algorithm]);
    }
}

#[tokio::test]
async fn streamed_uploads_are_checked_by_the_trailer_behind_them() {
    let stage = Stage::new().await;
    let file = stage.dir.path().join("file");
    std::fs::write(&file, bytes(300_000)).unwrap();
    let put = async || {
        let body = ByteStream::from_path(&file).await.unwrap();
        let computed = Config::builder().request_checksum_calculation(RequestChecksumCalculation::WhenSupported);
        let put = stage.client.put_object().bucket(BUCKET).key("k").body(body);
        put.checksum_algorithm(ChecksumAlgorithm::Crc32C).customize().config_override(computed).send().await
    };
    put().await.unwrap();
    assert_eq!(stage.get("k").await.unwrap(), bytes(300_000));
    let head = stage.client.head_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(head.content_encoding(), None, "the framing of the transfer is not stored");
    stage.server.faults().add(Fault::once("PutObject", FaultKind::FlippedBit));
    // Over plain HTTP the SDK signs each chunk: the signature of the damaged one is found wrong.
    assert_eq!(answer_to(&put().await.unwrap_err()), (403, "SignatureDoesNotMatch"));
}

#[tokio::test]
async fn copies_keep_or_replace_metadata_and_move_no_byte() {
    let stage = Stage::new().await;
    let from = "sp ace/+ü%25";
    let put = stage.client.put_object().bucket(BUCKET).key(from).body(ByteStream::from(bytes(2_000_000)));
    put.metadata("a", "1").content_type("text/a").send().await.unwrap();
    let encoded = percent_encoding::utf8_percent_encode(from, percent_encoding::NON_ALPHANUMERIC);
    let source = format!("{BUCKET}/{encoded}");
    let copy = |to: &str| stage.client.copy_object().bucket(BUCKET).key(to).copy_source(&source);
    copy("kept").send().await.unwrap();
    let replace = copy("replaced").metadata_directive(MetadataDirective::Replace).metadata("b", "2");
    replace.content_type("text/b").send().await.unwrap();
    assert_eq!(stage.body_files(), 1);
    let head = async |key: &str| stage.client.head_object().bucket(BUCKET).key(key).send().await.unwrap();
    assert_eq!(head("kept").await.metadata().unwrap()["a"], "1");
    assert_eq!(head("kept").await.content_type(), Some("text/a"));
    assert_eq!(head("replaced").await.metadata().unwrap().get("a"), None);
    assert_eq!(head("replaced").await.content_type(), Some("text/b"));
    stage.put(from, "new").await;
    assert_eq!(stage.get("kept").await.unwrap(), bytes(2_000_000));
    let to_itself = stage.client.copy_object().bucket(BUCKET).key("kept").copy_source(format!("{BUCKET}/kept"));
    assert_eq!(answer_to(&to_itself.send().await.unwrap_err()), (400, "InvalidRequest"));
}

#[tokio::test]
async fn a_reader_keeps_the_version_it_began_with() {
    let stage = Stage::new().await;
    stage.put("k", vec![b'a'; 8 << 20]).await;
    let mut old = stage.client.get_object().bucket(BUCKET).key("k").send().await.unwrap().body;
    let first = old.next().await.unwrap().unwrap();
    stage.put("k", "b").await;
    let rest = old.collect().await.unwrap().to_vec();
    assert_eq!(first.len() + rest.len(), 8 << 20);
    assert!(first.iter().chain(&rest).all(|byte| *byte == b'a'));
    assert_eq!(stage.get("k").await.unwrap(), b"b");
    stage.await_body_files(1).await;
}

#[tokio::test]
async fn many_are_deleted_at_once_and_their_files_with_them() {
    let stage = Stage::new().await;
    for number in 0..20 {
        stage.put(&format!("d/{number}"), "x").await;
    }
    stage.put("kept", "x").await;
    let object = |number: u32| ObjectIdentifier::builder().key(format!("d/{number}")).build().unwrap();
    let delete = Delete::builder().set_objects(Some((0..25).map(object).collect())).build().unwrap();
    let done = stage.client.delete_objects().bucket(BUCKET).delete(delete).send().await.unwrap();
    assert_eq!(done.deleted().len(), 25, "what is not there is deleted too");
    assert!(done.errors().is_empty());
    assert_eq!(stage.keys().await, ["kept"]);
    stage.await_body_files(1).await;
}

#[tokio::test]
async fn archived_objects_cannot_be_read() {
    let stage = Stage::new().await;
    let put = stage.client.put_object().bucket(BUCKET).key("cold").body(ByteStream::from_static(b"x"));
    put.storage_class("GLACIER".into()).send().await.unwrap();
    let got = stage.client.get_object().bucket(BUCKET).key("cold").send().await.unwrap_err();
    assert_eq!(answer_to(&got), (403, "InvalidObjectState"));
    let head = stage.client.head_object().bucket(BUCKET).key("cold").send().await.unwrap();
    assert_eq!(head.storage_class().unwrap().as_str(), "GLACIER");
}

#[tokio::test]
async fn strangers_and_what_is_not_built_are_turned_away() {
    let stage = Stage::new().await;
    let stranger = client(&stage.server.endpoint_url(), "wrong");
    let refused = stranger.get_object().bucket(BUCKET).key("k").send().await.unwrap_err();
    assert_eq!(answer_to(&refused), (403, "SignatureDoesNotMatch"));
    stage.put("victim", "bytes").await;
    stage.put("other", "others").await;
    let rename = stage.client.rename_object().bucket(BUCKET).key("victim").rename_source("other").send().await;
    assert_eq!(answer_to(&rename.unwrap_err()), (501, "NotImplemented"));
    assert_eq!(stage.get("victim").await.unwrap(), b"bytes");
    let policy = stage.client.get_bucket_policy().bucket(BUCKET).send().await;
    assert_eq!(answer_to(&policy.unwrap_err()), (501, "NotImplemented"));
    let no_bucket = stage.client.list_objects_v2().bucket("nobody-has-this").send().await;
    assert_eq!(answer_to(&no_bucket.unwrap_err()), (404, "NoSuchBucket"));
}
