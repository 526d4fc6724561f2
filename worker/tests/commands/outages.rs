//! Servers that are away while a worker works.

use std::{fs, time::Duration};

use broker::Publisher;
use futures_util::future::join_all;
use ledger::JobState;
use nix::sys::signal::Signal;
use servers::{Mode, Proxies};

use crate::{
    common::draw_cells,
    run::ENDLESS,
    system::{RunningWorker, System, until},
};

/// Enough for a server to go away meanwhile.
const LASTING: u32 = 400;

#[tokio::test]
async fn a_job_is_finished_and_others_are_found_while_the_broker_is_away() {
    let mut system = System::start().await;
    // RabbitMQ 3 writes a new queue some seconds late: killed before, it comes back with a queue that answers nobody.
    Publisher::connect(system.stack.rabbitmq.url().parse().expect("a URL")).await.unwrap().ready("test").await.unwrap();
    system.stack.rabbitmq.restart().await.unwrap();
    system.ledger.declare_pool("test").await.unwrap();
    let image = system.put_image("cells.png", &fs::read(draw_cells(system.folder())).unwrap());
    let job = system.submit(&image, LASTING).await;
    let worker = RunningWorker::start(&system, &[]);
    worker.steps_begun().await;
    system.stack.rabbitmq.kill();
    assert_eq!(system.job(job).await.state, JobState::Running);
    let job = system.ended(job).await;
    assert_eq!((job.state, job.attempt, job.epoch), (JobState::Succeeded, 1, 1), "{:?}", job.error);

    let unannounced = system.enter(&image, 3).await;
    assert_eq!(system.ended(unannounced).await.state, JobState::Succeeded);
    assert!(!worker.is_ready().await, "ready without RabbitMQ");

    system.stack.rabbitmq.restart().await.unwrap();
    worker.ready().await;
    let announced = system.submit(&image, 3).await;
    assert_eq!(system.ended(announced).await.state, JobState::Succeeded);
    assert_eq!(worker.log().matches("no tokens arrive until RabbitMQ is back").count(), 1, "{}", worker.log());
}

#[tokio::test]
async fn a_job_outlives_the_loss_of_every_connection() {
    let system = System::start().await;
    let proxies = Proxies::start(&system.stack).unwrap();
    system.ledger.declare_pool("test").await.unwrap();
    let image = system.put_image("cells.png", &fs::read(draw_cells(system.folder())).unwrap());
    let job = system.submit(&image, LASTING).await;
    let worker = RunningWorker::start_via(&system, &proxies, &[]);
    worker.steps_begun().await;
    for proxy in [&proxies.postgres, &proxies.rabbitmq, &proxies.objects] {
        proxy.set(Mode::Reset);
    }
    assert_eq!(system.job(job).await.state, JobState::Running);
    until("the worker notices", async || !worker.is_ready().await).await;
    for proxy in [&proxies.postgres, &proxies.rabbitmq, &proxies.objects] {
        proxy.set(Mode::Pass);
    }
    let job = system.ended(job).await;
    assert_eq!((job.state, job.attempt, job.epoch), (JobState::Succeeded, 1, 1), "{:?}", job.error);
    let next = system.submit(&image, 3).await;
    assert_eq!(system.ended(next).await.state, JobState::Succeeded);
}

#[tokio::test]
async fn ends_in_time_while_a_server_is_silent_and_gives_back_what_it_can() {
    let system = System::start().await;
    system.ledger.declare_pool("test").await.unwrap();
    let image = system.put_image("cells.png", &fs::read(draw_cells(system.folder())).unwrap());
    let proxies: [Proxies; 3] = std::array::from_fn(|_| Proxies::start(&system.stack).unwrap());
    let (mut jobs, mut workers) = (Vec::new(), Vec::new());
    for proxies in &proxies {
        jobs.push(system.submit(&image, ENDLESS).await);
        let worker = RunningWorker::start_via(&system, proxies, &["--prefetch", "1"]);
        worker.steps_begun().await;
        workers.push(worker);
    }
    for silent in [&proxies[0].rabbitmq, &proxies[1].objects, &proxies[2].postgres] {
        silent.set(Mode::Stall);
    }
    for worker in &workers {
        worker.signal(Signal::SIGTERM);
    }
    // They promise 10, on a machine that does not have to end three models at once; who waits for the silent store waits 75.
    let ended = tokio::time::timeout(Duration::from_secs(30), join_all(workers.into_iter().map(RunningWorker::ended)));
    for (ended, job) in ended.await.expect("they end in time").into_iter().zip(&jobs) {
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let is_told = ended.stderr.contains("could not give back all jobs; they come back when their leases end");
        assert_eq!(is_told, jobs.last() == Some(job), "{}", ended.stderr);
    }
    for job in &jobs[..2] {
        let job = system.job(*job).await;
        assert_eq!((job.state, job.attempt, job.epoch), (JobState::Queued, 0, 1));
    }
    assert_eq!(system.job(jobs[2]).await.state, JobState::Running, "nobody could be told, so its lease has to end");
}
