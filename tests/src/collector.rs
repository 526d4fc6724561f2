use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{Router, body::Bytes, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::any_value::Value,
    trace::v1::{Span, status::StatusCode},
};
use prost::Message as _;
use tokio::{net::TcpListener, task::JoinHandle};

/// What a backend of OpenTelemetry would be sent: OTLP by HTTP, as the protocol's own types decode it. Gone when this is dropped.
pub struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<ExportedSpan>>>,
    server: JoinHandle<()>,
}

/// A span as it was sent.
#[derive(Debug, Clone, PartialEq)]
pub struct ExportedSpan {
    /// Whose it is.
    pub service: String,
    /// What it is of.
    pub name: String,
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub id: String,
    /// 16 hexadecimal digits; empty at a trace's root.
    pub parent_id: String,
    /// Whether what it is of failed.
    pub is_failed: bool,
    /// From its start to its end.
    pub nanoseconds: [u64; 2],
    /// Names and texts.
    pub attributes: Vec<(String, String)>,
}

impl Collector {
    /// Listens at a free port.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(TcpListener::bind("127.0.0.1:0").await?)
    }

    /// Answers who connects to this listener.
    pub fn start_with(listener: TcpListener) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        let spans = Arc::new(Mutex::new(Vec::new()));
        let received = spans.clone();
        let traces = post(async move |body: Bytes| {
            let request = ExportTraceServiceRequest::decode(body).map_err(|error| error.to_string())?;
            received.lock().unwrap_or_else(PoisonError::into_inner).extend(exported(request));
            Ok::<_, String>(())
        });
        let server = tokio::spawn(async move {
            // Ends with the test.
            let _ = axum::serve(listener, Router::new().route("/v1/traces", traces)).await;
        });
        Ok(Self { address, spans, server })
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All that came so far.
    pub fn spans(&self) -> Vec<ExportedSpan> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn exported(request: ExportTraceServiceRequest) -> Vec<ExportedSpan> {
    let of_resources = request.resource_spans.into_iter().flat_map(|spans| {
        let attributes = spans.resource.map(|resource| resource.attributes).unwrap_or_default();
        let service = texts(attributes).into_iter().find(|(name, _)| name == "service.name").map(|(_, value)| value);
        let spans = spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.map(move |span| (service.clone().unwrap_or_default(), span))
    });
    of_resources.map(|(service, span)| exported_span(service, span)).collect()
}

fn exported_span(service: String, span: Span) -> ExportedSpan {
    ExportedSpan {
        service,
        name: span.name,
        trace_id: hex::encode(&span.trace_id),
        id: hex::encode(&span.span_id),
        parent_id: hex::encode(&span.parent_span_id),
        is_failed: span.status.is_some_and(|status| status.code() == StatusCode::Error),
        nanoseconds: [span.start_time_unix_nano, span.end_time_unix_nano],
        attributes: texts(span.attributes),
    }
}

fn texts(attributes: Vec<opentelemetry_proto::tonic::common::v1::KeyValue>) -> Vec<(String, String)> {
    let text = |value: Option<Value>| match value {
        Some(Value::StringValue(text)) => text,
        other => format!("{other:?}"),
    };
    attributes.into_iter().map(|attribute| (attribute.key, text(attribute.value.and_then(|value| value.value)))).collect()
}
