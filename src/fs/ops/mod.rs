//! The verbs: what each system call does. Every file is one call or one family of calls.

mod attr;
mod carry;
mod files;
mod flush;
mod lookup;
mod make;
mod open;
mod read;
mod readdir;
mod remove;
mod rename;
mod rename_tree;
mod space;
mod write;
mod xattr;

pub use attr::{NewTime, SetAttr};
pub use lookup::Entry;
pub use open::Opened;
pub use readdir::Listed;
pub(in crate::fs) use rename_tree::Renaming;
pub use space::Space;
pub use write::Place;

use std::ffi::OsStr;

use nix::errno::Errno;

use super::inodes::Ino;
use super::{Fs, Result};
use crate::key;

impl Fs {
    /// A name as part of a key below `parent` (`ENAMETOOLONG`, `EILSEQ`, `ENOTDIR`).
    fn name_in(&self, parent: Ino, name: &OsStr) -> Result<String> {
        let tree = self.tree.lock();
        let node = tree.get(parent).ok_or(Errno::ENOENT)?;
        if !node.is_directory() {
            return Err(Errno::ENOTDIR.into());
        }
        let dir_key = tree.key(parent).ok_or(Errno::ENOENT)?;
        drop(tree);
        let longer_there = self.settings.layout.growth_of(&dir_key);
        if dir_key.len() + longer_there + name.len() > key::MAX_KEY_BYTES {
            return Err(Errno::ENAMETOOLONG.into());
        }
        Ok(key::component(&dir_key, name)?.to_owned())
    }
}
