//! `make chaos` in short: a minute of faults, some of each kind, and every invariant checked.

use std::time::Duration;

use tests::chaos::{self, Kind, Options};

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_and_none_answered_twice_while_everything_is_killed() -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("dotmask-chaos-").tempdir()?.keep();
    let options =
        Options { seed: 1, jobs: 500, faults: 30, duration: Duration::from_secs(50), garage: None, folder: folder.clone() };
    let report = chaos::run(&options).await?;
    println!("{report}");
    assert!(report.holds(), "logs are in {}", folder.display());
    assert!(report.accepted() > 400, "most jobs are good");
    assert_eq!(report.thrown().len(), Kind::WEIGHTED.len(), "each kind was thrown");
    Ok(std::fs::remove_dir_all(folder)?)
}
