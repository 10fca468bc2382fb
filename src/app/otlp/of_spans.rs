//! Spans as OTLP says them, by OpenTelemetry's conventions for AWS where there are some ("Semantic conventions for AWS
//! SDK client spans", "… for AWS S3").

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as Told, Status};

use super::{attribute, nanos, scope, text};
use crate::telemetry::spans::{Fault, Span, Work};
use crate::telemetry::{printable, redacted};

/// Answers to a question, and what nobody needed any more: they are told, but nothing is broken.
const EVERYDAY: [&str; 7] = ["ENOENT", "ENODATA", "not_found", "changed", "abandoned", "superseded", "cancelled"];

/// Spans in one message.
pub(super) fn message(resource: &Resource, spans: &[Span]) -> ExportTraceServiceRequest {
    let spans = spans.iter().map(told).collect();
    let scope_spans = ScopeSpans { scope: Some(scope()), spans, ..ScopeSpans::default() };
    let resource = Some(resource.clone());
    let of_resource = ResourceSpans { resource, scope_spans: vec![scope_spans], ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![of_resource] }
}

fn told(span: &Span) -> Told {
    let (name, kind, mut attributes) = match &span.work {
        Work::Fuse { operation } => {
            (format!("FUSE.{operation}"), SpanKind::Server, vec![text("fuse.operation", *operation)])
        }
        Work::Hook { name, key, event_id } => {
            let attributes =
                vec![text("faas.name", name), text("faas.invocation_id", event_id), text("aws.s3.key", key)];
            (format!("hook {name}"), SpanKind::Internal, attributes)
        }
        Work::S3 { operation, key, tries, http_status, request_id } => {
            let attributes = request(operation, key, *tries, *http_status, request_id.as_deref());
            (format!("S3.{operation}"), SpanKind::Client, attributes)
        }
    };
    attributes.extend(span.fault.as_ref().map(|fault| text("error.type", &fault.kind)));
    Told {
        trace_id: span.ids.trace.into(),
        span_id: span.ids.span.into(),
        parent_span_id: span.parent.map_or_else(Vec::new, Vec::from),
        // Sampled, by an id that is random enough to decide by (W3C Trace Context, level 2).
        flags: 0x03,
        name,
        kind: kind as i32,
        start_time_unix_nano: nanos(span.begun),
        end_time_unix_nano: nanos(span.begun + span.took),
        attributes,
        status: span.fault.as_ref().and_then(status),
        ..Told::default()
    }
}

fn request(
    operation: &str,
    key: &str,
    tries: u32,
    http_status: Option<u16>,
    request_id: Option<&str>,
) -> Vec<KeyValue> {
    let number = |key: &str, value: i64| attribute(key, Value::IntValue(value));
    let mut attributes = vec![
        text("rpc.system", "aws-api"),
        text("rpc.service", "S3"),
        text("rpc.method", operation),
        text("aws.s3.key", key),
        number("s3mount.attempts", tries.into()),
    ];
    attributes.extend((tries > 1).then(|| number("http.request.resend_count", i64::from(tries) - 1)));
    attributes.extend(http_status.map(|status| number("http.response.status_code", status.into())));
    attributes.extend(request_id.map(|id| text("aws.request_id", id)));
    attributes
}

/// Words come from servers and hooks.
fn status(fault: &Fault) -> Option<Status> {
    let is_broken = !EVERYDAY.contains(&fault.kind.as_str());
    let message = printable(&redacted(&fault.words));
    is_broken.then_some(Status { message, code: StatusCode::Error as i32 })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::telemetry::spans::Ids;

    fn of(work: Work, fault: Option<(&str, &str)>) -> Told {
        told(&Span {
            ids: Ids { trace: [1; 16], span: [2; 8] },
            parent: Some([3; 8]),
            begun: UNIX_EPOCH + Duration::from_secs(1),
            took: Duration::from_millis(5),
            work,
            fault: fault.map(|(kind, words)| Fault { kind: kind.into(), words: words.into() }),
        })
    }

    fn request(tries: u32) -> Work {
        let (http_status, request_id) = (Some(503), Some("R".into()));
        Work::S3 { operation: "GetObject", key: "a/b".into(), tries, http_status, request_id }
    }

    #[test]
    fn a_request_has_its_key_status_tries_and_id() {
        let told = of(request(3), Some(("busy", "SlowDown: X-Amz-Signature=secret\n")));
        assert_eq!((told.trace_id, told.span_id, told.parent_span_id), (vec![1; 16], vec![2; 8], vec![3; 8]));
        assert_eq!((told.start_time_unix_nano, told.end_time_unix_nano), (1_000_000_000, 1_005_000_000));
        assert_eq!((told.name.as_str(), told.kind), ("S3.GetObject", SpanKind::Client as i32));
        for expected in [
            text("rpc.method", "GetObject"),
            text("aws.s3.key", "a/b"),
            attribute("http.request.resend_count", Value::IntValue(2)),
            attribute("http.response.status_code", Value::IntValue(503)),
            text("aws.request_id", "R"),
            text("error.type", "busy"),
        ] {
            assert!(told.attributes.contains(&expected), "{expected:?} is not in {:?}", told.attributes);
        }
        let status = told.status.unwrap();
        assert_eq!(
            (status.code, status.message.as_str()),
            (StatusCode::Error as i32, "SlowDown: X-Amz-Signature=***\\n")
        );
    }

    #[test]
    fn everyday_answers_are_no_errors() {
        let looked = of(Work::Fuse { operation: "lookup" }, Some(("ENOENT", "no such file")));
        assert_eq!((looked.name.as_str(), looked.kind, looked.status), ("FUSE.lookup", SpanKind::Server as i32, None));
        assert!(looked.attributes.contains(&text("error.type", "ENOENT")));
        assert_eq!(of(request(1), None).status, None);
    }
}
