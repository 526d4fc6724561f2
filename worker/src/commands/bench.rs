//! `worker bench`: what a step and an image cost, on one image again and again, with no server.

use std::{
    fs,
    io::{Cursor, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use image::{ImageFormat, RgbImage};
use images::ImageLimits;
use request::{Object, Parameters, Points, View};
use segmenter::{Checkpoint, Compute, Segmentation, Segmenter, peak_gpu_memory, reset_peak_gpu_memory, set_threads, threads};

use crate::{
    artifacts,
    bench::{
        clock::{Reading, ResidentMemory, Stages},
        figures::{Figures, Flops, ImageFigures, ImageRun, Memory, ObjectRun, Part, PartTime, StepFigures, beside},
        picture::Picture,
        table,
    },
    cli::{BenchArgs, WeightsArgs},
    errors::Failure,
    receipt::{Receipt, SegmentedObject, StageSeconds, VERSION},
};

/// Measures and prints. Everything that may be wrong with the arguments is looked at before the model is built.
pub fn bench(arguments: &BenchArgs) -> Result<(), Failure> {
    let parameters = arguments.checked().map_err(Failure::bad_input)?;
    let picture = Picture::new(arguments.image);
    let points = (0..arguments.objects).map(|object| picture.points(object, arguments.points));
    let points: Vec<Points> = points.collect::<Result<_, _>>().map_err(Failure::bad_input)?;
    let file = png(&picture.draw())?;
    let folder = Folder::new(arguments.keep.as_deref()).map_err(Failure::bad_input)?;
    if arguments.keep.is_some() {
        folder.write("image.png", &file).map_err(Failure::bad_input)?;
    }
    if let Some(threads) = arguments.compute.threads {
        set_threads(threads.into());
    }
    let (checkpoint, name) = read_checkpoint(&arguments.weights, &folder)?;
    let mut segmenter = Segmenter::new(&checkpoint, arguments.compute.compute()).map_err(Failure::bad_input)?;
    let checkpoint_sha256 = checkpoint.sha256().to_owned();
    drop(checkpoint);

    let rate = |segmenter: &Segmenter| segmenter.matrix_product_rate().context("cannot measure a matrix product");
    let rate_before = rate(&segmenter)?;
    let stages = Stages::of(&mut segmenter);
    let loaded = ResidentMemory::read()?;
    let peak_includes_loading = ResidentMemory::reset_peak().is_err();
    reset_peak_gpu_memory();
    let mut job = Job {
        segmenter: &mut segmenter,
        compute: arguments.compute.compute(),
        stages: &stages,
        file: &file,
        points: &points,
        parameters: &parameters,
    };
    let images: Vec<ImageRun> = (0..arguments.images).map(|_| job.run()).collect::<Result<_, Failure>>()?;
    let memory = Memory::new(loaded, ResidentMemory::read()?, peak_includes_loading, peak_gpu_memory());
    let rate_after = rate(&segmenter)?;

    let step = StepFigures::new(&images, arguments.warm_up).ok_or_else(|| too_few_steps(&images))?;
    let beside = beside(&images);
    let figures = Figures {
        version: VERSION,
        device: arguments.compute.compute().to_string(),
        activations: segmenter.kept().label(),
        threads: threads(),
        checkpoint: name,
        checkpoint_sha256,
        image: arguments.image,
        points,
        parameters,
        warm_up: arguments.warm_up,
        image_of_100_steps: ImageFigures::new(&step, &beside, arguments.objects),
        flops: Flops::new(segmenter.architecture().step_flops(), &step, [rate_before, rate_after]),
        step,
        beside,
        memory,
        images,
    };
    let mut stdout = std::io::stdout().lock();
    let written = if arguments.json {
        let text = serde_json::to_string(&figures).context("cannot write the figures as JSON")?;
        writeln!(stdout, "{text}")
    } else {
        table::write(&figures, &mut stdout)
    };
    written.context("cannot write to stdout")?;
    Ok(())
}

/// What is the same for every image.
struct Job<'a> {
    segmenter: &'a mut Segmenter,
    stages: &'a Stages,
    compute: Compute,
    file: &'a [u8],
    points: &'a [Points],
    parameters: &'a Parameters,
}

impl Job<'_> {
    /// The image once, from its file's bytes to its results'.
    fn run(&mut self) -> Result<ImageRun, Failure> {
        let begun = Reading::now();
        let view = View::default();
        let image =
            images::decode(self.file, &view, &ImageLimits::default()).context("cannot decode the picture that was drawn")?;
        let decoded = Reading::now();
        let mut parts = vec![PartTime { part: Part::DecodeFile, time: decoded.since(&begun) }];

        let outcome = self.segmenter.segment(&image.rgb, self.points, self.parameters, &mut |_| ControlFlow::Continue(()));
        let segmentations = outcome.map_err(|error| match error {
            error if error.is_transient() => Failure::Failed(error.into()),
            error => Failure::bad_input(error),
        })?;
        let stages = self.stages.taken(decoded);
        parts.extend(stages.into_iter().map(|(stage, time)| PartTime { part: stage.into(), time }));

        let segmented = Reading::now();
        let object =
            |(points, made): (&Points, &Segmentation)| SegmentedObject::new(&Object { id: None, points: points.clone() }, made);
        let mut receipt = Receipt {
            version: VERSION,
            image: (&image).into(),
            view,
            checkpoint_sha256: self.segmenter.checkpoint_sha256().into(),
            device: self.compute.to_string(),
            activations: segmentations.first().map(|made| made.kept.label()),
            parameters: self.parameters.clone(),
            objects: self.points.iter().zip(&segmentations).map(object).collect(),
            evaluation: None,
            reused_from: None,
            seconds: StageSeconds::of_model(&segmentations),
            job: None,
        };
        artifacts::encode(&image.rgb, &segmentations, &mut receipt)?;
        let ended = Reading::now();
        parts.push(PartTime { part: Part::EncodeFiles, time: ended.since(&segmented) });
        Ok(ImageRun { time: ended.since(&begun), parts, objects: segmentations.into_iter().map(object_run).collect() })
    }
}

