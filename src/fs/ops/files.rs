//! Drafts of open files: when they begin and when they go.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use crate::fs::draft::{Content, Draft};
use crate::fs::inodes::Ino;
use crate::fs::persist::pin;
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
            Content::emptied(Draft::create(&self.settings.draft_dir, None)?)
        } else {
            Content::unchanged(Draft::create(&self.settings.draft_dir, pinned)?)
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

    /// Lets a draft go that S3 holds, once nobody has the file open.
    pub(in crate::fs) fn drop_clean_content(&self, ino: Ino) {
        let mut tree = self.tree.lock();
        let Some(node) = tree.get_mut(ino) else { return };
        let needed = node.opens > 0 || (node.linked && node.is_pending());
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
