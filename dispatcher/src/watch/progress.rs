use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::api::types::{Batch, Counts};

/// A batch's progress on stderr: a bar on a terminal, else a line whenever the counts change.
pub struct Progress {
    bar: Option<ProgressBar>,
    last: Option<Counts>,
    /// When the watching began, and how many jobs were finished then: what the remaining time is estimated from.
    start: (Instant, u64),
}

impl Progress {
    /// Shows the batch as it is now.
    pub fn new(batch: &Batch) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}").expect("the template is a constant");
            ProgressBar::new(batch.counts.total()).with_style(style)
        });
        let mut progress = Self { bar, last: None, start: (Instant::now(), batch.counts.finished()) };
        progress.update(batch);
        progress
    }

    /// Shows the batch as it is now.
    pub fn update(&mut self, batch: &Batch) {
        let counts = batch.counts;
        let text = format!("{}{}", describe(&counts), self.remaining(&counts));
        match &self.bar {
            Some(bar) => {
                bar.set_message(text);
                bar.set_position(counts.finished());
            }
            None if self.last != Some(counts) => eprintln!("{}/{}  {text}", counts.finished(), counts.total()),
            None => {}
        }
        self.last = Some(counts);
    }

    /// A word beside the progress.
    pub fn say(&self, message: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{message}")),
            None => eprintln!("{message}"),
        }
    }

    /// The last word.
    pub fn finish(self, batch: &Batch) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
        let took = batch.finished_at.map(|finished| finished.duration_since(batch.created_at).unsigned_abs());
        let took = took.map(|took| format!(" in {}", words(took))).unwrap_or_default();
        eprintln!("{} jobs done{took}: {}", batch.counts.total(), describe(&batch.counts));
    }

    fn remaining(&self, counts: &Counts) -> String {
        let (begin, finished_before) = self.start;
        let finished = counts.finished().saturating_sub(finished_before);
        let open = counts.total() - counts.finished();
        if finished == 0 || open == 0 {
            return String::new();
        }
        format!(", about {} left", words(begin.elapsed().mul_f64(open as f64 / finished as f64)))
    }
}

/// The states that occur, e.g. "3 succeeded, 1 failed, 2 running".
fn describe(counts: &Counts) -> String {
    let states = [
        (counts.succeeded, "succeeded"),
        (counts.failed, "failed"),
        (counts.quarantined, "quarantined"),
        (counts.cancelled, "cancelled"),
        (counts.running, "running"),
        (counts.queued, "queued"),
    ];
    let states = states.iter().filter(|(jobs, _)| *jobs > 0).map(|(jobs, state)| format!("{jobs} {state}"));
    states.collect::<Vec<_>>().join(", ")
}

/// A length of time in its two largest units.
fn words(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..=9 => format!("{:.1} s", time.as_secs_f64()),
        10..=99 => format!("{seconds} s"),
        100..=5_999 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_only_the_states_that_occur() {
        let counts = Counts { succeeded: 3, failed: 1, running: 2, ..Counts::default() };
        assert_eq!(describe(&counts), "3 succeeded, 1 failed, 2 running");
    }

    #[test]
    fn says_how_long_in_words() {
        let cases = [(1.25, "1.2 s"), (42.0, "42 s"), (125.0, "2 min 5 s"), (7_300.0, "2 h 1 min")];
        for (seconds, expected) in cases {
            assert_eq!(words(Duration::from_secs_f64(seconds)), expected);
        }
    }
}
