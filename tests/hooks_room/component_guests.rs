//! Components in WebAssembly text: a command of WASI 0.2, and the typed world.

/// A component that exports `wasi:cli/run`; `body` answers 0 for well, 1 for ill.
pub fn command(body: &str) -> String {
    format!(
        r#"(component
  (core module $Main (memory 1) (func (export "run") (result i32) {body}))
  (core instance $main (instantiate $Main))
  (func $run (result (result)) (canon lift (core func $main "run")))
  (instance $export (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $export)))"#
    )
}

/// A component of the typed world.
///
/// `data` lies at 64. `body` is `handle`: it gets the address of its event, `$event`, and answers with `$ok`
/// and its like, which take addresses and lengths. Of the event's fields there are `$path` and `$json`.
pub fn typed(data: &str, body: &str) -> String {
    format!(
        r#"(component
  {IMPORTS}
  (core module $Libc
    (memory (export "memory") 4)
    (global $next (mut i32) (i32.const 65536))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get 3)))
      (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
        (then (drop (memory.grow (i32.add (i32.const 1) (i32.div_u (local.get 3) (i32.const 65536)))))))
      (local.get $at)))
  (core instance $libc (instantiate $Libc))
  {LOWERED}
  (core module $Main
    {CORE_IMPORTS}
    (data (i32.const 64) "{data}")
    (func $answer (param $failed i32) (param $case i32) (param $at i32) (param $length i32) (result i32)
      (i32.store8 (i32.const 1024) (local.get $failed))
      (i32.store8 (i32.const 1028) (local.get $case))
      (i32.store (i32.const 1032) (local.get $at))
      (i32.store (i32.const 1036) (local.get $length))
      (i32.const 1024))
    (func $ok (param i32 i32) (result i32) (call $answer (i32.const 0) (i32.const 1) (local.get 0) (local.get 1)))
    (func $nothing (result i32) (call $answer (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
    (func $retry (param i32 i32) (result i32) (call $answer (i32.const 1) (i32.const 0) (local.get 0) (local.get 1)))
    (func $fatal (param i32 i32) (result i32) (call $answer (i32.const 1) (i32.const 1) (local.get 0) (local.get 1)))
    (func $veto (param i32 i32 i32 i32) (result i32)
      (i32.store (i32.const 1040) (local.get 2))
      (i32.store (i32.const 1044) (local.get 3))
      (call $answer (i32.const 1) (i32.const 2) (local.get 0) (local.get 1)))
    ;; What the host answered at 2048: a setting, or of objects their bytes or which error.
    (func $value (result i32 i32) (i32.load (i32.const 2052)) (i32.load (i32.const 2056)))
    (func $told (result i32 i32) (i32.load (i32.const 2056)) (i32.load (i32.const 2060)))
    (func $refused (result i32) (i32.load8_u (i32.const 2048)))
    (func $error (result i32) (i32.load8_u (i32.const 2056)))
    ;; A string of the event, by its place in the record.
    (func $field (param $event i32) (param $place i32) (result i32 i32)
      (i32.load (i32.add (local.get $event) (local.get $place)))
      (i32.load (i32.add (i32.add (local.get $event) (local.get $place)) (i32.const 4))))
    (func $path (param i32) (result i32 i32) (call $field (local.get 0) (i32.const 40)))
    (func $json (param i32) (result i32 i32) (call $field (local.get 0) (i32.const 100)))
    (func (export "handle") (param $event i32) (result i32) {body}))
  (core instance $main (instantiate $Main
    (with "libc" (instance $libc))
    (with "host" (instance (export "log" (func $log)) (export "config" (func $config)) (export "get" (func $get))
      (export "put" (func $put)) (export "delete" (func $delete)) (export "copy" (func $copy))))))
  {EXPORT})"#
    )
}

