//! `s3mount hooks deploy` and `remove` on a live mount, and what the next one finds.

use std::fs;
use std::process::Output;

use serde_json::Value;

use crate::stage::{Maker, Mount, PATIENCE, Stage, process};

/// Leaves an empty file of this name.
fn guest(leaves: &str) -> String {
    let length = leaves.len();
    format!(
        r#"(module
      (import "wasi_snapshot_preview1" "path_open"
        (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
      (memory (export "memory") 1) (data (i32.const 64) "{leaves}")
      (func (export "_start") (drop (call $path_open (i32.const 5) (i32.const 0) (i32.const 64) (i32.const {length})
        (i32.const 1) (i64.const 0x400040) (i64.const 0) (i32.const 0) (i32.const 32)))))"#
    )
}

/// Writes a settings file with one hook, which leaves `made/NAME` for each file in `in/`.
fn settings(mount: &Mount, file: &str, hook: &str) -> String {
    fs::write(mount.beside(&format!("{hook}.wat")), guest(hook)).unwrap();
    let rule = "match = [\"in/*\"]\noutput = \"made\"";
    let path = mount.beside(file);
    fs::write(&path, format!("[[hook]]\nname = \"{hook}\"\nwasm = \"{hook}.wat\"\n{rule}\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

fn hooks(mount: &Mount, words: &[&str]) -> Output {
    process::output(mount.command().current_dir(mount.path()).arg("hooks").args(words), PATIENCE)
}

fn succeed(mount: &Mount, words: &[&str]) -> String {
    let output = hooks(mount, words);
    assert!(output.status.success(), "{words:?}: {output:?}\n{}", mount.log());
    String::from_utf8(output.stdout).unwrap()
}

fn refused(mount: &Mount, words: &[&str], part: &str) {
    let output = hooks(mount, words);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{words:?}: {output:?}");
    assert!(error.contains(part), "{part} is missing in {error}");
}

/// The names of the mount's hooks.
fn names(mount: &Mount) -> Vec<String> {
    let listed: Value =
        serde_json::from_str(&succeed(mount, &["list", mount.path().to_str().unwrap(), "--json"])).unwrap();
    let hooks = listed[0]["hooks"].as_array().unwrap();
    hooks.iter().map(|hook| hook["name"].as_str().unwrap().to_owned()).collect()
}

/// What is made of a new file.
fn made(mount: &Mount) -> Vec<String> {
    fs::create_dir_all(mount.at("in")).unwrap();
    fs::write(mount.at("in/a"), "bytes").unwrap();
    succeed(mount, &["wait", mount.at("in").to_str().unwrap()]);
    let made = mount.outside().keys("made/");
    for key in &made {
        mount.outside().delete(key);
    }
    made
}

#[test]
fn a_mount_without_hooks_is_given_some_which_it_keeps() {
    let mut mount = Stage::on(Maker::Embedded).mount();
    refused(&mount, &["deploy"], "no file of hooks of its own");
    let file = settings(&mount, "hooks.toml", "one");
    assert_eq!(succeed(&mount, &["deploy", &file]), "added    one\n");
    assert_eq!(made(&mount), ["made/one"]);

    // An error in a file changes nothing.
    fs::write(mount.beside("wrong.toml"), "[[hook]]\nname = \"two\"\nwasm = \"one.wat\"\nretries = 9999\n").unwrap();
    refused(
        &mount,
        &["deploy", mount.beside("wrong.toml").to_str().unwrap()],
        "wrong.toml:4: hook \"two\": 9999 retries",
    );
    fs::write(mount.at("hooks.toml"), "").unwrap();
    refused(&mount, &["deploy", mount.at("hooks.toml").to_str().unwrap()], "lies on the mount itself");
    assert_eq!(made(&mount), ["made/one"]);

    // What it was deployed from is not needed any more.
    fs::remove_file(file).unwrap();
    fs::remove_file(mount.beside("one.wat")).unwrap();
    mount.remount();
    assert_eq!(made(&mount), ["made/one"]);

    refused(&mount, &["remove", "x"], "no hook has the name x; there are one");
    assert_eq!(succeed(&mount, &["remove", "one"]), "removed  one\n");
    assert!(made(&mount).is_empty());
    mount.remount();
    assert!(names(&mount).is_empty() && made(&mount).is_empty());
}

#[test]
fn what_was_deployed_holds_until_the_file_of_the_mount_is_changed() {
    let mut mount = Stage::on(Maker::Embedded).hooks("").mount();
    settings(&mount, "hooks.toml", "own");
    assert_eq!(succeed(&mount, &["deploy", mount.path().to_str().unwrap()]), "added    own\n");
    assert_eq!(made(&mount), ["made/own"]);
    let other = settings(&mount, "other.toml", "other");
    let told: Value = serde_json::from_str(&succeed(&mount, &["deploy", &other, "--json"])).unwrap();
    assert_eq!((&told["added"][0], &told["removed"][0]), (&"other".into(), &"own".into()));
    mount.remount();
    assert_eq!(made(&mount), ["made/other"]);
    settings(&mount, "hooks.toml", "changed");
    mount.remount();
    assert_eq!(made(&mount), ["made/changed"]);
    assert!(mount.log().contains("--hooks has changed since"), "{}", mount.log());
}

#[test]
fn the_example_of_the_serverless_framework_is_deployed() {
    let mount = Stage::on(Maker::Embedded).mount();
    let bucket = mount.outside().bucket().to_owned();
    let yml = mount.beside("serverless.yml");
    let text = "service: users\nframeworkVersion: '4'\n\nprovider:\n  name: aws\n  runtime: nodejs20.x\n\nfunctions:\n  \
        users:\n    handler: users.handler\n    events:\n      - s3:\n          bucket: BUCKET\n          \
        event: s3:ObjectCreated:*\n          rules:\n            - prefix: uploads/\n            - suffix: .jpg\n";
    let text = text.replace("BUCKET", &bucket);
    fs::write(mount.beside("users.wasm"), guest("seen")).unwrap();
    fs::write(&yml, &text).unwrap();
    assert_eq!(succeed(&mount, &["deploy", "-c", yml.to_str().unwrap()]), "added    users\n");
    fs::create_dir(mount.at("uploads")).unwrap();
    fs::write(mount.at("uploads/a.png"), "bytes").unwrap();
    fs::write(mount.at("uploads/a.jpg"), "bytes").unwrap();
    succeed(&mount, &["wait", mount.at("uploads").to_str().unwrap()]);
    assert_eq!(mount.outside().keys("uploads/").iter().filter(|key| !key.ends_with('/')).count(), 3);
    let stats: Value =
        serde_json::from_str(&succeed(&mount, &["stats", "--json", mount.path().to_str().unwrap()])).unwrap();
    assert_eq!(stats[0]["hooks"]["hooks"][0]["invocations"], 1);

    fs::write(&yml, text.replace("events:", "layers: []\n    events:")).unwrap();
    refused(
        &mount,
        &["deploy", "-c", yml.to_str().unwrap()],
        "serverless.yml:11: hook \"users\": `layers` means nothing",
    );
    assert_eq!(names(&mount), ["users"]);
}
