//! Where the model's time goes: it computes, or waits for something. Both together are the time since it stood on its device.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use prometheus::{
    Counter, CounterVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// What an idle model waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitsFor {
    /// Work: no job is on its way, and there is room for one.
    Job,
    /// A job on its way: it is claimed, fetched or decoded.
    Image,
    /// Room: as many jobs as the worker may hold are encoded, stored and recorded.
    Place,
}

impl WaitsFor {
    const ALL: [Self; 3] = [Self::Job, Self::Image, Self::Place];

    fn label(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Image => "image",
            Self::Place => "place",
        }
    }
}

/// Counts the model's time up to the moment in which it is asked for; clones share it.
#[derive(Debug, Clone)]
pub struct ModelTime {
    now: Arc<Mutex<Now>>,
    busy: Counter,
    idle: CounterVec,
}

/// What goes on, and since when that is not counted yet; `None` before there is a model.
#[derive(Debug)]
struct Now {
    since: Option<Instant>,
    computes: bool,
    coming: usize,
    held: usize,
    places: usize,
}

impl Now {
    /// What the model waits for; `None` while it computes.
    fn waits_for(&self) -> Option<WaitsFor> {
        match self {
            Self { computes: true, .. } => None,
            Self { coming: 1.., .. } => Some(WaitsFor::Image),
            Self { held, places, .. } if held >= places => Some(WaitsFor::Place),
            _ => Some(WaitsFor::Job),
        }
    }
}

/// Something that goes on until this is dropped.
#[must_use = "it is over when this is dropped"]
pub struct GoesOn {
    time: ModelTime,
    end: fn(&mut Now),
}

impl ModelTime {
    /// Of a worker that holds at most `places` jobs. Nothing is counted before [`ModelTime::begin`].
    pub fn new(places: usize) -> prometheus::Result<Self> {
        let busy = Opts::new("dotmask_worker_model_busy_seconds_total", "Time the model spent on images");
        let idle = Opts::new(
            "dotmask_worker_model_idle_seconds_total",
            "Time the model waited: for a job, where there was none; for the image of one that was being claimed, fetched and decoded; for \
             a place, where as many as are held at once were being stored",
        );
        let idle = CounterVec::new(idle, &["waits_for"])?;
        for waits_for in WaitsFor::ALL {
            idle.with_label_values(&[waits_for.label()]);
        }
        let now = Now { since: None, computes: false, coming: 0, held: 0, places };
        Ok(Self { now: Arc::new(Mutex::new(now)), busy: Counter::with_opts(busy)?, idle })
    }

    /// There is a model.
    pub fn begin(&self) {
        self.counted().since = Some(Instant::now());
    }

    /// It computes.
    pub fn computes(&self) -> GoesOn {
        self.counted().computes = true;
        self.until(|now| now.computes = false)
    }

    /// A job is on its way to it.
    pub fn coming(&self) -> GoesOn {
        self.counted().coming += 1;
        self.until(|now| now.coming -= 1)
    }

    /// A job has one of the places, from its claim until it is recorded.
    pub fn held(&self) -> GoesOn {
        self.counted().held += 1;
        self.until(|now| now.held -= 1)
    }

    fn until(&self, end: fn(&mut Now)) -> GoesOn {
        GoesOn { time: self.clone(), end }
    }

    /// What goes on, all time before now being counted.
    fn counted(&self) -> MutexGuard<'_, Now> {
        // Nothing panics between lock and unlock.
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = now.since {
            let moment = Instant::now();
            let seconds = (moment - since).as_secs_f64();
            match now.waits_for() {
                None => self.busy.inc_by(seconds),
                Some(waits_for) => self.idle.with_label_values(&[waits_for.label()]).inc_by(seconds),
            }
            now.since = Some(moment);
        }
        now
    }
}

impl Drop for GoesOn {
    fn drop(&mut self) {
        (self.end)(&mut self.time.counted());
    }
}

impl Collector for ModelTime {
    fn desc(&self) -> Vec<&Desc> {
        [self.busy.desc(), self.idle.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        drop(self.counted());
        [self.busy.collect(), self.idle.collect()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits_for(time: &ModelTime) -> Option<WaitsFor> {
        time.counted().waits_for()
    }

    #[test]
    fn tells_no_work_from_a_slow_image_and_from_full_hands() {
        let time = ModelTime::new(2).expect("sound metrics");
        assert_eq!(waits_for(&time), Some(WaitsFor::Job));
        let (first, coming) = (time.held(), time.coming());
        assert_eq!(waits_for(&time), Some(WaitsFor::Image));
        let computes = time.computes();
        drop(coming);
        assert_eq!(waits_for(&time), None);
        drop(computes);
        assert_eq!(waits_for(&time), Some(WaitsFor::Job), "one is stored, another could be taken");
        let second = time.held();
        assert_eq!(waits_for(&time), Some(WaitsFor::Place));
        drop((first, second));
        assert_eq!(waits_for(&time), Some(WaitsFor::Job));
    }

    #[test]
    fn counts_all_time_once_and_none_before_there_is_a_model() {
        let time = ModelTime::new(1).expect("sound metrics");
        let sum = || {
            time.collect().iter().flat_map(MetricFamily::get_metric).map(|metric| metric.get_counter().get_value()).sum::<f64>()
        };
        drop(time.held());
        assert!(sum().abs() < f64::EPSILON);
        let started = Instant::now();
        time.begin();
        let at_least = Instant::now();
        for _ in 0..1_000 {
            let (_held, _coming) = (time.held(), time.coming());
            drop(time.computes());
        }
        let least = at_least.elapsed().as_secs_f64();
        let counted = sum();
        assert!((least..=started.elapsed().as_secs_f64()).contains(&counted), "{counted} s");
        assert!(time.busy.get() > 0.0 && time.busy.get() < counted);
    }
}
