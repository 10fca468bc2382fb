//! The metrics of Prometheus as OTLP says them: the same names, so that the dashboard and the rules hold for both.

use std::time::SystemTime;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric as Told, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::{nanos, scope, text};
use crate::app::metrics::{Kind, Metric, Sample, Value};
use crate::telemetry::Observed;

/// Counters tell all since `begun`.
const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

/// All metrics in one message.
pub(super) fn message(
    resource: &Resource,
    metrics: Vec<Metric>,
    begun: SystemTime,
    now: SystemTime,
) -> ExportMetricsServiceRequest {
    let moments = Moments { begun: nanos(begun), now: nanos(now) };
    // A metric without samples says nothing, and is refused by some.
    let told = metrics.into_iter().filter(|metric| !metric.samples.is_empty()).map(|metric| moments.metric(metric));
    let scope_metrics = ScopeMetrics { scope: Some(scope()), metrics: told.collect(), ..ScopeMetrics::default() };
    let resource = Some(resource.clone());
    let of_resource = ResourceMetrics { resource, scope_metrics: vec![scope_metrics], ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![of_resource] }
}

/// In nanoseconds since 1970.
struct Moments {
    begun: u64,
    now: u64,
}

impl Moments {
    fn metric(&self, metric: Metric) -> Told {
        let Metric { name, help, kind, samples } = metric;
        let data = match kind {
            Kind::Counter => Data::Sum(Sum {
                data_points: samples.into_iter().map(|sample| self.number(sample)).collect(),
                aggregation_temporality: CUMULATIVE,
                is_monotonic: true,
            }),
            Kind::Gauge => {
                Data::Gauge(Gauge { data_points: samples.into_iter().map(|sample| self.number(sample)).collect() })
            }
            Kind::Histogram => Data::Histogram(Histogram {
                data_points: samples.into_iter().filter_map(|sample| self.histogram(sample)).collect(),
                aggregation_temporality: CUMULATIVE,
            }),
        };
        Told { unit: unit(&name).to_owned(), name, description: help, data: Some(data), ..Told::default() }
    }

    fn number(&self, Sample { labels, value }: Sample) -> NumberDataPoint {
        let value = match value {
            Value::Whole(whole) => Number::AsInt(i64::try_from(whole).unwrap_or(i64::MAX)),
            Value::Broken(broken) => Number::AsDouble(broken),
            Value::Observed(observed) => Number::AsDouble(observed.sum_s),
        };
        NumberDataPoint {
            attributes: labels.into_iter().map(|(label, value)| text(&label, value)).collect(),
            start_time_unix_nano: self.begun,
            time_unix_nano: self.now,
            value: Some(value),
            ..NumberDataPoint::default()
        }
    }

    /// Prometheus counts shorter ones in each class, OTLP does not.
    fn histogram(&self, Sample { labels, value }: Sample) -> Option<HistogramDataPoint> {
        let Value::Observed(Observed { up_to, count, sum_s }) = value else { return None };
        let (bounds, counts): (Vec<f64>, Vec<u64>) = up_to.into_iter().unzip();
        let below = std::iter::once(0).chain(counts.iter().copied());
        let bucket_counts = counts.iter().copied().chain([count]).zip(below).map(|(to, from)| to - from).collect();
        Some(HistogramDataPoint {
            attributes: labels.into_iter().map(|(label, value)| text(&label, value)).collect(),
            start_time_unix_nano: self.begun,
            time_unix_nano: self.now,
            count,
            sum: Some(sum_s),
            bucket_counts,
            explicit_bounds: bounds,
            ..HistogramDataPoint::default()
        })
    }
}

/// The unit that the name tells (UCUM). Numbers of things have none: with `1` some call them ratios.
fn unit(name: &str) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    if name.ends_with("_byte_seconds") {
        "By.s"
    } else if name.ends_with("_bytes") {
        "By"
    } else if name.ends_with("_seconds") {
        "s"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn told(name: &str, kind: Kind, value: Value) -> Told {
        let sample = Sample { labels: vec![("op".into(), "x".into())], value };
        let metric = Metric { name: name.into(), help: "Things.".into(), kind, samples: vec![sample] };
        let empty = Metric { name: "empty".into(), help: String::new(), kind, samples: Vec::new() };
        let at = |s| UNIX_EPOCH + Duration::from_secs(s);
        let mut message = message(&Resource::default(), vec![metric, empty], at(1), at(2));
        let mut told = message.resource_metrics.remove(0).scope_metrics.remove(0).metrics;
        assert_eq!(told.len(), 1, "what has no samples is left out");
        told.remove(0)
    }

    #[test]
    fn counters_are_sums_that_only_grow() {
        let told = told("a_bytes_total", Kind::Counter, Value::Whole(u64::MAX));
        assert_eq!(
            (told.name.as_str(), told.unit.as_str(), told.description.as_str()),
            ("a_bytes_total", "By", "Things.")
        );
        let Some(Data::Sum(sum)) = told.data else { panic!("{told:?}") };
        assert!(sum.is_monotonic && sum.aggregation_temporality == CUMULATIVE);
        let point = &sum.data_points[0];
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (1_000_000_000, 2_000_000_000));
        assert_eq!(point.attributes, [text("op", "x")]);
        assert_eq!(point.value, Some(Number::AsInt(i64::MAX)));
    }

    #[test]
    fn what_goes_up_and_down_is_a_gauge() {
        let told = told("a_files", Kind::Gauge, Value::Broken(0.5));
        assert_eq!(told.unit, "");
        let Some(Data::Gauge(gauge)) = told.data else { panic!("{told:?}") };
        assert_eq!(gauge.data_points[0].value, Some(Number::AsDouble(0.5)));
    }

    #[test]
    fn every_duration_of_a_histogram_counts_in_one_class() {
        let observed = Observed { up_to: vec![(0.005, 1), (2.5, 3), (60.0, 3)], count: 4, sum_s: 61.25 };
        let told = told("a_seconds", Kind::Histogram, Value::Observed(observed));
        assert_eq!(told.unit, "s");
        let Some(Data::Histogram(histogram)) = told.data else { panic!("{told:?}") };
        let point = &histogram.data_points[0];
        assert_eq!(
            (point.explicit_bounds.as_slice(), point.bucket_counts.as_slice()),
            ([0.005, 2.5, 60.0].as_slice(), [1, 2, 0, 1].as_slice())
        );
        assert_eq!((point.count, point.sum), (4, Some(61.25)));
    }
}
