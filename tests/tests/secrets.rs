//! No password, key or token is in anything that the programs write, whatever goes wrong and whatever the filter of the logs says.

use std::process::Output;

use servers::Program;
use tests::{Collector, QuickWorker, System, Written, line, png_of_blobs, png_that_begins_with, quick::PANICS};
use uuid::Uuid;

const OF_THE_COLLECTOR: &str = "hunter2-of-the-collector";
const WRONG: &str = "hunter2-that-is-wrong";

type Environment = Vec<(String, String)>;

/// The password in a server's URL.
fn password(url: &str) -> &str {
    let (_, rest) = url.split_once("://dotmask:").expect("a URL of the servers");
    rest.split_once('@').expect("a URL of the servers").0
}

/// The system's environment with another value of a variable.
fn with(system: &System, name: &str, value: &str) -> Environment {
    let mut environment = system.environment();
    environment.retain(|(other, _)| other != name);
    environment.push((name.into(), value.into()));
    environment
}

async fn run(environment: &Environment, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = Program::client("dispatcher", environment)?;
    command.args(arguments);
    Ok(tokio::process::Command::from(command).kill_on_drop(true).output().await?)
}

/// What commands print that are given secrets that are wrong, or right ones in a URL that is.
async fn refused(system: &System, token: &str, batch: Uuid) -> anyhow::Result<Vec<(&'static str, Output)>> {
    let mut outputs = Vec::new();
    let (database_url, amqp_url) = (system.stack.postgres.url(), system.stack.rabbitmq.url());
    let postgres = password(&database_url);
    let port = system.stack.postgres.port();
    for url in [
        database_url.replace(postgres, WRONG),
        database_url.replace("127.0.0.1", "127.0.0.1:x"),
        database_url.replace("sslmode=disable", &format!("sslmode=disable&passwrd={WRONG}")).replace("/dotmask?", "/none?"),
        database_url.replace("sslmode=disable", "sslmode=verify-full"),
        format!("postgres://dotmask:12/{WRONG}@127.0.0.1:{port}/dotmask"),
        format!("postgres://dotmask:12?{WRONG}@127.0.0.1:{port}/dotmask"),
        format!("postgres:dotmask:{WRONG}@127.0.0.1:{port}/dotmask"),
    ] {
        let output = run(&with(system, "DATABASE_URL", &url), &["migrate", "--wait-seconds", "1"]).await?;
        assert!(!output.status.success(), "{url} was taken");
        outputs.push(("migrate", output));
    }
    for url in [
        format!("amqp:dotmask:{WRONG}@127.0.0.1"),
        format!("amqp://dotmask:12/{WRONG}@127.0.0.1"),
        amqp_url.replace("%2f", "%ff"),
    ] {
        let environment = with(system, "AMQP_URL", &url);
        let output =
            run(&environment, &["serve", "--pools", "x", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]).await?;
        assert_eq!(output.status.code(), Some(2), "{url} was taken: {}", String::from_utf8_lossy(&output.stderr));
        outputs.push(("serve", output));
    }
    let server = format!("http://dotmask:{WRONG}@{}", system.dispatcher_address());
    for (name, value) in
        [("DOTMASK_TOKEN", WRONG), ("DOTMASK_TOKEN", &token.replace(char::is_numeric, "x")), ("DOTMASK_SERVER", &server)]
    {
        let mut environment = with(system, name, value);
        if name != "DOTMASK_SERVER" {
            environment.push(("DOTMASK_SERVER".into(), format!("http://{}", system.dispatcher_address())));
        }
        let output = run(&environment, &["watch", &batch.to_string()]).await?;
        assert_eq!(output.status.code(), Some(2), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        outputs.push(("watch", output));
    }
    Ok(outputs)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_anything_that_the_programs_write() -> anyhow::Result<()> {
    let mut system = System::start().await?;
    let collector = Collector::start().await?;
    system.set("DOTMASK_LOG", "trace");
    system.set("RUST_BACKTRACE", "1");
    system.set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint());
    system.set("OTEL_EXPORTER_OTLP_HEADERS", &format!("authorization=Bearer%20{OF_THE_COLLECTOR}"));
    let dispatcher = system.start_dispatcher().await?;
    let created =
        system.client(&["token", "create", "--project", "default", "--scope", "admin", "--name", "of this test"]).await?;
    let token = String::from_utf8(created.stdout)?.trim().to_owned();
    assert!(token.len() > 20, "{}", String::from_utf8_lossy(&created.stderr));
    system.set("DOTMASK_TOKEN", &token);
    // The dispatcher writes text.
    system.set("DOTMASK_LOG_FORMAT", "json");

    let worker = QuickWorker::start(&system, &[])?;
    system.put_image("in/good.png", &png_of_blobs(48, 48, 1))?;
    system.put_image("in/panics.png", &png_that_begins_with(PANICS, 2))?;
    let lines = ["in/good.png", "in/panics.png", "in/missing.png"].map(|key| line(key, 3));
    let batch = system.submit(&lines).await?;
    system
        .until("the good one is done and the worker has panicked", async || {
            Ok(system.ledger.batch(batch).await?.is_some_and(|batch| batch.counts.succeeded == 1)
                && worker.log().contains("panicked: "))
        })
        .await?;
    system.client(&["cancel", &batch.to_string()]).await?;
    let watched = system.watch_output(batch).await?;

    // Every connection is lost and comes back.
    system.stack.postgres.terminate_backends().await?;
    system.stack.rabbitmq.close_all_connections().await?;
    system.stack.objects.stop();
    let batch = system.submit(&[line("in/good.png", 4)]).await?;
    system.until("the store was missed", async || Ok(worker.log().contains("the store failed to serve"))).await?;
    system.stack.objects.restart().await?;
    system.wait_until_done(batch).await?;

    let mut outputs = vec![("watch", watched)];
    outputs.extend(refused(&system, &token, batch).await?);
    let (database_url, amqp_url) = (system.stack.postgres.url(), system.stack.rabbitmq.url());
    let (postgres, rabbitmq) = (password(&database_url), password(&amqp_url));
    for (name, value, said) in [
        ("AMQP_URL", amqp_url.replace(rabbitmq, WRONG), "refuses this user"),
        ("AWS_SECRET_ACCESS_KEY", WRONG.to_owned(), "the store refuses access"),
        ("AMQP_URL", amqp_url.replace("amqp://", "amqps://"), "it does not speak TLS there"),
    ] {
        let refused = QuickWorker::start_in(&system, &with(&system, name, &value), &[])?;
        system.until(&format!("a worker is refused for its {name}"), async || Ok(refused.log().contains(said))).await?;
        refused.program.stop().await?;
    }

    system.until("spans were exported", async || Ok(collector.spans().iter().any(|span| span.name == "finalise"))).await?;
    let mut written = Written::of(&system, "", &collector, &worker).await?;
    worker.program.stop().await?;
    dispatcher.stop().await?;
    written.add("the logs at the end", system.logs().as_bytes());
    for (command, output) in outputs {
        written.add(command, &[output.stdout, output.stderr].concat());
    }
    let id = batch.to_string();
    for (place, text) in [
        ("the logs", "DEBUG"),
        ("the logs", &id),
        ("Postgres", &id),
        ("the spans", "finalise"),
        ("worker's metrics", "dotmask_"),
        ("dispatcher's /metrics", "dotmask_"),
        ("receipt.json", "sha256"),
        ("migrate", "error"),
    ] {
        assert!(written.has(place, text), "{place} hold no {text:?}");
    }
    let secret_key = system.stack.objects.secret_key();
    written.assert_without(&[postgres, rabbitmq, secret_key, &token, OF_THE_COLLECTOR, WRONG]);
    Ok(())
}
