//! The five checksum algorithms of S3: claimed, told, combined.
//!
//! A checksum of a whole object is either over its bytes (*full object*) or, after a multipart
//! upload, over the checksums of its parts (*composite*, `value-N`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use crc_fast::{CrcAlgorithm, checksum_combine};
use s3s::dto;
use s3s::{S3Result, s3_error};
use serde::{Deserialize, Serialize};

use super::digests::Sum;

/// How a checksum is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

/// A checksum as it is stored and told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checksum {
    pub algorithm: Algorithm,
    /// Base64, big-endian; with `-N` behind it when composite.
    pub value: String,
    pub full_object: bool,
}

impl Algorithm {
    /// What S3 computes when nobody asked for anything else.
    pub const DEFAULT: Self = Self::Crc64Nvme;
    const ALL: [Self; 5] = [Self::Crc32, Self::Crc32c, Self::Crc64Nvme, Self::Sha1, Self::Sha256];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    /// The header (or trailer) that carries a value.
    pub fn header(self) -> String {
        format!("x-amz-checksum-{}", self.name().to_ascii_lowercase())
    }

    /// Takes a name from the wire.
    ///
    /// # Errors
    /// `InvalidRequest` for an algorithm that S3 does not have.
    pub fn parse(name: &str) -> S3Result<Self> {
        let found = Self::ALL.into_iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| s3_error!(InvalidRequest, "Unknown checksum algorithm {name}"))
    }

    /// The algorithm whose header this is.
    pub fn of_header(header: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.header() == header.trim().to_ascii_lowercase())
    }

    fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Self::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Self::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Self::Sha1 | Self::Sha256 => None,
        }
    }

    fn digest_bytes(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// Whether the checksum of a multipart upload is over the bytes, unless the client chooses.
    ///
    /// # Errors
    /// `InvalidRequest` for a choice that the algorithm does not have.
    pub fn full_object(self, choice: Option<&str>) -> S3Result<bool> {
        let full_object = match choice {
            None => self == Self::Crc64Nvme,
            Some(choice) => choice == dto::ChecksumType::FULL_OBJECT,
        };
        let possible = if full_object { self.crc().is_some() } else { self != Self::Crc64Nvme };
        if possible {
            return Ok(full_object);
        }
        let kind = if full_object { "FULL_OBJECT" } else { "COMPOSITE" };
        Err(s3_error!(InvalidRequest, "The {kind} checksum type cannot be used with {}", self.name()))
    }
}

impl Checksum {
    /// A full-object checksum of an algorithm that was just computed.
    pub fn full(algorithm: Algorithm, value: String) -> Self {
        Self { algorithm, value, full_object: true }
    }

    /// The checksum of the whole out of those of its parts, each with the part's size in bytes.
    pub fn of_parts(algorithm: Algorithm, full_object: bool, parts: &[(String, u64)]) -> Self {
        let value = match algorithm.crc() {
            Some(crc) if full_object => combine(crc, algorithm.digest_bytes(), parts),
            _ => composite(algorithm, parts),
        };
        Self { algorithm, value, full_object }
    }

    /// As the five optional fields of an answer.
    pub fn fields(&self) -> dto::Checksum {
        let mut fields = fields(self.algorithm, self.value.clone());
        let kind = if self.full_object { dto::ChecksumType::FULL_OBJECT } else { dto::ChecksumType::COMPOSITE };
        fields.checksum_type = Some(dto::ChecksumType::from_static(kind));
        fields
    }
}

/// One value as the five optional fields of an answer.
pub(super) fn fields(algorithm: Algorithm, value: String) -> dto::Checksum {
    let mut fields = dto::Checksum::default();
    let field = match algorithm {
        Algorithm::Crc32 => &mut fields.checksum_crc32,
        Algorithm::Crc32c => &mut fields.checksum_crc32c,
        Algorithm::Crc64Nvme => &mut fields.checksum_crc64nvme,
        Algorithm::Sha1 => &mut fields.checksum_sha1,
        Algorithm::Sha256 => &mut fields.checksum_sha256,
    };
    *field = Some(value);
    fields
}

/// The one value among the five optional fields of a request.
///
/// # Errors
/// `InvalidRequest` for more than one.
pub(super) fn claimed(fields: dto::Checksum) -> S3Result<Option<(Algorithm, String)>> {
    let values = [
        (Algorithm::Crc32, fields.checksum_crc32),
        (Algorithm::Crc32c, fields.checksum_crc32c),
        (Algorithm::Crc64Nvme, fields.checksum_crc64nvme),
        (Algorithm::Sha1, fields.checksum_sha1),
        (Algorithm::Sha256, fields.checksum_sha256),
    ];
    let mut given = values.into_iter().filter_map(|(algorithm, value)| Some((algorithm, value?)));
    let first = given.next();
    if given.next().is_some() {
        return Err(s3_error!(InvalidRequest, "Expecting a single x-amz-checksum- header"));
    }
    Ok(first)
}

