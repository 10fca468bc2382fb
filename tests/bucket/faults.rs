//! What a network and a busy S3 do to clients: every fault that passes is survived.

use super::*;

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
            from_etag: from_etag.clone(),
            replace: Some(options(Condition::IfAbsent)),
            ..CopyRequest::new(place.key("from"), place.key("to"))
        };
        place.bucket().copy(&copy).await.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        place.server.faults().clear();
        assert_eq!(place.bucket().get(&copy.to, None, None).await.unwrap().bytes, "12345");
        place.fault("DeleteObject", kind, 1);
        place.bucket().delete(&copy.to, None).await.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
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
async fn a_server_that_hangs_or_drips_meets_the_deadline_and_one_that_is_gone_is_told_sooner() {
    let place = Place::with(|settings| ConnectSettings { deadline: Duration::from_secs(2), ..settings }).await;
    let key = place.key("object");
    place.bucket().put(&key, bytes(100_000), &PutOptions::default()).await.unwrap();
    for kind in [FaultKind::Hang, FaultKind::Drip] {
        place.fault("GetObject", kind, u32::MAX);
        let stuck = tokio::time::timeout(Duration::from_mins(1), place.bucket().get(&key, None, None)).await;
        assert_eq!(stuck.expect("no deadline was kept").unwrap_err().kind, Kind::Deadline, "{kind:?}");
        place.server.faults().clear();
    }
    let Place { server, connection, .. } = place;
    server.stop().await;
    let gone = tokio::time::timeout(Duration::from_mins(1), connection.bucket.head("k")).await;
    assert_eq!(gone.expect("no deadline was kept").unwrap_err().kind, Kind::Unreachable);
}
