"""The board for a person at night: the first row says whether it is well, the rows below why not, and what it costs."""

from panels import (BAD, PLAIN, PROMETHEUS, WARN, board, choice_variable, datasource_variable, label_variable, link, promql, row, series, stat,
                    table, text_variable, up_and_down)

# Every dispatcher reads these from Postgres alike: never to be summed over dispatchers.
BACKLOG = "max by (pool, state) (dotmask_open_jobs{<pools>})"
OPEN_WORK = "max by (pool) (dotmask_open_work_seconds{<pools>})"
BUSY = "max by (pool) (dotmask_busy_workers{<pools>})"

READY = "sum by (pool) (dotmask_ready{<pools>})"
# Each holds its GPU, also while it fetches a checkpoint or waits for a server.
RUNNING = "count by (pool) (dotmask_ready{<pools>})"
WANTED = f"(ceil({OPEN_WORK} / $drain_seconds) > {BUSY}) or {BUSY}"
# Nothing where no worker is ready: then there is no estimate.
ETA = f"{OPEN_WORK} / ({READY} > 0)"

SUCCEEDED = 'dotmask_worker_jobs_total{<pools>,outcome="succeeded"}'
# Of attempts that came to an end of their own; what was given back says nothing of images.
FAILED_SHARE = """sum by (pool) (rate(dotmask_worker_jobs_total{<pools>,outcome="failed"}[15m]))
/ (sum by (pool) (rate(dotmask_worker_jobs_total{<pools>,outcome=~"succeeded|failed"}[15m])) > 0)"""


def cost(window, running=RUNNING, by="by (pool) "):
    """Minutes of workers, each of which holds one GPU, over the images that were answered meanwhile. A sum, not a mean: where no worker is, there is no
    sample."""
    return f"1000 * $gpu_hour_price / 60 * sum_over_time(({running})[{window}:1m]) / (sum {by}(increase({SUCCEEDED}[{window}])) > 0)"


def quantile(q, by, metric, matchers, window="$__rate_interval"):
    return f"histogram_quantile({q}, sum by (le, {by}) (rate({metric}_bucket{{{matchers}}}[{window}])))"


def drift(title, description, now, *, unit="percentunit", limits=(), highest=1):
    """The last hour and the same time before, side by side."""
    return series(title, description, unit, promql({"now": now(""), "$before before": now(" offset $before")}), limits=limits, highest=highest)


def gpu(metric, factor=""):
    """Of the GPUs given to pods of the namespace, whether Prometheus honours the exporter's own labels or renames them."""
    return f'avg by (instance, gpu) ({metric}{{namespace="$namespace"}}{factor} or {metric}{{exported_namespace="$namespace"}}{factor})'


WELL = row(
    "Is it well?",
    stat("Alerts", "Alerts of dotmask that fire now. Each has a section in docs/RUNBOOK.md.", "short",
         promql({"": 'count(ALERTS{namespace=~"$namespace|",alertname=~"Dotmask.+",alertstate="firing"}) or vector(0)'}), limits=[(1, BAD)], graph=False),
    stat("Dependencies down", "Checks of Postgres, RabbitMQ, S3 or the model that fail in some dispatcher or worker.", "short",
         promql({"": "sum(1 - dotmask_check_up{<all>})"}), limits=[(1, BAD)], no_value="not scraped"),
    stat("Images a minute", "Jobs that succeeded, all chosen pools together.", "suffix: /min",
         promql({"": f"60 * sum(rate({SUCCEEDED}[$__rate_interval]))"}), first=PLAIN),
    stat("Backlog", "Jobs queued or running.", "short", promql({"": f"sum({BACKLOG})"}), first=PLAIN, no_value="no dispatcher"),
    stat("Time to drain", "How long the workers that are ready now need for all that is queued and running; of the slowest pool.", "s",
         promql({"": f"max({ETA})"}), limits=[(4 * 3600, WARN), (24 * 3600, BAD)], no_value="no worker"),
    stat("Oldest waiting", "Time since the oldest queued job was submitted.", "s",
         promql({"": "max(dotmask_oldest_job_age_seconds{<pools>})"}), limits=[(8 * 3600, WARN), (48 * 3600, BAD)],
         no_value="no dispatcher"),
    stat("Attempts failed", "Share of attempts of the last 15 minutes that ended in an error, retries included; of the worst pool.", "percentunit",
         promql({"": f"max({FAILED_SHARE})"}), limits=[(0.05, WARN), (0.2, BAD)], no_value="none ended"),
    stat("Cost of 1,000 images", "Worker-hours of the time range, ready or not, at the price given above, over the images answered; chosen pools together. One GPU a worker.",
         "currencyUSD",
         promql({"": cost("$__range", "count(dotmask_ready{<pools>})", "")}, instant=True), first=PLAIN, graph=False, no_value="no image"),
)

