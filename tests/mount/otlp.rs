//! `--otlp-endpoint`, with a collector that takes the protobuf apart.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;

use hyper::StatusCode;
use opentelemetry_proto::tonic::metrics::v1::HistogramDataPoint;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use s3mount::demo::{Fault, FaultKind};

use crate::stage::collector::{Collector, Received, attribute};
use crate::stage::servers::Inside;
use crate::stage::{Maker, Mount, PATIENCE, Stage, process, wait_for};

/// An operation that waits for so long is told although it asked for nothing.
const LASTING_NS: u64 = 100_000_000;

fn key(span: &Span) -> Option<String> {
    attribute(&span.attributes, "aws.s3.key")
}

/// The span of a request for this key.
fn request<'a>(spans: &'a [Span], name: &str, of: &str) -> &'a Span {
    let found = spans.iter().find(|span| span.name == name && key(span).as_deref() == Some(of));
    found.unwrap_or_else(|| panic!("no {name} of {of} in {spans:#?}"))
}

/// Whoever caused a span; it must be of the same trace.
fn parent<'a>(spans: &'a [Span], child: &Span) -> &'a Span {
    let found = spans.iter().find(|span| span.span_id == child.parent_span_id);
    let parent = found.unwrap_or_else(|| panic!("{child:?} has no parent in {spans:#?}"));
    assert_eq!(parent.trace_id, child.trace_id);
    assert!(parent.start_time_unix_nano <= child.start_time_unix_nano, "{parent:?} {child:?}");
    parent
}

fn args<'a>(url: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["--otlp-endpoint", url], more].concat()
}

fn lines(mount: &Mount, words: &str) -> usize {
    mount.log().lines().filter(|line| line.contains(words)).count()
}

#[test]
fn a_read_is_a_trace_with_the_requests_that_it_caused() {
    let (server, collector) = (Inside::start("s3mount-demo"), Collector::start());
    let mut mount = Stage::at(server.endpoint()).args(&args(&collector.url(), &[])).mount();
    let large = vec![7_u8; 3 << 20];
    mount.outside().put("d/large", &large);
    server.server().faults().add(Fault::once("GetObject", FaultKind::Status(503)));
    assert_eq!(fs::read(mount.at("d/large")).unwrap(), large);
    fs::write(mount.at("d/ours"), "12345").unwrap();
    assert!(fs::metadata(mount.at("missing")).is_err());
    for _ in 0..100 {
        fs::metadata(mount.at("d/large")).unwrap();
    }
    mount.stop();

    let received = collector.received();
    assert_eq!(received.metrics.len(), 1, "the first minute is not over: these are the last words");
    let put = [("operation", "PutObject"), ("outcome", "ok")];
    assert!(received.number("s3mount_s3_requests_total", &put).unwrap() >= 1);
    let spans = received.spans();
    let ids: BTreeSet<_> = spans.iter().map(|span| span.span_id.clone()).collect();
    assert_eq!(ids.len(), spans.len());
    for span in &spans {
        assert!(span.trace_id.len() == 16 && span.span_id.len() == 8, "{span:?}");
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:?}");
        let asked = spans.iter().any(|other| other.parent_span_id == span.span_id);
        let lasted = span.end_time_unix_nano - span.start_time_unix_nano >= LASTING_NS;
        assert!(!span.name.starts_with("FUSE.") || asked || lasted, "what asked S3 for nothing is told: {span:?}");
    }
    let gets: Vec<_> =
        spans.iter().filter(|span| span.name == "S3.GetObject" && key(span).as_deref() == Some("d/large")).collect();
    let tried = |span: &&&Span| attribute(&span.attributes, "http.request.resend_count").as_deref() == Some("1");
    let again = gets.iter().find(tried).unwrap_or_else(|| panic!("none was sent once more: {gets:#?}"));
    let (name, of) = (|key: &str| attribute(&again.attributes, key), again.kind);
    assert_eq!((name("rpc.method").as_deref(), of), (Some("GetObject"), SpanKind::Client as i32));
    assert!(matches!(name("http.response.status_code").as_deref(), Some("200" | "206")), "{again:?}");
    assert!(name("aws.request_id").is_some() && again.status.is_none(), "{again:?}");
    let of_programs: Vec<_> = gets.iter().filter(|get| !get.parent_span_id.is_empty()).collect();
    assert!(!of_programs.is_empty(), "nobody waited for a GET: {gets:#?}");
    for get in of_programs {
        assert!(["FUSE.read", "FUSE.open"].contains(&parent(&spans, get).name.as_str()), "{get:?}");
    }
    let close = parent(&spans, request(&spans, "S3.PutObject", "d/ours"));
    assert_eq!((close.name.as_str(), close.kind), ("FUSE.flush", SpanKind::Server as i32));
    let listing = request(&spans, "S3.ListObjectsV2", "d/");
    assert_eq!(parent(&spans, listing).name, "FUSE.lookup");
}

