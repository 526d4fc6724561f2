use std::{
    fs,
    io::Write as _,
    iter,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use image::{
    DynamicImage, GrayImage, RgbImage,
    imageops::{self, FilterType},
};
use pictures::{CONTOUR_COLOR, Panel};
use request::{Label, Point, Points, S3Uri};
use serde::Deserialize;

use crate::images::DemoImage;

/// The height of the pictures in a row, in pixels.
const PANEL_HEIGHT: u32 = 420;

/// What the demo needs of a job that `dispatcher watch --json` prints.
#[derive(Debug, Deserialize)]
pub struct Job {
    #[serde(rename = "user_id")]
    name: String,
    objects: Vec<Object>,
    parameters: Steps,
    state: String,
    error: Option<Failure>,
    /// Of a job that succeeded.
    pub result: Option<JobResult>,
}

#[derive(Debug, Deserialize)]
struct Object {
    points: Points,
    mask: Option<Mask>,
}

#[derive(Debug, Deserialize)]
struct Mask {
    iou: f64,
    best_step: u32,
}

#[derive(Debug, Deserialize)]
struct Steps {
    steps: u32,
}

#[derive(Debug, Deserialize)]
struct Failure {
    message: String,
}

/// What a job made.
#[derive(Debug, Deserialize)]
pub struct JobResult {
    artifacts: Vec<Artifact>,
    seconds: f64,
}

#[derive(Debug, Deserialize)]
struct Artifact {
    kind: String,
    uri: S3Uri,
}

impl Job {
    /// Which image has no mask and why.
    pub fn describe_failure(&self) -> String {
        let reason = self.error.as_ref().map_or("no reason is known", |error| &error.message);
        format!("{} {}: {reason}", self.name, self.state)
    }

    /// The demo asks for one object an image.
    fn points(&self) -> &Points {
        &self.objects[0].points
    }

    fn mask(&self) -> Option<&Mask> {
        self.objects[0].mask.as_ref()
    }

    fn dots(&self) -> String {
        format!("{}+ {}-", self.points().of(Label::Positive).count(), self.points().of(Label::Negative).count())
    }
}

/// One line an image, on stdout.
pub fn print_table(jobs: &[Job]) -> anyhow::Result<()> {
    std::io::stdout().write_all(table(jobs).as_bytes())?;
    Ok(())
}

fn table(jobs: &[Job]) -> String {
    let head = format!("{:<14}{:>7}{:>12}{:>12}{:>9}\n", "image", "dots", "IoU with J", "best step", "seconds");
    let line = |job: &Job| {
        let figures = job.result.as_ref().zip(job.mask()).map_or_else(
            || format!("  {}", job.state),
            |(result, mask)| {
                let step = format!("{}/{}", mask.best_step, job.parameters.steps);
                format!("{:>12.3}{step:>12}{:>9.1}", mask.iou, result.seconds)
            },
        );
        format!("{:<14}{:>7}{figures}\n", job.name, job.dots())
    };
    iter::once(head).chain(jobs.iter().map(line)).collect()
}

/// Draws a row for every job that succeeded and a contact sheet of all rows.
pub fn write_pictures(images: &[DemoImage], jobs: &[Job], cache: &Path, store: &Path, out: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let mut rows = Vec::new();
    for job in jobs {
        let Some(result) = &job.result else { continue };
        let image = images.iter().find(|image| image.name == job.name).context("a job of an image nobody submitted")?;
        let picture = read(&cache.join(image.file_name()))?;
        let mask = read(&place(result, "mask", store)?)?.into_luma8();
        let initial_mask = read(&place(result, "initial_mask", store)?)?.into_luma8();
        let row = row(job, &displayed(picture), &initial_mask, &mask);
        save(&row, &out.join(format!("{}.png", job.name)))?;
        rows.push((format!("{}: {}", job.name, image.shows), row));
    }
    save(&pictures::sheet(&rows), &out.join("contact-sheet.png"))
}

fn row(job: &Job, picture: &RgbImage, initial_mask: &GrayImage, mask: &GrayImage) -> RgbImage {
    // Scaled before anything is drawn on them: dots and lines have one size, however small or large the image.
    let scale = f64::from(PANEL_HEIGHT) / f64::from(picture.height());
    let width = ((f64::from(picture.width()) * scale).round() as u32).max(1);
    let picture = imageops::resize(picture, width, PANEL_HEIGHT, FilterType::Triangle);
    let mask = imageops::resize(mask, width, PANEL_HEIGHT, FilterType::Nearest);
    let (content_width, content_height) = content_size(picture.dimensions(), initial_mask.width());
    let content = imageops::crop_imm(initial_mask, 0, 0, content_width, content_height).to_image();
    let panels = [
        Panel { caption: format!("dots: {}", job.dots()), picture: pictures::with_dots(&picture, &scaled(job.points(), scale)) },
        Panel { caption: "J, from the dots".into(), picture: DynamicImage::from(content).into_rgb8() },
        Panel {
            caption: job.mask().map(|mask| format!("mask: IoU with J {:.2}", mask.iou)).unwrap_or_default(),
            picture: pictures::with_contour(&picture, &mask, CONTOUR_COLOR),
        },
    ];
    pictures::row(&panels, PANEL_HEIGHT)
}

fn scaled(points: &Points, scale: f64) -> Points {
    let scaled = points.as_slice().iter().map(|point| Point { x: point.x * scale, y: point.y * scale, label: point.label });
    Points::new(scaled.collect()).expect("points stay points at another scale")
}

/// J covers the model's square input: the image in its upper left corner, and padding. The part that is the image.
fn content_size((width, height): (u32, u32), side: u32) -> (u32, u32) {
    let scale = f64::from(side) / f64::from(width.max(height).max(1));
    let scaled = |pixels: u32| ((f64::from(pixels) * scale).round() as u32).clamp(1, side);
    (scaled(width), scaled(height))
}

/// 16 bits are stretched to the image's own range, for they seldom use the whole.
fn displayed(picture: DynamicImage) -> RgbImage {
    let DynamicImage::ImageLuma16(grey) = picture else { return picture.into_rgb8() };
    let mut values = grey.as_raw().clone();
    values.sort_unstable();
    // A few hot pixels would leave the rest black.
    let rank = values.len() / 1_000;
    let (low, high) = (f32::from(values[rank]), f32::from(values[values.len() - 1 - rank]));
    let stretch = |value: u16| ((f32::from(value) - low) / (high - low).max(1.0) * 255.0).clamp(0.0, 255.0) as u8;
    RgbImage::from_fn(grey.width(), grey.height(), |x, y| image::Rgb([stretch(grey.get_pixel(x, y).0[0]); 3]))
}

/// Where the demo's store keeps an object of a result: a folder per bucket, a file per key.
fn place(result: &JobResult, kind: &str, store: &Path) -> anyhow::Result<PathBuf> {
    let artifact = result.artifacts.iter().find(|artifact| artifact.kind == kind);
    let uri = &artifact.with_context(|| format!("a result without {kind}"))?.uri;
    Ok(store.join(uri.bucket()).join(uri.key()))
}

fn read(path: &Path) -> anyhow::Result<DynamicImage> {
    let picture = image::open(path).with_context(|| format!("cannot read the picture {}", path.display()))?;
    ensure!(picture.width() > 0 && picture.height() > 0, "{} is empty", path.display());
    Ok(picture)
}

fn save(picture: &RgbImage, path: &Path) -> anyhow::Result<()> {
    picture.save(path).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use image::{ImageBuffer, Luma};

    use super::*;

    fn jobs() -> Vec<Job> {
        let json = r#"[
            {"id": "x", "user_id": "glands", "state": "succeeded", "error": null,
             "objects": [{"points": [[10, 10, 1], [30, 5, 0], [31, 5, 0]], "mask": {"iou": 0.91234, "best_step": 97}}],
             "parameters": {"steps": 100, "learning_rate": 1e-5, "recipe": "paper"},
             "result": {"seconds": 17.06, "artifacts": [
                {"kind": "mask", "uri": "s3://masks/b/j/1/mask.png", "sha256": "", "bytes": 1},
                {"kind": "initial_mask", "uri": "s3://masks/b/j/1/initial_mask.png", "sha256": "", "bytes": 1}]}},
            {"id": "y", "user_id": "cell", "objects": [{"points": [[1, 2, 1]], "mask": null}], "state": "failed", "result": null,
             "parameters": {"steps": 100, "learning_rate": 1e-5, "recipe": "paper"},
             "error": {"class": "permanent", "message": "the image is empty"}}
        ]"#;
        serde_json::from_str(json).expect("as the dispatcher writes it")
    }

    #[test]
    fn the_table_has_a_line_for_every_image_and_says_what_failed() {
        let jobs = jobs();
        let table = table(&jobs);
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["glands", "1+", "2-", "0.912", "97/100", "17.1"]);
        assert_eq!(lines[2], ["cell", "1+", "0-", "failed"]);
        assert_eq!(jobs[1].describe_failure(), "cell failed: the image is empty");
    }

    #[test]
    fn draws_a_row_for_each_mask_and_a_sheet_of_all() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, store, out) = (folder.path().join("cache"), folder.path().join("store"), folder.path().join("out"));
        let result = store.join("masks/b/j/1");
        for made in [&cache, &result] {
            fs::create_dir_all(made).unwrap();
        }
        RgbImage::new(40, 20).save(cache.join("a.png")).unwrap();
        GrayImage::new(40, 20).save(result.join("mask.png")).unwrap();
        GrayImage::new(8, 8).save(result.join("initial_mask.png")).unwrap();
        let image = serde_json::json!({
            "name": "glands", "shows": "glands", "package": "p==1", "path": "p/a.png", "sha256": "", "points": [[1, 2, 1]]
        });
        write_pictures(&[serde_json::from_value(image).unwrap()], &jobs(), &cache, &store, &out).unwrap();
        let (row, sheet) = (read(&out.join("glands.png")).unwrap(), read(&out.join("contact-sheet.png")).unwrap());
        assert!(row.width() > 3 * 2 * PANEL_HEIGHT, "three panels, twice as wide as high");
        assert!(sheet.height() > row.height());
        assert!(!out.join("cell.png").exists());
    }

    #[test]
    fn takes_the_images_part_out_of_the_models_square() {
        assert_eq!(content_size((500, 300), 256), (256, 154));
        assert_eq!(content_size((100, 1_000), 256), (26, 256));
        assert_eq!(content_size((1, 10_000), 256), (1, 256));
    }

    #[test]
    fn a_16_bit_picture_is_shown_over_its_own_range() {
        let grey = ImageBuffer::from_fn(100, 100, |x, _| Luma([1_000 + x as u16]));
        let shown = displayed(DynamicImage::ImageLuma16(grey));
        assert_eq!((shown.get_pixel(0, 0).0, shown.get_pixel(99, 0).0), ([0; 3], [255; 3]));
    }
}
