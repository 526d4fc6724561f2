//! What the ledger should do, in a few lines of plain state.

use std::collections::{BTreeMap, BTreeSet};

use ledger::{ClaimedJob, ErrorClass, Finalised, JobFailure, JobState, MAX_ATTEMPTS, NewBatch};
use proptest::sample::Index;
use uuid::Uuid;

use super::Step;
use crate::fixture::{Fixture, LONG, gpu, request, result};

type Outcome<T = ()> = Result<T, String>;
type Met = BTreeMap<&'static str, u32>;

/// A job as it should be.
#[derive(Debug, Clone)]
pub struct ModelJob {
    pub batch: Uuid,
    pub state: JobState,
    pub epoch: i64,
    pub attempt: i32,
    pub crashes: i32,
    pub priority: i16,
    pub backs_off: bool,
    /// The claim whose result was accepted.
    pub accepted: Option<i64>,
}

impl ModelJob {
    fn is_due(&self) -> bool {
        self.state == JobState::Queued && !self.backs_off
    }
}

/// A claim that some worker remembers, for ever: it may come back with it long after it was lost.
struct Held {
    job: ClaimedJob,
    expired: bool,
    /// The last word that was taken, which may be said again.
    said: Option<&'static str>,
}

/// The ledger, and the broker as a number of tokens.
#[derive(Default)]
pub struct Model {
    pub jobs: BTreeMap<Uuid, ModelJob>,
    pub batches: BTreeMap<Uuid, u64>,
    pub tokens: u64,
    keys: BTreeMap<(u8, u64, i16), Uuid>,
    used_keys: BTreeMap<u8, Uuid>,
    held: Vec<Held>,
}

impl Model {
    /// Does it in both, and compares what the ledger answered.
    pub async fn apply(&mut self, fixture: &Fixture, step: &Step, met: &mut Met) -> Outcome {
        let ledger = &fixture.ledger;
        match *step {
            Step::Submit { jobs, priority, key } => self.submit(fixture, jobs, priority, key, met).await?,
            Step::Claim { worker } => drop(self.claim(fixture, &format!("worker-{worker}")).await?),
            Step::Heartbeat { lease } => {
                let Some(index) = pick(lease, self.held.len()) else { return Ok(()) };
                let is_ours = self.is_ours(index);
                let held = &mut self.held[index];
                same("heartbeat", ledger.heartbeat(&held.job.lease, LONG).await.unwrap(), is_ours)?;
                // One that comes before the reaper saves the lease.
                held.expired &= !is_ours;
            }
            Step::Expire { lease } => {
                let Some(index) = pick(lease, self.held.len()) else { return Ok(()) };
                self.held[index].expired = true;
                let lease = &self.held[index].job.lease;
                sqlx::query(
                    "UPDATE leases SET ttl = '0', expires_at = now() - interval '1 second' WHERE job_id = $1 AND epoch = $2",
                )
                .bind(lease.job_id)
                .bind(lease.epoch)
                .execute(&fixture.sql)
                .await
                .unwrap();
            }
            Step::Reap => self.reap(fixture, met).await?,
            Step::Finalise { lease } => {
                self.say(fixture, lease, "succeeded", met, |job| {
                    job.state = JobState::Succeeded;
                    job.accepted = Some(job.epoch);
                })
                .await?;
            }
            Step::FailTransiently { lease } => {
                self.say(fixture, lease, "transient", met, |job| {
                    let again = job.attempt < MAX_ATTEMPTS;
                    job.state = if again { JobState::Queued } else { JobState::Failed };
                    job.backs_off = again;
                })
                .await?;
                // A slow machine must not see a back-off end by itself.
                fixture.execute("UPDATE jobs SET run_at = run_at + interval '1 hour' WHERE run_at > now()").await;
            }
            Step::FailForGood { lease } => {
                self.say(fixture, lease, "permanent", met, |job| job.state = JobState::Failed).await?;
            }
            Step::Release { lease } => {
                self.say(fixture, lease, "released", met, |job| {
                    job.state = JobState::Queued;
                    job.attempt -= 1;
                })
                .await?;
            }
            Step::CancelBatch { batch } => {
                let Some(batch) = nth(batch, self.batches.keys()) else { return Ok(()) };
                let cancelled = self.cancel(|_, job| job.batch == batch, met);
                same("cancelled", ledger.cancel_batch(batch).await.unwrap(), cancelled)?;
            }
            Step::CancelJob { job } => {
                let Some(id) = nth(job, self.jobs.keys()) else { return Ok(()) };
                let cancelled = self.cancel(|other, _| *other == id, met);
                same("cancelled", ledger.cancel_job(id).await.unwrap(), cancelled == 1)?;
            }
            Step::RetryBatch { batch, also_quarantined } => {
                let Some(batch) = nth(batch, self.batches.keys()) else { return Ok(()) };
                let retried = self.retry(|_, job| job.batch == batch, also_quarantined, met);
                same("retried", ledger.retry_batch(batch, also_quarantined).await.unwrap(), retried)?;
            }
            Step::RetryJob { job } => {
                let Some(id) = nth(job, self.jobs.keys()) else { return Ok(()) };
                let retried = self.retry(|other, _| *other == id, true, met);
                same("retried", ledger.retry_job(id).await.unwrap(), retried == 1)?;
            }
            Step::EndBackOffs => self.end_back_offs(fixture).await,
            Step::Relay => self.relay(fixture).await,
            Step::Purge => self.tokens = 0,
            Step::Reconcile => self.reconcile(fixture).await?,
            Step::Age => self.age(fixture).await?,
        }
        Ok(())
    }

