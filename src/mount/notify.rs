//! Telling the kernel what it did not ask for.
//!
//! What waits for locks of the kernel (pages, directory entries) is done by a thread of its own: the
//! locks may be held by requests that this program is to answer. Nothing is sent once the mount is
//! about to end: a process killed while it waits for such a lock would never go.

use std::ffi::OsStr;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;

use fuser::{INodeNo, Notifier};

use crate::fs::{Fs, Ino, Kernel};

/// Notices waiting to be sent; more are left out, and the TTLs have to do.
const MAX_WAITING: usize = 4096;

/// The kernel's caches of one mount.
#[derive(Debug)]
pub struct Notices {
    notifier: Notifier,
    waiting: SyncSender<Notice>,
    armed: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Notice {
    Pages(Ino),
    Name(Ino, String),
}

impl Notices {
    /// Starts the thread that sends what may have to wait.
    ///
    /// # Errors
    /// The system's, when no thread can be started.
    pub(super) fn start(notifier: Notifier, fs: &Arc<Fs>) -> io::Result<Arc<Self>> {
        let (waiting, notices) = sync_channel(MAX_WAITING);
        let armed = Arc::new(AtomicBool::new(true));
        let thread = thread::Builder::new().name("kernel-notices".into());
        let (sender, fs, still_armed) = (notifier.clone(), Arc::downgrade(fs), armed.clone());
        thread.spawn(move || send_all(&notices, &sender, &fs, &still_armed))?;
        Ok(Arc::new(Self { notifier, waiting, armed }))
    }

    /// Whether anything is sent from now on.
    pub(super) fn arm(&self, armed: bool) {
        self.armed.store(armed, Ordering::Release);
    }

    fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Acquire)
    }

    fn send_soon(&self, notice: Notice) {
        if self.is_armed() && self.waiting.try_send(notice).is_err() {
            tracing::debug!("too many changes at once: the kernel finds out by itself");
        }
    }
}

impl Kernel for Notices {
    fn forget_attributes(&self, ino: Ino) {
        if self.is_armed() {
            // An offset below zero leaves the pages alone, and so their locks.
            heard(&self.notifier.inval_inode(INodeNo(ino), -1, 0));
        }
    }

    fn forget_pages(&self, ino: Ino) {
        self.send_soon(Notice::Pages(ino));
    }

    fn forget_name(&self, parent: Ino, name: &str) {
        self.send_soon(Notice::Name(parent, name.to_owned()));
    }

    fn fill(&self, ino: Ino, bytes: &[u8]) -> bool {
        self.is_armed() && heard(&self.notifier.store(INodeNo(ino), 0, bytes))
    }
}

fn send_all(notices: &Receiver<Notice>, notifier: &Notifier, fs: &Weak<Fs>, armed: &AtomicBool) {
    while let Ok(notice) = notices.recv() {
        let Some(fs) = fs.upgrade() else { return };
        if !armed.load(Ordering::Acquire) {
            continue;
        }
        match notice {
            // Of an open file only the attributes: reads under way hold the locks of its pages.
            Notice::Pages(ino) if fs.is_open(ino) => heard(&notifier.inval_inode(INodeNo(ino), -1, 0)),
            Notice::Pages(ino) => heard(&notifier.inval_inode(INodeNo(ino), 0, 0)),
            Notice::Name(parent, name) => heard(&notifier.inval_entry(INodeNo(parent), OsStr::new(&name))),
        };
    }
}

/// A notice that does not arrive is about something that the kernel does not have.
fn heard(sent: &io::Result<()>) -> bool {
    if let Err(error) = sent {
        tracing::debug!(%error, "the kernel did not take a notice");
    }
    sent.is_ok()
}
