//! The clients: they submit what is planned, repeat what was cut off, and take some of it back.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail, ensure};
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use uuid::Uuid;

use super::{
    plan::{Cancel, Fate, IMAGES, Manner, PlannedBatch, SIDE, bad_key, image_key},
    store::StoreClient,
};
use crate::{POOL, png_of_blobs, png_that_begins_with, quick};

/// How long one request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// How long a client repeats itself before it is called a failure.
const PATIENCE: Duration = Duration::from_mins(3);
/// The wait before a request is repeated.
const PAUSE: Duration = Duration::from_millis(200);

/// A submission that was accepted.
#[derive(Debug, Clone)]
pub struct Submission {
    /// What was submitted.
    pub batch: PlannedBatch,
    /// The batches' ids that clients were told: all the same, or one submission has become two.
    pub ids: Vec<Uuid>,
    /// How many requests it took.
    pub requests: u32,
    /// When its cancellation was acknowledged.
    pub cancelled: Option<SystemTime>,
}

/// A client of both dispatchers.
#[derive(Clone)]
pub struct Clients {
    http: Client,
    dispatchers: Vec<String>,
}

/// Puts the images into the bucket; gives the good ones' bytes by key.
pub async fn put_images(store: &StoreClient) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut images = Vec::new();
    for image in 0..IMAGES {
        let (key, bytes) = (image_key(image), png_of_blobs(SIDE, SIDE, image as u32));
        store.put(&key, bytes.clone()).await?;
        images.push((key, bytes));
    }
    for (fate, name) in Fate::BAD {
        let bytes = match fate {
            Fate::Panics => png_that_begins_with(quick::PANICS, 0),
            Fate::OutOfMemory => png_that_begins_with(quick::OUT_OF_MEMORY, 0),
            Fate::Aborts => png_that_begins_with(quick::ABORTS, 0),
            Fate::NotAnImage => b"no image at all".to_vec(),
            Fate::Mask | Fate::Missing => continue,
        };
        store.put(&bad_key(name), bytes).await?;
    }
    Ok(images)
}

impl Clients {
    /// Of the dispatchers at these addresses.
    pub fn new(dispatchers: Vec<String>) -> anyhow::Result<Self> {
        // Fails only where a provider is installed already, and that one will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder().no_proxy().timeout(REQUEST_LIMIT).build()?;
        Ok(Self { http, dispatchers })
    }

    /// Submits every batch at its time, and cancels what is to be cancelled. Ends when all clients have been answered.
    pub async fn submit_all(&self, batches: Vec<PlannedBatch>, began: Instant) -> anyhow::Result<Vec<Submission>> {
        let mut clients = JoinSet::new();
        for (number, batch) in batches.into_iter().enumerate() {
            let client = self.clone();
            clients.spawn(async move {
                sleep_until(began + batch.at).await;
                let name = batch.name.clone();
                client.serve(batch, number).await.with_context(|| format!("the batch {name}"))
            });
        }
        let mut submissions = Vec::new();
        while let Some(submission) = clients.join_next().await {
            submissions.push(submission??);
        }
        submissions.sort_by_key(|submission| submission.batch.at);
        Ok(submissions)
    }

    /// What a dispatcher says of a batch.
    pub async fn batch(&self, id: Uuid) -> anyhow::Result<Value> {
        Ok(self.until_answered(Method::GET, &format!("/v1/batches/{id}"), 0).await?.0)
    }

    async fn serve(&self, batch: PlannedBatch, number: usize) -> anyhow::Result<Submission> {
        let (ids, requests) = match batch.manner {
            Manner::Patient => self.submit(&batch, number).await.map(|(id, requests)| (vec![id], requests))?,
            Manner::HangsUp(after) => {
                // Whatever became of it: nobody listens.
                drop(timeout(after, self.post(&batch, number)).await);
                let (id, requests) = self.submit(&batch, number + 1).await?;
                (vec![id], requests + 1)
            }
            Manner::Twice => {
                let ((one, of_one), (other, of_other)) =
                    tokio::try_join!(self.submit(&batch, number), self.submit(&batch, number + 1))?;
                (vec![one, other], of_one + of_other)
            }
        };
        let cancelled = match batch.cancel {
            None => None,
            Some(cancel) => Some(self.cancel(ids[0], cancel, number).await?),
        };
        Ok(Submission { batch, ids, requests, cancelled })
    }

