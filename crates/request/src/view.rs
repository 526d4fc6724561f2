use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What of an image file becomes the picture: which slice of a volume, and which of its values are black and white.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct View {
    /// Which axial slice of a volume (NIfTI), counted from 0 along the file's axis that is nearest to the patient's. Needed for a
    /// volume of several, and wrong for a flat image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slice: Option<u32>,
    /// Which values are shown. Without one: 8-bit images as they are, DICOM by its own window, other images of more bits from their
    /// 0.1 % to their 99.9 % percentile, a volume's slice by its least and greatest value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
}

/// Values up to `centre - width / 2` are black, from `centre + width / 2` on white, linear between. In JSON `[centre, width]`; for CT
/// in Hounsfield units, soft tissue is `[40, 400]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "[f64; 2]", into = "[f64; 2]")]
pub struct Window {
    centre: f64,
    width: f64,
}

/// Why two numbers are no window.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WindowError {
    /// Infinite, not a number, or without width.
    #[error("window [{centre}, {width}] is not usable, expected a finite centre and a width of more than 0")]
    Unusable {
        /// As given.
        centre: f64,
        /// As given.
        width: f64,
    },
    /// Not two numbers.
    #[error("expected two numbers, CENTRE,WIDTH")]
    NotTwoNumbers,
}

impl Window {
    /// A finite centre, a width above zero.
    pub fn new(centre: f64, width: f64) -> Result<Self, WindowError> {
        if centre.is_finite() && width.is_finite() && width > 0.0 {
            Ok(Self { centre, width })
        } else {
            Err(WindowError::Unusable { centre, width })
        }
    }

    /// The value shown as middle grey.
    pub fn centre(self) -> f64 {
        self.centre
    }

    /// From black to white.
    pub fn width(self) -> f64 {
        self.width
    }
}

impl TryFrom<[f64; 2]> for Window {
    type Error = WindowError;

    fn try_from([centre, width]: [f64; 2]) -> Result<Self, WindowError> {
        Self::new(centre, width)
    }
}

/// `centre,width`, as on a command line.
impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let (centre, width) = text.split_once(',').ok_or(WindowError::NotTwoNumbers)?;
        let number = |text: &str| text.trim().parse().map_err(|_| WindowError::NotTwoNumbers);
        Self::new(number(centre)?, number(width)?)
    }
}

impl From<Window> for [f64; 2] {
    fn from(Window { centre, width }: Window) -> Self {
        [centre, width]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_read_and_written_as_slice_and_window() {
        let view: View = serde_json::from_str(r#"{"slice": 70, "window": [40, 400]}"#).unwrap();
        assert_eq!(view, View { slice: Some(70), window: Some(Window::new(40.0, 400.0).unwrap()) });
        assert_eq!(serde_json::to_string(&view).unwrap(), r#"{"slice":70,"window":[40.0,400.0]}"#);
        assert_eq!(serde_json::to_string(&View::default()).unwrap(), "{}");
    }

    #[test]
    fn refuses_a_window_without_width() {
        for window in ["[40, 0]", "[40, -1]", "[40]"] {
            assert!(serde_json::from_str::<Window>(window).is_err(), "{window}");
        }
        for window in ["", "40", "40,0", "40,wide", "40,400,4"] {
            assert!(window.parse::<Window>().is_err(), "{window}");
        }
        assert_eq!("40, 400".parse(), Window::new(40.0, 400.0));
    }
}
