-- Expands only: programs of the version before work on while this is applied and afterwards.

-- A table that is being written to, say by a long upload, is waited for only so long: whoever waits for a lock on a table holds up
-- all who come after. The migration is tried again.
SET LOCAL lock_timeout = '3s';

-- The span that the batch came in with, as W3C's `traceparent` of version 00: its jobs continue that trace. None of batches that came
-- by the version before.
ALTER TABLE batches ADD COLUMN traceparent text
    CONSTRAINT traceparent_is_valid CHECK (traceparent ~ '^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$');

-- Without it each result that is deleted, with its batch years later, would look through all of these.
CREATE INDEX reusable_results_by_job ON reusable_results (job_id);
