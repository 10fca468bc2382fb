//! Which bucket a key of a mount lies in, and under which key there.
//!
//! In a mount of one bucket both are the same key. In one of several, `photos/2024/a.jpg` is
//! `2024/a.jpg` in the bucket that is called `photos` there, or `PREFIX/2024/a.jpg`.

use std::sync::Arc;

use super::clock::ServerClock;
use crate::key::is_directory_bucket;

/// A bucket in a mount.
#[derive(Clone, Debug, Default)]
pub struct Root {
    /// What keys of the mount that lie in it begin with: empty for the only one, else `NAME/`.
    pub at: String,
    /// Its own name, an alias or an ARN.
    pub bucket: String,
    /// What keys begin with there, in the place of `at`: empty, or ending in `/`. Empty as well for the only
    /// bucket, whose keys are the same here and there.
    pub prefix: String,
    pub region: String,
    /// The server, by a name that stays the same over restarts.
    pub server: String,
    pub clock: ServerClock,
    /// Which client speaks to the server. What is copied from a bucket to another of the same number needs
    /// no other endpoint, credentials or keys than what is copied within it.
    pub client: usize,
    /// Nothing is written there.
    pub read_only: bool,
}

impl Root {
    /// The key in the bucket.
    #[must_use]
    pub fn there(&self, key: &str) -> Option<String> {
        key.strip_prefix(&self.at).map(|rest| format!("{}{rest}", self.prefix))
    }

    /// The key in the mount.
    #[must_use]
    pub fn here(&self, key: &str) -> Option<String> {
        key.strip_prefix(&self.prefix).map(|rest| format!("{}{rest}", self.at))
    }
}

/// All buckets of a mount, in the order of their keys. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Layout(Arc<[Root]>);

impl Layout {
    /// One bucket.
    #[must_use]
    pub fn of_bucket(bucket: &str, region: &str, server: &str) -> Self {
        let (bucket, region, server) = (bucket.to_owned(), region.to_owned(), server.to_owned());
        Self([Root { bucket, region, server, ..Root::default() }].into())
    }

    /// The same, of a server that has this clock.
    #[must_use]
    pub fn with_clock(self, clock: &ServerClock) -> Self {
        Self(self.0.iter().map(|root| Root { clock: clock.clone(), ..root.clone() }).collect())
    }

    /// Several, each under a name of its own.
    #[must_use]
    pub fn of_several(mut roots: Vec<Root>) -> Self {
        roots.sort_by(|one, other| one.at.cmp(&other.at));
        Self(roots.into())
    }

    /// The same buckets of a server that has this name for good, where its address changes.
    #[must_use]
    pub fn served_as(self, server: &str) -> Self {
        Self(self.0.iter().map(|root| Root { server: server.to_owned(), ..root.clone() }).collect())
    }

    /// All of them, in the order of their keys.
    #[must_use]
    pub fn roots(&self) -> &[Root] {
        &self.0
    }

    /// Where a key lies; `None` for what is in no bucket.
    #[must_use]
    pub fn root_of(&self, key: &str) -> Option<&Root> {
        self.index_of(key).map(|index| &self.0[index])
    }

    /// The same by its place in [`Layout::roots`].
    #[must_use]
    pub fn index_of(&self, key: &str) -> Option<usize> {
        self.0.iter().position(|root| key.starts_with(&root.at))
    }

    /// Which of [`Layout::roots`] it is, and the key in that bucket.
    #[must_use]
    pub fn locate(&self, key: &str) -> Option<(usize, String)> {
        let index = self.index_of(key)?;
        Some((index, self.0[index].there(key)?))
    }

    /// By how many bytes keys that begin so are longer in their bucket.
    #[must_use]
    pub fn growth_of(&self, key: &str) -> usize {
        self.root_of(key).map_or(0, |root| root.prefix.len().saturating_sub(root.at.len()))
    }

