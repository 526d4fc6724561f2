DROP INDEX reusable_results_by_job;
ALTER TABLE batches DROP COLUMN traceparent;
