//! What the user wants of the objects that a mount writes, and of every request about them.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use globset::{GlobBuilder, GlobMatcher};
use serde::Deserialize;

use super::{Error, Options, Span};

/// A version is locked for a minute at least, as its request may be under way for so long, and for a
/// hundred years at most, as in the default of a bucket (AWS: "Object Lock considerations").
const LOCK_SPAN: RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(36_500 * 24);

/// How S3 encrypts what is written (AWS: "Protecting data with server-side encryption").
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize)]
pub enum Sse {
    /// With keys of S3's own
    #[value(name = "AES256")]
    #[serde(rename = "AES256")]
    Aes256,
    /// With a key of AWS KMS: that of --sse-kms-key-id, else AWS's own for S3
    #[value(name = "aws:kms")]
    #[serde(rename = "aws:kms")]
    Kms,
    /// The same, in two layers
    #[value(name = "aws:kms:dsse")]
    #[serde(rename = "aws:kms:dsse")]
    Dsse,
}

impl Sse {
    /// The value of `x-amz-server-side-encryption`.
    #[must_use]
    pub fn header(self) -> &'static str {
        match self {
            Self::Aes256 => "AES256",
            Self::Kms => "aws:kms",
            Self::Dsse => "aws:kms:dsse",
        }
    }
}

/// The options under "Objects", checked.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// The first that matches the path in the mount decides; one without a pattern matches all.
    pub storage_classes: Vec<(Option<GlobMatcher>, String)>,
    pub sse: Option<Sse>,
    pub sse_kms_key_id: Option<String>,
    /// Holds 32 bytes, or their base64.
    pub sse_c_key_file: Option<PathBuf>,
    pub acl: Option<String>,
    pub tags: Vec<(String, String)>,
    /// The mode by S3's name, and for how long from the writing on.
    pub object_lock: Option<(&'static str, Duration)>,
    pub legal_hold: bool,
    pub requester_pays: bool,
    pub expected_bucket_owner: Option<String>,
}

impl Objects {
    pub(super) fn of(options: &Options) -> Result<Self, Error> {
        let objects = Self {
            storage_classes: words(options.storage_class.as_ref()).map(storage_class).collect::<Result<_, _>>()?,
            sse: options.sse,
            sse_kms_key_id: options.sse_kms_key_id.clone(),
            sse_c_key_file: options.sse_c_key_file.as_deref().map(super::absolute).transpose()?,
            acl: options.acl.clone(),
            tags: words(options.tags.as_ref()).map(tag).collect::<Result<_, _>>()?,
            object_lock: options.object_lock.as_deref().map(object_lock).transpose()?,
            legal_hold: options.legal_hold.unwrap_or(false),
            requester_pays: options.requester_pays.unwrap_or(false),
            expected_bucket_owner: options.expected_bucket_owner.clone(),
        };
        if objects.sse_kms_key_id.is_some() && !matches!(objects.sse, Some(Sse::Kms | Sse::Dsse)) {
            return Err(Error::new("--sse-kms-key-id names a key that is not used", "give --sse aws:kms, too"));
        }
        if objects.sse_c_key_file.is_some() && objects.sse.is_some() {
            return Err(Error::new("--sse and --sse-c-key-file exclude each other", "give one of them"));
        }
        Ok(objects)
    }

    /// Whether what is written is to be locked.
    #[must_use]
    pub fn lock(&self) -> bool {
        self.legal_hold || self.object_lock.is_some()
    }

    /// The storage class for a new file at this path in the mount; `None`: the bucket's usual one.
    #[must_use]
    pub fn storage_class(&self, path: &str) -> Option<&str> {
        let fits = |glob: &Option<GlobMatcher>| glob.as_ref().is_none_or(|glob| glob.is_match(Path::new(path)));
        self.storage_classes.iter().find(|(glob, _)| fits(glob)).map(|(_, class)| class.as_str())
    }
}

fn words(said: Option<&super::Words>) -> impl Iterator<Item = &str> {
    said.into_iter().flat_map(|words| words.0.iter().map(String::as_str))
}

