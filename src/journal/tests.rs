use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, UNIX_EPOCH};

use super::*;

fn created(key: &str) -> NewEvent {
    NewEvent {
        name: EventName::CreatedPut,
        key: key.into(),
        size: 3,
        etag: Some("e".into()),
        time: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        lineage: vec!["unzip".into()],
        rewritten: false,
        replayed_for: Vec::new(),
    }
}

fn remove(key: &str) -> Intent {
    Intent::Upload { key: key.into(), upload_id: "id".into() }
}

#[tokio::test]
async fn one_intent_takes_the_place_of_others_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let first = journal.intend(remove("a")).await.unwrap();
    let second = journal.intend(remove("b")).await.unwrap();
    let gone = IntentId(9999);
    let newer = journal.replace(&[first, gone], vec![remove("c"), remove("d")]).await.unwrap();
    drop(journal);
    let journal = Journal::open(dir.path()).unwrap();
    let expected = vec![(second, remove("b")), (newer[0], remove("c")), (newer[1], remove("d"))];
    assert_eq!(journal.open_intents().unwrap(), expected);
}

#[tokio::test]
async fn ends_that_nobody_waits_for_are_one_commit_also_when_the_first_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let mut intents = Vec::new();
    for number in 0..20 {
        intents.push(journal.intend(remove(&format!("k{number}"))).await.unwrap());
    }
    let before = *journal.changes().borrow();
    let mut ends: Vec<_> = (intents.chunks(1).enumerate())
        .map(|(number, intent)| Box::pin(journal.settle_unhurried(intent, vec![created(&format!("k{number}"))])))
        .collect();
    for end in &mut ends {
        assert!(futures::poll!(end).is_pending());
    }
    drop(ends.remove(0));
    for outcome in futures::future::join_all(ends).await {
        outcome.unwrap();
    }
    assert_eq!(*journal.changes().borrow(), before + 1);
    drop(journal);
    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!(journal.open_intents().unwrap(), []);
    let keys: Vec<String> = journal.events(100).unwrap().into_iter().map(|event| event.fact.key).collect();
    assert_eq!(keys, (0..20).map(|number| format!("k{number}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn who_gathers_does_not_keep_the_journal_open() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let intents = [journal.intend(remove("a")).await.unwrap()];
    let end = journal.settle_unhurried(&intents, vec![]);
    assert!(futures::poll!(Box::pin(end)).is_pending());
    // Dropping waits for the journal's thread, and keeps the task that gathers from running meanwhile.
    drop(journal);
    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!(journal.open_intents().unwrap(), [(intents[0], remove("a"))]);
}

#[tokio::test]
async fn what_was_gathered_is_written_before_the_journal_closes_though_nobody_waits() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let intents = [journal.intend(remove("a")).await.unwrap()];
    let mut end = Box::pin(journal.settle_unhurried(&intents, vec![created("a")]));
    assert!(futures::poll!(&mut end).is_pending());
    drop(end);
    journal.close().await.unwrap();
    drop(journal);
    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!(journal.open_intents().unwrap(), []);
    assert_eq!(journal.events(10).unwrap().len(), 1);
    let intents = vec![journal.intend(remove("b")).await.unwrap()];
    journal.settle_behind(intents).unwrap();
    journal.close().await.unwrap();
    drop(journal);
    assert_eq!(Journal::open(dir.path()).unwrap().open_intents().unwrap(), []);
}

/// Gives every waiting event to `hooks`.
async fn fan_out(journal: &Journal, hooks: &[&str]) {
    let events = journal.events(1000).unwrap();
    let hooks: Vec<String> = hooks.iter().map(|&hook| hook.to_owned()).collect();
    journal.fan_out(events.into_iter().map(|event| (event, hooks.clone())).collect()).await.unwrap();
}

fn keys(taken: &Taken) -> Vec<&str> {
    taken.tasks.iter().map(|task| task.event.fact.key.as_str()).collect()
}

#[tokio::test]
async fn intents_and_events_survive_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let first = journal.intend(remove("a")).await.unwrap();
    let second = journal.intend(remove("b")).await.unwrap();
    journal.settle(&[first], vec![created("a")]).await.unwrap();
    let before = journal.events(10).unwrap();
    drop(journal);

    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!(journal.open_intents().unwrap(), vec![(second, remove("b"))]);
    assert_eq!(journal.events(10).unwrap(), before);
    assert_eq!(before[0].fact, created("a"));
    let third = journal.intend(remove("c")).await.unwrap();
    assert!(third > second, "an open intent's number is not given away");
}

