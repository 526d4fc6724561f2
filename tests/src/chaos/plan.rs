//! What is submitted when: a pure function of the seed.

use std::time::Duration;

use serde_json::json;

use super::dice::Dice;
use crate::BUCKET;

const STREAM: u64 = 2;

/// Good images to choose from.
pub const IMAGES: usize = 6;
/// The side of each, in pixels.
pub const SIDE: u32 = 48;
/// Requests that are made again and again.
const FAMILIAR: usize = 12;
/// Where images are in the bucket.
const FOLDER: &str = "in";

/// What must become of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// A mask.
    Mask,
    /// Its image makes the model panic, each time.
    Panics,
    /// Its image needs more memory than there is.
    OutOfMemory,
    /// Its image takes the whole worker down.
    Aborts,
    /// Its object is no image.
    NotAnImage,
    /// There is no such object.
    Missing,
}

impl Fate {
    /// All that is no mask, with the object's name.
    pub const BAD: [(Self, &str); 5] = [
        (Self::Panics, "panics.png"),
        (Self::OutOfMemory, "out-of-memory.png"),
        (Self::Aborts, "aborts.png"),
        (Self::NotAnImage, "text.png"),
        (Self::Missing, "missing.png"),
    ];
}

/// One line of a manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedJob {
    /// The key of its image.
    pub key: String,
    /// Its points: x, y, label.
    pub points: Vec<[u32; 3]>,
    /// Fine-tuning steps, of about a millisecond each.
    pub steps: u32,
    /// What must become of it.
    pub fate: Fate,
}

/// What is taken back of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    /// All of it, so long after it was accepted.
    Batch(Duration),
    /// One line, so long after.
    Line(u64, Duration),
}

/// How a client behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Submits until it is told that the batch is there.
    Patient,
    /// Hangs up after this time without having heard the answer, and then submits again.
    HangsUp(Duration),
    /// Submits to both dispatchers at the same time.
    Twice,
}

/// One submission.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedBatch {
    /// The client's name for it, unlike all others.
    pub name: String,
    /// When it is submitted, counted from the first one.
    pub at: Duration,
    /// Higher ones go first.
    pub priority: i16,
    /// Whether results of the same content may be taken over.
    pub reuse: bool,
    /// Whether it is known by a key of the client's, and not by its name and content.
    pub has_key: bool,
    /// How it comes.
    pub manner: Manner,
    /// What is taken back.
    pub cancel: Option<Cancel>,
    /// Its jobs by line.
    pub jobs: Vec<PlannedJob>,
}

impl PlannedJob {
    /// Where its image is.
    pub fn image(&self) -> String {
        format!("s3://{BUCKET}/{}", self.key)
    }

    /// Its line of the manifest.
    pub fn line(&self) -> String {
        json!({"image": self.image(), "points": self.points, "parameters": {"steps": self.steps}}).to_string()
    }
}

impl PlannedBatch {
    /// The manifest.
    pub fn manifest(&self) -> String {
        self.jobs.iter().map(|job| job.line() + "\n").collect()
    }
}

/// The key of a good image.
pub fn image_key(image: usize) -> String {
    format!("{FOLDER}/{image}.png")
}

/// The key of an object that comes to no mask.
pub fn bad_key(name: &str) -> String {
    format!("{FOLDER}/{name}")
}

/// So many jobs in batches, spread over `duration`: small and large ones, of several priorities, some taken back, some submitted by
/// impatient clients; among good jobs a few that must fail.
pub fn plan(seed: u64, jobs: usize, duration: Duration) -> Vec<PlannedBatch> {
    let mut dice = Dice::new(seed, STREAM);
    let mut batches = Vec::new();
    let mut planned = 0;
    while planned < jobs {
        let size = if dice.percent(10) { dice.between(80, 150) } else { dice.between(5, 40) }.min(jobs - planned);
        let at = duration.mul_f64(planned as f64 / jobs as f64);
        let jobs = (planned..planned + size).map(|number| job(number, &mut dice)).collect();
        batches.push(batch(seed, batches.len(), at, jobs, &mut dice));
        planned += size;
    }
    batches
}

