//! What Postgres, the object store and the dispatchers' API say at the end, read without any of dotmask's own code.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use image::GrayImage;
use serde_json::Value;
use sqlx::{FromRow, PgPool};
use tokio::{sync::Semaphore, task::JoinSet};
use uuid::Uuid;

use super::{
    load::{Clients, Submission},
    store::StoreClient,
};
use crate::quick::sha256;

/// Objects that are read at a time.
const READERS: usize = 8;

/// A row of `batches`.
#[derive(Debug, Clone, FromRow)]
pub struct Batch {
    /// Its id.
    pub id: Uuid,
    /// The client's name for it.
    pub name: Option<String>,
    /// The client's key for it.
    pub idempotency_key: Option<String>,
}

/// A row of `jobs`. Times are seconds since 1970.
#[derive(Debug, Clone, FromRow)]
pub struct Job {
    pub id: Uuid,
    pub batch_id: Uuid,
    pub line: i64,
    pub request: String,
    pub state: String,
    pub epoch: i64,
    pub attempt: i32,
    pub max_attempts: i32,
    pub crashes: i32,
    pub error_class: Option<String>,
    pub error_message: Option<String>,
    pub created_at: f64,
    pub finished_at: Option<f64>,
}

/// A row of `attempts`.
#[derive(Debug, Clone, FromRow)]
pub struct Attempt {
    pub job_id: Uuid,
    pub epoch: i64,
    pub worker: String,
    pub started_at: f64,
    pub finished_at: Option<f64>,
    pub outcome: Option<String>,
}

/// A row of `results`, and how many masks it has.
#[derive(Debug, Clone, FromRow)]
pub struct Accepted {
    pub job_id: Uuid,
    pub epoch: i64,
    pub masks: i64,
}

/// A row of `artifacts`.
#[derive(Debug, Clone, FromRow)]
pub struct Artifact {
    pub job_id: Uuid,
    pub kind: String,
    pub uri: String,
    pub sha256: String,
    pub bytes: i64,
}

/// An object as the store gives it.
#[derive(Debug, Clone)]
pub struct Stored {
    pub sha256: String,
    pub bytes: i64,
    /// Of a mask, what tells its pixels from others; none where it is no picture.
    pub pixels: Option<String>,
    /// A receipt that says that its result was taken over.
    pub is_reused: bool,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub batches: Vec<Batch>,
    pub jobs: Vec<Job>,
    pub attempts: HashMap<Uuid, Vec<Attempt>>,
    pub results: Vec<Accepted>,
    pub artifacts: HashMap<Uuid, Vec<Artifact>>,
    pub leases: i64,
    pub tokens_owed: i64,
    /// What the API says of each batch's states.
    pub counts: HashMap<Uuid, BTreeMap<String, i64>>,
    /// The objects of all artifacts by URI, or why one cannot be read.
    pub stored: HashMap<String, Result<Stored, String>>,
    /// What workers said that had nothing to do and could not stop.
    pub stuck: Vec<String>,
    /// Objects below the masks' folder, those that no result names included.
    pub objects: usize,
}

