//! The text format of Prometheus, version 0.0.4 (prometheus.io, "Exposition formats").

use std::fmt::{Display, Write};

use crate::telemetry::Observed;

/// What the text is called in HTTP.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Label names and values of a sample.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// A growing text of metrics. Each name is begun once, with all of its samples behind it.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
}

/// The samples of one metric.
pub(super) struct Samples<'a> {
    text: &'a mut String,
    name: &'a str,
}

impl Exposition {
    /// What only grows; the name ends in `_total`. The help is one line.
    pub(super) fn counter<'a>(&'a mut self, name: &'a str, help: &str) -> Samples<'a> {
        debug_assert!(name.ends_with("_total"), "{name}");
        self.begin(name, "counter", help)
    }

    /// What goes up and down.
    pub(super) fn gauge<'a>(&'a mut self, name: &'a str, help: &str) -> Samples<'a> {
        self.begin(name, "gauge", help)
    }

    /// Durations by class; the name ends in `_seconds`.
    pub(super) fn histogram<'a>(&'a mut self, name: &'a str, help: &str) -> Samples<'a> {
        debug_assert!(name.ends_with("_seconds"), "{name}");
        self.begin(name, "histogram", help)
    }

    /// The whole text.
    pub(super) fn into_text(self) -> String {
        self.text
    }

    fn begin<'a>(&'a mut self, name: &'a str, kind: &str, help: &str) -> Samples<'a> {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Samples { text: &mut self.text, name }
    }
}

impl Samples<'_> {
    /// One value, without labels.
    pub(super) fn is(self, value: impl Display) {
        line(self.text, self.name, "", &[], None, value);
    }

    /// A value; finite, as the format writes other ones in its own way.
    pub(super) fn with(&mut self, labels: Labels<'_>, value: impl Display) {
        line(self.text, self.name, "", labels, None, value);
    }

    /// A histogram: every class counts the shorter ones too, and the last one is all of them.
    pub(super) fn observed(&mut self, labels: Labels<'_>, observed: &Observed) {
        let mut bucket = |up_to: &str, count| line(self.text, self.name, "_bucket", labels, Some(up_to), count);
        for (bound_s, count) in &observed.up_to {
            bucket(&bound_s.to_string(), *count);
        }
        bucket("+Inf", observed.count);
        line(self.text, self.name, "_sum", labels, None, observed.sum_s);
        line(self.text, self.name, "_count", labels, None, observed.count);
    }
}

fn line(text: &mut String, name: &str, suffix: &str, labels: Labels<'_>, le: Option<&str>, value: impl Display) {
    let _ = write!(text, "{name}{suffix}");
    let labels = labels.iter().copied().chain(le.map(|le| ("le", le)));
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
        counter.with(&[("kind", "x"), ("of", "y")], 3);
        counter.with(&[], 4);
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
        text.gauge("a", "A.").with(&[("hook", "a\"} 1\nb{x=\"\\é")], 1);
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
