//! The servers, and workers that run against them.

use std::{
    fs,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use broker::Publisher;
use ledger::{DEFAULT_PROJECT, JobStatus, Ledger, NewBatch};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use request::{Evaluation, EvaluationDots, Method, Object, Parameters, S3Uri, SegmentationRequest, Task, View};
use servers::{Proxies, Stack};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
};
use uuid::Uuid;

use crate::{
    checkpoint::checkpoint,
    common::{Ended, worker},
};

/// Far more than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Waits until it is so.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Where an image of that name is, or would be.
pub fn image_uri(name: &str) -> S3Uri {
    S3Uri::new("scans", name).expect("a plain name")
}

/// Postgres, `RabbitMQ` and an object store, with the ledger's tables and a bucket for images and one for results.
pub struct System {
    pub stack: Stack,
    pub ledger: Ledger,
    folder: TempDir,
}

impl System {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("the system has a folder for temporary files");
        let stack = Stack::start(folder.path()).await.expect("the servers start");
        for bucket in ["scans", "results"] {
            stack.objects.create_bucket(bucket).expect("a new bucket");
        }
        let ledger = Ledger::connect(&stack.postgres.url(), 4).await.expect("Postgres answers");
        ledger.migrate().await.expect("an empty database");
        Self { stack, ledger, folder }
    }

    /// For the test's own files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Puts bytes into the store.
    pub fn put_image(&self, name: &str, bytes: &[u8]) -> S3Uri {
        fs::write(self.stack.objects.dir().join("scans").join(name), bytes).expect("the store's folder takes files");
        image_uri(name)
    }

    /// An object's bytes.
    pub fn read(&self, uri: &S3Uri) -> Vec<u8> {
        fs::read(self.stack.objects.dir().join(uri.bucket()).join(uri.key())).expect("the object is in the store")
    }

    /// Enters a batch of one job into the ledger; its token stays in the outbox.
    pub async fn enter(&self, image: &S3Uri, steps: u32) -> Uuid {
        self.enter_with_points(image, "20,20,1;60,40,0", steps).await
    }

    /// Enters a batch of one job with these points into the ledger; its token stays in the outbox.
    pub async fn enter_with_points(&self, image: &S3Uri, points: &str, steps: u32) -> Uuid {
        let task = Task::Segment(vec![Object { id: None, points: points.parse().expect("valid") }]);
        self.enter_task(image, task, steps).await
    }

    /// Enters a batch of one job with this task into the ledger; its token stays in the outbox.
    pub async fn enter_task(&self, image: &S3Uri, task: Task, steps: u32) -> Uuid {
        self.enter_request(DEFAULT_PROJECT, &request_of(image, task, steps)).await
    }

    /// Enters a batch of this one job of the project into the ledger; its token stays in the outbox.
    pub async fn enter_request(&self, project: &str, request: &SegmentationRequest) -> Uuid {
        let new = NewBatch { project: project.into(), pool: "test".into(), ..NewBatch::default() };
        let mut batch = self.ledger.begin_batch(new).await.expect("Postgres answers");
        batch.push(1, request).await.expect("a valid request");
        let batch = batch.commit().await.expect("a declared pool");
        self.ledger.jobs(batch.id, 0, 1).await.expect("Postgres answers")[0].id
    }

    /// Enters a batch of a comparison of two methods, on points drawn twice.
    pub async fn enter_evaluation(&self, image: &S3Uri, truth: &S3Uri, label: Option<u32>, setting: &str, steps: u32) -> Uuid {
        self.enter_task(image, compared(truth, label, setting, 2), steps).await
    }

    /// Enters a batch of one job into the ledger and sends every token that the outbox holds, as the dispatcher does.
    pub async fn submit(&self, image: &S3Uri, steps: u32) -> Uuid {
        let job = self.enter(image, steps).await;
        let mut publisher =
            Publisher::connect(self.stack.rabbitmq.url().parse().expect("a URL")).await.expect("RabbitMQ answers");
        let owed = self.ledger.take_outbox(100).await.expect("Postgres answers").expect("a token for the new job");
        for (pool, tokens) in owed.tokens() {
            publisher.publish(&pool, tokens).await.expect("RabbitMQ confirms");
        }
        owed.delete().await.expect("Postgres answers");
        job
    }

    /// The job as it is now.
    pub async fn job(&self, id: Uuid) -> JobStatus {
        self.ledger.job(id).await.expect("Postgres answers").expect("the job exists")
    }

    /// The job when it is in a terminal state.
    pub async fn ended(&self, id: Uuid) -> JobStatus {
        until("the job has ended", async || self.job(id).await.state.is_terminal()).await;
        self.job(id).await
    }
}

/// A request for one object.
pub fn segmentation(image: &S3Uri, points: &str, steps: u32) -> SegmentationRequest {
    let points = points.parse().expect("valid");
    request_of(image, Task::Segment(vec![Object { id: None, points }]), steps)
}

/// A request for a comparison on one point that is drawn.
pub fn evaluation(image: &S3Uri, truth: &S3Uri) -> SegmentationRequest {
    request_of(image, compared(truth, None, "1/0", 1), 2)
}

fn request_of(image: &S3Uri, task: Task, steps: u32) -> SegmentationRequest {
    SegmentationRequest {
        image: image.clone(),
        image_sha256: None,
        view: View::default(),
        task,
        id: Some("cells".into()),
        pool: None,
        // So slow that the prediction never becomes the initial mask, which would end the fine-tuning early.
        parameters: Parameters { steps, learning_rate: 1e-9, ..Parameters::default() },
    }
}

