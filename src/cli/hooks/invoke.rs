//! `s3mount hooks invoke NAME --key KEY | --file FILE`

use std::path::{Path, PathBuf};

use super::{At, first_line, joined};
use crate::app::control::{HooksRequest, Reply, Request};
use crate::app::{self, Failure, Invocation, LocalRun};
use crate::cli::status_text::bytes;
use crate::cli::{pretty, say};
use crate::error::Kind;
use crate::telemetry::printable;

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("object").required(true).args(["key", "file"]))]
pub(super) struct Arguments {
    /// The hook
    name: String,
    /// Run it on this object of a mount: a path in the mount, or a path of this machine
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Run it on a file of this machine, without any mount; nothing is published
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The settings file that has the hook, for --file
    #[arg(long, value_name = "FILE", default_value = "hooks.toml", conflicts_with = "key")]
    hooks: PathBuf,
    /// The path that the hook is told, for --file [default: the name of the file]
    #[arg(long = "as", value_name = "PATH", conflicts_with = "key")]
    told_path: Option<String>,
    /// Copy what it leaves in /out to this directory, for --file
    #[arg(long, value_name = "DIR", conflicts_with = "key")]
    out: Option<PathBuf>,
    /// What the hook is told to have happened
    #[arg(long, value_name = "EVENT", default_value = "ObjectCreated:Put")]
    event: String,
    /// Publish nothing, only list what would be
    #[arg(long)]
    dry_run: bool,
    /// For programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let ran = match (&self.key, &self.file) {
            (Some(key), _) => self.on_object(key)?,
            (None, Some(file)) => self.on_file(file)?,
            (None, None) => unreachable!("clap requires one of them"),
        };
        say(&if self.json { pretty(&ran) } else { told(&ran) });
        match &ran.problem {
            None => Ok(()),
            Some(problem) => {
                let name = printable(&self.name);
                Err(Failure::new(Kind::HookFailed, format!("hook \"{name}\" failed: {}", first_line(problem))))
            }
        }
    }

    fn on_object(&self, key: &str) -> Result<Invocation, Failure> {
        let (socket, path) = self.at.place(key)?;
        let (hook, event, dry_run) = (self.name.clone(), self.event.clone(), self.dry_run);
        let request = Request::Hooks { ask: HooksRequest::Invoke { hook, path, event, dry_run } };
        socket.ask_for(&request, |reply| match reply {
            Reply::Invoked(ran) => Some(*ran),
            _ => None,
        })
    }

    fn on_file(&self, file: &Path) -> Result<Invocation, Failure> {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = self.told_path.clone().unwrap_or(name);
        app::invoke_on_file(&LocalRun {
            settings: &self.hooks,
            hook: &self.name,
            file,
            path: path.trim_start_matches('/'),
            event: &self.event,
            keep: self.out.as_deref(),
        })
    }
}

/// The log, and what there is for publication. The log has no sequences for terminals in it.
fn told(ran: &Invocation) -> String {
    let fate = if ran.published { "published" } else { "not published" };
    let output = ran.output.iter().map(|output| format!("{fate}: {} ({})", printable(&output.key), bytes(output.size)));
    let mut lines: Vec<String> = ran.log.lines().map(str::to_owned).chain(output).collect();
    if ran.output.is_empty() && ran.problem.is_none() {
        lines.push("it left nothing in /out".into());
    }
    joined(&lines)
}
