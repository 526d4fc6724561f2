use std::{collections::BTreeMap, mem};

use request::SegmentationRequest;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    Ledger, LedgerError, MAX_ATTEMPTS, NewBatch, Result, SubmittedBatch, copy, errors::Answer as _, pools::is_pool_name,
    projects::Room, upload::Upload,
};

/// How much is gathered before it is sent: the writer needs a few times this much memory, and one line more.
const FLUSH_BYTES: usize = 128 * 1_024;

/// A batch on its way in; see [`Ledger::begin_batch`].
#[derive(Debug)]
pub struct BatchWriter {
    ledger: Ledger,
    /// Not here while rows are sent.
    transaction: Option<Upload>,
    /// Sends rows, at most one task at a time: Postgres stores them while the next are gathered. Ends when this is dropped, and then nothing is
    /// committed.
    sending: JoinSet<(Upload, Result<()>)>,
    id: Uuid,
    project: String,
    /// How many more jobs of the project may wait, as it was at the beginning.
    room: Room,
    name: Option<String>,
    pool: String,
    priority: i16,
    idempotency_key: Option<String>,
    /// Over every line so far.
    content: Sha256,
    /// What is not sent yet, and about how many bytes that are.
    jobs: Vec<NewJob>,
    bytes: usize,
    shares: BTreeMap<String, Share>,
}

/// A job on its way in.
#[derive(Debug)]
struct NewJob {
    id: Uuid,
    line: i64,
    pool: String,
    request: String,
    turn: i64,
}

/// What one pool gets of the batch.
#[derive(Debug)]
struct Share {
    /// Where the pool's queue stood.
    first_turn: i64,
    jobs: i32,
}

impl Ledger {
    /// Begins a batch in a transaction of its own. Nothing is visible before the commit; dropping the writer rolls back.
    pub async fn begin_batch(&self, batch: NewBatch) -> Result<BatchWriter> {
        let doing = "begin a batch";
        let mut transaction = Upload::begin(&self.pool).answer(doing).await?;
        let NewBatch { project, name, pool, priority, idempotency_key, reuse, traceparent } = batch;
        let room = Room::of(&mut transaction, &project, 0).await?;
        let mut content = Sha256::new();
        content.update(format!("priority {priority}, reuse {reuse}\n"));
        let mut writer = BatchWriter {
            ledger: self.clone(),
            transaction: Some(transaction),
            sending: JoinSet::new(),
            id: Uuid::now_v7(),
            project,
            room,
            // Postgres keeps no NUL in a text.
            name: name.map(|name| name.replace('\0', "")),
            pool,
            priority,
            idempotency_key,
            content,
            jobs: Vec::new(),
            bytes: 0,
            shares: BTreeMap::new(),
        };
        // Refuses a pool that does not exist before the foreign key does, by name.
        writer.first_turn(&writer.pool.clone()).await?;
        // Where it may be a batch that is there already, its content decides at the end whether anything is added.
        writer.room.left = room.left.max(writer.jobs_of_earlier().await?);
        sqlx::query!(
            "INSERT INTO batches (id, project, name, pool, reuse, traceparent) VALUES ($1, $2, $3, $4, $5, $6)",
            writer.id,
            writer.project,
            writer.name,
            writer.pool,
            reuse,
            traceparent
        )
        .execute(&mut **writer.transaction().await?)
        .answer(doing)
        .await?;
        Ok(writer)
    }

    /// The batch whose identity another submission has, too.
    async fn earlier_batch(
        &self,
        project: &str,
        key: Option<String>,
        name: Option<String>,
        content_sha256: String,
    ) -> Result<SubmittedBatch> {
        let batch = sqlx::query!(
            r#"
            SELECT
                id,
                content_sha256 = $3 AS "has_this_content!",
                (SELECT count(*) FROM jobs WHERE batch_id = batches.id) AS "jobs!"
            FROM batches
            WHERE project = $4 AND (idempotency_key = $1 OR name = $2 AND content_sha256 = $3)
            -- Where both are there and differ, the key is what the client relies on.
            ORDER BY idempotency_key IS NOT DISTINCT FROM $1 DESC
            LIMIT 1
            "#,
            key,
            name,
            content_sha256,
            project
        )
        .fetch_one(&self.pool)
        .answer("look up the batch of an earlier submission")
        .await?;
        if !batch.has_this_content {
            return Err(LedgerError::KeyOfAnotherBatch { batch: batch.id });
        }
        Ok(SubmittedBatch { id: batch.id, jobs: batch.jobs.cast_unsigned(), is_new: false })
    }
}

