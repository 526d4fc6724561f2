//! The whole system as processes, with a proxy in front of each server for each program.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::Context as _;
use servers::{Postgres, Program, Proxy, RabbitMq};
use tokio::{sync::Mutex, time::timeout};

use super::{DISPATCHERS, LEASE, WORKERS, schedule::Server, store::Store};
use crate::{BUCKET, POOL, system::checkpoint};

/// How long a program may take until it is ready, all servers being there.
const READY_LIMIT: Duration = Duration::from_mins(2);
/// How often programs are looked at that may have ended by themselves.
const WATCH: Duration = Duration::from_millis(200);

/// Servers and programs. Faults lock what they break until it is whole again, so that two of them never meet on one thing.
pub struct Cluster {
    /// The ledger's server.
    pub postgres: Mutex<Postgres>,
    /// The broker.
    pub rabbitmq: Mutex<RabbitMq>,
    /// The object store.
    pub store: Store,
    /// Where Postgres answers without detour.
    pub database_url: String,
    /// Where the broker answers without detour.
    pub amqp_url: String,
    /// `dispatcher serve`, twice.
    pub dispatchers: Vec<Seat>,
    /// `quick-worker run`, four times.
    pub workers: Vec<Seat>,
}

/// One program's place: it may be killed and started again there.
pub struct Seat {
    name: String,
    program: &'static str,
    arguments: &'static [&'static str],
    environment: Vec<(String, String)>,
    log: PathBuf,
    /// Where its HTTP server is.
    pub address: String,
    /// Where it says that it is ready.
    ready_address: String,
    /// None only while it is down by a fault.
    pub process: Mutex<Option<Program>>,
    links: [Mutex<Proxy>; 3],
    ended_by_itself: AtomicUsize,
}

impl Cluster {
    /// Starts the servers in `folder`, and no program yet.
    pub async fn start(folder: &Path, garage: Option<&Path>) -> anyhow::Result<Self> {
        let (servers, logs) = (folder.join("servers"), folder.join("logs"));
        fs::create_dir_all(&servers)?;
        fs::create_dir_all(&logs)?;
        let places = ["postgres", "rabbitmq", "objects"].map(|name| servers.join(name));
        let (postgres, rabbitmq, store) = tokio::try_join!(
            async { anyhow::Ok(Postgres::start(&places[0]).await?) },
            async { anyhow::Ok(RabbitMq::start(&places[1]).await?) },
            Store::start(garage, &places[2])
        )?;
        let seat = |name: String, program, arguments, settings: Vec<(&str, String)>| -> anyhow::Result<Seat> {
            let link = |target: SocketAddr| Proxy::start(target).context("cannot start a proxy");
            let links = [link(postgres.address())?, link(rabbitmq.address())?, link(store.address())?];
            let [address, metrics_address] = servers::free_ports().map(|port| format!("127.0.0.1:{port}"));
            let mut environment = store.environment(links[2].address());
            environment.push(("DATABASE_URL".into(), postgres.url_via(links[0].address())));
            environment.push(("AMQP_URL".into(), rabbitmq.url_via(links[1].address())));
            environment.push(("DOTMASK_LISTEN".into(), address.clone()));
            environment.push(("DOTMASK_METRICS_LISTEN".into(), metrics_address.clone()));
            // A worker has one port for all.
            let ready_address = if program == "dispatcher" { metrics_address } else { address.clone() };
            environment.push(("DOTMASK_LOG".into(), "info".into()));
            environment.extend(settings.into_iter().map(|(name, value)| (name.to_owned(), value)));
            let log = logs.join(format!("{name}.log"));
            let links = links.map(Mutex::new);
            let (process, ended_by_itself) = (Mutex::new(None), AtomicUsize::new(0));
            Ok(Seat { name, program, arguments, environment, log, address, ready_address, process, links, ended_by_itself })
        };
        let dispatchers =
            (0..DISPATCHERS).map(|number| seat(format!("dispatcher-{number}"), "dispatcher", &["serve"], dispatcher()));
        let dispatchers = dispatchers.collect::<anyhow::Result<_>>()?;
        let workers = (0..WORKERS).map(|number| seat(format!("worker-{number}"), "quick-worker", &["run"], worker()));
        let workers = workers.collect::<anyhow::Result<_>>()?;
        let (database_url, amqp_url) = (postgres.url(), rabbitmq.url());
        let (postgres, rabbitmq) = (Mutex::new(postgres), Mutex::new(rabbitmq));
        Ok(Self { postgres, rabbitmq, store, database_url, amqp_url, dispatchers, workers })
    }

