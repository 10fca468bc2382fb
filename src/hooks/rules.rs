//! Which hooks see an event.

use std::fmt;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::HookSpec;
use super::destinations::Destination;
use crate::journal::{EventName, NewEvent};

/// How many hooks may have had a hand in an object before no further one fires (as in Lambda).
pub const MAX_LINEAGE: usize = 16;

/// Events a hook wants, by the names of S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventPattern {
    /// `ObjectCreated:*`
    AnyCreated,
    /// `ObjectRemoved:*`
    AnyRemoved,
    One(EventName),
}

impl EventPattern {
    /// Reads `s3:ObjectCreated:*`, `ObjectRemoved:Delete` and their like, with or without `s3:`.
    ///
    /// # Errors
    /// A sentence that lists the names there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix("s3:").unwrap_or(text) {
            "ObjectCreated:*" => Ok(Self::AnyCreated),
            "ObjectRemoved:*" => Ok(Self::AnyRemoved),
            name => {
                EventName::ALL.into_iter().find(|event| event.s3_name() == name).map(Self::One).ok_or_else(|| {
                    format!("\"{text}\" never happens here; there are ObjectCreated:*, {}", Self::names())
                })
            }
        }
    }

    /// As [`Self::parse`] reads it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AnyCreated => "ObjectCreated:*",
            Self::AnyRemoved => "ObjectRemoved:*",
            Self::One(event) => event.s3_name(),
        }
    }

    fn names() -> String {
        let names: Vec<_> = EventName::ALL.into_iter().map(EventName::s3_name).collect();
        format!("{} and ObjectRemoved:*", names.join(", "))
    }

    fn matches(self, name: EventName) -> bool {
        match self {
            Self::AnyCreated => name != EventName::RemovedDelete,
            Self::AnyRemoved => name == EventName::RemovedDelete,
            Self::One(wanted) => wanted == name,
        }
    }
}

/// Patterns over paths: `*` stays inside a directory, `**` goes across.
#[derive(Clone, Debug, Default)]
pub struct Globs {
    patterns: Vec<String>,
    set: GlobSet,
}

impl Globs {
    /// Adds a pattern.
    ///
    /// # Errors
    /// A sentence about what is wrong with it.
    pub fn add(&mut self, pattern: &str) -> Result<(), String> {
        self.patterns.push(pattern.trim_start_matches('/').to_owned());
        let mut set = GlobSetBuilder::new();
        for pattern in &self.patterns {
            let glob = GlobBuilder::new(pattern).literal_separator(true).empty_alternates(true).build();
            set.add(glob.map_err(|error| format!("\"{pattern}\" is no pattern: {}", error.kind()))?);
        }
        self.set = set.build().map_err(|error| format!("\"{pattern}\" is too much of a pattern: {}", error.kind()))?;
        Ok(())
    }

    /// The patterns as they were added, without a leading `/`.
    #[must_use]
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        self.set.is_match(path)
    }

    /// The first pattern that matches.
    fn matching(&self, path: &str) -> Option<&str> {
        self.set.matches(path).first().map(|&index| self.patterns[index].as_str())
    }

    /// The directory that the first matching pattern begins with, before any wildcard: `photos/`
    /// of `photos/**/*.jpg`.
    fn directory_of(&self, path: &str) -> &str {
        self.set.matches(path).first().map_or("", |&index| literal_directory(&self.patterns[index]))
    }
}

fn literal_directory(pattern: &str) -> &str {
    let literal = pattern.find(['*', '?', '[', '{', '\\']).map_or(pattern, |end| &pattern[..end]);
    directory(literal)
}

/// Up to and with the last `/`.
fn directory(path: &str) -> &str {
    path.rfind('/').map_or("", |end| &path[..=end])
}

