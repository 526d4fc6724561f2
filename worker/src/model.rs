//! One OS thread owns the model. Commands come in by a bounded channel, answers go out by a oneshot each.
//!
//! Never on a thread of the runtime: a step takes seconds, and heartbeats must not wait for it.

use std::{
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use image::RgbImage;
use request::{Parameters, Points};
use segmenter::{Checkpoint, Device, SegmentError, Segmentation, Segmenter};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    errors::{JobError, panic_message},
    metrics::Metrics,
};

/// How long the model may take to end its step and free its memory once nobody wants anything of it.
const PATIENCE: Duration = Duration::from_secs(1);

/// An image for the model.
pub struct Work {
    /// The pixels, shared with whoever draws the overlay later.
    pub image: Arc<RgbImage>,
    /// The dots.
    pub points: Points,
    /// How to segment.
    pub parameters: Parameters,
    /// Stops the fine-tuning at its next step.
    pub stop: CancellationToken,
}

/// What came of it.
pub struct Answer {
    /// The masks.
    pub segmentation: Segmentation,
    /// How long the image waited for the model, in seconds.
    pub queue_seconds: f64,
}

struct Command {
    work: Work,
    sent_at: Instant,
    reply: oneshot::Sender<Result<Answer, JobError>>,
}

/// A handle on the model, whose thread ends when this is dropped.
pub struct Model {
    commands: mpsc::Sender<Command>,
}

/// The thread itself.
pub struct ModelThread(thread::JoinHandle<()>);

impl ModelThread {
    /// Waits until the thread has freed its tensors and ended; false if that takes too long.
    pub async fn ended(self) -> bool {
        // A panic ends a thread as well.
        let join = tokio::task::spawn_blocking(move || drop(self.0.join()));
        tokio::time::timeout(PATIENCE, join).await.is_ok()
    }
}

impl Model {
    /// Starts the thread and waits until the model stands on its device.
    pub async fn start(checkpoint: Checkpoint, device: Device, metrics: Metrics) -> anyhow::Result<(Self, ModelThread)> {
        // One image may wait in the channel; who sends another waits with its own task.
        let (commands, mut inbox) = mpsc::channel(1);
        let (report_built, built) = oneshot::channel();
        let thread = thread::Builder::new().name("model".into()).spawn(move || {
            let mut segmenter = match build(&checkpoint, device) {
                Ok(segmenter) => segmenter,
                // Nobody listens where the process is already stopping.
                Err(error) => return drop(report_built.send(Err(error))),
            };
            drop(report_built.send(Ok(())));
            while serve(segmenter, &mut inbox, &metrics) == Served::Broken {
                segmenter = match build(&checkpoint, device) {
                    Ok(segmenter) => segmenter,
                    Err(error) => {
                        return tracing::error!(error = format!("{error:#}"), "the model failed and cannot be built anew");
                    }
                };
                tracing::warn!("the model failed and was built anew");
            }
        })?;
        let thread = ModelThread(thread);
        match built.await.map_err(anyhow::Error::from).flatten() {
            Ok(()) => Ok((Self { commands }, thread)),
            Err(error) => {
                thread.ended().await;
                Err(error)
            }
        }
    }

    /// Segments an image, after those sent before it. Dropping the future does not stop the model: `work.stop` does.
    pub async fn segment(&self, work: Work) -> Result<Answer, JobError> {
        let (reply, answer) = oneshot::channel();
        let command = Command { work, sent_at: Instant::now(), reply };
        self.commands.send(command).await.map_err(|_| JobError::ModelGone)?;
        answer.await.map_err(|_| JobError::ModelGone)?
    }

    /// Completes when the thread has ended because no new model could be built after a crash.
    pub async fn gone(&self) {
        self.commands.closed().await;
    }
}

/// Why a model serves no longer.
#[derive(PartialEq)]
enum Served {
    /// The worker wants nothing more.
    All,
    /// It failed: its weights may be half updated and the device's memory half freed.
    Broken,
}

fn build(checkpoint: &Checkpoint, device: Device) -> anyhow::Result<Segmenter> {
    let built = catch_unwind(|| Segmenter::new(checkpoint, device));
    Ok(built.map_err(|panic| anyhow!("libtorch failed: {}", panic_message(panic.as_ref())))??)
}

/// Takes the model and drops it before it returns: two never stand on the device at once.
fn serve(mut segmenter: Segmenter, inbox: &mut mpsc::Receiver<Command>, metrics: &Metrics) -> Served {
    while let Some(Command { work, sent_at, reply }) = inbox.blocking_recv() {
        if work.stop.is_cancelled() {
            continue;
        }
        let queue_seconds = sent_at.elapsed().as_secs_f64();
        let started = Instant::now();
        let outcome = segment(&mut segmenter, &work, metrics);
        metrics.record_model_busy(started.elapsed());
        let is_broken = outcome.as_ref().is_err_and(is_the_models_fault);
        // Who asked may have gone: its lease was lost or the worker is stopping.
        drop(reply.send(outcome.map(|segmentation| Answer { segmentation, queue_seconds })));
        if is_broken {
            return Served::Broken;
        }
    }
    Served::All
}

fn segment(segmenter: &mut Segmenter, work: &Work, metrics: &Metrics) -> Result<Segmentation, JobError> {
    let Work { image, points, parameters, stop } = work;
    let mut progress = |_| {
        metrics.record_step();
        if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    // A panic leaves half changed what the caller then throws away: the segmenter.
    match catch_unwind(AssertUnwindSafe(|| segmenter.segment(image, points, parameters, &mut progress))) {
        Ok(outcome) => Ok(outcome?),
        Err(panic) => Err(JobError::Crashed { stage: "model", reason: panic_message(panic.as_ref()) }),
    }
}

fn is_the_models_fault(error: &JobError) -> bool {
    let broken = |error: &SegmentError| matches!(error, SegmentError::Torch { .. } | SegmentError::OutOfMemory { .. });
    matches!(error, JobError::Crashed { .. }) || matches!(error, JobError::Segment(error) if broken(error))
}