FLOW = row(
    "Work and workers",
    series("Images a minute", "Jobs that succeeded, by pool.", "suffix: /min",
           promql({"{{pool}}": f"60 * sum by (pool) (rate({SUCCEEDED}[$__rate_interval]))"}), stacked=True),
    series("Backlog", "Jobs queued and running, as Postgres has them.", "short", promql({"{{pool}} {{state}}": BACKLOG}), stacked=True),
    series("Workers wanted and ready", "Wanted: open work over the drain target, or the workers that are busy, whichever is more; this is what the autoscaler is asked for, "
           "before its limits. Ready: workers whose /readyz says so.", "short", promql({"{{pool}} wanted": WANTED, "{{pool}} ready": READY, "{{pool}} busy": BUSY})),
    series("Time to drain", "Open work over the workers that are ready; no line where none is.", "s", promql({"{{pool}}": ETA})),
    series("Waiting", "Since the oldest queued job was submitted, and since the one that is claimed next was.", "s",
           promql({"{{pool}} oldest": "max by (pool) (dotmask_oldest_job_age_seconds{<pools>})",
                   "{{pool}} next": "max by (pool) (dotmask_next_job_age_seconds{<pools>})"})),
    series("Submitted", "Jobs taken in, by pool.", "suffix: /min",
           promql({"{{pool}}": "60 * sum by (pool) (rate(dotmask_dispatcher_submitted_jobs_total{<pools>}[$__rate_interval]))"}), bars=True),
)

FAILURES = row(
    "Failures",
    series("Errors by cause", "Attempts that ended in an error. Transient ones are tried again, permanent ones are the image's or the request's fault.", "suffix: /min",
           promql({"{{cause}} ({{class}})": '60 * sum by (cause, class) (rate(dotmask_worker_errors_total{<pools>,class!="shutdown"}[$__rate_interval])) > 0'}), bars=True, stacked=True,
           no_value="none"),
    series("Attempts by how they ended", "Released: given back by a worker that was told to stop, not charged. Lease lost: another worker may hold the job.", "suffix: /min",
           promql({"{{outcome}}": "60 * sum by (outcome) (rate(dotmask_worker_jobs_total{<pools>}[$__rate_interval]))"}), bars=True, stacked=True),
    series("Leases", "Lost: workers that stopped because they could not renew. Reaped: taken from workers that vanished, by what became of the job. "
           "Expired: over and not yet taken back, which the reaper does within seconds.", "short",
           promql({"lost in 5 min": "sum(increase(dotmask_worker_leases_lost_total{<pools>}[5m]))",
                   "reaped in 5 min, {{outcome}}": "sum by (outcome) (increase(dotmask_dispatcher_reaped_leases_total{<pools>}[5m]))",
                   "expired now": "sum(max by (pool) (dotmask_expired_leases{<pools>}))"})),
)

TIME = row(
    "Where the time goes",
    series("Stages, median", "p50 of each stage of a job, stacked. Queue is waiting for the model. The stages of one job overlap those of the next.", "s",
           promql({"{{stage}}": quantile(0.5, "stage", "dotmask_worker_stage_seconds", "<pools>", "5m")}), stacked=True),
    series("Stages, p95", "p95 of each stage of a job, stacked; a sum of p95s is more than the p95 of the sum.", "s",
           promql({"{{stage}}": quantile(0.95, "stage", "dotmask_worker_stage_seconds", "<pools>", "5m")}), stacked=True),
    series("Model busy", "Share of the time in which the ready workers' models compute, and in which they wait although their workers have jobs: for an image (a slow store, or decoding), for a "
           "place (uploads slower than the model, or too small a prefetch). The rest of the time there is no work.", "percentunit",
           promql({"{{pool}}": f"sum by (pool) (rate(dotmask_worker_model_busy_seconds_total{{<pools>}}[$__rate_interval])) / ({READY} > 0)",
                   "{{pool}} waits for {{waits_for}}": 'sum by (pool, waits_for) (rate(dotmask_worker_model_idle_seconds_total{<pools>,waits_for!="job"}[$__rate_interval])) '
                                                       f"/ on (pool) group_left () ({READY} > 0)"}), highest=1),
    series("GPU engine", "Share of time the GPU's engine was active, from NVIDIA's dcgm-exporter; its utilisation where profiling is off. GPUs of this namespace's pods.",
           "percentunit", promql({"{{instance}} GPU {{gpu}}": gpu("DCGM_FI_PROF_GR_ENGINE_ACTIVE") + " or " + gpu("DCGM_FI_DEV_GPU_UTIL", " / 100")}), highest=1),
    series("GPU memory", "Memory in use, share of the card's, from NVIDIA's dcgm-exporter. GPUs of this namespace's pods.", "percentunit",
           promql({"{{instance}} GPU {{gpu}}": f"{gpu('DCGM_FI_DEV_FB_USED')} / ({gpu('DCGM_FI_DEV_FB_USED')} + {gpu('DCGM_FI_DEV_FB_FREE')})"}),
           limits=[(0.95, BAD)], highest=1, lines=True),
    series("Steps a second", "Fine-tuning steps by pool.", "suffix: /s",
           promql({"{{pool}}": "sum by (pool) (rate(dotmask_worker_steps_total{<pools>}[$__rate_interval]))"})),
)

