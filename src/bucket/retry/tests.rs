use super::*;
use crate::bucket::Metadata;
use crate::bucket::attributes::OP_ID;
use crate::bucket::memory::{Effect, Fault, MemoryBucket};

fn quick() -> RetryPolicy {
    RetryPolicy {
        deadline: Duration::from_millis(600),
        attempt: Duration::from_millis(100),
        max_attempts: 5,
        base_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(5),
        unreachable: Duration::from_millis(200),
    }
}

fn retrying(memory: MemoryBucket) -> Retrying<MemoryBucket> {
    Retrying::new(memory, quick(), Arc::default())
}

fn options(condition: Condition, op_id: Option<&str>) -> PutOptions {
    let metadata = op_id.map(|id| (OP_ID.to_owned(), id.to_owned())).into_iter().collect();
    PutOptions { metadata, condition, ..PutOptions::default() }
}

#[tokio::test]
async fn what_may_end_better_is_tried_again() {
    for kind in [Kind::Busy, Kind::Unreachable, Kind::Deadline, Kind::Corrupt] {
        let bucket = retrying(MemoryBucket::new());
        bucket.inner.insert("k", "1", Metadata::new());
        bucket.inner.inject(Fault::once("GetObject", Effect::Fail(kind)).times(2));
        assert_eq!(bucket.get("k", None, None).await.unwrap().bytes, "1", "{kind:?}");
        assert_eq!(bucket.inner.count("GetObject"), 3);
        let retries = bucket.log.operations().into_iter().map(|counts| (counts.operation, counts.retries));
        assert_eq!(retries.filter(|(_, count)| *count > 0).collect::<Vec<_>>(), [("GetObject", 2)], "{kind:?}");
    }
}

/// Hands out half of what is left of a range and breaks off, every time.
#[derive(Debug)]
struct Halting(MemoryBucket);

#[async_trait]
impl Bucket for Halting {
    async fn get_into(&self, key: &str, range: Range<u64>, etag: &ETag, sink: &dyn Sink) -> Result<()> {
        let start = range.start + sink.taken_bytes();
        let end = start + (range.end - start).div_ceil(2);
        let fetched = self.0.get(key, Some(start..end), Some(etag)).await?;
        sink.take(&fetched.bytes);
        if end == range.end {
            return Ok(());
        }
        let (key, cause) = (key.to_owned(), "broken off".to_owned());
        Err(Error { kind: Kind::Unreachable, operation: "GetObject", key, cause, http_status: None, request_id: None })
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        self.0.head(key).await
    }
    async fn get(&self, key: &str, range: Option<Range<u64>>, if_match: Option<&ETag>) -> Result<Fetched> {
        self.0.get(key, range, if_match).await
    }
    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        self.0.list(request).await
    }
    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<ETag> {
        self.0.put(key, body, options).await
    }
    async fn copy(&self, request: &CopyRequest) -> Result<ETag> {
        self.0.copy(request).await
    }
    async fn delete(&self, key: &str, if_match: Option<&ETag>) -> Result<()> {
        self.0.delete(key, if_match).await
    }
    async fn delete_many(&self, deletions: &[Deletion]) -> Result<Vec<(String, Error)>> {
        self.0.delete_many(deletions).await
    }
    async fn create_upload(&self, key: &str, options: &PutOptions) -> Result<String> {
        self.0.create_upload(key, options).await
    }
    async fn upload_part(&self, key: &str, upload_id: &str, number: u16, body: Bytes) -> Result<Part> {
        self.0.upload_part(key, upload_id, number, body).await
    }
    async fn copy_part(&self, key: &str, id: &str, number: u16, from: &CopyRequest, range: Range<u64>) -> Result<Part> {
        self.0.copy_part(key, id, number, from, range).await
    }
    async fn complete_upload(&self, key: &str, id: &str, parts: &[Part], condition: &Condition) -> Result<ETag> {
        self.0.complete_upload(key, id, parts, condition).await
    }
    async fn abort_upload(&self, key: &str, upload_id: &str) -> Result<()> {
        self.0.abort_upload(key, upload_id).await
    }
    async fn list_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        self.0.list_uploads(prefix).await
    }
}

