//! How the fine-tunings went, step by step: to choose a learning rate, a number of steps and a way to stop.

use std::{collections::BTreeMap, fmt::Write};

use request::Setting;
use serde::{Deserialize, Serialize};

/// The steps whose scores the summary shows.
const SHOWN_STEPS: [usize; 7] = [1, 10, 20, 30, 50, 75, 100];

/// One fine-tuning. The lists have an entry a step; they end early where the prediction became the initial mask exactly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Which draw of points, from 0.
    pub repeat: u32,
    /// How many points.
    pub setting: Setting,
    /// BCE plus Dice.
    pub losses: Vec<f64>,
    /// IoU of the prediction with the initial mask.
    pub ious: Vec<f64>,
    /// IoU of the prediction, at the image's size, with the truth.
    pub truth_ious: Vec<f64>,
}

impl Trace {
    /// Nothing yet.
    pub fn new(repeat: u32, setting: Setting) -> Self {
        Self { repeat, setting, losses: vec![], ious: vec![], truth_ious: vec![] }
    }

    /// Another step.
    pub fn add(&mut self, loss: f64, iou: f64, truth_iou: f64) {
        self.losses.push(loss);
        self.ious.push(iou);
        self.truth_ious.push(truth_iou);
    }

    /// The truth's IoU at this step, from 1; at its last one where it ended before.
    fn at(&self, step: usize) -> Option<f64> {
        self.truth_ious.get(step - 1).or(self.truth_ious.last()).copied()
    }

    /// The truth's IoU at the step that agrees best with the initial mask, the later one on a tie.
    fn chosen(&self) -> Option<f64> {
        let best = self.ious.iter().zip(&self.truth_ious).max_by(|one, other| one.0.total_cmp(other.0));
        best.map(|(_, truth_iou)| *truth_iou)
    }

    /// The best there was, which only who knows the truth could have chosen.
    fn oracle(&self) -> Option<f64> {
        self.truth_ious.iter().copied().max_by(f64::total_cmp)
    }
}

/// A line a setting: the truth's IoU in percent at some steps, at the chosen one and at the best one. Means over images, of each image
/// over its repeats first.
pub fn summary(images: &[Vec<Trace>], steps: u32) -> String {
    let mut shown: Vec<usize> = SHOWN_STEPS.into_iter().filter(|&step| step < steps as usize).collect();
    shown.push(steps as usize);
    let mut by_setting: BTreeMap<Setting, Vec<Vec<&Trace>>> = BTreeMap::new();
    for image in images {
        let mut of_image: BTreeMap<Setting, BTreeMap<u32, &Trace>> = BTreeMap::new();
        for trace in image.iter().filter(|trace| !trace.truth_ious.is_empty()) {
            // A run that was killed between a trace and its row wrote the same trace twice.
            of_image.entry(trace.setting).or_default().insert(trace.repeat, trace);
        }
        for (setting, repeats) in of_image {
            by_setting.entry(setting).or_default().push(repeats.into_values().collect());
        }
    }

    let mut text = "# IoU with the truth, step by step\n\nPercent; means over images, the repeats of each averaged first. \"chosen\" is the \
                    step that agrees best with the initial mask, \"oracle\" the best one of each fine-tuning.\n\n"
        .to_owned();
    let titles: Vec<String> = shown.iter().map(|step| format!("step {step}")).collect();
    let columns = titles.len() + 4;
    // Writing to a string does not fail.
    let _ = writeln!(text, "| points | images | {} | chosen | oracle |\n|{}", titles.join(" | "), "---|".repeat(columns));
    for (setting, images) in &by_setting {
        let at_steps = shown.iter().map(|&step| mean(images, |trace| trace.at(step)));
        let figures = at_steps.chain([mean(images, Trace::chosen), mean(images, Trace::oracle)]);
        let figures: Vec<String> = figures.map(|iou| format!("{:.2}", 100.0 * iou)).collect();
        let _ = writeln!(text, "| {setting} | {} | {} |", images.len(), figures.join(" | "));
    }
    text
}

fn mean(images: &[Vec<&Trace>], figure: impl Fn(&Trace) -> Option<f64>) -> f64 {
    let average = |figures: Vec<f64>| figures.iter().sum::<f64>() / figures.len().max(1) as f64;
    let of_image = |repeats: &Vec<&Trace>| average(repeats.iter().filter_map(|trace| figure(trace)).collect());
    average(images.iter().map(of_image).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(repeat: u32, ious: &[f64], truth_ious: &[f64]) -> Trace {
        let setting = "1/1".parse().unwrap();
        Trace { repeat, setting, losses: vec![1.0; ious.len()], ious: ious.to_vec(), truth_ious: truth_ious.to_vec() }
    }

    #[test]
    fn averages_an_images_repeats_before_the_images() {
        let one = vec![trace(1, &[0.1, 0.2], &[0.2, 0.4]), trace(2, &[0.3, 0.2], &[0.6, 0.0])];
        let other = vec![trace(1, &[0.5, 0.5], &[0.8, 1.0])];
        let text = summary(&[one, other], 2);
        // Step 1: (0.4 + 0.8) / 2; step 2: (0.2 + 1) / 2; chosen: (0.5 + 1) / 2; the oracle too.
        assert!(text.ends_with("| points | images | step 1 | step 2 | chosen | oracle |\n|---|---|---|---|---|---|\n| 1/1 | 2 | 60.00 | 60.00 | 75.00 | 75.00 |\n"), "{text}");
    }

    #[test]
    fn a_fine_tuning_that_ended_early_keeps_its_last_score_and_a_repeated_line_counts_once() {
        let images = [vec![trace(1, &[0.9], &[0.1]), trace(1, &[0.9], &[0.1]), trace(2, &[1.0], &[0.5])]];
        assert!(
            summary(&images, 20).ends_with("| 1/1 | 1 | 30.00 | 30.00 | 30.00 | 30.00 | 30.00 |\n"),
            "{}",
            summary(&images, 20)
        );
    }

    #[test]
    fn nothing_to_show_is_a_table_without_rows() {
        assert!(summary(&[vec![]], 100).ends_with("---|\n"));
    }
}
