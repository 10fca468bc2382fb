//! `/out` → the bucket: all files, or none.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::Front;
use crate::bucket::upload::{self, PartSource, UploadSettings};
use crate::bucket::{self, Bucket, ETag, Metadata, PutOptions};
use crate::error::Kind;
use crate::failpoint::{self, Failpoint};
use crate::journal::{EventName, NewEvent, stored_etag};
use crate::key;

/// Parts of one file on their way at a time: a hook's output is not what a person waits for.
const PARTS_AT_A_TIME: usize = 2;

/// A file that a guest left for publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OutFile {
    pub(super) file: PathBuf,
    /// Full key it goes to.
    pub(super) key: String,
    pub(super) size: u64,
}

/// Why output was not published.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// What the guest left can't be published; it would not be better the next time.
    #[error("/out: {0}")]
    Output(String),
    #[error(transparent)]
    Bucket(#[from] bucket::Error),
    #[error("/out: {0}")]
    Local(#[from] io::Error),
}

/// What is in `out`, for publication below the key prefix `root`, in the order of keys.
pub(super) fn collect(out: &Path, root: &str) -> Result<Vec<OutFile>, Error> {
    let mut files = Vec::new();
    let mut waiting = vec![(out.to_owned(), root.to_owned())];
    while let Some((directory, key)) = waiting.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let component = key::component(&key, &name)
                .map_err(|error| Error::Output(format!("{}: {error}", name.to_string_lossy().escape_debug())))?;
            let key = format!("{key}{component}");
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                waiting.push((entry.path(), format!("{key}/")));
            } else if metadata.is_file() {
                files.push(OutFile { file: entry.path(), key, size: metadata.len() });
            } else {
                return Err(Error::Output(format!("{}: neither a file nor a directory", component.escape_debug())));
            }
        }
    }
    files.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(files)
}

/// Writes all files and returns what happened; when one fails, those that were new are removed
/// again. (What was overwritten stays: the bucket has no older version to give back, and the next
/// try of the task writes it anew.)
pub(super) async fn publish(
    bucket: &Arc<dyn Bucket>,
    files: &[OutFile],
    lineage: &[String],
    metadata: &Metadata,
    front: &dyn Front,
) -> Result<Vec<NewEvent>, Error> {
    let mut events = Vec::new();
    let mut new_keys = Vec::new();
    for file in files {
        match publish_one(bucket, file, metadata, files.len() > 1).await {
            Ok((etag, name, was_new)) => {
                failpoint::reach(Failpoint::HookBetweenFiles);
                front.changed(&file.key);
                if was_new {
                    new_keys.push(file.key.as_str());
                }
                let (size, etag, lineage) = (file.size, Some(stored_etag(&etag)), lineage.to_vec());
                events.push(NewEvent { size, etag, lineage, ..NewEvent::now(name, &file.key) });
            }
            Err(error) => {
                take_back(bucket.as_ref(), &new_keys, front).await;
                return Err(error);
            }
        }
    }
    Ok(events)
}

/// A single file needs no taking back, so nobody has to know whether it was there before.
async fn publish_one(
    bucket: &Arc<dyn Bucket>,
    file: &OutFile,
    metadata: &Metadata,
    among_others: bool,
) -> Result<(ETag, EventName, bool), Error> {
    let was_new = among_others && !exists(bucket.as_ref(), &file.key).await?;
    let options = PutOptions { metadata: metadata.clone(), ..PutOptions::default() };
    if file.size < upload::MULTIPART_FROM_BYTES {
        let body = Bytes::from(tokio::fs::read(&file.file).await?);
        let etag = bucket.put(&file.key, body, &options).await?;
        return Ok((etag, EventName::CreatedPut, was_new));
    }
    let source = Arc::new(FileSource(file.file.clone()));
    let settings = UploadSettings { concurrency: PARTS_AT_A_TIME, ..UploadSettings::default() };
    let etag = upload::upload(bucket, &file.key, source, file.size, &options, &settings).await?;
    Ok((etag, EventName::CreatedMultipart, was_new))
}

/// A file that is sent in parts.
struct FileSource(PathBuf);

#[async_trait::async_trait]
impl PartSource for FileSource {
    async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let path = self.0.clone();
        let read = move || {
            let mut part = vec![0; (range.end - range.start) as usize];
            fs::File::open(path)?.read_exact_at(&mut part, range.start)?;
            Ok(Bytes::from(part))
        };
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }
}

async fn exists(bucket: &dyn Bucket, key: &str) -> Result<bool, Error> {
    match bucket.head(key).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind == Kind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn take_back(bucket: &dyn Bucket, keys: &[&str], front: &dyn Front) {
    for key in keys {
        front.before_deletion(key).await;
        if let Err(error) = bucket.delete(key, None).await {
            tracing::warn!("half of a hook's output stays until its next try: {error}");
        }
        front.changed(key);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn the_tree_below_out_becomes_keys() {
        let out = tempfile::tempdir().unwrap();
        fs::create_dir_all(out.path().join("b/c/empty")).unwrap();
        fs::write(out.path().join("b/c/x"), "12").unwrap();
        fs::write(out.path().join("a"), "").unwrap();
        let files = collect(out.path(), "p/thumbs/").unwrap();
        let found: Vec<_> = files.iter().map(|file| (file.key.as_str(), file.size)).collect();
        assert_eq!(found, [("p/thumbs/a", 0), ("p/thumbs/b/c/x", 2)]);
    }

    #[test]
    fn links_and_names_that_are_no_key_are_refused() {
        let out = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", out.path().join("link")).unwrap();
        assert!(matches!(collect(out.path(), ""), Err(Error::Output(_))));

        let out = tempfile::tempdir().unwrap();
        fs::write(out.path().join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
        assert!(matches!(collect(out.path(), ""), Err(Error::Output(_))));

        let out = tempfile::tempdir().unwrap();
        fs::write(out.path().join("n".repeat(200)), "").unwrap();
        assert!(matches!(collect(out.path(), &"d/".repeat(450)), Err(Error::Output(_))));
    }
}
