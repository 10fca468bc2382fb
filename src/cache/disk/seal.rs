//! The map beside a data file: which blocks are there, and their checksums. Pure.
//!
//! A header names the version the file is about; after it one seal for each block. A seal is written
//! after its block and nothing is ever synced: after a crash a seal may stand beside a block that
//! never arrived, and its checksum tells.

/// Bytes of a block on disk; also what an isolated read fetches.
pub(in crate::cache) const BLOCK_BYTES: u64 = 128 << 10;
/// Bytes of the header.
pub(super) const HEADER_BYTES: u64 = 64;
/// Where in the header the data file's stamp is; nothing else of the header changes.
pub(super) const STAMP_OFFSET: u64 = 52;
/// Bytes of a seal.
pub(super) const SEAL_BYTES: u64 = 8;

/// Up to here the bytes of an object lie behind its map.
pub(super) const SMALL_BYTES: u64 = 64 << 10;

/// Changes with the format: files of another one are not taken.
const MAGIC: &[u8; 8] = b"s3mdisk1";

/// Names one version of one object of one bucket: SHA-256 over all three.
pub(super) type Identity = [u8; 32];

/// The checksum of a block, with proof that it is one.
pub(super) type Seal = [u8; SEAL_BYTES as usize];

/// No block here: what a hole in the map reads as.
pub(super) const ABSENT: Seal = [0; SEAL_BYTES as usize];

/// The first bytes of a map.
pub(super) fn header(identity: &Identity, size: u64) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..8].copy_from_slice(MAGIC);
    header[8..16].copy_from_slice(&size.to_be_bytes());
    header[16..48].copy_from_slice(identity);
    let sum = crc32c(&header[..48]);
    header[48..52].copy_from_slice(&sum.to_be_bytes());
    header
}

/// The version that a header names, as (identity, size); `None` if it is no header.
pub(super) fn version(given: &[u8; HEADER_BYTES as usize]) -> Option<(Identity, u64)> {
    let size = u64::from_be_bytes(*given[8..16].first_chunk()?);
    let identity = *given[16..48].first_chunk()?;
    let named = STAMP_OFFSET as usize;
    (header(&identity, size)[..named] == given[..named]).then_some((identity, size))
}

/// The seal of a block.
pub(super) fn seal(number: u64, block: &[u8]) -> Seal {
    let sum = crc32c(block);
    let mut seal = ABSENT;
    seal[..4].copy_from_slice(&sum.to_be_bytes());
    seal[4..].copy_from_slice(&proof(number, sum).to_be_bytes());
    seal
}

/// Whether these bytes are a seal of block `number`, rather than a hole or damage.
pub(super) fn is_seal(number: u64, seal: &[u8]) -> bool {
    let Some((sum, given)) = seal.split_first_chunk::<4>() else { return false };
    given == proof(number, u32::from_be_bytes(*sum)).to_be_bytes()
}

/// Where the seal of a block is in the map.
pub(super) fn seal_offset(number: u64) -> u64 {
    HEADER_BYTES + number * SEAL_BYTES
}

/// Whether the bytes of an object of this size lie behind its map, in one file.
pub(super) fn is_small(size: u64) -> bool {
    size <= SMALL_BYTES
}

/// Blocks of an object of this size.
pub(super) fn blocks(size: u64) -> u64 {
    size.div_ceil(BLOCK_BYTES)
}

/// Odd, so that a hole is never a seal.
fn proof(number: u64, sum: u32) -> u32 {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[8..].copy_from_slice(&sum.to_be_bytes());
    crc32c(&bytes) | 1
}

fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_belongs_to_its_block_and_its_place() {
        let given = seal(7, b"bytes");
        assert!(is_seal(7, &given));
        assert!(!is_seal(8, &given));
        assert_ne!(given, seal(7, b"other"));
        assert!(!is_seal(0, &ABSENT) && !is_seal(7, &ABSENT) && !is_seal(7, &given[..5]));
    }

    #[test]
    fn a_flipped_bit_breaks_the_seal_or_the_match() {
        let given = seal(3, b"bytes");
        for bit in 0..64 {
            let mut flipped = given;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_seal(3, &flipped) || flipped != given);
        }
    }

    #[test]
    fn headers_tell_versions_and_sizes_apart() {
        assert_ne!(header(&[1; 32], 5), header(&[2; 32], 5));
        assert_ne!(header(&[1; 32], 5), header(&[1; 32], 6));
    }
}
