//! What an operator sees is there: every query of every board and every rule, asked of a Prometheus that scrapes a real dispatcher and real workers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use ledger::JobState;
use serde_json::Value;
use servers::free_ports;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, ValueRef as _, postgres::PgConnectOptions};
use tests::{
    QuickWorker, Release, System, WorkerSettings, labels_of_blobs, line,
    observed::{Board, Catalogue, Monitor, Panel, Source, Variable, boards, filled, named_in, selectors, serve_text},
    png_of_blobs, png_that_begins_with,
    quick::{ABORTS, OUT_OF_MEMORY, PANICS},
    repository,
};
use uuid::Uuid;

/// What dcgm-exporter exposes of one GPU that is given to a pod, four metrics of its many: there is no GPU where these tests run.
const DCGM: &str = include_str!("observed/dcgm.txt");

/// What a Prometheus in Kubernetes adds to each series.
const NAMESPACE: (&str, &str) = ("namespace", "dotmask");
const POD: (&str, &str) = ("pod", "dotmask-worker-nano-0");

/// How long ago the boards' "before" is: an hour and a day are longer than a test.
const BEFORE: &str = "5s";

/// The batch board's user.
const READER: &str = "dotmask_reader";

type Values = BTreeMap<String, String>;

fn rules() -> PathBuf {
    repository().join("helm/dotmask/rules/dotmask.yaml")
}

fn unit_tests() -> PathBuf {
    repository().join("helm/tests/rules/dotmask.test.yaml")
}

fn promtool(arguments: &[&str], file: &Path) -> anyhow::Result<Result<(), String>> {
    let output = Command::new("promtool").args(arguments).arg(file).output();
    let output = output.context("promtool was not found; install it: sudo apt-get install prometheus")?;
    let said = || String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned();
    Ok(if output.status.success() { Ok(()) } else { Err(said()) })
}

