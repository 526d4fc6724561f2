//! `worker segment`: one local image, no server.

use std::{
    fs::{self, Permissions},
    io::{ErrorKind, IsTerminal, Write},
    ops::ControlFlow,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Instant,
};

use anyhow::{Context, anyhow};
use images::{DecodedImage, ImageLimits};
use indicatif::{ProgressBar, ProgressStyle};
use ledger::ArtifactKind;
use request::{Points, View};
use segmenter::{Checkpoint, Segmenter, Step, set_threads};
use tempfile::NamedTempFile;

use crate::{
    artifacts::{self, ArtifactFile, file_name, object_file_name},
    cli::{ModelArgs, SegmentArgs},
    errors::Failure,
    receipt::{Figures, Receipt, SegmentedObject, StageSeconds, VERSION},
};

/// Segments one image. Everything that may be wrong with the input is looked at before the model is built.
pub fn segment(arguments: &SegmentArgs) -> Result<(), Failure> {
    let objects = arguments.objects().map_err(Failure::bad_input)?;
    let parameters = arguments.parameters.checked().map_err(Failure::bad_input)?;
    let started = Instant::now();
    let view = arguments.view();
    let image = read_image(&arguments.image, &view, &arguments.limits.limits()).map_err(Failure::bad_input)?;
    let decode_seconds = started.elapsed().as_secs_f64();
    let points: Vec<Points> = objects.iter().map(|object| object.points.clone()).collect();
    for points in &points {
        points.check_inside(image.rgb.width(), image.rgb.height()).map_err(Failure::bad_input)?;
    }
    prepare_folder(&arguments.out).map_err(Failure::bad_input)?;
    let mut segmenter = load_model(&arguments.model).map_err(Failure::bad_input)?;

    let mut progress = Progress::new(parameters.steps, objects.len());
    let outcome = segmenter.segment(&image.rgb, &points, &parameters, &mut |step| progress.show(&step));
    let segmentations = outcome.map_err(|error| match error {
        error if error.is_transient() => Failure::Failed(error.into()),
        error => Failure::bad_input(error),
    })?;
    progress.finish();

    let mut receipt = Receipt {
        version: VERSION,
        image: (&image).into(),
        view,
        checkpoint_sha256: segmenter.checkpoint_sha256().into(),
        device: arguments.model.compute.compute().to_string(),
        activations: segmentations.first().map(|made| made.kept.label()),
        parameters,
        objects: objects.iter().zip(&segmentations).map(|(object, made)| SegmentedObject::new(object, made)).collect(),
        evaluation: None,
        reused_from: None,
        seconds: StageSeconds { decode: decode_seconds, ..StageSeconds::of_model(&segmentations) },
        job: None,
    };
    let files = artifacts::encode(&image.rgb, &segmentations, &mut receipt)?;
    write_files(&arguments.out, &files)?;
    report(arguments, &receipt)?;
    Ok(())
}

fn read_image(path: &Path, view: &View, limits: &ImageLimits) -> anyhow::Result<DecodedImage> {
    let shown = path.display();
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow!("the image {shown} does not exist; check --image"),
        _ => anyhow!("cannot read the image {shown}: {error}"),
    })?;
    if !metadata.is_file() {
        return Err(anyhow!("the image {shown} is not a file; give --image one PNG, JPEG, TIFF, BMP, NIfTI or DICOM"));
    }
    // A sparse file of a terabyte must not be read to learn that it is too large.
    if metadata.len() > limits.bytes {
        return Err(anyhow!("the image {shown} has {} bytes, expected at most {}", metadata.len(), limits.bytes));
    }
    let bytes = fs::read(path).with_context(|| format!("cannot read the image {shown}"))?;
    images::decode(&bytes, view, limits).with_context(|| format!("cannot use the image {shown}"))
}

/// Makes the folder and proves that it takes files, before minutes of computing are lost for want of it.
fn prepare_folder(folder: &Path) -> anyhow::Result<()> {
    let cannot_write = || format!("cannot write to the output folder {}; choose another --out", folder.display());
    fs::create_dir_all(folder).with_context(cannot_write)?;
    tempfile::tempfile_in(folder).with_context(cannot_write)?;
    Ok(())
}

/// The model of a command that needs no server.
pub fn load_model(arguments: &ModelArgs) -> anyhow::Result<Segmenter> {
    if let Some(threads) = arguments.compute.threads {
        set_threads(threads.into());
    }
    let checkpoint = Checkpoint::read(&arguments.checkpoint)?;
    Ok(Segmenter::new(&checkpoint, arguments.compute.compute())?)
}

