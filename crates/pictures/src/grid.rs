use image::{Rgb, RgbImage, imageops};

use crate::{
    panels::{INK, MARGIN, PAPER, characters_in, scaled},
    text::{CHARACTER, cut, write},
};

const GREY: Rgb<u8> = Rgb([225, 225, 225]);

/// Words are twice the font's size: above a column, left above a row, under a picture.
const SCALE: u32 = 2;
const LINE: u32 = SCALE * CHARACTER + MARGIN / 2;

/// What a row takes besides its pictures: its title above them and the notes below.
const ROW_WORDS: u32 = MARGIN + LINE + MARGIN / 2 + LINE;

/// Pictures of one subject, one a column.
#[derive(Debug, Clone)]
pub struct GridRow {
    /// One line above the row; cut where it is wider than the grid.
    pub title: String,
    /// From the left; a column without a picture is left grey.
    pub cells: Vec<Option<Cell>>,
}

/// A picture with words below it.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Any size; scaled to fit its column's square.
    pub picture: RgbImage,
    /// One line; cut where it is wider than the column.
    pub note: String,
}

/// A figure of rows and columns: a title above every column and every row, each picture within a square of `side` pixels (of one row's
/// pictures the tallest sets its height), its note below it.
pub fn grid(columns: &[&str], rows: &[GridRow], side: u32) -> RgbImage {
    let side = side.max(1);
    let lefts: Vec<u32> = (0..).map(|column| MARGIN + column * (side + MARGIN)).take(columns.len()).collect();
    let width = MARGIN + lefts.last().map_or(0, |left| left + side);
    let rows: Vec<ScaledRow> = rows.iter().map(|row| ScaledRow::of(row, columns.len(), side)).collect();
    let height = MARGIN + LINE + rows.iter().map(|row| row.pictures_height + ROW_WORDS).sum::<u32>();
    let mut paper = RgbImage::from_pixel(width, height, PAPER);

    let fit = characters_in(side, SCALE);
    for (left, title) in lefts.iter().zip(columns) {
        write(&mut paper, *left, MARGIN, &cut(title, fit), SCALE, INK);
    }
    let mut top = MARGIN + LINE;
    for row in &rows {
        write(&mut paper, MARGIN, top + MARGIN, &cut(row.title, characters_in(width - MARGIN, SCALE)), SCALE, INK);
        let pictures_top = top + MARGIN + LINE;
        for (&left, cell) in lefts.iter().zip(&row.cells) {
            let Some((picture, note)) = cell else {
                let nothing = RgbImage::from_pixel(side, row.pictures_height, GREY);
                imageops::replace(&mut paper, &nothing, left.into(), pictures_top.into());
                continue;
            };
            let (right, down) = ((side - picture.width()) / 2, (row.pictures_height - picture.height()) / 2);
            imageops::replace(&mut paper, picture, (left + right).into(), (pictures_top + down).into());
            write(&mut paper, left, pictures_top + row.pictures_height + MARGIN / 2, &cut(note, fit), SCALE, INK);
        }
        top += row.pictures_height + ROW_WORDS;
    }
    paper
}

struct ScaledRow<'a> {
    title: &'a str,
    cells: Vec<Option<(RgbImage, &'a str)>>,
    pictures_height: u32,
}

impl<'a> ScaledRow<'a> {
    fn of(GridRow { title, cells }: &'a GridRow, columns: usize, side: u32) -> Self {
        let scale = |cell: &'a Cell| (scaled(&cell.picture, side, side), cell.note.as_str());
        let mut cells: Vec<_> = cells.iter().take(columns).map(|cell| cell.as_ref().map(scale)).collect();
        cells.resize_with(columns, || None);
        let pictures_height = cells.iter().flatten().map(|(picture, _)| picture.height()).max().unwrap_or(side);
        Self { title, cells, pictures_height }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: Rgb<u8> = Rgb([255, 0, 0]);

    fn cell(width: u32, height: u32, note: &str) -> Cell {
        Cell { picture: RgbImage::from_pixel(width, height, RED), note: note.into() }
    }

    fn area(picture: &RgbImage, color: Rgb<u8>) -> usize {
        picture.pixels().filter(|pixel| **pixel == color).count()
    }

    #[test]
    fn every_picture_keeps_its_shape_within_its_square() {
        let row = GridRow {
            title: String::new(),
            cells: vec![Some(cell(50, 100, "")), Some(cell(400, 200, "")), Some(cell(7, 7, ""))],
        };
        let figure = grid(&["a", "b", "c"], &[row], 100);
        assert_eq!(area(&figure, RED), 50 * 100 + 100 * 50 + 100 * 100);
        assert_eq!(figure.width(), MARGIN + 3 * (100 + MARGIN));
    }

    #[test]
    fn a_note_stands_below_its_own_picture() {
        let figure = |note| {
            grid(&["", ""], &[GridRow { title: String::new(), cells: vec![Some(cell(9, 9, "")), Some(cell(9, 9, note))] }], 100)
        };
        let ink: Vec<_> = figure("0.812").enumerate_pixels().filter(|(_, _, p)| **p == INK).map(|(x, y, _)| (x, y)).collect();
        let bottom = MARGIN + LINE + MARGIN + LINE + 100;
        assert!(!ink.is_empty() && ink.iter().all(|&(x, y)| x >= 100 + 2 * MARGIN && y >= bottom));
        assert_eq!(area(&figure(""), INK), 0);
    }

    #[test]
    fn what_is_missing_is_grey_and_the_columns_stay() {
        let rows = [
            GridRow { title: "all".into(), cells: vec![None, Some(cell(10, 10, ""))] },
            GridRow { title: "none".into(), cells: vec![] },
        ];
        let figure = grid(&["a", "b"], &rows, 50);
        assert_eq!((area(&figure, GREY), area(&figure, RED)), (3 * 50 * 50, 50 * 50));
        assert!(figure.enumerate_pixels().all(|(x, _, pixel)| *pixel != RED || x >= 50 + 2 * MARGIN));
    }

    #[test]
    fn a_row_of_wide_pictures_is_as_low_as_they_are() {
        let row = GridRow { title: String::new(), cells: vec![Some(cell(200, 50, "x")), Some(cell(200, 100, "y"))] };
        assert_eq!(grid(&["a", "b"], &[row], 80).height(), MARGIN + LINE + 40 + ROW_WORDS);
    }

    #[test]
    fn rows_add_to_the_height_alone() {
        let row = |title: &str| GridRow { title: title.into(), cells: vec![Some(cell(4, 4, "x"))] };
        let (one, two) = (grid(&["a"], &[row("1")], 60), grid(&["a"], &[row("1"), row("2")], 60));
        assert_eq!(one.width(), two.width());
        assert_eq!(two.height() - one.height(), 60 + ROW_WORDS);
    }
}
