//! How busy a worker keeps its model while jobs are queued and the object store is slow.

use std::time::{Duration, Instant};

use servers::{Mode, Proxies};

use crate::{ModelTime, QuickWorker, System, check_every_job_has_one_result, line, load::peak_bytes, png_of_blobs};

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// `quick-worker`, or `worker` with the repository's checkpoint.
    pub program: &'static str,
    /// How many images.
    pub images: u32,
    /// The steps of each.
    pub steps: u32,
    /// The width and height of each, in pixels.
    pub size: u32,
    /// Jobs held at once; as shipped where it is none.
    pub prefetch: Option<u16>,
    /// What each request to the store waits.
    pub delay: Duration,
}

/// What came of it, from the model's first step until no job was queued any more.
#[derive(Debug, Clone, Copy)]
pub struct Shares {
    /// The clock's time.
    pub seconds: f64,
    /// The model's, by the worker's own metrics.
    pub model: ModelTime,
    /// How long the model had each image, in seconds.
    pub image_seconds: f64,
    /// The most memory that the worker ever had, in bytes.
    pub peak_bytes: u64,
}

impl Shares {
    /// Of the clock's time, how much the model computed.
    pub fn busy(&self) -> f64 {
        self.model.busy / self.seconds
    }

    /// The same by the worker's metrics alone: of the time in which it computed or waited for one of its jobs.
    pub fn busy_by_metrics(&self) -> f64 {
        let ModelTime { busy, image, place, .. } = self.model;
        busy / (busy + image + place)
    }
}

/// Starts everything, does the work, checks that each image has its masks.
pub async fn measure(load: Load) -> anyhow::Result<Shares> {
    let Load { program, images, steps, size, prefetch, delay } = load;
    let system = System::start().await?;
    let _dispatcher = system.start_dispatcher_as_shipped().await?;
    let proxies = Proxies::start(&system.stack)?;
    proxies.objects.set(Mode::DelayRequests(delay));
    let mut lines = Vec::new();
    for seed in 0..images {
        system.put_image(&format!("{seed}.png"), &png_of_blobs(size, size, seed))?;
        lines.push(line(&format!("{seed}.png"), steps));
    }
    let prefetch = prefetch.map(|prefetch| prefetch.to_string());
    let flags: Vec<&str> = prefetch.iter().flat_map(|prefetch| ["--prefetch", prefetch]).collect();
    let worker = QuickWorker::start_program(program, &system, &system.stack.environment_via(&proxies), &flags)?;
    let is_ready = async || Ok(worker.get("/readyz").await.is_ok_and(|said| said.contains(" 200 ")));
    system.until("the worker is ready", is_ready).await?;

    let batch = system.submit(&lines).await?;
    system.until("the model computes", async || Ok(worker.steps().await > 0)).await?;
    let (began, before) = (Instant::now(), worker.model_time().await?);
    let queued = "SELECT count(*) FROM jobs WHERE state = 'queued'";
    system.until("no job is queued", async || Ok(system.value::<i64>(queued).await? == 0)).await?;
    let (after, seconds) = (worker.model_time().await?, began.elapsed().as_secs_f64());

    system.wait_until_done(batch).await?;
    check_every_job_has_one_result(&system, batch).await?;
    let image_seconds = worker.model_time().await?.busy / f64::from(images);
    let peak_bytes = peak_bytes(worker.program.pid())?;
    worker.program.stop().await?;
    let model = ModelTime {
        busy: after.busy - before.busy,
        job: after.job - before.job,
        image: after.image - before.image,
        place: after.place - before.place,
    };
    Ok(Shares { seconds, model, image_seconds, peak_bytes })
}