    /// Whatever is open comes to its end: workers are lost, others come and do what is due. No job is left behind, though every
    /// token was lost.
    pub async fn finish(&mut self, fixture: &Fixture, met: &mut Met) -> Outcome {
        self.tokens = 0;
        self.held.iter_mut().for_each(|held| held.expired = true);
        fixture.expire_leases().await;
        self.reap(fixture, met).await?;
        self.end_back_offs(fixture).await;
        self.reconcile(fixture).await?;
        while self.tokens > 0 {
            self.tokens -= 1;
            let Some(index) = self.claim(fixture, "last").await? else { continue };
            let job = &self.held[index].job;
            let finalised = fixture.ledger.finalise(&job.lease, &result(job)).await.unwrap();
            same("finalised", finalised, Finalised::Accepted)?;
            let model = self.jobs.get_mut(&job.lease.job_id).expect("claimed");
            (model.state, model.accepted) = (JobState::Succeeded, Some(model.epoch));
        }
        match self.jobs.iter().find(|(_, job)| !job.state.is_terminal()) {
            Some((id, job)) => Err(format!("job {id} never ends: {job:?}")),
            None => Ok(()),
        }
    }

    async fn submit(&mut self, fixture: &Fixture, jobs: u64, priority: i16, key: Option<u8>, met: &mut Met) -> Outcome {
        let idempotency_key = key.map(|key| format!("key-{key}"));
        let batch = NewBatch { priority, idempotency_key, ..gpu() };
        let mut writer = fixture.ledger.begin_batch(batch).await.unwrap();
        for line in 1..=jobs {
            writer.push(line, &request(line)).await.unwrap();
        }
        let submitted = writer.commit().await;
        if let Some(key) = key
            && let Some(&first) = self.used_keys.get(&key)
        {
            *met.entry("submitted twice").or_default() += 1;
            return match (submitted, self.keys.get(&(key, jobs, priority))) {
                (Ok(again), Some(&batch)) if (again.id, again.is_new, again.jobs) == (batch, false, jobs) => Ok(()),
                (Err(ledger::LedgerError::KeyOfAnotherBatch { batch }), None) if batch == first => Ok(()),
                (other, _) => Err(format!("a second submission of key {key} gave {other:?}")),
            };
        }
        let submitted = submitted.map_err(|error| error.to_string())?;
        same("a new batch", submitted.is_new, true)?;
        if let Some(key) = key {
            self.keys.insert((key, jobs, priority), submitted.id);
            self.used_keys.insert(key, submitted.id);
        }
        self.batches.insert(submitted.id, jobs);
        for job in fixture.ledger.jobs(submitted.id, 0, 100).await.unwrap() {
            let (state, batch) = (JobState::Queued, submitted.id);
            let new = ModelJob { batch, state, epoch: 0, attempt: 0, crashes: 0, priority, backs_off: false, accepted: None };
            self.jobs.insert(job.id, new);
        }
        Ok(())
    }

