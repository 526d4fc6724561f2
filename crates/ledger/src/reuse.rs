use sqlx::types::Json;

use crate::{Artifact, JobResult, Lease, Ledger, Mask, Result, ReusableResult, ReuseKey, errors::Answer as _};

impl Ledger {
    /// Lets other jobs find the accepted result of this claim by its key. The last one of a key stays: who computed it found none to take
    /// over, or one whose objects were gone.
    pub async fn lend(&self, lease: &Lease, key: &ReuseKey) -> Result<()> {
        sqlx::query!(
            "INSERT INTO reusable_results (key, job_id) SELECT $1, job_id FROM results WHERE job_id = $2 AND epoch = $3
             ON CONFLICT (key) DO UPDATE SET job_id = excluded.job_id",
            key.as_slice(),
            lease.job_id,
            lease.epoch
        )
        .execute(&self.pool)
        .answer("lend a result")
        .await?;
        Ok(())
    }

    /// The result that was lent under this key. That its objects are still in the store is the caller's to check.
    pub async fn reusable(&self, key: &ReuseKey) -> Result<Option<ReusableResult>> {
        let row = sqlx::query!(
            r#"
            SELECT
                job_id, epoch, seconds,
                (
                    SELECT json_agg(row_to_json(artifacts) ORDER BY object, kind) FROM artifacts WHERE artifacts.job_id = results.job_id
                ) AS "artifacts!: Json<Vec<Artifact>>",
                (
                    SELECT json_agg(row_to_json(masks) ORDER BY object) FROM masks WHERE masks.job_id = results.job_id
                ) AS "masks!: Json<Vec<Mask>>"
            FROM reusable_results
            JOIN results USING (job_id)
            WHERE key = $1
            "#,
            key.as_slice()
        )
        .fetch_optional(&self.pool)
        .answer("look for a result to take over")
        .await?;
        Ok(row.map(|row| ReusableResult {
            job_id: row.job_id,
            epoch: row.epoch,
            result: JobResult { artifacts: row.artifacts.0, masks: row.masks.0, scores: Vec::new(), seconds: row.seconds },
        }))
    }
}
