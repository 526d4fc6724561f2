use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::MAX_POINTS;

/// How many random points an evaluation draws: `positive/negative`, as in the paper's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Setting {
    positive: u32,
    negative: u32,
}

/// Why a text is no setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "setting {text:?} is not usable, expected positive/negative such as 3/3, with at least one positive point and at most {MAX_POINTS} in all"
)]
pub struct SettingError {
    text: String,
}

impl Setting {
    /// At least one positive point, at most [`MAX_POINTS`] in all.
    pub fn new(positive: u32, negative: u32) -> Result<Self, SettingError> {
        let total = u64::from(positive) + u64::from(negative);
        if positive >= 1 && total <= MAX_POINTS as u64 {
            Ok(Self { positive, negative })
        } else {
            Err(SettingError { text: format!("{positive}/{negative}") })
        }
    }

    /// Points on the object.
    pub fn positive(self) -> u32 {
        self.positive
    }

    /// Points beside it.
    pub fn negative(self) -> u32 {
        self.negative
    }
}

impl FromStr for Setting {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let unusable = || SettingError { text: text.chars().take(40).collect() };
        let (positive, negative) = text.split_once('/').ok_or_else(unusable)?;
        let count = |part: &str| part.trim().parse().map_err(|_| unusable());
        Self::new(count(positive)?, count(negative)?)
    }
}

impl TryFrom<String> for Setting {
    type Error = SettingError;

    fn try_from(text: String) -> Result<Self, SettingError> {
        text.parse()
    }
}

impl From<Setting> for String {
    fn from(setting: Setting) -> Self {
        setting.to_string()
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&format!("{}/{}", self.positive, self.negative))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let setting: Setting = "3/2".parse().unwrap();
        assert_eq!((setting.positive(), setting.negative(), setting.to_string().as_str()), (3, 2, "3/2"));
        assert_eq!(serde_json::from_str::<Setting>("\"3/2\"").unwrap(), setting);
    }

    #[test]
    fn refuses_what_says_nothing_about_the_foreground() {
        for text in ["", "3", "0/3", "-1/2", "a/b", "1000/1", "4294967295/4294967295"] {
            assert!(text.parse::<Setting>().unwrap_err().to_string().contains("such as 3/3"), "{text}");
        }
    }
}
