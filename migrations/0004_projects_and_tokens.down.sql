ALTER TABLE attempts DROP COLUMN login;
DROP TABLE tokens;
DROP TYPE token_scope;
-- Fails where two projects have used the same key: the version before could not tell their batches apart.
ALTER TABLE batches
    DROP COLUMN project,
    ADD CONSTRAINT batches_idempotency_key_key UNIQUE (idempotency_key),
    ADD CONSTRAINT same_name_and_content_is_the_same_batch UNIQUE (name, content_sha256);
DROP TABLE projects;