/// Gathers the checksum fields of a request, which every input type has under the same names.
macro_rules! checksum_fields {
    ($input:expr) => {
        s3s::dto::Checksum {
            checksum_crc32: $input.checksum_crc32.take(),
            checksum_crc32c: $input.checksum_crc32c.take(),
            checksum_crc64nvme: $input.checksum_crc64nvme.take(),
            checksum_sha1: $input.checksum_sha1.take(),
            checksum_sha256: $input.checksum_sha256.take(),
            checksum_type: None,
        }
    };
}

/// Spreads checksum fields over an answer, which every output type has under the same names.
macro_rules! tell_checksum {
    ($output:expr, $fields:expr) => {{
        let fields: s3s::dto::Checksum = $fields;
        $output.checksum_crc32 = fields.checksum_crc32;
        $output.checksum_crc32c = fields.checksum_crc32c;
        $output.checksum_crc64nvme = fields.checksum_crc64nvme;
        $output.checksum_sha1 = fields.checksum_sha1;
        $output.checksum_sha256 = fields.checksum_sha256;
    }};
}

pub(super) use {checksum_fields, tell_checksum};

/// Checks that a claimed value could be one at all.
///
/// # Errors
/// `InvalidRequest`.
pub(super) fn check_form(algorithm: Algorithm, value: &str) -> S3Result<()> {
    match BASE64.decode(value) {
        Ok(digest) if digest.len() == algorithm.digest_bytes() => Ok(()),
        _ => Err(s3_error!(InvalidRequest, "Value for {} header is invalid.", algorithm.header())),
    }
}

fn combine(crc: CrcAlgorithm, digest_bytes: usize, parts: &[(String, u64)]) -> String {
    let whole = parts.iter().fold(None, |whole: Option<u64>, (value, size)| {
        let part = decode(value).iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
        Some(whole.map_or(part, |whole| checksum_combine(crc, whole, part, *size)))
    });
    BASE64.encode(&whole.unwrap_or(0).to_be_bytes()[8 - digest_bytes..])
}

fn composite(algorithm: Algorithm, parts: &[(String, u64)]) -> String {
    let mut sum = Sum::new(algorithm);
    for (value, _) in parts {
        sum.update(&decode(value));
    }
    format!("{}-{}", sum.finish(), parts.len())
}

fn decode(value: &str) -> Vec<u8> {
    BASE64.decode(value).expect("values of parts were computed here")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::digests::Digests;

    fn sum(algorithm: Algorithm, bytes: &[u8]) -> String {
        let mut digests = Digests::new(&[algorithm]);
        digests.update(bytes);
        digests.finish().sum(algorithm).to_owned()
    }

    #[test]
    fn check_values_of_the_catalogue_of_crcs() {
        // The CRC catalogue's check value: the CRC of "123456789".
        assert_eq!(sum(Algorithm::Crc32, b"123456789"), BASE64.encode(0xcbf4_3926_u32.to_be_bytes()));
        assert_eq!(sum(Algorithm::Crc32c, b"123456789"), BASE64.encode(0xe306_9283_u32.to_be_bytes()));
        assert_eq!(sum(Algorithm::Crc64Nvme, b"123456789"), BASE64.encode(0xae8b_1486_0a79_9888_u64.to_be_bytes()));
    }

    #[test]
    fn crcs_of_parts_combine_to_that_of_the_whole() {
        let whole: Vec<u8> = (0..100_000_u32).map(|number| (number % 251) as u8).collect();
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            let parts: Vec<_> = [&whole[..70_001], &whole[70_001..70_001], &whole[70_001..]]
                .map(|part| (sum(algorithm, part), part.len() as u64))
                .to_vec();
            let combined = Checksum::of_parts(algorithm, true, &parts);
            assert_eq!(combined.value, sum(algorithm, &whole), "{}", algorithm.name());
        }
    }

    #[test]
    fn types_that_an_algorithm_lacks_are_refused() {
        assert!(Algorithm::Sha256.full_object(Some("FULL_OBJECT")).is_err());
        assert!(Algorithm::Crc64Nvme.full_object(Some("COMPOSITE")).is_err());
        assert!(!Algorithm::Crc32c.full_object(None).unwrap());
        assert!(Algorithm::Crc64Nvme.full_object(None).unwrap());
    }
}