/// All files are written beside their places first and then renamed, the receipt last: a place never holds half a file, and a
/// folder with a receipt holds what it speaks of.
fn write_files(folder: &Path, files: &[ArtifactFile]) -> anyhow::Result<()> {
    let cannot_write = || format!("cannot write to the output folder {}", folder.display());
    let mut written = Vec::new();
    for file in files {
        // The umask takes away from these permissions what the user's other files lack as well.
        let mut temporary: NamedTempFile =
            tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(folder).with_context(cannot_write)?;
        temporary.write_all(&file.bytes).with_context(cannot_write)?;
        temporary.as_file().sync_all().with_context(cannot_write)?;
        written.push(temporary);
    }
    for (temporary, file) in written.into_iter().zip(files) {
        temporary.persist(folder.join(&file.name)).map_err(|error| error.error).with_context(cannot_write)?;
    }
    Ok(())
}

fn report(arguments: &SegmentArgs, receipt: &Receipt) -> anyhow::Result<()> {
    let Receipt { image, objects, seconds, .. } = receipt;
    let path = |name: &str| arguments.out.join(name).display().to_string();
    let of_object = |kind: ArtifactKind, object: u32| path(&object_file_name(kind, object, objects.len()));
    let numbered = || (1..).zip(objects);
    for (number, object) in numbered() {
        let which = if objects.len() > 1 { format!("object {number}: ") } else { String::new() };
        for warning in &object.figures.warnings {
            eprintln!("warning: {which}{warning}");
        }
    }
    let mut stdout = std::io::stdout().lock();
    if arguments.json {
        let object = |(number, object): (u32, &SegmentedObject)| {
            let mut answer = serde_json::to_value(&object.figures)?;
            answer["mask"] = of_object(ArtifactKind::Mask, number).into();
            answer["initial_mask"] = of_object(ArtifactKind::InitialMask, number).into();
            anyhow::Ok(answer)
        };
        let answer = serde_json::json!({
            "objects": numbered().map(object).collect::<anyhow::Result<Vec<_>>>()?,
            "overlay": path(file_name(ArtifactKind::Overlay)),
            "receipt": path(file_name(ArtifactKind::Receipt)),
            "seconds": seconds,
        });
        writeln!(stdout, "{answer}")?;
        return Ok(());
    }
    for (number, object) in numbered() {
        let Figures { losses, best_step, iou, confidence, .. } = &object.figures;
        writeln!(stdout, "mask          {} ({} x {})", of_object(ArtifactKind::Mask, number), image.width, image.height)?;
        writeln!(stdout, "initial mask  {}", of_object(ArtifactKind::InitialMask, number))?;
        match best_step {
            0 => writeln!(stdout, "best step     none: the answer is the initial mask")?,
            _ => writeln!(stdout, "best step     {best_step} of {}, IoU with the initial mask {iou:.4}", losses.len())?,
        }
        writeln!(stdout, "confidence    {confidence:.2}")?;
    }
    writeln!(stdout, "overlay       {}", path(file_name(ArtifactKind::Overlay)))?;
    writeln!(stdout, "receipt       {}", path(file_name(ArtifactKind::Receipt)))?;
    let finetune = seconds.finetune.unwrap_or_default();
    writeln!(stdout, "time          {:.1} s, of which fine-tuning {finetune:.1} s", seconds.total())?;
    Ok(())
}

/// Says on stderr how far it is: a bar on a terminal, else a line at every tenth of the way.
struct Progress {
    bar: ProgressBar,
    is_terminal: bool,
    objects: usize,
    /// The one at work, from 1.
    object: u64,
}

impl Progress {
    fn new(steps: u32, objects: usize) -> Self {
        let style =
            ProgressStyle::with_template("step {pos}/{len} {wide_bar} {msg} {eta} left").expect("a constant template is valid");
        let bar = ProgressBar::new(u64::from(steps) * objects as u64).with_style(style);
        Self { bar, is_terminal: std::io::stderr().is_terminal(), objects, object: 0 }
    }

    fn show(&mut self, report: &Step<'_>) -> ControlFlow<()> {
        let &Step { step, steps, loss, iou, .. } = report;
        if step == 1 {
            self.object += 1;
        }
        let figures = format!("loss {loss:.4}, IoU {iou:.4}");
        let tenth = steps.div_ceil(10);
        if !self.is_terminal && (step.is_multiple_of(tenth) || step == steps) {
            let which = if self.objects > 1 { format!("object {}, ", self.object) } else { String::new() };
            eprintln!("{which}step {step}/{steps}: {figures}");
        }
        self.bar.set_message(figures);
        self.bar.set_position((self.object - 1) * u64::from(steps) + u64::from(step));
        ControlFlow::Continue(())
    }

    fn finish(self) {
        self.bar.finish_and_clear();
    }
}
