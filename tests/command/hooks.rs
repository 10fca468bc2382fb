//! `s3mount hooks` where there is no mount.

use super::*;

/// `s3mount hooks` with these words, in a directory.
fn hooks(dir: &Path, words: &[&str]) -> Command {
    let mut command = s3mount();
    command.current_dir(dir).arg("hooks").args(words);
    command
}

#[test]
fn a_hooks_file_is_checked_without_a_mount() {
    let dir = tempfile::tempdir().unwrap();
    let check = |settings: &str| {
        fs::write(dir.path().join("hooks.toml"), format!("[[hook]]\nname = 'h'\n{settings}")).unwrap();
        hooks(dir.path(), &["validate", "hooks.toml"])
    };
    let module = |text: &str| fs::write(dir.path().join("m.wat"), text).unwrap();
    assert_refused(&mut check("wasm = 'none.wasm'"), 64, &["hook \"h\"", "none.wasm"]);
    module("(module (func (export \"_start\") i32.add))");
    assert_refused(&mut check("wasm = 'm.wat'\nmatch = ['*.txt']"), 64, &["m.wat", "type mismatch"]);
    module("(module (import \"env\" \"steal\" (func)) (func (export \"_start\")))");
    assert_refused(&mut check("wasm = 'm.wat'\nmatch = ['*.txt']"), 64, &["env::steal"]);
    module("(module (func (export \"_start\")))");
    assert_refused(&mut check("wasm = 'm.wat'\nretries = 9999"), 64, &["hooks.toml:4", "9999 retries"]);
    assert_refused(
        &mut check("wasm = 'm.wat'\nmatch = ['a/**']"),
        64,
        &["hooks.toml:2", "beside its source", "allow-recursion = true"],
    );
    assert_refused(&mut hooks(dir.path(), &["validate", "none.toml"]), 64, &["none.toml"]);
    let output = run(&mut check("wasm = 'm.wat'\nmatch = ['*.txt']\nretries = 5"));
    assert!(output.status.success(), "{output:?}");
    let told = text(&output.stdout);
    for part in ["*.txt", "wants        nothing", "5, the first after 1 s", "1 hook(s), nothing wrong"] {
        assert!(told.contains(part), "{part} is missing in\n{told}");
    }
}

#[test]
fn a_hook_runs_on_a_local_file_without_a_mount() {
    let dir = tempfile::tempdir().unwrap();
    // Writes what /in/docs/a.txt begins with to /out/docs.
    let module = r#"(module
      (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "path_open"
        (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (data (i32.const 64) "docs/a.txt")
      (func $open (param i32 i32 i32 i64) (result i32)
        (if (call $path_open (local.get 0) (i32.const 0) (i32.const 64) (local.get 1) (local.get 2) (local.get 3)
          (i64.const 0) (i32.const 0) (i32.const 32)) (then unreachable))
        (i32.load (i32.const 32)))
      (func (export "_start") (local $in i32)
        (local.set $in (call $open (i32.const 3) (i32.const 10) (i32.const 0) (i64.const 2)))
        (i32.store (i32.const 0) (i32.const 128)) (i32.store (i32.const 4) (i32.const 64))
        (drop (call $fd_read (local.get $in) (i32.const 0) (i32.const 1) (i32.const 8)))
        (i32.store (i32.const 4) (i32.load (i32.const 8)))
        (drop (call $fd_write (call $open (i32.const 5) (i32.const 4) (i32.const 1) (i64.const 0x400040))
          (i32.const 0) (i32.const 1) (i32.const 8)))))"#;
    fs::write(dir.path().join("m.wat"), module).unwrap();
    let settings = "[[hook]]\nname = 'h'\nwasm = 'm.wat'\nmatch = ['docs/*.txt']\noutput = 'made'\n";
    fs::write(dir.path().join("hooks.toml"), settings).unwrap();
    fs::write(dir.path().join("b"), "of mine").unwrap();
    let invoke = |words: &[&str]| hooks(dir.path(), &[&["invoke", "h", "--file", "b"], words].concat());

    let output = run(&mut invoke(&["--as", "docs/a.txt", "--out", "kept"]));
    assert!(output.status.success(), "{output:?}");
    let told = text(&output.stdout);
    assert!(told.contains("Key: docs/a.txt\n") && told.contains("not published: made/docs (7 B)\n"), "{told}");
    assert_eq!(fs::read(dir.path().join("kept/made/docs")).unwrap(), b"of mine");

    let output = run(&mut invoke(&[]));
    assert_eq!(output.status.code(), Some(70), "{output:?}");
    assert!(text(&output.stderr).starts_with("s3mount: hook \"h\" failed: trapped: "), "{output:?}");
    assert_refused(&mut invoke(&["--as", "a/../b"]), 64, &["is no path"]);
    assert_refused(&mut invoke(&["--event", "ObjectSeen"]), 64, &["ObjectCreated:Put"]);
    assert_refused(&mut invoke(&["--hooks", "none.toml"]), 64, &["none.toml"]);
    assert_refused(&mut hooks(dir.path(), &["invoke", "x", "--file", "b"]), 64, &["there are h"]);
    assert_refused(&mut hooks(dir.path(), &["invoke", "h"]), 64, &["--key"]);
    assert_refused(&mut hooks(dir.path(), &["invoke", "h", "--file", "none"]), 64, &["none"]);
}

#[test]
fn a_worker_says_what_it_misses() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("m.wat"), "(module (func (export \"_start\")))").unwrap();
    fs::write(dir.path().join("hooks.toml"), "[[hook]]\nname = 'h'\nwasm = 'm.wat'\nmatch = ['*.txt']").unwrap();
    let worker = |words: &[&str]| hooks(dir.path(), &[&["worker", "bucket"], words].concat());
    let queue = "sqs:http://127.0.0.1:9/1/jobs";
    assert_refused(&mut worker(&["--hooks", "hooks.toml"]), 64, &["--from"]);
    assert_refused(&mut worker(&["--from", queue]), 64, &["--hooks"]);
    assert_refused(&mut worker(&["--from", queue, "--hooks", "none.toml"]), 64, &["none.toml"]);
    for wrong in ["jobs", "sqs:jobs", "https://sqs.eu-west-1.amazonaws.com/1/jobs"] {
        assert_refused(&mut worker(&["--from", wrong, "--hooks", "hooks.toml"]), 64, &["jobs", "sqs:https://"]);
    }
    let short = ["--from", queue, "--hooks", "hooks.toml", "--visibility", "1s"];
    assert_refused(&mut worker(&short), 64, &["2s to 12h"]);
}

