//! Faults of the network and of Postgres: every call ends in time, and works again afterwards.

use std::time::{Duration, Instant};

use ledger::{BatchWriter, Ledger, LedgerError};
use servers::{Mode, Proxy};
use tokio::task::JoinSet;

use crate::fixture::{Fixture, LONG, gpu, request};

/// Longer than the longest limit of a call; who waits for it has failed.
const PATIENCE: Duration = Duration::from_mins(1);

/// A ledger of few connections that reaches the fixture's Postgres through a proxy.
struct Behind {
    proxy: Proxy,
    ledger: Ledger,
    fixture: Fixture,
}

impl Behind {
    async fn start(connections: u32) -> Self {
        let fixture = Fixture::start().await;
        let proxy = Proxy::start(fixture.postgres.address()).unwrap();
        let ledger = Ledger::connect(&fixture.postgres.url_via(proxy.address()), connections).await.unwrap();
        Self { proxy, ledger, fixture }
    }

    /// Many calls at once, several for each connection; what became of each.
    async fn call_all_at_once(&self) -> Vec<Result<(), LedgerError>> {
        let mut calls = JoinSet::new();
        for _ in 0..20 {
            let ledger = self.ledger.clone();
            calls.spawn(async move { ended(ledger.claim("cpu", "worker", LONG)).await.map(drop) });
            // Claims go together; of these each takes a connection.
            let ledger = self.ledger.clone();
            calls.spawn(async move { ended(ledger.pool_names()).await.map(drop) });
        }
        calls.join_all().await
    }

    async fn works_again(&self) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = ended(self.ledger.ping()).await {
            assert!(error.is_transient(), "{error}");
            assert!(Instant::now() < deadline, "still {error}");
        }
        for outcome in self.call_all_at_once().await {
            outcome.expect("works again");
        }
    }
}

/// What a call came to, in time.
fn ended<T>(call: impl Future<Output = T>) -> impl Future<Output = T> {
    // Boxed: the tests' own futures would be too large with every call in them.
    let call = Box::pin(tokio::time::timeout(PATIENCE, call));
    async move { call.await.expect("a call ends in time") }
}

fn assert_all_transient<T>(outcomes: impl IntoIterator<Item = Result<T, LedgerError>>) {
    for error in outcomes.into_iter().filter_map(Result::err) {
        assert!(error.is_transient(), "{error:?}");
    }
}

#[derive(Debug, Clone, Copy)]
enum Loss {
    Closed,
    Reset,
    Terminated,
    Stopped,
    StoppedAtOnce,
    Killed,
    Cut,
    Stalled,
}

#[tokio::test]
async fn all_connections_may_be_lost_at_once_in_any_way() {
    let mut behind = Behind::start(4).await;
    for loss in
        [Loss::Closed, Loss::Reset, Loss::Terminated, Loss::Stopped, Loss::StoppedAtOnce, Loss::Killed, Loss::Cut, Loss::Stalled]
    {
        // Opens every connection that the pool may have.
        behind.works_again().await;
        match loss {
            Loss::Closed => behind.proxy.close_connections(),
            Loss::Reset => behind.proxy.reset_connections(),
            Loss::Terminated => {
                let terminated = behind.fixture.postgres.terminate_backends().await.unwrap();
                assert!(terminated >= 4, "{terminated} connections");
            }
            Loss::Stopped => behind.fixture.postgres.stop().await.unwrap(),
            Loss::StoppedAtOnce => behind.fixture.postgres.stop_immediately().await.unwrap(),
            Loss::Killed => behind.fixture.postgres.kill(),
            Loss::Cut => behind.proxy.set(Mode::Cut),
            Loss::Stalled => behind.proxy.set(Mode::Stall),
        }
        let outcomes = behind.call_all_at_once().await;
        if matches!(loss, Loss::Stopped | Loss::StoppedAtOnce | Loss::Killed | Loss::Cut | Loss::Stalled) {
            assert!(outcomes.iter().all(Result::is_err), "{loss:?}: there is no server");
        }
        assert_all_transient(outcomes);
        behind.proxy.set(Mode::Pass);
        if matches!(loss, Loss::Stopped | Loss::StoppedAtOnce | Loss::Killed) {
            behind.fixture.postgres.restart().await.unwrap();
        }
    }
    behind.works_again().await;
}

