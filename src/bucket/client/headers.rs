//! Headers that the SDK could not read.

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;

/// The sum of a customer's key.
const KEY_SUM: &str = "x-amz-server-side-encryption-customer-key-md5";

/// Makes every header of an answer readable.
///
/// Metadata is written by anybody, in any encoding, and the SDK refuses the whole answer over one
/// value that is not UTF-8: the object would be out of reach. Such a value is read as ISO 8859-1,
/// which HTTP once said it was. SeaweedFS tells the sum of a customer's key twice, which the SDK
/// takes for two.
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
        let key_sum = headers.get_bytes(KEY_SUM).map(|sum| (KEY_SUM.to_owned(), latin1(sum)));
        for (name, value) in readable.into_iter().chain(key_sum) {
            headers.try_insert(name, value)?;
        }
        Ok(())
    }
}

fn latin1(value: &[u8]) -> String {
    value.iter().map(|byte| char::from(*byte)).collect()
}
