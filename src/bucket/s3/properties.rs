//! An object's properties in requests and answers, which have them under the same names everywhere.

use aws_sdk_s3::types;

use super::S3Bucket;
use crate::bucket::properties::Header;
use crate::bucket::{Properties, StorageClass};

/// Gives the properties to the builder of a request that makes an object under this key.
macro_rules! with_properties {
    ($bucket:expr, $call:expr, $key:expr, $options:expr) => {{
        let options: &crate::bucket::PutOptions = $options;
        let properties = &options.properties;
        $call
            .set_metadata(Some(crate::bucket::s3::write::header_values(&options.metadata)))
            .set_content_type(properties.content_type_at($key))
            .set_cache_control(properties.header(Header::CacheControl))
            .set_content_disposition(properties.header(Header::ContentDisposition))
            .set_content_encoding($bucket.kept_header(properties, Header::ContentEncoding))
            .set_content_language(properties.header(Header::ContentLanguage))
            .set_website_redirect_location($bucket.kept_header(properties, Header::WebsiteRedirectLocation))
            .set_storage_class($bucket.class_to_write(properties.storage_class.as_ref(), $key))
    }};
}

/// What HEAD or GET tell.
macro_rules! told_properties {
    ($output:expr) => {{
        let headers = [
            (Header::CacheControl, $output.cache_control.take()),
            (Header::ContentDisposition, $output.content_disposition.take()),
            (Header::ContentEncoding, crate::bucket::s3::properties::without_framing($output.content_encoding.take())),
            (Header::ContentLanguage, $output.content_language.take()),
            (Header::WebsiteRedirectLocation, $output.website_redirect_location.take()),
        ];
        Properties {
            headers: headers.into_iter().filter_map(|(header, value)| Some((header, value?))).collect(),
            storage_class: Some(crate::bucket::s3::properties::told_class($output.storage_class.take())),
            ..Properties::of_type($output.content_type.take())
        }
    }};
}

pub(super) use {told_properties, with_properties};

/// HEAD and GET name every class but the usual one.
pub(super) fn told_class(told: Option<types::StorageClass>) -> StorageClass {
    told.map_or(StorageClass::STANDARD, |class| StorageClass::from(class.as_str().to_owned()))
}

impl S3Bucket {
    /// A header that a directory bucket refuses: what comes there from another bucket goes without.
    pub(super) fn kept_header(&self, properties: &Properties, header: Header) -> Option<String> {
        properties.header(header).filter(|_| !self.is_directory)
    }

    /// An object stays in its class, a new one goes into the one that the user has chosen for it. The
    /// usual one needs no word, which not every server understands, nor does that of a directory bucket.
    pub(super) fn class_to_write(&self, own: Option<&StorageClass>, key: &str) -> Option<types::StorageClass> {
        let own = own.filter(|class| class.is_kept()).cloned();
        let class = own.or_else(|| (self.class_of_key.as_ref()?.0)(key));
        class.filter(|class| *class != StorageClass::STANDARD && !self.is_directory).map(|class| class.as_str().into())
    }
}

/// `aws-chunked` was said of a request's framing; some servers keep it.
pub(super) fn without_framing(encoding: Option<String>) -> Option<String> {
    let encoding = encoding?;
    let own: Vec<_> = encoding.split(',').map(str::trim).filter(|name| !matches!(*name, "aws-chunked" | "")).collect();
    (!own.is_empty()).then(|| own.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framing_is_no_encoding_of_the_object() {
        let without = |said: &str| without_framing(Some(said.to_owned()));
        assert_eq!(without("aws-chunked"), None);
        assert_eq!(without("gzip,aws-chunked").as_deref(), Some("gzip"));
        assert_eq!(without("gzip").as_deref(), Some("gzip"));
    }
}
