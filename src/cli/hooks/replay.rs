//! `s3mount hooks replay [MOUNTPOINT] [--prefix PREFIX] [--since TIME] [--hook NAME] [--dry-run]`

use std::path::PathBuf;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{At, joined};
use crate::app::control::{HooksRequest, Reply, Request};
use crate::app::{Failure, Replay, Replayed};
use crate::cli::progress::Progress;
use crate::cli::{pretty, say};
use crate::config::Span;
use crate::telemetry::printable;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The mount [default: that of the current directory, or the only one with hooks]
    mountpoint: Option<PathBuf>,
    /// Only objects whose paths in the mount begin with this
    #[arg(long, value_name = "PREFIX", default_value = "")]
    prefix: String,
    /// Only what was written then or later: 2h or 7d ago, 2026-11-27, or 2026-11-27T18:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// Only this hook; may be said several times [default: all that take events]
    #[arg(long = "hook", value_name = "NAME")]
    hooks: Vec<String>,
    /// Queue nothing, only count
    #[arg(long)]
    dry_run: bool,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let socket = At { mountpoint: self.mountpoint }.socket()?;
        let replay = Replay {
            prefix: self.prefix.trim_start_matches('/').to_owned(),
            since_ms: self.since.map(Since::ms),
            hooks: self.hooks,
            dry_run: self.dry_run,
        };
        let request = Request::Hooks { ask: HooksRequest::Replay { replay } };
        let mut progress = Progress::default();
        let replayed = socket.ask_for(&request, |reply| match reply {
            Reply::Replaying(so_far) => {
                progress.show(format_args!("{} looked at, {} fire hooks …", so_far.listed, so_far.objects));
                None
            }
            Reply::Replayed(replayed) => Some(replayed),
            _ => None,
        });
        progress.clear();
        let replayed = replayed?;
        say(&if self.json { pretty(&replayed) } else { told(&replayed, self.dry_run) });
        Ok(())
    }
}

fn told(replayed: &Replayed, dry_run: bool) -> String {
    let fate = if dry_run { "would be queued" } else { "queued" };
    let mut lines = vec![format!("{} objects looked at, {} of them fire hooks", replayed.listed, replayed.objects)];
    lines.extend(replayed.hooks.iter().map(|(name, count)| format!("  {}: {count} {fate}", printable(name))));
    joined(&lines)
}

/// A moment: so long ago, or a date, or a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Since(SystemTime);

impl Since {
    fn ms(self) -> u64 {
        self.0.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(span) = text.parse::<Span>() {
            // Longer ago than there are times is always.
            return Ok(Self(SystemTime::now().checked_sub(span.0).unwrap_or(UNIX_EPOCH)));
        }
        OffsetDateTime::parse(text, &Rfc3339)
            .or_else(|_| OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339))
            .map(|time| Self(time.into()))
            .map_err(|_| format!("'{text}' is no time; write it like 2h, 2026-11-27 or 2026-11-27T18:00:00Z"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let ms = |text: &str| text.parse::<Since>().unwrap().ms();
        assert_eq!(ms("1970-01-02"), 86_400_000);
        assert_eq!(ms("1970-01-01T00:00:01.5Z"), 1500);
        assert_eq!(ms("1970-01-01T02:00:01+02:00"), 1000);
        assert_eq!(ms("1960-01-01"), 0);
        assert_eq!(ms("9999999d"), 0);
        let (ago, now) = (ms("1h"), Since(SystemTime::now()).ms());
        assert!((3_600_000..3_700_000).contains(&(now - ago)), "{ago} {now}");
        for wrong in ["", "yesterday", "2026-13-01", "18:00"] {
            assert!(wrong.parse::<Since>().is_err(), "{wrong}");
        }
    }
}