    /// Submits until a dispatcher says that the batch is there; with how many requests that took.
    async fn submit(&self, batch: &PlannedBatch, number: usize) -> anyhow::Result<(Uuid, u32)> {
        let deadline = Instant::now() + PATIENCE;
        for request in 0.. {
            match self.post(batch, number + request).await {
                Ok((StatusCode::CREATED | StatusCode::OK, body)) => {
                    let id = body["id"].as_str().with_context(|| format!("no id in {body}"))?;
                    ensure!(body["jobs"] == batch.jobs.len(), "{body} has another number of jobs than was submitted");
                    return Ok((id.parse()?, request as u32 + 1));
                }
                Ok((status, body)) if !comes_back_later(status) => bail!("refused with {status}: {body}"),
                outcome if Instant::now() > deadline => bail!("was not accepted in time, the last answer was {outcome:?}"),
                _ => sleep(PAUSE).await,
            }
        }
        unreachable!("it ends by its deadline")
    }

    async fn post(&self, batch: &PlannedBatch, number: usize) -> reqwest::Result<(StatusCode, Value)> {
        let (priority, reuse) = (batch.priority.to_string(), batch.reuse.to_string());
        let mut query = vec![("pool", POOL), ("priority", &priority), ("reuse", &reuse)];
        let mut request = self.http.post(self.url(number, "/v1/batches"));
        if batch.has_key {
            request = request.header("idempotency-key", &batch.name);
        } else {
            query.push(("name", &batch.name));
        }
        let answer = request.query(&query).body(batch.manifest()).send().await?;
        Ok((answer.status(), answer.json().await?))
    }

    /// Cancels until a dispatcher says that it is done; when that was.
    async fn cancel(&self, id: Uuid, cancel: Cancel, number: usize) -> anyhow::Result<SystemTime> {
        let path = match cancel {
            Cancel::Batch(after) => {
                sleep(after).await;
                format!("/v1/batches/{id}/cancel")
            }
            Cancel::Line(line, after) => {
                sleep(after).await;
                let page = format!("/v1/batches/{id}/jobs?after={}&limit=1", line - 1);
                let (page, _) = self.until_answered(Method::GET, &page, number).await?;
                let job = page["jobs"][0]["id"].as_str().with_context(|| format!("no line {line} in {page}"))?;
                format!("/v1/jobs/{job}/cancel")
            }
        };
        Ok(self.until_answered(Method::POST, &path, number).await?.1)
    }

    /// Asks one dispatcher and then the other until one answers; and when it did.
    async fn until_answered(&self, method: Method, path: &str, number: usize) -> anyhow::Result<(Value, SystemTime)> {
        let deadline = Instant::now() + PATIENCE;
        for request in 0.. {
            let ask = async {
                let answer = self.http.request(method.clone(), self.url(number + request, path)).send().await?;
                Ok::<_, reqwest::Error>((answer.status(), answer.json::<Value>().await?))
            };
            match ask.await {
                Ok((StatusCode::OK, body)) => return Ok((body, SystemTime::now())),
                Ok((status, body)) if !comes_back_later(status) => bail!("{path}: {status}: {body}"),
                outcome if Instant::now() > deadline => bail!("{path} was not answered in time: {outcome:?}"),
                _ => sleep(PAUSE).await,
            }
        }
        unreachable!("it ends by its deadline")
    }

    fn url(&self, number: usize, path: &str) -> String {
        format!("http://{}{path}", self.dispatchers[number % self.dispatchers.len()])
    }
}

/// Whether a client that gets this answer repeats its request.
fn comes_back_later(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT
}

/// Seconds since 1970, as Postgres tells its times.
pub fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).expect("the clock is set").as_secs_f64()
}
