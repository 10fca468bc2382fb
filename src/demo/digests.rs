//! Hashing a body once, for its ETag and its checksums.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};

use super::checksums::Algorithm;

/// MD5 and up to two checksums over the same bytes, in one pass.
pub(super) struct Digests {
    md5: Md5,
    sums: Vec<(Algorithm, Sum)>,
}

/// One checksum being computed.
pub(super) enum Sum {
    Crc32(Crc32),
    Crc32c(Crc32c),
    Crc64Nvme(Crc64Nvme),
    Sha1(Sha1),
    Sha256(Sha256),
}

/// What [`Digests`] came to.
#[derive(Debug)]
pub(super) struct Digested {
    pub md5: [u8; 16],
    sums: Vec<(Algorithm, String)>,
}

impl Digests {
    /// Computes these algorithms (doubles count once).
    pub fn new(algorithms: &[Algorithm]) -> Self {
        let mut sums: Vec<(Algorithm, Sum)> = Vec::new();
        for algorithm in algorithms {
            if sums.iter().all(|(known, _)| known != algorithm) {
                sums.push((*algorithm, Sum::new(*algorithm)));
            }
        }
        Self { md5: Md5::new(), sums }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.md5.update(bytes);
        self.sums.iter_mut().for_each(|(_, sum)| sum.update(bytes));
    }

    pub fn finish(self) -> Digested {
        let sums = self.sums.into_iter().map(|(algorithm, sum)| (algorithm, sum.finish())).collect();
        Digested { md5: self.md5.finalize(), sums }
    }
}

impl Digested {
    /// The value of an algorithm that was asked for.
    pub fn sum(&self, algorithm: Algorithm) -> &str {
        let found = self.sums.iter().find(|(known, _)| *known == algorithm);
        &found.expect("only algorithms that were computed are asked for").1
    }
}

impl Sum {
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Crc32 => Self::Crc32(Crc32::new()),
            Algorithm::Crc32c => Self::Crc32c(Crc32c::new()),
            Algorithm::Crc64Nvme => Self::Crc64Nvme(Crc64Nvme::new()),
            Algorithm::Sha1 => Self::Sha1(Sha1::new()),
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc32(sum) => sum.update(bytes),
            Self::Crc32c(sum) => sum.update(bytes),
            Self::Crc64Nvme(sum) => sum.update(bytes),
            Self::Sha1(sum) => sum.update(bytes),
            Self::Sha256(sum) => sum.update(bytes),
        }
    }

    /// The value in base64.
    pub fn finish(self) -> String {
        match self {
            Self::Crc32(sum) => BASE64.encode(sum.finalize()),
            Self::Crc32c(sum) => BASE64.encode(sum.finalize()),
            Self::Crc64Nvme(sum) => BASE64.encode(sum.finalize()),
            Self::Sha1(sum) => BASE64.encode(sum.finalize()),
            Self::Sha256(sum) => BASE64.encode(sum.finalize()),
        }
    }
}
