//! Guests in WebAssembly text: one for each good and each bad habit.
//!
//! Memory: 0–63 scratch for the host's answers, 64 on the constants of a guest, 4096 on its buffer.
//! Descriptors: 3 = `/in`, 4 = `/tmp`, 5 = `/out`, the first that is opened is 6.

/// A command with the WASI imports, some helpers, `data` at 64 and `body` as its `_start`.
pub fn command(data: &str, body: &str) -> String {
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_filestat_set_size" (func $set_size (param i32 i64) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_symlink" (func $symlink (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_create_directory" (func $mkdir (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 2)
  (data (i32.const 64) "{data}")
  ;; All that path_open can ask for, to read or to write.
  (func $open (param $dir i32) (param $path i32) (param $length i32) (param $oflags i32) (param $rights i64)
    (result i32)
    (call $path_open (local.get $dir) (i32.const 0) (local.get $path) (local.get $length)
      (local.get $oflags) (local.get $rights) (i64.const 0) (i32.const 0) (i32.const 32)))
  (func $open_read (param $dir i32) (param $path i32) (param $length i32) (result i32)
    (call $open (local.get $dir) (local.get $path) (local.get $length) (i32.const 0) (i64.const 0x2)))
  (func $create (param $dir i32) (param $path i32) (param $length i32) (result i32)
    (call $open (local.get $dir) (local.get $path) (local.get $length) (i32.const 1) (i64.const 0x400040)))
  (func $write (param $fd i32) (param $from i32) (param $length i32) (result i32)
    (i32.store (i32.const 0) (local.get $from))
    (i32.store (i32.const 4) (local.get $length))
    (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
  (func $read (param $fd i32) (result i32)
    (i32.store (i32.const 0) (i32.const 4096))
    (i32.store (i32.const 4) (i32.const 65536))
    (drop (call $fd_read (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.load (i32.const 8)))
  ;; From one descriptor to another until the end.
  (func $pour (param $from i32) (param $to i32) (local $length i32)
    (loop $more
      (local.set $length (call $read (local.get $from)))
      (if (local.get $length) (then
        (drop (call $write (local.get $to) (i32.const 4096) (local.get $length)))
        (br $more)))))
  (func $must (param $errno i32) (if (local.get $errno) (then (call $exit (i32.const 1)))))
  (func $must_not (param $errno i32) (if (i32.eqz (local.get $errno)) (then (call $exit (i32.const 1)))))
  (func (export "_start") {body}))"#
    )
}

/// Ends with this code.
pub fn exits(code: u8) -> String {
    command("", &format!("(call $exit (i32.const {code}))"))
}

/// Writes its stdin (the event) to `/out/NAME`.
pub fn echoes(name: &str) -> String {
    let length = name.len();
    command(
        name,
        &format!(
            "(call $must (call $create (i32.const 5) (i32.const 64) (i32.const {length}))) (call $pour (i32.const 0) (i32.const 6))"
        ),
    )
}

/// Copies `/in/FROM` to `/out/TO`.
pub fn copies(from: &str, to: &str) -> String {
    let (from_length, to_at, to_length) = (from.len(), 64 + from.len(), to.len());
    command(
        &format!("{from}{to}"),
        &format!(
            "(call $must (call $open_read (i32.const 3) (i32.const 64) (i32.const {from_length})))
             (call $must (call $create (i32.const 5) (i32.const {to_at}) (i32.const {to_length})))
             (call $pour (i32.const 6) (i32.const 7))"
        ),
    )
}

/// Writes empty files `/out/a` and `/out/b`, then ends with this code.
pub fn leaves_two(code: u8) -> String {
    command(
        "ab",
        &format!(
            "(call $must (call $create (i32.const 5) (i32.const 64) (i32.const 1)))
             (call $must (call $create (i32.const 5) (i32.const 65) (i32.const 1)))
             (if (i32.const {code}) (then (call $exit (i32.const {code}))))"
        ),
    )
}

/// Never ends, never calls.
pub fn loops() -> String {
    command("", "(loop $again (br $again))")
}

/// Never ends, in a call: sleeps for a day.
pub fn sleeps() -> String {
    command(
        "",
        // One subscription: user data 0, kind clock 0, clock monotonic 1, nanoseconds, relative.
        "(i32.store (i32.const 80) (i32.const 1)) (i64.store (i32.const 88) (i64.const 86400000000000))
         (drop (call $poll (i32.const 64) (i32.const 256) (i32.const 1) (i32.const 512)))",
    )
}

/// Takes memory until it gets no more, then traps.
pub fn bombs_memory() -> String {
    command("", "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable")
}

/// Calls itself until the stack ends.
pub fn recurses() -> String {
    command(
        "",
        "(call $deeper (i32.const 0)))\n(func $deeper (param i32) (call $deeper (i32.add (local.get 0) (i32.const 1)))",
    )
}

/// Writes 64 MiB to a descriptor, then ends well.
pub fn floods(descriptor: u8) -> String {
    command(
        "",
        &format!(
            "(local $n i32)
             (memory.fill (i32.const 4096) (i32.const 120) (i32.const 65536))
             (loop $more
               (drop (call $write (i32.const {descriptor}) (i32.const 4096) (i32.const 65536)))
               (local.set $n (i32.add (local.get $n) (i32.const 1)))
               (br_if $more (i32.lt_u (local.get $n) (i32.const 1024))))"
        ),
    )
}

/// Writes to one file of a directory without end.
pub fn fills_disk(directory: u8) -> String {
    command(
        "x",
        &format!(
            "(call $must (call $create (i32.const {directory}) (i32.const 64) (i32.const 1)))
             (loop $more (drop (call $write (i32.const 6) (i32.const 4096) (i32.const 65536))) (br $more))"
        ),
    )
}

/// Makes a file of a terabyte that takes no place, and ends well.
pub fn leaves_a_hole() -> String {
    command(
        "x",
        "(call $must (call $create (i32.const 5) (i32.const 64) (i32.const 1)))
         (call $must (call $set_size (i32.const 6) (i64.const 0x10000000000)))",
    )
}

/// Opens its own file without end, and traps when it gets no more.
pub fn hoards_descriptors() -> String {
    command(
        "x",
        "(call $must (call $create (i32.const 4) (i32.const 64) (i32.const 1)))
         (loop $more (call $must (call $open_read (i32.const 4) (i32.const 64) (i32.const 1))) (br $more))",
    )
}

/// Makes directories inside of each other without end.
pub fn digs() -> String {
    command(
        "d",
        "(local $fd i32) (local.set $fd (i32.const 5))
         (loop $more
           (call $must (call $mkdir (local.get $fd) (i32.const 64) (i32.const 1)))
           (call $must (call $open (local.get $fd) (i32.const 64) (i32.const 1) (i32.const 2) (i64.const 0x3fffffff)))
           (local.set $fd (i32.load (i32.const 32)))
           (br $more))",
    )
}

/// Tries every way out of its directories; ends with 1 when one works.
pub fn escapes() -> String {
    // At 64: ../../etc/passwd (16), /etc/passwd (11), /etc (4), up (2), ../../../../../../../.. (23),
    // up/etc/passwd (13), victim (6)
    command(
        "../../etc/passwd/etc/passwd/etcup../../../../../../../..up/etc/passwdvictim",
        "(call $must_not (call $open_read (i32.const 4) (i32.const 64) (i32.const 16)))
         (call $must_not (call $open_read (i32.const 3) (i32.const 64) (i32.const 16)))
         (call $must_not (call $open_read (i32.const 4) (i32.const 80) (i32.const 11)))
         (call $must_not (call $symlink (i32.const 91) (i32.const 4) (i32.const 4) (i32.const 95) (i32.const 2)))
         (drop (call $symlink (i32.const 97) (i32.const 23) (i32.const 4) (i32.const 95) (i32.const 2)))
         (call $must_not (call $open_read (i32.const 4) (i32.const 120) (i32.const 13)))
         (call $must_not (call $create (i32.const 3) (i32.const 133) (i32.const 6)))
         (call $must_not (call $mkdir (i32.const 3) (i32.const 133) (i32.const 6)))",
    )
}

/// Leaves a link to `/tmp`'s parent in `/out`, and ends well.
pub fn leaves_a_link() -> String {
    command(
        "../tmplink",
        "(call $must (call $symlink (i32.const 64) (i32.const 6) (i32.const 5) (i32.const 70) (i32.const 4)))",
    )
}

/// Says what a Rust program says of a panic, then traps as one does.
pub fn panics(place: &str, message: &str) -> String {
    says(&format!("\nthread 'main' panicked at {place}:\n{message}\nnote: nothing\n"), "unreachable")
}

/// Writes to stderr, then does something.
pub fn says(text: &str, then: &str) -> String {
    let (length, text) = (text.len(), text.replace('\n', "\\n"));
    command(&text, &format!("(drop (call $write (i32.const 2) (i32.const 64) (i32.const {length}))) {then}"))
}

/// Writes this to stdout.
pub fn answers(text: &str) -> String {
    let (length, text) = (text.len(), text.replace('"', "\\\""));
    command(&text, &format!("(drop (call $write (i32.const 1) (i32.const 64) (i32.const {length})))"))
}
