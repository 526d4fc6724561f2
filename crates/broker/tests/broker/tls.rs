//! Connections by TLS: which servers are trusted, and what is said of the others.

use std::fs;

use broker::{BrokerError, Publisher, Server, consume};
use servers::{Authority, RabbitMq};
use tls::Authorities;
use tokio_util::sync::CancellationToken;

use crate::support::{Outcome, next};

#[tokio::test]
async fn a_server_is_used_by_tls_only_where_its_certificate_is_trusted_and_names_it() -> Outcome {
    let dir = tempfile::tempdir()?;
    let [ours, other] = [Authority::new(), Authority::new()];
    let rabbitmq = RabbitMq::start_encrypted(&dir.path().join("rabbitmq"), &ours.certificate()).await?;
    let authorities = |authority: &Authority| -> Result<Authorities, Box<dyn std::error::Error>> {
        let path = dir.path().join("ca.pem");
        fs::write(&path, authority.pem())?;
        Ok(Authorities::read(Some(&path))?)
    };
    let (trusting, system) = (authorities(&ours)?, Authorities::default());
    let url = rabbitmq.tls_url();

    Publisher::connect(Server::new(&url, &trusting)?).await?.publish("chest", 1).await?;
    let mut tokens = consume(Server::new(&url, &trusting)?, "chest".into(), 1, CancellationToken::new());
    next(&mut tokens).await.ack().await;
    let listeners = rabbitmq.control(&["list_connections", "ssl", "--no-table-headers"]).await?;
    assert!(!listeners.trim().is_empty() && listeners.lines().all(|ssl| ssl.trim() == "true"), "{listeners}");

    // The plain port of the same server.
    let plain = rabbitmq.url().replace("amqp://", "amqps://");
    for (url, authorities, expected) in [
        (&url, &system, "of no authority that is trusted; give the authority's certificate in the file that DOTMASK_CA_FILE"),
        (&url, &authorities(&other)?, "of no authority that is trusted"),
        (&url.replace("127.0.0.1", "localhost"), &trusting, "is another server's"),
        (&plain, &trusting, "it does not speak TLS there"),
    ] {
        let Err(error) = Publisher::connect(Server::new(url, authorities)?).await else { panic!("{url} is trusted") };
        let text = error.to_string();
        assert!(matches!(error, BrokerError::Tls { .. }) && text.contains(expected), "{expected}: {error:?}");
        assert!(text.contains("cannot connect to RabbitMQ at"), "{text}");
    }
    Ok(())
}
