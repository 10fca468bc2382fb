//! Forgetting on request: S3 is asked again for everything, whatever the TTLs say.

use nix::errno::Errno;

use super::inodes::{Ino, Node, Tree};
use super::names::Child;
use super::{Fs, Result};
use crate::bucket::ETag;
use crate::cache::{Modified, Pinned};
use crate::key::ROOT_INO;

/// What has to be forgotten of a path and everything below it.
#[derive(Debug, Default)]
struct Below {
    objects: Vec<Pinned>,
    nodes: Vec<(Ino, Ino, String)>,
}

impl Fs {
    /// Forgets listings, attributes and cached bytes of a path below the mountpoint and of everything
    /// in it, in memory, on disk and in the kernel. What is not stored yet stays. Returns of how many
    /// objects bytes may have been forgotten.
    ///
    /// # Errors
    /// `ENOENT` and whatever S3 answers while the path is looked up.
    pub async fn invalidate(&self, path: &str) -> Result<usize> {
        let mut ino = ROOT_INO;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            ino = match self.resolve(ino, name).await? {
                Some(found) => found,
                None => self.resolve_anew(ino, name).await?,
            };
        }
        self.walks.forget_all();
        self.doubt_attributes(ino).await;
        let mut below = Below::default();
        {
            let mut tree = self.tree.lock();
            let parent = tree.get(ino).ok_or(Errno::ENOENT)?.parent;
            tree.expire_listing(parent);
            doubt(&mut tree, ino, &mut below);
        }
        for object in &below.objects {
            self.cache.invalidate(object).await;
        }
        self.tell_kernel(|kernel| {
            for (ino, parent, name) in &below.nodes {
                kernel.forget_attributes(*ino);
                kernel.forget_pages(*ino);
                kernel.forget_name(*parent, name);
            }
        });
        Ok(below.objects.len())
    }

    /// What other clients have made of attributes is asked for, also where the date does not tell of a change. Not where
    /// they are told by this machine alone.
    async fn doubt_attributes(&self, ino: Ino) {
        let Some(key) = self.tree.lock().key(ino).filter(|_| self.origins.asks()) else { return };
        let index = self.index.clone();
        let is_file = !key.is_empty() && !key.ends_with('/');
        let doubt = move || if is_file { index.doubt(&key) } else { index.doubt_tree(&key) };
        if let Err(cause) = tokio::task::spawn_blocking(doubt).await {
            tracing::warn!(%cause, "attributes are not asked for again");
        }
    }

    /// A name that was missing may have appeared since.
    async fn resolve_anew(&self, parent: Ino, name: &str) -> Result<Ino> {
        self.tree.lock().expire_listing(parent);
        self.tell_kernel(|kernel| kernel.forget_name(parent, name));
        Ok(self.resolve(parent, name).await?.ok_or(Errno::ENOENT)?)
    }
}

/// Notes a node and everything below it, and expires what is known of them.
fn doubt(tree: &mut Tree, ino: Ino, below: &mut Below) {
    let mut waiting = vec![ino];
    while let Some(ino) = waiting.pop() {
        let key = tree.key(ino).unwrap_or_default();
        let Some(node) = tree.get_mut(ino) else { continue };
        node.expire();
        if !node.is_drafted() {
            node.modified = Modified::Unknown;
        }
        if ino != ROOT_INO {
            below.nodes.push((ino, node.parent, node.name.clone()));
        }
        below.objects.extend(version(&key, node));
        if let Some(directory) = &node.directory {
            for (name, child) in directory.children() {
                waiting.extend(child.ino);
                below.objects.extend(listed_version(&format!("{key}{name}"), child));
            }
        }
        tree.expire_listing(ino);
    }
}

fn version(key: &str, node: &Node) -> Option<Pinned> {
    let etag = node.etag.clone().filter(|_| !node.is_directory())?;
    Some(pinned(key, etag, node.stat.size))
}

fn listed_version(key: &str, child: &Child) -> Option<Pinned> {
    let seen = child.seen.as_ref().filter(|_| !child.is_directory)?;
    Some(pinned(key, seen.etag.clone(), seen.size))
}

fn pinned(key: &str, etag: ETag, size: u64) -> Pinned {
    Pinned { key: key.into(), etag, size }
}
