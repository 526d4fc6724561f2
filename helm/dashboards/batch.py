"""One batch, out of Postgres: metrics bear no ids. Every statement finds its rows by an index; what would look at every mask of a million images
looks at a sample. Keys of objects are left out of errors."""

from panels import BAD, OK, PLAIN, POSTGRES, WARN, bars, board, datasource_variable, link, panel, row, series, sql, sql_variable, stat, table

# None is chosen where there is none yet.
BATCH = "NULLIF(${batch:sqlstring}, '')::uuid"

SAMPLE = f"WITH sample AS MATERIALIZED (SELECT id, line FROM jobs WHERE batch_id = {BATCH} AND state = 'succeeded' LIMIT 10000)"
OF_SAMPLE = "Of up to 10,000 of the batch's results."

ERROR = "regexp_replace(left(error_message, 300), 's3://[^ :]+', 's3://…', 'g')"


def of(kind, *arguments, **rest):
    return kind(*arguments, source=POSTGRES, **rest)


def tenths(value):
    """How many of the sample's masks are in each tenth from 0 to 1."""
    return f"""
{SAMPLE}
SELECT to_char((tenth - 1) / 10.0, 'FM0.0') || ' to ' || to_char(tenth / 10.0, 'FM0.0') AS "{value}", count(job_id) AS masks
FROM generate_series(1, 10) AS tenth
LEFT JOIN (SELECT job_id, greatest(1, least(10, width_bucket({value}, 0, 1, 10))) AS tenth FROM sample JOIN masks ON job_id = id) AS found USING (tenth)
GROUP BY tenth
ORDER BY tenth"""


STATES = {"queued": "blue", "running": "purple", "succeeded": OK, "failed": BAD, "cancelled": PLAIN, "quarantined": "dark-red"}


