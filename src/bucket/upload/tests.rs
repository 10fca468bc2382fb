use std::io;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::*;
use crate::bucket::memory::{Effect, Fault, MemoryBucket};
use crate::bucket::{Condition, Metadata};

const PART_BYTES: u64 = 5 << 20;

fn bucket() -> (Arc<MemoryBucket>, Arc<dyn Bucket>) {
    let memory = Arc::new(MemoryBucket::new());
    (Arc::clone(&memory), memory)
}

fn body() -> Bytes {
    (0..PART_BYTES * 3 + 7).map(|index| (index % 251) as u8).collect()
}

fn settings() -> UploadSettings {
    UploadSettings { part_bytes: PART_BYTES, concurrency: 4, memory: None, on_begin: None }
}

async fn send(bucket: &Arc<dyn Bucket>, body: &Bytes, settings: &UploadSettings) -> Result<ETag> {
    let metadata = Metadata::from([("a".to_owned(), "b".to_owned())]);
    let options = PutOptions { metadata, condition: Condition::IfAbsent, ..PutOptions::default() };
    upload(bucket, "k", Arc::new(body.clone()), body.len() as u64, &options, settings).await
}

#[tokio::test]
async fn all_bytes_arrive_in_order_with_their_metadata() {
    let (memory, bucket) = bucket();
    // The first part comes last: order is by number, not by arrival.
    memory.inject(Fault::once("UploadPart", Effect::Delay(Duration::from_millis(50))));
    let begun = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&begun);
    let on_begin: OnBegin = Arc::new(move |upload_id| {
        noted.lock().push(upload_id);
        Box::pin(std::future::ready(()))
    });
    let etag = send(&bucket, &body(), &UploadSettings { on_begin: Some(on_begin), ..settings() }).await.unwrap();
    assert_eq!(memory.bytes("k").unwrap(), body());
    let info = memory.info("k").unwrap();
    assert_eq!((info.etag, info.metadata["a"].as_str()), (etag, "b"));
    assert_eq!((memory.count("UploadPart"), begun.lock().len()), (4, 1));
}

#[tokio::test]
async fn parts_leave_while_an_upload_is_noted_and_nothing_is_complete_before() {
    let (memory, bucket) = bucket();
    let (tell, noted) = tokio::sync::watch::channel(false);
    let on_begin: OnBegin = Arc::new(move |_| {
        let mut noted = noted.clone();
        Box::pin(async move { drop(noted.wait_for(|noted| *noted).await) })
    });
    let sending = tokio::spawn(async move {
        // One at a time, so that no part is sent behind one that is not known to be noted.
        send(&bucket, &body(), &UploadSettings { on_begin: Some(on_begin), concurrency: 1, ..settings() }).await
    });
    while memory.count("UploadPart") == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!((memory.count("UploadPart"), memory.count("CompleteMultipartUpload")), (1, 0));
    assert!(!sending.is_finished());
    tell.send_replace(true);
    sending.await.unwrap().unwrap();
    assert_eq!(memory.bytes("k").unwrap(), body());
}

#[tokio::test]
async fn a_failed_upload_is_aborted_and_changes_nothing() {
    for operation in ["UploadPart", "CompleteMultipartUpload"] {
        let (memory, bucket) = bucket();
        memory.inject(Fault::once(operation, Effect::Fail(Kind::AccessDenied)));
        assert_eq!(send(&bucket, &body(), &settings()).await.unwrap_err().kind, Kind::AccessDenied);
        assert_eq!((memory.open_uploads(), memory.bytes("k")), (0, None), "{operation}");
    }
}

#[tokio::test]
async fn a_conflict_keeps_the_others_version() {
    let (memory, bucket) = bucket();
    memory.insert("k", "theirs", Metadata::new());
    assert_eq!(send(&bucket, &body(), &settings()).await.unwrap_err().kind, Kind::Changed);
    assert_eq!((memory.open_uploads(), memory.bytes("k").unwrap()), (0, Bytes::from("theirs")));
}

#[tokio::test]
async fn an_upload_that_is_dropped_is_aborted() {
    let (memory, bucket) = bucket();
    memory.inject(Fault::once("UploadPart", Effect::Hang).times(9));
    let sending = tokio::spawn({
        let bucket = Arc::clone(&bucket);
        async move { send(&bucket, &body(), &settings()).await }
    });
    while memory.count("UploadPart") == 0 {
        tokio::task::yield_now().await;
    }
    sending.abort();
    assert!(sending.await.unwrap_err().is_cancelled());
    while memory.open_uploads() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(memory.count("AbortMultipartUpload"), 1);
}

