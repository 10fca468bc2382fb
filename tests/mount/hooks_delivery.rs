//! Every version that a close acknowledged is seen by its hooks, in order, though the mount is killed
//! again and again and every tenth event fails.
//!
//! The ledger of what was acknowledged is kept here. What the hooks saw is told by two of them:
//!
//! - `each` opens no files, so it is promised every version. It writes its event to its log: to stdout when
//!   it ends well, to stderr when it fails. Versions of one size fail at first, those of another for ever.
//! - `latest` reads its file, so it is promised the newest version of a path, and of those before it what is
//!   still there. It leaves what it got as an object with the version's name.
//!
//! `S3MOUNT_SOAK_CLOSES` says how many closes; `scripts/soak` asks for more than `scripts/test`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use md5::{Digest, Md5};
use serde_json::Value;

use super::hooks_command::{hooks, json};
use crate::stage::{Dice, Maker, Mount, PATIENCE, Stage, process, sys};

const CLOSES: usize = 200;
/// One kill for so many closes, in the mean.
const CLOSES_PER_KILL: u64 = 20;
const WRITERS: [char; 2] = ['a', 'b'];
const KEYS_PER_WRITER: u64 = 4;
/// Of a version that fails twice.
const FLAKY_BYTES: usize = 777;
/// Of a version that fails as long as the module is the first one.
const DOOMED_BYTES: usize = 999;
/// All other versions are smaller.
const SOUND_BYTES: u64 = 400;
/// A version says first what it is.
const NAME_BYTES: usize = 10;
/// Of a kill while the mount recovers.
const START_MS: u64 = 300;
/// With more than this waiting nothing is written: logs are collected before they are begun anew.
const BACKLOG: u64 = 1000;

/// What both guests have: the event is read to 4096, where it ends is in `$end`.
const HELPERS: &str = r#"
  (memory (export "memory") 2)
  (global $end (mut i32) (i32.const 4096))
  (data (i32.const 64) "\"size\":999,\"size\":777,\"attempt\":3,\"path\":\"")
  (func $write (param $fd i32) (param $from i32) (param $length i32)
    (i32.store (i32.const 0) (local.get $from))
    (i32.store (i32.const 4) (local.get $length))
    (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func $read (param $fd i32) (param $to i32) (result i32)
    (i32.store (i32.const 0) (local.get $to))
    (i32.store (i32.const 4) (i32.const 8192))
    (drop (call $fd_read (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.load (i32.const 8)))
  (func $read_event (local $length i32)
    (loop $more
      (local.set $length (call $read (i32.const 0) (global.get $end)))
      (global.set $end (i32.add (global.get $end) (local.get $length)))
      (br_if $more (local.get $length))))
  ;; Where the event holds this word, or 0.
  (func $find (param $word i32) (param $length i32) (result i32) (local $from i32) (local $n i32)
    (local.set $from (i32.const 4096))
    (block $none
      (loop $next
        (br_if $none (i32.gt_u (i32.add (local.get $from) (local.get $length)) (global.get $end)))
        (local.set $n (i32.const 0))
        (block $differs
          (loop $more
            (br_if $differs (i32.ne (i32.load8_u (i32.add (local.get $from) (local.get $n)))
              (i32.load8_u (i32.add (local.get $word) (local.get $n)))))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (br_if $more (i32.lt_u (local.get $n) (local.get $length))))
          (return (local.get $from)))
        (local.set $from (i32.add (local.get $from) (i32.const 1)))
        (br $next)))
    (i32.const 0))"#;

const IMPORTS: &str = r#"
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))"#;

/// Fails for some sizes, and tells its event in any case.
fn each(fails_for_ever: bool) -> String {
    let doomed = i32::from(fails_for_ever);
    format!(
        r#"(module {IMPORTS} {HELPERS}
  (func (export "_start") (local $fails i32)
    (call $read_event)
    (local.set $fails (i32.or
      (i32.and (i32.const {doomed}) (i32.ne (call $find (i32.const 64) (i32.const 11)) (i32.const 0)))
      (i32.and (i32.ne (call $find (i32.const 75) (i32.const 11)) (i32.const 0))
        (i32.eqz (call $find (i32.const 86) (i32.const 12))))))
    (call $write (i32.add (i32.const 1) (local.get $fails)) (i32.const 4096)
      (i32.sub (global.get $end) (i32.const 4096)))
    (if (local.get $fails) (then (call $exit (i32.const 1))))))"#
    )
}

