//! Appends: in directory buckets, at the end of what is there, and nowhere else.

use aws_sdk_s3::config::Builder;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumMode;
use s3mount::bucket::checksum::crc32c;

use crate::stage::{BUCKET, Stage, answer_to};

const EXPRESS: &str = "fast--local--x-s3";
const OTHER: &str = "\"0123456789abcdef0123456789abcdef\"";

#[tokio::test]
async fn bytes_follow_those_of_the_object_and_everything_else_stays() {
    let stage = Stage::new().await;
    // It cannot have a session before it is there.
    let without_session = Builder::new().disable_s3_express_session_auth(true);
    let create = stage.client.create_bucket().bucket(EXPRESS).customize().config_override(without_session);
    create.send().await.unwrap();
    let put = |body: &'static str| {
        let call = stage.client.put_object().bucket(EXPRESS).key("log").checksum_crc32_c(crc32c(body.as_bytes()));
        call.body(ByteStream::from_static(body.as_bytes()))
    };
    let nothing = put("x").key("nothing").write_offset_bytes(3).send().await.unwrap_err();
    assert_eq!(answer_to(&nothing), (400, "InvalidWriteOffset"), "of nothing");
    let made = put("one").metadata("a", "b").content_type("text/x").write_offset_bytes(0).send().await.unwrap();
    let first = made.e_tag.unwrap();
    let refused = put("x").write_offset_bytes(2).send().await.unwrap_err();
    assert_eq!(answer_to(&refused), (400, "InvalidWriteOffset"));
    let refused = put("x").write_offset_bytes(3).metadata("a", "c").send().await.unwrap_err();
    assert_eq!(answer_to(&refused), (400, "InvalidRequest"), "metadata cannot be said again");
    let refused = put("").write_offset_bytes(3).send().await.unwrap_err();
    assert_eq!(answer_to(&refused), (400, "InvalidRequest"), "of no bytes");
    let sha1 = put("x").write_offset_bytes(3).set_checksum_crc32_c(None).checksum_sha1("EfatjsUqKYSrqv18O1FlA3hcIHI=");
    let other = sha1.send().await.unwrap_err();
    assert_eq!(answer_to(&other), (400, "InvalidRequest"), "another checksum");
    let refused = put("x").write_offset_bytes(3).if_match(OTHER).send().await.unwrap_err();
    assert_eq!(answer_to(&refused), (412, "PreconditionFailed"));
    let second = put("two").write_offset_bytes(3).if_match(&first).send().await.unwrap();
    assert_eq!(second.size, Some(6));
    assert_ne!(second.e_tag.as_deref(), Some(first.as_str()));
    put("three").write_offset_bytes(6).send().await.unwrap();
    let get = stage.client.get_object().bucket(EXPRESS).key("log").checksum_mode(ChecksumMode::Enabled);
    let got = get.send().await.unwrap();
    assert_eq!((got.metadata.clone().unwrap()["a"].as_str(), got.content_type()), ("b", Some("text/x")));
    assert_eq!(got.checksum_crc32_c(), Some(crc32c(b"onetwothree").as_str()), "of the whole");
    assert_eq!(got.body.collect().await.unwrap().to_vec(), b"onetwothree");
}

#[tokio::test]
async fn no_other_bucket_appends() {
    let stage = Stage::new().await;
    stage.put("log", "one").await;
    let put = stage.client.put_object().bucket(BUCKET).key("log").body(ByteStream::from_static(b"two"));
    let refused = put.write_offset_bytes(3).send().await.unwrap_err();
    assert_eq!(answer_to(&refused), (501, "NotImplemented"));
    assert_eq!(stage.get("log").await.unwrap(), b"one");
}
