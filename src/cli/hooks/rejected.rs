//! `s3mount hooks rejected list | drop`

use serde_json::json;

use super::{How, joined};
use crate::app::control::{HooksRequest, Reply, Request};
use crate::app::{Failure, Rejected};
use crate::cli::status_text::{bytes, clock};
use crate::cli::{pretty, say};
use crate::error::Kind;
use crate::telemetry::printable;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// What was refused, by whom and why, and where its bytes lie; oldest first
    List {
        #[command(flatten)]
        how: How,
    },
    /// Forget one, or all, with the bytes
    Drop {
        #[command(flatten)]
        chosen: Chosen,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Chosen {
    /// As `list` has it
    id: Option<String>,
    /// All there are
    #[arg(long)]
    all: bool,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::List { how } => {
                let request = Request::Hooks { ask: HooksRequest::Rejected };
                let all = how.at.socket()?.ask_for(&request, |reply| match reply {
                    Reply::Rejected(all) => Some(all),
                    _ => None,
                })?;
                say(&if how.json { pretty(&all) } else { listed(&all) });
                Ok(())
            }
            Command::Drop { chosen, how } => forget(chosen.id, &how),
        }
    }
}

fn forget(id: Option<String>, how: &How) -> Result<(), Failure> {
    let request = Request::Hooks { ask: HooksRequest::DropRejected { id: id.clone() } };
    let count = how.at.socket()?.ask_for(&request, |reply| match reply {
        Reply::Moved { count, .. } => Some(count),
        _ => None,
    })?;
    if let Some(id) = id.filter(|_| count == 0) {
        return Err(Failure::new(Kind::NotFound, format!("nothing that was refused has the id {}", printable(&id)))
            .hint("`s3mount hooks rejected list` shows what there is"));
    }
    say(&if how.json { pretty(&json!({"count": count})) } else { format!("{count} dropped\n") });
    Ok(())
}

fn listed(all: &[Rejected]) -> String {
    if all.is_empty() {
        return "nothing was refused\n".into();
    }
    let mut lines = Vec::new();
    for one in all {
        let (key, time, size) = (printable(&one.key), clock(one.time_s), bytes(one.size));
        lines.push(format!("{}  {key}  {time}, {size}", one.id));
        lines.push(format!("    {}, by {}: {}", one.errno, printable(&one.by), printable(&one.reason)));
        lines.push(format!("    {}", printable(&one.path.to_string_lossy())));
    }
    joined(&lines)
}