/// Two methods, on points that are drawn.
fn compared(truth: &S3Uri, label: Option<u32>, setting: &str, repeats: u32) -> Task {
    let dots = EvaluationDots::Drawn { setting: setting.parse().expect("valid"), repeats, seed: 7 };
    let methods = vec![Method::InitialMask, Method::Finetuned];
    Task::Evaluate(Evaluation { truth: truth.clone(), truth_sha256: None, label, group: Some("cells".into()), methods, dots })
}

/// A `worker run` in a process of its own, killed when this is dropped.
pub struct RunningWorker {
    child: Child,
    log: TempDir,
}

/// Servers that are not there: nobody listens on port 1.
pub const SERVERS_AWAY: [(&str, &str); 3] = [
    ("DATABASE_URL", "postgres://nobody:hunter2@127.0.0.1:1/none"),
    ("AMQP_URL", "amqp://nobody:hunter2@127.0.0.1:1/%2f"),
    ("DOTMASK_S3_ENDPOINT", "http://127.0.0.1:1"),
];

impl RunningWorker {
    /// Works for the pool `test`.
    pub fn start(system: &System, arguments: &[&str]) -> Self {
        Self::spawn(&system.stack.environment(), arguments)
    }

    /// Works for the pool `test`, and reaches the servers through these proxies.
    pub fn start_via(system: &System, proxies: &Proxies, arguments: &[&str]) -> Self {
        Self::spawn(&system.stack.environment_via(proxies), arguments)
    }

    /// Works for the pool `test`, with these variables too.
    pub fn start_in(system: &System, environment: &[(&str, String)]) -> Self {
        let more = environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        Self::spawn(&system.stack.environment().into_iter().chain(more).collect::<Vec<_>>(), &[])
    }

    /// Told to use servers that are not there.
    pub fn without_servers(arguments: &[&str]) -> Self {
        Self::spawn(&SERVERS_AWAY.map(|(name, value)| (name.into(), value.into())), arguments)
    }

    /// Works for the pool `test` with these variables alone.
    pub fn spawn(environment: &[(String, String)], arguments: &[&str]) -> Self {
        let log = tempfile::tempdir().expect("the system has a folder for temporary files");
        let stderr = fs::File::create(log.path().join("stderr")).expect("a new folder takes files");
        let mut command = worker();
        command.arg("run").args(arguments).args(["--pool", "test", "--masks", "s3://results/masks", "--listen", "127.0.0.1:0"]);
        command.args(["--threads", "1"]).envs(environment.iter().cloned());
        if !arguments.contains(&"--checkpoint") {
            command.arg("--checkpoint").arg(checkpoint());
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let child = Command::from(command).kill_on_drop(true).spawn().expect("the binary can be started");
        Self { child, log }
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log.path().join("stderr")).expect("the log is text")
    }

    /// Waits until it has logged that.
    pub async fn logged(&self, text: &str) {
        until(&format!("the worker has logged {text:?}"), async || self.log().contains(text)).await;
    }

    /// Waits until the model is in the midst of an image.
    pub async fn steps_begun(&self) {
        until("a step was done", async || self.metrics().await.count("dotmask_worker_steps_total") > 0).await;
    }

    /// Waits until it says that it can work.
    pub async fn ready(&self) {
        until("the worker is ready", async || self.is_ready().await).await;
    }

    /// Waits until it says that of itself.
    pub async fn says(&self, words: &str) {
        until(&format!("the worker says {words:?}"), async || self.get("/readyz").await.contains(words)).await;
    }

    /// Whether it says that it can work.
    pub async fn is_ready(&self) -> bool {
        self.get("/readyz").await.starts_with("HTTP/1.1 200")
    }

    /// What it counts.
    pub async fn metrics(&self) -> Metrics {
        Metrics(self.get("/metrics").await)
    }

    async fn get(&self, path: &str) -> String {
        self.logged("metrics and health address=").await;
        let log = self.log();
        let address = log.split("metrics and health address=").nth(1).and_then(|rest| rest.split_whitespace().next());
        let mut connection = TcpStream::connect(address.expect("a whole line")).await.expect("the worker listens");
        let request = format!("GET {path} HTTP/1.1\r\nhost: worker\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.expect("the worker listens");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.expect("the worker answers");
        answer
    }

    /// Sends the signal.
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().expect("the worker still runs");
        kill(Pid::from_raw(pid.cast_signed()), signal).expect("the worker still runs");
    }

    /// Sends the signal and waits for the end.
    pub async fn stop(self, signal: Signal) -> Ended {
        self.signal(signal);
        self.ended().await
    }

    /// Waits for the end.
    pub async fn ended(mut self) -> Ended {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("the worker did not end:\n{}", self.log())).expect("a child of ours");
        let code = status.code().unwrap_or_else(|| panic!("the worker ended by a signal, {status}:\n{}", self.log()));
        Ended { code, stdout: String::new(), stderr: self.log() }
    }
}

/// An answer of `/metrics`.
pub struct Metrics(String);

impl Metrics {
    /// The value of a series that counts, named as it is in the answer.
    pub fn count(&self, series: &str) -> u64 {
        // Every series of a worker bears its pool.
        let without_pool = self.0.replace(r#"{pool="test"}"#, "").replace(r#",pool="test""#, "").replace(r#"pool="test","#, "");
        let value = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
        without_pool.lines().find_map(value).unwrap_or_else(|| panic!("no series {series} in:\n{}", self.0))
    }
}
