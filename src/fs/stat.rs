//! What `stat(2)` tells about a file, and its way into and out of object metadata.

use std::collections::BTreeMap;
use std::time::SystemTime;

use nix::libc;

use super::Settings;
use crate::bucket::attributes::{Attributes, LINEAGE};
use crate::bucket::{Metadata, Properties};
use crate::cache::Remembered;

/// The kinds of file of `inode(7)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

impl FileKind {
    /// From the type bits of a mode; anything unknown is a regular file.
    pub fn from_mode(mode: u32) -> Self {
        match mode & libc::S_IFMT {
            libc::S_IFDIR => Self::Directory,
            libc::S_IFLNK => Self::Symlink,
            libc::S_IFIFO => Self::Fifo,
            libc::S_IFSOCK => Self::Socket,
            libc::S_IFCHR => Self::CharDevice,
            libc::S_IFBLK => Self::BlockDevice,
            _ => Self::File,
        }
    }

    /// Of an object whose metadata tells this mode, if any. The key alone decides what is a
    /// directory.
    pub fn of_object(mode: Option<u32>, directory: bool) -> Self {
        let told = mode.map(Self::from_mode).filter(|kind| (*kind == Self::Directory) == directory);
        told.unwrap_or(if directory { Self::Directory } else { Self::File })
    }

    /// The type bits for a mode.
    pub fn mode_bits(self) -> u32 {
        match self {
            Self::File => libc::S_IFREG,
            Self::Directory => libc::S_IFDIR,
            Self::Symlink => libc::S_IFLNK,
            Self::Fifo => libc::S_IFIFO,
            Self::Socket => libc::S_IFSOCK,
            Self::CharDevice => libc::S_IFCHR,
            Self::BlockDevice => libc::S_IFBLK,
        }
    }
}

/// Attributes of one inode.
#[derive(Clone, Debug, PartialEq)]
pub struct Stat {
    pub kind: FileKind,
    /// Permission, setuid, setgid and sticky bits.
    pub perm: u16,
    pub uid: u32,
    pub gid: u32,
    /// Bytes; the length of the target for a symlink.
    pub size: u64,
    pub mtime: SystemTime,
    pub atime: SystemTime,
    pub ctime: SystemTime,
    pub rdev: u32,
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Metadata of other programs; travels with the object untouched.
    pub other: Metadata,
    /// So do these.
    pub properties: Properties,
}

impl Stat {
    /// A directory that carries no attributes of its own.
    pub fn directory(settings: &Settings) -> Self {
        Self::fresh(FileKind::Directory, 0o777 & !settings.umask, settings.uid, settings.gid)
    }

    /// A new inode, born now.
    pub fn fresh(kind: FileKind, perm: u16, uid: u32, gid: u32) -> Self {
        let now = SystemTime::now();
        Self {
            kind,
            perm: perm & 0o7777,
            uid,
            gid,
            size: 0,
            mtime: now,
            atime: now,
            ctime: now,
            rdev: 0,
            xattrs: BTreeMap::new(),
            other: Metadata::new(),
            properties: Properties::default(),
        }
    }

    /// Whether it says nothing that the other does not, besides times.
    pub fn is_like(&self, other: &Self) -> bool {
        let Self { mtime, atime, ctime, .. } = *self;
        *self == Self { mtime, atime, ctime, ..other.clone() }
    }

    /// From what the object says; `Last-Modified` stands in for the times that it does not tell.
    ///
    /// `directory` is decided by the key, not by the metadata: a mode that contradicts it keeps
    /// its permission bits only.
    pub fn of_object(remembered: &Remembered, directory: bool, settings: &Settings) -> Self {
        let attributes = remembered.attributes.clone();
        let modified = remembered.modified.date().unwrap_or_else(SystemTime::now);
        let kind = FileKind::of_object(attributes.mode, directory);
        let default_perm = if directory { 0o777 } else { 0o666 } & !u32::from(settings.umask);
        let mtime = attributes.mtime.unwrap_or(modified);
        Self {
            kind,
            perm: (attributes.mode.unwrap_or(default_perm) & 0o7777) as u16,
            uid: attributes.uid.unwrap_or(settings.uid),
            gid: attributes.gid.unwrap_or(settings.gid),
            size: if directory { 0 } else { remembered.size },
            mtime,
            atime: attributes.atime.unwrap_or(mtime),
            ctime: attributes.ctime.unwrap_or(modified),
            rdev: attributes.rdev.unwrap_or(0),
            xattrs: attributes.xattrs,
            other: attributes.other,
            properties: remembered.properties.clone(),
        }
    }

    /// What the object's metadata is to say.
    pub fn to_attributes(&self, op_id: Option<String>) -> Attributes {
        Attributes {
            mode: Some(self.mode()),
            uid: Some(self.uid),
            gid: Some(self.gid),
            mtime: Some(self.mtime),
            atime: Some(self.atime),
            ctime: Some(self.ctime),
            rdev: (self.rdev != 0).then_some(self.rdev),
            ino: None,
            xattrs: self.xattrs.clone(),
            op_id,
            other: self.other.clone(),
        }
    }

    /// `st_mode`: type and permission bits.
    pub fn mode(&self) -> u32 {
        self.kind.mode_bits() | u32::from(self.perm)
    }

    /// Content changed now (`write(2)`: mtime and ctime).
    pub fn touch(&mut self) {
        // Other bytes than the hook's.
        self.other.remove(LINEAGE);
        self.mtime = SystemTime::now();
        self.ctime = self.mtime;
    }
}
