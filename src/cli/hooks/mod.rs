//! `s3mount hooks …`

mod dead_letters;
mod deploy;
mod invoke;
mod list;
mod logs;
mod new;
mod rejected;
mod replay;
mod trace;
mod worker;

use std::path::{Path, PathBuf};

use super::sockets::{Socket, all_statuses};
use crate::app::Failure;
use crate::error::Kind;
use crate::telemetry::printable;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make the project of a new hook
    New(new::Arguments),
    /// Check a settings file as a mount would, and show what each module can call
    Validate(list::Validate),
    /// Show how the hooks of mounts are set up
    List(list::List),
    /// Show how often hooks ran, failed, and what waits
    Stats(list::Stats),
    /// Give a mount these hooks in place of those it has, without remounting
    Deploy(deploy::Deploy),
    /// Take a hook away from a mount
    Remove(deploy::Remove),
    /// Print the log of a hook
    Logs(logs::Arguments),
    /// Run a hook once, now, on an object of a mount or on a local file
    Invoke(invoke::Arguments),
    /// Run hooks again for objects that are in the bucket, through the queue
    Replay(replay::Arguments),
    /// Tell for every hook why it does or does not fire for a key, and what happened
    Trace(trace::Trace),
    /// Wait until the hooks of a path are done
    Wait(trace::Wait),
    /// Run hooks without a mount, for what a queue says that S3 sends its notifications to
    Worker(Box<worker::Arguments>),
    /// Look at files that a synchronous hook has refused, forget them
    Rejected(rejected::Arguments),
    /// Look at events that were given up, deliver them again, drop them
    DeadLetters(dead_letters::Arguments),
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::New(arguments) => arguments.run(),
            Command::Validate(arguments) => arguments.run(),
            Command::List(arguments) => arguments.run(),
            Command::Stats(arguments) => arguments.run(),
            Command::Deploy(arguments) => arguments.run(),
            Command::Remove(arguments) => arguments.run(),
            Command::Logs(arguments) => arguments.run(),
            Command::Invoke(arguments) => arguments.run(),
            Command::Replay(arguments) => arguments.run(),
            Command::Trace(arguments) => arguments.run(),
            Command::Wait(arguments) => arguments.run(),
            Command::Worker(arguments) => arguments.run(),
            Command::Rejected(arguments) => arguments.run(),
            Command::DeadLetters(arguments) => arguments.run(),
        }
    }
}

/// Which mount is meant.
#[derive(Debug, clap::Args)]
struct At {
    /// The mount that is meant [default: that of the current directory, or the only one with hooks]
    #[arg(long = "mount", value_name = "MOUNTPOINT")]
    mountpoint: Option<PathBuf>,
}

/// How the answer is told, and by which mount.
#[derive(Debug, clap::Args)]
struct How {
    /// For programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

impl At {
    fn socket(&self) -> Result<Socket, Failure> {
        if let Some(mountpoint) = &self.mountpoint {
            return Socket::at(mountpoint);
        }
        if let Ok((socket, _)) = Socket::holding(Path::new(".")) {
            return Ok(socket);
        }
        let statuses = all_statuses()?.into_iter().filter(|status| status.hooks.is_object());
        let mountpoints: Vec<PathBuf> = statuses.map(|status| status.mountpoint).collect();
        match &mountpoints[..] {
            [one] => Socket::at(one),
            [] => Err(Failure::new(Kind::Usage, "no mount of yours has hooks")
                .hint("`s3mount status` lists your mounts; --hooks FILE gives a mount its hooks")),
            several => {
                let names: Vec<_> = several.iter().map(|path| printable(&path.to_string_lossy())).collect();
                Err(Failure::new(Kind::Usage, "several mounts have hooks")
                    .hint(format!("say which is meant: --mount {}", names.join(" or --mount "))))
            }
        }
    }

    /// The mount and the path in it that a key means: below the mount, or as a path of this machine. A
    /// relative one is the latter if it leads into a mount from outside, or to something that is there.
    fn place(&self, key: &str) -> Result<(Socket, String), Failure> {
        let path = Path::new(key);
        if path.is_absolute() {
            return Socket::holding(path);
        }
        let is_meant = || path.exists() || Socket::holding(Path::new(".")).is_err();
        match Socket::holding(path) {
            Ok(found) if self.mountpoint.is_none() && is_meant() => Ok(found),
            _ => Ok((self.socket()?, key.to_owned())),
        }
    }
}

/// A problem in one line: the rest of a trap is for its report.
fn first_line(text: &str) -> String {
    printable(text.lines().next().unwrap_or_default())
}

/// The lines of a text, each made harmless.
fn printable_lines<'a>(text: &'a str, indent: &'a str) -> impl Iterator<Item = String> + 'a {
    text.lines().map(move |line| format!("{indent}{}", printable(&line.replace('\t', "  "))))
}

/// Lines as they are printed.
fn joined(lines: &[String]) -> String {
    lines.join("\n") + "\n"
}
