//! Hooks end to end: closing a file fires them, their output appears in the mount and the bucket.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::stage::{Maker, Mount, PATIENCE, Stage, process, wait_for};

/// A guest that `scripts/build-hooks` has built.
fn guest(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks/built").join(name).with_extension("wasm");
    assert!(path.exists(), "{} is missing: `scripts/build-hooks` makes it", path.display());
    path
}

/// The text of a hooks file with one hook.
fn hook(name: &str, wasm: &Path, rest: &str) -> String {
    format!("[[hook]]\nname = \"{name}\"\nwasm = \"{}\"\nevents = [\"s3:ObjectCreated:*\"]\n{rest}\n", wasm.display())
}

/// `uploads/NAME` → `uploads/NAME.sha256`.
pub fn sha256sum_hooks() -> String {
    hook("sha256sum", &guest("sha256sum"), "match = [\"uploads/**\"]\nexclude = [\"**/*.sha256\"]")
}

/// The line that `sha256sum` writes.
pub fn sha256_line(bytes: &[u8], name: &str) -> String {
    format!("{}  {name}\n", hex::encode(Sha256::digest(bytes)))
}

/// Waits for an object of the bucket.
fn object(mount: &Mount, key: &str) -> Vec<u8> {
    wait_for(&format!("the object {key}"), PATIENCE, || mount.outside().get(key)).bytes
}

fn with_wat(rest: &str, wat: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("guest.wat");
    fs::write(&file, wat).unwrap();
    let toml = hook("guest", &file, &format!("match = [\"f*\"]\n{rest}"));
    (dir, toml)
}

#[test]
fn closing_a_file_writes_its_checksum_beside_it() {
    let mount = Stage::on(Maker::Embedded).hooks(&sha256sum_hooks()).mount();
    fs::create_dir(mount.at("uploads")).unwrap();
    fs::write(mount.at("uploads/report.pdf"), "some bytes").unwrap();
    let wanted = sha256_line(b"some bytes", "report.pdf");
    assert_eq!(String::from_utf8(object(&mount, "uploads/report.pdf.sha256")).unwrap(), wanted);
    wait_for("the result in the mount", PATIENCE, || {
        (fs::read_to_string(mount.at("uploads/report.pdf.sha256")).ok()? == wanted).then_some(())
    });
    process::bash(&mount.at("uploads"), "sha256sum -c report.pdf.sha256");
}

#[test]
fn each_version_of_a_file_fires_the_hook() {
    let mount = Stage::on(Maker::Embedded).hooks(&sha256sum_hooks()).mount();
    fs::create_dir(mount.at("uploads")).unwrap();
    for round in 0..3 {
        fs::write(mount.at("uploads/f"), format!("version {round}")).unwrap();
        let wanted = sha256_line(format!("version {round}").as_bytes(), "f");
        wait_for("the sum of this version", PATIENCE, || {
            (mount.outside().get("uploads/f.sha256")?.bytes == wanted.as_bytes()).then_some(())
        });
    }
}

#[test]
fn the_same_bytes_written_again_fire_nothing() {
    let mount = Stage::on(Maker::Embedded).hooks(&sha256sum_hooks()).mount();
    fs::create_dir(mount.at("uploads")).unwrap();
    let hook = || mount.status()["hooks"]["hooks"][0].clone();
    for (bytes, runs, unchanged) in [("one", 1, 0), ("one", 1, 1), ("two", 2, 1), ("one", 3, 1), ("one", 3, 2)] {
        fs::write(mount.at("uploads/f"), bytes).unwrap();
        wait_for("the hook", PATIENCE, || {
            let hook = hook();
            (hook["invocations"] == runs && hook["unchanged"] == unchanged && hook["queued"] == 0).then_some(())
        });
    }
    fs::remove_file(mount.at("uploads/f")).unwrap();
    fs::write(mount.at("uploads/f"), "one").unwrap();
    wait_for("the hook, because it is another file", PATIENCE, || (hook()["invocations"] == 4).then_some(()));
}

