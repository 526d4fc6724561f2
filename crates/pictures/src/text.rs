use font8x8::{BASIC_FONTS, LATIN_FONTS, UnicodeFonts};
use image::{Rgb, RgbImage};

use crate::paint::paint;

/// Pixels a character takes each way, at scale 1.
pub(crate) const CHARACTER: u32 = 8;

/// Writes one line with its top left corner at (left, top); each of the font's pixels is `scale` pixels wide and high.
pub(crate) fn write(image: &mut RgbImage, left: u32, top: u32, text: &str, scale: u32, color: Rgb<u8>) {
    for (index, character) in (0..).zip(text.chars()) {
        let left = left + index * CHARACTER * scale;
        if left >= image.width() {
            return;
        }
        for (row, bits) in (0..).zip(glyph(character)) {
            for column in (0..CHARACTER).filter(|column| bits >> column & 1 == 1) {
                for (x, y) in (0..scale * scale).map(|pixel| (pixel % scale, pixel / scale)) {
                    let (x, y) = (left + column * scale + x, top + row * scale + y);
                    paint(image, x.into(), y.into(), color, 1.0);
                }
            }
        }
    }
}

/// Eight rows from the top, the lowest bit leftmost; a question mark for what the font hasn't.
fn glyph(character: char) -> [u8; 8] {
    BASIC_FONTS.get(character).or_else(|| LATIN_FONTS.get(character)).or_else(|| BASIC_FONTS.get('?')).unwrap_or_default()
}

/// The text, cut so that it fits into so many characters; two dots say that it was cut.
pub(crate) fn cut(text: &str, characters: usize) -> String {
    if text.chars().count() <= characters {
        return text.into();
    }
    let kept: String = text.chars().take(characters.saturating_sub(2)).collect();
    format!("{kept}..").chars().take(characters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLACK: Rgb<u8> = Rgb([0, 0, 0]);

    fn written(text: &str, scale: u32) -> Vec<(u32, u32)> {
        let mut image = RgbImage::from_pixel(40, 40, Rgb([255; 3]));
        write(&mut image, 4, 4, text, scale, BLACK);
        image.enumerate_pixels().filter(|(_, _, pixel)| **pixel == BLACK).map(|(x, y, _)| (x, y)).collect()
    }

    #[test]
    fn writes_a_letter_upright_and_not_mirrored() {
        let pixels = written("L", 1);
        let columns = |row: u32| pixels.iter().filter(|pixel| pixel.1 == row).count();
        assert!(columns(4) < columns(10), "an L is wide at its foot");
        let leftmost = |row: u32| pixels.iter().filter(|pixel| pixel.1 == row).map(|pixel| pixel.0).max();
        assert!(leftmost(4) < leftmost(10), "and its foot points right");
    }

    #[test]
    fn scaling_multiplies_the_pixels() {
        assert_eq!(written("a", 2).len(), 4 * written("a", 1).len());
        assert!(!written("a", 1).is_empty());
    }

    #[test]
    fn what_the_font_has_not_becomes_a_question_mark() {
        assert_eq!(written("\u{4e00}", 1), written("?", 1));
        assert_ne!(written("é", 1), written("?", 1));
    }

    #[test]
    fn a_cut_text_says_so() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdef", 5), "abc..");
        assert_eq!(cut("abcdef", 1), ".");
        assert_eq!(cut("abcdef", 0), "");
    }
}