fn object_run(segmentation: Segmentation) -> ObjectRun {
    let initial = segmentation.initial_mask.as_raw();
    let foreground = initial.iter().filter(|&&value| value > 0).count();
    let initial_foreground = foreground as f64 / initial.len() as f64;
    ObjectRun { losses: segmentation.losses, ious: segmentation.ious, initial_foreground }
}

/// A fine-tuning ends early where it reaches the initial mask, and takes no step where that mask is empty or full.
fn too_few_steps(images: &[ImageRun]) -> Failure {
    let steps: Vec<String> =
        images.iter().flat_map(|image| &image.objects).map(|object| object.losses.len().to_string()).collect();
    Failure::bad_input(anyhow!(
        "no whole step was left to measure: the fine-tunings ended after {} steps, at an IoU of 1 with the initial mask or because \
         that is empty or full; choose other --points, another --image, or a smaller --warm-up",
        steps.join(", ")
    ))
}

/// The weights, and what they are called.
fn read_checkpoint(weights: &WeightsArgs, folder: &Folder) -> Result<(Checkpoint, String), Failure> {
    let (path, name) = match (&weights.checkpoint, weights.random) {
        (Some(path), _) => {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            (path.clone(), name)
        }
        (None, Some(size)) => {
            let path = folder.path().join("checkpoint.safetensors");
            Checkpoint::write_random(&size.into(), &path)
                .with_context(|| format!("cannot write {}; is the disk full?", path.display()))?;
            (path, format!("{size} with random weights"))
        }
        (None, None) => unreachable!("clap asks for one of the two"),
    };
    let checkpoint = Checkpoint::read(&path).map_err(Failure::bad_input)?;
    Ok((checkpoint, name))
}

/// Where files go: a folder to keep, or one that goes away.
enum Folder {
    Kept(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Folder {
    fn new(keep: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = keep else {
            return Ok(Self::Temporary(tempfile::tempdir().context("cannot make a temporary folder; choose one with --keep")?));
        };
        fs::create_dir_all(path).with_context(|| format!("cannot make the folder {}; choose another --keep", path.display()))?;
        Ok(Self::Kept(path.into()))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.path().join(name);
        fs::write(&path, bytes).with_context(|| format!("cannot write {}; choose another --keep", path.display()))
    }
}

fn png(picture: &RgbImage) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).context("cannot encode the picture")?;
    Ok(bytes.into_inner())
}
