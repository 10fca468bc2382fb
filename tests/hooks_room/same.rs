//! The same bytes written again.

use super::*;

/// Writes bytes over the same bytes, and tells of it as a close does.
async fn write_again(bench: &Bench, key: &str, bytes: &str) {
    let etag = bench.bucket.insert(key, bytes.to_owned(), s3mount::bucket::Metadata::new());
    let event = NewEvent {
        name: EventName::CreatedPut,
        key: key.into(),
        size: bytes.len() as u64,
        etag: Some(s3mount::journal::stored_etag(&etag)),
        time: SystemTime::now(),
        lineage: Vec::new(),
        replayed_for: Vec::new(),
        rewritten: true,
    };
    bench.journal.settle(&[], vec![event]).await.unwrap();
}

fn counts(hooks: &Hooks) -> (u64, u64) {
    let status = status(hooks);
    (status.invocations, status.unchanged)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bytes_again_fire_nobody_who_has_done_them() {
    let bench = Bench::new().hook("h", &guests::exits(0), "match = [\"a\"]");
    let hooks = bench.start();
    bench.create("a", "one").await;
    write_again(&bench, "a", "one").await;
    idle(&hooks).await;
    assert_eq!(counts(&hooks), (1, 1));
    assert!(bench.log("h").contains("\nUNCHANGED RequestId: "), "{}", bench.log("h"));
    // Others came in between: the event says nothing of a rewrite then.
    bench.create("a", "two").await;
    bench.create("a", "one").await;
    idle(&hooks).await;
    write_again(&bench, "a", "one").await;
    idle(&hooks).await;
    assert_eq!(counts(&hooks).1, 2);
    // What comes after a removal is new, whatever is said of it.
    bench.tell(EventName::RemovedDelete, "a", 0, None).await;
    idle(&hooks).await;
    let before = counts(&hooks).0;
    write_again(&bench, "a", "one").await;
    idle(&hooks).await;
    assert_eq!(counts(&hooks), (before + 1, 2));
    hooks.stop(DEADLINE).await;

    // Over a restart too.
    let hooks = bench.start();
    write_again(&bench, "a", "one").await;
    idle(&hooks).await;
    assert_eq!(counts(&hooks), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_failed_or_has_changed_is_run_again() {
    let bench = Bench::new().hook("h", &guests::exits(0), "match = [\"a\"]\nretries = 0");
    let with = |module: String| std::fs::write(bench.dir.path().join("h.wat"), module).unwrap();
    for (module, counted) in [
        (guests::exits(0), (1, 0)),
        (guests::exits(0), (0, 1)),
        (guests::exits(1), (1, 0)),
        (guests::exits(1), (1, 0)),
        (guests::exits(0), (1, 0)),
        (guests::exits(0), (0, 1)),
    ] {
        with(module);
        let hooks = bench.start();
        write_again(&bench, "a", "bytes").await;
        idle(&hooks).await;
        assert_eq!(counts(&hooks), counted);
        hooks.stop(DEADLINE).await;
    }
}
