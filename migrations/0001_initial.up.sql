-- Who may take work: a pool is a set of workers that run the same checkpoint.
CREATE TABLE pools (
    name text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9-]{0,39}$'),
    -- Bound by the pool's first worker, so that all masks of a pool come from one checkpoint.
    checkpoint_sha256 text CHECK (checkpoint_sha256 ~ '^[0-9a-f]{64}$'),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- What was submitted together. Counts and the time of its end are read from its jobs, never stored: they cannot drift.
CREATE TABLE batches (
    id uuid PRIMARY KEY,
    name text,
    pool text NOT NULL REFERENCES pools (name),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TYPE job_state AS ENUM ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'quarantined');
CREATE TYPE error_class AS ENUM ('transient', 'permanent', 'shutdown');

-- One image to segment or to evaluate on, and where it is in its life.
CREATE TABLE jobs (
    id uuid PRIMARY KEY,
    batch_id uuid NOT NULL REFERENCES batches (id),
    -- The manifest's line, from 1.
    line bigint NOT NULL CHECK (line >= 1),
    pool text NOT NULL REFERENCES pools (name),
    -- The line's content as it was validated, with every default written out. json, not jsonb: nothing searches in it, and the
    -- numbers stay as they were written.
    request json NOT NULL,

    priority smallint NOT NULL,
    -- Its place in the pool's queue. A batch's jobs count up from where the queue stood when it came in, so that batches waiting
    -- side by side are served in turns, whatever their sizes.
    turn bigint NOT NULL,
    -- Not before this time: the back-off after a transient error.
    run_at timestamptz NOT NULL DEFAULT now(),

    state job_state NOT NULL DEFAULT 'queued',
    -- The fencing token: one more with each claim, never less.
    epoch bigint NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    -- How many attempts were begun, without those a worker gave back.
    attempt integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL CHECK (max_attempts >= 1),
    -- How many workers were lost over it; see the reaper for the one of several jobs that is charged.
    crashes integer NOT NULL DEFAULT 0 CHECK (crashes BETWEEN 0 AND 2),
    error_class error_class,
    error_message text,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,

    CONSTRAINT attempt_within_maximum CHECK (attempt BETWEEN 0 AND max_attempts AND attempt <= epoch),
    CONSTRAINT queued_has_an_attempt_left CHECK (state <> 'queued' OR attempt < max_attempts),
    CONSTRAINT running_was_claimed CHECK (state <> 'running' OR (attempt >= 1 AND started_at IS NOT NULL)),
    CONSTRAINT finished_if_terminal CHECK ((finished_at IS NOT NULL) = (state NOT IN ('queued', 'running'))),
    CONSTRAINT error_if_it_ended_by_one CHECK (
        (error_class IS NOT NULL) = (state IN ('failed', 'quarantined')) AND (error_message IS NOT NULL) = (error_class IS NOT NULL)
    ),
    CONSTRAINT quarantined_after_two_crashes CHECK ((state = 'quarantined') = (crashes = 2))
);

-- Claim: the first due job of a pool, in this very order; run_at is checked within the index. Also counts what is due.
CREATE INDEX jobs_queue ON jobs (pool, priority DESC, turn, id, run_at) WHERE state = 'queued';
-- A batch's jobs page by page; a line is one job.
CREATE UNIQUE INDEX jobs_by_line ON jobs (batch_id, line);
-- A batch's counts and the time of its end, from the index alone.
CREATE INDEX jobs_by_state ON jobs (batch_id, state) INCLUDE (finished_at);

-- Who works on what, until when: as many rows as workers hold jobs. No index beyond the key, so that a heartbeat rewrites
-- nothing but its row; room is left in each page for that.
CREATE TABLE leases (
    job_id uuid PRIMARY KEY REFERENCES jobs (id),
    epoch bigint NOT NULL,
    worker text NOT NULL,
    -- What the worker asked for last.
    ttl interval NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 1000);

CREATE TYPE attempt_outcome AS ENUM ('succeeded', 'transient', 'permanent', 'released', 'lost', 'cancelled');

-- Every claim of every job, for people who ask what happened.
CREATE TABLE attempts (
    job_id uuid NOT NULL REFERENCES jobs (id),
    epoch bigint NOT NULL,
    attempt integer NOT NULL,
    worker text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    outcome attempt_outcome,
    error text,
    PRIMARY KEY (job_id, epoch),
    CONSTRAINT finished_with_an_outcome CHECK ((finished_at IS NULL) = (outcome IS NULL))
);

-- What a lost worker held, among all that it ever did.
CREATE INDEX attempts_open_or_lost ON attempts (worker) WHERE outcome IS NULL OR outcome = 'lost';

-- What came of a job. The key is the promise: at most one result a job. It belongs to the claim that made it.
CREATE TABLE results (
    job_id uuid PRIMARY KEY,
    epoch bigint NOT NULL,
    seconds double precision NOT NULL CHECK (seconds >= 0),
    FOREIGN KEY (job_id, epoch) REFERENCES attempts (job_id, epoch)
);

-- The masks of a result, one an object of the request.
CREATE TABLE masks (
    job_id uuid NOT NULL REFERENCES results (job_id),
    -- Its place among the request's objects, from 1.
    object integer NOT NULL CHECK (object >= 1),
    -- With the initial mask.
    iou double precision NOT NULL,
    -- 0 where the answer is the initial mask itself.
    best_step integer NOT NULL CHECK (best_step >= 0),
    confidence double precision NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    -- A list of texts.
    warnings json NOT NULL,
    PRIMARY KEY (job_id, object)
);

-- In the order of the paper's tables.
CREATE TYPE method AS ENUM ('sam_points', 'sam_mask', 'initial_mask', 'super_clustering', 'untuned', 'finetuned');

-- How an evaluation's methods compare with the truth, one row a repeat and method.
CREATE TABLE scores (
    job_id uuid NOT NULL REFERENCES results (job_id),
    -- How many points: positive/negative.
    setting text NOT NULL CHECK (setting ~ '^[0-9]+/[0-9]+$'),
    repeat integer NOT NULL CHECK (repeat >= 0),
    method method NOT NULL,
    dice double precision,
    iou double precision,
    best_step integer,
    seconds double precision,
    iou_with_initial double precision,
    agreement double precision,
    confidence double precision,
    -- As the paper's published code scores its own method; only with its upsampling.
    published_dice double precision,
    published_iou double precision,
    -- Why there is nothing to score.
    skipped text,
    PRIMARY KEY (job_id, repeat, method),
    CONSTRAINT scored_or_skipped CHECK ((skipped IS NULL) = (dice IS NOT NULL) AND (dice IS NULL) = (iou IS NULL))
);

CREATE TYPE artifact_kind AS ENUM ('mask', 'initial_mask', 'overlay', 'receipt');

-- The objects of a result.
CREATE TABLE artifacts (
    job_id uuid NOT NULL REFERENCES results (job_id),
    kind artifact_kind NOT NULL,
    -- Which of the request's objects it shows, from 1; 0 for all of the image.
    object integer NOT NULL CHECK (object >= 0),
    uri text NOT NULL,
    sha256 text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    bytes bigint NOT NULL CHECK (bytes >= 0),
    PRIMARY KEY (job_id, kind, object)
);

-- Tokens owed to the broker: written with what they announce, deleted when the broker confirmed them, oldest first.
CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pool text NOT NULL REFERENCES pools (name),
    tokens integer NOT NULL CHECK (tokens >= 1),
    created_at timestamptz NOT NULL DEFAULT now()
);
