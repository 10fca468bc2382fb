//! Hooks for what a queue says: when messages are kept, deleted and put back. The queue is a few lines here,
//! so that each thing said to it can be looked at; `tests/mount/hooks_worker.rs` uses another's server.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use s3mount::relay::{Queue, Relay};
use serde_json::{Value, json};

use super::*;

/// What is sent, and what is said about it: operation and parameters.
#[derive(Default)]
struct Sqs {
    waiting: Mutex<VecDeque<String>>,
    said: Mutex<Vec<(String, Value)>>,
}

impl Sqs {
    fn start() -> (Arc<Self>, Queue) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let queue = Queue::at(&format!("http://{}/1/jobs", listener.local_addr().unwrap())).unwrap();
        let sqs = Arc::new(Self::default());
        let server = Arc::clone(&sqs);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let server = Arc::clone(&server);
                std::thread::spawn(move || server.answer(stream));
            }
        });
        (sqs, queue)
    }

    fn answer(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        let (mut length, mut operation, mut line) = (0, String::new(), String::new());
        while reader.read_line(&mut line).unwrap_or(0) > 2 {
            let (name, value) = line.trim().split_once(": ").unwrap_or_default();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().unwrap(),
                "x-amz-target" => value.trim_start_matches("AmazonSQS.").clone_into(&mut operation),
                _ => {}
            }
            line.clear();
        }
        let mut body = vec![0; length];
        if operation.is_empty() || reader.read_exact(&mut body).is_err() {
            return;
        }
        let asked: Value = serde_json::from_slice(&body).unwrap();
        let answer = if operation == "ReceiveMessage" { self.receive(&asked, reader.get_ref()) } else { json!({}) };
        self.said.lock().unwrap().push((operation, asked));
        let answer = answer.to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
        let _ = reader.get_mut().write_all((head + &answer).as_bytes());
    }

    /// One message named by what it says, or none after a moment.
    fn receive(&self, asked: &Value, from: &TcpStream) -> Value {
        for _ in 0..asked["WaitTimeSeconds"].as_u64().unwrap_or(0) * 100 {
            if !self.waiting.lock().unwrap().is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
            if is_closed(from) {
                return json!({});
            }
        }
        let Some(body) = self.waiting.lock().unwrap().pop_front() else { return json!({}) };
        let attributes = json!({"ApproximateReceiveCount": "2"});
        json!({"Messages": [{"MessageId": "m", "ReceiptHandle": body, "Body": body, "Attributes": attributes}]})
    }

    fn send(&self, body: &Value) {
        self.waiting.lock().unwrap().push_back(body.to_string());
    }

    /// What was said so far about a message: how long it is to be hidden, -1 when it was deleted.
    fn said_of(&self, body: &Value) -> Vec<i64> {
        let receipt = body.to_string();
        let said = self.said.lock().unwrap();
        let of_it = said.iter().filter(|(_, asked)| asked["ReceiptHandle"] == receipt.as_str());
        of_it
            .map(
                |(operation, asked)| {
                    if operation == "DeleteMessage" { -1 } else { asked["VisibilityTimeout"].as_i64().unwrap() }
                },
            )
            .collect()
    }

    /// Waits until something was said about a message that is not the usual hiding while it is worked on.
    async fn fate_of(&self, body: &Value) -> i64 {
        let fate = async {
            loop {
                if let Some(fate) = self.said_of(body).into_iter().find(|said| *said != 3) {
                    return fate;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(DEADLINE, fate).await.expect("a word about the message")
    }
}

/// Whoever asked has gone away.
fn is_closed(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    matches!(peeked, Ok(0))
}

/// Waits until something holds.
async fn until(mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("in time");
}

/// The hooks of a bench as a worker has them.
async fn work(bench: &Bench, queue: &Queue) -> Hooks {
    let state = bench.dir.path().join("state");
    let specs = hooks::load(&bench.dir.path().join("hooks.toml")).unwrap();
    let credentials = SharedCredentialsProvider::new(Credentials::new("a", "b", None, None, "test"));
    let settings = HookSettings {
        relay: Arc::new(Relay::new(Some(credentials), "us-east-1")),
        ..HookSettings::new(specs, layout(), &state)
    };
    let bucket: Arc<dyn Bucket> = bench.bucket.clone();
    let hooks = hooks::open(settings, bucket, Arc::clone(&bench.journal)).unwrap();
    let hidden = Duration::from_secs(3);
    hooks.begin_with_queue(queue.clone(), hidden, &tokio::runtime::Handle::current()).await.unwrap();
    hooks
}

/// What S3 says of an object of this bucket.
fn notification(name: &str, key: &str, etag: &ETag, size: usize, sequencer: &str) -> Value {
    json!({"Records": [{
        "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "us-east-1",
        "eventTime": "2026-11-27T18:06:30.975Z", "eventName": name, "userIdentity": {"principalId": "AWS:X"},
        "s3": {"bucket": {"name": "demo"},
               "object": {"key": key, "size": size, "eTag": etag.as_str(), "sequencer": sequencer}},
    }]})
}

/// Writes an object as any program does, and tells the queue of it as S3 does.
fn put(bench: &Bench, sqs: &Sqs, key: &str, bytes: &str, sequencer: &str) -> Value {
    let etag = bench.bucket.insert(key, bytes.to_owned(), s3mount::bucket::Metadata::new());
    let body = notification("ObjectCreated:Put", &key.replace(' ', "+"), &etag, bytes.len(), sequencer);
    sqs.send(&body);
    body
}

fn runs(hooks: &Hooks) -> Vec<u64> {
    hooks.status().hooks.iter().map(|hook| hook.invocations).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_deleted_when_all_of_its_hooks_are_done() {
    let (sqs, queue) = Sqs::start();
    let bench = Bench::new()
        .hook(
            "echo",
            &guests::echoes("event.json"),
            "match = [\"in/*\"]\noutput = \"made\"\non-success = \"hook:then\"",
        )
        .hook("copy", &guests::copies("in/a b", "copy"), "match = [\"in/*\"]\noutput = \"made\"")
        .hook("then", &guests::echoes("record.json"), "events = []\noutput = \"made\"");
    let hooks = work(&bench, &queue).await;
    let told = put(&bench, &sqs, "in/a b", "bytes", "0055AED6DCD90281E5");
    assert_eq!(sqs.fate_of(&told).await, -1);
    assert_eq!(bench.bucket.keys(), ["in/a b", "made/copy", "made/event.json", "made/record.json"]);
    let event: Value = serde_json::from_str(&bench.text("made/event.json").unwrap()).unwrap();
    assert_eq!(event["Records"], told["Records"], "word for word");
    assert_eq!((event["s3mount"]["path"].as_str(), event["s3mount"]["attempt"].as_u64()), (Some("in/a b"), Some(1)));
    assert_eq!(bench.text("made/copy").as_deref(), Some("bytes"));
    assert_eq!(runs(&hooks), [1, 1, 1]);
    // Nothing is to be run for these.
    let test = json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "demo"});
    for body in [test, notification("ObjectCreated:Put", "elsewhere", &ETag::new("e"), 1, "01")] {
        sqs.send(&body);
        assert_eq!(sqs.fate_of(&body).await, -1, "{body}");
    }
    hooks.stop(DEADLINE).await;
    assert_eq!(runs(&hooks), [1, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_message_runs_nothing_also_after_a_restart() {
    let (sqs, queue) = Sqs::start();
    let bench = Bench::new().hook(
        "h",
        &guests::exits(0),
        "match = [\"in/*\"]\nevents = [\"ObjectCreated:*\", \"ObjectRemoved:*\"]\noutput = \"made\"",
    );
    let hooks = work(&bench, &queue).await;
    let mut told = vec![put(&bench, &sqs, "in/a", "one", "01"), put(&bench, &sqs, "in/a", "one", "02")];
    told.push(notification("ObjectRemoved:Delete", "in/b", &ETag::new(""), 0, "03"));
    sqs.send(&told[2]);
    for body in &told {
        assert_eq!(sqs.fate_of(body).await, -1, "{body}");
    }
    assert_eq!(runs(&hooks), [3], "the same bytes written again are another version");
    hooks.stop(DEADLINE).await;
    let hooks = work(&bench, &queue).await;
    for body in &told {
        sqs.send(body);
    }
    until(|| told.iter().all(|body| sqs.said_of(body) == [-1, -1])).await;
    assert_eq!((runs(&hooks), status(&hooks).unchanged), (vec![0], 3));
    hooks.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hook_fails_for_is_left_to_the_queue_unless_somebody_is_told() {
    let (sqs, queue) = Sqs::start();
    let failing = guests::exits(1);
    let rule = |key: &str| format!("match = [\"in/{key}\"]\nretries = 1\nretry-delay = \"1ms\"\noutput = \"made\"");
    let bench = Bench::new()
        .hook("left", &failing, &rule("left"))
        .hook("told", &failing, &format!("{}\non-failure = \"prefix:failed\"", rule("told")))
        .hook("fine", &guests::exits(0), "match = [\"in/*\"]\noutput = \"made\"");
    let hooks = work(&bench, &queue).await;
    let left = put(&bench, &sqs, "in/left", "x", "01");
    let told = put(&bench, &sqs, "in/told", "x", "02");
    assert_eq!(sqs.fate_of(&left).await, 2, "it was received twice: later than at first");
    assert_eq!(sqs.fate_of(&told).await, -1);
    assert_eq!(runs(&hooks), [2, 2, 2]);
    let record = bench.bucket.keys().into_iter().find(|key| key.starts_with("failed/told/")).unwrap();
    let record: Value = serde_json::from_str(&bench.text(&record).unwrap()).unwrap();
    assert_eq!(record["requestPayload"]["Records"], told["Records"]);
    // Again: only who has failed.
    sqs.send(&left);
    until(|| sqs.said_of(&left) == [2, 2]).await;
    assert_eq!(runs(&hooks), [4, 2, 2]);
    // What is no event, or another bucket's, is nobody's to delete.
    let other =
        notification("ObjectCreated:Put", "in/a", &ETag::new("e"), 1, "03").to_string().replace("demo", "other");
    for body in [json!({"detail-type": "Object Created"}), serde_json::from_str(&other).unwrap()] {
        sqs.send(&body);
        assert_eq!(sqs.fate_of(&body).await, 2, "{body}");
    }
    hooks.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_stays_hidden_while_its_hook_runs_and_is_put_back_at_the_end() {
    let (sqs, queue) = Sqs::start();
    let bench = Bench::new().hook("h", &guests::sleeps(), "match = [\"in/*\"]\nconcurrency = 1\noutput = \"made\"");
    let hooks = work(&bench, &queue).await;
    let runs = put(&bench, &sqs, "in/a", "x", "01");
    let waits = put(&bench, &sqs, "in/b", "x", "02");
    until(|| sqs.said_of(&runs).len() >= 2 && sqs.said_of(&waits).len() >= 2).await;
    assert_eq!((&sqs.said_of(&runs)[..2], &sqs.said_of(&waits)[..2]), (&[3, 3][..], &[3, 3][..]));
    hooks.stop(Duration::ZERO).await;
    for body in [runs, waits] {
        assert_eq!(sqs.said_of(&body).last(), Some(&0), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_s3_says_of_a_hooks_output_fires_others_and_not_this_hook() {
    let (sqs, queue) = Sqs::start();
    let bench = Bench::new().hook("own", &guests::echoes("a.made"), "suffix = \".made\"\nmatch = [\"**/*\"]").hook(
        "other",
        &guests::echoes("seen"),
        "suffix = \".made\"\nmatch = [\"**/*\"]\noutput = \"other\"",
    );
    let hooks = work(&bench, &queue).await;
    let told = put(&bench, &sqs, "b.made", "x", "01");
    assert_eq!(sqs.fate_of(&told).await, -1);
    let made = bench.bucket.info("a.made").unwrap();
    let told = notification("ObjectCreated:Put", "a.made", &made.etag, made.size as usize, "02");
    sqs.send(&told);
    assert_eq!(sqs.fate_of(&told).await, -1);
    assert_eq!(runs(&hooks), [1, 2]);
    let seen: Value = serde_json::from_str(&bench.text("other/seen").unwrap()).unwrap();
    assert_eq!(seen["s3mount"]["lineage"], json!(["own"]));
    hooks.stop(DEADLINE).await;
}
