//! Whether what must hold has held: every invariant, checked by the facts alone.

use std::collections::{BTreeMap, HashMap};

use request::{SegmentationRequest, Task};
use uuid::Uuid;

use super::{
    facts::{Facts, Job, pixels},
    load::{Submission, seconds},
    plan::{Cancel, Fate, PlannedJob},
};
use crate::quick;

/// One invariant and how it fared.
#[derive(Debug, Clone)]
pub struct Finding {
    /// Its short name.
    pub name: &'static str,
    /// What must hold.
    pub text: &'static str,
    /// How many things it was checked of.
    pub checked: usize,
    /// Where it does not hold.
    pub broken: Vec<String>,
}

impl Finding {
    fn new(name: &'static str, text: &'static str) -> Self {
        Self { name, text, checked: 0, broken: Vec::new() }
    }

    fn check(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        self.checked += 1;
        if !holds {
            self.broken.push(otherwise());
        }
    }
}

/// What the clients know of their submissions, side by side with what the servers say.
struct Case<'a> {
    facts: &'a Facts,
    submissions: &'a [Submission],
    jobs: BTreeMap<(Uuid, i64), &'a Job>,
}

/// Every invariant. `images` are the good images' bytes by key, `tokens_purged` those that purges have thrown away.
pub fn judge(facts: &Facts, submissions: &[Submission], images: &HashMap<String, Vec<u8>>, tokens_purged: u64) -> Vec<Finding> {
    let jobs = facts.jobs.iter().map(|job| ((job.batch_id, job.line), job)).collect();
    let case = Case { facts, submissions, jobs };
    vec![
        case.every_request_is_there_once(),
        case.every_job_has_ended(tokens_purged),
        case.one_result_a_success(),
        case.the_accepted_epoch_is_the_highest(),
        case.cancelled_stays_cancelled(),
        case.counts_are_the_jobs(),
        case.attempts_are_counted(),
        case.objects_are_as_recorded(),
        case.masks_are_pure(images),
        case.every_job_came_to_what_it_must(),
        case.nothing_is_left_over(),
    ]
}

impl<'a> Case<'a> {
    /// Each job as it was planned, where it is there.
    fn planned(&self) -> impl Iterator<Item = (&'a Submission, &'a PlannedJob, &'a Job)> {
        self.submissions.iter().flat_map(move |submission| {
            let of_line = move |(line, planned)| Some((submission, planned, *self.jobs.get(&(submission.ids[0], line))?));
            (1..).zip(&submission.batch.jobs).filter_map(of_line)
        })
    }

    fn every_request_is_there_once(&self) -> Finding {
        let mut finding = Finding::new("I1", "every accepted submission is one batch with exactly its jobs");
        let known = self.facts.batches.len();
        finding.check(known == self.submissions.len(), || format!("{known} batches of {} submissions", self.submissions.len()));
        for submission in self.submissions {
            let (name, ids) = (&submission.batch.name, &submission.ids);
            finding.check(ids.iter().all(|id| *id == ids[0]), || format!("{name} was told two ids: {ids:?}"));
            let is_it = |batch: &&super::facts::Batch| [&batch.name, &batch.idempotency_key].contains(&&Some(name.clone()));
            let batches: Vec<Uuid> = self.facts.batches.iter().filter(is_it).map(|batch| batch.id).collect();
            finding.check(batches == ids[..1], || format!("{name} is {}, and the ledger has {batches:?}", ids[0]));
            let lines: Vec<i64> = self.jobs.range((ids[0], i64::MIN)..=(ids[0], i64::MAX)).map(|((_, line), _)| *line).collect();
            let submitted = submission.batch.jobs.len() as i64;
            finding.check(lines == (1..=submitted).collect::<Vec<_>>(), || {
                format!("{name} has jobs of the lines {lines:?}, submitted were {submitted}")
            });
        }
        let (known, submitted): (usize, usize) =
            (self.facts.jobs.len(), self.submissions.iter().map(|submission| submission.batch.jobs.len()).sum());
        finding.check(known == submitted, || format!("{known} jobs of {submitted} lines"));
        for (submission, planned, job) in self.planned() {
            finding.check(is_the_request(planned, job), || {
                format!("{} line {} is {}, submitted was {planned:?}", submission.batch.name, job.line, job.request)
            });
        }
        finding
    }