const STORING: &str = "store the jobs of a batch";

/// One COPY. Each is complete by itself, so that between them the connection is free for other statements, and an error shows soon.
async fn copy_jobs(transaction: &mut Upload, batch: Uuid, priority: i16, jobs: &[NewJob]) -> Result<()> {
    const COPY: &str = "COPY jobs (id, batch_id, line, pool, request, priority, turn, max_attempts) FROM STDIN";
    let (batch, priority, max_attempts) = (batch.to_string(), priority.to_string(), MAX_ATTEMPTS.to_string());
    let mut rows = Vec::with_capacity(2 * FLUSH_BYTES);
    for NewJob { id, line, pool, request, turn } in jobs {
        let (id, line, turn) = (id.to_string(), line.to_string(), turn.to_string());
        for column in [&id, &batch, &line, pool, request, &priority, &turn, &max_attempts] {
            copy::column(&mut rows, column);
        }
        copy::end(&mut rows);
    }
    let mut copy = transaction.copy_in_raw(COPY).answer(STORING).await?;
    copy.send(rows.as_slice()).answer(STORING).await?;
    copy.finish().answer(STORING).await?;
    Ok(())
}

/// For few, the last ones of a batch: sqlx sends the end of a COPY as a packet of its own, which TCP holds back until Postgres' side has confirmed the one
/// before, and that takes its time, 40 ms, in case there were an answer to send with it.
async fn insert_jobs(transaction: &mut Upload, batch: Uuid, priority: i16, jobs: Vec<NewJob>) -> Result<()> {
    let (mut ids, mut lines, mut pools, mut requests, mut turns) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for NewJob { id, line, pool, request, turn } in jobs {
        ids.push(id);
        lines.push(line);
        pools.push(pool);
        requests.push(request);
        turns.push(turn);
    }
    sqlx::query!(
        "INSERT INTO jobs (id, batch_id, line, pool, request, priority, turn, max_attempts)
         SELECT id, $1, line, pool, request::json, $2, turn, $3
         FROM unnest($4::uuid[], $5::bigint[], $6::text[], $7::text[], $8::bigint[]) AS given (id, line, pool, request, turn)",
        batch,
        priority,
        MAX_ATTEMPTS,
        &ids,
        &lines,
        &pools,
        &requests,
        &turns
    )
    .execute(&mut **transaction)
    .answer(STORING)
    .await?;
    Ok(())
}

