//! One case of an evaluation, from its files to its rows.

use std::{cell::RefCell, collections::HashSet, fs, ops::ControlFlow};

use anyhow::{Context, ensure};
use evaluation::{datasets::Case, iou};
use image::GrayImage;
use request::{Method, Parameters, Setting};
use segmenter::{SegmentError, Segmenter, Step};

use super::{
    figures::SHOWN_REPEAT,
    folder::{CaseFiles, Entry, Known},
    images::Images,
    jsonl::Lines,
    progress::Progress,
    score::{Plan, Prompts, Question, Scored, score_image},
    trace::Trace,
};

/// What is asked of every case.
pub struct Questions {
    /// How many points.
    pub settings: Vec<Setting>,
    /// How often they are drawn.
    pub repeats: u32,
    /// The points' seed.
    pub seed: u64,
    /// Which methods.
    pub methods: Vec<Method>,
    /// How to segment.
    pub parameters: Parameters,
    /// Whether every step is scored.
    pub trace: bool,
}

impl Questions {
    /// What is asked of one case, without what is known.
    pub fn plan<'a>(&'a self, case: &'a Case, is_done: &'a dyn Fn(Question) -> bool) -> Plan<'a> {
        let Self { settings, repeats, seed, methods, parameters, .. } = self;
        let prompts = Prompts::Random { settings, repeats: *repeats, seed: *seed };
        Plan { case: &case.id, group: &case.group, prompts, methods, parameters, is_done }
    }

    /// What is asked of one case and not known.
    pub fn open(&self, case: &Case, known: &Known) -> Vec<Question> {
        let answered = answered(known);
        self.plan(case, &|_| false).questions().filter(|question| !answered.contains(question)).collect()
    }
}

fn answered(known: &Known) -> HashSet<Question> {
    known.rows().map(|row| Question { repeat: row.repeat, setting: row.setting, method: row.method }).collect()
}

/// Why an evaluation cannot go on; what is wrong with one case's files is that case's problem and none of these.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// The model failed.
    #[error("{case}: {reason}; what is done is kept, the same command goes on")]
    Segment {
        /// The case's id.
        case: String,
        /// Of the segmenter. The message has it, so it is no further cause.
        reason: SegmentError,
    },
    /// The folder does not take files, or they are not what they were.
    #[error(transparent)]
    Files(#[from] anyhow::Error),
}

/// Answers the open questions about one case and keeps the answers. Returns the problem with its files, if there is one.
pub fn evaluate_case(
    segmenter: &mut Segmenter,
    images: &mut Images,
    case: &Case,
    files: &CaseFiles,
    questions: &Questions,
    keeps_masks: bool,
    progress: &mut Progress,
) -> Result<Option<String>, CaseError> {
    let (mut lines, entries) = Lines::open(&files.rows())?;
    let known = Known(entries);
    let loaded = match images.load(case) {
        Ok(loaded) => loaded,
        Err(problem) => {
            let problem = format!("{problem:#}");
            if known.problem() != Some(&problem) {
                lines.add(&Entry::Problem(problem.clone()))?;
            }
            return Ok(Some(problem));
        }
    };
    match known.files() {
        None => {
            let (image, truth) = (loaded.image.sha256.clone(), loaded.truth_sha256.clone());
            lines.add(&Entry::Files { image, truth })?;
        }
        Some(begun_with) => {
            let is_same = begun_with == (&loaded.image.sha256, &loaded.truth_sha256);
            ensure_same(is_same, case)?;
        }
    }
    let traces = if questions.trace { Some(Lines::open::<Trace>(&files.trace())?.0) } else { None };

    let answered = answered(&known);
    let is_done = |question: Question| answered.contains(&question);
    let plan = questions.plan(case, &is_done);
    let keeper =
        RefCell::new(Keeper { lines, traces, trace: None, files, keeps_masks, truth: &loaded.truth, progress, failure: None });
    let outcome = score_image(
        segmenter,
        &loaded.image.rgb,
        &loaded.truth,
        &plan,
        &mut |question, scored| keeper.borrow_mut().answer(question, scored),
        &mut |question, step| keeper.borrow_mut().step(question, &step),
    );
    if let Some(failure) = keeper.into_inner().failure {
        return Err(CaseError::Files(failure));
    }
    outcome.map_err(|reason| CaseError::Segment { case: case.id.clone(), reason })?;
    Ok(None)
}

fn ensure_same(is_same: bool, case: &Case) -> anyhow::Result<()> {
    ensure!(is_same, "the image or the truth of {} is another file than before; choose another --out", case.id);
    Ok(())
}

/// Writes down what comes of one case while it is computed.
struct Keeper<'a> {
    lines: Lines,
    traces: Option<Lines>,
    /// Of the fine-tuning that runs.
    trace: Option<Trace>,
    files: &'a CaseFiles,
    keeps_masks: bool,
    truth: &'a GrayImage,
    progress: &'a mut Progress,
    /// Why nothing can be written any more.
    failure: Option<anyhow::Error>,
}

impl Keeper<'_> {
    fn step(&mut self, question: Question, step: &Step<'_>) -> ControlFlow<()> {
        self.progress.step();
        if self.traces.is_none() {
            return ControlFlow::Continue(());
        }
        let truth_iou = step.mask().map_err(anyhow::Error::from).and_then(|mask| Ok(iou(&mask, self.truth)?));
        let trace = self.trace.get_or_insert_with(|| Trace::new(question.repeat, question.setting));
        let kept = truth_iou.map(|truth_iou| trace.add(step.loss, step.iou, truth_iou));
        self.or_stop(kept)
    }

    fn answer(&mut self, question: Question, scored: Scored<'_>) -> ControlFlow<()> {
        self.progress.answer(question.method);
        let kept = self.keep(question, scored);
        self.or_stop(kept)
    }

    /// The row comes last: where it is, the mask and the trace are too.
    fn keep(&mut self, question: Question, scored: Scored<'_>) -> anyhow::Result<()> {
        if let (Some(traces), Some(trace)) = (&mut self.traces, self.trace.take()) {
            traces.add(&trace)?;
        }
        if let Some(segmentation) = scored.segmentation
            && self.keeps_masks
            && question.repeat == SHOWN_REPEAT
        {
            let path = self.files.mask(question);
            let cannot_write = || format!("cannot write {}", path.display());
            fs::create_dir_all(path.parent().context("a mask lies in a folder")?).with_context(cannot_write)?;
            segmentation.mask.save(&path).with_context(cannot_write)?;
        }
        self.lines.add(&Entry::Row(Box::new(scored.row)))
    }

    fn or_stop(&mut self, kept: anyhow::Result<()>) -> ControlFlow<()> {
        match kept {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                self.failure = Some(failure);
                ControlFlow::Break(())
            }
        }
    }
}
