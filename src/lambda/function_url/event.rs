//! A request as the event that a function with a URL gets: payload format 2.0.
//!
//! Source: AWS, "Invoking Lambda function URLs", "Request payload format". What is not there in a request is
//! left out of its event, as in AWS.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{CONTENT_TYPE, COOKIE, USER_AGENT};
use hyper::http::request::Parts;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

/// As web servers log it: `12/Mar/2020:19:03:58 +0000`.
const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000");

/// What was asked of a hook.
pub(super) struct Request<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    /// As it came, without the part that names the hook.
    pub(super) path: &'a str,
    /// The client's IP address.
    pub(super) peer: &'a str,
    pub(super) head: &'a Parts,
    pub(super) body: &'a [u8],
}

impl Request<'_> {
    /// The event, for a request that came at this time.
    pub(super) fn event(&self, now: OffsetDateTime) -> Value {
        let query = self.head.uri.query().unwrap_or_default();
        let mut event = json!({
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": self.path,
            "rawQueryString": query,
            "headers": self.headers(),
            "requestContext": self.context(now),
            "isBase64Encoded": false,
        });
        let mut add = |name: &str, value: Value| event[name] = value;
        let cookies = self.cookies();
        if !cookies.is_empty() {
            add("cookies", json!(cookies));
        }
        if !query.is_empty() {
            add("queryStringParameters", json!(parameters(query)));
        }
        match std::str::from_utf8(self.body) {
            Ok("") => {}
            Ok(text) if self.is_text() => add("body", json!(text)),
            _ => {
                add("body", json!(STANDARD.encode(self.body)));
                add("isBase64Encoded", json!(true));
            }
        }
        event
    }

    /// Names in small letters; values of one name joined by commas. Cookies stand by themselves.
    fn headers(&self) -> BTreeMap<String, String> {
        let mut headers: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in self.head.headers.iter().filter(|(name, _)| *name != COOKIE) {
            join(headers.entry(name.as_str().to_owned()), &String::from_utf8_lossy(value.as_bytes()));
        }
        headers
    }

    fn cookies(&self) -> Vec<String> {
        let lines = self.head.headers.get_all(COOKIE).into_iter();
        let lines: Vec<_> = lines.map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned()).collect();
        let cookies = lines.iter().flat_map(|line| line.split(';')).map(str::trim);
        cookies.filter(|cookie| !cookie.is_empty()).map(str::to_owned).collect()
    }

    fn context(&self, now: OffsetDateTime) -> Value {
        json!({
            "accountId": "anonymous",
            "apiId": self.name,
            "authentication": null,
            "domainName": self.header(&hyper::header::HOST),
            "domainPrefix": self.name,
            "http": {
                "method": self.head.method.as_str(),
                "path": self.path,
                "protocol": format!("{:?}", self.head.version),
                "sourceIp": self.peer,
                "userAgent": self.header(&USER_AGENT),
            },
            "requestId": self.id,
            "routeKey": "$default",
            "stage": "$default",
            "time": now.format(TIME).unwrap_or_default(),
            "timeEpoch": (now.unix_timestamp_nanos() / 1_000_000) as i64,
        })
    }

    fn header(&self, name: &hyper::header::HeaderName) -> &str {
        self.head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// What AWS hands on as it is; everything else, a form of a browser too, goes as Base64.
    fn is_text(&self) -> bool {
        let kind = self.header(&CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let known = ["application/json", "application/xml", "application/javascript"];
        kind.is_empty()
            || kind.starts_with("text/")
            || known.contains(&kind.as_str())
            || kind.ends_with("+json")
            || kind.ends_with("+xml")
    }
}

fn join(entry: std::collections::btree_map::Entry<'_, String, String>, value: &str) {
    entry.and_modify(|values| *values = format!("{values},{value}")).or_insert_with(|| value.to_owned());
}

/// Decoded; values of one name joined by commas.
fn parameters(query: &str) -> BTreeMap<String, String> {
    let decoded = |word: &str| percent_decode_str(&word.replace('+', " ")).decode_utf8_lossy().into_owned();
    let mut parameters = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        join(parameters.entry(decoded(name)), &decoded(value));
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(request: hyper::http::request::Builder, body: &[u8]) -> Value {
        let (head, ()) = request.body(()).unwrap().into_parts();
        let request = Request { id: "id-1", name: "page", path: "/a%20b", peer: "127.0.0.1", head: &head, body };
        request.event(OffsetDateTime::from_unix_timestamp(1_584_039_838).unwrap())
    }

    #[test]
    fn a_request_is_told_as_lambda_tells_it() {
        let request = hyper::Request::post("/function-url/page/a%20b?x=1&x=2+3&y=%26&z")
            .header("Host", "localhost:1")
            .header("User-Agent", "curl/8")
            .header("X-Many", "a")
            .header("X-Many", "b")
            .header("Cookie", "one=1; two=2")
            .header("Content-Type", "application/json; charset=utf-8");
        let event = event(request, br#"{"a": 1}"#);
        assert_eq!((&event["version"], &event["rawPath"]), (&"2.0".into(), &"/a%20b".into()));
        assert_eq!(event["rawQueryString"], "x=1&x=2+3&y=%26&z");
        assert_eq!(event["queryStringParameters"], json!({"x": "1,2 3", "y": "&", "z": ""}));
        assert_eq!((&event["headers"]["x-many"], &event["headers"]["cookie"]), (&"a,b".into(), &Value::Null));
        assert_eq!(event["cookies"], json!(["one=1", "two=2"]));
        assert_eq!((&event["body"], &event["isBase64Encoded"]), (&r#"{"a": 1}"#.into(), &false.into()));
        let context = &event["requestContext"];
        assert_eq!((&context["requestId"], &context["time"]), (&"id-1".into(), &"12/Mar/2020:19:03:58 +0000".into()));
        assert_eq!(context["timeEpoch"], 1_584_039_838_000_i64);
        let http = json!({"method": "POST", "path": "/a%20b", "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1",
            "userAgent": "curl/8"});
        assert_eq!(context["http"], http);
    }

    #[test]
    fn what_is_no_text_goes_as_base64_and_what_is_missing_is_left_out() {
        let of_type = |kind: &str, body: &[u8]| event(hyper::Request::post("/").header("Content-Type", kind), body);
        for (kind, body, expected) in [
            ("application/octet-stream", &b"a"[..], "YQ=="),
            ("application/x-www-form-urlencoded", b"a=1", "YT0x"),
            ("text/plain", b"\xff", "/w=="),
        ] {
            let event = of_type(kind, body);
            assert_eq!((&event["body"], &event["isBase64Encoded"]), (&expected.into(), &true.into()), "{kind}");
        }
        for kind in ["text/csv", "application/xml", "application/ld+json"] {
            assert_eq!(of_type(kind, b"a")["body"], "a", "{kind}");
        }
        let bare = event(hyper::Request::get("/"), b"");
        let names: Vec<&String> = bare.as_object().unwrap().keys().collect();
        assert!(!names.iter().any(|name| ["body", "cookies", "queryStringParameters"].contains(&name.as_str())));
    }
}
