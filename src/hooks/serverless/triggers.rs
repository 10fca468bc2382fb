//! `events` of a function: which objects fire it.

use std::fmt::Write as _;

use super::super::rules::EventPattern;
use super::super::yaml::{Entry, Node, Problem, Value};
use super::{Checked, Line, Translated, list, map, quoted, text, unknown};

/// The bucket is there: nothing of it has to be made.
const IGNORED_S3: [&str; 2] = ["existing", "forceDeploy"];

/// One `- s3: …`.
pub(super) struct Trigger<'a> {
    line: usize,
    event: Line<'a>,
    prefix: &'a str,
    suffix: &'a str,
}

pub(super) fn triggers<'a>(node: &'a Node, bucket: Option<&str>) -> Checked<Vec<Trigger<'a>>> {
    let mut triggers = Vec::new();
    for item in list(node, "`events`")? {
        for entry in map(item, "an event")? {
            match entry.name.as_str() {
                "s3" => triggers.push(trigger(entry, bucket)?),
                _ => return Err(unknown(entry, "events.", "s3")),
            }
        }
    }
    Ok(triggers)
}

fn trigger<'a>(entry: &'a Entry, mounted: Option<&str>) -> Checked<Trigger<'a>> {
    let mut trigger = Trigger { line: entry.line, event: (entry.line, "s3:ObjectCreated:*"), prefix: "", suffix: "" };
    let mut bucket = None;
    if matches!(entry.node.value, Value::Map(_)) {
        for entry in map(&entry.node, "`s3`")? {
            match entry.name.as_str() {
                "bucket" => bucket = Some(text(&entry.node)?),
                "event" => trigger.event = text(&entry.node)?,
                "rules" => rules(&entry.node, &mut trigger)?,
                name if IGNORED_S3.contains(&name) => {}
                _ => return Err(unknown(entry, "s3.", "bucket, event, rules and existing")),
            }
        }
    } else {
        bucket = Some(text(&entry.node)?);
    }
    let Some((line, bucket)) = bucket else { return Err(Problem::new(entry.line, "s3 names no bucket")) };
    if let Some(mounted) = mounted.filter(|mounted| *mounted != bucket) {
        return Err(Problem::new(line, format!("its bucket is {bucket}, and the mount's is {mounted}")));
    }
    Ok(trigger)
}

fn rules<'a>(node: &'a Node, trigger: &mut Trigger<'a>) -> Checked<()> {
    for rule in list(node, "`rules`")? {
        for entry in map(rule, "a rule")? {
            let (line, value) = text(&entry.node)?;
            let place = match entry.name.as_str() {
                "prefix" => &mut trigger.prefix,
                "suffix" => &mut trigger.suffix,
                _ => return Err(unknown(entry, "a rule's ", "prefix and suffix")),
            };
            // As in S3.
            if !place.is_empty() {
                return Err(Problem::new(line, format!("one {} a rule, as in S3", entry.name)));
            }
            *place = value;
        }
    }
    Ok(())
}

/// Several triggers of one function have either the same events or the same rule.
pub(super) fn write_triggers(triggers: &[Trigger], to: &mut Translated) -> Checked<()> {
    let Some(first) = triggers.first() else {
        let line = to.lines.last().copied().unwrap_or(1);
        to.add(line, "events = []");
        return Ok(());
    };
    let rule = |trigger: &Trigger| (trigger.prefix.to_owned(), trigger.suffix.to_owned());
    let differing = triggers.iter().find(|trigger| rule(trigger) != rule(first));
    let other_event = triggers.iter().find(|trigger| trigger.event.1 != first.event.1);
    if let (Some(differing), Some(_)) = (differing, other_event) {
        let problem = "its events differ in rule and kind: give one of them a function of its own";
        return Err(Problem::new(differing.line, problem));
    }
    for trigger in triggers {
        let (line, event) = trigger.event;
        EventPattern::parse(event).map_err(|problem| Problem::new(line, problem))?;
    }
    let events: Vec<String> = triggers.iter().map(|trigger| quoted(trigger.event.1)).collect();
    to.add(first.event.0, &format!("events = [{}]", events.join(", ")));
    if differing.is_some() {
        to.add(first.line, "match = [");
        for trigger in triggers {
            for pattern in patterns(trigger.prefix, trigger.suffix) {
                to.add(trigger.line, &format!("{},", quoted(&pattern)));
            }
        }
        to.add(first.line, "]");
        return Ok(());
    }
    for (key, value) in [("prefix", first.prefix), ("suffix", first.suffix)] {
        if !value.is_empty() {
            to.set(key, (first.line, value));
        }
    }
    Ok(())
}

/// Globs for the paths that begin and end so.
fn patterns(prefix: &str, suffix: &str) -> Vec<String> {
    let (directory, begin) =
        prefix.rsplit_once('/').map_or(("", prefix), |(dir, begin)| (&prefix[..=dir.len()], begin));
    let (directory, begin, end) = (literal(directory), literal(begin), literal(suffix));
    if begin.is_empty() && !suffix.contains('/') {
        return vec![format!("{directory}**/*{end}")];
    }
    vec![format!("{directory}{begin}*{end}"), format!("{directory}{begin}*/**/*{end}")]
}

/// A text as a pattern that means just it.
fn literal(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        if "*?[]{}\\".contains(c) {
            let _ = write!(out, "[{c}]");
        } else {
            out.push(c);
        }
        out
    })
}
