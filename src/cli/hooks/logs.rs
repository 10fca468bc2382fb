//! `s3mount hooks logs NAME [-f]`

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::At;
use crate::app::Failure;
use crate::error::Kind;
use crate::telemetry::printable;

/// Between two looks at a log that is followed.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The hook
    name: String,
    /// Go on printing what is added, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Begin with so many of its last lines [default: all]
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<usize>,
    #[command(flatten)]
    at: At,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let path = self.log()?;
        let mut reader = Follower::new(&path);
        let failed = |cause: io::Error| Failure::new(Kind::Local, format!("{}: {cause}", path.display()));
        let text = reader.news().map_err(failed)?;
        let begin = self.lines.map_or(0, |count| beginning_of_last(&text, count));
        if !printed(&text[begin..]) || !self.follow {
            return Ok(());
        }
        loop {
            std::thread::sleep(LOOK_INTERVAL);
            if !printed(&reader.news().map_err(failed)?) {
                return Ok(());
            }
        }
    }

    fn log(&self) -> Result<PathBuf, Failure> {
        let socket = self.at.socket()?;
        let status = socket.status()?;
        let hooks: Vec<_> = status.hooks["hooks"].as_array().into_iter().flatten().collect();
        let meant = hooks.iter().find(|hook| hook["name"] == self.name.as_str());
        if let Some(path) = meant.and_then(|hook| hook["log"].as_str()) {
            return Ok(PathBuf::from(path));
        }
        let mountpoint = printable(&socket.mountpoint.to_string_lossy());
        let names: Vec<_> = hooks.iter().filter_map(|hook| hook["name"].as_str()).collect();
        let message = format!("the mount on {mountpoint} has no hook {}", printable(&self.name));
        Err(Failure::new(Kind::Usage, message).hint(format!("it has: {}", names.join(", "))))
    }
}

/// Whether somebody still reads what is printed.
fn printed(text: &[u8]) -> bool {
    let mut out = io::stdout().lock();
    out.write_all(text).and_then(|()| out.flush()).is_ok()
}

/// Where the last `count` lines begin.
fn beginning_of_last(text: &[u8], count: usize) -> usize {
    let Some(before) = count.checked_sub(1) else { return text.len() };
    let begins = text.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    // Behind the last newline no line begins.
    begins.filter(|&begin| begin < text.len()).nth(before).unwrap_or(0)
}

/// Reads what is added to a log, also when it grows too large and a new one is begun.
struct Follower<'a> {
    path: &'a Path,
    open: Option<File>,
}

impl<'a> Follower<'a> {
    fn new(path: &'a Path) -> Self {
        Self { path, open: None }
    }

    /// What was added since the last call; a hook that never ran has no log yet.
    fn news(&mut self) -> io::Result<Vec<u8>> {
        let mut news = Vec::new();
        if let Some(file) = &mut self.open {
            file.read_to_end(&mut news)?;
        }
        let Some(mut current) = opened(self.path)? else { return Ok(news) };
        let is_new = match &self.open {
            Some(file) => {
                (file.metadata()?.dev(), file.metadata()?.ino())
                    != (current.metadata()?.dev(), current.metadata()?.ino())
            }
            None => true,
        };
        if is_new {
            current.seek(SeekFrom::Start(0))?;
            current.read_to_end(&mut news)?;
            self.open = Some(current);
        }
        Ok(news)
    }
}

fn opened(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_begin_where_they_should() {
        for (text, count, last) in [
            ("a\nb\nc\n", 1, "c\n"),
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb", 1, "b"),
            ("a\nb\n", 9, "a\nb\n"),
            ("a\n", 0, ""),
        ] {
            assert_eq!(&text[beginning_of_last(text.as_bytes(), count)..], last, "{text:?} {count}");
        }
        assert_eq!(beginning_of_last(b"", 3), 0);
    }

    #[test]
    fn a_log_is_followed_over_its_renewal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h.log");
        let mut follower = Follower::new(&path);
        assert_eq!(follower.news().unwrap(), b"", "it never ran");
        let append = |text: &str| {
            let mut file = File::options().create(true).append(true).open(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        append("one\n");
        assert_eq!(follower.news().unwrap(), b"one\n");
        append("two\n");
        std::fs::rename(&path, path.with_extension("log.1")).unwrap();
        append("three\n");
        assert_eq!(follower.news().unwrap(), b"two\nthree\n");
        assert_eq!(follower.news().unwrap(), b"");
    }
}
