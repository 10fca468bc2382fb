//! `s3mount gc BUCKET[/PREFIX] [--older-than TIME] [--delete] [--json]`

use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;

use super::OfBucket;
use super::status_text::span;
use crate::app::{self, Failure, Fate, Incomplete};
use crate::config::Span;
use crate::error::Kind;
use crate::telemetry::printable;

/// Long enough for any upload that is under way.
const DEFAULT_AGE: Duration = Duration::from_hours(24);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where to look: BUCKET, BUCKET/PREFIX or s3://BUCKET/PREFIX
    #[arg(value_name = "BUCKET[/PREFIX]")]
    bucket: String,
    /// What is younger may be under way, here or on another machine, and stays [default: 1d]
    #[arg(long, value_name = "TIME")]
    older_than: Option<Span>,
    /// Abort them: S3 deletes their parts
    #[arg(long)]
    delete: bool,
    /// For programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    given: OfBucket,
}

impl Arguments {
    /// Lists uploads that were begun and never completed.
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.given.config(&self.bucket)?;
        let older_than = self.older_than.map_or(DEFAULT_AGE, |span| span.0);
        let place = config.sources.to_string();
        let found = app::gc(&config, older_than, self.delete)?;
        super::say(&if self.json { as_json(&found) } else { as_text(&found, &place, older_than) });
        let failed: Vec<_> = found.iter().filter(|one| matches!(one.fate, Fate::Failed(_))).collect();
        let Some(Fate::Failed(cause)) = failed.first().map(|one| &one.fate) else { return Ok(()) };
        let told = format!("{} upload(s) could not be aborted: {}", failed.len(), printable(cause));
        Err(Failure::new(Kind::Refused, told).hint("it takes the permission s3:AbortMultipartUpload"))
    }
}

fn as_json(found: &[Incomplete]) -> String {
    let uploads: Vec<_> = found
        .iter()
        .map(|one| {
            let initiated = one.initiated.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            json!({
                "key": one.key, "upload_id": one.upload_id, "initiated_unix_s": initiated,
                "age_s": one.age.as_secs(), "fate": word(&one.fate),
            })
        })
        .collect();
    super::pretty(&uploads)
}

fn word(fate: &Fate) -> &'static str {
    match fate {
        Fate::Young => "young",
        Fate::Old => "old",
        Fate::Aborted => "aborted",
        Fate::Failed(_) => "failed",
    }
}

fn as_text(found: &[Incomplete], place: &str, older_than: Duration) -> String {
    if found.is_empty() {
        return format!("no incomplete uploads in {}\n", printable(place));
    }
    let lines = found.iter().map(|one| {
        let (age, fate) = (span(one.age.as_secs()), word(&one.fate));
        format!("{age:>10}  {fate:<7}  {}\n", printable(&one.key))
    });
    let count = |wanted: &str| found.iter().filter(|one| word(&one.fate) == wanted).count();
    let bound = span(older_than.as_secs());
    let told = match (count("old"), count("aborted")) {
        (0, 0) => format!("nothing is older than {bound}\n"),
        (0, aborted) => format!("{aborted} aborted\n"),
        (old, _) => format!("{old} older than {bound}: --delete aborts them\n"),
    };
    lines.chain([told]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str, fate: Fate) -> Incomplete {
        let age = Duration::from_mins(90);
        Incomplete { key: key.into(), upload_id: "u".into(), initiated: UNIX_EPOCH, age, fate }
    }

    #[test]
    fn what_was_found_in_words() {
        let day = Duration::from_hours(24);
        assert_eq!(as_text(&[], "s3://b/p", day), "no incomplete uploads in s3://b/p\n");
        let young = as_text(&[one("a\nb", Fate::Young)], "s3://b", day);
        assert_eq!(young, "1 h 30 min  young    a\\nb\nnothing is older than 1 d 0 h\n");
        let old = as_text(&[one("a", Fate::Old), one("b", Fate::Young)], "s3://b", Duration::ZERO);
        assert!(old.ends_with("1 older than 0 s: --delete aborts them\n"), "{old}");
        let aborted = as_text(&[one("a", Fate::Aborted), one("b", Fate::Failed("no".into()))], "s3://b", day);
        assert!(aborted.contains("failed   b\n") && aborted.ends_with("1 aborted\n"), "{aborted}");
    }
}
