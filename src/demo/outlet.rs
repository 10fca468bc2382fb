//! Gives out the bytes of an object, a piece at a time, while the next is being read.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::Stream;
use s3s::dto::StreamingBlob;
use s3s::stream::{ByteStream, RemainingLength};
use s3s::{S3Result, StdError};
use tokio::task::JoinHandle;

use super::bodies::Body;
use super::intake::joined;
use super::record::Extent;

/// How much is read at once.
const PIECE_BYTES: u64 = 256 << 10;

/// A stretch of a body that stays readable as long as this lives, whatever happens to its key.
#[derive(Clone, Debug)]
pub(super) struct Pinned {
    body: Arc<Body>,
    extent: Extent,
}

impl Pinned {
    /// Streams an extent of a body.
    pub fn new(body: Arc<Body>, extent: Extent) -> Self {
        Self { body, extent }
    }

    /// Where in which body.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// The body, held on to.
    pub fn into_body(self) -> Arc<Body> {
        self.body
    }

    /// Reads it all, `piece_bytes` at a time. Blocks.
    pub fn read_all(&self, piece_bytes: usize, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let file = self.body.open()?;
        let mut buffer = vec![0; piece_bytes.min(self.extent.length as usize)];
        let end = self.extent.offset + self.extent.length;
        let mut at = self.extent.offset;
        while at < end {
            let piece = buffer.len().min((end - at) as usize);
            file.read_exact_at(&mut buffer[..piece], at)?;
            take(&buffer[..piece]);
            at += piece as u64;
        }
        Ok(())
    }
}

/// Cuts a range of bytes out of the content of an object.
pub(super) fn cut(content: Vec<Pinned>, range: &Range<u64>) -> Vec<Pinned> {
    let mut start = 0;
    let mut cut = Vec::new();
    for Pinned { body, extent } in content {
        let from = range.start.max(start);
        let to = range.end.min(start + extent.length);
        if from < to {
            let extent = Extent { body: extent.body, offset: extent.offset + (from - start), length: to - from };
            cut.push(Pinned { body, extent });
        }
        start += extent.length;
    }
    cut
}

/// Begins to read and returns the stream; the first piece is there already, so that what cannot be
/// read is an error instead of a broken answer.
///
/// # Errors
/// `InternalError` when the disk fails.
pub(super) async fn stream(content: Vec<Pinned>) -> S3Result<StreamingBlob> {
    let remaining_bytes = content.iter().map(|piece| piece.extent.length).sum();
    let reader = Reader { content: content.into(), open: None };
    let (reader, first) = joined(tokio::task::spawn_blocking(move || reader.read_next())).await?;
    if first.len() as u64 == remaining_bytes {
        return Ok(s3s::Body::from(first).into());
    }
    let next = tokio::task::spawn_blocking(move || reader.read_next());
    Ok(StreamingBlob::new(Outlet { first: Some(first), next, remaining_bytes }))
}

struct Reader {
    content: VecDeque<Pinned>,
    /// The file of the first extent.
    open: Option<File>,
}

impl Reader {
    /// The next piece; empty at the end.
    fn read_next(mut self) -> io::Result<(Self, Bytes)> {
        let Some(piece) = self.content.front_mut() else { return Ok((self, Bytes::new())) };
        let file = match &mut self.open {
            Some(file) => file,
            slot => slot.insert(piece.body.open()?),
        };
        let length = piece.extent.length.min(PIECE_BYTES);
        let mut buffer = vec![0; length as usize];
        file.read_exact_at(&mut buffer, piece.extent.offset)?;
        piece.extent.offset += length;
        piece.extent.length -= length;
        if piece.extent.length == 0 {
            self.content.pop_front();
            self.open = None;
        }
        Ok((self, buffer.into()))
    }
}

struct Outlet {
    first: Option<Bytes>,
    next: JoinHandle<io::Result<(Reader, Bytes)>>,
    remaining_bytes: u64,
}

impl Stream for Outlet {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.remaining_bytes == 0 {
            return Poll::Ready(None);
        }
        let piece = if let Some(first) = self.first.take() {
            first
        } else {
            let (reader, piece) = ready!(Pin::new(&mut self.next).poll(context))??;
            self.next = tokio::task::spawn_blocking(move || reader.read_next());
            piece
        };
        self.remaining_bytes -= piece.len() as u64;
        Poll::Ready(Some(Ok(piece)))
    }
}

impl ByteStream for Outlet {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(self.remaining_bytes as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::store::Store;

    #[test]
    fn a_range_over_several_extents_is_cut_at_both_ends() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let pinned = |offset, length| {
            let body = store.create_body();
            let extent = Extent { body: body.id(), offset, length };
            Pinned::new(body, extent)
        };
        let content = vec![pinned(0, 10), pinned(100, 10), pinned(7, 10)];
        let cut_to = |range| {
            cut(content.clone(), &range)
                .iter()
                .map(|piece| (piece.extent.offset, piece.extent.length))
                .collect::<Vec<_>>()
        };
        assert_eq!(cut_to(5..25), [(5, 5), (100, 10), (7, 5)]);
        assert_eq!(cut_to(10..20), [(100, 10)]);
        assert_eq!(cut_to(12..13), [(102, 1)]);
        assert_eq!(cut_to(30..40), []);
    }
}
