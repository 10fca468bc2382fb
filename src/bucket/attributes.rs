//! POSIX attributes ↔ object metadata: writes the AWS names, reads those of AWS, s3fs and rclone.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::Metadata;

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
