//! What S3 answers, for who collects spans: the SDK's outputs tell neither status nor, all of them, the request's id.

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;

use crate::telemetry::spans;

/// Tells status and request id of every answer.
#[derive(Debug)]
pub(super) struct ToldAnswers;

#[dyn_dispatch_hint]
impl Intercept for ToldAnswers {
    fn name(&self) -> &'static str {
        "ToldAnswers"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        spans::answered(response.status().as_u16(), response.headers().get("x-amz-request-id"));
        Ok(())
    }
}
