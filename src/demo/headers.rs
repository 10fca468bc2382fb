//! The headers that a client stores with an object: in from a request, out with an answer.

use std::collections::BTreeMap;

use s3s::dto;
use s3s::{S3Result, s3_error};

use super::record::{Headers, Tags};

/// Most bytes of user metadata, names and values together (AWS: 2 KB).
const MAX_METADATA_BYTES: usize = 2048;
/// Most tags of an object (AWS: "Categorizing your storage using tags").
const MAX_TAGS: usize = 10;

/// Gathers the stored headers of a request that makes an object; PUT, copy and multipart uploads
/// have them under the same names.
macro_rules! stored_headers {
    ($input:expr) => {
        crate::demo::record::Headers {
            content_type: $input.content_type.take(),
            cache_control: $input.cache_control.take(),
            content_disposition: $input.content_disposition.take(),
            content_encoding: crate::demo::headers::without_framing($input.content_encoding.take()),
            content_language: $input.content_language.take(),
            expires_s: $input.expires.take().as_ref().map(crate::demo::conditions::unix_s),
            website_redirect: $input.website_redirect_location.take(),
            storage_class: $input.storage_class.take().map(|class| class.as_str().to_owned()),
            encryption: $input.server_side_encryption.take().map(|kind| kind.as_str().to_owned()),
            kms_key_id: $input.ssekms_key_id.take(),
            metadata: crate::demo::headers::metadata($input.metadata.take())?,
        }
    };
}

/// Refuses the features of S3 that the demo server does not have, in requests that make objects.
macro_rules! refuse_unbuilt {
    ($input:expr) => {
        crate::demo::headers::refuse(&[
            ("object lock", $input.object_lock_mode.is_some()),
            ("object lock", $input.object_lock_legal_hold_status.is_some()),
            ("object lock", $input.object_lock_retain_until_date.is_some()),
            ("SSE-C", $input.sse_customer_algorithm.is_some() || $input.sse_customer_key.is_some()),
            ("grants", $input.grant_full_control.is_some() || $input.grant_read.is_some()),
            ("grants", $input.grant_read_acp.is_some() || $input.grant_write_acp.is_some()),
        ])
        .and_then(|()| crate::demo::headers::check_acl($input.acl.as_ref()))
    };
}

/// Tells the stored headers of an object with GET and HEAD, which have them under the same names.
macro_rules! tell_headers {
    ($output:expr, $headers:expr) => {{
        let headers: &crate::demo::record::Headers = $headers;
        let content_type = headers.content_type.as_deref().unwrap_or(crate::demo::headers::DEFAULT_CONTENT_TYPE);
        $output.content_type = Some(content_type.to_owned());
        $output.cache_control.clone_from(&headers.cache_control);
        $output.content_disposition.clone_from(&headers.content_disposition);
        $output.content_encoding.clone_from(&headers.content_encoding);
        $output.content_language.clone_from(&headers.content_language);
        $output.expires = headers.expires_s.map(crate::demo::conditions::timestamp);
        $output.website_redirect_location.clone_from(&headers.website_redirect);
        // S3 leaves the header out for the default class.
        $output.storage_class = headers.storage_class.clone().filter(|class| class != "STANDARD").map(Into::into);
        $output.server_side_encryption = headers.encryption.clone().map(Into::into);
        $output.ssekms_key_id.clone_from(&headers.kms_key_id);
        $output.metadata = Some(headers.metadata.clone().into_iter().collect());
    }};
}

pub(super) use {refuse_unbuilt, stored_headers, tell_headers};

/// The type of objects whose client named none.
pub(super) const DEFAULT_CONTENT_TYPE: &str = "binary/octet-stream";

/// Refuses the first feature that a request uses.
///
/// # Errors
/// `NotImplemented`.
pub(super) fn refuse(features: &[(&str, bool)]) -> S3Result<()> {
    match features.iter().find(|(_, used)| *used) {
        Some((feature, _)) => Err(s3_error!(NotImplemented, "The demo server has no {feature}.")),
        None => Ok(()),
    }
}