#[derive(Default)]
struct Taken(parking_lot::Mutex<Vec<u8>>);

impl Sink for Taken {
    fn take(&self, bytes: &[u8]) {
        self.0.lock().extend_from_slice(bytes);
    }

    fn taken_bytes(&self) -> u64 {
        self.0.lock().len() as u64
    }
}

#[tokio::test]
async fn what_broke_off_goes_on_behind_what_came() {
    let memory = MemoryBucket::new();
    let body: Vec<u8> = (0..=255).collect();
    let etag = memory.insert("k", body.clone(), Metadata::new());
    let bucket = Retrying::new(Halting(memory), RetryPolicy { max_attempts: 20, ..quick() }, Arc::default());
    let sink = Taken::default();
    bucket.get_into("k", 10..200, &etag, &sink).await.unwrap();
    assert_eq!(*sink.0.lock(), body[10..200]);
    assert!(bucket.inner.0.count("GetObject") > 3, "it broke off more than once");
}

#[tokio::test]
async fn no_byte_of_another_version_is_handed_over() {
    let memory = MemoryBucket::new();
    memory.insert("k", "new", Metadata::new());
    let sink = Taken::default();
    let error = retrying(memory).get_into("k", 0..3, &ETag::new("old"), &sink).await.unwrap_err();
    assert_eq!((error.kind, sink.taken_bytes()), (Kind::Changed, 0));
}

#[tokio::test]
async fn what_ends_the_same_is_tried_once() {
    for kind in [Kind::AccessDenied, Kind::NotFound, Kind::Refused, Kind::Archived, Kind::Unsupported, Kind::Changed] {
        let bucket = retrying(MemoryBucket::new());
        bucket.inner.inject(Fault::always(Effect::Fail(kind)));
        assert_eq!(bucket.get("k", None, None).await.unwrap_err().kind, kind);
        assert_eq!(bucket.inner.count("GetObject"), 1, "{kind:?}");
    }
}

#[tokio::test]
async fn tries_have_an_end_and_the_log_knows() {
    let bucket = retrying(MemoryBucket::new());
    bucket.inner.inject(Fault::always(Effect::Fail(Kind::Busy)));
    assert_eq!(bucket.head("k").await.unwrap_err().kind, Kind::Busy);
    assert_eq!(bucket.inner.count("HeadObject"), 5);
    assert_eq!(bucket.log.last_errors().len(), 1, "one line for an operation, not for each try");
}

#[tokio::test]
async fn a_hung_try_is_given_up_and_made_again() {
    let bucket = retrying(MemoryBucket::new());
    bucket.inner.insert("k", "1", Metadata::new());
    bucket.inner.inject(Fault::once("HeadObject", Effect::Hang));
    assert!(bucket.head("k").await.is_ok());
}

