ALTER TABLE batches DROP COLUMN traceparent;