def colours(names):
    return [{"matcher": {"id": "byName", "options": name}, "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}]}
            for name, colour in names.items()]


PROGRESS = row(
    "How far is it?",
    of(stat, "Done", "Share of the jobs that have ended, in whatever way.", "percentunit",
       sql(f"SELECT count(*) FILTER (WHERE state NOT IN ('queued', 'running'))::float8 / greatest(count(*), 1) AS done FROM jobs WHERE batch_id = {BATCH}"),
       first=PLAIN, graph=False),
    of(stat, "Jobs by state", "Counted by an index each time, as GET /v1/batches does.", "short",
       sql("SELECT " + ", ".join(f"count(*) FILTER (WHERE state = '{state}') AS {state}" for state in STATES) + f" FROM jobs WHERE batch_id = {BATCH}"),
       width=12, graph=False, colour="value", overrides=colours(STATES)),
    of(stat, "Jobs a minute", "That ended in the last 15 minutes.", "suffix: /min",
       sql(f"SELECT count(*) / 15.0 AS jobs FROM jobs WHERE batch_id = {BATCH} AND state IN ('succeeded', 'failed', 'cancelled', 'quarantined') "
           "AND finished_at > now() - interval '15 minutes'"), first=PLAIN, graph=False),
    of(stat, "Time left", "At the pace of the last 15 minutes; the pool's other batches take turns with this one.", "s",
       sql(f"""
SELECT 900.0 * count(*) FILTER (WHERE state IN ('queued', 'running')) / nullif(count(*) FILTER (WHERE finished_at > now() - interval '15 minutes'), 0) AS left
FROM jobs WHERE batch_id = {BATCH}"""), first=PLAIN, graph=False, no_value="unknown"),
    of(stat, "Age", "From its submission to its end, or to now.", "s",
       sql(f"""
SELECT extract(epoch FROM coalesce((SELECT max(finished_at) FROM jobs WHERE batch_id = {BATCH} HAVING bool_and(finished_at IS NOT NULL)), now()) - created_at)::float8 AS age
FROM batches WHERE id = {BATCH}"""), first=PLAIN, graph=False),
)

PACE = row(
    "Pace",
    of(series, "Jobs that ended, by minute", "By state, in the time range of the board.", "short",
       sql(f"""
SELECT date_trunc('minute', finished_at) AS time, state::text AS metric, count(*) AS jobs
FROM jobs
WHERE batch_id = {BATCH} AND state IN ('succeeded', 'failed', 'cancelled', 'quarantined') AND $__timeFilter(finished_at)
GROUP BY 1, 2
ORDER BY 1""", table=False), width=16, bars=True, stacked=True),
    of(table, "The batch", "As it was submitted.",
       sql(f"SELECT id::text AS id, coalesce(name, '') AS name, pool, reuse, created_at FROM batches WHERE id = {BATCH}"), width=8),
    of(table, "Running now", "Jobs of the batch that a worker holds, longest first, and when their leases end if they are not renewed.",
       sql(f"""
SELECT line, jobs.id::text AS job, worker, attempt, extract(epoch FROM now() - started_at)::float8 AS "held for", expires_at AS "lease until"
FROM jobs JOIN leases ON leases.job_id = jobs.id
WHERE batch_id = {BATCH} AND state = 'running'
ORDER BY started_at
LIMIT 100"""), columns={"held for": "s"}),
)

FAILURES = row(
    "What failed",
    of(table, "Errors", "Of failed and quarantined jobs, by class and text, most frequent first. dispatcher retry queues failed jobs again.",
       sql(f"""
SELECT state::text AS state, error_class::text AS class, {ERROR} AS error, count(*) AS jobs
FROM jobs
WHERE batch_id = {BATCH} AND state IN ('failed', 'quarantined')
GROUP BY 1, 2, 3
ORDER BY jobs DESC
LIMIT 50"""), width=16),
    of(table, "Attempts that came to nothing", "Of jobs that failed or run again, by worker: one worker with many is a node to look at.",
       sql(f"""
SELECT attempts.worker, outcome::text AS outcome, count(*) AS attempts, sum(extract(epoch FROM attempts.finished_at - attempts.started_at))::float8 AS spent
FROM jobs JOIN attempts ON job_id = jobs.id
WHERE batch_id = {BATCH} AND state IN ('running', 'failed', 'quarantined') AND outcome IS NOT NULL
GROUP BY 1, 2
ORDER BY attempts DESC
LIMIT 50"""), width=8, columns={"spent": "s"}),
    of(table, "Failed jobs", "The first hundred by line; dispatcher retry --job queues one again.",
       sql(f"""
SELECT line, id::text AS job, state::text AS state, attempt, error_class::text AS class, {ERROR} AS error, finished_at AS ended
FROM jobs
WHERE batch_id = {BATCH} AND state IN ('failed', 'quarantined')
ORDER BY line
LIMIT 100""")),
)

RESULTS = row(
    "What came of it",
    of(bars, "Confidence", f"Masks by confidence. {OF_SAMPLE}", "short", sql(tenths("confidence")), field="confidence"),
    of(bars, "IoU with the initial mask", f"Masks by IoU. {OF_SAMPLE}", "short", sql(tenths("iou")), field="iou"),
    of(table, "Warnings", f"How many masks bear each. {OF_SAMPLE}",
       sql(f"""
{SAMPLE}
SELECT coalesce(warning, 'none') AS warning, count(*) AS masks
FROM sample JOIN masks ON job_id = id LEFT JOIN LATERAL json_array_elements_text(warnings) AS warning ON true
GROUP BY 1
ORDER BY masks DESC
LIMIT 20"""), width=8),
    of(stat, "Seconds a job", f"What the worker spent on a job. {OF_SAMPLE}", "s",
       sql(f"""
{SAMPLE}
SELECT avg(seconds) AS mean, percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS median, percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds) AS p95
FROM sample JOIN results ON job_id = id"""), width=8, height=8, graph=False, colour="value", first=PLAIN),
    of(table, "Least confident", f"What a person should look at first. {OF_SAMPLE}",
       sql(f"""
{SAMPLE}
SELECT line, id::text AS job, object, confidence, iou, best_step AS step
FROM sample JOIN masks ON job_id = id
ORDER BY confidence
LIMIT 20"""), width=16),
    of(table, "Scores", f"Of a batch of evaluations: means by setting and method over what was scored. {OF_SAMPLE}",
       sql(f"""
{SAMPLE}
SELECT setting, method::text AS method, avg(dice) AS dice, avg(iou) AS iou, count(dice) AS scored, count(skipped) AS skipped
FROM sample JOIN scores ON job_id = id
GROUP BY setting, scores.method
ORDER BY setting, scores.method"""), no_value="no evaluation"),
)

BOARD = board(
    "dotmask-batch",
    "dotmask: a batch",
    "One batch, read from Postgres.",
    variables=[
        datasource_variable(POSTGRES),
        # Ids count up with time: the newest come first by the key alone.
        sql_variable("batch", "Batch", """
SELECT id::text AS __value, to_char(created_at, 'YYYY-MM-DD HH24:MI ') || pool || ' ' || coalesce(name, id::text) AS __text
FROM batches
ORDER BY id DESC
LIMIT 200"""),
    ],
    rows=[PROGRESS, PACE, FAILURES, RESULTS],
    links=[link("dotmask-overview", "Overview", variables=False), link("dotmask-worker", "A worker", variables=False)],
    since="now-24h",
    # Counting a million jobs takes Postgres a good part of a second.
    refresh="1m",
)
