//! Where the bytes of an upload come from.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::local;
use crate::bucket::Result;

/// Where the bytes of an upload come from; asked for several parts at a time.
#[async_trait]
pub trait PartSource: Send + Sync + 'static {
    /// Exactly these bytes.
    async fn read(&self, range: Range<u64>) -> io::Result<Bytes>;
}

#[async_trait]
impl PartSource for Bytes {
    async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        Ok(self.slice(range.start as usize..range.end as usize))
    }
}

/// The bytes of a local file.
#[derive(Debug)]
pub struct FileParts(Arc<File>);

impl FileParts {
    /// Opens a file to be sent.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::from(File::open(path)?))
    }
}

impl From<File> for FileParts {
    fn from(file: File) -> Self {
        Self(Arc::new(file))
    }
}

#[async_trait]
impl PartSource for FileParts {
    async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let file = Arc::clone(&self.0);
        let read = move || {
            let mut buffer = vec![0; (range.end - range.start) as usize];
            file.read_exact_at(&mut buffer, range.start)?;
            Ok(buffer.into())
        };
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }
}

/// The bytes of one part, all of them.
pub(super) async fn read(source: &dyn PartSource, key: &str, range: Range<u64>) -> Result<Bytes> {
    let wanted = range.end - range.start;
    let bytes = source.read(range).await.map_err(|error| local(key, error.to_string()))?;
    if bytes.len() as u64 == wanted {
        return Ok(bytes);
    }
    Err(local(key, format!("the source gave {} of {wanted} bytes", bytes.len())))
}
