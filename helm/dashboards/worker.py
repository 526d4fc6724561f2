"""One worker: is it ready, what keeps its model waiting, what did it fail at."""

from panels import BAD, OK, PLAIN, PROMETHEUS, board, datasource_variable, label_variable, link, promql, row, series, stat, up_and_down

SUCCEEDED = 'dotmask_worker_jobs_total{<worker>,outcome="succeeded"}'


def quantile(q, metric, by=""):
    return f"histogram_quantile({q}, sum by (le{by}) (rate({metric}_bucket{{<worker>}}[5m])))"


NOW = row(
    "Is it well?",
    stat("Ready", "1 where it takes work.", "short", promql({"": "max(dotmask_ready{<worker>})"}), limits=[(1, OK)], first=BAD),
    stat("Checks down", "Of Postgres, RabbitMQ, S3 and the model.", "short", promql({"": "sum(1 - dotmask_check_up{<worker>})"}), limits=[(1, BAD)]),
    stat("Images a minute", "Jobs that succeeded here.", "suffix: /min", promql({"": f"60 * sum(rate({SUCCEEDED}[$__rate_interval]))"}), first=PLAIN),
    stat("Model busy", "Share of the time in which the model computes.", "percentunit",
         promql({"": "sum(rate(dotmask_worker_model_busy_seconds_total{<worker>}[$__rate_interval]))"}), first=PLAIN),
    stat("Errors in an hour", "Attempts that ended in an error here.", "short", promql({"": 'sum(increase(dotmask_worker_errors_total{<worker>,class!="shutdown"}[1h]))'}), limits=[(1, "orange")]),
    stat("Leases lost in an hour", "Attempts stopped because another may hold the job.", "short",
         promql({"": "sum(increase(dotmask_worker_leases_lost_total{<worker>}[1h]))"}), limits=[(1, "orange")]),
    stat("Up for", "Since the process started.", "s", promql({"": "time() - max(process_start_time_seconds{<worker>})"}), first=PLAIN, graph=False),
    stat("Version", "The build that runs, and its pool.", "short", promql({"{{version}} ({{pool}})": "dotmask_build_info{<worker>}"}, instant=True), first=PLAIN, graph=False,
         text="name"),
)

TIME = row(
    "Where its time goes",
    series("Stages, median", "p50 of each stage of a job, stacked. Queue is waiting for the model.", "s",
           promql({"{{stage}}": quantile(0.5, "dotmask_worker_stage_seconds", ", stage")}), stacked=True),
    series("Stages, p95", "p95 of each stage of a job, stacked.", "s", promql({"{{stage}}": quantile(0.95, "dotmask_worker_stage_seconds", ", stage")}), stacked=True),
    series("Share of time by stage", "Seconds of each stage a second. Stages of different jobs run side by side, so that the sum may be more than 1.", "percentunit",
           promql({"{{stage}}": "sum by (stage) (rate(dotmask_worker_stage_seconds_sum{<worker>}[$__rate_interval]))"}), stacked=True),
    series("Model", "Share of the time in which the model computes, or waits: for a job, where there is none; for the image of one, which is claimed, fetched and decoded; for a place, where "
           "as many jobs as are held at once are stored.", "percentunit",
           promql({"computes": "sum(rate(dotmask_worker_model_busy_seconds_total{<worker>}[$__rate_interval]))",
                   "waits for {{waits_for}}": "sum by (waits_for) (rate(dotmask_worker_model_idle_seconds_total{<worker>}[$__rate_interval]))"}), highest=1, stacked=True),
    series("Steps a second", "Fine-tuning steps.", "suffix: /s", promql({"steps": "sum(rate(dotmask_worker_steps_total{<worker>}[$__rate_interval]))"})),
    series("Claims", "Jobs that it took, results it took over from another job, and tokens for which nothing was due.", "suffix: /min",
           promql({"claimed": "60 * sum(rate(dotmask_worker_claims_total{<worker>}[$__rate_interval]))",
                   "reused": "60 * sum(rate(dotmask_worker_results_reused_total{<worker>}[$__rate_interval]))",
                   "without work": "60 * sum(rate(dotmask_worker_tokens_without_work_total{<worker>}[$__rate_interval]))"})),
)

