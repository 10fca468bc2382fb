//! Answers in the words of AWS's API.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode};
use serde_json::json;

use crate::error::Kind;
use crate::hooks;

pub(super) type Answer = Response<Full<Bytes>>;

/// An error as the SDKs read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    /// `ResourceNotFoundException` and so on.
    name: &'static str,
    message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, name: &'static str, message: impl Into<String>) -> Self {
        Self { status, name, message: message.into() }
    }

    pub(super) fn of_parameter(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidParameterValueException", message)
    }

    pub(super) fn of_function(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "ResourceNotFoundException", format!("Function not found: {name}"))
    }

    pub(super) fn answer(&self, id: &str) -> Answer {
        let (name, message) = (self.name, self.message.as_str());
        let kind = if self.status.is_server_error() { "Service" } else { "User" };
        // Some SDKs read the one, some the other.
        let body = json!({"Type": kind, "Message": message, "message": message}).to_string();
        let mut answer = ok(self.status, id, body.into());
        answer.headers_mut().insert("x-amzn-errortype", hyper::header::HeaderValue::from_static(name));
        answer
    }
}

impl From<hooks::Error> for Refusal {
    fn from(error: hooks::Error) -> Self {
        let status = match error.kind() {
            Kind::Busy => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, "ServiceException", error.to_string())
    }
}

/// An answer with a JSON body and the request's id.
pub(super) fn ok(status: StatusCode, id: &str, body: Bytes) -> Answer {
    let answer = Response::builder().status(status).header("content-type", "application/json");
    answer.header("x-amzn-requestid", id).body(Full::new(body)).expect("a UUID and a fixed type are header values")
}
