use std::{
    env,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context, KeyValue, global,
    trace::{
        Link, Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId,
        TraceState, Tracer as _, TracerProvider as _,
    },
};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    resource::{EnvResourceDetector, TelemetryResourceDetector},
    trace::{Sampler, SamplingDecision, SamplingResult, SdkTracerProvider, ShouldSample, SpanData},
};
use tracing::{Span, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{Layer as _, Registry, filter::filter_fn, layer::SubscriberExt as _};

use crate::{LogFormat, Outage, TelemetryError, logs};

/// What is left of spans when the process ends has so long to reach the collector.
const FLUSH: Duration = Duration::from_secs(1);
/// The instrumentation's name, which every span bears.
const SCOPE: &str = "dotmask";

/// Which program this is.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// The crate whose spans are traced: `worker`. Exported as the service `dotmask-worker` where `OTEL_SERVICE_NAME` names no other.
    pub name: &'static str,
    /// The field by which spans are sampled where many of them share one trace: `parentbased_traceidratio` takes its share of them
    /// by its value, and not all or none by the trace's id.
    pub sampled_by: Option<&'static str>,
}

/// Spans are made as long as the process lives.
pub struct Traces(SdkTracerProvider);

static ARE_EXPORTED: AtomicBool = AtomicBool::new(false);

/// Starts logs and traces.
///
/// Spans are always made, so that logs bear a trace's id. They are exported where OpenTelemetry's variables name a collector; one that is
/// away holds up nothing, and what does not fit into the queue meanwhile is lost.
pub fn start(service: Service, format: LogFormat) -> Result<Traces, TelemetryError> {
    let lines = logs::layer::<Registry>(format)?;
    let provider = provider(service)?;
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(SCOPE))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        // Nothing of other crates, and no log lines: only what is known to hold no secret leaves by this way.
        .with_filter(
            filter_fn(move |metadata| metadata.is_span() && metadata.target().split("::").next() == Some(service.name))
                .with_max_level_hint(LevelFilter::INFO),
        );
    // Not `try_init`, which would take in the lines of the crate log as well: where both filters refuse one, tracing-subscriber 0.3.23
    // takes the thread's next span for refused too, and lines lose their job's id.
    let subscriber = tracing_subscriber::registry().with(lines).with(spans);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| TelemetryError::Twice)?;
    global::set_tracer_provider(provider.clone());
    logs::log_panics();
    Ok(Traces(provider))
}

impl Traces {
    /// Exports what is left, for at most a second.
    pub async fn end(self) {
        let flush = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(FLUSH));
        // An outage was told when it began.
        let _ = flush.await;
    }
}

