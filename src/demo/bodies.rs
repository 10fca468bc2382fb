//! Bytes of objects and parts: one immutable file each, named by a number, never by a key.
//!
//! A body is born *loose*: its file goes away with its last handle, so that an upload that fails
//! or is aborted leaves nothing behind. A commit *keeps* it; removing the last version that points
//! to it makes it loose again, and the file then lives as long as the last reader needs it. What
//! `kill -9` leaves loose is swept at the next start.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak, mpsc};

use parking_lot::Mutex;

/// Directories that bodies spread over: a directory of 100,000 files is slow to list and repair.
const SHARDS: u64 = 256;

/// All bodies of a data directory.
#[derive(Debug)]
pub(super) struct Bodies {
    dir: PathBuf,
    next_id: AtomicU64,
    registry: Arc<Registry>,
}

/// Which bodies have handles, so that one number never has two.
#[derive(Debug)]
struct Registry {
    handles: Mutex<HashMap<u64, Weak<Body>>>,
    reaper: mpsc::Sender<PathBuf>,
}

/// One immutable file of bytes.
#[derive(Debug)]
pub(super) struct Body {
    id: u64,
    path: PathBuf,
    kept: AtomicBool,
    registry: Arc<Registry>,
}

impl Bodies {
    /// Opens the directory, making it when missing.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        for shard in 0..SHARDS {
            fs::create_dir_all(dir.join(format!("{shard:02x}")))?;
        }
        let (reaper, doomed) = mpsc::channel::<PathBuf>();
        // Unlinking a gigabyte takes the kernel a tenth of a second: not on a thread that answers.
        std::thread::Builder::new().name("demo-reaper".into()).spawn(move || {
            for path in doomed {
                if let Err(error) = fs::remove_file(&path)
                    && error.kind() != io::ErrorKind::NotFound
                {
                    tracing::warn!(path = %path.display(), %error, "demo server: body file stays until the next start");
                }
            }
        })?;
        let registry = Arc::new(Registry { handles: Mutex::default(), reaper });
        Ok(Self { dir, next_id: AtomicU64::new(1), registry })
    }

    /// A new loose body; its file does not exist yet.
    pub fn create(&self) -> Arc<Body> {
        self.handle(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// The body of a number that a record names.
    pub fn handle(&self, id: u64) -> Arc<Body> {
        let mut handles = self.registry.handles.lock();
        if let Some(body) = handles.get(&id).and_then(Weak::upgrade) {
            return body;
        }
        let registry = Arc::clone(&self.registry);
        let body = Arc::new(Body { id, path: self.path(id), kept: AtomicBool::new(false), registry });
        handles.insert(id, Arc::downgrade(&body));
        body
    }

    /// Deletes every file that is not in `referenced` and numbers new bodies above all of them.
    pub fn sweep(&self, referenced: &HashSet<u64>) -> io::Result<usize> {
        let mut swept = 0;
        for shard in 0..SHARDS {
            for entry in fs::read_dir(self.dir.join(format!("{shard:02x}")))? {
                let entry = entry?;
                let id = entry.file_name().to_str().and_then(|name| u64::from_str_radix(name, 16).ok());
                if id.is_none_or(|id| !referenced.contains(&id)) {
                    fs::remove_file(entry.path())?;
                    swept += 1;
                }
            }
        }
        let highest = referenced.iter().max().copied().unwrap_or(0);
        self.next_id.fetch_max(highest + 1, Ordering::Relaxed);
        Ok(swept)
    }

    fn path(&self, id: u64) -> PathBuf {
        self.dir.join(format!("{:02x}", id % SHARDS)).join(format!("{id:016x}"))
    }
}

impl Body {
    /// The number that records name it by.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Opens for reading.
    pub fn open(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    /// Creates the file for writing; a second time is an error.
    pub fn create_file(&self) -> io::Result<File> {
        File::options().write(true).create_new(true).open(&self.path)
    }

    /// Says whether some version points to it: a body that is not kept dies with its last handle.
    pub fn set_kept(&self, kept: bool) {
        self.kept.store(kept, Ordering::Release);
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let mut handles = self.registry.handles.lock();
        if handles.get(&self.id).is_some_and(|body| body.strong_count() == 0) {
            handles.remove(&self.id);
        }
        drop(handles);
        if !self.kept.load(Ordering::Acquire) {
            // Without a reaper (its thread ended with the process) the next start sweeps.
            let _ = self.registry.reaper.send(std::mem::take(&mut self.path));
        }
    }
}
