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
use evaluation::Row;
use image::{GrayImage, RgbImage};
use request::{Evaluation, EvaluationDots, Parameters, Points};
use segmenter::{Checkpoint, Compute, Device, SegmentError, Segmentation};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::task_tracker::TaskTrackerToken};

use crate::{
    engine::{Engine, Plan},
    errors::{JobError, panic_message},
    evaluate::score::Prompts,
    metrics::Metrics,
};

/// How long the model may take to end its step and free its memory once nobody wants anything of it.
const PATIENCE: Duration = Duration::from_secs(1);

/// An image with objects to segment.
pub struct SegmentWork {
    /// The pixels, shared with whoever draws the overlay later.
    pub image: Arc<RgbImage>,
    /// Each object's dots.
    pub objects: Vec<Points>,
    /// How to segment.
    pub parameters: Parameters,
}

/// An image with a truth to compare methods by.
pub struct EvaluateWork {
    /// The pixels.
    pub image: Arc<RgbImage>,
    /// 255 where the object is, of the image's size.
    pub truth: GrayImage,
    /// The image's name among the others; with the seed it decides which points are drawn.
    pub case: String,
    /// What to compare.
    pub evaluation: Evaluation,
    /// How to segment.
    pub parameters: Parameters,
}

/// The right to the model for one image. It goes with the work, and comes back with the answer, or ends when the model is done with what nobody
/// waits for any more.
pub struct Turn {
    /// Of those that the model has for images, the one.
    pub permit: OwnedSemaphorePermit,
    /// Ends the work at its next step.
    pub stop: CancellationToken,
    /// Of the attempt, which has an eye on what it began.
    pub working: TaskTrackerToken,
}

/// What came of it.
pub struct Answer<T> {
    /// The masks, or an evaluation's rows.
    pub made: T,
    /// How long the image waited for the model, in seconds.
    pub queue_seconds: f64,
    /// Until it is dropped the model is idle.
    pub turn: Turn,
}

enum Command {
    Segment(SegmentWork, Asked<Vec<Segmentation>>),
    Evaluate(EvaluateWork, Asked<Vec<Row>>),
}

