//! What the root directory of a mount stands for: a bucket, or several beside each other.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::{Error, Source};
use crate::key;

/// Names in [`fmt::Display`]: `mount(2)` takes no source above a page.
const MOST_SHOWN: usize = 16;

/// One bucket, or several by the names of their directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sources {
    One(Source),
    /// At least one.
    Named(BTreeMap<String, Source>),
}

impl Sources {
    /// From the table of a file: names and what each stands for.
    ///
    /// # Errors
    /// What is wrong with a name or a source.
    pub fn named(table: &BTreeMap<String, String>) -> Result<Self, Error> {
        let mut sources = BTreeMap::new();
        for (name, source) in table {
            check_name(name)?;
            sources.insert(name.clone(), source.parse::<Source>()?);
        }
        if sources.is_empty() {
            return Err(Error::new("[buckets] names no bucket", "write NAME = \"BUCKET[/PREFIX]\" below it"));
        }
        Ok(Self::Named(sources))
    }

    /// The prefix that keys of the mount begin with: empty, or ending in `/`.
    #[must_use]
    pub fn root_prefix(&self) -> &str {
        match self {
            Self::One(source) => &source.prefix,
            Self::Named(_) => "",
        }
    }

    /// Each source, with the name of its directory where it has one.
    pub fn each(&self) -> impl Iterator<Item = (Option<&str>, &Source)> {
        let (one, named) = match self {
            Self::One(source) => (Some(source), None),
            Self::Named(sources) => (None, Some(sources)),
        };
        let named = named.into_iter().flatten().map(|(name, source)| (Some(name.as_str()), source));
        one.into_iter().map(|source| (None, source)).chain(named)
    }

    /// The bucket as events and settings name it: of several, all that there are.
    #[must_use]
    pub fn bucket_name(&self) -> String {
        match self {
            Self::One(source) => source.bucket.clone(),
            Self::Named(_) => self.to_string(),
        }
    }
}

/// The name becomes a directory, and stands in lists on the command line.
fn check_name(name: &str) -> Result<(), Error> {
    if key::oddity(name).is_some() || name.contains(['/', '=', ',']) {
        let told = format!("'{}' cannot be the name of a bucket's directory", name.escape_debug());
        return Err(Error::new(told, "names are those of files, without '/', '=' and ','"));
    }
    Ok(())
}

impl FromStr for Sources {
    type Err = Error;

    /// `BUCKET[/PREFIX]`, or `NAME=BUCKET[/PREFIX],…`. A prefix may hold a `=`, which then comes behind a slash.
    fn from_str(text: &str) -> Result<Self, Error> {
        let is_named = |part: &str| part.split('/').next().unwrap_or_default().contains('=');
        if !is_named(text) {
            return text.parse().map(Self::One);
        }
        let mut table = BTreeMap::new();
        for part in text.split(',') {
            let Some((name, source)) = part.split_once('=').filter(|_| is_named(part)) else {
                let hint = "write NAME=BUCKET[/PREFIX],…; a prefix with a comma can stand under [buckets] of a file";
                return Err(Error::new(format!("'{}' has no name", part.escape_debug()), hint));
            };
            if table.insert(name.to_owned(), source.to_owned()).is_some() {
                return Err(Error::new(format!("'{}' is named twice", name.escape_debug()), "give each bucket a name"));
            }
        }
        Self::named(&table)
    }
}

impl fmt::Display for Sources {
    /// As in /proc/mounts, and as the command line takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (name, source)) in self.each().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            if number == MOST_SHOWN {
                return write!(f, "{comma}...");
            }
            match name {
                None => write!(f, "{source}")?,
                Some(name) => write!(f, "{comma}{name}={source}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(lines: &[(&str, &str)]) -> Result<Sources, Error> {
        Sources::named(&lines.iter().map(|(name, source)| ((*name).to_owned(), (*source).to_owned())).collect())
    }

    #[test]
    fn a_list_of_names_is_read_as_it_is_shown() {
        let sources: Sources = "photos=my-photos,logs=s3://company/2026".parse().unwrap();
        assert_eq!(sources, table(&[("photos", "my-photos"), ("logs", "company/2026/")]).unwrap());
        assert_eq!(sources.to_string(), "logs=s3://company/2026,photos=s3://my-photos");
        assert_eq!(sources.to_string().parse::<Sources>().unwrap(), sources);
        assert_eq!(sources.root_prefix(), "");
    }

    #[test]
    fn a_single_bucket_stays_one() {
        for text in ["b", "s3://b/p", "b/date=2026", "b/a=1,b=2/"] {
            let sources: Sources = text.parse().unwrap();
            assert_eq!(sources, Sources::One(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn what_no_directory_can_be_called_is_refused() {
        for name in ["", ".", "..", "a/b", "a=b", "a,b", "a\0b", &"x".repeat(256)] {
            assert!(table(&[(name, "b")]).is_err(), "{name:?}");
        }
        for text in ["a=b,c", "a=b,a=c", "a=", "=b", "a=b,"] {
            assert!(text.parse::<Sources>().is_err(), "{text}");
        }
        assert!(table(&[]).is_err());
    }

    #[test]
    fn many_are_shown_in_part() {
        let lines: Vec<(String, String)> =
            (10..40).map(|number| (format!("n{number}"), format!("b{number}"))).collect();
        let sources = Sources::named(&lines.into_iter().collect()).unwrap().to_string();
        assert!(sources.starts_with("n10=s3://b10,") && sources.ends_with(",n25=s3://b25,..."), "{sources}");
    }
}
