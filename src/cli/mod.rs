//! The command line: flags exactly as typed, one file per command, and what is said on the terminal.

mod cache;
mod demo;
mod doctor;
mod gc;
mod hooks;
mod meant;
mod mount;
mod mount_options;
mod progress;
mod restore;
mod sockets;
mod status;
mod status_text;
mod storing;
mod sync;
mod umount;
mod versions;
mod watch;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::app::Failure;
use crate::config::{Config, Options};
use crate::error::Kind;

/// One line for each paragraph: clap wraps them.
const AFTER_HELP: &str = "\
Every option --some-name can also stand in the environment as S3MOUNT_SOME_NAME and in the file of --config as \
some-name = \"…\". The command line comes first, then the environment, then the file.

Credentials come from where the AWS tools find them: environment, ~/.aws, SSO, container or instance.

A bucket that has the name of a command is mounted as s3://NAME, or by `s3mount mount NAME MOUNTPOINT`.";

/// Mount an S3 bucket as a file system; closing a file fires WASM hooks
#[derive(Debug, Parser)]
#[command(
    name = "s3mount",
    version,
    after_help = AFTER_HELP,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true,
    args_override_self = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    mount: mount::Arguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Mount a bucket; the same as without `mount`
    Mount(Box<mount::Arguments>),
    /// Store what is not yet stored, then unmount
    Umount(umount::Arguments),
    /// Wait until everything that was closed is in S3
    Sync(sync::Arguments),
    /// Tell how mounts are doing
    Status(status::Arguments),
    /// Look at, fill and empty the cache on disk
    Cache(cache::Arguments),
    /// List the versions that the bucket has of a file
    Versions(versions::Arguments),
    /// Bring a deleted file, or an older version of it, back
    Undelete(versions::Undelete),
    /// Bring archived objects back, so that they can be read
    Restore(restore::Arguments),
    /// Check, try and follow hooks; deal with events that were given up
    Hooks(hooks::Arguments),
    /// Find uploads that were begun and never completed, and abort them
    Gc(Box<gc::Arguments>),
    /// Examine what a mount needs, and say what is wrong and what to do
    #[command(after_help = doctor::AFTER_HELP)]
    Doctor(Box<doctor::Arguments>),
    /// Try everything with an S3 server inside this program
    Demo(demo::Arguments),
}

/// Runs the program with its own arguments.
pub fn run() -> ExitCode {
    let expanded = mount_options::expand(std::env::args_os().collect());
    match expanded.map_err(Stop::Failed).and_then(|arguments| perform(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Said(code)) => code,
        Err(Stop::Failed(failure)) => {
            say_failure(&failure);
            ExitCode::from(failure.exit_code)
        }
    }
}

fn perform(arguments: &[OsString]) -> Result<(), Stop> {
    let cli = parse(arguments)?;
    let named_no_command = cli.command.is_none();
    dispatch(cli)
        .map_err(|failure| Stop::Failed(if named_no_command { meant::hinted(failure, arguments) } else { failure }))
}

fn dispatch(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        None => cli.mount.run(),
        Some(Command::Mount(arguments)) => arguments.run(),
        Some(Command::Umount(arguments)) => arguments.run(),
        Some(Command::Sync(arguments)) => arguments.run(),
        Some(Command::Status(arguments)) => arguments.run(),
        Some(Command::Cache(arguments)) => arguments.run(),
        Some(Command::Versions(arguments)) => arguments.run(),
        Some(Command::Undelete(arguments)) => arguments.run(),
        Some(Command::Restore(arguments)) => arguments.run(),
        Some(Command::Hooks(arguments)) => arguments.run(),
        Some(Command::Gc(arguments)) => arguments.run(),
        Some(Command::Doctor(arguments)) => arguments.run(),
        Some(Command::Demo(arguments)) => arguments.run(),
    }
}

/// Why there is nothing to run.
enum Stop {
    /// Help or version was printed.
    Said(ExitCode),
    Failed(Failure),
}

/// The command line as the program parses it: manual pages and completions are made from it.
#[must_use]
pub fn command() -> clap::Command {
    // The names in the environment follow from the flags: AFTER_HELP says how.
    let hide = |command: clap::Command| command.mut_args(|arg| arg.hide_env(true));
    // They take all options of a mount, so that one environment and one file serve all.
    let hide_others = |command: clap::Command, own: &'static [&str]| {
        command.mut_args(|arg| match arg.get_help_heading() {
            None | Some("Bucket") => arg,
            Some(_) => {
                let is_own = own.contains(&arg.get_id().as_str());
                arg.hide(!is_own)
            }
        })
    };
    // What is examined depends on these.
    let of_doctor =
        ["read_only", "allow_other", "write_back", "cache_dir", "cache_size", "state_dir", "memory", "hooks"]
            .as_slice();
    let of_worker = ["hooks", "state_dir", "log_level", "log_format"].as_slice();
    let hide_below =
        |hooks: clap::Command| hooks.mut_subcommand("worker", |worker| hide_others(hide(worker), of_worker));
    hide(Cli::command())
        .mut_subcommands(hide)
        .mut_subcommand("gc", |gc| hide_others(gc, &[]))
        .mut_subcommand("doctor", |doctor| hide_others(doctor, of_doctor))
        .mut_subcommand("hooks", hide_below)
}

