use std::ops::{Deref, DerefMut};

use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection};

/// A transaction in which COPY may be used. Dropping it closes its connection, and Postgres rolls back.
///
/// The connection goes back to the pool only where the transaction has ended: sqlx loses count of the server's answers when a COPY is
/// dropped on its way, say because a client hung up, and from then on every statement would get the answer to the one before.
#[derive(Debug)]
pub(crate) struct Upload {
    connection: PoolConnection<Postgres>,
    has_ended: bool,
}

impl Upload {
    pub(crate) async fn begin(pool: &PgPool) -> sqlx::Result<Self> {
        let mut upload = Self { connection: pool.acquire().await?, has_ended: false };
        upload.execute("BEGIN").await?;
        Ok(upload)
    }

    pub(crate) async fn commit(self) -> sqlx::Result<()> {
        self.end("COMMIT").await
    }

    pub(crate) async fn rollback(self) -> sqlx::Result<()> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, statement: &'static str) -> sqlx::Result<()> {
        self.execute(statement).await?;
        self.has_ended = true;
        Ok(())
    }

    async fn execute(&mut self, statement: &'static str) -> sqlx::Result<()> {
        sqlx::query(statement).execute(&mut *self.connection).await.map(drop)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.has_ended {
            self.connection.close_on_drop();
        }
    }
}

impl Deref for Upload {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Upload {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}
