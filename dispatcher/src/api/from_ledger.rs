//! The ledger's rows as the API shows them, and what the API takes as the ledger has it.

use request::{EvaluationDots, SegmentationRequest, Task, View};

use super::types;

impl From<ledger::SubmittedBatch> for types::SubmittedBatch {
    fn from(ledger::SubmittedBatch { id, jobs, is_new }: ledger::SubmittedBatch) -> Self {
        Self { id, jobs, is_new }
    }
}

impl From<ledger::BatchStatus> for types::Batch {
    fn from(batch: ledger::BatchStatus) -> Self {
        let ledger::BatchStatus { id, name, pool, created_at, finished_at, counts } = batch;
        let ledger::Counts { queued, running, succeeded, failed, cancelled, quarantined } = counts;
        let counts = types::Counts { queued, running, succeeded, failed, cancelled, quarantined };
        Self { id, name, pool, created_at, finished_at, counts }
    }
}

impl From<ledger::PoolStatus> for types::Pool {
    fn from(pool: ledger::PoolStatus) -> Self {
        let ledger::PoolStatus { name, checkpoint_sha256, queued, running } = pool;
        Self { name, checkpoint_sha256, queued, running }
    }
}

impl From<ledger::Workload> for types::Workload {
    fn from(workload: ledger::Workload) -> Self {
        let (job_seconds, open_work_seconds) = (workload.job_seconds(), workload.open_work_seconds().ceil() as i64);
        let ledger::Workload { pool: name, queued, running, busy_workers, .. } = workload;
        Self { name, queued, running, busy_workers, job_seconds, open_work_seconds }
    }
}

impl From<ledger::JobState> for types::JobState {
    fn from(state: ledger::JobState) -> Self {
        match state {
            ledger::JobState::Queued => Self::Queued,
            ledger::JobState::Running => Self::Running,
            ledger::JobState::Succeeded => Self::Succeeded,
            ledger::JobState::Failed => Self::Failed,
            ledger::JobState::Cancelled => Self::Cancelled,
            ledger::JobState::Quarantined => Self::Quarantined,
        }
    }
}

impl From<ledger::JobFailure> for types::JobError {
    fn from(ledger::JobFailure { class, message }: ledger::JobFailure) -> Self {
        let class = match class {
            ledger::ErrorClass::Transient => "transient",
            ledger::ErrorClass::Permanent => "permanent",
            ledger::ErrorClass::Shutdown => "shutdown",
        };
        Self { class: class.into(), message }
    }
}

impl From<ledger::Artifact> for types::Artifact {
    fn from(ledger::Artifact { kind, object, uri, sha256, bytes }: ledger::Artifact) -> Self {
        let kind = match kind {
            ledger::ArtifactKind::Mask => "mask",
            ledger::ArtifactKind::InitialMask => "initial_mask",
            ledger::ArtifactKind::Overlay => "overlay",
            ledger::ArtifactKind::Receipt => "receipt",
        };
        Self { kind: kind.into(), object, uri: uri.to_string(), sha256, bytes }
    }
}

impl From<ledger::Mask> for types::Mask {
    fn from(ledger::Mask { object: _, iou, best_step, confidence, warnings }: ledger::Mask) -> Self {
        Self { iou, best_step, confidence, warnings }
    }
}

impl From<ledger::Score> for types::Score {
    fn from(score: ledger::Score) -> Self {
        Self {
            setting: score.setting.to_string(),
            repeat: score.repeat,
            method: score.method.to_string(),
            dice: score.dice,
            iou: score.iou,
            best_step: score.best_step,
            seconds: score.seconds,
            iou_with_initial: score.iou_with_initial,
            agreement: score.agreement,
            confidence: score.confidence,
            published_dice: score.published_dice,
            published_iou: score.published_iou,
            skipped: score.skipped,
        }
    }
}

