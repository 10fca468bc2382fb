//! The bytes of a part, some of which are still on their way here.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::task::AtomicWaker;
use parking_lot::Mutex;

use crate::bucket::checksum;

/// Filled in order, and read from the beginning by one reader at a time, who may be as far as the bytes are.
#[derive(Debug)]
pub struct Arriving {
    size: u64,
    came: Mutex<Came>,
    reader: AtomicWaker,
}

#[derive(Debug, Default)]
struct Came {
    chunks: Vec<Bytes>,
    bytes: u64,
}

impl Arriving {
    /// A part of so many bytes, of which none is there.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self { size, came: Mutex::default(), reader: AtomicWaker::new() }
    }

    /// How many bytes it will be.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The next bytes are there.
    pub fn push(&self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let mut came = self.came.lock();
        came.bytes += bytes.len() as u64;
        came.chunks.push(bytes);
        drop(came);
        self.reader.wake();
    }

    /// The chunk of this number; `None` behind the last.
    pub fn poll_chunk(&self, index: usize, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        // Before it is looked: what comes in between wakes.
        self.reader.register(context.waker());
        let came = self.came.lock();
        match came.chunks.get(index) {
            Some(chunk) => Poll::Ready(Some(chunk.clone())),
            None if came.bytes >= self.size => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    /// All of it, once it is there.
    pub async fn whole(&self) -> Bytes {
        let mut whole = BytesMut::new();
        let mut index = 0;
        while let Some(chunk) = poll_fn(|context| self.poll_chunk(index, context)).await {
            whole.extend_from_slice(&chunk);
            index += 1;
        }
        whole.freeze()
    }

    /// CRC32C of what is there, as `x-amz-checksum-crc32c` has it.
    #[must_use]
    pub fn crc32c(&self) -> String {
        checksum::crc32c_of(&self.came.lock().chunks)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_reader_has_what_is_there_and_waits_for_the_rest() {
        let part = Arc::new(Arriving::new(6));
        part.push(Bytes::from_static(b"abc"));
        assert_eq!(poll_fn(|context| part.poll_chunk(0, context)).await.unwrap(), "abc");
        let reader = tokio::spawn({
            let part = part.clone();
            async move { part.whole().await }
        });
        tokio::task::yield_now().await;
        part.push(Bytes::new());
        part.push(Bytes::from_static(b"def"));
        assert_eq!(reader.await.unwrap(), "abcdef");
        assert_eq!(part.crc32c(), checksum::crc32c(b"abcdef"));
        assert_eq!(poll_fn(|context| part.poll_chunk(2, context)).await, None);
    }
}
