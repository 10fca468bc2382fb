//! Workers on a queue of another's server, which S3's own notifications go to.
//!
//! ministack is that server: it has S3 with notifications and SQS in one, and the tests have it already; moto
//! would be one more to install, and writes no `sequencer`.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::guests;
use crate::metrics::Scrape;
use crate::stage::collector::{Collector, attribute};
use crate::stage::servers::venv;
use crate::stage::{Maker, Mount, PATIENCE, Stage, process, wait_for};

const OBJECTS: usize = 1000;
/// How many are told of once more.
const COPIES: usize = 50;
/// Writes the event to stderr, which is the log, after 20 ms: whoever is killed is killed in the middle of it.
const GUEST: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "_start")
    (i32.store (i32.const 80) (i32.const 1))
    (i64.store (i32.const 88) (i64.const 20000000))
    (if (call $poll (i32.const 64) (i32.const 256) (i32.const 1) (i32.const 512)) (then unreachable))
    (loop $more
      (i32.store (i32.const 0) (i32.const 65536))
      (i32.store (i32.const 4) (i32.const 65536))
      (if (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))
      (if (i32.load (i32.const 8)) (then
        (i32.store (i32.const 4) (i32.load (i32.const 8)))
        (if (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))
        (br $more))))))"#;

/// A queue with a place for what comes back too often, and the bucket's notifications going there.
struct Sqs<'a> {
    stage: &'a Mount,
    url: String,
}

impl<'a> Sqs<'a> {
    fn new(stage: &'a Mount) -> Self {
        let mut sqs = Self { stage, url: String::new() };
        sqs.url = sqs.python(
            "made = lambda name: sqs.create_queue(QueueName=name)['QueueUrl']\n\
             arn = lambda url: sqs.get_queue_attributes(QueueUrl=url, AttributeNames=['QueueArn'])['Attributes']['QueueArn']\n\
             dead, url = made(bucket + '-dead'), made(bucket)\n\
             allowed = {'Effect': 'Allow', 'Principal': '*', 'Action': 'sqs:SendMessage', 'Resource': arn(url)}\n\
             sqs.set_queue_attributes(QueueUrl=url, Attributes={\n\
                 'Policy': json.dumps({'Version': '2012-10-17', 'Statement': [allowed]}),\n\
                 'RedrivePolicy': json.dumps({'deadLetterTargetArn': arn(dead), 'maxReceiveCount': 5})})\n\
             s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={'QueueConfigurations': [\n\
                 {'QueueArn': arn(url), 'Events': ['s3:ObjectCreated:*'],\n\
                  'Filter': {'Key': {'FilterRules': [{'Name': 'prefix', 'Value': 'in/'}]}}}]})\n\
             print(url)",
        );
        sqs
    }

    /// What a program says that has clients and the names of bucket and queue.
    fn python(&self, code: &str) -> String {
        let (endpoint, bucket) = (self.stage.endpoint(), self.stage.outside().bucket());
        let script = format!(
            "import boto3, json, sys\nfrom concurrent.futures import ThreadPoolExecutor\n\
             known = dict(endpoint_url='{}', region_name='us-east-1', aws_access_key_id='{}', \
             aws_secret_access_key='{}')\nsqs, s3 = boto3.client('sqs', **known), boto3.client('s3', **known)\n\
             bucket, queue = '{bucket}', '{}'\n{code}",
            endpoint.url, endpoint.access_key, endpoint.secret, self.url
        );
        process::run(Command::new(venv("python")).args(["-c", &script])).trim().to_owned()
    }

    /// Waits until no message is left, those that are hidden among them, and makes sure that none was given up.
    fn wait_until_empty(&self) {
        let dead = self.python(
            "import time\n\
             names = ['ApproximateNumberOfMessages', 'ApproximateNumberOfMessagesNotVisible']\n\
             told = lambda url: sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)['Attributes']\n\
             count = lambda url: sum(int(value) for value in told(url).values())\n\
             began = time.monotonic()\n\
             while count(queue) and time.monotonic() < began + 200:\n    time.sleep(0.1)\n\
             print(count(queue), count(queue + '-dead'))",
        );
        assert_eq!(dead, "0 0", "messages left, and given up");
    }
}

/// `s3mount hooks worker`, with a state directory of its own; killed when the test ends.
struct Worker {
    child: Child,
    directory: PathBuf,
}

impl Worker {
    /// With the hooks of a file beside the mount.
    fn start(sqs: &Sqs, name: &str, hooks: &str) -> Self {
        Self::start_with(sqs, name, hooks, &[])
    }

