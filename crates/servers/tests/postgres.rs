//! The private Postgres, really started.

use servers::Postgres;
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn is_gone(pid: u32) -> bool {
    !std::path::Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn keeps_committed_rows_over_a_crash_and_leaves_nothing_behind() -> Outcome {
    let dir = tempfile::tempdir()?;
    let mut postgres = Postgres::start(&dir.path().join("postgres")).await?;
    let mut connection = PgConnection::connect(&postgres.url()).await?;
    sqlx::raw_sql("CREATE TABLE kept (id int); INSERT INTO kept VALUES (7)").execute(&mut connection).await?;

    let (url, first) = (postgres.url(), postgres.pid().ok_or("runs")?);
    postgres.kill();
    assert!(is_gone(first));
    assert!(PgConnection::connect(&url).await.is_err());

    postgres.restart().await?;
    assert_eq!(postgres.url(), url);
    let mut connection = PgConnection::connect(&url).await?;
    let kept: i32 = sqlx::query_scalar("SELECT id FROM kept").fetch_one(&mut connection).await?;
    assert_eq!(kept, 7);

    let second = postgres.pid().ok_or("runs")?;
    drop(postgres);
    assert!(is_gone(second));
    Ok(())
}

#[tokio::test]
async fn starts_again_in_the_folder_of_an_earlier_run() -> Outcome {
    let dir = tempfile::tempdir()?;
    let mut postgres = Postgres::start(dir.path()).await?;
    let other = postgres.create_database("other").await?;
    sqlx::raw_sql("CREATE TABLE kept (id int)").execute(&mut PgConnection::connect(&other).await?).await?;
    postgres.stop().await?;
    assert_eq!(postgres.pid(), None);

    let postgres = Postgres::start(dir.path()).await?;
    let mut connection = PgConnection::connect(&postgres.url_of("other")).await?;
    sqlx::raw_sql("SELECT id FROM kept").execute(&mut connection).await?;
    Ok(())
}

#[tokio::test]
async fn stops_at_once_and_recovers_what_was_committed() -> Outcome {
    let dir = tempfile::tempdir()?;
    let mut postgres = Postgres::start(dir.path()).await?;
    let mut connection = PgConnection::connect(&postgres.url()).await?;
    sqlx::raw_sql("CREATE TABLE kept (id int); INSERT INTO kept VALUES (7)").execute(&mut connection).await?;
    postgres.stop_immediately().await?;
    assert!(connection.ping().await.is_err());
    postgres.restart().await?;
    let mut connection = PgConnection::connect(&postgres.url()).await?;
    assert_eq!(sqlx::query_scalar::<_, i32>("SELECT id FROM kept").fetch_one(&mut connection).await?, 7);
    Ok(())
}

#[tokio::test]
async fn ends_the_connections_of_dotmask_and_no_others() -> Outcome {
    let dir = tempfile::tempdir()?;
    let postgres = Postgres::start(dir.path()).await?;
    let options: PgConnectOptions = postgres.url().parse()?;
    let mut ours = PgConnection::connect_with(&options.clone().application_name("dotmask")).await?;
    let mut other = PgConnection::connect_with(&options).await?;
    assert_eq!(postgres.terminate_backends().await?, 1);
    assert!(ours.ping().await.is_err());
    other.ping().await?;
    assert_eq!(postgres.terminate_backends().await?, 0);
    Ok(())
}