#[test]
fn a_multipart_upload_and_a_rename_fire_too() {
    let mount = Stage::on(Maker::Embedded).hooks(&sha256sum_hooks()).mount();
    fs::create_dir(mount.at("uploads")).unwrap();
    let big = vec![7; 20 << 20];
    fs::write(mount.at("elsewhere"), &big).unwrap();
    fs::rename(mount.at("elsewhere"), mount.at("uploads/renamed")).unwrap();
    fs::write(mount.at("uploads/big"), &big).unwrap();
    for name in ["renamed", "big"] {
        let sum = object(&mount, &format!("uploads/{name}.sha256"));
        assert_eq!(String::from_utf8(sum).unwrap(), sha256_line(&big, name));
    }
}

#[test]
fn a_gz_file_is_expanded() {
    let toml = hook("gunzip", &guest("gunzip"), "match = [\"**/*.gz\"]");
    let mount = Stage::on(Maker::Embedded).hooks(&toml).mount();
    process::bash(
        mount.path(),
        "seq 100000 > ../plain; gzip < ../plain > deep.gz; mkdir d; cp deep.gz d/numbers.txt.gz",
    );
    assert!(object(&mount, "d/numbers.txt") == fs::read(mount.beside("plain")).unwrap());
    assert!(object(&mount, "deep") == fs::read(mount.beside("plain")).unwrap());
}

#[test]
fn a_picture_gets_its_thumbnail() {
    let rest = "match = [\"photos/**/*.{jpg,png}\"]\noutput = \"thumbs/\"\nmemory = \"512M\"";
    let mount = Stage::on(Maker::Embedded).hooks(&hook("thumbnail", &guest("thumbnail"), rest)).mount();
    fs::create_dir(mount.at("photos")).unwrap();
    // A picture of 800 × 600 pixels, red on the left and blue on the right.
    let script = "import struct, sys, zlib\n\
        def chunk(kind, data): return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))\n\
        row = b'\\0' + b'\\xff\\0\\0' * 400 + b'\\0\\0\\xff' * 400\n\
        head = struct.pack('>IIBBBBB', 800, 600, 8, 2, 0, 0, 0)\n\
        open(sys.argv[1], 'wb').write(b'\\x89PNG\\r\\n\\x1a\\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(row * 600)) + chunk(b'IEND', b''))\n";
    process::run(Command::new("python3").args(["-c", script]).arg(mount.beside("wide.png")));
    process::bash(mount.path(), "cp ../wide.png photos/");
    let thumbnail = object(&mount, "thumbs/wide.png");
    assert_eq!(&thumbnail[..8], b"\x89PNG\r\n\x1a\n");
    let side = |at: usize| u32::from_be_bytes(thumbnail[at..at + 4].try_into().unwrap());
    assert_eq!((side(16), side(20)), (256, 192));
    wait_for("the thumbnail in the mount", PATIENCE, || {
        (fs::read(mount.at("thumbs/wide.png")).ok()? == thumbnail).then_some(())
    });
}

#[test]
fn a_directory_of_which_a_hook_takes_the_last_file_stays() {
    let toml = format!(
        "[[hook]]\nname = \"catalog\"\nwasm = \"{}\"\nmatch = [\"data/*.json\"]\nwrite = [\"catalog/\"]\n\
         events = [\"ObjectCreated:*\", \"ObjectRemoved:*\"]\n",
        guest("catalog").display()
    );
    let mount = Stage::on(Maker::Embedded).hooks(&toml).mount();
    fs::create_dir(mount.at("data")).unwrap();
    fs::write(mount.at("data/a.json"), "{}").unwrap();
    object(&mount, "catalog/data/a.json");
    let kept = mount.at("catalog/data");
    wait_for("the entry in the mount", PATIENCE, || kept.join("a.json").exists().then_some(()));
    fs::remove_file(mount.at("data/a.json")).unwrap();
    wait_for("the hook", PATIENCE, || mount.outside().get("catalog/data/a.json").is_none().then_some(()));
    assert_eq!(mount.outside().keys("catalog/"), ["catalog/data/"]);
    wait_for("the empty directory", PATIENCE, || (fs::read_dir(&kept).unwrap().count() == 0).then_some(()));
}

