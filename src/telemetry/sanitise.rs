//! Names come from the bucket, so they may hold anything: a newline would forge a log line, an
//! escape sequence would talk to the reader's terminal.

use std::fmt::Write as _;
use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;

/// The text with control characters escaped (`\n`, `\u{1b}`) and everything else as it is.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Bidirectional overrides reorder what a terminal shows: U+202A–202E, U+2066–2069.
        if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// The text without the values of signatures, tokens and keys, as URLs and headers spell them.
#[must_use]
pub fn redacted(text: &str) -> String {
    const NAMES: [&str; 6] = [
        "X-Amz-Signature=",
        "X-Amz-Security-Token=",
        "X-Amz-Credential=",
        "Signature=",
        "Credential=",
        "aws_secret_access_key=",
    ];
    let mut out = text.to_owned();
    for name in NAMES {
        let mut from = 0;
        while let Some(found) = out[from..].find(name) {
            let start = from + found + name.len();
            let is_end = |c: char| matches!(c, '&' | ',' | '"' | '\'') || c.is_whitespace();
            let end = out[start..].find(is_end).map_or(out.len(), |length| start + length);
            out.replace_range(start..end, "***");
            from = start + 3;
        }
    }
    out
}

/// Makes whole log lines safe on their way out. The subscriber writes one line per call.
#[derive(Clone, Debug)]
pub(super) struct Safe<M>(pub M);

impl<W: Write> Write for Safe<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let safe = printable(&redacted(text.trim_end_matches('\n'))) + "\n";
        self.0.write_all(safe.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<'w, M: MakeWriter<'w>> MakeWriter<'w> for Safe<M> {
    type Writer = Safe<M::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        Safe(self.0.make_writer())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_letters_stay() {
        assert_eq!(printable("naïve\n\u{1b}[31m"), "naïve\\n\\u{1b}[31m");
        assert_eq!(printable("a\u{202e}b"), "a\\u{202e}b");
    }

    #[test]
    fn a_name_cannot_forge_a_log_line() {
        let mut out = Safe(Vec::new());
        out.write_all(b"upload of a\nERROR all is lost\n").unwrap();
        assert_eq!(out.0, b"upload of a\\nERROR all is lost\n");
    }

    #[test]
    fn secrets_are_cut_out() {
        let url = "https://h/k?X-Amz-Credential=AKIA/x&X-Amz-Signature=abc&part=1";
        assert_eq!(redacted(url), "https://h/k?X-Amz-Credential=***&X-Amz-Signature=***&part=1");
        assert_eq!(redacted("nothing secret"), "nothing secret");
    }
}
