//! Which bucket a key of a mount lies in, and under which key there.
//!
//! In a mount of one bucket both are the same key. In one of several, `photos/2024/a.jpg` is
//! `2024/a.jpg` in the bucket that is called `photos` there, or `PREFIX/2024/a.jpg`.

use std::sync::Arc;

/// A bucket in a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout(Arc<[Root]>);

impl Layout {
    /// One bucket.
    #[must_use]
    pub fn of_bucket(bucket: &str, region: &str, server: &str) -> Self {
        let (bucket, region, server) = (bucket.to_owned(), region.to_owned(), server.to_owned());
        Self([Root { at: String::new(), bucket, prefix: String::new(), region, server }].into())
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

    /// The key of the mount for one of a bucket, if that is part of it.
    #[must_use]
    pub fn here(&self, bucket: &str, key: &str) -> Option<String> {
        self.0.iter().filter(|root| root.bucket == bucket).find_map(|root| root.here(key))
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

#[cfg(test)]
pub(in crate::bucket) mod tests {
    use super::*;

    /// A root without region and server.
    pub(in crate::bucket) fn root(name: &str, bucket: &str, prefix: &str) -> Root {
        let (at, bucket, prefix) = (format!("{name}/"), bucket.to_owned(), prefix.to_owned());
        Root { at, bucket, prefix, region: String::new(), server: String::new() }
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
