//! Every server reached by TLS, the dispatcher by its clients too.

use std::process::Output;

use servers::{Authority, Certificate, Program};
use tests::{QuickWorker, System, check_every_job_has_one_result, check_quick_masks, line, png_of_blobs};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

/// What an ingress does: ends TLS, and passes everything on. Gone with the test.
async fn ingress(certificate: &Certificate, dispatcher: String) -> anyhow::Result<u16> {
    let (acceptor, listener) = (certificate.acceptor(), TcpListener::bind("127.0.0.1:0").await?);
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let (acceptor, dispatcher) = (acceptor.clone(), dispatcher.clone());
            tokio::spawn(async move {
                // A client that does not trust it goes away.
                let mut client = acceptor.accept(connection).await?;
                copy_bidirectional(&mut client, &mut TcpStream::connect(dispatcher).await?).await
            });
        }
    });
    Ok(port)
}

async fn client(system: &System, server: String, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut environment = system.environment();
    environment.push(("DOTMASK_SERVER".into(), server));
    let mut command = Program::client("dispatcher", &environment)?;
    command.args(arguments);
    Ok(tokio::process::Command::from(command).kill_on_drop(true).output().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_done_with_every_server_reached_by_tls_and_servers_that_others_put_there_are_not_used() -> anyhow::Result<()> {
    let authority = Authority::new();
    let system = System::start_encrypted(&authority).await?;
    let dispatcher = system.start_dispatcher().await?;
    let worker = QuickWorker::start(&system, &[])?;
    system.put_image("a.png", &png_of_blobs(48, 48, 1))?;
    let batch = system.submit(&[line("a.png", 3)]).await?;
    system.wait_until_done(batch).await?;
    check_every_job_has_one_result(&system, batch).await?;
    check_quick_masks(&system, batch).await?;

    // The servers' own word; the test itself is at Postgres in the clear.
    let amqp = system.stack.rabbitmq.control(&["list_connections", "ssl", "--no-table-headers"]).await?;
    assert!(amqp.lines().count() >= 2 && amqp.lines().all(|ssl| ssl.trim() == "true"), "{amqp}");
    let encrypted: i64 = system
        .value("SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'dotmask' AND ssl")
        .await?;
    assert!(encrypted >= 2, "{encrypted} connections to Postgres are by TLS");
    assert!(system.stack.objects.endpoint().starts_with("https://"));
    assert!(!system.logs().contains("is not protected"), "{}", system.logs());

    let port = ingress(&authority.certificate(), system.dispatcher_address().to_owned()).await?;
    let watch = ["watch", "--json", &batch.to_string()];
    let watched = client(&system, format!("https://127.0.0.1:{port}"), &watch).await?;
    assert!(watched.status.success(), "{}", String::from_utf8_lossy(&watched.stderr));
    let other_name = client(&system, format!("https://localhost:{port}"), &watch).await?;
    let said = String::from_utf8_lossy(&other_name.stderr);
    assert!(other_name.status.code() == Some(3) && said.contains("its certificate is another server's"), "{said}");

    let without = |name: &str| system.environment().into_iter().filter(|(other, _)| other != name).collect::<Vec<_>>();
    let by_name = |name: &str| {
        let renamed = |(other, value): (String, String)| {
            let value = if other == name { value.replace("127.0.0.1", "localhost") } else { value };
            (other, value)
        };
        system.environment().into_iter().map(renamed).collect::<Vec<_>>()
    };
    for (environment, said) in [
        (without("DOTMASK_CA_FILE"), "cannot connect to Postgres at"),
        (by_name("DATABASE_URL"), "cannot connect to Postgres at"),
        (by_name("AMQP_URL"), "cannot connect to RabbitMQ at"),
        (by_name("DOTMASK_S3_ENDPOINT"), "the store failed to serve"),
    ] {
        let refuses = QuickWorker::start_in(&system, &environment, &[])?;
        system.until(said, async || Ok(refuses.log().contains(said))).await?;
        let log = refuses.log();
        let reason = if said.contains("Postgres") && !log.contains("localhost") {
            "of no authority that is trusted"
        } else {
            "is another server's"
        };
        assert!(log.contains(reason), "{log}");
    }
    worker.program.stop().await?;
    Ok(dispatcher.stop().await?)
}
