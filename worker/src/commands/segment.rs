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
use indicatif::{ProgressBar, ProgressStyle};
use ledger::ArtifactKind;
use segmenter::{Checkpoint, DecodedImage, ImageLimits, Segmenter, StepReport, decode_image, set_threads};
use tempfile::NamedTempFile;

use crate::{
    artifacts::{self, ArtifactFile, file_name},
    cli::{ModelArgs, SegmentArgs},
    errors::Failure,
    receipt::{Figures, Receipt, StageSeconds, VERSION},
};

/// Segments one image. Everything that may be wrong with the input is looked at before the model is built.
pub fn segment(arguments: &SegmentArgs) -> Result<(), Failure> {
    let points = arguments.points().map_err(Failure::bad_input)?;
    let parameters = arguments.parameters().map_err(Failure::bad_input)?;
    let started = Instant::now();
    let image = read_image(&arguments.image).map_err(Failure::bad_input)?;
    let decode_seconds = started.elapsed().as_secs_f64();
    points.check_inside(image.rgb.width(), image.rgb.height()).map_err(Failure::bad_input)?;
    prepare_folder(&arguments.out).map_err(Failure::bad_input)?;
    let mut segmenter = load_model(&arguments.model).map_err(Failure::bad_input)?;

    let progress = Progress::new(parameters.steps);
    let segmentation =
        segmenter.segment(&image.rgb, &points, &parameters, &mut |step| progress.show(step)).map_err(|error| match error {
            error if error.is_transient() => Failure::Failed(error.into()),
            error => Failure::bad_input(error),
        })?;
    progress.finish();

    let mut receipt = Receipt {
        version: VERSION,
        image: (&image).into(),
        checkpoint_sha256: segmenter.checkpoint_sha256().into(),
        device: arguments.model.device.to_string(),
        parameters,
        points,
        figures: (&segmentation).into(),
        seconds: StageSeconds { decode: decode_seconds, ..segmentation.seconds.into() },
        job: None,
    };
    let files = artifacts::encode(&image.rgb, &segmentation, &mut receipt)?;
    write_files(&arguments.out, &files)?;
    report(arguments, &receipt)?;
    Ok(())
}

fn read_image(path: &Path) -> anyhow::Result<DecodedImage> {
    let limits = ImageLimits::default();
    let shown = path.display();
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow!("the image {shown} does not exist; check --image"),
        _ => anyhow!("cannot read the image {shown}: {error}"),
    })?;
    if !metadata.is_file() {
        return Err(anyhow!("the image {shown} is not a file; give --image one PNG, JPEG or TIFF"));
    }
    // A sparse file of a terabyte must not be read to learn that it is too large.
    if metadata.len() > limits.bytes as u64 {
        return Err(anyhow!("the image {shown} has {} bytes, expected at most {}", metadata.len(), limits.bytes));
    }
    let bytes = fs::read(path).with_context(|| format!("cannot read the image {shown}"))?;
    decode_image(&bytes, &limits).with_context(|| format!("cannot use the image {shown}"))
}

/// Makes the folder and proves that it takes files, before minutes of computing are lost for want of it.
fn prepare_folder(folder: &Path) -> anyhow::Result<()> {
    let cannot_write = || format!("cannot write to the output folder {}; choose another --out", folder.display());
    fs::create_dir_all(folder).with_context(cannot_write)?;
    tempfile::tempfile_in(folder).with_context(cannot_write)?;
    Ok(())
}

fn load_model(arguments: &ModelArgs) -> anyhow::Result<Segmenter> {
    if let Some(threads) = arguments.threads {
        set_threads(threads.into());
    }
    let checkpoint = Checkpoint::read(&arguments.checkpoint)?;
    Ok(Segmenter::new(&checkpoint, arguments.device)?)
}

/// All files are written beside their places first and then renamed, the receipt last: a place never holds half a file, and a
/// folder with a receipt holds what it speaks of.
fn write_files(folder: &Path, files: &[ArtifactFile; 4]) -> anyhow::Result<()> {
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
        temporary.persist(folder.join(file.name())).map_err(|error| error.error).with_context(cannot_write)?;
    }
    Ok(())
}

fn report(arguments: &SegmentArgs, receipt: &Receipt) -> anyhow::Result<()> {
    let Receipt { image, figures, seconds, .. } = receipt;
    let Figures { losses, ious, best_step, iou, warnings } = figures;
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    let place = |kind: ArtifactKind| arguments.out.join(file_name(kind)).display().to_string();
    let mut stdout = std::io::stdout().lock();
    if arguments.json {
        let answer = serde_json::json!({
            "mask": place(ArtifactKind::Mask),
            "initial_mask": place(ArtifactKind::InitialMask),
            "losses": losses,
            "ious": ious,
            "best_step": best_step,
            "iou": iou,
            "seconds": seconds,
        });
        writeln!(stdout, "{answer}")?;
        return Ok(());
    }
    writeln!(stdout, "mask          {} ({} x {})", place(ArtifactKind::Mask), image.width, image.height)?;
    writeln!(stdout, "initial mask  {}", place(ArtifactKind::InitialMask))?;
    writeln!(stdout, "overlay       {}", place(ArtifactKind::Overlay))?;
    writeln!(stdout, "receipt       {}", place(ArtifactKind::Receipt))?;
    match best_step {
        0 => writeln!(stdout, "best step     none: the answer is the initial mask")?,
        _ => writeln!(stdout, "best step     {best_step} of {}, IoU with the initial mask {iou:.4}", losses.len())?,
    }
    writeln!(stdout, "time          {:.1} s, of which fine-tuning {:.1} s", seconds.total(), seconds.finetune)?;
    Ok(())
}

/// Says on stderr how far it is: a bar on a terminal, else a line at every tenth of the way.
struct Progress {
    bar: ProgressBar,
    is_terminal: bool,
}

impl Progress {
    fn new(steps: u32) -> Self {
        let style =
            ProgressStyle::with_template("step {pos}/{len} {wide_bar} {msg} {eta} left").expect("a constant template is valid");
        let bar = ProgressBar::new(steps.into()).with_style(style);
        Self { bar, is_terminal: std::io::stderr().is_terminal() }
    }

    fn show(&self, report: StepReport) -> ControlFlow<()> {
        let StepReport { step, steps, loss, iou } = report;
        let figures = format!("loss {loss:.4}, IoU {iou:.4}");
        let tenth = steps.div_ceil(10);
        if !self.is_terminal && (step.is_multiple_of(tenth) || step == steps) {
            eprintln!("step {step}/{steps}: {figures}");
        }
        self.bar.set_message(figures);
        self.bar.set_position(step.into());
        ControlFlow::Continue(())
    }

    fn finish(self) {
        self.bar.finish_and_clear();
    }
}
