//! `s3mount cache stats | warm | invalidate | clear`

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use super::progress::Progress;
use super::sockets::Socket;
use super::status_text::bytes;
use crate::app::control::{self, Reply, Request};
use crate::app::{self, Failure, Left};
use crate::config;
use crate::error::Kind;
use crate::telemetry::printable;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Tell what is cached on disk, and how well it serves
    Stats {
        /// For programs
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Fetch files into the cache before they are needed, directories with all that is in them
    Warm {
        /// Files and directories of mounted buckets
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Forget what is known and cached of files and directories: the next look asks the bucket
    Invalidate {
        /// Files and directories of mounted buckets
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Delete the contents of files that are cached on disk, of all buckets
    Clear {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, clap::Args)]
struct Place {
    /// The cache directory [default: ~/.cache/s3mount, root: /var/cache/s3mount]
    #[arg(long, value_name = "DIR", env = "S3MOUNT_CACHE_DIR")]
    cache_dir: Option<PathBuf>,
}

impl Place {
    fn directory(&self) -> Result<PathBuf, Failure> {
        Ok(config::cache_directory(self.cache_dir.as_deref())?)
    }
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Stats { json, place } => stats(&place.directory()?, json),
            Command::Warm { paths } => warm(&paths),
            Command::Invalidate { paths } => {
                for (socket, paths) in by_mount(&paths)? {
                    let is_done = |reply| matches!(reply, Reply::Done).then_some(());
                    socket.ask_for(&Request::Invalidate { paths }, is_done)?;
                }
                Ok(())
            }
            Command::Clear { place } => clear(&place.directory()?),
        }
    }
}

/// Paths in their mounts, by mount.
fn by_mount(paths: &[PathBuf]) -> Result<BTreeMap<Socket, Vec<String>>, Failure> {
    let mut found: BTreeMap<Socket, Vec<String>> = BTreeMap::new();
    for path in paths {
        let (socket, below) = Socket::holding(path)?;
        found.entry(socket).or_default().push(below);
    }
    Ok(found)
}

fn warm(paths: &[PathBuf]) -> Result<(), Failure> {
    let mut meter = Meter::default();
    for (socket, paths) in by_mount(paths)? {
        let warmed = socket.ask_for(&Request::Warm { paths }, |reply| match reply {
            Reply::Warming { files, bytes } => {
                meter.show(files, bytes);
                None
            }
            Reply::Warmed { files, bytes, failed } => {
                meter.show(files, bytes);
                Some(failed)
            }
            _ => None,
        });
        meter.next();
        meter.failed.extend(warmed?.into_iter().map(|left| (socket.mountpoint.join(&left.path), left)));
    }
    meter.conclude()
}

/// How far a warming is, on one line of the terminal.
struct Meter {
    begun: Instant,
    files: u64,
    bytes: u64,
    /// Of the mounts before this one.
    before: (u64, u64),
    failed: Vec<(PathBuf, Left)>,
    progress: Progress,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            files: 0,
            bytes: 0,
            before: (0, 0),
            failed: Vec::new(),
            progress: Progress::default(),
        }
    }
}

impl Meter {
    fn show(&mut self, files: u64, bytes: u64) {
        (self.files, self.bytes) = (self.before.0 + files, self.before.1 + bytes);
        let line = self.line();
        self.progress.show(line);
    }

    fn line(&self) -> String {
        #[expect(clippy::cast_possible_truncation, reason = "no warming takes 500 million years")]
        let elapsed_ms = (self.begun.elapsed().as_millis() as u64).max(1);
        let rate = bytes(self.bytes.saturating_mul(1000) / elapsed_ms);
        format!("{} file(s), {}, {rate}/s", self.files, bytes(self.bytes))
    }

    fn next(&mut self) {
        self.before = (self.files, self.bytes);
    }

    fn conclude(self) -> Result<(), Failure> {
        if super::is_watched() {
            self.progress.clear();
            let _ = writeln!(std::io::stderr(), "{}", self.line());
        }
        for (path, left) in &self.failed {
            let path = printable(&path.to_string_lossy());
            let _ = writeln!(std::io::stderr(), "not cached: {path}: {}", printable(&left.cause));
        }
        match self.failed.len() {
            0 => Ok(()),
            count => Err(Failure::new(Kind::Local, format!("{count} file(s) could not be cached"))
                .hint("what was fetched stays: the same command goes on from there")),
        }
    }
}

