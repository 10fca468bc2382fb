use super::*;

fn options(condition: Condition) -> PutOptions {
    PutOptions { condition, ..PutOptions::default() }
}

#[tokio::test]
async fn conditions_hold_as_in_s3() {
    let bucket = MemoryBucket::new();
    let first = bucket.put("k", "1".into(), &options(Condition::IfAbsent)).await.unwrap();
    let again = bucket.put("k", "2".into(), &options(Condition::IfAbsent)).await.unwrap_err();
    assert_eq!(again.kind, Kind::Changed);
    let second = bucket.put("k", "2".into(), &options(Condition::IfMatch(first.clone()))).await.unwrap();
    let stale = bucket.get("k", None, Some(&first)).await.unwrap_err();
    assert_eq!(stale.kind, Kind::Changed);
    assert_eq!(bucket.get("k", Some(0..9), Some(&second)).await.unwrap().bytes, "2");
    let missing = bucket.put("no", "".into(), &options(Condition::IfMatch(first))).await.unwrap_err();
    assert_eq!(missing.kind, Kind::NotFound);
}

#[tokio::test]
async fn listings_group_and_continue_in_key_order() {
    let bucket = MemoryBucket::new();
    for key in ["a", "d/1", "d/2", "d/", "d0", "e/x/y", "z"] {
        bucket.insert(key, "", Metadata::new());
    }
    let mut names = Vec::new();
    let mut request = ListRequest { delimited: true, max_keys: Some(2), ..ListRequest::default() };
    loop {
        let page = bucket.list(&request).await.unwrap();
        assert!(page.objects.len() + page.prefixes.len() <= 2);
        names.extend(page.objects.into_iter().map(|object| object.key));
        names.extend(page.prefixes);
        request.token = page.next;
        if request.token.is_none() {
            break;
        }
    }
    names.sort();
    assert_eq!(names, ["a", "d/", "d0", "e/", "z"]);
    let below = bucket.list(&ListRequest { prefix: "d/".into(), delimited: true, ..ListRequest::default() }).await;
    assert_eq!(below.unwrap().objects.len(), 3, "the marker itself is listed");
}

#[tokio::test]
async fn start_after_skips_what_it_names() {
    let bucket = MemoryBucket::new();
    for key in ["a", "b", "c"] {
        bucket.insert(key, "", Metadata::new());
    }
    let request = ListRequest { start_after: Some("a".into()), ..ListRequest::default() };
    let page = bucket.list(&request).await.unwrap();
    assert_eq!(page.objects.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), ["b", "c"]);
}

#[tokio::test]
async fn an_upload_becomes_one_object() {
    let bucket = MemoryBucket::new();
    let id = bucket.create_upload("k", &PutOptions::default()).await.unwrap();
    let big = Bytes::from(vec![7; 5 << 20]);
    let one = bucket.upload_part("k", &id, 1, big.clone()).await.unwrap();
    let two = bucket.upload_part("k", &id, 2, "end".into()).await.unwrap();
    assert_eq!(bucket.list_uploads("k").await.unwrap().len(), 1);
    let etag = bucket.complete_upload("k", &id, &[one, two], &Condition::IfAbsent).await.unwrap();
    assert!(etag.as_str().ends_with("-2"));
    assert_eq!(bucket.bytes("k").unwrap().len(), big.len() + 3);
    assert_eq!(bucket.open_uploads(), 0);
    assert_eq!(bucket.abort_upload("k", &id).await.unwrap_err().kind, Kind::NoSuchUpload);
}

#[tokio::test]
async fn faults_hit_what_they_name_and_are_counted() {
    let bucket = MemoryBucket::new();
    bucket.inject(Fault::once("PutObject", Effect::LoseReply(Kind::Unreachable)));
    bucket.inject(Fault::once("HeadObject", Effect::Fail(Kind::Busy)).after(1));
    assert_eq!(bucket.put("k", "1".into(), &PutOptions::default()).await.unwrap_err().kind, Kind::Unreachable);
    assert!(bucket.head("k").await.is_ok(), "the lost reply was applied");
    assert_eq!(bucket.head("k").await.unwrap_err().kind, Kind::Busy);
    assert!(bucket.head("k").await.is_ok());
    assert_eq!(bucket.count("HeadObject"), 3);
}
