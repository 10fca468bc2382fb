//! Files that the kernel reads by itself: from the disk cache, without asking us.
//!
//! The kernel's rule: while an inode has such an open, every other open of it must be one too, of the
//! same local file, and while it has another open, none may be. A breach is `EIO` for the program.
//! So the first open decides, and its decision holds until the last release.
//!
//! **Invariant:** an inode whose reads the kernel answers has no draft. Who wants to write gets a new
//! inode under the name, and the readers keep theirs with its bytes, as for a change in the bucket.

use std::any::Any;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::errno::Errno;

use super::inodes::{Ino, Node, Pages};
use super::persist::pin;
use super::{Fs, Result};
use crate::cache::Pinned;

/// Smaller files are better in the page cache: such an open takes 0.25 ms longer (measured), about
/// what reading the first MiB takes.
const LEAST_BYTES: u64 = 4 << 20;
/// How long an open may wait for what of the file this process has not verified. About 1 GiB that
/// is in memory; what is not, is verified while it is read.
const VERIFY_BUDGET: Duration = Duration::from_millis(150);

/// A local file with all bytes of a version, given to the kernel to read.
#[derive(Debug)]
pub struct Backing {
    file: File,
    /// What the kernel made of it, for all opens alike; `None` inside: it refused.
    registered: OnceLock<Option<Box<dyn Any + Send + Sync>>>,
}

impl Backing {
    /// What `register` made of the file, once for all who ask; `None` when the kernel refused.
    pub fn registered<T: Any + Send + Sync>(&self, register: impl FnOnce(&File) -> Option<T>) -> Option<&T> {
        let boxed = |registered| Box::new(registered) as Box<dyn Any + Send + Sync>;
        self.registered.get_or_init(|| register(&self.file).map(boxed)).as_ref()?.downcast_ref()
    }
}

/// Whether the kernel takes files, and how often it did.
#[derive(Debug, Default)]
pub struct Passthrough {
    is_offered: AtomicBool,
    opens: AtomicU64,
}

impl Fs {
    /// The kernel takes files, or does so no more: it wants a privilege for it, and not every file
    /// system will do.
    pub fn offer_passthrough(&self, is_offered: bool) {
        self.passthrough.is_offered.store(is_offered, Ordering::Relaxed);
    }

    /// Whether the kernel takes files, and how many opens it answers by itself so far.
    pub(super) fn passthrough_status(&self) -> (bool, u64) {
        (self.passthrough.is_offered.load(Ordering::Relaxed), self.passthrough.opens.load(Ordering::Relaxed))
    }

    /// The file that the kernel is to read for this open.
    pub fn backing(&self, handle: u64) -> Option<Arc<Backing>> {
        self.handles.file(handle)?.backing.clone()
    }

    /// The kernel did not take the file of this open: its reads come to us.
    pub fn keep_reads(&self, handle: u64) {
        self.handles.drop_backing(handle);
        self.passthrough.opens.fetch_sub(1, Ordering::Relaxed);
        // Nothing was noted of the pages that it will read.
        let Some(open) = self.handles.file(handle) else { return };
        if let Some(node) = self.tree.lock().get_mut(open.ino) {
            node.pages = Pages::Unknown;
        }
    }

    /// The file in the disk cache that may serve an open, as far as can be said without the lock.
    pub(super) async fn file_to_give(&self, ino: Ino) -> Option<(Pinned, File)> {
        if !self.passthrough.is_offered.load(Ordering::Relaxed) {
            return None;
        }
        let pinned = {
            let tree = self.tree.lock();
            let node = tree.get(ino).filter(|node| node.content.is_none() && node.stat.size >= LEAST_BYTES)?;
            if node.backing.strong_count() > 0 || self.handles.is_open(ino) {
                return None;
            }
            pin(&tree.key(ino)?, node)?
        };
        let file = self.cache.whole_file(&pinned, VERIFY_BUDGET).await?;
        Some((pinned, file))
    }

    /// What the reads of an open are answered from, decided with the tree locked: `node` is in it.
    /// A writer's open never gets here while there is such a file: it found no draft to write to.
    pub(super) fn backing_of_open(&self, node: &mut Node, given: Option<(Pinned, File)>) -> Option<Arc<Backing>> {
        let backing = node.backing.upgrade().or_else(|| self.begin_backing(node, given?))?;
        self.passthrough.opens.fetch_add(1, Ordering::Relaxed);
        Some(backing)
    }

    fn begin_backing(&self, node: &mut Node, (pinned, file): (Pinned, File)) -> Option<Arc<Backing>> {
        let is_current = node.etag.as_ref() == Some(&pinned.etag) && node.stat.size == pinned.size;
        if !is_current || node.content.is_some() || self.handles.is_open(node.ino) {
            return None;
        }
        let backing = Arc::new(Backing { file, registered: OnceLock::new() });
        node.backing = Arc::downgrade(&backing);
        Some(backing)
    }

    /// Before a change of a file's bytes: if the kernel reads it by itself, the name gets a new inode.
    ///
    /// # Errors
    /// `ESTALE` then: the kernel looks the name up anew, finds that inode, and the program's call
    /// succeeds there.
    pub(super) fn part_from_readers(&self, ino: Ino) -> Result<()> {
        let mut tree = self.tree.lock();
        if tree.get(ino).is_some_and(|node| node.superseded && node.content.is_none()) {
            // Its name is another version's by now: a draft here would hide theirs from its readers.
            return Err(Errno::ESTALE.into());
        }
        let Some(node) = tree.get(ino).filter(|node| node.backing.strong_count() > 0) else { return Ok(()) };
        if let Some(key) = tree.key(ino).filter(|_| node.linked) {
            let (parent, name) = (node.parent, node.name.clone());
            let mut twin = Node::new(tree.pick_ino(&key, None), parent, &name, node.stat.clone(), node.checked);
            twin.etag.clone_from(&node.etag);
            twin.modified = node.modified;
            twin.told = node.told;
            if let Some(directory) = tree.directory_mut(parent) {
                directory.adopt(&name, twin.ino, false);
            }
            tree.insert(twin);
            if let Some(node) = tree.get_mut(ino) {
                node.superseded = true;
            }
            tree.orphan(ino);
        }
        Err(Errno::ESTALE.into())
    }
}