/// `CLASS` or `GLOB=CLASS`.
fn storage_class(word: &str) -> Result<(Option<GlobMatcher>, String), Error> {
    let hint = "write --storage-class STANDARD_IA, or '**/*.log=GLACIER_IR,STANDARD_IA'";
    let (glob, class) = match word.rsplit_once('=') {
        Some((glob, class)) => (Some(glob), class),
        None => (None, word),
    };
    if class.is_empty() || !class.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_') {
        return Err(Error::new(format!("'{}' is no storage class", class.escape_debug()), hint));
    }
    let matcher = |glob: &str| {
        let built = GlobBuilder::new(glob).literal_separator(true).build();
        built.map(|glob| glob.compile_matcher()).map_err(|cause| Error::new(format!("--storage-class: {cause}"), hint))
    };
    Ok((glob.map(matcher).transpose()?, class.to_owned()))
}

/// `KEY=VALUE`.
fn tag(word: &str) -> Result<(String, String), Error> {
    let parts = word.split_once('=').filter(|(key, _)| !key.is_empty());
    let (key, value) = parts.ok_or_else(|| {
        Error::new(format!("'{}' is no tag", word.escape_debug()), "write --tags project=alpha,team=data")
    })?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `MODE:TIME`.
fn object_lock(word: &str) -> Result<(&'static str, Duration), Error> {
    let wrong = |what: String| Error::new(what, "write --object-lock GOVERNANCE:30d, or COMPLIANCE:365d");
    let (mode, span) = word.split_once(':').unwrap_or((word, ""));
    let known = ["GOVERNANCE", "COMPLIANCE"].into_iter().find(|known| *known == mode);
    let mode = known.ok_or_else(|| wrong(format!("'{}' is no mode of Object Lock", mode.escape_debug())))?;
    let span: Span = span.parse().map_err(|cause| wrong(format!("--object-lock: {cause}")))?;
    if !LOCK_SPAN.contains(&span.0) {
        return Err(wrong("--object-lock is for a minute at least, and for 36500d at most".to_owned()));
    }
    Ok((mode, span.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Words;

    fn objects(options: &Options) -> Result<Objects, Error> {
        Objects::of(options)
    }

    fn said(text: &str) -> Words {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_pattern_that_fits_decides() {
        let rules = said("logs/**=GLACIER_IR,**/*.tmp=STANDARD,STANDARD_IA");
        let objects = objects(&Options { storage_class: Some(rules), ..Options::default() }).unwrap();
        let class = |path| objects.storage_class(path);
        assert_eq!(class("logs/a/b.tmp"), Some("GLACIER_IR"));
        assert_eq!((class("x.tmp"), class("a/x.tmp")), (Some("STANDARD"), Some("STANDARD")));
        assert_eq!(class("a/x.txt"), Some("STANDARD_IA"));
        assert_eq!(Objects::default().storage_class("a"), None);
    }

    #[test]
    fn a_lock_is_a_mode_and_a_time() {
        let options = Options { object_lock: Some("COMPLIANCE:30d".into()), ..Options::default() };
        let objects = objects(&options).unwrap();
        assert_eq!(objects.object_lock, Some(("COMPLIANCE", Duration::from_hours(30 * 24))));
        assert!(!objects.legal_hold);
    }

    #[test]
    fn what_cannot_be_meant_is_told() {
        let error = |options: &Options| objects(options).unwrap_err().to_string();
        assert!(
            error(&Options { storage_class: Some(said("standard_ia")), ..Options::default() }).contains("standard_ia")
        );
        assert!(
            error(&Options { storage_class: Some(said("[=STANDARD")), ..Options::default() })
                .contains("--storage-class")
        );
        assert!(error(&Options { tags: Some(said("a=b,c")), ..Options::default() }).contains("'c' is no tag"));
        let key_alone = Options { sse_kms_key_id: Some("k".into()), sse: Some(Sse::Aes256), ..Options::default() };
        assert!(error(&key_alone).contains("--sse-kms-key-id"));
        for (lock, told) in [
            ("30d", "'30d' is no mode"),
            ("governance:30d", "'governance' is no mode"),
            ("GOVERNANCE", "is no duration"),
            ("COMPLIANCE:ever", "'ever' is no duration"),
            ("COMPLIANCE:0", "a minute at least"),
            ("COMPLIANCE:40000d", "36500d at most"),
        ] {
            let told_now = error(&Options { object_lock: Some(lock.into()), ..Options::default() });
            assert!(told_now.contains(told), "{lock}: {told_now}");
        }
        let both = Options { sse_c_key_file: Some("/k".into()), sse: Some(Sse::Kms), ..Options::default() };
        assert!(error(&both).contains("exclude"));
    }
}
