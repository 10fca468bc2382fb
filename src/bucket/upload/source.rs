//! Where the bytes of an upload come from.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::{Arriving, local};
use crate::bucket::Result;

/// Where the bytes of an upload come from; asked for several parts at a time.
#[async_trait]
pub trait PartSource: Send + Sync {
    /// Exactly these bytes.
    async fn read(&self, range: Range<u64>) -> io::Result<Bytes>;

    /// Whether some of these bytes have to be fetched first. Most sources have all.
    fn lacks(&self, _range: &Range<u64>) -> bool {
        false
    }

    /// Puts these bytes into `part` as they come.
    async fn bring(&self, range: Range<u64>, part: &Arriving) -> Result<()> {
        part.push(read(self, "", range).await?);
        Ok(())
    }
}

#[async_trait]
impl PartSource for Bytes {
    async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        Ok(self.slice(range.start as usize..range.end as usize))
    }
}

/// The bytes of a local file.
#[derive(Debug)]
pub struct FileParts {
    file: Mutex<Arc<File>>,
    idle: Arc<Idle>,
}

impl FileParts {
    /// Opens a file to be sent.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::from(File::open(path)?))
    }

    /// The bytes lie in this file from now on.
    pub fn move_to(&self, file: File) {
        *self.file.lock() = Arc::new(file);
    }
}

impl From<File> for FileParts {
    fn from(file: File) -> Self {
        Self { file: Mutex::new(Arc::new(file)), idle: Arc::default() }
    }
}

#[async_trait]
impl PartSource for FileParts {
    async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let (file, idle) = (Arc::clone(&self.file.lock()), Arc::clone(&self.idle));
        let read = move || {
            let mut buffer = Buffer::of((range.end - range.start) as usize, idle);
            file.read_exact_at(&mut buffer.memory[..buffer.wanted], range.start)?;
            Ok(Bytes::from_owner(buffer))
        };
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }
}

/// Memory of parts that were sent, for the next ones: fresh memory would have to be zeroed, and costs a
/// page fault for each 4 KiB. Goes with its file.
#[derive(Debug, Default)]
struct Idle(Mutex<Vec<Vec<u8>>>);

/// Buffers kept, at most.
const MAX_IDLE: usize = 4;

/// A part in memory, which goes back with the last reference to it.
struct Buffer {
    /// At least as long as is wanted, and initialised.
    memory: Vec<u8>,
    wanted: usize,
    idle: Arc<Idle>,
}

impl Buffer {
    fn of(wanted: usize, idle: Arc<Idle>) -> Self {
        let mut memory = idle.0.lock().pop().unwrap_or_default();
        if memory.len() < wanted {
            memory = vec![0; wanted];
        }
        Self { memory, wanted, idle }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.wanted]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut idle = self.idle.0.lock();
        if idle.len() < MAX_IDLE {
            idle.push(std::mem::take(&mut self.memory));
        }
    }
}

/// The bytes of one part, all of them.
pub(super) async fn read<S: PartSource + ?Sized>(source: &S, key: &str, range: Range<u64>) -> Result<Bytes> {
    let wanted = range.end - range.start;
    let bytes = source.read(range).await.map_err(|error| local(key, error.to_string()))?;
    if bytes.len() as u64 == wanted {
        return Ok(bytes);
    }
    Err(local(key, format!("the source gave {} of {wanted} bytes", bytes.len())))
}
