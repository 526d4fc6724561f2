use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use lapin::{
    Connection, ConnectionProperties,
    options::{QueueDeclareOptions, QueuePurgeOptions},
    types::FieldTable,
};
use ledger::{BatchStatus, JobStatus, Ledger};
use servers::{Authority, Program, Stack};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::process::Command;
use uuid::Uuid;

/// The pool all tests work with.
pub const POOL: &str = "nano";
/// The bucket of images and masks.
pub const BUCKET: &str = "scans";

/// How long anything may take before a test gives up: far more than it does on a busy machine, so that only a hang meets it.
const PATIENCE: Duration = Duration::from_mins(5);
const POLL: Duration = Duration::from_millis(50);

/// The servers and a folder for everything; programs are started and ended by the test.
pub struct System {
    /// Postgres, `RabbitMQ` and the object store.
    pub stack: Stack,
    /// The truth.
    pub ledger: Ledger,
    dispatcher_address: String,
    dispatcher_metrics_address: String,
    dir: TempDir,
    settings: Vec<(String, String)>,
}

/// What a test sets of a worker; the rest is as shipped.
#[derive(Debug, Clone, Copy)]
pub struct WorkerSettings {
    /// How long a job stays a dead worker's.
    pub lease: Duration,
    /// Jobs held at once.
    pub prefetch: u16,
}

/// Whose programs a test starts.
pub struct Release {
    /// None where they are built with the test.
    folder: Option<PathBuf>,
}

impl Release {
    /// This version.
    pub fn this() -> Self {
        Self { folder: None }
    }

    /// The version whose programs are in that folder.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: Some(folder.into()) }
    }

    /// Where one of its programs is.
    pub fn program(&self, name: &'static str) -> anyhow::Result<PathBuf> {
        match &self.folder {
            Some(folder) => Ok(folder.join(name)),
            None => Ok(Program::path(name)?),
        }
    }

    /// Whether its dispatcher has /readyz on a port of its own, as all have from schema 4 on.
    fn has_metrics_port(&self) -> anyhow::Result<bool> {
        let help = std::process::Command::new(self.program("dispatcher")?).args(["serve", "--help"]).output()?;
        Ok(String::from_utf8_lossy(&help.stdout).contains("DOTMASK_METRICS_LISTEN"))
    }
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self { lease: Duration::from_secs(4), prefetch: 2 }
    }
}

impl System {
    /// Starts the servers and brings the database up to date.
    pub async fn start() -> anyhow::Result<Self> {
        let system = Self::start_empty().await?;
        system.ledger.migrate().await?;
        Ok(system)
    }

    /// The same with servers that programs have to reach by TLS, with certificates of this authority.
    pub async fn start_encrypted(authority: &Authority) -> anyhow::Result<Self> {
        let dir = TempDir::with_prefix("dotmask-test-")?;
        let stack = Stack::start_encrypted(dir.path(), authority).await?;
        let system = Self::with(dir, stack).await?;
        system.ledger.migrate().await?;
        Ok(system)
    }

    /// Starts the servers; the database has no tables yet.
    pub async fn start_empty() -> anyhow::Result<Self> {
        let dir = TempDir::with_prefix("dotmask-test-")?;
        let stack = Stack::start(dir.path()).await?;
        Self::with(dir, stack).await
    }

    async fn with(dir: TempDir, stack: Stack) -> anyhow::Result<Self> {
        stack.objects.create_bucket(BUCKET)?;
        let ledger = Ledger::connect(&stack.postgres.url(), 4).await?;
        let [dispatcher_address, dispatcher_metrics_address] = servers::free_ports().map(|port| format!("127.0.0.1:{port}"));
        Ok(Self { stack, ledger, dispatcher_address, dispatcher_metrics_address, dir, settings: Vec::new() })
    }