    fn every_job_has_ended(&self, tokens_purged: u64) -> Finding {
        let mut finding = Finding::new("I1, I4", "every job is in a terminal state, whatever became of the queue");
        for job in &self.facts.jobs {
            let has_ended = !matches!(job.state.as_str(), "queued" | "running") && job.finished_at.is_some();
            finding.check(has_ended, || format!("{} ({tokens_purged} tokens were purged in all)", say(job)));
        }
        finding
    }

    fn one_result_a_success(&self) -> Finding {
        let mut finding = Finding::new("I2", "a succeeded job has exactly one result, any other none");
        let mut results: HashMap<Uuid, Vec<i64>> = HashMap::new();
        for result in &self.facts.results {
            results.entry(result.job_id).or_default().push(result.masks);
        }
        for job in &self.facts.jobs {
            let accepted = results.get(&job.id).map_or(&[][..], Vec::as_slice);
            let expected: &[i64] = if job.state == "succeeded" { &[1] } else { &[] };
            finding.check(accepted == expected, || format!("{}: {} results with {accepted:?} masks", say(job), accepted.len()));
            let successes = self.facts.attempts_of(job).iter().filter(|attempt| is(attempt.outcome.as_ref(), "succeeded"));
            let successes = successes.count();
            finding.check(successes == expected.len(), || format!("{}: {successes} attempts succeeded", say(job)));
        }
        finding
    }

    fn the_accepted_epoch_is_the_highest(&self) -> Finding {
        let mut finding = Finding::new("I3", "the accepted result is of the highest epoch that was claimed");
        let jobs: HashMap<Uuid, &Job> = self.facts.jobs.iter().map(|job| (job.id, job)).collect();
        for result in &self.facts.results {
            let Some(job) = jobs.get(&result.job_id) else {
                finding.check(false, || format!("a result of {}, which is no job", result.job_id));
                continue;
            };
            let last = self.facts.attempts_of(job).last();
            let is_highest = result.epoch == job.epoch
                && last.is_some_and(|last| last.epoch == job.epoch && is(last.outcome.as_ref(), "succeeded"));
            finding.check(is_highest, || {
                format!("{}: the result is of epoch {}, the last attempt is {last:?}", say(job), result.epoch)
            });
        }
        finding
    }

    fn cancelled_stays_cancelled(&self) -> Finding {
        let mut finding =
            Finding::new("I5", "what was open when its cancelling was acknowledged ended then, and never otherwise");
        for (submission, _, job) in self.planned() {
            let (true, Some(cancelled)) = (is_taken_back(submission, job), submission.cancelled) else { continue };
            let cancelled = seconds(cancelled);
            let ended_before = job.finished_at.is_some_and(|finished| finished <= cancelled);
            finding.check(ended_before, || format!("{} ended at {:?}, cancelled at {cancelled}", say(job), job.finished_at));
            let began_later = self.facts.attempts_of(job).iter().find(|attempt| attempt.started_at > cancelled);
            finding.check(began_later.is_none(), || format!("{}: cancelled at {cancelled}, and {began_later:?}", say(job)));
        }
        finding
    }

    fn counts_are_the_jobs(&self) -> Finding {
        let mut finding = Finding::new("I6", "the counts that the API gives of a batch equal its jobs");
        for submission in self.submissions {
            let id = submission.ids[0];
            let mut counted: BTreeMap<String, i64> = BTreeMap::new();
            for (_, job) in self.jobs.range((id, 0)..=(id, i64::MAX)) {
                *counted.entry(job.state.clone()).or_default() += 1;
            }
            let said = self.facts.counts.get(&id);
            finding.check(said == Some(&counted), || format!("{id}: the API says {said:?}, its jobs are {counted:?}"));
        }
        finding
    }

