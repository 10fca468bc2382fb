//! Every hostile module is stopped, with its reason.

use s3mount::hooks::Which;

use super::hostile_guests;
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn every_hostile_module_is_stopped_with_its_reason() {
    let all = hostile_guests::all();
    assert!(all.len() >= 20);
    let mut bench = Bench::new();
    for hostile in &all {
        bench = bench.hook(hostile.name, &hostile.module, &hostile_guests::settings(hostile));
    }
    let hooks = bench.start();
    bench.create("trap/x", "bytes").await;
    idle(&hooks).await;
    let dead = hooks.dead_letters(&Which::default()).unwrap();
    let reason = |name: &str| dead.iter().find(|letter| letter.hook == name).map(|letter| letter.reason.clone());
    assert_eq!(hostile_guests::complaints(&all, reason), [""; 0]);
    for hostile in &all {
        let log = bench.log(hostile.name);
        assert!(log.contains("REPORT RequestId: ") && !log.contains('\u{1b}'), "{}: {log}", hostile.name);
        assert!(log.len() < 512 << 10, "{}: a log of {} bytes", hostile.name, log.len());
    }
    // Nothing but what one of them may leave has come into the bucket.
    assert_eq!(bench.bucket.keys(), ["made/again", "made/x", "trap/x"]);
    assert_eq!(bench.text("trap/x").as_deref(), Some("bytes"));
    let runs = hooks.status().hooks.into_iter().map(|hook| (hook.name, hook.invocations));
    for (name, runs) in runs {
        assert_eq!(runs, 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn modules_that_can_not_be_run_are_refused_before_they_are() {
    let start = |module: &[u8]| {
        let bench = Bench::new().hook("h", "", "match = [\"a\"]");
        std::fs::write(bench.dir.path().join("h.wat"), module).unwrap();
        let specs = hooks::load(&bench.dir.path().join("hooks.toml"));
        let settings = specs.map(|specs| HookSettings::new(specs, layout(), &bench.dir.path().join("state")));
        let bucket: Arc<dyn Bucket> = bench.bucket.clone();
        let started = settings.and_then(|settings| {
            hooks::start(settings, bucket, bench.journal.clone(), &tokio::runtime::Handle::current())
        });
        started.err().map_or_else(String::new, |error| error.to_string())
    };
    let import = |module: &str, name: &str| {
        let import = format!("(import \"{module}\" \"{name}\" (func (param i32) (result i32)))");
        format!("(module {import} (func (export \"_start\")))").into_bytes()
    };
    let having = |what: &str| format!("(module {what} (func (export \"_start\")))").into_bytes();
    let oversized = vec![b' '; (64 << 20) + 1];
    for (what, module, reason) in [
        ("no WebAssembly", b"\x7fELF".to_vec(), "is no WebAssembly"),
        ("cut", b"\0asm\x01\0\0\0\x01\xff".to_vec(), "unexpected end"),
        ("text that is none", b"(module (this is none".to_vec(), "h.wat"),
        ("invalid types", b"(module (func (export \"_start\") i32.add))".to_vec(), "type mismatch"),
        ("no command", b"(module (func (export \"main\")))".to_vec(), "no function _start"),
        ("oversized", oversized, "larger than 64 MiB"),
        ("the host's functions", import("env", "system"), "env::system"),
        ("sockets of another runtime", import("wasi_snapshot_preview1", "sock_open"), "sock_open"),
        ("threads", import("wasi", "thread-spawn"), "wasi::thread-spawn"),
        ("many memories", having(&"(memory 1) ".repeat(90)), "memories count of 90 exceeds"),
        ("many tables", having(&"(table 1 funcref) ".repeat(90)), "tables count of 90 exceeds"),
        ("a large table", having("(table 4294967295 funcref)"), "table"),
        ("shared memory", b"(module (memory 1 1 shared) (func (export \"_start\")))".to_vec(), "threads"),
    ] {
        let said = start(&module);
        assert!(said.contains(reason) && said.contains("\"h\""), "{what}: {said}");
    }
}

#[tokio::test]
async fn a_guest_that_never_waits_holds_nobody_up() {
    // One thread for all: if a guest ran on it, nothing else would.
    let bench = Bench::new().hook("bad", &guests::loops(), "match = [\"bad\"]\ntimeout = \"10m\"").hook(
        "good",
        &guests::echoes("out"),
        "match = [\"good\"]",
    );
    let hooks = bench.start();
    bench.create("bad", "").await;
    bench.create("good", "").await;
    let both = async {
        while bench.text("out").is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, both).await.expect("the other hook runs");
    hooks.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_bomb_gets_no_more_than_its_limit() {
    let (bench, status) = outcome_of(&guests::bombs_memory(), "memory = \"8M\"").await;
    assert_eq!(status.dead, 1);
    assert!(status.max_memory_used_bytes <= 8 << 20);
    assert!(last_error(&status).contains("refused memory beyond its limit"), "{}", last_error(&status));
    assert!(bench.log("h").contains("Memory Size: 8 MB"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_output_is_cut() {
    for (descriptor, kept) in [(1, 64 << 10), (2, 256 << 10)] {
        let (bench, status) = outcome_of(&guests::floods(descriptor), "").await;
        assert_eq!((status.errors, status.dead), (0, 0));
        let log = bench.log("h");
        assert!(
            log.contains(&format!("[{} more bytes were dropped]", (64 << 20) - kept)),
            "{}",
            &log[log.len() - 300..]
        );
        assert!(log.len() < kept + 4096);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn descriptors_are_limited() {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let (_, status) = outcome_of(&guests::hoards_descriptors(), "").await;
    assert_eq!((status.errors, status.dead), (3, 1));
    assert!(open() < before + 100, "and given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_without_end_are_stopped_and_removed() {
    let (bench, status) = outcome_of(&guests::digs(), "timeout = \"5s\"").await;
    assert_eq!(status.dead, 1);
    let work = bench.dir.path().join("state/hooks/work");
    let empty = async {
        while std::fs::read_dir(&work).unwrap().count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, empty).await.expect("nothing is left of the runs");
}