#[test]
fn a_hooks_own_output_does_not_fire_it_again() {
    let toml = hook("sha256sum", &guest("sha256sum"), "match = [\"uploads/[fg]*\"]");
    let mount = Stage::on(Maker::Embedded).hooks(&toml).mount();
    fs::create_dir(mount.at("uploads")).unwrap();
    fs::write(mount.at("uploads/f"), "x").unwrap();
    object(&mount, "uploads/f.sha256");
    // A second file's result comes after the first's own event would have been handled.
    fs::write(mount.at("uploads/g"), "x").unwrap();
    object(&mount, "uploads/g.sha256");
    assert!(mount.outside().get("uploads/f.sha256.sha256").is_none());
}

#[test]
fn files_that_match_nothing_fire_nothing() {
    let mount = Stage::on(Maker::Embedded).hooks(&sha256sum_hooks()).mount();
    fs::create_dir(mount.at("uploads")).unwrap();
    fs::write(mount.at("beside"), "x").unwrap();
    fs::write(mount.at("uploads/f"), "x").unwrap();
    object(&mount, "uploads/f.sha256");
    assert!(mount.outside().get("beside.sha256").is_none());
}

#[test]
fn an_endless_loop_delays_no_close_and_no_unmount() {
    let (_dir, toml) = with_wat("timeout = \"2s\"", "(module (func (export \"_start\") (loop br 0)))");
    let mut mount = Stage::on(Maker::Embedded).hooks(&toml).mount();
    for number in 0..20 {
        fs::write(mount.at(&format!("f{number}")), "x").unwrap();
    }
    assert_eq!(mount.outside().keys("").len(), 20);
    mount.stop();
}

#[test]
fn a_hook_that_hogs_memory_or_traps_leaves_the_mount_alone() {
    let hog = "(module (memory (export \"memory\") 1) (func (export \"_start\") \
        (loop (drop (memory.grow (i32.const 1000))) (br 0))))";
    let trap = "(module (func (export \"_start\") unreachable))";
    for wat in [hog, trap] {
        let (_dir, toml) = with_wat("memory = \"16M\"\ntimeout = \"2s\"", wat);
        let mut mount = Stage::on(Maker::Embedded).hooks(&toml).mount();
        fs::write(mount.at("f"), "x").unwrap();
        assert_eq!(fs::read(mount.at("f")).unwrap(), b"x");
        assert!(mount.is_alive());
        mount.stop();
    }
}

#[test]
fn an_invalid_module_is_told_at_the_start() {
    let (_dir, toml) = with_wat("", "(module (this is no wat");
    let mut mount = Stage::on(Maker::Embedded).hooks(&toml).prepare();
    mount.spawn();
    let status = mount.wait_end(PATIENCE);
    assert!(!status.success());
    assert!(mount.log().contains("guest.wat"), "{}", mount.log());
}

#[test]
fn a_failing_hook_is_in_the_status() {
    let (_dir, toml) = with_wat("timeout = \"2s\"", "(module (func (export \"_start\") unreachable))");
    let mount = Stage::on(Maker::Embedded).hooks(&toml).mount();
    fs::write(mount.at("f"), "x").unwrap();
    wait_for("the failure in the status", PATIENCE, || {
        let hooks = mount.status()["hooks"].to_string();
        (hooks.contains("\"failed\":1") || hooks.contains("error") || hooks.contains("retr")).then_some(())
    });
}

#[test]
fn what_was_closed_before_an_unmount_is_delivered_after_the_next_mount() {
    let mut mount = Stage::on(Maker::Embedded).hooks(&sha256sum_hooks()).mount();
    fs::create_dir(mount.at("uploads")).unwrap();
    for number in 0..30 {
        fs::write(mount.at(&format!("uploads/f{number}")), number.to_string()).unwrap();
    }
    mount.remount();
    for number in 0..30 {
        object(&mount, &format!("uploads/f{number}.sha256"));
    }
}
