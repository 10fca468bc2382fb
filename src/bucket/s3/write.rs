//! PUT, COPY and DELETE.

use std::collections::HashMap;

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_sdk_s3::types::{ChecksumAlgorithm, Delete, MetadataDirective, ObjectIdentifier};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use md5::{Digest, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::errors::{kind_of, plain};
use super::progress::{Progress, WatchedBody};
use super::properties::with_properties;
use super::{S3Bucket, condition_headers, send};
use crate::bucket::properties::Header;
use crate::bucket::{
    AppendRequest, CopyRequest, Deletion, ETag, Error, Metadata, PutOptions, RenameRequest, Result, cannot_append,
    cannot_rename, checksum,
};
use crate::error::Kind;

const PUT: &str = "PutObject";
const COPY: &str = "CopyObject";
const RENAME: &str = "RenameObject";
const DELETE: &str = "DeleteObject";
const DELETE_MANY: &str = "DeleteObjects";
/// Bodies above this are handed over in chunks, so that their progress can be seen.
const WATCHED_FROM_BYTES: usize = 256 << 10;

impl S3Bucket {
    pub(super) async fn put_object(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<ETag> {
        let (if_match, if_none_match) = condition_headers(&options.condition);
        let crc = checksum::crc32c(&body);
        let progress = Progress::with_body(self.stall, body.len());
        let call = self.client.put_object().bucket(&self.name).key(key);
        let call = with_properties!(self, call, key, options)
            .set_if_match(if_match)
            .set_if_none_match(if_none_match)
            .checksum_crc32_c(&crc)
            .body(stream(body, &progress))
            .customize()
            .disable_payload_signing();
        let output = send(PUT, key, progress.clone(), call.send()).await?;
        confirm(PUT, key, &crc, output.checksum_crc32_c.as_deref())?;
        tag(PUT, key, output.e_tag)
    }

    pub(super) async fn append_object(&self, request: &AppendRequest, body: Bytes) -> Result<ETag> {
        let key = request.key.as_str();
        if !self.appends || body.is_empty() {
            return Err(cannot_append(key));
        }
        let (offset, size) = (request.offset.cast_signed(), (request.offset + body.len() as u64).cast_signed());
        let progress = Progress::with_body(self.stall, body.len());
        let call = self.client.put_object().bucket(&self.name).key(key).write_offset_bytes(offset);
        let call = call
            .if_match(request.etag.quoted())
            .set_content_type(request.content_type.clone())
            .checksum_crc32_c(checksum::crc32c(&body))
            .body(stream(body, &progress))
            .customize()
            .disable_payload_signing();
        let output = send(PUT, key, progress.clone(), call.send()).await?;
        // Told of appends alone. What checksum is told, of these bytes or of all, nobody says.
        if output.size.is_some_and(|told| told != size) {
            let told = output.size.unwrap_or_default();
            return Err(plain(
                Kind::Corrupt,
                PUT,
                key,
                format!("the object has {told} bytes after an append, not {size}"),
            ));
        }
        tag(PUT, key, output.e_tag)
    }

    pub(super) async fn copy_object(&self, request: &CopyRequest) -> Result<ETag> {
        let call = self.client.copy_object().bucket(&self.name).key(&request.to);
        let mut call = call
            .copy_source(self.copied_from(request))
            .set_copy_source_if_match(request.from_etag.as_ref().map(ETag::quoted));
        if let Some(options) = &request.replace {
            let (if_match, if_none_match) = condition_headers(&options.condition);
            call = with_properties!(self, call, &request.to, options)
                // Ours from now on: LIST tells it by this checksum.
                .checksum_algorithm(ChecksumAlgorithm::Crc32C)
                .metadata_directive(MetadataDirective::Replace)
                .set_if_match(if_match)
                .set_if_none_match(if_none_match);
        } else {
            call = call.set_storage_class(self.class_to_write(request.storage_class.as_ref(), &request.to));
        }
        let output = self.send_slow(COPY, &request.to, call.send()).await?;
        tag(COPY, &request.to, output.copy_object_result.and_then(|result| result.e_tag))
    }

    /// Whence a copy comes, in the words of its header.
    pub(super) fn copied_from(&self, request: &CopyRequest) -> String {
        copy_source(request.from_bucket.as_ref().unwrap_or(&self.name), &request.from)
    }

    pub(super) async fn rename_object(&self, request: &RenameRequest) -> Result<()> {
        // S3 renames no markers of directories.
        if !self.is_directory || request.from.ends_with('/') || request.to.ends_with('/') {
            return Err(cannot_rename(request));
        }
        let call = self.client.rename_object().bucket(&self.name).key(&request.to);
        let call = call.rename_source(encoded(&request.from)).source_if_match(request.from_etag.quoted());
        let call = call.set_destination_if_none_match(request.only_if_absent.then(|| "*".to_owned()));
        self.send(RENAME, &request.to, call.client_token(&request.token).send()).await?;
        Ok(())
    }

    pub(super) async fn delete_object(&self, key: &str, if_match: Option<&ETag>) -> Result<()> {
        let call = self.client.delete_object().bucket(&self.name).key(key).set_if_match(if_match.map(ETag::quoted));
        match self.send(DELETE, key, call.send()).await {
            // Gone already is what was asked for. Without a condition S3 says so itself.
            Err(error) if error.kind != Kind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    pub(super) async fn delete_objects(&self, deletions: &[Deletion]) -> Result<Vec<(String, Error)>> {
        let (writable, odd): (Vec<_>, Vec<_>) = deletions.iter().partition(|deletion| fits_batch(&deletion.key));
        let mut failed = Vec::new();
        for Deletion { key, etag } in odd {
            if let Err(error) = self.delete_object(key, etag.as_ref()).await {
                failed.push((key.clone(), error));
            }
        }
        if let Some(first) = writable.first() {
            failed.extend(self.delete_listed(&first.key, &writable).await?);
        }
        Ok(failed)
    }

    async fn delete_listed(&self, first: &str, deletions: &[&Deletion]) -> Result<Vec<(String, Error)>> {
        let refuse = |error: &dyn std::error::Error| plain(Kind::Refused, DELETE_MANY, first, error.to_string());
        let identifiers = deletions.iter().map(|Deletion { key, etag }| {
            ObjectIdentifier::builder().key(key).set_e_tag(etag.as_ref().map(ETag::quoted)).build()
        });
        let identifiers = identifiers.collect::<std::result::Result<Vec<_>, _>>().map_err(|error| refuse(&error))?;
        let delete = Delete::builder().set_objects(Some(identifiers)).quiet(true).build();
        let delete = delete.map_err(|error| refuse(&error))?;
        let call = self.client.delete_objects().bucket(&self.name).delete(delete);
        // Servers older than S3's CRCs insist on the MD5 that the SDK no longer sends.
        let wants_md5 = !self.is_directory;
        let call = call.customize().mutate_request(move |request| {
            let body = request.body().bytes().filter(|_| wants_md5);
            if let Some(md5) = body.map(|body| STANDARD.encode(Md5::digest(body))) {
                request.headers_mut().insert("content-md5", md5);
            }
        });
        let output = self.send(DELETE_MANY, first, call.send()).await?;
        let errors = output.errors.unwrap_or_default().into_iter();
        let failed = errors.map(|error| {
            let key = error.key.unwrap_or_default();
            let code = error.code.unwrap_or_default();
            let kind = kind_of(0, Some(&code));
            let cause = error.message.map_or_else(|| code.clone(), |message| format!("{code}: {message}"));
            (key.clone(), plain(kind, DELETE_MANY, &key, cause))
        });
        // Gone already is what was asked for.
        Ok(failed.filter(|(_, error)| error.kind != Kind::NotFound).collect())
    }
}

/// Metadata as headers can carry it: what is not ASCII goes as RFC 2047 words, as S3 gives it back.
pub(super) fn header_values(metadata: &Metadata) -> HashMap<String, String> {
    let plain = |value: &str| value.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    let word = |value: &str| format!("=?UTF-8?B?{}?=", STANDARD.encode(value));
    let value = |value: &String| if plain(value) { value.clone() } else { word(value) };
    metadata.iter().map(|(name, text)| (name.clone(), value(text))).collect()
}

/// A body whose progress can be seen.
pub(super) fn stream(body: Bytes, progress: &Progress) -> ByteStream {
    if body.len() <= WATCHED_FROM_BYTES {
        return ByteStream::from(body);
    }
    ByteStream::new(SdkBody::from_body_1_x(WatchedBody::new(body, progress.clone())))
}

/// A server that tells the checksum of what it stored must tell the one that we sent.
pub(super) fn confirm(operation: &'static str, key: &str, sent: &str, stored: Option<&str>) -> Result<()> {
    match stored {
        Some(stored) if stored != sent => {
            Err(plain(Kind::Corrupt, operation, key, format!("stored with checksum {stored}, sent was {sent}")))
        }
        _ => Ok(()),
    }
}

/// Every write names the version that it made.
pub(super) fn tag(operation: &'static str, key: &str, tag: Option<String>) -> Result<ETag> {
    let tag = tag.ok_or_else(|| plain(Kind::Corrupt, operation, key, "the server answered without an ETag"))?;
    Ok(ETag::new(&tag))
}

/// `x-amz-copy-source`: bucket and key, percent-encoded but for the slashes. Behind the ARN of an access
/// point the key has a word before it (AWS: `CopyObject`).
pub(super) fn copy_source(bucket: &str, key: &str) -> String {
    let object = if bucket.starts_with("arn:") { "/object" } else { "" };
    format!("{bucket}{object}/{}", encoded(key))
}

/// A key in a header.
fn encoded(key: &str) -> String {
    const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    utf8_percent_encode(key, ENCODED).to_string()
}

/// Whether XML 1.0 can hold the key ("Characters"); white space other than the blank is normalised
/// by parsers, and would name another key. Nothing but blanks a directory bucket does not take.
fn fits_batch(key: &str) -> bool {
    !key.chars().any(|char| char.is_control() || matches!(char, '\u{fffe}' | '\u{ffff}')) && !key.trim().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_sources_are_encoded_but_for_slashes() {
        assert_eq!(copy_source("b", "a b/ü+%~"), "b/a%20b/%C3%BC%2B%25~");
        let point = "arn:aws:s3:eu-west-1:123456789012:accesspoint/p";
        assert_eq!(copy_source(point, "a/b"), format!("{point}/object/a/b"));
    }

    #[test]
    fn metadata_goes_as_ascii() {
        let metadata = Metadata::from([("a".to_owned(), "b c".to_owned()), ("b".to_owned(), "café".to_owned())]);
        let sent = header_values(&metadata);
        assert_eq!((sent["a"].as_str(), sent["b"].as_str()), ("b c", "=?UTF-8?B?Y2Fmw6k=?="));
    }

    #[test]
    fn keys_that_xml_cannot_hold_are_told() {
        assert!(fits_batch("a b/ü"));
        for key in ["a\u{1}b", "a\nb", "a\rb", "\u{ffff}", "  "] {
            assert!(!fits_batch(key), "{key:?}");
        }
    }
}