    /// Which of the due jobs of the highest priority comes is the business of other tests.
    async fn claim(&mut self, fixture: &Fixture, worker: &str) -> Outcome<Option<usize>> {
        let highest = self.jobs.values().filter(|job| job.is_due()).map(|job| job.priority).max();
        let claimed = fixture.ledger.claim("gpu", worker, LONG).await.unwrap();
        let Some(claimed) = claimed else {
            same("the highest priority that is due", None, highest)?;
            return Ok(None);
        };
        let job = self.jobs.get_mut(&claimed.lease.job_id).ok_or("an unknown job was claimed")?;
        same("due", job.is_due(), true)?;
        same("priority", Some(job.priority), highest)?;
        job.state = JobState::Running;
        job.epoch += 1;
        job.attempt += 1;
        same("epoch and attempt", (claimed.lease.epoch, claimed.attempt), (job.epoch, job.attempt))?;
        self.held.push(Held { job: claimed, expired: false, said: None });
        Ok(Some(self.held.len() - 1))
    }

    /// The last word of whoever holds that lease, in time or not.
    async fn say(
        &mut self,
        fixture: &Fixture,
        lease: Index,
        word: &'static str,
        met: &mut Met,
        change: impl FnOnce(&mut ModelJob),
    ) -> Outcome {
        let Some(index) = pick(lease, self.held.len()) else { return Ok(()) };
        let is_ours = self.is_ours(index);
        let held = &mut self.held[index];
        let (ledger, lease) = (&fixture.ledger, &held.job.lease);
        let failure = |class| JobFailure { class, message: "by chance".into() };
        let answer = match word {
            "succeeded" => ledger.finalise(lease, &result(&held.job)).await,
            "transient" => ledger.fail(lease, &failure(ErrorClass::Transient)).await,
            "permanent" => ledger.fail(lease, &failure(ErrorClass::Permanent)).await,
            _ => ledger.release(lease).await,
        };
        let is_taken = is_ours || held.said == Some(word);
        same(word, answer.unwrap(), if is_taken { Finalised::Accepted } else { Finalised::LeaseLost })?;
        *met.entry(if is_taken { "accepted" } else { "refused" }).or_default() += 1;
        if is_ours {
            held.said = Some(word);
            change(self.jobs.get_mut(&held.job.lease.job_id).expect("claimed"));
        }
        Ok(())
    }

    /// Whom a crash is charged to among a worker's jobs is the business of other tests: both are good here.
    async fn reap(&mut self, fixture: &Fixture, met: &mut Met) -> Outcome {
        let lost: BTreeSet<_> = (0..self.held.len()).filter(|&index| self.held[index].expired && self.is_ours(index)).collect();
        let expected: BTreeSet<_> = lost.iter().map(|&index| self.held[index].job.lease.job_id).collect();
        let reaped = fixture.ledger.reap().await.unwrap();
        same("reaped", reaped.iter().map(|job| job.job_id).collect(), expected)?;
        for reaped in reaped {
            *met.entry("lost").or_default() += 1;
            let job = self.jobs.get_mut(&reaped.job_id).expect("claimed");
            let crashes: i32 = sqlx::query_scalar("SELECT crashes FROM jobs WHERE id = $1")
                .bind(reaped.job_id)
                .fetch_one(&fixture.sql)
                .await
                .unwrap();
            if crashes != job.crashes && crashes != job.crashes + 1 {
                return Err(format!("crashes went from {} to {crashes}", job.crashes));
            }
            job.crashes = crashes;
            job.state = match () {
                () if crashes == 2 => JobState::Quarantined,
                () if job.attempt == MAX_ATTEMPTS => JobState::Failed,
                () => JobState::Queued,
            };
            if job.state == JobState::Quarantined {
                *met.entry("quarantined").or_default() += 1;
            }
            same("reaped to", reaped.state, job.state)?;
        }
        Ok(())
    }

