//! Multipart uploads.

use std::ops::Range;
use std::sync::Arc;

use aws_sdk_s3::config::{Config, RequestChecksumCalculation};
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, EncodingType};
use bytes::Bytes;

use super::errors::plain;
use super::listing::decode;
use super::progress::{ArrivingBody, Progress};
use super::properties::with_properties;
use super::read::whole_seconds;
use super::write::{confirm, stream, tag};
use super::{S3Bucket, condition_headers, send};
use crate::bucket::properties::Header;
use crate::bucket::upload::Arriving;
use crate::bucket::{Condition, CopyRequest, ETag, Part, PendingUpload, PutOptions, Result, checksum};
use crate::error::Kind;

const CREATE: &str = "CreateMultipartUpload";
const PART: &str = "UploadPart";
const COPY_PART: &str = "UploadPartCopy";
const COMPLETE: &str = "CompleteMultipartUpload";
const ABORT: &str = "AbortMultipartUpload";
const LIST: &str = "ListMultipartUploads";

impl S3Bucket {
    pub(super) async fn create_multipart_upload(&self, key: &str, options: &PutOptions) -> Result<String> {
        let call = self.client.create_multipart_upload().bucket(&self.name).key(key);
        let call = with_properties!(self, call, key, options).checksum_algorithm(ChecksumAlgorithm::Crc32C);
        let output = self.send(CREATE, key, call.send()).await?;
        output.upload_id.ok_or_else(|| plain(Kind::Corrupt, CREATE, key, "the server answered without an upload id"))
    }

    pub(super) async fn send_part(&self, key: &str, upload_id: &str, number: u16, body: Bytes) -> Result<Part> {
        let crc = checksum::crc32c(&body);
        let progress = Progress::with_body(self.stall, body.len());
        let call = self.client.upload_part().bucket(&self.name).key(key);
        let call = call
            .upload_id(upload_id)
            .part_number(i32::from(number))
            .checksum_crc32_c(&crc)
            .body(stream(body, &progress))
            .customize()
            .disable_payload_signing();
        let output = send(PART, key, progress.clone(), call.send()).await?;
        confirm(PART, key, &crc, output.checksum_crc32_c.as_deref())?;
        Ok(Part { number, etag: tag(PART, key, output.e_tag)?, crc32c: Some(crc) })
    }

    /// The checksum follows the bytes, in a trailer. A server that does not repeat it may have stored the
    /// trailer as well. Without TLS the SDK signs such a body: SHA-256 of these few bytes, while they come.
    pub(super) async fn send_arriving_part(
        &self,
        key: &str,
        upload_id: &str,
        number: u16,
        part: &Arc<Arriving>,
    ) -> Result<Part> {
        let progress = Progress::with_body(self.stall, part.size() as usize);
        let body = ArrivingBody::new(part.clone(), progress.clone());
        let call = self.client.upload_part().bucket(&self.name).key(key);
        let call = call
            .upload_id(upload_id)
            .part_number(i32::from(number))
            .checksum_algorithm(ChecksumAlgorithm::Crc32C)
            .body(ByteStream::new(SdkBody::from_body_1_x(body)))
            .customize()
            .config_override(Config::builder().request_checksum_calculation(RequestChecksumCalculation::WhenSupported));
        let output = send(PART, key, progress.clone(), call.send()).await?;
        let crc = part.crc32c();
        confirm(PART, key, &crc, Some(output.checksum_crc32_c.as_deref().unwrap_or("none")))?;
        Ok(Part { number, etag: tag(PART, key, output.e_tag)?, crc32c: Some(crc) })
    }

    pub(super) async fn upload_part_copy(
        &self,
        key: &str,
        upload_id: &str,
        number: u16,
        from: &CopyRequest,
        range: Range<u64>,
    ) -> Result<Part> {
        let call = self.client.upload_part_copy().bucket(&self.name).key(key);
        let call = call
            .upload_id(upload_id)
            .part_number(i32::from(number))
            .copy_source(self.copied_from(from))
            .copy_source_range(format!("bytes={}-{}", range.start, range.end.saturating_sub(1)))
            .set_copy_source_if_match(from.from_etag.as_ref().map(ETag::quoted));
        let output = self.send_slow(COPY_PART, key, call.send()).await?;
        let result = output.copy_part_result;
        let crc32c = result.as_ref().and_then(|result| result.checksum_crc32_c.clone());
        Ok(Part { number, etag: tag(COPY_PART, key, result.and_then(|result| result.e_tag))?, crc32c })
    }

    pub(super) async fn complete_multipart_upload(
        &self,
        key: &str,
        upload_id: &str,
        parts: &[Part],
        condition: &Condition,
    ) -> Result<ETag> {
        let (if_match, if_none_match) = condition_headers(condition);
        let parts = parts.iter().map(completed).collect();
        let call = self.client.complete_multipart_upload().bucket(&self.name).key(key);
        let call = call
            .upload_id(upload_id)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build())
            .set_if_match(if_match)
            .set_if_none_match(if_none_match);
        let output = self.send_slow(COMPLETE, key, call.send()).await?;
        tag(COMPLETE, key, output.e_tag)
    }

    pub(super) async fn abort_multipart_upload(&self, key: &str, upload_id: &str) -> Result<()> {
        let call = self.client.abort_multipart_upload().bucket(&self.name).key(key).upload_id(upload_id);
        self.send(ABORT, key, call.send()).await?;
        Ok(())
    }

    pub(super) async fn list_multipart_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        let mut pending = Vec::new();
        let (mut after_key, mut after_id) = (None, None);
        loop {
            let call = self.client.list_multipart_uploads().bucket(&self.name).prefix(prefix);
            // A directory bucket goes on behind a marker of its own, and knows no other.
            let id_marker = after_id.clone().filter(|_| !self.is_directory);
            let call = call.set_key_marker(after_key.clone()).set_upload_id_marker(id_marker);
            let output = self.send(LIST, prefix, call.encoding_type(EncodingType::Url).send()).await?;
            let encoded = output.encoding_type == Some(EncodingType::Url);
            pending.extend(output.uploads.unwrap_or_default().into_iter().filter_map(|upload| {
                let key = decode(&upload.key?, encoded)?;
                Some(PendingUpload { key, upload_id: upload.upload_id?, initiated: whole_seconds(upload.initiated) })
            }));
            let next = (output.next_key_marker.and_then(|key| decode(&key, encoded)), output.next_upload_id_marker);
            // A server that says there is more and not where would be asked for ever.
            if output.is_truncated != Some(true) || next.0.is_none() || next == (after_key, after_id) {
                return Ok(pending);
            }
            (after_key, after_id) = next;
        }
    }
}

fn completed(part: &Part) -> CompletedPart {
    CompletedPart::builder()
        .part_number(i32::from(part.number))
        .e_tag(part.etag.quoted())
        .set_checksum_crc32_c(part.crc32c.clone())
        .build()
}
