//! How often, for how long and how many at a time; what is given up, and taken back.

use std::collections::HashSet;

use s3mount::hooks::Which;

use super::*;

/// Request ids of the runs that a log tells of, one for each run.
fn ids(log: &str) -> Vec<&str> {
    log.lines().filter_map(|line| line.strip_prefix("START RequestId: ")?.split(' ').next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_says_how_often_it_is_tried_again() {
    for (settings, runs) in [("retries = 0", 1), ("", 3), ("retries = 5", 6)] {
        let (bench, status) = outcome_of(&guests::exits(1), &format!("match = [\"a\"]\n{settings}")).await;
        assert_eq!((status.invocations, status.dead), (runs, 1), "{settings}");
        let dead = bench.journal.dead().unwrap().remove(0);
        assert_eq!(u64::from(dead.task.failures), runs);
        let log = bench.log("h");
        assert_eq!(ids(&log).len() as u64, runs);
        assert_eq!(
            HashSet::from_iter(ids(&log)),
            HashSet::from([dead.task.event.id.as_str()]),
            "one id over all tries"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_max_age_is_given_up_untried() {
    let bench = Bench::new().hook("h", &guests::exits(0), "match = [\"a\"]\nmax-age = \"1h\"");
    let etag = bench.bucket.insert("a", "bytes", s3mount::bucket::Metadata::new());
    let event = |hours: u64| NewEvent {
        name: EventName::CreatedPut,
        key: "a".into(),
        size: 5,
        etag: Some(s3mount::journal::stored_etag(&etag)),
        time: SystemTime::now() - Duration::from_hours(hours),
        lineage: Vec::new(),
        rewritten: false,
        replayed_for: Vec::new(),
    };
    bench.journal.settle(&[], vec![event(2), event(0)]).await.unwrap();
    let hooks = bench.start();
    idle(&hooks).await;
    assert_eq!((status(&hooks).invocations, status(&hooks).dead), (1, 1), "the younger one is delivered");
    let dead = hooks.dead_letters(&Which::default()).unwrap().remove(0);
    assert_eq!((dead.reason.as_str(), dead.attempts), ("older than max-age allows (3600 s)", 0));

    assert_eq!(hooks.redrive(&Which::default()).await.unwrap().count, 1);
    idle(&hooks).await;
    assert_eq!((status(&hooks).invocations, status(&hooks).dead), (2, 0), "who redrives it wants it tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_try_that_would_come_too_late_is_not_waited_for() {
    let settings = "match = [\"a\"]\nmax-age = \"1h\"\nretry-delay = \"10h\"";
    let (bench, status) = outcome_of(&guests::exits(1), settings).await;
    assert_eq!((status.invocations, status.dead), (1, 1));
    let reason = bench.journal.dead().unwrap().remove(0).reason;
    assert!(reason.starts_with("exit code 1; ") && reason.contains("max-age"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_runs_at_a_time_than_the_hook_allows() {
    let bench = Bench::new().hook(
        "h",
        &guests::sleeps(),
        "match = [\"*\"]\nexclude = [\"x\"]\ntimeout = \"10m\"\nconcurrency = 1",
    );
    for key in ["a", "b", "c"] {
        bench.create(key, "bytes").await;
    }
    let hooks = bench.start();
    while status(&hooks).running == 0 {
        tokio::task::yield_now().await;
    }
    // Another event makes the worker look for work again.
    bench.create("x", "bytes").await;
    while hooks.status().events_waiting > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((status(&hooks).running, status(&hooks).queued), (1, 2));
    hooks.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_explains_itself() {
    let bench = Bench { prefix: "home/", ..Bench::new() }.hook(
        "h",
        &guests::panics("src/main.rs:7:9", "no picture"),
        "match = [\"*.jpg\"]\nretries = 0",
    );
    let hooks = bench.start();
    bench.create("home/my photo.jpg", "bytes").await;
    idle(&hooks).await;
    let dead = hooks.dead_letters(&Which::default()).unwrap().remove(0);
    assert!(dead.reason.starts_with("panicked at src/main.rs:7:9: no picture; trapped: "), "{}", dead.reason);
    assert!(dead.reason.contains("unreachable"), "{}", dead.reason);
    assert_eq!(dead.again, "s3mount hooks invoke h --key 'my photo.jpg'");
    for part in [&dead.id, "Key: home/my photo.jpg", "no picture", "Max Memory Used: 1 MB"] {
        assert!(dead.report.contains(part), "{part} is missing in\n{}", dead.report);
    }
    let log = bench.log("h");
    for part in [dead.reason.lines().next().unwrap(), "to run it again: s3mount hooks invoke h --key 'my photo.jpg'\n"]
    {
        assert!(log.contains(part), "{part} is missing in\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_gives_up_is_quoted() {
    for (code, reason) in [(1, "exit code 1: Error: no picture"), (65, "exit code 65 (fatal): Error: no picture")] {
        let module = guests::says("working\nError: no picture\n", &format!("(call $exit (i32.const {code}))"));
        let (_, status) = outcome_of(&module, "").await;
        assert_eq!(last_error(&status), reason);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_or_runs_a_hook_is_told_when_hooks_are_stopped() {
    let bench = Bench::new().hook("h", &guests::sleeps(), "match = [\"a\"]\ntimeout = \"10m\"");
    let hooks = bench.start();
    bench.create("a", "bytes").await;
    let stop = async {
        while status(&hooks).running == 0 {
            tokio::task::yield_now().await;
        }
        hooks.stop(Duration::ZERO).await;
    };
    let invoke = hooks.invoke("h", "a", "ObjectCreated:Put", false);
    let all = async { tokio::join!(hooks.wait("a"), invoke, stop) };
    let (waited, invoked, ()) = Box::pin(tokio::time::timeout(DEADLINE, all)).await.expect("both end");
    assert!(matches!(waited, Err(hooks::Error::Stopping)), "{waited:?}");
    assert!(matches!(invoked, Err(hooks::Error::Stopping)), "{invoked:?}");
    assert!(bench.journal.has_tasks("h").unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_taken_back_by_id_by_hook_and_all_together() {
    let bench = Bench::new().hook("h", &guests::exits(65), "match = [\"a\", \"b\", \"c\"]").hook(
        "other",
        &guests::exits(65),
        "match = [\"a\"]",
    );
    let hooks = bench.start();
    for key in ["a", "b", "c"] {
        bench.create(key, "bytes").await;
    }
    idle(&hooks).await;
    let all = hooks.dead_letters(&Which::default()).unwrap();
    let named: HashSet<_> = all.iter().map(|dead| (dead.hook.as_str(), dead.key.as_str())).collect();
    assert_eq!(named, HashSet::from([("h", "a"), ("h", "b"), ("h", "c"), ("other", "a")]));

    // Nothing is repaired: each that is taken back is tried once more and given up again.
    let runs = |hooks: &Hooks| hooks.status().hooks.iter().map(|hook| hook.invocations).collect::<Vec<_>>();
    let of_b = all.iter().find(|dead| dead.key == "b").unwrap();
    for (which, count, after) in [
        (Which { id: Some(of_b.id.clone()), hook: None }, 1, [4, 1]),
        (Which { id: None, hook: Some("h".into()) }, 3, [7, 1]),
        (Which::default(), 4, [10, 2]),
        (Which { id: Some(of_b.id.clone()), hook: Some("other".into()) }, 0, [10, 2]),
    ] {
        let redriven = hooks.redrive(&which).await.unwrap();
        idle(&hooks).await;
        assert_eq!((redriven.count, runs(&hooks)), (count, after.to_vec()), "{which:?}");
        assert_eq!(hooks.dead_letters(&Which::default()).unwrap().len(), 4);
    }
    assert_eq!(hooks.drop_dead_letters(&Which { id: None, hook: Some("h".into()) }).await.unwrap(), 3);
    assert_eq!(hooks.dead_letters(&Which::default()).unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_a_hook_that_is_gone_stay_until_they_are_dropped() {
    let bench = Bench::new().hook("h", &guests::exits(65), "match = [\"a\"]");
    let hooks = bench.start();
    bench.create("a", "bytes").await;
    idle(&hooks).await;
    hooks.stop(DEADLINE).await;
    std::fs::remove_file(bench.dir.path().join("hooks.toml")).unwrap();
    let bench = bench.hook("new", &guests::exits(0), "match = [\"b\"]");
    let hooks = bench.start();
    let redriven = hooks.redrive(&Which::default()).await.unwrap();
    assert_eq!((redriven.count, redriven.unknown_hooks), (0, vec!["h".to_owned()]));
    assert_eq!(hooks.drop_dead_letters(&Which::default()).await.unwrap(), 1);
    assert!(hooks.dead_letters(&Which::default()).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_may_recurse_does_so_sixteen_times() {
    let rule = "match = [\"**\"]\nallow-recursion = true";
    let bench = Bench::new().hook("h", &guests::echoes("again"), rule);
    let hooks = bench.start();
    bench.create("a", "bytes").await;
    idle(&hooks).await;
    assert_eq!(status(&hooks).invocations, 16);
    assert_eq!(hooks.status().recursive_invocations_dropped, 1);
}