impl Facts {
    /// Reads everything.
    pub async fn read(
        truth: &PgPool,
        store: &StoreClient,
        clients: &Clients,
        submissions: &[Submission],
    ) -> anyhow::Result<Self> {
        let batches = sqlx::query_as("SELECT id, name, idempotency_key FROM batches").fetch_all(truth).await?;
        let jobs = sqlx::query_as(
            "SELECT id, batch_id, line, request::text AS request, state::text AS state, epoch, attempt, max_attempts, crashes,
                error_class::text AS error_class, error_message,
                extract(epoch FROM created_at)::float8 AS created_at, extract(epoch FROM finished_at)::float8 AS finished_at
             FROM jobs",
        );
        let jobs = jobs.fetch_all(truth).await?;
        let attempts = sqlx::query_as(
            "SELECT job_id, epoch, worker, extract(epoch FROM started_at)::float8 AS started_at,
                extract(epoch FROM finished_at)::float8 AS finished_at, outcome::text AS outcome
             FROM attempts ORDER BY epoch",
        );
        let attempts: Vec<Attempt> = attempts.fetch_all(truth).await?;
        let results = sqlx::query_as(
            "SELECT job_id, epoch, (SELECT count(*) FROM masks WHERE masks.job_id = results.job_id) AS masks FROM results",
        );
        let results = results.fetch_all(truth).await?;
        let artifacts = sqlx::query_as("SELECT job_id, kind::text AS kind, uri, sha256, bytes FROM artifacts");
        let artifacts: Vec<Artifact> = artifacts.fetch_all(truth).await?;
        let leases = sqlx::query_scalar("SELECT count(*) FROM leases").fetch_one(truth).await?;
        let tokens_owed = sqlx::query_scalar("SELECT coalesce(sum(tokens), 0) FROM outbox").fetch_one(truth).await?;

        let mut counts = HashMap::new();
        for submission in submissions {
            let id = submission.ids[0];
            counts.insert(id, states(&clients.batch(id).await?["counts"]));
        }
        let stored = read_objects(store, &artifacts).await?;
        let objects = store.count("masks/").await?;
        let attempts = by_job(attempts, |attempt| attempt.job_id);
        let artifacts = by_job(artifacts, |artifact| artifact.job_id);
        Ok(Self { batches, jobs, attempts, results, artifacts, leases, tokens_owed, counts, stored, stuck: Vec::new(), objects })
    }

    /// A job's attempts in the order of their epochs.
    pub fn attempts_of(&self, job: &Job) -> &[Attempt] {
        self.attempts.get(&job.id).map_or(&[], Vec::as_slice)
    }
}

fn states(counts: &Value) -> BTreeMap<String, i64> {
    let counts = counts.as_object().into_iter().flatten();
    counts.filter_map(|(state, count)| Some((state.clone(), count.as_i64()?))).filter(|(_, count)| *count > 0).collect()
}

fn by_job<T>(rows: Vec<T>, job: impl Fn(&T) -> Uuid) -> HashMap<Uuid, Vec<T>> {
    let mut by_job: HashMap<Uuid, Vec<T>> = HashMap::new();
    for row in rows {
        by_job.entry(job(&row)).or_default().push(row);
    }
    by_job
}

async fn read_objects(store: &StoreClient, artifacts: &[Artifact]) -> anyhow::Result<HashMap<String, Result<Stored, String>>> {
    let places = Arc::new(Semaphore::new(READERS));
    let mut readers = JoinSet::new();
    for artifact in artifacts {
        let place = Arc::clone(&places).acquire_owned().await?;
        let (store, uri, kind) = (store.clone(), artifact.uri.clone(), artifact.kind.clone());
        readers.spawn(async move {
            let _place = place;
            let object = store.get(&uri).await.map_err(|error| format!("{error:#}"));
            (uri, object.map(|bytes| stored(&kind, &bytes)))
        });
    }
    let mut stored = HashMap::new();
    while let Some(read) = readers.join_next().await {
        let (uri, object) = read?;
        stored.insert(uri, object);
    }
    Ok(stored)
}

fn stored(kind: &str, bytes: &[u8]) -> Stored {
    let mask = (kind == "mask").then(|| image::load_from_memory(bytes).ok()).flatten();
    let says_reused = |receipt: Value| !receipt["reused_from"].is_null();
    Stored {
        sha256: sha256(bytes),
        bytes: bytes.len() as i64,
        pixels: mask.map(|mask| pixels(&mask.into_luma8())),
        is_reused: kind == "receipt" && serde_json::from_slice(bytes).is_ok_and(says_reused),
    }
}

/// Equal for equal pictures, however they are written.
pub fn pixels(mask: &GrayImage) -> String {
    let (width, height) = mask.dimensions();
    format!("{width}x{height} {}", sha256(mask.as_raw()))
}