fn parse(arguments: &[OsString]) -> Result<Cli, Stop> {
    let parsed = command().try_get_matches_from(arguments).and_then(|matches| Cli::from_arg_matches(&matches));
    parsed.map_err(|error| {
        if error.use_stderr() {
            let failure = usage_failure(&error);
            return Stop::Failed(match (meant::bucket(arguments), meant::command(arguments)) {
                (Some(bucket), _) => failure.hint(format!("to mount a bucket of that name: s3mount s3://{bucket} …")),
                (None, Some(line)) => failure.hint(format!("did you mean `{line}`?")),
                (None, None) => failure,
            });
        }
        let _ = error.print();
        Stop::Said(ExitCode::SUCCESS)
    })
}

/// clap's words without its three paragraphs around them: what is wrong, and its tip or ours.
fn usage_failure(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let what: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let message = what.join(" ").trim_start_matches("error: ").to_owned();
    let tip = text.lines().find_map(|line| line.trim().strip_prefix("tip: "));
    Failure::new(Kind::Usage, message).hint(tip.unwrap_or("see `s3mount --help`"))
}

fn say_failure(failure: &Failure) {
    let mut terminal = std::io::stderr().lock();
    let _ = writeln!(terminal, "s3mount: {}", failure.message);
    if let Some(hint) = &failure.hint {
        let _ = writeln!(terminal, "  {hint}");
    }
}

/// Prints to stdout; a reader that has gone away (`s3mount status | head -1`) is no error.
fn say(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// What programs read, as it is printed.
fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).expect("numbers and names are JSON") + "\n"
}

/// What a command about a bucket takes besides its name.
#[derive(Debug, clap::Args)]
struct OfBucket {
    /// TOML file with options, as for a mount
    #[arg(long, value_name = "FILE", env = "S3MOUNT_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

impl OfBucket {
    fn config(self, bucket: &str) -> Result<Config, Failure> {
        Ok(Config::of_bucket(bucket, self.options, self.config.as_deref())?)
    }
}

/// Whether a person watches: progress is shown to people only.
fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Cli, Failure> {
        let arguments = mount_options::expand(line.split_whitespace().map(OsString::from).collect())?;
        parse(&arguments).map_err(|stop| match stop {
            Stop::Failed(failure) => failure,
            Stop::Said(_) => Failure::new(Kind::Usage, "said"),
        })
    }

    #[test]
    fn clap_finds_no_contradiction() {
        command().debug_assert();
    }

    #[test]
    fn mounting_needs_no_command() {
        let cli = parsed("s3mount --read-only photos/2024 /mnt/x --region eu-west-1").unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.mount.bucket.as_deref(), Some("photos/2024"));
        assert_eq!(cli.mount.options.read_only, Some(true));
        assert_eq!(cli.mount.options.region.as_deref(), Some("eu-west-1"));
    }

    #[test]
    fn a_bucket_may_have_the_name_of_a_command() {
        assert!(matches!(parsed("s3mount status /mnt/x").unwrap().command, Some(Command::Status(_))));
        let url = parsed("s3mount s3://status /mnt/x").unwrap();
        assert_eq!(url.mount.bucket.as_deref(), Some("s3://status"));
        let Some(Command::Mount(named)) = parsed("s3mount mount status /mnt/x").unwrap().command else {
            panic!("no mount")
        };
        assert_eq!(named.bucket.as_deref(), Some("status"));
        let hint = |line| parsed(line).unwrap_err().hint.unwrap();
        assert!(hint("s3mount demo /mnt/x --endpoint-url http://h:1").contains("s3mount s3://demo"));
        // As a mount it would be wrong, too.
        assert!(!hint("s3mount demo /mnt/x --regoin x").contains("s3://"));
    }

    #[test]
    fn options_of_mount8_are_flags() {
        let cli = parsed("s3mount b /m -o rw,allow_other,uid=5,umask=027,endpoint_url=http://h:1,noauto").unwrap();
        assert_eq!(cli.mount.options.read_only, Some(false));
        assert_eq!(cli.mount.options.allow_other, Some(true));
        assert_eq!(cli.mount.options.uid, Some(5));
        assert_eq!(cli.mount.options.endpoint_url.as_deref(), Some("http://h:1"));
    }

    #[test]
    fn the_last_word_counts() {
        let cli = parsed("s3mount b /m --read-only -o rw --region a --region b").unwrap();
        assert_eq!(cli.mount.options.read_only, Some(false));
        assert_eq!(cli.mount.options.region.as_deref(), Some("b"));
    }

    #[test]
    fn what_is_wrong_is_told_in_two_lines() {
        for line in ["s3mount", "s3mount b", "s3mount b /m --regoin x", "s3mount b /m --memory lots", "s3mount umount"]
        {
            let failure = parsed(line).unwrap_err();
            assert_eq!(failure.exit_code, 64, "{line}");
            assert!(!failure.message.contains('\n') && failure.hint.is_some(), "{failure:?}");
        }
        assert!(parsed("s3mount b /m --regoin x").unwrap_err().hint.unwrap().contains("--region"));
    }
}