    fn cancel(&mut self, which: impl Fn(&Uuid, &ModelJob) -> bool, met: &mut Met) -> u64 {
        let mut cancelled = 0;
        for (_, job) in self.jobs.iter_mut().filter(|(id, job)| which(id, job) && !job.state.is_terminal()) {
            job.state = JobState::Cancelled;
            cancelled += 1;
            *met.entry("cancelled").or_default() += 1;
        }
        cancelled
    }

    fn retry(&mut self, which: impl Fn(&Uuid, &ModelJob) -> bool, also_quarantined: bool, met: &mut Met) -> u64 {
        let may = |job: &ModelJob| job.state == JobState::Failed || also_quarantined && job.state == JobState::Quarantined;
        let mut retried = 0;
        for (_, job) in self.jobs.iter_mut().filter(|(id, job)| which(id, job) && may(job)) {
            (job.state, job.attempt, job.crashes, job.backs_off) = (JobState::Queued, 0, 0, false);
            retried += 1;
            *met.entry("retried").or_default() += 1;
        }
        retried
    }

    async fn end_back_offs(&mut self, fixture: &Fixture) {
        fixture.end_back_offs().await;
        self.jobs.values_mut().for_each(|job| job.backs_off = false);
    }

    async fn relay(&mut self, fixture: &Fixture) {
        while let Some(outbox) = fixture.ledger.take_outbox(2).await.unwrap() {
            self.tokens += outbox.tokens().iter().map(|(_, tokens)| u64::from(*tokens)).sum::<u64>();
            outbox.delete().await.unwrap();
        }
    }

    async fn reconcile(&mut self, fixture: &Fixture) -> Outcome {
        let due = fixture.ledger.due_by_pool(10_000).await.unwrap();
        let due: u64 = due.iter().map(|(_, jobs)| jobs).sum();
        same("due", due, self.jobs.values().filter(|job| job.is_due()).count() as u64)?;
        self.tokens = self.tokens.max(due);
        Ok(())
    }

    /// With no patience at all: whatever was the head of its priority at the last look and still is, is raised.
    async fn age(&mut self, fixture: &Fixture) -> Outcome {
        let highest = self.jobs.values().filter(|job| job.is_due()).map(|job| job.priority).max();
        for aged in fixture.ledger.age(std::time::Duration::ZERO).await.unwrap() {
            same("raised to", Some(aged.to_priority), highest)?;
        }
        let priorities: Vec<(Uuid, i16)> = sqlx::query_as("SELECT id, priority FROM jobs").fetch_all(&fixture.sql).await.unwrap();
        for (id, priority) in priorities {
            let job = self.jobs.get_mut(&id).ok_or("an unknown job")?;
            if priority != job.priority && !(job.is_due() && priority > job.priority && Some(priority) == highest) {
                return Err(format!("job {id} went from priority {} to {priority}: {job:?}", job.priority));
            }
            job.priority = priority;
        }
        Ok(())
    }

    /// Whether the claim is still the one that counts.
    fn is_ours(&self, index: usize) -> bool {
        let lease = &self.held[index].job.lease;
        let job = &self.jobs[&lease.job_id];
        job.state == JobState::Running && job.epoch == lease.epoch
    }
}

/// Half of the time the last one: what goes wrong twice over the same job is met only then.
fn pick(index: Index, length: usize) -> Option<usize> {
    (length > 0).then(|| index.index(2 * length).min(length - 1))
}

fn nth<'a>(index: Index, mut ids: impl ExactSizeIterator<Item = &'a Uuid>) -> Option<Uuid> {
    let index = pick(index, ids.len())?;
    ids.nth(index).copied()
}

/// The ledger's answer is the model's.
#[expect(clippy::needless_pass_by_value, reason = "most are made for the comparison")]
fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Outcome {
    if found == expected { Ok(()) } else { Err(format!("{what} is {found:?}, expected {expected:?}")) }
}
