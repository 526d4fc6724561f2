//! How each fault is thrown.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use lapin::{Connection, ConnectionProperties, options::QueuePurgeOptions};
use servers::{Mode, SLOW_DOWN};
use sqlx::PgPool;
use tokio::time::{Instant, sleep, timeout};

use super::{
    cluster::{Cluster, Seat},
    schedule::{Fault, Kind, Programs, Server, Trouble},
};
use crate::POOL;

/// How long a worker is watched for a job before it is hit without one.
const JOB_LIMIT: Duration = Duration::from_secs(3);
/// How long the broker is given to let its queue be purged.
const PURGE_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// A fault that was thrown.
#[derive(Debug, Clone)]
pub struct Thrown {
    /// What it is counted by.
    pub kind: Kind,
    /// When it began.
    pub hit: SystemTime,
    /// When it was over: from here on it stood in nobody's way. A kill is over at once.
    pub over: SystemTime,
    /// The worker that lost its jobs, by the part of its name that its process decides.
    pub lost_worker: Option<String>,
    /// How many tokens were thrown away.
    pub tokens_purged: u32,
}

impl Cluster {
    /// Throws a fault, and returns when what was broken is there again. A fault that meets another one on the same program, server or
    /// connection waits for its end.
    pub async fn throw(&self, fault: Fault, truth: &PgPool) -> anyhow::Result<Thrown> {
        let mut thrown =
            Thrown { kind: fault.kind(), hit: SystemTime::now(), over: SystemTime::now(), lost_worker: None, tokens_purged: 0 };
        match fault {
            Fault::KillWorker { worker, down } => {
                let seat = &self.workers[worker];
                let mut process = seat.process.lock().await;
                let program = process.take().context("the worker was not started")?;
                let name = name_of_worker(program.pid());
                wait_for_a_job(&name, truth).await;
                program.kill();
                (thrown.hit, thrown.over, thrown.lost_worker) = (SystemTime::now(), SystemTime::now(), Some(name));
                sleep(down).await;
                *process = Some(seat.spawn()?);
                return Ok(thrown);
            }
            Fault::KillDispatcher { dispatcher, down } => {
                let seat = &self.dispatchers[dispatcher];
                let mut process = seat.process.lock().await;
                process.take().context("the dispatcher was not started")?.kill();
                thrown.over = SystemTime::now();
                sleep(down).await;
                *process = Some(seat.spawn()?);
                return Ok(thrown);
            }
            Fault::PauseWorker { worker, pause } => {
                let process = self.workers[worker].process.lock().await;
                let program = process.as_ref().context("the worker was not started")?;
                let name = name_of_worker(program.pid());
                wait_for_a_job(&name, truth).await;
                program.pause();
                (thrown.hit, thrown.lost_worker) = (SystemTime::now(), Some(name));
                sleep(pause).await;
                program.resume();
            }
            Fault::KillBroker { down } => {
                let mut rabbitmq = self.rabbitmq.lock().await;
                rabbitmq.kill();
                sleep(down).await;
                rabbitmq.restart().await?;
            }
            Fault::RestartBroker => self.rabbitmq.lock().await.restart().await?,
            Fault::PurgeQueue => {
                let _rabbitmq = self.rabbitmq.lock().await;
                thrown.tokens_purged = purge(&self.amqp_url).await?;
            }
            Fault::CloseConnections => self.rabbitmq.lock().await.close_all_connections().await?,
            Fault::StopPostgres { down } => {
                let mut postgres = self.postgres.lock().await;
                postgres.stop_immediately().await?;
                sleep(down).await;
                postgres.restart().await?;
            }
            Fault::TerminateBackends => {
                self.postgres.lock().await.terminate_backends().await?;
            }
            Fault::Network { programs, server, trouble, lasts } => {
                if let (Programs::Worker(worker), Server::Postgres) = (programs, server) {
                    // Its last word on the job is held up.
                    self.workers[worker].wait_for_a_job(truth).await?;
                }
                self.disturb(programs, server, trouble, lasts).await;
            }
        }
        thrown.over = SystemTime::now();
        Ok(thrown)
    }

    async fn disturb(&self, programs: Programs, server: Server, trouble: Trouble, lasts: Duration) {
        let seats: Vec<&Seat> = match programs {
            Programs::Dispatchers => self.dispatchers.iter().collect(),
            Programs::Workers => self.workers.iter().collect(),
            Programs::Dispatcher(dispatcher) => vec![&self.dispatchers[dispatcher]],
            Programs::Worker(worker) => vec![&self.workers[worker]],
        };
        // In the seats' order, so that two who want several never wait for each other.
        let mut links = Vec::new();
        for seat in seats {
            links.push(seat.link(server).lock().await);
        }
        let mode = match trouble {
            Trouble::Cut => Mode::Cut,
            Trouble::Stall => Mode::Stall,
            Trouble::StallAnswers => Mode::StallAnswers,
            Trouble::Refuse => Mode::Answer(SLOW_DOWN),
            Trouble::Reset => return links.iter().for_each(|link| link.reset_connections()),
        };
        for link in &links {
            link.set(mode);
        }
        sleep(lasts).await;
        for link in &links {
            link.set(Mode::Pass);
        }
    }
}

impl Seat {
    /// Waits until the worker holds a job, or for so long that it will not get one soon.
    async fn wait_for_a_job(&self, truth: &PgPool) -> anyhow::Result<()> {
        let pid = self.process.lock().await.as_ref().context("the worker was not started")?.pid();
        wait_for_a_job(&name_of_worker(pid), truth).await;
        Ok(())
    }
}

/// The part of a worker's name that its process decides: `HOST-PID-RANDOM`.
fn name_of_worker(pid: u32) -> String {
    format!("-{pid}-")
}

/// Waits until the worker holds a lease. Where Postgres is away meanwhile, so are its jobs.
async fn wait_for_a_job(worker: &str, truth: &PgPool) {
    let deadline = Instant::now() + JOB_LIMIT;
    while Instant::now() < deadline {
        let held = sqlx::query_scalar("SELECT EXISTS (SELECT FROM leases WHERE worker LIKE '%' || $1 || '%')");
        let held = timeout(JOB_LIMIT, held.bind(worker).fetch_one(truth)).await;
        if matches!(held, Ok(Ok(true))) {
            return;
        }
        sleep(POLL).await;
    }
}

/// Throws away every token that waits.
async fn purge(url: &str) -> anyhow::Result<u32> {
    let deadline = Instant::now() + PURGE_LIMIT;
    loop {
        // A queue that was just restarted has no leader for a moment.
        match timeout(PURGE_LIMIT, try_purge(url)).await {
            Ok(Ok(tokens)) => return Ok(tokens),
            outcome if Instant::now() > deadline => {
                return outcome.context("the queue cannot be purged in time")?.context("the queue cannot be purged");
            }
            _ => sleep(Duration::from_millis(200)).await,
        }
    }
}

async fn try_purge(url: &str) -> Result<u32, lapin::Error> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let purged = channel.queue_purge(format!("dotmask.{POOL}").into(), QueuePurgeOptions::default()).await?;
    connection.close(200, "done".into()).await?;
    Ok(purged)
}
