//! How far an evaluation is, on stderr: a bar on a terminal, else a line for every image.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use request::Method;
use telemetry::Printable;

/// Counts steps of fine-tunings, which take nearly all of the time; any other answer counts as one.
pub struct Progress {
    bar: ProgressBar,
    is_terminal: bool,
    started: Instant,
    cases: usize,
    steps: u32,
    /// Steps of the fine-tuning that runs.
    steps_done: u32,
}

impl Progress {
    /// For so many images and these answers still to be found.
    pub fn new(cases: usize, answers: impl Iterator<Item = Method>, steps: u32) -> Self {
        let style = ProgressStyle::with_template("{prefix} {wide_bar} {msg} {eta} left").expect("a constant template is valid");
        let length = answers.map(|method| u64::from(weight(method, steps))).sum();
        let bar = ProgressBar::new(length).with_style(style);
        Self { bar, is_terminal: std::io::stderr().is_terminal(), started: Instant::now(), cases, steps, steps_done: 0 }
    }

    /// An image's turn has come; `number` counts from 1.
    pub fn begin_case(&self, number: usize, id: &str) {
        self.bar.set_prefix(format!("image {number}/{}", self.cases));
        self.bar.set_message(id.to_owned());
    }

    /// A step of a fine-tuning was done.
    pub fn step(&mut self) {
        self.steps_done += 1;
        self.bar.inc(1);
    }

    /// A question was answered, or skipped.
    pub fn answer(&mut self, method: Method) {
        self.bar.inc(weight(method, self.steps).saturating_sub(self.steps_done).into());
        self.steps_done = 0;
    }

    /// An image is done; `outcome` says how it went.
    pub fn end_case(&self, number: usize, id: &str, outcome: &str) {
        let line = format!("image {number}/{}: {}: {}", self.cases, Printable(id), Printable(outcome));
        if self.is_terminal {
            self.bar.suspend(|| eprintln!("{line}"));
            return;
        }
        let (done, all) = (self.bar.position(), self.bar.length().unwrap_or_default());
        let left = self.started.elapsed().as_secs_f64() * all.saturating_sub(done) as f64 / done.max(1) as f64;
        eprintln!("{line}; {done} of {all} steps, {:#} left", HumanDuration(Duration::from_secs_f64(left)));
    }

    /// Takes the bar away.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

fn weight(method: Method, steps: u32) -> u32 {
    if method == Method::Finetuned { steps } else { 1 }
}