    fn attempts_are_counted(&self) -> Finding {
        let mut finding =
            Finding::new("I7", "attempts never exceed the maximum; each claim is one, charged unless it was given back");
        for job in &self.facts.jobs {
            let attempts = self.facts.attempts_of(job);
            let count = |outcome: &str| attempts.iter().filter(|attempt| is(attempt.outcome.as_ref(), outcome)).count() as i64;
            finding.check(job.attempt <= job.max_attempts, || say(job));
            let epochs: Vec<i64> = attempts.iter().map(|attempt| attempt.epoch).collect();
            finding.check(epochs == (1..=job.epoch).collect::<Vec<_>>(), || format!("{}: epochs {epochs:?}", say(job)));
            let charged = job.epoch - count("released");
            finding.check(i64::from(job.attempt) == charged, || format!("{}: {charged} attempts are to be charged", say(job)));
            let open = attempts.iter().find(|attempt| attempt.outcome.is_none() || attempt.finished_at.is_none());
            finding.check(open.is_none(), || format!("{}: {open:?} has no end", say(job)));
            finding.check(i64::from(job.crashes) <= count("lost"), || format!("{}: {} crashes", say(job), job.crashes));
        }
        finding
    }

    fn objects_are_as_recorded(&self) -> Finding {
        let mut finding =
            Finding::new("I8", "every object of every accepted result is in the store with the recorded SHA-256 and size");
        for job in self.facts.jobs.iter().filter(|job| job.state == "succeeded") {
            let artifacts = self.facts.artifacts.get(&job.id).map_or(&[][..], Vec::as_slice);
            let mut kinds: Vec<&str> = artifacts.iter().map(|artifact| artifact.kind.as_str()).collect();
            kinds.sort_unstable();
            finding.check(kinds == ["initial_mask", "mask", "overlay", "receipt"], || format!("{} has {kinds:?}", say(job)));
            let folder = format!("/{}/{}/{}/", job.batch_id, job.id, job.epoch);
            for artifact in artifacts {
                finding.check(artifact.uri.contains(&folder), || format!("{}: {} is not its own", say(job), artifact.uri));
                let stored = self.facts.stored.get(&artifact.uri);
                let is_same =
                    matches!(stored, Some(Ok(stored)) if stored.sha256 == artifact.sha256 && stored.bytes == artifact.bytes);
                finding.check(is_same, || format!("{}: recorded {artifact:?}, in the store {stored:?}", say(job)));
            }
        }
        finding
    }

    fn masks_are_pure(&self, images: &HashMap<String, Vec<u8>>) -> Finding {
        let mut finding = Finding::new("I9", "every mask is the one that its request alone decides");
        let mut expected: HashMap<String, Result<String, String>> = HashMap::new();
        for (_, planned, job) in self.planned().filter(|(_, _, job)| job.state == "succeeded") {
            let line = planned.line();
            let expected = expected.entry(line).or_insert_with_key(|line| expected_pixels(line, images.get(&planned.key)));
            let artifacts = self.facts.artifacts.get(&job.id).map_or(&[][..], Vec::as_slice);
            let mask = artifacts.iter().find(|artifact| artifact.kind == "mask");
            let stored = mask.and_then(|mask| self.facts.stored.get(&mask.uri)?.as_ref().ok()?.pixels.clone());
            finding.check(stored.is_some() && stored == expected.clone().ok(), || {
                format!("{}: the mask is {stored:?}, expected {expected:?}", say(job))
            });
        }
        finding
    }

    fn every_job_came_to_what_it_must(&self) -> Finding {
        let mut finding = Finding::new("fates", "every job came to what its content decides, or to an end that names a fault");
        for (submission, planned, job) in self.planned() {
            let lost = self.facts.attempts_of(job).iter().filter(|attempt| is(attempt.outcome.as_ref(), "lost")).count();
            let holds = match (job.state.as_str(), job.error_class.as_deref()) {
                ("succeeded", None) => planned.fate == Fate::Mask,
                ("cancelled", None) => is_taken_back(submission, job),
                ("quarantined", Some("permanent")) => lost >= 2,
                ("failed", Some("permanent")) => matches!(planned.fate, Fate::NotAnImage | Fate::Missing),
                ("failed", Some("transient")) => job.attempt == job.max_attempts,
                _ => false,
            };
            finding.check(holds, || format!("{:?}: {}, {:?}", planned.fate, say(job), job.error_message));
        }
        finding
    }

    fn nothing_is_left_over(&self) -> Finding {
        let mut finding = Finding::new("rest", "no lease and no token in the outbox is left, and no worker is stuck");
        finding.check(self.facts.leases == 0, || format!("{} leases", self.facts.leases));
        finding.check(self.facts.stuck.is_empty(), || self.facts.stuck.join("; "));
        finding.check(self.facts.tokens_owed == 0, || format!("{} tokens in the outbox", self.facts.tokens_owed));
        finding
    }
}

