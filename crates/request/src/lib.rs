//! What a user asks for: an image's place, the dots on it or the truth to compare with, and how to segment it.
//!
//! Plain types, validated where they are made: a [`Points`] that exists has a positive point and finite coordinates, an
//! [`S3Uri`] that exists has a bucket and a key. The binaries, the ledger and the segmenter share them; this crate knows no
//! database, no network and no tensor.

mod allow_list;
mod choices;
mod content;
mod lines;
mod method;
mod parameters;
mod points;
mod segmentation_request;
mod setting;
mod task;
mod uri;
mod view;

pub use allow_list::{AllowList, Allowed, S3Folder};
pub use choices::{Choices, Dots, Extremes, Normalisation, Padding, Region, SamPoints, SamThreshold, Similarity, Upsampling};
pub use content::{ContentSha256, ContentSha256Error};
pub use lines::{Line, Lines};
pub use method::{Method, UnknownMethod};
pub use parameters::{MAX_STEPS, Parameters, ParametersError, Recipe};
pub use points::{Label, MAX_POINTS, Point, Points, PointsError};
pub use segmentation_request::{MAX_ID_BYTES, MAX_REQUEST_BYTES, RequestError, SegmentationRequest};
pub use setting::{Setting, SettingError};
pub use task::{Evaluation, EvaluationDots, MAX_OBJECTS, MAX_REPEATS, Object, Task, TaskError};
pub use uri::{S3Uri, UriError};
pub use view::{View, Window, WindowError};
