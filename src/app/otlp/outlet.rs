//! The way to the collector, and what the log says of it: one line when it is away, one when it is back.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use prost::Message;

use crate::config::Collector;
use crate::relay::{Error, Relay};
use crate::telemetry::{printable, spans};

/// For one message; the SDKs of OpenTelemetry wait as long.
const DEADLINE: Duration = Duration::from_secs(10);

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// But for so many of its parts, which the collector does not want.
    Taken { rejected: u64 },
    /// Another try would end the same way.
    Refused,
    /// Another try may help.
    Away,
}

/// What is sent, and what the log has last said of it.
#[derive(Debug)]
struct Signal {
    what: &'static str,
    path: &'static str,
    is_refused: bool,
}

pub(super) struct Outlet {
    collector: Collector,
    relay: Relay,
    metrics: Signal,
    spans: Signal,
    is_away: bool,
}

impl Outlet {
    pub(super) fn to(collector: Collector) -> Self {
        let signal = |what, path| Signal { what, path, is_refused: false };
        let (metrics, spans) = (signal("metrics", "/v1/metrics"), signal("traces", "/v1/traces"));
        // Nothing that it sends there is signed.
        let relay = Relay::new(None, "");
        Self { collector, relay, metrics, spans, is_away: false }
    }

    pub(super) async fn metrics(&mut self, message: &ExportMetricsServiceRequest) -> Sent {
        let answer = self.post(self.metrics.path, message.encode_to_vec()).await.map(|body| {
            // Who took it and answers nonsense has taken it.
            let answer = ExportMetricsServiceResponse::decode(body.as_slice()).unwrap_or_default();
            answer.partial_success.map_or((0, String::new()), |part| (part.rejected_data_points, part.error_message))
        });
        told(&mut self.metrics, &mut self.is_away, &self.collector.url, answer)
    }

    pub(super) async fn spans(&mut self, message: &ExportTraceServiceRequest) -> Sent {
        let answer = self.post(self.spans.path, message.encode_to_vec()).await.map(|body| {
            let answer = ExportTraceServiceResponse::decode(body.as_slice()).unwrap_or_default();
            answer.partial_success.map_or((0, String::new()), |part| (part.rejected_spans, part.error_message))
        });
        told(&mut self.spans, &mut self.is_away, &self.collector.url, answer)
    }

    async fn post(&self, path: &str, message: Vec<u8>) -> Result<Vec<u8>, Error> {
        let url = format!("{}{path}", self.collector.url);
        let posting = self.relay.post_protobuf(&url, &self.collector.headers.0, message);
        let late = || Error::Away(format!("{url}: no answer within {} s", DEADLINE.as_secs()));
        tokio::time::timeout(DEADLINE, posting).await.unwrap_or_else(|_| Err(late()))
    }
}

/// Says in the log what has changed.
fn told(signal: &mut Signal, is_away: &mut bool, url: &str, answer: Result<(i64, String), Error>) -> Sent {
    let what = signal.what;
    if !matches!(answer, Err(Error::Away(_))) && std::mem::take(is_away) {
        let dropped = spans::counts().map_or(0, |counts| counts.dropped);
        tracing::info!(dropped_spans = dropped, "OTLP: the collector at {url} can be reached again");
    }
    match answer {
        Ok((rejected, words)) => {
            let rejected = u64::try_from(rejected).unwrap_or_default();
            let refuses_some = rejected > 0 || !words.is_empty();
            if refuses_some && !signal.is_refused {
                tracing::warn!(rejected, "OTLP: {url} does not want all {what}: {}", printable(&words));
            } else if !refuses_some && signal.is_refused {
                tracing::info!("OTLP: {url} takes {what} again");
            }
            signal.is_refused = refuses_some;
            Sent::Taken { rejected }
        }
        Err(Error::Refused(cause)) => {
            if !std::mem::replace(&mut signal.is_refused, true) {
                tracing::warn!("OTLP: {what} are refused, and dropped: {}", printable(&cause));
            }
            Sent::Refused
        }
        Err(Error::Away(cause)) => {
            if !std::mem::replace(is_away, true) {
                tracing::warn!(
                    "OTLP: the collector cannot be reached: {}; the mount goes on, spans are dropped when too many wait",
                    printable(&cause)
                );
            }
            Sent::Away
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_collector_answers_is_what_became_of_the_message() {
        let mut signal = Signal { what: "traces", path: "/v1/traces", is_refused: false };
        let mut is_away = false;
        let mut tell = |answer| {
            let sent = told(&mut signal, &mut is_away, "http://h", answer);
            (sent, signal.is_refused, is_away)
        };
        let away = || Err(Error::Away("gone".into()));
        assert_eq!(tell(away()), (Sent::Away, false, true));
        assert_eq!(tell(Err(Error::Refused("404".into()))), (Sent::Refused, true, false), "who refuses is there");
        assert_eq!(tell(away()), (Sent::Away, true, true));
        assert_eq!(tell(Ok((0, String::new()))), (Sent::Taken { rejected: 0 }, false, false));
        assert_eq!(tell(Ok((3, "too old".into()))), (Sent::Taken { rejected: 3 }, true, false));
    }
}
