//! open, create, release.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;
use nix::libc;

use super::Entry;
use crate::bucket::upload::MULTIPART_FROM_BYTES;
use crate::fs::content::Content;
use crate::fs::deferral::thread_group;
use crate::fs::draft::Draft;
use crate::fs::handles::{FileHandle, writes};
use crate::fs::inodes::{Ino, KernelStat, Node, Pages};
use crate::fs::persist::pin;
use crate::fs::small::Whole;
use crate::fs::stat::{FileKind, Stat};
use crate::fs::{Caller, Fs, Result};

/// An open file as the kernel is told of it.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    pub handle: u64,
    /// The kernel's cached pages are of this very version.
    pub keep_cache: bool,
    /// Another version is still open here: the pages of the two must not mix.
    pub direct_io: bool,
    /// Closing needs no FLUSH.
    pub no_flush: bool,
}

impl Fs {
    /// `open(2)` of an existing file. The version is checked with S3 when our knowledge is older
    /// than the attribute TTL, and the handle reads that version and no other.
    ///
    /// # Errors
    /// `EROFS`, `ENOENT` when the object has gone, and whatever S3 answers.
    pub async fn open(&self, ino: Ino, flags: i32, caller: Caller) -> Result<Opened> {
        let changes = writes(flags) || flags & libc::O_TRUNC != 0;
        let whole = if changes {
            self.writable_at(ino)?;
            self.revalidate(ino).await?;
            // What is written over is carried along. Of a large object that will be asked for when it
            // is stored: a GET of the bytes around a change tells it too.
            if flags & libc::O_TRUNC != 0 || !self.is_large(ino) {
                self.ensure_told(ino).await?;
            }
            None
        } else {
            self.siblings_of_opened(ino);
            self.check_to_read(ino).await?
        };
        self.open_node(ino, flags, caller, whole).await
    }

    fn is_large(&self, ino: Ino) -> bool {
        self.tree.lock().get(ino).is_some_and(|node| node.stat.size >= MULTIPART_FROM_BYTES)
    }

    async fn open_node(&self, ino: Ino, flags: i32, caller: Caller, whole: Option<Whole>) -> Result<Opened> {
        self.hold(ino)?;
        let opened = self.open_held(ino, flags, caller, whole).await;
        if opened.is_err() {
            self.let_go(ino);
        }
        opened
    }

    async fn open_held(&self, ino: Ino, flags: i32, caller: Caller, whole: Option<Whole>) -> Result<Opened> {
        self.pages_settled(ino).await?;
        let changes = writes(flags) || flags & libc::O_TRUNC != 0;
        if changes {
            self.part_from_readers(ino)?;
        }
        if flags & libc::O_TRUNC != 0 {
            self.empty(ino).await?;
        } else if writes(flags) {
            self.ensure_content(ino, false)?;
        }
        let given = if changes { None } else { self.file_to_give(ino).await };
        let opener = if writes(flags) { thread_group(caller.pid) } else { 0 };
        let mut tree = self.tree.lock();
        let key = tree.key(ino).ok_or(Errno::ESTALE)?;
        let node = tree.get_mut(ino).ok_or(Errno::ESTALE)?;
        if node.superseded {
            // The kernel looks the name up anew then, and finds who has it now.
            return Err(Errno::ESTALE.into());
        }
        let pinned = pin(&key, node);
        let backing = self.backing_of_open(node, given);
        let told_otherwise = std::mem::replace(&mut node.kernel_stat, KernelStat::Current) == KernelStat::Outdated;
        // The kernel would keep what is appended where it takes the end to be, among the pages of the file.
        let appends_elsewhere = told_otherwise && flags & libc::O_APPEND != 0;
        let direct_io =
            appends_elsewhere || pinned.as_ref().is_some_and(|pinned| self.handles.reads_other_version(ino, pinned));
        let may_fill = backing.is_none() && !told_otherwise;
        let whole = whole.filter(|whole| may_fill && self.may_fill(node, whole, flags));
        let mut keep_cache = node.pages == Pages::Of(node.etag.clone());
        if backing.is_none() {
            node.pages = match &whole {
                Some(_) => Pages::Filling,
                // With two versions open nobody can say which one a cached page is of.
                None if direct_io => Pages::Unknown,
                None if keep_cache || node.pages == Pages::Empty => Pages::Of(node.etag.clone()),
                None => Pages::Dropping(node.etag.clone()),
            };
        }
        let dropped = matches!(node.pages, Pages::Dropping(_)).then(|| node.pages.clone());
        // With the tree still locked: the next open has to see how this one reads.
        let handle =
            self.handles.add_file(FileHandle::new(ino, flags, opener, pinned).backed_by(backing).dropping(dropped));
        let is_only_made = node.content.as_ref().is_some_and(|content| content.is_only_made());
        drop(tree);
        if told_otherwise {
            // Else the size that the kernel remembers would cut the reads of this version.
            self.tell_kernel(|kernel| kernel.forget_attributes(ino));
        }
        if let Some(whole) = whole {
            keep_cache = self.fill_pages(ino, &whole.bytes, &whole.etag);
        }
        Ok(Opened { handle, keep_cache, direct_io, no_flush: !writes(flags) && !is_only_made })
    }

