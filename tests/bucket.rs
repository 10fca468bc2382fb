//! The S3 client against a server: what goes in comes out, byte for byte, under every odd key, and
//! conditions hold.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use s3mount::bucket::attributes::Attributes;
use s3mount::bucket::client::{ConnectSettings, Connection, StaticCredentials, connect};
use s3mount::bucket::upload::{self, UploadSettings};
use s3mount::bucket::{Bucket, Condition, CopyRequest, ETag, ListPage, ListRequest, Metadata, PutOptions};
use s3mount::demo::{Fault, FaultKind, Server, ServerSettings};
use s3mount::error::Kind;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const BUCKET: &str = "test-bucket";
const KEY: &str = "test-key";

/// A server of its own for each test, gone with it.
struct Place {
    server: Server,
    connection: Connection,
    prefix: &'static str,
    _data: TempDir,
}

impl Place {
    async fn new() -> Self {
        Self::with(|settings| settings).await
    }

    async fn with(change: impl Fn(ConnectSettings) -> ConnectSettings) -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        let server = ServerSettings {
            data_dir: data.path().to_owned(),
            listen: ([127, 0, 0, 1], 0).into(),
            access_key: KEY.to_owned(),
            secret_key: KEY.to_owned(),
            buckets: vec![BUCKET.to_owned()],
            latency: Duration::ZERO,
            mbps_per_connection: None,
        };
        let server = Server::start(server).await.expect("the server starts");
        let settings = change(settings(&server));
        let connection = connect(&settings).await.expect("the server answers");
        Self { server, connection, prefix: "below/", _data: data }
    }

    fn bucket(&self) -> &Arc<dyn Bucket> {
        &self.connection.bucket
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn list(&self, request: ListRequest) -> ListPage {
        let prefix = format!("{}{}", self.prefix, request.prefix);
        self.bucket().list(&ListRequest { prefix, ..request }).await.expect("a listing")
    }

    async fn put(&self, name: &str, body: &str) -> ETag {
        self.bucket()
            .put(&self.key(name), body.to_owned().into(), &PutOptions::default())
            .await
            .expect("a stored object")
    }

    fn fault(&self, operation: &str, kind: FaultKind, times: u32) {
        self.server.faults().add(Fault { times, ..Fault::once(operation, kind) });
    }
}

fn settings(server: &Server) -> ConnectSettings {
    ConnectSettings {
        endpoint_url: Some(server.endpoint_url()),
        credentials: Some(StaticCredentials { access_key: KEY.into(), secret_key: KEY.into() }),
        deadline: Duration::from_secs(20),
        ..ConnectSettings::new(BUCKET, "below/")
    }
}

fn options(condition: Condition) -> PutOptions {
    PutOptions { condition, ..PutOptions::default() }
}

fn bytes(size: usize) -> Bytes {
    (0..size).map(|index| (index % 251) as u8).collect()
}

#[tokio::test]
async fn an_object_comes_back_as_it_was_put() {
    let place = Place::new().await;
    let key = place.key("object");
    let metadata = Metadata::from([("file-owner".to_owned(), "7".to_owned()), ("x".to_owned(), "y z".to_owned())]);
    let content_type = Some("text/x-odd".to_owned());
    let put = PutOptions { metadata: metadata.clone(), content_type: content_type.clone(), condition: Condition::None };
    let etag = place.bucket().put(&key, bytes(1000), &put).await.unwrap();
    let info = place.bucket().head(&key).await.unwrap();
    assert_eq!((&info.etag, info.size, &info.metadata, &info.content_type), (&etag, 1000, &metadata, &content_type));
    assert!(!info.archived);
    let whole = place.bucket().get(&key, None, Some(&etag)).await.unwrap();
    assert_eq!((whole.bytes, whole.info), (bytes(1000), info));
}

#[tokio::test]
async fn ranges_are_cut_at_the_end_of_the_object() {
    let place = Place::new().await;
    let key = place.key("ranges");
    let etag = place.bucket().put(&key, bytes(100), &PutOptions::default()).await.unwrap();
    let ranges: [(Range<u64>, Range<usize>); 5] =
        [(0..10, 0..10), (90..100, 90..100), (90..5000, 90..100), (0..100, 0..100), (50..51, 50..51)];
    for (asked, got) in ranges.into_iter().chain([(100..200, 100..100), (7..7, 7..7), (500..600, 100..100)]) {
        let fetched = place.bucket().get(&key, Some(asked.clone()), Some(&etag)).await.unwrap();
        assert_eq!(fetched.bytes, bytes(100).slice(got), "{asked:?}");
        assert_eq!((fetched.info.size, &fetched.info.etag), (100, &etag));
    }
    let empty = place.key("empty");
    place.bucket().put(&empty, Bytes::new(), &PutOptions::default()).await.unwrap();
    for range in [None, Some(0..10), Some(0..0)] {
        assert!(place.bucket().get(&empty, range, None).await.unwrap().bytes.is_empty());
    }
}

