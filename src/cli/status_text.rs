//! A status for people: one aligned line for each thing, and only what there is.

use serde_json::Value;
use time::OffsetDateTime;
use time::macros::format_description;

use crate::app::Status;
use crate::telemetry::printable;

/// Names shown in a line.
const SHOWN: usize = 5;
/// Odd keys shown, one in a line; the JSON has them all.
const ODD_SHOWN: usize = 20;
/// Longest name shown, in characters.
const NAME_CHARS: usize = 120;

/// The status of one mount, several lines.
pub(super) fn text(status: &Status) -> String {
    let is_one = status.buckets.is_empty();
    let source = if is_one { format!("s3://{}/{}", status.bucket, status.prefix) } else { status.bucket.clone() };
    let mut lines = vec![format!(
        "{} on {}{}",
        printable(source.trim_end_matches('/')),
        printable(&status.mountpoint.to_string_lossy()),
        if status.ending { " (unmounted, storing what is left)" } else { "" }
    )];
    let mut line = |name: &str, text: String| lines.push(format!("  {name:<10} {text}"));
    line("server", format!("{} ({})", status.endpoint, status.region));
    let access = match (status.read_only, status.read_only_buckets.join(", ")) {
        (true, _) => ", read-only".to_owned(),
        (false, names) if names.is_empty() => names,
        (false, names) => format!(", read-only: {}", printable(&names)),
    };
    line("process", format!("{}, s3mount {}, up {}{access}", status.pid, status.version, span(status.uptime_s)));
    line("requests", requests(status));
    line("bytes", format!("{} received, {} sent", bytes(status.bytes_received), bytes(status.bytes_sent)));
    line("cache", cache(&status.cache));
    if status.disk.is_object() {
        line("disk", disk(&status.disk));
    }
    line("files", files(&status.files));
    if let Some(pending) = pending(&status.files) {
        line("waiting", pending);
    }
    for kept in kept(&status.files) {
        line("kept", kept);
    }
    for odd in odd_keys(&status.files) {
        line("odd key", odd);
    }
    for hook in status.hooks["hooks"].as_array().into_iter().flatten() {
        line("hook", one_hook(hook));
    }
    if let Some(address) = status.lambda {
        line("lambda", format!("http://{address}"));
    }
    if let Some(address) = status.metrics {
        line("metrics", format!("http://{address}/metrics"));
    }
    for problem in &status.last_errors {
        line(&problem.level.to_lowercase(), format!("{} {}", clock(problem.time_s), printable(&problem.text)));
    }
    line("log", printable(&status.log.to_string_lossy()));
    lines.join("\n") + "\n"
}

fn requests(status: &Status) -> String {
    let counts: Vec<_> = status.requests.iter().map(|(operation, count)| format!("{operation} {count}")).collect();
    if counts.is_empty() { "none yet".to_owned() } else { counts.join(", ") }
}

fn cache(cache: &Value) -> String {
    let number = |name: &str| cache[name].as_u64().unwrap_or(0);
    let reads = number("hits") + number("misses");
    let held = format!("{} of {}", bytes(number("memory_bytes")), bytes(number("limit_bytes")));
    match (number("hits") * 100).checked_div(reads) {
        Some(percent) => format!("{held}, {percent} % of {reads} reads were in it"),
        None => held,
    }
}

fn disk(disk: &Value) -> String {
    let number = |name: &str| disk[name].as_u64().unwrap_or(0);
    let held = format!("{} of {} cached", bytes(number("disk_bytes")), bytes(number("limit_bytes")));
    match number("damaged") {
        0 => held,
        damaged => format!("{held}, {damaged} blocks were damaged"),
    }
}

fn files(files: &Value) -> String {
    let dirty: Vec<String> = names(&files["dirty_files"]);
    let open = files["open_files"].as_u64().unwrap_or(0);
    let stored = match dirty.len() {
        0 => "all stored".to_owned(),
        count => format!("{count} not stored yet: {}", some_of(&dirty)),
    };
    match files["removals_waiting"].as_u64().unwrap_or(0) {
        0 => format!("{open} open, {stored}"),
        waiting => format!("{open} open, {waiting} removed and still in the bucket, {stored}"),
    }
}

