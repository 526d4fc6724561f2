use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The most points one request may carry. The paper uses at most ten; a thousand is far past any labelling tool's click count.
pub const MAX_POINTS: usize = 1_000;

/// Which side of the mask a point is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// Background (0).
    Negative,
    /// Foreground (1).
    Positive,
}

/// A dot on the image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Pixels of the original image, from its left edge to the right.
    pub x: f64,
    /// Pixels of the original image, from its top edge down.
    pub y: f64,
    /// Foreground or background.
    pub label: Label,
}

/// The dots of one request: at least one positive, all finite and not negative, at most [`MAX_POINTS`].
///
/// In JSON `[[x, y, label], ...]`, on a command line `x,y,label;x,y,label`; the label is 1 for foreground, 0 for background.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Vec<f64>>", into = "Vec<[f64; 3]>")]
pub struct Points(Vec<Point>);

/// Why a list of points is refused. Points are numbered from 1.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PointsError {
    /// Nothing says what the foreground is.
    #[error("no positive point: at least one point needs the label 1")]
    NoPositive,
    /// More than [`MAX_POINTS`].
    #[error("{count} points, but a request may have at most {MAX_POINTS}")]
    TooMany {
        /// How many there were.
        count: usize,
    },
    /// Not three numbers.
    #[error("point {number} has {count} numbers, expected three: x, y, label")]
    Arity {
        /// Which point.
        number: usize,
        /// How many numbers it has.
        count: usize,
    },
    /// The label is not 0 or 1.
    #[error("point {number} has label {label}, expected 1 (foreground) or 0 (background)")]
    Label {
        /// Which point.
        number: usize,
        /// What stands in the label's place.
        label: String,
    },
    /// NaN, infinite, or not a number at all.
    #[error("point {number} is at ({x}, {y}), expected two finite numbers of pixels")]
    NotFinite {
        /// Which point.
        number: usize,
        /// As given.
        x: String,
        /// As given.
        y: String,
    },
    /// Left of, above, right of or below the image.
    #[error("point {number} at ({x}, {y}) is outside the image, {within}")]
    Outside {
        /// Which point.
        number: usize,
        /// Pixels.
        x: f64,
        /// Pixels.
        y: f64,
        /// What is known of the image's extent.
        within: String,
    },
}

impl Points {
    /// Validates everything that can be known without the image.
    pub fn new(points: Vec<Point>) -> Result<Self, PointsError> {
        if points.len() > MAX_POINTS {
            return Err(PointsError::TooMany { count: points.len() });
        }
        for (index, &Point { x, y, .. }) in points.iter().enumerate() {
            let number = index + 1;
            if !x.is_finite() || !y.is_finite() {
                return Err(PointsError::NotFinite { number, x: x.to_string(), y: y.to_string() });
            }
            if x < 0.0 || y < 0.0 {
                return Err(PointsError::Outside { number, x, y, within: "which begins at (0, 0)".into() });
            }
        }
        if !points.iter().any(|point| point.label == Label::Positive) {
            return Err(PointsError::NoPositive);
        }
        Ok(Self(points))
    }

    /// Checks the points against the size of their image, in pixels: 0 <= x < width, 0 <= y < height.
    pub fn check_inside(&self, width: u32, height: u32) -> Result<(), PointsError> {
        let outside = |point: &Point| point.x >= f64::from(width) || point.y >= f64::from(height);
        match self.0.iter().position(outside) {
            None => Ok(()),
            Some(index) => Err(PointsError::Outside {
                number: index + 1,
                x: self.0[index].x,
                y: self.0[index].y,
                within: format!("which is {width} wide and {height} high"),
            }),
        }
    }

    /// All points, in the order given.
    pub fn as_slice(&self) -> &[Point] {
        &self.0
    }

    /// The points of one label, in the order given.
    pub fn of(&self, label: Label) -> impl Iterator<Item = &Point> {
        self.0.iter().filter(move |point| point.label == label)
    }
}

impl TryFrom<Vec<Vec<f64>>> for Points {
    type Error = PointsError;