/// Makes a span that has just been made continue the trace of a W3C `traceparent`, or begin one where there is none or it is malformed.
/// The span's field `trace.id` becomes the trace's id.
pub fn join_trace(span: &Span, traceparent: Option<&str>) {
    if let Some(parent) = traceparent.and_then(parse_traceparent) {
        // Fails only where nobody traces.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
    let context = span.context();
    span.record("trace.id", tracing::field::display(context.span().span_context().trace_id()));
}

/// How another program continues this span's trace: W3C's `traceparent`. None where nobody traces.
pub fn traceparent(span: &Span) -> Option<String> {
    let context = span.context();
    let span = context.span().span_context().clone();
    let flags = span.trace_flags() & TraceFlags::SAMPLED;
    span.is_valid().then(|| format!("00-{}-{}-{flags:02x}", span.trace_id(), span.span_id()))
}

/// What a program sends that was itself started with a `traceparent`, or with none: its span where spans are exported, and else what it
/// was given, because a span that nobody exports would be a parent that no trace shows.
pub fn traceparent_to_send(span: &Span, given: Option<String>) -> Option<String> {
    if ARE_EXPORTED.load(Ordering::Relaxed) { traceparent(span) } else { given.filter(|text| parse_traceparent(text).is_some()) }
}

/// The current span has children, one after the other, each of so many seconds; the last one has just ended.
pub fn children_ended(children: &[(&'static str, f64)]) {
    let parent = Span::current().context();
    if !parent.span().span_context().is_sampled() {
        return;
    }
    let tracer = global::tracer(SCOPE);
    let mut ends = SystemTime::now();
    for &(name, seconds) in children.iter().rev() {
        let starts = ends - Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let child = SpanBuilder::from_name(name).with_start_time(starts);
        tracer.build_with_context(child, &parent).end_with_timestamp(ends);
        ends = starts;
    }
}

/// Attributes of the current span for traces alone; log lines do not bear them.
pub fn annotate<const N: usize>(attributes: [(&'static str, String); N]) {
    for (key, value) in attributes {
        Span::current().set_attribute(key, value);
    }
}

/// The current span is of something that failed.
pub fn mark_failed(reason: &'static str) {
    Span::current().set_status(Status::error(reason));
}

/// As <https://www.w3.org/TR/trace-context/#traceparent-header> has it; of later versions what version 00 knows.
fn parse_traceparent(text: &str) -> Option<SpanContext> {
    let (head, rest) = text.split_at_checked(55)?;
    let fields: [&str; 4] = head.split('-').collect::<Vec<_>>().try_into().ok()?;
    let is_hexadecimal = head.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    let [version, trace_id, span_id, flags] = fields;
    let is_whole = if version == "00" { rest.is_empty() } else { rest.is_empty() || rest.starts_with('-') };
    if fields.map(str::len) != [2, 32, 16, 2] || !is_hexadecimal || version == "ff" || !is_whole {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let (trace_id, span_id) = (TraceId::from_hex(trace_id).ok()?, SpanId::from_hex(span_id).ok()?);
    let context = SpanContext::new(trace_id, span_id, flags, true, TraceState::NONE);
    context.is_valid().then_some(context)
}

fn provider(service: Service) -> Result<SdkTracerProvider, TelemetryError> {
    let mut resource = Resource::builder_empty()
        .with_service_name(format!("dotmask-{}", service.name))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    if let Some(name) = variable("OTEL_SERVICE_NAME") {
        resource = resource.with_service_name(name);
    }
    let sampler = TraceSampler::from_environment(service.sampled_by)?;
    let provider = SdkTracerProvider::builder().with_resource(resource.build()).with_sampler(sampler);
    Ok(match exporter()? {
        Some(exporter) => provider.with_batch_exporter(exporter).build(),
        None => provider.build(),
    })
}

/// None where no collector is named: then nothing is ever sent.
fn exporter() -> Result<Option<ReportingExporter>, TelemetryError> {
    let is_named =
        ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"].into_iter().any(|name| variable(name).is_some());
    let is_disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || variable("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
    if !is_named || is_disabled {
        return Ok(None);
    }
    for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
        match variable(name) {
            Some(value) if value != "http/protobuf" => {
                let expected = "http/protobuf, which collectors take at port 4318 as a rule";
                return Err(TelemetryError::Variable { variable: name, value, expected });
            }
            // The first one given decides.
            Some(_) => break,
            None => {}
        }
    }
    let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).build();
    let exporter = exporter.map_err(|error| TelemetryError::Exporter { reason: error.to_string() })?;
    ARE_EXPORTED.store(true, Ordering::Relaxed);
    Ok(Some(ReportingExporter { exporter, outage: Mutex::new(Outage::new("exporting traces")) }))
}

/// Says once that the collector is away and once that it is back, where the SDK would say it of every batch or never.
#[derive(Debug)]
struct ReportingExporter {
    exporter: SpanExporter,
    outage: Mutex<Outage>,
}

impl opentelemetry_sdk::trace::SpanExporter for ReportingExporter {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        let outcome = self.exporter.export(spans).await;
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        match &outcome {
            Ok(()) => outage.works(),
            // The next batch is the next attempt, whenever it comes.
            Err(error) => drop(outage.failed(error)),
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Decides which spans are exported, as `OTEL_TRACES_SAMPLER` says.
#[derive(Debug, Clone)]
struct TraceSampler {
    standard: Sampler,
    /// The field of [`Service::sampled_by`], and the sampler that takes its share of them.
    shared: Option<(&'static str, Sampler)>,
}

impl TraceSampler {
    fn from_environment(sampled_by: Option<&'static str>) -> Result<Self, TelemetryError> {
        Self::new(variable("OTEL_TRACES_SAMPLER"), variable("OTEL_TRACES_SAMPLER_ARG"), sampled_by)
    }

    fn new(name: Option<String>, argument: Option<String>, sampled_by: Option<&'static str>) -> Result<Self, TelemetryError> {
        let name = name.unwrap_or_else(|| "parentbased_always_on".into());
        let root = match name.trim_start_matches("parentbased_") {
            "always_on" => Sampler::AlwaysOn,
            "always_off" => Sampler::AlwaysOff,
            "traceidratio" => Sampler::TraceIdRatioBased(ratio(argument)?),
            _ => {
                let expected = "always_on, always_off, traceidratio, or one of them after parentbased_";
                return Err(TelemetryError::Variable { variable: "OTEL_TRACES_SAMPLER", value: name, expected });
            }
        };
        if !name.starts_with("parentbased_") {
            return Ok(Self { standard: root, shared: None });
        }
        let has_ratio = matches!(root, Sampler::TraceIdRatioBased(_));
        let shared = sampled_by.filter(|_| has_ratio).map(|field| (field, root.clone()));
        Ok(Self { standard: Sampler::ParentBased(Box::new(root)), shared })
    }
}

impl ShouldSample for TraceSampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let result = self.standard.should_sample(parent, trace_id, name, kind, attributes, links);
        let continues = parent.is_some_and(|parent| parent.span().span_context().is_valid());
        let Some((field, sampler)) = self.shared.as_ref().filter(|_| continues && result.decision != SamplingDecision::Drop)
        else {
            return result;
        };
        let Some(attribute) = attributes.iter().find(|attribute| attribute.key.as_str() == *field) else { return result };
        let mut hash = DefaultHasher::new();
        attribute.value.as_str().hash(&mut hash);
        let in_place_of_trace = TraceId::from(u128::from(hash.finish()));
        sampler.should_sample(None, in_place_of_trace, name, kind, attributes, links)
    }
}

fn ratio(argument: Option<String>) -> Result<f64, TelemetryError> {
    let value = argument.unwrap_or_default();
    let ratio = value.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    let expected = "a share from 0 to 1, such as 0.01";
    ratio.ok_or(TelemetryError::Variable { variable: "OTEL_TRACES_SAMPLER_ARG", value, expected })
}

/// As OpenTelemetry has it, an empty variable is one that is not set.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn reads_a_traceparent_as_the_standard_has_it() {
        let context = parse_traceparent(VALID).expect("the standard's own example");
        assert_eq!(context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(context.span_id().to_string(), "b7ad6b7169203331");
        assert!(context.is_sampled() && context.is_remote());
        assert!(!parse_traceparent(&VALID.replace("-01", "-02")).expect("a flag nobody knows").is_sampled());
        for later in [
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what",
        ] {
            assert!(parse_traceparent(later).is_some(), "{later}");
        }
    }

    #[test]
    fn takes_nothing_for_a_traceparent_that_is_none() {
        let zeros = |count| "0".repeat(count);
        for malformed in [
            "",
            "00",
            &VALID[1..],
            &VALID.to_uppercase(),
            &format!("{VALID} "),
            &format!("{VALID}-more"),
            &VALID.replacen("00-", "ff-", 1),
            &format!("{}.later", VALID.replacen("00-", "cc-", 1)),
            &VALID.replace("0af7651916cd43dd8448eb211c80319c", &zeros(32)),
            &VALID.replace("b7ad6b7169203331", &zeros(16)),
            &VALID.replace("0af7", "+af7"),
            &VALID.replace("0af7651916cd43dd8448eb211c80319c", &"é".repeat(16)),
        ] {
            assert_eq!(parse_traceparent(malformed), None, "{malformed:?}");
        }
    }

    fn sampled(sampler: &TraceSampler, parent: &str, job: u32) -> bool {
        let parent = Context::new().with_remote_span_context(parse_traceparent(parent).expect("valid"));
        let attributes = [KeyValue::new("job.id", job.to_string())];
        let trace_id = parent.span().span_context().trace_id();
        let result = sampler.should_sample(Some(&parent), trace_id, "job", &SpanKind::Internal, &attributes, &[]);
        result.decision == SamplingDecision::RecordAndSample
    }

    #[test]
    fn of_jobs_that_share_a_sampled_trace_the_ratios_share_is_sampled_and_always_the_same_ones() {
        let sampler = |name: &str, argument: &str| TraceSampler::new(Some(name.into()), Some(argument.into()), Some("job.id"));
        let tenth = sampler("parentbased_traceidratio", "0.1").expect("valid");
        let chosen: Vec<u32> = (0..10_000).filter(|&job| sampled(&tenth, VALID, job)).collect();
        assert!((800..1_200).contains(&chosen.len()), "{}", chosen.len());
        assert!(chosen.iter().all(|&job| sampled(&tenth, VALID, job)));
        let unsampled = VALID.replace("-01", "-00");
        assert!(!chosen.iter().any(|&job| sampled(&tenth, &unsampled, job)), "the parent decides first");

        let usual = TraceSampler::new(None, None, Some("job.id")).expect("the default");
        assert!((0..100).all(|job| sampled(&usual, VALID, job) && !sampled(&usual, &unsampled, job)));
        assert!(!sampled(&sampler("always_off", "").expect("valid"), VALID, 1));
    }

    #[test]
    fn refuses_a_sampler_it_does_not_know_and_a_share_that_is_none() {
        for (name, argument) in
            [("jaeger_remote", None), ("parentbased_", None), ("traceidratio", None), ("traceidratio", Some("7"))]
        {
            let refused = TraceSampler::new(Some(name.into()), argument.map(Into::into), None).expect_err(name);
            assert!(refused.to_string().contains("OTEL_TRACES_SAMPLER"), "{refused}");
        }
    }
}