/// A script of a new project, with nothing of the build that this test is part of.
fn script(project: &Path, name: &str) -> Output {
    let mut command = Command::new(project.join(name));
    for variable in ["RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        command.env_remove(variable);
    }
    // Where scripts/build-hooks has built std, if it had to.
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks/target");
    command.env("CARGO_TARGET_DIR", target).env("S3MOUNT", env!("CARGO_BIN_EXE_s3mount"));
    command.stdin(Stdio::null()).output().expect("start a script")
}

#[test]
fn a_new_project_builds_and_its_test_tells_right_from_wrong() {
    for lang in ["c", "rust"] {
        let dir = tempfile::tempdir().unwrap();
        let new = || hooks(dir.path(), &["new", "--lang", lang, "line-count", "--dir", "mine"]);
        let output = run(&mut new());
        assert!(output.status.success() && text(&output.stdout).contains("./test.sh"), "{output:?}");
        let project = dir.path().join("mine");
        fs::write(project.join("README.md"), "changed").unwrap();
        assert_refused(&mut new(), 64, &["mine is there already", "--dir"]);
        assert_eq!(fs::read_to_string(project.join("README.md")).unwrap(), "changed");

        let built = script(&project, "build.sh");
        if !built.status.success() && text(&built.stderr).contains("needs one of") {
            eprintln!("no project in {lang} is built: {}", text(&built.stderr));
            continue;
        }
        assert!(built.status.success(), "{lang}: {built:?}");
        let checked = run(&mut hooks(&project, &["validate", "hooks.toml"]));
        assert!(text(&checked.stdout).contains("1 hook(s), nothing wrong"), "{lang}: {checked:?}");
        let tested = script(&project, "test.sh");
        assert!(tested.status.success(), "{lang}: {tested:?}");
        assert!(text(&tested.stdout).contains("\n3 lines in three.txt, told by "), "{lang}: {tested:?}");
        fs::write(project.join("test/three.txt.lines"), "4\n").unwrap();
        assert!(!script(&project, "test.sh").status.success(), "{lang}: it finds nothing wrong");
    }
    let dir = tempfile::tempdir().unwrap();
    for name in ["a/b", "_", "ä", &"x".repeat(65)] {
        assert_refused(&mut hooks(dir.path(), &["new", "--lang", "c", name]), 64, &["is no name of a hook"]);
    }
    assert_refused(&mut hooks(dir.path(), &["new", "--lang", "cobol", "h"]), 64, &["cobol"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// A pool of instances takes terabytes of addresses; `ulimit -v` leaves a few gigabytes.
#[test]
fn hooks_run_where_addresses_are_few() {
    let dir = tempfile::tempdir().unwrap();
    let module =
        "(module (memory (export \"memory\") 16) (func (export \"_start\") (drop (memory.grow (i32.const 64)))))";
    fs::write(dir.path().join("m.wat"), module).unwrap();
    fs::write(dir.path().join("a"), "x").unwrap();
    fs::write(dir.path().join("hooks.toml"), "[[hook]]\nname = 'h'\nwasm = 'm.wat'\nmatch = ['*']\noutput = 'out'\n")
        .unwrap();
    let mut limited = hooks(dir.path(), &["invoke", "h", "--file", "a"]);
    let few = nix::libc::rlimit { rlim_cur: 3 << 30, rlim_max: 3 << 30 };
    // SAFETY: setrlimit is async-signal-safe, and touches nothing but this process's limits.
    let limit = move || match unsafe { nix::libc::setrlimit(nix::libc::RLIMIT_AS, &raw const few) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    };
    // SAFETY: as above.
    unsafe { std::os::unix::process::CommandExt::pre_exec(&mut limited, limit) };
    let output = run(&mut limited);
    assert!(output.status.success(), "{output:?}");
}
