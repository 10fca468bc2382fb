//! What is remembered of an object, and how it is written down: CRC32C, then JSON.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};

use super::modified::Modified;
use crate::bucket::attributes::Attributes;
use crate::bucket::{ETag, Metadata, Properties};

/// What a HEAD or our own PUT told of a key; true of the version with this tag.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remembered {
    pub etag: Option<ETag>,
    /// Size of the object in bytes.
    pub size: u64,
    pub modified: Modified,
    pub attributes: Attributes,
    pub properties: Properties,
    /// From a listing alone: what the object's metadata says is not known, and `attributes` holds
    /// only what this machine knows by itself (the inode number, a directory's times).
    pub untold: bool,
}

/// Seconds since the epoch, rounded down, and nanoseconds.
type Stamp = (i64, u32);

/// [`Modified`] with stamps.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Date {
    At(Stamp),
    JustNow { at: Stamp, until: Stamp },
    By { by: Stamp },
}

/// Names are short: there is one for each object of the bucket.
#[derive(Serialize, Deserialize)]
struct Record {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    etag: Option<String>,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    modified: Option<Date>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    mode: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    gid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    mtime: Option<Stamp>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    atime: Option<Stamp>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    ctime: Option<Stamp>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    rdev: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    ino: Option<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    xattrs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    op_id: Option<String>,
    #[serde(skip_serializing_if = "Metadata::is_empty", default)]
    other: Metadata,
    #[serde(flatten)]
    properties: Properties,
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    untold: bool,
}

impl Remembered {
    /// As bytes, with a checksum over them and the key.
    pub(super) fn encode(&self, key: &str) -> Vec<u8> {
        let body = serde_json::to_vec(&self.to_record()).expect("a record has string keys and finite numbers only");
        let mut bytes = checksum(key, &body).to_be_bytes().to_vec();
        bytes.extend_from_slice(&body);
        bytes
    }

    /// What [`Self::encode`] wrote for this key; `None` when the bytes are anything else.
    pub(super) fn decode(key: &str, bytes: &[u8]) -> Option<Self> {
        let (sum, body) = bytes.split_first_chunk::<4>()?;
        if u32::from_be_bytes(*sum) != checksum(key, body) {
            return None;
        }
        Self::from_record(serde_json::from_slice(body).ok()?)
    }

    fn to_record(&self) -> Record {
        let attributes = &self.attributes;
        let xattrs = attributes.xattrs.iter().map(|(name, value)| (name.clone(), STANDARD_NO_PAD.encode(value)));
        Record {
            etag: self.etag.as_ref().map(|etag| etag.as_str().to_owned()),
            size: self.size,
            modified: date(self.modified),
            mode: attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
            mtime: attributes.mtime.map(stamp),
            atime: attributes.atime.map(stamp),
            ctime: attributes.ctime.map(stamp),
            rdev: attributes.rdev,
            ino: attributes.ino,
            xattrs: xattrs.collect(),
            op_id: attributes.op_id.clone(),
            other: attributes.other.clone(),
            properties: self.properties.clone(),
            untold: self.untold,
        }
    }

    fn from_record(record: Record) -> Option<Self> {
        let mut xattrs = BTreeMap::new();
        for (name, value) in record.xattrs {
            xattrs.insert(name, STANDARD_NO_PAD.decode(value).ok()?);
        }
        let attributes = Attributes {
            mode: record.mode,
            uid: record.uid,
            gid: record.gid,
            mtime: record.mtime.and_then(time),
            atime: record.atime.and_then(time),
            ctime: record.ctime.and_then(time),
            rdev: record.rdev,
            ino: record.ino,
            xattrs,
            op_id: record.op_id,
            other: record.other,
        };
        let etag = record.etag.as_deref().map(ETag::new);
        let (modified, properties) =
            (record.modified.as_ref().and_then(modified).unwrap_or_default(), record.properties);
        Some(Self { etag, size: record.size, modified, attributes, properties, untold: record.untold })
    }
}