/// Lets those ACLs pass that say what is true anyway: the one account owns everything.
///
/// # Errors
/// `AccessControlListNotSupported`, as of a bucket whose ACLs are disabled (the default of AWS).
pub(super) fn check_acl(acl: Option<&dto::ObjectCannedACL>) -> S3Result<()> {
    match acl.map(dto::ObjectCannedACL::as_str) {
        None | Some("private" | "bucket-owner-full-control" | "bucket-owner-read") => Ok(()),
        Some(_) => Err(s3_error!(AccessControlListNotSupported, "The bucket does not allow ACLs")),
    }
}

/// `aws-chunked` is about the transfer, not about the object.
pub(super) fn without_framing(content_encoding: Option<String>) -> Option<String> {
    let encodings = content_encoding?;
    let kept: Vec<&str> = encodings.split(',').map(str::trim).filter(|name| *name != "aws-chunked").collect();
    Some(kept.join(",")).filter(|encodings| !encodings.is_empty())
}

/// User metadata of a request.
///
/// # Errors
/// `MetadataTooLarge`.
pub(super) fn metadata(metadata: Option<dto::Metadata>) -> S3Result<BTreeMap<String, String>> {
    let metadata: BTreeMap<_, _> = metadata.unwrap_or_default().into_iter().collect();
    let bytes: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MAX_METADATA_BYTES {
        return Err(s3_error!(MetadataTooLarge));
    }
    Ok(metadata)
}

/// Tags of an `x-amz-tagging` header: `name=value&…`, URL-encoded.
///
/// # Errors
/// `InvalidTag`.
pub(super) fn tags_of_header(header: Option<&str>) -> S3Result<Tags> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        percent_encoding::percent_decode_str(&text).decode_utf8().map(Into::into).map_err(|_| s3_error!(InvalidTag))
    };
    let pairs = header.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let tags: Tags = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| Ok((decode(name)?, decode(value)?)))
        .collect::<S3Result<_>>()?;
    check_tags(&tags)?;
    Ok(tags)
}

/// Checks tags against the limits of S3.
///
/// # Errors
/// `InvalidTag`.
pub(super) fn check_tags(tags: &Tags) -> S3Result<()> {
    let names: std::collections::HashSet<_> = tags.iter().map(|(name, _)| name).collect();
    let too_long = tags.iter().any(|(name, value)| name.is_empty() || name.len() > 128 || value.len() > 256);
    if tags.len() > MAX_TAGS || names.len() != tags.len() || too_long {
        return Err(s3_error!(InvalidTag));
    }
    Ok(())
}

/// The storage class as listings tell it.
pub(super) fn storage_class(headers: &Headers) -> &str {
    headers.storage_class.as_deref().unwrap_or("STANDARD")
}

/// Whether the bytes are in an archive tier, where GET cannot reach them.
pub(super) fn is_archived(headers: &Headers) -> bool {
    matches!(storage_class(headers), "GLACIER" | "DEEP_ARCHIVE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_headers_are_decoded_and_bounded() {
        let tags = tags_of_header(Some("a=1&b+c=%C3%BC&d")).unwrap();
        assert_eq!(tags, [("a", "1"), ("b c", "ü"), ("d", "")].map(|(name, value)| (name.into(), value.into())));
        assert!(tags_of_header(Some("a=1&a=2")).is_err());
        let eleven: Vec<String> = (0..11).map(|number| format!("t{number}=x")).collect();
        assert!(tags_of_header(Some(&eleven.join("&"))).is_err());
    }

    #[test]
    fn the_framing_of_the_transfer_is_no_content_encoding() {
        assert_eq!(without_framing(Some("aws-chunked".into())), None);
        assert_eq!(without_framing(Some("gzip, aws-chunked".into())), Some("gzip".into()));
    }
}