/// Who asked, and since when.
struct Asked<T> {
    turn: Turn,
    sent_at: Instant,
    reply: oneshot::Sender<Result<Answer<T>, JobError>>,
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
    pub async fn start<E: Engine>(
        checkpoint: Checkpoint,
        compute: Compute,
        metrics: Metrics,
    ) -> anyhow::Result<(Self, ModelThread)> {
        // One image may wait in the channel; who sends another waits with its own task.
        let (commands, mut inbox) = mpsc::channel(1);
        let (report_built, built) = oneshot::channel();
        let thread = thread::Builder::new().name("model".into()).spawn(move || {
            let mut engine: E = match build(&checkpoint, compute) {
                Ok(engine) => engine,
                // Nobody listens where the process is already stopping.
                Err(error) => return drop(report_built.send(Err(error))),
            };
            metrics.model_time.begin();
            drop(report_built.send(Ok(())));
            while serve(engine, compute.device, &mut inbox, &metrics) == Served::Broken {
                engine = match build(&checkpoint, compute) {
                    Ok(engine) => engine,
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

    /// Segments an image, after what was sent before it. Dropping the future does not stop the model: the turn's `stop` does.
    pub async fn segment(&self, work: SegmentWork, turn: Turn) -> Result<Answer<Vec<Segmentation>>, JobError> {
        self.ask(turn, |asked| Command::Segment(work, asked)).await
    }

    /// Compares methods on an image, in the same way.
    pub async fn evaluate(&self, work: EvaluateWork, turn: Turn) -> Result<Answer<Vec<Row>>, JobError> {
        self.ask(turn, |asked| Command::Evaluate(work, asked)).await
    }

    async fn ask<T>(&self, turn: Turn, command: impl FnOnce(Asked<T>) -> Command) -> Result<Answer<T>, JobError> {
        let (reply, answer) = oneshot::channel();
        let command = command(Asked { turn, sent_at: Instant::now(), reply });
        self.commands.send(command).await.map_err(|_| JobError::ModelGone)?;
        answer.await.map_err(|_| JobError::ModelGone)?
    }

    /// Completes when the thread has ended because no new model could be built after a crash.
    pub async fn gone(&self) {
        self.commands.closed().await;
    }
}

/// Whether a model can serve on.
#[derive(PartialEq)]
enum Served {
    /// The worker wants nothing more, or nothing went wrong.
    All,
    /// It failed: its weights may be half updated and the device's memory half freed.
    Broken,
}

fn build<E: Engine>(checkpoint: &Checkpoint, compute: Compute) -> anyhow::Result<E> {
    let built = catch_unwind(|| E::build(checkpoint, compute));
    built.map_err(|panic| anyhow!("libtorch failed: {}", panic_message(panic.as_ref())))?
}

/// Takes the model and drops it before it returns: two never stand on the device at once.
fn serve<E: Engine>(mut engine: E, device: Device, inbox: &mut mpsc::Receiver<Command>, metrics: &Metrics) -> Served {
    measure_memory(device, metrics);
    while let Some(command) = inbox.blocking_recv() {
        let served = match command {
            Command::Segment(work, asked) => asked.answer(metrics, |go_on| {
                let SegmentWork { image, objects, parameters } = &work;
                engine.segment(image, objects, parameters, &mut || step(metrics, go_on))
            }),
            Command::Evaluate(work, asked) => asked.answer(metrics, |go_on| evaluate(&mut engine, &work, metrics, go_on)),
        };
        if served == Served::Broken {
            return Served::Broken;
        }
        measure_memory(device, metrics);
    }
    Served::All
}

fn measure_memory(device: Device, metrics: &Metrics) {
    if device == Device::Cuda
        && let Some(memory) = segmenter::gpu_memory()
    {
        metrics.record_gpu_memory(memory);
    }
}

impl<T> Asked<T> {
    /// Computes and replies. `compute` asks its argument now and then whether to go on.
    fn answer(self, metrics: &Metrics, compute: impl FnOnce(&dyn Fn() -> ControlFlow<()>) -> Result<T, SegmentError>) -> Served {
        let Self { turn, sent_at, reply } = self;
        if turn.stop.is_cancelled() {
            return Served::All;
        }
        let queue_seconds = sent_at.elapsed().as_secs_f64();
        let computes = metrics.model_time.computes();
        let go_on = || if turn.stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        // A panic leaves half changed what the caller then throws away: the engine.
        let outcome = match catch_unwind(AssertUnwindSafe(|| compute(&go_on))) {
            Ok(outcome) => outcome.map_err(JobError::from),
            Err(panic) => Err(JobError::Crashed { stage: "model", reason: panic_message(panic.as_ref()) }),
        };
        drop(computes);
        let is_broken = outcome.as_ref().is_err_and(is_the_models_fault);
        // Who asked may have gone: its lease was lost or the worker is stopping.
        drop(reply.send(outcome.map(|made| Answer { made, queue_seconds, turn })));
        if is_broken { Served::Broken } else { Served::All }
    }
}

fn evaluate<E: Engine>(
    engine: &mut E,
    work: &EvaluateWork,
    metrics: &Metrics,
    go_on: &dyn Fn() -> ControlFlow<()>,
) -> Result<Vec<Row>, SegmentError> {
    let EvaluateWork { image, truth, case, evaluation, parameters } = work;
    let settings;
    let prompts = match &evaluation.dots {
        EvaluationDots::Given(points) => Prompts::Given(points),
        EvaluationDots::Drawn { setting, repeats, seed } => {
            settings = [*setting];
            Prompts::Random { settings: &settings, repeats: *repeats, seed: *seed }
        }
    };
    let plan = Plan {
        case,
        group: evaluation.group.as_deref().unwrap_or_default(),
        prompts,
        methods: &evaluation.methods,
        parameters,
        is_done: &|_| false,
    };
    let mut rows = Vec::new();
    let mut on_row = |row| {
        rows.push(row);
        go_on()
    };
    engine.evaluate(image, truth, &plan, &mut on_row, &mut || step(metrics, go_on))?;
    Ok(rows)
}

/// Counts a step, unless nobody wants it any more.
fn step(metrics: &Metrics, go_on: &dyn Fn() -> ControlFlow<()>) -> ControlFlow<()> {
    let next = go_on();
    if next.is_continue() {
        metrics.record_step();
    }
    next
}

fn is_the_models_fault(error: &JobError) -> bool {
    let broken = |error: &SegmentError| matches!(error, SegmentError::Torch { .. } | SegmentError::OutOfMemory { .. });
    matches!(error, JobError::Crashed { .. }) || matches!(error, JobError::Segment(error) if broken(error))
}