/// Mounts first: what they have open would otherwise stay on the disk.
fn clear(directory: &Path) -> Result<(), Failure> {
    for path in control::all_sockets(&app::run_dir()?) {
        // Whoever does not answer has nothing that the directory does not show.
        let _ = control::ask(&path, &Request::ClearCache { directory: directory.to_owned() }, |_| ());
    }
    let before = app::clear_directory(directory)?;
    let after = app::look_into(directory)?;
    if after.entries > 0 {
        return Err(Failure::new(Kind::Local, format!("{} files are still cached", after.entries))
            .hint(format!("of {} that were there; a mount may be reading", before.entries)));
    }
    Ok(())
}

fn stats(directory: &Path, as_json: bool) -> Result<(), Failure> {
    let contents = app::look_into(directory)?;
    let mut mounts = Vec::new();
    for path in control::all_sockets(&app::run_dir()?) {
        let _ = control::ask(&path, &Request::Status, |reply| {
            if let Reply::Status(status) = reply {
                mounts.push((status.mountpoint, status.disk, status.files));
            }
        });
    }
    if as_json {
        let mounts: Vec<Value> = mounts
            .into_iter()
            .map(|(mountpoint, disk, files)| {
                let passthrough_opens = files["passthrough_opens"].clone();
                json!({"mountpoint": mountpoint, "passthrough_opens": passthrough_opens, "disk": disk})
            })
            .collect();
        let all = json!({
            "directory": directory, "disk_bytes": contents.disk_bytes, "entries": contents.entries, "mounts": mounts,
        });
        super::say(&super::pretty(&all));
        return Ok(());
    }
    let place = printable(&directory.to_string_lossy());
    super::say(&format!("{place}: {} in {} file(s)\n", bytes(contents.disk_bytes), contents.entries));
    for (mountpoint, disk, files) in mounts.iter().filter(|(_, disk, _)| disk.is_object()) {
        super::say(&one_mount(mountpoint, disk, files));
    }
    Ok(())
}

fn one_mount(mountpoint: &Path, disk: &Value, files: &Value) -> String {
    let number = |name: &str| disk[name].as_u64().unwrap_or(0);
    let mut lines = vec![printable(&mountpoint.to_string_lossy())];
    let mut line = |name: &str, text: String| lines.push(format!("  {name:<10} {text}"));
    line("directory", printable(disk["directory"].as_str().unwrap_or("?")));
    line("size", format!("{} of {}", bytes(number("disk_bytes")), bytes(number("limit_bytes"))));
    line("reads", format!("{} were on disk, {} were not", number("hits"), number("misses")));
    line("kernel", format!("{} opens read by the kernel itself", files["passthrough_opens"].as_u64().unwrap_or(0)));
    line("written", bytes(number("written_bytes")));
    line("skipped", format!("{} (disk too slow or full)", bytes(number("skipped_bytes"))));
    line("evicted", number("evictions").to_string());
    line("damaged", number("damaged").to_string());
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_cached_is_an_error() {
        let mut meter = Meter::default();
        meter.show(3, 1 << 20);
        meter.next();
        meter.show(1, 1 << 20);
        assert!(meter.line().starts_with("4 file(s), 2.0 MiB, "), "{}", meter.line());
        meter.failed.push((PathBuf::from("/m/a"), Left { path: "a".into(), cause: "gone".into() }));
        let failure = meter.conclude().unwrap_err();
        assert!(failure.message.starts_with("1 file(s)") && failure.exit_code != 0);
    }

    #[test]
    fn the_numbers_of_a_mount_in_words() {
        let disk = json!({"disk_bytes": 1024, "limit_bytes": 2048, "hits": 3, "misses": 1, "damaged": 2});
        let text = one_mount(Path::new("/m"), &disk, &json!({"passthrough_opens": 7}));
        for part in ["/m\n", "1.0 KiB of 2.0 KiB", "3 were on disk, 1 were not", "7 opens", "damaged    2\n"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
