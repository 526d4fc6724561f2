//! Connecting, and the schema's way up and down.

use crate::fixture::Fixture;
use ledger::{Ledger, LedgerError};
use tokio::net::TcpListener;

/// Everything in the schema but the migrator's own table.
const OBJECTS: &str = "SELECT
    (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname NOT LIKE '\\_sqlx\\_migrations%')
  + (SELECT count(*) FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype = 'e')";

#[tokio::test]
async fn migrations_go_up_down_to_nothing_and_up_again() {
    let fixture = Fixture::empty().await;
    let ledger = &fixture.ledger;
    let error = ledger.pools().await.expect_err("no tables");
    assert!(matches!(error, LedgerError::NotMigrated { .. }), "{error}");

    let (one, other) = tokio::join!(ledger.migrate(), ledger.migrate());
    one.unwrap();
    other.unwrap();
    let up = fixture.count(OBJECTS).await;
    assert!(up > 10, "{up} objects");
    fixture.ledger.declare_pool("gpu").await.unwrap();
    fixture.submit(3).await;

    ledger.revert_all().await.unwrap();
    assert_eq!(fixture.count(OBJECTS).await, 0);
    ledger.migrate().await.unwrap();
    assert_eq!(fixture.count(OBJECTS).await, up);
    assert_eq!(ledger.pools().await.unwrap(), []);
}

#[tokio::test]
async fn says_where_it_could_not_connect_and_never_the_password() {
    let mut fixture = Fixture::empty().await;
    let url = fixture.postgres.url();
    let (scheme_and_role, rest) = url.split_once("dotmask:").unwrap();
    let (_, server) = rest.split_once('@').unwrap();
    let wrong_password = format!("{scheme_and_role}dotmask:hunter2@{server}");
    let port = fixture.postgres.port();

    let refused = Ledger::connect(&wrong_password, 1).await.expect_err("wrong password");
    assert!(!refused.is_transient(), "{refused}");
    let unusable = Ledger::connect("postgres://dotmask:hunter2@localhost:port/dotmask", 1).await.expect_err("no port");
    assert!(matches!(unusable, LedgerError::Url { .. }), "{unusable}");

    fixture.ledger.ping().await.unwrap();
    fixture.postgres.stop().await.unwrap();
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute_url = format!("postgres://dotmask:hunter2@{}/dotmask", mute.local_addr().unwrap());
    let (lost, gone, silent) =
        tokio::join!(fixture.ledger.ping(), Ledger::connect(&wrong_password, 1), Ledger::connect(&mute_url, 1));
    let (lost, gone, silent) = (lost.expect_err("stopped"), gone.expect_err("stopped"), silent.expect_err("says nothing"));
    assert!(matches!(silent, LedgerError::NoAnswer { .. }), "{silent}");
    for error in [&lost, &gone, &silent] {
        assert!(error.is_transient(), "{error}");
    }

    for error in [&refused, &gone] {
        assert!(error.to_string().contains(&format!("127.0.0.1:{port}/dotmask")), "{error}");
    }
    for error in [refused, unusable, gone, silent] {
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }

    fixture.postgres.restart().await.unwrap();
    fixture.ledger.ping().await.expect("the pool connects again by itself");
}

#[tokio::test]
async fn a_pool_runs_one_checkpoint() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    let [first, second] = ["1".repeat(64), "2".repeat(64)];
    ledger.bind_checkpoint("gpu", &first).await.unwrap();
    ledger.bind_checkpoint("gpu", &first).await.unwrap();
    let error = ledger.bind_checkpoint("gpu", &second).await.expect_err("another checkpoint");
    assert!(matches!(&error, LedgerError::OtherCheckpoint { expected, .. } if *expected == first), "{error}");
    for unknown in ["tpu", "", "no\0pool"] {
        let error = ledger.bind_checkpoint(unknown, &first).await.expect_err(unknown);
        assert!(matches!(error, LedgerError::UnknownPool { .. }), "{error}");
    }
    ledger.declare_pool("gpu").await.expect("declaring again keeps the checkpoint");
    let pools = ledger.pools().await.unwrap();
    let bound: Vec<_> = pools.iter().map(|pool| (pool.name.as_str(), pool.checkpoint_sha256.as_deref())).collect();
    assert_eq!(bound, [("cpu", None), ("gpu", Some(first.as_str()))]);

    for name in ["", "GPU", "gpu_1", "1gpu", "gpü", "gpu\n", &"g".repeat(41)] {
        let error = ledger.declare_pool(name).await.expect_err(name);
        assert!(matches!(error, LedgerError::PoolName { .. }), "{error}");
    }
    ledger.declare_pool(&format!("g-{}", "7".repeat(38))).await.expect("40 characters");
}