#[tokio::test]
async fn what_was_answered_is_in_a_copy_taken_without_closing() {
    let dir = tempfile::tempdir().unwrap();
    let crashed = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let calls = (0..50).map(|n| {
        let journal = Arc::clone(&journal);
        async move {
            let intent = journal.intend(remove(&format!("k{n}"))).await?;
            if n % 2 == 0 { journal.settle(&[intent], vec![created(&format!("k{n}"))]).await } else { Ok(()) }
        }
    });
    for outcome in futures::future::join_all(calls).await {
        outcome.unwrap();
    }
    std::fs::copy(dir.path().join(open::FILE_NAME), crashed.path().join(open::FILE_NAME)).unwrap();

    let recovered = Journal::open(crashed.path()).unwrap();
    assert_eq!(recovered.events(100).unwrap(), journal.events(100).unwrap());
    assert_eq!(recovered.events(100).unwrap().len(), 25);
    assert_eq!(recovered.open_intents().unwrap().len(), 25);
}

#[tokio::test]
async fn events_of_one_call_are_ordered_and_numbers_never_return() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    journal.settle(&[], vec![created("a"), created("b")]).await.unwrap();
    let first = journal.events(10).unwrap();
    assert!(first[0].sequencer() < first[1].sequencer());
    assert_ne!(first[0].id, first[1].id);
    fan_out(&journal, &[]).await;
    drop(journal);

    let journal = Journal::open(dir.path()).unwrap();
    assert!(journal.events(10).unwrap().is_empty());
    journal.settle(&[], vec![created("a")]).await.unwrap();
    assert!(journal.events(10).unwrap()[0].sequence > first[1].sequence);
}

#[tokio::test]
async fn one_key_is_delivered_in_order_and_others_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    journal.settle(&[], vec![created("a"), created("a"), created("b")]).await.unwrap();
    fan_out(&journal, &["h", "other"]).await;

    let now = SystemTime::now();
    let taken = journal.take("h", 10, now).unwrap();
    assert_eq!(keys(&taken), ["a", "b"]);
    assert!(journal.take("h", 10, now).unwrap().tasks.is_empty(), "leased, and the second a behind the first");
    assert_eq!(journal.counts("h").unwrap(), Counts { open: 3, leased: 2, dead: 0 });

    let overtaken: Vec<_> = taken.tasks.iter().map(|task| journal.is_overtaken(task).unwrap()).collect();
    assert_eq!(overtaken, [true, false]);
    journal.finish(&taken.tasks[0], vec![created("out")]).await.unwrap();
    assert_eq!(journal.events(10).unwrap()[0].fact.key, "out");
    let next = journal.take("h", 10, now).unwrap();
    assert_eq!(keys(&next), ["a"]);
    assert!(next.tasks[0].event.sequence > taken.tasks[0].event.sequence);
    assert_eq!(keys(&journal.take("other", 10, now).unwrap()), ["a", "b"], "hooks do not wait for each other");
}

#[tokio::test]
async fn a_postponed_task_holds_its_key_back_and_keeps_its_failures() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    journal.settle(&[], vec![created("a"), created("a"), created("b")]).await.unwrap();
    fan_out(&journal, &["h"]).await;
    let now = SystemTime::now();
    let due = now + Duration::from_mins(1);
    let mut first = journal.take("h", 1, now).unwrap().tasks.remove(0);
    first.failures += 1;
    journal.postpone(&first, due).await.unwrap();

    let taken = journal.take("h", 10, now).unwrap();
    assert_eq!((keys(&taken), taken.next_due), (vec!["b"], Some(due)));
    let again = journal.take("h", 10, due).unwrap().tasks.remove(0);
    assert_eq!((again.number, again.failures), (first.number, 1));
}

