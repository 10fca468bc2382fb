//! What happened to a mount between two looks, in a few lines of 80 columns.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::app::Status;
use crate::cli::status_text::{bytes, span};
use crate::telemetry::printable;

const COLUMNS: usize = 80;

/// The lines of one mount. `earlier`: the look before, and the seconds since; without it, all since the mount.
pub(super) fn lines(now: &Status, earlier: Option<(&Status, f64)>) -> Vec<String> {
    let since = Since { now, earlier: earlier.map(|(status, _)| status), seconds: earlier.map(|(_, seconds)| seconds) };
    let source = format!("s3://{}/{}", now.bucket, now.prefix);
    let ending = if now.ending { " (unmounted, storing what is left)" } else { "" };
    let so_far = if earlier.is_none() { ", so far:" } else { "" };
    let mut lines = vec![format!(
        "{} on {}, up {}{ending}{so_far}",
        printable(source.trim_end_matches('/')),
        printable(&now.mountpoint.to_string_lossy()),
        span(now.uptime_s)
    )];
    let mut line = |name: &str, parts: &[String]| lines.push(fitted(name, parts));
    line("requests", &since.by_operation(|status| &status.requests));
    if since.counts(|status| status.failures.values().sum()) > 0 {
        line("errors", &since.by_operation(|status| &status.failures));
    }
    let traffic =
        [(since.counts(|status| status.bytes_received), "down"), (since.counts(|status| status.bytes_sent), "up")];
    line("bytes", &traffic.map(|(count, way)| format!("{} {way}", since.bytes(count))));
    line("memory", &since.cache(|status| &status.cache, "memory_bytes"));
    if now.disk.is_object() {
        line("disk", &since.cache(|status| &status.disk, "disk_bytes"));
    }
    line("files", &files(&now.files));
    if let Some(backlog) = backlog(&now.files["pending"]) {
        line("backlog", &[backlog]);
    }
    for hook in now.hooks["hooks"].as_array().into_iter().flatten() {
        line("hook", &since.hook(hook));
    }
    lines
}

/// Parts of a line, as many as there is room for; the first in any case.
fn fitted(name: &str, parts: &[String]) -> String {
    let mut text = format!("  {name:<9}");
    for (number, part) in parts.iter().enumerate() {
        let comma = if number == 0 { " " } else { ", " };
        let more = if number + 1 < parts.len() { ", …".len() } else { 0 };
        if number > 0 && text.chars().count() + comma.len() + part.chars().count() + more > COLUMNS {
            return text + ", …";
        }
        text = text + comma + part;
    }
    text
}

/// Two looks at one mount.
struct Since<'a> {
    now: &'a Status,
    earlier: Option<&'a Status>,
    seconds: Option<f64>,
}

impl Since<'_> {
    /// By how much a counter has grown; it begins anew where hooks were deployed.
    fn counts(&self, of: impl Fn(&Status) -> u64) -> u64 {
        of(self.now).saturating_sub(self.earlier.map_or(0, of))
    }

    /// `12/s`, or what there was since the mount.
    fn rate(&self, count: u64) -> String {
        match self.per_second(count) {
            None => count.to_string(),
            Some(rate) if rate == 0.0 || rate >= 9.95 => format!("{rate:.0}/s"),
            // Less than one in ten seconds is not nothing.
            Some(rate) => format!("{:.1}/s", rate.max(0.1)),
        }
    }

    fn bytes(&self, count: u64) -> String {
        match self.per_second(count) {
            None => bytes(count),
            #[expect(clippy::cast_sign_loss, reason = "neither bytes nor seconds are negative")]
            Some(rate) => format!("{}/s", bytes(rate as u64)),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "for people, two digits")]
    fn per_second(&self, count: u64) -> Option<f64> {
        self.seconds.map(|seconds| count as f64 / seconds.max(0.001))
    }

    /// All, then each kind, the most frequent first.
    fn by_operation(&self, of: impl Fn(&Status) -> &BTreeMap<String, u64>) -> Vec<String> {
        let of_kind = |kind: &str| self.counts(|status| of(status).get(kind).copied().unwrap_or_default());
        let mut kinds: Vec<_> = of(self.now).keys().map(|kind| (of_kind(kind), kind)).collect();
        kinds.retain(|(count, _)| *count > 0);
        kinds.sort_by(|one, other| other.cmp(one));
        let all = self.rate(kinds.iter().map(|(count, _)| count).sum());
        let each = kinds.iter().map(|(count, kind)| format!("{kind} {}", self.rate(*count)));
        std::iter::once(all).chain(each).collect()
    }

    /// How full it is, and of what was read how much was in it.
    fn cache(&self, of: impl Fn(&Status) -> &Value, held: &str) -> Vec<String> {
        let count = |name: &str| self.counts(|status| of(status)[name].as_u64().unwrap_or_default());
        let (hits, reads) = (count("hits"), count("hits") + count("misses"));
        let number = |name: &str| of(self.now)[name].as_u64().unwrap_or_default();
        let rate = match (hits * 100).checked_div(reads) {
            Some(percent) => format!("{percent} % of {} reads", self.rate(reads)),
            None => "no reads".to_owned(),
        };
        vec![rate, format!("{} of {} used", bytes(number(held)), bytes(number("limit_bytes")))]
    }

    fn hook(&self, hook: &Value) -> Vec<String> {
        let name = hook["name"].as_str().unwrap_or("?");
        let same = |status: &Status| {
            let hooks = status.hooks["hooks"].as_array().into_iter().flatten();
            hooks.into_iter().find(|other| other["name"] == hook["name"]).cloned().unwrap_or_default()
        };
        let count = |field: &str| self.counts(|status| same(status)[field].as_u64().unwrap_or_default());
        let mut parts = vec![format!("{} {} runs", printable(name), self.rate(count("invocations")))];
        for (field, what) in [("errors", "failed"), ("refused", "refused")] {
            if count(field) > 0 {
                parts.push(format!("{} {what}", self.rate(count(field))));
            }
        }
        for (field, what) in [("running", "running"), ("queued", "waiting"), ("dead", "given up")] {
            if let Some(there @ 1..) = hook[field].as_u64() {
                parts.push(format!("{there} {what}"));
            }
        }
        parts
    }
}