/// Leaves its event and the bytes of its file, under the name that these begin with.
fn latest() -> String {
    format!(
        r#"(module {IMPORTS}
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32))) {HELPERS}
  (func $open (param $dir i32) (param $path i32) (param $length i32) (param $oflags i32) (param $rights i64)
    (if (call $path_open (local.get $dir) (i32.const 0) (local.get $path) (local.get $length)
        (local.get $oflags) (local.get $rights) (i64.const 0) (i32.const 0) (i32.const 32))
      (then (call $exit (i32.const 1)))))
  (func (export "_start") (local $path i32) (local $quote i32) (local $length i32)
    (call $read_event)
    (local.set $path (i32.add (call $find (i32.const 98) (i32.const 8)) (i32.const 8)))
    (local.set $quote (local.get $path))
    (loop $more
      (local.set $quote (i32.add (local.get $quote) (i32.const 1)))
      (br_if $more (i32.ne (i32.load8_u (local.get $quote)) (i32.const 34))))
    (call $open (i32.const 3) (local.get $path) (i32.sub (local.get $quote) (local.get $path))
      (i32.const 0) (i64.const 0x2))
    (local.set $length (call $read (i32.load (i32.const 32)) (i32.const 65536)))
    (if (local.get $length) (then
      (call $open (i32.const 5) (i32.const 65536) (i32.const {NAME_BYTES}) (i32.const 1) (i64.const 0x400040))
      (call $write (i32.load (i32.const 32)) (i32.const 4096) (i32.sub (global.get $end) (i32.const 4096)))
      (call $write (i32.load (i32.const 32)) (i32.const 65536) (local.get $length))))))"#
    )
}

fn write_modules(mount: &Mount, fails_for_ever: bool) {
    fs::write(mount.beside("each.wat"), each(fails_for_ever)).unwrap();
    fs::write(mount.beside("latest.wat"), latest()).unwrap();
}

fn prepare() -> Mount {
    let mount = Stage::on(Maker::Embedded).hooks("").prepare();
    write_modules(&mount, true);
    let hook = |name: &str, rest: &str| {
        format!("[[hook]]\nname = \"{name}\"\nwasm = \"{name}.wat\"\nmatch = [\"in/*\"]\n{rest}\n")
    };
    let settings =
        hook("each", "retries = 2\nretry-delay = \"1ms\"\noutput = \"none/\"") + &hook("latest", "output = \"seen/\"");
    fs::write(mount.beside("hooks.toml"), settings).unwrap();
    mount
}

/// What was closed, or was to be.
#[derive(Clone, Debug)]
struct Version {
    key: String,
    /// Grows with the versions of a key.
    number: u64,
    size: usize,
    acknowledged: bool,
}

impl Version {
    fn name(&self) -> String {
        format!("{}-{:07}", &self.key["in/".len()..], self.number)
    }
}

/// All versions by their ETags: no two have the same bytes.
type Ledger = BTreeMap<String, Version>;

/// A program that writes the same few files again and again.
struct Writer {
    name: char,
    dice: Dice,
    count: u64,
}

impl Writer {
    fn next(&mut self) -> (Version, Vec<u8>) {
        self.count += 1;
        let key = format!("in/{}{}", self.name, self.dice.roll(KEYS_PER_WRITER));
        let size = match self.dice.roll(20) {
            0 => FLAKY_BYTES,
            1 => DOOMED_BYTES,
            _ => NAME_BYTES + self.dice.roll(SOUND_BYTES) as usize,
        };
        let version = Version { key, number: self.count, size, acknowledged: false };
        let mut bytes = version.name().into_bytes();
        assert_eq!(bytes.len(), NAME_BYTES);
        bytes.resize(size, b'.');
        (version, bytes)
    }

