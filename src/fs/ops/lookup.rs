//! lookup, forget: names into inodes, and letting go of them.

use std::ffi::OsStr;
use std::time::Duration;

use nix::errno::Errno;

use crate::fs::inodes::Ino;
use crate::fs::stat::Stat;
use crate::fs::{Fs, Result};

/// An inode as the kernel is told of it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub ino: Ino,
    pub stat: Stat,
    /// Names: 1 for a file (S3 has no hard links), 2 and the known subdirectories for a directory, 0
    /// once unlinked.
    pub nlink: u32,
    /// How long the kernel may believe this.
    pub ttl: Duration,
}

impl Fs {
    /// The inode of a name; the kernel holds one more reference to it afterwards.
    ///
    /// # Errors
    /// `ENOENT`, `ENAMETOOLONG`, and whatever S3 answers.
    pub async fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Entry> {
        const TRIES: u32 = 3;
        let name = self.name_in(parent, name)?;
        for _ in 0..TRIES {
            let ino = self.resolve(parent, &name).await?.ok_or(Errno::ENOENT)?;
            // An inode that nobody refers to may be let go of in between.
            if let Ok(entry) = self.enter(ino) {
                return Ok(entry);
            }
        }
        Err(Errno::ESTALE.into())
    }

    /// Counts a reference of the kernel and says what it refers to.
    pub fn enter(&self, ino: Ino) -> Result<Entry> {
        if let Some(node) = self.tree.lock().get_mut(ino) {
            node.lookups += 1;
        }
        self.entry(ino)
    }

    /// What the kernel is told of an inode.
    pub(super) fn entry(&self, ino: Ino) -> Result<Entry> {
        let tree = self.tree.lock();
        let node = tree.get(ino).ok_or(Errno::ESTALE)?;
        let nlink = match (node.linked, &node.directory) {
            (false, _) => 0,
            (true, Some(directory)) => 2 + directory.subdirectories(),
            (true, None) => 1,
        };
        Ok(Entry { ino, stat: node.stat.clone(), nlink, ttl: self.ttl(node.is_directory()) })
    }

    /// The kernel drops `count` references (FUSE_FORGET).
    pub fn forget(&self, ino: Ino, count: u64) {
        let mut tree = self.tree.lock();
        if let Some(node) = tree.get_mut(ino) {
            node.lookups = node.lookups.saturating_sub(count);
        }
        tree.drop_if_idle(ino);
    }
}
