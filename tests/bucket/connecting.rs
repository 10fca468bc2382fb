//! What a mount says and hears before the first file is opened.

use super::fake::{EMPTY_LISTING, Fake};
use super::*;

#[tokio::test]
async fn requests_are_counted() {
    let place = Place::new().await;
    let requests = &place.connection.requests;
    // The probe of the server writes, too.
    let (puts, sent) = (requests.counts().get("PutObject").copied().unwrap_or(0), requests.bytes_sent());
    place.put("counted", "12345").await;
    place.bucket().get(&place.key("counted"), None, None).await.unwrap();
    assert_eq!((requests.counts()["PutObject"], requests.counts()["GetObject"]), (puts + 1, 1));
    assert_eq!((requests.bytes_sent() - sent, requests.bytes_received(), requests.in_flight()), (5, 5, 0));
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

/// The SDK's defaults hash every payload with SHA-256: 17 times the CPU.
#[tokio::test]
async fn payloads_are_not_hashed_for_the_signature_but_carry_a_checksum() {
    let fake = Fake::start(|_| ("200 OK", b"etag: \"e\"\r\n", EMPTY_LISTING)).await;
    let connection = connect(&fake.settings()).await.unwrap();
    let heads = &fake.heads;
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

#[tokio::test]
async fn the_region_that_s3_names_is_followed() {
    let fake = Fake::start(|head| {
        if head.contains("/eu-west-3/s3/aws4_request") {
            ("200 OK", b"", EMPTY_LISTING)
        } else {
            (
                "301 Moved Permanently",
                b"x-amz-bucket-region: eu-west-3\r\n",
                "<Error><Code>PermanentRedirect</Code></Error>",
            )
        }
    });
    let fake = fake.await;
    let asked = ConnectSettings { region: Some("us-west-1".into()), ..fake.settings() };
    assert_eq!(connect(&asked).await.unwrap().region, "eu-west-3");
}

#[tokio::test]
async fn the_region_that_other_servers_expect_is_followed() {
    let fake = Fake::start(|head| {
        if head.contains("/garage/s3/aws4_request") {
            ("200 OK", b"", EMPTY_LISTING)
        } else {
            let body = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region 'us-east-1' is wrong; \
                        expecting 'garage'</Message></Error>";
            ("400 Bad Request", b"", body)
        }
    });
    assert_eq!(connect(&fake.await.settings()).await.unwrap().region, "garage");
}

#[tokio::test]
async fn answers_that_stop_a_mount_are_put_in_the_users_words() {
    let cases: [(fake::Answer, Kind, &str, Option<&str>); 5] = [
        (
            |_| ("403 Forbidden", b"", "<Error><Code>RequestTimeTooSkewed</Code><Message>x</Message></Error>"),
            Kind::AccessDenied,
            "clock",
            Some("timedatectl"),
        ),
        (
            |_| ("400 Bad Request", b"", "<Error><Code>ExpiredToken</Code><Message>x</Message></Error>"),
            Kind::AccessDenied,
            "expired",
            Some("log in again"),
        ),
        (
            |_| ("403 Forbidden", b"", "<Error><Code>AccessDenied</Code><Message>x</Message></Error>"),
            Kind::AccessDenied,
            "s3:ListBucket",
            Some("s3mount doctor"),
        ),
        (|_| ("200 OK", b"", "<!DOCTYPE html><html>hello</html>"), Kind::Corrupt, "like an S3 server", None),
        (|_| ("404 Not Found", b"", "nothing here"), Kind::NotFound, "like an S3 server", None),
    ];
    for (answer, kind, words, hint) in cases {
        let fake = Fake::start(answer).await;
        let error = connect(&fake.settings()).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.cause.contains(words), "{error}");
        let told = error.hint().unwrap_or_default();
        assert!(hint.map_or(told.is_empty(), |hint| told.contains(hint)), "{error}: {told}");
    }
}

#[tokio::test]
async fn an_endpoint_that_says_nothing_is_told_in_time() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let fake = Fake::start(|_| ("200 OK", b"", EMPTY_LISTING)).await;
    let settings = ConnectSettings { endpoint_url: Some(url), ..fake.settings() };
    let error = tokio::time::timeout(CONNECT_DEADLINE, connect(&settings)).await.expect("too late").unwrap_err();
    assert_eq!(error.kind, Kind::Deadline, "{error}");
}

#[tokio::test]
async fn a_profile_that_does_not_exist_is_named() {
    let fake = Fake::start(|_| ("200 OK", b"", EMPTY_LISTING)).await;
    let profile = Some("no-such-profile".to_owned());
    let settings = ConnectSettings { credentials: None, profile, ..fake.settings() };
    let error = connect(&settings).await.unwrap_err();
    assert_eq!(error.kind, Kind::NoCredentials, "{error}");
    assert!(error.cause.contains("no-such-profile"), "{error}");
}

#[tokio::test]
async fn metadata_that_is_no_utf8_hides_no_object() {
    let fake = Fake::start(|head| {
        if head.starts_with("head ") {
            ("200 OK", b"etag: \"e\"\r\nx-amz-meta-a: b\r\nx-amz-meta-odd: caf\xe9\r\n", "12345")
        } else {
            ("200 OK", b"", EMPTY_LISTING)
        }
    });
    let connection = connect(&fake.await.settings()).await.unwrap();
    let info = connection.bucket.head("k").await.unwrap();
    assert_eq!((info.size, info.metadata["a"].as_str()), (5, "b"));
    assert_eq!(info.metadata["odd"], "café");
}
