//! Drafts of open files: when they begin and when they go.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use crate::fs::content::Content;
use crate::fs::draft::Draft;
use crate::fs::inodes::Ino;
use crate::fs::persist::pin;
use crate::fs::stat::FileKind;
use crate::fs::{Fs, Result};

impl Fs {
    /// The draft of a file, begun now if there is none: empty, or over the version in S3.
    ///
    /// # Errors
    /// What the local disk says (`ENOSPC`, `EMFILE`, …).
    pub(in crate::fs) fn ensure_content(&self, ino: Ino, emptied: bool) -> Result<Arc<Content>> {
        loop {
            if let Some(content) = self.begin_content(ino, emptied)? {
                return Ok(content);
            }
        }
    }

    /// The draft whose gate keeps writers out while the object of a file is copied: whoever opens the
    /// file meanwhile writes to this draft, and stores it after the copy. `None` for what has no
    /// bytes, and for a file that the kernel reads by itself: who writes gets another inode then. The
    /// caller holds the file, so that the draft stays.
    pub(in crate::fs) fn content_to_guard(&self, ino: Ino) -> Result<Option<Arc<Content>>> {
        let guarded = {
            let tree = self.tree.lock();
            let node = tree.get(ino).ok_or(Errno::ESTALE)?;
            node.linked && node.stat.kind == FileKind::File && node.backing.strong_count() == 0
        };
        if guarded { self.ensure_content(ino, false).map(Some) } else { Ok(self.content(ino)) }
    }

    /// One try of [`Fs::ensure_content`]; `None` when the version changed meanwhile.
    fn begin_content(&self, ino: Ino, emptied: bool) -> Result<Option<Arc<Content>>> {
        let pinned = {
            let tree = self.tree.lock();
            let node = tree.get(ino).ok_or(Errno::ESTALE)?;
            if let Some(content) = &node.content {
                return Ok(Some(content.clone()));
            }
            if node.backing.strong_count() > 0 {
                // What the kernel reads by itself has no draft: see `part_from_readers`.
                return Err(Errno::ESTALE.into());
            }
            let key = tree.key(ino).ok_or(Errno::ESTALE)?;
            pin(&key, node)
        };
        let etag = pinned.as_ref().map(|pinned| pinned.etag.clone());
        let content = if emptied {
            Content::emptied(Draft::create(&self.drafts, None)?)
        } else {
            Content::unchanged(Draft::create(&self.drafts, pinned)?)
        };
        let mut tree = self.tree.lock();
        let node = tree.get_mut(ino).ok_or(Errno::ESTALE)?;
        if let Some(faster) = &node.content {
            return Ok(Some(faster.clone()));
        }
        if node.etag != etag {
            return Ok(None);
        }
        if emptied {
            node.stat.size = 0;
            node.stat.touch();
        }
        let content = Arc::new(content);
        node.content = Some(content.clone());
        Ok(Some(content))
    }

    /// Empties an open file (`O_TRUNC`).
    pub(super) async fn empty(&self, ino: Ino) -> Result<()> {
        let content = self.ensure_content(ino, true)?;
        let _gate = content.gate.lock().await;
        let _thawed = content.freeze.read().await;
        let mut draft = content.draft.lock();
        if draft.size() > 0 {
            draft.set_size(0)?;
            content.changed();
        }
        content.untouched.store(true, Ordering::Release);
        if let Some(node) = self.tree.lock().get_mut(ino) {
            node.stat.size = 0;
            node.stat.touch();
        }
        Ok(())
    }

    /// Lets a draft go that S3 holds, once nobody uses it: readers have the version, a writer who has
    /// yet to write begins anew. As long as it is there, S3's answers do not reach the node.
    pub(in crate::fs) fn drop_clean_content(&self, ino: Ino) {
        let mut tree = self.tree.lock();
        let Some(node) = tree.get_mut(ino) else { return };
        let is_idle = node.linked
            && !self.handles.is_written(ino)
            // Nobody can take another one while the tree is locked.
            && node.content.as_ref().is_some_and(|content| Arc::strong_count(content) == 1 && !content.is_dirty());
        let needed = (node.opens > 0 && !is_idle) || node.is_unstored();
        let dropped = if needed { None } else { node.content.take() };
        tree.drop_if_idle(ino);
        drop(tree);
        drop(dropped);
    }

    /// Brings the bytes of a file that is open here, before its object goes: whoever has it open
    /// reads on (`unlink(2)`).
    pub(super) async fn keep_for_openers(&self, ino: Ino) -> Result<()> {
        // What the kernel reads by itself, it goes on reading.
        let needed = self.tree.lock().get(ino).is_some_and(|node| node.opens > 0 && node.backing.strong_count() == 0);
        if !needed {
            return Ok(());
        }
        let content = self.ensure_content(ino, false)?;
        self.complete(&content).await?;
        content.draft.lock().detach_base();
        Ok(())
    }
}