/// What closes have left to be sent.
fn pending(files: &Value) -> Option<String> {
    let waiting = &files["pending"];
    let number = |name: &str| waiting[name].as_u64().unwrap_or(0);
    let mut parts = Vec::new();
    if number("files") > 0 {
        let (count, size, oldest) = (number("files"), bytes(number("bytes")), span(number("oldest_s")));
        parts.push(format!("{count} closed files to be sent, {size}, the oldest for {oldest}"));
    } else if files["write_back"].as_bool() == Some(true) {
        parts.push("nothing, closes are answered from the local disk (--write-back)".to_owned());
    }
    if let Some(error) = waiting["last_error"].as_str() {
        parts.push(format!("last error: {}", printable(error)));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// What was set aside, and how to have it told no more.
fn kept(files: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(conflicts @ 1..) = files["conflicts"].as_u64() {
        let place = printable(files["conflicts_dir"].as_str().unwrap_or_default());
        lines.push(format!(
            "{conflicts} versions that lost against other clients', told until they are removed: {place}/*.conflict"
        ));
    }
    if let Some(rejected @ 1..) = files["rejected"].as_u64() {
        lines.push(format!("{rejected} files refused by hooks: s3mount hooks rejected list"));
    }
    lines
}

/// Keys that fit no path: a line for each, and one for those that are too many.
fn odd_keys(files: &Value) -> Vec<String> {
    let listed: Vec<_> = files["odd_keys"].as_object().into_iter().flatten().collect();
    let shown = |(key, why): &(&String, &Value)| {
        format!("{} ({}), left untouched", shortened(key), why.as_str().unwrap_or("no path"))
    };
    let mut lines: Vec<String> = listed.iter().take(ODD_SHOWN).map(shown).collect();
    let more = listed.len().saturating_sub(ODD_SHOWN) as u64 + files["odd_keys_unlisted"].as_u64().unwrap_or(0);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
}

fn shortened(name: &str) -> String {
    let mut name = printable(name);
    if let Some((end, _)) = name.char_indices().nth(NAME_CHARS) {
        name.truncate(end);
        name.push('…');
    }
    name
}

fn one_hook(hook: &Value) -> String {
    let number = |name: &str| hook[name].as_u64().unwrap_or(0);
    let name = hook["name"].as_str().unwrap_or("?");
    let mut parts = vec![format!("{} runs", number("invocations")), format!("{} failed", number("errors"))];
    for (count, what) in [
        (number("refused"), "refused"),
        (number("running"), "running"),
        (number("queued"), "waiting"),
        (number("dead"), "given up"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    if let Some(error) = hook["last_error"]["message"].as_str() {
        parts.push(format!("last: {}", printable(error)));
    }
    format!("{}: {}", printable(name), parts.join(", "))
}

fn names(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(shortened).collect()
}

fn some_of(names: &[String]) -> String {
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown}, …") } else { shown }
}

pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "for people, one digit after the point")]
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

pub(super) fn span(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, _) => format!("{m} min"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, ..) => format!("{d} d {h} h"),
    }
}

pub(super) fn clock(time_s: u64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]Z");
    let time = i64::try_from(time_s).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.and_then(|time| time.format(&format).ok()).unwrap_or_default()
}

/// A mount that has little to tell.
#[cfg(test)]
pub(super) fn example() -> Status {
    Status {
        version: "1.2.3".into(),
        pid: 42,
        bucket: "photos".into(),
        prefix: "2024/".into(),
        buckets: std::collections::BTreeMap::new(),
        read_only_buckets: Vec::new(),
        endpoint: "http://h".into(),
        region: "r".into(),
        mountpoint: "/mnt/x".into(),
        read_only: false,
        ending: false,
        uptime_s: 3700,
        requests: [("GetObject".to_owned(), 12), ("PutObject".to_owned(), 3)].into(),
        failures: [].into(),
        bytes_received: 1536,
        bytes_sent: 0,
        capabilities: serde_json::json!({}),
        cache: serde_json::json!({"hits": 9, "misses": 1, "memory_bytes": 1 << 20, "limit_bytes": 256 << 20}),
        disk: Value::Null,
        files: serde_json::json!({"dirty_files": [], "open_files": 2, "odd_keys": {}, "odd_keys_unlisted": 0}),
        hooks: Value::Null,
        lambda: None,
        metrics: None,
        last_errors: Vec::new(),
        log: "/s/s3mount.log".into(),
        state_dir: "/s".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Problem;
    use serde_json::json;

    #[test]
    fn a_quiet_mount_in_a_few_lines() {
        assert_eq!(
            text(&example()),
            "s3://photos/2024 on /mnt/x\n\
             \x20 server     http://h (r)\n\
             \x20 process    42, s3mount 1.2.3, up 1 h 1 min\n\
             \x20 requests   GetObject 12, PutObject 3\n\
             \x20 bytes      1.5 KiB received, 0 B sent\n\
             \x20 cache      1.0 MiB of 256.0 MiB, 90 % of 10 reads were in it\n\
             \x20 files      2 open, all stored\n\
             \x20 log        /s/s3mount.log\n"
        );
    }

    #[test]
    fn what_needs_attention_is_there_and_cannot_talk_to_the_terminal() {
        let mut status = example();
        status.files = json!({
            "dirty_files": ["a", "b\u{1b}[31m", "c", "d", "e", "f"], "open_files": 6,
            "odd_keys": {"a//b": "EmptyComponent"}, "odd_keys_unlisted": 7, "removals_waiting": 3,
            "conflicts": 1, "conflicts_dir": "/s/drafts", "rejected": 2, "write_back": true,
            "pending": {"files": 6, "bytes": 2048, "sending": 1, "oldest_s": 61, "last_error": "403\u{1b}"},
        });
        status.hooks = json!({"hooks": [{"name": "thumbnail", "invocations": 3, "errors": 1, "dead": 1,
            "last_error": {"message": "exit code 1"}}]});
        status.last_errors = vec![Problem { time_s: 0, level: "WARN".into(), text: "upload failed".into() }];
        let text = text(&status);
        for part in [
            "6 open, 3 removed and still in the bucket, 6 not stored yet: a, b\\u{1b}[31m, c, d, e, …",
            "odd key    a//b (EmptyComponent), left untouched\n  odd key    and 7 more\n",
            "thumbnail: 3 runs, 1 failed, 1 given up, last: exit code 1",
            "waiting    6 closed files to be sent, 2.0 KiB, the oldest for 1 min; last error: 403\\u{1b}\n",
            "kept       1 versions that lost against other clients', told until they are removed: /s/drafts/*.conflict\n",
            "kept       2 files refused by hooks: s3mount hooks rejected list\n",
            "warn       1970-01-01 00:00:00Z upload failed",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
