//! A data set in the object store as a batch of evaluations.

use std::sync::Arc;

use anyhow::Context;
use evaluation::datasets::{Case, DatasetError, Files, FilesError, cases};
use futures_util::stream;
use images::ImageLimits;
use objects::{Objects, ObjectsError};
use request::{Evaluation, EvaluationDots, Method, Parameters, S3Uri, SegmentationRequest, Setting, Task, UriError};
use reqwest::Body;
use tls::Authorities;
use tokio::runtime::Handle;

use crate::{
    Exit,
    cli::{DataArgs, DataSet},
};

/// The most files a data set may have; AMOS22 has some thousand.
const MAX_FILES: usize = 1_000_000;

/// What is asked of each case.
struct Question {
    settings: Vec<Setting>,
    repeats: u32,
    seed: u64,
    methods: Vec<Method>,
    parameters: Parameters,
}

/// Why a data set is no batch.
#[derive(Debug, thiserror::Error)]
pub enum DataSetError {
    /// Settings that make no sense.
    #[error("{0:#}")]
    Arguments(anyhow::Error),
    /// The store, or a folder that is no such data set.
    #[error("--data s3://{bucket}/{prefix}: {reason}")]
    Unusable {
        /// Where it was looked for.
        bucket: String,
        /// The folder.
        prefix: String,
        /// What is wrong.
        reason: DatasetError,
    },
}

impl DataSetError {
    /// What the process ends with.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Unusable { reason: DatasetError::Files(_), .. } => Exit::Failed,
            Self::Arguments(_) | Self::Unusable { .. } => Exit::BadInput,
        }
    }
}

/// The manifest of a data set: one line a case and setting. Truths are read where only they say which cases there are.
pub async fn manifest(data_set: DataSet, args: &DataArgs, authorities: Authorities) -> anyhow::Result<Body> {
    let question = Question::new(args).map_err(DataSetError::Arguments)?;
    let options = args.options();
    let store = args.store(authorities)?;
    store.warn_of_plain();
    let objects = Objects::connect(&store).await;
    let DataSet { kind, bucket, prefix } = data_set;
    let folder = Folder { objects, runtime: Handle::current(), bucket, prefix };
    // Truths are decoded, which takes a while.
    let listing = tokio::task::spawn_blocking(move || {
        let found = cases(kind, &folder, &options);
        (folder, found)
    });
    let (folder, found) = listing.await.context("listing the data set failed")?;
    let Folder { bucket, prefix, .. } = folder.clone();
    let cases = found.map_err(|reason| DataSetError::Unusable { bucket, prefix, reason })?;
    eprintln!("{} cases, {} settings each", cases.len(), question.settings.len());

    let question = Arc::new(question);
    let lines = cases.into_iter().flat_map(move |case| {
        let (folder, question) = (folder.clone(), Arc::clone(&question));
        (0..question.settings.len()).map(move |index| question.line(&folder, &case, question.settings[index]))
    });
    Ok(Body::wrap_stream(stream::iter(lines)))
}

impl Question {
    fn new(args: &DataArgs) -> anyhow::Result<Self> {
        let mut settings = Vec::new();
        for &setting in &args.points {
            if !settings.contains(&setting) {
                settings.push(setting);
            }
        }
        let (methods, parameters) = (args.methods()?, args.parameters()?);
        Ok(Self { settings, repeats: args.repeats, seed: args.seed, methods, parameters })
    }

    /// A line of the manifest. The id is the case's in every setting: the points of one setting are the first ones of a larger one.
    fn line(&self, folder: &Folder, case: &Case, setting: Setting) -> anyhow::Result<String> {
        let dots = EvaluationDots::Drawn { setting, repeats: self.repeats, seed: self.seed };
        let request = SegmentationRequest {
            image: folder.place(&case.image)?,
            image_sha256: None,
            view: case.view,
            task: Task::Evaluate(Evaluation {
                truth: folder.place(&case.truth)?,
                truth_sha256: None,
                label: case.label,
                group: Some(case.group.clone()).filter(|group| !group.is_empty()),
                methods: self.methods.clone(),
                dots,
            }),
            id: Some(case.id.clone()),
            pool: None,
            parameters: self.parameters.clone(),
        };
        Ok(serde_json::to_string(&request)? + "\n")
    }
}

/// A folder of the object store.
#[derive(Clone)]
struct Folder {
    objects: Objects,
    runtime: Handle,
    bucket: String,
    /// Empty, or with a slash at its end.
    prefix: String,
}

impl Folder {
    fn place(&self, name: &str) -> Result<S3Uri, UriError> {
        S3Uri::new(&self.bucket, &format!("{}{name}", self.prefix))
    }
}

/// To be used on a thread that may wait.
impl Files for Folder {
    fn list(&self) -> Result<Vec<String>, FilesError> {
        let unreadable = |error: ObjectsError| FilesError { place: "the listing".into(), reason: error.to_string() };
        let keys = self.runtime.block_on(self.objects.list(&self.bucket, &self.prefix, MAX_FILES)).map_err(unreadable)?;
        let name = |key: String| key.strip_prefix(&self.prefix).map(str::to_owned);
        // Some tools mark a folder by an empty object whose key ends with a slash.
        let mut names: Vec<String> =
            keys.into_iter().filter_map(name).filter(|name| !name.is_empty() && !name.ends_with('/')).collect();
        names.sort();
        Ok(names)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, FilesError> {
        let unreadable = |reason: String| FilesError { place: name.to_owned(), reason };
        let uri = self.place(name).map_err(|error| unreadable(error.to_string()))?;
        let bytes = self.runtime.block_on(self.objects.get(&uri, ImageLimits::default().bytes));
        Ok(bytes.map_err(|error| unreadable(error.to_string()))?.to_vec())
    }
}
