//! `s3mount hooks dead-letters list | show | redrive | drop`

use serde_json::json;

use super::{How, first_line, joined, printable_lines};
use crate::app::control::{HooksRequest, Reply, Request};
use crate::app::{DeadLetter, Failure, Which};
use crate::cli::sockets::Socket;
use crate::cli::{pretty, say};
use crate::error::Kind;
use crate::telemetry::printable;

const LIST_HINT: &str = "`s3mount hooks dead-letters list` shows what there is";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// One for each event that was given up, oldest event first
    List {
        /// Of this hook only
        #[arg(long, value_name = "NAME")]
        hook: Option<String>,
        #[command(flatten)]
        how: How,
    },
    /// Everything about one: the event, why it was given up, the hook's last words
    Show {
        /// Id of the event, as `list` and the hook's log have it
        id: String,
        #[command(flatten)]
        how: How,
    },
    /// Deliver again, as if never tried
    Redrive {
        #[command(flatten)]
        chosen: Chosen,
        #[command(flatten)]
        how: How,
    },
    /// Forget
    Drop {
        #[command(flatten)]
        chosen: Chosen,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Chosen {
    /// Id of the event, as `list` and the hook's log have it
    id: Option<String>,
    /// Of this hook
    #[arg(long, value_name = "NAME")]
    hook: Option<String>,
    /// All there are
    #[arg(long, conflicts_with_all = ["id", "hook"])]
    all: bool,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::List { hook, how } => {
                let letters = found(&how.at.socket()?, Which { id: None, hook })?;
                say(&if how.json { pretty(&letters) } else { listed(&letters) });
                Ok(())
            }
            Command::Show { id, how } => show(&id, &how),
            Command::Redrive { chosen, how } => redrive(chosen, &how),
            Command::Drop { chosen, how } => {
                let (count, _) = moved(&how, chosen, |which| HooksRequest::Drop { which })?;
                say(&if how.json { pretty(&json!({"count": count})) } else { format!("{count} dropped\n") });
                Ok(())
            }
        }
    }
}

fn found(socket: &Socket, which: Which) -> Result<Vec<DeadLetter>, Failure> {
    let mut letters = Vec::new();
    let request = Request::Hooks { ask: HooksRequest::DeadLetters { which } };
    socket.ask_for(&request, |reply| match reply {
        Reply::DeadLetters(some) => {
            letters.extend(some);
            None
        }
        Reply::Done => Some(()),
        _ => None,
    })?;
    Ok(letters)
}

fn show(id: &str, how: &How) -> Result<(), Failure> {
    let letters = found(&how.at.socket()?, Which { id: Some(id.to_owned()), hook: None })?;
    if letters.is_empty() {
        return Err(unknown(id));
    }
    if how.json {
        say(&pretty(&letters));
    } else {
        say(&letters.iter().map(shown).collect::<Vec<_>>().join("\n"));
    }
    Ok(())
}

fn redrive(chosen: Chosen, how: &How) -> Result<(), Failure> {
    let (count, unknown_hooks) = moved(how, chosen, |which| HooksRequest::Redrive { which })?;
    let told = json!({"count": count, "unknown_hooks": unknown_hooks});
    say(&if how.json { pretty(&told) } else { format!("{count} delivered again\n") });
    if unknown_hooks.is_empty() {
        return Ok(());
    }
    let names = printable(&unknown_hooks.join(", "));
    Err(Failure::new(Kind::Usage, format!("the mount's settings do not name {names}: those dead letters stay"))
        .hint("mount with settings that name the hook, or drop them: `s3mount hooks dead-letters drop --hook NAME`"))
}

fn moved(how: &How, chosen: Chosen, ask: impl Fn(Which) -> HooksRequest) -> Result<(u64, Vec<String>), Failure> {
    let Chosen { id, hook, all: _ } = chosen;
    let ask = ask(Which { id: id.clone(), hook });
    let (count, unknown_hooks) = how.at.socket()?.ask_for(&Request::Hooks { ask }, |reply| match reply {
        Reply::Moved { count, unknown_hooks } => Some((count, unknown_hooks)),
        _ => None,
    })?;
    match id {
        Some(id) if count == 0 && unknown_hooks.is_empty() => Err(unknown(&id)),
        _ => Ok((count, unknown_hooks)),
    }
}

fn unknown(id: &str) -> Failure {
    Failure::new(Kind::NotFound, format!("no dead letter has the id {}", printable(id))).hint(LIST_HINT)
}

fn listed(letters: &[DeadLetter]) -> String {
    if letters.is_empty() {
        return "no dead letters\n".into();
    }
    let mut lines = Vec::new();
    for letter in letters {
        let (hook, key) = (printable(&letter.hook), printable(&letter.key));
        lines.push(format!("{}  {hook}  {key}  {}, {} tries", letter.id, letter.time, letter.attempts));
        lines.push(format!("    {}", first_line(&letter.reason)));
    }
    joined(&lines)
}

fn shown(letter: &DeadLetter) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: &str| lines.push(format!("{name:<10} {}", printable(value)));
    line("id", &letter.id);
    line("hook", &letter.hook);
    line("key", &letter.key);
    line("event", &format!("{} at {}", letter.event, letter.event_time));
    if let Some(payload) = &letter.payload {
        line("payload", payload);
    }
    line("version", &format!("{} bytes, ETag {}", letter.size, letter.etag.as_deref().unwrap_or("none")));
    line("given up", &format!("{} after {} tries", letter.time, letter.attempts));
    line("run again", &letter.again);
    line("redrive", &format!("s3mount hooks dead-letters redrive {}", letter.id));
    lines.extend([String::new(), "reason".into()]);
    lines.extend(printable_lines(&letter.reason, "  "));
    if !letter.report.is_empty() {
        lines.extend([String::new(), "last run".into()]);
        lines.extend(printable_lines(&letter.report, "  "));
    }
    joined(&lines)
}
