//! The ledger's rows as the API shows them.

use super::types;

impl From<ledger::SubmittedBatch> for types::SubmittedBatch {
    fn from(ledger::SubmittedBatch { id, jobs }: ledger::SubmittedBatch) -> Self {
        Self { id, jobs }
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
    fn from(ledger::Artifact { kind, uri, sha256, bytes }: ledger::Artifact) -> Self {
        let kind = match kind {
            ledger::ArtifactKind::Mask => "mask",
            ledger::ArtifactKind::InitialMask => "initial_mask",
            ledger::ArtifactKind::Overlay => "overlay",
            ledger::ArtifactKind::Receipt => "receipt",
        };
        Self { kind: kind.into(), uri: uri.to_string(), sha256, bytes }
    }
}

impl From<ledger::JobResult> for types::JobResult {
    fn from(ledger::JobResult { artifacts, iou, best_step, seconds }: ledger::JobResult) -> Self {
        Self { artifacts: artifacts.into_iter().map(Into::into).collect(), iou, best_step, seconds }
    }
}

impl From<request::Parameters> for types::Parameters {
    fn from(request::Parameters { steps, learning_rate, recipe, .. }: request::Parameters) -> Self {
        Self { steps, learning_rate, recipe: recipe.to_string() }
    }
}

impl From<ledger::JobStatus> for types::Job {
    fn from(job: ledger::JobStatus) -> Self {
        Self {
            id: job.id,
            batch_id: job.batch_id,
            line: job.line,
            user_id: job.user_id,
            pool: job.pool,
            image: job.image.to_string(),
            points: job.points.into(),
            parameters: job.parameters.into(),
            state: job.state.into(),
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            error: job.error.map(Into::into),
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            result: job.result.map(Into::into),
        }
    }
}
