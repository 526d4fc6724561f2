//! Connections by TLS: which servers are trusted, and what is said of the others.

use std::fs;

use ledger::{Ledger, LedgerError, Server};
use servers::{Authority, Postgres};
use sqlx::{Connection as _, PgConnection};
use tls::Authorities;

#[tokio::test]
async fn a_server_is_used_by_tls_only_where_its_certificate_is_trusted_and_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let [ours, other] = [Authority::new(), Authority::new()];
    let postgres = Postgres::start_encrypted(&dir.path().join("postgres"), &ours.certificate()).await.unwrap();
    let plain = Postgres::start(&dir.path().join("plain")).await.unwrap();
    let authorities = |authority: &Authority| {
        let path = dir.path().join("ca.pem");
        fs::write(&path, authority.pem()).unwrap();
        Authorities::read(Some(&path)).unwrap()
    };
    let connect = async |url: &str, authorities: &Authorities| Ledger::connect_to(&Server::new(url, authorities)?, 1).await;
    let url = postgres.tls_url();
    let (trusting, system) = (authorities(&ours), Authorities::default());

    // Where the URL leaves it open, the authorities decide.
    for url in [url.clone(), url.replace("verify-full", "require"), url.replace("?sslmode=verify-full", "")] {
        let ledger = connect(&url, &trusting).await.unwrap();
        ledger.ping().await.unwrap();
        let mut observer = PgConnection::connect(&postgres.url()).await.unwrap();
        let encrypted: Vec<bool> = sqlx::query_scalar(
            "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'dotmask'",
        )
        .fetch_all(&mut observer)
        .await
        .unwrap();
        assert!(!encrypted.is_empty() && encrypted.iter().all(|ssl| *ssl), "{encrypted:?}");
    }

    for (url, authorities, expected) in [
        (
            url.clone(),
            &system,
            "of no authority that is trusted; give the authority's certificate in the file that DOTMASK_CA_FILE",
        ),
        (url.replace("verify-full", "require"), &system, "of no authority that is trusted"),
        (url.clone(), &authorities(&other), "of no authority that is trusted"),
        (url.replace("127.0.0.1", "localhost"), &trusting, "is another server's"),
        (plain.tls_url(), &trusting, "server does not support TLS; turn TLS on there, or add sslmode=disable"),
        (plain.url().replace("?sslmode=disable", ""), &trusting, "server does not support TLS"),
    ] {
        let error = connect(&url, authorities).await.expect_err(expected);
        let text = error.to_string();
        assert!(matches!(error, LedgerError::Tls { .. }) && !error.is_transient(), "{error:?}");
        assert!(text.contains("cannot connect to Postgres at") && text.contains(expected), "{text}");
    }
}
