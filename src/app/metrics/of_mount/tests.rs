//! What is exported, held against the format, and against the dashboard and the rules that use it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::bucket::request_log::RequestLog;
use crate::hooks::MessageCounts;
use crate::mount::Requests;
use crate::telemetry::Histogram;

/// A mount with everything that a mount can have.
fn exported() -> String {
    let (requests, asked) = (RequestLog::default(), Requests::default());
    let durations = Histogram::new(&[5, 1000]);
    durations.observe(Duration::from_millis(20));
    let mut operations = requests.operations();
    operations[1].durations = durations.observed();
    operations[1].outcomes.push(("busy", 2));
    let hook = HookStatus {
        name: "a \"quoted\" name".into(),
        invocations: 3,
        durations: durations.observed(),
        gb_seconds: 0.25,
        ..HookStatus::default()
    };
    let counts = Counts {
        requests: RequestCounts { operations, bytes_sent: 1 << 60, ..RequestCounts::of(&requests) },
        cache: CacheStats::default(),
        disk: Some(DiskStats::default()),
        files: FileCounts::default(),
        asked: asked.by_operation(),
        answered_errors: asked.errors(),
        hooks: Some(HooksStatus { hooks: vec![hook], ..HooksStatus::default() }),
    };
    let about = About {
        bucket: "photos",
        prefix: "back\\slash/",
        mountpoint: "/mnt/x",
        endpoint: "http://h",
        region: "r",
        memory_bytes: 1 << 29,
    };
    let mut text = Exposition::default();
    of_mount(&mut text, &about, &counts);
    collector(&mut text, SpanCounts::default());
    crate::app::metrics::of_process::write(&mut text);
    text.into_text()
}

/// A worker that has done nothing yet.
fn exported_by_worker() -> String {
    let about = ["bucket", "prefix", "queue", "endpoint", "region"].map(|name| (name, format!("a \"{name}\"")));
    let (counts, status) = (RequestCounts::of(&RequestLog::default()), HooksStatus::default());
    let mut text = Exposition::default();
    crate::app::metrics::of_worker::of_worker(&mut text, &about, MessageCounts::default(), &counts, &status);
    text.into_text()
}

/// Name and labels, as one, and the value of a sample.
fn sample(line: &str) -> (&str, &str) {
    line.rsplit_once(' ').expect("a name and a value")
}

/// The metric that a sample belongs to, by the types that were told.
fn metric<'a>(sample_name: &'a str, types: &BTreeMap<&str, &str>) -> &'a str {
    let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| sample_name.strip_suffix(end));
    of_histogram.filter(|name| types.get(name) == Some(&"histogram")).unwrap_or(sample_name)
}

fn types(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
}

/// What `promtool check metrics` and the parser of Prometheus insist on.
#[test]
fn the_text_is_what_prometheus_accepts() {
    assert_accepted(&exported());
    assert_accepted(&exported_by_worker());
}

fn assert_accepted(text: &str) {
    assert!(text.ends_with('\n'));
    let types = types(text);
    let (mut current, mut begun, mut told) = ("", BTreeSet::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            current = help.split_once(' ').expect("a name and a help").0;
            assert!(begun.insert(current), "{current} is begun twice");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, current);
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(kind != "histogram" || name.ends_with("_seconds"), "{line}");
        } else {
            let (named, value) = sample(line);
            let name = named.split('{').next().unwrap();
            assert_eq!(metric(name, &types), current, "{line} stands below another's help");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{line}");
            assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
            assert!(named.ends_with('}') == named.contains('{'), "{line}");
            assert!(told.insert(named), "{named} is told twice");
        }
    }
    let other_units =
        ["ms", "us", "ns", "sec", "kb", "mb", "gb", "tb", "kib", "mib", "milliseconds", "minutes", "percent"];
    let in_other_units = |name: &&&str| name.split('_').any(|word| other_units.contains(&word));
    let wrong: Vec<_> = types.keys().filter(in_other_units).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn names_and_values_are_those_of_the_mount() {
    let text = exported();
    for line in [
        "s3mount_mount_info{bucket=\"photos\",prefix=\"back\\\\slash/\",mountpoint=\"/mnt/x\",endpoint=\"http://h\",region=\"r\"} 1",
        "s3mount_s3_requests_total{operation=\"GetObject\",outcome=\"busy\"} 2",
        "s3mount_s3_requests_total{operation=\"PutObject\",outcome=\"ok\"} 0",
        "s3mount_s3_sent_bytes_total 1152921504606846976",
        "s3mount_s3_failures_total{error=\"unreachable\"} 0",
        "s3mount_fuse_errors_total{errno=\"EIO\"} 0",
        "s3mount_memory_limit_bytes 536870912",
        "s3mount_hook_invocations_total{hook=\"a \\\"quoted\\\" name\"} 3",
        "s3mount_hook_duration_seconds_bucket{hook=\"a \\\"quoted\\\" name\",le=\"0.005\"} 0",
        "s3mount_hook_duration_seconds_count{hook=\"a \\\"quoted\\\" name\"} 1",
        "s3mount_hook_billed_byte_seconds_total{hook=\"a \\\"quoted\\\" name\"} 268435456",
    ] {
        assert!(text.lines().any(|told| told == line), "{line} is missing in\n{text}");
    }
}

/// Names of ours in a text, with those that Prometheus makes of a histogram.
fn names_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| ["s3mount_", "process_"].iter().any(|begin| word.starts_with(begin))).collect()
}

#[test]
fn dashboard_and_rules_name_only_what_is_exported() {
    let text = exported();
    let worker = exported_by_worker();
    let (types, of_worker) = (types(&text), types(&worker));
    for path in ["docs/grafana-dashboard.json", "docs/OPERATIONS.md"] {
        let file = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        let names = names_in(&file);
        assert!(names.len() > 10, "{path}: {names:?}");
        let is_known = |types: &BTreeMap<_, _>, name| types.contains_key(metric(name, types));
        let unknown: Vec<_> =
            names.iter().filter(|name| !is_known(&types, name) && !is_known(&of_worker, name)).collect();
        assert!(unknown.is_empty(), "{path} names what nobody exports: {unknown:?}");
    }
}

#[test]
fn the_dashboard_is_one_that_grafana_imports() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/grafana-dashboard.json");
    let dashboard: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!((8..=12).contains(&panels.len()), "{}", panels.len());
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has a number of its own");
    for panel in panels {
        let place = &panel["gridPos"];
        assert!(place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24, "{panel}");
        let targets = panel["targets"].as_array().unwrap();
        let expressions = targets.iter().map(|target| target["expr"].as_str().unwrap());
        assert!(!targets.is_empty() && expressions.clone().all(|expr| expr.contains("$instance")), "{panel}");
    }
}
