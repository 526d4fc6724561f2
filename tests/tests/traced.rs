//! A batch is one trace from its submission to its masks: in Postgres, in the logs, and where OpenTelemetry's spans are collected.

use std::{collections::BTreeSet, fs};

use ledger::JobState;
use servers::Program;
use tests::{Collector, ExportedSpan, QuickWorker, System, WorkerSettings, line, log_lines, png_of_blobs};
use tokio::net::{TcpListener, TcpSocket};
use uuid::Uuid;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
/// Nothing that names a patient may leave by a trace.
const KEY: &str = "in/miller.png";

async fn start() -> anyhow::Result<System> {
    let mut system = System::start().await?;
    system.set("DOTMASK_LOG_FORMAT", "json");
    system.put_image(KEY, &png_of_blobs(96, 96, 1))?;
    Ok(system)
}

fn export_to(system: &mut System, endpoint: &str) {
    system.set("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    system.set("OTEL_BSP_SCHEDULE_DELAY", "50");
}

/// Whether the process has the thread that exports spans.
fn exports(program: &Program) -> anyhow::Result<bool> {
    let threads = fs::read_dir(format!("/proc/{}/task", program.pid()))?;
    let names = threads.map(|thread| Ok(fs::read_to_string(thread?.path().join("comm"))?));
    Ok(names.collect::<anyhow::Result<Vec<_>>>()?.iter().any(|name| name.starts_with("OpenTelemetry")))
}

async fn submit_and_wait(system: &System, lines: &[String]) -> anyhow::Result<Uuid> {
    let batch = system.submit(lines).await?;
    system.wait_until_done(batch).await?;
    Ok(batch)
}

async fn traceparent(system: &System) -> anyhow::Result<String> {
    system.value("SELECT coalesce(traceparent, '') FROM batches ORDER BY created_at DESC LIMIT 1").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_one_trace_from_submit_to_mask() -> anyhow::Result<()> {
    let mut system = start().await?;
    let collector = Collector::start().await?;
    export_to(&mut system, &collector.endpoint());
    system.set("TRACEPARENT", &format!("00-{TRACE}-{PARENT}-01"));
    let dispatcher = system.start_dispatcher().await?;
    let worker = system.start_worker(WorkerSettings::default())?;
    let batch = submit_and_wait(&system, &[line(KEY, 3), line("in/missing.png", 3)]).await?;
    let jobs = system.jobs(batch).await?;
    assert_eq!(jobs.iter().map(|job| job.state).collect::<Vec<_>>(), [JobState::Succeeded, JobState::Failed]);
    assert!(exports(&dispatcher)? && exports(&worker)?);

    let stored = traceparent(&system).await?;
    assert!(stored.starts_with(&format!("00-{TRACE}-")) && stored.ends_with("-01"), "{stored}");

    // Both programs have told all of it when they end.
    worker.stop().await?;
    dispatcher.stop().await?;
    let spans = collector.spans();
    assert!(spans.iter().all(|span| span.trace_id == TRACE), "{spans:#?}");
    let spans_of = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let [submit, received] = ["submit", "submit_batch"].map(|name| spans_of(name)[0]);
    assert_eq!((submit.service.as_str(), submit.parent_id.as_str()), ("dotmask-dispatcher", PARENT));
    assert_eq!((received.service.as_str(), received.parent_id.as_str()), ("dotmask-dispatcher", submit.id.as_str()));
    assert!(stored.contains(&received.id), "the jobs continue the span that {stored} names");
    for job in &jobs {
        let is_its = |span: &&&ExportedSpan| span.attributes.contains(&("job.id".into(), job.id.to_string()));
        let of_job = spans_of("job");
        let span = of_job.iter().find(is_its).expect("each job has a span");
        assert_eq!((span.service.as_str(), span.parent_id.as_str()), ("dotmask-worker", received.id.as_str()));
        assert_eq!(span.is_failed, job.state == JobState::Failed);
        let stages: Vec<_> = spans.iter().filter(|stage| stage.parent_id == span.id).collect();
        let names: BTreeSet<&str> = stages.iter().map(|stage| stage.name.as_str()).collect();
        let expected = match job.state {
            JobState::Succeeded => {
                vec!["decode", "embed", "encode", "fetch", "finalise", "finetune", "queue", "upload", "upsample"]
            }
            _ => vec!["finalise"],
        };
        assert_eq!(names.into_iter().collect::<Vec<_>>(), expected);
        let [begun, ended] = span.nanoseconds;
        for stage in &stages {
            let [stage_begun, stage_ended] = stage.nanoseconds;
            // Stages are told in seconds, and clocks are read one after the other.
            let slack = 20_000_000;
            assert!(
                begun <= stage_begun + slack && stage_begun <= stage_ended && stage_ended <= ended,
                "{stage:#?} in {span:#?}"
            );
        }
    }
    assert!(!format!("{spans:?}").contains("miller"), "{spans:#?}");

    let lines = log_lines(&system.logs());
    let said = |message: &str| lines.iter().filter(|line| line["message"] == message).collect::<Vec<_>>();
    let submitted = said("batch submitted")[0];
    assert_eq!((&submitted["trace.id"], &submitted["batch.id"]), (&TRACE.into(), &batch.to_string().into()));
    let of_jobs: Vec<_> = lines.iter().filter(|line| line.get("job.id").is_some()).collect();
    assert!(of_jobs.len() >= 2 * jobs.len(), "{}", system.logs());
    for line in of_jobs {
        assert_eq!((&line["trace.id"], &line["batch.id"]), (&TRACE.into(), &batch.to_string().into()), "{line}");
    }
    assert_eq!((said("job claimed").len(), said("job ended").len()), (2, 2));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_exported_unless_a_collector_is_named_and_logs_bear_a_trace_all_the_same() -> anyhow::Result<()> {
    let mut system = start().await?;
    system.set("OTEL_EXPORTER_OTLP_ENDPOINT", "");
    let dispatcher = system.start_dispatcher().await?;
    let worker = QuickWorker::start(&system, &[])?;
    submit_and_wait(&system, &[line(KEY, 3)]).await?;
    assert!(!exports(&dispatcher)? && !exports(&worker.program)?);

    let stored = traceparent(&system).await?;
    let trace = stored.split('-').nth(1).expect("one was made");
    let lines = log_lines(&system.logs());
    for message in ["batch submitted", "job claimed", "job ended"] {
        let said = lines.iter().find(|line| line["message"] == message).expect(message);
        assert_eq!(said["trace.id"], trace, "{said}");
    }

    // One that was given is passed on; one that is malformed is as if there were none.
    let given = format!("00-{TRACE}-{PARENT}-00");
    system.set("TRACEPARENT", &given);
    submit_and_wait(&system, &[line(KEY, 3)]).await?;
    let stored = traceparent(&system).await?;
    assert!(stored.starts_with(&format!("00-{TRACE}-")) && stored.ends_with("-00"), "{stored}");
    system.set("TRACEPARENT", &given.to_uppercase());
    submit_and_wait(&system, &[line(KEY, 3)]).await?;
    let stored = traceparent(&system).await?;
    assert!(!stored.is_empty() && !stored.contains(TRACE), "{stored}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_is_told_once_and_stops_nothing() -> anyhow::Result<()> {
    let mut system = start().await?;
    // A port that is bound and not listened at refuses connections, and nobody else can take it.
    let away = TcpSocket::new_v4()?;
    away.bind("127.0.0.1:0".parse()?)?;
    export_to(&mut system, &format!("http://{}", away.local_addr()?));
    let _dispatcher = system.start_dispatcher().await?;
    let worker = QuickWorker::start(&system, &[])?;
    let told = |message: &str| {
        let lines = log_lines(&worker.log());
        lines.iter().filter(|line| line["part"] == "exporting traces" && line["message"] == message).count()
    };
    let failed = "failed, trying again until it works";
    // Apart from each other, so each has an attempt of its own.
    let exports = 6;
    for _ in 0..exports {
        submit_and_wait(&system, &[line(KEY, 3)]).await?;
        system.until("the outage is told", async || Ok(told(failed) > 0)).await?;
    }

    let collector = Collector::start_with(away.listen(1_024)?)?;
    submit_and_wait(&system, &[line(KEY, 3)]).await?;
    system.until("its end is told", async || Ok(told("works again") > 0)).await?;
    // On a busy machine one attempt may fail in another way, which is told as well.
    assert!(told(failed) < exports, "{}", worker.log());
    let has_job = || collector.spans().iter().any(|span| span.name == "job");
    system.until("the job's span comes", async || Ok(has_job())).await?;
    Ok(worker.program.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_does_not_answer_holds_up_neither_work_nor_the_end() -> anyhow::Result<()> {
    let mut system = start().await?;
    // The system takes connections in, and nobody ever reads from them.
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    // Longer than anything is waited for here: what waits for an export does not end in time.
    system.set("OTEL_EXPORTER_OTLP_TIMEOUT", "3600000");
    export_to(&mut system, &format!("http://{}", silent.local_addr()?));
    let dispatcher = system.start_dispatcher().await?;
    let worker = QuickWorker::start(&system, &["--drain-seconds", "0"])?;
    submit_and_wait(&system, &[line(KEY, 3)]).await?;
    silent.accept().await?;
    submit_and_wait(&system, &[line(KEY, 3)]).await?;

    // Each has a limit.
    worker.program.stop().await?;
    Ok(dispatcher.stop().await?)
}