/// Whether the client has cancelled it.
pub fn is_taken_back(submission: &Submission, job: &Job) -> bool {
    match submission.batch.cancel {
        Some(Cancel::Batch(_)) => true,
        Some(Cancel::Line(line, _)) => job.line == line as i64,
        None => false,
    }
}

fn is_the_request(planned: &PlannedJob, job: &Job) -> bool {
    let read = |line: &str| SegmentationRequest::from_line(line.as_bytes()).ok();
    match (read(&planned.line()), read(&job.request)) {
        (Some(planned), Some(kept)) => {
            (planned.image, planned.task, planned.parameters) == (kept.image, kept.task, kept.parameters)
        }
        _ => false,
    }
}

/// What the pixels of this line's mask must be.
fn expected_pixels(line: &str, image: Option<&Vec<u8>>) -> Result<String, String> {
    let request = SegmentationRequest::from_line(line.as_bytes()).map_err(|error| error.to_string())?;
    let Task::Segment(objects) = &request.task else { return Err("it asks for no mask".into()) };
    let image = image.ok_or("its image is none that has a mask")?;
    let mask = quick::expected_mask(image, &request.view, &objects[0].points, &request.parameters);
    mask.map(|mask| pixels(&mask)).map_err(|error| error.to_string())
}

fn is(outcome: Option<&String>, expected: &str) -> bool {
    outcome.is_some_and(|outcome| outcome == expected)
}