#[test]
fn boards_are_what_their_sources_say() -> anyhow::Result<()> {
    let output = Command::new("python3").arg(repository().join("helm/dashboards")).arg("--check").output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn every_panel_says_what_it_shows_and_in_which_unit() -> anyhow::Result<()> {
    let is_said = |field: &Value| field.as_str().is_some_and(|text| !text.is_empty());
    for Board { uid, variables, panels, json } in boards(repository())? {
        ensure!(is_said(&json["refresh"]) && is_said(&json["time"]["from"]), "{uid} has no refresh or no time range");
        ensure!(json["links"].as_array().is_some_and(|links| !links.is_empty()), "{uid} leads nowhere");
        let values: Values = variables.into_iter().map(|variable| (variable.name, String::new())).collect();
        for Panel { name, queries, json } in panels {
            ensure!(is_said(&json["description"]), "{name} has no description");
            ensure!(is_said(&json["fieldConfig"]["defaults"]["unit"]), "{name} has no unit");
            ensure!(!queries.is_empty(), "{name} asks nothing");
            for target in json["targets"].as_array().into_iter().flatten() {
                ensure!(target["datasource"]["uid"] == "${datasource}", "{name} has a data source of its own");
                let has_legend = json["type"] != "timeseries" || target["rawSql"].is_string() || is_said(&target["legendFormat"]);
                ensure!(has_legend, "{name} has a series without a name");
            }
            for query in queries {
                let query = filled(&query, &values);
                ensure!(!query.contains('$'), "{name} has a variable that its board lacks: {query}");
            }
        }
    }
    Ok(())
}

#[test]
fn rules_are_sound_and_every_alert_is_explained_and_seen_to_fire() -> anyhow::Result<()> {
    if let Err(said) = promtool(&["check", "rules"], &rules())? {
        bail!(said);
    }
    if let Err(said) = promtool(&["test", "rules"], &unit_tests())? {
        bail!(said);
    }
    let (text, runbook) = (fs::read_to_string(rules())?, fs::read_to_string(repository().join("docs/RUNBOOK.md"))?);
    let alerts: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    ensure!(alerts.len() >= 10, "{alerts:?}");
    let sections = runbook.lines().filter_map(|line| line.strip_prefix("## Dotmask")).count();
    ensure!(sections == alerts.len(), "the runbook has {sections} sections of alerts, and there are {}", alerts.len());

    let tests = fs::read_to_string(unit_tests())?;
    let fires = |alert: &str| tests.contains(&format!("alertname: {alert}\n        exp_alerts:\n          - exp_labels:"));
    for alert in alerts {
        ensure!(runbook.contains(&format!("\n## {alert}\n")), "{alert} has no section in the runbook");
        let anchor = format!("runbook: docs/RUNBOOK.md#{}\n", alert.to_lowercase());
        let rule = text.split("- alert: ").find(|rule| rule.starts_with(&format!("{alert}\n"))).context("found above")?;
        for said in ["severity: ", "summary: ", "description: ", &anchor] {
            ensure!(rule.contains(said), "{alert} lacks {said}");
        }
        // The unit tests, which went well, list all that fires; so they show too where it does not.
        ensure!(fires(alert), "no unit test has {alert} fire");
    }
    Ok(())
}

#[test]
fn boards_rules_and_documents_name_the_metrics_that_exist() -> anyhow::Result<()> {
    let catalogue = Catalogue::read()?;
    let repository = repository();
    let mut places = vec![rules(), unit_tests(), repository.join("README.md"), repository.join("ARCHITECTURE.md")];
    for folder in ["docs", "helm/dotmask/dashboards"] {
        for entry in fs::read_dir(repository.join(folder))? {
            places.push(entry?.path());
        }
    }
    let mut named = BTreeSet::new();
    for place in places.iter().filter(|place| place.extension().is_some_and(|kind| kind != "png")) {
        let text = fs::read_to_string(place)?;
        for name in named_in(&text).into_iter().filter(|&name| name != READER) {
            // Recorded ones are named after their metric and bear a colon.
            let is_recorded = ["dotmask_workers_ready", "dotmask_jobs_queued", "dotmask_quality"].contains(&name);
            let metric = catalogue.metric(name).map(str::to_owned);
            ensure!(metric.is_some() || is_recorded, "{} names {name}, which no program has", place.display());
            named.extend(metric);
        }
    }
    let unnamed: Vec<&str> = catalogue.names().filter(|&name| name.starts_with("dotmask_") && !named.contains(name)).collect();
    ensure!(unnamed.is_empty(), "named by no board, no rule and no document: {unnamed:?}");
    Ok(())
}

/// The system, the Prometheus that looks on, and what a person would choose at the top of the boards.
struct Observed {
    system: System,
    monitor: Monitor,
    /// Batches of which one has ended, and one is under way.
    batches: [Uuid; 2],
    /// The real worker.
    instance: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_every_board_and_rule_has_data_of_metrics_that_exist() -> anyhow::Result<()> {
    let mut system = System::start().await?;
    // A plan is to be the same whether or not Postgres has counted the few rows meanwhile, of which it then reads all.
    let mut owner = PgConnection::connect(&system.stack.postgres.url()).await?;
    for setting in ["ALTER SYSTEM SET autovacuum = off", "SELECT pg_reload_conf()"] {
        sqlx::raw_sql(setting).execute(&mut owner).await?;
    }
    let mut monitor = Monitor::start(&[rules()]).await?;
    let _dispatcher = system.start_dispatcher().await?;
    // The exporter's own namespace; the pod's, which Prometheus then renames, is in the text.
    let (exporter, _serving) = serve_text(DCGM).await?;
    monitor.scrape(&exporter, &[("namespace", "gpu-operator")])?;
    monitor.scrape(system.dispatcher_metrics_address(), &[NAMESPACE])?;
    up(&system, &monitor, system.dispatcher_metrics_address()).await?;
    with_an_outage(&mut system).await?;

    let failing = with_failures(&system, &mut monitor).await?;
    let [port] = free_ports();
    let instance = format!("127.0.0.1:{port}");
    let settings = WorkerSettings { lease: Duration::from_secs(10), prefetch: 2 };
    let _worker = system.start_worker_at(&instance, &Release::this(), settings)?;
    monitor.scrape(&instance, &[NAMESPACE, POD])?;
    up(&system, &monitor, &instance).await?;
    let under_way = with_a_real_model(&system).await?;

    let observed = Observed { system, monitor, batches: [failing, under_way], instance };
    observed.metrics_are_those_of_the_catalogue().await?;
    observed.rules_have_data().await?;
    observed.boards_have_data().await
}

async fn up(system: &System, monitor: &Monitor, instance: &str) -> anyhow::Result<()> {
    let ready = format!("dotmask_ready{{instance={instance:?}}} == 1");
    system.until("Prometheus sees the program ready", async || Ok(!monitor.values(&ready).await?.is_empty())).await
}

/// The API cannot answer while Postgres is away.
async fn with_an_outage(system: &mut System) -> anyhow::Result<()> {
    system.stack.postgres.stop().await?;
    // reqwest is built without a TLS provider of its own; one that is installed already will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let answer = reqwest::get(format!("http://{}/v1/pools", system.dispatcher_address())).await?;
    ensure!(answer.status() == reqwest::StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    Ok(system.stack.postgres.restart().await?)
}

/// Quick workers answer as many images as the quality's rules ask for, while images take them down, fail, or are none.
async fn with_failures(system: &System, monitor: &mut Monitor) -> anyhow::Result<Uuid> {
    let bad = [("aborts.png", ABORTS), ("panics.png", PANICS), ("full.png", OUT_OF_MEMORY)];
    for (key, red) in bad {
        system.put_image(key, &png_that_begins_with(red, 1))?;
    }
    system.put_image("good.png", &png_of_blobs(48, 48, 1))?;
    system.put_image("text.png", b"no image at all")?;
    let mut lines = vec![line("good.png", 3); 80];
    lines.extend(["aborts.png", "panics.png", "full.png", "text.png", "missing.png"].map(|key| line(key, 3)));
    let start = |monitor: &mut Monitor| {
        // One job at a time: a good one beside the one that aborts would be lost with it, twice, and be quarantined too.
        let flags = ["--lease-seconds", "5", "--heartbeat-seconds", "0.5", "--prefetch", "1"];
        let worker = QuickWorker::start(system, &flags)?;
        monitor.scrape(worker.address(), &[NAMESPACE, ("pod", "quick")])?;
        anyhow::Ok(worker)
    };
    let mut worker = start(monitor)?;
    // What is counted between two scrapes of a program that then crashes is lost; so it is scraped before.
    up(system, monitor, worker.address()).await?;
    let batch = system.submit(&lines).await?;
    let done = system.until("the good ones succeed and the one that aborts is quarantined", async || {
        let jobs = system.jobs(batch).await?;
        let has_aborted = jobs[80].state == JobState::Quarantined;
        Ok(has_aborted && jobs[..80].iter().all(|job| job.state == JobState::Succeeded))
    });
    tokio::pin!(done);
    loop {
        tokio::select! {
            reached = &mut done => break reached?,
            _ = worker.program.unexpected_end() => {
                worker = start(monitor)?;
            }
        }
    }
    // Both are mended, and succeed at their next attempt.
    for key in ["panics.png", "full.png"] {
        system.put_image(key, &png_of_blobs(48, 48, 2))?;
    }
    system.wait_until_done(batch).await?;
    let counted = format!("dotmask_worker_masks_total{{instance={:?}}} > 0", worker.address());
    system.until("the last counts are scraped", async || Ok(!monitor.values(&counted).await?.is_empty())).await?;
    worker.program.stop().await?;
    Ok(batch)
}

/// The real model segments, evaluates and refuses, and is then busy for longer than anybody looks.
async fn with_a_real_model(system: &System) -> anyhow::Result<Uuid> {
    system.put_image("data/discs/1.png", &png_of_blobs(96, 72, 1))?;
    system.put_image("data/discs/1_labels.png", &labels_of_blobs(96, 72))?;
    let data = [
        "--data",
        "folder:s3://scans/data",
        "--points",
        "1/0",
        "--repeats",
        "1",
        "--steps",
        "2",
        "--methods",
        "initial_mask,finetuned",
    ];
    let evaluation = system.submit_data(&data).await?;
    system.wait_until_done(evaluation).await?;
    let mut lines = vec![line("good.png", 2); 4];
    lines.push(line("text.png", 2));
    lines.extend(vec![line("good.png", 10_000); 4]);
    let batch = system.submit(&lines).await?;
    system
        .wait_for(batch, |status| status.counts.succeeded == 4 && status.counts.failed == 1 && status.counts.running > 0)
        .await?;
    Ok(batch)
}

impl Observed {
    /// No more and no fewer than the programs say they have.
    async fn metrics_are_those_of_the_catalogue(&self) -> anyhow::Result<()> {
        let catalogue = Catalogue::read()?;
        let scraped = self.monitor.label_values("__name__", Some(r#"{namespace="dotmask"}"#)).await?;
        let scraped = scraped.iter().filter(|name| name.starts_with("dotmask_"));
        let known: BTreeSet<&str> = scraped
            .map(|series| catalogue.metric(series).with_context(|| format!("{series} is exposed and not in the catalogue")))
            .collect::<anyhow::Result<_>>()?;
        let missing: Vec<&str> = catalogue.names().filter(|name| name.starts_with("dotmask_") && !known.contains(name)).collect();
        ensure!(missing.is_empty(), "in the catalogue, and not exposed by any program: {missing:?}");
        Ok(())
    }

    /// Each rule is evaluated without error. What is recorded has values. An alert's expression has some only where something is wrong; so each of the
    /// series that it reads must be there, and that it fires is the unit tests' to show. One of them does fire here.
    async fn rules_have_data(&self) -> anyhow::Result<()> {
        let evaluated = async || Ok(self.monitor.rules().await?.iter().all(|rule| rule["health"] != "unknown"));
        self.system.until("every rule was evaluated", evaluated).await?;
        let mut queries = Vec::new();
        for rule in self.monitor.rules().await? {
            let (name, expression) = (rule["name"].as_str().context("a name")?, rule["query"].as_str().context("a query")?);
            ensure!(rule["health"] == "ok", "{name}: {}", rule["lastError"]);
            if rule["type"] == "recording" {
                let measure = rule["labels"]["measure"].as_str().unwrap_or_default();
                queries.push((name.to_owned(), format!("{name}{{measure={measure:?}}}")));
            }
            queries.extend(selectors(expression).into_iter().map(|selector| (name.to_owned(), selector)));
        }
        queries.push((
            "a job was quarantined".into(),
            r#"ALERTS{alertname="DotmaskQuarantined",alertstate="firing",namespace="dotmask"}"#.into(),
        ));
        self.all_have_values(queries).await
    }

    async fn boards_have_data(&self) -> anyhow::Result<()> {
        let mut reader = self.reader().await?;
        let mut queries = Vec::new();
        for board in boards(repository())? {
            if board.variables.iter().any(|variable| matches!(variable.source, Source::Sql(_))) {
                self.statements_have_rows(&mut reader, &board).await?;
            } else {
                let values = self.chosen(&board.variables).await?;
                for panel in &board.panels {
                    queries.extend(panel.queries.iter().map(|query| (panel.name.clone(), filled(query, &values))));
                }
            }
        }
        self.all_have_values(queries).await
    }

    /// The values a person would choose: they must be on offer.
    async fn chosen(&self, variables: &[Variable]) -> anyhow::Result<Values> {
        let mut values = Values::new();
        for Variable { name, source } in variables {
            let value = match source {
                Source::DataSource(kind) => kind.clone(),
                Source::Fixed(_) if name == "before" => BEFORE.into(),
                Source::Fixed(value) => value.clone(),
                Source::Sql(_) => bail!("{name} asks Postgres"),
                Source::LabelValues { selector, label, all } => {
                    let offered = self.monitor.label_values(label, Some(&filled(selector, &values))).await?;
                    let wanted = if name == "instance" { &self.instance } else { offered.first().context(name.clone())? };
                    ensure!(offered.contains(wanted), "{name} offers {offered:?}, not {wanted}");
                    all.as_ref().unwrap_or(wanted).clone()
                }
            };
            values.insert(name.clone(), value);
        }
        Ok(values)
    }

    /// Polls, since some need two scrapes, or a whole minute to begin.
    async fn all_have_values(&self, mut queries: Vec<(String, String)>) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + Duration::from_mins(5);
        loop {
            let mut empty = Vec::new();
            for (name, query) in queries {
                if self.monitor.values(&query).await.with_context(|| name.clone())?.is_empty() {
                    empty.push((name, query));
                }
            }
            queries = empty;
            if queries.is_empty() {
                return Ok(());
            }
            let list = || queries.iter().map(|(name, query)| format!("{name}: {query}")).collect::<Vec<_>>().join("\n");
            ensure!(tokio::time::Instant::now() < deadline, "no data:\n{}", list());
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// A connection of the user whom the runbook has made for Grafana.
    async fn reader(&self) -> anyhow::Result<PgConnection> {
        let url = self.system.stack.postgres.url();
        let mut owner = PgConnection::connect(&url).await?;
        let grants = fs::read_to_string(repository().join("helm/dashboards/reader.sql"))?;
        let made = format!("CREATE ROLE {READER} LOGIN PASSWORD 'only for this test';\n{grants}");
        sqlx::raw_sql(AssertSqlSafe(made)).execute(&mut owner).await?;
        let options: PgConnectOptions = url.parse()?;
        Ok(PgConnection::connect_with(&options.username(READER).password("only for this test")).await?)
    }

    /// Each statement gives a value for one of the batches, and finds its rows by an index.
    async fn statements_have_rows(&self, reader: &mut PgConnection, board: &Board) -> anyhow::Result<()> {
        let batches: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM batches").fetch_all(&mut *reader).await?;
        ensure!(self.batches.iter().all(|batch| batches.contains(batch)), "the reader sees every batch");
        let variables = board.variables.iter().filter_map(|variable| match &variable.source {
            Source::Sql(query) => Some((&variable.name, query)),
            _ => None,
        });
        let panels = board.panels.iter().flat_map(|panel| panel.queries.iter().map(|query| (&panel.name, query)));
        for (name, query) in variables.chain(panels) {
            let mut found = false;
            for batch in &batches {
                let query = filled(query, &Values::from([("batch".into(), batch.to_string())]));
                check_plan(reader, &query).await.with_context(|| format!("{name}: {query}"))?;
                let rows = sqlx::query(AssertSqlSafe(query.clone())).fetch_all(&mut *reader).await;
                let rows = rows.with_context(|| format!("{name}: {query}"))?;
                let has_value = |row: &sqlx::postgres::PgRow| {
                    (0..row.len()).all(|at| row.try_get_raw(at).is_ok_and(|value| !value.is_null()))
                };
                found |= rows.iter().any(has_value);
            }
            ensure!(found, "{name} has no row without a gap for any batch: {query}");
        }
        // Where nothing is chosen, nothing is shown, and nothing fails.
        for (name, query) in board.panels.iter().flat_map(|panel| panel.queries.iter().map(|query| (&panel.name, query))) {
            let query = filled(query, &Values::from([("batch".into(), String::new())]));
            sqlx::query(AssertSqlSafe(query)).fetch_all(&mut *reader).await.with_context(|| name.clone())?;
        }
        let refused = sqlx::query("DELETE FROM batches").execute(reader).await;
        ensure!(refused.is_err(), "the reader can write");
        Ok(())
    }
}

/// That there is an index for every table of a statement. With tables of a few rows Postgres would rather read them whole, and join them by reading whole
/// indexes; so both are made dear.
async fn check_plan(reader: &mut PgConnection, query: &str) -> anyhow::Result<()> {
    sqlx::raw_sql("SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off")
        .execute(&mut *reader)
        .await?;
    let explain = AssertSqlSafe(format!("EXPLAIN (FORMAT JSON) {query}"));
    let plan: sqlx::types::Json<Value> = sqlx::query_scalar(explain).fetch_one(&mut *reader).await?;
    check_node(&plan.0[0]["Plan"], false)
}

fn check_node(node: &Value, is_limited: bool) -> anyhow::Result<()> {
    let kind = node["Node Type"].as_str().context("a node has a type")?;
    // On a column that an index begins with: one further on is looked for in all of the index.
    let condition = node["Index Cond"].as_str().is_some_and(|condition| condition.contains("id = "));
    match kind {
        "Seq Scan" => bail!("{} is read whole", node["Relation Name"]),
        // The newest, off the end of an index.
        "Index Scan" | "Index Only Scan" | "Bitmap Index Scan" if !condition && !is_limited => {
            bail!("{} is read whole", node["Index Name"]);
        }
        _ => {}
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        check_node(child, kind == "Limit")?;
    }
    Ok(())
}
