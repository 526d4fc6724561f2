//! The paper's figures, of this evaluation's images.

use std::collections::BTreeMap;

use evaluation::{Row, iou};
use image::{
    DynamicImage, GrayImage, RgbImage,
    imageops::{self, FilterType},
};
use pictures::{Cell, GridRow, ScatterPanel, grid, scatter, with_dots};
use request::{Method, Point, Points, Setting};

/// So many images of each group are shown.
pub const SHOWN_PER_GROUP: usize = 3;

/// The draw of points that is shown.
pub const SHOWN_REPEAT: u32 = 0;

/// A picture's width and height at most, in pixels.
const SIDE: u32 = 256;

/// What figures 1 and 2 compare, from the left, after the input and the truth.
const COMPARED: [(Method, &str); 4] = [
    (Method::SamPoints, "SAM, points"),
    (Method::InitialMask, "initial mask J"),
    (Method::SamMask, "SAM, mask J"),
    (Method::Finetuned, "fine-tuned"),
];

/// An image, its points and the answers to them.
pub struct Shown {
    /// The image's name.
    pub id: String,
    /// The image, at most as large as it is shown.
    image: RgbImage,
    /// Pixels of `image` a pixel of the original.
    scale: f64,
    truth: GrayImage,
    /// The points of each setting.
    pub points: BTreeMap<Setting, Points>,
    /// The answers, of the truth's size.
    pub masks: BTreeMap<(Setting, Method), GrayImage>,
}

impl Shown {
    /// Without points and answers yet.
    pub fn new(id: &str, image: &RgbImage, truth: GrayImage) -> Self {
        let scale = f64::from(SIDE) / f64::from(image.width().max(image.height()));
        let side = |pixels: u32| ((f64::from(pixels) * scale).round() as u32).max(1);
        let image = imageops::resize(image, side(image.width()), side(image.height()), FilterType::Triangle);
        Self { id: id.into(), image, scale, truth, points: BTreeMap::new(), masks: BTreeMap::new() }
    }

    fn input(&self, setting: Setting) -> Option<Cell> {
        let scaled = |point: &Point| Point { x: (point.x + 0.5) * self.scale, y: (point.y + 0.5) * self.scale, ..*point };
        let points = self.points.get(&setting)?.as_slice().iter().map(scaled).collect();
        let points = Points::new(points).expect("as many as before, none left of or above the image");
        Some(Cell { picture: with_dots(&self.image, &points), note: String::new() })
    }

    fn truth(&self) -> Cell {
        Cell { picture: white_on_black(&self.truth), note: String::new() }
    }

    fn answer(&self, setting: Setting, method: Method) -> Option<Cell> {
        let mask = self.masks.get(&(setting, method))?;
        Some(Cell { picture: white_on_black(mask), note: format!("IoU {:.1}", 100.0 * iou(mask, &self.truth).ok()?) })
    }

    /// How much better the initial mask became from these points to those.
    fn gain(&self, from: Setting, to: Setting) -> Option<f64> {
        let iou_of = |setting| iou(self.masks.get(&(setting, Method::InitialMask))?, &self.truth).ok();
        Some(iou_of(to)? - iou_of(from)?)
    }
}

fn white_on_black(mask: &GrayImage) -> RgbImage {
    DynamicImage::ImageLuma8(mask.clone()).into_rgb8()
}

/// Figures 1 and 2: for each image the input with its points, the truth, and the answers beside each other, of the setting with the
/// most points.
pub fn answers(shown: &[Shown], settings: &[Setting]) -> Option<RgbImage> {
    let setting = *settings.iter().max_by_key(|setting| setting.positive() + setting.negative())?;
    let columns: Vec<&str> = ["input", "truth"].into_iter().chain(COMPARED.map(|(_, title)| title)).collect();
    let row = |shown: &Shown| {
        let answers = COMPARED.iter().map(|&(method, _)| shown.answer(setting, method));
        let cells = [shown.input(setting), Some(shown.truth())].into_iter().chain(answers).collect();
        GridRow { title: format!("{}   {setting}", shown.id), cells }
    };
    let rows: Vec<GridRow> = shown.iter().map(row).collect();
    (!rows.is_empty()).then(|| grid(&columns, &rows, SIDE))
}

/// Figure 3: the initial mask with more and more positive points and no negative ones; above, the image on which they helped the most,
/// below, the one on which they helped the least.
pub fn initial_masks(shown: &[Shown], settings: &[Setting]) -> Option<RgbImage> {
    let mut settings: Vec<Setting> = settings.iter().copied().filter(|setting| setting.negative() == 0).collect();
    settings.sort_unstable();
    let (&fewest, &most) = (settings.first()?, settings.last()?);
    if fewest == most {
        return None;
    }
    let mut gains: Vec<(f64, &Shown)> = shown.iter().filter_map(|shown| Some((shown.gain(fewest, most)?, shown))).collect();
    gains.sort_by(|one, other| other.0.total_cmp(&one.0));
    if gains.len() > 2 {
        gains.drain(1..gains.len() - 1);
    }
    let titles = settings.iter().map(|setting| match setting.positive() {
        1 => "1 point".to_owned(),
        points => format!("{points} points"),
    });
    let columns: Vec<String> = ["input".to_owned(), "truth".to_owned()].into_iter().chain(titles).collect();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let row = |&(gain, shown): &(f64, &Shown)| {
        let answers = settings.iter().map(|&setting| shown.answer(setting, Method::InitialMask));
        let cells = [shown.input(most), Some(shown.truth())].into_iter().chain(answers).collect();
        GridRow { title: format!("{}   {:+.1} from {fewest} to {most}", shown.id, 100.0 * gain), cells }
    };
    let rows: Vec<GridRow> = gains.iter().map(row).collect();
    (!rows.is_empty()).then(|| grid(&columns, &rows, SIDE))
}

/// Figure 4: a panel a setting, a dot an image and repeat: right by the Dice of the initial mask, up by the Dice after fine-tuning.
pub fn before_and_after(rows: &[Row], settings: &[Setting]) -> Option<RgbImage> {
    let scores_of = |method: Method| -> BTreeMap<(Setting, &str, u32), f64> {
        let of_method = rows.iter().filter(|row| row.method == method);
        of_method.filter_map(|row| Some(((row.setting, row.case.as_str(), row.repeat), row.scored()?.scores.dice))).collect()
    };
    let (before, after) = (scores_of(Method::InitialMask), scores_of(Method::Finetuned));
    let panel = |&setting: &Setting| {
        let both = before.iter().filter(|(key, _)| key.0 == setting).filter_map(|(key, &dice)| Some((dice, *after.get(key)?)));
        let scores: Vec<(f64, f64)> = both.collect();
        (!scores.is_empty()).then(|| {
            let better = scores.iter().filter(|(before, after)| after > before).count();
            ScatterPanel { title: format!("{setting}  {better} of {} up", scores.len()), scores }
        })
    };
    let panels: Vec<ScatterPanel> = settings.iter().filter_map(panel).collect();
    (!panels.is_empty()).then(|| scatter(&panels, "Dice of J", "Dice after fine-tuning"))
}
