//! Outlines of objects, drawn by hand in `Aperio ImageScope`, to a mask.

use image::{GrayImage, Luma};
use roxmltree::{Document, Node};

/// A closed outline: its corners' x and y in pixels, (0, 0) the top left corner of the top left pixel.
type Outline = Vec<(f64, f64)>;

/// The union of the outlines in `Annotations/Annotation/Regions/Region/Vertices/Vertex`, 255 inside, at the size of their image.
pub(super) fn mask(xml: &[u8], (width, height): (u32, u32)) -> Result<GrayImage, String> {
    let text = str::from_utf8(xml).map_err(|_| "it is no UTF-8 text".to_owned())?;
    let document = Document::parse(text).map_err(|error| error.to_string())?;
    if !document.root_element().has_tag_name("Annotations") {
        let name = document.root_element().tag_name().name();
        return Err(format!("its root is <{name}>, expected <Annotations> of Aperio ImageScope"));
    }
    let mut mask = GrayImage::new(width, height);
    for region in document.descendants().filter(|node| node.has_tag_name("Region")) {
        let vertices = region.descendants().filter(|node| node.has_tag_name("Vertex"));
        let outline =
            vertices.map(|vertex| Ok((number(&vertex, "X")?, number(&vertex, "Y")?))).collect::<Result<Outline, String>>()?;
        fill(&mut mask, &outline);
    }
    Ok(mask)
}

fn number(vertex: &Node<'_, '_>, name: &str) -> Result<f64, String> {
    let value = vertex.attribute(name).and_then(|text| text.trim().parse::<f64>().ok()).filter(|value| value.is_finite());
    let position = vertex.document().text_pos_at(vertex.range().start);
    value.ok_or_else(|| format!("the <Vertex> at line {} has no number {name}", position.row))
}

/// Fills the pixels whose centres are inside the outline, by the even-odd rule; what is outside the mask is cut off.
fn fill(mask: &mut GrayImage, outline: &[(f64, f64)]) {
    let (Some(top), Some(bottom)) =
        (outline.iter().map(|corner| corner.1).reduce(f64::min), outline.iter().map(|corner| corner.1).reduce(f64::max))
    else {
        return;
    };
    // A float below zero becomes 0, as `as` saturates.
    for row in top as u32..(bottom.ceil() as u32).min(mask.height()) {
        let centre = f64::from(row) + 0.5;
        let mut crossings: Vec<f64> = outline
            .iter()
            .zip(outline.iter().cycle().skip(1))
            .filter(|(from, to)| (from.1 <= centre) != (to.1 <= centre))
            .map(|(from, to)| from.0 + (centre - from.1) / (to.1 - from.1) * (to.0 - from.0))
            .collect();
        crossings.sort_by(f64::total_cmp);
        for span in crossings.chunks_exact(2) {
            // The first pixel whose centre is at or right of a crossing.
            let pixel = |x: f64| ((x - 0.5).ceil() as u32).min(mask.width());
            for column in pixel(span[0])..pixel(span[1]) {
                mask.put_pixel(column, row, Luma([255]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xml(outlines: &[&[(f64, f64)]]) -> String {
        use std::fmt::Write as _;
        let mut text =
            String::from("<?xml version=\"1.0\"?>\n<Annotations MicronsPerPixel=\"0.25\"><Annotation Id=\"1\"><Regions>\n");
        for outline in outlines {
            text.push_str("<Region Id=\"1\"><Vertices>");
            for (x, y) in *outline {
                writeln!(text, "<Vertex X=\"{x}\" Y=\"{y}\" Z=\"0\"/>").unwrap();
            }
            text.push_str("</Vertices></Region>");
        }
        text + "</Regions></Annotation></Annotations>"
    }

    /// Rows of `#` and `.`.
    fn drawn(outlines: &[&[(f64, f64)]], size: (u32, u32)) -> Vec<String> {
        let mask = mask(xml(outlines).as_bytes(), size).unwrap();
        mask.rows().map(|row| row.map(|pixel| if pixel[0] == 255 { '#' } else { '.' }).collect()).collect()
    }

    #[test]
    fn fills_the_pixels_whose_centres_are_inside() {
        assert_eq!(drawn(&[&[(1.0, 1.0), (4.0, 1.0), (4.0, 3.0), (1.0, 3.0)]], (5, 4)), [".....", ".###.", ".###.", "....."]);
        assert_eq!(drawn(&[&[(0.6, 0.0), (2.4, 0.0), (2.4, 1.0), (0.6, 1.0)]], (4, 1)), [".#.."]);
        // The diagonal passes through centres, which are not left of it.
        assert_eq!(drawn(&[&[(0.0, 0.0), (4.0, 0.0), (0.0, 4.0)]], (4, 4)), ["###.", "##..", "#...", "...."]);
    }

    #[test]
    fn neighbours_that_share_an_edge_share_no_pixel_and_leave_none() {
        let (left, right) = ([(0.0, 0.0), (2.5, 0.0), (1.5, 3.0), (0.0, 3.0)], [(2.5, 0.0), (4.0, 0.0), (4.0, 3.0), (1.5, 3.0)]);
        let count = |rows: Vec<String>| rows.concat().matches('#').count();
        assert_eq!(count(drawn(&[&left], (4, 3))) + count(drawn(&[&right], (4, 3))), 12);
        assert_eq!(count(drawn(&[&left, &right], (4, 3))), 12);
    }

    #[test]
    fn cuts_off_what_is_outside_and_ignores_outlines_without_area() {
        assert_eq!(drawn(&[&[(-5.0, -5.0), (9.0, -5.0), (9.0, 9.0), (-5.0, 9.0)]], (2, 2)), ["##", "##"]);
        assert_eq!(
            drawn(&[&[], &[(1.0, 1.0)], &[(0.0, 0.0), (2.0, 2.0)], &[(8.0, 8.0), (9.0, 8.0), (9.0, 9.0)]], (2, 2)),
            ["..", ".."]
        );
    }

    #[test]
    fn says_where_the_file_does_not_hold_together() {
        let refusal = |text: &str| mask(text.as_bytes(), (2, 2)).unwrap_err();
        assert!(refusal("<Annotations>").contains("closed"), "{}", refusal("<Annotations>"));
        assert!(refusal("<html/>").contains("its root is <html>"));
        let vertex = xml(&[&[(1.0, 2.0), (2.0, 2.0)]]).replace("X=\"2\"", "X=\"two\"");
        assert_eq!(refusal(&vertex), "the <Vertex> at line 4 has no number X");
        assert!(mask(b"\xff", (2, 2)).is_err());
    }
}
