use serde::{Deserialize, Serialize};

use crate::{ContentSha256, MAX_ID_BYTES, Method, Points, S3Uri, Setting};

/// The most objects one request may ask for.
pub const MAX_OBJECTS: usize = 64;

/// The most repeats one evaluation may ask for.
pub const MAX_REPEATS: u32 = 100;

/// The paper's.
const DEFAULT_REPEATS: u32 = 5;

const DEFAULT_SEED: u64 = 1;

/// What to do with the image.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// A mask for each of these: at least one, at most [`MAX_OBJECTS`].
    Segment(Vec<Object>),
    /// How good the masks are.
    Evaluate(Evaluation),
}

/// A thing on the image, or many of one kind: what one mask is of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// The user's own name for it, among the image's objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The dots.
    pub points: Points,
}

/// A comparison of methods on one image whose truth is known.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Where the labelled image or volume is, or the outlines.
    pub truth: S3Uri,
    /// What it must be; whatever is there where it is not given.
    pub truth_sha256: Option<ContentSha256>,
    /// Which of its labels is the object; all but 0 where there is none.
    pub label: Option<u32>,
    /// The block of the table that the image belongs to, such as an organ.
    pub group: Option<String>,
    /// Each at most once, and at least one.
    pub methods: Vec<Method>,
    /// What the methods are given.
    pub dots: EvaluationDots,
}

/// Where an evaluation has its points from.
#[derive(Debug, Clone, PartialEq)]
pub enum EvaluationDots {
    /// The user placed them.
    Given(Points),
    /// Drawn at random on and beside the truth.
    Drawn {
        /// How many of each label.
        setting: Setting,
        /// How often, 1 to [`MAX_REPEATS`].
        repeats: u32,
        /// The same seed draws the same points.
        seed: u64,
    },
}

/// Why fields do not go together, or what is wrong with one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TaskError {
    /// No field says what to do.
    #[error("nothing says what to segment: expected points, or objects, or truth for an evaluation")]
    Missing,
    /// Two fields say different things.
    #[error("{one} and {other} exclude each other; {remedy}")]
    Contradiction {
        /// A field.
        one: &'static str,
        /// Another.
        other: &'static str,
        /// Which one is for what.
        remedy: &'static str,
    },
    /// A field of evaluations in a request that is none.
    #[error("{field} is for evaluations only: it needs truth, the place of the labelled image")]
    WithoutTruth {
        /// The field.
        field: &'static str,
    },
    /// Nothing says which points an evaluation is about.
    #[error("an evaluation needs points, or a setting such as \"3/3\" to draw them by")]
    WithoutDots,
    /// None, or more than [`MAX_OBJECTS`].
    #[error("{count} objects, expected 1 to {MAX_OBJECTS}")]
    Objects {
        /// How many there are.
        count: usize,
    },
    /// A name that would not fit where names are kept and shown.
    #[error("the {what} has {bytes} bytes or a control character, expected 1 to {MAX_ID_BYTES} bytes of text")]
    Name {
        /// What it names.
        what: String,
        /// Its length.
        bytes: usize,
    },
    /// No method.
    #[error("methods is empty; leave it out for all")]
    NoMethod,
    /// A method twice.
    #[error("methods has {method} twice")]
    MethodTwice {
        /// Which one.
        method: Method,
    },
    /// None, or more than [`MAX_REPEATS`].
    #[error("repeats is {repeats}, expected 1 to {MAX_REPEATS}")]
    Repeats {
        /// As given.
        repeats: u32,
    },
    /// The background is no object.
    #[error("label is 0, which is the background; leave it out for all labels but 0")]
    Background,
}

/// The fields of a manifest's line that say what to do, before anything is known of how they go together.
#[derive(Debug, Clone, Default)]
pub(crate) struct TaskFields {
    pub points: Option<Points>,
    pub objects: Option<Vec<Object>>,
    pub truth: Option<S3Uri>,
    pub truth_sha256: Option<ContentSha256>,
    pub label: Option<u32>,
    pub group: Option<String>,
    pub methods: Option<Vec<Method>>,
    pub setting: Option<Setting>,
    pub repeats: Option<u32>,
    pub seed: Option<u64>,
}

impl TryFrom<TaskFields> for Task {
    type Error = TaskError;

