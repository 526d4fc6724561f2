//! The work on one job, which writes nothing to the ledger: fetch, decode, segment or evaluate, encode, upload.

use std::{
    iter,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use evaluation::{
    Outcome, Row,
    datasets::{Case, truth},
};
use futures_util::future::try_join_all;
use image::{GrayImage, RgbImage};
use images::DecodedImage;
use ledger::{Artifact, ClaimedJob, JobResult, Lease, Mask, ReuseKey, Score};
use request::{ContentSha256, Evaluation, EvaluationDots, Object, S3Uri, Task};
use segmenter::{Segmentation, sha256};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::{
    artifacts::{self, ArtifactFile},
    attempt::Attempt,
    errors::{JobError, panic_message},
    job::Worker,
    metrics::Stage,
    model::{Answer, EvaluateWork, SegmentWork, Turn},
    model_time::GoesOn,
    receipt::{Evaluated, ImageFacts, JobIdentity, Receipt, SegmentedObject, StageSeconds, VERSION},
};
use objects::{Fetched, ObjectsError};

/// How long the model waits for the note that it begins with a job.
const NOTE_LIMIT: Duration = Duration::from_secs(1);

/// What came of a job.
pub struct Worked {
    /// For the ledger.
    pub result: JobResult,
    /// Under which other jobs may take it over, once it is accepted.
    pub lend: Option<ReuseKey>,
}

/// An image, ready for the model.
struct Ready {
    image: Arc<RgbImage>,
    facts: ImageFacts,
    /// What it took so far.
    seconds: StageSeconds,
    /// When the work on it began.
    since: Instant,
    /// The model can count on it.
    coming: GoesOn,
}

/// An object out of the store, and what it took to fetch and to decode it.
struct Decoded<T> {
    value: T,
    etag: Option<String>,
    fetch: f64,
    decode: f64,
}

impl Worker {
    /// Does what the job asks for. Cancelling `stop` ends it at the model's next step.
    pub async fn work(&self, job: &ClaimedJob, stop: &CancellationToken) -> Result<Worked, JobError> {
        let attempt = Attempt::new(self.max_job, stop, self.stuck.clone());
        tokio::select! {
            biased;
            worked = self.work_for(job, &attempt) => worked,
            () = attempt.overdue() => Err(JobError::TooLong { limit: self.max_job }),
        }
    }

    async fn work_for(&self, job: &ClaimedJob, attempt: &Attempt) -> Result<Worked, JobError> {
        self.check_reads(job)?;
        let ready = self.fetch_image(job, attempt).await?;
        let (result, lend) = match &job.request.task {
            Task::Segment(objects) => self.segment_or_take_over(job, objects, ready, attempt).await?,
            Task::Evaluate(evaluation) => (self.evaluate(job, evaluation, ready, attempt).await?, None),
        };
        Ok(Worked { result, lend })
    }

    /// Before anything is asked of the store. What a project may read may have changed since the job was submitted.
    fn check_reads(&self, job: &ClaimedJob) -> Result<(), JobError> {
        for (what, uri) in ["image", "truth"].into_iter().zip(job.request.reads()) {
            let project = || job.project.clone();
            if self.masks.is_of_others(&job.project, uri) {
                return Err(JobError::OthersResult { what, uri: uri.to_string(), project: project() });
            }
            if !job.reads.allows(uri) {
                return Err(JobError::NotAllowed { what, uri: uri.to_string(), project: project() });
            }
        }
        Ok(())
    }

    async fn fetch_image(&self, job: &ClaimedJob, attempt: &Attempt) -> Result<Ready, JobError> {
        let (since, coming) = (Instant::now(), self.metrics.model_time.coming());
        let view = job.request.view;
        let (limits, expected) = (self.limits, job.request.image_sha256.clone());
        let decoding = move |bytes: &Bytes| -> Result<DecodedImage, JobError> {
            check_content("image", expected, bytes)?;
            Ok(images::decode(bytes, &view, &limits)?)
        };
        let Decoded { value, etag, fetch, decode } =
            self.fetch_decoded(attempt, &job.request.image, JobError::Fetch, decoding).await?;
        let DecodedImage { rgb, sha256, format } = value;
        self.record_stages(&[(Stage::Decode, decode)]);
        let facts = ImageFacts { sha256, width: rgb.width(), height: rgb.height(), format, etag };
        let seconds = StageSeconds { fetch: Some(fetch), decode, ..StageSeconds::default() };
        Ok(Ready { image: Arc::new(rgb), facts, seconds, since, coming })
    }

    /// The result, and the key under which it may be lent.
    async fn segment_or_take_over(
        &self,
        job: &ClaimedJob,
        objects: &[Object],
        ready: Ready,
        attempt: &Attempt,
    ) -> Result<(JobResult, Option<ReuseKey>), JobError> {
        // Points outside the image are found here, before the job waits for the model.
        check_inside(objects, &ready.facts)?;
        let key = job.reuse.then(|| self.reuse_key(job, objects, &ready.facts));
        if let Some(key) = &key {
            let receipt = self.receipt(job, ready.facts.clone(), ready.seconds);
            if let Some(result) = self.take_over(job, objects, key, receipt).await {
                return Ok((JobResult { seconds: ready.since.elapsed().as_secs_f64(), ..result }, None));
            }
        }
        Ok((self.segment(job, objects, ready, attempt).await?, key))
    }

    async fn segment(
        &self,
        job: &ClaimedJob,
        objects: &[Object],
        ready: Ready,
        attempt: &Attempt,
    ) -> Result<JobResult, JobError> {
        let Ready { image, facts, seconds: StageSeconds { fetch, decode, .. }, since, coming } = ready;
        let work = SegmentWork {
            image: Arc::clone(&image),
            objects: objects.iter().map(|object| object.points.clone()).collect(),
            parameters: job.request.parameters.clone(),
        };
        let (turn, waited) = timed(self.turn(&job.lease, attempt)).await;
        let Answer { made: segmentations, queue_seconds, turn } = self.model.segment(work, turn).await?;
        drop((coming, turn));
        let queue_seconds = waited + queue_seconds;
        self.metrics.record_stage(Stage::Queue, queue_seconds);
        for segmentation in &segmentations {
            self.metrics.record_segmentation(segmentation);
        }
        trace_model(queue_seconds, &segmentations);

        let masks = (1..).zip(&segmentations).map(|(object, segmentation)| Mask {
            object,
            iou: segmentation.iou,
            best_step: segmentation.best_step.cast_signed(),
            confidence: segmentation.confidence,
            warnings: segmentation.warnings.clone(),
        });
        let masks = masks.collect();
        let seconds = StageSeconds { fetch, decode, queue: Some(queue_seconds), ..StageSeconds::of_model(&segmentations) };
        let mut receipt = self.receipt(job, facts, seconds);
        receipt.activations = segmentations.first().map(|made| made.kept.label());
        receipt.objects = objects.iter().zip(&segmentations).map(|(object, made)| SegmentedObject::new(object, made)).collect();
        let working = attempt.working();
        let encoding = off_runtime("encode", move || {
            let _working = working;
            artifacts::encode(&image, &segmentations, &mut receipt)
        });
        let (files, encode) = timed(encoding).await;
        let files = files?.map_err(|error| JobError::Encode { reason: format!("{error:#}") })?;
        self.record_stages(&[(Stage::Encode, encode)]);
        let artifacts = self.upload(job, files).await?;
        Ok(JobResult { artifacts, masks, scores: Vec::new(), seconds: since.elapsed().as_secs_f64() - queue_seconds })
    }

    async fn evaluate(
        &self,
        job: &ClaimedJob,
        evaluation: &Evaluation,
        ready: Ready,
        attempt: &Attempt,
    ) -> Result<JobResult, JobError> {
        let Ready { image, facts, seconds, since, coming } = ready;
        if let EvaluationDots::Given(points) = &evaluation.dots {
            check_inside(&[Object { id: None, points: points.clone() }], &facts)?;
        }
        let case = case(job, evaluation);
        let (of_case, size, limits) = (case.clone(), image.dimensions(), self.limits);
        let expected = evaluation.truth_sha256.clone();
        let decoding = move |bytes: &Bytes| -> Result<(GrayImage, String), JobError> {
            check_content("truth", expected, bytes)?;
            let mask = truth(bytes, &of_case.truth, &of_case, size, &limits)?;
            Ok((mask, sha256(bytes)))
        };
        let decoded = self.fetch_decoded(attempt, &evaluation.truth, JobError::FetchTruth, decoding).await?;
        let ((truth, truth_sha256), truth_etag) = (decoded.value, decoded.etag);

        let work = EvaluateWork {
            image,
            truth,
            case: case.id,
            evaluation: evaluation.clone(),
            parameters: job.request.parameters.clone(),
        };
        let (turn, waited) = timed(self.turn(&job.lease, attempt)).await;
        let (answer, asked) = timed(self.model.evaluate(work, turn)).await;
        let Answer { made: rows, queue_seconds, turn } = answer?;
        drop((coming, turn));
        let (queue_seconds, evaluate) = (waited + queue_seconds, asked - queue_seconds);
        self.record_stages(&[(Stage::Queue, queue_seconds), (Stage::Evaluate, evaluate)]);

        let scores: Vec<Score> = rows.iter().map(score).collect();
        let seconds = StageSeconds { queue: Some(queue_seconds), evaluate: Some(evaluate), ..seconds };
        let (seed, points) = match &evaluation.dots {
            EvaluationDots::Given(points) => (None, Some(points.clone())),
            EvaluationDots::Drawn { seed, .. } => (Some(*seed), None),
        };
        let mut receipt = self.receipt(job, facts, seconds);
        let (label, rows) = (evaluation.label, scores.clone());
        receipt.evaluation = Some(Evaluated { truth_sha256, truth_etag, label, seed, points, rows });
        let file = artifacts::encode_receipt(&receipt).map_err(|error| JobError::Encode { reason: format!("{error:#}") })?;
        let artifacts = self.upload(job, vec![file]).await?;
        Ok(JobResult { artifacts, masks: Vec::new(), scores, seconds: since.elapsed().as_secs_f64() - queue_seconds })
    }

    /// Stages followed one another and the last one has just ended: for the metrics and as spans of the job.
    pub fn record_stages(&self, stages: &[(Stage, f64)]) {
        for &(stage, seconds) in stages {
            self.metrics.record_stage(stage, seconds);
        }
        telemetry::children_ended(&stages.iter().map(|&(stage, seconds)| (stage.label(), seconds)).collect::<Vec<_>>());
    }

    /// Waits until the model is free, and notes that it begins with this job: if that takes the worker down, it is not held against the
    /// jobs beside it.
    async fn turn(&self, lease: &Lease, attempt: &Attempt) -> Turn {
        let permit = attempt.waits(Arc::clone(&self.computing).acquire_owned()).await.expect("nobody closes it");
        // A Postgres that is away does not keep the model from working.
        if !matches!(timeout(NOTE_LIMIT, self.ledger.begin(lease)).await, Ok(Ok(()))) {
            tracing::debug!("it was not noted that the model begins with the job");
        }
        Turn { permit, stop: attempt.stop(), working: attempt.working() }
    }

    /// An object of the store, decoded. One that cannot be decoded is fetched once more: only if it is the same again is it the one that
    /// is wrong, and not the store. Where it has changed, the next attempt is of the new one as a whole.
    async fn fetch_decoded<T>(
        &self,
        attempt: &Attempt,
        uri: &S3Uri,
        not_fetched: fn(ObjectsError) -> JobError,
        decode: impl FnOnce(&Bytes) -> Result<T, JobError> + Send + 'static,
    ) -> Result<Decoded<T>, JobError>
    where
        T: Send + 'static,
    {
        let (Fetched { bytes, etag }, fetch) = self.fetch(uri).await.map_err(not_fetched)?;
        let fetched = bytes.clone();
        let (decoded, seconds) = timed(self.decode(attempt, move || decode(&bytes))).await;
        match decoded? {
            Ok(value) => Ok(Decoded { value, etag, fetch, decode: seconds }),
            Err(error) => {
                let (again, _) = self.fetch(uri).await.map_err(not_fetched)?;
                if again.bytes == fetched {
                    return Err(error);
                }
                Err(JobError::Unsteady { etags: [etag, again.etag], source: Box::new(error) })
            }
        }
    }

    /// An object of the store, of the size an image may have, and how long that took.
    async fn fetch(&self, uri: &S3Uri) -> Result<(Fetched, f64), ObjectsError> {
        let (object, seconds) = timed(self.objects.fetch(uri, self.limits.bytes)).await;
        let object = object?;
        self.record_stages(&[(Stage::Fetch, seconds)]);
        Ok((object, seconds))
    }

    /// One image of the largest size at a time takes memory enough.
    async fn decode<T: Send + 'static>(
        &self,
        attempt: &Attempt,
        decode: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JobError> {
        let turn = attempt.waits(Arc::clone(&self.decoding).acquire_owned()).await.expect("nobody closes it");
        let working = attempt.working();
        off_runtime("decode", move || {
            // They go with the work, which nothing stops where the job is given up meanwhile.
            let _held = (turn, working);
            decode()
        })
        .await
    }

    /// Without what the job made.
    fn receipt(&self, job: &ClaimedJob, image: ImageFacts, seconds: StageSeconds) -> Receipt {
        let Lease { job_id, batch_id, epoch, .. } = job.lease;
        Receipt {
            version: VERSION,
            image,
            view: job.request.view,
            checkpoint_sha256: self.checkpoint_sha256.clone(),
            device: self.compute.to_string(),
            parameters: job.request.parameters.clone(),
            activations: None,
            objects: Vec::new(),
            evaluation: None,
            reused_from: None,
            seconds,
            job: Some(JobIdentity { id: job_id, batch_id, epoch, worker: self.name.clone() }),
        }
    }

    /// Only when all files are there is the result offered to the ledger.
    pub async fn upload(&self, job: &ClaimedJob, files: Vec<ArtifactFile>) -> Result<Vec<Artifact>, JobError> {
        let (artifacts, seconds) = timed(try_join_all(files.into_iter().map(|file| self.upload_file(job, file)))).await;
        let artifacts = artifacts?;
        self.record_stages(&[(Stage::Upload, seconds)]);
        Ok(artifacts)
    }

    async fn upload_file(&self, job: &ClaimedJob, file: ArtifactFile) -> Result<Artifact, JobError> {
        let uri = self.masks.place(&job.project, &job.lease, &file.name);
        let content_type = file.content_type();
        let ArtifactFile { kind, object, bytes, .. } = file;
        let bytes = Bytes::from(bytes);
        let (sha256, size) = (sha256(&bytes), bytes.len() as u64);
        self.objects.put(&uri, bytes, content_type).await.map_err(JobError::Store)?;
        Ok(Artifact { kind, object, uri, sha256, bytes: size })
    }
}

/// An image's way through the model, as spans of its job: object after object.
fn trace_model(queue_seconds: f64, segmentations: &[Segmentation]) {
    let stages = segmentations.iter().map(|segmentation| segmentation.seconds).flat_map(|seconds| {
        [(Stage::Embed, seconds.embed), (Stage::Finetune, seconds.finetune), (Stage::Upsample, seconds.upsample)]
    });
    let stages = iter::once((Stage::Queue, queue_seconds)).chain(stages);
    telemetry::children_ended(&stages.map(|(stage, seconds)| (stage.label(), seconds)).collect::<Vec<_>>());
}

/// Refuses another content than the request speaks of, if it does.
fn check_content(what: &'static str, expected: Option<ContentSha256>, bytes: &[u8]) -> Result<(), JobError> {
    let Some(expected) = expected else { return Ok(()) };
    let found = sha256(bytes);
    if found == expected.as_str() { Ok(()) } else { Err(JobError::OtherContent { what, found, expected }) }
}

fn check_inside(objects: &[Object], image: &ImageFacts) -> Result<(), JobError> {
    for (number, object) in (1..).zip(objects) {
        object.points.check_inside(image.width, image.height).map_err(|source| {
            let object = if objects.len() > 1 { format!("object {number}: ") } else { String::new() };
            JobError::Points { object, source }
        })?;
    }
    Ok(())
}

/// The evaluation as one case of a data set. Without an id of the user's, the image's place tells it from others.
fn case(job: &ClaimedJob, evaluation: &Evaluation) -> Case {
    let image = job.request.image.to_string();
    Case {
        id: job.request.id.clone().unwrap_or_else(|| image.clone()),
        group: evaluation.group.clone().unwrap_or_default(),
        image,
        truth: evaluation.truth.to_string(),
        label: evaluation.label,
        view: job.request.view,
    }
}

fn score(row: &Row) -> Score {
    let scored = row.scored();
    let published = scored.and_then(|scored| scored.published);
    Score {
        setting: row.setting,
        repeat: row.repeat,
        method: row.method,
        dice: scored.map(|scored| scored.scores.dice),
        iou: scored.map(|scored| scored.scores.iou),
        best_step: scored.map(|scored| scored.best_step.cast_signed()),
        seconds: scored.map(|scored| scored.seconds),
        iou_with_initial: scored.map(|scored| scored.iou_with_initial),
        agreement: scored.map(|scored| scored.agreement),
        confidence: scored.map(|scored| scored.confidence),
        published_dice: published.map(|scores| scores.dice),
        published_iou: published.map(|scores| scores.iou),
        skipped: match &row.outcome {
            Outcome::Scored(_) => None,
            Outcome::Skipped(reason) => Some(reason.clone()),
        },
    }
}

async fn timed<T>(future: impl Future<Output = T>) -> (T, f64) {
    let started = Instant::now();
    let output = future.await;
    (output, started.elapsed().as_secs_f64())
}

/// For work that would hold up an async thread.
async fn off_runtime<T: Send + 'static>(stage: &'static str, work: impl FnOnce() -> T + Send + 'static) -> Result<T, JobError> {
    let span = Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work)).await.map_err(|error| {
        // Never cancelled: only a panic ends it early.
        let reason = error.try_into_panic().map_or_else(|error| error.to_string(), |panic| panic_message(panic.as_ref()));
        JobError::Crashed { stage, reason }
    })
}