#[tokio::test]
async fn a_large_object_arrives_whole() {
    let place = Place::new().await;
    let key = place.key("large");
    place.bucket().put(&key, bytes(9_000_001), &PutOptions::default()).await.unwrap();
    assert_eq!(place.bucket().get(&key, None, None).await.unwrap().bytes, bytes(9_000_001));
    let middle = place.bucket().get(&key, Some(4_000_000..8_000_000), None).await.unwrap();
    assert_eq!(middle.bytes, bytes(9_000_001).slice(4_000_000..8_000_000));
}

#[tokio::test]
async fn what_is_missing_is_not_found() {
    let place = Place::new().await;
    let key = place.key("missing");
    assert_eq!(place.bucket().head(&key).await.unwrap_err().kind, Kind::NotFound);
    assert_eq!(place.bucket().get(&key, None, None).await.unwrap_err().kind, Kind::NotFound);
    let copy = CopyRequest { from: key.clone(), to: place.key("copy"), from_etag: None, replace: None };
    assert_eq!(place.bucket().copy(&copy).await.unwrap_err().kind, Kind::NotFound);
    place.bucket().delete(&key).await.expect("deleting what is not there succeeds");
    assert!(place.bucket().delete_many(&[key]).await.unwrap().is_empty());
}

#[tokio::test]
async fn conditions_hold() {
    let place = Place::new().await;
    let key = place.key("conditions");
    let (bucket, changed) = (place.bucket(), Kind::Changed);
    let first = bucket.put(&key, "1".into(), &options(Condition::IfAbsent)).await.unwrap();
    assert_eq!(bucket.put(&key, "2".into(), &options(Condition::IfAbsent)).await.unwrap_err().kind, changed);
    let second = bucket.put(&key, "22".into(), &options(Condition::IfMatch(first.clone()))).await.unwrap();
    let stale = options(Condition::IfMatch(first.clone()));
    assert_eq!(bucket.put(&key, "3".into(), &stale).await.unwrap_err().kind, changed);
    assert_eq!(bucket.get(&key, None, Some(&first)).await.unwrap_err().kind, changed);
    assert_eq!(bucket.get(&key, Some(7..9), Some(&first)).await.unwrap_err().kind, changed);
    let copy = CopyRequest { from: key.clone(), to: place.key("to"), from_etag: Some(first), replace: None };
    assert_eq!(bucket.copy(&copy).await.unwrap_err().kind, changed);
    assert_eq!(bucket.get(&key, None, Some(&second)).await.unwrap().bytes, "22");
}

#[tokio::test]
async fn of_many_creators_one_wins() {
    let place = Place::new().await;
    let key = place.key("race");
    let create = |number: usize| {
        let (bucket, key) = (Arc::clone(place.bucket()), key.clone());
        async move { bucket.put(&key, number.to_string().into(), &options(Condition::IfAbsent)).await }
    };
    let results = futures::future::join_all((0..16).map(create)).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(results.iter().filter_map(|result| result.as_ref().err()).all(|error| error.kind == Kind::Changed));
}

#[tokio::test]
async fn a_copy_keeps_or_replaces_what_the_object_carries() {
    let place = Place::new().await;
    let metadata = Metadata::from([("a".to_owned(), "1".to_owned())]);
    let put = PutOptions { metadata: metadata.clone(), content_type: Some("a/b".into()), condition: Condition::None };
    let etag = place.bucket().put(&place.key("from"), bytes(10), &put).await.unwrap();
    let mut copy = CopyRequest { from: place.key("from"), to: place.key("to"), from_etag: Some(etag), replace: None };
    place.bucket().copy(&copy).await.unwrap();
    let kept = place.bucket().get(&copy.to, None, None).await.unwrap();
    assert_eq!((kept.bytes, kept.info.metadata, kept.info.content_type.as_deref()), (bytes(10), metadata, Some("a/b")));
    let metadata = Metadata::from([("b".to_owned(), "2".to_owned())]);
    copy.replace = Some(PutOptions { metadata: metadata.clone(), content_type: None, condition: Condition::None });
    let etag = place.bucket().copy(&copy).await.unwrap();
    let replaced = place.bucket().head(&copy.to).await.unwrap();
    assert_eq!((replaced.metadata, replaced.etag), (metadata, etag));
}