    /// Writes until the mount dies.
    fn write(&mut self, dir: &Path, done: &AtomicUsize) -> Vec<(String, Version)> {
        let mut written = Vec::new();
        loop {
            let (mut version, bytes) = self.next();
            let closed = File::create(dir.join(&version.key)).and_then(|mut file| {
                file.write_all(&bytes)?;
                sys::close(file)
            });
            version.acknowledged = closed.is_ok();
            written.push((hex::encode(Md5::digest(&bytes)), version));
            if closed.is_err() {
                return written;
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One event as a hook was told of it.
#[derive(Clone, Debug)]
struct Try {
    id: String,
    key: String,
    etag: String,
    sequencer: String,
    went_well: bool,
}

impl Try {
    fn of(event: &Value, went_well: bool) -> Self {
        let object = &event["Records"][0]["s3"]["object"];
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no text in {event}")).to_owned();
        let (key, etag, sequencer) = (text(&object["key"]), text(&object["eTag"]), text(&object["sequencer"]));
        Self { id: text(&event["s3mount"]["eventId"]), key, etag, sequencer, went_well }
    }

    /// Of a file that was cut to nothing when the mount died, which no writer had closed.
    fn is_empty(&self) -> bool {
        self.etag == hex::encode(Md5::digest(b""))
    }
}

/// What `each` has told since the last time, in the order in which it ran.
fn collect(mount: &Mount, tries: &mut Vec<Try>) {
    let mut states = fs::read_dir(mount.beside("state")).unwrap().map(|entry| entry.unwrap().path());
    let Some(hooks) = states.find_map(|state| Some(state.join("hooks")).filter(|hooks| hooks.is_dir())) else {
        return;
    };
    assert!(!hooks.join("each.log.1").exists(), "more was logged than was collected");
    let Ok(log) = fs::read(hooks.join("each.log")) else { return };
    fs::remove_file(hooks.join("each.log")).unwrap();
    let log = String::from_utf8_lossy(&log);
    // A kill may have cut the last line; its event is seen again.
    for line in log.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let (event, went_well) = line.strip_prefix("stdout: ").map_or((line, false), |event| (event, true));
        if event.starts_with("{\"Records\"") {
            let event = serde_json::from_str(event).unwrap_or_else(|error| panic!("{error}: {event}"));
            tries.push(Try::of(&event, went_well));
        }
    }
}

/// Waits until the hooks have nothing to do; answers whether there are dead letters.
fn wait_until_done(mount: &Mount) -> bool {
    let begun = Instant::now();
    loop {
        let path = mount.path().to_str().unwrap();
        let output = hooks(mount, &["wait", path, "--timeout", "30s"]);
        match output.status.code() {
            Some(0) => return false,
            Some(70) => return true,
            Some(75) if begun.elapsed() < PATIENCE * 10 => {}
            _ => panic!("{output:?}\n{}", mount.log()),
        }
    }
}

/// Writes until the mount is killed, at no particular moment; sometimes it is killed again while it
/// recovers. Answers how many kills that was, and how many closes were acknowledged.
fn one_round(mount: &mut Mount, writers: &mut [Writer], dice: &mut Dice, ledger: &mut Ledger) -> (usize, usize) {
    let (dir, done) = (mount.path().to_owned(), AtomicUsize::new(0));
    let enough = dice.roll(2 * CLOSES_PER_KILL) as usize;
    std::thread::scope(|scope| {
        let (dir, done) = (&dir, &done);
        let writing: Vec<_> = writers.iter_mut().map(|writer| scope.spawn(move || writer.write(dir, done))).collect();
        let begun = Instant::now();
        while done.load(Ordering::Relaxed) < enough && begun.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
        for _ in 0..dice.roll(500_000) {
            std::hint::spin_loop();
        }
        mount.kill();
        ledger.extend(writing.into_iter().flat_map(|writing| writing.join().unwrap()));
    });
    let done = done.into_inner();
    assert!(done >= enough, "closes do not succeed while the mount lives\n{}", mount.log());
    if dice.roll(4) > 0 {
        return (1, done);
    }
    mount.spawn();
    std::thread::sleep(Duration::from_millis(dice.roll(START_MS)));
    mount.kill();
    (2, done)
}

/// What one path's versions are told in: their order, each under one id; again only the same one.
fn check_order(tries: &[Try], ledger: &Ledger) {
    let mut last: BTreeMap<&str, (&Try, u64)> = BTreeMap::new();
    let mut ids: BTreeMap<&str, &str> = BTreeMap::new();
    for told in tries {
        let Some(version) = ledger.get(&told.etag) else {
            assert!(told.is_empty(), "{told:?} is nothing that was written");
            continue;
        };
        assert_eq!(version.key, told.key);
        assert_eq!(*ids.entry(&told.etag).or_insert(&told.id), told.id, "two events of {version:?}");
        if let Some((before, number)) = last.insert(&told.key, (told, version.number)) {
            assert!(before.sequencer <= told.sequencer, "{told:?} after {before:?}");
            assert!(number <= version.number, "{version:?} after number {number}");
        }
    }
}

/// Acknowledged versions that `each` has not ended well for.
fn unseen<'a>(tries: &[Try], ledger: &'a Ledger) -> Vec<&'a Version> {
    let seen: BTreeSet<&str> = tries.iter().filter(|told| told.went_well).map(|told| told.etag.as_str()).collect();
    let acknowledged = ledger.iter().filter(|(_, version)| version.acknowledged);
    acknowledged.filter(|(etag, _)| !seen.contains(etag.as_str())).map(|(_, version)| version).collect()
}

/// What `latest` got was whole and what its event told of, and the newest of each path is among it, where
/// that is not empty: of such a one it leaves nothing.
fn check_latest(mount: &Mount, tries: &[Try], ledger: &Ledger) -> usize {
    let seen: BTreeSet<String> = mount.outside().keys("seen/").into_iter().collect();
    for key in &seen {
        let told = mount.outside().bytes(key);
        let mut parts = serde_json::Deserializer::from_slice(&told).into_iter::<Value>();
        let event = Try::of(&parts.next().unwrap().unwrap(), true);
        let bytes = &told[parts.byte_offset()..];
        assert_eq!(hex::encode(Md5::digest(bytes)), event.etag, "{key}: other bytes than the event tells of");
        assert_eq!(format!("seen/{}", ledger[&event.etag].name()), *key);
    }
    let mut newest: BTreeMap<&str, &Version> = BTreeMap::new();
    for version in ledger.values().filter(|version| version.acknowledged) {
        let known = newest.entry(&version.key).or_insert(version);
        *known = if version.number > known.number { version } else { known };
    }
    let last: BTreeMap<&str, &Try> = tries.iter().map(|told| (told.key.as_str(), told)).collect();
    for version in newest.values().filter(|version| !last[version.key.as_str()].is_empty()) {
        // One that was closed and not answered may have taken its place.
        let later = |other: &&Version| other.key == version.key && other.number >= version.number;
        let found = ledger.values().filter(later).any(|other| seen.contains(&format!("seen/{}", other.name())));
        assert!(found, "{version:?} is the newest, and was not seen; last told of: {:?}", last[version.key.as_str()]);
    }
    seen.len()
}

/// The dead letters are those versions that fail for ever, each once.
fn check_dead(mount: &Mount, ledger: &Ledger) -> u64 {
    let letters = json(mount, &["dead-letters", "list", "--json"]);
    let mut dead = BTreeSet::new();
    for letter in letters.as_array().unwrap() {
        assert_eq!((&letter["hook"], &letter["size"]), (&"each".into(), &DOOMED_BYTES.into()), "{letter}");
        assert!(dead.insert(letter["etag"].as_str().unwrap()), "{letter} is there twice");
    }
    for (etag, version) in ledger.iter().filter(|(_, version)| version.acknowledged && version.size == DOOMED_BYTES) {
        assert!(dead.contains(etag.as_str()), "{version:?} is no dead letter");
    }
    dead.len() as u64
}

fn play(closes: usize, seed: u64) {
    let mut mount = prepare();
    mount.start();
    fs::create_dir(mount.at("in")).unwrap();
    let (mut dice, mut ledger, mut tries) = (Dice::new(seed), Ledger::new(), Vec::new());
    let mut writers = WRITERS.map(|name| Writer { name, dice: Dice::new(seed + u64::from(name)), count: 0 });
    let (mut acknowledged, mut kills) = (0, 0);
    while acknowledged < closes {
        let (killed, done) = one_round(&mut mount, &mut writers, &mut dice, &mut ledger);
        (kills, acknowledged) = (kills + killed, acknowledged + done);
        collect(&mount, &mut tries);
        mount.start();
        if mount.status()["hooks"]["hooks"][0]["queued"].as_u64().unwrap() > BACKLOG {
            wait_until_done(&mount);
        }
    }
    assert!(wait_until_done(&mount), "nothing has failed for ever");
    collect(&mount, &mut tries);
    check_order(&tries, &ledger);
    let lost = unseen(&tries, &ledger).into_iter().filter(|version| version.size != DOOMED_BYTES);
    assert_eq!(lost.map(Version::name).collect::<Vec<_>>(), Vec::<String>::new(), "acknowledged and not seen");
    let latest = check_latest(&mount, &tries, &ledger);
    let dead = check_dead(&mount, &ledger);
    let failed = tries.iter().filter(|told| !told.went_well).count();
    eprintln!(
        "{acknowledged} closes acknowledged, {kills} kills: 0 not seen; {} tries, {failed} of them failed, \
         {dead} dead letters, {latest} versions read",
        tries.len()
    );
    redrive(&mut mount, dead, &ledger);
}

/// With a module that does not fail, what was given up is delivered, also over one more kill.
fn redrive(mount: &mut Mount, dead: u64, ledger: &Ledger) {
    write_modules(mount, false);
    process::run(mount.command().args(["hooks", "deploy"]).arg(mount.path()));
    assert_eq!(json(mount, &["dead-letters", "redrive", "--all", "--json"])["count"], dead);
    mount.kill();
    mount.start();
    assert!(!wait_until_done(mount), "dead letters are left");
    let mut tries = Vec::new();
    collect(mount, &mut tries);
    check_order(&tries, ledger);
    let still = unseen(&tries, ledger).into_iter().filter(|version| version.size == DOOMED_BYTES);
    assert_eq!(still.map(Version::name).collect::<Vec<_>>(), Vec::<String>::new(), "redriven and not seen");
}

#[test]
fn every_acknowledged_version_is_seen_in_order_though_the_mount_is_killed_and_hooks_fail() {
    let closes = std::env::var("S3MOUNT_SOAK_CLOSES").ok();
    play(closes.map_or(CLOSES, |text| text.parse().expect("a number of closes")), 5);
}
