//! Hooks that hand their events over: to a webhook, to Lambda.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use s3mount::relay::Relay;
use serde_json::Value;

use super::destinations::web_server;
use super::*;

impl Bench {
    /// Adds a hook with this target and these settings.
    fn target(self, name: &str, target: &str, settings: &str) -> Self {
        let file = self.dir.path().join("hooks.toml");
        let before = std::fs::read_to_string(&file).unwrap_or_default();
        let hook = format!("[[hook]]\nname = \"{name}\"\ntarget = \"{target}\"\n{settings}\n");
        std::fs::write(&file, before + &hook).unwrap();
        self
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_handed_to_a_webhook_in_order_until_it_hears_also_after_a_restart() {
    let status = Arc::new(AtomicU16::new(503));
    let (url, sent) = web_server(&status);
    let bench =
        Bench::new().target("h", &format!("webhook:{url}"), "events = [\"ObjectCreated:*\", \"ObjectRemoved:*\"]");
    let hooks = bench.start();
    bench.create("a b", "bytes").await;
    bench.tell(EventName::RemovedDelete, "a b", 0, None).await;
    let heard = async {
        while sent.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, heard).await.unwrap();
    hooks.stop(DEADLINE).await;
    status.store(200, Ordering::SeqCst);
    let hooks = bench.start();
    idle(&hooks).await;
    let events: Vec<(String, Value)> =
        sent.lock().unwrap().iter().map(|(id, body)| (id.clone(), serde_json::from_str(body).unwrap())).collect();
    for (id, event) in &events {
        assert_eq!(
            (event["s3mount"]["eventId"].as_str(), &event["Records"][0]["s3"]["object"]["key"]),
            (Some(id.as_str()), &"a+b".into())
        );
    }
    let mut names: Vec<_> =
        events.iter().map(|(_, event)| event["Records"][0]["eventName"].as_str().unwrap()).collect();
    assert!(names.len() > 2, "{names:?}");
    names.dedup();
    assert_eq!(names, ["ObjectCreated:Put", "ObjectRemoved:Delete"]);
    assert_eq!((super::status(&hooks).invocations, bench.bucket.keys()), (0, vec!["a b".to_owned()]));
    assert!(bench.log("h").starts_with("SENT RequestId: "), "{}", bench.log("h"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_target_refuses_is_given_up_as_the_settings_say() {
    let (url, sent) = web_server(&Arc::new(AtomicU16::new(403)));
    let bench = Bench::new().target("h", &format!("webhook:{url}"), "retries = 2\nretry-delay = \"1ms\"");
    let hooks = bench.start();
    bench.create("a", "bytes").await;
    idle(&hooks).await;
    let dead = hooks.dead_letters(&hooks::Which::default()).unwrap().remove(0);
    assert_eq!((sent.lock().unwrap().len(), dead.hook.as_str()), (3, "h"));
    assert!(dead.reason.contains("answered 403"), "{}", dead.reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_is_invoked_with_the_event_and_a_signature() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let bench = Bench::new().target("h", "lambda:resize:live", "match = [\"in/*\"]");
    let server = std::thread::spawn(move || {
        let mut reader = BufReader::new(listener.accept().unwrap().0);
        let (mut head, mut line, mut length) = (String::new(), String::new(), 0);
        while reader.read_line(&mut line).unwrap() > 2 {
            head.push_str(&line);
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        reader.get_mut().write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").unwrap();
        (head.to_ascii_lowercase(), serde_json::from_slice::<Value>(&body).unwrap())
    });
    let specs = hooks::load(&bench.dir.path().join("hooks.toml")).unwrap();
    let credentials = SharedCredentialsProvider::new(Credentials::new("key", "secret", None, None, "test"));
    let settings = HookSettings {
        relay: Arc::new(Relay::new(Some(credentials), "eu-west-1").with_lambda_at(&url)),
        ..HookSettings::new(specs, layout(), &bench.dir.path().join("state"))
    };
    let bucket: Arc<dyn Bucket> = bench.bucket.clone();
    let runtime = tokio::runtime::Handle::current();
    let hooks = hooks::start(settings, bucket, Arc::clone(&bench.journal), &runtime).unwrap();
    bench.create("in/a", "bytes").await;
    idle(&hooks).await;
    let (head, event) = server.join().unwrap();
    assert!(head.starts_with("post /2015-03-31/functions/resize%3alive/invocations "), "{head}");
    assert!(head.contains("x-amz-invocation-type: event\r\n"), "{head}");
    assert!(head.contains("authorization: aws4-hmac-sha256 credential=key/"), "{head}");
    assert!(head.contains("/eu-west-1/lambda/aws4_request"), "{head}");
    assert_eq!(event["Records"][0]["s3"]["object"]["key"], "in/a");
    assert_eq!(hooks.dead_letters(&hooks::Which::default()).unwrap().len(), 0);
}
