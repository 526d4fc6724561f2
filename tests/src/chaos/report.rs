//! What a run tells people.

use std::{collections::BTreeMap, fmt};

use super::{
    Options,
    facts::{Attempt, Facts},
    faults::Thrown,
    load::Submission,
    recovery::{Recovery, Times, recoveries},
    schedule::Kind,
    verdict::Finding,
};

/// How many examples of a broken invariant are shown.
const EXAMPLES: usize = 5;

/// What a worker logs when its last word changes nothing.
const REFUSED: &str = "the ledger refused the outcome";

/// What the run itself knows.
pub struct Work<'a> {
    /// From the first submission until the last fault was over and the last client answered.
    pub faults_seconds: f64,
    /// From then until the last job had ended.
    pub settle_seconds: f64,
    /// Back-offs that were ended early meanwhile.
    pub back_offs_ended: u64,
    /// Which object store.
    pub store: &'a str,
    /// How many times workers ended by themselves.
    pub workers_ended: usize,
    /// How many times dispatchers did.
    pub dispatchers_ended: usize,
    /// What each worker wrote.
    pub worker_logs: Vec<String>,
}

/// The outcome of a run; as text it is Markdown.
pub struct Report {
    findings: Vec<Finding>,
    options: Options,
    accepted: usize,
    rows: Vec<(&'static str, String)>,
    recoveries: BTreeMap<Kind, Recovery>,
    endings: BTreeMap<(String, String), usize>,
}

impl Report {
    /// Puts it together.
    pub(super) fn new(
        options: &Options,
        work: &Work<'_>,
        thrown: &[Thrown],
        submissions: &[Submission],
        facts: &Facts,
        findings: Vec<Finding>,
    ) -> Self {
        Self {
            findings,
            options: options.clone(),
            accepted: facts.results.len(),
            rows: rows(work, thrown, submissions, facts),
            recoveries: recoveries(thrown, facts),
            endings: endings(submissions, facts),
        }
    }

    /// Whether every invariant has held.
    pub fn holds(&self) -> bool {
        self.findings.iter().all(|finding| finding.broken.is_empty())
    }

    /// How many faults of each kind were thrown.
    pub fn thrown(&self) -> BTreeMap<Kind, usize> {
        self.recoveries.iter().map(|(kind, recovery)| (*kind, recovery.thrown)).collect()
    }

