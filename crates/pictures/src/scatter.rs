use image::{Rgb, RgbImage};

use crate::{
    paint::paint,
    panels::{INK, MARGIN, PAPER, characters_in},
    text::{CHARACTER, cut, write},
};

const BLUE: Rgb<u8> = Rgb([20, 90, 200]);
const GREY: Rgb<u8> = Rgb([170, 170, 170]);

const SCALE: u32 = 2;
const LINE: u32 = SCALE * CHARACTER + MARGIN / 2;

/// A panel's axes, from 0 to 1, in pixels; and what stands left of them: "0.0" and a tick.
const SIDE: u32 = 360;
const LEFT: u32 = 3 * SCALE * CHARACTER + TICK + MARGIN / 2;
const TICK: u32 = 6;
const TICKS: u32 = 5;

/// What a panel takes of the figure, words and axes together.
const PANEL_WIDTH: u32 = LEFT + SIDE + 2 * MARGIN;
const ABOVE: u32 = 2 * (MARGIN + LINE);
const PANEL_HEIGHT: u32 = ABOVE + SIDE + TICK + 2 * LINE + MARGIN;

/// More than so many panels go on below.
const PANELS_A_ROW: u32 = 5;

/// A dot's radius in pixels, and how much of the ground it hides: many in one place look darker.
const RADIUS: f64 = 4.0;
const OPACITY: f64 = 0.5;

/// One setting's scores before and after.
#[derive(Debug, Clone)]
pub struct ScatterPanel {
    /// One line above the panel.
    pub title: String,
    /// (before, after), each within [0, 1]; others are not drawn.
    pub scores: Vec<(f64, f64)>,
}

/// Scores before against scores after, a panel a setting, side by side: above the diagonal is better than before.
pub fn scatter(panels: &[ScatterPanel], before: &str, after: &str) -> RgbImage {
    let panels_count = u32::try_from(panels.len()).expect("a figure has few panels");
    let (width, height) = (panels_count.min(PANELS_A_ROW) * PANEL_WIDTH, panels_count.div_ceil(PANELS_A_ROW) * PANEL_HEIGHT);
    let mut paper = RgbImage::from_pixel(MARGIN + width, height.max(MARGIN), PAPER);
    for (index, panel) in (0..).zip(panels) {
        let panel_left = MARGIN + index % PANELS_A_ROW * PANEL_WIDTH;
        let panel_top = index / PANELS_A_ROW * PANEL_HEIGHT;
        let (left, top) = (panel_left + LEFT, panel_top + ABOVE);
        let fit = characters_in(SIDE, SCALE);
        write(&mut paper, left, panel_top + MARGIN, &cut(&panel.title, fit), SCALE, INK);
        write(&mut paper, panel_left, panel_top + MARGIN + LINE + MARGIN / 2, &cut(after, fit), SCALE, INK);
        let label = cut(before, fit);
        let label_width = u32::try_from(label.chars().count()).expect("cut to fit") * SCALE * CHARACTER;
        write(&mut paper, left + SIDE - label_width, top + SIDE + TICK + LINE + MARGIN / 2, &label, SCALE, INK);
        draw_axes(&mut paper, left, top);
        for &(x, y) in &panel.scores {
            draw_score(&mut paper, left, top, x, y);
        }
    }
    paper
}

fn draw_axes(paper: &mut RgbImage, left: u32, top: u32) {
    for along in 0..=SIDE {
        paint(paper, (left + along).into(), (top + SIDE - along).into(), GREY, 1.0);
        for (x, y) in [(left + along, top), (left + along, top + SIDE), (left, top + along), (left + SIDE, top + along)] {
            paint(paper, x.into(), y.into(), INK, 1.0);
        }
    }
    for tick in 0..=TICKS {
        let along = tick * SIDE / TICKS;
        for out in 0..TICK {
            paint(paper, (left + along).into(), (top + SIDE + out).into(), INK, 1.0);
            paint(paper, i64::from(left) - i64::from(out), (top + SIDE - along).into(), INK, 1.0);
        }
        let number = format!("{:.1}", f64::from(tick) / f64::from(TICKS));
        let half = SCALE * CHARACTER / 2;
        write(paper, left + along - 3 * half, top + SIDE + TICK + MARGIN / 2, &number, SCALE, INK);
        write(paper, left - LEFT, top + SIDE - along - half, &number, SCALE, INK);
    }
}

fn draw_score(paper: &mut RgbImage, left: u32, top: u32, before: f64, after: f64) {
    if !(0.0..=1.0).contains(&before) || !(0.0..=1.0).contains(&after) {
        return;
    }
    let x = f64::from(left) + before * f64::from(SIDE);
    let y = f64::from(top) + (1.0 - after) * f64::from(SIDE);
    let reach = RADIUS as i64 + 1;
    for row in y as i64 - reach..=y as i64 + reach {
        for column in x as i64 - reach..=x as i64 + reach {
            let distance = (column as f64 - x).hypot(row as f64 - y);
            paint(paper, column, row, BLUE, (RADIUS - distance + 0.5).clamp(0.0, 1.0) * OPACITY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(scores: &[(f64, f64)]) -> RgbImage {
        scatter(&[ScatterPanel { title: "3/3".into(), scores: scores.to_vec() }], "J", "fine-tuned")
    }

    /// Where two figures differ: left, right, top and bottom.
    fn difference(one: &RgbImage, other: &RgbImage) -> Option<(u32, u32, u32, u32)> {
        let differing: Vec<(u32, u32)> =
            one.enumerate_pixels().filter(|&(x, y, pixel)| pixel != other.get_pixel(x, y)).map(|(x, y, _)| (x, y)).collect();
        let (left, right) = (differing.iter().map(|p| p.0).min()?, differing.iter().map(|p| p.0).max()?);
        Some((left, right, differing.iter().map(|p| p.1).min()?, differing.iter().map(|p| p.1).max()?))
    }

    #[test]
    fn a_score_stands_right_of_0_by_its_value_before_and_above_0_by_its_value_after() {
        let (left, top) = (MARGIN + LEFT, ABOVE);
        let (x, y) = (left + SIDE / 4, top + SIDE / 2);
        let reach = RADIUS as u32;
        assert_eq!(difference(&drawn(&[]), &drawn(&[(0.25, 0.5)])), Some((x - reach, x + reach, y - reach, y + reach)));
    }

    #[test]
    fn a_score_that_is_none_is_not_drawn() {
        assert_eq!(drawn(&[(f64::NAN, 0.5), (0.5, 1.2), (-0.1, 0.5)]), drawn(&[]));
    }

    #[test]
    fn the_corners_are_within_the_figure() {
        assert_eq!(drawn(&[]).dimensions(), drawn(&[(0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (1.0, 0.0)]).dimensions());
        assert_ne!(drawn(&[]), drawn(&[(1.0, 1.0)]));
    }

    #[test]
    fn panels_stand_side_by_side_and_then_below() {
        let figure = |panels| scatter(&vec![ScatterPanel { title: "1/0".into(), scores: vec![] }; panels], "a", "b").dimensions();
        assert_eq!(figure(1), (MARGIN + PANEL_WIDTH, PANEL_HEIGHT));
        assert_eq!(figure(3), (MARGIN + 3 * PANEL_WIDTH, PANEL_HEIGHT));
        assert_eq!(figure(10), (MARGIN + 5 * PANEL_WIDTH, 2 * PANEL_HEIGHT));
    }
}