const IMPORTS: &str = r#"
  (import "s3mount:hooks/log@0.1.0" (instance $logs
    (type $level' (enum "trace" "debug" "info" "warn" "error"))
    (export "level" (type $level (eq $level')))
    (export "write" (func (param "level" $level) (param "message" string)))))
  (import "s3mount:hooks/config@0.1.0" (instance $configs
    (export "get" (func (param "name" string) (result (option string))))))
  (import "s3mount:hooks/objects@0.1.0" (instance $objects
    (type $error' (variant (case "not-found") (case "denied" string) (case "precondition-failed")
      (case "too-large" u64) (case "throttled") (case "io" string)))
    (export "object-error" (type $error (eq $error')))
    (type $options' (record (field "content-type" (option string)) (field "metadata" (list (tuple string string)))
      (field "if-match" (option string)) (field "if-none-match" bool)))
    (export "put-options" (type $options (eq $options')))
    (export "get" (func (param "path" string) (param "offset" u64) (param "len" (option u64))
      (result (result (list u8) (error $error)))))
    (export "put" (func (param "path" string) (param "body" (list u8)) (param "options" $options)
      (result (result string (error $error)))))
    (export "delete" (func (param "path" string) (result (result (error $error)))))
    (export "copy" (func (param "source" string) (param "target" string) (result (result string (error $error)))))))"#;

const LOWERED: &str = r#"
  (core func $log (canon lower (func $logs "write") (memory (core memory $libc "memory"))))
  (core func $config (canon lower (func $configs "get") (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $get (canon lower (func $objects "get") (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $put (canon lower (func $objects "put") (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $delete (canon lower (func $objects "delete") (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $copy (canon lower (func $objects "copy") (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))"#;

/// Whoever answers with more than a number writes it to 2048.
const CORE_IMPORTS: &str = r#"
    (import "libc" "memory" (memory 4))
    (import "host" "log" (func $log' (param i32 i32 i32)))
    (import "host" "config" (func $config' (param i32 i32 i32)))
    (import "host" "get" (func $get' (param i32 i32 i64 i32 i64 i32)))
    (import "host" "put" (func $put' (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
    (import "host" "delete" (func $delete' (param i32 i32 i32)))
    (import "host" "copy" (func $copy' (param i32 i32 i32 i32 i32)))
    (func $log (param i32 i32) (call $log' (i32.const 2) (local.get 0) (local.get 1)))
    (func $get (param i32 i32)
      (call $get' (local.get 0) (local.get 1) (i64.const 0) (i32.const 0) (i64.const 0) (i32.const 2048)))
    ;; Path, body, and whether only where nothing is.
    (func $put (param i32 i32 i32 i32 i32)
      (call $put' (local.get 0) (local.get 1) (local.get 2) (local.get 3) (i32.const 0) (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (local.get 4) (i32.const 2048)))
    (func $delete (param i32 i32) (call $delete' (local.get 0) (local.get 1) (i32.const 2048)))
    (func $copy (param i32 i32 i32 i32)
      (call $copy' (local.get 0) (local.get 1) (local.get 2) (local.get 3) (i32.const 2048)))"#;

const EXPORT: &str = r#"
  (type $event' (record (field "id" string) (field "name" string) (field "time-ms" u64) (field "bucket" string)
    (field "key" string) (field "path" string) (field "size" u64) (field "etag" (option string))
    (field "sequencer" string) (field "hook" string) (field "attempt" u32) (field "deadline-ms" u64)
    (field "depth" u32) (field "json" string)))
  (export $event "event" (type $event'))
  (type $hook-error' (variant (case "retry" string) (case "fatal" string) (case "veto" (tuple string string))))
  (export $hook-error "hook-error" (type $hook-error'))
  (func $handle (param "event" $event) (result (result (option string) (error $hook-error)))
    (canon lift (core func $main "handle") (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (export "handle" (func $handle))"#;

/// A place in `data`, as two constants.
pub fn at(data: &str, part: &str) -> String {
    let start = data.find(part).expect("a part of the data");
    format!("(i32.const {}) (i32.const {})", 64 + start, part.len())
}
