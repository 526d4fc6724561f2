-- Expands only: programs of the version before work on while this is applied and afterwards.

-- A table that is being written to, say by a long upload, is waited for only so long: whoever waits for a lock on a table holds up
-- all who come after. The migration is tried again.
SET LOCAL lock_timeout = '3s';

-- What makes a second submission the same batch.
ALTER TABLE batches
    -- The client's own, of any meaning.
    ADD COLUMN idempotency_key text UNIQUE,
    -- Of every line as it was validated, with its pool, and of the batch's priority and whether it reuses.
    ADD COLUMN content_sha256 text,
    -- Whether its jobs may take over results of one another and of other such batches, and lend them theirs.
    ADD COLUMN reuse boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT same_name_and_content_is_the_same_batch UNIQUE (name, content_sha256);

-- Results that a job of the same image, points, checkpoint and parameters may take over.
CREATE TABLE reusable_results (
    -- SHA-256 of all that decides the result.
    key bytea PRIMARY KEY CHECK (length(key) = 32),
    job_id uuid NOT NULL REFERENCES results (job_id)
);

-- A job's life, as the table in ARCHITECTURE.md has it: no statement can make anything else of a job.
CREATE FUNCTION refuse_what_is_no_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- In brackets: an IF ends at the first THEN outside of them.
    IF (CASE
        WHEN OLD.state = 'queued' AND NEW.state = 'running' THEN NEW.epoch = OLD.epoch + 1 AND NEW.attempt = OLD.attempt + 1
        WHEN NEW.epoch <> OLD.epoch THEN false
        WHEN OLD.state = 'queued' THEN NEW.state = 'cancelled' AND NEW.attempt = OLD.attempt
        WHEN OLD.state = 'running' AND NEW.state = 'queued' THEN NEW.attempt IN (OLD.attempt, OLD.attempt - 1)
        WHEN OLD.state = 'running' THEN NEW.state <> 'running' AND NEW.attempt = OLD.attempt
        WHEN OLD.state IN ('failed', 'quarantined') THEN NEW.state = 'queued' AND NEW.attempt = 0 AND NEW.crashes = 0
        ELSE false
    END) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'job % cannot become % with epoch % and attempt %: it is % with % and %',
        OLD.id, NEW.state, NEW.epoch, NEW.attempt, OLD.state, OLD.epoch, OLD.attempt
        USING ERRCODE = 'check_violation';
END
$$;
CREATE TRIGGER transitions BEFORE UPDATE OF state, epoch, attempt ON jobs
    FOR EACH ROW EXECUTE FUNCTION refuse_what_is_no_transition();

-- For ageing: which job heads each priority of a pool, and since when. A head that stays for long is passed over.
CREATE TABLE queue_heads (
    pool text NOT NULL REFERENCES pools (name),
    priority smallint NOT NULL,
    job_id uuid NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pool, priority)
);

-- When the model began with it: of the jobs that a lost worker held, the last one it began with was the one it computed. Left empty by
-- workers of the version before.
ALTER TABLE attempts ADD COLUMN begun_at timestamptz;
