//! Other hooks while events wait and runs go on.

use super::*;

/// What the settings say now, put in place.
fn switch(bench: &Bench, hooks: &Hooks) -> hooks::Switched {
    hooks.switch(hooks.prepare(hooks::load(&bench.dir.path().join("hooks.toml")).unwrap()).unwrap())
}

/// The same bench with no hooks in its settings.
fn without_settings(bench: Bench) -> Bench {
    std::fs::write(bench.dir.path().join("hooks.toml"), "").unwrap();
    bench
}

#[tokio::test(flavor = "multi_thread")]
async fn other_hooks_take_over_and_nothing_is_lost() {
    let rule = "match = [\"?\"]\nretries = 0\nconcurrency = 1\noutput = \"made\"";
    let bench = Bench::new().hook("h", &guests::loops(), &format!("{rule}\ntimeout = \"1s\""));
    let hooks = bench.start();
    bench.create("a", "bytes").await;
    while status(&hooks).running == 0 {
        tokio::task::yield_now().await;
    }
    bench.create("b", "bytes").await;
    while status(&hooks).queued == 0 {
        tokio::task::yield_now().await;
    }

    let bench = without_settings(bench).hook("h", &guests::echoes("event.json"), rule).hook(
        "new",
        &guests::exits(0),
        "match = [\"c\"]",
    );
    let switched = switch(&bench, &hooks);
    assert_eq!((switched.added, switched.replaced), (vec!["new".to_owned()], vec!["h".to_owned()]));
    bench.create("c", "bytes").await;
    idle(&hooks).await;

    let told = hooks.status();
    assert_eq!((told.hooks[0].invocations, told.hooks[0].dead, told.hooks[1].invocations), (3, 1, 1));
    let dead = hooks.dead_letters(&hooks::Which::default()).unwrap().remove(0);
    assert_eq!(dead.key, "a");
    assert!(dead.reason.contains("Task timed out"), "it ended with the module it began with: {}", dead.reason);
    assert!(bench.text("made/event.json").unwrap().contains("\"key\":\"c\""), "b and then c went to the new one");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_other_hooks_changes_nothing() {
    let bench = Bench::new().hook("h", &guests::echoes("event.json"), "match = [\"a\"]");
    let hooks = bench.start();
    let bench = bench.hook("bad", "(module (func (export \"_start\") i32.add))", "match = [\"z\"]");
    let specs = hooks::load(&bench.dir.path().join("hooks.toml")).unwrap();
    let error = hooks.prepare(specs).err().expect("it does not compile").to_string();
    assert!(error.contains("hook \"bad\"") && error.contains("type mismatch"), "{error}");
    bench.create("a", "bytes").await;
    idle(&hooks).await;
    assert_eq!((hooks.status().hooks.len(), status(&hooks).invocations), (1, 1));
    assert!(bench.text("event.json").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_removed_hook_wait_for_one_of_its_name() {
    let bench = Bench::new().hook("h", &guests::exits(1), "match = [\"a\"]\nretry-delay = \"10h\"");
    let hooks = bench.start();
    bench.create("a", "bytes").await;
    while status(&hooks).errors == 0 || status(&hooks).running > 0 {
        tokio::task::yield_now().await;
    }
    assert!(hooks.prepare_without("x").err().expect("no such hook").to_string().contains("there are h"));
    let switched = hooks.switch(hooks.prepare_without("h").unwrap());
    assert_eq!((&switched.removed, &switched.waited_for), (&vec!["h".to_owned()], &vec!["h".to_owned()]));
    bench.create("a", "seen by nobody").await;
    idle(&hooks).await;
    assert_eq!(bench.journal.tasks_of("h", 9, |_| true).unwrap().len(), 1, "the one from before");
    assert_eq!(switch(&bench, &hooks).added, ["h"]);
    assert_eq!((status(&hooks).queued, status(&hooks).dead), (1, 0));
}
