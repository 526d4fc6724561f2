ALTER TABLE attempts DROP COLUMN begun_at;
DROP TABLE queue_heads;
DROP TRIGGER transitions ON jobs;
DROP FUNCTION refuse_what_is_no_transition;
DROP TABLE reusable_results;
ALTER TABLE batches
    DROP CONSTRAINT same_name_and_content_is_the_same_batch,
    DROP COLUMN reuse,
    DROP COLUMN content_sha256,
    DROP COLUMN idempotency_key;
