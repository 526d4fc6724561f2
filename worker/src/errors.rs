//! How a job fails, and how the whole process does.

use std::{any::Any, fmt, time::Duration};

use evaluation::datasets::DatasetError;
use images::ImageError;
use ledger::{ErrorClass, LedgerError};
use objects::ObjectsError;
use request::{ContentSha256, PointsError};
use segmenter::SegmentError;
use telemetry::Printable;

/// Why a job has no masks. [`JobError::class`] alone decides what happens to the job.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The image could not be had from the object store.
    #[error("cannot fetch the image: {0}")]
    Fetch(#[source] ObjectsError),
    /// Outside what the project's requests may read.
    #[error(
        "the {what} {uri} is not among what the project {project} may read; put it where that is, or have its folder allowed"
    )]
    NotAllowed {
        /// `image` or `truth`.
        what: &'static str,
        /// Its place.
        uri: String,
        /// Whose job it is.
        project: String,
    },
    /// Among the results, but not those of the job's project.
    #[error(
        "the {what} {uri} lies among the results of all projects, and not in the folder of the project {project}; name another"
    )]
    OthersResult {
        /// `image` or `truth`.
        what: &'static str,
        /// Its place.
        uri: String,
        /// Whose job it is.
        project: String,
    },
    /// The store gave an object whose bytes were others a moment later.
    #[error(
        "the object changed while it was read: the store gave other bytes (ETag {}, then {}) when it was asked again because of this: {source}",
        etags[0].as_deref().unwrap_or("none"),
        etags[1].as_deref().unwrap_or("none")
    )]
    Unsteady {
        /// What the store called the first content, and the second.
        etags: [Option<String>; 2],
        /// What was wrong with the first.
        source: Box<JobError>,
    },
    /// Not what the request says it is.
    #[error(
        "the {what} has the SHA-256 {found}, expected {expected}: it is another than its line says; put that one back, or submit a line that says \
         what is there now"
    )]
    OtherContent {
        /// `image` or `truth`.
        what: &'static str,
        /// What is there.
        found: String,
        /// What the line says.
        expected: ContentSha256,
    },
    /// The object is not an image we take.
    #[error("cannot decode the image: {0}")]
    Decode(#[from] ImageError),
    /// The method refused the image or its points, or libtorch failed.
    #[error("cannot segment the image: {0}")]
    Segment(#[from] SegmentError),
    /// A dot outside the image.
    #[error("cannot segment the image: {object}{source}")]
    Points {
        /// Which object, where there are several: `object 2: `.
        object: String,
        /// Which dot.
        source: PointsError,
    },
    /// The truth could not be had from the object store.
    #[error("cannot fetch the truth: {0}")]
    FetchTruth(#[source] ObjectsError),
    /// The truth is none, or does not fit the image.
    #[error("cannot evaluate: {0}")]
    Truth(#[from] DatasetError),
    /// A panic, caught. The model is built anew for the next job.
    #[error("the worker crashed on this image at the stage {stage}: {reason}")]
    Crashed {
        /// `decode`, `model` or `encode`.
        stage: &'static str,
        /// The panic's message.
        reason: String,
    },
    /// The model crashed before and could not be built anew; the worker is about to end.
    #[error("this worker's model is gone")]
    ModelGone,
    /// The results could not be put into files.
    #[error("cannot encode the masks: {reason}")]
    Encode {
        /// What failed.
        reason: String,
    },
    /// The results could not be put into the object store.
    #[error("cannot store the masks: {0}")]
    Store(#[source] ObjectsError),
    /// The ledger refused the result for good.
    #[error("cannot record the result: {0}")]
    Record(#[source] LedgerError),
    /// Longer than a job may take.
    #[error(
        "the job took more than {} s, the most that one may take beside its wait for others; ask for less (steps, objects, repeats), crop the \
         image, or have DOTMASK_MAX_JOB_SECONDS raised",
        limit.as_secs_f64()
    )]
    TooLong {
        /// The limit.
        limit: Duration,
    },
    /// The worker has to go, and this job was not done in the time left.
    #[error("the worker is shutting down")]
    Shutdown,
}

impl JobError {
    /// Whether another attempt may succeed, and whether this one counts.
    pub fn class(&self) -> ErrorClass {
        let is_transient = match self {
            Self::Shutdown => return ErrorClass::Shutdown,
            Self::Fetch(error) | Self::FetchTruth(error) => error.is_transient(),
            Self::Segment(error) => error.is_transient(),
            Self::Decode(_)
            | Self::Points { .. }
            | Self::Truth(_)
            | Self::Encode { .. }
            | Self::Record(_)
            | Self::NotAllowed { .. }
            | Self::OthersResult { .. }
            | Self::OtherContent { .. }
            | Self::TooLong { .. } => false,
            // Where masks go is the worker's setting and nothing that the job could have wrong.
            Self::Store(_) | Self::Unsteady { .. } | Self::Crashed { .. } | Self::ModelGone => true,
        };
        if is_transient { ErrorClass::Transient } else { ErrorClass::Permanent }
    }

    /// Whether the object store is in trouble, and not this one job.
    pub fn is_of_the_store(&self) -> bool {
        match self {
            Self::Fetch(error) | Self::FetchTruth(error) => error.is_transient(),
            Self::Store(_) | Self::Unsteady { .. } => true,
            _ => false,
        }
    }

    /// Every cause with every class it may come in.
    pub const CAUSES: [(&'static str, ErrorClass); 20] = [
        ("fetch", ErrorClass::Transient),
        ("fetch", ErrorClass::Permanent),
        ("not_allowed", ErrorClass::Permanent),
        ("unsteady", ErrorClass::Transient),
        ("content", ErrorClass::Permanent),
        ("decode", ErrorClass::Permanent),
        ("points", ErrorClass::Permanent),
        ("out_of_memory", ErrorClass::Transient),
        ("segment", ErrorClass::Transient),
        ("segment", ErrorClass::Permanent),
        ("fetch_truth", ErrorClass::Transient),
        ("fetch_truth", ErrorClass::Permanent),
        ("truth", ErrorClass::Permanent),
        ("crash", ErrorClass::Transient),
        ("model", ErrorClass::Transient),
        ("encode", ErrorClass::Permanent),
        ("upload", ErrorClass::Transient),
        ("finalise", ErrorClass::Permanent),
        ("too_long", ErrorClass::Permanent),
        ("shutdown", ErrorClass::Shutdown),
    ];

    /// What failed, in a word, for logs and metrics: messages may name objects, and objects may be named after patients.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Fetch(_) => "fetch",
            Self::NotAllowed { .. } | Self::OthersResult { .. } => "not_allowed",
            Self::Unsteady { .. } => "unsteady",
            Self::OtherContent { .. } => "content",
            Self::Decode(_) => "decode",
            Self::Points { .. } => "points",
            Self::Segment(SegmentError::OutOfMemory { .. }) => "out_of_memory",
            Self::Segment(_) => "segment",
            Self::FetchTruth(_) => "fetch_truth",
            Self::Truth(_) => "truth",
            Self::Crashed { .. } => "crash",
            Self::ModelGone => "model",
            Self::Encode { .. } => "encode",
            Self::Store(_) => "upload",
            Self::Record(_) => "finalise",
            Self::TooLong { .. } => "too_long",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What a panic said, in one line: what follows in libtorch's messages is its C++ stack trace.
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.and_then(|text| text.lines().next()).unwrap_or("no message").to_owned()
}

/// Why the process ends without success.
#[derive(Debug)]
pub enum Failure {
    /// What the user gave cannot be used: exit code 2, as for a wrong flag.
    BadInput(anyhow::Error),
    /// Anything else: exit code 1.
    Failed(anyhow::Error),
}

impl Failure {
    /// For what the user can put right.
    pub fn bad_input(error: impl Into<anyhow::Error>) -> Self {
        Self::BadInput(error.into())
    }

    /// Says on stderr what went wrong; the process's exit code.
    pub fn report(&self) -> u8 {
        eprintln!("error: {}", Printable(self));
        match self {
            Self::Failed(_) => 1,
            Self::BadInput(_) => 2,
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::BadInput(error) | Self::Failed(error)) = self;
        write!(formatter, "{error:#}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is not listed has no series before it happens, and its first time would not show as an increase.
    #[test]
    fn every_error_is_listed_with_its_cause_and_class() {
        let away = || ObjectsError::Unavailable { place: "s3://a/b".into(), reason: "503".into() };
        let missing = || ObjectsError::NotFound { uri: "s3://a/b".into() };
        let gone = || JobError::ModelGone;
        let errors = [
            JobError::Fetch(away()),
            JobError::Fetch(missing()),
            JobError::NotAllowed { what: "image", uri: String::new(), project: String::new() },
            JobError::OthersResult { what: "image", uri: String::new(), project: String::new() },
            JobError::Unsteady { etags: [None, None], source: Box::new(gone()) },
            JobError::OtherContent { what: "image", found: String::new(), expected: "0".repeat(64).parse().expect("64 digits") },
            JobError::Decode(ImageError::Empty),
            JobError::Segment(SegmentError::ConstantSimilarity),
            JobError::Segment(SegmentError::Torch { reason: String::new() }),
            JobError::Segment(SegmentError::OutOfMemory { reason: String::new() }),
            JobError::Points { object: String::new(), source: "1".parse::<request::Points>().expect_err("no points") },
            JobError::FetchTruth(away()),
            JobError::FetchTruth(missing()),
            JobError::Truth(DatasetError::Truth { file: String::new(), reason: ImageError::Empty }),
            JobError::Crashed { stage: "decode", reason: String::new() },
            gone(),
            JobError::Encode { reason: String::new() },
            JobError::Store(away()),
            JobError::Store(missing()),
            JobError::Record(LedgerError::UnknownPool { pool: String::new() }),
            JobError::TooLong { limit: Duration::from_hours(1) },
            JobError::Shutdown,
        ];
        for error in &errors {
            assert!(JobError::CAUSES.contains(&(error.cause(), error.class())), "{error:?}");
        }
        for listed in JobError::CAUSES {
            assert!(errors.iter().any(|error| (error.cause(), error.class()) == listed), "{listed:?} never happens");
        }
    }
}
