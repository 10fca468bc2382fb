//! The law between object keys and path names; pure.
//!
//! A file `a/b` of the mount is the object `PREFIX/a/b`; a directory `a` is every key that begins
//! with `PREFIX/a/`, and the object `PREFIX/a/` (its marker) carries its attributes. Keys that fit
//! no path are odd: they stay untouched and are told to the user.

use std::ffi::OsStr;

use sha2::{Digest, Sha256};

/// Longest object key in bytes (AWS: "Naming Amazon S3 objects").
pub const MAX_KEY_BYTES: usize = 1024;
/// Longest file name in bytes (`NAME_MAX`, `limits.h(0p)`).
pub const MAX_NAME_BYTES: usize = 255;
/// Inode number of the mount's root directory (`FUSE_ROOT_ID`).
pub const ROOT_INO: u64 = 1;

/// Name of the directory in which older versions are shown, where they are.
pub const VERSIONS_DIR: &str = ".versions";

/// Splits a path at its first component of that name: the directory that it is in (empty, or ending in `/`), and what
/// is below it (empty for itself, with its `/`).
#[must_use]
pub fn split_versions(path: &str) -> Option<(&str, &str)> {
    let length = VERSIONS_DIR.len() + "/".len();
    let mut found = path.match_indices(VERSIONS_DIR).map(|(at, _)| at);
    let begins = |at: usize| at == 0 || path[..at].ends_with('/');
    let at = found.find(|at| begins(*at) && path[at + VERSIONS_DIR.len()..].starts_with('/'))?;
    Some((&path[..at], &path[at + length..]))
}

/// Whether a bucket of this name is a directory bucket, of S3 Express One Zone (AWS: "Directory bucket naming rules").
#[must_use]
pub fn is_directory_bucket(bucket: &str) -> bool {
    bucket.ends_with("--x-s3")
}

/// Why a name cannot be part of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("name is longer than 255 bytes, or its key longer than 1,024")]
    TooLong,
    #[error("name is not UTF-8, and S3 keys are")]
    NotUtf8,
}

/// Why a key has no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub enum Oddity {
    /// `a//b`, or a leading `/`: a component without a name.
    EmptyComponent,
    /// `.` or `..` as a component.
    DotComponent,
    /// A component above 255 bytes.
    LongComponent,
    /// A NUL byte, which no path can hold.
    NulByte,
    /// `a/` with bytes in it: shown as a directory, its body cannot be read.
    MarkerWithBody,
    /// `a` beside `a/b`: shown as a directory, the object `a` cannot be reached.
    Shadowed,
}

/// Checks a file name as the kernel gives it and returns it as part of a key below `dir_key`.
///
/// # Errors
/// [`NameError`], when the name or the key that it would make is too long or not UTF-8.
pub fn component<'a>(dir_key: &str, name: &'a OsStr) -> Result<&'a str, NameError> {
    if name.len() > MAX_NAME_BYTES || dir_key.len() + name.len() > MAX_KEY_BYTES {
        return Err(NameError::TooLong);
    }
    name.to_str().ok_or(NameError::NotUtf8)
}

/// Why a single component of a listed key can't be a file name, if so.
#[must_use]
pub fn oddity(component: &str) -> Option<Oddity> {
    match component {
        "" => Some(Oddity::EmptyComponent),
        "." | ".." => Some(Oddity::DotComponent),
        _ if component.len() > MAX_NAME_BYTES => Some(Oddity::LongComponent),
        _ if component.contains('\0') => Some(Oddity::NulByte),
        _ => None,
    }
}

/// The key prefix of a mount: empty, or ending in exactly one `/`.
#[must_use]
pub fn root_prefix(prefix: &str) -> String {
    let trimmed = prefix.trim_matches('/');
    if trimmed.is_empty() { String::new() } else { format!("{trimmed}/") }
}

/// Inode number of a path: the same after a remount, on any machine, for file and directory alike.
///
/// `git`, `make` and `tar` compare inode numbers across runs. 63 bits of SHA-256: a collision among
/// a million files has a chance of 10⁻⁷, and the inode table resolves it.
#[must_use]
pub fn inode_number(key: &str) -> u64 {
    let digest = Sha256::digest(key.trim_end_matches('/').as_bytes());
    let bytes: [u8; 8] = digest[..8].try_into().expect("SHA-256 has 32 bytes");
    let number = u64::from_be_bytes(bytes) >> 1;
    number.max(ROOT_INO + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_split_at_its_first_directory_of_versions() {
        assert_eq!(split_versions(".versions/"), Some(("", "")));
        assert_eq!(split_versions("a/b/.versions/c/d"), Some(("a/b/", "c/d")));
        assert_eq!(split_versions("a/.versions/.versions/c"), Some(("a/", ".versions/c")));
        for other in ["a/.versions", "a.versions/b", ".versionsx/b", "a/.version/b", ""] {
            assert_eq!(split_versions(other), None, "{other}");
        }
    }

    #[test]
    fn names_that_fit_are_taken_as_they_are() {
        assert_eq!(component("d/", OsStr::new("naïve file")), Ok("naïve file"));
        let longest = "x".repeat(255);
        assert_eq!(component("", OsStr::new(&longest)), Ok(longest.as_str()));
    }

    #[test]
    fn long_names_and_long_keys_are_refused() {
        assert_eq!(component("", OsStr::new(&"x".repeat(256))), Err(NameError::TooLong));
        assert_eq!(component(&"d/".repeat(500), OsStr::new(&"x".repeat(100))), Err(NameError::TooLong));
    }

    #[test]
    fn bytes_that_are_no_utf8_are_refused() {
        use std::os::unix::ffi::OsStrExt;
        assert_eq!(component("", OsStr::from_bytes(b"\xff\xfe")), Err(NameError::NotUtf8));
    }

    #[test]
    fn prefixes_end_in_one_slash() {
        assert_eq!(root_prefix(""), "");
        assert_eq!(root_prefix("/"), "");
        assert_eq!(root_prefix("a/b//"), "a/b/");
    }

    #[test]
    fn a_file_and_a_directory_of_one_path_share_their_number() {
        assert_eq!(inode_number("a/b"), inode_number("a/b/"));
        assert_ne!(inode_number("a/b"), inode_number("a/c"));
        // Pinned: a change here would make git re-read every file of every user.
        assert_eq!(inode_number("a/b"), 6_964_375_782_562_670_030);
    }

    #[test]
    fn odd_components_are_named() {
        assert_eq!(oddity(".."), Some(Oddity::DotComponent));
        assert_eq!(oddity(""), Some(Oddity::EmptyComponent));
        assert_eq!(oddity("a\nb"), None);
    }
}