    /// Every program's place.
    pub fn seats(&self) -> impl Iterator<Item = &Seat> {
        self.dispatchers.iter().chain(&self.workers)
    }

    /// Starts every program that does not run, and waits until all are ready.
    pub async fn start_programs(&self) -> anyhow::Result<()> {
        for seat in self.seats() {
            let mut process = seat.process.lock().await;
            if process.is_none() {
                *process = Some(seat.spawn()?);
            }
        }
        self.wait_until_ready().await
    }

    /// Waits until all programs say that they are.
    pub async fn wait_until_ready(&self) -> anyhow::Result<()> {
        for seat in self.seats() {
            let mut process = seat.process.lock().await;
            let program = process.as_mut().with_context(|| format!("{} was not started", seat.name))?;
            program.wait_until_ready(&seat.ready_address, READY_LIMIT).await?;
        }
        Ok(())
    }

    /// Starts again what ends by itself, as whoever runs such programs does. Never returns.
    pub async fn keep_alive(&self) -> anyhow::Result<()> {
        loop {
            for seat in self.seats() {
                seat.revive().await?;
            }
            tokio::time::sleep(WATCH).await;
        }
    }

    /// How many times workers ended that no fault had killed.
    pub fn workers_ended_by_themselves(&self) -> usize {
        self.workers.iter().map(|seat| seat.ended_by_itself.load(Ordering::Relaxed)).sum()
    }

    /// The same of dispatchers.
    pub fn dispatchers_ended_by_themselves(&self) -> usize {
        self.dispatchers.iter().map(|seat| seat.ended_by_itself.load(Ordering::Relaxed)).sum()
    }

    /// What all workers wrote.
    pub fn worker_logs(&self) -> Vec<String> {
        let logs = self.workers.iter().map(|seat| fs::read(&seat.log).unwrap_or_default());
        logs.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect()
    }

    /// Stops all programs as an administrator does; each must end in its time.
    pub async fn stop_programs(&self) -> anyhow::Result<()> {
        for seat in self.workers.iter().chain(&self.dispatchers) {
            if let Some(program) = seat.process.lock().await.take() {
                program.stop().await.with_context(|| format!("{} does not stop", seat.name))?;
            }
        }
        Ok(())
    }
}

impl Seat {
    /// Starts its program; it need not be ready when this returns.
    pub fn spawn(&self) -> anyhow::Result<Program> {
        Ok(Program::start(self.program, self.arguments, &self.environment, &self.log)?)
    }

    /// Its way to a server.
    pub fn link(&self, server: Server) -> &Mutex<Proxy> {
        &self.links[server as usize]
    }

    async fn revive(&self) -> anyhow::Result<()> {
        // Whoever holds it is killing it or has stopped it.
        let Ok(mut process) = self.process.try_lock() else { return Ok(()) };
        let Some(program) = process.as_mut() else { return Ok(()) };
        if timeout(Duration::ZERO, program.unexpected_end()).await.is_ok() {
            self.ended_by_itself.fetch_add(1, Ordering::Relaxed);
            *process = Some(self.spawn()?);
        }
        Ok(())
    }
}

fn dispatcher() -> Vec<(&'static str, String)> {
    vec![
        ("DOTMASK_POOLS", POOL.into()),
        ("DOTMASK_MIGRATE", "true".into()),
        ("DOTMASK_WITHOUT_TOKENS", "true".into()),
        ("DOTMASK_REAP_SECONDS", "0.5".into()),
        ("DOTMASK_RECONCILE_SECONDS", "1".into()),
    ]
}

fn worker() -> Vec<(&'static str, String)> {
    vec![
        ("DOTMASK_POOL", POOL.into()),
        ("DOTMASK_THREADS", "1".into()),
        ("DOTMASK_CHECKPOINT", checkpoint()),
        ("DOTMASK_MASKS", format!("s3://{BUCKET}/masks")),
        ("DOTMASK_LEASE_SECONDS", LEASE.as_secs_f64().to_string()),
        ("DOTMASK_HEARTBEAT_SECONDS", (LEASE / 4).as_secs_f64().to_string()),
    ]
}
