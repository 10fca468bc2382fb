//! Who is told how events ended, also across failures and restarts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;

use super::*;

/// What a webhook was sent: its id and its body.
pub(super) type Sent = Arc<Mutex<Vec<(String, String)>>>;

/// A web server that answers everything with this status; ends with the test's process.
pub(super) fn web_server(status: &Arc<AtomicU16>) -> (String, Sent) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/told", listener.local_addr().unwrap());
    let (status, sent) = (Arc::clone(status), Sent::default());
    let heard = Arc::clone(&sent);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            let (mut length, mut id, mut line) = (0, String::new(), String::new());
            while reader.read_line(&mut line).unwrap_or(0) > 2 {
                let header = line.trim().to_ascii_lowercase();
                if let Some(value) = header.strip_prefix("content-length: ") {
                    length = value.parse().unwrap();
                }
                if let Some(value) = header.strip_prefix("x-s3mount-event-id: ") {
                    value.clone_into(&mut id);
                }
                line.clear();
            }
            let mut body = vec![0; length];
            let _ = reader.read_exact(&mut body);
            heard.lock().unwrap().push((id, String::from_utf8(body).unwrap()));
            let status = status.load(Ordering::SeqCst);
            let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = reader.get_mut().write_all(answer.as_bytes());
        }
    });
    (url, sent)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_hook_is_called_with_the_record() {
    let bench = Bench::new()
        .hook("first", &guests::answers("{\"n\": 1}"), "match = [\"a\"]\non-success = \"hook:then\"")
        .hook("then", &guests::echoes("record.json"), "events = []\noutput = \"made\"");
    let hooks = bench.start();
    bench.create("a", "bytes").await;
    idle(&hooks).await;
    let record = json(&bench.text("made/record.json").unwrap());
    assert_eq!((&record["version"], &record["requestContext"]["condition"]), (&"1.0".into(), &"Success".into()));
    assert_eq!(record["requestContext"]["approximateInvokeCount"], 1);
    let arn = "arn:aws:lambda:us-east-1:000000000000:function:first:$LATEST";
    assert_eq!(record["requestContext"]["functionArn"], arn);
    assert_eq!(record["requestPayload"]["Records"][0]["s3"]["object"]["key"], "a");
    assert_eq!(record["requestContext"]["requestId"], record["requestPayload"]["s3mount"]["eventId"]);
    assert_eq!((&record["responsePayload"]["n"], &record["responseContext"]["statusCode"]), (&1.into(), &200.into()));
    assert!(record["timestamp"].as_str().unwrap().ends_with('Z'));
    let runs: Vec<u64> = hooks.status().hooks.iter().map(|hook| hook.invocations).collect();
    assert_eq!(runs, [1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_told_as_an_object_that_fires_others() {
    let bench = Bench { prefix: "home/", ..Bench::new() }
        .hook("h", &guests::exits(1), "match = [\"a\"]\nretries = 1\non-failure = \"prefix:failed\"")
        .hook("seen", &guests::echoes("seen.json"), "match = [\"failed/**\"]\noutput = \"made\"");
    let hooks = bench.start();
    bench.create("home/a", "bytes").await;
    idle(&hooks).await;
    let id = hooks.dead_letters(&hooks::Which::default()).unwrap().remove(0).id;
    let record = json(&bench.text(&format!("home/failed/h/{id}.json")).unwrap());
    assert_eq!(record["requestContext"]["condition"], "RetriesExhausted");
    assert_eq!(record["requestContext"]["approximateInvokeCount"], 2);
    assert_eq!(record["responseContext"]["functionError"], "Unhandled");
    assert_eq!(record["responsePayload"]["errorType"], "Runtime.ExitError");
    assert_eq!(
        (&record["responsePayload"]["errorMessage"], &record["requestPayload"]["s3mount"]["attempt"]),
        (&"exit code 1".into(), &2.into())
    );
    assert_eq!(json(&bench.text("home/made/seen.json").unwrap())["s3mount"]["lineage"][0], "h");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_is_told_without_an_answer() {
    let bench =
        Bench::new().hook("h", &guests::exits(0), "match = [\"a\"]\nmax-age = \"1s\"\non-failure = \"prefix:failed\"");
    let event = NewEvent {
        name: EventName::RemovedDelete,
        key: "a".into(),
        size: 0,
        etag: None,
        time: SystemTime::now() - Duration::from_hours(1),
        lineage: Vec::new(),
        rewritten: false,
        replayed_for: Vec::new(),
    };
    std::fs::write(
        bench.dir.path().join("hooks.toml"),
        std::fs::read_to_string(bench.dir.path().join("hooks.toml")).unwrap() + "events = [\"ObjectRemoved:*\"]\n",
    )
    .unwrap();
    bench.journal.settle(&[], vec![event]).await.unwrap();
    let hooks = bench.start();
    idle(&hooks).await;
    let key = bench.bucket.keys().remove(0);
    let record = json(&bench.text(&key).unwrap());
    assert_eq!(record["requestContext"]["condition"], "EventAgeExceeded");
    assert_eq!((record.get("responseContext"), record.get("responsePayload")), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_told_until_it_hears_also_after_a_restart() {
    let status = Arc::new(AtomicU16::new(503));
    let (url, sent) = web_server(&status);
    let settings = format!("match = [\"a\"]\non-success = \"webhook:{url}\"");
    let bench = Bench::new().hook("h", &guests::answers("done"), &settings);
    let hooks = bench.start();
    bench.create("a", "bytes").await;
    while sent.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    hooks.stop(DEADLINE).await;
    status.store(200, Ordering::SeqCst);
    let hooks = bench.start();
    idle(&hooks).await;
    let sent = sent.lock().unwrap().clone();
    let (id, body) = sent.last().unwrap();
    assert!(sent.len() > 1 && sent.iter().all(|(other, text)| (other, text) == (id, body)), "{sent:?}");
    assert_eq!(json(body)["responsePayload"], "done", "what is no JSON is a text");
    assert_eq!((status_of(&hooks), hooks.dead_letters(&hooks::Which::default()).unwrap().len()), (0, 0));
}

fn status_of(hooks: &Hooks) -> u64 {
    hooks.status().hooks[0].invocations
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_destination_refuses_is_a_dead_letter_that_can_be_redriven() {
    let status = Arc::new(AtomicU16::new(404));
    let (url, sent) = web_server(&status);
    let settings = format!("match = [\"a\"]\non-success = \"webhook:{url}\"");
    let bench = Bench::new().hook("h", &guests::exits(0), &settings);
    let hooks = bench.start();
    bench.create("a", "bytes").await;
    idle(&hooks).await;
    let dead = hooks.dead_letters(&hooks::Which::default()).unwrap().remove(0);
    assert_eq!((dead.hook.as_str(), dead.event.as_str()), (format!("webhook:{url}").as_str(), "Invoke"));
    assert!(dead.reason.contains("answered 404"), "{}", dead.reason);
    status.store(204, Ordering::SeqCst);
    assert_eq!(hooks.redrive(&hooks::Which::default()).await.unwrap().count, 1);
    idle(&hooks).await;
    assert_eq!((sent.lock().unwrap().len(), hooks.dead_letters(&hooks::Which::default()).unwrap().len()), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_that_call_each_other_come_to_an_end() {
    let bench = Bench::new().hook("ping", &guests::exits(0), "match = [\"a\"]\non-success = \"hook:pong\"").hook(
        "pong",
        &guests::exits(0),
        "events = []\non-success = \"hook:ping\"",
    );
    let hooks = bench.start();
    bench.create("a", "bytes").await;
    idle(&hooks).await;
    let runs: u64 = hooks.status().hooks.iter().map(|hook| hook.invocations).sum();
    assert_eq!(runs, 16);
}
