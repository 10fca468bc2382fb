//! HEAD and GET.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use bytes::{Bytes, BytesMut};
use crc_fast::CrcAlgorithm;

use super::errors::{plain, root_cause, stalled};
use super::progress::Progress;
use super::{S3Bucket, send};
use crate::bucket::checksum;
use crate::bucket::{ETag, Fetched, Metadata, ObjectInfo, Result};
use crate::error::Kind;

const HEAD: &str = "HeadObject";
const GET: &str = "GetObject";
/// A server's word for a length is not trusted with more memory than this before bytes come.
const MAX_RESERVED_BYTES: u64 = 64 << 20;

impl S3Bucket {
    pub(super) async fn head_object(&self, key: &str) -> Result<ObjectInfo> {
        let output = self.send(HEAD, key, self.client.head_object().bucket(&self.name).key(key).send()).await?;
        Ok(head_info(output))
    }

    pub(super) async fn get_object(
        &self,
        key: &str,
        range: Option<Range<u64>>,
        if_match: Option<&ETag>,
    ) -> Result<Fetched> {
        if range.as_ref().is_some_and(Range::is_empty) {
            return self.get_nothing(key, if_match).await;
        }
        let header = range.as_ref().map(|range| format!("bytes={}-{}", range.start, range.end - 1));
        let request = self.client.get_object().bucket(&self.name).key(key);
        let request = request.set_range(header).set_if_match(if_match.map(ETag::quoted));
        // Asked for by header and checked below: the SDK's own check warns on every object that was
        // uploaded in parts.
        let request = request.customize().mutate_request(|request| {
            request.headers_mut().insert("x-amz-checksum-mode", "ENABLED");
        });
        let progress = Progress::new(self.stall);
        let answer = send(GET, key, progress.clone(), request.send()).await;
        let mut output = match answer {
            // 416: the range begins at or behind the end.
            Err(error) if error.http_status == Some(416) => return self.get_nothing(key, if_match).await,
            answer => answer?,
        };
        progress.advanced();
        let length = u64::try_from(output.content_length.unwrap_or_default()).unwrap_or_default();
        let body = std::mem::take(&mut output.body);
        let bytes = read_body(key, body, length, &progress).await?;
        check(key, output, &bytes, range)
    }

    /// An empty range: S3 has no words for it, HEAD tells what the rest of the answer needs.
    async fn get_nothing(&self, key: &str, if_match: Option<&ETag>) -> Result<Fetched> {
        let info = self.head_object(key).await?;
        match if_match {
            Some(tag) if *tag != info.etag => Err(plain(Kind::Changed, GET, key, "PreconditionFailed")),
            _ => Ok(Fetched { info, bytes: Bytes::new() }),
        }
    }
}

/// Holds what came against what was asked: length, position and checksum.
fn check(key: &str, output: GetObjectOutput, bytes: &Bytes, range: Option<Range<u64>>) -> Result<Fetched> {
    let position = output.content_range.as_deref().and_then(parse_content_range);
    let length = bytes.len() as u64;
    let (came, size) = position.unwrap_or((0..length, length));
    let wanted = range.map_or(0..size, |range| range.start..range.end.min(size));
    if came.start > wanted.start || came.end < wanted.end || came.end - came.start != length {
        let cause = format!("asked for bytes {wanted:?}, got {length} bytes said to be {came:?}");
        return Err(plain(Kind::Corrupt, GET, key, cause));
    }
    if length == size && !checksum_holds(&output, bytes) {
        return Err(plain(Kind::Corrupt, GET, key, "the bytes do not match their checksum"));
    }
    // A server that knows no ranges sends everything.
    let cut = bytes.slice((wanted.start - came.start) as usize..(wanted.end - came.start) as usize);
    Ok(Fetched { info: get_info(output, size), bytes: cut })
}

/// Reads a body whole, into one buffer; without a copy when it comes in one piece.
async fn read_body(key: &str, mut body: ByteStream, length: u64, progress: &Progress) -> Result<Bytes> {
    let mut whole = BytesMut::new();
    loop {
        let frame = progress.watch(body.next()).await.map_err(|error| stalled(GET, key, error))?;
        if let Some(Ok(frame)) = &frame {
            progress.moved(frame.len());
        }
        match frame {
            None => break,
            Some(Ok(frame)) if whole.is_empty() && frame.len() as u64 == length => return Ok(frame),
            Some(Ok(frame)) => {
                if whole.is_empty() {
                    whole.reserve(length.min(MAX_RESERVED_BYTES) as usize);
                }
                whole.extend_from_slice(&frame);
            }
            Some(Err(error)) => {
                let cause = format!("the answer broke off: {}", root_cause(&error));
                return Err(plain(Kind::Unreachable, GET, key, cause));
            }
        }
    }
    if whole.len() as u64 != length {
        let cause = format!("the answer broke off after {} of {length} bytes", whole.len());
        return Err(plain(Kind::Unreachable, GET, key, cause));
    }
    Ok(whole.freeze())
}

