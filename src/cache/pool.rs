//! Buffers of one block each, used again and again.
//!
//! A stream fills and drops a block each millisecond. Memory that is given back to the system and
//! taken again costs a page fault for each 4 KiB: a quarter of the time that reading took. (Huge pages
//! are no way out: on a virtual machine whose host has to find them first, they cost three times as
//! much as they save.)

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::BLOCK_BYTES;

/// Idle buffers kept, at most.
const MAX_IDLE_BYTES: u64 = 16 << 20;

/// Buffers that are free now.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Mutex<Vec<Vec<u8>>>,
}

impl Pool {
    /// A buffer for exactly so many bytes; from the pool when that is a block.
    pub fn buffer(self: &Arc<Self>, bytes: u64) -> Buffer {
        let idle = if bytes == BLOCK_BYTES { self.idle.lock().pop() } else { None };
        let memory = idle.unwrap_or_else(|| Vec::with_capacity(bytes as usize));
        Buffer { memory, wanted: bytes as usize, pool: Arc::clone(self) }
    }

    fn take_back(&self, mut memory: Vec<u8>) {
        memory.clear();
        let mut idle = self.idle.lock();
        if (idle.len() as u64) < MAX_IDLE_BYTES / BLOCK_BYTES {
            idle.push(memory);
        }
    }
}

/// A buffer on its way to be full.
#[derive(Debug)]
pub(super) struct Buffer {
    memory: Vec<u8>,
    wanted: usize,
    pool: Arc<Pool>,
}

impl Buffer {
    /// Takes what fits of `bytes` and returns the rest.
    pub fn fill<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(bytes.len().min(self.wanted - self.memory.len()));
        self.memory.extend_from_slice(taken);
        rest
    }

    /// Whether nothing more fits.
    pub fn is_full(&self) -> bool {
        self.memory.len() == self.wanted
    }

    /// The bytes; the memory goes back to the pool with the last reference to them.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.wanted as u64 == BLOCK_BYTES {
            self.pool.take_back(std::mem::take(&mut self.memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(pool: &Arc<Pool>, byte: u8) -> Buffer {
        let mut buffer = pool.buffer(BLOCK_BYTES);
        buffer.fill(&vec![byte; BLOCK_BYTES as usize]);
        buffer
    }

    #[test]
    fn a_buffer_takes_what_fits() {
        let pool = Arc::new(Pool::default());
        for bytes in [BLOCK_BYTES, 1000] {
            let mut buffer = pool.buffer(bytes);
            let given = vec![7; bytes as usize + 5];
            assert_eq!(buffer.fill(&given[..3]).len(), 0);
            assert!(!buffer.is_full());
            assert_eq!(buffer.fill(&given[3..]).len(), 5);
            assert!(buffer.is_full());
            assert_eq!(buffer.freeze(), given[..bytes as usize]);
        }
    }

    #[test]
    fn a_block_is_used_again_only_when_its_last_reader_is_gone() {
        let pool = Arc::new(Pool::default());
        let bytes = full(&pool, 7).freeze();
        let (address, slice) = (bytes.as_ptr(), bytes.slice(10..20));
        drop(bytes);
        let others: Vec<_> = (0..9).map(|_| full(&pool, 8)).collect();
        assert_eq!(slice, [7; 10].as_slice(), "a reader still has some of it");
        drop(slice);
        let again = full(&pool, 9).freeze();
        assert_eq!(again.as_ptr(), address);
        assert!(others.iter().all(|other| other.as_ref() == vec![8; BLOCK_BYTES as usize]), "no block is given twice");
    }

    #[test]
    fn idle_memory_is_bounded() {
        let pool = Arc::new(Pool::default());
        let many: Vec<_> = (0..101).map(|_| full(&pool, 1)).collect();
        drop(many);
        assert_eq!(pool.idle.lock().len() as u64, MAX_IDLE_BYTES / BLOCK_BYTES);
    }
}