impl BatchWriter {
    /// The id the batch will have.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Adds a job; the lines count from 1, each at most once. After an error the writer is good for nothing but dropping it.
    pub async fn push(&mut self, line: u64, request: &SegmentationRequest) -> Result<()> {
        let unstorable = |reason: &str| LedgerError::Unstorable { line, reason: reason.into() };
        if request.id.as_ref().is_some_and(|id| id.contains('\0')) {
            return Err(unstorable("its id has a NUL character"));
        }
        self.room.check(line)?;
        let content = serde_json::to_string(&request).map_err(|error| unstorable(&error.to_string()))?;
        let pool = request.pool.as_ref().unwrap_or(&self.pool).clone();
        let turn = self.next_turn(&pool).await?;
        self.content.update(format!("{line} {pool} {content}\n"));

        self.bytes += content.len();
        self.jobs.push(NewJob { id: Uuid::now_v7(), line: line.cast_signed(), pool, request: content, turn });
        if self.bytes >= FLUSH_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Makes the batch visible, with one outbox row a pool. Where a batch of the same name and content, or of the same idempotency
    /// key, is there already, that one is the answer and this one is dropped.
    pub async fn commit(mut self) -> Result<SubmittedBatch> {
        let doing = "commit a batch";
        self.flush().await?;
        let mut transaction = self.settled().await?;
        let jobs: u64 = self.shares.values().map(|share| u64::from(share.jobs.unsigned_abs())).sum();
        if jobs == 0 {
            return Err(LedgerError::EmptyBatch);
        }
        let (pools, tokens): (Vec<String>, Vec<i32>) = self.shares.into_iter().map(|(pool, share)| (pool, share.jobs)).unzip();
        let content_sha256 = hex::encode(self.content.finalize());
        let identity = sqlx::query!(
            "UPDATE batches SET idempotency_key = $2, content_sha256 = $3 WHERE id = $1",
            self.id,
            self.idempotency_key,
            content_sha256
        );
        // Waits for the end of a submission of the same identity that is under way.
        match identity.execute(&mut *transaction).answer(doing).await {
            Err(error) if error.is_unique_violation() => {
                transaction.rollback().answer(doing).await?;
                return self.ledger.earlier_batch(&self.project, self.idempotency_key, self.name, content_sha256).await;
            }
            outcome => outcome?,
        };
        // Two batches that come in together may each have seen room for itself. The second one waits here for the first one's end; uploads that
        // are under way, which hold the row's key, are not waited for.
        sqlx::query!("SELECT FROM projects WHERE name = $1 FOR NO KEY UPDATE", self.project)
            .execute(&mut *transaction)
            .answer(doing)
            .await?;
        Room::of(&mut transaction, &self.project, jobs).await?.check(jobs)?;
        sqlx::query!("INSERT INTO outbox (pool, tokens) SELECT * FROM unnest($1::text[], $2::integer[])", &pools, &tokens)
            .execute(&mut *transaction)
            .answer(doing)
            .await?;
        transaction.commit().answer(doing).await?;
        Ok(SubmittedBatch { id: self.id, jobs, is_new: true })
    }

    /// Begins to send what was gathered, once what was gathered before is stored; an error of that shows here.
    async fn flush(&mut self) -> Result<()> {
        if self.jobs.is_empty() {
            return Ok(());
        }
        let mut transaction = self.settled().await?;
        let is_full = mem::take(&mut self.bytes) >= FLUSH_BYTES;
        let jobs = mem::take(&mut self.jobs);
        let (batch, priority) = (self.id, self.priority);
        self.sending.spawn(async move {
            let outcome = if is_full {
                copy_jobs(&mut transaction, batch, priority, &jobs).await
            } else {
                insert_jobs(&mut transaction, batch, priority, jobs).await
            };
            (transaction, outcome)
        });
        Ok(())
    }

    /// The transaction, with every row stored that was sent, to be put back or ended.
    async fn settled(&mut self) -> Result<Upload> {
        if let Some(sent) = self.sending.join_next().await {
            let (transaction, outcome) = sent.map_err(|_| LedgerError::GivenUp)?;
            outcome?;
            self.transaction = Some(transaction);
        }
        self.transaction.take().ok_or(LedgerError::GivenUp)
    }

    /// The same, which stays.
    async fn transaction(&mut self) -> Result<&mut Upload> {
        let transaction = self.settled().await?;
        Ok(self.transaction.insert(transaction))
    }

    /// How many jobs the largest batch has that has the same key or name; 0 where there is none.
    async fn jobs_of_earlier(&mut self) -> Result<u64> {
        let jobs = sqlx::query_scalar!(
            r#"
            SELECT coalesce(max((SELECT count(*) FROM jobs WHERE batch_id = batches.id)), 0) AS "jobs!"
            FROM batches
            WHERE project = $1 AND (idempotency_key = $2 OR name = $3)
            "#,
            self.project.clone(),
            self.idempotency_key.clone(),
            self.name.clone()
        );
        let jobs = jobs.fetch_one(&mut **self.transaction().await?).answer("look for an earlier submission").await?;
        Ok(jobs.cast_unsigned())
    }

    async fn next_turn(&mut self, pool: &str) -> Result<i64> {
        if !self.shares.contains_key(pool) {
            let first_turn = self.first_turn(pool).await?;
            self.shares.insert(pool.into(), Share { first_turn, jobs: 0 });
        }
        let share = self.shares.get_mut(pool).expect("just inserted");
        let turn = share.first_turn + i64::from(share.jobs);
        share.jobs += 1;
        Ok(turn)
    }

    /// Where the pool's queue stands: the lowest turn among the jobs that wait for their first attempt.
    async fn first_turn(&mut self, pool: &str) -> Result<i64> {
        let unknown = || LedgerError::UnknownPool { pool: pool.chars().take(80).collect() };
        if !is_pool_name(pool) {
            return Err(unknown());
        }
        sqlx::query_scalar!(
            r#"
            SELECT coalesce(
                (SELECT min(turn) FROM jobs WHERE pool = name AND state = 'queued' AND priority = $2 AND attempt = 0), 0
            ) AS "first_turn!"
            FROM pools
            WHERE name = $1
            "#,
            pool,
            self.priority
        )
        .fetch_optional(&mut **self.transaction().await?)
        .answer("look up a pool")
        .await?
        .ok_or_else(unknown)
    }
}