MONEY = row(
    "What it costs",
    series("Cost of 1,000 images", "Worker-hours of the last half hour, ready or not, at the price given above, over the images answered in it. One GPU a worker.", "currencyUSD",
           promql({"{{pool}}": cost("30m")})),
    series("Cost an hour", "Workers that run, ready or not, at the price given above. One GPU a worker.", "currencyUSD", promql({"{{pool}}": f"$gpu_hour_price * {RUNNING}"}), stacked=True),
    series("Wasted worker time", "Time of attempts that came to nothing, share of the ready workers' time: failed, given back, lease lost; vanished is that of workers that were "
           "lost, which lease lost has too where they came back. Attempts wait for one another on a worker, so that it can be more than 1.", "percentunit",
           promql({"{{outcome}}": "sum by (outcome) (rate(dotmask_worker_wasted_seconds_total{<pools>}[15m])) / scalar(sum(dotmask_ready{<pools>}) > 0)",
                   "vanished": "sum(rate(dotmask_dispatcher_lost_attempt_seconds_total{<pools>}[15m])) / scalar(sum(dotmask_ready{<pools>}) > 0)"}),
           limits=[(0.2, BAD)], lines=True),
    series("Results reused", "Images answered from another job's result: no GPU time.", "suffix: /min",
           promql({"{{pool}}": "60 * sum by (pool) (rate(dotmask_worker_results_reused_total{<pools>}[$__rate_interval]))"})),
)

QUALITY = row(
    "Quality: the last hour against before",
    drift("IoU with the initial mask", "Median over the masks of an hour, now and so long before. A step without another kind of images means a changed model or broken input.",
          lambda shift: f"histogram_quantile(0.5, sum by (le) (rate(dotmask_worker_iou_bucket{{<pools>}}[1h]{shift})))"),
    drift("Confidence", "Mean over the masks of an hour, now and so long before.",
          lambda shift: f"sum(rate(dotmask_worker_confidence_sum{{<pools>}}[1h]{shift})) / sum(rate(dotmask_worker_confidence_count{{<pools>}}[1h]{shift}))"),
    drift("Empty masks", "Share of the masks of an hour without any foreground, now and so long before.",
          lambda shift: f"sum(rate(dotmask_worker_empty_masks_total{{<pools>}}[1h]{shift})) / sum(rate(dotmask_worker_masks_total{{<pools>}}[1h]{shift}))"),
)

DEPENDENCIES = row(
    "Dependencies, queue and API",
    up_and_down("Dependencies", "What the programs need, each down where it is down for one of them.",
                promql({"dispatchers: {{check}}": "min by (check) (dotmask_check_up{<dispatchers>})", "workers: {{check}}": "min by (check) (dotmask_check_up{<pools>})"})),
    series("Reconnects", "Times that a check worked again after it did not, in five minutes. Many with no outage: a network or a balancer that cuts connections.", "short",
           promql({"{{check}}": "sum by (check) (increase(dotmask_reconnects_total{<all>}[5m]))"}), width=12, bars=True, stacked=True),
    series("Outbox age", "How long the oldest wake-up has waited for the broker's confirmation.", "s",
           promql({"{{pool}}": "max by (pool) (dotmask_outbox_age_seconds{<pools>})"}), limits=[(60, BAD)], lines=True),
    series("Tokens", "Wake-ups: in the outbox, at the broker, and sent once more because the queue had fewer than jobs were due.", "short",
           promql({"{{pool}} outbox": "max by (pool) (dotmask_outbox_tokens{<pools>})", "{{pool}} at the broker": "max by (pool) (dotmask_ready_tokens{<pools>})",
                   "{{pool}} sent again in 5 min": "sum by (pool) (increase(dotmask_dispatcher_reconciled_tokens_total{<pools>}[5m]))"})),
    series("Tokens sent, and without work", "Wake-ups the broker took, and those for which a worker found nothing due: harmless, but each costs a query.", "suffix: /min",
           promql({"sent": "60 * sum(rate(dotmask_dispatcher_published_tokens_total{<pools>}[$__rate_interval]))",
                   "without work": "60 * sum(rate(dotmask_worker_tokens_without_work_total{<pools>}[$__rate_interval]))"})),
    series("API requests", "By HTTP status.", "reqps", promql({"{{status}}": "sum by (status) (rate(dotmask_dispatcher_requests_total{<all>}[$__rate_interval]))"}), stacked=True),
    series("API latency, p95", "By method and route; of POST /v1/batches the upload is a part.", "s",
           promql({"{{method}} {{route}}": quantile(0.95, "method, route", "dotmask_dispatcher_request_seconds", "<all>", "5m")})),
    series("Submissions and refusals", "Batches taken in, manifests refused or broken off, and jobs raised because their priority stood still, in five minutes.", "short",
           promql({"batches": "sum(increase(dotmask_dispatcher_batches_total{<pools>}[5m]))",
                   "refused": "sum(increase(dotmask_dispatcher_refused_manifests_total{<all>}[5m]))",
                   "raised": "sum(increase(dotmask_dispatcher_aged_jobs_total{<pools>}[5m]))"}), bars=True),
)


