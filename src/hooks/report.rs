//! A hook's log: START, what the guest wrote to stderr, END and REPORT, as Lambda's log has them.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::event::timestamp;
use super::sandbox::Captured;

/// A log beyond this size becomes `NAME.log.1`, and a new one is begun.
const LOG_BYTES: u64 = 8 << 20;

/// What is said about one run.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) request_id: &'a str,
    pub(super) key: &'a str,
    pub(super) began: SystemTime,
    pub(super) duration: Duration,
    pub(super) memory_limit_bytes: u64,
    pub(super) memory_peak_bytes: u64,
    /// Empty unless something went wrong.
    pub(super) status: String,
    pub(super) stdout: &'a Captured,
    pub(super) stderr: &'a Captured,
}

impl Report<'_> {
    /// The lines of it.
    pub(super) fn text(&self) -> String {
        let id = self.request_id;
        let mut text = format!(
            "START RequestId: {id} Version: $LATEST\tTime: {}\tKey: {}\n",
            timestamp(self.began),
            self.key.escape_debug()
        );
        lines(&mut text, "", self.stderr);
        lines(&mut text, "stdout: ", self.stdout);
        if !self.status.is_empty() {
            let _ = writeln!(
                text,
                "{} {id} {}",
                timestamp(SystemTime::now()),
                harmless(&self.status).replace('\n', "\n\t")
            );
        }
        let _ = writeln!(text, "END RequestId: {id}");
        let ms = self.duration.as_secs_f64() * 1000.0;
        let _ = writeln!(
            text,
            "REPORT RequestId: {id}\tDuration: {ms:.2} ms\tBilled Duration: {} ms\tMemory Size: {} MB\tMax Memory Used: {} MB",
            self.duration.as_millis() + 1,
            self.memory_limit_bytes.div_ceil(1 << 20),
            self.memory_peak_bytes.div_ceil(1 << 20),
        );
        text
    }
}

/// Adds text to a log file, and begins a new one when it has grown too large.
pub(super) fn append(path: &Path, text: &str) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.len() + text.len() as u64 > LOG_BYTES) {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

fn lines(text: &mut String, mark: &str, captured: &Captured) {
    for line in String::from_utf8_lossy(&captured.bytes).lines() {
        let _ = writeln!(text, "{mark}{}", harmless(line));
    }
    if captured.dropped > 0 {
        let _ = writeln!(text, "{mark}[{} more bytes were dropped]", captured.dropped);
    }
}

/// A log is read in terminals: no sequence of a guest's may reach one.
fn harmless(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if c.is_control() && c != '\t' && c != '\n' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_run_reads_like_lambdas_log() {
        let stderr = Captured { bytes: b"one\n\x1b[31mtwo\xff\nfine\t.".to_vec(), dropped: 7 };
        let report = Report {
            request_id: "id",
            key: "a\nb",
            began: UNIX_EPOCH,
            duration: Duration::from_micros(12_340),
            memory_limit_bytes: 128 << 20,
            memory_peak_bytes: (63 << 20) + 1,
            status: String::new(),
            stdout: &Captured { bytes: b"ok".to_vec(), dropped: 0 },
            stderr: &stderr,
        };
        assert_eq!(
            report.text(),
            "START RequestId: id Version: $LATEST\tTime: 1970-01-01T00:00:00.000Z\tKey: a\\nb\n\
             one\n\\u{1b}[31mtwo\u{fffd}\nfine\t.\n[7 more bytes were dropped]\nstdout: ok\n\
             END RequestId: id\n\
             REPORT RequestId: id\tDuration: 12.34 ms\tBilled Duration: 13 ms\tMemory Size: 128 MB\tMax Memory Used: 64 MB\n"
        );
    }

    #[test]
    fn a_log_never_takes_more_than_twice_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("h.log");
        let text = "x".repeat(1 << 20);
        for _ in 0..40 {
            append(&log, &text).unwrap();
        }
        let total: u64 = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert!((LOG_BYTES..=2 * LOG_BYTES).contains(&total), "{total}");
        assert!(dir.path().join("h.log.1").exists());
    }
}