#[tokio::test]
async fn a_buried_task_lets_the_next_one_through() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    journal.settle(&[], vec![created("a"), created("a")]).await.unwrap();
    fan_out(&journal, &["h"]).await;
    let now = SystemTime::now();
    let first = journal.take("h", 1, now).unwrap().tasks.remove(0);
    let dead = DeadTask { task: first, reason: "exit 65".into(), report: "END\n".into(), time: now };
    journal.bury(dead.clone()).await.unwrap();
    assert_eq!(journal.dead().unwrap(), vec![dead]);
    assert_eq!(journal.counts("h").unwrap(), Counts { open: 1, leased: 0, dead: 1 });
    assert_eq!(keys(&journal.take("h", 1, now).unwrap()), ["a"]);
}

/// `a`, `a` and `b` with the first `a` and `b` among the dead; their tasks.
async fn two_dead(journal: &Journal) -> Vec<Task> {
    journal.settle(&[], vec![created("a"), created("a"), created("b")]).await.unwrap();
    fan_out(journal, &["h"]).await;
    let tasks = journal.take("h", 10, SystemTime::now()).unwrap().tasks;
    for task in &tasks {
        let task = Task { failures: 3, delays: 7, not_before: Some(UNIX_EPOCH), ..task.clone() };
        let dead = DeadTask { task, reason: "exit 1".into(), report: String::new(), time: UNIX_EPOCH };
        journal.bury(dead).await.unwrap();
    }
    tasks
}

#[tokio::test]
async fn a_redriven_task_is_at_its_place_as_if_never_tried() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let tasks = two_dead(&journal).await;
    let now = SystemTime::now();
    let changes = *journal.changes().borrow();
    journal.redrive(vec![tasks[0].number, 12_345], now).await.unwrap();
    assert!(*journal.changes().borrow() > changes, "the worker is told");
    assert_eq!(journal.dead().unwrap().len(), 1);
    drop(journal);

    let journal = Journal::open(dir.path()).unwrap();
    let taken = journal.take("h", 10, now).unwrap().tasks;
    assert_eq!(taken, [Task { redriven: Some(now), ..tasks[0].clone() }], "before the younger event of its key");
    journal.redrive(vec![tasks[0].number], now).await.unwrap();
    assert_eq!(journal.counts("h").unwrap().open, 2, "it is not among the dead any more");
}

#[tokio::test]
async fn a_forgotten_dead_task_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let tasks = two_dead(&journal).await;
    journal.forget_dead(vec![tasks[1].number, 12_345]).await.unwrap();
    let left: Vec<_> = journal.dead().unwrap().into_iter().map(|dead| dead.task.number).collect();
    assert_eq!((left, journal.counts("h").unwrap().open), (vec![tasks[0].number], 1));
}

#[test]
fn a_dead_task_of_an_older_version_is_read() {
    let old = r#"{"task":{"hook":"h","number":7,"failures":2,"delays":0,"not_before":null,"event":{"id":"i","sequence":1,
        "name":"CreatedPut","key":"a","size":0,"etag":null,"time":{"secs_since_epoch":0,"nanos_since_epoch":0},
        "lineage":[]}},"reason":"exit 1","time":{"secs_since_epoch":0,"nanos_since_epoch":0}}"#;
    let dead: DeadTask = serde_json::from_str(old).unwrap();
    assert_eq!((dead.report.as_str(), dead.task.redriven), ("", None));
}