    /// A variable for every program that is started from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.push((name.into(), value.into()));
    }

    /// What programs are started with: where the servers are, and what was set.
    pub fn environment(&self) -> Vec<(String, String)> {
        [self.stack.environment(), self.settings.clone()].concat()
    }

    /// Starts `dispatcher serve` and waits until it is ready; a later one gets the same address.
    pub async fn start_dispatcher(&self) -> anyhow::Result<Program> {
        self.start_dispatcher_of(&Release::this(), &self.dispatcher_address).await
    }

    /// The same of another version and at another address, beside the others.
    pub async fn start_dispatcher_of(&self, release: &Release, address: &str) -> anyhow::Result<Program> {
        let settings = [("DOTMASK_REAP_SECONDS", "0.5".into()), ("DOTMASK_RECONCILE_SECONDS", "1".into())];
        self.start_dispatcher_with(release, address, &settings).await
    }

    /// The same with the settings as shipped.
    pub async fn start_dispatcher_as_shipped(&self) -> anyhow::Result<Program> {
        self.start_dispatcher_with(&Release::this(), &self.dispatcher_address, &[]).await
    }

    /// The same where every request needs a token.
    pub async fn start_dispatcher_that_asks_for_tokens(&self) -> anyhow::Result<Program> {
        let settings = [("DOTMASK_WITHOUT_TOKENS", "false".into())];
        self.start_dispatcher_with(&Release::this(), &self.dispatcher_address, &settings).await
    }

    async fn start_dispatcher_with(
        &self,
        release: &Release,
        address: &str,
        settings: &[(&str, String)],
    ) -> anyhow::Result<Program> {
        let metrics_address = if address == self.dispatcher_address {
            self.dispatcher_metrics_address.clone()
        } else {
            let [port] = servers::free_ports();
            format!("127.0.0.1:{port}")
        };
        let of_all = [
            ("DOTMASK_LISTEN", address.to_owned()),
            ("DOTMASK_METRICS_LISTEN", metrics_address.clone()),
            ("DOTMASK_WITHOUT_TOKENS", "true".into()),
            ("DOTMASK_POOLS", POOL.into()),
        ];
        let mut dispatcher = self.spawn(release, "dispatcher", &["serve"], &[&of_all, settings].concat())?;
        // A version without a port of its own for that says it where its API is.
        let ready_at = if release.has_metrics_port()? { &metrics_address } else { address };
        dispatcher.wait_until_ready(ready_at, PATIENCE).await?;
        Ok(dispatcher)
    }

    /// Starts `worker run` with the repository's checkpoint. It need not be ready when this returns: work waits for it.
    pub fn start_worker(&self, settings: WorkerSettings) -> anyhow::Result<Program> {
        self.start_worker_of(&Release::this(), settings)
    }

    /// The same of another version.
    pub fn start_worker_of(&self, release: &Release, settings: WorkerSettings) -> anyhow::Result<Program> {
        self.start_worker_at("127.0.0.1:0", release, settings)
    }

    /// The same with its metrics at this address.
    pub fn start_worker_at(&self, address: &str, release: &Release, settings: WorkerSettings) -> anyhow::Result<Program> {
        let settings = [
            ("DOTMASK_POOL", POOL.into()),
            // Tests run side by side, and two libtorches of two threads each slow each other threefold.
            ("DOTMASK_THREADS", "1".into()),
            ("DOTMASK_CHECKPOINT", checkpoint()),
            ("DOTMASK_MASKS", format!("s3://{BUCKET}/masks")),
            ("DOTMASK_LISTEN", address.into()),
            ("DOTMASK_LEASE_SECONDS", settings.lease.as_secs_f64().to_string()),
            ("DOTMASK_HEARTBEAT_SECONDS", (settings.lease.as_secs_f64() / 4.0).to_string()),
            ("DOTMASK_PREFETCH", settings.prefetch.to_string()),
        ];
        self.spawn(release, "worker", &["run"], &settings)
    }

    /// Puts an image into the bucket.
    pub fn put_image(&self, key: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.stack.objects.dir().join(BUCKET).join(key);
        fs::create_dir_all(path.parent().context("a key has a folder")?)?;
        Ok(fs::write(path, bytes)?)
    }

    /// Runs `dispatcher migrate` of that version.
    pub fn migrate(&self, release: &Release) -> anyhow::Result<()> {
        let mut migrate = std::process::Command::new(release.program("dispatcher")?);
        let output = migrate.arg("migrate").env("DATABASE_URL", self.stack.postgres.url()).output()?;
        ensure!(output.status.success(), "migrate: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Where the dispatcher's /metrics and /readyz are.
    pub fn dispatcher_metrics_address(&self) -> &str {
        &self.dispatcher_metrics_address
    }

    /// Where the dispatcher listens.
    pub fn dispatcher_address(&self) -> &str {
        &self.dispatcher_address
    }

    /// Runs `dispatcher submit` with these lines and gives its output.
    pub async fn submit_output(&self, lines: &[String]) -> anyhow::Result<Output> {
        let manifest = self.dir.path().join(format!("{}.jsonl", Uuid::now_v7()));
        fs::write(&manifest, lines.join("\n"))?;
        let manifest = manifest.display().to_string();
        self.client(&["submit", &manifest, "--pool", POOL]).await
    }

    /// Submits these lines, which must be good, and gives the batch's id.
    pub async fn submit(&self, lines: &[String]) -> anyhow::Result<Uuid> {
        let output = self.submit_output(lines).await?;
        ensure!(output.status.success(), "submit: {}", String::from_utf8_lossy(&output.stderr));
        let id = String::from_utf8(output.stdout)?;
        id.trim().parse().with_context(|| format!("submit printed {id:?}"))
    }

    /// Runs `dispatcher submit --data` with these arguments, which must be good, and gives the batch's id.
    pub async fn submit_data(&self, arguments: &[&str]) -> anyhow::Result<Uuid> {
        let output = self.client(&[&["submit", "--pool", POOL], arguments].concat()).await?;
        ensure!(output.status.success(), "submit: {}", String::from_utf8_lossy(&output.stderr));
        let id = String::from_utf8(output.stdout)?;
        id.trim().parse().with_context(|| format!("submit printed {id:?}"))
    }

    /// Runs `dispatcher report`: the table, what it says beside it, and the CSV.
    pub async fn report(&self, batch: Uuid) -> anyhow::Result<[String; 3]> {
        let csv = self.dir.path().join("rows.csv");
        let output = self.client(&["report", &batch.to_string(), "--csv", &csv.display().to_string()]).await?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(output.status.success(), "report: {said}");
        Ok([String::from_utf8(output.stdout)?, said, fs::read_to_string(csv)?])
    }

    /// Runs `dispatcher watch` to the batch's end.
    pub async fn watch_output(&self, batch: Uuid) -> anyhow::Result<Output> {
        self.client(&["watch", &batch.to_string(), "--json"]).await
    }

    /// Waits until the batch is as wanted.
    pub async fn wait_for(&self, batch: Uuid, wanted: impl Fn(&BatchStatus) -> bool) -> anyhow::Result<BatchStatus> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let status = self.ledger.batch(batch).await?.context("the batch is not there")?;
            if wanted(&status) {
                return Ok(status);
            }
            if tokio::time::Instant::now() > deadline {
                bail!("after {} s the batch is still {:?}; logs:\n{}", PATIENCE.as_secs(), status.counts, self.logs());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until no job of the batch is queued or running.
    pub async fn wait_until_done(&self, batch: Uuid) -> anyhow::Result<BatchStatus> {
        self.wait_for(batch, |status| status.counts.queued == 0 && status.counts.running == 0).await
    }

    /// All jobs of a batch, by line.
    pub async fn jobs(&self, batch: Uuid) -> anyhow::Result<Vec<JobStatus>> {
        Ok(self.ledger.jobs(batch, 0, 1_000).await?)
    }

    /// Throws away every token the broker holds.
    pub async fn purge_tokens(&self) -> anyhow::Result<()> {
        let connection = Connection::connect(&self.stack.rabbitmq.url(), ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.queue_purge(format!("dotmask.{POOL}").into(), QueuePurgeOptions::default()).await?;
        Ok(connection.close(200, "done".into()).await?)
    }

    /// How many tokens wait at the broker for a worker.
    pub async fn waiting_tokens(&self) -> anyhow::Result<u32> {
        let connection = Connection::connect(&self.stack.rabbitmq.url(), ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare(format!("dotmask.{POOL}").into(), options, FieldTable::default()).await?;
        connection.close(200, "done".into()).await?;
        Ok(queue.message_count())
    }

    /// The bytes of an object, from the store's own folder.
    pub fn object(&self, uri: &request::S3Uri) -> anyhow::Result<Vec<u8>> {
        let path = self.stack.objects.dir().join(uri.bucket()).join(uri.key());
        fs::read(&path).with_context(|| format!("{uri} is not in the store"))
    }

    /// What all programs wrote.
    pub fn logs(&self) -> String {
        let files = fs::read_dir(self.dir.path()).into_iter().flatten().flatten().map(|entry| entry.path());
        let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.map(|path| fs::read_to_string(path).unwrap_or_default()).collect::<Vec<_>>().join("\n")
    }

    /// The one value that a statement reads, whatever the ledger's own functions would say.
    pub async fn value<T>(&self, statement: &'static str) -> anyhow::Result<T>
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        let mut connection = PgConnection::connect(&self.stack.postgres.url()).await?;
        Ok(sqlx::query_scalar(statement).fetch_one(&mut connection).await?)
    }

    /// Has Postgres do what no program of ours does.
    pub async fn execute(&self, statements: &'static str) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect(&self.stack.postgres.url()).await?;
        sqlx::raw_sql(statements).execute(&mut connection).await?;
        Ok(())
    }

    /// Waits until it is so.
    pub async fn until(&self, what: &str, mut is_so: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !is_so().await? {
            if tokio::time::Instant::now() > deadline {
                bail!("waited {} s in vain until {what}; logs:\n{}", PATIENCE.as_secs(), self.logs());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Runs `dispatcher` with these arguments, as a client.
    pub async fn client(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut environment = self.environment();
        environment.push(("DOTMASK_SERVER".into(), format!("http://{}", self.dispatcher_address)));
        let mut command = Program::client("dispatcher", &environment)?;
        command.args(arguments);
        let output = Command::from(command).kill_on_drop(true).output();
        Ok(tokio::time::timeout(PATIENCE, output).await.context("the client hangs")??)
    }

    fn spawn(
        &self,
        release: &Release,
        name: &'static str,
        arguments: &[&str],
        settings: &[(&str, String)],
    ) -> anyhow::Result<Program> {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let environment: Vec<_> = self.environment().into_iter().chain(settings).collect();
        Ok(Program::start_file(name, &release.program(name)?, arguments, &environment, &self.log(name))?)
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.log"))
    }
}

/// The lines of logs that are JSON objects.
pub fn log_lines(logs: &str) -> Vec<serde_json::Value> {
    logs.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The repository's checkpoint.
pub(crate) fn checkpoint() -> String {
    repository().join("models/nano/nano.safetensors").display().to_string()
}

/// The repository's folder.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the repository")
}