    fn try_from(rows: Vec<Vec<f64>>) -> Result<Self, PointsError> {
        let point = |(index, row): (usize, &Vec<f64>)| {
            let number = index + 1;
            let &[x, y, label] = row.as_slice() else {
                return Err(PointsError::Arity { number, count: row.len() });
            };
            let label = match label {
                1.0 => Label::Positive,
                0.0 => Label::Negative,
                other => return Err(PointsError::Label { number, label: other.to_string() }),
            };
            Ok(Point { x, y, label })
        };
        Self::new(rows.iter().enumerate().map(point).collect::<Result<_, _>>()?)
    }
}

impl From<Points> for Vec<[f64; 3]> {
    fn from(points: Points) -> Self {
        points.0.into_iter().map(|Point { x, y, label }| [x, y, f64::from(u8::from(label == Label::Positive))]).collect()
    }
}

impl FromStr for Points {
    type Err = PointsError;

    fn from_str(text: &str) -> Result<Self, PointsError> {
        let mut points = Vec::new();
        for (index, part) in text.split(';').filter(|part| !part.trim().is_empty()).enumerate() {
            let number = index + 1;
            let fields: Vec<&str> = part.split(',').map(str::trim).collect();
            let &[x, y, label] = fields.as_slice() else {
                return Err(PointsError::Arity { number, count: fields.len() });
            };
            let label = match label {
                "1" => Label::Positive,
                "0" => Label::Negative,
                other => return Err(PointsError::Label { number, label: other.into() }),
            };
            let (Ok(x), Ok(y)) = (x.parse(), y.parse()) else {
                return Err(PointsError::NotFinite { number, x: x.into(), y: y.into() });
            };
            points.push(Point { x, y, label });
        }
        Self::new(points)
    }
}

impl fmt::Display for Points {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Point { x, y, label }) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ";" };
            write!(formatter, "{separator}{x},{y},{}", u8::from(*label == Label::Positive))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        text.parse::<Points>().expect_err("must be refused").to_string()
    }

    #[test]
    fn reads_and_writes_the_same_points_as_text_and_as_json() {
        let points: Points = " 10,20.5,1; 3,4,0;".parse().expect("valid");
        assert_eq!(points.to_string(), "10,20.5,1;3,4,0");
        let json = serde_json::to_string(&points).expect("serialises");
        assert_eq!(json, "[[10.0,20.5,1.0],[3.0,4.0,0.0]]");
        assert_eq!(serde_json::from_str::<Points>(&json).expect("valid"), points);
        assert_eq!(serde_json::from_str::<Points>("[[10, 20.5, 1], [3, 4, 0]]").expect("valid"), points);
    }

    #[test]
    fn refuses_points_that_say_nothing_about_the_foreground() {
        for text in ["", "5,5,0", ";"] {
            assert!(refusal(text).contains("no positive point"), "{text:?}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_point_by_its_number() {
        assert!(refusal("1,1,1;NaN,2,1").contains("point 2 is at (NaN, 2)"));
        assert!(refusal("1,1,1;1,inf,1").contains("point 2"));
        assert!(refusal("1,1,1;x,2,1").contains("point 2 is at (x, 2)"));
        assert!(refusal("1,1").contains("point 1 has 2 numbers"));
        assert!(refusal("1,1,2").contains("label 2"));
        assert!(refusal("1,1,1;-1,2,1").contains("point 2 at (-1, 2) is outside the image"));
    }

    #[test]
    fn refuses_ten_thousand_points() {
        let text = "1,1,1;".repeat(10_000);
        assert_eq!(refusal(&text), "10000 points, but a request may have at most 1000");
    }

    #[test]
    fn refuses_a_point_outside_the_image_and_names_it() {
        let points: Points = "0,0,1;31.9,15.9,0".parse().expect("valid");
        assert_eq!(points.check_inside(32, 16), Ok(()));
        let error = points.check_inside(31, 16).expect_err("outside").to_string();
        assert_eq!(error, "point 2 at (31.9, 15.9) is outside the image, which is 31 wide and 16 high");
    }
}