fn batch(seed: u64, number: usize, at: Duration, jobs: Vec<PlannedJob>, dice: &mut Dice) -> PlannedBatch {
    let manner = match dice.below(10) {
        0 => Manner::Twice,
        1 | 2 => Manner::HangsUp(dice.time(Duration::from_millis(1), Duration::from_millis(30))),
        _ => Manner::Patient,
    };
    let soon = dice.time(Duration::ZERO, Duration::from_millis(1_500));
    let cancel = match dice.below(12) {
        0 => Some(Cancel::Batch(soon)),
        1 => Some(Cancel::Line(dice.between(1, jobs.len()) as u64, soon)),
        _ => None,
    };
    PlannedBatch {
        name: format!("chaos-{seed}-{number}"),
        at,
        priority: dice.pick(&[0, 0, 0, 0, -5, 5]),
        reuse: dice.percent(20),
        has_key: dice.percent(30),
        manner,
        cancel,
        jobs,
    }
}

fn job(number: usize, dice: &mut Dice) -> PlannedJob {
    // Each kind early in a short run, and a few of them in a long one.
    let bad = match number % 1_000 {
        place if place % 50 == 30 => Fate::BAD.get(place / 50).copied(),
        _ => None,
    };
    let (fate, key) = match bad {
        Some((fate, name)) => (fate, bad_key(name)),
        // What others have asked for as well: its result may be there already.
        None if dice.percent(40) => return familiar(dice.below(FAMILIAR) as u32),
        None => (Fate::Mask, image_key(dice.below(IMAGES))),
    };
    let coordinate = |dice: &mut Dice| dice.below(SIDE as usize) as u32;
    let mut points = vec![[coordinate(dice), coordinate(dice), 1]];
    for _ in 0..dice.below(3) {
        points.push([coordinate(dice), coordinate(dice), dice.below(2) as u32]);
    }
    // Slow ones are still at work when the lease of another worker on the same job has ended.
    let steps = if dice.percent(10) { dice.between(1_000, 2_500) } else { dice.between(1, 30) };
    PlannedJob { key, points, steps: steps as u32, fate }
}

fn familiar(number: u32) -> PlannedJob {
    let key = image_key(number as usize % IMAGES);
    PlannedJob { key, points: vec![[number, number, 1]], steps: 5 + number, fate: Fate::Mask }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use request::SegmentationRequest;

    use super::*;

    const DURATION: Duration = Duration::from_mins(1);

    #[test]
    fn the_same_seed_submits_the_same_jobs() {
        assert_eq!(plan(3, 1_000, DURATION), plan(3, 1_000, DURATION));
        assert_ne!(plan(3, 1_000, DURATION), plan(4, 1_000, DURATION));
    }

    #[test]
    fn a_short_run_has_jobs_of_every_fate_and_batches_of_every_manner() {
        let batches = plan(1, 300, DURATION);
        assert_eq!(batches.iter().map(|batch| batch.jobs.len()).sum::<usize>(), 300);
        let fates: HashSet<Fate> = batches.iter().flat_map(|batch| &batch.jobs).map(|job| job.fate).collect();
        assert_eq!(fates.len(), 1 + Fate::BAD.len());
        let batches = plan(1, 5_000, DURATION);
        for manner in [|m: Manner| m == Manner::Patient, |m| m == Manner::Twice, |m| matches!(m, Manner::HangsUp(_))] {
            assert!(batches.iter().any(|batch| manner(batch.manner)));
        }
        assert!(batches.iter().any(|batch| matches!(batch.cancel, Some(Cancel::Batch(_)))));
        assert!(batches.iter().any(|batch| matches!(batch.cancel, Some(Cancel::Line(..)))));
    }

    #[test]
    fn every_line_is_a_request_and_no_name_comes_twice() {
        let batches = plan(1, 2_000, DURATION);
        for line in batches.iter().flat_map(|batch| batch.manifest().lines().map(str::to_owned).collect::<Vec<_>>()) {
            SegmentationRequest::from_line(line.as_bytes()).expect(&line);
        }
        let names: HashSet<&String> = batches.iter().map(|batch| &batch.name).collect();
        assert_eq!(names.len(), batches.len());
    }
}
