//! Extended attributes (`xattr(7)`): kept in the object's metadata, together at most ~1.3 KiB.
//!
//! Under `user.s3.` stands what S3 knows of the object. It is told to who asks for it by name and is in
//! no list: `cp -a` and `rsync -X` must not take it for the file's own, nor cost a request for it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::libc;

use crate::bucket::{ObjectInfo, Properties, optional};
use crate::fs::inodes::{Ino, Node};
use crate::fs::stat::Stat;
use crate::fs::{Fs, Result};

/// What is told under `user.s3.`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Whether S3 lacks something of the file: `1`, else `0`.
    Pending,
    /// How far hooks are with the file as it is; none where none fires for it.
    Hooks,
    /// The version of the object that the file was last seen as.
    ETag,
    /// Asks the bucket, whose lifecycle rules move objects behind everybody's back.
    StorageClass,
    /// Asks the bucket; none where it keeps no versions.
    VersionId,
    /// Can be set, and taken away: then it is that of the name's extension.
    ContentType,
}

impl Told {
    fn of(name: &str) -> Option<Self> {
        Some(match name.strip_prefix("user.s3.")? {
            "pending" => Self::Pending,
            "hooks" => Self::Hooks,
            "etag" => Self::ETag,
            "storage-class" => Self::StorageClass,
            "version-id" => Self::VersionId,
            "content-type" => Self::ContentType,
            _ => return None,
        })
    }
}

impl Fs {
    /// `getxattr(2)`.
    ///
    /// # Errors
    /// `ENODATA`, `ENOTSUP` for ACLs, which the mode bits alone decide here.
    pub async fn getxattr(&self, ino: Ino, name: &OsStr) -> Result<Vec<u8>> {
        let name = supported(name)?;
        if let Some(told) = Told::of(name) {
            return Ok(self.told_xattr(ino, told).await?.ok_or(Errno::ENODATA)?.into_bytes());
        }
        let tree = self.tree.lock();
        let node = tree.get(ino).ok_or(Errno::ESTALE)?;
        Ok(node.stat.xattrs.get(name).cloned().ok_or(Errno::ENODATA)?)
    }

    async fn told_xattr(&self, ino: Ino, told: Told) -> Result<Option<String>> {
        match told {
            Told::Pending => {
                let tree = self.tree.lock();
                let node = tree.get(ino).ok_or(Errno::ESTALE)?;
                Ok(Some(if node.is_pending() { "1" } else { "0" }.to_owned()))
            }
            Told::Hooks => {
                let Some(gatekeeper) = self.gatekeeper.get() else { return Ok(None) };
                let there = self.snapshot(ino)?;
                let is_pending = self.tree.lock().get(ino).is_none_or(Node::is_pending);
                Ok(gatekeeper.tell_of(&there.key, there.etag.as_ref().filter(|_| !is_pending)).await)
            }
            Told::ETag => Ok(self.snapshot(ino)?.etag.map(|etag| etag.to_string())),
            Told::ContentType => {
                self.ensure_told(ino).await?;
                let there = self.snapshot(ino)?;
                Ok(there.stat.properties.content_type_at(&there.key))
            }
            Told::StorageClass => {
                let found = self.asked(ino).await?;
                Ok(found.and_then(|found| found.properties.storage_class).map(String::from))
            }
            Told::VersionId => Ok(self.asked(ino).await?.and_then(|found| found.version_id)),
        }
    }

    /// The object as it is in the bucket now; none for a file that is not there yet.
    async fn asked(&self, ino: Ino) -> Result<Option<ObjectInfo>> {
        Ok(optional(self.bucket.head(&self.snapshot(ino)?.key).await)?)
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
        if Told::of(name).is_some() {
            return self.set_content_type(ino, Some(content_type(value)?)).await;
        }
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
        if Told::of(name).is_some() {
            return self.set_content_type(ino, None).await;
        }
        if !self.snapshot(ino)?.stat.xattrs.contains_key(name) {
            return Err(Errno::ENODATA.into());
        }
        self.change_attributes(ino, |stat| {
            stat.xattrs.remove(name);
            stat.ctime = std::time::SystemTime::now();
        })
        .await
    }

    async fn set_content_type(&self, ino: Ino, content_type: Option<String>) -> Result<()> {
        let set = move |stat: &mut Stat| {
            let properties = std::mem::take(&mut stat.properties);
            stat.properties = Properties { content_type: content_type.clone(), ..properties };
            stat.ctime = std::time::SystemTime::now();
        };
        self.change_attributes(ino, set).await
    }
}

/// Names that can be set: `EPERM` for what only tells.
fn changeable(name: &OsStr) -> Result<&str> {
    let name = supported(name)?;
    let only_tells = Told::of(name).is_some_and(|told| told != Told::ContentType);
    if only_tells { Err(Errno::EPERM.into()) } else { Ok(name) }
}

/// What a header can carry: visible ASCII and blanks.
fn content_type(value: &[u8]) -> Result<String> {
    let fits = !value.is_empty() && value.iter().all(|byte| matches!(byte, b' '..=b'~'));
    let text = str::from_utf8(value).ok().filter(|_| fits).ok_or(Errno::EINVAL)?;
    Ok(text.to_owned())
}

/// Where names of attributes lie (`xattr(7)`), but for `system.`, which are ACLs and the like.
const NAMESPACES: [&str; 3] = ["user.", "trusted.", "security."];

/// Names that can be kept: UTF-8, and in one of these.
fn supported(name: &OsStr) -> Result<&str> {
    let name = std::str::from_utf8(name.as_bytes()).map_err(|_| Errno::EILSEQ)?;
    match NAMESPACES.iter().find_map(|namespace| name.strip_prefix(namespace)) {
        Some("") => Err(Errno::EINVAL.into()),
        Some(_) => Ok(name),
        None => Err(Errno::ENOTSUP.into()),
    }
}