    /// The key of the mount for one of a bucket, if that is part of it. `None` as well where servers have a
    /// bucket of this name each, and the name does not say which is meant.
    #[must_use]
    pub fn here(&self, bucket: &str, key: &str) -> Option<String> {
        let mut found = self.0.iter().filter(|root| root.bucket == bucket).filter_map(|root| root.here(key));
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    /// Whether the server copies from one key to the other: what lies in no bucket, nobody keeps apart.
    #[must_use]
    pub fn copies(&self, from: &str, to: &str) -> bool {
        let client = |key: &str| self.root_of(key).map(|root| root.client);
        client(from).zip(client(to)).is_none_or(|(one, other)| one == other)
    }

    /// Whether a key lies in a bucket that is only read.
    #[must_use]
    pub fn is_read_only(&self, key: &str) -> bool {
        self.root_of(key).is_some_and(|root| root.read_only)
    }

    /// The clock of the server that has a key.
    #[must_use]
    pub fn clock(&self, key: &str) -> ServerClock {
        self.root_of(key).or(self.0.first()).map(|root| root.clock.clone()).unwrap_or_default()
    }

    /// The regions of the buckets, each once.
    #[must_use]
    pub fn regions(&self) -> String {
        each_once(self.0.iter().map(|root| root.region.as_str()))
    }

    /// The servers of the buckets, each once.
    #[must_use]
    pub fn servers(&self) -> String {
        each_once(self.0.iter().map(|root| root.server.as_str()))
    }

    /// Whether the server gives all keys in binary order: of directory buckets it does not.
    #[must_use]
    pub fn lists_in_order(&self) -> bool {
        !self.0.iter().any(|root| is_directory_bucket(&root.bucket))
    }

    /// Whether the root directory holds buckets, and nothing else.
    #[must_use]
    pub fn is_united(&self) -> bool {
        self.0.first().is_none_or(|root| !root.at.is_empty())
    }

    /// Whether a key is that of the directory which a bucket appears as: it is there as long as the mount is.
    #[must_use]
    pub fn is_top(&self, key: &str) -> bool {
        self.0.iter().any(|root| root.at == key)
    }

    /// Whether it is, and the bucket has no key that could carry the directory's attributes.
    #[must_use]
    pub fn is_keyless(&self, key: &str) -> bool {
        key.is_empty() || self.0.iter().any(|root| root.at == key && root.prefix.is_empty())
    }
}

/// Words with commas between them.
fn each_once<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut told: Vec<&str> = Vec::new();
    for word in words {
        if !told.contains(&word) {
            told.push(word);
        }
    }
    told.join(",")
}

#[cfg(test)]
pub(in crate::bucket) mod tests {
    use super::*;

    /// A root without region and server.
    pub(in crate::bucket) fn root(name: &str, bucket: &str, prefix: &str) -> Root {
        let (at, bucket, prefix) = (format!("{name}/"), bucket.to_owned(), prefix.to_owned());
        Root { at, bucket, prefix, ..Root::default() }
    }

    #[test]
    fn each_key_lies_in_one_bucket() {
        let layout = Layout::of_several(vec![root("photos", "my-photos", ""), root("logs", "company", "2026/")]);
        let there = |key: &str| layout.root_of(key).map(|root| (root.bucket.clone(), root.there(key).unwrap()));
        assert_eq!(there("photos/a/b"), Some(("my-photos".to_owned(), "a/b".to_owned())));
        assert_eq!(there("logs/a"), Some(("company".to_owned(), "2026/a".to_owned())));
        assert_eq!(there("logs/"), Some(("company".to_owned(), "2026/".to_owned())));
        assert_eq!((there("photos"), there("photos2/a"), there("")), (None, None, None));
        assert_eq!((layout.growth_of("photos/a"), layout.growth_of("logs/a"), layout.growth_of("")), (0, 0, 0));
        assert_eq!(Layout::of_several(vec![root("a", "b", "2026/")]).growth_of("a/x"), 3);
        assert_eq!(layout.here("company", "2026/a").as_deref(), Some("logs/a"));
        assert_eq!((layout.here("company", "2025/a"), layout.here("other", "2026/a")), (None, None));
    }

    #[test]
    fn buckets_of_one_name_on_two_servers_are_two() {
        let on = |name: &str, server: &str, client| Root { server: server.into(), client, ..root(name, "b", "") };
        let read_only = Root { read_only: true, clock: ServerClock::behind_by_s(7), ..on("c", "http://two", 1) };
        let layout = Layout::of_several(vec![on("a", "http://one", 0), on("b", "http://two", 1), read_only]);
        assert_eq!(layout.here("b", "x"), None, "nobody knows which is meant");
        assert!(layout.copies("a/x", "a/y") && layout.copies("b/x", "c/y") && !layout.copies("a/x", "b/x"));
        assert!(layout.is_read_only("c/") && layout.is_read_only("c/x") && !layout.is_read_only("b/x"));
        assert!(!layout.is_read_only(""), "the root is of no bucket");
        assert_eq!((layout.clock("c/x").ahead_s(), layout.clock("a/x").ahead_s()), (Some(7), None));
        assert_eq!(layout.servers(), "http://one,http://two");
    }

    #[test]
    fn keys_of_the_only_bucket_are_its_own() {
        let layout = Layout::of_bucket("b", "r", "s");
        assert_eq!(layout.root_of("p/a").and_then(|root| root.there("p/a")).as_deref(), Some("p/a"));
        assert_eq!(layout.here("b", "x").as_deref(), Some("x"));
        assert!(!layout.is_united() && layout.is_keyless("") && !layout.is_keyless("p/"));
    }

    #[test]
    fn a_part_of_a_bucket_has_a_key_for_its_directory() {
        let layout = Layout::of_several(vec![root("photos", "my-photos", ""), root("logs", "company", "2026/")]);
        assert!(layout.is_united() && layout.is_top("logs/") && layout.is_top("photos/") && !layout.is_top("logs/a/"));
        assert!(layout.is_keyless("") && layout.is_keyless("photos/") && !layout.is_keyless("logs/"));
    }
}