ENDS = row(
    "What came of it",
    series("Attempts by how they ended", "With the class of their error. Released: given back when told to stop, not charged.", "suffix: /min",
           promql({"{{outcome}} {{class}}": "60 * sum by (outcome, class) (rate(dotmask_worker_jobs_total{<worker>}[$__rate_interval]))"}), bars=True, stacked=True),
    series("Errors by cause", "Attempts that ended in an error.", "suffix: /min",
           promql({"{{cause}} ({{class}})": '60 * sum by (cause, class) (rate(dotmask_worker_errors_total{<worker>,class!="shutdown"}[$__rate_interval])) > 0'}), bars=True, stacked=True,
           no_value="none"),
    series("Wasted time", "Seconds a second of attempts that came to nothing.", "percentunit",
           promql({"{{outcome}}": "sum by (outcome) (rate(dotmask_worker_wasted_seconds_total{<worker>}[15m]))"})),
    series("IoU with the initial mask", "Of the last hour's masks.", "percentunit",
           promql({"median": "histogram_quantile(0.5, sum by (le) (rate(dotmask_worker_iou_bucket{<worker>}[1h])))",
                   "lowest tenth": "histogram_quantile(0.1, sum by (le) (rate(dotmask_worker_iou_bucket{<worker>}[1h])))"}), highest=1),
    series("Confidence", "Of the last hour's masks.", "percentunit",
           promql({"mean": "sum(rate(dotmask_worker_confidence_sum{<worker>}[1h])) / sum(rate(dotmask_worker_confidence_count{<worker>}[1h]))",
                   "lowest tenth": "histogram_quantile(0.1, sum by (le) (rate(dotmask_worker_confidence_bucket{<worker>}[1h])))"}), highest=1),
    series("Masks", "Made, and those without any foreground.", "suffix: /min",
           promql({"made": "60 * sum(rate(dotmask_worker_masks_total{<worker>}[$__rate_interval]))",
                   "empty": "60 * sum(rate(dotmask_worker_empty_masks_total{<worker>}[$__rate_interval]))"})),
)

PROCESS = row(
    "The process",
    up_and_down("Dependencies", "What it needs.", promql({"{{check}}": "min by (check) (dotmask_check_up{<worker>})"}), width=8),
    series("Reconnects", "Times that a check worked again after it did not, in five minutes.", "short",
           promql({"{{check}}": "sum by (check) (increase(dotmask_reconnects_total{<worker>}[5m]))"}), bars=True, stacked=True),
    series("GPU memory", "In use and in all, as the driver tells it; both 0 on a CPU.", "bytes",
           promql({"used": "max(dotmask_worker_gpu_memory_used_bytes{<worker>})", "total": "max(dotmask_worker_gpu_memory_total_bytes{<worker>})"})),
    series("Memory", "Resident memory of the process.", "bytes", promql({"resident": "max(process_resident_memory_bytes{<worker>})"})),
    series("CPU", "Cores in use.", "short", promql({"cores": "sum(rate(process_cpu_seconds_total{<worker>}[$__rate_interval]))"})),
    series("Open files", "And how many it may open.", "short",
           promql({"open": "max(process_open_fds{<worker>})", "limit": "max(process_max_fds{<worker>})"})),
)

BOARD = board(
    "dotmask-worker",
    "dotmask: a worker",
    "One worker, from its checks to its process.",
    variables=[
        datasource_variable(PROMETHEUS),
        label_variable("namespace", "Namespace", "label_values(dotmask_worker_steps_total, namespace)"),
        label_variable("pool", "Pool", "label_values(dotmask_worker_steps_total{<all>}, pool)", every=".+", several=True),
        # By pod where there are pods; All matches workers outside Kubernetes too.
        label_variable("pod", "Pod", "label_values(dotmask_worker_steps_total{<pools>}, pod)", every=".*"),
        label_variable("instance", "Instance", 'label_values(dotmask_worker_steps_total{<pools>,pod=~"$pod"}, instance)'),
    ],
    rows=[NOW, TIME, ENDS, PROCESS],
    links=[link("dotmask-overview", "Overview", variables=True), link("dotmask-batch", "A batch", variables=False)],
    since="now-3h",
    refresh="30s",
)
