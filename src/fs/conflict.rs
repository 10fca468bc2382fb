//! Two writers, one key: theirs stays in the bucket, ours is kept here.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use super::content::Content;
use super::inodes::Ino;
use super::persist::Snapshot;
use super::recovery::CONFLICT_SUFFIX;
use super::{Error, Fs, Result};

impl Fs {
    /// After a commit that failed: was it somebody else's version that stood in the way?
    pub(super) async fn note_failure(&self, ino: Ino, content: &Arc<Content>, key: &str, error: &Error) -> Result<()> {
        if matches!(error, Error::Posix(Errno::EAGAIN)) {
            // Somebody goes on writing: nothing was sent, and nothing has failed.
            return Ok(());
        }
        if matches!(error, Error::Vetoed(_)) {
            // Who still writes may yet make it right; of the rename of a refused file nothing has happened.
            return if self.is_under(ino, key) { self.take_back_refused(ino, content).await } else { Ok(()) };
        }
        if !error.is_conflict() {
            if content.deferred.lock().is_some() {
                // The uploader tells it, and once is enough.
                return Ok(());
            }
            tracing::warn!(key = %key.escape_debug(), cause = %error, "not stored; the draft is kept");
        } else if self.is_under(ino, key) {
            self.set_conflict_aside(ino, content, key).await?;
        }
        // Else somebody is in the way at the target of a rename, and the file keeps both its name and
        // its draft.
        Ok(())
    }

    /// How many versions are kept aside, of earlier mounts too. Who has looked at one removes its file.
    pub(super) fn kept_conflicts(&self) -> usize {
        let entries = std::fs::read_dir(&self.settings.draft_dir).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(CONFLICT_SUFFIX)).count()
    }

    pub(super) fn is_under(&self, ino: Ino, key: &str) -> bool {
        self.tree.lock().key(ino).is_some_and(|own| own == key)
    }

    /// What is written to a file without a name goes with it, unless the name was lost to somebody
    /// else's version: the writer does not know that yet.
    pub(super) async fn refuse_superseded(&self, ino: Ino, content: &Arc<Content>, snapshot: &Snapshot) -> Result<()> {
        let superseded = self.tree.lock().get(ino).is_some_and(|node| node.superseded);
        if superseded && content.bytes_dirty() {
            self.set_conflict_aside(ino, content, &snapshot.key).await?;
            return Err(Errno::ESTALE.into());
        }
        Ok(())
    }

    /// Somebody else wrote this key meanwhile: theirs stays in the bucket, ours is kept in the state
    /// directory under a name that the log tells, and the file shows theirs from the next open on.
    /// Where only the replaced version had bytes, what is kept has holes.
    async fn set_conflict_aside(&self, ino: Ino, content: &Arc<Content>, key: &str) -> Result<()> {
        let (path, generation) = {
            let mut draft = content.draft.lock();
            (draft.path()?, content.generation())
        };
        let kept = super::recovery::conflict_path(&path);
        tokio::fs::copy(&path, &kept).await?;
        content.refused.store(true, Ordering::Release);
        content.set_stored(generation);
        content.attributes_dirty.store(false, Ordering::Release);
        self.undefer(ino, content).await?;
        self.conflicts.fetch_add(1, Ordering::Relaxed);
        self.part_from_name(ino);
        tracing::error!(
            key = %key.escape_debug(),
            kept = %kept.display(),
            "somebody else wrote this key meanwhile: theirs stays, ours is kept in this file"
        );
        Ok(())
    }

    /// The name is theirs from now on, and gets an inode of its own: the writer, whose close came to
    /// nothing, may keep this one open for long.
    fn part_from_name(&self, ino: Ino) {
        let mut tree = self.tree.lock();
        tree.doubt(ino);
        let Some(node) = tree.get(ino).filter(|node| node.linked && node.opens > 0) else { return };
        let (parent, name) = (node.parent, node.name.clone());
        tree.supersede(ino);
        drop(tree);
        self.tell_kernel(|kernel| kernel.forget_name(parent, &name));
    }
}
