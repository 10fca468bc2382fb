//! The guests that `scripts/build-hooks --all` makes: each kind of guest, several languages.

use std::path::PathBuf;

use super::*;

/// A guest, unless its toolchain is missing on this machine.
fn built(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks/built").join(name);
    if let Ok(reason) = std::fs::read_to_string(path.with_extension("missing")) {
        eprintln!("{name} is not tested: {reason}");
        return None;
    }
    let path = path.with_extension("wasm");
    assert!(path.exists(), "{} is missing: `scripts/build-hooks --all` makes it", path.display());
    Some(path)
}

/// A bench whose one hook `h` is this guest.
fn bench_with(guest: &Path, settings: &str) -> Bench {
    let bench = Bench::new();
    let hook = format!("[[hook]]\nname = \"h\"\nwasm = \"{}\"\n{settings}\n", guest.display());
    std::fs::write(bench.dir.path().join("hooks.toml"), hook).unwrap();
    bench
}

#[tokio::test(flavor = "multi_thread")]
async fn a_typed_hook_in_rust_keeps_a_catalog() {
    let Some(guest) = built("catalog") else { return };
    let settings = "match = [\"data/*.json\"]\nevents = [\"ObjectCreated:*\", \"ObjectRemoved:*\"]
        write = [\"catalog/\"]\nconfig = { by = \"me\" }";
    let bench = bench_with(&guest, settings);
    let hooks = bench.start();
    bench.create("data/a.json", "{\"x\": 1, \"y\": 2}").await;
    bench.create("data/gone.json", "{}").await;
    idle(&hooks).await;
    bench.bucket.remove("data/gone.json");
    bench.tell(EventName::RemovedDelete, "data/gone.json", 0, None).await;
    idle(&hooks).await;
    assert_eq!(status(&hooks).errors, 0, "{}", last_error(&status(&hooks)));
    let entry: serde_json::Value = serde_json::from_str(&bench.text("catalog/data/a.json").unwrap()).unwrap();
    assert_eq!(entry, serde_json::json!({"path": "data/a.json", "bytes": 16, "members": 2, "by": "me"}));
    assert_eq!(bench.text("catalog/data/gone.json"), None);
    let log = bench.log("h");
    assert!(log.contains("INFO data/a.json is in the catalog\nstdout: catalog/data/a.json\n"), "{log}");

    bench.create("data/bad.json", "{\"x\": ").await;
    idle(&hooks).await;
    assert_eq!(status(&hooks).dead, 1);
    assert!(last_error(&status(&hooks)).starts_with("exit code 77 (veto): data/bad.json: EOF"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_may_be_a_component_or_written_in_another_language() {
    let sum = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03  a b\n";
    for (guest, written, said) in [
        ("sha256sum-component", Some(("docs/a b.sha256", sum)), ""),
        ("linecount", Some(("docs/a b.lines", "1\n")), "1 lines in a b\n"),
        ("eventkey", None, "stdout: docs/a+b\n"),
        ("note", None, "stdout: an event of "),
    ] {
        let Some(path) = built(guest) else { continue };
        let bench = bench_with(&path, "match = [\"docs/a*\"]\nexclude = [\"**/*.*\"]");
        let hooks = bench.start();
        bench.create("docs/a b", "hello\n").await;
        idle(&hooks).await;
        let status = status(&hooks);
        assert_eq!((status.invocations, status.errors), (1, 0), "{guest}: {}", last_error(&status));
        assert!(bench.log("h").contains(said), "{guest}: {}", bench.log("h"));
        if let Some((key, text)) = written {
            assert_eq!(bench.text(key).as_deref(), Some(text), "{guest}");
        }
        assert_eq!(bench.bucket.keys().len(), 1 + usize::from(written.is_some()), "{guest}");
    }
}
