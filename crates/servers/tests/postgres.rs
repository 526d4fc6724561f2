//! The private Postgres, really started.

use servers::Postgres;
use sqlx::{Connection as _, PgConnection};

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
