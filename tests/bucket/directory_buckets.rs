//! What S3 says instead of giving a session for a directory bucket.

use std::sync::atomic::{AtomicU32, Ordering};

use super::fake::{EMPTY_LISTING, Fake};
use super::*;

const NAME: &str = "fast--use1-az4--x-s3";
const SESSION: &str = "<CreateSessionResult><Credentials><AccessKeyId>sk</AccessKeyId>\
    <SecretAccessKey>ss</SecretAccessKey><SessionToken>t</SessionToken>\
    <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></CreateSessionResult>";

async fn connect_to(fake: &Fake) -> s3mount::bucket::Result<Connection> {
    connect(&ConnectSettings { bucket: NAME.to_owned(), ..fake.settings() }).await
}

fn is_session(head: &str) -> bool {
    head.lines().next().is_some_and(|line| line.contains("session"))
}

#[tokio::test]
async fn a_session_that_is_refused_is_told_with_the_right_that_lacks() {
    let fake = Fake::start(|_| ("403 Forbidden", b"", "<Error><Code>AccessDenied</Code></Error>")).await;
    let error = connect_to(&fake).await.unwrap_err();
    assert_eq!(error.kind, Kind::AccessDenied);
    assert!(error.cause.contains(&format!("no permission to list s3://{NAME}/ (s3express:CreateSession)")), "{error}");
    assert!(fake.heads.lock().iter().all(|head| is_session(head)), "nothing else is asked for without one");
}

#[tokio::test]
async fn a_bucket_that_is_not_there_has_no_session() {
    let fake = Fake::start(|_| ("404 Not Found", b"", "<Error><Code>NoSuchBucket</Code></Error>")).await;
    let error = connect_to(&fake).await.unwrap_err();
    assert_eq!(error.kind, Kind::NoSuchBucket);
    assert!(error.cause.contains("there is no bucket"), "{error}");
}

#[tokio::test]
async fn a_session_that_a_busy_server_does_not_give_is_asked_for_again() {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let fake = Fake::start(|head| match is_session(head) {
        true if ASKED.fetch_add(1, Ordering::Relaxed) == 0 => {
            ("503 Slow Down", b"", "<Error><Code>SlowDown</Code></Error>")
        }
        true => ("200 OK", b"", SESSION),
        false => ("200 OK", b"", EMPTY_LISTING),
    })
    .await;
    let connection = connect_to(&fake).await.unwrap();
    let page = connection.bucket.list(&ListRequest::default()).await.unwrap();
    assert!(page.objects.is_empty());
    let heads = fake.heads.lock();
    let listed = heads.iter().find(|head| !is_session(head)).unwrap();
    assert!(listed.contains("x-amz-s3session-token: t\r\n") && listed.contains("credential=sk/"), "{listed}");
}
