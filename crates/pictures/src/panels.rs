use image::{
    Rgb, RgbImage,
    imageops::{self, FilterType},
};

use crate::text::{CHARACTER, cut, write};

pub(crate) const PAPER: Rgb<u8> = Rgb([255, 255, 255]);
pub(crate) const INK: Rgb<u8> = Rgb([20, 20, 20]);

/// The space around and between panels, in pixels.
pub(crate) const MARGIN: u32 = 12;

/// Text is twice the font's size in captions where there is room, three times in titles.
const CAPTION_SCALE: u32 = 2;
const TITLE_SCALE: u32 = 3;

/// The widest a panel may get, in heights: an image of one row of pixels would make it endless.
const WIDEST: u32 = 4;

/// A picture with words above it.
#[derive(Debug, Clone)]
pub struct Panel {
    /// One line; cut where it is wider than the picture.
    pub caption: String,
    /// Any size; scaled to fit.
    pub picture: RgbImage,
}

/// The panels side by side, scaled to one height in pixels (an extremely wide one to less), each with its caption above it.
pub fn row(panels: &[Panel], height: u32) -> RgbImage {
    let height = height.max(1);
    let pictures: Vec<RgbImage> = panels.iter().map(|panel| scaled(&panel.picture, height, height * WIDEST)).collect();
    let fits = |scale: u32| {
        let fit = |(panel, picture): (&Panel, &RgbImage)| panel.caption.chars().count() <= characters_in(picture.width(), scale);
        panels.iter().zip(&pictures).all(fit)
    };
    let scale = (1..=CAPTION_SCALE).rev().find(|&scale| fits(scale)).unwrap_or(1);
    let top = MARGIN + CAPTION_SCALE * CHARACTER + MARGIN / 2;

    let width = MARGIN + pictures.iter().map(|picture| picture.width() + MARGIN).sum::<u32>();
    let mut paper = RgbImage::from_pixel(width, top + height + MARGIN, PAPER);
    let mut left = MARGIN;
    for (panel, picture) in panels.iter().zip(&pictures) {
        let caption = cut(&panel.caption, characters_in(picture.width(), scale));
        write(&mut paper, left, top - MARGIN / 2 - scale * CHARACTER, &caption, scale, INK);
        imageops::replace(&mut paper, picture, left.into(), top.into());
        left += picture.width() + MARGIN;
    }
    paper
}

/// A contact sheet: the rows one below the other, each under its title.
pub fn sheet(rows: &[(String, RgbImage)]) -> RgbImage {
    let title_height = MARGIN + TITLE_SCALE * CHARACTER;
    let width = rows.iter().map(|(_, row)| row.width()).max().unwrap_or(0).max(2 * MARGIN);
    let height = rows.iter().map(|(_, row)| title_height + row.height()).sum::<u32>().max(1);
    let mut paper = RgbImage::from_pixel(width, height, PAPER);
    let mut top = 0;
    for (title, row) in rows {
        let title = cut(title, characters_in(width - 2 * MARGIN, TITLE_SCALE));
        write(&mut paper, MARGIN, top + MARGIN, &title, TITLE_SCALE, INK);
        imageops::replace(&mut paper, row, 0, (top + title_height).into());
        top += title_height + row.height();
    }
    paper
}

/// How many characters of this scale fit into so many pixels.
pub(crate) fn characters_in(width: u32, scale: u32) -> usize {
    (width / (CHARACTER * scale)) as usize
}

/// The picture at this height, or lower where it would be wider than `widest`.
pub(crate) fn scaled(picture: &RgbImage, height: u32, widest: u32) -> RgbImage {
    if picture.width() == 0 || picture.height() == 0 {
        return RgbImage::from_pixel(height, height, PAPER);
    }
    let by_height = f64::from(height) / f64::from(picture.height());
    let by_width = f64::from(widest) / f64::from(picture.width());
    let side = |pixels: u32| ((f64::from(pixels) * by_height.min(by_width)).round() as u32).max(1);
    imageops::resize(picture, side(picture.width()), side(picture.height()), FilterType::Triangle)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: Rgb<u8> = Rgb([255, 0, 0]);
    const BLUE: Rgb<u8> = Rgb([0, 0, 255]);

    fn panel(caption: &str, width: u32, height: u32, color: Rgb<u8>) -> Panel {
        Panel { caption: caption.into(), picture: RgbImage::from_pixel(width, height, color) }
    }

    fn area(picture: &RgbImage, color: Rgb<u8>) -> usize {
        picture.pixels().filter(|pixel| **pixel == color).count()
    }

    #[test]
    fn a_row_shows_every_panel_at_one_height_and_its_own_shape() {
        let row = row(&[panel("tall", 50, 100, RED), panel("wide", 400, 200, BLUE)], 100);
        assert_eq!((area(&row, RED), area(&row, BLUE)), (50 * 100, 200 * 100));
        assert_eq!(row.width(), 50 + 200 + 3 * MARGIN);
    }

    #[test]
    fn a_caption_stands_above_its_own_panel_only() {
        let row = row(&[panel("", 100, 100, RED), panel("mask", 100, 100, BLUE)], 100);
        let ink: Vec<(u32, u32)> = row.enumerate_pixels().filter(|(_, _, p)| **p == INK).map(|(x, y, _)| (x, y)).collect();
        let second_panel = MARGIN + 100 + MARGIN;
        assert!(!ink.is_empty());
        assert!(ink.iter().all(|&(x, y)| x >= second_panel && y < row.height() - MARGIN - 100));
    }

    #[test]
    fn a_caption_too_long_for_its_panel_stays_above_it() {
        let row = row(&[panel("a caption far too long", 50, 50, RED), panel("", 100, 50, BLUE)], 50);
        let ink = row.enumerate_pixels().filter(|(_, _, p)| **p == INK).map(|(x, _, _)| x).max();
        assert!(ink.is_some_and(|x| x < MARGIN + 50));
    }

    #[test]
    fn a_picture_of_one_row_of_pixels_does_not_make_an_endless_panel() {
        let row = row(&[panel("", 10_000, 1, RED)], 100);
        assert_eq!(row.width(), 100 * WIDEST + 2 * MARGIN);
        assert!(area(&row, RED) > 0);
    }

    #[test]
    fn a_sheet_holds_all_rows_and_is_as_wide_as_the_widest() {
        let rows = [("one".into(), RgbImage::from_pixel(300, 40, RED)), ("two".into(), RgbImage::from_pixel(200, 60, BLUE))];
        let sheet = sheet(&rows);
        assert_eq!(sheet.width(), 300);
        assert_eq!((area(&sheet, RED), area(&sheet, BLUE)), (300 * 40, 200 * 60));
        assert!(area(&sheet, INK) > 0, "the titles");
    }

    #[test]
    fn nothing_to_show_is_an_empty_sheet() {
        assert!(sheet(&[]).pixels().all(|pixel| *pixel == PAPER));
        assert!(row(&[], 100).pixels().all(|pixel| *pixel == PAPER));
    }
}