    /// How many results were accepted.
    pub fn accepted(&self) -> usize {
        self.accepted
    }
}

fn rows(work: &Work<'_>, thrown: &[Thrown], submissions: &[Submission], facts: &Facts) -> Vec<(&'static str, String)> {
    let attempts: Vec<&Attempt> = facts.attempts.values().flatten().collect();
    let requests: u32 = submissions.iter().map(|submission| submission.requests).sum();
    let purged: u32 = thrown.iter().map(|thrown| thrown.tokens_purged).sum();
    let taken_over = facts.stored.values().filter(|stored| stored.as_ref().is_ok_and(|stored| stored.is_reused)).count();
    let cancelled = submissions.iter().filter(|submission| submission.cancelled.is_some()).count();
    let named = facts.artifacts.values().map(Vec::len).sum::<usize>();
    let lines = work.worker_logs.iter().flat_map(|log| log.lines());
    let (given_up, refused): (Vec<&str>, Vec<&str>) =
        lines.filter(|line| line.contains("\"lease_lost\"") || line.contains(REFUSED)).partition(|line| !line.contains(REFUSED));
    let repeated = refused.iter().filter(|line| was_accepted(line, facts)).count();
    let duplicates = refused.len() - repeated;
    let mut wasted: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
    for attempt in &attempts {
        let outcome = attempt.outcome.as_deref().unwrap_or("open");
        if outcome != "succeeded" {
            let (count, seconds) = wasted.entry(outcome).or_default();
            *count += 1;
            *seconds += attempt.finished_at.unwrap_or(attempt.started_at) - attempt.started_at;
        }
    }
    let total: f64 = wasted.values().map(|(_, seconds)| seconds).sum();
    let by_outcome: Vec<String> =
        wasted.iter().map(|(outcome, (count, seconds))| format!("{outcome} {seconds:.1} s in {count}")).collect();
    vec![
        ("object store", work.store.into()),
        ("faults went on for", format!("{:.0} s, the queue was empty {:.0} s later", work.faults_seconds, work.settle_seconds)),
        ("faults", thrown.len().to_string()),
        ("batches, by requests", format!("{}, {}", submissions.len(), requests)),
        ("jobs", facts.jobs.len().to_string()),
        ("attempts", attempts.len().to_string()),
        ("accepted results", facts.results.len().to_string()),
        ("of them taken over from another job", taken_over.to_string()),
        ("duplicates refused", duplicates.to_string()),
        ("outcomes said twice, the answer to the first being lost", repeated.to_string()),
        ("attempts given up without a last word", given_up.len().saturating_sub(refused.len()).to_string()),
        ("GPU-seconds wasted, at most (time of attempts without a result)", format!("{total:.1}: {}", by_outcome.join(", "))),
        ("cancellations acknowledged", cancelled.to_string()),
        ("tokens purged", purged.to_string()),
        ("workers that ended by themselves", work.workers_ended.to_string()),
        ("dispatchers that ended by themselves", work.dispatchers_ended.to_string()),
        ("back-offs ended early after the last fault", work.back_offs_ended.to_string()),
        ("objects in the store, named by results", format!("{}, {named}", facts.objects)),
    ]
}

/// Whether the outcome that was refused here had been accepted before.
fn was_accepted(line: &str, facts: &Facts) -> bool {
    let field = |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let (Some(Ok(job)), Some(Ok(epoch))) = (field("job.id").map(str::parse), field("epoch").map(str::parse::<i64>)) else {
        return false;
    };
    let attempts = facts.attempts.get(&job).map_or(&[][..], Vec::as_slice);
    let attempt = attempts.iter().find(|attempt| attempt.epoch == epoch);
    attempt
        .is_some_and(|attempt| matches!(attempt.outcome.as_deref(), Some("succeeded" | "transient" | "permanent" | "released")))
}

/// Jobs by what they were to come to and what they came to.
fn endings(submissions: &[Submission], facts: &Facts) -> BTreeMap<(String, String), usize> {
    let planned: BTreeMap<_, _> = submissions
        .iter()
        .flat_map(|submission| (1_i64..).zip(&submission.batch.jobs).map(|(line, job)| ((submission.ids[0], line), job.fate)))
        .collect();
    let mut endings = BTreeMap::new();
    for job in &facts.jobs {
        let Some(fate) = planned.get(&(job.batch_id, job.line)) else { continue };
        let class = job.error_class.as_deref().filter(|_| job.state == "failed").map(|class| format!(", {class}"));
        let ending = format!("{}{}", job.state, class.unwrap_or_default());
        *endings.entry((format!("{fate:?}"), ending)).or_default() += 1;
    }
    endings
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { seed, jobs, faults, duration, .. } = &self.options;
        let minutes = duration.as_secs_f64() / 60.0;
        let verdict = if self.holds() { "every invariant held" } else { "AN INVARIANT BROKE" };
        writeln!(formatter, "# Chaos, seed {seed}: {jobs} jobs, {faults} faults in {minutes:.1} minutes: {verdict}\n")?;
        writeln!(formatter, "| | |\n|---|---|")?;
        for (name, value) in &self.rows {
            writeln!(formatter, "| {name} | {value} |")?;
        }
        writeln!(formatter, "\n| invariant | | checked | |\n|---|---|---:|---|")?;
        for Finding { name, text, checked, broken } in &self.findings {
            let verdict = if broken.is_empty() { "ok".into() } else { format!("BROKEN {} times", broken.len()) };
            writeln!(formatter, "| {name} | {text} | {checked} | {verdict} |")?;
        }
        for Finding { name, broken, .. } in self.findings.iter().filter(|finding| !finding.broken.is_empty()) {
            writeln!(formatter, "\n{name} is broken, for example:")?;
            for example in broken.iter().take(EXAMPLES) {
                writeln!(formatter, "- {example}")?;
            }
        }
        writeln!(formatter, "\n| content | came to | jobs |\n|---|---|---:|")?;
        for ((fate, ending), count) in &self.endings {
            writeln!(formatter, "| {fate} | {ending} | {count} |")?;
        }
        writeln!(
            formatter,
            "\nSeconds from a fault's end to the next accepted result while jobs were open, and from the hit to the next claim of"
        )?;
        writeln!(formatter, "a job that a worker lost by it: median / greatest (of so many).\n")?;
        writeln!(formatter, "| fault | thrown | next result | next claim |\n|---|---:|---|---|")?;
        for (kind, Recovery { thrown, next_result, next_claim }) in &self.recoveries {
            writeln!(formatter, "| {kind} | {thrown} | {next_result} | {next_claim} |")?;
        }
        Ok(())
    }
}

impl fmt::Display for Times {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.median_and_greatest() {
            Some((median, greatest)) => write!(formatter, "{median:.2} / {greatest:.2} ({})", self.count()),
            None => Ok(()),
        }
    }
}
