//! Extended attributes (`xattr(7)`): kept in the object's metadata, together at most ~1.3 KiB.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::libc;

use crate::fs::inodes::Ino;
use crate::fs::{Fs, Result};

impl Fs {
    /// `getxattr(2)`.
    ///
    /// # Errors
    /// `ENODATA`, `ENOTSUP` for ACLs, which the mode bits alone decide here.
    pub fn getxattr(&self, ino: Ino, name: &OsStr) -> Result<Vec<u8>> {
        let name = supported(name)?;
        let tree = self.tree.lock();
        let node = tree.get(ino).ok_or(Errno::ESTALE)?;
        if name == PENDING {
            return Ok(if node.is_pending() { b"1".to_vec() } else { b"0".to_vec() });
        }
        Ok(node.stat.xattrs.get(name).cloned().ok_or(Errno::ENODATA)?)
    }

    /// `listxattr(2)`: the names, each with a NUL behind it.
    pub fn listxattr(&self, ino: Ino) -> Result<Vec<u8>> {
        let tree = self.tree.lock();
        let node = tree.get(ino).ok_or(Errno::ESTALE)?;
        Ok(node.stat.xattrs.keys().flat_map(|name| name.bytes().chain([0])).collect())
    }

    /// `setxattr(2)`.
    ///
    /// # Errors
    /// `EEXIST`, `ENODATA` by the flags; `ENOSPC` when the object's 2 KiB of metadata are full.
    pub async fn setxattr(&self, ino: Ino, name: &OsStr, value: &[u8], flags: i32) -> Result<()> {
        self.writable_at(ino)?;
        let name = changeable(name)?;
        self.ensure_told(ino).await?;
        let mut stat = self.snapshot(ino)?.stat;
        match stat.xattrs.contains_key(name) {
            true if flags & libc::XATTR_CREATE != 0 => return Err(Errno::EEXIST.into()),
            false if flags & libc::XATTR_REPLACE != 0 => return Err(Errno::ENODATA.into()),
            _ => {}
        }
        stat.xattrs.insert(name.to_owned(), value.to_vec());
        // Said now, not at close: only now somebody asks how it went.
        stat.to_attributes(None).to_metadata()?;
        self.change_attributes(ino, |stat| {
            stat.xattrs.insert(name.to_owned(), value.to_vec());
            stat.ctime = std::time::SystemTime::now();
        })
        .await
    }

    /// `removexattr(2)`.
    pub async fn removexattr(&self, ino: Ino, name: &OsStr) -> Result<()> {
        self.writable_at(ino)?;
        let name = changeable(name)?;
        self.ensure_told(ino).await?;
        if !self.snapshot(ino)?.stat.xattrs.contains_key(name) {
            return Err(Errno::ENODATA.into());
        }
        self.change_attributes(ino, |stat| {
            stat.xattrs.remove(name);
            stat.ctime = std::time::SystemTime::now();
        })
        .await
    }
}

/// Whether S3 lacks something of the file: `1`, else `0`. Told to who asks for it, in no list.
const PENDING: &str = "user.s3.pending";

/// Names that can be set: `EPERM` for what only tells.
fn changeable(name: &OsStr) -> Result<&str> {
    let name = supported(name)?;
    if name == PENDING { Err(Errno::EPERM.into()) } else { Ok(name) }
}

/// Names that can be kept: UTF-8, and not the `system.` ones, which are ACLs and the like.
fn supported(name: &OsStr) -> Result<&str> {
    let name = std::str::from_utf8(name.as_bytes()).map_err(|_| Errno::EILSEQ)?;
    if name.starts_with("system.") { Err(Errno::ENOTSUP.into()) } else { Ok(name) }
}
