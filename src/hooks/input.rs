//! The event's object as a file for the guest: the version that the event tells of, or none.

use std::fs;
use std::io;
use std::path::Path;

use tokio::io::AsyncWriteExt;

use crate::bucket::{self, Bucket, ETag};
use crate::error::Kind;
use crate::journal::NewEvent;

/// One ranged GET; what is in memory of an object at a time.
const PART_BYTES: u64 = 8 << 20;

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Another version, or none, is there by now.
    #[error("the object has changed since")]
    Superseded,
    #[error("the object has {size} bytes, and max-input is {limit}")]
    TooLarge { size: u64, limit: u64 },
    #[error(transparent)]
    Bucket(bucket::Error),
    #[error("the local copy: {0}")]
    Local(#[from] io::Error),
}

impl From<bucket::Error> for Error {
    fn from(error: bucket::Error) -> Self {
        match error.kind {
            Kind::Changed | Kind::NotFound => Self::Superseded,
            _ => Self::Bucket(error),
        }
    }
}

/// Fetches the version of the event to `path`.
pub(super) async fn fetch(bucket: &dyn Bucket, event: &NewEvent, path: &Path, limit: u64) -> Result<(), Error> {
    if event.size > limit {
        return Err(Error::TooLarge { size: event.size, limit });
    }
    let (path, parent) = (path.to_owned(), path.parent().map(Path::to_owned));
    if let Some(parent) = parent {
        tokio::fs::create_dir_all(parent).await?;
    }
    let mut file = tokio::fs::File::from_std(new_file(&path)?);
    let etag = match &event.etag {
        Some(etag) => ETag::new(etag),
        None => bucket.head(&event.key).await?.etag,
    };
    if event.size == 0 {
        // No range fits into nothing; HEAD says whether it is still this nothing.
        return if bucket.head(&event.key).await?.etag == etag { Ok(()) } else { Err(Error::Superseded) };
    }
    let mut at = 0;
    while at < event.size {
        let end = event.size.min(at + PART_BYTES);
        let fetched = bucket.get(&event.key, Some(at..end), Some(&etag)).await?;
        // Servers that know no conditions answer with what they have.
        if fetched.info.etag != etag || fetched.bytes.len() as u64 != end - at {
            return Err(Error::Superseded);
        }
        file.write_all(&fetched.bytes).await?;
        at = end;
    }
    file.flush().await?;
    Ok(())
}

fn new_file(path: &Path) -> io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)
}