#[tokio::test]
async fn a_connection_lost_in_the_midst_of_a_batch_leaves_nothing_of_it() {
    let behind = Behind::start(2).await;
    for is_terminated in [true, false] {
        let mut writer = behind.ledger.begin_batch(gpu()).await.unwrap();
        writer.push(1, &request(1)).await.unwrap();
        if is_terminated {
            behind.fixture.postgres.terminate_backends().await.unwrap();
        } else {
            behind.proxy.reset_connections();
        }
        let error = ended(writer.commit()).await.expect_err("the connection is lost");
        assert!(error.is_transient(), "{error:?}");
    }
    assert_eq!(behind.fixture.count("SELECT (SELECT count(*) FROM batches) + (SELECT count(*) FROM jobs)").await, 0);
    behind.works_again().await;
}

#[tokio::test]
async fn more_writers_of_batches_than_connections_get_on_or_time_out() {
    let behind = Behind::start(2).await;
    let begin = || ended(behind.ledger.begin_batch(gpu()));
    let (held, other): (BatchWriter, BatchWriter) = (begin().await.unwrap(), begin().await.unwrap());
    let error = begin().await.expect_err("no connection is free");
    assert!(error.is_transient(), "{error:?}");
    assert!(ended(behind.ledger.ping()).await.expect_err("no connection is free").is_transient());
    drop(held);
    begin().await.expect("a connection is free");
    drop(other);

    let mut writers = JoinSet::new();
    for _ in 0..16 {
        let ledger = behind.ledger.clone();
        writers.spawn(ended(async move {
            let mut writer = ledger.begin_batch(gpu()).await?;
            for line in 1..=50 {
                writer.push(line, &request(line)).await?;
                tokio::task::yield_now().await;
            }
            writer.commit().await
        }));
    }
    let outcomes = writers.join_all().await;
    let submitted = outcomes.iter().filter(|outcome| outcome.is_ok()).count() as i64;
    assert!(submitted > 0, "none got on");
    assert_all_transient(outcomes);
    assert_eq!(behind.fixture.count("SELECT count(*) FROM jobs").await, submitted * 50);
    behind.works_again().await;
}

/// Nobody is told when a server is gone with its machine, and no limit of the server's own holds.
#[tokio::test]
async fn a_call_to_a_server_that_is_gone_without_a_word_ends_and_its_place_in_the_pool_is_free() {
    let behind = Behind::start(1).await;
    behind.works_again().await;
    let mut lock = behind.fixture.sql.begin().await.unwrap();
    sqlx::query("LOCK TABLE jobs").execute(&mut *lock).await.unwrap();
    let ledger = behind.ledger.clone();
    let call = tokio::spawn(async move { ledger.claim("gpu", "worker", LONG).await });
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    let deadline = Instant::now() + PATIENCE;
    while behind.fixture.count(waits).await == 0 {
        assert!(Instant::now() < deadline, "the call does not wait for the lock");
    }
    behind.proxy.stall_connections();
    lock.rollback().await.unwrap();
    let error = ended(call).await.unwrap().expect_err("no answer comes");
    assert!(error.is_transient() && error.to_string().contains("claim a job"), "{error:?}");
    behind.works_again().await;
}

#[tokio::test]
async fn a_statement_that_waits_for_a_lock_is_ended_by_the_server() {
    let behind = Behind::start(1).await;
    let mut lock = behind.fixture.sql.begin().await.unwrap();
    sqlx::query("LOCK TABLE jobs").execute(&mut *lock).await.unwrap();
    let error = ended(behind.ledger.claim("gpu", "worker", LONG)).await.expect_err("the lock is held");
    assert!(error.is_transient() && error.to_string().contains("statement timeout"), "{error:?}");
    lock.rollback().await.unwrap();
    behind.works_again().await;
}

/// A trigger sees the settings of the ledger's own connection.
#[tokio::test]
async fn every_connection_has_its_limits_on_the_server() {
    let fixture = Fixture::start().await;
    for statement in [
        "CREATE TABLE seen (name text, setting text)",
        "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO seen SELECT name, setting FROM pg_settings
             WHERE name IN ('statement_timeout', 'idle_in_transaction_session_timeout', 'application_name');
             RETURN new;
         END $$",
        "CREATE TRIGGER look BEFORE INSERT ON pools FOR EACH ROW EXECUTE FUNCTION look()",
    ] {
        fixture.execute(statement).await;
    }
    fixture.ledger.declare_pool("seen").await.unwrap();
    let seen: Vec<(String, String)> =
        sqlx::query_as("SELECT name, setting FROM seen ORDER BY name").fetch_all(&fixture.sql).await.unwrap();
    let expected =
        [("application_name", "dotmask"), ("idle_in_transaction_session_timeout", "60000"), ("statement_timeout", "30000")];
    assert_eq!(seen, expected.map(|(name, setting)| (name.to_owned(), setting.to_owned())));
}