/// Those of `s3mount status`, before they change any more.
fn requests_sent(mount: &Mount) -> i64 {
    let counts = mount.status()["requests"].as_object().unwrap().clone();
    counts["GetObject"].as_i64().unwrap()
}

#[test]
fn metrics_arrive_with_the_values_that_the_mount_counts() {
    let collector = Collector::start();
    let (url, own) = (collector.url(), Stage::on(Maker::Embedded));
    let stage = own.args(&args(&url, &["--otlp-interval", "200ms"])).env("OTEL_RESOURCE_ATTRIBUTES", "team=a%20b");
    let mut mount = stage.env("OTEL_SERVICE_NAME", "files").mount();
    mount.outside().put("read", b"12345");
    assert_eq!(fs::read(mount.at("read")).unwrap(), b"12345");
    let ok = [("operation", "GetObject"), ("outcome", "ok")];
    let gets = |received: &Received| received.number("s3mount_s3_requests_total", &ok).unwrap_or_default();
    wait_for("metrics while the mount serves", PATIENCE, || (gets(&collector.received()) > 0).then_some(()));
    fs::write(mount.at("ours"), "1234567").unwrap();
    let sent = requests_sent(&mount);
    mount.stop();

    let received = collector.received();
    assert_eq!(gets(&received), sent, "the last message tells all");
    assert!(received.number("s3mount_s3_received_bytes_total", &[]).unwrap() >= 5);
    assert!(received.number("s3mount_s3_sent_bytes_total", &[]).unwrap() >= 7);
    assert!(received.number("s3mount_fuse_requests_total", &[("operation", "lookup")]).unwrap() >= 1);
    assert_eq!(received.number("s3mount_dirty_files", &[]), Some(0));
    assert!(received.number("process_resident_memory_bytes", &[]).unwrap() > 1_000_000);
    assert_eq!(received.number("s3mount_otlp_spans_total", &[("outcome", "dropped")]), Some(0));
    let durations = received.metric("s3mount_s3_request_duration_seconds").unwrap();
    let Some(Data::Histogram(histogram)) = durations.data else { panic!("{durations:?}") };
    let of_get =
        |point: &&HistogramDataPoint| attribute(&point.attributes, "operation").as_deref() == Some("GetObject");
    let point = histogram.data_points.iter().find(of_get).unwrap();
    assert_eq!(i64::try_from(point.count).unwrap(), sent);
    assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
    let resource = received.resource();
    let of_resource = |key: &str| attribute(&resource.attributes, key).unwrap_or_default();
    assert_eq!((of_resource("service.name"), of_resource("team")), ("files".to_owned(), "a b".to_owned()));
    assert_eq!(of_resource("s3mount.bucket"), mount.outside().bucket());
    assert_eq!(of_resource("s3mount.mountpoint"), mount.path().to_string_lossy());
}

