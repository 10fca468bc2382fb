//! Small files come whole when they are opened: one GET brings the bytes and proves the version.

use std::time::Instant;

use bytes::Bytes;
use nix::libc;

use super::inodes::{Ino, Node, Pages};
use super::persist::pin;
use super::stat::FileKind;
use super::{Error, Fs, Result};
use crate::bucket::ETag;
use crate::cache::{BLOCK_BYTES, Pinned, ReadAhead};

/// So often an open begins anew when the object changes under it; then reads have to decide.
const MAX_VERSIONS: usize = 3;
/// Largest file that is put into the page cache at open. Measured from open to close, read from the
/// disk cache, means of five pairs on a busy machine: 4 KiB in 143 instead of 185 µs, 256 KiB in 508
/// instead of 681 µs, 1 MiB no faster: there the one READ that this saves is small beside the
/// copying, which may be for nothing.
const MAX_FILL_BYTES: usize = 256 << 10;

/// All bytes of one version of a small file.
#[derive(Debug)]
pub(super) struct Whole {
    pub etag: ETag,
    pub bytes: Bytes,
}

/// A file that is fetched whole.
struct Small {
    pinned: Pinned,
    /// The kernel has this version's pages and asks for none.
    in_kernel: bool,
}

impl Fs {
    /// Before an open for reading: asks S3 for the version unless it was asked within the TTL, and
    /// fetches a small file that is not here yet. Returns the bytes where the kernel lacks them.
    ///
    /// # Errors
    /// Whatever S3 answers; `ESTALE` when the name stands for another inode now.
    pub(super) async fn check_to_read(&self, ino: Ino) -> Result<Option<Whole>> {
        let begun = Instant::now();
        for _ in 0..MAX_VERSIONS {
            let Some(small) = self.small(ino) else { break };
            if small.in_kernel {
                self.revalidate(ino).await?;
                if self.small(ino).is_none_or(|small| small.in_kernel) {
                    return Ok(None);
                }
                continue;
            }
            match self.fetch_whole(&small.pinned).await {
                Ok(bytes) => {
                    if self.confirm(ino, &small.pinned).is_none_or(|asked| asked < begun) {
                        self.revalidate(ino).await?;
                    }
                    if self.small(ino).is_some_and(|now| now.pinned.etag == small.pinned.etag) {
                        return Ok(Some(Whole { etag: small.pinned.etag, bytes }));
                    }
                }
                Err(error) if error.is_conflict() => {
                    self.tree.lock().doubt(ino);
                    self.revalidate(ino).await?;
                }
                Err(error) => return Err(error),
            }
        }
        self.revalidate(ino).await?;
        Ok(None)
    }

    fn small(&self, ino: Ino) -> Option<Small> {
        let tree = self.tree.lock();
        let node = tree.get(ino)?;
        let is_small = node.stat.kind == FileKind::File && (1..=BLOCK_BYTES).contains(&node.stat.size);
        if !is_small || !node.linked || node.is_drafted() {
            return None;
        }
        let in_kernel = node.pages == Pages::Of(node.etag.clone());
        Some(Small { pinned: pin(&tree.key(ino)?, node)?, in_kernel })
    }

    async fn fetch_whole(&self, object: &Pinned) -> Result<Bytes> {
        let range = 0..object.size;
        if let Some(bytes) = self.cache.try_read(object, range.clone()) {
            return Ok(bytes);
        }
        if let Some(outage) = self.listings.outage() {
            return Err(outage);
        }
        let fetched = self.cache.read(object, range, &ReadAhead::new()).await.map_err(Error::from);
        self.listings.note_outcome(&fetched);
        fetched
    }

    /// A GET of this version says what a HEAD would: the node is what S3 holds. Returns when it was
    /// asked, if the bytes here came from a GET.
    fn confirm(&self, ino: Ino, object: &Pinned) -> Option<Instant> {
        let asked = self.cache.confirmed(object)?;
        let mut tree = self.tree.lock();
        let node = tree.get_mut(ino)?;
        if node.etag.as_ref() == Some(&object.etag) {
            node.checked = node.checked.max(asked);
        }
        Some(asked)
    }

    /// Whether these bytes may go to the page cache with this open, the only one: no page of the
    /// file is there, no read can be under way, and nobody can write.
    pub(super) fn may_fill(&self, node: &Node, whole: &Whole, flags: i32) -> bool {
        node.opens == 1
            && node.pages == Pages::Empty
            && !node.is_drafted()
            && node.etag.as_ref() == Some(&whole.etag)
            && whole.bytes.len() <= MAX_FILL_BYTES
            && flags & libc::O_DIRECT == 0
            && self.is_attached()
    }
}
