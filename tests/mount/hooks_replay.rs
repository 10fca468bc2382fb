//! `s3mount hooks replay`: hooks are told again of what is in the bucket.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::guests;
use super::hooks_command::{hooks, json};
use crate::stage::{Maker, Mount, Stage, process, sys};

/// More than a page of LIST.
const MANY: usize = 1003;
const WRITERS: usize = 8;

/// Hooks `all` and `txt` leave the event that they were told last; `loose` writes where its own rule takes it;
/// `many` does nothing, quickly.
fn mount() -> Mount {
    let mount = Stage::on(Maker::Embedded).hooks("").prepare();
    for name in ["all", "txt", "loose"] {
        fs::write(mount.beside(&format!("{name}.wat")), guests::echoes(&format!("{name}.event"))).unwrap();
    }
    fs::write(mount.beside("many.wat"), "(module (func (export \"_start\")))").unwrap();
    let hook = |name: &str, rest: &str| format!("[[hook]]\nname = \"{name}\"\nwasm = \"{name}.wat\"\n{rest}\n");
    let settings = [
        hook("all", "match = [\"in/**\"]\noutput = \"made/\""),
        hook("txt", "match = [\"in/*.txt\"]\noutput = \"made/\""),
        hook("many", "match = [\"many/*.fires\"]\noutput = \"made/\""),
        hook("loose", "match = [\"loose/*\"]\nexclude = [\"**/.*\"]"),
    ];
    fs::write(mount.beside("hooks.toml"), settings.concat()).unwrap();
    mount
}

fn replay(mount: &Mount, words: &[&str]) -> Value {
    let told = json(mount, &[&["replay", "--json"], words].concat());
    wait(mount);
    told
}

fn wait(mount: &Mount) {
    let output = hooks(mount, &["wait", mount.path().to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}\n{}", mount.log());
}

/// The event that a hook was told last, which is then taken away.
fn last_told(mount: &Mount, key: &str) -> Option<Value> {
    let told = mount.outside().get(key)?;
    mount.outside().delete(key);
    Some(serde_json::from_slice(&told.bytes).unwrap())
}

fn counts(told: &Value) -> [u64; 5] {
    let hooks = &told["hooks"];
    [&told["listed"], &told["objects"], &hooks["all"], &hooks["txt"], &hooks["loose"]]
        .map(|count| count.as_u64().unwrap_or_default())
}

#[test]
fn hooks_are_told_again_of_what_is_in_the_bucket() {
    let mut mount = mount();
    mount.start();
    // Written by somebody else: no hook was told.
    for key in ["in/a.txt", "in/deep/b.bin", "elsewhere"] {
        mount.outside().put(key, key.as_bytes());
    }
    wait(&mount);
    assert_eq!(counts(&replay(&mount, &["--dry-run"])), [3, 2, 2, 1, 0]);
    assert!(last_told(&mount, "made/all.event").is_none(), "a dry run has told");
    assert_eq!(counts(&replay(&mount, &["--prefix", "in/a"])), [1, 1, 1, 1, 0]);
    for name in ["all", "txt"] {
        let told = last_told(&mount, &format!("made/{name}.event")).expect("it was told");
        let object = &told["Records"][0]["s3"]["object"];
        assert_eq!((&object["key"], &object["size"]), (&"in/a.txt".into(), &8.into()));
        assert_eq!((&told["s3mount"]["replayed"], &told["s3mount"]["attempt"]), (&true.into(), &1.into()));
    }
    // One hook, and what its rule takes.
    assert_eq!(counts(&replay(&mount, &["--hook", "txt", "--since", "1h"])), [3, 1, 0, 1, 0]);
    assert!(last_told(&mount, "made/txt.event").is_some() && last_told(&mount, "made/all.event").is_none());
    assert_eq!(counts(&replay(&mount, &["--since", "2100-01-01"])), [3, 0, 0, 0, 0]);
    // What happens is told as ever.
    fs::write(mount.at("in/a.txt"), "new").unwrap();
    wait(&mount);
    assert_eq!(last_told(&mount, "made/all.event").unwrap()["s3mount"].get("replayed"), None);

    for (words, part) in [(["--hook", "none"], "no hook has this name"), (["--since", "soon"], "is no time")] {
        let output = hooks(&mount, &[&["replay"], &words[..]].concat());
        assert_eq!(output.status.code(), Some(64), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(part), "{output:?}");
    }
}

#[test]
fn what_a_hook_made_is_not_told_to_it_again_until_somebody_has_written_it() {
    let mut mount = mount();
    mount.start();
    mount.outside().put("loose/a", b"a");
    assert_eq!(counts(&replay(&mount, &["--prefix", "loose/"])), [1, 1, 0, 0, 1]);
    assert!(mount.outside().get("loose/loose.event").is_some());
    // Its rule takes it; its metadata says whose it is, also with another mode.
    sys::chmod(&mount.at("loose/loose.event"), 0o600).unwrap();
    mount.remount();
    assert_eq!(counts(&replay(&mount, &["--prefix", "loose/"])), [2, 1, 0, 0, 1]);
    // Written while the hook is not there, which would make it again at once.
    process::run(mount.command().args(["hooks", "remove", "loose"]).arg(mount.path()));
    fs::write(mount.at("loose/loose.event"), "mine").unwrap();
    wait(&mount);
    process::run(mount.command().args(["hooks", "deploy"]).arg(mount.path()));
    assert_eq!(counts(&replay(&mount, &["--prefix", "loose/"])), [2, 2, 0, 0, 2]);
}

#[test]
fn a_replay_of_many_pages_is_durable() {
    let mut mount = mount();
    mount.start();
    // Few of each page fire: it is about pages.
    let fires = |number: &usize| number.is_multiple_of(100) || *number >= 1000;
    let put = |number: usize| {
        let ending = if fires(&number) { ".fires" } else { "" };
        mount.outside().put(&format!("many/{number:04}{ending}"), b"x");
    };
    std::thread::scope(|scope| {
        for first in 0..WRITERS {
            scope.spawn(move || (first..MANY).step_by(WRITERS).for_each(put));
        }
    });
    let told = json(&mount, &["replay", "--prefix", "many/", "--json"]);
    mount.kill();
    let wanted = (0..MANY).filter(fires).count();
    assert_eq!((&told["listed"], &told["hooks"]["many"]), (&MANY.into(), &wanted.into()));
    mount.start();
    wait(&mount);
    let log = hooks(&mount, &["logs", "many"]).stdout;
    let log = String::from_utf8_lossy(&log);
    let keys: BTreeSet<&str> =
        log.lines().filter_map(|line| line.split_once("\tKey: many/")).map(|(_, key)| key).collect();
    assert_eq!(keys.len(), wanted, "{keys:?}");
}
