//! One image of known truth: every method's answer to every draw of points, scored at the image's size. No files, no command line.

use std::ops::ControlFlow;

use evaluation::{Outcome, Row, draw, published_scores, scores};
use image::{GrayImage, RgbImage};
use request::{Label, Method, Parameters, Points, Setting};
use segmenter::{Embedded, SegmentError, Segmentation, Segmenter, Step};

/// What to evaluate on one image.
pub struct Plan<'a> {
    /// The image's name; with the seed it decides the random points.
    pub case: &'a str,
    /// The block of the table it belongs to.
    pub group: &'a str,
    /// Where the points come from.
    pub prompts: Prompts<'a>,
    /// Which methods, in this order.
    pub methods: &'a [Method],
    /// How to segment.
    pub parameters: &'a Parameters,
    /// What is known already and is not computed again.
    pub is_done: &'a dyn Fn(Question) -> bool,
}

/// Where an evaluation's points come from.
pub enum Prompts<'a> {
    /// These points, once.
    Given(&'a Points),
    /// Random points on the truth, the same for every method.
    Random {
        /// How many.
        settings: &'a [Setting],
        /// How often they are drawn.
        repeats: u32,
        /// The same seed, the same points.
        seed: u64,
    },
}

/// One draw of points and one method: what one row of an evaluation answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Question {
    /// Which draw, from 0.
    pub repeat: u32,
    /// How many points.
    pub setting: Setting,
    /// How they became a mask.
    pub method: Method,
}

/// A row, and the answer it scores; none where it was skipped.
pub struct Scored<'a> {
    /// The scores, or why there are none.
    pub row: Row,
    /// What the method answered.
    pub segmentation: Option<&'a Segmentation>,
}

impl Prompts<'_> {
    /// Every draw: its number, from 0, and how many points it has.
    fn draws(&self) -> Vec<(u32, Setting)> {
        match self {
            Self::Given(points) => vec![(0, setting_of(points))],
            Self::Random { settings, repeats, .. } => {
                (0..*repeats).flat_map(|repeat| settings.iter().map(move |&setting| (repeat, setting))).collect()
            }
        }
    }
}

/// How many points there are of each label.
fn setting_of(points: &Points) -> Setting {
    let count = |label| u32::try_from(points.of(label).count()).expect("a thousand points at most");
    Setting::new(count(Label::Positive), count(Label::Negative)).expect("points have a positive one and are not too many")
}

impl Plan<'_> {
    /// Every question of this plan, done or not, in the order in which it is answered.
    pub fn questions(&self) -> impl Iterator<Item = Question> {
        let of_draw = |(repeat, setting)| self.methods.iter().map(move |&method| Question { repeat, setting, method });
        self.prompts.draws().into_iter().flat_map(of_draw)
    }

    /// The points of one draw, or why there are none.
    pub fn points(&self, truth: &GrayImage, Question { repeat, setting, .. }: Question) -> Result<Points, String> {
        match self.prompts {
            Prompts::Given(points) => Ok(points.clone()),
            Prompts::Random { seed, .. } => {
                let dots = self.parameters.choices.dots;
                draw(truth, setting, dots, seed, self.case, repeat).map_err(|skip| skip.to_string())
            }
        }
    }
}

/// Answers the plan's questions about one image. The image goes through the encoder once; every fine-tuning begins with the checkpoint's
/// weights.
///
/// `on_row` gets each answer as soon as it is there, `progress` each step of each fine-tuning; breaking in either ends with
/// [`SegmentError::Stopped`]. Points that cannot be drawn, an image that looks the same everywhere and a fine-tuning that diverged are
/// rows that say so. The truth is 255 where the object is and has the image's size.
pub fn score_image(
    segmenter: &mut Segmenter,
    image: &RgbImage,
    truth: &GrayImage,
    plan: &Plan<'_>,
    on_row: &mut dyn FnMut(Question, Scored<'_>) -> ControlFlow<()>,
    progress: &mut dyn FnMut(Question, Step<'_>) -> ControlFlow<()>,
) -> Result<(), SegmentError> {
    let mut embedded: Option<Embedded> = None;
    for question in plan.questions().filter(|&question| !(plan.is_done)(question)) {
        let outcome = match plan.points(truth, question) {
            Err(skip) => Err(skip),
            Ok(points) => {
                let embedded = match &mut embedded {
                    Some(embedded) => embedded,
                    none => none.insert(segmenter.embed(image, &plan.parameters.choices)?),
                };
                let mut progress = |step: Step<'_>| progress(question, step);
                match segmenter.answer(embedded, image, &points, question.method, plan.parameters, &mut progress) {
                    Ok(segmentation) => Ok(segmentation),
                    Err(
                        error @ (SegmentError::ConstantSimilarity
                        | SegmentError::ConstantPrediction
                        | SegmentError::Diverged { .. }),
                    ) => Err(error.to_string()),
                    Err(error) => return Err(error),
                }
            }
        };
        let Question { repeat, setting, method } = question;
        let row = Row {
            case: plan.case.to_owned(),
            group: plan.group.to_owned(),
            setting,
            repeat,
            method,
            outcome: match &outcome {
                Ok(segmentation) => Outcome::Scored(score(segmentation, truth)),
                Err(reason) => Outcome::Skipped(reason.clone()),
            },
        };
        if on_row(question, Scored { row, segmentation: outcome.as_ref().ok() }).is_break() {
            return Err(SegmentError::Stopped { step: 0, steps: plan.parameters.steps });
        }
    }
    Ok(())
}

fn score(segmentation: &Segmentation, truth: &GrayImage) -> evaluation::Scored {
    let Segmentation { mask, undecided, iou, agreement, confidence, best_step, seconds, .. } = segmentation;
    let of_truths_size = "a mask has its image's size, and so has the truth";
    evaluation::Scored {
        scores: scores(mask, truth).expect(of_truths_size),
        published: undecided.as_ref().map(|undecided| published_scores(mask, undecided, truth).expect(of_truths_size)),
        iou_with_initial: *iou,
        agreement: *agreement,
        confidence: *confidence,
        best_step: *best_step,
        seconds: seconds.embed + seconds.finetune + seconds.upsample,
    }
}
