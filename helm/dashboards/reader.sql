-- What Grafana's user may read for the board of a batch: no request, no place of a result, and nothing to write. Texts of errors may name an
-- image's object; the board leaves those names out, and who has this password can read them. To be run in dotmask's database by its owner, after
-- CREATE ROLE dotmask_reader LOGIN PASSWORD '...'.
GRANT SELECT ON batches, leases, masks, results, scores TO dotmask_reader;
GRANT SELECT (id, batch_id, line, pool, state, epoch, attempt, error_class, error_message, created_at, started_at, finished_at) ON jobs TO dotmask_reader;
GRANT SELECT (job_id, epoch, attempt, worker, started_at, finished_at, outcome) ON attempts TO dotmask_reader;
ALTER ROLE dotmask_reader SET default_transaction_read_only = on;
ALTER ROLE dotmask_reader SET statement_timeout = '30s';