    pub(in crate::fs) fn hold(&self, ino: Ino) -> Result<()> {
        self.tree.lock().get_mut(ino).ok_or(Errno::ESTALE)?.opens += 1;
        Ok(())
    }

    pub(in crate::fs) fn let_go(&self, ino: Ino) {
        if let Some(node) = self.tree.lock().get_mut(ino) {
            node.opens = node.opens.saturating_sub(1);
        }
        self.drop_clean_content(ino);
    }

    /// `open(2)` with `O_CREAT`. Nothing is sent yet: the object appears with the close, and only
    /// if nobody else made one meanwhile (else the close answers `ESTALE`).
    ///
    /// # Errors
    /// `EEXIST` with `O_EXCL`, `EISDIR`, `EROFS`, `ENAMETOOLONG`.
    pub async fn create(
        &self,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        flags: i32,
        caller: Caller,
    ) -> Result<(Entry, Opened)> {
        self.writable_at(parent)?;
        let name = self.name_in(parent, name)?;
        let ino = match self.resolve(parent, &name).await? {
            Some(_) if flags & libc::O_EXCL != 0 => return Err(Errno::EEXIST.into()),
            Some(ino) => ino,
            None => {
                self.names_may_change_in(parent, OsStr::new(&name))?;
                self.create_node(parent, &name, mode, caller)?
            }
        };
        if self.tree.lock().get(ino).is_some_and(Node::is_directory) {
            return Err(Errno::EISDIR.into());
        }
        self.ensure_told(ino).await?;
        let opened = self.open_node(ino, flags, caller, None).await?;
        Ok((self.enter(ino)?, opened))
    }

    fn create_node(&self, parent: Ino, name: &str, mode: u32, caller: Caller) -> Result<Ino> {
        let stat = self.new_stat(parent, FileKind::File, mode, caller)?;
        let draft = Draft::create(&self.drafts, None)?;
        let ino = {
            let mut tree = self.tree.lock();
            let key = format!("{}{name}", tree.key(parent).ok_or(Errno::ENOENT)?);
            let ino = tree.pick_ino(&key, None);
            let mut node = Node::new(ino, parent, name, stat, Instant::now());
            node.content = Some(Arc::new(Content::emptied(draft)));
            tree.link(node);
            ino
        };
        self.touch_directory(parent);
        Ok(ino)
    }

    /// Attributes of something made by `caller` in `parent`: a setgid directory hands its group on,
    /// and to directories the bit itself (`inode(7)`).
    pub(super) fn new_stat(&self, parent: Ino, kind: FileKind, mode: u32, caller: Caller) -> Result<Stat> {
        let tree = self.tree.lock();
        let above = &tree.get(parent).ok_or(Errno::ENOENT)?.stat;
        let setgid = above.perm & 0o2000 != 0;
        let gid = if setgid { above.gid } else { caller.gid };
        let inherited = if setgid && kind == FileKind::Directory { 0o2000 } else { 0 };
        Ok(Stat::fresh(kind, (mode & 0o7777) as u16 | inherited, caller.uid, gid))
    }

    /// The last descriptor of an open file is gone. What no close has stored yet is stored now;
    /// nobody hears of an error here any more, so it is logged and the draft is kept.
    pub async fn release(&self, number: u64) -> Result<()> {
        let Some(handle) = self.handles.file(number) else { return Ok(()) };
        // Looked at first: what becomes dirty from here on is a later opener's, and his close's.
        let content = self.content(handle.ino);
        let dirty = content.as_ref().is_some_and(|content| content.is_dirty());
        let only_made = content.is_some_and(|content| content.is_only_made());
        // Of a file that nobody else holds, everything is: a chmod may be riding along just now.
        let unstored = dirty || self.tree.lock().get(handle.ino).is_some_and(|node| node.opens <= 1);
        self.handles.remove_file(number);
        // The last writer stores what no close has. While another writes, the file is not whole, and
        // what this one has written was stored by its own close.
        let last = (handle.can_write() && unstored) || only_made;
        let stored = if last { self.store_released(handle.ino).await } else { Ok(()) };
        self.note_dropped(&handle);
        self.let_go(handle.ino);
        stored
    }

    /// What no close has stored. In a write-back mount the uploader tries again what cannot be done now.
    async fn store_released(&self, ino: Ino) -> Result<()> {
        let stored = self.close_unless_written(ino).await;
        if stored.is_err()
            && self.settings.write_back.is_some()
            && let Some(content) = self.content(ino)
        {
            self.backlog.add(ino, content.draft.lock().size(), Instant::now());
        }
        stored
    }

    /// The open that this ends has dropped the pages of other versions.
    fn note_dropped(&self, handle: &FileHandle) {
        let mut tree = self.tree.lock();
        let Some(node) = tree.get_mut(handle.ino) else { return };
        if let Pages::Dropping(etag) = &node.pages
            && handle.backing.is_none()
            && handle.dropped.as_ref() == Some(&node.pages)
        {
            node.pages = Pages::Of(etag.clone());
        }
    }

    /// Tries again to store what a release could not. To be called now and then.
    pub async fn retry_unstored(&self) {
        self.store_all(self.unstored(|node| node.opens == 0), None, true).await;
    }
}
