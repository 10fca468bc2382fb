//! Standard output and error of a guest: the first bytes are kept, all are counted, none blocks.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// As much as one `write` may bring; more comes in pieces.
const WRITE_BYTES: usize = 64 << 10;

/// What a guest wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::hooks) struct Captured {
    /// The first bytes, up to the limit.
    pub(in crate::hooks) bytes: Vec<u8>,
    /// How many more there were.
    pub(in crate::hooks) dropped: u64,
}

/// The writing end.
#[derive(Clone)]
pub(super) struct Pipe {
    limit_bytes: usize,
    captured: Arc<Mutex<Captured>>,
}

impl Pipe {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, captured: Arc::default() }
    }

    /// Takes bytes; what is beyond the limit is only counted.
    pub(super) fn push(&self, bytes: &[u8]) {
        let mut captured = self.captured.lock();
        let kept = bytes.len().min(self.limit_bytes - captured.bytes.len());
        captured.bytes.extend_from_slice(&bytes[..kept]);
        captured.dropped += (bytes.len() - kept) as u64;
    }

    pub(super) fn captured(&self) -> Captured {
        std::mem::take(&mut *self.captured.lock())
    }
}

impl IsTerminal for Pipe {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Pipe {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    /// Preview 3 only, which no guest of ours has.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }
}

#[async_trait::async_trait]
impl Pollable for Pipe {
    async fn ready(&mut self) {}
}

impl OutputStream for Pipe {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES)
    }
}
