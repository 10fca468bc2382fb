//! `.versions`: the way into what the bucket has of older versions. No listing tells of the directory, so that `find`,
//! `cp -r` and `rm -r` pass it by; who asks for it by name finds it in each directory. All below it is as the bucket says.

use std::time::Instant;

use nix::errno::Errno;

use super::inodes::{Ino, Node};
use super::stat::Stat;
use super::{Fs, Result};
use crate::key::{self, VERSIONS_DIR};

/// Nobody can write here, whoever owns it.
const WRITE_BITS: u16 = 0o222;

impl Fs {
    /// The node of a directory's `.versions`, if that is what the name means.
    pub(super) fn history_of(&self, parent: Ino, name: &str) -> Result<Option<Ino>> {
        if !self.settings.show_versions || name != VERSIONS_DIR {
            return Ok(None);
        }
        let mut tree = self.tree.lock();
        let above = tree.key(parent).ok_or(Errno::ENOENT)?;
        if self.is_history(&above) {
            return Ok(None);
        }
        let key = format!("{above}{VERSIONS_DIR}/");
        // The parent's names do not have it: it is found by its number.
        if let Some(node) = tree.get_mut(key::inode_number(&key))
            && node.parent == parent
            && node.name == VERSIONS_DIR
        {
            node.checked = Instant::now();
            return Ok(Some(node.ino));
        }
        let stat = Stat::directory(&self.settings);
        let stat = Stat { perm: stat.perm & !WRITE_BITS, ..stat };
        let ino = tree.pick_ino(&key, None);
        tree.insert(Node::new(ino, parent, VERSIONS_DIR, stat, Instant::now()));
        Ok(Some(ino))
    }

    /// What the kernel is told of what S3 has under a key: nobody can write an older version, whoever owns it.
    pub(super) fn as_shown(&self, key: &str, stat: Stat) -> Stat {
        if self.is_history(key) { Stat { perm: stat.perm & !WRITE_BITS, ..stat } } else { stat }
    }

    /// Whether a key is that of `.versions` or of something in it.
    pub(super) fn is_history(&self, key: &str) -> bool {
        let path = key.strip_prefix(self.settings.root_prefix.as_str()).unwrap_or(key);
        self.settings.show_versions && key::split_versions(path).is_some()
    }
}
