use anyhow::{Context as _, ensure};
use ledger::{ArtifactKind, JobState};
use request::Task;
use uuid::Uuid;

use crate::{
    System,
    quick::{expected_mask_sha256, sha256},
};

/// Every job of the batch succeeded, with one result, of its highest epoch, whose objects are in the store as recorded.
pub async fn check_every_job_has_one_result(system: &System, batch: Uuid) -> anyhow::Result<()> {
    for job in system.jobs(batch).await? {
        let name = format!("line {}", job.line);
        ensure!(job.state == JobState::Succeeded, "{name} is {:?}: {:?}\n{}", job.state, job.error, system.logs());
        ensure!(job.attempt <= job.max_attempts, "{name} had {} attempts of {}", job.attempt, job.max_attempts);
        let result = job.result.with_context(|| format!("{name} has no result"))?;
        let mut kinds: Vec<ArtifactKind> = result.artifacts.iter().map(|artifact| artifact.kind).collect();
        kinds.sort_by_key(|kind| *kind as u8);
        let all = [ArtifactKind::Mask, ArtifactKind::InitialMask, ArtifactKind::Overlay, ArtifactKind::Receipt];
        let expected = if matches!(job.request.task, Task::Evaluate(_)) { &all[3..] } else { &all };
        ensure!(kinds == expected, "{name} has {kinds:?}");
        for artifact in result.artifacts {
            let bytes = system.object(&artifact.uri)?;
            ensure!(
                sha256(&bytes) == artifact.sha256 && bytes.len() as u64 == artifact.bytes,
                "{name}: {:?} was changed",
                artifact.kind
            );
            let epoch = format!("/{}/{}/", job.id, job.epoch);
            ensure!(artifact.uri.key().contains(&epoch), "{name}: {} is not of epoch {}", artifact.uri, job.epoch);
        }
    }
    Ok(())
}

/// Every mask of the batch is the one that the request says, where quick workers made it.
pub async fn check_quick_masks(system: &System, batch: Uuid) -> anyhow::Result<()> {
    for job in system.jobs(batch).await? {
        let Some(result) = &job.result else { continue };
        let Task::Segment(objects) = &job.request.task else { continue };
        let image = system.object(&job.request.image)?;
        for (number, object) in (1..).zip(objects) {
            let mask = result.artifacts.iter().find(|artifact| (artifact.kind, artifact.object) == (ArtifactKind::Mask, number));
            let mask = mask.with_context(|| format!("line {} has no mask of object {number}", job.line))?;
            let expected = expected_mask_sha256(&image, &job.request.view, &object.points, &job.request.parameters)?;
            ensure!(mask.sha256 == expected, "line {}: the mask of object {number} is not what the request says", job.line);
        }
    }
    Ok(())
}
