//! Journal and hooks together, in process: delivery, publication, and guests that mean harm.

#![expect(clippy::unwrap_used, reason = "a test that can not go on has failed")]

#[path = "hooks_room/built.rs"]
mod built;
#[path = "hooks_room/component_guests.rs"]
mod component_guests;
#[path = "hooks_room/components.rs"]
mod components;
#[path = "hooks_room/delivery.rs"]
mod delivery;
#[path = "hooks_room/destinations.rs"]
mod destinations;
#[path = "hooks_room/from_queue.rs"]
mod from_queue;
#[path = "hooks_room/guests.rs"]
mod guests;
#[path = "hooks_room/hostile.rs"]
mod hostile;
#[path = "hooks_room/hostile_guests.rs"]
mod hostile_guests;
#[path = "hooks_room/reload.rs"]
mod reload;
#[path = "hooks_room/same.rs"]
mod same;
#[path = "hooks_room/targets.rs"]
mod targets;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use s3mount::bucket::memory::{Effect, Fault, MemoryBucket};
use s3mount::bucket::{Bucket, ETag, Layout};
use s3mount::error::Kind;
use s3mount::hooks::{self, HookSettings, HookStatus, Hooks};
use s3mount::journal::{EventName, Journal, NewEvent};
use tempfile::TempDir;

/// Longer than anything here takes; a test that waits for it has failed.
const DEADLINE: Duration = Duration::from_mins(2);

/// The bucket of events.
fn layout() -> Layout {
    Layout::of_bucket("demo", "us-east-1", "")
}

/// A bucket, a journal and a directory with modules and settings.
struct Bench {
    dir: TempDir,
    bucket: Arc<MemoryBucket>,
    journal: Arc<Journal>,
    prefix: &'static str,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(&dir.path().join("state")).unwrap();
        Self { dir, bucket: Arc::new(MemoryBucket::new()), journal, prefix: "" }
    }

    /// Adds a hook with this module and these settings.
    fn hook(self, name: &str, module: &str, settings: &str) -> Self {
        std::fs::write(self.dir.path().join(format!("{name}.wat")), module).unwrap();
        let file = self.dir.path().join("hooks.toml");
        let before = std::fs::read_to_string(&file).unwrap_or_default();
        std::fs::write(&file, format!("{before}[[hook]]\nname = \"{name}\"\nwasm = \"{name}.wat\"\n{settings}\n"))
            .unwrap();
        self
    }

    fn start(&self) -> Hooks {
        self.start_with(Arc::clone(&self.journal), &self.dir.path().join("state"))
    }

    fn start_with(&self, journal: Arc<Journal>, state: &Path) -> Hooks {
        let mut specs = hooks::load(&self.dir.path().join("hooks.toml")).unwrap();
        // A second is what a user wants, and too long for a test.
        for delivery in specs.iter_mut().map(|spec| &mut spec.delivery) {
            if delivery.first_delay == Duration::from_secs(1) {
                delivery.first_delay = Duration::from_millis(1);
            }
        }
        let settings = HookSettings { prefix: self.prefix.into(), ..HookSettings::new(specs, layout(), state) };
        let bucket: Arc<dyn Bucket> = self.bucket.clone();
        hooks::start(settings, bucket, journal, &tokio::runtime::Handle::current()).unwrap()
    }

    /// Writes an object and the event of it, as a close does.
    async fn create(&self, key: &str, bytes: &str) {
        let etag = self.bucket.insert(key, bytes.to_owned(), s3mount::bucket::Metadata::new());
        self.tell(EventName::CreatedPut, key, bytes.len(), Some(&etag)).await;
    }

    async fn tell(&self, name: EventName, key: &str, size: usize, etag: Option<&ETag>) {
        let event = NewEvent {
            name,
            key: key.into(),
            size: size as u64,
            etag: etag.map(s3mount::journal::stored_etag),
            time: SystemTime::now(),
            lineage: Vec::new(),
            rewritten: false,
            replayed_for: Vec::new(),
        };
        self.journal.settle(&[], vec![event]).await.unwrap();
    }

    fn text(&self, key: &str) -> Option<String> {
        self.bucket.bytes(key).map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
    }

    fn log(&self, hook: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("state/hooks/{hook}.log"))).unwrap_or_default()
    }
}

