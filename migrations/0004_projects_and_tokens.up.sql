-- Programs of the version before work on while this is applied and afterwards: what they submit belongs to the project `default`. Until the
-- last of their dispatchers is gone there should be no other project, for they know of none.

-- A table that is being written to, say by a long upload, is waited for only so long: whoever waits for a lock on a table holds up
-- all who come after. The migration is tried again.
SET LOCAL lock_timeout = '3s';

-- Whose batches they are: nobody sees those of another project.
CREATE TABLE projects (
    name text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9-]{0,39}$'),
    -- What its requests may read: `s3://bucket/folder/`, or `s3://*` for all that the workers' credentials open.
    reads text[] NOT NULL,
    -- How many of its jobs may wait at a time.
    max_waiting_jobs bigint NOT NULL DEFAULT 10000000 CHECK (max_waiting_jobs >= 1),
    created_at timestamptz NOT NULL DEFAULT now()
);
-- Of the batches there are, and of whoever is served without a token. It reads what they could read so far.
INSERT INTO projects (name, reads) VALUES ('default', '{s3://*}');

ALTER TABLE batches
    ADD COLUMN project text NOT NULL DEFAULT 'default' REFERENCES projects (name),
    -- What makes a second submission the same batch is a matter of the project alone.
    DROP CONSTRAINT batches_idempotency_key_key,
    DROP CONSTRAINT same_name_and_content_is_the_same_batch,
    ADD CONSTRAINT same_key_is_the_same_batch UNIQUE (project, idempotency_key),
    ADD CONSTRAINT same_name_and_content_is_the_same_batch UNIQUE (project, name, content_sha256);

-- Which of the database's logins claimed it: what a worker calls itself is its own to say.
ALTER TABLE attempts ADD COLUMN login text;
ALTER TABLE attempts ALTER COLUMN login SET DEFAULT session_user;

-- What a token may do; each may all that those before it may.
CREATE TYPE token_scope AS ENUM ('read', 'submit', 'admin');

-- Who may use the API. The token itself is kept nowhere.
CREATE TABLE tokens (
    id uuid PRIMARY KEY,
    project text NOT NULL REFERENCES projects (name),
    -- For people: whose it is, and where it is used.
    name text NOT NULL,
    scope token_scope NOT NULL,
    -- Of its text. The text has 256 random bits: nothing slower is needed.
    sha256 bytea NOT NULL UNIQUE CHECK (length(sha256) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    -- To the minute.
    last_used_at timestamptz
);
