//! The request log, latency and link speed.

use std::time::{Duration, Instant};

use crate::stage::{BUCKET, Stage, bytes};

#[tokio::test]
async fn every_request_is_in_the_log_before_its_answer_is_heard() {
    let stage = Stage::new().await;
    stage.put("dir/k", bytes(1000)).await;
    stage.get("dir/k").await;
    stage.get("missing").await;
    stage.keys().await;
    let told = stage.server.requests();
    let told: Vec<_> = told.iter().map(|one| (one.operation.as_str(), one.key.as_str(), one.status)).collect();
    let want = [("PutObject", "dir/k", 200), ("GetObject", "dir/k", 200), ("GetObject", "missing", 404)];
    assert_eq!(told[..3], want);
    assert_eq!(told[3], ("ListObjectsV2", "", 200));
    let requests = stage.server.requests();
    assert_eq!((requests[0].bytes, requests[1].bytes), (1000, 1000));
    assert!(requests.iter().all(|request| request.bucket == BUCKET));
    assert_eq!(stage.server.request_counts()["GetObject"], 2);
}

#[tokio::test]
async fn latency_delays_each_answer_and_can_change() {
    let latency = Duration::from_millis(150);
    let stage = Stage::with(latency, None).await;
    let began = Instant::now();
    stage.put("k", "x").await;
    stage.get("k").await;
    assert!(began.elapsed() >= 2 * latency);
    stage.server.set_latency(3 * latency);
    let began = Instant::now();
    stage.get("k").await;
    assert!(began.elapsed() >= 3 * latency);
}

#[tokio::test]
async fn a_link_is_no_faster_than_it_is_said_to_be() {
    let stage = Stage::with(Duration::ZERO, Some(20)).await;
    let body = bytes(10_000_000);
    let began = Instant::now();
    stage.put("k", body.clone()).await;
    let up = began.elapsed();
    let began = Instant::now();
    assert_eq!(stage.get("k").await.unwrap(), body);
    let down = began.elapsed();
    // What the socket buffers and the bounded catching up give away is not charged to the link.
    let least = Duration::from_millis(400);
    assert!(up >= least && down >= least, "up {up:?}, down {down:?}");
}
