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
use super::properties::told_properties;
use super::{S3Bucket, send};
use crate::bucket::checksum;
use crate::bucket::properties::{Header, Properties};
use crate::bucket::{ETag, Fetched, Metadata, ObjectInfo, Result, Sink, StorageClass, check_version};
use crate::error::Kind;

const HEAD: &str = "HeadObject";
const GET: &str = "GetObject";
/// A server's word for a length is not trusted with more memory than this before bytes come.
const MAX_RESERVED_BYTES: u64 = 64 << 20;

impl S3Bucket {
    pub(super) async fn head_object(&self, key: &str) -> Result<ObjectInfo> {
        let call = self.client.head_object().bucket(&self.name).key(key).set_version_id(self.version.clone());
        let output = self.send(HEAD, key, call.send()).await?;
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
        let progress = Progress::new(self.stall);
        let mut output = match self.ask(key, range.as_ref(), if_match, &progress).await {
            // 416: the range begins at or behind the end.
            Err(error) if error.http_status == Some(416) => return self.get_nothing(key, if_match).await,
            answer => answer?,
        };
        let length = u64::try_from(output.content_length.unwrap_or_default()).unwrap_or_default();
        let body = std::mem::take(&mut output.body);
        let bytes = read_body(key, body, length, &progress).await?;
        check(key, output, &bytes, range)
    }

    /// Hands over what the sink has not taken yet of a range of one version.
    pub(super) async fn get_object_into(
        &self,
        key: &str,
        range: Range<u64>,
        etag: &ETag,
        sink: &dyn Sink,
    ) -> Result<()> {
        let wanted = range.start + sink.taken_bytes()..range.end;
        if wanted.is_empty() {
            return Ok(());
        }
        let progress = Progress::new(self.stall);
        let mut output = self.ask(key, Some(&wanted), Some(etag), &progress).await?;
        check_version(key, &ETag::new(output.e_tag.as_deref().unwrap_or_default()), etag)?;
        let length = u64::try_from(output.content_length.unwrap_or_default()).unwrap_or_default();
        let (came, size) = came(&output, length);
        check_range(key, &came, &wanted, length)?;
        let body = std::mem::take(&mut output.body);
        sink.begin(&get_info(output, size));
        // A server that knows no ranges sends everything.
        let within = wanted.start - came.start..wanted.end - came.start;
        pour(key, body, within, sink, &progress).await
    }

