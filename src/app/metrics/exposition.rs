//! What is told of a mount, and as text the format of Prometheus, version 0.0.4 (prometheus.io, "Exposition formats").

use std::fmt::{Display, Write};

use crate::telemetry::Observed;

/// What the text is called in HTTP.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Label names and values of a sample.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// All that is told, metric by metric. Each name is begun once, with all of its samples behind it.
#[derive(Debug, Default)]
pub(in crate::app) struct Exposition {
    metrics: Vec<Metric>,
}

/// One metric.
#[derive(Debug)]
pub(in crate::app) struct Metric {
    pub(in crate::app) name: String,
    pub(in crate::app) help: String,
    pub(in crate::app) kind: Kind,
    pub(in crate::app) samples: Vec<Sample>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::app) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// What a metric came to, for these labels.
#[derive(Debug)]
pub(in crate::app) struct Sample {
    pub(in crate::app) labels: Vec<(String, String)>,
    pub(in crate::app) value: Value,
}

/// A value as it was counted; numbers of broken ones are finite.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::app) enum Value {
    Whole(u64),
    Broken(f64),
    Observed(Observed),
}

/// The samples of one metric.
pub(super) struct Samples<'a>(&'a mut Vec<Sample>);

impl Exposition {
    /// What only grows; the name ends in `_total`. The help is one line.
    pub(super) fn counter(&mut self, name: &str, help: &str) -> Samples<'_> {
        debug_assert!(name.ends_with("_total"), "{name}");
        self.begin(name, Kind::Counter, help)
    }

    /// What goes up and down.
    pub(super) fn gauge(&mut self, name: &str, help: &str) -> Samples<'_> {
        self.begin(name, Kind::Gauge, help)
    }

    /// Durations by class; the name ends in `_seconds`.
    pub(super) fn histogram(&mut self, name: &str, help: &str) -> Samples<'_> {
        debug_assert!(name.ends_with("_seconds"), "{name}");
        self.begin(name, Kind::Histogram, help)
    }

    /// For who tells it in another way.
    pub(in crate::app) fn into_metrics(self) -> Vec<Metric> {
        self.metrics
    }

    /// The whole text.
    pub(super) fn into_text(self) -> String {
        let mut text = String::new();
        for metric in self.metrics {
            metric.write(&mut text);
        }
        text
    }

    fn begin(&mut self, name: &str, kind: Kind, help: &str) -> Samples<'_> {
        let (name, help) = (name.to_owned(), help.to_owned());
        self.metrics.push(Metric { name, help, kind, samples: Vec::new() });
        Samples(&mut self.metrics.last_mut().expect("one was just added").samples)
    }
}

impl Samples<'_> {
    /// One value, without labels.
    pub(super) fn is(mut self, value: impl Into<Value>) {
        self.with(&[], value);
    }

    /// A value.
    pub(super) fn with(&mut self, labels: Labels<'_>, value: impl Into<Value>) {
        let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect();
        self.0.push(Sample { labels, value: value.into() });
    }

    /// A histogram.
    pub(super) fn observed(&mut self, labels: Labels<'_>, observed: &Observed) {
        self.with(labels, observed);
    }
}

macro_rules! values {
    ($($from:ty => $value:ident => $to:expr;)*) => {$(
        impl From<$from> for Value {
            fn from($value: $from) -> Self {
                $to
            }
        }
    )*};
}

values! {
    u64 => value => Self::Whole(value);
    &u64 => value => Self::Whole(*value);
    usize => value => Self::Whole(value as u64);
    f64 => value => Self::Broken(value);
    &Observed => value => Self::Observed(value.clone());
}

impl Metric {
    fn write(&self, text: &mut String) {
        let (name, help) = (&self.name, &self.help);
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for Sample { labels, value } in &self.samples {
            match value {
                Value::Whole(value) => line(text, name, "", labels, None, value),
                Value::Broken(value) => line(text, name, "", labels, None, value),
                Value::Observed(observed) => classes(text, name, labels, observed),
            }
        }
    }
}

/// A histogram: every class counts the shorter ones too, and the last one is all of them.
fn classes(text: &mut String, name: &str, labels: &[(String, String)], observed: &Observed) {
    let mut bucket = |up_to: &str, count| line(text, name, "_bucket", labels, Some(up_to), count);
    for (bound_s, count) in &observed.up_to {
        bucket(&bound_s.to_string(), *count);
    }
    bucket("+Inf", observed.count);
    line(text, name, "_sum", labels, None, observed.sum_s);
    line(text, name, "_count", labels, None, observed.count);
}

fn line(
    text: &mut String,
    name: &str,
    suffix: &str,
    labels: &[(String, String)],
    le: Option<&str>,
    value: impl Display,
) {
    let _ = write!(text, "{name}{suffix}");
    let labels = labels.iter().map(|(label, value)| (label.as_str(), value.as_str()));
    let labels = labels.chain(le.map(|le| ("le", le)));
    let mut begin = '{';
    for (label, value) in labels {
        let _ = write!(text, "{begin}{label}=\"{}\"", Escaped(value));
        begin = ',';
    }
    let end = if begin == ',' { "}" } else { "" };
    let _ = writeln!(text, "{end} {value}");
}

/// A label's value between its quotes.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_gauges_are_lines_below_their_help_and_type() {
        let mut text = Exposition::default();
        let mut counter = text.counter("a_total", "Things.");
        counter.with(&[("kind", "x"), ("of", "y")], 3_u64);
        counter.with(&[], 4_u64);
        text.gauge("b_bytes", "Room.").is(0.5);
        assert_eq!(
            text.into_text(),
            "# HELP a_total Things.\n# TYPE a_total counter\na_total{kind=\"x\",of=\"y\"} 3\na_total 4\n\
             # HELP b_bytes Room.\n# TYPE b_bytes gauge\nb_bytes 0.5\n"
        );
    }

    #[test]
    fn no_value_of_a_label_ends_it_early() {
        let mut text = Exposition::default();
        text.gauge("a", "A.").with(&[("hook", "a\"} 1\nb{x=\"\\é")], 1_u64);
        assert!(text.into_text().ends_with("\na{hook=\"a\\\"} 1\\nb{x=\\\"\\\\é\"} 1\n"));
    }

    #[test]
    fn the_classes_of_a_histogram_add_up_to_its_count() {
        let observed = Observed { up_to: vec![(0.005, 1), (2.5, 3), (60.0, 3)], count: 4, sum_s: 61.25 };
        let mut text = Exposition::default();
        text.histogram("a_seconds", "Times.").observed(&[("op", "x")], &observed);
        assert_eq!(
            text.into_text(),
            "# HELP a_seconds Times.\n# TYPE a_seconds histogram\n\
             a_seconds_bucket{op=\"x\",le=\"0.005\"} 1\na_seconds_bucket{op=\"x\",le=\"2.5\"} 3\n\
             a_seconds_bucket{op=\"x\",le=\"60\"} 3\na_seconds_bucket{op=\"x\",le=\"+Inf\"} 4\n\
             a_seconds_sum{op=\"x\"} 61.25\na_seconds_count{op=\"x\"} 4\n"
        );
    }
}