impl From<ledger::ScoredJob> for types::ScoredJob {
    fn from(ledger::ScoredJob { id, line, request, scores }: ledger::ScoredJob) -> Self {
        let group = match request.task {
            Task::Evaluate(evaluation) => evaluation.group,
            Task::Segment(_) => None,
        };
        Self { job_id: id, line, user_id: request.id, group, scores: scores.into_iter().map(Into::into).collect() }
    }
}

impl From<request::Evaluation> for types::Evaluation {
    fn from(evaluation: request::Evaluation) -> Self {
        let request::Evaluation { truth, truth_sha256, label, group, methods, dots } = evaluation;
        let methods = methods.into_iter().map(|method| method.to_string()).collect();
        let (points, setting, repeats, seed) = match dots {
            EvaluationDots::Given(points) => (Some(points.into()), None, None, None),
            EvaluationDots::Drawn { setting, repeats, seed } => (None, Some(setting.to_string()), Some(repeats), Some(seed)),
        };
        Self {
            truth: truth.to_string(),
            truth_sha256: truth_sha256.map(Into::into),
            label,
            group,
            methods,
            points,
            setting,
            repeats,
            seed,
        }
    }
}

impl From<request::Parameters> for types::Parameters {
    fn from(request::Parameters { steps, learning_rate, recipe, choices }: request::Parameters) -> Self {
        let choices = serde_json::to_value(choices).expect("a struct of numbers and names is a JSON object");
        Self { steps, learning_rate, recipe: recipe.to_string(), choices }
    }
}

impl From<ledger::JobStatus> for types::Job {
    fn from(job: ledger::JobStatus) -> Self {
        let SegmentationRequest { image, image_sha256, view: View { slice, window }, task, id: user_id, pool: _, parameters } =
            job.request;
        let (mut masks, result) = match job.result {
            Some(ledger::JobResult { artifacts, masks, scores, seconds }) => {
                let artifacts = artifacts.into_iter().map(Into::into).collect();
                let scores = scores.into_iter().map(Into::into).collect();
                (masks, Some(types::JobResult { artifacts, scores, seconds }))
            }
            None => (Vec::new(), None),
        };
        let (objects, evaluation) = match task {
            Task::Segment(objects) => (objects, None),
            Task::Evaluate(evaluation) => (Vec::new(), Some(evaluation.into())),
        };
        let mut mask_of = |number: u32| {
            let index = masks.iter().position(|mask| mask.object == number)?;
            Some(masks.swap_remove(index).into())
        };
        let objects = objects.into_iter().zip(1..).map(|(request::Object { id, points }, number)| types::JobObject {
            id,
            points: points.into(),
            mask: mask_of(number),
        });
        Self {
            id: job.id,
            batch_id: job.batch_id,
            line: job.line,
            user_id,
            pool: job.pool,
            image: image.to_string(),
            image_sha256: image_sha256.map(Into::into),
            slice,
            window: window.map(Into::into),
            objects: objects.collect(),
            evaluation,
            parameters: parameters.into(),
            state: job.state.into(),
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            error: job.error.map(Into::into),
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            result,
        }
    }
}

impl From<ledger::TokenStatus> for types::Token {
    fn from(token: ledger::TokenStatus) -> Self {
        let ledger::TokenStatus { id, project: _, name, scope, created_at, expires_at, revoked_at, last_used_at } = token;
        Self { id, name, scope: scope.into(), created_at, expires_at, revoked_at, last_used_at }
    }
}

impl From<types::TokenScope> for ledger::Scope {
    fn from(scope: types::TokenScope) -> Self {
        match scope {
            types::TokenScope::Read => Self::Read,
            types::TokenScope::Submit => Self::Submit,
            types::TokenScope::Admin => Self::Admin,
        }
    }
}

impl From<ledger::Scope> for types::TokenScope {
    fn from(scope: ledger::Scope) -> Self {
        match scope {
            ledger::Scope::Read => Self::Read,
            ledger::Scope::Submit => Self::Submit,
            ledger::Scope::Admin => Self::Admin,
        }
    }
}