/// As it is now: open, not stored, kept aside.
fn files(files: &Value) -> Vec<String> {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let dirty = files["dirty_files"].as_array().map_or(0, Vec::len);
    let mut parts = vec![format!("{} open", number(&files["open_files"]))];
    parts.push(if dirty == 0 { "all stored".to_owned() } else { format!("{dirty} not stored") });
    for (field, what) in [("removals_waiting", "to be removed"), ("conflicts", "in conflict"), ("rejected", "refused")]
    {
        if number(&files[field]) > 0 {
            parts.push(format!("{} {what}", number(&files[field])));
        }
    }
    parts
}

/// What closes have left to be sent.
fn backlog(pending: &Value) -> Option<String> {
    let number = |name: &str| pending[name].as_u64().unwrap_or_default();
    let files = Some(number("files")).filter(|files| *files > 0)?;
    Some(format!("{files} files to be sent, {}, the oldest for {}", bytes(number("bytes")), span(number("oldest_s"))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::status_text::example;

    fn busy(factor: u64) -> Status {
        let mut status = example();
        status.requests = [("GetObject".to_owned(), 100 * factor), ("PutObject".to_owned(), factor)].into();
        status.bytes_received = factor << 20;
        status.cache = json!({"hits": 9 * factor, "misses": factor, "memory_bytes": 1 << 20, "limit_bytes": 256 << 20});
        status.hooks = json!({"hooks": [{"name": "thumbnail", "invocations": 4 * factor, "errors": 0, "queued": 7}]});
        status
    }

    #[test]
    fn what_happened_since_the_last_look_is_told_by_the_second() {
        let (before, mut now) = (busy(1), busy(3));
        now.failures = [("GetObject".to_owned(), 1)].into();
        now.files = json!({"dirty_files": ["a"], "open_files": 2, "conflicts": 1,
            "pending": {"files": 6, "bytes": 2048, "oldest_s": 61}});
        assert_eq!(
            lines(&now, Some((&before, 2.0))),
            [
                "s3://photos/2024 on /mnt/x, up 1 h 1 min",
                "  requests  101/s, GetObject 100/s, PutObject 1.0/s",
                "  errors    0.5/s, GetObject 0.5/s",
                "  bytes     1.0 MiB/s down, 0 B/s up",
                "  memory    90 % of 10/s reads, 1.0 MiB of 256.0 MiB used",
                "  files     2 open, 1 not stored, 1 in conflict",
                "  backlog   6 files to be sent, 2.0 KiB, the oldest for 1 min",
                "  hook      thumbnail 4.0/s runs, 7 waiting",
            ]
        );
    }

    #[test]
    fn the_first_look_tells_all_since_the_mount_and_a_quiet_one_nothing() {
        let now = busy(1);
        let first = lines(&now, None);
        assert_eq!(first[0], "s3://photos/2024 on /mnt/x, up 1 h 1 min, so far:");
        assert_eq!(first[1], "  requests  101, GetObject 100, PutObject 1");
        assert_eq!(first[2], "  bytes     1.0 MiB down, 0 B up");
        let quiet = lines(&now, Some((&now, 2.0)));
        assert_eq!(
            (quiet[1].as_str(), quiet[3].as_str()),
            ("  requests  0/s", "  memory    no reads, 1.0 MiB of 256.0 MiB used")
        );
    }

    #[test]
    fn lines_end_before_the_80th_column() {
        let mut now = busy(1);
        now.requests = (0..30).map(|number| (format!("Operation{number:02}"), 1000)).collect();
        let line = &lines(&now, None)[1];
        assert!(line.chars().count() <= 80 && line.ends_with(", …") && line.contains("Operation29 1000, "), "{line}");
    }
}
