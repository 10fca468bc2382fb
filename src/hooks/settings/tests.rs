//! What settings are read as, and what is refused.

use super::*;
use crate::hooks::OnError;

fn read(settings: &str) -> Result<Vec<HookSpec>> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("m.wat"), "(module)").unwrap();
    std::fs::write(dir.path().join("junk.wasm"), b"\x7fELF....").unwrap();
    let file = dir.path().join("hooks.toml");
    std::fs::write(&file, settings).unwrap();
    load(&file)
}

fn problem(settings: &str) -> String {
    let message = read(settings).expect_err(settings).to_string();
    message.split_once("hooks.toml").map_or(message.clone(), |(_, rest)| rest.to_owned())
}

#[test]
fn what_is_not_said_has_its_default() {
    let spec = read("[[hook]]\nname = \"h\"\nwasm = \"m.wat\"\nmatch = [\"a\"]").unwrap().remove(0);
    assert!(!spec.allow_recursion);
    assert_eq!(spec.memory_bytes, 128 << 20);
    assert_eq!(spec.timeout, Duration::from_secs(30));
    assert_eq!((spec.concurrency, spec.storage_bytes, spec.max_input_bytes), (2, 512 << 20, 5 << 30));
    assert_eq!((spec.output, spec.env), (None, BTreeMap::new()));
    let (first_delay, longest_delay) = (Duration::from_secs(1), Duration::from_mins(5));
    assert_eq!(spec.delivery, Delivery { retries: 2, first_delay, longest_delay, max_age: None });
    assert!(read("").unwrap().is_empty());
}

#[test]
fn everything_can_be_said() {
    let spec = read(
        "[[hook]]\nname = \"h-1\"\nwasm = \"m.wat\"\nevents = [\"ObjectRemoved:*\"]\nmatch = [\"a/**\"]\nexclude = [\"b\"]
         prefix = \"a/\"\nsuffix = \".c\"\noutput = \"/thumbs\"\nenv = { A = \"b\" }\nmemory = \"1G\"\ntimeout = \"5m\"
         concurrency = 8\nstorage = \"1G\"\nmax-input = \"10M\"
         retries = 9\nretry-delay = \"10s\"\nretry-max-delay = \"1h\"\nmax-age = \"2d\"",
    )
    .unwrap()
    .remove(0);
    assert_eq!(spec.output.as_deref(), Some("thumbs/"));
    assert_eq!(spec.timeout, Duration::from_mins(5));
    assert_eq!((spec.memory_bytes, spec.max_input_bytes), (1 << 30, 10 << 20));
    assert_eq!(spec.env["A"], "b");
    let (first_delay, longest_delay) = (Duration::from_secs(10), Duration::from_hours(1));
    let max_age = Some(Duration::from_hours(48));
    assert_eq!(spec.delivery, Delivery { retries: 9, first_delay, longest_delay, max_age });
}