#[test]
fn a_collector_that_is_away_harms_nothing() {
    // Nobody listens there until the end.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{address}");
    let mut mount = Stage::on(Maker::Embedded).args(&args(&url, &["--otlp-interval", "100ms"])).mount();
    wait_for("the line in the log", PATIENCE, || (lines(&mount, "collector cannot be reached") > 0).then_some(()));
    for number in 0..50 {
        let name = format!("f{number}");
        fs::write(mount.at(&name), &name).unwrap();
        assert_eq!(fs::read(mount.at(&name)).unwrap(), name.as_bytes());
    }
    let collector = Collector::at(address, StatusCode::OK);
    wait_for("the other line", PATIENCE, || (lines(&mount, "can be reached again") > 0).then_some(()));
    drop(collector);
    mount.stop();
    assert_eq!(mount.outside().keys("").len(), 50);
    assert_eq!(lines(&mount, "can be reached again"), 1, "{}", mount.log());
    assert!((1..=2).contains(&lines(&mount, "collector cannot be reached")), "once each time: {}", mount.log());
}

#[test]
fn a_collector_that_never_answers_holds_up_no_unmount() {
    // The kernel accepts what nobody serves.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let mut mount = Stage::on(Maker::Embedded).args(&args(&url, &["--otlp-interval", "100ms"])).mount();
    let (mut stream, _) = silent.accept().unwrap();
    std::io::Read::read_exact(&mut stream, &mut [0; 16]).unwrap();
    fs::write(mount.at("f"), "x").unwrap();
    mount.stop();
    assert_eq!(mount.outside().bytes("f"), b"x");
}

#[test]
fn what_a_collector_refuses_is_told_once_and_the_rest_goes_on() {
    let collector = Collector::at(([127, 0, 0, 1], 0).into(), StatusCode::NOT_FOUND);
    let stage = Stage::on(Maker::Embedded).args(&args(&collector.url(), &["--otlp-interval", "100ms"]));
    let mut mount = stage.env("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20a-secret-word").mount();
    fs::write(mount.at("f"), "x").unwrap();
    wait_for("refused traces", PATIENCE, || (!collector.received().traces.is_empty()).then_some(()));
    fs::write(mount.at("g"), "x").unwrap();
    mount.stop();
    let received = collector.received();
    assert!(received.traces.len() > 1 && !received.metrics.is_empty());
    assert!(received.authorizations.iter().all(|said| said == "Bearer a-secret-word"));
    assert_eq!(received.authorizations.len(), received.traces.len() + received.metrics.len());
    assert_eq!(lines(&mount, "traces are refused, and dropped"), 1, "{}", mount.log());
    assert!(!mount.log().contains("a-secret-word"), "{}", mount.log());

    let collector = Collector::start();
    let url = collector.url();
    mount.set_args(&args(&url, &["--otlp-traces", "0"]));
    mount.start();
    fs::write(mount.at("h"), "x").unwrap();
    mount.stop();
    let received = collector.received();
    assert!(received.traces.is_empty() && !received.metrics.is_empty(), "no traces were wanted");
}

#[test]
fn runs_of_hooks_are_told() {
    let collector = Collector::start();
    let mut mount = Stage::on(Maker::Embedded).args(&args(&collector.url(), &[])).hooks("").prepare();
    fs::write(mount.beside("fine.wat"), "(module (func (export \"_start\")))").unwrap();
    fs::write(mount.beside("fails.wat"), "(module (func (export \"_start\") unreachable))").unwrap();
    let hook = |name: &str| {
        let rest = "match = [\"*.txt\"]\noutput = \"made\"\nretries = 0\n";
        format!("[[hook]]\nname = \"{name}\"\nwasm = \"{name}.wat\"\n{rest}")
    };
    fs::write(mount.beside("hooks.toml"), hook("fine") + &hook("fails")).unwrap();
    mount.start();
    fs::write(mount.at("a.txt"), "x").unwrap();
    // Says with its exit code that something was given up.
    process::output(mount.command().args(["hooks", "wait"]).arg(mount.at("a.txt")), PATIENCE);
    mount.stop();
    let spans = collector.received().spans();
    for (hook, code) in [("fine", None), ("fails", Some(SpanStatus::Error as i32))] {
        let run = request(&spans, &format!("hook {hook}"), "a.txt");
        assert_eq!(attribute(&run.attributes, "faas.name").as_deref(), Some(hook));
        assert_eq!(run.status.as_ref().map(|status| status.code), code, "{run:?}");
    }
}
