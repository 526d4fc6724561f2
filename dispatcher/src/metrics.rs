//! What the dispatcher counts: one `record_*` function an event, no id as a label.

use std::{sync::Arc, time::Duration};

use axum::http::{Method, StatusCode};
use ledger::{JobState, ReapedJob, Workload};
use prometheus::{CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts};
use telemetry::Catalogue;

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
    lost_attempt_seconds: CounterVec,
    aged_jobs: IntCounterVec,
    open_jobs: IntGaugeVec,
    busy_workers: IntGaugeVec,
    expired_leases: IntGaugeVec,
    next_job_age: GaugeVec,
    oldest_job_age: GaugeVec,
    job_seconds: GaugeVec,
    open_work_seconds: GaugeVec,
    outbox_tokens: IntGaugeVec,
    outbox_age: GaugeVec,
    ready_tokens: IntGaugeVec,
}

/// What became of a job whose worker was lost.
const REAPED: [&str; 3] = ["requeued", "quarantined", "failed"];

impl Metrics {
    /// Registers every metric; once a catalogue.
    pub fn new(catalogue: &mut Catalogue) -> prometheus::Result<Self> {
        let named = |name: &str, help: &str| Opts::new(format!("dotmask_dispatcher_{name}"), help);
        let gauge = |name: &str, help: &str| IntGaugeVec::new(Opts::new(format!("dotmask_{name}"), help), &["pool"]);
        let measure = |name: &str, help: &str| GaugeVec::new(Opts::new(format!("dotmask_{name}"), help), &["pool"]);
        let seconds = HistogramOpts::new("dotmask_dispatcher_request_seconds", "How long requests took, uploads included")
            .buckets(telemetry::SECONDS.into());
        let mut counter = |name: &str, help: &str, labels: &[&str]| catalogue.add(IntCounterVec::new(named(name, help), labels));
        Ok(Self(Arc::new(Inner {
            requests: counter("requests_total", "HTTP requests", &["method", "route", "status"])?,
            batches: counter("batches_total", "Batches taken in, by the pool of their request", &["pool"])?,
            submitted_jobs: counter("submitted_jobs_total", "Jobs taken in, by the pool of their batch", &["pool"])?,
            published_tokens: counter("published_tokens_total", "Tokens the outbox held that the broker confirmed", &["pool"])?,
            reconciled_tokens: counter(
                "reconciled_tokens_total",
                "Tokens added because the queue had fewer than jobs were due",
                &["pool"],
            )?,
            reaped_leases: counter(
                "reaped_leases_total",
                "Leases taken from lost workers, by what became of the job (requeued, quarantined, failed)",
                &["pool", "outcome"],
            )?,
            aged_jobs: counter("aged_jobs_total", "Jobs raised because their priority stood still", &["pool"])?,
            refused_manifests: catalogue.add(IntCounter::with_opts(named(
                "refused_manifests_total",
                "Manifests refused or broken off, nothing taken in",
            )))?,
            lost_attempt_seconds: catalogue.add(CounterVec::new(
                named("lost_attempt_seconds_total", "Time from the claim to the end of leases that were taken from lost workers"),
                &["pool"],
            ))?,
            request_seconds: catalogue.add(HistogramVec::new(seconds, &["method", "route"]))?,
            open_jobs: catalogue.add(IntGaugeVec::new(
                Opts::new("dotmask_open_jobs", "Jobs that are not done, by state (queued, running)"),
                &["pool", "state"],
            ))?,
            busy_workers: catalogue.add(gauge("busy_workers", "Workers that have at least one job"))?,
            expired_leases: catalogue.add(gauge("expired_leases", "Leases that are over and not taken back yet"))?,
            next_job_age: catalogue.add(measure(
                "next_job_age_seconds",
                "Time since the job that is claimed next was submitted, 0 if none is due",
            ))?,
            oldest_job_age: catalogue.add(measure(
                "oldest_job_age_seconds",
                "Time since the oldest of the jobs that wait was submitted, 0 if none waits",
            ))?,
            job_seconds: catalogue.add(measure(
                "job_seconds",
                "What a job takes a worker, without its wait for the model: the mean of the pool's newest results; 30 where there are none",
            ))?,
            open_work_seconds: catalogue.add(measure(
                "open_work_seconds",
                "How long one worker alone would need for all jobs queued and running",
            ))?,
            outbox_tokens: catalogue.add(gauge("outbox_tokens", "Tokens the broker is still to get"))?,
            outbox_age: catalogue.add(measure("outbox_age_seconds", "How long the oldest of them have waited for it, 0 if none do"))?,
            ready_tokens: catalogue.add(gauge("ready_tokens", "Tokens waiting in the pool's queue, as the broker counts them"))?,
        })))
    }

    /// A pool is known: its counters begin at zero, so that a first event shows as an increase.
    fn begin_at_zero(&self, pool: &str) {
        let inner = &*self.0;
        for counter in
            [&inner.batches, &inner.submitted_jobs, &inner.published_tokens, &inner.reconciled_tokens, &inner.aged_jobs]
        {
            counter.with_label_values(&[pool]);
        }
        for outcome in REAPED {
            inner.reaped_leases.with_label_values(&[pool, outcome]);
        }
        inner.lost_attempt_seconds.with_label_values(&[pool]);
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
    pub fn record_reaped(&self, job: &ReapedJob) {
        let [requeued, quarantined, failed] = REAPED;
        let outcome = match job.state {
            JobState::Quarantined => quarantined,
            JobState::Failed => failed,
            _ => requeued,
        };
        self.0.reaped_leases.with_label_values(&[job.pool.as_str(), outcome]).inc();
        // Against a clock that was set back: a counter never falls.
        self.0.lost_attempt_seconds.with_label_values(&[&job.pool]).inc_by(job.seconds.max(0.0));
    }

    /// Jobs were raised to a higher priority.
    pub fn record_aged(&self, pool: &str, jobs: u64) {
        self.0.aged_jobs.with_label_values(&[pool]).inc_by(jobs);
    }

    /// What the ledger measured of a pool.
    pub fn set_workload(&self, workload: &Workload) {
        let inner = &*self.0;
        let pool = workload.pool.as_str();
        self.begin_at_zero(pool);
        inner.open_jobs.with_label_values(&[pool, "queued"]).set(workload.queued);
        inner.open_jobs.with_label_values(&[pool, "running"]).set(workload.running);
        inner.busy_workers.with_label_values(&[pool]).set(workload.busy_workers);
        inner.expired_leases.with_label_values(&[pool]).set(workload.expired_leases);
        inner.next_job_age.with_label_values(&[pool]).set(workload.next_job_age_seconds.unwrap_or(0.0));
        inner.oldest_job_age.with_label_values(&[pool]).set(workload.oldest_job_age_seconds.unwrap_or(0.0));
        inner.job_seconds.with_label_values(&[pool]).set(workload.job_seconds());
        inner.open_work_seconds.with_label_values(&[pool]).set(workload.open_work_seconds());
        inner.outbox_tokens.with_label_values(&[pool]).set(workload.outbox_tokens);
        inner.outbox_age.with_label_values(&[pool]).set(workload.outbox_age_seconds.unwrap_or(0.0));
    }

    /// The broker's own count of a pool's tokens.
    pub fn set_ready_tokens(&self, pool: &str, tokens: u32) {
        self.0.ready_tokens.with_label_values(&[pool]).set(tokens.into());
    }
}
