//! Forgetting on request: `s3mount cache invalidate`.

use super::Fs;
use super::inodes::{Ino, Tree};
use super::names::Directory;
use crate::bucket::attributes::Attributes;
use crate::cache::{Pinned, Remembered};
use crate::key::ROOT_INO;

impl Fs {
    /// Forgets what is known and cached of a path below the mountpoint (`""` is the root) and of all
    /// below it: names, attributes, bytes. What S3 does not have yet is kept.
    pub fn invalidate(&self, path: &str) {
        let below = self.forget_nodes(path);
        let named = (self.tree.lock().key(ROOT_INO)).map(|prefix| format!("{prefix}{path}"));
        for key in below.into_iter().chain(named.filter(|_| !path.is_empty())) {
            if let Some(known) = self.index.get(&key)
                && let Some(etag) = known.etag
            {
                self.cache.forget_version(&Pinned { key: key.as_str().into(), etag, size: known.size });
                // The inode number is nowhere else.
                let attributes = Attributes { ino: known.attributes.ino, ..Attributes::default() };
                self.index.put(&key, Remembered { attributes, ..Remembered::default() });
            }
            self.cache.forget(&key);
        }
    }

    /// The nodes of a path and below it ask S3 at their next use; returns their keys.
    fn forget_nodes(&self, path: &str) -> Vec<String> {
        let mut tree = self.tree.lock();
        let mut at = ROOT_INO;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            if let Some(directory) = tree.directory_mut(at) {
                directory.expire();
            }
            let Some(child) = tree.child(at, name).map(|node| node.ino) else { return Vec::new() };
            at = child;
        }
        let nodes = subtree(&tree, at);
        let mut keys = Vec::with_capacity(nodes.len());
        for ino in nodes {
            let key = tree.key(ino);
            let Some(node) = tree.get_mut(ino) else { continue };
            if let Some(directory) = &mut node.directory {
                directory.expire();
            }
            if node.is_drafted() {
                continue;
            }
            node.expire();
            node.kernel_etag = None;
            keys.extend(key.filter(|_| ino != ROOT_INO));
        }
        keys
    }
}

/// A node and all that are known below it.
fn subtree(tree: &Tree, top: Ino) -> Vec<Ino> {
    let mut found = vec![top];
    let mut next = 0;
    while let Some(ino) = found.get(next).copied() {
        let directory = tree.get(ino).and_then(|node| node.directory.as_ref());
        found.extend(directory.into_iter().flat_map(Directory::children).filter_map(|(_, child)| child.ino));
        next += 1;
    }
    found
}
