//! From a data set in the object store to the table of its scores, through the binaries and real servers.

use ledger::JobState;
use tests::{System, WorkerSettings, check_every_job_has_one_result, labels_of_blobs, png_of_blobs};

#[tokio::test(flavor = "multi_thread")]
async fn a_data_set_becomes_a_table_that_grows_while_it_is_worked_on() -> anyhow::Result<()> {
    let system = System::start().await?;
    for seed in [1, 2] {
        system.put_image(&format!("data/discs/{seed}.png"), &png_of_blobs(96, 72, seed))?;
        system.put_image(&format!("data/discs/{seed}_labels.png"), &labels_of_blobs(96, 72))?;
    }
    let _dispatcher = system.start_dispatcher().await?;
    let data = ["--data", "folder:s3://scans/data", "--points", "1/0,3/3", "--repeats", "1", "--steps", "2"];
    let batch = system.submit_data(&[&data[..], &["--methods", "initial_mask,finetuned"]].concat()).await?;
    let [_, said, csv] = system.report(batch).await?;
    assert!(said.contains("4 of 4 jobs are still open"), "{said}");
    assert_eq!(csv.lines().count(), 0, "{csv}");

    let worker = system.start_worker(WorkerSettings { prefetch: 1, ..WorkerSettings::default() })?;
    system.wait_for(batch, |status| status.counts.succeeded >= 1).await?;
    let [_, _, csv] = system.report(batch).await?;
    assert!(csv.lines().count() >= 3, "the rows of the first job are there: {csv}");

    system.wait_until_done(batch).await?;
    check_every_job_has_one_result(&system, batch).await?;
    let jobs = system.jobs(batch).await?;
    assert!(jobs.iter().all(|job| job.state == JobState::Succeeded && job.result.as_ref().is_some_and(|r| r.masks.is_empty())));
    let [table, said, csv] = system.report(batch).await?;
    assert!(said.contains("0 of 4 jobs are still open"), "{said}");
    assert!(table.contains("| 1/0 |") && table.contains("| 3/3 |") && table.contains("discs"), "{table}");
    // Two images, two settings, one repeat, two methods.
    assert_eq!(csv.lines().count(), 1 + 8, "{csv}");
    assert_eq!(csv.lines().filter(|line| line.contains(",discs,3/3,0,finetuned,")).count(), 2, "{csv}");
    Ok(worker.stop().await?)
}
