//! `ListObjectsV2`. Keys travel percent-encoded: XML 1.0 has no way to write most control characters.

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::{EncodingType, Object};
use percent_encoding::percent_decode_str;

use super::S3Bucket;
use super::errors::plain;
use super::read::whole_seconds;
use crate::bucket::{ETag, ListPage, ListRequest, Listed, Result, StorageClass};
use crate::error::Kind;

const LIST: &str = "ListObjectsV2";

impl S3Bucket {
    pub(super) async fn list_objects(&self, request: &ListRequest) -> Result<ListPage> {
        let call = self.client.list_objects_v2().bucket(&self.name).encoding_type(EncodingType::Url);
        let call = call
            .prefix(&request.prefix)
            .set_delimiter(request.delimited.then(|| "/".to_owned()))
            .set_continuation_token(request.token.clone())
            .set_start_after(request.start_after.clone())
            .set_max_keys(request.max_keys.map(i32::from));
        let output = self.send(LIST, &request.prefix, call.send()).await?;
        page(output).ok_or_else(|| plain(Kind::Corrupt, LIST, &request.prefix, "a key in the listing is not UTF-8"))
    }
}

fn page(output: ListObjectsV2Output) -> Option<ListPage> {
    let encoded = output.encoding_type == Some(EncodingType::Url);
    let key = |key: Option<String>| decode(&key.unwrap_or_default(), encoded);
    let truncated = output.is_truncated.unwrap_or_default();
    let objects = output.contents.unwrap_or_default().into_iter();
    let prefixes = output.common_prefixes.unwrap_or_default().into_iter();
    Some(ListPage {
        objects: objects.map(|mut object| Some(listed(key(object.key.take())?, object))).collect::<Option<_>>()?,
        prefixes: prefixes.map(|group| key(group.prefix)).collect::<Option<_>>()?,
        next: output.next_continuation_token.filter(|_| truncated),
    })
}

fn listed(key: String, object: Object) -> Listed {
    let checksums = object.checksum_algorithm.unwrap_or_default();
    Listed {
        key,
        etag: ETag::new(&object.e_tag.unwrap_or_default()),
        size: u64::try_from(object.size.unwrap_or_default()).unwrap_or_default(),
        modified: whole_seconds(object.last_modified),
        storage_class: object.storage_class.map(|class| StorageClass::from(class.as_str().to_owned())),
        checksums: checksums.iter().map(|algorithm| algorithm.as_str().to_owned()).collect(),
    }
}

/// S3 encodes as an HTML form does: a space is `+`, a plus `%2B`.
pub(super) fn decode(key: &str, encoded: bool) -> Option<String> {
    if !encoded {
        return Some(key.to_owned());
    }
    let spaced = key.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_decoded_only_where_the_server_encoded_them() {
        assert_eq!(decode("a+b%2Bc%0Ad%25", true).as_deref(), Some("a b+c\nd%"));
        assert_eq!(decode("a+b%2B", false).as_deref(), Some("a+b%2B"));
        assert_eq!(decode("%FF", true), None);
    }

    #[test]
    fn a_page_that_is_not_truncated_is_the_last() {
        let output = ListObjectsV2Output::builder().is_truncated(false).next_continuation_token("x").build();
        assert_eq!(page(output).unwrap().next, None);
    }
}
