//! What a part of a large file lacks, fetched while the part is being sent.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use super::Fs;
use super::content::Content;
use super::draft::Piece;
use super::inodes::Ino;
use crate::bucket::upload::{Arriving, FileParts, PartSource};
use crate::bucket::{self, Error, ObjectInfo, Sink};
use crate::cache::Pinned;
use crate::error::Kind;

/// The bytes of a draft, and of the version below it where it has none. Nobody writes to it meanwhile.
pub(super) struct Edges<'a> {
    pub fs: &'a Fs,
    pub ino: Ino,
    pub content: &'a Content,
    pub base: Pinned,
    pub local: FileParts,
    /// The first answer has told what a HEAD would.
    pub told: Notify,
}

#[async_trait]
impl PartSource for Edges<'_> {
    async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        self.local.read(range).await
    }

    fn lacks(&self, range: &Range<u64>) -> bool {
        !self.content.draft.lock().missing_in(range.clone()).is_empty()
    }

    async fn bring(&self, range: Range<u64>, part: &Arriving) -> bucket::Result<()> {
        let pieces = self.content.draft.lock().pieces(range);
        for piece in pieces {
            match piece {
                Piece::Local(range) => part.push(self.read(range).await.map_err(|error| self.unreadable(&error))?),
                Piece::Base(range) => {
                    let edge =
                        Edge { edges: self, part, start: range.start, came: AtomicU64::new(0), asked: Instant::now() };
                    self.fs.bucket.get_into(&self.base.key, range, &self.base.etag, &edge).await?;
                }
            }
        }
        Ok(())
    }
}

impl Edges<'_> {
    fn unreadable(&self, error: &io::Error) -> Error {
        let (key, cause) = (self.base.key.to_string(), format!("the draft: {error}"));
        Error { kind: Kind::Local, operation: "UploadPart", key, cause, http_status: None, request_id: None }
    }
}

/// One stretch of the version below, on its way into a part and into the draft.
struct Edge<'a> {
    edges: &'a Edges<'a>,
    part: &'a Arriving,
    start: u64,
    came: AtomicU64,
    asked: Instant,
}

impl Sink for Edge<'_> {
    fn begin(&self, info: &ObjectInfo) {
        let Edges { fs, ino, base, told, .. } = self.edges;
        if let Err(error) = fs.tell_fetched(*ino, &base.key, info.clone(), self.asked) {
            // Whoever waits asks by HEAD then, and is told why.
            tracing::debug!(cause = %error, "a GET tells of another version");
        }
        told.notify_one();
    }

    fn take(&self, bytes: &[u8]) {
        let at = self.start + self.came.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.part.push(Bytes::copy_from_slice(bytes));
        if let Err(error) = self.edges.content.draft.lock().fill(at, bytes) {
            // It is sent all the same; the next change here fetches it again.
            tracing::debug!(cause = %error, "what was fetched could not be kept in the draft");
        }
    }

    fn taken_bytes(&self) -> u64 {
        self.came.load(Ordering::Relaxed)
    }
}