#[tokio::test]
async fn a_server_that_never_answers_meets_the_deadline() {
    let bucket = retrying(MemoryBucket::new());
    bucket.inner.inject(Fault::always(Effect::Hang));
    let begun = Instant::now();
    assert_eq!(bucket.copy(&copy(None)).await.unwrap_err().kind, Kind::Deadline);
    assert_eq!(bucket.head("k").await.unwrap_err().kind, Kind::Deadline);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn an_endpoint_out_of_reach_is_told_before_the_deadline() {
    let policy = RetryPolicy { deadline: Duration::from_hours(1), max_attempts: u32::MAX, ..quick() };
    let bucket = Retrying::new(MemoryBucket::new(), policy, Arc::default());
    bucket.inner.inject(Fault::always(Effect::Fail(Kind::Unreachable)));
    assert_eq!(bucket.head("k").await.unwrap_err().kind, Kind::Unreachable);
    assert!(bucket.inner.count("HeadObject") > 2);
}

#[tokio::test]
async fn a_put_refused_because_of_its_own_first_try_succeeded() {
    for op_id in [Some("op-1"), None] {
        let bucket = retrying(MemoryBucket::new());
        bucket.inner.inject(Fault::once("PutObject", Effect::LoseReply(Kind::Unreachable)));
        let etag = bucket.put("k", "mine".into(), &options(Condition::IfAbsent, op_id)).await.unwrap();
        assert_eq!(bucket.inner.info("k").unwrap().etag, etag);
    }
}

#[tokio::test]
async fn a_put_refused_because_of_somebody_else_is_refused() {
    let bucket = retrying(MemoryBucket::new());
    bucket.inner.insert("k", "other", Metadata::new());
    bucket.inner.inject(Fault::once("PutObject", Effect::Fail(Kind::Unreachable)));
    let error = bucket.put("k", "other".into(), &options(Condition::IfAbsent, Some("op-1"))).await.unwrap_err();
    assert_eq!(error.kind, Kind::Changed, "the same bytes, but not our operation");
    bucket.inner.inject(Fault::once("PutObject", Effect::Fail(Kind::Busy)));
    let error = bucket.put("k", "mine!".into(), &options(Condition::IfAbsent, None)).await.unwrap_err();
    assert_eq!(error.kind, Kind::Changed);
}

#[tokio::test]
async fn a_refusal_without_doubt_is_not_looked_into() {
    let bucket = retrying(MemoryBucket::new());
    bucket.inner.insert("k", "mine", Metadata::new());
    let error = bucket.put("k", "mine".into(), &options(Condition::IfAbsent, None)).await.unwrap_err();
    assert_eq!((error.kind, bucket.inner.count("HeadObject")), (Kind::Changed, 0));
}

#[tokio::test]
async fn a_completion_whose_reply_was_lost_is_found() {
    for op_id in [Some("op-2"), None] {
        let bucket = retrying(MemoryBucket::new());
        let id = bucket.create_upload("k", &options(Condition::None, op_id)).await.unwrap();
        let part = bucket.upload_part("k", &id, 1, "part".into()).await.unwrap();
        bucket.inner.inject(Fault::once("CompleteMultipartUpload", Effect::LoseReply(Kind::Busy)));
        let etag = bucket.complete_upload("k", &id, &[part], &Condition::IfAbsent).await.unwrap();
        assert_eq!(bucket.inner.info("k").unwrap().etag, etag);
    }
}

#[tokio::test]
async fn a_completion_of_an_upload_that_others_aborted_fails() {
    let bucket = retrying(MemoryBucket::new());
    bucket.inner.insert("k", "other", Metadata::new());
    let id = bucket.create_upload("k", &options(Condition::None, Some("op-3"))).await.unwrap();
    let part = bucket.upload_part("k", &id, 1, "part".into()).await.unwrap();
    bucket.inner.abort_upload("k", &id).await.unwrap();
    bucket.inner.inject(Fault::once("CompleteMultipartUpload", Effect::Fail(Kind::Busy)));
    let error = bucket.complete_upload("k", &id, &[part], &Condition::None).await.unwrap_err();
    assert_eq!(error.kind, Kind::NoSuchUpload);
}

fn copy(replace: Option<PutOptions>) -> CopyRequest {
    CopyRequest { replace, ..CopyRequest::new("a".into(), "b".into()) }
}

#[tokio::test]
async fn a_copy_whose_reply_was_lost_is_found() {
    let bucket = retrying(MemoryBucket::new());
    bucket.inner.insert("a", "1", Metadata::new());
    bucket.inner.inject(Fault::once("CopyObject", Effect::LoseReply(Kind::Unreachable)));
    let etag = bucket.copy(&copy(Some(options(Condition::IfAbsent, Some("op-4"))))).await.unwrap();
    assert_eq!(bucket.inner.info("b").unwrap().etag, etag);
}

#[tokio::test]
async fn an_abort_whose_reply_was_lost_is_done() {
    let bucket = retrying(MemoryBucket::new());
    let id = bucket.create_upload("k", &PutOptions::default()).await.unwrap();
    bucket.inner.inject(Fault::once("AbortMultipartUpload", Effect::LoseReply(Kind::Unreachable)));
    bucket.abort_upload("k", &id).await.unwrap();
    assert_eq!(bucket.inner.open_uploads(), 0);
}

#[tokio::test]
async fn a_write_that_only_seemed_to_fail_is_not_in_its_own_way() {
    for op_ids in [[Some("op-5"), Some("op-6")], [None, None]] {
        let bucket = retrying(MemoryBucket::new());
        bucket.inner.inject(Fault::once("PutObject", Effect::LoseReply(Kind::Unreachable)));
        bucket.inner.inject(Fault::always(Effect::Fail(Kind::Unreachable)));
        let create = options(Condition::IfAbsent, op_ids[0]);
        assert_eq!(bucket.put("k", "draft".into(), &create).await.unwrap_err().kind, Kind::Unreachable);
        bucket.inner.heal();
        let create = options(Condition::IfAbsent, op_ids[1]);
        let etag = bucket.put("k", "draft, saved again".into(), &create).await.unwrap();
        assert_eq!(bucket.inner.info("k").unwrap().etag, etag);
        let create = options(Condition::IfAbsent, Some("op-7"));
        let error = bucket.put("k", "x".into(), &create).await.unwrap_err();
        assert_eq!(error.kind, Kind::Changed, "what is certain is no longer ours to overwrite");
    }
}

#[tokio::test]
async fn somebody_elses_version_stays_also_after_a_write_in_doubt() {
    let bucket = retrying(MemoryBucket::new());
    bucket.inner.inject(Fault::always(Effect::Fail(Kind::Unreachable)));
    let create = options(Condition::IfAbsent, Some("op-8"));
    assert!(bucket.put("k", "draft".into(), &create).await.is_err());
    bucket.inner.heal();
    bucket.inner.insert("k", "theirs", Metadata::new());
    let error = bucket.put("k", "draft".into(), &create).await.unwrap_err();
    assert_eq!((error.kind, bucket.inner.bytes("k").unwrap().as_ref()), (Kind::Changed, &b"theirs"[..]));
}

#[tokio::test]
async fn a_large_file_sent_again_goes_over_its_own_first_version() {
    let bucket = retrying(MemoryBucket::new());
    let send = async |faulty: bool| {
        let id = bucket.create_upload("k", &options(Condition::None, None)).await.unwrap();
        let part = bucket.upload_part("k", &id, 1, "part".into()).await.unwrap();
        if faulty {
            bucket.inner.inject(Fault::once("CompleteMultipartUpload", Effect::LoseReply(Kind::Unreachable)));
            bucket.inner.inject(Fault::always(Effect::Fail(Kind::Unreachable)));
        }
        bucket.complete_upload("k", &id, &[part], &Condition::IfAbsent).await
    };
    assert_eq!(send(true).await.unwrap_err().kind, Kind::Unreachable);
    bucket.inner.heal();
    let etag = send(false).await.unwrap();
    assert_eq!(bucket.inner.info("k").unwrap().etag, etag);
}

#[tokio::test]
async fn bytes_wait_for_their_turn_before_any_deadline_counts() {
    let memory = MemoryBucket::new();
    memory.insert("k", vec![0; 4000], Metadata::new());
    let rates = Rates { down: Some(Rate::new(4000)), up: Some(Rate::new(100)) };
    let bucket = retrying(memory).at_most(rates.into());
    let begun = Instant::now();
    // As much as a second and, twice, more than an operation may take.
    bucket.get("k", None, None).await.unwrap();
    let etag = bucket.get("k", Some(0..1), None).await.unwrap().info.etag;
    assert!(begun.elapsed() >= Duration::from_secs(1), "who comes next waits for what nobody knew the size of");
    let begun = Instant::now();
    bucket.put("k", vec![0; 100].into(), &options(Condition::IfMatch(etag), None)).await.unwrap();
    bucket.put("k", vec![0; 100].into(), &options(Condition::None, None)).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

fn named(keys: &[(&str, &ETag)]) -> Vec<Deletion> {
    keys.iter().map(|(key, etag)| Deletion { key: (*key).to_owned(), etag: Some((*etag).clone()) }).collect()
}

#[tokio::test]
async fn a_server_that_takes_no_conditions_of_deletions_is_sent_none_from_then_on() {
    for whole in [true, false] {
        let bucket = retrying(MemoryBucket::new());
        let etag = bucket.inner.insert("a", "x", Metadata::new());
        for key in ["b", "c", "d"] {
            bucket.inner.insert(key, "x", Metadata::new());
        }
        if whole {
            bucket.inner.inject(Fault::once("DeleteObjects", Effect::Fail(Kind::Refused)));
        }
        bucket.inner.refuse_tags_of_deleted();
        let mut batch = named(&[("a", &etag)]);
        batch.push(Deletion::of_any("b"));
        assert!(bucket.delete_many(&batch).await.unwrap().is_empty());
        assert_eq!(bucket.inner.keys(), ["c", "d"]);
        assert_eq!(bucket.inner.count("DeleteObjects"), 2);
        assert!(bucket.delete_many(&named(&[("c", &etag)])).await.unwrap().is_empty());
        bucket.delete("d", Some(&etag)).await.unwrap();
        assert!(bucket.inner.keys().is_empty());
        assert_eq!((bucket.inner.count("DeleteObjects"), bucket.inner.count("DeleteObject")), (3, 1), "asked once");
    }
}

#[tokio::test]
async fn a_server_without_batches_is_not_taken_for_one_without_conditions() {
    let bucket = retrying(MemoryBucket::new());
    bucket.inner.inject(Fault::once("DeleteObjects", Effect::Fail(Kind::Unsupported)).times(u32::MAX));
    let etag = bucket.inner.insert("a", "x", Metadata::new());
    assert_eq!(bucket.delete_many(&named(&[("a", &etag)])).await.unwrap_err().kind, Kind::Unsupported);
    assert_eq!(bucket.delete("a", Some(&ETag::new("other"))).await.unwrap_err().kind, Kind::Changed);
    assert_eq!(bucket.inner.keys(), ["a"]);
}

#[tokio::test]
async fn who_may_not_name_a_version_deletes_without() {
    let bucket = retrying(MemoryBucket::new());
    bucket.inner.deny_tags_of_deleted();
    let etag = bucket.inner.insert("a", "x", Metadata::new());
    for key in ["b", "c"] {
        bucket.inner.insert(key, "x", Metadata::new());
    }
    bucket.delete("a", Some(&etag)).await.unwrap();
    assert!(bucket.delete_many(&named(&[("b", &etag), ("c", &etag)])).await.unwrap().is_empty());
    assert!(bucket.inner.keys().is_empty());
    // Who may not delete at all is told so.
    bucket.inner.insert("a", "x", Metadata::new());
    bucket.inner.insist_on_tags_of_deleted();
    assert_eq!(bucket.delete("a", Some(&etag)).await.unwrap_err().kind, Kind::AccessDenied);
    let failed = bucket.delete_many(&named(&[("a", &etag)])).await.unwrap();
    assert_eq!((failed[0].0.as_str(), failed[0].1.kind), ("a", Kind::AccessDenied));
    assert_eq!(bucket.inner.keys(), ["a"]);
}

#[tokio::test]
async fn a_deletion_whose_reply_was_lost_does_not_take_what_came_after_it() {
    let bucket = retrying(MemoryBucket::new());
    let etag = bucket.inner.insert("k", "x", Metadata::new());
    bucket.inner.inject(Fault::once("DeleteObject", Effect::LoseReply(Kind::Unreachable)));
    bucket.delete("k", Some(&etag)).await.unwrap();
    let etag = bucket.inner.insert("k", "x", Metadata::new());
    bucket.inner.inject(Fault::once("DeleteObjects", Effect::Fail(Kind::Busy)));
    let theirs = async {
        while bucket.inner.count("DeleteObjects") == 0 {
            tokio::task::yield_now().await;
        }
        bucket.inner.insert("k", "theirs", Metadata::new())
    };
    let batch = named(&[("k", &etag)]);
    let (failed, _) = tokio::join!(bucket.delete_many(&batch), theirs);
    assert_eq!(failed.unwrap()[0].1.kind, Kind::Changed);
    assert_eq!(bucket.inner.bytes("k").unwrap(), "theirs");
}
