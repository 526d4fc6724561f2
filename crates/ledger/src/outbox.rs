use std::collections::BTreeMap;

use sqlx::{Postgres, Transaction};

use crate::{Ledger, Result, errors::Answer as _};

/// Outbox rows that this transaction holds; see [`Ledger::take_outbox`].
#[derive(Debug)]
pub struct OutboxBatch {
    transaction: Transaction<'static, Postgres>,
    ids: Vec<i64>,
    tokens: BTreeMap<String, u32>,
}

impl Ledger {
    /// Holds up to `limit` of the oldest outbox rows; none when there are none that nobody else holds.
    ///
    /// Dropping what comes back leaves the rows in place, so that a crash sends tokens twice rather than never.
    pub async fn take_outbox(&self, limit: i64) -> Result<Option<OutboxBatch>> {
        let doing = "read the outbox";
        let mut transaction = self.pool.begin().answer(doing).await?;
        let rows = sqlx::query!("SELECT id, pool, tokens FROM outbox ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED", limit)
            .fetch_all(&mut *transaction)
            .answer(doing)
            .await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let ids = rows.iter().map(|row| row.id).collect();
        let mut tokens = BTreeMap::<String, u32>::new();
        for row in rows {
            let owed = tokens.entry(row.pool).or_default();
            *owed = owed.saturating_add(row.tokens.unsigned_abs());
        }
        Ok(Some(OutboxBatch { transaction, ids, tokens }))
    }
}

impl OutboxBatch {
    /// How many tokens each pool is owed.
    pub fn tokens(&self) -> Vec<(String, u32)> {
        self.tokens.iter().map(|(pool, &tokens)| (pool.clone(), tokens)).collect()
    }

    /// Deletes the rows and commits. To be called once every token is confirmed.
    pub async fn delete(mut self) -> Result<()> {
        let doing = "empty the outbox";
        sqlx::query!("DELETE FROM outbox WHERE id = ANY($1)", &self.ids).execute(&mut *self.transaction).answer(doing).await?;
        self.transaction.commit().answer(doing).await
    }
}
