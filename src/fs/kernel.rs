//! What the kernel is told unasked: names, attributes and pages that it should not believe any more,
//! and bytes that it will ask for next.

use std::fmt;
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use tokio::sync::Notify;

use super::inodes::{Ino, Pages};
use super::{Fs, Result};
use crate::bucket::ETag;

/// The way to the kernel's caches. All of it is about speed, and about being right sooner: a kernel
/// that hears nothing forgets by itself when the TTLs are over.
pub trait Kernel: fmt::Debug + Send + Sync {
    /// The attributes are to be asked for again. Takes effect before this returns; may be called
    /// while a request about the inode is being answered.
    fn forget_attributes(&self, ino: Ino);
    /// Pages and attributes are to go, soon: this returns at once, and nobody waits for it.
    fn forget_pages(&self, ino: Ino);
    /// What a name stands for is to be asked again, soon: this returns at once.
    fn forget_name(&self, parent: Ino, name: &str);
    /// Puts the bytes of a whole file into the page cache; false if that failed. Only for a file of
    /// which no page is there, and no request under way: it waits for the locks of its pages.
    fn fill(&self, ino: Ino, bytes: &[u8]) -> bool;
}

/// The kernel, once there is one, and who waits for pages to be filled.
#[derive(Debug, Default)]
pub(super) struct Link {
    kernel: OnceLock<Arc<dyn Kernel>>,
    filled: Notify,
}

impl Fs {
    /// From now on the kernel is told what changes. A second one is not taken.
    pub fn attach(&self, kernel: Arc<dyn Kernel>) {
        let _ = self.kernel.kernel.set(kernel);
    }

    /// Whether anybody has the file open, or is about to.
    pub fn is_open(&self, ino: Ino) -> bool {
        self.tree.lock().get(ino).is_some_and(|node| node.opens > 0)
    }

    /// Not under a lock: some of what a [`Kernel`] does waits for the kernel.
    pub(super) fn tell_kernel(&self, tell: impl FnOnce(&dyn Kernel)) {
        if let Some(kernel) = self.kernel.kernel.get() {
            tell(kernel.as_ref());
        }
    }

    /// Waits while the file's pages are being filled: a write in between would be covered by them.
    /// The caller holds the file, so that nobody begins anew.
    pub(super) async fn pages_settled(&self, ino: Ino) -> Result<()> {
        loop {
            let mut told = std::pin::pin!(self.kernel.filled.notified());
            told.as_mut().enable();
            if self.tree.lock().get(ino).ok_or(Errno::ESTALE)?.pages != Pages::Filling {
                return Ok(());
            }
            told.await;
        }
    }

    /// Whether anybody listens.
    pub(super) fn is_attached(&self) -> bool {
        self.kernel.kernel.get().is_some()
    }

    /// Puts a whole file of this version into the page cache, of which [`Pages::Filling`] has kept
    /// everybody else out. False: the kernel must drop what came there.
    pub(super) fn fill_pages(&self, ino: Ino, bytes: &[u8], etag: &ETag) -> bool {
        let _ending = Ending { fs: self, ino, pages: Pages::Of(Some(etag.clone())) };
        self.kernel.kernel.get().is_some_and(|kernel| kernel.fill(ino, bytes))
    }
}

/// However the filling ends, those who wait for it go on.
struct Ending<'a> {
    fs: &'a Fs,
    ino: Ino,
    pages: Pages,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if let Some(node) = self.fs.tree.lock().get_mut(self.ino) {
            node.pages = self.pages.clone();
        }
        self.fs.kernel.filled.notify_waiters();
    }
}
