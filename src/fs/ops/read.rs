//! read, readlink.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use nix::errno::Errno;

use crate::cache::Pinned;
use crate::fs::content::Content;
use crate::fs::draft::Piece;
use crate::fs::handles::FileHandle;
use crate::fs::inodes::Ino;
use crate::fs::persist::pin;
use crate::fs::stat::FileKind;
use crate::fs::{Fs, Result};

/// Longest target of a symbolic link (`PATH_MAX`).
pub(super) const MAX_LINK_BYTES: u64 = 4096;

impl Fs {
    /// `pread(2)`: exactly the range, cut at the end of the file only.
    ///
    /// # Errors
    /// `ESTALE` when the version that the handle is pinned to is gone from S3.
    pub async fn read(&self, number: u64, offset: u64, size: u32) -> Result<Bytes> {
        let handle = self.handles.file(number).ok_or(Errno::EBADF)?;
        let range = offset..offset.saturating_add(u64::from(size));
        let read = self.read_handle(&handle, range.clone()).await;
        if !read.as_ref().is_err_and(|error| error.is_conflict() || error.is_not_found()) {
            return read;
        }
        // Who opens the file again is to find what is there now, and not the same answer until the
        // attributes are too old to be believed.
        self.tree.lock().doubt(handle.ino);
        if self.look_for_ours(handle.ino).await? { self.read_handle(&handle, range).await } else { read }
    }

    async fn read_handle(&self, handle: &FileHandle, range: Range<u64>) -> Result<Bytes> {
        let pinned = handle.pinned.lock().clone();
        match (self.draft_for(handle, pinned.as_ref()), pinned) {
            (Some(content), _) => self.read_draft(handle, &content, range).await,
            (None, Some(pinned)) => self.read_version(handle, &pinned, range).await,
            (None, None) => Ok(Bytes::new()),
        }
    }

    /// The draft that this handle is to read: a reader of an older version than the one that the
    /// draft was begun from goes on with its own.
    fn draft_for(&self, handle: &FileHandle, pinned: Option<&Pinned>) -> Option<Arc<Content>> {
        let tree = self.tree.lock();
        let node = tree.get(handle.ino)?;
        let same = pinned.is_none_or(|pinned| !node.linked || node.etag.as_ref() == Some(&pinned.etag));
        node.content.clone().filter(|_| same || handle.can_write())
    }

    async fn read_version(&self, handle: &FileHandle, pinned: &Pinned, range: Range<u64>) -> Result<Bytes> {
        let range = range.start..range.end.min(pinned.size);
        if range.start >= range.end {
            return Ok(Bytes::new());
        }
        if let Some(bytes) = self.cache.try_read(pinned, range.clone()) {
            return Ok(bytes);
        }
        let pinned = &self.current_name(handle.ino, pinned.clone());
        Ok(self.cache.read(pinned, range, &handle.ahead).await?)
    }

    /// A directory above may have been renamed since the file was opened.
    pub(in crate::fs) fn current_name(&self, ino: Ino, pinned: Pinned) -> Pinned {
        match self.tree.lock().key(ino) {
            Some(key) if *key != *pinned.key => Pinned { key: key.into(), ..pinned },
            _ => pinned,
        }
    }

    async fn read_draft(&self, handle: &FileHandle, content: &Content, range: Range<u64>) -> Result<Bytes> {
        let state = || (content.generation(), content.draft.lock().base().map(|base| base.etag.clone()));
        let before = state();
        match self.read_pieces(handle, content, range.clone()).await {
            // Stored or truncated meanwhile: what was to be read lies elsewhere now.
            Err(_) if state() != before => self.read_pieces(handle, content, range).await,
            outcome => outcome,
        }
    }

    async fn read_pieces(&self, handle: &FileHandle, content: &Content, range: Range<u64>) -> Result<Bytes> {
        let (pieces, base) = {
            let draft = content.draft.lock();
            let pieces = draft.pieces(range);
            if let [Piece::Local(all)] = pieces.as_slice() {
                return Ok(draft.read_local(all.clone())?);
            }
            (pieces, draft.base().cloned())
        };
        let mut bytes = BytesMut::new();
        for piece in pieces {
            match piece {
                Piece::Local(part) => bytes.extend_from_slice(&content.draft.lock().read_local(part)?),
                Piece::Base(part) => {
                    let base = base.as_ref().ok_or(Errno::EIO)?;
                    let base = self.current_name(handle.ino, base.clone());
                    bytes.extend_from_slice(&self.cache.read(&base, part, &handle.ahead).await?);
                }
            }
        }
        Ok(bytes.freeze())
    }

    /// `readlink(2)`: the object's body is the target, as AWS's own file services keep it.
    pub async fn readlink(&self, ino: Ino) -> Result<Bytes> {
        let pinned = {
            let tree = self.tree.lock();
            let node = tree.get(ino).ok_or(Errno::ESTALE)?;
            if node.stat.kind != FileKind::Symlink || node.stat.size > MAX_LINK_BYTES {
                return Err(Errno::EINVAL.into());
            }
            if let Some(content) = node.content.clone() {
                // Made here, and whole: S3 may not have it yet.
                drop(tree);
                let draft = content.draft.lock();
                return Ok(draft.read_local(0..draft.size())?);
            }
            pin(&tree.key(ino).ok_or(Errno::ESTALE)?, node).ok_or(Errno::ESTALE)?
        };
        let ahead = crate::cache::ReadAhead::new();
        let whole = 0..pinned.size;
        Ok(self.cache.read(&pinned, whole, &ahead).await?)
    }
}
