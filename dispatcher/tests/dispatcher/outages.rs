//! Servers that are away.

use std::time::Duration;

use servers::Postgres;
use tokio::process::Command;

use crate::support::{Dispatcher, NO_BROKER, PROGRAM, System, manifest, wait_for};

#[tokio::test]
async fn waits_for_a_postgres_that_is_not_there_yet_and_stops_when_told_to() {
    let mut dispatcher = Dispatcher::start("postgres://nobody@127.0.0.1:1/dotmask", NO_BROKER, &[]).await;
    let outage = dispatcher.logged("failed, trying again until it works").await;
    assert!(outage["error"].as_str().unwrap().contains("127.0.0.1:1/dotmask"), "{outage}");
    assert_eq!(dispatcher.observe("/healthz").await.status, 200);
    let ready = dispatcher.observe("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.json["postgres"].as_str().unwrap().contains("cannot connect to Postgres"), "{ready:?}");
    let refused = dispatcher.post("/v1/batches?pool=gpu", manifest(1)).await;
    assert_eq!((refused.status.as_u16(), refused.retry_after.as_deref()), (503, Some("2")), "{refused:?}");
    assert_eq!(dispatcher.stop().await, Some(0), "{}", dispatcher.log());
}

#[tokio::test]
async fn answers_503_while_postgres_is_away_and_works_when_it_is_back() {
    let mut system = System::start().await;
    let id = system.dispatcher.post("/v1/batches?pool=gpu", manifest(2)).await.id();
    system.postgres.kill();
    let path = format!("/v1/batches/{id}");
    let refused = system.dispatcher.until(&path, 503).await;
    assert_eq!(
        (refused.error(), refused.retry_after.as_deref()),
        ("Postgres does not answer at the moment: try again", Some("2"))
    );
    wait_for("readyz to name Postgres", async || {
        let ready = system.dispatcher.observe("/readyz").await;
        if ready.status == 503 && ready.json["postgres"] != "ok" { Ok(()) } else { Err(format!("{ready:?}")) }
    })
    .await;

    system.postgres.restart().await.unwrap();
    let batch = system.dispatcher.until(&path, 200).await;
    assert_eq!(batch.json["counts"]["queued"], 2);
    wait_for("readyz to be content with Postgres", async || {
        let ready = system.dispatcher.observe("/readyz").await;
        if ready.json["postgres"] == "ok" { Ok(()) } else { Err(format!("{ready:?}")) }
    })
    .await;
}

#[tokio::test]
async fn takes_batches_in_while_the_broker_is_away_and_says_that_it_is() {
    let system = System::start().await;
    system.dispatcher.post("/v1/batches?pool=gpu", manifest(2)).await.id();
    let ready = wait_for("readyz to name the broker", async || {
        let ready = system.dispatcher.observe("/readyz").await;
        if ready.status != 503 || ready.json["rabbitmq"] == "starting" { Err(format!("{ready:?}")) } else { Ok(ready) }
    })
    .await;
    assert!(ready.json["rabbitmq"].as_str().unwrap().contains("127.0.0.1:1"), "{ready:?}");
    assert_eq!(ready.json["postgres"], "ok");
}

#[tokio::test]
async fn refuses_to_start_with_what_can_never_work() {
    for (database_url, amqp_url, part) in [
        ("127.0.0.1/dotmask", NO_BROKER, "expected postgres://"),
        ("postgres://u:hunter2@127.0.0.1:1/x", "http://u:hunter2@x", "expected amqp://"),
    ] {
        let command = Command::new(PROGRAM)
            .args(["serve", "--listen", "127.0.0.1:0", "--pools", "gpu"])
            .env("DATABASE_URL", database_url)
            .env("AMQP_URL", amqp_url)
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(Duration::from_mins(1), command).await.expect("ends").unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(part) && !text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn migrate_ends_where_waiting_is_in_vain() {
    let migrate = async |database_url: &str, arguments: &[&str]| {
        let mut migrate = Command::new(PROGRAM);
        migrate.arg("migrate").args(arguments).env("DATABASE_URL", database_url).kill_on_drop(true);
        let output = tokio::time::timeout(Duration::from_mins(1), migrate.output()).await.expect("it ends").unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    // Nobody listens on port 1.
    let (code, said) = migrate("postgres://nobody@127.0.0.1:1/none", &["--wait-seconds", "0.5"]).await;
    assert!(code == Some(3) && said.contains("giving up"), "{code:?}: {said}");

    let dir = tempfile::tempdir().unwrap();
    let postgres = Postgres::start(&dir.path().join("postgres")).await.unwrap();
    let (code, said) = migrate(&postgres.url_of("none"), &[]).await;
    assert!(code == Some(2) && said.contains("\"none\" does not exist"), "{code:?}: {said}");
}
