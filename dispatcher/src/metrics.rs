//! What the dispatcher counts: one `record_*` function an event, no id as a label.

use std::{sync::Arc, time::Duration};

use axum::http::{Method, StatusCode};
use ledger::{JobState, PoolBacklog};
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, core::Collector,
};

/// The dispatcher's metrics; clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    batches: IntCounterVec,
    submitted_jobs: IntCounterVec,
    refused_manifests: IntCounter,
    published_tokens: IntCounterVec,
    reconciled_tokens: IntCounterVec,
    reaped_leases: IntCounterVec,
    aged_jobs: IntCounterVec,
    jobs: IntGaugeVec,
    ready_tokens: IntGaugeVec,
    outbox_tokens: IntGaugeVec,
    next_job_age: GaugeVec,
}

impl Metrics {
    /// Registers every metric; once a registry.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(format!("dotmask_dispatcher_{name}"), help), labels))
        };
        let gauge =
            |name: &str, help: &str| register(registry, IntGaugeVec::new(Opts::new(format!("dotmask_{name}"), help), &["pool"]));
        let seconds = HistogramOpts::new("dotmask_dispatcher_request_seconds", "How long requests took, uploads included");
        let next_job_age =
            Opts::new("dotmask_next_job_age_seconds", "Time since the job that is claimed next was submitted, 0 if none is due");
        Ok(Self(Arc::new(Inner {
            requests: counter("requests_total", "HTTP requests", &["method", "route", "status"])?,
            request_seconds: register(
                registry,
                HistogramVec::new(seconds.buckets(telemetry::SECONDS.into()), &["method", "route"]),
            )?,
            batches: counter("batches_total", "Batches taken in, by the pool of their request", &["pool"])?,
            submitted_jobs: counter("submitted_jobs_total", "Jobs taken in, by the pool of their batch", &["pool"])?,
            refused_manifests: register(
                registry,
                IntCounter::new(
                    "dotmask_dispatcher_refused_manifests_total",
                    "Manifests refused or broken off, nothing taken in",
                ),
            )?,
            published_tokens: counter("published_tokens_total", "Tokens the outbox held that the broker confirmed", &["pool"])?,
            reconciled_tokens: counter(
                "reconciled_tokens_total",
                "Tokens added because the queue had fewer than jobs were due",
                &["pool"],
            )?,
            reaped_leases: counter(
                "reaped_leases_total",
                "Leases taken from lost workers, by what became of the job",
                &["pool", "outcome"],
            )?,
            aged_jobs: counter("aged_jobs_total", "Jobs raised because their priority stood still", &["pool"])?,
            jobs: register(
                registry,
                IntGaugeVec::new(Opts::new("dotmask_open_jobs", "Jobs that are not done, by pool and state"), &["pool", "state"]),
            )?,
            ready_tokens: gauge("ready_tokens", "Tokens waiting in the pool's queue")?,
            outbox_tokens: gauge("outbox_tokens", "Tokens the broker is still to get")?,
            next_job_age: register(registry, GaugeVec::new(next_job_age, &["pool"]))?,
        })))
    }

    /// A request was answered.
    pub fn record_request(&self, method: &Method, route: &str, status: StatusCode, took: Duration) {
        // A method is whatever text the client sent; only those we answer become labels.
        let method = if [Method::GET, Method::HEAD, Method::POST].contains(method) { method.as_str() } else { "other" };
        self.0.requests.with_label_values(&[method, route, status.as_str()]).inc();
        self.0.request_seconds.with_label_values(&[method, route]).observe(took.as_secs_f64());
    }

    /// A batch was committed.
    pub fn record_submitted(&self, pool: &str, jobs: u64) {
        self.0.batches.with_label_values(&[pool]).inc();
        self.0.submitted_jobs.with_label_values(&[pool]).inc_by(jobs);
    }

    /// A manifest was refused.
    pub fn record_refused(&self) {
        self.0.refused_manifests.inc();
    }

    /// The relay's tokens were confirmed.
    pub fn record_published(&self, pool: &str, tokens: u32) {
        self.0.published_tokens.with_label_values(&[pool]).inc_by(tokens.into());
    }

    /// The reconciler's tokens were confirmed.
    pub fn record_reconciled(&self, pool: &str, tokens: u32) {
        self.0.reconciled_tokens.with_label_values(&[pool]).inc_by(tokens.into());
    }

    /// A lost worker's lease was taken away.
    pub fn record_reaped(&self, pool: &str, outcome: JobState) {
        let outcome = match outcome {
            JobState::Quarantined => "quarantined",
            JobState::Failed => "failed",
            _ => "requeued",
        };
        self.0.reaped_leases.with_label_values(&[pool, outcome]).inc();
    }

    /// Jobs were raised to a higher priority.
    pub fn record_aged(&self, pool: &str, jobs: u64) {
        self.0.aged_jobs.with_label_values(&[pool]).inc_by(jobs);
    }

    /// The ledger's own count of a pool's open jobs.
    pub fn set_open_jobs(&self, pool: &str, queued: u64, running: u64) {
        self.0.jobs.with_label_values(&[pool, "queued"]).set(queued.cast_signed());
        self.0.jobs.with_label_values(&[pool, "running"]).set(running.cast_signed());
    }

    /// The ledger's own measure of what waits in a pool.
    pub fn set_backlog(&self, backlog: &PoolBacklog) {
        self.0.outbox_tokens.with_label_values(&[&backlog.pool]).set(backlog.outbox_tokens);
        self.0.next_job_age.with_label_values(&[&backlog.pool]).set(backlog.next_job_age_seconds.unwrap_or(0.0));
    }

    /// The broker's own count of a pool's tokens.
    pub fn set_ready_tokens(&self, pool: &str, tokens: u32) {
        self.0.ready_tokens.with_label_values(&[pool]).set(tokens.into());
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: prometheus::Result<C>) -> prometheus::Result<C> {
    let collector = collector?;
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
