//! Buffers of one block each, used again and again.
//!
//! A stream fills and drops a block each millisecond. With memory that is given back to the system and
//! taken again, page faults were a quarter of the time that reading took: so blocks are kept, and lie
//! two and two on huge pages where the system has such.

use std::io;
use std::ptr::{NonNull, null_mut};
use std::slice;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::BLOCK_BYTES;

/// Idle blocks kept, at most.
const MAX_IDLE_BYTES: usize = 16 << 20;
const BLOCK: usize = BLOCK_BYTES as usize;
/// Of a huge page on most machines; elsewhere it is a size like any other.
const SLAB_BYTES: usize = 2 * BLOCK;

/// Blocks that are free now.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Mutex<Vec<Block>>,
}

impl Pool {
    /// A buffer for exactly so many bytes; from the pool when that is a block.
    pub fn buffer(self: &Arc<Self>, bytes: u64) -> Buffer {
        let pooled = if bytes == BLOCK_BYTES { self.block() } else { None };
        let memory = pooled.map_or_else(|| Memory::Heap(Vec::with_capacity(bytes as usize)), Memory::Block);
        Buffer { memory: Some(memory), filled: 0, wanted: bytes as usize, pool: Arc::clone(self) }
    }

    fn block(&self) -> Option<Block> {
        let mut idle = self.idle.lock();
        if let Some(block) = idle.pop() {
            return Some(block);
        }
        // Without memory for it the allocator has the last word.
        let slab = Arc::new(Slab::map().ok()?);
        idle.push(Block { slab: slab.clone(), start: BLOCK });
        Some(Block { slab, start: 0 })
    }

    fn take_back(&self, block: Block) {
        let mut idle = self.idle.lock();
        idle.push(block);
        if idle.len() * BLOCK <= MAX_IDLE_BYTES {
            return;
        }
        // Only a slab of which both blocks are idle can be given back: one more than that is rare.
        let newest = idle.last().expect("one was just pushed");
        if Arc::strong_count(&newest.slab) == 2
            && let Some(sibling) =
                idle[..idle.len() - 1].iter().position(|block| Arc::ptr_eq(&block.slab, &newest.slab))
        {
            idle.pop();
            idle.remove(sibling);
        }
    }
}

/// Two blocks, mapped together.
#[derive(Debug)]
struct Slab {
    start: NonNull<u8>,
}

// SAFETY: the mapping is owned by the slab alone and bound to no thread; who may touch which bytes
// is said by `Block`.
unsafe impl Send for Slab {}
// SAFETY: as above; a shared slab gives no access to its bytes.
unsafe impl Sync for Slab {}

impl Slab {
    /// Maps memory that reads as zeros, at a multiple of its own size: only there it can be a huge page.
    fn map() -> io::Result<Self> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new anonymous mapping touches no memory that exists.
        let mapped = unsafe { libc::mmap(null_mut(), 2 * SLAB_BYTES, protection, flags, -1, 0) };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let before = mapped.align_offset(SLAB_BYTES);
        // SAFETY: what is unmapped lies within the mapping made above, before and behind the part
        // that stays; the advice concerns that part.
        let start = unsafe {
            let start = mapped.add(before);
            if before > 0 {
                libc::munmap(mapped, before);
            }
            libc::munmap(start.add(SLAB_BYTES), SLAB_BYTES - before);
            libc::madvise(start, SLAB_BYTES, libc::MADV_HUGEPAGE);
            start
        };
        Ok(Self { start: NonNull::new(start.cast()).expect("a mapping is never at 0") })
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this size, and no block of it is left.
        unsafe { libc::munmap(self.start.as_ptr().cast(), SLAB_BYTES) };
    }
}

/// The bytes of a slab from `start` on: each half belongs to one block, which is made once.
#[derive(Debug)]
struct Block {
    slab: Arc<Slab>,
    start: usize,
}

impl Block {
    fn bytes(&self) -> &[u8] {
        // SAFETY: the half lies in the mapping, which lives as long as the slab, was zeroed by the
        // system, and belongs to this block, which is borrowed.
        unsafe { slice::from_raw_parts(self.slab.start.as_ptr().add(self.start), BLOCK) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.slab.start.as_ptr().add(self.start), BLOCK) }
    }
}

#[derive(Debug)]
enum Memory {
    Block(Block),
    Heap(Vec<u8>),
}

/// A buffer on its way to be full.
#[derive(Debug)]
pub(super) struct Buffer {
    /// `None` only when it is dropped.
    memory: Option<Memory>,
    filled: usize,
    wanted: usize,
    pool: Arc<Pool>,
}

impl Buffer {
    /// Takes what fits of `bytes` and returns the rest.
    pub fn fill<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(bytes.len().min(self.wanted - self.filled));
        match &mut self.memory {
            Some(Memory::Block(block)) => {
                block.bytes_mut()[self.filled..self.filled + taken.len()].copy_from_slice(taken);
            }
            Some(Memory::Heap(vec)) => vec.extend_from_slice(taken),
            None => {}
        }
        self.filled += taken.len();
        rest
    }

    /// Whether nothing more fits.
    pub fn is_full(&self) -> bool {
        self.filled == self.wanted
    }

    /// The bytes; the memory goes back to the pool with the last reference to them.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        match &self.memory {
            Some(Memory::Block(block)) => &block.bytes()[..self.filled],
            Some(Memory::Heap(vec)) => vec,
            None => &[],
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(Memory::Block(block)) = self.memory.take() {
            self.pool.take_back(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(pool: &Arc<Pool>, byte: u8) -> Buffer {
        let mut buffer = pool.buffer(BLOCK_BYTES);
        buffer.fill(&vec![byte; BLOCK]);
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
        assert!(others.iter().all(|other| other.as_ref() == vec![8; BLOCK]), "no block is given twice");
    }

    #[test]
    fn idle_memory_is_bounded() {
        let pool = Arc::new(Pool::default());
        let many: Vec<_> = (0..101).map(|_| full(&pool, 1)).collect();
        drop(many);
        let idle = pool.idle.lock().len();
        assert!(idle * BLOCK <= MAX_IDLE_BYTES + SLAB_BYTES, "{idle} blocks");
    }
}
