//! Walking keys in binary order: rolled up at a delimiter, page by page.
//!
//! A page costs a few map look-ups and the entries it holds: a common prefix is jumped over, not
//! walked through.

use std::ops::Bound;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use s3s::{S3Result, s3_error};

/// What to list.
#[derive(Debug, Default)]
pub(in crate::demo) struct Walk<'a> {
    pub prefix: &'a str,
    pub delimiter: Option<&'a str>,
    pub after: After,
    pub max_keys: usize,
}

/// Where to begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::demo) enum After {
    #[default]
    Nothing,
    /// Strictly behind this key.
    Key(String),
    /// Behind every key that begins with this.
    Prefix(String),
}

/// An entry of a listing: a key with what it holds, or a common prefix.
#[derive(Debug)]
pub(in crate::demo) enum Entry<T> {
    Key(String, T),
    Prefix(String),
}

/// A page of entries; `next` says where to go on, `None` at the end.
#[derive(Debug)]
pub(in crate::demo) struct Page<T> {
    pub entries: Vec<Entry<T>>,
    pub next: Option<After>,
}

impl<T> Entry<T> {
    /// Where to go on behind it.
    pub fn as_after(&self) -> After {
        match self {
            Self::Key(key, _) => After::Key(key.clone()),
            Self::Prefix(prefix) => After::Prefix(prefix.clone()),
        }
    }
}

impl After {
    /// The lower bound that it means for keys; `None` when nothing can follow.
    fn bound(&self) -> Option<Bound<String>> {
        match self {
            Self::Nothing => Some(Bound::Unbounded),
            Self::Key(key) => Some(Bound::Excluded(key.clone())),
            Self::Prefix(prefix) => Some(Bound::Included(successor(prefix)?)),
        }
    }

    /// As an opaque continuation token.
    pub fn to_token(&self) -> String {
        match self {
            Self::Nothing => BASE64.encode("n"),
            Self::Key(key) => BASE64.encode(format!("k{key}")),
            Self::Prefix(prefix) => BASE64.encode(format!("p{prefix}")),
        }
    }

    /// Where the page before this one ended.
    pub fn of_token(token: &str) -> S3Result<Self> {
        let wrong = || s3_error!(InvalidArgument, "The continuation token provided is incorrect");
        let text = BASE64.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(wrong)?;
        match text.split_at_checked(1) {
            Some(("n", "")) => Ok(Self::Nothing),
            Some(("k", key)) => Ok(Self::Key(key.to_owned())),
            Some(("p", prefix)) => Ok(Self::Prefix(prefix.to_owned())),
            _ => Err(wrong()),
        }
    }

    /// A marker of the first version of LIST, which tells a common prefix like a key.
    pub fn of_marker(marker: String, walk: &Walk) -> Self {
        match walk.common_prefix(&marker) {
            Some(prefix) if prefix == marker => Self::Prefix(marker),
            _ => Self::Key(marker),
        }
    }
}

impl Walk<'_> {
    /// Lists whatever `next` finds first at or behind a bound.
    pub fn page<T>(&self, mut next: impl FnMut((Bound<&str>, Bound<&str>)) -> Option<(String, T)>) -> Page<T> {
        let mut page = Page { entries: Vec::new(), next: None };
        let mut bound = self.after.bound();
        if bound.as_ref().is_some_and(|bound| is_before(bound, self.prefix)) {
            bound = Some(Bound::Included(self.prefix.to_owned()));
        }
        while let Some(from) = bound {
            let Some((key, value)) = next((from.as_ref().map(String::as_str), Bound::Unbounded)) else { break };
            if !key.starts_with(self.prefix) {
                break;
            }
            if page.entries.len() >= self.max_keys {
                page.next = page.entries.last().map(Entry::as_after);
                break;
            }
            let entry = match self.common_prefix(&key) {
                Some(prefix) => Entry::Prefix(prefix.to_owned()),
                None => Entry::Key(key, value),
            };
            bound = entry.as_after().bound();
            page.entries.push(entry);
        }
        page
    }

    /// What a key is rolled up to, if it is.
    pub fn common_prefix<'k>(&self, key: &'k str) -> Option<&'k str> {
        let delimiter = self.delimiter.filter(|delimiter| !delimiter.is_empty())?;
        let at = key.strip_prefix(self.prefix)?.find(delimiter)?;
        Some(&key[..self.prefix.len() + at + delimiter.len()])
    }
}

fn is_before(bound: &Bound<String>, prefix: &str) -> bool {
    match bound {
        Bound::Unbounded => true,
        Bound::Included(key) | Bound::Excluded(key) => key.as_str() < prefix,
    }
}

/// The least string above everything that begins with a prefix. UTF-8 orders like code points, and
/// between U+D7FF and U+E000 there is no character.
fn successor(prefix: &str) -> Option<String> {
    let last = prefix.chars().next_back()?;
    let stem = &prefix[..prefix.len() - last.len_utf8()];
    let next = match last {
        '\u{d7ff}' => Some('\u{e000}'),
        _ => char::from_u32(u32::from(last) + 1),
    };
    next.map_or_else(|| successor(stem), |next| Some(format!("{stem}{next}")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn walk_all(keys: &[&str], walk: &Walk) -> Vec<String> {
        let keys: BTreeSet<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let mut after = walk.after.clone();
        let mut told = Vec::new();
        loop {
            let page =
                Walk { after, ..*walk }.page(|from| keys.range::<str, _>(from).next().map(|key| (key.clone(), ())));
            assert!(page.entries.len() <= walk.max_keys);
            told.extend(page.entries.into_iter().map(|entry| match entry {
                Entry::Key(key, ()) | Entry::Prefix(key) => key,
            }));
            match page.next {
                Some(next) => after = After::of_token(&next.to_token()).unwrap(),
                None => return told,
            }
        }
    }

    #[test]
    fn pages_of_any_size_tell_every_entry_once_and_in_binary_order() {
        let keys = ["a", "a!", "a/", "a/b", "a//c", "a0", "b/c", "b/d", "ü/x", "ü/y", "\u{10ffff}/z", "\u{10ffff}/zz"];
        let want = ["a", "a!", "a/", "a0", "b/", "ü/", "\u{10ffff}/"];
        for max_keys in 1..9 {
            let walk = Walk { delimiter: Some("/"), max_keys, ..Walk::default() };
            assert_eq!(walk_all(&keys, &walk), want, "{max_keys} to a page");
            let mut all = keys;
            all.sort_unstable();
            assert_eq!(walk_all(&keys, &Walk { max_keys, ..Walk::default() }), all, "{max_keys} to a page");
        }
    }

    #[test]
    fn a_prefix_bounds_the_listing_on_both_sides() {
        let keys = ["a", "b", "b/", "b/c", "b/d/e", "c"];
        let walk = || Walk { prefix: "b/", delimiter: Some("/"), max_keys: 10, ..Walk::default() };
        assert_eq!(walk_all(&keys, &walk()), ["b/", "b/c", "b/d/"]);
        assert_eq!(walk_all(&keys, &Walk { after: After::Key("b/c".into()), ..walk() }), ["b/d/"]);
        assert_eq!(walk_all(&keys, &Walk { after: After::Key("c".into()), ..walk() }), Vec::<String>::new());
    }

    #[test]
    fn the_successor_is_above_the_prefix_and_below_what_follows() {
        assert_eq!(successor("a/").as_deref(), Some("a0"));
        assert_eq!(successor("a\u{d7ff}").as_deref(), Some("a\u{e000}"));
        assert_eq!(successor("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(successor("\u{10ffff}"), None);
    }
}
