//! A collector of OpenTelemetry that keeps what it is sent.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, number_data_point};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// All that came, oldest first.
#[derive(Clone, Default)]
pub struct Received {
    pub traces: Vec<ExportTraceServiceRequest>,
    pub metrics: Vec<ExportMetricsServiceRequest>,
    /// Values of the header `authorization`.
    pub authorizations: Vec<String>,
}

/// A running collector; ends with this value, and whoever is connected is cut off.
pub struct Collector {
    address: SocketAddr,
    received: Arc<Mutex<Received>>,
    _runtime: Runtime,
}

impl Collector {
    pub fn start() -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), StatusCode::OK)
    }

    /// Answers so to traces.
    pub fn at(address: SocketAddr, traces: StatusCode) -> Self {
        let runtime = Runtime::new().expect("runtime");
        let listener = runtime.block_on(TcpListener::bind(address)).expect("the collector's port");
        let address = listener.local_addr().expect("its address");
        let received = Arc::<Mutex<Received>>::default();
        let kept = Arc::clone(&received);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                let service = service_fn(move |request| answer(request, Arc::clone(&kept), traces));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, received, _runtime: runtime }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn received(&self) -> Received {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn answer(
    request: Request<Incoming>,
    kept: Arc<Mutex<Received>>,
    traces: StatusCode,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a whole message").to_bytes();
    let is_otlp = head.method == Method::POST && head.headers["content-type"] == "application/x-protobuf";
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(said) = head.headers.get("authorization") {
        kept.authorizations.push(said.to_str().expect("ASCII").to_owned());
    }
    let status = match head.uri.path() {
        "/v1/traces" if is_otlp => {
            kept.traces.push(ExportTraceServiceRequest::decode(body).expect("spans"));
            traces
        }
        "/v1/metrics" if is_otlp => {
            kept.metrics.push(ExportMetricsServiceRequest::decode(body).expect("metrics"));
            StatusCode::OK
        }
        _ => StatusCode::NOT_FOUND,
    };
    let answer = Response::builder().status(status).header("content-type", "application/x-protobuf");
    Ok(answer.body(Full::default()).expect("an answer"))
}

/// An attribute, as text.
pub fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()? {
        AnyValue { value: Some(Value::StringValue(text)) } => Some(text.clone()),
        AnyValue { value: Some(Value::IntValue(number)) } => Some(number.to_string()),
        other => panic!("{key} is {other:?}"),
    }
}

impl Received {
    pub fn spans(&self) -> Vec<Span> {
        let of_resource = self.traces.iter().flat_map(|message| &message.resource_spans);
        of_resource.flat_map(|of| &of.scope_spans).flat_map(|of| &of.spans).cloned().collect()
    }

    pub fn resource(&self) -> Resource {
        self.metrics[0].resource_metrics[0].resource.clone().expect("a resource")
    }

    /// A metric of the last message.
    pub fn metric(&self, name: &str) -> Option<Metric> {
        let of_resource = self.metrics.last()?.resource_metrics.iter();
        let mut all = of_resource.flat_map(|of| &of.scope_metrics).flat_map(|of| &of.metrics);
        all.find(|metric| metric.name == name).cloned()
    }

    /// What a counter or a gauge came to, of the point with all of these labels.
    pub fn number(&self, name: &str, labels: &[(&str, &str)]) -> Option<i64> {
        let points = match self.metric(name)?.data? {
            Data::Sum(sum) => sum.data_points,
            Data::Gauge(gauge) => gauge.data_points,
            other => panic!("{name} is {other:?}"),
        };
        let is_meant = |point: &&NumberDataPoint| {
            labels.iter().all(|(key, value)| attribute(&point.attributes, key).as_deref() == Some(*value))
        };
        match points.iter().find(is_meant)?.value? {
            number_data_point::Value::AsInt(whole) => Some(whole),
            number_data_point::Value::AsDouble(broken) => panic!("{name} is {broken}"),
        }
    }
}