    /// The head of the answer; its body is still to come.
    async fn ask(
        &self,
        key: &str,
        range: Option<&Range<u64>>,
        if_match: Option<&ETag>,
        progress: &Progress,
    ) -> Result<GetObjectOutput> {
        let header = range.map(|range| format!("bytes={}-{}", range.start, range.end - 1));
        let request = self.client.get_object().bucket(&self.name).key(key).set_version_id(self.version.clone());
        let request = request.set_range(header).set_if_match(if_match.map(ETag::quoted));
        // Asked for by header and checked below: the SDK's own check warns on every object that was
        // uploaded in parts.
        let request = request.customize().mutate_request(|request| {
            request.headers_mut().insert("x-amz-checksum-mode", "ENABLED");
        });
        let output = send(GET, key, progress.clone(), request.send()).await?;
        progress.advanced();
        Ok(output)
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
    let length = bytes.len() as u64;
    let (came, size) = came(&output, length);
    let wanted = range.map_or(0..size, |range| range.start..range.end.min(size));
    check_range(key, &came, &wanted, length)?;
    if length == size && !checksum_holds(&output, bytes) {
        return Err(plain(Kind::Corrupt, GET, key, "the bytes do not match their checksum"));
    }
    // A server that knows no ranges sends everything.
    let cut = bytes.slice((wanted.start - came.start) as usize..(wanted.end - came.start) as usize);
    Ok(Fetched { info: get_info(output, size), bytes: cut })
}

/// Which range an answer of this length says to be, and the size of the whole.
fn came(output: &GetObjectOutput, length: u64) -> (Range<u64>, u64) {
    let position = output.content_range.as_deref().and_then(parse_content_range);
    position.unwrap_or((0..length, length))
}

fn check_range(key: &str, came: &Range<u64>, wanted: &Range<u64>, length: u64) -> Result<()> {
    if came.start <= wanted.start && came.end >= wanted.end && came.end - came.start == length {
        return Ok(());
    }
    let cause = format!("asked for bytes {wanted:?}, got {length} bytes said to be {came:?}");
    Err(plain(Kind::Corrupt, GET, key, cause))
}

/// The next bytes of a body; `None` at its end.
async fn next_frame(key: &str, body: &mut ByteStream, progress: &Progress) -> Result<Option<Bytes>> {
    let frame = progress.watch(body.next()).await.map_err(|error| stalled(GET, key, error))?;
    let frame = frame.transpose().map_err(|error| {
        let cause = format!("the answer broke off: {}", root_cause(&error));
        plain(Kind::Unreachable, GET, key, cause)
    })?;
    progress.moved(frame.as_ref().map_or(0, Bytes::len));
    Ok(frame)
}

/// Reads a body whole, into one buffer of its size: a frame is a slice of a buffer of the
/// connection's, up to 400 KiB of memory for a body of a few bytes.
async fn read_body(key: &str, mut body: ByteStream, length: u64, progress: &Progress) -> Result<Bytes> {
    let mut whole = BytesMut::with_capacity(length.min(MAX_RESERVED_BYTES) as usize);
    while let Some(frame) = next_frame(key, &mut body, progress).await? {
        whole.extend_from_slice(&frame);
    }
    if whole.len() as u64 != length {
        let cause = format!("the answer broke off after {} of {length} bytes", whole.len());
        return Err(plain(Kind::Unreachable, GET, key, cause));
    }
    Ok(whole.freeze())
}

/// Hands the part `within` of a body over as it comes.
async fn pour(key: &str, mut body: ByteStream, within: Range<u64>, sink: &dyn Sink, progress: &Progress) -> Result<()> {
    let mut position = 0;
    while position < within.end {
        let Some(frame) = next_frame(key, &mut body, progress).await? else {
            let cause = format!("the answer broke off after {position} of {} bytes", within.end);
            return Err(plain(Kind::Unreachable, GET, key, cause));
        };
        let length = frame.len() as u64;
        let start = within.start.saturating_sub(position).min(length);
        let end = (within.end - position).min(length);
        sink.take(&frame[start as usize..end as usize]);
        position += length;
    }
    Ok(())
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

fn head_info(mut output: HeadObjectOutput) -> ObjectInfo {
    let properties = told_properties!(output);
    let in_archive = properties.storage_class.as_ref().is_some_and(StorageClass::is_archive);
    let archived = is_archived(in_archive, output.archive_status.is_some(), output.restore.as_deref());
    ObjectInfo {
        etag: ETag::new(&output.e_tag.unwrap_or_default()),
        size: u64::try_from(output.content_length.unwrap_or_default()).unwrap_or_default(),
        modified: whole_seconds(output.last_modified),
        metadata: user_metadata(output.metadata),
        properties,
        version_id: output.version_id,
        archived,
    }
}

fn get_info(mut output: GetObjectOutput, size: u64) -> ObjectInfo {
    ObjectInfo {
        etag: ETag::new(&output.e_tag.unwrap_or_default()),
        size,
        modified: whole_seconds(output.last_modified),
        metadata: user_metadata(output.metadata),
        properties: told_properties!(output),
        version_id: output.version_id,
        // Its bytes just came.
        archived: false,
    }
}

/// `Restore: ongoing-request="false", expiry-date=…` means that a copy can be read for now.
fn is_archived(in_archive: bool, tiered: bool, restore: Option<&str>) -> bool {
    (in_archive || tiered) && !restore.is_some_and(|restore| restore.contains("ongoing-request=\"false\""))
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
        let is_archived = |class: &str, tiered, restore| {
            super::is_archived(StorageClass::from(class.to_owned()).is_archive(), tiered, restore)
        };
        assert!(is_archived("GLACIER", false, None));
        assert!(is_archived("DEEP_ARCHIVE", false, Some("ongoing-request=\"true\"")));
        assert!(is_archived("INTELLIGENT_TIERING", true, None));
        assert!(!is_archived("GLACIER", false, Some("ongoing-request=\"false\", expiry-date=\"…\"")));
        assert!(!is_archived("GLACIER_IR", false, None), "instant retrieval is readable");
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
