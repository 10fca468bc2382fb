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
/// What is kept of a guest's lines beside a dead letter, of which there may be ten thousand.
const DIGEST_LINES: usize = 20;
const DIGEST_LINE_CHARS: usize = 200;
/// Of a guest's own words about why it failed.
const WORDS_CHARS: usize = 300;

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
    /// The command that runs it once more, after a failure.
    pub(super) again: Option<String>,
    pub(super) stdout: &'a Captured,
    pub(super) stderr: &'a Captured,
}

impl Report<'_> {
    /// The lines of it.
    pub(super) fn text(&self) -> String {
        let id = self.request_id;
        let mut text = self.start();
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
        if let Some(again) = &self.again {
            let _ = writeln!(text, "\tto run it again: {again}");
        }
        self.end(&mut text);
        text
    }

    /// The same for keeping beside the problem: the last lines that the guest wrote, shortened.
    pub(super) fn digest(&self) -> String {
        let mut text = self.start();
        let all = String::from_utf8_lossy(&self.stderr.bytes);
        let left_out = all.lines().count().saturating_sub(DIGEST_LINES);
        if left_out > 0 {
            let _ = writeln!(text, "[{left_out} lines before these]");
        }
        for line in all.lines().skip(left_out) {
            let _ = writeln!(text, "{}", harmless(&line.chars().take(DIGEST_LINE_CHARS).collect::<String>()));
        }
        self.end(&mut text);
        text
    }

    fn start(&self) -> String {
        let (id, key) = (self.request_id, self.key.escape_debug());
        format!("START RequestId: {id} Version: $LATEST\tTime: {}\tKey: {key}\n", timestamp(self.began))
    }

    fn end(&self, text: &mut String) {
        let id = self.request_id;
        let _ = writeln!(text, "END RequestId: {id}");
        let ms = self.duration.as_secs_f64() * 1000.0;
        let _ = writeln!(
            text,
            "REPORT RequestId: {id}\tDuration: {ms:.2} ms\tBilled Duration: {} ms\tMemory Size: {} MB\tMax Memory Used: {} MB",
            self.duration.as_millis() + 1,
            self.memory_limit_bytes.div_ceil(1 << 20),
            self.memory_peak_bytes.div_ceil(1 << 20),
        );
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

/// The last panic that a Rust guest told of: `panicked at src/main.rs:3:5: the message`.
pub(super) fn panic_text(stderr: &Captured) -> Option<String> {
    const MARK: &str = "panicked at ";
    let text = String::from_utf8_lossy(&stderr.bytes);
    let mut lines = text.lines().skip_while(|line| !line.contains(MARK)).peekable();
    let mut last = None;
    while let Some(line) = lines.next() {
        if let Some(at) = line.find(MARK) {
            // The message stands on the line after the place.
            let message = lines.peek().filter(|_| line.ends_with(':')).copied().unwrap_or_default();
            last = Some(format!("{} {message}", &line[at..]));
        }
    }
    last.map(|text| harmless(text.trim_end()).chars().take(WORDS_CHARS).collect())
}

/// The last line that has something in it.
pub(super) fn last_words(stderr: &Captured) -> Option<String> {
    let text = String::from_utf8_lossy(&stderr.bytes);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    Some(harmless(line).chars().take(WORDS_CHARS).collect())
}

/// A word as a shell reads it; what a terminal would obey is escaped as bash understands it.
pub(super) fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    if !word.contains(char::is_control) {
        return format!("'{}'", word.replace('\'', r"'\''"));
    }
    let escaped = word.chars().fold(String::new(), |mut out, c| {
        match c {
            '\'' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => drop(write!(out, "\\u{:04x}", c as u32)),
            c => out.push(c),
        }
        out
    });
    format!("$'{escaped}'")
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
            again: None,
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
    fn a_digest_keeps_the_last_lines_and_is_bounded() {
        let long = "x".repeat(10_000);
        let lines: Vec<_> = (0..100).map(|number| format!("line {number} {long}")).collect();
        let bytes = (lines.join("\n") + "\n").into_bytes();
        let report = Report {
            request_id: "id",
            key: "a",
            began: UNIX_EPOCH,
            duration: Duration::ZERO,
            memory_limit_bytes: 1,
            memory_peak_bytes: 1,
            status: "exit code 1".into(),
            again: Some("s3mount hooks invoke h --key a".into()),
            stdout: &Captured::default(),
            stderr: &Captured { bytes, dropped: 0 },
        };
        let digest = report.digest();
        assert!(digest.starts_with("START RequestId: id ") && digest.contains("REPORT RequestId: id"), "{digest}");
        assert!(digest.contains("[80 lines before these]\nline 80 x") && digest.contains("\nline 99 x"), "{digest}");
        assert!(digest.len() < 5000);
        let text = report.text();
        assert!(text.contains("exit code 1\n\tto run it again: s3mount hooks invoke h --key a\nEND"), "{}", text.len());
    }

    #[test]
    fn the_last_panic_is_found_with_its_message() {
        let stderr = |text: &str| Captured { bytes: text.as_bytes().to_vec(), dropped: 0 };
        let told =
            "x\n\nthread 'main' panicked at src/main.rs:3:5:\nindex 7\x1b is out\nnote: run with `RUST_BACKTRACE=1`\n";
        assert_eq!(panic_text(&stderr(told)).unwrap(), "panicked at src/main.rs:3:5: index 7\\u{1b} is out");
        let twice = format!("{told}thread 'main' panicked at 'old style', src/lib.rs:1:1");
        assert_eq!(panic_text(&stderr(&twice)).unwrap(), "panicked at 'old style', src/lib.rs:1:1");
        assert_eq!(panic_text(&stderr("all is well\n")), None);
        assert_eq!(last_words(&stderr("one\n  no picture\x07 \n\n")).unwrap(), "no picture\\u{7}");
        assert_eq!(last_words(&stderr("\n \n")), None);
    }

    #[test]
    fn a_shell_reads_a_word_as_it_was() {
        for word in ["/mnt/x/a.jpg", "a b", "it's", "", "$HOME `x` \"y\"", "ä\\ö", "line\nfeed\u{1b}'\\"] {
            let quoted = shell_word(word);
            assert!(!quoted.contains(char::is_control));
            let script = format!("printf %s {quoted}");
            let output = std::process::Command::new("bash").env("LC_ALL", "C.UTF-8").args(["-c", &script]).output();
            assert_eq!(String::from_utf8(output.unwrap().stdout).unwrap(), word, "{quoted}");
        }
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
