//! What is answered is there after a restart, however the server ended.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{Tag, Tagging};
use s3mount::demo::{Error, Server};

use crate::stage::{BUCKET, Stage, bytes, client, settings};

/// Tells the server process below where its data is.
const DATA_DIR: &str = "S3_SERVER_TEST_DATA_DIR";

#[tokio::test]
async fn everything_answered_survives_an_abrupt_end() {
    let stage = Stage::new().await;
    stage.put("gone", "x").await;
    stage.put("over", "old").await;
    stage.put("over", "new").await;
    stage.put("empty", "").await;
    stage.put("big", bytes(3 << 20)).await;
    stage.client.delete_object().bucket(BUCKET).key("gone").send().await.unwrap();
    let tag = Tag::builder().key("t").value("1").build().unwrap();
    let tagging = Tagging::builder().tag_set(tag).build().unwrap();
    stage.client.put_object_tagging().bucket(BUCKET).key("over").tagging(tagging).send().await.unwrap();
    let before = stage.client.head_object().bucket(BUCKET).key("big").send().await.unwrap();
    let stage = stage.restart_abruptly().await;
    assert_eq!(stage.keys().await, ["big", "empty", "over"]);
    assert_eq!(stage.get("over").await.unwrap(), b"new");
    assert_eq!(stage.get("empty").await.unwrap(), b"");
    assert_eq!(stage.get("big").await.unwrap(), bytes(3 << 20));
    let after = stage.client.head_object().bucket(BUCKET).key("big").send().await.unwrap();
    assert_eq!((after.e_tag(), after.last_modified()), (before.e_tag(), before.last_modified()));
    let tags = stage.client.get_object_tagging().bucket(BUCKET).key("over").send().await.unwrap();
    assert_eq!(tags.tag_set()[0].value(), "1");
    stage.put("later", "x").await;
    assert_eq!(stage.get("over").await.unwrap(), b"new", "a new body takes no old one's number");
}

#[tokio::test]
async fn uploads_under_way_are_forgotten_without_a_trace() {
    let stage = Stage::new().await;
    let id = stage.client.create_multipart_upload().bucket(BUCKET).key("k").send().await.unwrap().upload_id.unwrap();
    let part = stage.client.upload_part().bucket(BUCKET).key("k").upload_id(&id).part_number(1);
    part.body(ByteStream::from(bytes(1000))).send().await.unwrap();
    let stage = stage.restart_abruptly().await;
    assert!(stage.client.list_multipart_uploads().bucket(BUCKET).send().await.unwrap().uploads().is_empty());
    stage.await_body_files(0).await;
}

#[tokio::test]
async fn a_data_directory_has_one_server() {
    let stage = Stage::new().await;
    let second = Server::start(settings(stage.dir.path())).await;
    assert!(matches!(second, Err(Error::InUse { .. })), "{second:?}");
}

#[tokio::test]
async fn history_is_dropped_from_the_log_at_a_start() {
    let stage = Stage::new().await;
    for round in 0..1_200 {
        stage.put("k", round.to_string()).await;
    }
    let log_bytes = |stage: &Stage| std::fs::metadata(stage.dir.path().join("log")).unwrap().len();
    let long = log_bytes(&stage);
    let stage = stage.restart_abruptly().await;
    assert!(log_bytes(&stage) < long / 100, "{} of {long} bytes", log_bytes(&stage));
    assert_eq!(stage.get("k").await.unwrap(), b"1199");
    let stage = stage.restart_abruptly().await;
    assert_eq!(stage.get("k").await.unwrap(), b"1199");
    assert_eq!(stage.body_files(), 1);
}

#[tokio::test]
async fn stopping_lets_requests_under_way_end() {
    let stage = Stage::with(std::time::Duration::from_millis(300), None).await;
    let put = stage.client.put_object().bucket(BUCKET).key("k").body(ByteStream::from_static(b"x")).send();
    let put = tokio::spawn(put);
    while stage.server.requests().is_empty() && stage.body_files() == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let Stage { server, dir, .. } = stage;
    server.stop().await;
    put.await.unwrap().unwrap();
    let server = Server::start(settings(dir.path())).await.unwrap();
    let head = client(&server.endpoint_url(), "secret").head_object().bucket(BUCKET).key("k").send().await;
    assert_eq!(head.unwrap().content_length(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_nothing_that_was_answered() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let (server, url) = ServerProcess::start(dir.path());
        let client = client(&url, "secret");
        for (key, body) in &acknowledged {
            let got = client.get_object().bucket(BUCKET).key(key).send().await.unwrap();
            assert_eq!(&got.body.collect().await.unwrap().to_vec(), body, "{key} in round {round}");
        }
        let (told, mut answers) = tokio::sync::mpsc::unbounded_channel();
        let writers = (0..4).map(|writer| {
            let (client, told) = (client.clone(), told.clone());
            tokio::spawn(async move {
                for number in 0.. {
                    let key = format!("{round}/{writer}/{number}");
                    let body = bytes(if number % 10 == 0 { 2 << 20 } else { number });
                    let put = client.put_object().bucket(BUCKET).key(&key).body(ByteStream::from(body.clone()));
                    if put.send().await.is_err() {
                        break;
                    }
                    told.send((key, body)).unwrap();
                }
            })
        });
        let writers: Vec<_> = writers.collect();
        drop(told);
        let enough = acknowledged.len() + 60;
        while acknowledged.len() < enough {
            acknowledged.push(answers.recv().await.expect("writers go on until the server dies"));
        }
        drop(server);
        while let Some(answer) = answers.recv().await {
            acknowledged.push(answer);
        }
        futures::future::join_all(writers).await;
    }
    let stage_server = Server::start(settings(dir.path())).await.unwrap();
    let client = client(&stage_server.endpoint_url(), "secret");
    for (key, body) in &acknowledged {
        let got = client.get_object().bucket(BUCKET).key(key).send().await.unwrap();
        assert_eq!(&got.body.collect().await.unwrap().to_vec(), body, "{key}");
    }
}

/// A server in a process of its own: this test program again, told to run the function below.
struct ServerProcess(Child);

impl ServerProcess {
    fn start(data_dir: &std::path::Path) -> (Self, String) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "restarts::serve_until_killed", "--ignored", "--nocapture"])
            .env(DATA_DIR, data_dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let server = Self(child);
        let url = stdout.lines().map(Result::unwrap).find_map(|line| Some(line.split_once("url=")?.1.to_owned()));
        (server, url.expect("the server tells its URL"))
    }
}

impl Drop for ServerProcess {
    /// `kill -9`.
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the server process of another test"]
async fn serve_until_killed() {
    let Ok(data_dir) = std::env::var(DATA_DIR) else { return };
    let server = Server::start(settings(data_dir.as_ref())).await.unwrap();
    println!("url={}", server.endpoint_url());
    std::future::pending::<()>().await;
}