def joined_by_instance(names, units):
    """One row an instance out of several queries, with plain names for their values."""
    return {
        "transformations": [
            {"id": "joinByField", "options": {"byField": "instance", "mode": "outer"}},
            {"id": "filterFieldsByName", "options": {"include": {"pattern": "^(instance|pool|version|Value #.)$"}}},
            {"id": "organize", "options": {"renameByName": names}},
        ],
        "columns": units,
    }


WORKERS = row(
    "Workers and dispatchers",
    table("Workers", "Each worker that is scraped; its name leads to its own board.",
          promql({"ready": "sum by (instance, pool) (dotmask_ready{<pools>})",
                  "images": f"60 * sum by (instance) (rate({SUCCEEDED}[5m]))",
                  "busy": "sum by (instance) (rate(dotmask_worker_model_busy_seconds_total{<pools>}[5m]))",
                  "memory": "sum by (instance) (process_resident_memory_bytes{<pools>})",
                  "age": "time() - max by (instance) (process_start_time_seconds{<pools>})"}, instant=True, table=True), width=12, height=9,
          **joined_by_instance({"Value #A": "ready", "Value #B": "images a minute", "Value #C": "model busy", "Value #D": "memory", "Value #E": "up for"},
                               {"model busy": "percentunit", "memory": "bytes", "up for": "s"}),
          overrides=[{"matcher": {"id": "byName", "options": "instance"}, "properties": [{"id": "links", "value": [
              {"title": "This worker", "url": "/d/dotmask-worker?${__url_time_range}&${datasource:queryparam}&${namespace:queryparam}&var-instance=${__value.raw}"}]}]}]),
    table("Dispatchers", "Each dispatcher that is scraped.",
          promql({"ready": "sum by (instance) (dotmask_ready{<dispatchers>})",
                  "version": "sum by (instance, version) (dotmask_build_info{<dispatchers>})",
                  "cpu": "sum by (instance) (rate(process_cpu_seconds_total{<dispatchers>}[5m]))",
                  "memory": "sum by (instance) (process_resident_memory_bytes{<dispatchers>})",
                  "files": "sum by (instance) (process_open_fds{<dispatchers>})"}, instant=True, table=True), width=12, height=9,
          **joined_by_instance({"Value #A": "ready", "Value #C": "CPU cores", "Value #D": "memory", "Value #E": "open files"}, {"memory": "bytes"})),
)

BOARD = board(
    "dotmask-overview",
    "dotmask: overview",
    "Whether dotmask is well, why not, and what it costs.",
    variables=[
        datasource_variable(PROMETHEUS),
        # Empty outside Kubernetes, which matches series that have none.
        label_variable("namespace", "Namespace", "label_values(dotmask_open_jobs, namespace)"),
        label_variable("pool", "Pool", "label_values(dotmask_open_jobs{<all>}, pool)", every=".+", several=True),
        text_variable("gpu_hour_price", "Price of a GPU-hour (USD)", "2.50"),
        text_variable("drain_seconds", "Drain target (s)", "600"),
        choice_variable("before", "Quality against", ["1d", "1h"]),
    ],
    rows=[WELL, FLOW, FAILURES, TIME, MONEY, QUALITY, DEPENDENCIES, WORKERS],
    links=[link("dotmask-worker", "A worker", variables=True), link("dotmask-batch", "A batch", variables=False)],
    since="now-6h",
    refresh="30s",
)