const ODD_KEYS: [&str; 24] = [
    "plain",
    "a b",
    "a+b",
    "a%20b",
    "100%",
    "ü/ö",
    "日本",
    "a?b&c=d#e",
    "a\\b",
    "'\"<>`",
    "tab\there",
    "line\nbreak",
    "return\rhere",
    "bell\u{7}",
    "one\u{1}",
    "del\u{7f}",
    "..",
    "a/../b",
    "a//b",
    "/lead",
    "trail/",
    "dot/./x",
    "*~!()",
    "\u{1f600}",
];

#[tokio::test]
async fn odd_keys_are_written_listed_copied_and_deleted_byte_for_byte() {
    let place = Place::new().await;
    for key in ODD_KEYS {
        place.put(key, key).await;
    }
    let listed = place.list(ListRequest::default()).await;
    let names: Vec<_> = listed.objects.iter().map(|object| &object.key[place.prefix.len()..]).collect();
    let sorted: BTreeSet<&str> = ODD_KEYS.into_iter().collect();
    assert_eq!(names, sorted.into_iter().collect::<Vec<_>>(), "not the keys, or not in byte order");
    for key in ODD_KEYS {
        let copy =
            CopyRequest { from: place.key(key), to: place.key(&format!("copy/{key}")), from_etag: None, replace: None };
        place.bucket().copy(&copy).await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(place.bucket().get(&copy.to, None, None).await.unwrap().bytes, key);
    }
    let all = place.list(ListRequest::default()).await.objects.into_iter().map(|object| object.key);
    let failed = place.bucket().delete_many(&all.collect::<Vec<_>>()).await.unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(place.list(ListRequest::default()).await.objects, []);
}

#[tokio::test]
async fn the_longest_key_can_be_used() {
    let place = Place::new().await;
    let name = "k".repeat(1024 - place.prefix.len());
    place.put(&name, "x").await;
    assert_eq!(place.list(ListRequest::default()).await.objects[0].key, place.key(&name));
}

#[tokio::test]
async fn listings_come_in_pages_and_groups() {
    let place = Place::new().await;
    for key in ["a", "d/", "d/1", "d/2", "d0", "e/x/y", "z"] {
        place.put(key, "").await;
    }
    let mut request = ListRequest { delimited: true, max_keys: Some(2), ..ListRequest::default() };
    let mut names = Vec::new();
    loop {
        let page = place.list(request.clone()).await;
        assert!(page.objects.len() + page.prefixes.len() <= 2);
        names.extend(page.objects.into_iter().map(|object| object.key));
        names.extend(page.prefixes);
        request.token = page.next;
        if request.token.is_none() {
            break;
        }
    }
    names.sort();
    assert_eq!(names, ["a", "d/", "d0", "e/", "z"].map(|name| place.key(name)));
    let after = ListRequest { start_after: Some(place.key("d0")), ..ListRequest::default() };
    let after = place.list(after).await.objects.into_iter().map(|object| object.key).collect::<Vec<_>>();
    assert_eq!(after, ["e/x/y", "z"].map(|name| place.key(name)));
}

#[tokio::test]
async fn a_listing_tells_what_head_tells() {
    let place = Place::new().await;
    place.put("object", "12345").await;
    let page = place.list(ListRequest::default()).await;
    let info = place.bucket().head(&place.key("object")).await.unwrap();
    let listed = &page.objects[0];
    assert_eq!((&listed.etag, listed.size, listed.modified), (&info.etag, info.size, info.modified));
}

#[tokio::test]
async fn parts_become_one_object_under_a_condition() {
    let place = Place::new().await;
    let (bucket, key) = (place.bucket(), place.key("parts"));
    let settings = UploadSettings { part_bytes: 5 << 20, ..UploadSettings::default() };
    let body = bytes((11 << 20) + 3);
    let metadata = Metadata::from([("a".to_owned(), "1".to_owned())]);
    let create = PutOptions { metadata: metadata.clone(), content_type: None, condition: Condition::IfAbsent };
    let size = body.len() as u64;
    let etag = upload::upload(bucket, &key, Arc::new(body.clone()), size, &create, &settings).await.unwrap();
    let stored = bucket.get(&key, None, Some(&etag)).await.unwrap();
    assert_eq!((stored.bytes, stored.info.metadata), (body.clone(), metadata));
    let again = upload::upload(bucket, &key, Arc::new(body.clone()), size, &create, &settings).await;
    assert_eq!(again.unwrap_err().kind, Kind::Changed);
    let copy = CopyRequest { from: key, to: place.key("copy"), from_etag: Some(etag), replace: None };
    upload::copy_large(bucket, &copy, size, &PutOptions::default(), &settings).await.unwrap();
    assert_eq!(bucket.get(&copy.to, None, None).await.unwrap().bytes, body);
    assert!(bucket.list_uploads(place.prefix).await.unwrap().is_empty(), "an upload is left open");
}

