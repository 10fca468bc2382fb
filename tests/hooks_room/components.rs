//! Components: commands of WASI 0.2, and the typed world with what it is granted.

use s3mount::error::Errno;
use s3mount::hooks::{Decision, Question, Which};

use super::component_guests::{self, at, command, typed};
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_is_a_command_runs_as_one() {
    for (body, dead, problem) in
        [("(i32.const 0)", 0, ""), ("(i32.const 1)", 1, "exit code 1"), ("unreachable", 1, "trapped")]
    {
        let (bench, status) = outcome_of(&command(body), "retries = 0").await;
        assert_eq!((status.invocations, status.dead), (1, dead), "{body}: {}", last_error(&status));
        assert!(last_error(&status).starts_with(problem), "{}", last_error(&status));
        assert!(bench.log("h").contains("REPORT RequestId: "));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn components_have_the_limits_of_modules() {
    let grow = "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
    let forever = "(loop $again (br $again)) unreachable";
    let deep = "(call $deeper (i32.const 0))) (func $deeper (param i32) (result i32) (call $deeper (local.get 0))";
    for (module, settings, reason) in [
        (command(forever), "timeout = \"100ms\"", "Task timed out after 0.10 seconds"),
        (typed("", forever), "timeout = \"100ms\"", "Task timed out after 0.10 seconds"),
        (command(grow), "memory = \"8M\"", "refused memory beyond its limit"),
        (typed("", grow), "memory = \"8M\"", "refused memory beyond its limit"),
        (command(deep), "", "call stack exhausted"),
        (typed("", "unreachable"), "", "unreachable"),
    ] {
        let (_, status) = outcome_of(&module, &format!("retries = 0\n{settings}")).await;
        assert_eq!(status.dead, 1);
        assert!(last_error(&status).contains(reason), "{}", last_error(&status));
        assert!(status.max_memory_used_bytes <= 8 << 20);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_typed_hook_says_how_it_ended() {
    let data = "all is wellEINVALno such thing";
    let (well, errno, no) = (at(data, "all is well"), at(data, "EINVAL"), at(data, "no such thing"));
    for (answer, runs, dead, reason) in [
        (format!("(call $ok {well})"), 1, 0, ""),
        ("(call $nothing)".into(), 1, 0, ""),
        (format!("(call $retry {no})"), 3, 1, "exit code 75: no such thing"),
        (format!("(call $fatal {no})"), 1, 1, "exit code 65 (fatal): no such thing"),
        (format!("(call $veto {errno} {no})"), 1, 1, "exit code 77 (veto): no such thing"),
    ] {
        let (bench, status) = outcome_of(&typed(data, &answer), "").await;
        assert_eq!((status.invocations, status.dead, last_error(&status)), (runs, dead, reason), "{answer}");
        let log = bench.log("h");
        assert_eq!(log.contains("stdout: all is well\n"), answer.contains("$ok"), "{log}");
        assert_eq!(log.contains("stdout: veto: EINVAL no such thing\n"), answer.contains("$veto"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_typed_hook_may_be_a_synchronous_one() {
    let data = "EINVALno such thing";
    let veto = format!("(call $veto {} {})", at(data, "EINVAL"), at(data, "no such thing"));
    let rule = "match = [\"a\"]\nevents = [\"ObjectRemoved:*\"]\nmode = \"sync\"";
    for (answer, reason) in [("(call $nothing)", None), (veto.as_str(), Some("no such thing"))] {
        let bench = Bench::new().hook("h", &typed(data, answer), rule);
        let hooks = bench.start();
        let question = Question { event: EventName::RemovedDelete, key: "a".into(), size: 0, bytes: None };
        let refused =
            |reason: &str| Decision::Refused { hook: "h".into(), errno: Errno::EINVAL, reason: reason.into() };
        assert_eq!(hooks.ask(&question).await, reason.map_or(Decision::Allowed, refused), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_typed_hook_sees_its_event_and_what_is_granted() {
    let data = "made/event.jsonmade/copytellmoodother/x";
    let (event, copy, mood) = (at(data, "made/event.json"), at(data, "made/copy"), at(data, "mood"));
    // Its event as JSON, a copy of its object, and what the settings say of its mood.
    let body = format!(
        "(call $put {event} (call $json (local.get $event)) (i32.const 0))
         (if (call $refused) (then unreachable))
         (call $get (call $path (local.get $event)))
         (if (call $refused) (then unreachable))
         (call $put {copy} (call $told) (i32.const 1))
         (call $config' {mood} (i32.const 2048))
         (call $log (call $value))
         (call $ok (call $value))"
    );
    let module = typed(data, &body);
    let settings = "match = [\"docs/*\"]\noutput = \"out\"\nwrite = [\"made\"]\nconfig = { mood = \"fine\" }\nenv = { mood = \"bad\" }";
    let seen = "match = [\"made/*\"]\noutput = \"seen\"";
    let bench = Bench { prefix: "home/", ..Bench::new() }.hook("h", &module, settings).hook(
        "other",
        &guests::echoes("event.json"),
        seen,
    );
    let hooks = bench.start();
    bench.create("home/docs/a b", "of docs").await;
    idle(&hooks).await;
    assert_eq!(status(&hooks).errors, 0, "{}", last_error(&status(&hooks)));
    let event: serde_json::Value = serde_json::from_str(&bench.text("home/made/event.json").unwrap()).unwrap();
    assert_eq!(event["Records"][0]["s3"]["object"]["key"], "home/docs/a+b");
    assert_eq!(bench.text("home/made/copy").as_deref(), Some("of docs"));
    assert!(bench.log("h").contains("INFO fine\n"), "{}", bench.log("h"));
    let content_type = bench.bucket.info("home/made/event.json").unwrap().properties.content_type;
    assert_eq!(content_type.as_deref(), Some("application/json"));
    // Other hooks are told of both objects, and whose they are.
    assert_eq!(hooks.status().hooks[1].invocations, 2);
    assert!(bench.text("home/seen/event.json").unwrap().contains("\"lineage\":[\"h\"]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_granted_is_denied() {
    let data = "made/xother/x../xdocs/secretdocs/opennot a line";
    let [made, other, up, secret, open] =
        ["made/x", "other/x", "../x", "docs/secret", "docs/open"].map(|path| at(data, path));
    let denied = "(if (i32.or (i32.eqz (call $refused)) (i32.ne (call $error) (i32.const 1))) (then unreachable))";
    let put = |path: &str| format!("(call $put {path} {made} (i32.const 0))");
    let tries = [
        put(&other),
        put(&up),
        put(&secret),
        put("(call $path (local.get $event))"),
        format!("(call $delete {other})"),
        "(call $delete (call $path (local.get $event)))".into(),
        format!("(call $copy {secret} {made})"),
        format!("(call $copy {open} {other})"),
        format!("(call $get {secret})"),
        format!("(call $get {made})"),
    ]
    .map(|work| work + denied)
    .concat();
    let body = format!("{tries} (call $get {open}) (if (call $refused) (then unreachable)) (call $nothing)");
    let module = typed(data, &body);
    let settings = "match = [\"a\"]\nread = [\"docs/open*\"]\nwrite = [\"made\"]\nretries = 0";
    let bench = Bench::new().hook("h", &module, settings);
    for key in ["docs/secret", "docs/open", "other/x"] {
        bench.bucket.insert(key, "there", s3mount::bucket::Metadata::new());
    }
    let hooks = bench.start();
    bench.create("a", "bytes").await;
    idle(&hooks).await;
    assert_eq!(status(&hooks).errors, 0, "{}", last_error(&status(&hooks)));
    assert_eq!(bench.bucket.keys(), ["a", "docs/open", "docs/secret", "other/x"]);
    assert_eq!(bench.text("other/x").as_deref(), Some("there"));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_hooks_are_told_of_what_a_hook_wrote_before_it_failed() {
    let data = "made/x";
    let body = format!("(call $put {path} {path} (i32.const 0)) unreachable", path = at(data, "made/x"));
    let bench = Bench::new().hook("h", &typed(data, &body), "match = [\"a\"]\nwrite = [\"made\"]\nretries = 0").hook(
        "other",
        &guests::exits(0),
        "match = [\"made/*\"]\noutput = \"seen\"",
    );
    let hooks = bench.start();
    bench.create("a", "bytes").await;
    idle(&hooks).await;
    let counted: Vec<_> = hooks.status().hooks.iter().map(|hook| (hook.invocations, hook.errors)).collect();
    assert_eq!(counted, [(1, 1), (1, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dry_run_writes_is_told_and_not_there() {
    let data = "made/x";
    let path = at(data, "made/x");
    let body = format!("(call $put {path} {path} (i32.const 0)) (call $delete {path}) (call $nothing)");
    let bench = Bench::new().hook("h", &typed(data, &body), "match = [\"b\"]\nwrite = [\"made\"]");
    bench.create("a", "bytes").await;
    bench.bucket.insert("made/x", "from before", s3mount::bucket::Metadata::new());
    let hooks = bench.start();
    let dry = hooks.invoke("h", "a", "ObjectCreated:Put", true).await.unwrap();
    assert_eq!((dry.problem, dry.published), (None, false));
    assert_eq!(dry.output.iter().map(|output| (output.key.as_str(), output.size)).collect::<Vec<_>>(), [("made/x", 6)]);
    assert_eq!(bench.text("made/x").as_deref(), Some("from before"));
    let real = hooks.invoke("h", "a", "ObjectCreated:Put", false).await.unwrap();
    assert_eq!((real.problem, real.published), (None, true));
    assert_eq!(bench.text("made/x"), None);
    assert!(hooks.dead_letters(&Which::default()).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_component_can_call_is_shown() {
    let bench = Bench::new()
        .hook("typed", &typed("", "(call $nothing)"), "match = [\"a\"]\nread = [\"docs/\"]\nwrite = [\"made\"]")
        .hook("command", &command("(i32.const 0)"), "match = [\"a\"]");
    let told = hooks::validate(&bench.dir.path().join("hooks.toml")).unwrap();
    assert!(told[0].kind.starts_with("typed") && told[1].kind.starts_with("command"), "{told:?}");
    assert_eq!(
        told[0].imports,
        [
            "s3mount:hooks/config@0.1.0::get",
            "s3mount:hooks/log@0.1.0::write",
            "s3mount:hooks/objects@0.1.0::copy",
            "s3mount:hooks/objects@0.1.0::delete",
            "s3mount:hooks/objects@0.1.0::get",
            "s3mount:hooks/objects@0.1.0::put",
        ]
    );
    assert_eq!((told[0].read.clone(), told[0].write.clone()), (vec!["docs/**".to_owned()], vec!["made/".to_owned()]));
    assert!(told[1].imports.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_is_no_hook_or_wants_more_is_refused() {
    for (component, reason) in [
        ("(component)".to_owned(), "exports neither wasi:cli/run nor handle"),
        (
            component_guests::typed("", "(call $nothing)").replace("\"json\" string", "\"xml\" string"),
            "its handle is not",
        ),
        (
            command("(i32.const 0)").replacen(
                "(component",
                "(component (import \"wasi:http/outgoing-handler@0.2.0\" (instance (export \"handle\" (func))))",
                1,
            ),
            "wasi:http/outgoing-handler",
        ),
        ("(component (core module (func i32.add)))".to_owned(), "type mismatch"),
    ] {
        let bench = Bench::new().hook("h", &component, "match = [\"a\"]");
        let said = hooks::validate(&bench.dir.path().join("hooks.toml")).unwrap_err().to_string();
        assert!(said.contains(reason) && said.contains("hook \"h\""), "{reason}: {said}");
    }
}