    fn try_from(mut fields: TaskFields) -> Result<Self, TaskError> {
        if let Some(truth) = fields.truth.take() {
            return Ok(Self::Evaluate(evaluation(truth, fields)?));
        }
        let for_evaluations = [
            ("truth_sha256", fields.truth_sha256.is_some()),
            ("label", fields.label.is_some()),
            ("group", fields.group.is_some()),
            ("methods", fields.methods.is_some()),
            ("setting", fields.setting.is_some()),
            ("repeats", fields.repeats.is_some()),
            ("seed", fields.seed.is_some()),
        ];
        if let Some((field, _)) = for_evaluations.into_iter().find(|(_, is_given)| *is_given) {
            return Err(TaskError::WithoutTruth { field });
        }
        match (fields.points, fields.objects) {
            (Some(points), None) => Ok(Self::Segment(vec![Object { id: None, points }])),
            (None, Some(objects)) => Ok(Self::Segment(checked(objects)?)),
            (None, None) => Err(TaskError::Missing),
            (Some(_), Some(_)) => {
                let remedy = "points is for one object, objects for several";
                Err(TaskError::Contradiction { one: "points", other: "objects", remedy })
            }
        }
    }
}

fn checked(objects: Vec<Object>) -> Result<Vec<Object>, TaskError> {
    if !(1..=MAX_OBJECTS).contains(&objects.len()) {
        return Err(TaskError::Objects { count: objects.len() });
    }
    for (index, object) in objects.iter().enumerate() {
        check_name(object.id.as_deref(), &format!("id of object {}", index + 1))?;
    }
    Ok(objects)
}

fn evaluation(truth: S3Uri, fields: TaskFields) -> Result<Evaluation, TaskError> {
    let TaskFields { points, objects, truth: _, truth_sha256, label, group, methods, setting, repeats, seed } = fields;
    if objects.is_some() {
        let remedy = "an evaluation is of one object: use label, and a line for each";
        return Err(TaskError::Contradiction { one: "truth", other: "objects", remedy });
    }
    if label == Some(0) {
        return Err(TaskError::Background);
    }
    check_name(group.as_deref(), "group")?;
    let methods = methods.unwrap_or_else(|| Method::ALL.into());
    if methods.is_empty() {
        return Err(TaskError::NoMethod);
    }
    if let Some((_, &method)) = methods.iter().enumerate().find(|(index, method)| methods[..*index].contains(method)) {
        return Err(TaskError::MethodTwice { method });
    }
    let for_drawing = [("setting", setting.is_some()), ("repeats", repeats.is_some()), ("seed", seed.is_some())];
    let dots = match (points, setting) {
        (Some(points), _) => {
            if let Some((other, _)) = for_drawing.into_iter().find(|(_, is_given)| *is_given) {
                let remedy = "points are scored as given, a setting draws them";
                return Err(TaskError::Contradiction { one: "points", other, remedy });
            }
            EvaluationDots::Given(points)
        }
        (None, Some(setting)) => {
            let repeats = repeats.unwrap_or(DEFAULT_REPEATS);
            if !(1..=MAX_REPEATS).contains(&repeats) {
                return Err(TaskError::Repeats { repeats });
            }
            EvaluationDots::Drawn { setting, repeats, seed: seed.unwrap_or(DEFAULT_SEED) }
        }
        (None, None) => return Err(TaskError::WithoutDots),
    };
    Ok(Evaluation { truth, truth_sha256, label, group, methods, dots })
}

pub(crate) fn check_name(name: Option<&str>, what: &str) -> Result<(), TaskError> {
    match name {
        Some(name) if name.is_empty() || name.len() > MAX_ID_BYTES || name.chars().any(char::is_control) => {
            Err(TaskError::Name { what: what.into(), bytes: name.len() })
        }
        _ => Ok(()),
    }
}

impl From<Task> for TaskFields {
    fn from(task: Task) -> Self {
        match task {
            Task::Segment(mut objects) if objects.len() == 1 && objects[0].id.is_none() => {
                Self { points: objects.pop().map(|object| object.points), ..Self::default() }
            }
            Task::Segment(objects) => Self { objects: Some(objects), ..Self::default() },
            Task::Evaluate(Evaluation { truth, truth_sha256, label, group, methods, dots }) => {
                let (truth, methods) = (Some(truth), Some(methods));
                let fields = Self { truth, truth_sha256, label, group, methods, ..Self::default() };
                match dots {
                    EvaluationDots::Given(points) => Self { points: Some(points), ..fields },
                    EvaluationDots::Drawn { setting, repeats, seed } => {
                        Self { setting: Some(setting), repeats: Some(repeats), seed: Some(seed), ..fields }
                    }
                }
            }
        }
    }
}
