//! `worker run` with a quick engine in the model's place: the same command line, environment and code around it. For tests only.

use std::{ops::ControlFlow, process::ExitCode, thread, time::Instant};

use clap::Parser as _;
use evaluation::{Outcome, Row};
use image::{GrayImage, RgbImage};
use request::{Parameters, Points};
use segmenter::{Checkpoint, Compute, Kept, Seconds, SegmentError, Segmentation};
use tests::quick::{ABORTS, Found, HANGS, OUT_OF_MEMORY, PANICS, STEP, Weights};
use worker::{
    cli::{Cli, Command},
    commands,
    engine::{Engine, Plan},
};

/// See [`tests::quick`].
struct Quick {
    weights: Weights,
}

impl Quick {
    fn segment_object(
        &mut self,
        image: &RgbImage,
        points: &Points,
        parameters: &Parameters,
        on_step: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Segmentation, SegmentError> {
        // Without this every mask but the first would be another than the request says.
        self.weights = Weights::default();
        let started = Instant::now();
        for step in 1..=parameters.steps {
            thread::sleep(STEP);
            self.weights.step(image);
            if on_step().is_break() {
                return Err(SegmentError::Stopped { step, steps: parameters.steps });
            }
            match image.get_pixel(0, 0).0[0] {
                HANGS => loop {
                    thread::park();
                },
                ABORTS => std::process::abort(),
                PANICS => panic!("the image says so"),
                OUT_OF_MEMORY => return Err(SegmentError::OutOfMemory { reason: "the image says so".into() }),
                _ => {}
            }
        }
        let Found { mask, initial_mask, iou, best_step, confidence } = Found::new(&self.weights, image, points, parameters);
        Ok(Segmentation {
            mask,
            initial_mask,
            losses: vec![1.0 - iou; parameters.steps as usize],
            ious: vec![iou; parameters.steps as usize],
            best_step,
            iou,
            undecided: None,
            agreement: confidence,
            confidence,
            seconds: Seconds { embed: 0.0, finetune: started.elapsed().as_secs_f64(), upsample: 0.0 },
            warnings: Vec::new(),
            kept: Kept::Activations,
        })
    }
}

impl Engine for Quick {
    fn build(_: &Checkpoint, _: Compute) -> anyhow::Result<Self> {
        Ok(Self { weights: Weights::default() })
    }

    fn segment(
        &mut self,
        image: &RgbImage,
        objects: &[Points],
        parameters: &Parameters,
        on_step: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Segmentation>, SegmentError> {
        objects.iter().map(|points| self.segment_object(image, points, parameters, on_step)).collect()
    }

    /// It knows no methods that could be compared, and its rows say so.
    fn evaluate(
        &mut self,
        _: &RgbImage,
        _: &GrayImage,
        plan: &Plan<'_>,
        on_row: &mut dyn FnMut(Row) -> ControlFlow<()>,
        _: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<(), SegmentError> {
        for question in plan.questions() {
            let row = Row {
                case: plan.case.to_owned(),
                group: plan.group.to_owned(),
                setting: question.setting,
                repeat: question.repeat,
                method: question.method,
                outcome: Outcome::Skipped("the quick engine compares no methods".into()),
            };
            if on_row(row).is_break() {
                return Err(SegmentError::Stopped { step: 0, steps: plan.parameters.steps });
            }
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    let Command::Run(config) = Cli::parse().command else {
        eprintln!("error: the quick worker knows run only");
        return ExitCode::from(2);
    };
    match commands::run::run::<Quick>(*config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report().into(),
    }
}
