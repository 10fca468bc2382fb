//! Headers that the SDK could not read.

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;

/// What headers about encryption begin with.
const ENCRYPTION: &str = "x-amz-server-side-encryption";

/// Makes every header of an answer readable.
///
/// Metadata is written by anybody, in any encoding, and the SDK refuses the whole answer over one
/// value that is not UTF-8: the object would be out of reach. Such a value is read as ISO 8859-1,
/// which HTTP once said it was. What is said of encryption is said once: SeaweedFS tells the sum of a
/// customer's key twice, which the SDK takes for two.
#[derive(Debug)]
pub(super) struct ReadableHeaders;

#[dyn_dispatch_hint]
impl Intercept for ReadableHeaders {
    fn name(&self) -> &'static str {
        "ReadableHeaders"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.response_mut().headers_mut();
        let odd = headers.iter_bytes().filter(|(_, value)| std::str::from_utf8(value).is_err());
        let readable: Vec<_> = odd.map(|(name, value)| (name.to_owned(), latin1(value))).collect();
        let encryption = headers.iter_bytes().filter(|(name, _)| name.starts_with(ENCRYPTION));
        let once: Vec<_> = encryption.map(|(name, value)| (name.to_owned(), latin1(value))).collect();
        for (name, value) in readable.into_iter().chain(once) {
            headers.try_insert(name, value)?;
        }
        Ok(())
    }
}

fn latin1(value: &[u8]) -> String {
    value.iter().map(|byte| char::from(*byte)).collect()
}
