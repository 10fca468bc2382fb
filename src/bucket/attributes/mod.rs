//! POSIX attributes ↔ object metadata: writes the AWS names, reads those of AWS, s3fs and rclone.
//!
//! | field | written | also read |
//! |---|---|---|
//! | mode | `file-permissions` = `0100644` (octal type and permissions) | `mode` (s3fs decimal, rclone octal with a leading 0) |
//! | owner, group | `file-owner`, `file-group` | `uid`, `gid` |
//! | times | `file-mtime`, `file-atime`, `s3mount-ctime` = `1595002920000000000ns` | `mtime`, `atime`, `ctime` (seconds or RFC 3339); `file-*` without `ns` (milliseconds) |
//! | the rest | `s3mount-rdev`, `s3mount-ino`, `s3mount-op`, `s3mount-xattrs` | |
//!
//! `s3mount-lineage` stands on what hooks made and is none of a file's attributes: other metadata, until the
//! file gets other bytes.
//!
//! The `file-*` names are those of Amazon FSx for Lustre and S3 Files ("POSIX metadata support").

mod values;
mod xattrs;

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::Metadata;

/// Most bytes of user metadata on one object: names and values (AWS: "Working with object metadata").
pub const MAX_METADATA_BYTES: usize = 2048;

const MODE: &str = "file-permissions";
const OWNER: &str = "file-owner";
const GROUP: &str = "file-group";
const MTIME: &str = "file-mtime";
const ATIME: &str = "file-atime";
const CTIME: &str = "s3mount-ctime";
const RDEV: &str = "s3mount-rdev";
const INO: &str = "s3mount-ino";
const XATTRS: &str = "s3mount-xattrs";
/// Metadata name of the operation id ([`Attributes::op_id`]): what a HEAD looks for after a lost reply.
pub const OP_ID: &str = "s3mount-op";
/// Metadata name of the hooks that had a hand in these bytes, oldest first.
pub const LINEAGE: &str = "s3mount-lineage";

/// What an object's metadata says about its file. Every field is optional: foreign objects carry
/// none of them, or only some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// File type and permission bits, as `st_mode` (`inode(7)`).
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mtime: Option<SystemTime>,
    pub atime: Option<SystemTime>,
    pub ctime: Option<SystemTime>,
    /// Device number of a device node.
    pub rdev: Option<u32>,
    /// Inode number, kept where it is not the one that the key would give (after a rename).
    pub ino: Option<u64>,
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Id of the operation that wrote this version: tells after a crash whether it happened.
    pub op_id: Option<String>,
    /// Metadata that is not ours; kept as it is when the object is written again.
    pub other: Metadata,
}

/// The attributes do not fit into an object's metadata: too many or too large xattrs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes of metadata, and an S3 object holds 2,048: remove or shorten extended attributes")]
pub struct TooLarge {
    /// What the metadata would take.
    pub bytes: usize,
}

impl Attributes {
    /// The same, whichever operation has written it.
    #[must_use]
    pub fn without_op_id(self) -> Self {
        Self { op_id: None, ..self }
    }

    /// Reads what is there. Values that cannot be understood count as absent: metadata is written
    /// by anybody, and a strange header must not make a file unreadable.
    #[must_use]
    pub fn from_metadata(metadata: &Metadata) -> Self {
        let mut rest = metadata.clone();
        Self {
            mode: field(&mut rest, MODE, values::octal, "mode", values::foreign_mode),
            uid: field(&mut rest, OWNER, values::decimal, "uid", values::decimal),
            gid: field(&mut rest, GROUP, values::decimal, "gid", values::decimal),
            mtime: field(&mut rest, MTIME, values::aws_time, "mtime", values::foreign_time),
            atime: field(&mut rest, ATIME, values::aws_time, "atime", values::foreign_time),
            ctime: field(&mut rest, CTIME, values::aws_time, "ctime", values::foreign_time),
            rdev: rest.remove(RDEV).and_then(|value| values::decimal(&value)),
            ino: rest.remove(INO).and_then(|value| values::decimal(&value)),
            xattrs: rest.remove(XATTRS).and_then(|value| xattrs::decode(&value)).unwrap_or_default(),
            op_id: rest.remove(OP_ID),
            other: rest,
        }
    }

    /// The metadata to write.
    ///
    /// # Errors
    /// [`TooLarge`], when names and values exceed [`MAX_METADATA_BYTES`].
    pub fn to_metadata(&self) -> Result<Metadata, TooLarge> {
        let mut metadata = self.other.clone();
        let own = [
            (MODE, self.mode.map(|mode| format!("{mode:07o}"))),
            (OWNER, self.uid.map(|uid| uid.to_string())),
            (GROUP, self.gid.map(|gid| gid.to_string())),
            (MTIME, self.mtime.map(values::format_time)),
            (ATIME, self.atime.map(values::format_time)),
            (CTIME, self.ctime.map(values::format_time)),
            (RDEV, self.rdev.map(|rdev| rdev.to_string())),
            (INO, self.ino.map(|ino| ino.to_string())),
            (XATTRS, (!self.xattrs.is_empty()).then(|| xattrs::encode(&self.xattrs))),
            (OP_ID, self.op_id.clone()),
        ];
        for (name, value) in own {
            if let Some(value) = value {
                metadata.insert(name.to_owned(), value);
            }
        }
        let bytes = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > MAX_METADATA_BYTES { Err(TooLarge { bytes }) } else { Ok(metadata) }
    }
}

/// Whether two objects say the same, but for when their attributes were changed last.
#[must_use]
pub fn is_same_but_ctime(one: &Metadata, other: &Metadata) -> bool {
    let rest = |metadata: &Metadata| {
        let mut rest = metadata.clone();
        rest.remove(CTIME);
        rest
    };
    rest(one) == rest(other)
}

/// Takes a field under our name, else under the peers' name. A peer's name that was understood is
/// taken out, so that no stale `mtime` stays beside the `file-mtime` written later; one that was not
/// (`mode: fast`) is somebody's own word and stays.
fn field<T>(
    rest: &mut Metadata,
    own_name: &str,
    own: fn(&str) -> Option<T>,
    peer_name: &str,
    peer: fn(&str) -> Option<T>,
) -> Option<T> {
    let from_own = rest.remove(own_name).and_then(|value| own(&value));
    let from_peer = rest.get(peer_name).and_then(|value| peer(value));
    if from_peer.is_some() {
        rest.remove(peer_name);
    }
    from_own.or(from_peer)
}

#[cfg(test)]
mod tests;