async fn idle(hooks: &Hooks) {
    tokio::time::timeout(DEADLINE, hooks.idle()).await.expect("the hooks come to rest");
}

fn status(hooks: &Hooks) -> HookStatus {
    hooks.status().hooks.remove(0)
}

/// Runs a hook named `h` for one object `a`, once, to its end.
async fn outcome_of(module: &str, settings: &str) -> (Bench, HookStatus) {
    let rule = if settings.contains("match") { "" } else { "match = [\"a\"]\n" };
    let settings = &format!("{rule}{settings}");
    let bench = Bench::new().hook("h", module, settings);
    let hooks = bench.start();
    bench.create("a", "bytes").await;
    idle(&hooks).await;
    let status = status(&hooks);
    hooks.stop(DEADLINE).await;
    (bench, status)
}

fn last_error(status: &HookStatus) -> &str {
    status.last_error.as_ref().map_or("", |error| error.message.as_str())
}

// ---- Delivery and publication -------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_gets_the_event_and_its_output_lies_where_its_rule_says() {
    let bench =
        Bench::new().hook("echo", &guests::echoes("event.json"), "match = [\"photos/**\"]\noutput = \"thumbs\"");
    let hooks = bench.start();
    bench.create("photos/a b.jpg", "bytes").await;
    bench.create("other/a.jpg", "bytes").await;
    idle(&hooks).await;

    assert_eq!(bench.bucket.keys(), ["other/a.jpg", "photos/a b.jpg", "thumbs/event.json"]);
    let event: serde_json::Value = serde_json::from_str(&bench.text("thumbs/event.json").unwrap()).unwrap();
    assert_eq!(event["Records"][0]["eventName"], "ObjectCreated:Put");
    assert_eq!(event["Records"][0]["s3"]["bucket"]["name"], "demo");
    assert_eq!(event["Records"][0]["s3"]["object"]["key"], "photos/a+b.jpg");
    assert_eq!(event["s3mount"]["input"], "/in/photos/a b.jpg");
    assert_eq!(event["s3mount"]["name"], "a b.jpg");
    assert_eq!(status(&hooks).invocations, 1);
    assert_eq!(
        bench.bucket.info("thumbs/event.json").unwrap().properties.content_type.as_deref(),
        Some("application/json")
    );

    let log = bench.log("echo");
    assert_eq!(std::fs::read_to_string(status(&hooks).log).unwrap(), log);
    let id = event["s3mount"]["eventId"].as_str().unwrap();
    assert!(log.starts_with(&format!("START RequestId: {id} ")), "{log}");
    assert!(log.contains(&format!("END RequestId: {id}\nREPORT RequestId: {id}\tDuration: ")), "{log}");
    assert!(log.contains("Memory Size: 128 MB\tMax Memory Used: 1 MB"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn below_a_prefix_paths_are_those_of_the_mount() {
    let bench = Bench { prefix: "home/ann/", ..Bench::new() }.hook(
        "copy",
        &guests::copies("docs/a.txt", "a.copy"),
        "match = [\"docs/*.txt\"]",
    );
    let hooks = bench.start();
    bench.create("home/ann/docs/a.txt", "of ann").await;
    bench.create("home/bob/docs/a.txt", "of bob").await;
    idle(&hooks).await;
    assert_eq!(bench.text("home/ann/docs/a.copy").as_deref(), Some("of ann"), "beside its source");
    assert_eq!(bench.bucket.keys().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_is_told_without_a_file() {
    let bench = Bench::new().hook("echo", &guests::echoes("event.json"), "events = [\"s3:ObjectRemoved:*\"]");
    let hooks = bench.start();
    bench.create("a", "bytes").await;
    bench.bucket.remove("a");
    bench.tell(EventName::RemovedDelete, "a", 0, None).await;
    idle(&hooks).await;
    let event: serde_json::Value = serde_json::from_str(&bench.text("event.json").unwrap()).unwrap();
    assert_eq!(event["Records"][0]["eventName"], "ObjectRemoved:Delete");
    assert_eq!((event["s3mount"].get("input"), event["s3mount"]["path"].as_str()), (None, Some("a")));
    assert_eq!(bench.bucket.count("GetObject"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_hooks_see_one_event_each_on_its_own() {
    let bench = Bench::new()
        .hook("good", &guests::echoes("good.json"), "match = [\"a\"]")
        .hook("bad", &guests::exits(65), "match = [\"a\"]")
        .hook("copy", &guests::copies("a", "a.copy"), "match = [\"a\"]");
    let hooks = bench.start();
    bench.create("a", "bytes").await;
    idle(&hooks).await;
    assert_eq!(bench.bucket.keys(), ["a", "a.copy", "good.json"]);
    let dead: Vec<_> = hooks.status().hooks.iter().map(|hook| hook.dead).collect();
    assert_eq!(dead, [0, 1, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_sees_the_version_of_its_event_or_none() {
    let bench = Bench::new().hook("copy", &guests::copies("a", "b"), "match = [\"a\"]");
    bench.create("a", "first").await;
    bench.create("a", "second").await;
    bench.create("gone", "bytes").await;
    let hooks = bench.start();
    idle(&hooks).await;
    let status = status(&hooks);
    assert_eq!((status.invocations, status.superseded, status.errors), (1, 1, 0));
    assert_eq!(bench.text("b").as_deref(), Some("second"));
    assert!(bench.log("copy").contains("SUPERSEDED RequestId: "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_has_no_event_does_not_take_the_hook_away() {
    // As `chmod` of a large file: the same bytes get another tag, and no event tells of it.
    let bench = Bench::new().hook("copy", &guests::copies("a", "b"), "match = [\"a\"]");
    bench.create("a", "first").await;
    bench.bucket.insert("a", "other", s3mount::bucket::Metadata::new());
    let hooks = bench.start();
    idle(&hooks).await;
    assert_eq!((status(&hooks).invocations, status(&hooks).superseded), (1, 0));
    assert_eq!(bench.text("b").as_deref(), Some("other"));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_one_key_arrive_in_their_order() {
    // Every run writes its event to one object: the last that is written is the last event.
    let bench = Bench::new().hook("echo", &guests::echoes("last"), "events = [\"ObjectRemoved:*\"]\nconcurrency = 8");
    for _ in 0..20 {
        bench.tell(EventName::RemovedDelete, "a", 0, None).await;
    }
    let last = bench.journal.events(100).unwrap().last().unwrap().id.clone();
    let hooks = bench.start();
    idle(&hooks).await;
    assert_eq!(status(&hooks).invocations, 20);
    let event: serde_json::Value = serde_json::from_str(&bench.text("last").unwrap()).unwrap();
    assert_eq!(event["s3mount"]["eventId"], last);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_output_goes_in_parts_and_says_so() {
    let bench = Bench::new().hook("big", &guests::copies("a", "a.big"), "match = [\"a\"]").hook(
        "seen",
        &guests::echoes("seen"),
        "match = [\"*.big\"]\nevents = [\"ObjectCreated:CompleteMultipartUpload\"]",
    );
    let hooks = bench.start();
    let bytes = "0123456789abcdef".repeat((17 << 20) / 16);
    bench.create("a", &bytes).await;
    idle(&hooks).await;
    assert_eq!(bench.text("a.big").map(|copy| copy == bytes), Some(true));
    assert_eq!(bench.bucket.count("CompleteMultipartUpload"), 1);
    assert!(bench.text("seen").unwrap().contains("\"lineage\":[\"big\"]"));
}

// ---- Failure ------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_say_whether_to_try_again() {
    for (code, runs, dead) in [(0, 1, 0), (65, 1, 1), (77, 1, 1), (1, 3, 1), (75, 3, 1)] {
        let (bench, status) = outcome_of(&guests::exits(code), "").await;
        assert_eq!((status.invocations, status.dead), (runs, dead), "exit code {code}");
        assert_eq!(bench.log("h").contains("DEAD RequestId: "), dead == 1);
        if code != 0 {
            assert!(last_error(&status).contains(&format!("exit code {code}")));
            assert_eq!(bench.journal.dead().unwrap()[0].task.event.fact.key, "a");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_publishes_nothing() {
    let (bench, status) = outcome_of(&guests::leaves_two(1), "match = [\"a\"]\noutput = \"out\"").await;
    assert_eq!((status.errors, status.dead), (3, 1));
    assert_eq!(bench.bucket.keys(), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_published_whole_or_not_at_all() {
    let bench = Bench::new().hook("h", &guests::leaves_two(0), "match = [\"a\"]\noutput = \"out\"");
    bench.bucket.insert("out/a", "from before", s3mount::bucket::Metadata::new());
    // The second file is refused for good: the first, which was there before, stays; nothing new appears.
    bench.bucket.inject(Fault::once("PutObject", Effect::Fail(Kind::AccessDenied)).times(3).on_key("out/b"));
    let hooks = bench.start();
    bench.create("a", "bytes").await;
    idle(&hooks).await;
    assert_eq!(status(&hooks).dead, 1);
    assert_eq!(bench.bucket.keys(), ["a", "out/a"]);
    bench.bucket.remove("out/a");

    bench.bucket.inject(Fault::once("PutObject", Effect::Fail(Kind::AccessDenied)).times(3).on_key("out/b"));
    bench.create("a", "again").await;
    idle(&hooks).await;
    assert_eq!(bench.bucket.keys(), ["a"], "what was new is taken back");

    bench.bucket.inject(Fault::once("PutObject", Effect::Fail(Kind::AccessDenied)).times(2).on_key("out/b"));
    bench.create("a", "and again").await;
    idle(&hooks).await;
    assert_eq!(bench.bucket.keys(), ["a", "out/a", "out/b"], "the third try had better luck");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_being_away_costs_no_try() {
    let bench = Bench::new().hook("h", &guests::copies("a", "b"), "match = [\"a\"]");
    bench.bucket.inject(Fault::once("GetObject", Effect::Fail(Kind::Unreachable)));
    bench.bucket.inject(Fault::once("PutObject", Effect::LoseReply(Kind::Deadline)));
    let hooks = bench.start();
    bench.create("a", "bytes").await;
    idle(&hooks).await;
    let status = status(&hooks);
    assert_eq!((status.invocations, status.errors, status.dead), (2, 2, 0));
    assert_eq!(bench.text("b").as_deref(), Some("bytes"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_delivered_again_after_a_crash_with_the_same_id() {
    let bench = Bench::new().hook("h", &guests::loops(), "match = [\"a\"]\ntimeout = \"10m\"");
    let hooks = bench.start();
    bench.create("a", "bytes").await;
    while status(&hooks).running == 0 {
        tokio::task::yield_now().await;
    }
    // The state of the disk at this moment is what a crash would leave.
    let crashed = tempfile::tempdir().unwrap();
    std::fs::copy(bench.dir.path().join("state/journal.redb"), crashed.path().join("journal.redb")).unwrap();
    let before = bench.journal.take("h", 1, SystemTime::now()).unwrap();
    assert!(before.tasks.is_empty(), "it is leased");
    hooks.stop(Duration::ZERO).await;
    let id = bench.journal.take("h", 1, SystemTime::now()).unwrap().tasks[0].event.id.clone();

    std::fs::write(bench.dir.path().join("h.wat"), guests::echoes("b")).unwrap();
    let journal = Journal::open(crashed.path()).unwrap();
    let hooks = bench.start_with(Arc::clone(&journal), crashed.path());
    idle(&hooks).await;
    assert!(bench.text("b").unwrap().contains(&format!("\"eventId\":\"{id}\"")));
    hooks.stop(DEADLINE).await;
    journal.close().await.unwrap();
    let hooks = bench.start_with(Journal::open(crashed.path()).unwrap(), crashed.path());
    idle(&hooks).await;
    assert_eq!(status(&hooks).invocations, 0, "what is done is not done again");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_keeps_what_is_not_done() {
    let bench = Bench::new().hook("h", &guests::sleeps(), "match = [\"a\"]\ntimeout = \"10m\"");
    let hooks = bench.start();
    bench.create("a", "bytes").await;
    while status(&hooks).running == 0 {
        tokio::task::yield_now().await;
    }
    tokio::time::timeout(DEADLINE, hooks.stop(Duration::from_millis(10))).await.expect("stop ends");
    assert!(bench.journal.has_tasks("h").unwrap());
    assert_eq!(bench.journal.take("h", 1, SystemTime::now()).unwrap().tasks[0].failures, 0);
    assert!(bench.log("h").contains("cancelled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hooks_own_output_does_not_fire_it_again() {
    // Both match all there is: each sees the event and the other's output, never its own.
    let rule = "match = [\"a\", \"x*\", \"y*\"]";
    let bench = Bench::new().hook("x", &guests::echoes("x"), rule).hook("y", &guests::echoes("y"), rule);
    let hooks = bench.start();
    bench.create("a", "bytes").await;
    idle(&hooks).await;
    let runs: Vec<_> = hooks.status().hooks.iter().map(|hook| hook.invocations + hook.superseded).collect();
    assert_eq!(runs, [2, 2]);
    assert_eq!(bench.bucket.keys(), ["a", "x", "y"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_beyond_max_input_is_not_fetched() {
    let (bench, status) = outcome_of(&guests::exits(0), "max-input = \"4\"").await;
    assert_eq!((status.invocations, status.dead), (0, 1));
    assert_eq!(bench.bucket.count("GetObject"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_has_no_path_is_given_up() {
    let bench = Bench::new().hook("h", &guests::exits(0), "match = [\"a/**\"]\noutput = \"out\"");
    let hooks = bench.start();
    bench.create("a/../../etc/passwd", "bytes").await;
    idle(&hooks).await;
    assert_eq!((status(&hooks).invocations, status(&hooks).dead), (0, 1));
}

// ---- The examples -------------------------------------------------------------------------------

/// Width and height in the header of a PNG.
fn png_size(png: &[u8]) -> (u32, u32) {
    assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

/// Width and height in the frame header of a baseline JPEG.
fn jpeg_size(jpeg: &[u8]) -> (u16, u16) {
    assert_eq!(&jpeg[..2], b"\xff\xd8");
    let frame = jpeg.windows(2).position(|bytes| bytes == b"\xff\xc0").unwrap();
    let number = |at: usize| u16::from_be_bytes(jpeg[at..at + 2].try_into().unwrap());
    (number(frame + 7), number(frame + 5))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs hooks/built, which scripts/build-hooks makes"]
async fn the_examples_do_what_they_say() {
    let bench = Bench::new();
    let specs = hooks::load(Path::new("hooks/hooks.toml")).unwrap();
    let settings = HookSettings::new(specs, layout(), &bench.dir.path().join("state"));
    let bucket: Arc<dyn Bucket> = bench.bucket.clone();
    let hooks = hooks::start(settings, bucket, bench.journal.clone(), &tokio::runtime::Handle::current()).unwrap();
    let gzip: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xcbH\xcd\xc9\xc9\xe7\x02\0 0:6\x06\0\0\0";
    let files: [(&str, &[u8]); 6] = [
        ("photos/2024/sideways.jpg", include_bytes!("hooks_room/sideways.jpg")),
        ("photos/wide.png", include_bytes!("hooks_room/wide.png")),
        ("photos/broken.jpg", b"\xff\xd8\xff no picture"),
        ("notes.txt.gz", gzip),
        ("uploads/a/b c.txt.gz", gzip),
        ("cut.gz", &gzip[..20]),
    ];
    for (key, bytes) in files {
        let etag = bench.bucket.insert(key, bytes, s3mount::bucket::Metadata::new());
        bench.tell(EventName::CreatedPut, key, bytes.len(), Some(&etag)).await;
    }
    idle(&hooks).await;

    let errors: Vec<_> = hooks.status().hooks.into_iter().map(|hook| (hook.name, hook.errors, hook.dead)).collect();
    let expected = [("thumbnail", 1, 1), ("gunzip", 1, 1), ("sha256sum", 0, 0)];
    assert_eq!(
        errors,
        expected.map(|(name, errors, dead)| (name.to_owned(), errors, dead)),
        "{}",
        bench.log("thumbnail")
    );
    // 300 × 600 pixels, and a mark that the camera was held sideways.
    assert_eq!(jpeg_size(&bench.bucket.bytes("thumbs/2024/sideways.jpg").unwrap()), (256, 128));
    assert_eq!(png_size(&bench.bucket.bytes("thumbs/wide.png").unwrap()), (256, 171));
    assert_eq!(bench.text("notes.txt").as_deref(), Some("hello\n"));
    assert_eq!(bench.text("uploads/a/b c.txt").as_deref(), Some("hello\n"));
    // Of what was written, and of what another hook made of it.
    let hello = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03  b c.txt\n";
    assert_eq!(bench.text("uploads/a/b c.txt.sha256").as_deref(), Some(hello));
    assert!(bench.text("uploads/a/b c.txt.gz.sha256").unwrap().ends_with("  b c.txt.gz\n"));
    assert_eq!(bench.bucket.keys().len(), files.len() + 6);
}