#[tokio::test]
async fn uploads_under_way_are_listed_and_aborted() {
    let place = Place::new().await;
    let (bucket, key) = (place.bucket(), place.key("open +%"));
    let id = bucket.create_upload(&key, &PutOptions::default()).await.unwrap();
    bucket.upload_part(&key, &id, 1, bytes(100)).await.unwrap();
    let open = bucket.list_uploads(place.prefix).await.unwrap();
    assert_eq!((open.len(), &open[0].key, &open[0].upload_id), (1, &key, &id));
    bucket.abort_upload(&key, &id).await.unwrap();
    assert!(bucket.list_uploads(place.prefix).await.unwrap().is_empty());
    let late = bucket.upload_part(&key, &id, 2, bytes(100)).await.unwrap_err();
    assert_eq!(late.kind, Kind::NoSuchUpload);
}

#[tokio::test]
async fn attributes_survive_the_server() {
    let place = Place::new().await;
    let attributes = Attributes {
        mode: Some(0o100_640),
        uid: Some(1000),
        mtime: Some(std::time::UNIX_EPOCH + std::time::Duration::new(1_595_002_920, 123_456_789)),
        xattrs: [("user.note".to_owned(), vec![0, 255, 10])].into(),
        ..Attributes::default()
    };
    let put = PutOptions { metadata: attributes.to_metadata().unwrap(), ..PutOptions::default() };
    place.bucket().put(&place.key("attributes"), "x".into(), &put).await.unwrap();
    let info = place.bucket().head(&place.key("attributes")).await.unwrap();
    assert_eq!(Attributes::from_metadata(&info.metadata), attributes);
}

#[tokio::test]
async fn requests_are_counted() {
    let place = Place::new().await;
    let before = place.connection.requests.counts().get("PutObject").copied().unwrap_or(0);
    place.put("counted", "12345").await;
    place.bucket().get(&place.key("counted"), None, None).await.unwrap();
    let requests = &place.connection.requests;
    assert_eq!((requests.counts()["PutObject"], requests.counts()["GetObject"]), (before + 1, 1));
    assert_eq!((requests.bytes_sent(), requests.bytes_received(), requests.in_flight()), (5, 5, 0));
    assert_eq!(place.connection.capabilities.conditional_writes, Some(true));
}

#[tokio::test]
async fn what_the_user_got_wrong_is_said() {
    let place = Place::new().await;
    let good = settings(&place.server);
    let wrong = |access_key: &str, secret_key: &str| {
        Some(StaticCredentials { access_key: access_key.to_owned(), secret_key: secret_key.to_owned() })
    };
    let cases = [
        (ConnectSettings { bucket: "no-such-bucket".into(), ..good.clone() }, Kind::NoSuchBucket, "no bucket"),
        (
            ConnectSettings { endpoint_url: Some("http://127.0.0.1:1".into()), ..good.clone() },
            Kind::Unreachable,
            "reach",
        ),
        (ConnectSettings { endpoint_url: Some("ftp://x".into()), ..good.clone() }, Kind::Usage, "endpoint URL"),
        (ConnectSettings { bucket: "a b".into(), ..good.clone() }, Kind::Usage, "name of a bucket"),
        (ConnectSettings { credentials: wrong("unknown", KEY), ..good.clone() }, Kind::AccessDenied, "access key"),
        (ConnectSettings { credentials: wrong(KEY, "wrong"), ..good.clone() }, Kind::AccessDenied, "secret key"),
        (
            ConnectSettings { credentials: None, no_sign_request: true, ..good.clone() },
            Kind::AccessDenied,
            "not public",
        ),
    ];
    for (settings, kind, words) in cases {
        let error = connect(&settings).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.cause.contains(words), "{error}");
    }
}

/// Answers every request with an empty listing, and keeps its head.
async fn recorder() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let heads = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_all(stream, Arc::clone(&kept)));
        }
    });
    (url, heads)
}