fn date(modified: Modified) -> Option<Date> {
    match modified {
        Modified::Unknown => None,
        Modified::At(time) => Some(Date::At(stamp(time))),
        Modified::JustNow { date, until } => Some(Date::JustNow { at: stamp(date), until: stamp(until) }),
        Modified::By(time) => Some(Date::By { by: stamp(time) }),
    }
}

fn modified(date: &Date) -> Option<Modified> {
    Some(match *date {
        Date::At(stamp) => Modified::At(time(stamp)?),
        Date::JustNow { at, until } => Modified::JustNow { date: time(at)?, until: time(until)? },
        Date::By { by } => Modified::By(time(by)?),
    })
}

fn checksum(key: &str, body: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(key.as_bytes());
    digest.update(body);
    digest.finalize() as u32
}

/// Times before 1970 exist: `touch -d 1960-01-01`.
fn stamp(time: SystemTime) -> Stamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (after.as_secs().cast_signed(), after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            let nanos = before.subsec_nanos();
            let seconds = -before.as_secs().cast_signed();
            if nanos == 0 { (seconds, 0) } else { (seconds - 1, 1_000_000_000 - nanos) }
        }
    }
}

fn time((seconds, nanos): Stamp) -> Option<SystemTime> {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    base?.checked_add(Duration::from_nanos(nanos.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_time() -> impl Strategy<Value = Option<SystemTime>> {
        prop::option::of((-5_000_000_000_i64..5_000_000_000, 0..1_000_000_000_u32).prop_map(|at| time(at).unwrap()))
    }

    fn any_modified() -> impl Strategy<Value = Modified> {
        (any_time(), 0..3).prop_map(|(time, kind)| match (time, kind) {
            (None, _) => Modified::Unknown,
            (Some(time), 0) => Modified::At(time),
            (Some(date), 1) => Modified::JustNow { date, until: date + Duration::from_secs(3) },
            (Some(time), _) => Modified::By(time),
        })
    }

    prop_compose! {
        fn any_attributes()(
            numbers in prop::array::uniform4(prop::option::of(any::<u32>())),
            times in prop::array::uniform3(any_time()),
            ino in prop::option::of(any::<u64>()),
            xattrs in prop::collection::btree_map("user\\.\\PC{0,8}", prop::collection::vec(any::<u8>(), 0..40), 0..4),
            op_id in prop::option::of("\\PC{0,12}"),
            other in prop::collection::btree_map("[a-z-]{1,8}", "\\PC{0,12}", 0..4),
        ) -> Attributes {
            let [mode, uid, gid, rdev] = numbers;
            let [mtime, atime, ctime] = times;
            Attributes { mode, uid, gid, mtime, atime, ctime, rdev, ino, xattrs, op_id, other }
        }
    }

    prop_compose! {
        fn any_remembered()(
            etag in prop::option::of("[0-9a-f]{32}(-[0-9]{1,4})?"),
            size in any::<u64>(),
            modified in any_modified(),
            attributes in any_attributes(),
            untold in any::<bool>(),
        ) -> Remembered {
            let etag = etag.as_deref().map(ETag::new);
            Remembered { etag, size, modified, attributes, properties: Properties::of_type(Some("text/plain".into())), untold }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read_back(key in "\\PC{1,30}", remembered in any_remembered()) {
            prop_assert_eq!(Remembered::decode(&key, &remembered.encode(&key)), Some(remembered));
        }

        #[test]
        fn one_flipped_bit_is_noticed(remembered in any_remembered(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let mut bytes = remembered.encode("k");
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            prop_assert_eq!(Remembered::decode("k", &bytes), None);
        }

        #[test]
        fn any_bytes_decode_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Remembered::decode("k", &bytes), None);
        }
    }

    #[test]
    fn a_record_of_another_key_is_not_taken() {
        let bytes = Remembered { size: 5, ..Remembered::default() }.encode("a");
        assert_eq!(Remembered::decode("b", &bytes), None);
    }

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        let before = UNIX_EPOCH - Duration::new(3, 250_000_000);
        assert_eq!(stamp(before), (-4, 750_000_000));
        assert_eq!(time(stamp(before)), Some(before));
    }
}
