//! What the user asked for is on the wire, in every request that takes it.

use s3mount::bucket;
use s3mount::bucket::client::{Encryption, Retention, Wishes};

use super::fake::{EMPTY_LISTING, Fake};
use super::*;

const COPIED: &str = "<CopyObjectResult><ETag>\"t\"</ETag></CopyObjectResult>";
const PART_COPIED: &str = "<CopyPartResult><ETag>\"t\"</ETag></CopyPartResult>";
const CREATED: &str = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>";
const COMPLETED: &str = "<CompleteMultipartUploadResult><ETag>\"t\"</ETag></CompleteMultipartUploadResult>";

/// The last one twice, as SeaweedFS says it.
const HEADERS: &[u8] = b"etag: \"t\"\r\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
    x-amz-server-side-encryption-customer-key-MD5: a\r\nx-amz-server-side-encryption-customer-key-MD5: a\r\n";

fn answer(head: &str) -> (&'static str, &'static [u8], &'static str) {
    let line = head.lines().next().unwrap_or_default();
    let body = match line.split(' ').next() {
        Some("get") if line.contains("list-type") => EMPTY_LISTING,
        Some("put") if head.contains("x-amz-copy-source:") && line.contains("uploadid") => PART_COPIED,
        Some("put") if head.contains("x-amz-copy-source:") => COPIED,
        Some("post") if line.contains("uploadid") => COMPLETED,
        Some("post") => CREATED,
        _ => "",
    };
    ("200 OK", HEADERS, body)
}

/// Every verb once, each under a key of its own name.
async fn say_everything(bucket: &dyn Bucket) -> bucket::Result<()> {
    let (options, etag) = (PutOptions::default(), ETag::new("t"));
    let copy = |to: &str| {
        let (from, to, from_etag) = ("from".to_owned(), to.to_owned(), Some(etag.clone()));
        CopyRequest { from_etag, replace: Some(PutOptions::default()), ..CopyRequest::new(from, to) }
    };
    bucket.put("put", Bytes::from_static(b"x"), &options).await?;
    bucket.copy(&copy("copy")).await?;
    let id = bucket.create_upload("create", &options).await?;
    let part = bucket.upload_part("part", &id, 1, Bytes::from_static(b"x")).await?;
    bucket.copy_part("partcopy", &id, 2, &copy("partcopy"), 0..1).await?;
    bucket.complete_upload("complete", &id, &[part], &Condition::None).await?;
    bucket.head("head").await?;
    bucket.get("get", None, None).await?;
    bucket.delete("delete", None).await
}

/// The head of the request about this key; of LIST for the empty one.
fn head_of(fake: &Fake, key: &str) -> String {
    let about = format!("/{BUCKET}/{key}");
    let is_it = |head: &&String| head.split([' ', '?']).nth(1) == Some(about.as_str());
    let heads = fake.heads.lock();
    heads.iter().rev().find(is_it).unwrap_or_else(|| panic!("no request about {key}")).clone()
}

async fn asked(wishes: Wishes) -> Fake {
    let fake = Fake::start(answer).await;
    let settings = ConnectSettings { wishes, ..fake.settings() };
    let bucket = connect(&settings).await.expect("the fake answers").bucket;
    say_everything(bucket.as_ref()).await.expect("the fake answers everything");
    fake
}

const ALL: [&str; 9] = ["put", "copy", "create", "part", "partcopy", "complete", "head", "get", "delete"];

#[tokio::test]
async fn who_pays_and_whose_bucket_it_is_stand_in_every_request() {
    let expected_bucket_owner = Some("111122223333".to_owned());
    let fake = asked(Wishes { requester_pays: true, expected_bucket_owner, ..Wishes::default() }).await;
    for key in ALL.into_iter().chain([""]) {
        let head = head_of(&fake, key);
        assert!(head.contains("x-amz-request-payer: requester\r\n"), "{key}: {head}");
        assert!(head.contains("x-amz-expected-bucket-owner: 111122223333\r\n"), "{key}: {head}");
        let signed = head.lines().find(|line| line.starts_with("authorization")).unwrap();
        assert!(signed.contains("x-amz-request-payer"), "a header that is not signed is not believed: {signed}");
        let copies = matches!(key, "copy" | "partcopy");
        assert_eq!(head.contains("x-amz-source-expected-bucket-owner: 111122223333"), copies, "{key}: {head}");
    }
}

#[tokio::test]
async fn what_a_new_object_is_to_carry_stands_where_it_is_made() {
    let encryption = Some(Encryption::Server { header: "aws:kms:dsse", kms_key_id: Some("key-1".to_owned()) });
    let (acl, tags) = (Some("bucket-owner-full-control".to_owned()), vec![("team".to_owned(), "a b".to_owned())]);
    let fake = asked(Wishes { encryption, acl, tags, ..Wishes::default() }).await;
    for key in ALL {
        let head = head_of(&fake, key);
        for header in [
            "x-amz-server-side-encryption: aws:kms:dsse",
            "x-amz-server-side-encryption-aws-kms-key-id: key-1",
            "x-amz-acl: bucket-owner-full-control",
            "x-amz-tagging: team=a%20b",
        ] {
            assert_eq!(head.contains(header), matches!(key, "put" | "copy" | "create"), "{key} {header}: {head}");
        }
    }
}

#[tokio::test]
async fn a_lock_goes_with_what_is_made_and_with_a_checksum() {
    let retention = Some(Retention { mode: "COMPLIANCE", span: Duration::from_hours(24) });
    let fake = asked(Wishes { retention, legal_hold: true, ..Wishes::default() }).await;
    for key in ALL {
        let (head, makes) = (head_of(&fake, key), matches!(key, "put" | "copy" | "create"));
        for header in ["x-amz-object-lock-mode: compliance", "x-amz-object-lock-legal-hold: on"] {
            assert_eq!(head.contains(header), makes, "{key} {header}: {head}");
        }
        let until = head.lines().find_map(|line| line.strip_prefix("x-amz-object-lock-retain-until-date: "));
        assert_eq!(until.is_some(), makes, "{key}: {head}");
        // S3 refuses a locked body without one.
        assert_eq!(head.contains("x-amz-checksum-crc32c: "), matches!(key, "put" | "part"), "{key}: {head}");
    }
}

#[tokio::test]
async fn a_key_of_ones_own_goes_along_with_all_that_reads_or_writes() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), [b'k'; 32]).unwrap();
    let encryption = Some(Encryption::Customer(file.path().to_owned()));
    let fake = asked(Wishes { encryption, ..Wishes::default() }).await;
    for key in ALL.into_iter().chain([""]) {
        let head = head_of(&fake, key);
        let takes = !matches!(key, "delete" | "");
        // In lower case, as all that the fake keeps.
        let own = "x-amz-server-side-encryption-customer-key: a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=";
        assert_eq!(head.contains(own), takes, "{key}: {head}");
        let source = "x-amz-copy-source-server-side-encryption-customer-key: a2tra2tra2tr";
        assert_eq!(head.contains(source), matches!(key, "copy" | "partcopy"), "{key}: {head}");
    }
}

#[tokio::test]
async fn a_key_file_that_holds_no_key_is_told_before_anything_is_asked() {
    let fake = Fake::start(answer).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let encryption = Some(Encryption::Customer(file.path().to_owned()));
    let settings = ConnectSettings { wishes: Wishes { encryption, ..Wishes::default() }, ..fake.settings() };
    let error = connect(&settings).await.unwrap_err();
    assert_eq!(error.kind, Kind::Usage);
    assert!(error.cause.contains("holds no key"), "{error}");
    assert!(fake.heads.lock().is_empty());
}
