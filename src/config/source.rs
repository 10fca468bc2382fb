//! What is mounted: `BUCKET`, `BUCKET/PREFIX`, `s3://BUCKET/PREFIX`.

use std::fmt;
use std::str::FromStr;

use super::Error;
use crate::key;

/// A bucket and the part of it that becomes the root directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Bucket name, access point alias, or ARN of an access point, also of a multi-region one.
    pub bucket: String,
    /// Empty, or ending in `/`.
    pub prefix: String,
}

impl Source {
    /// Whether requests go to whichever region of several is near: `arn:aws:s3::ACCOUNT:accesspoint/ALIAS.mrap`.
    #[must_use]
    pub fn is_multi_region(&self) -> bool {
        let region = self.bucket.strip_prefix("arn:").and_then(|rest| rest.split(':').nth(2));
        region == Some("") && self.bucket.contains(":accesspoint/")
    }

    /// Whether it is a bucket of S3 Express One Zone.
    #[must_use]
    pub fn is_directory_bucket(&self) -> bool {
        key::is_directory_bucket(&self.bucket)
    }
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let rest = text.strip_prefix("s3://").unwrap_or(text);
        let (bucket, prefix) = if rest.starts_with("arn:") { split_arn(rest) } else { split(rest) };
        if !is_bucket(bucket) {
            return Err(Error::new(
                format!("'{}' names no bucket", text.escape_debug()),
                "write BUCKET, BUCKET/PREFIX or s3://BUCKET/PREFIX",
            ));
        }
        let prefix = key::root_prefix(prefix);
        if prefix.len() >= key::MAX_KEY_BYTES || prefix.split_terminator('/').any(|part| key::oddity(part).is_some()) {
            return Err(Error::new(
                format!("'{}' is no prefix that a directory can have", prefix.escape_debug()),
                "leave out empty parts, '.' and '..'; at most 1,023 bytes",
            ));
        }
        Ok(Self { bucket: bucket.to_owned(), prefix })
    }
}

fn split(text: &str) -> (&str, &str) {
    text.split_once('/').unwrap_or((text, ""))
}

/// `arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME/PREFIX`: the first slash belongs to the name.
fn split_arn(text: &str) -> (&str, &str) {
    let Some(start) = text.find(":accesspoint/").map(|at| at + ":accesspoint/".len()) else { return split(text) };
    match text[start..].find('/') {
        Some(slash) => (&text[..start + slash], &text[start + slash + 1..]),
        None => (text, ""),
    }
}

/// Wider than AWS's own rule (3 to 63 lower-case letters, digits, dots, hyphens): other servers
/// allow more, and the server has the last word.
fn is_bucket(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '/');
    (1..=255).contains(&name.len()) && !name.starts_with(['-', '.', '/', ':']) && name.chars().all(fits)
}

impl fmt::Display for Source {
    /// As in /proc/mounts: no slash at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix.trim_end_matches('/')) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (String, String) {
        let source: Source = text.parse().unwrap();
        (source.bucket, source.prefix)
    }

    #[test]
    fn bucket_and_prefix_in_each_spelling() {
        assert_eq!(parse("photos"), ("photos".into(), String::new()));
        assert_eq!(parse("photos/2024/"), ("photos".into(), "2024/".into()));
        assert_eq!(parse("s3://photos/a/b"), ("photos".into(), "a/b/".into()));
        assert_eq!(parse("s3://status"), ("status".into(), String::new()));
    }

    #[test]
    fn an_access_point_keeps_its_slash() {
        let arn = "arn:aws:s3:eu-west-1:123456789012:accesspoint/mine";
        assert_eq!(parse(arn), (arn.into(), String::new()));
        assert_eq!(parse(&format!("{arn}/a")), (arn.into(), "a/".into()));
        let several = "arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap";
        assert_eq!(parse(&format!("s3://{several}/a/b")), (several.into(), "a/b/".into()));
        let is_multi_region = |text: &str| text.parse::<Source>().unwrap().is_multi_region();
        assert!(is_multi_region(several) && !is_multi_region(arn) && !is_multi_region("mfzwi23gnjvgw.mrap"));
    }

    #[test]
    fn what_names_no_bucket_is_refused() {
        for text in ["", "/", "s3://", "s3:///a", "a b", "-x", "../x", "b/../c", "b/a//c", "b/./c"] {
            assert!(text.parse::<Source>().is_err(), "{text}");
        }
        assert!(format!("b/{}", "x/".repeat(600)).parse::<Source>().is_err());
    }

    #[test]
    fn shown_as_a_url() {
        assert_eq!("photos/2024/".parse::<Source>().unwrap().to_string(), "s3://photos/2024");
    }
}
