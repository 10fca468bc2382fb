//! What S3 keeps of an object besides its bytes and its user metadata, and gives back as it was given.
//!
//! A PUT or a copy with new metadata says all of it anew, or it is gone: who changes a mode must not
//! take a web page its `Cache-Control`, nor move an object to a dearer storage class.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Servers say one of these of an object that nobody has given a type (S3 the first).
const NO_TYPE: [&str; 2] = ["binary/octet-stream", "application/octet-stream"];

/// What travels with an object when it is written again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Properties {
    /// `Content-Type`; `None`: that of the key's extension, see [`Properties::content_type_at`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<Header, String>,
    /// `None`: not known, or the object is new; then what the mount's settings say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<StorageClass>,
}

/// The system-defined metadata that a client may set (AWS: "Working with object metadata"); `Expires`,
/// which HTTP has replaced by `Cache-Control`, is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Header {
    CacheControl,
    ContentDisposition,
    ContentEncoding,
    ContentLanguage,
    WebsiteRedirectLocation,
}

impl Properties {
    /// With this type, or none where the server's word means that none was given.
    #[must_use]
    pub fn of_type(content_type: Option<String>) -> Self {
        let content_type = content_type.filter(|said| !NO_TYPE.contains(&said.as_str()));
        Self { content_type, ..Self::default() }
    }

    /// The type to write under this key.
    #[must_use]
    pub fn content_type_at(&self, key: &str) -> Option<String> {
        let by_extension = || mime_guess::from_path(key.rsplit('/').next()?).first_raw().map(str::to_owned);
        self.content_type.clone().or_else(by_extension)
    }

    /// A header's value.
    #[must_use]
    pub fn header(&self, header: Header) -> Option<String> {
        self.headers.get(&header).cloned()
    }
}

/// A storage class by S3's name for it (AWS: "Understanding and managing Amazon S3 storage classes").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct StorageClass(Cow<'static, str>);

/// Where an object stays when it is written again. The others are archives, from which what was just
/// written could not be read, or places of their own (`EXPRESS_ONEZONE`, `OUTPOSTS`), which need no word.
const KEPT: [&str; 5] = ["STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "REDUCED_REDUNDANCY"];

impl StorageClass {
    /// What S3 means when it says nothing.
    pub const STANDARD: Self = Self(Cow::Borrowed("STANDARD"));

    /// S3's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether what lies in it has to be restored before it can be read.
    #[must_use]
    pub fn is_archive(&self) -> bool {
        matches!(self.as_str(), "GLACIER" | "DEEP_ARCHIVE")
    }

    /// Whether an object of this class is written again into the same one.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        *self == Self::STANDARD || KEPT.contains(&self.as_str())
    }
}

impl From<String> for StorageClass {
    fn from(name: String) -> Self {
        let known = KEPT.into_iter().chain(["STANDARD"]).find(|known| *known == name);
        Self(known.map_or(Cow::Owned(name), Cow::Borrowed))
    }
}

impl From<StorageClass> for String {
    fn from(class: StorageClass) -> Self {
        class.0.into_owned()
    }
}

impl fmt::Display for StorageClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_gives_a_type_where_nobody_said_one() {
        let untold = Properties::of_type(Some("binary/octet-stream".to_owned()));
        assert_eq!(untold.content_type_at("a/b.json").as_deref(), Some("application/json"));
        assert_eq!(untold.content_type_at("a.html/b"), None);
        assert_eq!(untold.content_type_at("a.html/"), None);
        let own = Properties::of_type(Some("text/x-own".to_owned()));
        assert_eq!(own.content_type_at("a/b.json").as_deref(), Some("text/x-own"));
    }

    #[test]
    fn what_is_written_down_is_short_and_comes_back() {
        assert_eq!(serde_json::to_string(&Properties::default()).unwrap(), "{}");
        let headers = BTreeMap::from([(Header::CacheControl, "no-store".to_owned())]);
        let storage_class = Some(StorageClass::from("STANDARD_IA".to_owned()));
        let properties = Properties { content_type: Some("a/b".into()), headers, storage_class };
        let text = serde_json::to_string(&properties).unwrap();
        let expected = r#"{"content_type":"a/b","headers":{"cache-control":"no-store"},"storage_class":"STANDARD_IA"}"#;
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Properties>(&text).unwrap(), properties);
    }

    #[test]
    fn archives_are_not_written_into_again() {
        let is_kept = |name: &str| StorageClass::from(name.to_owned()).is_kept();
        assert!(is_kept("STANDARD") && is_kept("GLACIER_IR"));
        assert!(!is_kept("GLACIER") && !is_kept("DEEP_ARCHIVE"));
        let is_archive = |name: &str| StorageClass::from(name.to_owned()).is_archive();
        assert!(is_archive("GLACIER") && is_archive("DEEP_ARCHIVE") && !is_archive("GLACIER_IR"));
    }
}