async fn answer_all(mut stream: TcpStream, heads: Arc<Mutex<Vec<String>>>) {
    const LISTING: &str = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
    let mut received = Vec::new();
    while stream.read_buf(&mut received).await.is_ok_and(|count| count > 0) {
        let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&received[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        if received.len() < end + 4 + length {
            continue;
        }
        received.drain(..end + 4 + length);
        heads.lock().push(head);
        let answer = format!("HTTP/1.1 200 OK\r\netag: \"e\"\r\ncontent-length: {}\r\n\r\n{LISTING}", LISTING.len());
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The SDK's defaults hash every payload with SHA-256: 17 times the CPU.
#[tokio::test]
async fn payloads_are_not_hashed_for_the_signature_but_carry_a_checksum() {
    let (url, heads) = recorder().await;
    let place = Place::new().await;
    let quiet = ConnectSettings { endpoint_url: Some(url), read_only: true, ..settings(&place.server) };
    let connection = connect(&quiet).await.unwrap();
    for size in [3, 1 << 20] {
        heads.lock().clear();
        connection.bucket.put("k", bytes(size), &PutOptions::default()).await.unwrap();
        connection.bucket.upload_part("k", "id", 1, bytes(size)).await.unwrap();
        for head in heads.lock().iter() {
            assert!(head.contains("x-amz-content-sha256: unsigned-payload"), "{head}");
            assert!(head.contains("x-amz-checksum-crc32c: "), "{head}");
            assert!(head.contains(&format!("content-length: {size}")), "{head}");
            assert!(!head.contains("x-amz-trailer") && !head.contains("x-amz-sdk-checksum"), "{head}");
        }
        assert_eq!(heads.lock().len(), 2);
    }
}

#[tokio::test]
async fn nothing_is_written_by_mounting() {
    let place = Place::new().await;
    assert_eq!(place.list(ListRequest::default()).await.objects, [], "the probe is left behind");
    let before = place.server.request_counts();
    connect(&ConnectSettings { read_only: true, ..settings(&place.server) }).await.unwrap();
    let after = place.server.request_counts();
    assert_eq!(after.get("PutObject"), before.get("PutObject"), "a read-only mount wrote");
}

/// What may go wrong on the way and still end well.
const TRANSIENT: [FaultKind; 8] = [
    FaultKind::Status(500),
    FaultKind::Status(503),
    FaultKind::Status(429),
    FaultKind::ResetBefore,
    FaultKind::ResetDuring,
    FaultKind::AppliedThenLostReply,
    FaultKind::Truncated,
    FaultKind::FlippedBit,
];

#[tokio::test]
async fn reads_survive_what_passes() {
    let place = Place::new().await;
    let body = bytes(300_000);
    place.bucket().put(&place.key("object"), body.clone(), &PutOptions::default()).await.unwrap();
    for kind in TRANSIENT.into_iter().chain([FaultKind::WrongChecksum]) {
        place.fault("GetObject", kind, 2);
        assert_eq!(place.bucket().get(&place.key("object"), None, None).await.unwrap().bytes, body, "{kind:?}");
        assert_eq!(place.server.faults().waiting(), [], "{kind:?} did not happen");
        if kind == FaultKind::FlippedBit {
            continue; // Nothing in a listing tells a flipped bit.
        }
        place.fault("ListObjectsV2", kind, 1);
        assert_eq!(place.list(ListRequest::default()).await.objects.len(), 1, "{kind:?}");
        place.server.faults().clear();
    }
}

#[tokio::test]
async fn a_conditional_write_survives_what_passes_and_happens_once() {
    let place = Place::new().await;
    for (number, kind) in TRANSIENT.into_iter().chain([FaultKind::Status(409)]).enumerate() {
        let key = place.key(&format!("{number}"));
        place.fault("PutObject", kind, 2);
        let metadata = Metadata::from([("s3mount-op".to_owned(), format!("op-{number}"))]);
        let create = PutOptions { metadata, ..options(Condition::IfAbsent) };
        let etag = place.bucket().put(&key, bytes(100_000), &create).await.unwrap_or_else(|e| panic!("{kind:?}: {e}"));
        place.server.faults().clear();
        let stored = place.bucket().get(&key, None, Some(&etag)).await.unwrap();
        assert_eq!(stored.bytes, bytes(100_000), "{kind:?}");
    }
}

#[tokio::test]
async fn an_overwrite_without_an_operation_id_survives_a_lost_reply() {
    let place = Place::new().await;
    let first = place.put("object", "1").await;
    place.fault("PutObject", FaultKind::AppliedThenLostReply, 1);
    let second = options(Condition::IfMatch(first));
    let etag = place.bucket().put(&place.key("object"), "2".into(), &second).await.unwrap();
    assert_eq!(place.bucket().head(&place.key("object")).await.unwrap().etag, etag);
}

#[tokio::test]
async fn an_upload_in_parts_survives_what_passes() {
    let place = Place::new().await;
    let upload_settings = UploadSettings { part_bytes: 5 << 20, ..UploadSettings::default() };
    let body = bytes(6 << 20);
    let faults =
        TRANSIENT.into_iter().flat_map(|kind| ["UploadPart", "CompleteMultipartUpload"].map(|name| (name, kind)));
    for (number, (operation, kind)) in faults.chain([("CompleteMultipartUpload", FaultKind::ErrorIn200)]).enumerate() {
        let key = place.key(&format!("{number}"));
        place.fault(operation, kind, 1);
        let create = options(Condition::IfAbsent);
        let sent = upload::upload(place.bucket(), &key, Arc::new(body.clone()), 6 << 20, &create, &upload_settings);
        let etag = sent.await.unwrap_or_else(|error| panic!("{operation} {kind:?}: {error}"));
        place.server.faults().clear();
        assert_eq!(place.bucket().get(&key, None, Some(&etag)).await.unwrap().bytes, body, "{operation} {kind:?}");
    }
    assert!(place.bucket().list_uploads(place.prefix).await.unwrap().is_empty(), "an upload is left open");
}

#[tokio::test]
async fn copies_and_deletes_survive_what_passes() {
    let place = Place::new().await;
    let from_etag = Some(place.put("from", "12345").await);
    for kind in TRANSIENT.into_iter().chain([FaultKind::ErrorIn200]) {
        place.fault("CopyObject", kind, 1);
        let copy = CopyRequest {
            from: place.key("from"),
            to: place.key("to"),
            from_etag: from_etag.clone(),
            replace: Some(options(Condition::IfAbsent)),
        };
        place.bucket().copy(&copy).await.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        place.server.faults().clear();
        assert_eq!(place.bucket().get(&copy.to, None, None).await.unwrap().bytes, "12345");
        place.fault("DeleteObject", kind, 1);
        place.bucket().delete(&copy.to).await.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        place.server.faults().clear();
        assert_eq!(place.bucket().head(&copy.to).await.unwrap_err().kind, Kind::NotFound);
    }
}

#[tokio::test]
async fn what_does_not_pass_is_told_as_what_it_is() {
    let place = Place::with(|settings| ConnectSettings { max_attempts: 2, ..settings }).await;
    let key = place.key("object");
    place.put("object", "x").await;
    let cases = [
        (FaultKind::Status(503), Kind::Busy),
        (FaultKind::Status(403), Kind::AccessDenied),
        (FaultKind::Status(501), Kind::Unsupported),
        (FaultKind::Status(400), Kind::Refused),
        (FaultKind::ExpiredToken, Kind::AccessDenied),
        (FaultKind::ResetBefore, Kind::Unreachable),
        (FaultKind::FlippedBit, Kind::Corrupt),
    ];
    for (fault, kind) in cases {
        place.fault("GetObject", fault, 2);
        assert_eq!(place.bucket().get(&key, None, None).await.unwrap_err().kind, kind, "{fault:?}");
        place.server.faults().clear();
    }
    let last = place.connection.requests.last_errors();
    assert_eq!(last.len(), cases.len());
    assert_eq!(last[0].error.code(), Some("SlowDown"));
}

#[tokio::test]
async fn a_server_that_hangs_meets_the_deadline_and_one_that_is_gone_is_told_sooner() {
    let place = Place::with(|settings| ConnectSettings { deadline: Duration::from_secs(2), ..settings }).await;
    place.fault("GetObject", FaultKind::Hang, u32::MAX);
    let hung = tokio::time::timeout(Duration::from_mins(1), place.bucket().get("k", Some(0..10), None)).await;
    assert_eq!(hung.expect("no deadline was kept").unwrap_err().kind, Kind::Deadline);
    let Place { server, connection, .. } = place;
    server.stop().await;
    let gone = tokio::time::timeout(Duration::from_mins(1), connection.bucket.head("k")).await;
    assert_eq!(gone.expect("no deadline was kept").unwrap_err().kind, Kind::Unreachable);
}
