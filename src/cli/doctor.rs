//! `s3mount doctor [BUCKET[/PREFIX]] [--json]`

use serde_json::json;

use super::OfBucket;
use crate::app::{self, Failure, Finding, State};
use crate::config::Config;
use crate::error::Kind;
use crate::telemetry::printable;

/// One line for each paragraph: clap wraps them.
pub(super) const AFTER_HELP: &str = "\
Rights are tried with small objects PREFIX.s3mount-doctor-…, which are removed again; nothing is written with --read-only \
or --no-sign-request.

Ends with 0 when nothing is broken, else with the code that a mount would end with.";
/// The longest of [`Finding::about`].
const ABOUT_WIDTH: usize = "conditional writes".len();
const STATE_WIDTH: usize = "warning".len();

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What would be mounted: BUCKET, BUCKET/PREFIX, s3://BUCKET/PREFIX or NAME=BUCKET,… [default: that of --config,
    /// else none]
    #[arg(value_name = "BUCKET[/PREFIX]")]
    bucket: Option<String>,
    /// For programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    given: OfBucket,
}

impl Arguments {
    /// Examines what a mount needs, and says how it is.
    pub(super) fn run(self) -> Result<(), Failure> {
        if let Some(path) = self.bucket.as_deref().filter(|given| given.starts_with(['/', '.'])) {
            let path = printable(path);
            return Err(Failure::new(
                Kind::Usage,
                format!("'{path}' names no bucket: doctor examines what a mount needs"),
            )
            .hint(format!(
                "write BUCKET, BUCKET/PREFIX or s3://BUCKET/PREFIX; how a mount is: s3mount status {path}"
            )));
        }
        let in_file = self.given.config.as_deref().map(Config::names_bucket).transpose()?.unwrap_or(false);
        let with_bucket = self.bucket.is_some() || in_file;
        let config = match (self.bucket, self.given.config.as_deref()) {
            (None, Some(file)) if in_file => Config::of_file(self.given.options, file)?,
            // The machine is the same for every bucket.
            (bucket, _) => self.given.config(bucket.as_deref().unwrap_or("any"))?,
        };
        let mut findings = Vec::new();
        app::doctor(&config, with_bucket, &mut |found| {
            if !self.json {
                super::say(&as_text(&found));
            }
            findings.push(found);
        })?;
        super::say(&if self.json { as_json(&findings) } else { summary(&findings) });
        verdict(&findings)
    }
}

fn as_text(found: &Finding) -> String {
    let (about, told) = (found.about, printable(&found.told));
    let line = format!("{:<STATE_WIDTH$}  {about:<ABOUT_WIDTH$}  {told}\n", word(found.state));
    let indent = " ".repeat(STATE_WIDTH + ABOUT_WIDTH + 4);
    let advice = found.advice.iter().map(|advice| format!("{indent}→ {}\n", printable(advice)));
    [line].into_iter().chain(advice).collect()
}

fn as_json(findings: &[Finding]) -> String {
    let one = |found: &Finding| json!({ "about": found.about, "state": word(found.state), "told": found.told, "advice": found.advice });
    super::pretty(&findings.iter().map(one).collect::<Vec<_>>())
}

fn word(state: State) -> &'static str {
    match state {
        State::Good => "good",
        State::Warning => "warning",
        State::Broken(_) => "broken",
    }
}

fn summary(findings: &[Finding]) -> String {
    let count = |wanted: &str| findings.iter().filter(|found| word(found.state) == wanted).count();
    match (count("broken"), count("warning")) {
        (0, 0) => "all is good\n".to_owned(),
        (broken, warnings) => {
            format!("{broken} broken, {warnings} to look at, {} good\n", count("good"))
        }
    }
}

/// The command ends as a mount would: with the exit code of what is broken first.
fn verdict(findings: &[Finding]) -> Result<(), Failure> {
    let kind_of = |found: &Finding| match found.state {
        State::Broken(kind) => Some((found.about, kind)),
        _ => None,
    };
    let broken: Vec<(&str, Kind)> = findings.iter().filter_map(kind_of).collect();
    let Some((_, kind)) = broken.first() else { return Ok(()) };
    let names = broken.iter().map(|(about, _)| *about).collect::<Vec<_>>().join(", ");
    Err(Failure::new(*kind, format!("a mount would not work, or not all of it: {names}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(state: State, told: &str, advice: Option<&str>) -> Finding {
        Finding { about: "read", state, told: told.into(), advice: advice.map(str::to_owned) }
    }

    #[test]
    fn a_finding_is_a_line_and_its_advice_another() {
        assert_eq!(as_text(&found(State::Good, "allowed", None)), "good     read                allowed\n");
        let text = as_text(&found(State::Warning, "a\nb\u{1b}", Some("do")));
        assert_eq!(text, "warning  read                a\\nb\\u{1b}\n                             → do\n");
    }

    #[test]
    fn only_what_is_broken_fails_and_the_first_decides() {
        let all = [
            found(State::Good, "", None),
            found(State::Warning, "", None),
            found(State::Broken(Kind::Unreachable), "", None),
            found(State::Broken(Kind::Local), "", None),
        ];
        assert_eq!(verdict(&all[..2]), Ok(()));
        assert_eq!(verdict(&all).unwrap_err().exit_code, Kind::Unreachable.exit_code());
        assert_eq!(summary(&all[..1]), "all is good\n");
        assert_eq!(summary(&all), "2 broken, 1 to look at, 1 good\n");
    }
}