fn say(job: &Job) -> String {
    let Job { id, batch_id, line, state, epoch, attempt, max_attempts, .. } = job;
    format!("job {id} (batch {batch_id}, line {line}) is {state} at epoch {epoch} after {attempt} of {max_attempts} attempts")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::{
        chaos::{
            facts::{Accepted, Artifact, Attempt, Batch, Stored},
            plan::{Manner, PlannedBatch},
        },
        png_of_blobs,
    };

    const IMAGE: &str = "in/0.png";
    const FINISHED: f64 = 1_000.0;

    /// A batch of one job, which succeeded at its second attempt; its cancelling came too late.
    struct World {
        facts: Facts,
        submissions: Vec<Submission>,
        images: HashMap<String, Vec<u8>>,
    }

    impl World {
        fn new() -> Self {
            let planned = PlannedJob { key: IMAGE.into(), points: vec![[4, 5, 1]], steps: 2, fate: Fate::Mask };
            let request = planned.line();
            let batch = PlannedBatch {
                name: "night".into(),
                at: Duration::ZERO,
                priority: 0,
                reuse: false,
                has_key: false,
                manner: Manner::Twice,
                cancel: Some(Cancel::Batch(Duration::ZERO)),
                jobs: vec![planned],
            };
            let (batch_id, id) = (Uuid::from_u128(1), Uuid::from_u128(2));
            let cancelled = SystemTime::UNIX_EPOCH + Duration::from_secs(1_001);
            let submission = Submission { batch, ids: vec![batch_id, batch_id], requests: 2, cancelled: Some(cancelled) };
            let images = HashMap::from([(IMAGE.to_owned(), png_of_blobs(48, 48, 0))]);
            let pixels = expected_pixels(&request, images.get(IMAGE)).expect("it is a good line");
            let job = Job {
                id,
                batch_id,
                line: 1,
                request,
                state: "succeeded".into(),
                epoch: 2,
                attempt: 2,
                max_attempts: 5,
                crashes: 1,
                error_class: None,
                error_message: None,
                created_at: 900.0,
                finished_at: Some(FINISHED),
            };
            let attempt = |epoch, outcome: &str| Attempt {
                job_id: id,
                epoch,
                worker: "w-1-a".into(),
                started_at: 950.0,
                finished_at: Some(FINISHED),
                outcome: Some(outcome.into()),
            };
            let artifact = |kind: &str| Artifact {
                job_id: id,
                kind: kind.into(),
                uri: format!("s3://scans/masks/{batch_id}/{id}/2/{kind}"),
                sha256: kind.into(),
                bytes: 7,
            };
            let artifacts = ["mask", "initial_mask", "overlay", "receipt"].map(artifact);
            let stored = artifacts.iter().map(|artifact| {
                let pixels = (artifact.kind == "mask").then(|| pixels.clone());
                let stored = Stored { sha256: artifact.sha256.clone(), bytes: 7, pixels, is_reused: false };
                (artifact.uri.clone(), Ok(stored))
            });
            let facts = Facts {
                batches: vec![Batch { id: batch_id, name: Some("night".into()), idempotency_key: None }],
                jobs: vec![job],
                attempts: HashMap::from([(id, vec![attempt(1, "lost"), attempt(2, "succeeded")])]),
                results: vec![Accepted { job_id: id, epoch: 2, masks: 1 }],
                counts: HashMap::from([(batch_id, BTreeMap::from([("succeeded".to_owned(), 1)]))]),
                objects: 4,
                stored: stored.collect(),
                artifacts: HashMap::from([(id, artifacts.into())]),
                ..Facts::default()
            };
            Self { facts, submissions: vec![submission], images }
        }

        fn job(&mut self) -> &mut Job {
            &mut self.facts.jobs[0]
        }

        fn attempts(&mut self) -> &mut Vec<Attempt> {
            self.facts.attempts.values_mut().next().expect("there is a job")
        }

        fn stored(&mut self, kind: &str) -> &mut Stored {
            let stored = self.facts.stored.iter_mut().find(|(uri, _)| uri.ends_with(&format!("/{kind}")));
            stored.expect("there is such an object").1.as_mut().expect("it is there")
        }

        fn broken(&self) -> Vec<&'static str> {
            let findings = judge(&self.facts, &self.submissions, &self.images, 0);
            findings.iter().filter(|finding| !finding.broken.is_empty()).map(|finding| finding.name).collect()
        }
    }

    #[test]
    fn a_world_in_which_all_went_well_is_not_blamed() {
        assert_eq!(World::new().broken(), [""; 0]);
    }

    #[test]
    fn each_broken_invariant_is_found() {
        type Harm = fn(&mut World);
        let cases: [(&str, Harm); 20] = [
            ("I1", |world| world.submissions[0].ids[1] = Uuid::from_u128(9)),
            ("I1", |world| world.facts.batches.push(world.facts.batches[0].clone())),
            ("I1", |world| world.job().line = 2),
            ("I1", |world| world.job().request = world.job().request.replace("[4", "[6")),
            ("I1, I4", |world| world.job().state = "running".into()),
            ("I2", |world| world.facts.results.clear()),
            ("I2", |world| world.facts.results.push(world.facts.results[0].clone())),
            ("I2", |world| world.attempts()[0].outcome = Some("succeeded".into())),
            ("I3", |world| world.facts.results[0].epoch = 1),
            ("I5", |world| world.job().finished_at = Some(FINISHED + 2.0)),
            ("I5", |world| world.attempts()[1].started_at = FINISHED + 2.0),
            ("I6", |world| world.facts.counts.values_mut().for_each(BTreeMap::clear)),
            ("I7", |world| world.job().attempt = 1),
            ("I7", |world| drop(world.attempts().remove(0))),
            ("I7", |world| world.attempts()[0].outcome = None),
            ("I8", |world| world.stored("overlay").sha256 = "other".into()),
            ("I8", |world| world.facts.stored.clear()),
            ("I9", |world| world.stored("mask").pixels = Some("others".into())),
            ("rest", |world| world.facts.leases = 1),
            ("rest", |world| world.facts.stuck.push("could not stop".into())),
        ];
        for (number, (name, harm)) in cases.into_iter().enumerate() {
            let mut world = World::new();
            harm(&mut world);
            assert!(world.broken().contains(&name), "case {number}: {name} is not among {:?}", world.broken());
        }
    }

    #[test]
    fn an_end_that_no_fault_explains_is_found() {
        for (state, class, is_right) in [
            ("cancelled", None, true),
            ("failed", Some("permanent"), false),
            ("failed", Some("transient"), false),
            ("quarantined", Some("permanent"), false),
        ] {
            let mut world = World::new();
            (world.job().state, world.job().error_class) = (state.into(), class.map(str::to_owned));
            assert_eq!(world.broken().contains(&"fates"), !is_right, "{state}, {class:?}");
        }
        let mut world = World::new();
        world.submissions[0].batch.jobs[0].fate = Fate::Panics;
        assert!(world.broken().contains(&"fates"), "a mask of an image that has none");
    }
}