/// Checks the whole object's checksum, if the server gave one that covers it: CRC64NVME is S3's own
/// default, CRC32C ours, CRC32 that of older clients. `abc=-3` covers parts, not bytes.
fn checksum_holds(output: &GetObjectOutput, bytes: &Bytes) -> bool {
    let given = [
        (CrcAlgorithm::Crc32Iscsi, &output.checksum_crc32_c),
        (CrcAlgorithm::Crc64Nvme, &output.checksum_crc64_nvme),
        (CrcAlgorithm::Crc32IsoHdlc, &output.checksum_crc32),
    ];
    let whole = given.into_iter().find_map(|(algorithm, value)| {
        let value = value.as_deref().filter(|value| !value.contains('-'))?;
        Some((algorithm, value))
    });
    whole.is_none_or(|(algorithm, value)| checksum::base64(algorithm, bytes) == value)
}

/// `bytes 0-9/100` → the range and the size of the whole.
fn parse_content_range(value: &str) -> Option<(Range<u64>, u64)> {
    let (range, size) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?, size.parse::<u64>().ok()?);
    (first <= last && last < size).then(|| (first..last + 1, size))
}

fn head_info(output: HeadObjectOutput) -> ObjectInfo {
    let storage_class = output.storage_class.map(|class| class.as_str().to_owned());
    let tiered = output.archive_status.is_some();
    ObjectInfo {
        etag: ETag::new(&output.e_tag.unwrap_or_default()),
        size: u64::try_from(output.content_length.unwrap_or_default()).unwrap_or_default(),
        modified: whole_seconds(output.last_modified),
        metadata: user_metadata(output.metadata),
        content_type: output.content_type,
        archived: is_archived(storage_class.as_deref(), tiered, output.restore.as_deref()),
        storage_class,
    }
}

fn get_info(output: GetObjectOutput, size: u64) -> ObjectInfo {
    ObjectInfo {
        etag: ETag::new(&output.e_tag.unwrap_or_default()),
        size,
        modified: whole_seconds(output.last_modified),
        metadata: user_metadata(output.metadata),
        content_type: output.content_type,
        storage_class: output.storage_class.map(|class| class.as_str().to_owned()),
        // Its bytes just came.
        archived: false,
    }
}

/// `Restore: ongoing-request="false", expiry-date=…` means that a copy can be read for now.
fn is_archived(class: Option<&str>, tiered: bool, restore: Option<&str>) -> bool {
    let cold = tiered || matches!(class, Some("GLACIER" | "DEEP_ARCHIVE"));
    cold && !restore.is_some_and(|restore| restore.contains("ongoing-request=\"false\""))
}

/// HEAD has whole seconds, LIST of some servers fractions: both must give the same.
pub(super) fn whole_seconds(time: Option<DateTime>) -> SystemTime {
    let seconds = time.and_then(|time| u64::try_from(time.secs()).ok()).unwrap_or_default();
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH)
}

fn user_metadata(metadata: Option<HashMap<String, String>>) -> Metadata {
    let pairs = metadata.unwrap_or_default().into_iter();
    pairs.map(|(name, value)| (name.to_ascii_lowercase(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_parsed_or_refused() {
        assert_eq!(parse_content_range("bytes 0-9/100"), Some((0..10, 100)));
        for odd in ["bytes */100", "bytes 9-0/100", "bytes 0-100/100", "0-9/100", "bytes 0-18446744073709551615/1"] {
            assert_eq!(parse_content_range(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_restored_object_is_not_archived() {
        assert!(is_archived(Some("GLACIER"), false, None));
        assert!(is_archived(Some("DEEP_ARCHIVE"), false, Some("ongoing-request=\"true\"")));
        assert!(is_archived(Some("INTELLIGENT_TIERING"), true, None));
        assert!(!is_archived(Some("GLACIER"), false, Some("ongoing-request=\"false\", expiry-date=\"…\"")));
        assert!(!is_archived(Some("GLACIER_IR"), false, None), "instant retrieval is readable");
    }

    #[test]
    fn checksums_of_whole_objects_are_checked_and_those_of_parts_are_not() {
        let bytes = Bytes::from_static(b"hello");
        let output = |value: &str| GetObjectOutput::builder().checksum_crc32_c(value).build();
        assert!(checksum_holds(&output("mnG7TA=="), &bytes));
        assert!(!checksum_holds(&output("mnG7TB=="), &bytes));
        assert!(checksum_holds(&output("AAAAAA==-2"), &bytes));
        assert!(checksum_holds(&GetObjectOutput::builder().build(), &bytes));
    }
}
