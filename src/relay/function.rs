//! Lambda by its Invoke operation: an event is handed over, and nobody waits for what becomes of it.

use std::fmt;

use aws_smithy_types::body::SdkBody;
use hyper::{Request, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Error, Relay, Result, by_status, signing};

/// Instead of Lambda's own address, as the AWS tools have it; the first that is set.
pub(super) const ENDPOINT_VARIABLES: [&str; 2] = ["AWS_ENDPOINT_URL_LAMBDA", "AWS_ENDPOINT_URL"];

/// A function by its name or ARN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function(String);

impl Function {
    /// Reads `NAME`, `NAME:ALIAS` or `arn:aws:lambda:REGION:ACCOUNT:function:NAME`.
    ///
    /// # Errors
    /// A sentence about what is wrong with it.
    pub fn named(text: &str) -> std::result::Result<Self, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_:$".contains(c);
        if text.is_empty() || text.len() > 170 || !text.chars().all(fits) {
            return Err(format!("\"{text}\" is no function: NAME, NAME:ALIAS or its ARN"));
        }
        Ok(Self(text.to_owned()))
    }

    /// What its ARN says.
    fn region(&self) -> Option<&str> {
        self.0.strip_prefix("arn:")?.split(':').nth(2).filter(|region| !region.is_empty())
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Relay {
    /// Has Lambda take an event for a function; Lambda runs it later, and again if it fails.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn invoke(&self, function: &Function, json: String) -> Result<()> {
        let refused = |problem: &dyn fmt::Display| Error::Refused(format!("lambda:{function}: {problem}"));
        let Some(credentials) = &self.credentials else {
            return Err(refused(&"there are no credentials to sign with"));
        };
        let region = function.region().unwrap_or(&self.region);
        let own = || format!("https://lambda.{region}.amazonaws.com");
        let endpoint = self.lambda_endpoint.clone().unwrap_or_else(own);
        let name = utf8_percent_encode(&function.0, NON_ALPHANUMERIC);
        let url = format!("{}/2015-03-31/functions/{name}/invocations", endpoint.trim_end_matches('/'));
        let request = Request::post(url)
            .header("content-type", "application/json")
            .header("x-amz-invocation-type", "Event")
            .body(json)
            .map_err(|error| refused(&error))?;
        let request = signing::signed(request, credentials, region, "lambda").await?;
        let (status, body) = self.exchange(request.map(SdkBody::from)).await?;
        if status == StatusCode::ACCEPTED {
            Ok(())
        } else {
            Err(by_status(&format!("lambda:{function}"), status, &body))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_known_by_its_name_or_its_arn() {
        assert_eq!(Function::named("resize:live").unwrap().region(), None);
        let arn = "arn:aws:lambda:eu-west-1:123456789012:function:resize";
        assert_eq!(Function::named(arn).unwrap().region(), Some("eu-west-1"));
        for wrong in ["", "a b", "a/b", "https://h"] {
            assert!(Function::named(wrong).is_err(), "{wrong}");
        }
    }
}
