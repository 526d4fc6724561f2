use std::{fs, path::PathBuf, str::FromStr};

use anyhow::Context as _;
use servers::Program;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    System,
    system::{BUCKET, POOL, checkpoint},
};

/// A quick worker in a process of its own, killed when this is dropped.
pub struct QuickWorker {
    /// The process.
    pub program: Program,
    address: String,
    log: PathBuf,
}

impl QuickWorker {
    /// Starts one for the pool of all tests, with these flags of `worker run`; the others are as shipped.
    pub fn start(system: &System, flags: &[&str]) -> anyhow::Result<Self> {
        Self::start_in(system, &system.environment(), flags)
    }

    /// The same with servers that are reached in another way.
    pub fn start_in(system: &System, environment: &[(String, String)], flags: &[&str]) -> anyhow::Result<Self> {
        Self::start_program("quick-worker", system, environment, flags)
    }

    /// The same with `worker` itself, say, which has a real model.
    pub fn start_program(
        program: &'static str,
        system: &System,
        environment: &[(String, String)],
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let [port] = servers::free_ports();
        let address = format!("127.0.0.1:{port}");
        let log = system.log(&format!("{program}-{port}"));
        let (checkpoint, masks) = (checkpoint(), format!("s3://{BUCKET}/masks"));
        let usual = ["run", "--pool", POOL, "--checkpoint", &checkpoint, "--masks", &masks, "--listen", &address];
        let program = Program::start(program, &[&usual, flags].concat(), environment, &log)?;
        Ok(Self { program, address, log })
    }

    /// Where its metrics are.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How many steps it has done; none while it does not answer.
    pub async fn steps(&self) -> u64 {
        self.count("dotmask_worker_steps_total").await.unwrap_or(0)
    }

    /// The value of a series that counts, named as it is in `/metrics` but for the label of the pool, which all have.
    pub async fn count(&self, series: &str) -> anyhow::Result<u64> {
        value(&self.get("/metrics").await?, series)
    }

    /// Where its model's time went so far.
    pub async fn model_time(&self) -> anyhow::Result<ModelTime> {
        let metrics = self.get("/metrics").await?;
        let idle =
            |waits_for: &str| value(&metrics, &format!(r#"dotmask_worker_model_idle_seconds_total{{waits_for="{waits_for}"}}"#));
        Ok(ModelTime {
            busy: value(&metrics, "dotmask_worker_model_busy_seconds_total")?,
            job: idle("job")?,
            image: idle("image")?,
            place: idle("place")?,
        })
    }

    /// An answer, with its head.
    pub async fn get(&self, path: &str) -> anyhow::Result<String> {
        let mut connection = TcpStream::connect(&self.address).await?;
        connection.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}

/// In seconds; see docs/METRICS.md.
#[derive(Debug, Clone, Copy)]
pub struct ModelTime {
    /// It computed.
    pub busy: f64,
    /// It waited for a job.
    pub job: f64,
    /// It waited for the image of one.
    pub image: f64,
    /// It waited for one to be stored.
    pub place: f64,
}

fn value<T: FromStr>(metrics: &str, series: &str) -> anyhow::Result<T> {
    let pool = format!(r#"pool="{POOL}""#);
    let without_pool = |line: &str| {
        [format!("{{{pool}}}"), format!("{pool},"), format!(",{pool}")]
            .iter()
            .fold(line.to_owned(), |line, label| line.replace(label, ""))
    };
    let value = |line: &str| without_pool(line).strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
    metrics.lines().find_map(value).with_context(|| format!("no series {series} in:\n{metrics}"))
}

/// A line of a manifest: one object on this image, in so many steps.
pub fn line(key: &str, steps: u32) -> String {
    format!(
        r#"{{"image": "s3://{BUCKET}/{key}", "points": [[24, 24, 1], [4, 4, 0]], "id": "{key}", "parameters": {{"steps": {steps}}}}}"#
    )
}
