//! What is said about the collector of OpenTelemetry: `--otlp-…`, and of the environment what is a secret or belongs
//! to the machine more than to the mount.
//!
//! `OTEL_EXPORTER_OTLP_ENDPOINT` is not among that. It may be there for the programs of a shell, and a mount that
//! hears of it would tell somebody names of files without having been asked to.

use std::env;
use std::fmt;
use std::time::Duration;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use super::{Error, Options};

const DEFAULT_INTERVAL: Duration = Duration::from_mins(1);
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const RESOURCE: &str = "OTEL_RESOURCE_ATTRIBUTES";
const SERVICE: &str = "OTEL_SERVICE_NAME";

/// Where telemetry goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Collector {
    /// Without `/v1/…`, and without a slash at its end.
    pub url: String,
    /// Between two messages of metrics.
    pub interval: Duration,
    /// Part of all traces that are sent, from 0 to 1.
    pub trace_ratio: f64,
    pub headers: Headers,
    /// What the environment says of this service, names and values.
    pub attributes: Vec<(String, String)>,
}

/// Names and values; they are what a collector knows its clients by.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Collector {
    /// `None` if no collector is named.
    pub(super) fn of(options: &Options) -> Result<Option<Self>, Error> {
        let Some(url) = &options.otlp_endpoint else { return Ok(None) };
        let url = checked(url)?;
        let interval = options.otlp_interval.map_or(DEFAULT_INTERVAL, |span| span.0);
        if interval.is_zero() {
            return Err(Error::new("--otlp-interval is 0", "give the time between two messages, such as 60s"));
        }
        let trace_ratio = options.otlp_traces.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&trace_ratio) {
            return Err(Error::new(
                format!("--otlp-traces {trace_ratio} is no part of all traces"),
                "give a number from 0 (none) to 1 (all)",
            ));
        }
        let headers = Headers(said(HEADERS)?);
        for (name, value) in &headers.0 {
            if name.parse::<HeaderName>().is_err() || value.parse::<HeaderValue>().is_err() {
                return Err(Error::new(format!("{HEADERS}: '{}' is no header", name.escape_debug()), HOW));
            }
        }
        let mut attributes = said(RESOURCE)?;
        attributes.extend(env::var(SERVICE).ok().filter(|name| !name.is_empty()).map(|name| (OF_SERVICE.into(), name)));
        Ok(Some(Self { url, interval, trace_ratio, headers, attributes }))
    }
}

/// The attribute that `OTEL_SERVICE_NAME` stands for.
const OF_SERVICE: &str = "service.name";
const HOW: &str = "write name=value,name=value, and what is no letter or digit as %20";

/// The pairs of a variable.
fn said(variable: &str) -> Result<Vec<(String, String)>, Error> {
    pairs(&env::var(variable).unwrap_or_default())
        .ok_or_else(|| Error::new(format!("{variable} cannot be understood"), HOW))
}

/// `a=b,c=d` with percent-encoded values (W3C Baggage, which OpenTelemetry points to).
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let pair = |part: &str| {
        let (name, value) = part.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        Some((name.trim().to_owned(), value.into_owned())).filter(|(name, _)| !name.is_empty())
    };
    parts.map(pair).collect()
}

fn checked(url: &str) -> Result<String, Error> {
    let uri = url.parse::<Uri>().ok().filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
    let Some(authority) = uri.as_ref().and_then(Uri::authority).filter(|authority| !authority.host().is_empty()) else {
        return Err(Error::new(
            format!("'{}' is no collector", url.escape_debug()),
            "write it with http:// or https://, e.g. --otlp-endpoint http://127.0.0.1:4318",
        ));
    };
    if authority.as_str().contains('@') || url.contains('?') {
        return Err(Error::new(
            "the URL of the collector holds credentials",
            format!("put them into the environment: {HEADERS}='Authorization=Bearer%20…'"),
        ));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::Span;
    use super::*;

    fn of(url: &str, ratio: f64, interval_s: u64) -> Result<Option<Collector>, Error> {
        let otlp_interval = Some(Span(Duration::from_secs(interval_s)));
        let (otlp_endpoint, otlp_traces) = (Some(url.to_owned()), Some(ratio));
        Collector::of(&Options { otlp_endpoint, otlp_interval, otlp_traces, ..Options::default() })
    }

    #[test]
    fn there_is_none_unless_it_is_named() {
        assert_eq!(Collector::of(&Options::default()).unwrap(), None);
        let collector = of("http://127.0.0.1:4318/", 0.5, 5).unwrap().unwrap();
        assert_eq!((collector.url.as_str(), collector.trace_ratio), ("http://127.0.0.1:4318", 0.5));
        assert_eq!(of("https://h/otlp", 1.0, 5).unwrap().unwrap().url, "https://h/otlp");
    }

    #[test]
    fn what_is_no_collector_is_told() {
        for wrong in ["", "127.0.0.1:4318", "grpc://h:4317", "http://", "http://a b"] {
            assert!(of(wrong, 1.0, 5).unwrap_err().to_string().contains("no collector"), "{wrong}");
        }
        for secret in ["http://me:word@h", "http://h/?token=word"] {
            let error = of(secret, 1.0, 5).unwrap_err();
            assert!(error.to_string().contains("credentials") && !error.to_string().contains("word"), "{error}");
        }
        assert!(of("http://h", 1.5, 5).is_err() && of("http://h", -0.1, 5).is_err());
        assert!(of("http://h", f64::NAN, 5).is_err() && of("http://h", 1.0, 0).is_err());
    }

    #[test]
    fn pairs_are_read_as_opentelemetry_writes_them() {
        let read = pairs("Authorization=Bearer%20a=b, x-team = files ,").unwrap();
        let expected = [("Authorization", "Bearer a=b"), ("x-team", "files")];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(pairs("nothing").is_none() && pairs("=x").is_none() && pairs("a=%ff").is_none());
        assert!(!format!("{:?}", Headers(read)).contains("Bearer"));
    }
}
