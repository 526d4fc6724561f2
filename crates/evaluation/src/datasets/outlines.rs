//! Outlines of objects, drawn by hand in `Aperio ImageScope`, to a mask.

use image::{GrayImage, Luma};
use images::ImageLimits;
use roxmltree::{Document, Node, ParsingOptions};

/// Elements, and texts between them; an image of MoNuSeg has some hundred thousand.
const MAX_NODES: u32 = 4_000_000;
/// From one `<` to the next, in bytes: the attributes of an element are compared each with each.
const MAX_TAG_BYTES: usize = 64 << 10;

/// A closed outline: its corners' x and y in pixels, (0, 0) the top left corner of the top left pixel.
type Outline = Vec<(f64, f64)>;

/// The union of the outlines in `Annotations/Annotation/Regions/Region/Vertices/Vertex`, 255 inside, at the size of their image. A document
/// type, and with it entities, are refused. The outlines' rows and corners count as decoded bytes do.
pub(super) fn mask(xml: &[u8], (width, height): (u32, u32), limits: &ImageLimits) -> Result<GrayImage, String> {
    let text = str::from_utf8(xml).map_err(|_| "it is no UTF-8 text".to_owned())?;
    if text.split('<').any(|tag| tag.len() > MAX_TAG_BYTES) {
        return Err(format!("a tag or a text in it has more than {MAX_TAG_BYTES} bytes"));
    }
    let options = ParsingOptions { nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).map_err(|error| match error {
        roxmltree::Error::NodesLimitReached => format!("it has more than {MAX_NODES} elements and texts"),
        error => error.to_string(),
    })?;
    if !document.root_element().has_tag_name("Annotations") {
        let name = document.root_element().tag_name().name();
        return Err(format!("its root is <{name}>, expected <Annotations> of Aperio ImageScope"));
    }
    let mut mask = GrayImage::new(width, height);
    let mut work = Work { left: limits.decoded_bytes, limit: limits.decoded_bytes };
    for region in document.descendants().filter(|node| node.has_tag_name("Region")) {
        let mut outline = Outline::new();
        for node in region.descendants() {
            work.take(1)?;
            if node.has_tag_name("Vertex") {
                outline.push((number(&node, "X")?, number(&node, "Y")?));
            }
        }
        fill(&mut mask, &outline, &mut work)?;
    }
    Ok(mask)
}

/// What filling may cost.
struct Work {
    left: u64,
    limit: u64,
}

impl Work {
    fn take(&mut self, steps: u64) -> Result<(), String> {
        let refusal = || format!("its outlines take more than {} steps to fill, the most that is taken", self.limit);
        self.left = self.left.checked_sub(steps).ok_or_else(refusal)?;
        Ok(())
    }
}

fn number(vertex: &Node<'_, '_>, name: &str) -> Result<f64, String> {
    let value = vertex.attribute(name).and_then(|text| text.trim().parse::<f64>().ok()).filter(|value| value.is_finite());
    let position = vertex.document().text_pos_at(vertex.range().start);
    value.ok_or_else(|| format!("the <Vertex> at line {} has no number {name}", position.row))
}

/// Fills the pixels whose centres are inside the outline, by the even-odd rule; what is outside the mask is cut off.
fn fill(mask: &mut GrayImage, outline: &[(f64, f64)], work: &mut Work) -> Result<(), String> {
    let (Some(top), Some(bottom)) =
        (outline.iter().map(|corner| corner.1).reduce(f64::min), outline.iter().map(|corner| corner.1).reduce(f64::max))
    else {
        return Ok(());
    };
    // A float below zero becomes 0, as `as` saturates.
    for row in top as u32..(bottom.ceil() as u32).min(mask.height()) {
        work.take(outline.len() as u64)?;
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
            let columns = pixel(span[0])..pixel(span[1]);
            work.take(columns.len() as u64)?;
            for column in columns {
                mask.put_pixel(column, row, Luma([255]));
            }
        }
    }
    Ok(())
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
        let mask = mask(xml(outlines).as_bytes(), size, &ImageLimits::default()).unwrap();
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
        let refusal = |text: &str| mask(text.as_bytes(), (2, 2), &ImageLimits::default()).unwrap_err();
        assert!(refusal("<Annotations>").contains("closed"), "{}", refusal("<Annotations>"));
        assert!(refusal("<html/>").contains("its root is <html>"));
        let vertex = xml(&[&[(1.0, 2.0), (2.0, 2.0)]]).replace("X=\"2\"", "X=\"two\"");
        assert_eq!(refusal(&vertex), "the <Vertex> at line 4 has no number X");
        assert!(mask(b"\xff", (2, 2), &ImageLimits::default()).is_err());
    }

    #[test]
    fn refuses_what_takes_too_much_however_little_it_looks() {
        let refusal = |text: &str| mask(text.as_bytes(), (100, 100), &ImageLimits::default()).unwrap_err();
        let entities = "<!DOCTYPE Annotations [<!ENTITY a \"aa\"><!ENTITY b \"&a;&a;\">]><Annotations>&b;</Annotations>";
        assert!(refusal(entities).contains("XML with DTD detected"), "{}", refusal(entities));
        let attributes = (0..10_000).map(|number| format!("a{number}=\"\"")).collect::<Vec<_>>().join(" ");
        assert_eq!(refusal(&format!("<Annotations {attributes}/>")), "a tag or a text in it has more than 65536 bytes");
        let many = format!("<Annotations>{}</Annotations>", "<a/>".repeat(4_000_000));
        assert_eq!(refusal(&many), "it has more than 4000000 elements and texts");
        let deep = "<Annotations>".repeat(1_000_000);
        assert!(refusal(&deep).contains("closed"), "{}", refusal(&deep));
    }

    #[test]
    fn counts_what_filling_takes() {
        // Two rows of two pixels and, in each, four corners; the region, the vertices' element, four vertices and a text after each.
        let square = xml(&[&[(0.0, 0.0), (2.0, 0.0), (2.0, 2.0), (0.0, 2.0)]]);
        let filled =
            |decoded_bytes: u64| mask(square.as_bytes(), (4, 4), &ImageLimits { decoded_bytes, ..ImageLimits::default() });
        let steps = 2 * 2 + 2 * 4 + 2 + 2 * 4;
        assert!(filled(steps).is_ok());
        let refusal = format!("its outlines take more than {} steps to fill, the most that is taken", steps - 1);
        assert_eq!(filled(steps - 1).unwrap_err(), refusal);
        // Each region has all that are in it.
        let nested = format!("<Annotations>{}{}</Annotations>", "<Region>".repeat(2_000), "</Region>".repeat(2_000));
        let limits = ImageLimits { decoded_bytes: 1_000_000, ..ImageLimits::default() };
        assert!(mask(nested.as_bytes(), (4, 4), &limits).unwrap_err().contains("more than 1000000 steps"));
    }
}
