//! Guests that mean harm, one a row: what each tries, and how it must end.

use super::guests::{self, command};

/// One hostile module.
pub struct Hostile {
    pub name: &'static str,
    pub module: String,
    /// Settings beside the rule, the output and `retries = 0`.
    pub settings: &'static str,
    pub end: End,
}

/// What comes of it.
pub enum End {
    /// A dead letter whose reason has these words.
    Stopped(&'static str),
    /// It gets nothing that it should not have, and ends well.
    Harmless,
}

use End::{Harmless, Stopped};

const SHORT: &str = "timeout = \"200ms\"";
const SMALL: &str = "storage = \"4M\"";
const TIMED_OUT: End = Stopped("Task timed out after 0.20 seconds");
const OUT_OF_STORAGE: End = Stopped("more than 4194304 bytes in /tmp and /out");

const RANDOM: &str = r#"(import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))"#;
const CLOCK: &str =
    r#"(import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))"#;
const SOCKETS: &str = r#"
  (import "wasi_snapshot_preview1" "sock_accept" (func $accept (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sock_recv" (func $recv (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sock_send" (func $send (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sock_shutdown" (func $shutdown (param i32 i32) (result i32)))"#;
const PATHS: &str = r#"
  (import "wasi_snapshot_preview1" "path_link" (func $link (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_rename" (func $rename (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_remove_directory" (func $rmdir (param i32 i32 i32) (result i32)))"#;

/// A command with further imports or definitions.
fn with(more: &str, data: &str, body: &str) -> String {
    command(data, body).replacen("(memory (export", &format!("{more} (memory (export"), 1)
}

fn row(name: &'static str, module: String, settings: &'static str, end: End) -> Hostile {
    Hostile { name, module, settings, end }
}

/// All of them.
pub fn all() -> Vec<Hostile> {
    [time(), memory(), storage(), reach(), ends()].into_iter().flatten().collect()
}

fn time() -> Vec<Hostile> {
    let forever = |more: &str, call: &str| with(more, "", &format!("(loop $again {call} (br $again))"));
    let begins = with("", "", "").replacen(
        "(func (export \"_start\")",
        "(func $begin (loop $again (br $again))) (start $begin) (func (export \"_start\")",
        1,
    );
    vec![
        row("endless-loop", guests::loops(), SHORT, TIMED_OUT),
        row("sleep", guests::sleeps(), SHORT, TIMED_OUT),
        row("start-function", begins, SHORT, TIMED_OUT),
        row(
            "random-flood",
            forever(RANDOM, "(drop (call $random (i32.const 4096) (i32.const 65536)))"),
            SHORT,
            TIMED_OUT,
        ),
        row(
            "clock-flood",
            forever(CLOCK, "(drop (call $clock (i32.const 1) (i64.const 0) (i32.const 0)))"),
            SHORT,
            TIMED_OUT,
        ),
        row(
            "write-nothing",
            forever("", "(drop (call $write (i32.const 2) (i32.const 64) (i32.const 0)))"),
            SHORT,
            TIMED_OUT,
        ),
        row("deep-recursion", guests::recurses(), "", Stopped("call stack exhausted")),
    ]
}

fn memory() -> Vec<Hostile> {
    let tables = "(table $t 1 funcref)";
    let grow = "(loop $more (br_if $more (i32.ne (table.grow $t (ref.null func) (i32.const 65536)) (i32.const -1)))) unreachable";
    let large_memory = command("", "").replace("(export \"memory\") 2", "(export \"memory\") 65536");
    vec![
        row("memory-bomb", guests::bombs_memory(), "memory = \"8M\"", Stopped("refused memory beyond its limit")),
        row("large-memory", large_memory, "memory = \"8M\"", Stopped("raise `memory`")),
        row("table-bomb", with(tables, "", grow), "", Stopped("refused a table beyond")),
        // Once the host has to make up as many bytes at a time as the guest has memory.
        row(
            "random-bomb",
            with(
                RANDOM,
                "",
                "(drop (memory.grow (i32.const 1000))) (drop (call $random (i32.const 0) (i32.const 65000000)))",
            ),
            "",
            Stopped("exceeds limit"),
        ),
    ]
}

fn storage() -> Vec<Hostile> {
    vec![
        row("large-tmp", guests::fills_disk(4), SMALL, OUT_OF_STORAGE),
        row("large-out", guests::fills_disk(5), SMALL, OUT_OF_STORAGE),
        row("sparse-file", guests::leaves_a_hole(), SMALL, OUT_OF_STORAGE),
        row("many-entries", many_directories(), "timeout = \"3m\"", Stopped("more than 10000 files in /tmp and /out")),
        row("deep-directories", guests::digs(), "", Stopped("")),
        row("stdout-flood", floods(1), "", Harmless),
        row("stderr-flood", guests::floods(2), "", Harmless),
        row("descriptors", guests::hoards_descriptors(), "", Stopped("no free keys")),
    ]
}

fn reach() -> Vec<Hostile> {
    let sockets = "(loop $each
        (call $must_not (call $accept (local.get $fd) (i32.const 0) (i32.const 0)))
        (call $must_not (call $recv (local.get $fd) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
        (call $must_not (call $send (local.get $fd) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
        (call $must_not (call $shutdown (local.get $fd) (i32.const 2)))
        (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
        (br_if $each (i32.lt_u (local.get $fd) (i32.const 200))))";
    // At 64: x (1), victim (6), .. (2), ../out (6), trap/x (6)
    let into_input = "(call $must (call $create (i32.const 4) (i32.const 64) (i32.const 1)))
        (call $must_not (call $create (i32.const 3) (i32.const 65) (i32.const 6)))
        (call $must_not (call $mkdir (i32.const 3) (i32.const 65) (i32.const 6)))
        (call $must_not (call $symlink (i32.const 64) (i32.const 1) (i32.const 3) (i32.const 65) (i32.const 6)))
        (call $must_not (call $link (i32.const 4) (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 3) (i32.const 65) (i32.const 6)))
        (call $must_not (call $rename (i32.const 4) (i32.const 64) (i32.const 1) (i32.const 3) (i32.const 65) (i32.const 6)))
        (call $must_not (call $link (i32.const 3) (i32.const 0) (i32.const 79) (i32.const 6) (i32.const 4) (i32.const 65) (i32.const 6)))
        (call $must_not (call $rename (i32.const 3) (i32.const 79) (i32.const 6) (i32.const 4) (i32.const 65) (i32.const 6)))
        (call $must (call $open_read (i32.const 3) (i32.const 79) (i32.const 6)))";
    let moved_out = "(call $must (call $create (i32.const 5) (i32.const 64) (i32.const 1)))
        (call $must_not (call $rename (i32.const 5) (i32.const 64) (i32.const 1) (i32.const 5) (i32.const 73) (i32.const 6)))
        (call $must_not (call $rmdir (i32.const 4) (i32.const 71) (i32.const 2)))
        (call $must_not (call $rmdir (i32.const 5) (i32.const 73) (i32.const 6)))";
    vec![
        row("ways-out", guests::escapes(), "", Harmless),
        row("sockets", with(SOCKETS, "", &format!("(local $fd i32) {sockets}")), "", Harmless),
        row("input-changed", with(PATHS, "xvictim..../outtrap/x", into_input), "", Harmless),
        row("directories-moved", with(PATHS, "xvictim..../out", moved_out), "", Harmless),
        row("link-left", guests::leaves_a_link(), "", Stopped("link: neither a file nor a directory")),
        // What it leaves fires it by its rule; its own hand in it does not let it.
        row("self-trigger", guests::echoes("again"), "match = [\"trap/*\", \"made/[a]gain\"]", Harmless),
    ]
}

fn ends() -> Vec<Hostile> {
    let exit = |code: &str| command("", &format!("(call $exit (i32.const {code}))"));
    let early = with("", "", "").replacen(
        "(func (export \"_start\")",
        "(func $begin (call $exit (i32.const 3))) (start $begin) (func (export \"_start\")",
        1,
    );
    vec![
        row("exit-255", exit("255"), "", Stopped("invalid exit status")),
        row("exit-negative", exit("-1"), "", Stopped("invalid exit status")),
        row("exit-65", exit("65"), "", Stopped("exit code 65 (fatal)")),
        row("exit-while-starting", early, "", Stopped("exit code 3")),
        row("unreachable", command("", "unreachable"), "", Stopped("unreachable")),
        row("bad-pointer", command("", "(drop (i32.load (i32.const -4)))"), "", Stopped("out of bounds memory access")),
        // The host is given addresses outside of the memory.
        row(
            "bad-host-pointer",
            command("", "(drop (call $write (i32.const 2) (i32.const -8) (i32.const 65536)))"),
            "",
            Stopped("out of bounds"),
        ),
        row("terminal-escape", guests::says("\u{1b}[2J\u{7}\n", "unreachable"), "", Stopped("unreachable")),
    ]
}

/// Makes 20,000 directories.
fn many_directories() -> String {
    // A name of four letters, one for each nibble of the number.
    let letter = |at: u32, shift: u32| {
        format!(
            "(i32.store8 (i32.const {at}) (i32.add (i32.const 97) (i32.and (i32.shr_u (local.get $n) (i32.const {shift})) (i32.const 15))))"
        )
    };
    let name: String = [(64, 12), (65, 8), (66, 4), (67, 0)].map(|(at, shift)| letter(at, shift)).concat();
    command(
        "",
        &format!(
            "(local $n i32)
             (loop $more
               {name}
               (call $must (call $mkdir (i32.const 4) (i32.const 64) (i32.const 4)))
               (local.set $n (i32.add (local.get $n) (i32.const 1)))
               (br_if $more (i32.lt_u (local.get $n) (i32.const 20000))))"
        ),
    )
}

/// Writes 1 GiB to a descriptor.
fn floods(descriptor: u8) -> String {
    guests::floods(descriptor).replace("(i32.const 1024)", "(i32.const 16384)")
}

/// What is wrong about the reasons why they were given up, if anything.
pub fn complaints(all: &[Hostile], reason: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let complaint = |hostile: &Hostile| match (&hostile.end, reason(hostile.name)) {
        (Harmless, None) => None,
        (Stopped(words), Some(reason)) if reason.contains(words) => None,
        (Stopped(words), reason) => Some(format!("{}: {reason:?} instead of {words}", hostile.name)),
        (Harmless, reason) => Some(format!("{}: {reason:?}", hostile.name)),
    };
    all.iter().filter_map(complaint).collect()
}

/// The settings of one: it fires for `trap/*`, and is tried once.
pub fn settings(hostile: &Hostile) -> String {
    let rule = if hostile.settings.contains("match") { "" } else { "match = [\"trap/*\"]\n" };
    format!("{rule}output = \"made\"\nretries = 0\n{}", hostile.settings)
}
