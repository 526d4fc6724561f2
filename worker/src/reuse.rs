//! Finished results that are taken over instead of computed again: only where the user allowed it, and only whole and as recorded.

use std::collections::HashSet;

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use ledger::{Artifact, ArtifactKind, ClaimedJob, JobResult, Lease, ReusableResult, ReuseKey};
use request::Object;
use segmenter::sha256;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{
    artifacts::{self, ArtifactFile, object_file_name},
    job::Worker,
    receipt::{Figures, ImageFacts, Receipt, ReusedFrom, SegmentedObject, VERSION},
};

/// What is taken over of another job's receipt.
#[derive(Deserialize)]
pub struct LentReceipt {
    objects: Vec<Figures>,
}

impl LentReceipt {
    /// Reads a `receipt.json`.
    pub fn read(bytes: &[u8]) -> anyhow::Result<Self> {
        serde_json::from_slice(bytes).context("its receipt cannot be read")
    }
}

impl Worker {
    /// All that decides the masks, and whose they are: nothing is taken over from another project.
    pub fn reuse_key(&self, job: &ClaimedJob, objects: &[Object], image: &ImageFacts) -> ReuseKey {
        let points: Vec<_> = objects.iter().map(|object| &object.points).collect();
        let (view, parameters, device) = (&job.request.view, &job.request.parameters, self.compute.to_string());
        // A tuple in JSON: nothing in it can be taken for its neighbour.
        let content = serde_json::to_vec(&(
            &job.project,
            &image.sha256,
            view,
            points,
            parameters,
            &self.checkpoint_sha256,
            VERSION,
            device,
        ));
        Sha256::digest(content.expect("plain values")).into()
    }

    /// The finished result of this key, copied so that it is this job's own. `receipt` is this job's, without objects. None where there is
    /// no such result, or it is not what was recorded of it.
    pub async fn take_over(&self, job: &ClaimedJob, objects: &[Object], key: &ReuseKey, receipt: Receipt) -> Option<JobResult> {
        let lent = match self.ledger.reusable(key).await {
            Ok(lent) => lent?,
            Err(error) => {
                tracing::warn!(error = %error, "cannot look for a result to take over, computing it");
                return None;
            }
        };
        let lender = lent.job_id;
        match self.copy(job, objects, lent, receipt).await {
            Ok(result) => {
                self.metrics.record_reused();
                tracing::info!(lender.id = %lender, "took over a finished result");
                Some(result)
            }
            Err(error) => {
                tracing::warn!(lender.id = %lender, "a finished result cannot be taken over, computing it anew");
                // It may name an object.
                tracing::debug!(error = format!("{error:#}"), "why it cannot be taken over");
                None
            }
        }
    }

    /// Lets other jobs take this one's accepted result over. Without it they compute theirs, so it is not tried again.
    pub async fn lend(&self, lease: &Lease, key: &ReuseKey) {
        if let Err(error) = self.ledger.lend(lease, key).await {
            tracing::warn!(error = %error, "the result cannot be lent to other jobs");
        }
    }

    async fn copy(
        &self,
        job: &ClaimedJob,
        objects: &[Object],
        lent: ReusableResult,
        mut receipt: Receipt,
    ) -> anyhow::Result<JobResult> {
        let JobResult { artifacts, masks, .. } = lent.result;
        check_whole(&artifacts, objects.len())?;
        let mut files = try_join_all(artifacts.iter().map(|artifact| self.lent_file(artifact, objects.len()))).await?;
        let place = files.iter().position(|file| file.kind == ArtifactKind::Receipt).context("it has no receipt")?;
        let made = LentReceipt::read(&files.swap_remove(place).bytes)?;
        ensure!(made.objects.len() == objects.len() && masks.len() == objects.len(), "it has another number of masks");

        let object = |(object, figures): (&Object, Figures)| SegmentedObject {
            id: object.id.clone(),
            points: object.points.clone(),
            figures,
        };
        receipt.objects = objects.iter().zip(made.objects).map(object).collect();
        receipt.reused_from = Some(ReusedFrom { job: lent.job_id, epoch: lent.epoch });
        files.push(artifacts::encode_receipt(&receipt)?);
        Ok(JobResult { artifacts: self.upload(job, files).await?, masks, scores: Vec::new(), seconds: 0.0 })
    }

    /// A lent object, if it is what was recorded.
    async fn lent_file(&self, artifact: &Artifact, objects: usize) -> anyhow::Result<ArtifactFile> {
        let &Artifact { kind, object, bytes: size, .. } = artifact;
        let bytes = self.objects.get(&artifact.uri, size).await?;
        ensure!(sha256(&bytes) == artifact.sha256, "{} is not what was recorded", artifact.uri);
        let name = if object == 0 { artifacts::file_name(kind).into() } else { object_file_name(kind, object, objects) };
        Ok(ArtifactFile { kind, object, name, bytes: bytes.into() })
    }
}

fn check_whole(artifacts: &[Artifact], objects: usize) -> anyhow::Result<()> {
    let found: HashSet<_> = artifacts.iter().map(|artifact| (artifact.kind, artifact.object)).collect();
    let of_objects =
        (1..).take(objects).flat_map(|object| [ArtifactKind::Mask, ArtifactKind::InitialMask].map(|kind| (kind, object)));
    let of_image = [ArtifactKind::Overlay, ArtifactKind::Receipt].map(|kind| (kind, 0));
    ensure!(found == of_objects.chain(of_image).collect(), "it has other objects than a result of {objects} masks");
    Ok(())
}
