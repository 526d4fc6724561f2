//! What the method is compared with in the paper's appendix C, "Super-Clustering": superpixels, two clusters of their colours, and
//! the points' choice between the two.
//!
//! The appendix names the techniques and gives no sizes; those here are Achanta's own and usual ones. No number is random.

mod lab;
mod slic;
#[cfg(test)]
mod tests;
mod two_means;

use image::{GrayImage, Luma, RgbImage};
use request::{Label, Point, Points};

use lab::LabImage;

/// A mask of the image's size, 0 or 255: the one of two clusters of colour that the points choose. No tensor takes part.
///
/// The chosen cluster has the more votes: its positive points less its negative ones. With equal votes it is the first positive
/// point's. An image of one colour is one cluster, and the mask is full.
pub fn super_clustering(image: &RgbImage, points: &Points) -> GrayImage {
    let (width, height) = image.dimensions();
    if width == 0 || height == 0 {
        return GrayImage::new(width, height);
    }
    let superpixels = slic::superpixels(&LabImage::of(image));
    let in_second = two_means::split(&superpixels.colours);
    let cluster_at = |x: u32, y: u32| in_second[superpixels.labels[y as usize * width as usize + x as usize] as usize];
    let cluster_under = |point: &Point| cluster_at((point.x as u32).min(width - 1), (point.y as u32).min(height - 1));

    let votes = |label| points.of(label).map(|point| if cluster_under(point) { 1 } else { -1 }).sum::<i32>();
    let foreground = match votes(Label::Positive) - votes(Label::Negative) {
        0 => points.of(Label::Positive).next().is_some_and(cluster_under),
        votes_for_second => votes_for_second > 0,
    };
    GrayImage::from_fn(width, height, |x, y| Luma([if cluster_at(x, y) == foreground { 255 } else { 0 }]))
}