    fn start_with(sqs: &Sqs, name: &str, hooks: &str, args: &[&str]) -> Self {
        let directory = sqs.stage.beside(name);
        fs::create_dir_all(&directory).unwrap();
        let mut command = sqs.stage.command();
        let from = format!("sqs:{}", sqs.url);
        command.args(["hooks", "worker", "--from", &from, "--visibility", "4s", "--hooks"]);
        command.arg(sqs.stage.beside(hooks)).arg("--state-dir").arg(directory.join("state"));
        command.arg("--cache-dir").arg(directory.join("cache")).arg(sqs.stage.outside().bucket()).args(args);
        let log = fs::OpenOptions::new().create(true).append(true).open(directory.join("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let worker = Self { child: process::spawn(command, Signal::SIGKILL), directory };
        wait_for("a worker", PATIENCE, || worker.log().contains("hooks run for").then_some(()));
        worker
    }

    /// What the log of the hook has on lines that begin so.
    fn hook_log(&self, beginning: &str) -> Vec<String> {
        let states = fs::read_dir(self.directory.join("state")).into_iter().flatten().flatten();
        let logs = states.filter_map(|state| fs::read_to_string(state.path().join("hooks/h.log")).ok());
        logs.flat_map(|log| log.lines().map(str::to_owned).collect::<Vec<_>>())
            .filter(|line| line.starts_with(beginning))
            .collect()
    }

    /// Of what the hook has run for.
    fn keys(&self) -> Vec<String> {
        let runs = self.hook_log("START");
        runs.iter().map(|line| line.rsplit_once("\tKey: ").unwrap().1.to_owned()).collect()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Ends it; it has to end well.
    fn stop(mut self) {
        process::signal(self.child.id(), Signal::SIGTERM);
        let ended = process::wait(&mut self.child, PATIENCE);
        assert!(ended.is_some_and(|status| status.success()), "{ended:?}\n{}", self.log());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn two_workers_share_a_queue_and_what_one_had_that_is_killed_the_other_does() {
    let stage = Stage::on(Maker::Ministack).prepare();
    let hook = "[[hook]]\nname = \"h\"\nwasm = \"guest.wat\"\nmatch = [\"in/*\"]\noutput = \"made\"\n";
    fs::write(stage.beside("hooks.toml"), hook).unwrap();
    fs::write(stage.beside("guest.wat"), GUEST).unwrap();
    let sqs = Sqs::new(&stage);
    let (mut first, second) = (Worker::start(&sqs, "first", "hooks.toml"), Worker::start(&sqs, "second", "hooks.toml"));
    let write = format!(
        "put = lambda number: s3.put_object(Bucket=bucket, Key=f'in/{{number:04}} ä+', Body=b'%d' % number)\n\
         list(ThreadPoolExecutor(4).map(put, range({OBJECTS})))"
    );
    std::thread::scope(|scope| {
        scope.spawn(|| sqs.python(&write));
        wait_for("half of the work", PATIENCE * 4, || {
            // It reads the logs: not all the time.
            std::thread::sleep(Duration::from_millis(200));
            let done = first.hook_log("END").len() + second.hook_log("END").len();
            (done >= OBJECTS / 2).then_some(())
        });
        first.child.kill().unwrap();
        first.child.wait().unwrap();
    });
    sqs.wait_until_empty();
    let expected: BTreeSet<String> = (0..OBJECTS).map(|number| format!("in/{number:04} ä+")).collect();
    let (by_first, by_second) = (first.keys(), second.keys());
    let seen: BTreeSet<String> = by_first.iter().chain(&by_second).cloned().collect();
    let missing: Vec<_> = expected.difference(&seen).collect();
    assert!(seen == expected, "{missing:?} are missing\n{}", second.log());
    let shares = (by_first.len(), by_second.len());
    assert!(shares.0 > OBJECTS / 20 && shares.1 > OBJECTS / 20, "{shares:?}");

    copies_of_messages_are_recognised(&sqs, &second);
    second.stop();
}

#[test]
fn a_worker_runs_hooks_for_what_a_mount_hands_over() {
    let mut mount = Stage::on(Maker::Ministack).hooks("").prepare();
    let sqs = Sqs::new(&mount);
    let url = sqs.url.clone();
    let hand_over = format!("[[hook]]\nname = \"publish\"\ntarget = \"sqs:{url}\"\nmatch = [\"by-mount/*\"]\n");
    let hook = "[[hook]]\nname = \"h\"\nwasm = \"guest.wat\"\nmatch = [\"by-mount/*\"]\noutput = \"made\"\n";
    fs::write(mount.beside("hooks.toml"), hand_over).unwrap();
    fs::write(mount.beside("of-worker.toml"), hook).unwrap();
    fs::write(mount.beside("guest.wat"), guests::echoes("event.json")).unwrap();
    mount.start();
    let sqs = Sqs { stage: &mount, url };
    let worker = Worker::start(&sqs, "worker", "of-worker.toml");
    fs::create_dir(mount.at("by-mount")).unwrap();
    fs::write(mount.at("by-mount/a b"), "bytes").unwrap();
    let made = wait_for("what the worker makes", PATIENCE, || mount.outside().get("made/event.json"));
    let event: Value = serde_json::from_slice(&made.bytes).unwrap();
    assert_eq!(event["Records"][0]["s3"]["object"]["key"], "by-mount/a+b");
    // Both know it by one id.
    process::run(mount.command().args(["hooks", "wait"]).arg(mount.path()));
    let traced = process::run(mount.command().args(["hooks", "trace", "by-mount/a b", "--mount"]).arg(mount.path()));
    let sent = format!("SENT RequestId: {}", event["s3mount"]["eventId"].as_str().unwrap());
    assert!(traced.contains(&sent), "{sent} is missing in\n{traced}");
    sqs.wait_until_empty();
    worker.stop();
}

#[test]
fn a_worker_is_scraped_and_tells_a_collector() {
    let stage = Stage::on(Maker::Ministack).prepare();
    let hook = "[[hook]]\nname = \"h\"\nwasm = \"guest.wat\"\nmatch = [\"in/*\"]\noutput = \"made\"\n";
    fs::write(stage.beside("hooks.toml"), hook).unwrap();
    fs::write(stage.beside("guest.wat"), guests::echoes("event.json")).unwrap();
    let (sqs, collector) = (Sqs::new(&stage), Collector::start());
    let args = ["--metrics-listen", "127.0.0.1:0", "--otlp-endpoint", &collector.url()];
    let worker = Worker::start_with(&sqs, "worker", "hooks.toml", &args);
    let log = worker.log();
    let told = log.split("metrics=").nth(1).and_then(|rest| rest.split_whitespace().next());
    let address: SocketAddr = told.and_then(|told| told.parse().ok()).unwrap_or_else(|| panic!("no address in {log}"));
    let (deleted, runs) = ("s3mount_queue_messages_deleted_total", "s3mount_hook_invocations_total{hook=\"h\"}");
    let before = Scrape::at(address);
    assert_eq!(before.value(runs), 0);
    // What S3 says of a new notification is a message, too.
    let settled = before.value(deleted);
    stage.outside().put("in/x", b"bytes");
    wait_for("what the worker makes", PATIENCE, || stage.outside().get("made/event.json"));
    let done = wait_for("the end of the message", PATIENCE, || {
        Some(Scrape::at(address)).filter(|scrape| scrape.value(runs) == 1 && scrape.value(deleted) > settled)
    });
    assert_eq!(done.value("s3mount_queue_messages_received_total"), done.value(deleted));
    assert_eq!(done.value("s3mount_queue_messages_returned_total"), 0);
    assert_eq!(done.value("s3mount_hook_errors_total{hook=\"h\"}"), 0);
    assert!(done.sum("s3mount_s3_requests_total", "PutObject") >= 1);
    let bucket = stage.outside().bucket();
    assert_eq!(done.sum("s3mount_worker_info", &format!("bucket=\"{bucket}\"")), 1);
    assert_eq!(
        done.get("s3mount_hook_running{hook=\"h\"}"),
        None,
        "the queue knows what waits, and the journal nothing"
    );
    worker.stop();

    let received = collector.received();
    assert!(received.number(deleted, &[]).unwrap() >= 1);
    assert!(received.spans().iter().any(|span| span.name == "hook h"), "{:?}", received.spans());
    let about = |name: &str| attribute(&received.resource().attributes, name);
    assert_eq!((about("s3mount.bucket").as_deref(), about("s3mount.queue")), (Some(bucket), Some(sqs.url.clone())));
    assert_eq!(about("s3mount.mountpoint"), None);
}

/// Sends what a worker has done to it once more.
fn copies_of_messages_are_recognised(sqs: &Sqs, worker: &Worker) {
    let runs = worker.keys();
    let events = worker.hook_log("{");
    let copies = events.iter().rev().take(COPIES).map(|event| {
        let event: Value = serde_json::from_str(event).unwrap();
        json!({"Records": event["Records"]}).to_string()
    });
    let copies: Vec<String> = copies.collect();
    fs::write(sqs.stage.beside("copies.json"), serde_json::to_string(&copies).unwrap()).unwrap();
    let file = sqs.stage.beside("copies.json");
    sqs.python(&format!(
        "for body in json.load(open('{}')):\n    sqs.send_message(QueueUrl=queue, MessageBody=body)",
        file.display()
    ));
    sqs.wait_until_empty();
    assert_eq!(worker.hook_log("UNCHANGED").len(), COPIES);
    assert_eq!(worker.keys(), runs, "nothing was run for them");
}
