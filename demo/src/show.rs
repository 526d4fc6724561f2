use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use servers::{Program, Stack};

use crate::{
    fetch::fetch,
    images::{DemoImage, demo_images, manifest},
    report::{Job, print_table, write_pictures},
    repository,
    run_folder::RunFolder,
};

const POOL: &str = "demo";
const IMAGES: &str = "images";
const MASKS: &str = "masks";

/// How long the dispatcher may take to reach the servers and to make its tables.
const START_LIMIT: Duration = Duration::from_mins(1);

/// `dispatcher watch` ends with it when a job did not succeed.
const JOBS_DID_NOT_SUCCEED: i32 = 4;

/// Everything that runs and has to be stopped.
#[derive(Default)]
pub struct Show {
    stack: Option<Stack>,
    dispatcher: Option<Program>,
    worker: Option<Program>,
}

impl Show {
    /// From images to pictures. It may be dropped at any point; [`Self::stop`] then ends what runs.
    pub async fn run(&mut self, folder: &RunFolder, out: &Path) -> anyhow::Result<()> {
        let checkpoint = repository().join("models/nano/nano.safetensors");
        ensure!(checkpoint.exists(), "the model {} is not there", checkpoint.display());
        let images = demo_images()?;
        let cache = repository().join(".demo/cache");

        let started = Instant::now();
        let stack = async { Ok(Stack::start(&folder.path().join("servers")).await?) };
        let python = repository().join(".venv/bin/python");
        let fetched = fetch(&images, &cache, &python);
        let ((), stack) = tokio::try_join!(fetched, stack)?;
        let stack = self.stack.insert(stack);
        eprintln!(
            "demo: {} images; Postgres, RabbitMQ and an object store run ({:.1} s)",
            images.len(),
            started.elapsed().as_secs_f64()
        );

        stack.objects.create_bucket(IMAGES)?;
        stack.objects.create_bucket(MASKS)?;
        let store = stack.objects.dir().to_owned();
        let environment = stack.environment();
        let [listen, metrics_listen] = servers::free_ports().map(|port| format!("127.0.0.1:{port}"));
        let server = format!("http://{listen}");
        let open = ["--listen", &listen, "--metrics-listen", &metrics_listen, "--without-tokens"];
        let serve = [&["serve", "--migrate", "--pools", POOL][..], &open].concat();
        let log = |name| folder.path().join(format!("{name}.log"));
        let dispatcher = self.dispatcher.insert(Program::start("dispatcher", &serve, &environment, &log("dispatcher"))?);
        let (checkpoint, masks) = (checkpoint.to_str().context("the path is not UTF-8")?, format!("s3://{MASKS}"));
        let run = ["run", "--pool", POOL, "--checkpoint", checkpoint, "--masks", &masks, "--listen", "127.0.0.1:0"];
        let environment = [&environment[..], &worker_settings()].concat();
        let worker = self.worker.insert(Program::start("worker", &run, &environment, &log("worker"))?);
        eprintln!("demo: a dispatcher at {server} and a worker run; their logs are in {}", folder.path().display());
        eprintln!(
            "demo: the dispatcher listens on loopback alone and asks for no token; anywhere else it must (docs/SECURITY.md)"
        );

        put(&images, &cache, &store)?;
        let manifest_file = folder.path().join("manifest.jsonl");
        fs::write(&manifest_file, manifest(&images, IMAGES)?)?;
        dispatcher.wait_until_ready(&metrics_listen, START_LIMIT).await?;
        let segmented = async {
            let batch = submit(&manifest_file, &server).await?;
            watch(&batch, &server).await
        };
        let jobs = tokio::select! {
            jobs = segmented => jobs?,
            ended = dispatcher.unexpected_end() => return Err(ended.into()),
            ended = worker.unexpected_end() => return Err(ended.into()),
        };

        print_table(&jobs)?;
        write_pictures(&images, &jobs, &cache, &store, out)?;
        eprintln!("demo: pictures are in {}; contact-sheet.png has them all", out.display());
        let unsuccessful: Vec<String> = jobs.iter().filter(|job| job.result.is_none()).map(Job::describe_failure).collect();
        ensure!(
            unsuccessful.is_empty(),
            "{} of {} images have no mask: {}",
            unsuccessful.len(),
            jobs.len(),
            unsuccessful.join("; ")
        );
        Ok(())
    }

    /// Ends everything, those that use the servers first.
    pub async fn stop(&mut self) {
        let say = |error| eprintln!("demo: {error}");
        for program in [self.worker.take(), self.dispatcher.take()].into_iter().flatten() {
            program.stop().await.unwrap_or_else(say);
        }
        if let Some(mut stack) = self.stack.take() {
            // Dropping the stack kills what did not stop.
            stack.stop().await.unwrap_or_else(say);
        }
    }
}

fn worker_settings() -> [(String, String); 3] {
    [
        // Nobody waits for the job that an interrupted demo leaves behind.
        ("DOTMASK_DRAIN_SECONDS", "0"),
        // One job at a time: a second one's seconds would count its wait for the first, and fetching takes no time here.
        ("DOTMASK_PREFETCH", "1"),
        // How often libtorch's threads look before they sleep: at its default they burn the cores that another program wants.
        ("GOMP_SPINCOUNT", "10000"),
    ]
    .map(|(name, value)| (name.into(), value.into()))
}

/// Puts the images into their bucket, which the demo's store keeps as a folder. Only the worker talks S3.
fn put(images: &[DemoImage], cache: &Path, store: &Path) -> anyhow::Result<()> {
    for image in images {
        let (from, to) = (cache.join(image.file_name()), store.join(IMAGES).join(image.file_name()));
        fs::copy(&from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

/// Submits the manifest and returns the batch's id.
async fn submit(manifest: &Path, server: &str) -> anyhow::Result<String> {
    let mut command = Program::client("dispatcher", &[])?;
    command.arg("submit").arg(manifest).args(["--pool", POOL, "--name", "demo", "--server", server]);
    let (code, output) = client(command).await?;
    ensure!(code == Some(0), "dispatcher submit did not succeed");
    Ok(output.trim().to_owned())
}

/// Shows the batch's progress until it is done, and returns its jobs.
async fn watch(batch: &str, server: &str) -> anyhow::Result<Vec<Job>> {
    let mut command = Program::client("dispatcher", &[])?;
    command.args(["watch", batch, "--json", "--server", server]);
    match client(command).await? {
        (Some(0 | JOBS_DID_NOT_SUCCEED), output) => {
            output.lines().map(|line| serde_json::from_str(line).context("dispatcher watch wrote no job")).collect()
        }
        _ => bail!("dispatcher watch did not succeed"),
    }
}

/// Runs a client whose messages and progress go to the terminal, and returns its exit code and what it wrote to stdout.
async fn client(mut command: Command) -> anyhow::Result<(Option<i32>, String)> {
    command.stdout(Stdio::piped());
    let client = tokio::process::Command::from(command).kill_on_drop(true).spawn();
    let output = client.context("cannot run setpriv; install util-linux")?.wait_with_output().await?;
    Ok((output.status.code(), String::from_utf8(output.stdout)?))
}