#[test]
fn errors_name_the_line_and_the_hook() {
    let hook = |setting: &str| format!("# first\n[[hook]]\nname = \"h\"\nwasm = \"m.wat\"\n{setting}");
    for (setting, expected) in [
        ("memory = \"lots\"", ":5: hook \"h\": \"lots\" is no size; write it like \"128M\" or \"2G\""),
        ("memory = \"8G\"", ":5: hook \"h\": memory of 8G is outside of 64K to 4G"),
        ("timeout = \"1h\"", ":5: hook \"h\": a timeout of 1h is outside of 1ms to 900s"),
        ("concurrency = 0", ":5: hook \"h\": a concurrency of 0 is outside of 1 to 64"),
        ("target = \"sqs:http://h/1/q\"", ":4: hook \"h\": a hook with a target runs no program: it has no wasm"),
        ("retries = 1001", ":5: hook \"h\": 1001 retries are more than 1000"),
        ("retry-delay = \"0s\"", ":5: hook \"h\": a retry-delay of 0s is outside of 1ms to 24h"),
        ("retry-max-delay = \"25h\"", ":5: hook \"h\": a retry-max-delay of 25h is outside of 1ms to 24h"),
        ("retry-max-delay = \"1ms\"", ":5: hook \"h\": a retry-max-delay of 1ms is shorter than retry-delay"),
        ("max-age = \"366d\"", ":5: hook \"h\": a max-age of 366d is outside of 1s to 365d"),
        ("max-age = \"soon\"", ":5: hook \"h\": \"soon\" is no duration; write it like \"30s\" or \"5m\""),
        ("mode = \"later\"", ":5: hook \"h\": there is no mode \"later\"; there are \"async\" and \"sync\""),
        ("on-error = \"allow\"", ":5: hook \"h\": on-error is for hooks with mode = \"sync\""),
        (
            "mode = \"sync\"\nretries = 1",
            ":6: hook \"h\": a synchronous hook publishes nothing and is asked once: it has no retries",
        ),
        ("output = \"a/../b\"", ":5: hook \"h\": \"a/../b\" can't be a directory (DotComponent)"),
        ("env = { AWS_LAMBDA_X = \"1\" }", ":5: hook \"h\": AWS_LAMBDA_X is set by s3mount itself"),
    ] {
        assert_eq!(problem(&hook(setting)), expected);
    }
    assert!(problem(&hook("match = [\n\"ok\",\n\"[\"]")).starts_with(":7: hook \"h\": \"[\" is no pattern"));
    assert!(problem(&hook("events = [\"ObjectSeen\"]")).contains("never happens here; there are ObjectCreated:*"));
    assert!(problem(&hook("memmory = \"1G\"")).starts_with(":5: unknown field `memmory`"));
    assert_eq!(
        problem(&hook("output = \"made\"")),
        ":3: hook \"h\": its output goes to \"made/\", where its own rule takes it; choose another output or match, \
         exclude, or allow-recursion = true"
    );
    let one = |name: &str, from: &str, to: &str| {
        format!("[[hook]]\nname = \"{name}\"\nwasm = \"m.wat\"\nmatch = [\"{from}/*\"]\noutput = \"{to}\"\n")
    };
    let ring = problem(&format!("{}{}", one("x", "a", "b"), one("y", "b", "a")));
    let begin = ":2: hook \"x\": its output goes to \"b/\", where it fires \"y\", and that this hook again; ";
    assert!(ring.starts_with(begin), "{ring}");
    assert_eq!(problem(&hook(&hook(""))), ":7: hook \"h\": another hook has this name already");
    assert!(problem("[[hook]]\nname = \"a b\"\nwasm = \"m.wat\"").starts_with(":2: hook \"a b\": a name has"));
    assert!(problem("nonsense").starts_with(":1: "));
}

#[test]
fn a_synchronous_hook_denies_by_default_and_may_take_what_it_is_asked_about() {
    let hook = |rest: &str| read(&format!("[[hook]]\nname = \"h\"\nwasm = \"m.wat\"\n{rest}")).unwrap().remove(0);
    let spec = hook("mode = \"sync\"");
    assert_eq!((spec.mode, spec.concurrency), (Mode::Sync { on_error: OnError::Deny }, 8));
    assert_eq!(hook("mode = \"sync\"\non-error = \"allow\"").mode, Mode::Sync { on_error: OnError::Allow });
    assert_eq!(hook("mode = \"async\"\nmatch = [\"a\"]").mode, Mode::Async);
}

#[test]
fn a_module_that_cannot_run_is_found_at_once() {
    let hook = |wasm: &str| problem(&format!("[[hook]]\nname = \"h\"\nwasm = \"{wasm}\""));
    assert!(hook("missing.wasm").contains("hook \"h\"") && hook("missing.wasm").contains("No such file"));
    assert!(hook("junk.wasm").contains("is no WebAssembly"));
}

#[test]
fn a_huge_module_is_refused_unread() {
    let dir = tempfile::tempdir().unwrap();
    let huge = std::fs::File::create(dir.path().join("huge.wasm")).unwrap();
    huge.set_len(1 << 40).unwrap();
    let file = dir.path().join("hooks.toml");
    std::fs::write(&file, "[[hook]]\nname = \"h\"\nwasm = \"huge.wasm\"").unwrap();
    assert!(load(&file).unwrap_err().to_string().contains("larger than 64 MiB"));
}

#[test]
fn a_target_stands_in_place_of_a_module() {
    let hook = |settings: &str| format!("[[hook]]\nname = \"h\"\n{settings}");
    for target in ["sqs:https://sqs.eu-west-1.amazonaws.com/1/q", "webhook:https://h/x", "lambda:resize"] {
        let spec = read(&hook(&format!("target = \"{target}\"\nretries = 5"))).unwrap().remove(0);
        assert_eq!(spec.target.unwrap().to_string(), target);
    }
    for (settings, expected) in [
        ("", ":2: hook \"h\": a hook needs wasm, or a target"),
        ("target = \"prefix:a\"", ":3: hook \"h\": \"prefix:a\" is no target: sqs:URL, webhook:URL or lambda:NAME"),
        (
            "target = \"lambda:f\"\nmemory = \"1G\"",
            ":4: hook \"h\": a hook with a target runs no program: it has no memory",
        ),
        (
            "target = \"lambda:f\"\nmode = \"sync\"",
            ":4: hook \"h\": a hook with a target runs no program: it has no mode",
        ),
    ] {
        assert_eq!(problem(&hook(settings)), expected);
    }
}
