//! A ledger on a Postgres of its own, and shorthands for what most tests do.

use std::time::Duration;

use ledger::{Artifact, ArtifactKind, ClaimedJob, JobResult, JobState, Ledger, Mask, NewBatch, SubmittedBatch};
use request::SegmentationRequest;
use servers::Postgres;
use sqlx::PgPool;
use tempfile::TempDir;
use uuid::Uuid;

/// Longer than any test runs.
pub const LONG: Duration = Duration::from_mins(10);

pub struct Fixture {
    pub ledger: Ledger,
    /// For what no worker may do, such as turning the clock.
    pub sql: PgPool,
    pub postgres: Postgres,
    _dir: TempDir,
}

impl Fixture {
    /// An empty database.
    pub async fn empty() -> Self {
        let dir = TempDir::with_prefix("ledger-").unwrap();
        let postgres = Postgres::start(&dir.path().join("postgres")).await.unwrap();
        let ledger = Ledger::connect(&postgres.url(), 16).await.unwrap();
        let sql = PgPool::connect(&postgres.url()).await.unwrap();
        Self { ledger, sql, postgres, _dir: dir }
    }

    /// A migrated database with the pools `gpu` and `cpu`.
    pub async fn start() -> Self {
        let fixture = Self::empty().await;
        fixture.ledger.migrate().await.unwrap();
        fixture.ledger.declare_pool("gpu").await.unwrap();
        fixture.ledger.declare_pool("cpu").await.unwrap();
        fixture
    }

    /// A batch of `jobs` plain requests for the pool `gpu`.
    pub async fn submit(&self, jobs: u64) -> SubmittedBatch {
        let mut writer = self.ledger.begin_batch(gpu()).await.unwrap();
        for line in 1..=jobs {
            writer.push(line, &request(line)).await.unwrap();
        }
        writer.commit().await.unwrap()
    }

    pub async fn claim(&self) -> ClaimedJob {
        self.ledger.claim("gpu", "worker", LONG).await.unwrap().expect("a job is due")
    }

    pub async fn nothing_is_due(&self) -> bool {
        self.ledger.claim("gpu", "worker", LONG).await.unwrap().is_none()
    }

    pub async fn state(&self, job: Uuid) -> JobState {
        self.ledger.job(job).await.unwrap().expect("the job is known").state
    }

    /// As if every lease's time were over.
    pub async fn expire_leases(&self) {
        self.execute("UPDATE leases SET ttl = '0', expires_at = now() - interval '1 second'").await;
    }

    /// As if every back-off were over.
    pub async fn end_back_offs(&self) {
        self.execute("UPDATE jobs SET run_at = now()").await;
    }

    pub async fn execute(&self, statement: &'static str) {
        sqlx::query(statement).execute(&self.sql).await.unwrap();
    }

    pub async fn count(&self, statement: &'static str) -> i64 {
        sqlx::query_scalar(statement).fetch_one(&self.sql).await.unwrap()
    }

    /// The outcomes of a job's attempts, in order; `open` for one that has not ended.
    pub async fn outcomes(&self, job: Uuid) -> Vec<String> {
        sqlx::query_scalar("SELECT coalesce(outcome::text, 'open') FROM attempts WHERE job_id = $1 ORDER BY epoch")
            .bind(job)
            .fetch_all(&self.sql)
            .await
            .unwrap()
    }
}

pub fn gpu() -> NewBatch {
    NewBatch { pool: "gpu".into(), ..NewBatch::default() }
}

pub fn request(number: u64) -> SegmentationRequest {
    let json =
        format!(r#"{{"image": "s3://scans/{number}.png", "points": [[{number}, 2.5, 1], [3, 4, 0]], "id": "scan-{number}"}}"#);
    SegmentationRequest::from_line(json.as_bytes()).unwrap()
}

pub fn result(job: &ClaimedJob) -> JobResult {
    let artifact = |kind, object, name: &str| Artifact {
        kind,
        object,
        uri: format!("s3://masks/{}/{}/{name}", job.lease.job_id, job.lease.epoch).parse().unwrap(),
        sha256: "ab".repeat(32),
        bytes: 1_234,
    };
    let artifacts = vec![
        artifact(ArtifactKind::Receipt, 0, "receipt.json"),
        artifact(ArtifactKind::Mask, 1, "mask-1.png"),
        artifact(ArtifactKind::Mask, 2, "mask-2.png"),
    ];
    let mask = |object, warnings: &[&str]| Mask {
        object,
        iou: 0.1 + 0.2,
        best_step: 42,
        confidence: 0.875,
        warnings: warnings.iter().map(|&warning| warning.into()).collect(),
    };
    JobResult { artifacts, masks: vec![mask(1, &[]), mask(2, &["dot 2 is \"outside\"", "ü"])], scores: Vec::new(), seconds: 1.5 }
}
