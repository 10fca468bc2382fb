//! CRCs as S3 writes them: big endian, base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
pub use crc_fast::CrcAlgorithm;

/// CRC32C of `bytes`, as `x-amz-checksum-crc32c` has it.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> String {
    base64(CrcAlgorithm::Crc32Iscsi, bytes)
}

/// The same of what these make, one after the other.
#[must_use]
pub fn crc32c_of(chunks: &[Bytes]) -> String {
    let mut digest = crc_fast::Digest::new(CrcAlgorithm::Crc32Iscsi);
    for chunk in chunks {
        digest.update(chunk);
    }
    STANDARD.encode(&digest.finalize().to_be_bytes()[4..])
}

/// A CRC of `bytes` as its S3 header has it.
#[must_use]
pub fn base64(algorithm: CrcAlgorithm, bytes: &[u8]) -> String {
    let value = crc_fast::checksum(algorithm, bytes).to_be_bytes();
    let wide = matches!(algorithm, CrcAlgorithm::Crc64Nvme);
    STANDARD.encode(if wide { &value[..] } else { &value[4..] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values_come_out() {
        assert_eq!(crc32c(b"123456789"), STANDARD.encode(0xE306_9283_u32.to_be_bytes()));
        assert_eq!(base64(CrcAlgorithm::Crc32IsoHdlc, b"123456789"), STANDARD.encode(0xCBF4_3926_u32.to_be_bytes()));
        let nvme = STANDARD.encode(0xAE8B_1486_0A79_9888_u64.to_be_bytes());
        assert_eq!(base64(CrcAlgorithm::Crc64Nvme, b"123456789"), nvme);
    }
}
