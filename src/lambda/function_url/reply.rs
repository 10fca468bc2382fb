//! What a hook answers as the response of its URL: payload format 2.0.
//!
//! Source: AWS, "Invoking Lambda function URLs", "Response payload format". JSON with a `statusCode` is a
//! response; other JSON is a body. What is no JSON cannot come from a function in Lambda, and is a body here too.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, SET_COOKIE, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use crate::hooks::Called;
use crate::lambda::answers::Answer;

/// Those are for the connection, and the server's own.
const OF_THE_CONNECTION: [HeaderName; 4] = [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE];

/// A response that the hook has put together.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shaped {
    status_code: u16,
    headers: Option<BTreeMap<String, Value>>,
    body: Option<String>,
    cookies: Option<Vec<String>>,
    is_base64_encoded: Option<bool>,
}

/// The response. Whatever goes wrong is `502 Bad Gateway`, as in Lambda; the hook's log says why.
pub(super) fn reply(id: &str, called: &Called) -> Answer {
    let mut reply = match of(called) {
        Ok(reply) => reply,
        Err(problem) => {
            tracing::debug!(id, problem, "a function URL answers 502");
            with_type(StatusCode::BAD_GATEWAY, "text/plain", Bytes::from_static(b"Internal Server Error"))
        }
    };
    if let Ok(id) = HeaderValue::try_from(id) {
        reply.headers_mut().insert("x-amzn-requestid", id);
    }
    reply
}

fn of(called: &Called) -> Result<Answer, String> {
    if let Some(problem) = &called.problem {
        return Err(problem.message.clone());
    }
    if called.answer_dropped > 0 {
        return Err(format!("the answer is larger than {} bytes", called.answer.len()));
    }
    let body = || Bytes::from(called.answer.clone());
    match serde_json::from_slice::<Value>(&called.answer) {
        Ok(value) if value.get("statusCode").is_some() => shaped(value),
        Ok(_) => Ok(with_type(StatusCode::OK, "application/json", body())),
        Err(_) if called.answer.is_empty() => Ok(with_type(StatusCode::OK, "application/json", "null".into())),
        Err(_) => {
            let is_text = std::str::from_utf8(&called.answer).is_ok();
            let kind = if is_text { "text/plain; charset=utf-8" } else { "application/octet-stream" };
            Ok(with_type(StatusCode::OK, kind, body()))
        }
    }
}

fn shaped(value: Value) -> Result<Answer, String> {
    let said: Shaped = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let status = StatusCode::from_u16(said.status_code).ok().filter(|status| !status.is_informational());
    let status = status.ok_or_else(|| format!("{} is no status of a response", said.status_code))?;
    let text = said.body.unwrap_or_default();
    let body = match said.is_base64_encoded {
        Some(true) => STANDARD.decode(&text).map_err(|error| format!("the body is no Base64: {error}"))?.into(),
        _ => Bytes::from(text),
    };
    let mut answer = with_type(status, "application/json", body);
    for (name, value) in said.headers.unwrap_or_default() {
        let name = HeaderName::try_from(&name).map_err(|_| format!("a header {name:?} can't be sent"))?;
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let value = HeaderValue::try_from(value).map_err(|_| format!("the value of {name} can't be sent"))?;
        if !OF_THE_CONNECTION.contains(&name) {
            answer.headers_mut().insert(name, value);
        }
    }
    for cookie in said.cookies.unwrap_or_default() {
        let cookie = HeaderValue::try_from(cookie).map_err(|_| "a cookie can't be sent".to_owned())?;
        answer.headers_mut().append(SET_COOKIE, cookie);
    }
    Ok(answer)
}

fn with_type(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn replied(answer: &[u8]) -> (u16, String, Vec<u8>, Answer) {
        let called = Called { answer: answer.to_vec(), answer_dropped: 0, problem: None, log: String::new() };
        let reply = reply("id-1", &called);
        let kind = reply.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let body = runtime.block_on(reply.body().clone().collect()).unwrap().to_bytes().to_vec();
        (reply.status().as_u16(), kind, body, reply)
    }

    #[test]
    fn an_answer_is_a_response_or_a_body() {
        for (answer, status, kind, body) in [
            (&b"{\"a\": 1}"[..], 200, "application/json", &b"{\"a\": 1}"[..]),
            (b"", 200, "application/json", b"null"),
            (b"hello", 200, "text/plain; charset=utf-8", b"hello"),
            (b"\xff\xd8", 200, "application/octet-stream", b"\xff\xd8"),
            (br#"{"statusCode": 404}"#, 404, "application/json", b""),
            (
                br#"{"statusCode": 200, "body": "AAH/", "isBase64Encoded": true}"#,
                200,
                "application/json",
                b"\0\x01\xff",
            ),
            (
                br#"{"statusCode": 201, "headers": {"Content-Type": "text/html"}, "body": "<p>"}"#,
                201,
                "text/html",
                b"<p>",
            ),
        ] {
            let told = replied(answer);
            assert_eq!((told.0, told.1.as_str(), &told.2[..]), (status, kind, body), "{answer:?}");
            assert_eq!(told.3.headers()["x-amzn-requestid"], "id-1");
        }
    }

    #[test]
    fn headers_and_cookies_are_sent_but_for_those_of_the_connection() {
        let answer = br#"{"statusCode": 200, "headers": {"X-N": 7, "Content-Length": "9", "Connection": "close"},
            "cookies": ["a=1", "b=2; Secure"]}"#;
        let headers = replied(answer).3.headers().clone();
        assert_eq!(headers["x-n"], "7");
        assert!(!headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(CONNECTION));
        assert_eq!(headers.get_all(SET_COOKIE).iter().collect::<Vec<_>>(), ["a=1", "b=2; Secure"]);
    }

    #[test]
    fn what_cannot_be_sent_is_a_bad_gateway() {
        for answer in [
            r#"{"statusCode": "abc"}"#,
            r#"{"statusCode": 101}"#,
            r#"{"statusCode": 99}"#,
            r#"{"statusCode": 200, "body": {"a": 1}}"#,
            r#"{"statusCode": 200, "body": "*", "isBase64Encoded": true}"#,
            r#"{"statusCode": 200, "headers": {"a b": "c"}}"#,
            r#"{"statusCode": 200, "headers": {"a": "b\r\nc: d"}}"#,
            r#"{"statusCode": 200, "cookies": ["a\nb"]}"#,
        ] {
            let told = replied(answer.as_bytes());
            assert_eq!((told.0, &told.2[..]), (502, &b"Internal Server Error"[..]), "{answer}");
        }
    }
}