#[test]
fn the_dead_are_not_kept_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = store::Store::new(redb::Database::create(dir.path().join("j")).unwrap()).unwrap();
    let event = Event { id: "id".into(), sequence: 1, fact: created("a") };
    let dead = |number| DeadTask {
        task: Task { failures: 3, ..Task::new("h".into(), number, None, event.clone()) },
        reason: "exit 1".into(),
        report: String::new(),
        time: UNIX_EPOCH,
    };
    store.apply((0..store::MAX_DEAD + 5).map(|number| Change::Bury(dead(number), Vec::new())).collect()).unwrap();
    let kept = store.dead().unwrap();
    assert_eq!((kept.len() as u64, kept[0].task.number), (store::MAX_DEAD, 5));
}

#[tokio::test]
async fn hooks_that_have_tasks_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    assert!(journal.hooks_with_tasks().unwrap().is_empty());
    journal.settle(&[], vec![created("a"), created("b")]).await.unwrap();
    fan_out(&journal, &["z", "a", "m"]).await;
    assert_eq!(journal.hooks_with_tasks().unwrap(), ["a", "m", "z"]);
}

#[tokio::test]
async fn a_task_that_was_not_finished_is_ready_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    journal.settle(&[], vec![created("a")]).await.unwrap();
    fan_out(&journal, &["h"]).await;
    let before = journal.take("h", 1, SystemTime::now()).unwrap();
    drop(journal);
    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!(journal.take("h", 1, SystemTime::now()).unwrap(), before, "with the same event id");
}

#[tokio::test]
async fn hooks_are_told_of_events_and_not_of_intents() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let mut changes = journal.changes();
    let intent = journal.intend(remove("a")).await.unwrap();
    assert!(!changes.has_changed().unwrap());
    journal.settle(&[intent], vec![created("a")]).await.unwrap();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    journal.settle(&[], Vec::new()).await.unwrap();
    assert!(!changes.has_changed().unwrap());
}

#[tokio::test]
async fn a_second_opener_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    assert!(matches!(Journal::open(dir.path()), Err(Error::InUse { .. })));
    journal.close().await.unwrap();
    assert!(matches!(journal.intend(remove("a")).await, Err(Error::Closed)));
    assert!(matches!(journal.open_intents(), Err(Error::Closed)));
    Journal::open(dir.path()).unwrap();
}

#[test]
fn nobody_else_can_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("deep/state");
    let _journal = Journal::open(&state).unwrap();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join(open::FILE_NAME)), 0o600);
}

#[tokio::test]
async fn a_damaged_file_is_an_error_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(open::FILE_NAME);
    std::fs::write(&path, b"this is no database, and longer than any header of one ...").unwrap();
    assert!(Journal::open(dir.path()).is_err());

    std::fs::remove_file(&path).unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    for n in 0..100 {
        journal.settle(&[], vec![created(&format!("key {n}"))]).await.unwrap();
    }
    drop(journal);
    let whole = std::fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(whole.len() / 16) {
        let mut damaged = whole.clone();
        damaged[at..(at + 512).min(whole.len())].fill(0xa5);
        std::fs::write(&path, &damaged).unwrap();
        // Unused pages may be damaged without harm; what opens must be readable or say that it isn't.
        if let Ok(journal) = Journal::open(dir.path()) {
            let _ = journal.events(1000);
        }
    }
}

/// What 0.1.0 wrote when an object had no properties but its type.
#[test]
fn what_an_older_program_left_is_read() {
    let deferred = r#"{"Deferred":{"key":"k","draft":"d1","size":5,"metadata":{"a":"1"},"base_etag":null,
        "content_type":"text/x-own","allowed":false}}"#;
    let Intent::Deferred { draft, properties, .. } = serde_json::from_str(deferred).unwrap() else { panic!() };
    assert_eq!(draft, DraftBytes::File("d1".into()));
    assert_eq!(properties, Properties::of_type(Some("text/x-own".into())));
    let noted = r#"{"Attributes":{"key":"k","etag":"e","size":5,"metadata":{},"content_type":null}}"#;
    let Note::Attributes { properties, .. } = serde_json::from_str(noted).unwrap() else { panic!() };
    assert_eq!(properties, Properties::default());
}
