use std::collections::BTreeMap;

use request::SegmentationRequest;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use crate::{
    Ledger, LedgerError, MAX_ATTEMPTS, NewBatch, Result, SubmittedBatch, copy, errors::Answer as _, pools::is_pool_name,
};

/// How much is gathered before it is sent: the writer needs this much memory, and one line more.
const FLUSH_BYTES: usize = 64 * 1_024;

/// A batch on its way in; see [`Ledger::begin_batch`].
#[derive(Debug)]
pub struct BatchWriter {
    transaction: Transaction<'static, Postgres>,
    id: Uuid,
    pool: String,
    priority: i16,
    /// Rows in COPY's text format that are not sent yet.
    rows: Vec<u8>,
    shares: BTreeMap<String, Share>,
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
        let transaction = self.pool.begin().answer(doing).await?;
        let NewBatch { name, pool, priority } = batch;
        let id = Uuid::now_v7();
        let mut writer = BatchWriter { transaction, id, pool, priority, rows: Vec::new(), shares: BTreeMap::new() };
        // Refuses a pool that does not exist before the foreign key does, by name.
        writer.first_turn(&writer.pool.clone()).await?;
        // Postgres keeps no NUL in a text.
        let name = name.map(|name| name.replace('\0', ""));
        sqlx::query!("INSERT INTO batches (id, name, pool) VALUES ($1, $2, $3)", id, name, writer.pool)
            .execute(&mut *writer.transaction)
            .answer(doing)
            .await?;
        Ok(writer)
    }
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
        let content = serde_json::to_string(&request).map_err(|error| unstorable(&error.to_string()))?;
        let pool = request.pool.as_ref().unwrap_or(&self.pool).clone();
        let turn = self.next_turn(&pool).await?;

        copy::column(&mut self.rows, &Uuid::now_v7().to_string());
        copy::column(&mut self.rows, &self.id.to_string());
        copy::column(&mut self.rows, &line.to_string());
        copy::column(&mut self.rows, &pool);
        copy::column(&mut self.rows, &content);
        copy::column(&mut self.rows, &self.priority.to_string());
        copy::column(&mut self.rows, &turn.to_string());
        copy::column(&mut self.rows, &MAX_ATTEMPTS.to_string());
        copy::end(&mut self.rows);
        if self.rows.len() >= FLUSH_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Makes the batch visible, with one outbox row a pool.
    pub async fn commit(mut self) -> Result<SubmittedBatch> {
        let doing = "commit a batch";
        self.flush().await?;
        let jobs: u64 = self.shares.values().map(|share| u64::from(share.jobs.unsigned_abs())).sum();
        if jobs == 0 {
            return Err(LedgerError::EmptyBatch);
        }
        let (pools, tokens): (Vec<String>, Vec<i32>) = self.shares.into_iter().map(|(pool, share)| (pool, share.jobs)).unzip();
        sqlx::query!("INSERT INTO outbox (pool, tokens) SELECT * FROM unnest($1::text[], $2::integer[])", &pools, &tokens)
            .execute(&mut *self.transaction)
            .answer(doing)
            .await?;
        self.transaction.commit().answer(doing).await?;
        Ok(SubmittedBatch { id: self.id, jobs })
    }

    /// One COPY of what was gathered. Each is complete by itself, so that between them the connection is free for other
    /// statements, and an error shows soon.
    async fn flush(&mut self) -> Result<()> {
        const COPY: &str = "COPY jobs (id, batch_id, line, pool, request, priority, turn, max_attempts) FROM STDIN";
        let doing = "store the jobs of a batch";
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut copy = self.transaction.copy_in_raw(COPY).answer(doing).await?;
        copy.send(self.rows.as_slice()).answer(doing).await?;
        copy.finish().answer(doing).await?;
        self.rows.clear();
        Ok(())
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
        .fetch_optional(&mut *self.transaction)
        .answer("look up a pool")
        .await?
        .ok_or_else(unknown)
    }
}