/// Why a hook never sees what happens to a path.
#[derive(Clone, Copy, Debug)]
enum Refusal<'a> {
    Directory,
    Prefix(&'a str),
    Suffix(&'a str),
    NoMatch(&'a Globs),
    Excluded(&'a str),
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory => f.write_str("it is a directory, and those fire nothing"),
            Self::Prefix(prefix) => write!(f, "it does not begin with the prefix \"{prefix}\""),
            Self::Suffix(suffix) => write!(f, "it does not end with the suffix \"{suffix}\""),
            Self::NoMatch(globs) => write!(f, "no pattern of match fits it: \"{}\"", globs.patterns.join("\", \"")),
            Self::Excluded(pattern) => write!(f, "exclude = \"{pattern}\" fits it"),
        }
    }
}

impl HookSpec {
    /// Whether this hook sees the event of the object at `path` (its key below the mount's prefix).
    #[must_use]
    pub fn wants(&self, event: &NewEvent, path: &str) -> bool {
        self.events.iter().any(|pattern| pattern.matches(event.name))
            && (self.allow_recursion || !event.lineage.contains(&self.name))
            && event.lineage.len() < MAX_LINEAGE
            && self.refusal(path).is_none()
    }

    /// Whether anything that happens to a path can fire this hook: for which events it does, or why it
    /// never does.
    pub(super) fn explain(&self, path: &str) -> (bool, String) {
        if let Some(refusal) = self.refusal(path) {
            return (false, refusal.to_string());
        }
        if let Some(view) = self.mode.view() {
            return (true, format!("is shown in {view}"));
        }
        if self.events.is_empty() {
            return (false, "its events are none: it runs only when it is called".into());
        }
        let events: Vec<_> = self.events.iter().map(|event| event.name()).collect();
        let verb = if self.mode.is_sync() { "is asked before" } else { "fires for" };
        (true, format!("{verb} {}", events.join(", ")))
    }

    /// Whether its view shows what lies at a path.
    pub(super) fn shows(&self, path: &str) -> bool {
        self.refusal(path).is_none()
    }

    /// Whether what a hook writes at a path fires this one, apart from its lineage.
    pub(super) fn takes_output(&self, path: &str) -> bool {
        let written = [EventName::CreatedPut, EventName::CreatedMultipart];
        let seen = |pattern: &EventPattern| written.into_iter().any(|name| pattern.matches(name));
        self.events.iter().any(seen) && self.refusal(path).is_none()
    }

    /// The directories that objects of its destinations go to.
    pub(super) fn told_directories(&self) -> impl Iterator<Item = &str> {
        [&self.on_success, &self.on_failure].into_iter().flatten().filter_map(|destination| match destination {
            Destination::Prefix(directory) => Some(directory.as_str()),
            _ => None,
        })
    }

    /// The directories that `/out` can be published to, and what it may write besides.
    pub(super) fn output_directories(&self) -> Vec<&str> {
        let mut directories = match &self.output {
            Some(output) => vec![output.as_str()],
            None if !self.prefix.is_empty() => vec![directory(&self.prefix)],
            None if self.matches.is_empty() => vec![""],
            None => self.matches.patterns.iter().map(|pattern| literal_directory(pattern)).collect(),
        };
        directories.extend(self.write.iter().map(String::as_str));
        directories
    }

    /// What of its rule keeps a path away from this hook.
    fn refusal<'a>(&'a self, path: &str) -> Option<Refusal<'a>> {
        // A key that ends in `/` is a directory's marker: it has attributes, and nothing to read.
        if path.is_empty() || path.ends_with('/') {
            Some(Refusal::Directory)
        } else if !path.starts_with(&self.prefix) {
            Some(Refusal::Prefix(&self.prefix))
        } else if !path.ends_with(&self.suffix) {
            Some(Refusal::Suffix(&self.suffix))
        } else if !self.matches.is_empty() && !self.matches.matches(path) {
            Some(Refusal::NoMatch(&self.matches))
        } else {
            self.exclude.matching(path).map(Refusal::Excluded)
        }
    }

    /// The directory below the mount's root that `/out` is published to for this path; for none, what is
    /// about no object.
    pub(super) fn output_directory<'a>(&'a self, path: &'a str) -> &'a str {
        if path.is_empty() {
            return self.output_directories().first().copied().unwrap_or_default();
        }
        self.output.as_deref().unwrap_or_else(|| self.base(path))
    }

    /// The directory that the hook's names are relative to: of `prefix`, else of the pattern that
    /// matched. Empty, or ending in `/`; always a prefix of `path`.
    #[must_use]
    pub fn base<'a>(&self, path: &'a str) -> &'a str {
        let base = if self.prefix.is_empty() { self.matches.directory_of(path) } else { directory(&self.prefix) };
        if path.starts_with(base) { &path[..base.len()] } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn event(name: EventName) -> NewEvent {
        NewEvent {
            name,
            key: String::new(),
            size: 0,
            etag: None,
            time: UNIX_EPOCH,
            lineage: Vec::new(),
            rewritten: false,
            replayed_for: Vec::new(),
        }
    }

    fn spec(settings: &str) -> HookSpec {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("m.wat"), "(module)").unwrap();
        let file = dir.path().join("hooks.toml");
        std::fs::write(&file, format!("[[hook]]\nname = \"h\"\nwasm = \"m.wat\"\n{settings}")).unwrap();
        super::super::settings::parse(&file).unwrap().remove(0)
    }

    #[test]
    fn events_are_told_apart_by_their_s3_names() {
        for (pattern, fires_for) in [
            ("s3:ObjectCreated:*", vec![EventName::CreatedPut, EventName::CreatedCopy, EventName::CreatedMultipart]),
            ("ObjectCreated:Put", vec![EventName::CreatedPut]),
            ("ObjectCreated:CompleteMultipartUpload", vec![EventName::CreatedMultipart]),
            ("s3:ObjectCreated:Copy", vec![EventName::CreatedCopy]),
            ("ObjectRemoved:*", vec![EventName::RemovedDelete]),
            ("ObjectRemoved:Delete", vec![EventName::RemovedDelete]),
        ] {
            let spec = spec(&format!("events = [\"{pattern}\"]"));
            for name in EventName::ALL {
                assert_eq!(spec.wants(&event(name), "a"), fires_for.contains(&name), "{pattern} {name:?}");
            }
        }
    }

    #[test]
    fn without_events_a_hook_sees_what_is_created() {
        assert!(spec("").wants(&event(EventName::CreatedMultipart), "any/path"));
        assert!(!spec("").wants(&event(EventName::RemovedDelete), "any/path"));
    }

    #[test]
    fn globs_prefix_suffix_and_exclusions_all_have_to_agree() {
        let spec = spec("match = [\"photos/**/*.{jpg,png}\", \"*.gif\"]\nexclude = [\"**/.*\"]\nsuffix = \"g\"");
        let put = event(EventName::CreatedPut);
        for (path, fires) in [
            ("photos/a.jpg", true),
            ("photos/2024/05/a.png", true),
            ("photos/a.txt", false),
            ("other/photos/a.jpg", false),
            ("photos/.hidden.jpg", false),
            ("a.gif", false),
            ("photos/", false),
            ("", false),
        ] {
            assert_eq!(spec.wants(&put, path), fires, "{path}");
        }
    }

    #[test]
    fn a_path_is_told_why_it_fires_nothing() {
        let spec = spec("match = [\"a/**\", \"b\"]\nexclude = [\"**/.*\", \"a/x\"]\nsuffix = \"x\"\nprefix = \"a\"");
        for (path, why) in [
            ("a/b/x", "fires for ObjectCreated:*"),
            ("a/x", "exclude = \"a/x\" fits it"),
            ("a/.x", "exclude = \"**/.*\" fits it"),
            ("ax", "no pattern of match fits it: \"a/**\", \"b\""),
            ("a/y", "it does not end with the suffix \"x\""),
            ("b", "it does not begin with the prefix \"a\""),
            ("a/", "it is a directory, and those fire nothing"),
        ] {
            assert_eq!(spec.explain(path), (why.starts_with("fires"), why.to_owned()), "{path}");
            assert_eq!(spec.wants(&event(EventName::CreatedPut), path), why.starts_with("fires"), "{path}");
        }
    }

    #[test]
    fn a_star_stays_inside_its_directory() {
        let spec = spec("match = [\"in/*\"]");
        assert!(spec.wants(&event(EventName::CreatedPut), "in/a"));
        assert!(!spec.wants(&event(EventName::CreatedPut), "in/deep/a"));
    }

    #[test]
    fn a_hook_does_not_see_what_it_made_itself() {
        let mut made = event(EventName::CreatedPut);
        made.lineage = vec!["x".into(), "h".into()];
        assert!(!spec("").wants(&made, "a"));
        made.lineage = vec!["x".into(); MAX_LINEAGE - 1];
        assert!(spec("").wants(&made, "a"));
        made.lineage = vec!["x".into(); MAX_LINEAGE];
        assert!(!spec("").wants(&made, "a"));
        made.lineage = vec!["h".into(); MAX_LINEAGE - 1];
        assert!(spec("allow-recursion = true").wants(&made, "a"));
        made.lineage = vec!["h".into(); MAX_LINEAGE];
        assert!(!spec("allow-recursion = true").wants(&made, "a"));
    }

    #[test]
    fn names_are_relative_to_the_literal_part_of_the_rule() {
        assert_eq!(spec("match = [\"**/*.gz\"]").base("a/b.gz"), "");
        assert_eq!(spec("match = [\"photos/**/*.jpg\"]").base("photos/x/a.jpg"), "photos/");
        assert_eq!(spec("match = [\"x/**\", \"photos/2*/**\"]").base("photos/2024/a.jpg"), "photos/");
        assert_eq!(spec("prefix = \"photos/20\"\nmatch = [\"**\"]").base("photos/2024/a.jpg"), "photos/");
        assert_eq!(spec("").base("a/b"), "");
    }
}
