//! Postgres, and the dispatcher as a process.

use std::{
    fmt::Write,
    path::Path,
    process::{Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use ledger::Ledger;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::{Response, StatusCode};
use serde_json::Value;
use servers::Postgres;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_dispatcher");
/// Long enough for a busy machine; reached only by a test that fails.
const LIMIT: Duration = Duration::from_mins(1);
/// Nobody listens on port 1.
pub const NO_BROKER: &str = "amqp://nobody@127.0.0.1:1/%2f";

/// A migrated database and a dispatcher that serves it.
pub struct System {
    pub dispatcher: Dispatcher,
    pub postgres: Postgres,
    pub ledger: Ledger,
    pub dir: TempDir,
}

impl System {
    /// Without a broker: what is submitted stays in the outbox.
    pub async fn start() -> Self {
        Self::start_with(NO_BROKER, &[]).await
    }

    pub async fn start_with(amqp_url: &str, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let postgres = Postgres::start(&dir.path().join("postgres")).await.unwrap();
        let dispatcher = Dispatcher::start(&postgres.url(), amqp_url, arguments).await;
        dispatcher.ready_for_batches().await;
        let ledger = Ledger::connect(&postgres.url(), 4).await.unwrap();
        Self { dispatcher, postgres, ledger, dir }
    }

    /// Jobs that wait, whatever their pool.
    pub async fn queued(&self) -> u64 {
        self.ledger.pools().await.unwrap().iter().map(|pool| pool.queued).sum()
    }
}

/// `dispatcher serve` with the pools gpu and cpu.
pub struct Dispatcher {
    pub url: String,
    metrics_url: String,
    process: Child,
    log: Arc<Mutex<String>>,
}

impl Dispatcher {
    pub async fn start(database_url: &str, amqp_url: &str, arguments: &[&str]) -> Self {
        Self::start_with_tokens(database_url, amqp_url, &[&["--without-tokens"], arguments].concat()).await
    }

    /// One that serves nobody without a token.
    pub async fn start_with_tokens(database_url: &str, amqp_url: &str, arguments: &[&str]) -> Self {
        let listen = if arguments.contains(&"--listen") { [].as_slice() } else { &["--listen", "127.0.0.1:0"] };
        let mut process = Command::new(PROGRAM)
            .args(["serve", "--pools", "gpu,cpu", "--migrate", "--log-format", "json", "--metrics-listen", "127.0.0.1:0"])
            .args(listen)
            .args(arguments)
            .env("DATABASE_URL", database_url)
            .env("AMQP_URL", amqp_url)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let written = log.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                writeln!(written.lock().unwrap(), "{line}").unwrap();
            }
        });
        let mut dispatcher = Self { url: String::new(), metrics_url: String::new(), process, log };
        let line = dispatcher.logged("listening").await;
        dispatcher.url = format!("http://{}", line["address"].as_str().unwrap());
        dispatcher.metrics_url = format!("http://{}", line["metrics.address"].as_str().unwrap());
        dispatcher
    }

    /// Waits until Postgres was reached and the pools are declared.
    pub async fn ready_for_batches(&self) {
        self.logged("ready to take batches in").await;
    }

    /// Waits for a log line with that message.
    pub async fn logged(&self, message: &str) -> Value {
        let find = || {
            let log = self.log.lock().unwrap();
            let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.find(|line| line["message"] == message)
        };
        wait_for(&format!("the log line {message:?}"), async || find().ok_or_else(|| self.log.lock().unwrap().clone())).await
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn pid(&self) -> u32 {
        self.process.id().unwrap()
    }

    /// SIGTERM; says the exit code.
    pub async fn stop(&mut self) -> Option<i32> {
        kill(Pid::from_raw(self.pid().cast_signed()), Signal::SIGTERM).unwrap();
        tokio::time::timeout(LIMIT, self.process.wait()).await.expect("stops").unwrap().code()
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::read(reqwest_client().get(format!("{}{path}", self.url)).send().await.unwrap()).await
    }

    /// From the port of /metrics and /readyz.
    pub async fn observe(&self, path: &str) -> Answer {
        Answer::read(reqwest_client().get(format!("{}{path}", self.metrics_url)).send().await.unwrap()).await
    }

    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        Answer::read(reqwest_client().post(format!("{}{path}", self.url)).body(body).send().await.unwrap()).await
    }

    /// Waits until the answer has this status.
    pub async fn until(&self, path: &str, status: u16) -> Answer {
        wait_for(&format!("{status} from {path}"), async || {
            let answer = self.get(path).await;
            if answer.status == status { Ok(answer) } else { Err(format!("{answer:?}, log:\n{}", self.log())) }
        })
        .await
    }

    /// Waits until /readyz answers with this status.
    pub async fn until_ready_is(&self, status: u16) -> Answer {
        wait_for(&format!("{status} from /readyz"), async || {
            let answer = self.observe("/readyz").await;
            if answer.status == status { Ok(answer) } else { Err(format!("{answer:?}, log:\n{}", self.log())) }
        })
        .await
    }
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub retry_after: Option<String>,
    pub json: Value,
}

impl Answer {
    pub async fn read(response: Response) -> Self {
        let retry_after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        let status = response.status();
        let text = response.text().await.unwrap();
        let json = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Self { status, retry_after, json }
    }

    pub fn error(&self) -> &str {
        self.json["error"].as_str().unwrap_or_else(|| panic!("no error in {self:?}"))
    }

    pub fn id(&self) -> uuid::Uuid {
        assert_eq!(self.status, 201, "{self:?}");
        self.json["id"].as_str().unwrap().parse().unwrap()
    }
}

pub fn reqwest_client() -> reqwest::Client {
    // The second call of a test finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

/// Asks until the answer is good; fails with the last bad one.
pub async fn wait_for<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let start = tokio::time::Instant::now();
    loop {
        match ask().await {
            Ok(value) => return value,
            Err(last) => assert!(start.elapsed() < LIMIT, "waited in vain for {what}; last: {last}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A good line of a manifest.
pub fn line(number: usize) -> String {
    format!("{{\"image\":\"s3://scans/{number}.png\",\"points\":[[10,20,1],[30,40,0]],\"id\":\"slide-{number}\"}}\n")
}

/// A good manifest.
pub fn manifest(lines: usize) -> String {
    (1..=lines).map(line).collect()
}

/// Runs a client's command to its end.
pub async fn client(server: &str, arguments: &[&str], directory: &Path) -> Output {
    let command = Command::new(PROGRAM)
        .args(arguments)
        .env("DOTMASK_SERVER", server)
        .current_dir(directory)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(LIMIT, command).await.expect("ends").unwrap()
}