#[tokio::test]
async fn a_file_goes_up_as_it_is() {
    let (memory, bucket) = bucket();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), body()).unwrap();
    let source = Arc::new(FileParts::open(file.path()).unwrap());
    upload(&bucket, "k", source, body().len() as u64, &PutOptions::default(), &settings()).await.unwrap();
    assert_eq!(memory.bytes("k").unwrap(), body());
}

#[tokio::test]
async fn a_part_that_was_sent_leaves_its_memory_to_the_next_and_none_of_its_bytes() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), body()).unwrap();
    let source = FileParts::open(file.path()).unwrap();
    let mut places = Vec::new();
    for range in [0..PART_BYTES, PART_BYTES..PART_BYTES * 2, PART_BYTES * 3..PART_BYTES * 3 + 7] {
        let part = source.read(range.clone()).await.unwrap();
        assert_eq!(part, body().slice(range.start as usize..range.end as usize));
        places.push(part.as_ptr());
    }
    assert!(places.iter().all(|place| *place == places[0]));
}

struct Broken;

#[async_trait]
impl PartSource for Broken {
    async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        if range.start == 0 { Ok(Bytes::from_static(b"short")) } else { Err(io::Error::other("gone")) }
    }
}

#[tokio::test]
async fn a_source_that_fails_or_is_short_makes_no_object() {
    let (memory, bucket) = bucket();
    let sent = upload(&bucket, "k", Arc::new(Broken), PART_BYTES * 2, &PutOptions::default(), &settings()).await;
    assert_eq!(sent.unwrap_err().kind, Kind::Local);
    assert_eq!((memory.open_uploads(), memory.bytes("k")), (0, None));
}

#[tokio::test]
async fn a_copy_in_parts_is_the_same_object_of_one_version() {
    let (memory, bucket) = bucket();
    let from_etag = memory.insert("a", body(), Metadata::new());
    let request = CopyRequest { from_etag: Some(from_etag), ..CopyRequest::new("a".into(), "b".into()) };
    let size = body().len() as u64;
    copy_large(&bucket, &request, size, &PutOptions::default(), &settings()).await.unwrap();
    assert_eq!(memory.bytes("b").unwrap(), body());
    memory.insert("a", "new", Metadata::new());
    let changed = copy_large(&bucket, &request, size, &PutOptions::default(), &settings()).await;
    assert_eq!(changed.unwrap_err().kind, Kind::Changed);
    assert_eq!(memory.open_uploads(), 0);
}

#[tokio::test]
async fn an_object_larger_than_s3_takes_is_refused_before_anything_is_sent() {
    let (memory, bucket) = bucket();
    let (source, options) = (Arc::new(Bytes::new()), PutOptions::default());
    let refused = upload(&bucket, "k", source, (5 << 40) + 1, &options, &settings()).await;
    assert_eq!(refused.unwrap_err().kind, Kind::QuotaExceeded);
    assert_eq!(memory.requests().values().sum::<u64>(), 0);
}

#[tokio::test]
async fn a_changed_object_is_copied_but_for_the_change() {
    let (memory, bucket) = bucket();
    let before = body();
    let from_etag = memory.insert("k", before.clone(), Metadata::new());
    let mut after = before.to_vec();
    after[7] = !after[7];
    let size = after.len() as u64;
    let after = Bytes::from(after);
    let request = CopyRequest { from_etag: Some(from_etag.clone()), ..CopyRequest::new("k".into(), "k".into()) };
    let parts = plan::plan(size, &[0..7, 8..size], PART_BYTES);
    let options = PutOptions { condition: Condition::IfMatch(from_etag), ..PutOptions::default() };
    let make = async |parts| {
        let options = async { Ok::<_, Error>(options.clone()) };
        upload_changes(&bucket, &request, parts, &after, options, None, &settings()).await
    };
    make(parts.clone()).await.unwrap();
    assert_eq!(memory.bytes("k").unwrap(), after);
    assert_eq!((memory.count("UploadPart"), memory.count("UploadPartCopy")), (1, 1));
    let stale = make(parts).await;
    assert_eq!(stale.unwrap_err().kind, Kind::Changed);
    assert_eq!(memory.open_uploads(), 0);
}

#[test]
fn ranges_cover_a_copy() {
    assert!(ranges(0, 5).eq(std::iter::once(0..0)), "an empty object is one empty part");
    assert_eq!(ranges(11, 5).collect::<Vec<_>>(), [0..5, 5..10, 10..11]);
    assert_eq!(ranges(10, 5).count(), 2);
}
